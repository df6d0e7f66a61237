// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// own checks that a user is of the server that asks. Errors: M_FORBIDDEN, M_INVALID_PARAM.
func own(origin, user string) error {
	if _, _, err := event.UserID(user); err != nil {
		return err
	}
	if event.ServerOf(user) != origin {
		return signalling.Forbidden("%s is not a user of your server", user)
	}
	return nil
}

// MakeMember answers make_join, make_leave and make_knock. Errors: those of rooms.MakeMember; M_FORBIDDEN for users of other servers and
// for servers that the room shuts out.
func (s *Service) MakeMember(ctx context.Context, origin, roomID, user, membership string, versions []string) (*rooms.Template, error) {
	if err := own(origin, user); err != nil {
		return nil, err
	}
	if err := s.allowed(ctx, origin, roomID); err != nil {
		return nil, err
	}
	return s.Rooms.MakeMember(ctx, roomID, user, membership, versions)
}

// allowed asks a room's access list. Errors: M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) allowed(ctx context.Context, origin, roomID string) error {
	r, err := s.Rooms.Room(ctx, roomID)
	if err != nil {
		return err
	}
	return r.Allows(ctx, origin)
}

// TakeMember takes the event that a server made of a template (send_join, send_leave, send_knock). Errors: M_INVALID_PARAM for another
// event than the path names, M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) TakeMember(ctx context.Context, origin, roomID, eventID, membership string, raw []byte, partial bool) (*rooms.Accepted, error) {
	r, err := s.Rooms.Room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	if err := r.Allows(ctx, origin); err != nil {
		return nil, err
	}
	e, err := event.Parse(r.Version, raw)
	if err != nil {
		return nil, err
	}
	if e.ID() != eventID || e.RoomID() != roomID || e.Type() != "m.room.member" {
		return nil, signalling.InvalidParam("the body is not the event that the path names")
	}
	if e.Redacted() {
		return nil, signalling.InvalidParam("the content of the event is not what its hash says")
	}
	if err := own(origin, e.Sender()); err != nil {
		return nil, err
	}
	for _, server := range e.Signers() {
		if server == s.server { // who let the user in: our own signature is to come
			continue
		}
		if err := s.Keys.VerifyEvent(ctx, server, e); err != nil {
			return nil, signalling.Forbidden("the event is not signed by %s as it should be", server).Because(err)
		}
	}
	return s.Rooms.AcceptMember(ctx, roomID, e, membership, partial)
}

// InviteBody is the body of PUT /invite.
type InviteBody struct {
	Event    json.RawMessage   `json:"event"`
	Version  event.Version     `json:"room_version"`
	Stripped []json.RawMessage `json:"invite_room_state"`
}

// TakeInvite takes an invite for a local user and gives it with our signature. We sign nothing but an invite of a user of the server
// that asks, into the room of the path, for a user of ours who lets himself be invited. Errors: M_INVALID_PARAM, M_FORBIDDEN,
// M_INCOMPATIBLE_ROOM_VERSION.
func (s *Service) TakeInvite(ctx context.Context, origin, roomID, eventID string, in InviteBody) (*event.Event, error) {
	if !in.Version.Known() {
		return nil, signalling.Refuse(http.StatusBadRequest, "M_INCOMPATIBLE_ROOM_VERSION", "room version %q is not served here", string(in.Version)).With("room_version", string(in.Version))
	}
	e, err := event.Parse(in.Version, in.Event)
	if err != nil {
		return nil, err
	}
	if e.ID() != eventID || e.RoomID() != roomID || e.Type() != "m.room.member" || e.Membership() != "invite" || e.StateKey() == nil || e.Redacted() {
		return nil, signalling.InvalidParam("this is not the invite that the path names")
	}
	target := *e.StateKey()
	if _, _, err := event.UserID(target); err != nil {
		return nil, err
	}
	if event.ServerOf(target) != s.server {
		return nil, signalling.InvalidParam("%s is not a user of this server", target)
	}
	if err := own(origin, e.Sender()); err != nil {
		return nil, err
	}
	if err := s.Keys.VerifyEvent(ctx, origin, e); err != nil {
		return nil, signalling.Forbidden("the invite is not signed by %s as it should be", origin).Because(err)
	}
	if s.Exists != nil {
		ok, err := s.Exists(ctx, target)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, signalling.NotFound("there is no user %s", target)
		}
	}
	if err := s.Rooms.MayInvite(ctx, target, e.Sender()); err != nil {
		return nil, err
	}
	if r, err := s.Rooms.Room(ctx, roomID); err == nil {
		if err := r.Allows(ctx, origin); err != nil {
			return nil, err
		}
	}
	return s.Rooms.TakeInvite(ctx, e, in.Stripped)
}

// Answer lists what goes out for events: their JSON.
func Answer(events []*event.Event) []json.RawMessage {
	out := make([]json.RawMessage, len(events))
	for i, e := range events {
		out[i] = e.JSON()
	}
	return slices.Clip(out)
}
