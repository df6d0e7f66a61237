// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"
	"net/http"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	federationV1 = "/_matrix/federation/v1"
	federationV2 = "/_matrix/federation/v2"
	// MaxInvite is the largest invite in bytes: an event and the stripped state of the room.
	maxInvite = 1 << 20
)

// routesMembers: "Joining Rooms", "Knocking upon a room", "Leaving Rooms", "Inviting to a room".
func (a *API) routesMembers() {
	for _, m := range []string{"join", "leave", "knock"} {
		a.route("GET "+federationV1+"/make_"+m+"/{room}/{user}", Signed, 0, func(r *Request) (any, error) {
			versions := r.Params("ver")
			if m == "leave" {
				versions = nil
			} else if len(versions) == 0 {
				versions = []string{"1"}
			}
			return a.Federation.MakeMember(r.Context(), r.Origin, r.PathValue("room"), r.PathValue("user"), m, versions)
		})
	}
	a.route("PUT "+federationV2+"/send_join/{room}/{event}", Signed, maxBody, a.sendJoin)
	a.route("PUT "+federationV1+"/send_join/{room}/{event}", Signed, maxBody, func(r *Request) (any, error) {
		v, err := a.sendJoin(r)
		return []any{http.StatusOK, v}, err
	})
	a.route("PUT "+federationV2+"/send_leave/{room}/{event}", Signed, maxBody, a.sendLeave)
	a.route("PUT "+federationV1+"/send_leave/{room}/{event}", Signed, maxBody, func(r *Request) (any, error) {
		_, err := a.sendLeave(r)
		return []any{http.StatusOK, struct{}{}}, err
	})
	a.route("PUT "+federationV1+"/send_knock/{room}/{event}", Signed, maxBody, a.sendKnock)
	a.route("PUT "+federationV2+"/invite/{room}/{event}", Signed, maxInvite, func(r *Request) (any, error) {
		var in federation.InviteBody
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		return a.invite(r, in)
	})
	a.route("PUT "+federationV1+"/invite/{room}/{event}", Signed, maxInvite, func(r *Request) (any, error) {
		var in struct {
			Unsigned struct {
				Stripped []json.RawMessage `json:"invite_room_state"`
			} `json:"unsigned"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		// The version of the room is not said: only 1 and 2 were invited to so, and they read alike.
		v, err := a.invite(r, federation.InviteBody{Event: r.Body, Version: "1", Stripped: in.Unsigned.Stripped})
		return []any{http.StatusOK, v}, err
	})
}

func (a *API) sendJoin(r *Request) (any, error) {
	in, err := a.Federation.TakeMember(r.Context(), r.Origin, r.PathValue("room"), r.PathValue("event"), "join", r.Body, r.Param("omit_members") == "true")
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"origin": a.Federation.Server(), "state": federation.Answer(in.State), "auth_chain": federation.Answer(in.AuthChain), "event": json.RawMessage(in.Event.JSON()),
		"members_omitted": in.Partial,
	}
	if in.Partial {
		out["servers_in_room"] = in.Servers
	}
	return out, nil
}

func (a *API) sendLeave(r *Request) (any, error) {
	_, err := a.Federation.TakeMember(r.Context(), r.Origin, r.PathValue("room"), r.PathValue("event"), "leave", r.Body, false)
	return nil, err
}

func (a *API) sendKnock(r *Request) (any, error) {
	if _, err := a.Federation.TakeMember(r.Context(), r.Origin, r.PathValue("room"), r.PathValue("event"), "knock", r.Body, false); err != nil {
		return nil, err
	}
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	stripped, err := room.Stripped(r.Context(), "")
	return map[string]any{"knock_room_state": stripped}, err
}

func (a *API) invite(r *Request, in federation.InviteBody) (any, error) {
	if err := r.limit("invites", "server "+r.Origin); err != nil {
		return nil, err
	}
	e, err := a.Federation.TakeInvite(r.Context(), r.Origin, r.PathValue("room"), r.PathValue("event"), in)
	if err != nil {
		return nil, err
	}
	return map[string]json.RawMessage{"event": e.JSON()}, nil
}

// routesGraph: "Transactions", "Retrieving events", "Backfilling and retrieving missing events".
func (a *API) routesGraph() {
	a.route("PUT "+federationV1+"/send/{txn}", Signed, federation.MaxTransaction, func(r *Request) (any, error) {
		b, err := a.Federation.Transaction(r.Context(), r.Origin, r.PathValue("txn"), r.Body)
		return Raw(b), err
	})
	a.route("GET "+federationV1+"/state/{room}", Signed, 0, func(r *Request) (any, error) {
		id, err := r.eventID()
		if err != nil {
			return nil, err
		}
		state, chain, err := a.Rooms.StateFor(r.Context(), r.Origin, r.PathValue("room"), id)
		return map[string]any{"pdus": federation.Answer(state), "auth_chain": federation.Answer(chain)}, err
	})
	a.route("GET "+federationV1+"/state_ids/{room}", Signed, 0, func(r *Request) (any, error) {
		id, err := r.eventID()
		if err != nil {
			return nil, err
		}
		state, chain, err := a.Rooms.StateIDsFor(r.Context(), r.Origin, r.PathValue("room"), id)
		return map[string]any{"pdu_ids": orEmpty(state), "auth_chain_ids": orEmpty(chain)}, err
	})
	a.route("GET "+federationV1+"/event_auth/{room}/{event}", Signed, 0, func(r *Request) (any, error) {
		chain, err := a.Rooms.AuthChainFor(r.Context(), r.Origin, r.PathValue("room"), r.PathValue("event"))
		return map[string]any{"auth_chain": federation.Answer(chain)}, err
	})
	a.route("GET "+federationV1+"/event/{event}", Signed, 0, func(r *Request) (any, error) {
		e, err := a.Rooms.EventFor(r.Context(), r.Origin, r.PathValue("event"))
		if err != nil {
			return nil, err
		}
		return a.pdus([]*event.Event{e}), nil
	})
	a.route("GET "+federationV1+"/backfill/{room}", Signed, 0, func(r *Request) (any, error) {
		limit, err := r.IntParam("limit", 0, 0, 100)
		if err != nil {
			return nil, err
		}
		from := r.Params("v")
		if len(from) == 0 || limit == 0 {
			return nil, signalling.MissingParam("v and limit are needed: where to begin, and how many events")
		}
		list, err := a.Rooms.BackfillFor(r.Context(), r.Origin, r.PathValue("room"), from[:min(len(from), event.MaxPrev)], int(limit))
		if err != nil {
			return nil, err
		}
		return a.pdus(list), nil
	})
	a.route("POST "+federationV1+"/get_missing_events/{room}", Signed, maxBody, func(r *Request) (any, error) {
		var in struct {
			Earliest []string `json:"earliest_events"`
			Latest   []string `json:"latest_events"`
			Limit    *int     `json:"limit"`
			MinDepth int64    `json:"min_depth"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		limit := 10
		if in.Limit != nil {
			limit = *in.Limit
		}
		list, err := a.Rooms.MissingFor(r.Context(), r.Origin, r.PathValue("room"), in.Earliest, in.Latest, limit, in.MinDepth)
		return map[string]any{"events": federation.Answer(list)}, err
	})
	a.route("GET "+federationV1+"/timestamp_to_event/{room}", Signed, 0, func(r *Request) (any, error) {
		if r.Param("ts") == "" {
			return nil, signalling.MissingParam("ts is missing: milliseconds since 1970")
		}
		ts, err := r.IntParam("ts", 0, 0, 1<<62)
		if err != nil {
			return nil, err
		}
		dir := r.Param("dir")
		if dir != "f" && dir != "b" {
			return nil, signalling.InvalidParam("dir must be f or b")
		}
		e, err := a.Rooms.EventAtFor(r.Context(), r.Origin, r.PathValue("room"), ts, dir == "b")
		if err != nil {
			return nil, err
		}
		return map[string]any{"event_id": e.ID(), "origin_server_ts": e.OriginTS()}, nil
	})
}

// eventID is the event_id of the query.
func (r *Request) eventID() (string, error) {
	id := r.Param("event_id")
	if id == "" {
		return "", signalling.MissingParam("event_id is missing")
	}
	return id, nil
}

// pdus is a transaction that carries events.
func (a *API) pdus(events []*event.Event) any {
	return map[string]any{"origin": a.Federation.Server(), "origin_server_ts": a.Federation.Clock.Now().UnixMilli(), "pdus": federation.Answer(events)}
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
