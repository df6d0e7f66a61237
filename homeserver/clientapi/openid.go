// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/signalling"
)

// openIDInfo is where other services ask whom a token names. It is of the server-server API, but needs no signature.
const openIDInfo = "/_matrix/federation/v1/openid/userinfo"

// routesOpenID: "OpenID", and its other end in the server-server API.
func (a *API) routesOpenID() {
	if a.Accounts == nil {
		return
	}
	a.route("POST /_matrix/client/v3/user/{userID}/openid/request_token", Token, "requests", func(r *Request) (any, error) {
		if err := r.Own("userID"); err != nil {
			return nil, err
		}
		var none struct{}
		if err := r.DecodeIfAny(&none); err != nil {
			return nil, err
		}
		return map[string]any{
			"access_token": a.Accounts.OpenIDToken(r.UserID, r.DeviceID), "token_type": "Bearer", "matrix_server_name": a.Config.ServerName, "expires_in": int64(accounts.OpenIDLife.Seconds()),
		}, nil
	})
	a.route("GET "+openIDInfo, Open, "requests", func(r *Request) (any, error) {
		t := r.Param("access_token")
		if t == "" {
			return nil, signalling.Refuse(401, "M_MISSING_TOKEN", "access_token is needed: an OpenID token")
		}
		user, err := a.Accounts.OpenIDUser(t)
		return map[string]string{"sub": user}, err
	})
}
