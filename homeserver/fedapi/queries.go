// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesQueries: "Querying for information", "Public Room Directory", "Spaces".
func (a *API) routesQueries() {
	a.route("GET "+federationV1+"/query/directory", Signed, 0, a.queryDirectory)
	a.route("GET "+federationV1+"/query/profile", Signed, 0, a.queryProfile)
	a.route("GET "+federationV1+"/publicRooms", Signed, 0, a.publicRooms)
	a.route("POST "+federationV1+"/publicRooms", Signed, maxBody, a.publicRooms)
	a.route("GET "+federationV1+"/hierarchy/{room}", Signed, 0, a.hierarchy)
}

func (a *API) queryDirectory(r *Request) (any, error) {
	alias := r.Param("room_alias")
	if alias == "" {
		return nil, signalling.MissingParam("room_alias is missing")
	}
	if event.ServerOf(alias) != a.Federation.Server() {
		return nil, signalling.NotFound("%s is no alias of this server", alias)
	}
	id, _, err := a.Rooms.ResolveAlias(r.Context(), alias)
	if err != nil {
		return nil, err
	}
	room, err := a.Rooms.Room(r.Context(), id)
	if err != nil {
		return nil, err
	}
	const most = 50
	servers := []string{a.Federation.Server()}
	for _, x := range room.Servers() {
		if len(servers) < most {
			servers = append(servers, x)
		}
	}
	return map[string]any{"room_id": id, "servers": servers}, nil
}

func (a *API) queryProfile(r *Request) (any, error) {
	user, field := r.Param("user_id"), r.Param("field")
	if user == "" {
		return nil, signalling.MissingParam("user_id is missing")
	}
	if err := federation.ValidServer(event.ServerOf(user)); err != nil {
		return nil, err
	}
	if event.ServerOf(user) != a.Federation.Server() {
		return nil, signalling.NotFound("%s is no user of this server", user)
	}
	p, err := a.Accounts.Profile(r.Context(), user)
	if err != nil || field == "" {
		return p, err
	}
	value, ok := p[field]
	if !ok {
		return nil, nil
	}
	return accounts.Profile{field: value}, nil
}

func (a *API) publicRooms(r *Request) (any, error) {
	var in struct {
		Limit  *int64 `json:"limit"`
		Since  string `json:"since"`
		Filter struct {
			Term  string    `json:"generic_search_term"`
			Types []*string `json:"room_types"`
		} `json:"filter"`
	}
	if r.Method == "POST" {
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
	} else {
		in.Since = r.Param("since")
		n, err := r.IntParam("limit", 100, 0, 500)
		if err != nil {
			return nil, err
		}
		in.Limit = &n
	}
	limit := int64(100)
	if in.Limit != nil && *in.Limit > 0 {
		limit = min(*in.Limit, 500)
	}
	return a.Rooms.Directory(r.Context(), in.Filter.Term, in.Filter.Types, in.Since, int(limit))
}

// routesUsers: "Device Management", "End-to-End Encryption".
func (a *API) routesUsers() {
	if a.E2EE == nil {
		return
	}
	a.route("GET "+federationV1+"/user/devices/{user}", Signed, 0, a.userDevices)
	a.route("POST "+federationV1+"/user/keys/query", Signed, maxBody, func(r *Request) (any, error) {
		q, err := e2ee.DecodeQuery(r.Body)
		if err != nil {
			return nil, err
		}
		return a.E2EE.LocalKeys(r.Context(), q)
	})
	a.route("POST "+federationV1+"/user/keys/claim", Signed, maxBody, func(r *Request) (any, error) {
		claims, err := e2ee.DecodeClaims(r.Body)
		if err != nil {
			return nil, err
		}
		for user := range claims {
			if event.ServerOf(user) != a.Federation.Server() {
				delete(claims, user) // we ask nobody on behalf of others
			}
		}
		keys, err := a.E2EE.Claim(r.Context(), claims)
		if err != nil {
			return nil, err
		}
		return map[string]any{"one_time_keys": keys.OneTimeKeys}, nil
	})
}

func (a *API) userDevices(r *Request) (any, error) {
	user := r.PathValue("user")
	if !strings.HasPrefix(user, "@") || event.ServerOf(user) != a.Federation.Server() {
		return nil, signalling.NotFound("%s is no user of this server", user)
	}
	if _, err := a.Accounts.User(r.Context(), user); err != nil {
		return nil, err
	}
	return a.E2EE.DeviceList(r.Context(), user)
}

// hierarchy tells of a space and of the rooms in it that the other server may know of ("GET /hierarchy").
func (a *API) hierarchy(r *Request) (any, error) {
	suggested := false
	switch r.Param("suggested_only") {
	case "", "false":
	case "true":
		suggested = true
	default:
		return nil, signalling.InvalidParam("suggested_only must be true or false")
	}
	return a.Rooms.SpaceFor(r.Context(), r.Origin, r.PathValue("room"), suggested)
}
