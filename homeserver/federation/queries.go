// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	queryTime  = 10 * time.Second // for questions that a client waits for
	keysAnswer = 32 << 20         // bytes
	listAnswer = 8 << 20          // the same
	manyHosts  = 50               // servers of an alias that are believed
)

// Directory asks for the room behind an alias of another server, and for servers that are in it. Errors: M_NOT_FOUND.
func (s *Service) Directory(ctx context.Context, alias string) (roomID string, servers []string, err error) {
	server := event.ServerOf(alias)
	var answer struct {
		Room    string   `json:"room_id"`
		Servers []string `json:"servers"`
	}
	if err := s.Client.ask(ctx, Ask{Server: server, Path: "/_matrix/federation/v1/query/directory?" + url.Values{"room_alias": {alias}}.Encode(), Timeout: queryTime}, &answer); err != nil {
		return "", nil, err
	}
	if !strings.HasPrefix(answer.Room, "!") || len(answer.Room) > event.MaxIDLength || strings.IndexByte(answer.Room, 0) >= 0 {
		return "", nil, signalling.NotFound("%s does not lead to a room", alias)
	}
	for _, x := range answer.Servers {
		if _, err := parseName(x); err == nil && len(servers) < manyHosts {
			servers = append(servers, x)
		}
	}
	return answer.Room, servers, nil
}

// Profile asks for the profile of a user of another server; field "" asks for all of it. Errors: M_NOT_FOUND.
func (s *Service) Profile(ctx context.Context, user, field string) (map[string]json.RawMessage, error) {
	q := url.Values{"user_id": {user}}
	if field != "" {
		q.Set("field", field)
	}
	var answer map[string]json.RawMessage
	if err := s.Client.ask(ctx, Ask{Server: event.ServerOf(user), Path: "/_matrix/federation/v1/query/profile?" + q.Encode(), Limit: 128 << 10, Timeout: queryTime}, &answer); err != nil {
		return nil, err
	}
	for _, k := range []string{"displayname", "avatar_url"} { // what is not a string there breaks clients
		if v := answer[k]; v != nil && (len(v) < 2 || v[0] != '"') {
			delete(answer, k)
		}
	}
	return answer, nil
}

// PublicRooms asks for a page of another server's room directory. body is as for POST /publicRooms.
func (s *Service) PublicRooms(ctx context.Context, server string, body json.RawMessage) (*rooms.DirectoryPage, error) {
	var answer rooms.DirectoryPage
	if err := s.Client.ask(ctx, Ask{Server: server, Method: "POST", Path: "/_matrix/federation/v1/publicRooms", Body: body, Limit: listAnswer, Timeout: queryTime}, &answer); err != nil {
		return nil, err
	}
	if answer.Chunk == nil {
		answer.Chunk = []rooms.DirectoryRoom{}
	}
	return &answer, nil
}

// Space asks other servers, one after another, for a space that this one does not know. Errors: M_NOT_FOUND.
func (s *Service) Space(ctx context.Context, roomID string, via []string, suggested bool) (*rooms.SpaceAnswer, error) {
	var worst error = signalling.NotFound("no server is known that could be asked for that room")
	for _, server := range s.candidates(Entrance{RoomID: roomID, Via: via}) {
		var answer rooms.SpaceAnswer
		err := s.Client.ask(ctx, Ask{Server: server, Path: "/_matrix/federation/v1/hierarchy/" + url.PathEscape(roomID) + "?suggested_only=" + strconv.FormatBool(suggested), Limit: listAnswer, Timeout: queryTime}, &answer)
		if err == nil && answer.Room.Summary != nil && answer.Room.ID == roomID {
			return &answer, nil
		}
		if err != nil {
			worst = graver(worst, err)
		}
	}
	return nil, worst
}

// QueryKeys implements e2ee.Remote.
func (s *Service) QueryKeys(ctx context.Context, server, _ string, users map[string][]string) (*e2ee.Keys, error) {
	for user, devices := range users {
		if devices == nil {
			users[user] = []string{} // null is no list
		}
	}
	body, err := json.Marshal(map[string]any{"device_keys": users})
	if err != nil {
		return nil, err
	}
	var answer e2ee.Keys
	if err := s.Client.ask(ctx, Ask{Server: server, Method: "POST", Path: "/_matrix/federation/v1/user/keys/query", Body: body, Limit: keysAnswer}, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// ClaimKeys implements e2ee.Remote.
func (s *Service) ClaimKeys(ctx context.Context, server string, claims map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	body, err := json.Marshal(map[string]any{"one_time_keys": claims})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Keys map[string]map[string]map[string]json.RawMessage `json:"one_time_keys"`
	}
	err = s.Client.ask(ctx, Ask{Server: server, Method: "POST", Path: "/_matrix/federation/v1/user/keys/claim", Body: body, Limit: keysAnswer}, &answer)
	return answer.Keys, err
}

// QueueToDevice implements e2ee.Remote. The transaction id of a client is its own only, so the message gets a name of its own.
func (s *Service) QueueToDevice(tx *storage.Tx, server, sender, typ, _ string, messages map[string]map[string]json.RawMessage) error {
	payload, err := json.Marshal(map[string]any{
		"edu_type": "m.direct_to_device",
		"content":  map[string]any{"sender": sender, "type": typ, "message_id": rand.Text(), "messages": messages},
	})
	if err != nil {
		return err
	}
	pos, err := tx.NextPos()
	if err != nil {
		return err
	}
	if s.Queued != nil {
		tx.After(func() { s.Queued(server) })
	}
	return tx.InsertOutbox(storage.Queued{Destination: server, Seq: pos, Payload: payload, Urgent: true}) // they carry the keys of calls
}
