// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Attacks on the SFU. Each case ends with a look at a witness: a call of two others that must not notice. Attacks that a package below
// answers for itself are tested there: broken RTP, RTCP and payloads (sfu/packets), descriptions (sfu/transport/sdp), floods of checks,
// TCP frames and handshakes (sfu/transport), transport feedback (sfu/congest).

// witness is a call of two whose sound must go on.
type witness struct {
	t     *testing.T
	track *webrtc.TrackRemote
	alive *client
}

func newWitness(t *testing.T, h *house) *witness {
	t.Helper()
	a, _ := enter(t, h, options{identity: "witness-a", room: "calm", single: true})
	sid := a.publish("audio")
	b, _ := enter(t, h, options{identity: "witness-b", room: "calm", single: true})
	tr := wait(t, b.tracks, "the witness's track")
	if tr.ID() != sid {
		t.Fatalf("track %q", tr.ID())
	}
	return &witness{t, tr, b}
}

// looks checks that sound still arrives and signalling still answers.
func (w *witness) looks(after string) {
	w.t.Helper()
	_ = w.track.SetReadDeadline(time.Now().Add(patience))
	for range 10 {
		if _, _, err := w.track.ReadRTP(); err != nil {
			w.t.Fatalf("after %s the witness hears nothing: %v", after, err)
		}
	}
	w.alive.say(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: 1}}})
	w.alive.until("a pong after "+after, func(m *wire.SignalResponse) bool { return m.GetPongResp() != nil })
}

func TestHostileTokensOpenNothing(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	claims := claimsFor("mallory", "calm")
	good, err := testKeys.Sign(testKey, claims, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Keys{testKey: "another secret of 32 characters!"}.Sign(testKey, claims, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	late, err := testKeys.Sign(testKey, claims, -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := testKeys.Sign(testKey, Claims{RegisteredClaims: claims.RegisteredClaims}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"none":                "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + parts[1] + ".",
		"RS256 in the header": "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9." + parts[1] + "." + parts[2],
		"a key id as a path":  "eyJhbGciOiJIUzI1NiIsImtpZCI6Ii4uLy4uL2Rldi9udWxsIn0." + parts[1] + "." + parts[2],
		"another secret":      foreign,
		"expired":             late,
		"no grant":            bare,
		"a megabyte":          good + strings.Repeat("A", 1<<20),
		"dots":                strings.Repeat(".", 10_000),
		"no signature":        parts[0] + "." + parts[1] + ".",
	} {
		r, err := http.NewRequest(http.MethodGet, "http"+strings.TrimPrefix(h.url, "ws")+"/rtc/validate", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
	w.looks("forged tokens")
}

func TestHostileResumesTakeOverNobody(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	_, join := enter(t, h, options{identity: "alice", room: "r", single: true})
	for name, o := range map[string]options{
		"another's SID":                 {identity: "mallory", room: "r", single: true, resume: join.GetParticipant().GetSid()},
		"another's SID in another room": {identity: "alice", room: "calm", single: true, resume: join.GetParticipant().GetSid()},
		"a made-up SID":                 {identity: "alice", room: "r", single: true, resume: "PA_000000000000"},
	} {
		ws, _, err := dial(t, h, o, nil)
		if err != nil {
			t.Fatal(err)
		}
		if l := readOne(t, ws).GetLeave(); l.GetReason() != wire.DisconnectReason_STATE_MISMATCH {
			t.Errorf("%s: %v", name, l)
		}
		_ = ws.Close()
	}
	room, err := h.engine.Room("r", false)
	if err != nil || room.Find("alice").SID() != join.GetParticipant().GetSid() {
		t.Error("alice was taken over")
	}
	w.looks("resumes with others' numbers")
}

func TestEveryMessageWithEveryFieldMissingIsSurvived(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	oneof := (&wire.SignalRequest{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range oneof.Len() {
		f := oneof.Get(i)
		for _, full := range []bool{false, true} {
			ws, _, err := dial(t, h, options{identity: fmt.Sprint("mallory", i, full), room: "r"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			readOne(t, ws)
			m := &wire.SignalRequest{}
			if f.Kind() == protoreflect.MessageKind {
				inner := m.ProtoReflect().NewField(f)
				if full { // all messages inside are there, and empty
					fill(inner.Message(), 3)
				}
				m.ProtoReflect().Set(f, inner)
			} else {
				m.ProtoReflect().Set(f, m.ProtoReflect().NewField(f))
			}
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			_ = ws.WriteMessage(websocket.BinaryMessage, b)
			_ = ws.Close()
		}
	}
	// The same in join requests: each message inside missing, or empty.
	for _, full := range []bool{false, true} {
		r := &wire.JoinRequest{}
		if full {
			fill(r.ProtoReflect(), 3)
			r.Reconnect = false
		}
		if ws, _, err := dial(t, h, options{identity: fmt.Sprint("nil", full), room: "r", single: true}, r); err == nil {
			readOne(t, ws)
			_ = ws.Close()
		}
	}
	w.looks("messages without content")
}

// fill puts an empty message into every field that holds one, and one into every list.
func fill(m protoreflect.Message, depth int) {
	if depth == 0 {
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsMap() {
			continue
		}
		if f.IsList() {
			v := m.Mutable(f).List().AppendMutable()
			fill(v.Message(), depth-1)
			continue
		}
		fill(m.Mutable(f).Message(), depth-1)
	}
}

func TestHostileRequestsInACallAreRefused(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	sid := a.publish("audio")
	m, _ := enter(t, h, options{identity: "mallory", room: "r", single: true, claims: func(c *Claims) {
		no := false
		c.Video.CanSubscribe, c.Video.CanPublish, c.Video.CanUpdateMetadata = &no, &no, &no
	}})
	refused := func(what string, reason wire.RequestResponse_Reason, r *wire.SignalRequest) {
		t.Helper()
		m.say(r)
		got := m.until(what, func(m *wire.SignalResponse) bool { return m.GetRequestResponse() != nil })
		if got.GetRequestResponse().GetReason() != reason {
			t.Errorf("%s: %v", what, got)
		}
	}
	refused("publishing without permission", wire.RequestResponse_NOT_ALLOWED, &wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: "x"}}})
	refused("a track without a name", wire.RequestResponse_INVALID_REQUEST, &wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{}}})
	refused("a megabyte of metadata", wire.RequestResponse_LIMIT_EXCEEDED, &wire.SignalRequest{Message: &wire.SignalRequest_UpdateMetadata{UpdateMetadata: &wire.UpdateParticipantMetadata{Metadata: strings.Repeat("x", 900_000)}}})
	refused("attributes without permission", wire.RequestResponse_NOT_ALLOWED, &wire.SignalRequest{Message: &wire.SignalRequest_UpdateMetadata{UpdateMetadata: &wire.UpdateParticipantMetadata{Attributes: map[string]string{"a": "b"}}}})
	// What is another's, or needs a permission, has no effect.
	m.say(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: sid, Muted: true}}})
	m.say(&wire.SignalRequest{Message: &wire.SignalRequest_Subscription{Subscription: &wire.UpdateSubscription{TrackSids: []string{sid}, Subscribe: true}}})
	m.say(&wire.SignalRequest{Message: &wire.SignalRequest_TrackSetting{TrackSetting: &wire.UpdateTrackSettings{TrackSids: []string{sid}, Disabled: true}}})
	m.say(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: 1}}})
	m.until("a pong", func(m *wire.SignalResponse) bool { return m.GetPongResp() != nil })
	room, err := h.engine.Room("r", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range room.Participants() {
		if p.Identity == "alice" && (len(p.Tracks) != 1 || p.Tracks[0].Muted) {
			t.Errorf("alice is now %+v", p)
		}
	}
	if n := h.engine.Totals().Subscriptions; n != 1 { // the witness's
		t.Errorf("%d subscriptions", n)
	}
	w.looks("requests that are not permitted")
}

func TestEndlessTracksAreLimited(t *testing.T) {
	h := newHouse(t, func(c *sfu.Config, _ *Config) { c.MaxTracks = 5 })
	w := newWitness(t, h)
	m, _ := enter(t, h, options{identity: "mallory", room: "r", single: true})
	for i := range 100 {
		m.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: fmt.Sprint("c", i), Source: wire.TrackSource_MICROPHONE}}})
	}
	published, refused := 0, 0
	for published+refused < 100 {
		r := m.until("an answer", func(m *wire.SignalResponse) bool {
			return m.GetTrackPublished() != nil || m.GetRequestResponse() != nil
		})
		switch {
		case r.GetTrackPublished() != nil:
			published++
		case r.GetRequestResponse().GetReason() == wire.RequestResponse_LIMIT_EXCEEDED:
			refused++
		default:
			t.Fatalf("got %v", r)
		}
	}
	if published != 5 {
		t.Errorf("%d tracks", published)
	}
	w.looks("a hundred tracks")
}

func TestAJoinWarHasOneWinner(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	var last *websocket.Conn
	for range 30 {
		ws, _, err := dial(t, h, options{identity: "twin", room: "r", single: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if readOne(t, ws).GetJoin() == nil {
			t.Fatal("no join")
		}
		if last != nil {
			for {
				m := readOne(t, last)
				if m.GetLeave() != nil {
					if m.GetLeave().GetReason() != wire.DisconnectReason_DUPLICATE_IDENTITY {
						t.Errorf("leave %v", m)
					}
					break
				}
			}
			_ = last.Close()
		}
		last = ws
	}
	defer func() { _ = last.Close() }()
	if n := h.engine.Totals().Participants; n != 3 {
		t.Errorf("%d participants", n)
	}
	w.looks("a war of joins")
}

func TestAStormOfRTCPCostsThePublisherLittle(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	sid := a.publish("video")
	m, _ := enter(t, h, options{identity: "mallory", room: "r", single: true})
	tr := wait(t, m.tracks, "the track")
	if tr.ID() != sid {
		t.Fatalf("track %q", tr.ID())
	}
	_ = tr.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := tr.ReadRTP(); err != nil {
		t.Fatal(err)
	}
	before := h.engine.Totals()
	begin := time.Now()
	ssrc := uint32(tr.SSRC())
	for range 1000 {
		_ = m.pub.WriteRTCP([]rtcp.Packet{
			&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: ssrc},
			&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: ssrc, Nacks: []rtcp.NackPair{{PacketID: 1, LostPackets: 0xFFFF}, {PacketID: 1, LostPackets: 0xFFFF}}},
			&rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: 1, Bitrate: 1, SSRCs: []uint32{ssrc}},
			&rtcp.SenderReport{SSRC: ssrc, NTPTime: 1<<64 - 1},
		})
	}
	w.looks("a storm of RTCP")
	after := h.engine.Totals()
	if again, most := after.PacketsAgain-before.PacketsAgain, uint64(100+1000*time.Since(begin).Seconds()); again > most {
		t.Errorf("%d packets sent again on demand, want at most %d", again, most)
	}
}

func TestWebSocketsThatBreakTheirRulesAreClosed(t *testing.T) {
	h := newHouse(t, nil)
	w := newWitness(t, h)
	token, err := testKeys.Sign(testKey, claimsFor("mallory", "r"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"a length of 2^63":     {0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0},
		"not masked":           {0x82, 0x01, 0x00},
		"a reserved opcode":    {0x83, 0x80, 0, 0, 0, 0},
		"reserved bits":        {0xF2, 0x80, 0, 0, 0, 0},
		"a long control frame": append([]byte{0x89, 0xFE, 0x00, 0xFF, 0, 0, 0, 0}, make([]byte, 255)...),
	} {
		ws, _, err := websocket.DefaultDialer.Dial(h.url+"/rtc?access_token="+url.QueryEscape(token), nil)
		if err != nil {
			t.Fatal(err)
		}
		readOne(t, ws)
		if _, err := ws.NetConn().Write(raw); err != nil {
			t.Fatal(err)
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
	w.looks("broken WebSocket frames")
}

func TestHostileNamesAreRefused(t *testing.T) {
	h := newHouse(t, nil)
	for _, o := range []options{
		{identity: strings.Repeat("x", 10_000), room: "r"}, {identity: "alice", room: strings.Repeat("x", 10_000)},
		{identity: "", room: "r"}, {identity: "alice", room: ""},
	} {
		if _, status, err := dial(t, h, o, nil); err == nil || status != http.StatusUnauthorized {
			t.Errorf("identity of %d bytes in a room of %d: %d %v", len(o.identity), len(o.room), status, err)
		}
	}
	if n := h.engine.Totals().Rooms; n != 0 {
		t.Errorf("%d rooms are left behind", n)
	}
}

func FuzzSignal(f *testing.F) {
	seeds := []*wire.SignalRequest{
		{Message: &wire.SignalRequest_Offer{Offer: &wire.SessionDescription{Type: "offer", Sdp: "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:aaaa\r\na=ice-pwd:bbbbbbbbbbbbbbbbbbbbbb\r\na=fingerprint:sha-256 AA\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=sendonly\r\na=msid:s c\r\n"}}},
		{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: "c", Type: wire.TrackType_VIDEO, Layers: []*wire.VideoLayer{{Quality: 99}}}}},
		{Message: &wire.SignalRequest_TrackSetting{TrackSetting: &wire.UpdateTrackSettings{TrackSids: []string{"x"}, Quality: -5}}},
		{Message: &wire.SignalRequest_SubscriptionPermission{SubscriptionPermission: &wire.SubscriptionPermission{TrackPermissions: []*wire.TrackPermission{nil}}}},
	}
	for _, m := range seeds {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "eyJ", b)
	}
	f.Fuzz(func(t *testing.T, b []byte, text string, join []byte) {
		m := &wire.SignalRequest{}
		if proto.Unmarshal(b, m) == nil && m.GetMessage() != nil {
			again, err := proto.Marshal(m)
			if err != nil || reflect.DeepEqual(again, nil) {
				t.Error(err)
			}
		}
		if r, err := readJoinRequest(text); err == nil && r == nil {
			t.Error("neither a request nor an error")
		}
		if c, err := testKeys.Verify(text); err == nil {
			t.Errorf("a token that nobody signed: %+v", c)
		}
	})
}
