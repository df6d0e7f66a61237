// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"google.golang.org/protobuf/proto"
)

// patience bounds every wait of these tests; the machine may be busy, and three of ten datagrams lost.
const patience = 2 * time.Minute

// house is a server with its engine.
type house struct {
	engine *sfu.Engine
	server *Server
	url    string // ws://…
	port   uint16 // of the media
}

func newHouse(t *testing.T, change func(*sfu.Config, *Config)) *house {
	t.Helper()
	tr, err := transport.Listen(transport.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	ec, sc := sfu.Config{Transport: tr}, Config{Keys: testKeys, AutoCreate: true}
	if change != nil {
		change(&ec, &sc)
	}
	h := &house{engine: sfu.New(ec), port: tr.Candidates()[0].Port()}
	sc.Engine = h.engine
	h.server = New(sc)
	ts := httptest.NewServer(h.server.Handler())
	h.url = "ws" + strings.TrimPrefix(ts.URL, "http")
	t.Cleanup(func() {
		h.engine.Close()
		h.server.Close()
		ts.Close()
		tr.Close()
	})
	return h
}

// client speaks the protocol as livekit-client does, with pion for the media.
type client struct {
	t        *testing.T
	ws       *websocket.Conn
	identity string
	single   bool
	pub, sub *webrtc.PeerConnection // the same one for a single connection
	writing  sync.Mutex
	heard    chan *wire.SignalResponse // everything but descriptions
	tracks   chan *webrtc.TrackRemote
	offerID  uint32
	answered chan uint32
	mids     sync.Map // mid -> track SID
	closed   chan struct{}
	wants    chan *wire.MediaSectionsRequirement
	size     int         // of the payload of what it publishes, at least
	ssrc     webrtc.SSRC // of what it publishes, 0 for any
	loud     bool        // its packets say that somebody speaks
	clear    bool        // what it publishes is not encrypted
	red      bool        // its sound is redundant where that was agreed
	offer    func(sdp string) string
	reliable *webrtc.DataChannel   // of a single connection
	said     chan *wire.DataPacket // what came on it
	stubborn atomic.Bool           // does not answer offers
}

const audioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level" // RFC 6464

// redundantSound is what browsers offer beside Opus (RFC 2198).
var redundantSound = webrtc.RTPCodecParameters{
	RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: "audio/red", ClockRate: 48000, Channels: 2, SDPFmtpLine: "111/111"}, PayloadType: 63,
}

func newAPI(t *testing.T, port uint16, extra ...webrtc.RTPCodecParameters) *webrtc.API {
	t.Helper()
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	// Over a path that loses much, pion gives up by default where browsers go on: it doubles its interval from one second (they begin with
	// 50 ms), and a pair of addresses has failed after seven checks without an answer.
	se.SetDTLSRetransmissionInterval(20 * time.Millisecond)
	se.SetDTLSConnectContextMaker(func() (context.Context, func()) { return context.WithTimeout(context.Background(), patience) })
	se.SetICEMaxBindingRequests(1000)
	se.SetICETimeouts(30*time.Second, patience, 2*time.Second)
	if port != 0 {
		if err := se.SetEphemeralUDPPortRange(port, port); err != nil {
			t.Fatal(err)
		}
	}
	me := &webrtc.MediaEngine{}
	if err := me.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	for _, c := range extra {
		if err := me.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
			t.Fatal(err)
		}
	}
	if err := me.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: audioLevel}, webrtc.RTPCodecTypeAudio); err != nil {
		t.Fatal(err)
	}
	return webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(me))
}

// apiWith has one codec of pictures only.
func apiWith(t *testing.T, mime string) *webrtc.API {
	t.Helper()
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	me := &webrtc.MediaEngine{}
	for _, err := range []error{
		me.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, PayloadType: 111}, webrtc.RTPCodecTypeAudio),
		me.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: mime, ClockRate: 90000, SDPFmtpLine: formats[mime]}, PayloadType: 120}, webrtc.RTPCodecTypeVideo),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(me))
}

func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

// options of a test client.
type options struct {
	identity, room string
	single         bool
	resume         string                  // SID to resume
	mayPause       bool                    // pictures that do not fit may stop
	red            bool                    // offers redundant sound
	only           string                  // the one codec of pictures that it takes, "video/H264" say
	offer          func(sdp string) string // what becomes of its offers on their way
	claims         func(*Claims)
	port           uint16 // of its media; 0 for any
	late           bool   // a single connection is not offered with the join
}

// dial opens the WebSocket only.
func dial(t *testing.T, h *house, o options, request *wire.JoinRequest) (*websocket.Conn, int, error) {
	t.Helper()
	c := claimsFor(o.identity, o.room)
	if o.claims != nil {
		o.claims(&c)
	}
	token, err := testKeys.Sign(testKey, c, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	q := url.Values{"access_token": {token}}
	path := "/rtc"
	if o.single {
		path = "/rtc/v1"
		if request == nil {
			request = &wire.JoinRequest{ConnectionSettings: &wire.ConnectionSettings{AutoSubscribe: true}}
		}
		if o.resume != "" {
			request.Reconnect, request.ParticipantSid = true, o.resume
		}
		q.Set("join_request", pack(t, request))
	} else if o.resume != "" {
		q.Set("reconnect", "1")
		q.Set("sid", o.resume)
	}
	ws, resp, err := websocket.DefaultDialer.Dial(h.url+path+"?"+q.Encode(), nil)
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	return ws, status, err
}

// pack wraps a join request, compressed, as livekit-client does.
func pack(t *testing.T, r *wire.JoinRequest) string {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b)
	_ = w.Close()
	b, err = proto.Marshal(&wire.WrappedJoinRequest{Compression: wire.WrappedJoinRequest_GZIP, JoinRequest: z.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	return base64.URLEncoding.EncodeToString(b)
}

// enter joins a room and waits for the JoinResponse.
func enter(t *testing.T, h *house, o options) (*client, *wire.JoinResponse) {
	t.Helper()
	c := &client{
		t: t, identity: o.identity, single: o.single, offer: o.offer, heard: make(chan *wire.SignalResponse, 1000), tracks: make(chan *webrtc.TrackRemote, 100),
		answered: make(chan uint32, 100), closed: make(chan struct{}), wants: make(chan *wire.MediaSectionsRequirement, 100),
		said: make(chan *wire.DataPacket, 1000),
	}
	api := newAPI(t, o.port)
	switch {
	case o.red:
		api = newAPI(t, o.port, redundantSound)
	case o.only != "":
		api = apiWith(t, o.only)
	}
	var err error
	if c.pub, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	c.sub = c.pub
	var request *wire.JoinRequest
	if o.single {
		request = &wire.JoinRequest{ConnectionSettings: &wire.ConnectionSettings{AutoSubscribe: true, SubscriberAllowPause: &o.mayPause}}
		c.channel()
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			c.receivers(kind, 3)
		}
		if !o.late {
			request.PublisherOffer = c.makeOffer()
		}
	} else if c.sub, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	c.sub.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { c.tracks <- tr })
	t.Cleanup(func() {
		_ = c.pub.Close()
		_ = c.sub.Close()
	})
	if c.ws, _, err = dial(t, h, o, request); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.ws.Close()
		<-c.closed
	})
	go c.listen()
	first := wait(t, c.heard, "the first message")
	if first.GetJoin() == nil {
		t.Fatalf("first message %v", first)
	}
	return c, first.GetJoin()
}

// channel makes a reliable channel, perhaps in place of another.
func (c *client) channel() {
	c.t.Helper()
	var err error
	if c.reliable, err = c.pub.CreateDataChannel("_reliable", nil); err != nil {
		c.t.Fatal(err)
	}
	c.reliable.OnMessage(func(m webrtc.DataChannelMessage) {
		p := &wire.DataPacket{}
		if err := proto.Unmarshal(m.Data, p); err != nil {
			c.t.Error(err)
		}
		c.said <- p
	})
}

func (c *client) receivers(kind webrtc.RTPCodecType, n int) {
	for range n {
		if _, err := c.pub.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *client) makeOffer() *wire.SessionDescription {
	c.t.Helper()
	return c.makeOfferWith(nil)
}

func (c *client) makeOfferWith(o *webrtc.OfferOptions) *wire.SessionDescription {
	c.t.Helper()
	d, err := c.pub.CreateOffer(o)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.pub.SetLocalDescription(d); err != nil {
		c.t.Fatal(err)
	}
	if c.offer != nil {
		d.SDP = c.offer(d.SDP)
	}
	c.offerID++
	return &wire.SessionDescription{Type: "offer", Sdp: d.SDP, Id: c.offerID}
}

func (c *client) say(m *wire.SignalRequest) {
	b, err := proto.Marshal(m)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.ws.WriteMessage(websocket.BinaryMessage, b)
}

// listen handles descriptions and passes the rest on.
func (c *client) listen() {
	defer close(c.closed)
	for {
		_, b, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		m := &wire.SignalResponse{}
		if err := proto.Unmarshal(b, m); err != nil {
			c.t.Error(err)
			return
		}
		switch {
		case m.GetAnswer() != nil:
			c.remember(m.GetAnswer())
			if err := c.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.GetAnswer().GetSdp()}); err != nil {
				c.t.Errorf("answer: %v\n%s", err, m.GetAnswer().GetSdp())
			}
			c.answered <- m.GetAnswer().GetId()
		case m.GetOffer() != nil && c.stubborn.Load():
			c.heard <- m
		case m.GetOffer() != nil:
			c.remember(m.GetOffer())
			if err := c.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m.GetOffer().GetSdp()}); err != nil {
				c.t.Errorf("offer: %v\n%s", err, m.GetOffer().GetSdp())
				continue
			}
			a, err := c.sub.CreateAnswer(nil)
			if err == nil {
				err = c.sub.SetLocalDescription(a)
			}
			if err != nil {
				c.t.Error(err)
				continue
			}
			c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Answer{Answer: &wire.SessionDescription{Type: "answer", Sdp: a.SDP, Id: m.GetOffer().GetId()}}})
		case m.GetMediaSectionsRequirement() != nil:
			c.wants <- m.GetMediaSectionsRequirement()
		default:
			c.heard <- m
		}
	}
}

func (c *client) remember(d *wire.SessionDescription) {
	for mid, sid := range d.GetMidToTrackId() {
		c.mids.Store(mid, sid)
	}
}

// until waits for a message that is wanted, and drops others.
func (c *client) until(what string, wanted func(*wire.SignalResponse) bool) *wire.SignalResponse {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m := <-c.heard:
			if wanted(m) {
				return m
			}
		case <-deadline:
			c.t.Fatalf("%s waited too long for %s", c.identity, what)
		}
	}
}

// connects waits until it is connected for what it receives.
func (c *client) connects() {
	c.t.Helper()
	up := make(chan struct{})
	once := sync.OnceFunc(func() { close(up) })
	c.sub.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once()
		}
	})
	if c.sub.ConnectionState() == webrtc.PeerConnectionStateConnected { // before it was watched
		once()
	}
	wait(c.t, up, "the connection")
}

// negotiate offers anew and waits for the answer.
func (c *client) negotiate() {
	c.t.Helper()
	c.negotiateWith(nil)
}

// restart offers with new ICE credentials, as livekit-client does with the connection on which it publishes when it has resumed.
func (c *client) restart() {
	c.t.Helper()
	c.negotiateWith(&webrtc.OfferOptions{ICERestart: true})
}

func (c *client) negotiateWith(with *webrtc.OfferOptions) {
	c.t.Helper()
	for c.pub.SignalingState() != webrtc.SignalingStateStable {
		wait(c.t, c.answered, "the answer before")
	}
	o := c.makeOfferWith(with)
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Offer{Offer: o}})
	for wait(c.t, c.answered, "the answer") != o.GetId() {
	}
}

// publish announces and offers a track, and sends packets on it until the test ends.
func (c *client) publish(kind string) (sid string) {
	c.t.Helper()
	cid := c.identity + "-" + kind
	mime := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	request := &wire.AddTrackRequest{Cid: cid, Name: kind, Source: wire.TrackSource_MICROPHONE, Encryption: wire.Encryption_GCM}
	if kind == "video" {
		mime = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
		request.Type, request.Source = wire.TrackType_VIDEO, wire.TrackSource_CAMERA
	}
	if c.clear {
		request.Encryption = wire.Encryption_NONE
	}
	if c.red {
		mime = redundantSound.RTPCodecCapability
	}
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: request}})
	tr, err := webrtc.NewTrackLocalStaticRTP(mime, cid, "stream")
	if err != nil {
		c.t.Fatal(err)
	}
	init := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}
	if c.ssrc != 0 {
		init.SendEncodings = []webrtc.RTPEncodingParameters{{RTPCodingParameters: webrtc.RTPCodingParameters{SSRC: c.ssrc}}}
	}
	s, err := c.pub.AddTransceiverFromTrack(tr, init)
	if err != nil {
		c.t.Fatal(err)
	}
	keys := make(chan struct{}, 100)
	go func() {
		for {
			ps, _, err := s.Sender().ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range ps {
				if _, ok := p.(*rtcp.PictureLossIndication); ok {
					keys <- struct{}{}
				}
			}
		}
	}()
	c.negotiate()
	m := c.until("its track", func(m *wire.SignalResponse) bool { return m.GetTrackPublished().GetCid() == cid })
	level := uint8(0)
	for _, x := range s.Sender().GetParameters().HeaderExtensions {
		if x.URI == audioLevel && c.loud {
			level = uint8(x.ID)
		}
	}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	c.t.Cleanup(func() { close(stop); sending.Wait() })
	sending.Go(func() {
		beat := newBeat()
		for sn := uint16(1); ; sn++ {
			payload := []byte(cid)
			if kind == "video" {
				payload = append([]byte{0x10, 0x01}, cid...) // an inter frame
				select {
				case <-keys:
					payload[1] = 0x00
				default:
				}
			}
			if c.red {
				payload = twice(cid, sn)
			}
			payload = append(payload, make([]byte, max(0, c.size-len(payload)))...)
			header := rtp.Header{Version: 2, SequenceNumber: sn, Timestamp: uint32(sn) * 960, Marker: true}
			if level > 0 {
				_ = header.SetExtension(level, []byte{0x80 | 20}) // a voice at -20 dBov
			}
			_ = tr.WriteRTP(&rtp.Packet{Header: header, Payload: payload})
			if !beat.wait(stop) {
				return
			}
		}
	})
	return m.GetTrackPublished().GetTrack().GetSid()
}

// beat comes every 20 ms on average: where a busy machine was late, the next ones follow at once, so that what is sent fills a path.
type beat struct {
	begun time.Time
	n     int
}

func newBeat() *beat { return &beat{begun: time.Now()} }

// wait waits for the next one; false when stop is closed.
func (b *beat) wait(stop <-chan struct{}) bool {
	b.n++
	due := time.NewTimer(time.Until(b.begun.Add(time.Duration(b.n) * 20 * time.Millisecond)))
	defer due.Stop()
	select {
	case <-stop:
		return false
	case <-due.C:
		return true
	}
}

// receive waits for the tracks with these numbers and a packet of each.
func (c *client) receive(want map[string]string) {
	c.t.Helper()
	for range len(want) {
		tr := wait(c.t, c.tracks, "a track")
		payload, ok := want[tr.ID()]
		if !ok {
			c.t.Fatalf("%s receives a track %q nobody expected", c.identity, tr.ID())
		}
		delete(want, tr.ID())
		if pa, sid, ok := strings.Cut(tr.StreamID(), "|"); !ok || !strings.HasPrefix(pa, "PA_") || sid != tr.ID() {
			c.t.Errorf("stream %q of track %q", tr.StreamID(), tr.ID())
		}
		found := false
		c.mids.Range(func(_, sid any) bool { found = found || sid == tr.ID(); return true })
		if !found {
			c.t.Errorf("no mid was told for track %q", tr.ID())
		}
		_ = tr.SetReadDeadline(time.Now().Add(patience))
		p, _, err := tr.ReadRTP()
		if err != nil {
			c.t.Fatalf("%s: no packet on %q: %v", c.identity, tr.ID(), err)
		}
		if !bytes.Contains(p.Payload, []byte(payload)) {
			c.t.Errorf("%s: packet %q of track %s", c.identity, p.Payload, payload)
		}
	}
}
