// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"github.com/trunkboard/trunkboard/signalling/focus"
)

// routesRTC: tokens for our SFU, for users of the server that asks (MSC4195).
func (a *API) routesRTC() {
	if a.Focus == nil {
		return
	}
	for _, base := range []string{federationV1, "/_matrix/federation/unstable/io.element.msc4195"} {
		a.route("POST "+base+"/rtc/livekit/get_token", Signed, maxBody, func(r *Request) (any, error) {
			var q focus.RemoteRequest
			if err := r.Decode(&q); err != nil {
				return nil, err
			}
			jwt, err := a.Focus.GrantRemote(r.Context(), r.Origin, q)
			return map[string]string{"jwt": jwt}, err
		})
	}
}
