// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// UseGuests says who is a guest: guests join only rooms that let them (client-server API, "Guest Access"). Call it before the first
// request.
func (s *Service) UseGuests(isGuest func(ctx context.Context, user string) (bool, error)) {
	s.isGuest = isGuest
}

// AdmitsGuests says whether guests may join a room whose m.room.guest_access is e, which may be nil.
func AdmitsGuests(e *Stored) bool {
	return e != nil && gjson.GetBytes(e.Content(), "guest_access").Str == "can_join"
}

// guestMayJoin refuses a join of a local guest where the room does not let guests in. Errors: M_GUEST_ACCESS_FORBIDDEN.
func (r *Room) guestMayJoin(ctx context.Context, head *Head, user string) error {
	if r.s.isGuest == nil || event.ServerOf(user) != r.s.signer.Server || head.IsJoined(user) {
		return nil
	}
	if guest, err := r.s.isGuest(ctx, user); err != nil || !guest {
		return err
	}
	e, err := r.State(ctx, head, "m.room.guest_access", "")
	if err == nil && !AdmitsGuests(e) {
		err = signalling.Refuse(403, "M_GUEST_ACCESS_FORBIDDEN", "guests may not join this room; register an account first")
	}
	return err
}

// PutOutGuests takes the guests of this server out of a room that does not let guests in (any more).
func (s *Service) PutOutGuests(ctx context.Context, roomID string) error {
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return err
	}
	for _, user := range r.Head().Joined() {
		if s.isGuest == nil || event.ServerOf(user) != s.signer.Server {
			continue
		}
		guest, err := s.isGuest(ctx, user)
		if err != nil {
			return err
		}
		if !guest {
			continue
		}
		if err := s.PutOutGuest(ctx, roomID, user); err != nil {
			return err
		}
	}
	return nil
}

// PutOutGuest takes one guest out of a room if it does not let guests in.
func (s *Service) PutOutGuest(ctx context.Context, roomID, user string) error {
	r, err := s.Room(ctx, roomID)
	if errors.Is(err, ErrNoRoom) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := r.State(ctx, r.Head(), "m.room.guest_access", "")
	if err != nil || AdmitsGuests(e) || !r.Head().IsJoined(user) {
		return err
	}
	return s.SetMembership(ctx, roomID, user, "", user, "leave", "guests are not let in any more", nil)
}
