// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// BoundInvite is an invite of an address that turned out to be a user's, as an identity server has signed it ("Third-party invites").
type BoundInvite struct {
	RoomID string          `json:"room_id"`
	Sender string          `json:"sender"` // of m.room.third_party_invite
	User   string          `json:"mxid"`
	Signed json.RawMessage `json:"signed"`
}

// boundTime is for all invites of one notice.
const boundTime = 30 * time.Second

// ExchangeInvite makes an invite of a user of ours out of what an identity server has signed, for the server that asks, whose user is
// invited (PUT /exchange_third_party_invite). Whether the signature is right the auth rules of the room say. Errors: those of
// rooms.ThirdPartyInvite and of Invite.
func (s *Service) ExchangeInvite(ctx context.Context, origin string, in BoundInvite) error {
	if err := own(origin, in.User); err != nil {
		return err
	}
	r, err := s.Rooms.Room(ctx, in.RoomID)
	if err != nil {
		return err
	}
	if err := r.Allows(ctx, origin); err != nil {
		return err
	}
	return s.exchange(ctx, in)
}

func (s *Service) exchange(ctx context.Context, in BoundInvite) error {
	extra, err := s.Rooms.ThirdPartyInvite(ctx, in.RoomID, in.Sender, in.User, in.Signed)
	if err != nil {
		return err
	}
	if event.ServerOf(in.User) == s.server {
		return s.Rooms.SetMembership(ctx, in.RoomID, in.Sender, "", in.User, "invite", "", extra)
	}
	return s.Invite(ctx, in.RoomID, in.Sender, in.User, "", extra)
}

// Bound has a user of ours invited into the rooms that an address of his was invited to before it was known to be his (PUT /3pid/onbind):
// by this server, or by those of the senders. An invite that comes to nothing is logged. Errors: M_NOT_FOUND for what is no user of ours.
func (s *Service) Bound(ctx context.Context, user string, invites []BoundInvite) error {
	if event.ServerOf(user) != s.server {
		return signalling.NotFound("%s is not a user of this server", user)
	}
	if s.Exists != nil {
		if ok, err := s.Exists(ctx, user); err != nil {
			return err
		} else if !ok {
			return signalling.NotFound("there is no user %s", user)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), boundTime)
	defer cancel()
	for _, in := range invites {
		err := s.bound(ctx, user, in)
		if err != nil {
			s.Log.Info("an invite of an address came to nothing", "user", user, "room", in.RoomID, "sender", in.Sender, "err", err)
		}
	}
	return nil
}

func (s *Service) bound(ctx context.Context, user string, in BoundInvite) error {
	if in.User != user {
		return signalling.InvalidParam("the invite is for %s", in.User)
	}
	if _, _, err := event.UserID(in.Sender); err != nil {
		return err
	}
	server := event.ServerOf(in.Sender)
	if server == s.server {
		return s.exchange(ctx, in)
	}
	body, err := json.Marshal(map[string]any{
		"type": "m.room.member", "room_id": in.RoomID, "sender": in.Sender, "state_key": user,
		"content": map[string]any{"membership": "invite", "third_party_invite": map[string]any{"display_name": user, "signed": in.Signed}},
	})
	if err != nil {
		return err
	}
	_, err = s.Client.Do(ctx, Ask{Server: server, Method: http.MethodPut, Path: "/_matrix/federation/v1/exchange_third_party_invite/" + url.PathEscape(in.RoomID), Body: body})
	return err
}
