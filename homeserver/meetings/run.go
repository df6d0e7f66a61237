// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	retryAfter = 5 * time.Second
	pruneEvery = 10 * time.Minute
	touchEvery = time.Hour // of sessions whose holders are there
	pruneBatch = 500
	restored   = 50_000 // sessions, the newest
)

// Run follows the meetings until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.restore(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("meetings from before the start could not be read", "err", err)
	}
	prune := s.Clock.Now()
	for {
		now := s.Clock.Now()
		if !now.Before(prune) {
			prune = now.Add(pruneEvery)
			if err := s.prune(ctx, now); err != nil && ctx.Err() == nil {
				s.Log.Error("old meetings could not be removed; it is tried again", "err", err)
			}
		}
		next := s.step(ctx)
		if next.IsZero() || next.After(prune) {
			next = prune
		}
		stop := s.Clock.AfterFunc(max(0, next.Sub(s.Clock.Now())), s.nudge)
		select {
		case <-ctx.Done():
			stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryAfter)
			defer cancel()
			s.step(last)
			return nil
		case <-s.wake:
		}
		stop()
	}
}

// step does what is to be done, and says when there is more.
func (s *Service) step(ctx context.Context) (next time.Time) {
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	now := s.Clock.Now()
	s.mu.Lock()
	ids := make([]string, 0, len(s.lives))
	for id, l := range s.lives {
		if l.idle() {
			delete(s.lives, id)
			continue
		}
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		at, err := s.follow(ctx, id, now)
		if err != nil && ctx.Err() == nil {
			s.Log.Error("a meeting could not be followed; trying again", "room", id, "err", err)
			at = now.Add(retryAfter)
		}
		sooner(at)
	}
	return next
}

// follow does what is to be done for one meeting.
func (s *Service) follow(ctx context.Context, roomID string, now time.Time) (next time.Time, err error) {
	var leaving, knocked, touch []*person
	s.mu.Lock()
	l := s.lives[roomID]
	if l == nil {
		s.mu.Unlock()
		return next, nil
	}
	due := func(since time.Time, d time.Duration) bool {
		at := since.Add(d)
		if !now.Before(at) {
			return true
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		return false
	}
	for id, p := range l.expected {
		if due(p.since, expectFor) {
			delete(l.expected, id)
			p.since = now
			l.gone[id] = p
			l.dirty = true
			due(now, goneFor)
		}
	}
	for id, p := range l.gone {
		if due(p.since, goneFor) {
			leaving = append(leaving, p)
			delete(l.gone, id)
		}
	}
	for user, p := range l.waiting {
		if due(p.since, knockFor) {
			knocked = append(knocked, p)
			delete(l.waiting, user)
		}
	}
	for _, p := range l.present {
		if due(p.touched, touchEvery) {
			p.touched = now
			touch = append(touch, p)
		}
	}
	dirty, ousted := l.dirty, l.ousted
	l.ousted = map[string]bool{}
	s.mu.Unlock()

	if len(ousted) > 0 {
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
			for user := range ousted {
				if err := tx.EndMeetingSessions(roomID, user); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			s.again(roomID, leaving)
			s.mu.Lock()
			maps.Copy(s.live(roomID).ousted, ousted)
			s.mu.Unlock()
			return next, err
		}
	}

	if dirty {
		if err := s.describe(ctx, roomID); err != nil {
			s.again(roomID, nil)
			return next, err
		}
	}
	at, err := s.record(ctx, roomID, now)
	if err != nil {
		s.again(roomID, leaving)
		return next, err
	}
	if !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	for i, p := range leaving {
		if err := s.leaves(ctx, p); err != nil {
			s.again(roomID, leaving[i:])
			return next, err
		}
	}
	for _, p := range knocked {
		if err := s.giveUp(ctx, p); err != nil {
			return next, err
		}
	}
	if len(touch) > 0 {
		err = s.Store.Write(ctx, func(tx *storage.Tx) error {
			for _, p := range touch {
				if err := tx.TouchMeetingMember(roomID, p.UserID, p.MemberID, now.UnixMilli()); err != nil {
					return err
				}
			}
			return tx.MeetingUsed(roomID, now.UnixMilli())
		})
	}
	return next, err
}

// again puts back what could not be done.
func (s *Service) again(roomID string, leaving []*person) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.live(roomID)
	l.dirty = true
	for _, p := range leaving {
		if id := p.Identity(); l.present[id] == nil && l.expected[id] == nil {
			l.gone[id] = p
		}
	}
}

// leaves takes a guest out of the room of a meeting that he is not in any more. Users with an account stay, but not in that of a call.
func (s *Service) leaves(ctx context.Context, p *person) error {
	if s.users(p.RoomID)[p.UserID] {
		return nil
	}
	guest, err := s.Accounts.IsGuest(ctx, p.UserID)
	if err != nil {
		return err
	}
	room, err := s.Rooms.Room(ctx, p.RoomID)
	if errors.Is(err, rooms.ErrNoRoom) {
		return nil
	}
	if err != nil {
		return err
	}
	if call, err := s.isCall(ctx, room); err != nil || !guest && !call {
		return err
	}
	if room.Head().IsJoined(p.UserID) {
		if err := s.Rooms.SetMembership(ctx, p.RoomID, p.UserID, "", p.UserID, "leave", "", nil); err != nil {
			return err
		}
	}
	return s.reset(ctx, p.RoomID)
}

// giveUp takes back the knock of somebody whose page asks no more.
func (s *Service) giveUp(ctx context.Context, p *person) error {
	room, err := s.Rooms.Room(ctx, p.RoomID)
	if errors.Is(err, rooms.ErrNoRoom) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.EndMeetingSessions(p.RoomID, p.UserID) }); err != nil {
		return err
	}
	if room.Head().Membership(p.UserID) != "knock" {
		return nil
	}
	return s.Rooms.SetMembership(ctx, p.RoomID, p.UserID, "", p.UserID, "leave", "", nil)
}

// restore takes up what went on before a restart: whoever was there has as long to come back as somebody who has just gone.
func (s *Service) restore(ctx context.Context) error {
	now := s.Clock.Now()
	open, err := s.Store.MeetingRecordsOpen(ctx, maxSessions, maxSessions)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, r := range open {
		l := s.live(r.RoomID)
		if l.record != 0 {
			continue
		}
		l.record, l.started, l.subject = r.ID, time.UnixMilli(r.StartedTS), r.Subject
		for _, v := range r.Visits {
			id := member(storage.MeetingSession{RoomID: r.RoomID, UserID: v.UserID, MemberID: v.MemberID}).Identity()
			if l.present[id] == nil && v.WentTS == 0 {
				v.WentTS = max(now.UnixMilli(), v.CameTS)
				l.unsaved[id] = true
			}
			l.visits[id] = v
		}
		l.dirty = true
	}
	s.mu.Unlock()
	list, err := s.Store.MeetingSessionsSince(ctx, now.Add(-sessionLife).UnixMilli(), restored)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range list {
		l, who := s.live(x.RoomID), member(x)
		p := &person{Member: who, name: x.Name, since: now, touched: now}
		switch {
		case x.Waits:
			l.waiting[x.UserID] = p
		case l.present[who.Identity()] == nil && l.expected[who.Identity()] == nil:
			l.gone[who.Identity()] = p
		}
	}
	return nil
}

// prune ends sessions that were not used for a day, with the accounts of guests, and forgets records and meetings that are old.
func (s *Service) prune(ctx context.Context, now time.Time) error {
	for {
		list, err := s.Store.MeetingSessionsBefore(ctx, now.Add(-sessionLife).UnixMilli(), pruneBatch)
		if err != nil {
			return err
		}
		for _, x := range list {
			if x.Kind == storage.MeetingUser { // the server was down when he left a call
				if err := s.leaves(ctx, &person{Member: member(x)}); err != nil {
					return err
				}
			}
			if x.Kind == storage.MeetingGuest {
				guest, err := s.Accounts.IsGuest(ctx, x.UserID) // he may have made it an account of his own
				if err != nil {
					return err
				}
				if guest {
					if err := s.Accounts.Deactivate(ctx, x.UserID, false); err != nil {
						return err
					}
				}
			}
			if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.DropMeetingSession(x.Hash) }); err != nil {
				return err
			}
		}
		if len(list) < pruneBatch {
			break
		}
	}
	if s.RetentionDays >= 0 {
		before := now.Add(-time.Duration(s.RetentionDays) * 24 * time.Hour).UnixMilli()
		for {
			n := int64(0)
			if err := s.Store.Write(ctx, func(tx *storage.Tx) (err error) {
				n, err = tx.PruneMeetingRecords(before, pruneBatch)
				return err
			}); err != nil {
				return err
			}
			if n < pruneBatch {
				break
			}
		}
	}
	return s.forget(ctx, now)
}
