// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/http"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesUserData: "Filtering", "Client config" (account data) and "Room tagging". All of it belongs to the user in the path.
func (a *API) routesUserData() {
	if a.Accounts == nil {
		return
	}
	const user = "/_matrix/client/v3/user/{userID}"
	own := func(pattern string, f Handler) {
		a.route(pattern, AnyUser, "requests", func(r *Request) (any, error) {
			if err := r.Own("userID"); err != nil {
				return nil, err
			}
			return f(r)
		})
	}
	own("POST "+user+"/filter", func(r *Request) (any, error) {
		raw, err := r.Object(filter.MaxSize)
		if err != nil {
			return nil, err
		}
		id, err := a.Accounts.AddFilter(r.Context(), r.UserID, raw)
		return map[string]string{"filter_id": id}, err
	})
	own("GET "+user+"/filter/{filterID}", func(r *Request) (any, error) {
		return a.Accounts.FilterJSON(r.Context(), r.UserID, r.PathValue("filterID"))
	})
	for _, path := range []string{user + "/account_data/{type}", user + "/rooms/{roomID}/account_data/{type}"} {
		own("GET "+path, func(r *Request) (any, error) {
			return a.Accounts.AccountData(r.Context(), r.UserID, r.PathValue("roomID"), r.PathValue("type"))
		})
		own("PUT "+path, func(r *Request) (any, error) {
			typ := r.PathValue("type")
			if typ == "m.fully_read" || typ == "m.push_rules" {
				return nil, signalling.Refuse(http.StatusMethodNotAllowed, "M_BAD_JSON", "%s cannot be set here; it has an endpoint of its own", typ)
			}
			raw, err := r.Object(accounts.MaxAccountData)
			if err != nil {
				return nil, err
			}
			return nil, a.Accounts.SetAccountData(r.Context(), r.UserID, r.PathValue("roomID"), typ, raw)
		})
	}
	tags := user + "/rooms/{roomID}/tags"
	own("GET "+tags, func(r *Request) (any, error) {
		t, err := a.Accounts.Tags(r.Context(), r.UserID, r.PathValue("roomID"))
		return map[string]any{"tags": t}, err
	})
	own("PUT "+tags+"/{tag}", func(r *Request) (any, error) {
		raw, err := r.Object(MaxEventBody)
		if err != nil {
			return nil, err
		}
		var order struct {
			Order *float64 `json:"order"`
		}
		if err := decodeObject(raw, &order); err != nil {
			return nil, err
		}
		return nil, a.Accounts.SetTag(r.Context(), r.UserID, r.PathValue("roomID"), r.PathValue("tag"), raw)
	})
	own("DELETE "+tags+"/{tag}", func(r *Request) (any, error) {
		return nil, a.Accounts.SetTag(r.Context(), r.UserID, r.PathValue("roomID"), r.PathValue("tag"), nil)
	})
}
