// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"math"
	"strconv"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesRelations: "Relationships API", "Threading".
func (a *API) routesRelations() {
	if a.Rooms == nil {
		return
	}
	const base = "/_matrix/client/v1/rooms/{room}"
	for _, path := range []string{"", "/{rel}", "/{rel}/{type}"} {
		a.route("GET "+base+"/relations/{event}"+path, AnyUser, "requests", a.relations)
	}
	a.route("GET "+base+"/threads", AnyUser, "requests", a.threads)
	a.advertise("org.matrix.msc3874") // filter of /messages by relation
	a.advertise("org.matrix.msc3981") // recurse of /relations
	a.advertise("org.matrix.msc3440.stable")
}

// aggregate gives m.relations of those of events that have any, by internal id.
func (a *API) aggregate(r *Request, room *rooms.Room, events ...*rooms.Stored) (map[int64][]byte, error) {
	ignored, err := a.ignoredBy(r)
	if err != nil {
		return nil, err
	}
	agg := rooms.Aggregator{Room: room, Reader: r.UserID, Ignored: ignored}
	return agg.Aggregate(r.Context(), a.view(r), events...)
}

// maxRelations is how many events one answer of /relations or /threads holds.
const maxRelations = 100

func (a *API) relations(r *Request) (any, error) {
	room, parent, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	var backwards bool
	switch r.Param("dir") {
	case "", "b":
		backwards = true
	case "f":
	default:
		return nil, signalling.InvalidParam("dir must be b or f")
	}
	limit, err := r.IntParam("limit", 5, 1, maxRelations)
	if err != nil {
		return nil, err
	}
	recurse, err := r.BoolParam("recurse", false)
	if err != nil {
		return nil, err
	}
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	for _, p := range []struct {
		name  string
		lower bool
	}{{"from", !backwards}, {"to", backwards}} {
		s := r.Param(p.name)
		if s == "" {
			continue
		}
		t, err := syncapi.ParseHistoryToken(s)
		if err != nil {
			return nil, err
		}
		// A token stands between events: after the one at its position.
		if p.lower {
			low = t.Pos
		} else {
			high = t.Pos + 1
		}
	}
	ignored, err := a.ignoredBy(r)
	if err != nil {
		return nil, err
	}
	events, depth, err := room.Children(r.Context(), parent.ID(), r.PathValue("rel"), r.PathValue("type"), recurse, low, high, int(limit)+1, backwards)
	if err != nil {
		return nil, err
	}
	more := len(events) > int(limit)
	if more {
		events = events[:limit]
	}
	next := int64(0)
	shown := events[:0:0]
	for _, e := range events {
		next = e.Pos
		if backwards {
			next--
		}
		ok, err := room.Visible(r.Context(), e, r.UserID)
		if err != nil {
			return nil, err
		}
		if ok && !a.ignored(ignored, e) {
			shown = append(shown, e)
		}
	}
	b, err := a.pageList(r, room, shown)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`{"chunk":`), b...)
	if more {
		out = event.AppendString(append(out, `,"next_batch":`...), syncapi.Token{Pos: next}.String())
	}
	if s := r.Param("from"); s != "" {
		out = event.AppendString(append(out, `,"prev_batch":`...), s)
	}
	if recurse {
		out = strconv.AppendInt(append(out, `,"recursion_depth":`...), int64(depth), 10)
	}
	return Raw(append(out, '}')), nil
}

func (a *API) threads(r *Request) (any, error) {
	room, m, err := a.member(r)
	if err != nil {
		return nil, err
	}
	if m != "join" {
		if _, _, _, err := a.stateFor(r); err != nil {
			return nil, err
		}
	}
	participant := ""
	switch r.Param("include") {
	case "", "all":
	case "participated":
		participant = r.UserID
	default:
		return nil, signalling.InvalidParam("include must be all or participated")
	}
	limit, err := r.IntParam("limit", 20, 1, maxRelations)
	if err != nil {
		return nil, err
	}
	before := int64(math.MaxInt64)
	if s := r.Param("from"); s != "" {
		t, err := syncapi.ParseHistoryToken(s)
		if err != nil {
			return nil, err
		}
		before = t.Pos + 1
	}
	ignored, err := a.ignoredBy(r)
	if err != nil {
		return nil, err
	}
	roots, at, err := room.Threads(r.Context(), before, participant, int(limit)+1)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(roots) > int(limit) {
		roots = roots[:limit]
		next = syncapi.Token{Pos: at[limit-1] - 1}.String()
	}
	shown := roots[:0:0]
	for _, e := range roots {
		if e == nil || a.ignored(ignored, e) {
			continue // a thread below an event that is not known here
		}
		ok, err := room.Visible(r.Context(), e, r.UserID)
		if err != nil {
			return nil, err
		}
		if ok {
			shown = append(shown, e)
		}
	}
	b, err := a.pageList(r, room, shown)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`{"chunk":`), b...)
	if next != "" {
		out = event.AppendString(append(out, `,"next_batch":`...), next)
	}
	return Raw(append(out, '}')), nil
}
