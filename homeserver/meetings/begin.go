// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// meeting finds the meeting that somebody comes to, or begins it. Errors: those of Join.
func (s *Service) meeting(ctx context.Context, name string, who *somebody, q meeting.Join) (storage.Meeting, error) {
	if who.room != "" {
		return s.inRoom(ctx, who)
	}
	m, err := s.find(ctx, name)
	if !errors.Is(err, storage.ErrNotFound) {
		return m, err
	}
	if !s.mayCreate(who.registered, who.claims != nil) {
		switch s.Create {
		case CreateUsers:
			return m, meeting.ErrSignIn
		case CreateJWT:
			return m, meeting.ErrJWT
		}
		return m, signalling.NotFound("there is no such meeting")
	}
	key := who.address
	if who.registered {
		key = who.user
	}
	if err := s.Limit(limitMeetings, key); err != nil {
		return m, err
	}
	v, err, _ := s.creating.Do(name, func() (any, error) { return s.begin(context.WithoutCancel(ctx), name, q) })
	if err != nil {
		return m, err
	}
	return v.(storage.Meeting), nil
}

// inRoom is the meeting of a room that is there anyway: for its members.
func (s *Service) inRoom(ctx context.Context, who *somebody) (storage.Meeting, error) {
	refuse := signalling.Forbidden("you are not in this room")
	room, err := s.Rooms.Room(ctx, who.room)
	if errors.Is(err, rooms.ErrNoRoom) {
		return storage.Meeting{}, refuse
	}
	if err != nil {
		return storage.Meeting{}, err
	}
	if !room.Head().IsJoined(who.user) {
		return storage.Meeting{}, refuse
	}
	m, err := s.Store.MeetingOf(ctx, room.ID) // the room of a meeting has it by its own name
	if !errors.Is(err, storage.ErrNotFound) {
		return m, err
	}
	now := s.Clock.Now().UnixMilli()
	m = storage.Meeting{RoomID: room.ID, Name: room.ID, CreatedTS: now, UsedTS: now}
	err = s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertMeeting(m) })
	if errors.Is(err, storage.ErrExists) {
		return s.Store.MeetingOf(ctx, room.ID)
	}
	return m, err
}

// begin makes the room of a meeting. That of a call says so itself, and has no alias: it is not looked for.
func (s *Service) begin(ctx context.Context, name string, q meeting.Join) (storage.Meeting, error) {
	if m, err := s.find(ctx, name); !errors.Is(err, storage.ErrNotFound) {
		return m, err
	}
	initial := []rooms.InitialState{
		{Type: "m.room.guest_access", Content: json.RawMessage(`{"guest_access":"can_join"}`)},
		// Who comes to the next meeting under that name does not read what was said at the last.
		{Type: "m.room.history_visibility", Content: json.RawMessage(`{"history_visibility":"joined"}`)},
	}
	if q.E2EE {
		initial = append(initial, rooms.InitialState{Type: "m.room.encryption", Content: json.RawMessage(`{"algorithm":"m.megolm.v1.aes-sha2"}`)})
	}
	o := rooms.Options{
		Creator: s.self, Preset: "public_chat", Name: name, Alias: alias(name, s.Rooms.Server()), Initial: initial,
		Member:        json.RawMessage(`{"displayname":"Meetings"}`),
		PowerOverride: json.RawMessage(`{"events":{"m.room.name":50,"m.room.topic":50,"m.room.power_levels":50,"m.room.join_rules":50,"m.room.history_visibility":100,"m.room.canonical_alias":100,"m.room.tombstone":100,"m.room.server_acl":100,"m.room.encryption":100,"m.room.guest_access":50,"org.matrix.msc3401.call.member":0}}`),
	}
	if q.Call {
		o.Alias, o.Create = "", json.RawMessage(`{"type":"`+meeting.CallRoom+`"}`)
		if q.Subject != "" {
			o.Name = q.Subject
		}
	}
	id, err := s.Rooms.CreateRoom(ctx, o)
	if e := signalling.AsError(err); err != nil && e.Code == "M_ROOM_IN_USE" { // somebody has taken the alias; the meeting does without
		o.Alias = ""
		id, err = s.Rooms.CreateRoom(ctx, o)
	}
	if err != nil {
		return storage.Meeting{}, err
	}
	now := s.Clock.Now().UnixMilli()
	m := storage.Meeting{RoomID: id, Name: name, E2EE: q.E2EE, CreatedTS: now, UsedTS: now}
	err = s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertMeeting(m) })
	if errors.Is(err, storage.ErrExists) { // another node was quicker: its room counts
		return s.find(ctx, name)
	}
	return m, err
}

// alias is the room alias of a meeting. A name that is too long for one, or has a slash, is hashed.
func alias(name, server string) string {
	a := "#meet_" + name + ":" + server
	if strings.Contains(name, "/") || len(a) > event.MaxIDLength {
		sum := sha256.Sum256([]byte(name))
		a = "#meet_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])) + ":" + server
	}
	return a
}
