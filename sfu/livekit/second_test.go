// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
)

// sends offers a track in one codec and sends packets on it, each of them a key frame, until the test ends or stop is called.
func (c *client) sends(mime, cid string) (stop func()) {
	c.t.Helper()
	tr, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime, ClockRate: 90000, SDPFmtpLine: formats[mime]}, cid, "stream")
	if err != nil {
		c.t.Fatal(err)
	}
	v, err := c.pub.AddTransceiverFromTrack(tr, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for {
			if _, _, err := v.Sender().ReadRTCP(); err != nil {
				return
			}
		}
	}()
	c.negotiate()
	ended := make(chan struct{})
	var sending sync.WaitGroup
	var once sync.Once
	halt := func() { once.Do(func() { close(ended) }); sending.Wait() }
	c.t.Cleanup(halt)
	sending.Go(func() {
		beat := newBeat()
		for sn := uint16(1); ; sn++ {
			payload := append(append([]byte{}, keyFrames[mime]...), cid...)
			_ = tr.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: sn, Timestamp: uint32(sn) * 1800, Marker: true}, Payload: payload})
			if !beat.wait(ended) {
				return
			}
		}
	})
	return func() {
		halt()
		if err := c.pub.RemoveTrack(v.Sender()); err != nil {
			c.t.Error(err)
		}
		c.negotiate()
	}
}

var (
	formats   = map[string]string{"video/VP9": "profile-id=0", "video/H264": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}
	keyFrames = map[string][]byte{"video/VP8": {0x10, 0x00}, "video/VP9": {}, "video/H264": {0x67}}
)

// announces a camera in VP9 with a second codec.
func (c *client) announces(second string, policy wire.BackupCodecPolicy, change ...func(*wire.AddTrackRequest)) (sid string) {
	c.t.Helper()
	q := &wire.AddTrackRequest{
		Cid: "camera", Name: "camera", Type: wire.TrackType_VIDEO, Source: wire.TrackSource_CAMERA, BackupCodecPolicy: policy,
		SimulcastCodecs: []*wire.SimulcastCodec{{Codec: "vp9", Cid: "camera"}, {Codec: second}},
	}
	for _, f := range change {
		f(q)
	}
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: q}})
	return c.until("its track", func(m *wire.SignalResponse) bool { return m.GetTrackPublished().GetCid() == "camera" }).GetTrackPublished().GetTrack().GetSid()
}

// adds announces the second codec of a track.
func (c *client) adds(sid, cid, codec string) *wire.TrackInfo {
	c.t.Helper()
	c.asksToAdd(sid, cid, codec)
	return c.until("its track", func(m *wire.SignalResponse) bool { return m.GetTrackPublished().GetCid() == cid }).GetTrackPublished().GetTrack()
}

func (c *client) asksToAdd(sid, cid, codec string) {
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{
		Cid: cid, Sid: sid, Type: wire.TrackType_VIDEO, Source: wire.TrackSource_CAMERA, SimulcastCodecs: []*wire.SimulcastCodec{{Codec: codec, Cid: cid}},
	}}})
}

// isAsked waits until the publisher is asked for exactly these codecs of vp9 and the other one.
func (c *client) isAsked(first, second bool) {
	c.t.Helper()
	on := func(s *wire.SubscribedCodec) bool {
		return len(s.GetQualities()) == 3 && s.GetQualities()[0].GetEnabled()
	}
	c.until("what is wanted", func(m *wire.SignalResponse) bool {
		l := m.GetSubscribedQualityUpdate().GetSubscribedCodecs()
		return len(l) == 2 && l[0].GetCodec() == "vp9" && on(l[0]) == first && on(l[1]) == second
	})
}

// follows offers anew whenever the server asks for it, of a client that publishes nothing.
func (c *client) follows() *client {
	if !c.single {
		return c
	}
	go func() {
		for {
			select {
			case w := <-c.wants:
				for c.pub.SignalingState() != webrtc.SignalingStateStable {
					select {
					case <-c.answered:
					case <-c.closed:
						return
					}
				}
				c.receivers(webrtc.RTPCodecTypeVideo, int(w.GetNumVideos()))
				c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Offer{Offer: c.makeOffer()}})
			case <-c.closed:
				return
			}
		}
	}()
	return c
}

// watches reads a track and tells of packets of a name.
func watches(t *testing.T, tr *webrtc.TrackRemote, name string) {
	t.Helper()
	_ = tr.SetReadDeadline(time.Now().Add(patience))
	for {
		p, _, err := tr.ReadRTP()
		if err != nil {
			t.Fatalf("no packet of %s: %v", name, err)
		}
		if bytes.HasSuffix(p.Payload, []byte(name)) {
			return
		}
	}
}

func TestWhoDoesNotTakeTheFirstCodecGetsTheSecondAndTheOthersKeepTheFirst(t *testing.T) {
	for _, second := range []string{"VP8", "H264"} {
		for _, single := range []bool{true, false} {
			t.Run(second+map[bool]string{true: ", one connection", false: ", two connections"}[single], func(t *testing.T) {
				t.Parallel() // they wait for dynacast
				h := newHouse(t, nil)
				alice, _ := enter(t, h, options{identity: "alice", room: "r", single: true}) // with two, pion offers no codec that was not in the first answer
				carol, _ := enter(t, h, options{identity: "carol", room: "r", single: single})
				carol.follows()
				sid := alice.announces(strings.ToLower(second), wire.BackupCodecPolicy_SIMULCAST)
				alice.sends("video/VP9", "camera")
				camera := wait(t, carol.tracks, "carol's track")
				watches(t, camera, "camera")
				bob, _ := enter(t, h, options{identity: "bob", room: "r", single: single, only: "video/" + second})
				bob.follows()
				alice.isAsked(true, true)
				info := alice.adds(sid, "other", strings.ToLower(second))
				if info.GetSid() != sid || len(info.GetCodecs()) != 2 || info.GetCodecs()[1].GetCid() != "other" || info.GetCodecs()[1].GetMimeType() != "video/"+second {
					t.Errorf("%v", info)
				}
				alice.sends("video/"+second, "other")
				other := wait(t, bob.tracks, "bob's track")
				if other.ID() != sid || !strings.EqualFold(other.Codec().MimeType, "video/"+second) {
					t.Errorf("bob receives %s as %s", other.ID(), other.Codec().MimeType)
				}
				watches(t, other, "other")
				watches(t, camera, "camera")
				bob.say(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{}}})
				alice.isAsked(true, false)
				watches(t, camera, "camera")
			})
		}
	}
}

func TestInASmallRoomAllGetTheSecondCodecAndTheFirstAgain(t *testing.T) {
	for _, second := range []string{"VP8", "H264"} {
		t.Run(second, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(c *sfu.Config, _ *Config) { c.ReturnAfter = 10 * time.Millisecond })
			alice, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
			carol, _ := enter(t, h, options{identity: "carol", room: "r", single: true})
			carol.follows()
			sid := alice.announces(strings.ToLower(second), wire.BackupCodecPolicy_PREFER_REGRESSION)
			alice.sends("video/VP9", "camera")
			camera := wait(t, carol.tracks, "carol's track")
			watches(t, camera, "camera")
			bob, _ := enter(t, h, options{identity: "bob", room: "r", single: true, only: "video/" + second})
			bob.follows()
			alice.isAsked(true, true)
			alice.adds(sid, "other", strings.ToLower(second))
			stop := alice.sends("video/"+second, "other")
			watches(t, wait(t, bob.tracks, "bob's track"), "other")
			watches(t, camera, "other") // the same stream
			alice.isAsked(false, true)
			dave, _ := enter(t, h, options{identity: "dave", room: "r", single: true})
			dave.follows()
			watches(t, wait(t, dave.tracks, "dave's track"), "other")
			bob.say(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{}}})
			watches(t, camera, "camera")
			alice.isAsked(true, false)

			// The second codec ends, not the track; whoever needs it waits for another.
			stop()
			erin, _ := enter(t, h, options{identity: "erin", room: "r", single: true, only: "video/" + second})
			erin.follows()
			alice.isAsked(true, true)
			alice.adds(sid, "another", strings.ToLower(second))
			alice.sends("video/"+second, "another")
			watches(t, wait(t, erin.tracks, "erin's track"), "another")
			watches(t, camera, "another")
		})
	}
}

func TestASecondCodecThatDoesNotComeIsNotWaitedForForEver(t *testing.T) {
	h := newHouse(t, func(c *sfu.Config, _ *Config) { c.SecondWithin = 10 * time.Millisecond })
	alice, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	sid := alice.announces("vp8", wire.BackupCodecPolicy_SIMULCAST)
	alice.sends("video/VP9", "camera")
	bob, _ := enter(t, h, options{identity: "bob", room: "r", single: true, only: "video/VP8"})
	bob.follows()
	m := bob.until("a refusal", func(m *wire.SignalResponse) bool { return m.GetSubscriptionResponse() != nil }).GetSubscriptionResponse()
	if m.GetTrackSid() != sid || m.GetErr() != wire.SubscriptionError_SE_CODEC_UNSUPPORTED {
		t.Errorf("%v", m)
	}
}

func TestASecondCodecIsForTracksThatSaidSoOnce(t *testing.T) {
	h := newHouse(t, nil)
	refused := func(c *client, reason wire.RequestResponse_Reason) {
		t.Helper()
		m := c.until("a refusal", func(m *wire.SignalResponse) bool { return m.GetRequestResponse() != nil }).GetRequestResponse()
		if m.GetReason() != reason || m.GetAddTrack() == nil {
			t.Errorf("%v, want %v", m, reason)
		}
	}
	alice, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	mallory, _ := enter(t, h, options{identity: "mallory", room: "r", single: true})
	sid := alice.announces("vp8", wire.BackupCodecPolicy_SIMULCAST)
	alice.sends("video/VP9", "camera")
	mallory.asksToAdd(sid, "hers", "vp8") // somebody else's track
	refused(mallory, wire.RequestResponse_NOT_FOUND)
	alice.asksToAdd("TR_none", "other", "vp8")
	refused(alice, wire.RequestResponse_NOT_FOUND)
	alice.adds(sid, "other", "vp8")
	alice.adds(sid, "other", "vp8") // asked twice
	alice.asksToAdd(sid, "third", "vp8")
	refused(alice, wire.RequestResponse_NOT_ALLOWED)
	alice.sends("video/VP8", "other")
	alice.asksToAdd(sid, "other", "vp8")
	refused(alice, wire.RequestResponse_NOT_ALLOWED)
	for name, change := range map[string]func(*wire.AddTrackRequest){
		"encrypted":         func(q *wire.AddTrackRequest) { q.Encryption = wire.Encryption_GCM },
		"one codec":         func(q *wire.AddTrackRequest) { q.SimulcastCodecs = q.GetSimulcastCodecs()[:1] },
		"twice the same":    func(q *wire.AddTrackRequest) { q.SimulcastCodecs[0].Codec = "VP8" },
		"one that few take": func(q *wire.AddTrackRequest) { q.SimulcastCodecs[1].Codec = "av1" },
		"a sound":           func(q *wire.AddTrackRequest) { q.Type = wire.TrackType_AUDIO },
	} {
		bob, _ := enter(t, h, options{identity: name, room: "r", single: true})
		bob.follows()
		sid := bob.announces("vp8", wire.BackupCodecPolicy_SIMULCAST, change)
		bob.asksToAdd(sid, "other", "vp8")
		refused(bob, wire.RequestResponse_NOT_FOUND)
	}
}

// One offer that begins the second codec in a section before that of the first one, which ends in the same offer.
func TestASecondCodecThatBeginsWhenItsTrackEndsEndsWithIt(t *testing.T) {
	h := newHouse(t, nil)
	bob, _ := enter(t, h, options{identity: "bob", room: "r"})
	ws, _, err := dial(t, h, options{identity: "mallory", room: "r"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	until := func(what string, wanted func(*wire.SignalResponse) bool) *wire.SignalResponse {
		t.Helper()
		for {
			m := readOne(t, ws)
			if m.GetLeave() != nil {
				t.Fatalf("%v instead of %s", m, what)
			}
			if wanted(m) {
				return m
			}
		}
	}
	say := func(m *wire.SignalRequest) {
		t.Helper()
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
			t.Fatal(err)
		}
	}
	offer := func(id uint32, sections ...string) {
		t.Helper()
		text := "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:aaaa\r\na=ice-pwd:bbbbbbbbbbbbbbbbbbbbbbbb\r\na=fingerprint:sha-256 AA\r\n"
		for i, s := range sections {
			text += fmt.Sprintf("m=video 9 UDP/TLS/RTP/SAVPF 96 98\r\na=mid:%d\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:98 VP9/90000\r\na=%s\r\n", i, s)
		}
		say(&wire.SignalRequest{Message: &wire.SignalRequest_Offer{Offer: &wire.SessionDescription{Type: "offer", Sdp: text, Id: id}}})
		until("an answer", func(m *wire.SignalResponse) bool { return m.GetAnswer().GetId() == id })
	}
	add := func(q *wire.AddTrackRequest) string {
		t.Helper()
		say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: q}})
		return until("its track", func(m *wire.SignalResponse) bool { return m.GetTrackPublished().GetCid() == q.GetCid() }).GetTrackPublished().GetTrack().GetSid()
	}
	sid := add(&wire.AddTrackRequest{Cid: "camera", Type: wire.TrackType_VIDEO, SimulcastCodecs: []*wire.SimulcastCodec{{Codec: "vp9"}, {Codec: "vp8"}}})
	offer(1, "recvonly", "sendonly\r\na=msid:s camera")
	publishes := func(n int) {
		t.Helper()
		bob.until("mallory's tracks", func(m *wire.SignalResponse) bool {
			l := m.GetUpdate().GetParticipants()
			return len(l) == 1 && l[0].GetIdentity() == "mallory" && l[0].GetState() != wire.ParticipantInfo_DISCONNECTED && len(l[0].GetTracks()) == n
		})
	}
	publishes(1)
	add(&wire.AddTrackRequest{Cid: "other", Sid: sid, Type: wire.TrackType_VIDEO, SimulcastCodecs: []*wire.SimulcastCodec{{Codec: "vp8"}}})
	offer(2, "sendonly\r\na=msid:s other", "inactive")
	publishes(0)
}
