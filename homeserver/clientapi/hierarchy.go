// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of one walk through a space.
const (
	maxHierarchyDepth = 10
	maxHierarchyPage  = 50
	maxHierarchyRooms = 2000
	maxFarRooms       = 100              // asked of other servers for one page
	farTime           = 20 * time.Second // for all of them
)

// spaceStop is a room on the way through a space.
type spaceStop struct {
	id    string
	depth int64
	via   []string       // servers that may know it
	known *rooms.Summary // what another server has said of it already; nil where that says nothing
}

// spaceWalk is one walk through a space.
type spaceWalk struct {
	a         *API
	r         *Request
	suggested bool
	far       int // rooms that other servers were asked for
}

func (a *API) hierarchy(r *Request) (any, error) {
	suggested, err := r.BoolParam("suggested_only", false)
	if err != nil {
		return nil, err
	}
	limit, err := r.IntParam("limit", maxHierarchyPage, 1, maxHierarchyPage)
	if err != nil {
		return nil, err
	}
	depth, err := r.IntParam("max_depth", maxHierarchyDepth, 0, maxHierarchyDepth)
	if err != nil {
		return nil, err
	}
	start := 0
	if s := r.Param("from"); s != "" {
		if start, err = strconv.Atoi(s); err != nil || start < 0 {
			return nil, signalling.InvalidParam("from is not a token that this server gave out")
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), farTime)
	defer cancel()
	w := &spaceWalk{a: a, r: r, suggested: suggested}
	out := []rooms.SpaceRoom{}
	root := r.PathValue("room")
	seen := map[string]bool{root: true}
	at := 0
	for todo := []spaceStop{{id: root, via: r.viaParams()}}; len(todo) > 0 && at < maxHierarchyRooms; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		x, children, err := w.look(ctx, next)
		if err != nil {
			return nil, err
		}
		if x == nil {
			if next.id == root {
				return nil, signalling.Forbidden("you may not see this space")
			}
			continue // not known, or not to be known
		}
		for _, c := range slices.Backward(children) { // the first is walked first
			if next.depth < depth && !seen[c.id] {
				seen[c.id] = true
				c.depth = next.depth + 1
				todo = append(todo, c)
			}
		}
		if at++; at <= start {
			continue
		}
		if len(out) == int(limit) {
			return map[string]any{"rooms": out, "next_batch": strconv.Itoa(start + len(out))}, nil
		}
		out = append(out, *x)
	}
	return map[string]any{"rooms": out}, nil
}

// look gives a room and the rooms in it; nil for a room that is not known, or not to be known by the caller.
func (w *spaceWalk) look(ctx context.Context, at spaceStop) (*rooms.SpaceRoom, []spaceStop, error) {
	s, err := w.a.Rooms.Summarise(ctx, at.id, w.r.UserID)
	if err == rooms.ErrNoRoom {
		return w.lookFar(ctx, at)
	}
	if err != nil {
		if signalling.AsError(err).Status >= 500 {
			return nil, nil, err
		}
		return nil, nil, nil
	}
	x := &rooms.SpaceRoom{Summary: s, Children: []json.RawMessage{}}
	if s.Type == nil || *s.Type != "m.space" {
		return x, nil, nil
	}
	room, err := w.a.Rooms.Room(ctx, at.id)
	if err != nil {
		return nil, nil, err
	}
	children, err := room.SpaceChildren(ctx)
	if err != nil {
		return nil, nil, err
	}
	var stops []spaceStop
	for _, c := range children {
		if w.suggested && !c.Suggested {
			continue
		}
		e, err := c.Stripped()
		if err != nil {
			return nil, nil, err
		}
		x.Children = append(x.Children, e)
		stops = append(stops, spaceStop{id: c.ID, via: viaOf(e)})
	}
	return x, stops, nil
}

// lookFar asks other servers for a room that this one is not in.
func (w *spaceWalk) lookFar(ctx context.Context, at spaceStop) (*rooms.SpaceRoom, []spaceStop, error) {
	if at.known != nil && (at.known.Type == nil || *at.known.Type != "m.space") {
		if ok, err := w.mayKnow(ctx, at.known); err != nil || !ok {
			return nil, nil, err
		}
		return &rooms.SpaceRoom{Summary: at.known, Children: []json.RawMessage{}}, nil, nil
	}
	if room, err := w.a.Rooms.Room(ctx, at.id); w.a.Servers == nil || w.far >= maxFarRooms || ctx.Err() != nil || err == nil && room.Here() {
		return nil, nil, nil
	}
	w.far++
	far, err := w.a.Servers.Space(ctx, at.id, at.via, w.suggested)
	if err != nil {
		w.a.Log.Debug("a room of a space could not be had", "room", at.id, "err", err)
		return nil, nil, nil
	}
	if ok, err := w.mayKnow(ctx, far.Room.Summary); err != nil || !ok {
		return nil, nil, err
	}
	far.Room.Membership = ""
	known := map[string]*rooms.Summary{}
	for _, c := range far.Children {
		if c != nil {
			known[c.ID] = c
		}
	}
	x := &rooms.SpaceRoom{Summary: far.Room.Summary, Children: []json.RawMessage{}}
	var stops []spaceStop
	for _, e := range far.Room.Children {
		child := gjson.GetBytes(e, "state_key")
		if child.Type != gjson.String || gjson.GetBytes(e, "type").Str != "m.space.child" || !gjson.GetBytes(e, "content").IsObject() || w.suggested && !gjson.GetBytes(e, "content.suggested").Bool() || len(stops) == maxHierarchyRooms {
			continue
		}
		x.Children = append(x.Children, e)
		if !slices.Contains(far.Inaccessible, child.Str) {
			stops = append(stops, spaceStop{id: child.Str, via: viaOf(e), known: known[child.Str]})
		}
	}
	return x, stops, nil
}

// mayKnow says whether the caller may know of a room that another server has told this one of.
func (w *spaceWalk) mayKnow(ctx context.Context, s *rooms.Summary) (bool, error) {
	if s.WorldReadable || s.JoinRule == "" || s.JoinRule == "public" || s.JoinRule == "knock" || s.JoinRule == "knock_restricted" {
		return true, nil
	}
	all, err := w.a.Rooms.UserRooms(ctx, w.r.UserID)
	if err != nil {
		return false, err
	}
	if all[s.ID].Membership == "invite" {
		return true, nil
	}
	return slices.ContainsFunc(s.Allowed, func(id string) bool { return all[id].Membership == "join" }), nil
}

// viaOf are the servers that a child of a space is reached by.
func viaOf(child json.RawMessage) (via []string) {
	for _, v := range gjson.GetBytes(child, "content.via").Array() {
		if v.Type == gjson.String && len(via) < 5 {
			via = append(via, v.Str)
		}
	}
	return via
}
