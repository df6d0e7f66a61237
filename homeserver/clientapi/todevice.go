// SPDX-License-Identifier: Apache-2.0

package clientapi

import "github.com/trunkboard/trunkboard/homeserver/e2ee"

// routesToDevice: "Send-to-Device messaging".
func (a *API) routesToDevice() {
	if a.E2EE == nil {
		return
	}
	a.route("PUT /_matrix/client/v3/sendToDevice/{type}/{txn}", AnyUser, "messages", func(r *Request) (any, error) {
		m, err := decodeBody(r, maxKeysBody, e2ee.DecodeMessages)
		if err != nil {
			return nil, err
		}
		return nil, a.E2EE.SendToDevice(r.Context(), r.UserID, r.DeviceID, r.PathValue("type"), r.PathValue("txn"), m)
	})
}
