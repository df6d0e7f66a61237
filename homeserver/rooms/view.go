// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
)

// View says for whom an event is written, and how.
type View struct {
	User, Device string    // the reader; the transaction id is shown to the device that sent the event
	Now          time.Time // for unsigned.age
	Membership   string    // the reader's membership at the event (MSC4115); "" leaves it out
	RoomID       bool      // write room_id: everywhere but in /sync
	Relations    []byte    // m.relations, a JSON object; nil leaves it out (see Aggregator)
	Bare         bool      // leave out what needs a read: prev_content and redacted_because
}

// UseErased says whose messages are hidden from those who came after a position of the stream; 0 for nobody's. Call it before the
// first request.
func (s *Service) UseErased(pos func(user string) int64) { s.erased = pos }

// ShownTo is e as a user may see it: without its content where its sender wanted to be forgotten before the user came (client-server
// API, "POST /account/deactivate", erase). State stays, as the room is made of it.
func (r *Room) ShownTo(ctx context.Context, e *Stored, user string) (*event.Event, error) {
	if r.s.erased == nil || e.IsState() || e.Redacted() {
		return e.Event, nil
	}
	erased := r.s.erased(e.Sender())
	if erased == 0 {
		return e.Event, nil
	}
	all, err := r.s.UserRooms(ctx, user)
	if err != nil {
		return nil, err
	}
	if now := all[r.ID]; now.Membership == "join" && now.Pos <= erased {
		return e.Event, nil
	}
	if was, err := r.MembershipAt(ctx, e, user); err != nil || was == "join" {
		return e.Event, err
	}
	return e.Redact()
}

// AppendClient appends e in the format of the client-server API ("ClientEvent").
func (r *Room) AppendClient(ctx context.Context, dst []byte, e *Stored, v View) ([]byte, error) {
	shown, err := r.ShownTo(ctx, e, v.User)
	if err != nil {
		return dst, err
	}
	dst = append(dst, shown.ClientHead()...)
	if v.RoomID {
		dst = append(dst, `,"room_id":`...)
		dst = event.AppendString(dst, r.ID)
	}
	dst = append(dst, `,"unsigned":{"age":`...)
	dst = strconv.AppendInt(dst, max(0, v.Now.UnixMilli()-e.OriginTS()), 10)
	if left := e.StickyUntil - v.Now.UnixMilli(); left > 0 {
		dst = strconv.AppendInt(append(dst, `,"msc4354_sticky_duration_ttl_ms":`...), left, 10)
	}
	if id, ok := strings.CutPrefix(e.TxnID, DelayedTxn); ok && e.Device == "" {
		if v.User == e.Sender() {
			dst = append(dst, `,"org.matrix.msc4140.delay_id":`...)
			dst = event.AppendString(dst, id)
		}
	} else if e.TxnID != "" && v.Device == e.Device && v.User == e.Sender() {
		dst = append(dst, `,"transaction_id":`...)
		dst = event.AppendString(dst, e.TxnID)
	}
	if v.Membership != "" {
		dst = append(dst, `,"membership":`...)
		dst = event.AppendString(dst, v.Membership)
	}
	if v.Relations != nil {
		dst = append(append(dst, `,"m.relations":`...), v.Relations...)
	}
	if v.Bare {
		return append(dst, "}}"...), nil
	}
	if e.IsState() && e.StateBefore != 0 {
		ref, ok, err := r.s.groupGet(ctx, e.StateBefore, e.Key())
		if err != nil {
			return dst, err
		}
		if ok {
			old, err := r.ByRef(ctx, ref)
			if err != nil {
				return dst, err
			}
			if old != nil {
				dst = append(dst, `,"replaces_state":`...)
				dst = event.AppendString(dst, old.ID())
				dst = append(dst, `,"prev_content":`...)
				dst = append(dst, old.Content()...)
				dst = append(dst, `,"prev_sender":`...)
				dst = event.AppendString(dst, old.Sender())
			}
		}
	}
	if e.RedactedBy != "" {
		dst = append(dst, `,"redacted_by":`...)
		dst = event.AppendString(dst, e.RedactedBy)
		m, err := r.s.byEventID(ctx, r, e.RedactedBy)
		if err != nil {
			return dst, err
		}
		if by := m[e.RedactedBy]; by != nil {
			dst = append(dst, `,"redacted_because":`...)
			dst = append(dst, by.ClientHead()...)
			dst = append(dst, `,"room_id":`...)
			dst = event.AppendString(dst, r.ID)
			dst = append(dst, `,"unsigned":{"age":`...)
			dst = strconv.AppendInt(dst, max(0, v.Now.UnixMilli()-by.OriginTS()), 10)
			dst = append(dst, "}}"...)
		}
	}
	return append(dst, "}}"...), nil
}

// Event finds an event of the room that is in its timeline; nil when there is none.
func (r *Room) Event(ctx context.Context, id string) (*Stored, error) {
	m, err := r.s.byEventID(ctx, r, id)
	if err != nil {
		return nil, err
	}
	if e := m[id]; e != nil && e.Status == 0 && e.Pos != 0 {
		return e, nil
	}
	return nil, nil
}

// StateAt gives one piece of state right before (or, with after, right after) e; nil when there is none.
func (r *Room) StateAt(ctx context.Context, e *Stored, after bool, typ, stateKey string) (*Stored, error) {
	g := e.StateBefore
	if after {
		g = e.StateAfter
	}
	if g == 0 {
		return nil, nil // before the first event of a room
	}
	ref, ok, err := r.s.groupGet(ctx, g, event.Key{Type: typ, StateKey: stateKey})
	if err != nil || !ok {
		return nil, err
	}
	return r.ByRef(ctx, ref)
}

// AllStateAt gives the whole state right after e.
func (r *Room) AllStateAt(ctx context.Context, e *Stored) (map[event.Key]Ref, error) {
	m, err := r.s.groupState(ctx, e.StateAfter)
	if err != nil {
		return nil, err
	}
	return m.base, nil
}

// MembershipAt is a user's membership at e: for the user's own membership event the one it sets.
func (r *Room) MembershipAt(ctx context.Context, e *Stored, user string) (string, error) {
	m, err := r.StateAt(ctx, e, true, "m.room.member", user)
	if m == nil {
		return "leave", err
	}
	return m.Membership(), nil
}

// visibilityAt is the history visibility in force at e.
func (r *Room) visibilityAt(ctx context.Context, e *Stored, after bool) (string, error) {
	v, err := r.StateAt(ctx, e, after, "m.room.history_visibility", "")
	if err != nil {
		return "", err
	}
	if v != nil {
		switch s := gjson.GetBytes(v.Content(), "history_visibility").Str; s {
		case "world_readable", "shared", "invited", "joined":
			return s, nil
		}
	}
	return "shared", nil
}

// Visible says whether a user may see e (client-server API, "Room History Visibility").
func (r *Room) Visible(ctx context.Context, e *Stored, user string) (bool, error) {
	rooms, err := r.s.UserRooms(ctx, user)
	if err != nil {
		return false, err
	}
	now := rooms[r.ID]
	vis, err := r.visibilityAt(ctx, e, false)
	if err != nil {
		return false, err
	}
	was := vis
	if e.Is("m.room.history_visibility", "") {
		if vis, err = r.visibilityAt(ctx, e, true); err != nil {
			return false, err
		}
	}
	if vis == "world_readable" || was == "world_readable" {
		return true, nil
	}
	if now.Membership == "" {
		return false, nil
	}
	shared := vis == "shared" || was == "shared"
	if shared && now.Membership == "join" {
		return true, nil
	}
	after, err := r.MembershipAt(ctx, e, user)
	if err != nil {
		return false, err
	}
	before := after
	if e.Is("m.room.member", user) {
		if m, err := r.StateAt(ctx, e, false, "m.room.member", user); err != nil {
			return false, err
		} else if m != nil {
			before = m.Membership()
		} else {
			before = "leave"
		}
	}
	if after == "join" || before == "join" || e.Is("m.room.member", user) {
		return true, nil
	}
	if (vis == "invited" || was == "invited") && (after == "invite" || before == "invite") && now.Membership != "ban" {
		return true, nil
	}
	if shared && now.Pos > e.Pos {
		// Left since: whoever was joined at some time after the event saw it.
		left, err := r.ByRef(ctx, Ref{NID: now.EventNID})
		if err != nil || left == nil {
			return false, err
		}
		m, err := r.StateAt(ctx, left, false, "m.room.member", user)
		return m != nil && m.Membership() == "join", err
	}
	return false, nil
}

// Timeline loads up to limit events with from < position < to, newest first when backwards.
func (r *Room) Timeline(ctx context.Context, from, to int64, limit int, backwards bool) ([]*Stored, error) {
	rows, err := r.s.store.Timeline(ctx, r.NID, from, to, limit, backwards)
	if err != nil {
		return nil, err
	}
	out := make([]*Stored, 0, len(rows))
	for _, row := range rows {
		if e, ok := r.s.events.Get(row.NID); ok && e.Pos == row.Pos && e.RedactedBy == row.RedactedBy {
			out = append(out, e)
			continue
		}
		e, err := r.s.stored(r.Version, row)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Changes lists how the room's current state changed with from < position <= to, oldest first.
func (r *Room) Changes(ctx context.Context, from, to int64) ([]Change, error) {
	rows, err := r.s.store.StateChanges(ctx, r.NID, from, to)
	if err != nil {
		return nil, err
	}
	out := make([]Change, len(rows))
	for i, c := range rows {
		out[i] = Change{Key: event.Key{Type: c.Type, StateKey: c.StateKey}, New: Ref{c.EventNID, c.EventID}, Old: Ref{NID: c.PrevNID}}
	}
	return out, nil
}

// AllStateBefore gives the whole state right before e.
func (r *Room) AllStateBefore(ctx context.Context, e *Stored) (map[event.Key]Ref, error) {
	m, err := r.s.groupState(ctx, e.StateBefore)
	if err != nil {
		return nil, err
	}
	return m.base, nil
}
