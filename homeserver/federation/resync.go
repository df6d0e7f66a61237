// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	largeRoom   = 2000 // depth of a room from which on a join asks for member events to be left out
	resyncVia   = 10   // servers that are asked for the state of one room
	resyncTime  = 5 * time.Minute
	resyncFirst = 30 * time.Second // before a room whose state could not be had is tried again; doubled each time
	resyncLast  = time.Hour
	resyncLook  = 5 * time.Minute // where there may be other nodes: between looks for rooms whose node is gone
)

// resyncs fetches the states of rooms that were joined with members left out (MSC3902), one room after the other, until ctx ends. What
// a crash interrupts goes on after the next start: the rooms are listed in the database.
func (s *Service) resyncs(ctx context.Context) {
	wait := resyncFirst
	for ctx.Err() == nil {
		list, err := s.Rooms.PartialRooms(ctx)
		if err != nil {
			s.Log.Warn("rooms without their whole state could not be listed", "err", err)
		}
		left := err != nil
		for _, p := range list {
			if err := s.resync(ctx, p); err != nil && ctx.Err() == nil {
				left = true
				s.Log.Info("the whole state of a room could not be had yet", "room", p.RoomID, "err", err)
			}
		}
		var again <-chan struct{}
		stop := func() bool { return true }
		pause := time.Duration(0)
		if left {
			pause, wait = wait, min(2*wait, resyncLast)
		} else {
			wait = resyncFirst
			if s.Store.Postgres() {
				pause = resyncLook
			}
		}
		if pause > 0 {
			due := make(chan struct{})
			stop = s.Clock.AfterFunc(pause, func() { close(due) })
			again = due
		}
		select {
		case <-ctx.Done():
		case <-s.partial:
		case <-again:
		}
		stop()
	}
}

// resync asks the servers in a room for its state before our join, until one gives it.
func (s *Service) resync(ctx context.Context, p storage.PartialRoom) error {
	r, err := s.Rooms.Room(ctx, p.RoomID)
	if err != nil {
		return err
	}
	where := url.PathEscape(p.RoomID) + "?" + url.Values{"event_id": {p.JoinID}}.Encode()
	asked := []string{s.server}
	last := errors.New("nobody is left to ask")
	for _, server := range append([]string{p.Via}, p.Servers...) {
		if slices.Contains(asked, server) || len(asked) > resyncVia || s.Permits(server) != nil {
			continue
		}
		asked = append(asked, server)
		if last = s.resyncFrom(ctx, server, r, where, p.JoinID); last == nil || ctx.Err() != nil {
			return last
		}
	}
	return last
}

func (s *Service) resyncFrom(ctx context.Context, server string, r *rooms.Room, where, joinID string) error {
	ctx, cancel := context.WithTimeout(ctx, resyncTime)
	defer cancel()
	var a joined
	if err := s.Client.Stream(ctx, Ask{Server: server, Path: "/_matrix/federation/v1/state/" + where, Timeout: resyncTime}, s.into(&a, server, r)); err != nil {
		return err
	}
	pdus, err := s.verifiedNew(ctx, server, r, a.pdus)
	if err != nil {
		return err
	}
	auth, err := s.verifiedNew(ctx, server, r, a.auth)
	if err != nil {
		return err
	}
	return s.Rooms.CompleteState(ctx, r.ID, joinID, pdus, auth)
}

// verifiedNew is verified for events of which many are here already. From room version 3 on an event that has the id of one that was
// checked before is that event.
func (s *Service) verifiedNew(ctx context.Context, server string, r *rooms.Room, events []*event.Event) ([]*event.Event, error) {
	if r.Version == "1" || r.Version == "2" {
		return s.verified(ctx, server, events), nil
	}
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID()
	}
	unknown, err := s.Rooms.Unknown(ctx, ids)
	if err != nil {
		return nil, err
	}
	fresh := make(map[string]bool, len(unknown))
	for _, id := range unknown {
		fresh[id] = true
	}
	isNew := func(e *event.Event) bool { return fresh[e.ID()] }
	news := slices.DeleteFunc(slices.Clone(events), func(e *event.Event) bool { return !isNew(e) })
	return append(slices.DeleteFunc(events, isNew), s.verified(ctx, server, news)...), nil
}
