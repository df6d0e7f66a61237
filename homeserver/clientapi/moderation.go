// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/http"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesModeration: "Server administration": whois, and locking and suspending accounts.
func (a *API) routesModeration() {
	if a.Accounts == nil {
		return
	}
	a.route("GET /_matrix/client/v3/admin/whois/{userID}", AnyUser, "requests", a.whois)
	for _, what := range []string{"lock", "suspend"} {
		a.route("GET /_matrix/client/v1/admin/"+what+"/{userID}", Admin, "requests", a.moderated(what))
		a.route("PUT /_matrix/client/v1/admin/"+what+"/{userID}", Admin, "requests", a.moderate(what))
	}
}

// whois tells an administrator, or the user himself, from where his devices were last used.
func (a *API) whois(r *Request) (any, error) {
	id := r.PathValue("userID")
	if id != r.UserID {
		if !r.Admin {
			return nil, signalling.Forbidden("only a server administrator may look others up")
		}
		if _, err := a.localUser(r, id); err != nil {
			return nil, err
		}
	}
	all, err := a.Accounts.Devices(r.Context(), id)
	if err != nil {
		return nil, err
	}
	type connection struct {
		IP   string `json:"ip,omitempty"`
		Seen int64  `json:"last_seen,omitempty"`
	}
	type session struct {
		Connections []connection `json:"connections"`
	}
	devices := map[string]any{}
	for _, d := range all {
		s := session{Connections: []connection{}}
		if d.SeenTS != 0 {
			s.Connections = append(s.Connections, connection{d.SeenIP, d.SeenTS})
		}
		devices[d.ID] = map[string][]session{"sessions": {s}}
	}
	return map[string]any{"user_id": id, "devices": devices}, nil
}

// localUser reads an account of this server that has not ended. Errors: M_INVALID_PARAM, M_NOT_FOUND.
func (a *API) localUser(r *Request, id string) (storage.User, error) {
	if !strings.HasPrefix(id, "@") || a.Accounts.UserID(id) == "" {
		return storage.User{}, signalling.InvalidParam("that is no user of this server")
	}
	u, err := a.Accounts.User(r.Context(), id)
	if err == nil && u.Deactivated {
		err = signalling.NotFound("there is no such user")
	}
	return u, err
}

func (a *API) moderated(what string) Handler {
	return func(r *Request) (any, error) {
		u, err := a.localUser(r, r.PathValue("userID"))
		if err != nil {
			return nil, err
		}
		if what == "lock" {
			return map[string]bool{"locked": u.Locked}, nil
		}
		return map[string]bool{"suspended": u.Suspended}, nil
	}
}

func (a *API) moderate(what string) Handler {
	return func(r *Request) (any, error) {
		var in struct {
			Locked    *bool `json:"locked"`
			Suspended *bool `json:"suspended"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		wanted, key, set := in.Locked, "locked", a.Accounts.SetLocked
		if what == "suspend" {
			wanted, key, set = in.Suspended, "suspended", a.Accounts.SetSuspended
		}
		if wanted == nil {
			return nil, signalling.MissingParam("%s is needed: true or false", key)
		}
		id := r.PathValue("userID")
		u, err := a.localUser(r, id)
		switch {
		case err != nil:
			return nil, err
		case id == r.UserID:
			return nil, signalling.Forbidden("nobody can do this to himself")
		case u.Admin:
			return nil, signalling.Forbidden("this account is an administrator's")
		}
		return map[string]bool{key: *wanted}, set(r.Context(), id, *wanted)
	}
}

// errSuspended is 403 M_USER_SUSPENDED (client-server API, "Account suspension").
var errSuspended = signalling.Refuse(http.StatusForbidden, "M_USER_SUSPENDED", "this account is suspended: it can read and leave, but not do this")

// forbiddenToSuspended are the routes that a suspended account may not use: those that reach others. Reading, leaving, logging out,
// verifying devices and keeping keys stay open; his own events he may redact (see redact).
func forbiddenToSuspended() map[string]bool {
	const c = "/_matrix/client/v3"
	const room = c + "/rooms/{room}"
	out := map[string]bool{}
	for _, p := range []string{
		"POST " + c + "/createRoom", "POST " + c + "/join/{room}", "POST " + c + "/knock/{room}",
		"POST " + room + "/join", "POST " + room + "/upgrade", "POST " + room + "/invite", "POST " + room + "/kick", "POST " + room + "/ban", "POST " + room + "/unban",
		"PUT " + room + "/send/{type}/{txn}",
		"PUT " + room + "/state/{type}", "PUT " + room + "/state/{type}/{$}", "PUT " + room + "/state/{type}/{key}",
		"PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{room}/delayed_event/{type}/{txn}",
		"PUT " + c + "/profile/{userID}/{field}", "DELETE " + c + "/profile/{userID}/{field}",
		"PUT " + c + "/directory/room/{alias}", "DELETE " + c + "/directory/room/{alias}", "PUT " + c + "/directory/list/room/{room}",
		"POST " + c + "/account/3pid/delete",
	} {
		out[p] = true
	}
	return out
}
