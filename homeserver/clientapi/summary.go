// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"math"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesSummary: "Room summary", "Spaces", "Jump to timestamp" and "Reporting Content".
func (a *API) routesSummary() {
	if a.Rooms == nil {
		return
	}
	const c = "/_matrix/client/"
	a.route("GET "+c+"v1/room_summary/{room}", Optional, "requests", a.summary)
	a.route("GET "+c+"unstable/im.nheko.summary/summary/{room}", Optional, "requests", a.summary)
	a.route("GET "+c+"unstable/im.nheko.summary/rooms/{room}/summary", Optional, "requests", a.summary)
	a.route("GET "+c+"v1/rooms/{room}/hierarchy", AnyUser, "requests", a.hierarchy)
	a.route("GET "+c+"v1/rooms/{room}/timestamp_to_event", AnyUser, "requests", a.eventAt)
	a.route("POST "+c+"v3/rooms/{room}/report/{event}", Token, "requests", a.reportEvent)
	a.route("POST "+c+"v3/rooms/{room}/report", Token, "requests", a.reportRoom)
	a.route("POST "+c+"v3/users/{user}/report", Token, "requests", a.reportUser)
	a.advertise("im.nheko.summary")
}

func (a *API) summary(r *Request) (any, error) {
	id, via, err := a.resolve(r, r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	s, err := a.Rooms.Summarise(r.Context(), id, r.UserID)
	if err == rooms.ErrNoRoom && a.Servers != nil && r.UserID != "" {
		if far, ferr := a.Servers.Space(r.Context(), id, via, false); ferr == nil {
			far.Room.Membership = "leave"
			return far.Room.Summary, nil
		}
	}
	if err == rooms.ErrNoRoom {
		err = signalling.NotFound("there is no such room, or you may not know of it")
	}
	return s, err
}

func (a *API) eventAt(r *Request) (any, error) {
	if !r.HasParam("ts") {
		return nil, signalling.MissingParam("ts is missing: milliseconds since 1970")
	}
	ts, err := r.IntParam("ts", 0, 0, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	dir := r.Param("dir")
	if dir != "f" && dir != "b" {
		return nil, signalling.InvalidParam("dir must be f or b")
	}
	room, _, _, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	if err := a.reach(r, room, ts); err != nil {
		return nil, err
	}
	e, err := room.EventAt(r.Context(), ts, dir == "b")
	if err != nil {
		return nil, err
	}
	ok, err := room.Visible(r.Context(), e, r.UserID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, signalling.NotFound("there is no event in that direction that you may see")
	}
	return map[string]any{"event_id": e.ID(), "origin_server_ts": e.OriginTS()}, nil
}

const maxReason = 2000 // bytes

func (a *API) reason(r *Request) (string, error) {
	var in struct {
		Reason *string  `json:"reason"`
		Score  *float64 `json:"score"`
	}
	if err := r.Decode(&in); err != nil {
		return "", err
	}
	if in.Reason == nil {
		return "", nil
	}
	if len(*in.Reason) > maxReason {
		return "", signalling.TooLarge("a reason may have %d bytes", maxReason)
	}
	return *in.Reason, nil
}

func (a *API) reportEvent(r *Request) (any, error) {
	reason, err := a.reason(r)
	if err != nil {
		return nil, err
	}
	room, e, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	return nil, a.Rooms.Report(r.Context(), r.UserID, room.ID, e.ID(), e.Sender(), reason)
}

func (a *API) reportRoom(r *Request) (any, error) {
	reason, err := a.reason(r)
	if err != nil {
		return nil, err
	}
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err == rooms.ErrNoRoom {
		err = signalling.NotFound("there is no such room")
	}
	if err != nil {
		return nil, err
	}
	return nil, a.Rooms.Report(r.Context(), r.UserID, room.ID, "", "", reason)
}

// reportUser answers the same for users who are not there, so that nobody learns from it who is.
func (a *API) reportUser(r *Request) (any, error) {
	reason, err := a.reason(r)
	if err != nil {
		return nil, err
	}
	user := r.PathValue("user")
	if a.Accounts != nil {
		if _, err := a.Accounts.User(r.Context(), user); err != nil {
			if signalling.AsError(err).Status == 404 {
				return nil, nil
			}
			return nil, err
		}
	}
	return nil, a.Rooms.Report(r.Context(), r.UserID, "", "", user, reason)
}
