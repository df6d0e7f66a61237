// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesDirectory: "Room aliases", "Listing rooms" (the server's own directory).
func (a *API) routesDirectory() {
	if a.Rooms == nil {
		return
	}
	const c = "/_matrix/client/v3"
	a.route("GET "+c+"/directory/room/{alias}", Open, "requests", a.getAlias)
	a.route("PUT "+c+"/directory/room/{alias}", Token, "requests", a.putAlias)
	a.route("DELETE "+c+"/directory/room/{alias}", Token, "requests", a.deleteAlias)
	a.route("GET "+c+"/directory/list/room/{room}", Open, "requests", a.getVisibility)
	a.route("PUT "+c+"/directory/list/room/{room}", Token, "requests", a.putVisibility)
	a.route("GET "+c+"/rooms/{room}/aliases", AnyUser, "requests", a.roomAliases)
	a.route("GET "+c+"/publicRooms", Optional, "requests", a.publicRooms)
	a.route("POST "+c+"/publicRooms", AnyUser, "requests", a.publicRooms)
}

// alias is the alias of the path, which must be one of this server.
func (a *API) alias(r *Request) (string, error) {
	s := r.PathValue("alias")
	if !strings.HasPrefix(s, "#") || len(s) > event.MaxIDLength || strings.IndexByte(s, ':') < 2 {
		return "", signalling.InvalidParam("%q is not a room alias; one looks like #name:server", s)
	}
	if event.ServerOf(s) != a.Config.ServerName {
		return "", signalling.InvalidParam("%s is an alias of another server", s)
	}
	return s, nil
}

func (a *API) getAlias(r *Request) (any, error) {
	s := r.PathValue("alias")
	if strings.HasPrefix(s, "#") && a.elsewhere(s) {
		id, servers, err := a.Servers.Directory(r.Context(), s)
		return map[string]any{"room_id": id, "servers": servers}, err
	}
	id, _, err := a.Rooms.ResolveAlias(r.Context(), s)
	if err != nil {
		return nil, err
	}
	room, err := a.Rooms.Room(r.Context(), id)
	if err != nil {
		return nil, err
	}
	servers := []string{a.Config.ServerName}
	for _, x := range room.Servers() {
		if len(servers) < 50 {
			servers = append(servers, x)
		}
	}
	return map[string]any{"room_id": id, "servers": servers}, nil
}

func (a *API) putAlias(r *Request) (any, error) {
	s, err := a.alias(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		RoomID string `json:"room_id"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	room, err := a.Rooms.Room(r.Context(), in.RoomID)
	if err != nil && err != rooms.ErrNoRoom {
		return nil, err
	}
	if err != nil || !room.Head().IsJoined(r.UserID) {
		return nil, signalling.Forbidden("you may name only rooms that you are in")
	}
	return nil, a.Rooms.AddAlias(r.Context(), s, room, r.UserID)
}

func (a *API) deleteAlias(r *Request) (any, error) {
	s, err := a.alias(r)
	if err != nil {
		return nil, err
	}
	id, creator, err := a.Rooms.ResolveAlias(r.Context(), s)
	if err != nil {
		return nil, err
	}
	if creator != r.UserID && !r.Admin {
		room, err := a.Rooms.Room(r.Context(), id)
		if err != nil {
			return nil, err
		}
		power, err := event.PowerOf(room.StateView(r.Context(), room.Head()))
		if err != nil {
			return nil, err
		}
		if !room.Head().IsJoined(r.UserID) || power.User(r.UserID) < power.Event("m.room.canonical_alias", true) {
			return nil, signalling.Forbidden("only who made the alias, or may change the room's main alias, may delete it")
		}
	}
	return nil, a.Rooms.RemoveAlias(r.Context(), s, r.UserID)
}

func (a *API) roomAliases(r *Request) (any, error) {
	room, m, err := a.member(r)
	if err != nil {
		return nil, err
	}
	if m != "join" {
		v, err := room.State(r.Context(), room.Head(), "m.room.history_visibility", "")
		if err != nil {
			return nil, err
		}
		if v == nil || gjson.GetBytes(v.Content(), "history_visibility").Str != "world_readable" {
			return nil, signalling.Forbidden("you are not in this room")
		}
	}
	list, err := a.Rooms.Aliases(r.Context(), room)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []string{}
	}
	return map[string][]string{"aliases": list}, nil
}

func (a *API) getVisibility(r *Request) (any, error) {
	public, err := a.Rooms.Listed(r.Context(), r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	v := "private"
	if public {
		v = "public"
	}
	return map[string]string{"visibility": v}, nil
}

func (a *API) putVisibility(r *Request) (any, error) {
	var in struct {
		Visibility string `json:"visibility"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	if in.Visibility == "" {
		in.Visibility = "public"
	}
	if in.Visibility != "public" && in.Visibility != "private" {
		return nil, signalling.InvalidParam("visibility must be public or private")
	}
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	power, err := event.PowerOf(room.StateView(r.Context(), room.Head()))
	if err != nil {
		return nil, err
	}
	if !r.Admin && (!room.Head().IsJoined(r.UserID) || power.User(r.UserID) < power.Event("m.room.canonical_alias", true)) {
		return nil, signalling.Forbidden("only who may change the room's main alias may list it")
	}
	return nil, a.Rooms.List(r.Context(), room, in.Visibility == "public")
}

func (a *API) publicRooms(r *Request) (any, error) {
	var in struct {
		Limit  *int64 `json:"limit"`
		Since  string `json:"since"`
		Server string `json:"server"`
		Filter struct {
			Term  string    `json:"generic_search_term"`
			Types []*string `json:"room_types"`
		} `json:"filter"`
	}
	if r.Method == "POST" {
		if err := r.DecodeIfAny(&in); err != nil {
			return nil, err
		}
	} else {
		in.Since = r.Param("since")
		if r.HasParam("limit") {
			n, err := r.IntParam("limit", 100, 0, 500)
			if err != nil {
				return nil, err
			}
			in.Limit = &n
		}
	}
	if s := r.Param("server"); s != "" {
		in.Server = s
	}
	limit := int64(100)
	if in.Limit != nil && *in.Limit > 0 {
		limit = min(*in.Limit, 500)
	}
	if in.Server != "" && in.Server != a.Config.ServerName {
		if a.Servers == nil {
			return nil, signalling.NotFound("the room directory of %s cannot be reached from here", in.Server)
		}
		ask := map[string]any{"limit": limit, "filter": map[string]any{"generic_search_term": in.Filter.Term}}
		if in.Since != "" {
			ask["since"] = in.Since
		}
		if in.Filter.Types != nil {
			ask["filter"] = map[string]any{"generic_search_term": in.Filter.Term, "room_types": in.Filter.Types}
		}
		body, err := httpapi.Encode(ask)
		if err != nil {
			return nil, err
		}
		return a.Servers.PublicRooms(r.Context(), in.Server, body)
	}
	return a.Rooms.Directory(r.Context(), in.Filter.Term, in.Filter.Types, in.Since, int(limit))
}
