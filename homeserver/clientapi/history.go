// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"math"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesHistory: "Getting events for a room" that look back: /messages and /context.
func (a *API) routesHistory() {
	if a.Rooms == nil {
		return
	}
	const base = "/_matrix/client/v3/rooms/{room}"
	a.route("GET "+base+"/messages", AnyUser, "requests", a.messages)
	a.route("GET "+base+"/context/{event}", AnyUser, "requests", a.context)
}

const (
	maxMessages = 1000 // events in one answer
	maxLook     = 5000 // events read to fill one answer through a filter, or past what the caller may not see
)

func eventFilter(r *Request) (*filter.Events, error) {
	raw := r.Param("filter")
	if raw == "" {
		raw = "{}"
	}
	return filter.ParseEvents([]byte(raw))
}

// page reads events of a room for the caller, from a position on: backwards those at or before it, forwards those after it. It gives
// the position to go on from; done says that there is nothing more.
func (a *API) page(r *Request, room *rooms.Room, f *filter.Events, from, to int64, limit int, backwards bool) (events []*rooms.Stored, next int64, done bool, err error) {
	next = from
	ignored, err := a.ignoredBy(r)
	if err != nil {
		return nil, 0, false, err
	}
	low, high := from, to
	if backwards {
		low, high = to, from+1
	}
	for seen, fills := 0, 0; len(events) < limit && seen < maxLook; {
		want := limit - len(events)
		chunk, err := room.Timeline(r.Context(), low, high, want, backwards)
		if err != nil {
			return nil, 0, false, err
		}
		again := false
		if backwards && a.Servers != nil && fills < maxBackfills {
			fills++
			chunk, again = a.recall(r, room, chunk)
		}
		for _, e := range chunk {
			seen++
			if backwards {
				high, next = e.Pos, e.Pos-1
			} else {
				low, next = e.Pos, e.Pos
			}
			if a.ignored(ignored, e) || !f.Allows(room.ID, e.Type(), e.Sender(), f.ContainsURL != nil && gjson.GetBytes(e.Content(), "url").Type == gjson.String) {
				continue
			}
			if f.Relational() {
				if ok, err := relates(r, room, f, e); err != nil {
					return nil, 0, false, err
				} else if !ok {
					continue
				}
			}
			ok, err := room.Visible(r.Context(), e, r.UserID)
			if err != nil {
				return nil, 0, false, err
			}
			if ok {
				events = append(events, e)
			}
		}
		if len(chunk) < want && !again {
			return events, next, true, nil
		}
	}
	return events, next, false, nil
}

// relates asks of an event what a filter says about relations.
func relates(r *Request, room *rooms.Room, f *filter.Events, e *rooms.Stored) (bool, error) {
	if !f.AllowsRelation(e.RelType()) {
		return false, nil
	}
	if len(f.RelatedByRelTypes) == 0 && len(f.RelatedBySenders) == 0 {
		return true, nil
	}
	return room.IsRelatedBy(r.Context(), e, f.RelatedByRelTypes, f.RelatedBySenders)
}

func (a *API) ignoredBy(r *Request) (map[string]struct{}, error) {
	if a.Accounts == nil {
		return nil, nil
	}
	return a.Accounts.Ignored(r.Context(), r.UserID)
}

// ignored says that e is something that a user who ignores these users is not shown: their events that are not state.
func (a *API) ignored(users map[string]struct{}, e *rooms.Stored) bool {
	if len(users) == 0 || e.IsState() {
		return false
	}
	_, ok := users[e.Sender()]
	return ok
}

func (a *API) messages(r *Request) (any, error) {
	room, m, err := a.member(r)
	if err != nil {
		return nil, err
	}
	if m == "" || m == "invite" || m == "knock" {
		v, err := room.State(r.Context(), room.Head(), "m.room.history_visibility", "")
		if err != nil {
			return nil, err
		}
		if v == nil || gjson.GetBytes(v.Content(), "history_visibility").Str != "world_readable" {
			return nil, signalling.Forbidden("you are not in this room")
		}
	}
	var backwards bool
	switch r.Param("dir") {
	case "b":
		backwards = true
	case "f":
	case "":
		return nil, signalling.MissingParam("dir is missing: b for back, f for forward")
	default:
		return nil, signalling.InvalidParam("dir must be b or f")
	}
	limit, err := r.IntParam("limit", 10, 1, maxMessages)
	if err != nil {
		return nil, err
	}
	f, err := eventFilter(r)
	if err != nil {
		return nil, err
	}
	newest := a.Sync.Pos()
	from := int64(0)
	if backwards {
		from = newest
	}
	if s := r.Param("from"); s != "" {
		t, err := syncapi.ParseHistoryToken(s)
		if err != nil {
			return nil, err
		}
		from = min(t.Pos, newest)
	}
	to := int64(math.MinInt64) // history that came from other servers has positions below zero
	if !backwards {
		to = math.MaxInt64
	}
	if s := r.Param("to"); s != "" {
		t, err := syncapi.ParseHistoryToken(s)
		if err != nil {
			return nil, err
		}
		to = t.Pos
		if !backwards {
			to++
		}
	}
	events, next, done, err := a.page(r, room, f, from, to, int(limit), backwards)
	if err != nil {
		return nil, err
	}
	b, err := a.pageList(r, room, events)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`{"chunk":`), b...)
	out = append(out, `,"start":"`...)
	out = append(out, syncapi.Token{Pos: from}.String()...)
	out = append(out, '"')
	// A page that holds anything says where it ends, so that a client may go on from there later; the empty one is the last.
	if !done || len(events) > 0 {
		out = append(out, `,"end":"`...)
		out = append(out, syncapi.Token{Pos: next}.String()...)
		out = append(out, '"')
	}
	if f.LazyLoadMembers {
		state, err := a.senders(r, room, events)
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"state":`...), state...)
	}
	return Raw(append(out, '}')), nil
}

// pageList writes events of the past, each with the caller's membership at it.
func (a *API) pageList(r *Request, room *rooms.Room, events []*rooms.Stored) (Raw, error) {
	b := []byte{'['}
	v := a.view(r)
	relations, err := a.aggregate(r, room, events...)
	if err != nil {
		return nil, err
	}
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		v.Relations = relations[e.NID]
		if v.Membership, err = room.MembershipAt(r.Context(), e, r.UserID); err != nil {
			return nil, err
		}
		if b, err = room.AppendClient(r.Context(), b, e, v); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// senders writes the member events of those who sent events.
func (a *API) senders(r *Request, room *rooms.Room, events []*rooms.Stored) (Raw, error) {
	head := room.Head()
	seen := map[string]bool{}
	var refs []rooms.Ref
	for _, e := range events {
		if seen[e.Sender()] {
			continue
		}
		seen[e.Sender()] = true
		if ref, ok := head.Ref("m.room.member", e.Sender()); ok {
			refs = append(refs, ref)
		}
	}
	list, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	return a.eventList(r, room, list, nil)
}

// strangerFirst tells somebody who was never in the room that he may not read it, rather than that there is no such event.
func (a *API) strangerFirst(r *Request, err error) error {
	if signalling.AsError(err).Code != "M_NOT_FOUND" {
		return err
	}
	_, m, failed := a.member(r)
	if failed != nil {
		return failed
	}
	if m == "join" || m == "leave" || m == "ban" {
		return err
	}
	if _, closed := a.readable(r); closed != nil {
		return closed
	}
	return err
}

func (a *API) context(r *Request) (any, error) {
	room, e, err := a.visibleEvent(r)
	if err != nil {
		return nil, a.strangerFirst(r, err)
	}
	limit, err := r.IntParam("limit", 10, 0, 100)
	if err != nil {
		return nil, err
	}
	f, err := eventFilter(r)
	if err != nil {
		return nil, err
	}
	half := int(limit / 2)
	before, start, _, err := a.page(r, room, f, e.Pos-1, 0, half, true)
	if err != nil {
		return nil, err
	}
	after, end, _, err := a.page(r, room, f, e.Pos, math.MaxInt64, int(limit)-half, false)
	if err != nil {
		return nil, err
	}
	last := e
	if len(after) > 0 {
		last = after[len(after)-1]
	}
	state, err := room.AllStateAt(r.Context(), last)
	if err != nil {
		return nil, err
	}
	var refs []rooms.Ref
	shown := map[string]bool{}
	for _, x := range slices.Concat(before, []*rooms.Stored{e}, after) {
		shown[x.Sender()] = true
	}
	for k, ref := range state {
		if f.LazyLoadMembers && k.Type == "m.room.member" && !shown[k.StateKey] {
			continue
		}
		refs = append(refs, ref)
	}
	stateEvents, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	out, err := a.appendWhole(r, []byte(`{"event":`), room, e)
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name   string
		events []*rooms.Stored
	}{{"events_before", before}, {"events_after", after}} {
		b, err := a.pageList(r, room, part.events)
		if err != nil {
			return nil, err
		}
		out = append(append(append(append(out, `,"`...), part.name...), `":`...), b...)
	}
	b, err := a.eventList(r, room, stateEvents, nil)
	if err != nil {
		return nil, err
	}
	out = append(append(out, `,"state":`...), b...)
	out = append(append(out, `,"start":`...), strconv.Quote(syncapi.Token{Pos: start}.String())...)
	out = append(append(out, `,"end":`...), strconv.Quote(syncapi.Token{Pos: end}.String())...)
	return Raw(append(out, '}')), nil
}

// membersAtToken gives the member events of a room as of a sync token: after the last event that it covers. For whoever has left
// the room no token leads past that; a token of before the room began stands for the moment at which the caller came in.
func (a *API) membersAtToken(r *Request, room *rooms.Room, token string) ([]rooms.Ref, error) {
	t, err := syncapi.ParseHistoryToken(token)
	if err != nil {
		return nil, err
	}
	list, err := a.Rooms.UserRooms(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	pos := t.Pos
	if m := list[room.ID]; m.Membership == "leave" || m.Membership == "ban" {
		pos = min(pos, m.Pos)
	}
	last, err := room.Timeline(r.Context(), math.MinInt64, pos+1, 1, true)
	if err != nil {
		return nil, err
	}
	if len(last) == 0 {
		if last, err = a.firstJoined(r, room); err != nil || len(last) == 0 {
			return nil, err
		}
	}
	state, err := room.AllStateAt(r.Context(), last[0])
	if err != nil {
		return nil, err
	}
	refs := make([]rooms.Ref, 0, len(state))
	for k, ref := range state {
		if k.Type == "m.room.member" {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// firstJoined is the caller's first join among the first events of a room.
func (a *API) firstJoined(r *Request, room *rooms.Room) ([]*rooms.Stored, error) {
	first, err := room.Timeline(r.Context(), math.MinInt64, math.MaxInt64, maxMessages, false)
	for _, e := range first {
		if e.Is("m.room.member", r.UserID) && e.Membership() == "join" {
			return []*rooms.Stored{e}, nil
		}
	}
	return nil, err
}
