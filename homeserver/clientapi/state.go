// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// stateFor gives the state of a room as the caller may see it: now for whoever is joined, or when the room is world-readable; as of
// his leaving for whoever has left.
func (a *API) stateFor(r *Request) (room *rooms.Room, get func(typ, key string) (*rooms.Stored, error), all func() ([]rooms.Ref, error), err error) {
	room, m, err := a.member(r)
	if err != nil {
		return nil, nil, nil, err
	}
	head := room.Head()
	world := false
	if m != "join" {
		v, err := room.State(r.Context(), head, "m.room.history_visibility", "")
		if err != nil {
			return nil, nil, nil, err
		}
		world = v != nil && gjson.GetBytes(v.Content(), "history_visibility").Str == "world_readable"
	}
	switch {
	case m == "join" || world:
		get = func(typ, key string) (*rooms.Stored, error) { return room.State(r.Context(), head, typ, key) }
		all = func() (refs []rooms.Ref, err error) {
			head.Each(func(_ event.Key, ref rooms.Ref) { refs = append(refs, ref) })
			return refs, nil
		}
		return room, get, all, nil
	case m == "leave" || m == "ban":
		list, err := a.Rooms.UserRooms(r.Context(), r.UserID)
		if err != nil {
			return nil, nil, nil, err
		}
		left, err := room.ByRef(r.Context(), rooms.Ref{NID: list[room.ID].EventNID})
		if err != nil {
			return nil, nil, nil, err
		}
		if left != nil {
			was, err := room.StateAt(r.Context(), left, false, "m.room.member", r.UserID)
			if err != nil {
				return nil, nil, nil, err
			}
			if was != nil && was.Membership() == "join" {
				get = func(typ, key string) (*rooms.Stored, error) { return room.StateAt(r.Context(), left, true, typ, key) }
				all = func() (refs []rooms.Ref, err error) {
					m, err := room.AllStateAt(r.Context(), left)
					for _, ref := range m {
						refs = append(refs, ref)
					}
					return refs, err
				}
				return room, get, all, nil
			}
		}
	}
	return nil, nil, nil, signalling.Forbidden("you are not in this room")
}

func (a *API) view(r *Request) rooms.View {
	return rooms.View{User: r.UserID, Device: r.DeviceID, Now: a.Clock.Now(), RoomID: true}
}

func (a *API) allState(r *Request) (any, error) {
	room, _, all, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	refs, err := all()
	if err != nil {
		return nil, err
	}
	events, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	return a.eventList(r, room, events, nil)
}

// eventList writes events as a JSON array; keep says which, nil keeps all.
func (a *API) eventList(r *Request, room *rooms.Room, events []*rooms.Stored, keep func(*rooms.Stored) bool) (Raw, error) {
	b := []byte{'['}
	var err error
	for _, e := range events {
		if keep != nil && !keep(e) {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		if b, err = room.AppendClient(r.Context(), b, e, a.view(r)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func (a *API) oneState(r *Request) (any, error) {
	room, get, _, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	e, err := get(r.PathValue("type"), r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, signalling.NotFound("this room has no such state")
	}
	if r.Param("format") == "event" {
		b, err := room.AppendClient(r.Context(), nil, e, a.view(r))
		return Raw(b), err
	}
	return Raw(e.Content()), nil
}

func (a *API) oneEvent(r *Request) (any, error) {
	room, e, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	b, err := a.appendWhole(r, nil, room, e)
	return Raw(b), err
}

// appendWhole appends an event with all that is told of it: what relates to it, and what the reader was when it was sent.
func (a *API) appendWhole(r *Request, b []byte, room *rooms.Room, e *rooms.Stored) ([]byte, error) {
	v := a.view(r)
	var err error
	if v.Membership, err = room.MembershipAt(r.Context(), e, r.UserID); err != nil {
		return nil, err
	}
	relations, err := a.aggregate(r, room, e)
	if err != nil {
		return nil, err
	}
	v.Relations = relations[e.NID]
	return room.AppendClient(r.Context(), b, e, v)
}

// visibleEvent is the event of the path, when the caller may see it; what he may not see does not exist for him.
func (a *API) visibleEvent(r *Request) (*rooms.Room, *rooms.Stored, error) {
	none := signalling.NotFound("there is no such event, or you may not see it")
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err == rooms.ErrNoRoom {
		return nil, nil, none
	}
	if err != nil {
		return nil, nil, err
	}
	e, err := room.Event(r.Context(), r.PathValue("event"))
	if err != nil {
		return nil, nil, err
	}
	if e == nil {
		return nil, nil, none
	}
	ok, err := room.Visible(r.Context(), e, r.UserID)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, none
	}
	return room, e, nil
}

// wholeTime is how long whoever lists members waits for those of a room that was joined without them.
const wholeTime = 30 * time.Second

// whole waits until a room's members are known; what is known by then is better than nothing.
func (a *API) whole(r *Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), wholeTime)
	defer cancel()
	err := a.Rooms.Whole(ctx, r.PathValue("room"))
	if errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil {
		return nil
	}
	return err
}

func (a *API) members(r *Request) (any, error) {
	room, _, all, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	if room.Partial() {
		if err := a.whole(r); err != nil {
			return nil, err
		}
		if room, _, all, err = a.stateFor(r); err != nil {
			return nil, err
		}
	}
	var refs []rooms.Ref
	if at := r.Param("at"); at != "" {
		refs, err = a.membersAtToken(r, room, at)
	} else {
		refs, err = all()
	}
	if err != nil {
		return nil, err
	}
	want, not := r.Param("membership"), r.Param("not_membership")
	events, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	b, err := a.eventList(r, room, events, func(e *rooms.Stored) bool {
		m := e.Membership()
		return m != "" && (want == "" || m == want) && (not == "" || m != not)
	})
	return Raw(append(append([]byte(`{"chunk":`), b...), '}')), err
}

func (a *API) joinedMembers(r *Request) (any, error) {
	room, err := a.inside(r)
	if err != nil {
		return nil, err
	}
	type profile struct {
		Name   *string `json:"display_name"`
		Avatar *string `json:"avatar_url"`
	}
	if room.Partial() {
		if err := a.whole(r); err != nil {
			return nil, err
		}
		if room, err = a.inside(r); err != nil {
			return nil, err
		}
	}
	out := map[string]profile{}
	head := room.Head()
	var refs []rooms.Ref
	for _, u := range head.Joined() {
		if ref, ok := head.Ref("m.room.member", u); ok {
			refs = append(refs, ref)
		}
	}
	events, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		var p profile
		if n := gjson.GetBytes(e.Content(), "displayname"); n.Type == gjson.String {
			p.Name = &n.Str
		}
		if u := gjson.GetBytes(e.Content(), "avatar_url"); u.Type == gjson.String {
			p.Avatar = &u.Str
		}
		out[*e.StateKey()] = p
	}
	return map[string]any{"joined": out}, nil
}
