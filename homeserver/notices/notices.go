// SPDX-License-Identifier: Apache-2.0

// Package notices is how the server speaks to its users: each has a room of its own, in which the server's user writes and into which
// it invites him ("Server Notices"). The invite cannot be turned down; the room can be left.
package notices

import (
	"context"
	"encoding/json"
	"errors"

	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Name is how the server calls itself in these rooms.
const Name = "Server Alert"

// Service sends notices.
type Service struct {
	store    *storage.Store
	rooms    *rooms.Service
	accounts *accounts.Service
	sender   string
	opening  singleflight.Group
}

// New makes the service.
func New(store *storage.Store, r *rooms.Service, a *accounts.Service) *Service {
	return &Service{store: store, rooms: r, accounts: a, sender: "@_server:" + r.Server()}
}

// Sender is the user id that notices come from. Nobody can register it: names of people do not begin with an underscore.
func (s *Service) Sender() string { return s.sender }

// Notice is something to tell a user.
type Notice struct {
	UserID    string
	Type      string // "" is m.room.message
	StateKey  *string
	Content   json.RawMessage
	By, TxnID string // who asked for it and under what transaction id; the same twice is one notice
}

// Send tells a user something, inviting him to his room first where he is not in it, and gives the event's id. Errors: M_NOT_FOUND for
// a user who is not of this server, and those of the room.
func (s *Service) Send(ctx context.Context, n Notice) (string, error) {
	u, err := s.accounts.User(ctx, n.UserID)
	if err != nil {
		return "", err
	}
	if u.Deactivated || u.Guest {
		return "", signalling.NotFound("there is no such user")
	}
	if n.Type == "" {
		n.Type = "m.room.message"
	}
	v, err, _ := s.opening.Do(n.UserID, func() (any, error) { return s.open(context.WithoutCancel(ctx), n.UserID) })
	if err != nil {
		return "", err
	}
	ids, err := s.rooms.Append(ctx, v.(string), rooms.Draft{Sender: s.sender, Device: n.By, TxnID: n.TxnID, Type: n.Type, StateKey: n.StateKey, Content: n.Content})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// open finds a user's room, or makes it, and invites him.
func (s *Service) open(ctx context.Context, user string) (string, error) {
	id, err := s.store.NoticeRoom(ctx, user)
	if errors.Is(err, storage.ErrNotFound) {
		return s.create(ctx, user)
	}
	if err != nil {
		return "", err
	}
	room, err := s.rooms.Room(ctx, id)
	if err != nil {
		return "", err
	}
	if m := room.Head().Membership(user); m == "join" || m == "invite" {
		return id, nil
	}
	return id, s.rooms.SetMembership(ctx, id, s.sender, "", user, "invite", "", nil)
}

func (s *Service) create(ctx context.Context, user string) (string, error) {
	own := json.RawMessage(`{"displayname":"` + Name + `"}`)
	id, err := s.rooms.CreateRoom(ctx, rooms.Options{
		Creator: s.sender, Preset: "private_chat", Name: Name, Member: own, Invite: []string{user},
		PowerOverride: json.RawMessage(`{"users_default":-10,"invite":50}`),
		Initial:       []rooms.InitialState{{Type: "m.room.guest_access", Content: json.RawMessage(`{"guest_access":"forbidden"}`)}},
	})
	if err != nil {
		return "", err
	}
	if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetNoticeRoom(user, id) }); err != nil {
		return "", err
	}
	// Another node may have been quicker: then its room counts.
	first, err := s.store.NoticeRoom(ctx, user)
	if err != nil || first != id {
		return first, err
	}
	return id, s.accounts.SetTag(ctx, user, id, "m.server_notice", json.RawMessage(`{}`))
}

// ErrStays says that an invite to such a room cannot be turned down.
var ErrStays = signalling.Refuse(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "an invitation by the server cannot be turned down; join, and leave then")
