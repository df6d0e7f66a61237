// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

const (
	endsAfter    = 2 * time.Minute // without anybody, a meeting is over
	recordsShown = 100
	visitsShown  = 1000
)

// came notes a visit. A member who is back before the meeting is over goes on with his last one.
func (l *live) came(p *person, at time.Time) {
	v, again := l.visits[p.Identity()]
	if !again {
		v = storage.MeetingVisit{MemberID: p.MemberID, UserID: p.UserID, Name: p.name, CameTS: at.UnixMilli()}
	}
	v.WentTS = 0
	l.visits[p.Identity()] = v
	l.unsaved[p.Identity()] = true
}

// went notes the end of a visit.
func (l *live) went(p *person, at time.Time) {
	if v, ok := l.visits[p.Identity()]; ok {
		v.WentTS = max(at.UnixMilli(), v.CameTS)
		l.visits[p.Identity()] = v
		l.unsaved[p.Identity()] = true
	}
}

// titled notes what the meeting is about.
func (l *live) titled(subject string) {
	if l.subject != subject {
		l.subject = subject
		l.retitled = l.record != 0
	}
}

// record writes down what has changed of a meeting's record, and ends it when nobody has been there for a while. It says when to look
// again; never for zero.
func (s *Service) record(ctx context.Context, roomID string, now time.Time) (next time.Time, err error) {
	s.mu.Lock()
	l := s.lives[roomID]
	if l == nil || l.record == 0 && len(l.unsaved) == 0 {
		s.mu.Unlock()
		return next, nil
	}
	row := storage.MeetingRecord{ID: l.record, RoomID: roomID, Subject: l.subject, StartedTS: ms(l.started)}
	last := int64(0)
	for _, v := range l.visits {
		if v.WentTS == 0 {
			last = 0
			break
		}
		last = max(last, v.WentTS)
	}
	over := false
	if len(l.present) == 0 && last > 0 {
		end := time.UnixMilli(last).Add(endsAfter)
		if over = l.finished || !now.Before(end); over {
			row.EndedTS = last
		} else {
			next = end
		}
	}
	unsaved := map[string]storage.MeetingVisit{}
	for id := range l.unsaved {
		unsaved[id] = l.visits[id]
	}
	clear(l.unsaved)
	write := row.ID == 0 || over || l.retitled
	l.retitled = false
	s.mu.Unlock()
	undo := func() {
		s.mu.Lock()
		for id := range unsaved {
			l.unsaved[id] = true
		}
		l.retitled = true
		s.mu.Unlock()
	}
	if len(unsaved) == 0 && !write {
		return next, nil
	}
	m, err := s.Store.MeetingOf(ctx, roomID)
	if err != nil {
		undo()
		return next, err
	}
	row.Name = m.Name
	if row.ID == 0 {
		if row.ID, err = s.Store.NID(ctx); err != nil {
			undo()
			return next, err
		}
	}
	for id, v := range unsaved {
		if v.RecordID = row.ID; v.ID == 0 {
			if v.ID, err = s.Store.NID(ctx); err != nil {
				undo()
				return next, err
			}
		}
		unsaved[id] = v
	}
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
		if write {
			if err := tx.PutMeetingRecord(row); err != nil {
				return err
			}
		}
		for _, v := range unsaved {
			if err := tx.PutMeetingVisit(v); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		undo()
		return next, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, v := range unsaved { // what they are called; when they went may have changed meanwhile
		now := l.visits[id]
		now.ID, now.RecordID = v.ID, v.RecordID
		l.visits[id] = now
	}
	l.record = row.ID
	if over && len(l.present) == 0 {
		l.record, l.started, l.finished = 0, time.Time{}, false
		clear(l.visits)
		clear(l.unsaved)
	}
	return next, nil
}

// Records lists what took place in a meeting, newest first, for its hosts. Errors: M_FORBIDDEN, M_INVALID_PARAM.
func (s *Service) Records(ctx context.Context, typed, secret string, c meeting.Caller) ([]meeting.Record, error) {
	m, err := s.hosted(ctx, typed, secret, c)
	if err != nil {
		return nil, err
	}
	rows, err := s.Store.MeetingRecords(ctx, m.RoomID, recordsShown, visitsShown)
	if err != nil {
		return nil, err
	}
	out := make([]meeting.Record, 0, len(rows))
	for _, r := range rows {
		one := meeting.Record{Name: r.Name, Subject: r.Subject, Started: r.StartedTS, Ended: r.EndedTS, People: []meeting.Visit{}}
		for _, v := range r.Visits {
			one.People = append(one.People, meeting.Visit{UserID: v.UserID, DisplayName: v.Name, Came: v.CameTS, Went: v.WentTS})
		}
		out = append(out, one)
	}
	return out, nil
}
