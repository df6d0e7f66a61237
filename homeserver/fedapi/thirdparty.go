// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/signalling"
)

// maxBound is how many invites one notice of an identity server may bring.
const maxBound = 50

// routesThirdParty: "Third-party invites".
func (a *API) routesThirdParty() {
	a.route("PUT "+federationV1+"/exchange_third_party_invite/{room}", Signed, maxBody, func(r *Request) (any, error) {
		var in struct {
			Type     string `json:"type"`
			RoomID   string `json:"room_id"`
			Sender   string `json:"sender"`
			StateKey string `json:"state_key"`
			Content  struct {
				Membership string `json:"membership"`
				Invite     struct {
					Signed json.RawMessage `json:"signed"`
				} `json:"third_party_invite"`
			} `json:"content"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.Type != "m.room.member" || in.Content.Membership != "invite" || in.RoomID != r.PathValue("room") {
			return nil, signalling.InvalidParam("this is not an invite into the room of the path")
		}
		if err := r.limit("invites", "server "+r.Origin); err != nil {
			return nil, err
		}
		return nil, a.Federation.ExchangeInvite(r.Context(), r.Origin, federation.BoundInvite{RoomID: in.RoomID, Sender: in.Sender, User: in.StateKey, Signed: in.Content.Invite.Signed})
	})
	// Identity servers sign no requests: what they bring is believed as far as the room holds their key.
	a.route("PUT "+federationV1+"/3pid/onbind", Open, maxBody, func(r *Request) (any, error) {
		var in struct {
			Medium  string                   `json:"medium"`
			Address string                   `json:"address"`
			User    string                   `json:"mxid"`
			Invites []federation.BoundInvite `json:"invites"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.Medium == "" || in.Address == "" || in.User == "" {
			return nil, signalling.MissingParam("medium, address and mxid are needed")
		}
		if len(in.Invites) > maxBound {
			return nil, signalling.TooLarge("at most %d invites at once", maxBound)
		}
		return nil, a.Federation.Bound(r.Context(), in.User, in.Invites)
	})
}
