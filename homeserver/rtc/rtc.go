// SPDX-License-Identifier: Apache-2.0

// Package rtc is what the token service of the SFU (signalling/focus) asks of this homeserver: who somebody is, who is in a room, and
// the delayed events that end call memberships.
package rtc

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// Remote asks other servers whom their OpenID tokens name: server-server API, GET /_matrix/federation/v1/openid/userinfo.
type Remote interface {
	OpenIDUser(ctx context.Context, server, token string) (userID string, err error)
}

// Home is what the token service asks this homeserver, by function call.
type Home struct {
	Accounts *accounts.Service
	Rooms    *rooms.Service
	Later    *delayed.Service
	Remote   Remote // may be nil
}

var _ focus.Homeserver = Home{}

// OpenIDUser implements focus.Homeserver.
func (h Home) OpenIDUser(ctx context.Context, server, token string) (string, string, error) {
	refuse := signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "the OpenID token is not good")
	if server != h.Rooms.Server() {
		if h.Remote == nil {
			return "", "", refuse
		}
		user, err := h.Remote.OpenIDUser(ctx, server, token)
		if err != nil {
			return "", "", refuse.Because(err)
		}
		return user, "", nil
	}
	user, device, err := h.Accounts.OpenIDHolder(token)
	if err != nil {
		return "", "", refuse
	}
	return user, device, nil
}

// Present implements focus.Homeserver.
func (h Home) Present(ctx context.Context, roomID, userID, deviceID string) error {
	refuse := signalling.Forbidden("you are not in this room")
	if event.ServerOf(userID) == h.Rooms.Server() {
		u, err := h.Accounts.User(ctx, userID)
		if signalling.AsError(err).Status == http.StatusNotFound && err != nil || err == nil && (u.Deactivated || u.Locked) {
			return refuse
		}
		if err != nil {
			return err
		}
		if deviceID != "" {
			if _, err := h.Accounts.Device(ctx, userID, deviceID); err != nil {
				if signalling.AsError(err).Status == http.StatusNotFound {
					return refuse
				}
				return err
			}
		}
	}
	room, err := h.Rooms.Room(ctx, roomID)
	if errors.Is(err, rooms.ErrNoRoom) {
		return refuse
	}
	if err != nil {
		return err
	}
	if !room.Head().IsJoined(userID) {
		return refuse
	}
	return nil
}

// Delay implements focus.Homeserver. What the client claims does not matter: the event is known.
func (h Home) Delay(ctx context.Context, userID, roomID, delayID string, _ time.Duration) (string, time.Duration, error) {
	d, err := h.Later.Get(ctx, userID, delayID)
	if err != nil && signalling.AsError(err).Status != http.StatusNotFound {
		return "", 0, err
	}
	if err != nil || d.RoomID != roomID || d.State != storage.DelayedWaits {
		return "", 0, signalling.InvalidParam("delay_id names no delayed event of yours in this room")
	}
	return delayID, time.Duration(d.DelayMS) * time.Millisecond, nil
}

// Book keeps handed-over leaves in the database.
type Book struct{ Store *storage.Store }

var _ matrixrtc.Book = Book{}

// SaveLeave implements matrixrtc.Book.
func (b Book) SaveLeave(ctx context.Context, l matrixrtc.Leave) error {
	return b.Store.Write(ctx, func(tx *storage.Tx) error {
		return tx.PutRTCLeave(storage.RTCLeave{MediaRoom: l.Room, Identity: l.Identity, DelayID: l.DelayID, DelayMS: l.Delay.Milliseconds()})
	})
}

// DropLeave implements matrixrtc.Book.
func (b Book) DropLeave(ctx context.Context, delayID string) error {
	return b.Store.Write(ctx, func(tx *storage.Tx) error { return tx.DropRTCLeave(delayID) })
}

// Leaves implements matrixrtc.Book.
func (b Book) Leaves(ctx context.Context) ([]matrixrtc.Leave, error) {
	rows, err := b.Store.RTCLeaves(ctx)
	out := make([]matrixrtc.Leave, len(rows))
	for i, r := range rows {
		out[i] = matrixrtc.Leave{DelayID: r.DelayID, Room: r.MediaRoom, Identity: r.Identity, Delay: time.Duration(r.DelayMS) * time.Millisecond}
	}
	return out, err
}

// EndMedia ends the media of whoever left a room.
func EndMedia(s *focus.Service, notes []storage.Note) {
	for i := range notes {
		c, ok := notes[i].Value.(*rooms.Committed)
		if !ok {
			continue
		}
		for _, ch := range c.Changes {
			if ch.Key.Type == "m.room.member" && !c.Head.IsJoined(ch.Key.StateKey) {
				s.UserLeft(c.Room.ID, ch.Key.StateKey)
			}
		}
	}
}
