// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// admin is a token's grant for everything in a room.
func admin(room string) *Grant {
	return &Grant{RoomCreate: true, RoomList: true, RoomAdmin: true, Room: room}
}

// ask calls RoomService in JSON and gives status and body.
func (h *house) ask(t *testing.T, g *Grant, method string, request any) (int, []byte) {
	t.Helper()
	b, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return h.askRaw(t, g, method, "application/json", b)
}

func (h *house) askRaw(t *testing.T, g *Grant, method, kind string, body []byte) (int, []byte) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http"+strings.TrimPrefix(h.url, "ws")+servicePath+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	if g != nil {
		token, err := testKeys.Sign(testKey, Claims{Video: g}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

func TestRoomsAreRunThroughTheService(t *testing.T) {
	h := newHouse(t, func(_ *sfu.Config, c *Config) { c.AutoCreate = false })
	status, b := h.ask(t, admin(""), "CreateRoom", map[string]any{"name": "r", "empty_timeout": 77, "metadata": "m", "max_participants": 2})
	room := &wire.Room{}
	if err := protojson.Unmarshal(b, room); err != nil || status != 200 || room.GetEmptyTimeout() != 77 || room.GetMetadata() != "m" || !strings.HasPrefix(room.GetSid(), "RM_") {
		t.Fatalf("CreateRoom: %d %s", status, b)
	}
	a, join := enter(t, h, options{identity: "alice", room: "r", single: true})
	if join.GetRoom().GetMetadata() != "m" {
		t.Errorf("room %v", join.GetRoom())
	}
	bob, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	if ws, _, err := dial(t, h, options{identity: "carol", room: "r", single: true}, nil); err != nil {
		t.Fatal(err)
	} else {
		if l := readOne(t, ws).GetLeave(); l.GetReason() != wire.DisconnectReason_JOIN_FAILURE {
			t.Errorf("a third one in a room for two: %v", l)
		}
		_ = ws.Close()
	}
	track := a.publish("audio")

	status, b = h.ask(t, admin("r"), "ListParticipants", map[string]any{"room": "r"})
	list := &wire.ListParticipantsResponse{}
	if err := protojson.Unmarshal(b, list); err != nil || len(list.GetParticipants()) != 2 {
		t.Errorf("ListParticipants: %d %s", status, b)
	}
	in, err := proto.Marshal(&wire.RoomParticipantIdentity{Room: "r", Identity: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	status, b = h.askRaw(t, admin("r"), "GetParticipant", "application/protobuf", in)
	one := &wire.ParticipantInfo{}
	if err := proto.Unmarshal(b, one); err != nil || one.GetIdentity() != "alice" || len(one.GetTracks()) != 1 {
		t.Errorf("GetParticipant: %d %v", status, one)
	}

	if status, b = h.ask(t, admin("r"), "MutePublishedTrack", map[string]any{"room": "r", "identity": "alice", "track_sid": track, "muted": true}); status != 200 {
		t.Errorf("MutePublishedTrack: %d %s", status, b)
	}
	a.until("being muted", func(m *wire.SignalResponse) bool { return m.GetMute().GetSid() == track && m.GetMute().GetMuted() })
	if status, _ = h.ask(t, admin("r"), "MutePublishedTrack", map[string]any{"room": "r", "identity": "alice", "track_sid": track}); status != 412 {
		t.Errorf("opening another's microphone: %d", status)
	}

	if status, b = h.ask(t, admin("r"), "UpdateRoomMetadata", map[string]any{"room": "r", "metadata": "new"}); status != 200 {
		t.Errorf("UpdateRoomMetadata: %d %s", status, b)
	}
	bob.until("the room's metadata", func(m *wire.SignalResponse) bool { return m.GetRoomUpdate().GetRoom().GetMetadata() == "new" })

	if status, b = h.ask(t, admin("r"), "UpdateParticipant", map[string]any{
		"room": "r", "identity": "alice", "name": "Alice", "permission": map[string]any{"can_subscribe": true, "can_publish": false},
	}); status != 200 {
		t.Errorf("UpdateParticipant: %d %s", status, b)
	}
	a.until("the end of its track", func(m *wire.SignalResponse) bool { return m.GetTrackUnpublished().GetTrackSid() == track })
	bob.until("alice without a track", func(m *wire.SignalResponse) bool {
		for _, p := range m.GetUpdate().GetParticipants() {
			if p.GetIdentity() == "alice" && p.GetName() == "Alice" && len(p.GetTracks()) == 0 && !p.GetPermission().GetCanPublish() {
				return true
			}
		}
		return false
	})
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: "x", Source: wire.TrackSource_MICROPHONE}}})
	a.until("a refusal", func(m *wire.SignalResponse) bool {
		return m.GetRequestResponse().GetReason() == wire.RequestResponse_NOT_ALLOWED
	})

	if status, b = h.ask(t, admin("r"), "RemoveParticipant", map[string]any{"room": "r", "identity": "alice"}); status != 200 {
		t.Errorf("RemoveParticipant: %d %s", status, b)
	}
	if l := a.until("the end", func(m *wire.SignalResponse) bool { return m.GetLeave() != nil }); l.GetLeave().GetReason() != wire.DisconnectReason_PARTICIPANT_REMOVED {
		t.Errorf("leave %v", l)
	}
	if status, b = h.ask(t, admin(""), "DeleteRoom", map[string]any{"room": "r"}); status != 200 {
		t.Errorf("DeleteRoom: %d %s", status, b)
	}
	if l := bob.until("the end", func(m *wire.SignalResponse) bool { return m.GetLeave() != nil }); l.GetLeave().GetReason() != wire.DisconnectReason_ROOM_DELETED {
		t.Errorf("leave %v", l)
	}
	if status, b = h.ask(t, admin(""), "ListRooms", map[string]any{}); status != 200 || strings.Contains(string(b), "RM_") {
		t.Errorf("ListRooms: %d %s", status, b)
	}
}

func TestTheServiceRefusesWhoMayNot(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	victim := map[string]any{"room": "r", "identity": "alice"}
	for _, c := range []struct {
		name   string
		grant  *Grant
		method string
		body   any
		status int
		code   string
	}{
		{"no token", nil, "RemoveParticipant", victim, 401, "unauthenticated"},
		{"a token to join", &Grant{RoomJoin: true, Room: "r"}, "RemoveParticipant", victim, 403, "permission_denied"},
		{"admin of another room", admin("other"), "RemoveParticipant", victim, 403, "permission_denied"},
		{"admin of no room", &Grant{RoomAdmin: true}, "RemoveParticipant", map[string]any{"identity": "alice"}, 403, "permission_denied"},
		{"admin who may not create", &Grant{RoomAdmin: true, Room: "r"}, "DeleteRoom", victim, 403, "permission_denied"},
		{"admin who may not list", &Grant{RoomAdmin: true, Room: "r"}, "ListRooms", victim, 403, "permission_denied"},
		{"no such method", admin("r"), "Nothing", victim, 404, "bad_route"},
		{"not JSON", admin("r"), "RemoveParticipant", "x", 400, "malformed"},
		{"too long", admin("r"), "RemoveParticipant", strings.Repeat("x", maxServiceBody), 400, "malformed"},
		{"nobody", admin("r"), "RemoveParticipant", map[string]any{"room": "r", "identity": "bob"}, 404, "not_found"},
		{"no room", admin("q"), "ListParticipants", map[string]any{"room": "q"}, 404, "not_found"},
		{"a room without a name", admin(""), "CreateRoom", map[string]any{}, 400, "invalid_argument"},
		{"a long name", admin(""), "CreateRoom", map[string]any{"name": strings.Repeat("x", 10_000)}, 400, "invalid_argument"},
		{"endless attributes", admin("r"), "UpdateParticipant", map[string]any{"room": "r", "identity": "alice", "attributes": map[string]any{"x": strings.Repeat("y", 70_000)}}, 400, "invalid_argument"},
		{"endless data", admin("r"), "SendData", map[string]any{"room": "r", "data": strings.Repeat("AAAA", 40_000)}, 400, "invalid_argument"},
	} {
		status, b := h.ask(t, c.grant, c.method, c.body)
		var f failure
		if err := json.Unmarshal(b, &f); err != nil || status != c.status || f.Code != c.code {
			t.Errorf("%s: %d %s", c.name, status, b)
		}
	}
	if status, b := h.askRaw(t, admin("r"), "ListRooms", "text/plain", nil); status != 404 {
		t.Errorf("plain text: %d %s", status, b)
	}
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: 1}}})
	a.until("a pong: alice is there still", func(m *wire.SignalResponse) bool { return m.GetPongResp() != nil })
}

func TestAPublisherChoosesItsAudience(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	sid := a.publish("audio")
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	b.receive(map[string]string{sid: "alice-audio"})
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_SubscriptionPermission{SubscriptionPermission: &wire.SubscriptionPermission{
		TrackPermissions: []*wire.TrackPermission{{ParticipantIdentity: "carol", TrackSids: []string{sid}}},
	}}})
	b.until("the news", func(m *wire.SignalResponse) bool {
		u := m.GetSubscriptionPermissionUpdate()
		return u.GetTrackSid() == sid && !u.GetAllowed()
	})
	room, err := h.engine.Room("r", false)
	if err != nil {
		t.Fatal(err)
	}
	if n := h.engine.Totals().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions", n)
	}
	b.say(&wire.SignalRequest{Message: &wire.SignalRequest_Subscription{Subscription: &wire.UpdateSubscription{TrackSids: []string{sid}, Subscribe: true}}})
	b.until("the refusal", func(m *wire.SignalResponse) bool { return m.GetSubscriptionPermissionUpdate() != nil })
	c, _ := enter(t, h, options{identity: "carol", room: "r", single: true})
	c.receive(map[string]string{sid: "alice-audio"})
	if n := h.engine.Totals().Subscriptions; n != 1 || room.Info().Participants != 3 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestWebhooksTellWhatHappensOnceAndSigned(t *testing.T) {
	var refuse atomic.Int32
	refuse.Store(1) // the first try is refused
	got := make(chan *wire.WebhookEvent, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c, err := testKeys.Verify(r.Header.Get("Authorization"))
		sum := sha256.Sum256(body)
		if err != nil || c.SHA256 != base64.StdEncoding.EncodeToString(sum[:]) || r.Header.Get("Content-Type") != "application/webhook+json" {
			t.Errorf("token: %v %+v", err, c)
		}
		if refuse.Add(-1) >= 0 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		e := &wire.WebhookEvent{}
		if err := protojson.Unmarshal(body, e); err != nil {
			t.Error(err)
		}
		got <- e
	}))
	defer receiver.Close()
	hooks := NewHooks([]string{receiver.URL}, testKeys, testKey, slog.New(slog.DiscardHandler))
	defer hooks.Close()
	h := newHouse(t, func(e *sfu.Config, _ *Config) { e.Journal = hooks.Note })
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	sid := a.publish("audio")
	first := wait(t, got, "the room's start")
	begun := map[string]*wire.WebhookEvent{} // media may be announced before the connection is up
	for range 2 {
		e := wait(t, got, "joining and publishing")
		begun[e.GetEvent()] = e
	}
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{}}})
	next := func() *wire.WebhookEvent { return wait(t, got, "an event") }
	for want, e := range map[string]*wire.WebhookEvent{
		"room_started": first, "participant_joined": begun["participant_joined"], "track_published": begun["track_published"],
		"track_unpublished": next(), "participant_left": next(),
	} {
		if e.GetEvent() != want || e.GetRoom().GetName() != "r" || !strings.HasPrefix(e.GetId(), "EV_") || e.GetCreatedAt() == 0 {
			t.Errorf("got %v, want %s", e, want)
		}
		if want != "room_started" && e.GetParticipant().GetIdentity() != "alice" || strings.HasPrefix(want, "track") && e.GetTrack().GetSid() != sid {
			t.Errorf("%s: %v", want, e)
		}
	}
}

func TestAWebhookThatDoesNotAnswerHoldsFewEvents(t *testing.T) {
	q := &hook{wake: make(chan struct{}, 1)}
	h := &Hooks{queues: []*hook{q}}
	for range 3 * hookQueue {
		h.Note(sfu.Entry{What: sfu.RoomStarted})
	}
	if _, dropped, ok := q.next(); len(q.waiting) >= hookQueue || dropped != 2*hookQueue || !ok {
		t.Errorf("%d wait, %d dropped", len(q.waiting), dropped)
	}
}

func TestWhoeverIsHeardOnATrackThatWasMutedLosesIt(t *testing.T) {
	h := newHouse(t, nil)
	bob, _ := enter(t, h, options{identity: "bob", room: "r"})
	alice, _ := enter(t, h, options{identity: "alice", room: "r"})
	alice.loud = true
	track := alice.publish("audio")
	bob.until("alice's voice", func(m *wire.SignalResponse) bool { return len(m.GetSpeakersChanged().GetSpeakers()) > 0 })
	r, err := h.engine.Room("r", false)
	if err != nil {
		t.Fatal(err)
	}
	p := r.Find("alice")
	if _, err := p.Silence(track); err != nil {
		t.Fatal(err)
	}
	alice.until("the word to be silent", func(m *wire.SignalResponse) bool { return m.GetMute().GetSid() == track && m.GetMute().GetMuted() })
	// She says that she is, and is not.
	alice.say(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: track, Muted: true}}})
	alice.until("the loss of her track", func(m *wire.SignalResponse) bool { return m.GetTrackUnpublished().GetTrackSid() == track })
	bob.until("her without it", func(m *wire.SignalResponse) bool {
		for _, p := range m.GetUpdate().GetParticipants() {
			if p.GetIdentity() == "alice" && len(p.GetTracks()) == 0 {
				return true
			}
		}
		return false
	})
	// What may not be unmuted is not, and stays published muted.
	p.Hold([]string{"microphone"})
	held := alice.publish("audio")
	alice.until("the word to be silent", func(m *wire.SignalResponse) bool { return m.GetMute().GetSid() == held })
	alice.say(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: held}}})
	alice.until("the word again", func(m *wire.SignalResponse) bool { return m.GetMute().GetSid() == held && m.GetMute().GetMuted() })
}
