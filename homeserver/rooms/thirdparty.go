// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// ThirdPartyInvite makes of what an identity server signed (mxid, token, signatures) the content with which sender, one of our users,
// invites target after all: extra for SetMembership, or for MakeInvite where target is of another server (PUT
// /exchange_third_party_invite, PUT /3pid/onbind). Whether the signature is right is decided with the event, by the auth rules. Errors:
// M_NOT_FOUND (not in the room), M_FORBIDDEN (no such invitation, or not by sender), M_INVALID_PARAM.
func (s *Service) ThirdPartyInvite(ctx context.Context, roomID, sender, target string, signed json.RawMessage) (json.RawMessage, error) {
	if err := event.CheckJSON(signed); err != nil {
		return nil, err
	}
	in := gjson.ParseBytes(signed)
	if !in.IsObject() || in.Get("mxid").Str != target || in.Get("token").Str == "" || !in.Get("signatures").IsObject() {
		return nil, signalling.InvalidParam("signed must name the invited user and a token, and be signed")
	}
	if event.ServerOf(sender) != s.signer.Server {
		return nil, signalling.Forbidden("%s is not of this server", sender)
	}
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	if !r.Here() {
		return nil, errNotHere
	}
	inv, err := r.State(ctx, r.Head(), "m.room.third_party_invite", in.Get("token").Str)
	if err != nil {
		return nil, err
	}
	if inv == nil || inv.Sender() != sender {
		return nil, signalling.Forbidden("there is no such invitation in that room")
	}
	return json.Marshal(map[string]any{"third_party_invite": map[string]any{"display_name": gjson.GetBytes(inv.Content(), "display_name").Str, "signed": signed}})
}
