// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func TestClientsWithOneAndTwoConnectionsHearAndSeeEachOther(t *testing.T) {
	for _, alice := range []bool{true, false} {
		for _, bob := range []bool{true, false} {
			t.Run(fmt.Sprintf("single %v and %v", alice, bob), func(t *testing.T) {
				h := newHouse(t, nil)
				a, _ := enter(t, h, options{identity: "alice", room: "r", single: alice})
				audio, video := a.publish("audio"), a.publish("video")
				b, join := enter(t, h, options{identity: "bob", room: "r", single: bob})
				if o := join.GetOtherParticipants(); len(o) != 1 || len(o[0].GetTracks()) != 2 || o[0].GetTracks()[0].GetEncryption() != wire.Encryption_GCM {
					t.Errorf("others %v", o)
				}
				b.receive(map[string]string{audio: "alice-audio", video: "alice-video"})
				back := b.publish("video")
				if alice { // the SFU asks for an offer: there are free sections, so for no more of them
					if w := wait(t, a.wants, "the wish for an offer"); w.GetNumAudios() != 0 || w.GetNumVideos() != 0 {
						t.Errorf("wanted %v", w)
					}
					a.negotiate()
				}
				a.receive(map[string]string{back: "bob-video"})
			})
		}
	}
}

func TestTheFirstAnswerCarriesWhatIsPublished(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r"})
	sid := a.publish("audio")
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	if id := wait(t, b.answered, "the answer"); id != 1 {
		t.Errorf("answer to offer %d", id)
	}
	found := false
	b.mids.Range(func(_, got any) bool { found = found || got == sid; return true })
	if !found {
		t.Error("the first answer does not hold the track")
	}
}

func TestMoreTracksThanSectionsAreAskedFor(t *testing.T) {
	h := newHouse(t, nil)
	want := map[string]string{}
	for i := range 5 {
		p, _ := enter(t, h, options{identity: fmt.Sprint("p", i), room: "r"})
		want[p.publish("audio")] = fmt.Sprintf("p%d-audio", i)
	}
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	w := wait(t, b.wants, "the wish for sections")
	if w.GetNumAudios() != 2 || w.GetNumVideos() != 0 {
		t.Fatalf("wanted %v", w)
	}
	wait(t, b.answered, "the first answer")
	b.receivers(webrtc.RTPCodecTypeAudio, 2)
	b.negotiate()
	b.receive(want)
}

func TestOthersAreToldOfJoiningMutingAndLeaving(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	b, join := enter(t, h, options{identity: "bob", room: "r", single: true, claims: func(c *Claims) { c.Name = "Bob" }})
	sid := join.GetParticipant().GetSid()
	bob := func(check func(*wire.ParticipantInfo) bool) func(*wire.SignalResponse) bool {
		return func(m *wire.SignalResponse) bool {
			for _, p := range m.GetUpdate().GetParticipants() {
				if p.GetSid() == sid && check(p) {
					return true
				}
			}
			return false
		}
	}
	a.until("bob", bob(func(p *wire.ParticipantInfo) bool {
		return p.GetName() == "Bob" && p.GetState() == wire.ParticipantInfo_JOINED
	}))
	track := b.publish("audio")
	a.until("bob's track", bob(func(p *wire.ParticipantInfo) bool {
		return len(p.GetTracks()) == 1 && p.GetTracks()[0].GetSid() == track && p.GetTracks()[0].GetMimeType() == "audio/opus"
	}))
	b.say(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: track, Muted: true}}})
	a.until("bob's silence", bob(func(p *wire.ParticipantInfo) bool { return len(p.GetTracks()) == 1 && p.GetTracks()[0].GetMuted() }))
	b.say(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{Reason: wire.DisconnectReason_CLIENT_INITIATED}}})
	a.until("bob's leaving", bob(func(p *wire.ParticipantInfo) bool {
		return p.GetState() == wire.ParticipantInfo_DISCONNECTED && p.GetDisconnectReason() == wire.DisconnectReason_CLIENT_INITIATED
	}))
	wait(t, b.closed, "the end of bob's connection")
}

func TestTheOlderOfTwoEqualIdentitiesIsRemoved(t *testing.T) {
	h := newHouse(t, nil)
	first, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	_, join := enter(t, h, options{identity: "alice", room: "r", single: true})
	if n := len(join.GetOtherParticipants()); n != 1 && n != 0 {
		t.Errorf("%d others", n)
	}
	m := first.until("the end", func(m *wire.SignalResponse) bool { return m.GetLeave() != nil })
	if m.GetLeave().GetReason() != wire.DisconnectReason_DUPLICATE_IDENTITY || m.GetLeave().GetAction() != wire.LeaveRequest_DISCONNECT {
		t.Errorf("leave %v", m.GetLeave())
	}
	wait(t, first.closed, "the end of the first connection")
}

func TestABrokenConnectionIsResumed(t *testing.T) {
	for _, single := range []bool{true, false} {
		t.Run(fmt.Sprint("single ", single), func(t *testing.T) {
			h := newHouse(t, nil)
			a, join := enter(t, h, options{identity: "alice", room: "r", single: single})
			sid := join.GetParticipant().GetSid()
			b, _ := enter(t, h, options{identity: "bob", room: "r", single: single})
			a.connects() // only then do clients resume: an offer or answer lost before is not made good for them, and they begin anew
			_ = a.ws.Close()
			wait(t, a.closed, "the break")
			ws, _, err := dial(t, h, options{identity: "alice", room: "r", single: single, resume: sid}, nil)
			if err != nil {
				t.Fatal(err)
			}
			a.ws, a.closed, a.heard = ws, make(chan struct{}), make(chan *wire.SignalResponse, 1000)
			go a.listen()
			first := wait(t, a.heard, "the first message")
			if first.GetReconnect() == nil {
				t.Fatalf("first message %v", first)
			}
			a.until("who is there", func(m *wire.SignalResponse) bool { return len(m.GetUpdate().GetParticipants()) == 2 })
			if single {
				a.restart()
			}
			track := b.publish("audio")
			if single {
				wait(t, a.wants, "the wish for an offer")
				a.negotiate()
			}
			a.receive(map[string]string{track: "bob-audio"})
		})
	}
}

func TestAParticipantThatDoesNotComeBackIsRemoved(t *testing.T) {
	h := newHouse(t, func(_ *sfu.Config, c *Config) { c.ResumeWithin = 50 * time.Millisecond })
	a, join := enter(t, h, options{identity: "alice", room: "r", single: true})
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	_ = a.ws.Close()
	b.until("alice's end", func(m *wire.SignalResponse) bool {
		for _, p := range m.GetUpdate().GetParticipants() {
			if p.GetSid() == join.GetParticipant().GetSid() && p.GetState() == wire.ParticipantInfo_DISCONNECTED {
				return true
			}
		}
		return false
	})
	ws, _, err := dial(t, h, options{identity: "alice", room: "r", single: true, resume: join.GetParticipant().GetSid()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	m := readOne(t, ws)
	if l := m.GetLeave(); l.GetReason() != wire.DisconnectReason_STATE_MISMATCH || l.GetAction() != wire.LeaveRequest_RECONNECT {
		t.Errorf("got %v", m)
	}
}

func readOne(t *testing.T, ws *websocket.Conn) *wire.SignalResponse {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	kind, b, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	m := &wire.SignalResponse{}
	if kind == websocket.TextMessage {
		err = protojson.Unmarshal(b, m)
	} else {
		err = proto.Unmarshal(b, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPingsAreAnsweredInTheClientsEncoding(t *testing.T) {
	h := newHouse(t, nil)
	ws, _, err := dial(t, h, options{identity: "alice", room: "r", single: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	join := readOne(t, ws).GetJoin()
	if join.GetServerInfo().GetVersion() == "" || join.GetPingInterval() != 5 || join.GetPingTimeout() != 15 || len(join.GetEnabledPublishCodecs()) == 0 || len(join.GetSifTrailer()) == 0 || join.GetSubscriberPrimary() {
		t.Errorf("join %v", join)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"pingReq":{"timestamp":"123","unknown":1}}`)); err != nil {
		t.Fatal(err)
	}
	if p := readOne(t, ws).GetPongResp(); p.GetLastPingTimestamp() != 123 {
		t.Errorf("pong %v", p)
	}
	b, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Ping{Ping: 5}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		t.Fatal(err)
	}
	if p := readOne(t, ws).GetPong(); p == 0 {
		t.Error("no pong")
	}
}

func TestPermissionsAreKept(t *testing.T) {
	h := newHouse(t, nil)
	no := false
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true, claims: func(c *Claims) { c.Video.CanPublishSources = []string{"camera"}; c.Video.CanUpdateMetadata = &no }})
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: "x", Source: wire.TrackSource_MICROPHONE}}})
	if m := a.until("the refusal", func(m *wire.SignalResponse) bool { return m.GetRequestResponse() != nil }); m.GetRequestResponse().GetReason() != wire.RequestResponse_NOT_ALLOWED {
		t.Errorf("got %v", m)
	}
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_UpdateMetadata{UpdateMetadata: &wire.UpdateParticipantMetadata{Name: "x", RequestId: 7}}})
	if m := a.until("the refusal", func(m *wire.SignalResponse) bool { return m.GetRequestResponse() != nil }); m.GetRequestResponse().GetReason() != wire.RequestResponse_NOT_ALLOWED || m.GetRequestResponse().GetRequestId() != 7 {
		t.Errorf("got %v", m)
	}
}

func TestDataPacketsCarryTheirSenderAndReachWhoIsNamed(t *testing.T) {
	h := newHouse(t, nil)
	type inbox struct {
		open chan struct{}
		got  chan *wire.DataPacket
	}
	boxes := map[string]*inbox{}
	channels := map[string]*webrtc.DataChannel{}
	clients := map[string]*client{}
	for _, name := range []string{"alice", "bob", "carol"} {
		box := &inbox{make(chan struct{}), make(chan *wire.DataPacket, 10)}
		boxes[name] = box
		c, _ := enter(t, h, options{identity: name, room: "r", single: true})
		d, err := c.pub.CreateDataChannel("_lossy", &webrtc.DataChannelInit{Ordered: new(bool), MaxRetransmits: new(uint16)})
		if err != nil {
			t.Fatal(err)
		}
		d.OnOpen(func() { close(box.open) })
		d.OnMessage(func(m webrtc.DataChannelMessage) {
			p := &wire.DataPacket{}
			if err := proto.Unmarshal(m.Data, p); err != nil {
				t.Error(err)
			}
			box.got <- p
		})
		clients[name], channels[name] = c, d
	}
	for name := range clients {
		wait(t, boxes[name].open, name+"'s channel")
	}
	packet := &wire.DataPacket{DestinationIdentities: []string{"bob"}, ParticipantIdentity: "mallory", Sequence: 9}
	packet.ProtoReflect().SetUnknown([]byte{0x12, 0x02, 0x12, 0x00}) // user { payload "" }: carried on unread
	b, err := proto.Marshal(packet)
	if err != nil {
		t.Fatal(err)
	}
	// A channel is open for its own end before it is for the other: lossy packets are sent until one gets through.
	var got *wire.DataPacket
	for deadline := time.After(patience); got == nil; {
		if err := channels["alice"].Send(b); err != nil {
			t.Fatal(err)
		}
		select {
		case got = <-boxes["bob"].got:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("no packet came")
		}
	}
	if got.GetParticipantIdentity() != "alice" || !strings.HasPrefix(got.GetParticipantSid(), "PA_") || got.GetSequence() != 9 || len(got.ProtoReflect().GetUnknown()) != 4 {
		t.Errorf("got %v", got)
	}
	if len(boxes["carol"].got) != 0 {
		t.Error("carol got what was bob's")
	}
}

func TestRefusalsBeforeTheUpgrade(t *testing.T) {
	h := newHouse(t, func(_ *sfu.Config, c *Config) { c.AutoCreate = false })
	web := "http" + strings.TrimPrefix(h.url, "ws")
	token := func(change func(*Claims)) string {
		c := claimsFor("alice", "r")
		if change != nil {
			change(&c)
		}
		s, err := testKeys.Sign(testKey, c, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.CopyN(z, zeros{}, 64<<20)
	_ = z.Close()
	b, err := proto.Marshal(&wire.WrappedJoinRequest{Compression: wire.WrappedJoinRequest_GZIP, JoinRequest: bomb.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	join := pack(t, &wire.JoinRequest{})
	for _, c := range []struct {
		name, path string
		query      url.Values
		status     int
		body       string
	}{
		{"no token", "/rtc/validate", nil, 401, ""},
		{"no room", "/rtc/validate", url.Values{"access_token": {token(nil)}}, 404, noRoom},
		{"no room, v1", "/rtc/v1/validate", url.Values{"access_token": {token(nil)}, "join_request": {join}}, 404, noRoom},
		{"may create it", "/rtc/validate", url.Values{"access_token": {token(func(c *Claims) { c.Video.RoomCreate, c.Video.Room = true, "new" })}}, 200, "success"},
		{"no join request", "/rtc/v1/validate", url.Values{"access_token": {token(nil)}}, 400, ""},
		{"not base64", "/rtc/v1/validate", url.Values{"access_token": {token(nil)}, "join_request": {"%%%"}}, 400, ""},
		{"a bomb", "/rtc/v1/validate", url.Values{"access_token": {token(nil)}, "join_request": {base64.URLEncoding.EncodeToString(b)}}, 400, ""},
		{"not a WebSocket", "/rtc", url.Values{"access_token": {token(nil)}}, 404, ""},
		{"online?", "/", nil, 200, ""},
	} {
		r, err := http.Get(web + c.path + "?" + c.query.Encode())
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != c.status || c.body != "" && string(text) != c.body {
			t.Errorf("%s: %d %q", c.name, r.StatusCode, text)
		}
		if c.path != "/rtc" && r.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: a page may not read the answer", c.name)
		}
	}
	if _, status, err := dial(t, h, options{identity: "alice", room: "elsewhere", single: true}, nil); err == nil || status != 404 {
		t.Errorf("WebSocket to a room that is not there: %d %v", status, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestClientsThatMisbehaveAreCutOff(t *testing.T) {
	h := newHouse(t, nil)
	for name, do := range map[string]func(*websocket.Conn) error{
		"a huge frame": func(ws *websocket.Conn) error {
			return ws.WriteMessage(websocket.BinaryMessage, make([]byte, maxFrame+1))
		},
		"not protobuf":       func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.BinaryMessage, []byte{0xFF}) },
		"not JSON":           func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.TextMessage, []byte("{")) },
		"broken description": func(ws *websocket.Conn) error { return sendOffer(ws, "v=1") },
		"endless sections": func(ws *websocket.Conn) error {
			return sendOffer(ws, "v=0\r\n"+strings.Repeat("m=audio 9 X 0\r\n", 1000))
		},
		"an unasked answer": func(ws *websocket.Conn) error {
			b, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Answer{Answer: &wire.SessionDescription{Sdp: "v=0\r\n"}}})
			if err != nil {
				return err
			}
			return ws.WriteMessage(websocket.BinaryMessage, b)
		},
		"a flood": func(ws *websocket.Conn) error {
			b, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: "x"}}})
			for i := 0; err == nil && i < 10*messageBurst; i++ {
				err = ws.WriteMessage(websocket.BinaryMessage, b)
			}
			return nil // writing may fail once we are cut off
		},
	} {
		ws, _, err := dial(t, h, options{identity: "mallory", room: "r", single: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		readOne(t, ws)
		if err := do(ws); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = ws.SetReadDeadline(time.Now().Add(patience))
		for err == nil {
			_, _, err = ws.ReadMessage()
		}
		if strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: still connected", name)
		}
		_ = ws.Close()
	}
}

func sendOffer(ws *websocket.Conn, text string) error {
	b, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Offer{Offer: &wire.SessionDescription{Type: "offer", Sdp: text}}})
	if err != nil {
		return err
	}
	return ws.WriteMessage(websocket.BinaryMessage, b)
}

func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	s := &session{queue: make(chan any, queueLength), end: make(chan struct{})}
	for range queueLength {
		s.Tell(sfu.Changed{})
	}
	select {
	case <-s.end:
		t.Fatal("cut off too early")
	default:
	}
	s.Tell(sfu.Changed{})
	select {
	case <-s.end:
	default:
		t.Error("still connected")
	}
}
