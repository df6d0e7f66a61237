// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/base64"
)

// routesPolicy: "Policy Servers". This server is one for the rooms that name it and its key, which /.well-known/matrix/policy_server tells.
func (a *API) routesPolicy() {
	a.route("POST /_matrix/policy/v1/sign", Signed, maxBody, func(r *Request) (any, error) {
		room, e, err := a.Federation.PolicyEvent(r.Context(), r.Origin, r.Body)
		if err != nil {
			return nil, err
		}
		if err := r.limit("messages", e.Sender()); err != nil { // what a room is spared first of all: floods
			return nil, err
		}
		sig, err := a.Rooms.PolicySign(r.Context(), room, e)
		if err != nil {
			return nil, err
		}
		return map[string]map[string]string{a.Federation.Server(): {"ed25519:policy_server": base64.RawStdEncoding.EncodeToString(sig)}}, nil
	})
}
