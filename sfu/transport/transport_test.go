// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/packets"
	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// patience bounds every wait of these tests; the machine may be busy.
const patience = 2 * time.Minute

// ear is a Handler that hands on what it hears.
type ear struct {
	connected chan struct{}
	rtp       chan []byte
	rtcp      chan []byte
	data      chan string
	closed    chan error
}

func newEar() *ear {
	return &ear{make(chan struct{}), make(chan []byte, 100), make(chan []byte, 100), make(chan string, 100), make(chan error, 1)}
}

func (e *ear) Connected() { close(e.connected) }
func (e *ear) RTP(run [][]byte, _ *Batch) {
	for _, p := range run {
		select {
		case e.rtp <- bytes.Clone(p):
		default:
		}
	}
}
func (e *ear) RTCP(p []byte, _ *Batch) {
	select {
	case e.rtcp <- bytes.Clone(p):
	default:
	}
}
func (e *ear) Channel(string, bool) {}

func (e *ear) Data(label string, p []byte) { e.data <- label + ":" + string(p) }
func (e *ear) Closed(err error)            { e.closed <- err }

func wait[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

func listen(t testing.TB) *Transport {
	t.Helper()
	any := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	tr, err := Listen(Config{Listen: any, ListenTCP: any})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// client makes a pion peer connection on loopback that offers only the given SRTP profiles.
func client(t testing.TB, profiles ...dtls.SRTPProtectionProfile) *webrtc.PeerConnection {
	t.Helper()
	return clientOver(t, webrtc.NetworkTypeUDP4, profiles...)
}

// clientOver makes one that uses UDP or TCP only.
func clientOver(t testing.TB, network webrtc.NetworkType, profiles ...dtls.SRTPProtectionProfile) *webrtc.PeerConnection {
	t.Helper()
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	se.SetNetworkTypes([]webrtc.NetworkType{network})
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	if profiles != nil {
		se.SetSRTPProtectionProfiles(profiles...)
	}
	me := &webrtc.MediaEngine{}
	if err := me.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(me)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

// connect answers pc's offer for s; sections that the client wants to receive on get an SSRC of 1000 and their number.
func connect(t testing.TB, pc *webrtc.PeerConnection, tr *Transport, s *Session) {
	t.Helper()
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	d, err := sdp.Parse(offer.SDP)
	if err != nil {
		t.Fatal(err)
	}
	s.Peer(d.User, d.Password)
	name, password := s.Credentials()
	a := &sdp.Description{User: name, Password: password, Fingerprint: tr.Fingerprint(), Setup: "passive", Lite: true}
	data := false
	for i, m := range d.Media {
		r := sdp.Media{Kind: m.Kind, MID: m.MID, Extmap: m.Extmap, Codecs: m.Codecs, Direction: sdp.RecvOnly, SCTPPort: 5000, MaxMessage: MaxMessage}
		if m.Receives() {
			r.Direction, r.SSRCs, r.CNAME, r.Stream, r.Track = sdp.SendOnly, []uint32{uint32(1000 + i)}, "c", "stream", fmt.Sprint("track", i)
		}
		data = data || m.Kind == "application"
		a.Media = append(a.Media, r)
	}
	s.Start(d.Fingerprint, data)
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.Write(1, 1, sdp.Candidates{UDP: tr.Candidates(), TCP: tr.CandidatesTCP()})}); err != nil {
		t.Fatal(err)
	}
}

func TestMediaAndDataFlowBothWays(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile dtls.SRTPProtectionProfile
		over    webrtc.NetworkType
	}{
		{"AES-GCM", dtls.SRTP_AEAD_AES_128_GCM, webrtc.NetworkTypeUDP4},
		{"AES-CM", dtls.SRTP_AES128_CM_HMAC_SHA1_80, webrtc.NetworkTypeUDP4},
		{"AES-GCM", dtls.SRTP_AEAD_AES_128_GCM, webrtc.NetworkTypeTCP4},
	} {
		t.Run(c.name+" over "+c.over.String(), func(t *testing.T) {
			name := c.name
			tr := listen(t)
			e := newEar()
			s, err := tr.Open(e)
			if err != nil {
				t.Fatal(err)
			}
			pc := clientOver(t, c.over, c.profile)
			track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "up", "stream")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
				t.Fatal(err)
			}
			if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
				t.Fatal(err)
			}
			got := make(chan *rtp.Packet, 100)
			pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
				for {
					p, _, err := tr.ReadRTP()
					if err != nil {
						return
					}
					got <- p
				}
			})
			ch, err := pc.CreateDataChannel(Reliable, nil)
			if err != nil {
				t.Fatal(err)
			}
			opened, told := make(chan struct{}), make(chan string, 10)
			ch.OnOpen(func() { close(opened) })
			ch.OnMessage(func(m webrtc.DataChannelMessage) { told <- string(m.Data) })
			connect(t, pc, tr, s)
			wait(t, e.connected, "the connection")
			if s.Profile() != name {
				t.Errorf("profile %q", s.Profile())
			}

			stop := make(chan struct{})
			var sending sync.WaitGroup
			sending.Go(func() { // until one has arrived: the first may come before the client is ready
				for sn := uint16(1); ; sn++ {
					_ = track.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: sn, Timestamp: 960 * uint32(sn)}, Payload: []byte("voice")})
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			})
			up := wait(t, e.rtp, "a packet from the client")
			close(stop)
			sending.Wait()
			var h packets.Header
			if !h.Parse(up) || string(up[h.Payload:]) != "voice" {
				t.Errorf("got % x", up)
			}

			tr.Do(func(b *Batch) { // a frame: three of one size and a shorter one
				for i, size := range []int{1000, 1000, 1000, 400} {
					p := b.Slot()
					packets.PutHeader(p, i == 3, false, 96, uint16(i+1), 90, 1001)
					copy(p[packets.HeaderSize:], bytes.Repeat([]byte{byte(i)}, size))
					b.Send(s, packets.HeaderSize+size, 0, 0)
				}
			})
			for i, size := range []int{1000, 1000, 1000, 400} {
				p := wait(t, got, "a packet at the client")
				if p.SequenceNumber != uint16(i+1) || len(p.Payload) != size || p.Payload[0] != byte(i) {
					t.Errorf("packet %d: %v", i, p.Header)
				}
			}

			tr.Do(func(b *Batch) { s.SendRTCP(packets.AppendPLI(nil, 1, 2), b) })
			if err := pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: 5, MediaSSRC: 1001}}); err != nil {
				t.Fatal(err)
			}
			asked := uint32(0)
			for asked == 0 {
				p, _, _ := packets.NextRTCP(wait(t, e.rtcp, "RTCP from the client"))
				p.WantsKeyFrame(func(ssrc uint32) { asked = ssrc })
			}
			if asked != 1001 {
				t.Errorf("key frame of %d asked for", asked)
			}

			wait(t, opened, "the data channel")
			long := strings.Repeat("x", 20_000)
			for _, m := range []string{"hello", long, "bye"} {
				if err := ch.SendText(m); err != nil {
					t.Fatal(err)
				}
				if got := wait(t, e.data, "a message from the client"); got != Reliable+":"+m {
					t.Errorf("got %.50q", got)
				}
			}
			if err := s.SendData(Reliable, []byte("back")); err != nil {
				t.Fatal(err)
			}
			if got := wait(t, told, "a message at the client"); got != "back" {
				t.Errorf("got %q", got)
			}

			if c.over == webrtc.NetworkTypeTCP4 { // there pion takes its farewell back now and then: what waits to be written is dropped
				s.Close()
			} else {
				_ = pc.Close()
				wait(t, e.closed, "the end")
			}
			if n := tr.Sessions(); n != 0 {
				t.Errorf("%d sessions left", n)
			}
		})
	}
}

// slow is a Handler that takes its time when it hears that a channel was closed.
type slow struct {
	*ear
	notices          chan bool
	closing, proceed chan struct{}
}

func (s *slow) Channel(_ string, open bool) {
	if !open {
		s.closing <- struct{}{}
		<-s.proceed
	}
	s.notices <- open
}

func TestChannelsAreToldOfInTheOrderInWhichTheyComeAndGo(t *testing.T) {
	tr := listen(t)
	e := &slow{newEar(), make(chan bool, 10), make(chan struct{}, 10), make(chan struct{})}
	s, err := tr.Open(e)
	if err != nil {
		t.Fatal(err)
	}
	pc := client(t)
	first, err := pc.CreateDataChannel(Reliable, nil)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, pc, tr, s)
	if !wait(t, e.notices, "a channel") {
		t.Fatal("closed before it was open")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, e.closing, "its end")
	if _, err := pc.CreateDataChannel(Reliable, nil); err != nil {
		t.Fatal(err)
	}
	var early []bool
	select {
	case open := <-e.notices:
		early = append(early, open)
	case <-time.After(100 * time.Millisecond): // as it should be
	}
	close(e.proceed)
	if told := append(early, wait(t, e.notices, "a notice"))[0]; told {
		t.Error("another channel was told of before the end of the first one")
	}
	if len(early) == 0 && !wait(t, e.notices, "the other channel") {
		t.Error("two ends")
	}
}

func TestAClientWithAnotherCertificateIsRefused(t *testing.T) {
	tr := listen(t)
	e := newEar()
	s, err := tr.Open(e)
	if err != nil {
		t.Fatal(err)
	}
	s.Start("sha-256 "+colons(make([]byte, 32)), false) // the first Start counts
	pc := client(t)
	if _, err := pc.CreateDataChannel("x", nil); err != nil {
		t.Fatal(err)
	}
	connect(t, pc, tr, s)
	if err := wait(t, e.closed, "the refusal"); err == nil {
		t.Error("no reason given")
	}
	select {
	case <-e.connected:
		t.Error("connected")
	default:
	}
}

func TestCloseWaitsForItsSessions(t *testing.T) {
	tr := listen(t)
	for range 3 {
		s, err := tr.Open(newEar())
		if err != nil {
			t.Fatal(err)
		}
		s.Start("sha-256 00", true)
	}
	tr.Close()
	if _, err := tr.Open(newEar()); err == nil {
		t.Error("a session on a closed transport")
	}
}

func TestStrangersGetNoAnswer(t *testing.T) {
	tr := listen(t)
	s, err := tr.Open(newEar())
	if err != nil {
		t.Fatal(err)
	}
	name, password := s.Credentials()
	from := netip.MustParseAddrPort("127.0.0.1:9")
	in := tr.sockets[0]
	for what, b := range map[string][]byte{
		"wrong password": request(name, "wrongwrongwrongwrongwrong", true),
		"unknown name":   request("nobody", password, true),
		"not signed":     request(name, password, false),
	} {
		tr.check(b, from, way{socket: in}, NewBatch())
		if tr.at(from) != nil {
			t.Errorf("%s: let in", what)
		}
	}
	tr.check(request(name, password, true), from, way{socket: in}, NewBatch())
	if tr.at(from) != s {
		t.Error("a good check was refused")
	}
	s.Close()
	if tr.at(from) != nil {
		t.Error("a closed session is still found")
	}
}

// request makes a check.
func request(name, password string, sign bool) []byte {
	b := make([]byte, stunHeader)
	b[1] = 1
	copy(b[4:], []byte{0x21, 0x12, 0xA4, 0x42})
	user := name + ":them"
	b = append(b, 0, attrUsername, 0, byte(len(user)))
	b = append(b, user...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b = append(b, 0, attrUse, 0, 0)
	if sign {
		b[3] = byte(len(b) - stunHeader + 24)
		mac := newSigner(password).sign(b, nil)
		b = append(b, 0, attrMAC, 0, 20)
		b = append(b, mac...)
	}
	b[3] = byte(len(b) - stunHeader)
	return b
}

func FuzzCheck(f *testing.F) {
	f.Add(request("name", "password", true))
	f.Add(request("name", "password", false))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if isSTUN(b) {
			if c, ok := parseCheck(b); ok {
				k := newSigner("password")
				_ = c.valid(k)
				_ = c.answer(make([]byte, slotSize), netip.MustParseAddrPort("[::1]:1"), k)
				_, _ = c.ours(), c.theirs()
			}
		}
	})
}
