// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// HasRead says whether a user's receipts reach an event of that content at a position.
func (s *Service) HasRead(ctx context.Context, user string, roomNID int64, content []byte, pos int64) (bool, error) {
	receipts, err := s.store.ReceiptsOf(ctx, roomNID, user)
	if err != nil {
		return false, err
	}
	thread := ""
	if rel := gjson.GetBytes(content, "m\\.relates_to"); rel.Get("rel_type").Str == "m.thread" {
		thread = rel.Get("event_id").Str
	}
	return marksOf(receipts).isRead(pos, thread), nil
}

func marksOf(receipts []storage.Receipt) *counter {
	c := &counter{marks: map[string]int64{}}
	for _, r := range receipts {
		if r.Type == "m.read" || r.Type == "m.read.private" {
			c.marks[r.ThreadID] = max(c.marks[r.ThreadID], r.EventPos)
		}
	}
	return c
}

// How far back notifications are listed.
const (
	notificationDays = 30
	notificationLook = 2000 // events looked at for one page
	notificationPage = 50   // events of a room read at once
)

// Notification is an event that a user was told of, or would have been had he been away ("GET
// /_matrix/client/v3/notifications").
type Notification struct {
	Actions []json.RawMessage `json:"actions"`
	Event   json.RawMessage   `json:"event"`
	Read    bool              `json:"read"`
	RoomID  string            `json:"room_id"`
	TS      int64             `json:"ts"` // ms since 1970
}

// line is a room's timeline as it is walked backwards.
type line struct {
	room   *rooms.Room
	marks  *counter
	events []*rooms.Stored // newest first
	to     int64           // everything from here on was taken
}

// Notifications lists, newest first, the events of the last 30 days in a user's rooms that his rules tell him of, as they are now.
// Nothing is kept for it: the rooms' timelines are walked back together, over a bounded number of events a page, so a page may hold
// fewer than limit although next is not empty. from is the next of the page before, "" for the first. Errors: M_INVALID_PARAM.
func (s *Service) Notifications(ctx context.Context, all *rooms.Service, user, device, from string, limit int, highlight bool) (out []Notification, next string, err error) {
	to := s.store.Pos() + 1
	if from != "" {
		if to, err = strconv.ParseInt(from, 10, 64); err != nil || to < 0 {
			return nil, "", signalling.InvalidParam("from must be the next_token of an earlier answer")
		}
	}
	lines, err := s.lines(ctx, all, user, to)
	if err != nil {
		return nil, "", err
	}
	set, err := s.Set(ctx, user)
	if err != nil {
		return nil, "", err
	}
	now := s.clock.Now()
	oldest := now.AddDate(0, 0, -notificationDays)
	out = []Notification{}
	for looked := 0; ; looked++ {
		l, err := newestOf(ctx, &lines)
		if err != nil || l == nil {
			return out, "", err
		}
		e := l.events[0]
		if len(out) >= limit || looked >= notificationLook {
			return out, strconv.FormatInt(e.Pos+1, 10), nil
		}
		l.events, l.to = l.events[1:], e.Pos
		if time.UnixMilli(e.OriginTS()).Before(oldest) {
			l.events, l.to = nil, 0
			continue
		}
		n, ok, err := s.notification(ctx, set, l, e, user, device, now, highlight)
		if err != nil {
			return nil, "", err
		}
		if ok {
			out = append(out, n)
		}
	}
}

func (s *Service) lines(ctx context.Context, all *rooms.Service, user string, to int64) ([]*line, error) {
	mine, err := all.UserRooms(ctx, user)
	if err != nil {
		return nil, err
	}
	var out []*line
	for id, m := range mine {
		if m.Membership != "join" && m.Membership != "invite" {
			continue
		}
		room, err := all.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		l := &line{room: room, to: min(to, room.Head().Pos()+1)}
		if m.Membership == "invite" { // of a room that he is not in he knows the invite
			l.to = 0
			e, err := room.ByRef(ctx, rooms.Ref{NID: m.EventNID})
			if err != nil {
				return nil, err
			}
			if e != nil && e.Pos > 0 && e.Pos < to {
				l.events = []*rooms.Stored{e}
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// newestOf gives the line with the newest event, nil when there is none. It reads on only in rooms that may hold it.
func newestOf(ctx context.Context, lines *[]*line) (*line, error) {
	for {
		var best *line
		at := func(l *line) int64 {
			if len(l.events) > 0 {
				return l.events[0].Pos
			}
			return l.to - 1
		}
		*lines = slices.DeleteFunc(*lines, func(l *line) bool { return len(l.events) == 0 && l.to <= 1 })
		for _, l := range *lines {
			if best == nil || at(l) > at(best) {
				best = l
			}
		}
		if best == nil || len(best.events) > 0 {
			return best, nil
		}
		events, err := best.room.Timeline(ctx, 0, best.to, notificationPage, true)
		if err != nil {
			return nil, err
		}
		if best.events = events; len(events) == 0 {
			best.to = 0
		}
	}
}

func (s *Service) notification(ctx context.Context, set *Set, l *line, e *rooms.Stored, user, device string, now time.Time, highlight bool) (n Notification, ok bool, err error) {
	view := NewView(e.Type(), e.Sender(), l.room.ID, e.StateKey(), e.JSON())
	o := set.Evaluate(user, view, ViewOf(ctx, l.room, l.room.Head()))
	if !o.Notify || highlight && !o.Highlight || e.RedactedBy != "" {
		return n, false, nil
	}
	was, err := l.room.MembershipAt(ctx, e, user)
	if err != nil || was != "join" && was != "invite" {
		return n, false, err // he came later
	}
	if l.marks == nil {
		receipts, err := s.store.ReceiptsOf(ctx, l.room.NID, user)
		if err != nil {
			return n, false, err
		}
		l.marks = marksOf(receipts)
	}
	n = Notification{Actions: o.Actions, Read: l.marks.isRead(e.Pos, view.thread), RoomID: l.room.ID, TS: e.OriginTS()}
	if n.Actions == nil {
		n.Actions = []json.RawMessage{}
	}
	n.Event, err = l.room.AppendClient(ctx, nil, e, rooms.View{User: user, Device: device, Now: now, RoomID: true, Membership: was})
	return n, err == nil, err
}
