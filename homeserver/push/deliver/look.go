// SPDX-License-Identifier: Apache-2.0

package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// step is one thing that an event leads to: a push to queue, or rings that end.
type step struct {
	pos int64
	row *storage.PushRow
	end *ending
}

// ending ends rings: see storage.Tx.EndRings.
type ending struct{ room, ring, user, sender string }

// look goes through the events that nobody looked at.
func (s *Service) look(ctx context.Context) error {
	for {
		now := s.Clock.Now()
		s.mu.Lock()
		fresh, behind, seen, grace := s.fresh, s.behind, s.seen, s.grace
		if len(s.changed) > 0 {
			// A pusher that was set before an event hears of the event.
			s.mu.Unlock()
			if err := s.refresh(ctx); err != nil {
				return err
			}
			continue
		}
		if !behind && now.Before(grace) {
			s.mu.Unlock()
			return nil
		}
		s.fresh, s.grace = nil, time.Time{}
		s.mu.Unlock()
		if !behind && !grace.IsZero() { // the others have had their time
			pos, err := s.Store.PushPos(ctx)
			if err != nil {
				s.mu.Lock()
				s.behind = true
				s.mu.Unlock()
				return err
			}
			s.stored, s.cursor = pos, max(s.cursor, pos)
		}
		if !behind && len(fresh) == 0 {
			s.cursor = max(s.cursor, seen)
			return nil
		}
		to := seen
		if behind {
			var full bool
			var err error
			if fresh, to, full, err = s.fromStore(ctx, seen); err != nil {
				return err
			}
			if !full {
				s.mu.Lock()
				s.behind = s.seen != seen
				s.mu.Unlock()
			}
		}
		steps, err := s.consider(ctx, fresh)
		if err == nil {
			err = s.commit(ctx, steps, to)
		}
		if err != nil {
			s.mu.Lock()
			s.behind, s.fresh = true, nil
			s.mu.Unlock()
			return err
		}
	}
}

// fromStore reads events after the cursor from the store; full says that there may be more up to seen.
func (s *Service) fromStore(ctx context.Context, seen int64) (out []happening, to int64, full bool, err error) {
	if s.several {
		// Another node may have looked at them by now.
		pos, err := s.Store.PushPos(ctx)
		if err != nil {
			return nil, 0, false, err
		}
		s.stored, s.cursor = pos, max(s.cursor, pos)
	}
	rows, err := s.Store.PushSource(ctx, s.cursor, seen, readBatch)
	if err != nil {
		return nil, 0, false, err
	}
	for _, row := range rows {
		room, err := s.Rooms.Room(ctx, row.RoomID)
		if errors.Is(err, error(rooms.ErrNoRoom)) {
			continue
		}
		if err != nil {
			return nil, 0, false, err
		}
		e, err := room.ByRef(ctx, rooms.Ref{NID: row.EventNID})
		if err != nil {
			return nil, 0, false, err
		}
		if e != nil {
			out = append(out, happening{room, e, room.Head()})
		}
	}
	if len(rows) == readBatch {
		return out, rows[len(rows)-1].Pos, true, nil
	}
	return out, seen, false, nil
}

// consider asks rules what events lead to.
func (s *Service) consider(ctx context.Context, events []happening) (steps []step, err error) {
	s.mu.Lock()
	none := len(s.users) == 0
	s.mu.Unlock()
	if none {
		return nil, nil
	}
	for _, h := range events {
		if h.e.Pos <= s.cursor {
			continue
		}
		if steps, err = s.ends(ctx, h, steps); err != nil {
			return nil, err
		}
		if steps, err = s.pushes(ctx, h, steps); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// told lists the members of a room, and who is invited by the event, who have pushers.
func (s *Service) told(h happening) map[string][]*pusher {
	var out map[string][]*pusher
	add := func(u string, list []*pusher) {
		if len(list) == 0 || u == h.e.Sender() {
			return
		}
		if out == nil {
			out = map[string][]*pusher{}
		}
		out[u] = list
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if joined := h.head.Joined(); len(joined) < len(s.users) {
		for _, u := range joined {
			add(u, s.users[u])
		}
	} else {
		for u, list := range s.users {
			if h.head.IsJoined(u) {
				add(u, list)
			}
		}
	}
	if h.e.Type() == "m.room.member" && h.e.IsState() && h.e.Membership() == "invite" {
		add(*h.e.StateKey(), s.users[*h.e.StateKey()])
	}
	return out
}

// pushes adds the pushes of one event.
func (s *Service) pushes(ctx context.Context, h happening, steps []step) ([]step, error) {
	e := h.e
	now := s.Clock.Now()
	if now.Sub(time.UnixMilli(e.OriginTS())) > maxAge || e.RedactedBy != "" {
		return steps, nil
	}
	users := s.told(h)
	if len(users) == 0 {
		return steps, nil
	}
	r, err := s.ringOf(ctx, h, now)
	if err != nil || r.silent {
		return steps, err
	}
	view := push.NewView(e.Type(), e.Sender(), h.room.ID, e.StateKey(), e.JSON())
	room := push.ViewOf(ctx, h.room, h.head)
	for user, pushers := range users {
		if r.id != "" && r.invitee != "" && r.invitee != user {
			continue
		}
		set, err := s.Rules.Set(ctx, user)
		if err != nil {
			return nil, err
		}
		o := set.Evaluate(user, view, room)
		if !o.Notify {
			continue
		}
		if s.Ignores != nil {
			ignored, err := s.Ignores.Ignored(ctx, user)
			if err != nil {
				return nil, err
			}
			if _, yes := ignored[e.Sender()]; yes {
				continue
			}
		}
		if s.Invites != nil && e.IsState() && e.Membership() == "invite" && *e.StateKey() == user {
			hides, err := s.Invites.HidesInvites(ctx, user)
			if err != nil {
				return nil, err
			}
			if hides != nil && hides(e.Sender()) {
				continue
			}
		}
		if r.id != "" && r.id == e.ID() {
			there, err := inCall(ctx, h.room, h.head, user)
			if err != nil {
				return nil, err
			}
			if there {
				continue // who is in the call already need not be called
			}
		}
		tweaks := tweaksOf(o.Actions)
		for _, p := range pushers {
			if !p.enabled {
				continue
			}
			row := &storage.PushRow{
				User: user, AppID: p.id.AppID, Key: p.id.Key, Kind: storage.PushEvent, RoomID: h.room.ID, EventID: e.ID(), EventNID: e.NID, Pos: e.Pos, Sender: e.Sender(),
				Tweaks: tweaks, High: o.Highlight || o.Sound != "" || e.Type() == "m.room.encrypted", CreatedTS: now.UnixMilli(), ExpiresTS: now.Add(maxAge).UnixMilli(),
			}
			if r.id != "" {
				row.Kind, row.Ring, row.High, row.ExpiresTS = storage.PushRing, r.id, true, r.until.UnixMilli()
			}
			if row.ID, err = s.Store.NID(ctx); err != nil {
				return nil, err
			}
			steps = append(steps, step{pos: e.Pos, row: row})
		}
		if r.id != "" {
			s.mu.Lock()
			s.rings[ringID{h.room.ID, r.id}] = r.until
			s.mu.Unlock()
		}
	}
	return steps, nil
}

// tweaksOf gathers the tweaks among a rule's actions as a JSON object.
func tweaksOf(actions []json.RawMessage) []byte {
	tweaks := map[string]any{}
	for _, raw := range actions {
		a := gjson.ParseBytes(raw)
		name := a.Get("set_tweak")
		if !a.IsObject() || name.Str == "" {
			continue
		}
		value := a.Get("value")
		switch {
		case value.Exists():
			tweaks[name.Str] = json.RawMessage(value.Raw)
		case name.Str == "highlight":
			tweaks[name.Str] = true
		}
	}
	b, err := json.Marshal(tweaks)
	if err != nil {
		return []byte("{}") // what rules hold was checked when it was set
	}
	return b
}

// commit queues what events up to a position led to, and moves the position with it.
func (s *Service) commit(ctx context.Context, steps []step, to int64) error {
	if to <= s.cursor && len(steps) == 0 && s.stored >= to {
		return nil
	}
	if len(steps) == 0 && to > s.cursor {
		s.cursor = to // stored later: to look again would do no harm
		return nil
	}
	for {
		var moved bool
		var over []storage.PusherID
		now := s.Clock.Now()
		err := s.Store.Write(ctx, func(tx *storage.Tx) error {
			over = nil
			var err error
			if moved, err = tx.MovePush(s.stored, to); err != nil || !moved {
				return err
			}
			for _, st := range steps {
				switch {
				case st.end != nil:
					ids, err := tx.EndRings(st.end.room, st.end.ring, st.end.user, st.end.sender, now.Add(overTime).UnixMilli())
					if err != nil {
						return err
					}
					over = append(over, ids...)
				case st.row.Kind == storage.PushRing && st.row.Ring != st.row.EventID && s.Calls != nil && !s.Calls.Ringing(st.row.RoomID, st.row.Ring):
					// Taken while we looked.
				default:
					if err := tx.QueuePush(*st.row); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if moved {
			s.stored, s.cursor = to, max(s.cursor, to)
			for _, st := range steps {
				if st.row != nil {
					s.queue(storage.PusherID{User: st.row.User, AppID: st.row.AppID, Key: st.row.Key})
				}
			}
			for _, id := range over {
				s.queue(id)
			}
			return nil
		}
		// Another node was here: what it looked at is done.
		pos, err := s.Store.PushPos(ctx)
		if err != nil {
			return err
		}
		s.stored, s.cursor = pos, max(s.cursor, pos)
		left := steps[:0]
		for _, st := range steps {
			if st.pos > pos {
				left = append(left, st)
			}
		}
		if steps = left; len(steps) == 0 && to <= pos {
			return nil
		}
		to = max(to, pos)
	}
}
