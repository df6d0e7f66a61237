// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesPeek: "Room previews": how clients look into a room that they are not in, and that everybody may read.
func (a *API) routesPeek() {
	if a.Rooms == nil || a.Sync == nil {
		return
	}
	a.route("GET /_matrix/client/v3/rooms/{room}/initialSync", AnyUser, "requests", a.initialSync)
	a.route("GET /_matrix/client/v3/events", AnyUser, "requests", a.peek)
}

const (
	peekPage = 20 // events in an answer, unless the client says otherwise
	peekWait = int64(30 * time.Second / time.Millisecond)
)

// initialSync gives a room as it is now: its state and newest events. Whoever has left it gets it as it was then.
func (a *API) initialSync(r *Request) (any, error) {
	limit, err := r.IntParam("limit", peekPage, 0, maxMessages)
	if err != nil {
		return nil, err
	}
	room, _, all, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	_, membership, err := a.member(r)
	if err != nil {
		return nil, err
	}
	refs, err := all()
	if err != nil {
		return nil, err
	}
	state, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	f, err := eventFilter(r)
	if err != nil {
		return nil, err
	}
	at := a.Sync.Pos()
	events, next, _, err := a.page(r, room, f, at, 0, int(limit), true)
	if err != nil {
		return nil, err
	}
	for i, j := 0, len(events)-1; i < j; i, j = i+1, j-1 {
		events[i], events[j] = events[j], events[i]
	}
	chunk, err := a.eventList(r, room, events, nil)
	if err != nil {
		return nil, err
	}
	now, err := a.eventList(r, room, state, nil)
	if err != nil {
		return nil, err
	}
	listed, err := a.Rooms.Listed(r.Context(), room.ID)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"room_id": room.ID, "visibility": "private", "state": json.RawMessage(now),
		"messages": map[string]any{"chunk": json.RawMessage(chunk), "start": syncapi.Token{Pos: next}.String(), "end": syncapi.Token{Pos: at}.String()},
	}
	if listed {
		out["visibility"] = "public"
	}
	if membership != "" {
		out["membership"] = membership
	}
	return out, nil
}

// peek waits for the next events of one room.
func (a *API) peek(r *Request) (any, error) {
	id := r.Param("room_id")
	if id == "" {
		return nil, signalling.MissingParam("room_id is missing; what happens in all rooms of a user is told by /sync")
	}
	from, err := syncapi.ParseToken(r.Param("from"))
	if err != nil {
		return nil, err
	}
	ms, err := r.IntParam("timeout", 0, 0, peekWait)
	if err != nil {
		return nil, err
	}
	r.SetPathValue("room", id)
	if r.Param("from") == "" {
		from.Pos = a.Sync.Pos()
	}
	if ms > 0 {
		_ = r.Controller().SetWriteDeadline(time.Now().Add(time.Duration(ms)*time.Millisecond + time.Minute))
	}
	f, err := eventFilter(r)
	if err != nil {
		return nil, err
	}
	timeout := make(chan struct{})
	stop := a.Clock.AfterFunc(time.Duration(ms)*time.Millisecond, func() { close(timeout) })
	defer stop()
	for expired := ms == 0; ; {
		room, err := a.readable(r)
		if err != nil {
			return nil, err
		}
		wake := a.Sync.Watch(room.ID)
		events, next, done, err := a.page(r, room, f, from.Pos, a.Sync.Pos()+1, peekPage, false)
		if err != nil {
			return nil, err
		}
		if len(events) > 0 || !done || expired {
			chunk, err := a.eventList(r, room, events, nil)
			if err != nil {
				return nil, err
			}
			return map[string]any{"chunk": json.RawMessage(chunk), "start": from.String(), "end": syncapi.Token{Pos: next}.String()}, nil
		}
		select {
		case <-wake:
		case <-timeout:
			expired = true
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

// readable is the room of the path, when the caller is in it or everybody may read it.
func (a *API) readable(r *Request) (*rooms.Room, error) {
	room, m, err := a.member(r)
	if err != nil || m == "join" {
		return room, err
	}
	v, err := room.State(r.Context(), room.Head(), "m.room.history_visibility", "")
	if err == nil && (v == nil || gjson.GetBytes(v.Content(), "history_visibility").Str != "world_readable") {
		err = signalling.Forbidden("you are not in this room, and not everybody may read it")
	}
	return room, err
}
