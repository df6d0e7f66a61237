// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// waits notes that somebody is in the lobby, and that his page is there.
func (s *Service) waits(m storage.Meeting, x storage.MeetingSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Clock.Now()
	l := s.live(m.RoomID)
	if p := l.waiting[x.UserID]; p != nil {
		p.since = now
		return
	}
	l.waiting[x.UserID] = &person{Member: member(x), name: x.Name, since: now, touched: now}
	s.nudge()
}

func (s *Service) waitsNoMore(roomID, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[roomID]; l != nil {
		delete(l.waiting, user)
	}
}

// poll makes a channel that is filled when something changes that concerns a user in a room; the caller ends it.
func (s *Service) poll(roomID, user string) (c chan struct{}, end func()) {
	c = make(chan struct{}, 1)
	s.mu.Lock()
	s.live(roomID).polls[c] = user
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l := s.lives[roomID]; l != nil {
			delete(l.polls, c)
		}
	}
}

// Wait waits, for half a minute at most, until somebody who knocked is let in. Errors: M_FORBIDDEN when he is not.
func (s *Service) Wait(ctx context.Context, typed, secret string, c meeting.Caller) (meeting.Entry, error) {
	x, m, err := s.session(ctx, typed, secret)
	if err != nil {
		return meeting.Entry{}, err
	}
	changed, end := s.poll(m.RoomID, x.UserID)
	defer end()
	if x.Waits {
		s.waits(m, x)
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.UseMeetingSession(x.Hash, true, s.Clock.Now().UnixMilli()) }); err != nil {
			return meeting.Entry{}, err
		}
	}
	over := time.NewTimer(pollTime)
	defer over.Stop()
	for {
		e, err := s.admitted(ctx, m, x, secret, c)
		if err != nil || !e.Waiting {
			return e, err
		}
		select {
		case <-changed:
		case <-over.C:
			s.waits(m, x)
			return e, nil
		case <-ctx.Done():
			return meeting.Entry{}, ctx.Err()
		}
	}
}

// admitted lets somebody in who waited, if he may by now.
func (s *Service) admitted(ctx context.Context, m storage.Meeting, x storage.MeetingSession, secret string, c meeting.Caller) (meeting.Entry, error) {
	wait := meeting.Entry{Waiting: true, Session: secret, RoomID: m.RoomID}
	door := s.door(m.RoomID)
	door.Lock()
	defer door.Unlock()
	// The meeting may have changed, and the session may be over.
	x, m, err := s.session(ctx, m.Name, secret)
	if err != nil {
		return wait, err
	}
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return wait, err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return wait, err
	}
	switch now := room.Head().Membership(x.UserID); {
	case now == "join", now == "invite", now == "knock" && v.access() == meeting.Open:
	case now == "knock":
		return wait, nil
	default:
		s.waitsNoMore(m.RoomID, x.UserID)
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.EndMeetingSession(x.Hash) }); err != nil {
			return wait, err
		}
		return wait, signalling.Forbidden("you were not let in")
	}
	who := &somebody{kind: x.Kind, user: x.UserID, device: x.DeviceID, name: x.Name}
	if err := s.enter(ctx, room, v, m, who); err != nil {
		return wait, err
	}
	var tokens *accounts.Tokens
	if x.Kind == storage.MeetingGuest {
		if tokens, err = s.tokens(ctx, x); err != nil {
			return wait, err
		}
	}
	return s.entry(ctx, room, m, x, secret, tokens, c)
}

// Knocks lists who waits in the lobby, for hosts. Errors: M_FORBIDDEN.
func (s *Service) Knocks(ctx context.Context, typed, secret string) ([]meeting.Knock, error) {
	m, err := s.hosted(ctx, typed, secret, meeting.Caller{})
	if err != nil {
		return nil, err
	}
	out := []meeting.Knock{}
	if bound(m) {
		return out, nil
	}
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return nil, err
	}
	for _, user := range knocking(room) {
		e, err := room.State(ctx, room.Head(), "m.room.member", user)
		if err != nil {
			return nil, err
		}
		if e == nil {
			continue
		}
		k := meeting.Knock{UserID: user, DisplayName: clip(textOf(e.Content(), "displayname"), maxDisplayName), Since: e.OriginTS()}
		if k.DisplayName == "" {
			k.DisplayName = user
		}
		if out = append(out, k); len(out) == 2*maxWaiting { // of other servers there may be any number
			break
		}
	}
	return out, nil
}
