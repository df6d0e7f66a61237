// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/signalling"
)

// ICEIssuer makes TURN credentials for a device of a user. They must end when the device logs out.
type ICEIssuer interface {
	Issue(userID, deviceID string) signalling.ICEServer
}

// routesVoIP: "Voice over IP". Guests get no credentials: anybody can be a guest, and a relay is bandwidth.
func (a *API) routesVoIP() {
	a.route("GET /_matrix/client/v3/voip/turnServer", Token, "requests", func(r *Request) (any, error) {
		if a.ICE == nil {
			return nil, nil
		}
		ice := a.ICE.Issue(r.UserID, r.DeviceID)
		if len(ice.URIs) == 0 {
			return nil, nil
		}
		// By hand: every client asks every few minutes, and a call does before it starts.
		b := make([]byte, 0, 512)
		b = gjson.AppendJSONString(append(b, `{"username":`...), ice.Username)
		b = gjson.AppendJSONString(append(b, `,"password":`...), ice.Credential)
		b = append(b, `,"uris":[`...)
		for i, uri := range ice.URIs {
			if i > 0 {
				b = append(b, ',')
			}
			b = gjson.AppendJSONString(b, uri)
		}
		b = strconv.AppendInt(append(b, `],"ttl":`...), int64(ice.TTL.Seconds()), 10)
		return Raw(append(b, '}')), nil
	})
}
