// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// routesPresence: "Presence".
func (a *API) routesPresence() {
	if a.Presence == nil {
		return
	}
	a.route("GET /_matrix/client/v3/presence/{user}/status", AnyUser, "requests", a.getPresence)
	a.route("PUT /_matrix/client/v3/presence/{user}/status", Token, "requests", a.putPresence)
}

func (a *API) getPresence(r *Request) (any, error) {
	user := r.PathValue("user")
	share, err := a.Rooms.ShareRoom(r.Context(), r.UserID, user)
	if err != nil {
		return nil, err
	}
	if !share {
		return nil, signalling.Forbidden("you may see the presence of people whom you share a room with")
	}
	return Raw(syncapi.AppendPresence(nil, a.Presence.Get(user)[0], a.Clock.Now())), nil
}

func (a *API) putPresence(r *Request) (any, error) {
	if err := r.Own("user"); err != nil {
		return nil, err
	}
	var in struct {
		Presence string  `json:"presence"`
		Status   *string `json:"status_msg"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Presence == "" {
		return nil, signalling.MissingParam("presence is missing: online, unavailable or offline")
	}
	if in.Status == nil {
		in.Status = new(string)
	}
	return nil, a.Presence.Set(r.Context(), presence.Update{UserID: r.UserID, DeviceID: r.DeviceID, State: presence.State(in.Presence), StatusMsg: in.Status})
}

// setPresence does what set_presence of a sync asks for: a client that syncs is online, unless it says otherwise.
func (a *API) setPresence(r *Request, value string) error {
	if a.Presence == nil {
		return nil
	}
	u := presence.Update{UserID: r.UserID, DeviceID: r.DeviceID, State: presence.Online}
	switch value {
	case "", "online":
	case "unavailable":
		u.State = presence.Unavailable
	case "offline":
		return nil // the client asks not to be counted as present
	default:
		return signalling.InvalidParam("set_presence must be online, unavailable or offline")
	}
	return a.Presence.Set(r.Context(), u)
}
