// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesRooms: "Rooms", "Room membership".
func (a *API) routesRooms() {
	if a.Rooms == nil {
		return
	}
	const c = "/_matrix/client/v3"
	a.route("POST "+c+"/createRoom", Token, "requests", a.createRoom)
	a.route("POST "+c+"/join/{room}", AnyUser, "joins", a.joinRoom)
	a.route("POST "+c+"/knock/{room}", Token, "joins", a.knockRoom)
	a.route("GET "+c+"/joined_rooms", AnyUser, "requests", a.joinedRooms)
	base := c + "/rooms/{room}"
	a.route("POST "+base+"/join", AnyUser, "joins", a.joinRoom)
	a.route("POST "+base+"/leave", AnyUser, "requests", a.leaveRoom)
	a.route("POST "+base+"/upgrade", Token, "joins", a.upgradeRoom)
	a.route("POST "+base+"/forget", AnyUser, "requests", a.forgetRoom)
	a.route("POST "+base+"/invite", Token, "invites", a.memberChange("invite"))
	a.advertise("org.matrix.msc4155")
	a.advertise("org.matrix.msc4380")
	a.advertise("org.matrix.msc4380.stable")
	a.route("POST "+base+"/kick", Token, "requests", a.memberChange("kick"))
	a.route("POST "+base+"/ban", Token, "requests", a.memberChange("ban"))
	a.route("POST "+base+"/unban", Token, "requests", a.memberChange("unban"))
}

func (a *API) createRoom(r *Request) (any, error) {
	var in struct {
		Visibility string               `json:"visibility"`
		Alias      string               `json:"room_alias_name"`
		Name       string               `json:"name"`
		Topic      string               `json:"topic"`
		Invite     []string             `json:"invite"`
		Invite3PID []json.RawMessage    `json:"invite_3pid"`
		Version    *string              `json:"room_version"`
		Creation   json.RawMessage      `json:"creation_content"`
		Initial    []rooms.InitialState `json:"initial_state"`
		Preset     string               `json:"preset"`
		Direct     bool                 `json:"is_direct"`
		Power      json.RawMessage      `json:"power_level_content_override"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	o := rooms.Options{
		Creator: r.UserID, Preset: in.Preset, Name: in.Name, Topic: in.Topic, Invite: in.Invite, Direct: in.Direct,
		Create: null(in.Creation), PowerOverride: null(in.Power), Initial: in.Initial, LocalInvites: a.Servers != nil,
	}
	switch in.Visibility {
	case "", "private":
	case "public":
		o.Public = true
	default:
		return nil, signalling.InvalidParam("visibility must be public or private")
	}
	if len(in.Invite3PID) > 0 {
		return nil, signalling.Refuse(400, "M_THREEPID_DENIED", "this server cannot invite by e-mail address or telephone number; invite by user id")
	}
	if in.Version != nil {
		o.Version = event.Version(*in.Version)
		if !o.Version.Known() {
			return nil, signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", *in.Version)
		}
	}
	if in.Alias != "" {
		if strings.ContainsAny(in.Alias, ":# \t\n\x00") {
			return nil, signalling.InvalidParam("room_alias_name is the part between # and : and holds no spaces")
		}
		o.Alias = "#" + in.Alias + ":" + a.Config.ServerName
		if len(o.Alias) > event.MaxIDLength {
			return nil, signalling.InvalidParam("an alias may have %d bytes", event.MaxIDLength)
		}
	}
	for range in.Invite {
		if err := r.Limit("invites"); err != nil {
			return nil, err
		}
	}
	id, err := a.Rooms.CreateRoom(r.Context(), o)
	if err != nil {
		return nil, err
	}
	a.inviteElsewhere(r, id, in.Invite, in.Direct)
	return map[string]string{"room_id": id}, nil
}

// null makes JSON null the same as nothing.
func null(m json.RawMessage) json.RawMessage {
	if string(m) == "null" {
		return nil
	}
	return m
}

// maxJoinContent bounds what a client may add to its own member event.
const maxJoinContent = 16 << 10

// joinContent is what else the body of a join says: it goes into the member event, as other servers do it. The server's own words
// stay out of the client's hands.
func joinContent(body map[string]json.RawMessage) (json.RawMessage, error) {
	for _, k := range []string{"reason", "membership", "third_party_signed", "third_party_invite", "join_authorised_via_users_server", "is_direct"} {
		delete(body, k)
	}
	if len(body) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(body)
	if err == nil && len(b) > maxJoinContent {
		err = signalling.TooLarge("the body of a join may have %d bytes", maxJoinContent)
	}
	return b, err
}

func (a *API) joinRoom(r *Request) (any, error) {
	var body map[string]json.RawMessage
	if err := r.DecodeIfAny(&body); err != nil {
		return nil, err
	}
	var reason string
	if raw := null(body["reason"]); raw != nil {
		if err := json.Unmarshal(raw, &reason); err != nil {
			return nil, signalling.BadJSON("reason must be a string")
		}
	}
	extra, err := joinContent(body)
	if err != nil {
		return nil, err
	}
	id, via, err := a.resolve(r, r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	if r.Guest {
		// Other servers do not know who is a guest: he enters rooms that this one can look into.
		if _, err := a.Rooms.Room(r.Context(), id); err != nil {
			return nil, err
		}
	}
	if err := a.changeMembership(r, id, via, "join", reason, extra); err != nil {
		return nil, err
	}
	return map[string]string{"room_id": id}, nil
}

func (a *API) knockRoom(r *Request) (any, error) {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	id, via, err := a.resolve(r, r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	if err := a.changeMembership(r, id, via, "knock", in.Reason, nil); err != nil {
		return nil, err
	}
	return map[string]string{"room_id": id}, nil
}

func (a *API) leaveRoom(r *Request) (any, error) {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	if err := a.mayLeave(r, r.PathValue("room")); err != nil {
		return nil, err
	}
	return nil, a.changeMembership(r, r.PathValue("room"), nil, "leave", in.Reason, nil)
}

func (a *API) upgradeRoom(r *Request) (any, error) {
	var in struct {
		Version  *string  `json:"new_version"`
		Creators []string `json:"additional_creators"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Version == nil {
		return nil, signalling.MissingParam("new_version is missing")
	}
	id, err := a.Rooms.Upgrade(r.Context(), r.PathValue("room"), r.UserID, event.Version(*in.Version), in.Creators)
	if err == rooms.ErrNoRoom {
		err = signalling.NotFound("there is no such room")
	}
	return map[string]string{"replacement_room": id}, err
}

func (a *API) forgetRoom(r *Request) (any, error) {
	return nil, a.Rooms.Forget(r.Context(), r.PathValue("room"), r.UserID)
}

// memberChange is what one user does to another's membership.
func (a *API) memberChange(what string) Handler {
	return func(r *Request) (any, error) {
		var in struct {
			UserID string `json:"user_id"`
			Reason string `json:"reason"`
			Medium string `json:"medium"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.UserID == "" {
			if in.Medium != "" {
				return nil, signalling.Refuse(400, "M_THREEPID_DENIED", "this server cannot invite by e-mail address or telephone number; invite by user id")
			}
			return nil, signalling.MissingParam("user_id is missing")
		}
		membership := what
		id := r.PathValue("room")
		if what == "kick" || what == "unban" {
			membership = "leave"
			room, err := a.Rooms.Room(r.Context(), id)
			if err != nil {
				return nil, err
			}
			banned := room.Head().Membership(in.UserID) == "ban"
			if what == "unban" && !banned {
				return nil, signalling.Forbidden("%s is not banned from this room", in.UserID)
			}
			if what == "kick" && banned {
				return nil, signalling.Forbidden("%s is banned from this room; lift the ban instead", in.UserID)
			}
		}
		if membership == "invite" {
			return nil, a.inviteUser(r, id, in.UserID, in.Reason, nil)
		}
		return nil, a.Rooms.SetMembership(r.Context(), id, r.UserID, r.DeviceID, in.UserID, membership, in.Reason, nil)
	}
}

func (a *API) joinedRooms(r *Request) (any, error) {
	all, err := a.Rooms.UserRooms(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for id, m := range all {
		if m.Membership == "join" {
			ids = append(ids, id)
		}
	}
	return map[string][]string{"joined_rooms": ids}, nil
}
