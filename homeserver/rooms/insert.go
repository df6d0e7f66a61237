// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Missing says that an event cannot be inserted before others are there: fetch them first.
type Missing struct {
	Event string
	IDs   []string // of prev_events and auth_events
}

// Error names the missing events.
func (m *Missing) Error() string {
	return fmt.Sprintf("rooms: event %s needs %s first", m.Event, strings.Join(m.IDs, ", "))
}

// Insert adds events that somebody else built to a room, all or none, in an order in which each comes after its prev_events (an event
// whose prev_events or auth_events are not known is an error, a *Missing). Each is authorised by its auth events, by the state before
// it, and by the room's state as the events before it left it (server-server API, "Checks performed on receipt of a PDU"): one that
// fails the first two is stored as rejected, one that fails the third as soft-failed; neither is shown to clients nor moves the room.
// Events that are already there are passed over. Signatures are the caller's to check. The answer holds one status per event.
//
// What a batch does to the room's current state is told with the event that did it while the room is in one line, and with the last
// accepted event of the batch while it is forked: forks are resolved once a batch.
//
// An event that is there as an outlier gets its place now. A room that this server takes no part in is ErrNoRoom. Forks that grow too
// many are merged by an event of ours, where one of our users may send it.
func (s *Service) Insert(ctx context.Context, roomID string, events []*event.Event) ([]storage.Status, error) {
	return s.insertAll(ctx, roomID, events, entry{})
}

// entry is how events come into a room.
type entry struct {
	relay bool                // they came to us alone: the other servers hear of them from us
	given map[string][]string // by event id: the state before it, where it does not follow from its prev_events
	own   *Draft              // what the one event was made of; the room's policy server has signed it
	soft  map[string]bool     // by event id: what the room's policy server does not recommend; filled in by insertAll
}

func (s *Service) insertAll(ctx context.Context, roomID string, events []*event.Event, how entry) ([]storage.Status, error) {
	for try := 0; ; try++ {
		r, err := s.Room(ctx, roomID)
		if err != nil {
			return nil, err
		}
		if how.own == nil {
			if events, how.soft, err = s.screen(ctx, r, events); err != nil {
				return nil, err
			}
		}
		done := make(chan error, 1)
		st, queued, err := r.insert(ctx, events, how, done)
		if err == nil && queued {
			select {
			case err = <-done:
			case <-ctx.Done():
				err = ctx.Err()
			}
		} else if err == nil {
			err = r.durable(ctx, events)
		}
		if (errors.Is(err, errStale) || errors.Is(err, storage.ErrConflict)) && s.again(ctx, try) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(r.Head().ext) > maxExtremities && how.own == nil {
			s.merge(ctx, r)
		}
		return st, nil
	}
}

// durable waits for events whose commit is under way: whoever brings one again is told that it is there only when it is.
func (r *Room) durable(ctx context.Context, events []*event.Event) error {
	for _, e := range events {
		if r.s.pending.byID(e.ID()) != nil {
			return r.barrier(ctx)
		}
	}
	return nil
}

// barrier waits until everything that is queued for the room is committed; errStale when some of it was not.
func (r *Room) barrier(ctx context.Context) error {
	return r.s.store.Write(ctx, func(*storage.Tx) error {
		if r.poisoned.Load() {
			return errStale
		}
		return nil
	})
}

func (r *Room) insert(ctx context.Context, events []*event.Event, how entry, done chan error) (out []storage.Status, queued bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return nil, false, errStale
	}
	r.used = r.s.clock.Now()
	if !r.next.here(r.s.signer.Server) {
		return nil, false, ErrNoRoom
	}
	b := &batch{ctx: ctx, r: r, how: how, head: r.next, ext: slices.Clone(r.next.ext), after: map[int64]int64{}, resolver: resolver{ctx: ctx, r: r, known: map[string]*resolution{}}}
	defer func() {
		if !queued {
			r.s.pending.drop(b.plan)
		}
	}()
	for _, e := range events {
		if e.RoomID() != r.ID || e.Version() != r.Version {
			return nil, false, signalling.InvalidParam("event %s is not of room %s", e.ID(), r.ID)
		}
		there, err := r.s.byEventID(ctx, r, e.ID())
		if err != nil {
			return nil, false, err
		}
		old := there[e.ID()]
		if old != nil && (old.StateAfter != 0 || old.Is("m.room.create", "")) {
			out = append(out, old.Status)
			continue
		}
		status, err := b.add(e, old)
		if err != nil {
			return nil, false, err
		}
		out = append(out, status)
	}
	if len(b.plan) == 0 {
		return out, false, nil
	}
	if b.forked {
		if err := b.settle(b.last); err != nil {
			return nil, false, err
		}
	}
	for i := range b.plan { // what follows an event that the batch settled stands on the head it left
		p := &b.plan[i]
		if p.after == nil {
			p.after = b.start(i)
		}
	}
	if err := r.enqueue(b.plan, nil, b.head, func(err error) { done <- err }); err != nil {
		return nil, true, err
	}
	return out, true, nil
}

// noteHoles keeps the room's holes and early redactions in step with a plan that is about to be queued. The room's lock is held.
func (r *Room) noteHoles(plan []planned) {
	for _, p := range plan {
		delete(r.gaps, p.stored.ID())
		delete(r.early, p.stored.ID())
		for _, id := range p.missing {
			r.gaps[id] = append(r.gaps[id], p.stored.NID)
		}
		if p.early != "" {
			r.early[p.early] = append(r.early[p.early], p.stored.NID)
		}
	}
	r.holes.Store(int64(len(r.gaps)))
}
