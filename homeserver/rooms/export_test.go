// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Import makes a room of events that another Service made, the create event first.
func (s *Service) Import(ctx context.Context, v event.Version, events []*event.Event) error {
	e := events[0]
	nid, err := s.store.NID(ctx)
	if err != nil {
		return err
	}
	r := &Room{NID: nid, head: &headPointer{}, ID: e.RoomID(), Version: v, s: s, used: s.clock.Now(), gaps: map[string][]int64{}, early: map[string][]int64{}}
	if nid, err = s.store.NID(ctx); err != nil {
		return err
	}
	empty := &Head{state: &stateMap{}, members: newMembers(nil)}
	p := planned{foreign: true, stored: &Stored{Event: e, NID: nid}}
	if err := r.advance(ctx, &p, empty, []Extremity{{NID: nid, ID: e.ID(), Depth: e.Depth()}}, nil); err != nil {
		return err
	}
	r.floor, r.next = nid, empty
	r.head.Store(empty)
	done := make(chan error, 1)
	r.mu.Lock()
	err = r.enqueue([]planned{p}, func(tx *storage.Tx) error {
		return tx.InsertRoom(storage.RoomRow{NID: r.NID, ID: r.ID, Version: string(v)})
	}, p.after, func(err error) { done <- err })
	r.mu.Unlock()
	if err == nil {
		err = <-done
	}
	if err == nil {
		_, err = s.Insert(ctx, r.ID, events[1:])
	}
	return err
}

// Pending counts what is planned and not committed.
func (s *Service) Pending() int {
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	return len(s.pending.events) + len(s.pending.ids) + len(s.pending.groups)
}
