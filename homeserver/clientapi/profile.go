// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesProfile: "Profiles", extended fields too.
func (a *API) routesProfile() {
	if a.Accounts == nil {
		return
	}
	a.route("GET /_matrix/client/v3/profile/{userID}", Open, "requests", func(r *Request) (any, error) {
		if user := r.PathValue("userID"); a.elsewhere(user) && event.ServerOf(user) != "" {
			return a.Servers.Profile(r.Context(), user, "")
		}
		return a.Accounts.Profile(r.Context(), r.PathValue("userID"))
	})
	a.route("GET /_matrix/client/v3/profile/{userID}/{field}", Open, "requests", func(r *Request) (any, error) {
		var p accounts.Profile
		var err error
		field := r.PathValue("field")
		if user := r.PathValue("userID"); a.elsewhere(user) && event.ServerOf(user) != "" {
			p, err = a.Servers.Profile(r.Context(), user, field)
		} else {
			p, err = a.Accounts.Profile(r.Context(), user)
		}
		if err != nil {
			return nil, err
		}
		value, ok := p[field]
		switch {
		case ok:
			return accounts.Profile{field: value}, nil
		case field == "displayname" || field == "avatar_url":
			return nil, nil // the user is there and has not said
		}
		return nil, signalling.NotFound("the profile has no field of that name")
	})
	a.route("PUT /_matrix/client/v3/profile/{userID}/{field}", AnyUser, "requests", func(r *Request) (any, error) {
		if err := r.ownField(); err != nil {
			return nil, err
		}
		in := map[string]json.RawMessage{}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		field := r.PathValue("field")
		value, ok := in[field]
		if !ok {
			return nil, signalling.MissingParam("the body must hold the field that the path names")
		}
		return nil, a.Accounts.SetProfileField(r.Context(), r.UserID, field, value)
	})
	a.route("DELETE /_matrix/client/v3/profile/{userID}/{field}", AnyUser, "requests", func(r *Request) (any, error) {
		if err := r.ownField(); err != nil {
			return nil, err
		}
		return nil, a.Accounts.SetProfileField(r.Context(), r.UserID, r.PathValue("field"), nil)
	})
}

// ownField checks that the caller may write the field of the profile that the path names: his own; a guest, his display name only.
func (r *Request) ownField() error {
	if r.Guest && (r.PathValue("field") != "displayname" || r.PathValue("userID") != r.UserID) {
		return errGuest
	}
	return r.Own("userID")
}
