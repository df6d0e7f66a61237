// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"context"

	"github.com/trunkboard/trunkboard/signalling"
)

// Admit judges a token of ours that is about to be used: who left the room, or logged out, since it was made stays outside. open says
// whether its holder may open the room. Errors: M_FORBIDDEN, M_UNAUTHORIZED.
func (s *Service) Admit(ctx context.Context, room, identity, held string) (open bool, err error) {
	m, ok := readHolder(held)
	if !ok || m.MediaRoom() != room || m.Identity() != identity {
		return false, signalling.Refuse(401, "M_UNAUTHORIZED", "this token does not say whom it was made for")
	}
	// Noted first, then asked: whoever leaves in between is found by UserLeft.
	at := place{room, identity}
	h := &holder{Member: m, seen: s.Clock.Now()}
	s.mu.Lock()
	s.holders.Remove(at) // unlists it
	s.holders.Add(at, h)
	s.list(h)
	s.mu.Unlock()
	if err := s.Homeserver.Present(ctx, m.RoomID, m.UserID, m.DeviceID); err != nil {
		s.mu.Lock()
		if now, ok := s.holders.Peek(at); ok && now == h {
			s.holders.Remove(at)
		}
		s.unlist(h)
		s.mu.Unlock()
		return false, err
	}
	return !s.Restricted || s.own(m.UserID), nil
}

// Came is for the SFU: somebody is in a room. It never waits.
func (s *Service) Came(room, identity, session string) {
	at := place{room, identity}
	s.mu.Lock()
	h, ok := s.holders.Peek(at)
	if !ok {
		if h, ok = s.present[at]; !ok { // of a token that somebody else made
			s.mu.Unlock()
			return
		}
		h = &holder{Member: h.Member, revoked: h.revoked}
	} else {
		s.holders.Remove(at) // unlists it
	}
	if old := s.present[at]; old != nil {
		s.unlist(old)
	}
	h.session = session
	s.present[at] = h
	s.list(h)
	if h.revoked {
		s.later(func() { s.Media.Remove(room, identity) })
	}
	s.mu.Unlock()
	s.Leaves.Came(room, identity)
	if s.Attendance != nil {
		s.Attendance.Arrived(h.Member, session, s.Clock.Now())
	}
}

// Went is for the SFU: somebody has left a room. replaced: another session of the same name takes the place. saidSo: the client itself
// said goodbye. It never waits.
func (s *Service) Went(room, identity, session string, replaced, saidSo bool) {
	at := place{room, identity}
	s.mu.Lock()
	h := s.present[at]
	if h == nil || h.session != session {
		s.mu.Unlock()
		return
	}
	if !replaced {
		delete(s.present, at)
		s.unlist(h)
	}
	s.mu.Unlock()
	if !replaced {
		s.Leaves.Went(room, identity, saidSo)
	}
	if s.Attendance != nil {
		s.Attendance.Departed(h.Member, session, s.Clock.Now())
	}
}

// UserLeft ends the media of a user in a room: he left it, or was removed. It never waits.
func (s *Service) UserLeft(roomID, userID string) {
	s.end(userID, func(m Member) bool { return m.RoomID == roomID })
}

// LoggedOut ends the media of a device. It never waits.
func (s *Service) LoggedOut(userID, deviceID string) {
	s.end(userID, func(m Member) bool { return m.DeviceID == deviceID })
}

// Count is the number of members in the SFU.
func (s *Service) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.present)
}

func (s *Service) end(userID string, which func(Member) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.byUser[userID] {
		if which(h.Member) {
			h.revoked = true
			s.later(func() { s.Media.Remove(h.MediaRoom(), h.Identity()) })
		}
	}
}

// later does what must not be done under a lock of the SFU. Call it with mu held.
func (s *Service) later(f func()) {
	if !s.closed {
		s.work.Go(f)
	}
}

// list and unlist keep byUser. Call them with mu held.
func (s *Service) list(h *holder) {
	if s.byUser[h.UserID] == nil {
		s.byUser[h.UserID] = map[*holder]struct{}{}
	}
	s.byUser[h.UserID][h] = struct{}{}
}

func (s *Service) unlist(h *holder) {
	if delete(s.byUser[h.UserID], h); len(s.byUser[h.UserID]) == 0 {
		delete(s.byUser, h.UserID)
	}
}
