// SPDX-License-Identifier: Apache-2.0

// Package edus is what servers tell each other besides events (server-server API, "EDUs"): typing, receipts, presence, messages to
// devices, changes of devices and keys.
//
//	in:   federation.Transaction -> the handler of its type: whose user is it, may the server speak in that room -> the service it is for
//	out:  typing, receipts, presence -> sender.Moment, the newest of each; changes of devices -> the outbox, which forgets nothing
package edus

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// remoteTyping is how long a user of another server types unless that server says otherwise; servers repeat it while it lasts.
const remoteTyping = 45 * time.Second

// Sender carries EDUs; *sender.Sender is one.
type Sender interface {
	Moment(server, key string, edu json.RawMessage)
	Wake(server string)
}

// Deps are the services that EDUs are for, and who sends them.
type Deps struct {
	Federation *federation.Service
	Sender     Sender
	Store      *storage.Store
	Rooms      *rooms.Service
	Sync       *syncapi.Service
	Keys       *e2ee.Service
	Presence   presence.Store // may be nil
	Clock      signalling.Clock
	Log        *slog.Logger
}

// Service takes EDUs in and sends our own.
type Service struct {
	Deps
	server   string
	devices  chan struct{} // poked when devices of somebody changed
	returned chan string   // servers that were away; when it is full, they hear of presence as it changes
}

// New registers the handlers; Run has to work for what goes out.
func New(d Deps) *Service {
	s := &Service{Deps: d, server: d.Rooms.Server(), devices: make(chan struct{}, 1), returned: make(chan string, 64)}
	for typ, h := range map[string]federation.EDUHandler{
		"m.typing": s.typing, "m.receipt": s.receipt, "m.presence": s.presence, "m.direct_to_device": s.toDevice,
		"m.device_list_update": s.deviceList, "m.signing_key_update": s.deviceList, "org.matrix.signing_key_update": s.deviceList,
	} {
		d.Federation.HandleEDU(typ, h)
	}
	return s
}

// own checks that a user is of the server that speaks for him.
func own(origin, user string) error {
	if _, _, err := event.UserID(user); err != nil {
		return err
	}
	if event.ServerOf(user) != origin {
		return signalling.Forbidden("%s is not a user of %s", user, origin)
	}
	return nil
}

// room finds a room in which a server may speak.
func (s *Service) room(ctx context.Context, origin, id string) (*rooms.Room, error) {
	r, err := s.Rooms.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	return r, r.Allows(ctx, origin)
}

// met says whether a user of another server is in a room with users of this one.
func (s *Service) met(ctx context.Context, user string) (bool, error) {
	in, err := s.Rooms.UserRooms(ctx, user)
	if err != nil {
		return false, err
	}
	for id, m := range in {
		if m.Membership != "join" {
			continue
		}
		if r, err := s.Rooms.Room(ctx, id); err != nil {
			return false, err
		} else if r.Here() {
			return true, nil
		}
	}
	return false, nil
}

func (s *Service) typing(ctx context.Context, origin string, content json.RawMessage) error {
	var in struct {
		RoomID string `json:"room_id"`
		UserID string `json:"user_id"`
		Typing bool   `json:"typing"`
	}
	if err := json.Unmarshal(content, &in); err != nil {
		return err
	}
	if err := own(origin, in.UserID); err != nil {
		return err
	}
	r, err := s.room(ctx, origin, in.RoomID)
	if err != nil {
		return err
	}
	if !r.Head().IsJoined(in.UserID) {
		return signalling.Forbidden("%s is not in that room", in.UserID)
	}
	var d time.Duration
	if in.Typing {
		d = remoteTyping
	}
	s.Sync.SetTyping(r, in.UserID, d)
	return nil
}

// bounds of what one EDU may hold.
const (
	maxReceipts = 1000
	maxPresence = 1000
)

func (s *Service) receipt(ctx context.Context, origin string, content json.RawMessage) error {
	var in map[string]map[string]map[string]struct {
		Data struct {
			Thread string `json:"thread_id"`
		} `json:"data"`
		EventIDs []string `json:"event_ids"`
	}
	if err := json.Unmarshal(content, &in); err != nil {
		return err
	}
	var worst error
	n := 0
	for id, types := range in {
		r, err := s.room(ctx, origin, id)
		if err != nil {
			worst = err
			continue
		}
		for user, x := range types["m.read"] {
			if n++; n > maxReceipts {
				return signalling.TooLarge("more than %d receipts", maxReceipts)
			}
			err := own(origin, user)
			if err == nil && (len(x.EventIDs) == 0 || !r.Head().IsJoined(user)) {
				err = signalling.Forbidden("%s is not in that room", user)
			}
			if err == nil {
				err = s.Sync.SetReceipt(ctx, r, user, "m.read", x.EventIDs[len(x.EventIDs)-1], x.Data.Thread)
			}
			if err != nil {
				worst = err
			}
		}
	}
	return worst
}

func (s *Service) presence(ctx context.Context, origin string, content json.RawMessage) error {
	if s.Presence == nil {
		return nil
	}
	var in struct {
		Push []struct {
			UserID     string         `json:"user_id"`
			State      presence.State `json:"presence"`
			StatusMsg  string         `json:"status_msg"`
			LastActive int64          `json:"last_active_ago"`
		} `json:"push"`
	}
	if err := json.Unmarshal(content, &in); err != nil {
		return err
	}
	if len(in.Push) > maxPresence {
		return signalling.TooLarge("more than %d users", maxPresence)
	}
	var worst error
	for _, p := range in.Push {
		err := own(origin, p.UserID)
		if err == nil {
			// Who shares no room with anybody here is nobody's business, and would fill the memory.
			var met bool
			if met, err = s.met(ctx, p.UserID); met {
				u := presence.Update{UserID: p.UserID, State: p.State, StatusMsg: &p.StatusMsg}
				if ago := time.Duration(p.LastActive) * time.Millisecond; p.LastActive > 0 && ago > 0 {
					u.LastActive = s.Clock.Now().Add(-ago)
				}
				err = s.Presence.Set(ctx, u)
			}
		}
		if err != nil {
			worst = err
		}
	}
	return worst
}

func (s *Service) toDevice(ctx context.Context, origin string, content json.RawMessage) error {
	var in struct {
		Sender    string        `json:"sender"`
		Type      string        `json:"type"`
		MessageID string        `json:"message_id"`
		Messages  e2ee.Messages `json:"messages"`
	}
	if err := json.Unmarshal(content, &in); err != nil {
		return err
	}
	if err := own(origin, in.Sender); err != nil {
		return err
	}
	if in.Type == "" || in.MessageID == "" {
		return signalling.BadJSON("a message to devices has a type and a message_id")
	}
	targets := 0
	for _, byDevice := range in.Messages {
		if targets += len(byDevice); targets > e2ee.MaxTargets {
			return signalling.TooLarge("messages for more than %d devices", e2ee.MaxTargets)
		}
	}
	return s.Keys.Receive(ctx, in.Sender, in.Type, in.MessageID, in.Messages)
}

// deviceList tells the users who share a room with him that somebody's devices or keys changed. What they are now is asked of his
// server when a client wants to know, so nothing of the EDU is believed but that. A device that is there and has no keys is nothing that a
// client could ask for: servers name such devices when their user joins a room.
func (s *Service) deviceList(ctx context.Context, origin string, content json.RawMessage) error {
	var in struct {
		UserID   string          `json:"user_id"`
		DeviceID *string         `json:"device_id"` // not in m.signing_key_update
		Deleted  bool            `json:"deleted"`
		Keys     json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &in); err != nil {
		return err
	}
	if err := own(origin, in.UserID); err != nil {
		return err
	}
	if in.DeviceID != nil && !in.Deleted && (len(in.Keys) == 0 || string(in.Keys) == "null") {
		return nil
	}
	if met, err := s.met(ctx, in.UserID); !met {
		return err
	}
	return s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.DeviceListChanged(in.UserID) })
}
