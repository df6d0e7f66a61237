// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesSync: "Syncing", and what reaches others only through it: typing and receipts.
func (a *API) routesSync() {
	if a.Sync == nil {
		return
	}
	a.route("GET /_matrix/client/v3/sync", AnyUser, "", a.sync)
	const base = "/_matrix/client/v3/rooms/{room}"
	a.route("PUT "+base+"/typing/{user}", AnyUser, "requests", a.typing)
	a.route("POST "+base+"/receipt/{kind}/{event}", AnyUser, "requests", a.receipt)
	a.route("POST "+base+"/read_markers", AnyUser, "requests", a.readMarkers)
}

// maxSyncWait is the longest that a sync waits: proxies and NATs drop connections on which nothing moves for longer.
const maxSyncWait = int64(2 * time.Minute / time.Millisecond)

func (a *API) sync(r *Request) (any, error) {
	q := &syncapi.Request{User: r.UserID, Device: r.DeviceID, Since: r.Param("since")}
	ms, err := r.IntParam("timeout", 0, 0, maxSyncWait)
	if err != nil {
		return nil, err
	}
	q.Timeout = time.Duration(ms) * time.Millisecond
	if q.FullState, err = r.BoolParam("full_state", false); err != nil {
		return nil, err
	}
	if q.StateAfter, err = r.BoolParam("use_state_after", false); err != nil {
		return nil, err
	}
	if !q.StateAfter {
		if q.StateAfter, err = r.BoolParam("org.matrix.msc4222.use_state_after", false); err != nil {
			return nil, err
		}
		q.StateDraft = q.StateAfter
	}
	if f := r.Param("filter"); f != "" {
		if strings.HasPrefix(f, "{") {
			q.Filter, err = filter.Parse([]byte(f))
		} else {
			q.Filter, err = a.filterByID(r, f)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := a.setPresence(r, r.Param("set_presence")); err != nil {
		return nil, err
	}
	if q.Timeout > 0 {
		// The wait must not count against the time that the server gives an answer to be written.
		_ = r.Controller().SetWriteDeadline(time.Now().Add(q.Timeout + time.Minute))
	}
	b, err := a.Sync.Sync(r.Context(), q)
	return Raw(b), err
}

func (a *API) typing(r *Request) (any, error) {
	if err := r.Own("user"); err != nil {
		return nil, err
	}
	var in struct {
		Typing  *bool  `json:"typing"`
		Timeout *int64 `json:"timeout"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Typing == nil {
		return nil, signalling.MissingParam("typing is missing: true or false")
	}
	room, err := a.inside(r)
	if err != nil {
		return nil, err
	}
	d := time.Duration(0)
	if *in.Typing {
		d = 30 * time.Second
		if in.Timeout != nil {
			d = time.Duration(max(0, min(*in.Timeout, maxTypingParam))) * time.Millisecond
		}
	}
	a.Sync.SetTyping(room, r.UserID, d)
	return nil, nil
}

func (a *API) receipt(r *Request) (any, error) {
	var in struct {
		Thread *string `json:"thread_id"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	room, err := a.inside(r)
	if err != nil {
		return nil, err
	}
	thread := ""
	if in.Thread != nil {
		if thread = *in.Thread; thread == "" {
			return nil, signalling.InvalidParam("thread_id must not be empty")
		}
	}
	kind := r.PathValue("kind")
	if kind == "m.fully_read" {
		if in.Thread != nil {
			return nil, signalling.InvalidParam("m.fully_read has no thread")
		}
		return nil, a.fullyRead(r, room, r.PathValue("event"))
	}
	return nil, a.Sync.SetReceipt(r.Context(), room, r.UserID, kind, r.PathValue("event"), thread)
}

func (a *API) readMarkers(r *Request) (any, error) {
	var in struct {
		Fully   string `json:"m.fully_read"`
		Read    string `json:"m.read"`
		Private string `json:"m.read.private"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	room, err := a.inside(r)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct{ kind, event string }{{"m.read", in.Read}, {"m.read.private", in.Private}} {
		if x.event == "" {
			continue
		}
		if err := a.Sync.SetReceipt(r.Context(), room, r.UserID, x.kind, x.event, ""); err != nil {
			return nil, err
		}
	}
	if in.Fully != "" {
		return nil, a.fullyRead(r, room, in.Fully)
	}
	return nil, nil
}

func (a *API) filterByID(r *Request, id string) (*filter.Filter, error) {
	if a.Filters == nil {
		return nil, signalling.NotFound("there is no such filter")
	}
	return a.Filters.Filter(r.Context(), r.UserID, id)
}

// fullyRead sets the marker that only its owner sees, when the event is one that he may see.
func (a *API) fullyRead(r *Request, room *rooms.Room, eventID string) error {
	e, err := room.Event(r.Context(), eventID)
	if err != nil {
		return err
	}
	if e == nil {
		return signalling.NotFound("there is no such event in this room")
	}
	if a.Marks == nil {
		return signalling.Unrecognized()
	}
	return a.Marks.SetFullyRead(r.Context(), r.UserID, room.ID, eventID)
}
