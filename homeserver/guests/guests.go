// SPDX-License-Identifier: Apache-2.0

// Package guests takes guests out of rooms that stop letting them in (client-server API, "Guest Access").
package guests

import (
	"context"
	"log/slog"
	"sync"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Service watches rooms. Connect Observe to the store and start Run.
type Service struct {
	rooms    *rooms.Service
	accounts *accounts.Service
	log      *slog.Logger

	mu      sync.Mutex
	pending map[string]struct{} // rooms to be looked at, each once however often it changes
	wake    chan struct{}
}

// New makes the service.
func New(r *rooms.Service, a *accounts.Service, log *slog.Logger) *Service {
	return &Service{rooms: r, accounts: a, log: log, pending: map[string]struct{}{}, wake: make(chan struct{}, 1)}
}

// Observe notes rooms that let no guests in. It never waits.
func (s *Service) Observe(_ int64, notes []storage.Note) {
	for i := range notes {
		c, ok := notes[i].Value.(*rooms.Committed)
		if notes[i].Kind != storage.NoteEvent || !ok || c.Stored == nil || c.Stored.Status != storage.StatusOK || c.Stored.Type() != "m.room.guest_access" || !c.Stored.IsState() || rooms.AdmitsGuests(c.Stored) {
			continue
		}
		s.mu.Lock()
		s.pending[c.Room.ID] = struct{}{}
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Run takes guests out until ctx ends. It begins with all guests, for what a stop of the server left undone.
func (s *Service) Run(ctx context.Context) error {
	if err := s.all(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("guests could not be looked through", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		s.mu.Lock()
		now := s.pending
		s.pending = map[string]struct{}{}
		s.mu.Unlock()
		for id := range now {
			if err := s.rooms.PutOutGuests(ctx, id); err != nil && ctx.Err() == nil {
				s.log.Error("guests could not be taken out of a room", "room", id, "err", err)
			}
		}
	}
}

func (s *Service) all(ctx context.Context) error {
	const page = 500
	for after := ""; ; {
		users, err := s.accounts.Guests(ctx, after, page)
		if err != nil {
			return err
		}
		for _, u := range users {
			in, err := s.rooms.UserRooms(ctx, u)
			if err != nil {
				return err
			}
			for id, m := range in {
				if m.Membership != "join" {
					continue
				}
				if err := s.rooms.PutOutGuest(ctx, id, u); err != nil {
					return err
				}
			}
		}
		if len(users) < page {
			return nil
		}
		after = users[page-1]
	}
}
