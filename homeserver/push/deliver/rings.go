// SPDX-License-Identifier: Apache-2.0

package deliver

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

const (
	ringTime    = 30 * time.Second // of a notification that does not say how long it rings (MSC4075)
	maxRingTime = 2 * time.Minute
	clockSkew   = 20 * time.Second // by how much sender_ts may differ from the event's own time before it is not believed (MSC4075)
)

// ring is what an event means to a telephone. The zero ring is any event.
type ring struct {
	id      string // call_id, or the event's id; "" when it does not ring
	until   time.Time
	invitee string // "" for everybody in the room
	silent  bool   // it would ring, but nobody is to hear of it any more
}

// ringOf says whether and how long an event rings: m.call.invite, and the notification of a MatrixRTC call (MSC4075, with the older
// name and form that clients still send).
func (s *Service) ringOf(ctx context.Context, h happening, now time.Time) (ring, error) {
	content := gjson.ParseBytes(h.e.Content())
	sent := time.UnixMilli(h.e.OriginTS())
	if sent.After(now) {
		sent = now
	}
	var r ring
	switch h.e.Type() {
	case callflow.TypeInvite:
		r.id, r.invitee = content.Get("call_id").Str, content.Get("invitee").Str
		life := callflow.InviteLifetime(h.e.Content())
		r.until = sent.Add(life)
		if r.id == "" || len(r.id) > event.MaxIDLength || strings.IndexByte(r.id, 0) >= 0 || s.Calls != nil && !s.Calls.Ringing(h.room.ID, r.id) {
			return ring{silent: true}, nil
		}
	case "org.matrix.msc4075.rtc.notification", "m.rtc.notification", "org.matrix.msc4075.call.notify":
		if content.Get("notification_type").Str != "ring" && content.Get("notify_type").Str != "ring" {
			return ring{}, nil
		}
		r.id = h.e.ID()
		from := sent
		if ts := content.Get("sender_ts"); ts.Type == gjson.Number {
			if at := time.UnixMilli(ts.Int()); at.Sub(sent).Abs() <= clockSkew {
				from = at
			}
		}
		life := ringTime
		if l := content.Get("lifetime"); l.Type == gjson.Number && l.Num > 0 {
			life = time.Duration(min(l.Num, float64(maxRingTime.Milliseconds()))) * time.Millisecond
		}
		r.until = from.Add(life)
	default:
		return ring{}, nil
	}
	if !now.Before(r.until) {
		return ring{silent: true}, nil
	}
	rules, err := h.room.State(ctx, h.head, "m.room.join_rules", "")
	if err != nil {
		return ring{}, err
	}
	if rules != nil && gjson.GetBytes(rules.Content(), "join_rule").Str == "public" {
		// The specification recommends that nobody be called in a room that anybody may enter.
		return ring{silent: true}, nil
	}
	return r, nil
}

// ends adds the ends of rings that an event means: somebody declined (MSC4310), came into the call by another device, or left it as the
// last one, or the notification was redacted. What ends m.call.* calls comes from Calls.
func (s *Service) ends(ctx context.Context, h happening, steps []step) ([]step, error) {
	e := h.e
	end := func(x ending) {
		x.room = h.room.ID
		if s.several || s.known(x) || queued(steps, x) {
			steps = append(steps, step{pos: e.Pos, end: &x})
		}
	}
	switch typ := e.Type(); {
	case typ == "org.matrix.msc4310.rtc.decline" || typ == "m.rtc.decline":
		if target := gjson.GetBytes(e.Content(), "m\\.relates_to.event_id").Str; target != "" && len(target) <= event.MaxIDLength {
			end(ending{ring: target, user: e.Sender()})
		}
	case typ == "m.room.redaction":
		if target := e.Redacts(); target != "" {
			end(ending{ring: target})
		}
	case isCallMember(typ):
		if present(e.Content()) {
			end(ending{user: e.Sender()})
			break
		}
		left, err := anybodyInCall(ctx, h.room, h.head)
		if err != nil {
			return nil, err
		}
		if !left {
			end(ending{sender: e.Sender()})
		}
	}
	return steps, nil
}

// known says whether some ring of the room may be what ends.
func (s *Service) known(x ending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.ring != "" {
		_, ok := s.rings[ringID{x.room, x.ring}]
		return ok
	}
	for id := range s.rings {
		if id.room == x.room {
			return true
		}
	}
	return false
}

func queued(steps []step, x ending) bool {
	return slices.ContainsFunc(steps, func(st step) bool { return st.row != nil && st.row.Ring != "" && st.row.RoomID == x.room })
}

func isCallMember(typ string) bool {
	switch typ {
	case "org.matrix.msc3401.call.member", "org.matrix.msc4143.rtc.member", "m.rtc.member", "m.call.member":
		return true
	}
	return false
}

// present says whether the content of a call's member event is that of somebody who is in the call. Who leaves sends next to nothing.
func present(content []byte) bool {
	c := gjson.ParseBytes(content)
	return c.Get("application").Exists() || c.Get("member").Exists() || len(c.Get("memberships").Array()) > 0
}

// members calls f with the user of each member event of a call that is part of the room's state, as long as f says so.
func members(ctx context.Context, room *rooms.Room, head *rooms.Head, f func(user string) bool) error {
	var refs []rooms.Ref
	head.Each(func(k event.Key, r rooms.Ref) {
		if k.StateKey != "" && isCallMember(k.Type) {
			refs = append(refs, r)
		}
	})
	if len(refs) == 0 {
		return nil
	}
	events, err := room.ByRefs(ctx, refs)
	if err != nil {
		return err
	}
	for _, e := range events {
		if present(e.Content()) && head.IsJoined(e.Sender()) && !f(e.Sender()) {
			return nil
		}
	}
	return nil
}

func inCall(ctx context.Context, room *rooms.Room, head *rooms.Head, user string) (found bool, err error) {
	err = members(ctx, room, head, func(u string) bool {
		found = u == user
		return !found
	})
	return found, err
}

func anybodyInCall(ctx context.Context, room *rooms.Room, head *rooms.Head) (found bool, err error) {
	err = members(ctx, room, head, func(string) bool {
		found = true
		return false
	})
	return found, err
}

// endRings ends what has stopped ringing, and what has rung long enough.
func (s *Service) endRings(ctx context.Context, now time.Time) error {
	var over []ringID
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = map[ringID]struct{}{}
	for id, until := range s.rings {
		if !now.Before(until) {
			over = append(over, id)
		}
	}
	s.mu.Unlock()
	for id := range stopped {
		if s.Calls == nil || !s.Calls.Ringing(id.room, id.id) {
			over = append(over, id)
		}
	}
	if len(over) == 0 {
		return nil
	}
	var tell []storage.PusherID
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
		tell = nil
		for _, id := range over {
			ids, err := tx.EndRings(id.room, id.id, "", "", now.Add(overTime).UnixMilli())
			if err != nil {
				return err
			}
			tell = append(tell, ids...)
		}
		return nil
	}); err != nil {
		s.mu.Lock()
		for id := range stopped {
			s.stopped[id] = struct{}{}
		}
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	for _, id := range over {
		delete(s.rings, id)
	}
	for _, id := range tell {
		s.recount(id.User, missedDelay) // a missed call counts once it is on record
	}
	s.mu.Unlock()
	for _, id := range tell {
		s.queue(id)
	}
	return nil
}

// queueCounts queues new counts for the users who read something a while ago.
func (s *Service) queueCounts(ctx context.Context, now time.Time) (err error) {
	var due []*pusher
	var users []string
	s.mu.Lock()
	for user, at := range s.read {
		if now.Before(at) {
			continue
		}
		users = append(users, user)
		delete(s.read, user) // what is read from here on counts anew
		for _, p := range s.users[user] {
			if p.enabled {
				due = append(due, p)
			}
		}
	}
	pos := s.seen
	s.mu.Unlock()
	if len(users) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, u := range users {
				s.recount(u, retryAfter)
			}
		}
	}()
	rows := make([]storage.PushRow, len(due))
	for i, p := range due {
		id, err := s.Store.NID(ctx)
		if err != nil {
			return err
		}
		rows[i] = storage.PushRow{
			ID: id, User: p.id.User, AppID: p.id.AppID, Key: p.id.Key, Kind: storage.PushCounts, Pos: pos, CreatedTS: now.UnixMilli(), ExpiresTS: now.Add(maxAge).UnixMilli(),
		}
	}
	if len(rows) > 0 {
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
			for _, row := range rows {
				if err := tx.QueuePush(row); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for _, p := range due {
		s.queue(p.id)
	}
	return nil
}
