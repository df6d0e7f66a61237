// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// cameraRates are what the sizes of a camera take, bit/s.
var cameraRates = [3]int{130_000, 400_000, 1_400_000}

// Frames of a camera.
const (
	cameraEvery = 40 * time.Millisecond
	cameraKey   = 5 // a key frame is so many times as large as others
)

// publishSizes announces and offers a camera in three sizes, as browsers do, and sends it until the test ends. A packet's third byte is
// its size: 0, 1 or 2.
func (c *client) publishSizes() (sid string) {
	c.t.Helper()
	cid := c.identity + "-camera"
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{
		Cid: cid, Name: "camera", Type: wire.TrackType_VIDEO, Source: wire.TrackSource_CAMERA, Width: 1280, Height: 720,
		Layers: []*wire.VideoLayer{
			{Quality: wire.VideoQuality_LOW, Width: 320, Height: 180}, {Quality: wire.VideoQuality_MEDIUM, Width: 640, Height: 360}, {Quality: wire.VideoQuality_HIGH, Width: 1280, Height: 720},
		},
	}}})
	var tracks []*webrtc.TrackLocalStaticRTP
	for _, rid := range []string{"q", "h", "f"} {
		tr, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, cid, "stream", webrtc.WithRTPStreamID(rid))
		if err != nil {
			c.t.Fatal(err)
		}
		tracks = append(tracks, tr)
	}
	s, err := c.pub.AddTransceiverFromTrack(tracks[0], webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, tr := range tracks[1:] {
		if err := s.Sender().AddEncoding(tr); err != nil {
			c.t.Fatal(err)
		}
	}
	c.negotiate()
	m := c.until("its track", func(m *wire.SignalResponse) bool { return m.GetTrackPublished().GetCid() == cid })
	extension := map[string]uint8{}
	for _, x := range s.Sender().GetParameters().HeaderExtensions {
		extension[x.URI] = uint8(x.ID)
	}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	c.t.Cleanup(func() { close(stop); sending.Wait() })
	for layer, tr := range tracks {
		keys := make(chan struct{}, 1)
		go func() {
			for {
				ps, _, err := s.Sender().ReadSimulcastRTCP(tr.RID())
				if err != nil {
					return
				}
				for _, p := range ps {
					if _, ok := p.(*rtcp.PictureLossIndication); ok {
						select {
						case keys <- struct{}{}:
						default:
						}
					}
				}
			}
		}()
		sending.Go(func() {
			begun, sn, debt := time.Now(), uint16(0), 0
			for n := 1; ; n++ {
				key := n == 1
				select {
				case <-keys:
					key = true
				default:
				}
				usual := cameraRates[layer] / 8 * int(cameraEvery/time.Millisecond) / 1000
				size := max(usual/3, usual-debt) // what a key frame was too large, the frames after it make up for
				if key {
					size = cameraKey * usual
				}
				debt += size - usual
				payload := []byte{0x10, 0x01, byte(layer)} // an inter frame
				if key {
					payload[1] = 0
				}
				for first := true; size > 0; first = false {
					if !first {
						payload = []byte{0, 0x01, byte(layer)}
					}
					part := min(size, 1100)
					size -= part
					sn++
					h := rtp.Header{Version: 2, SequenceNumber: sn, Timestamp: uint32(n) * 90 * uint32(cameraEvery/time.Millisecond), Marker: size == 0}
					_ = h.SetExtension(extension[sdesMID], []byte(s.Mid()))
					_ = h.SetExtension(extension[sdesRID], []byte(tr.RID()))
					_ = tr.WriteRTP(&rtp.Packet{Header: h, Payload: append(payload, make([]byte, max(0, part-len(payload)))...)})
				}
				due := time.NewTimer(time.Until(begun.Add(time.Duration(n) * cameraEvery)))
				select {
				case <-stop:
					due.Stop()
					return
				case <-due.C:
				}
			}
		})
	}
	return m.GetTrackPublished().GetTrack().GetSid()
}

// URIs of the header extensions that say whose packet it is.
const (
	sdesMID = "urn:ietf:params:rtp-hdrext:sdes:mid"
	sdesRID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
)

// screen notes which sizes of a picture come, and when.
type screen struct {
	mu      sync.Mutex
	size    int // of the newest frame
	frames  int
	last    time.Time
	gap     time.Duration // the longest time without a packet
	changed chan struct{} // told of each change of size
}

// watch reads a track until it ends.
func watch(tr *webrtc.TrackRemote) *screen {
	s := &screen{size: -1, changed: make(chan struct{}, 100)}
	go func() {
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			if len(p.Payload) < 3 {
				continue
			}
			s.mu.Lock()
			if now := time.Now(); s.last.IsZero() {
				s.last = now
			} else {
				s.gap, s.last = max(s.gap, now.Sub(s.last)), now
			}
			if p.Payload[0]&0x10 != 0 {
				s.frames++
			}
			if size := int(p.Payload[2]); size != s.size {
				s.size = size
				select {
				case s.changed <- struct{}{}:
				default:
				}
			}
			s.mu.Unlock()
		}
	}()
	return s
}

// take gives what was seen since it was called last.
func (s *screen) take() (size, frames int, gap time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() {
		s.gap = max(s.gap, time.Since(s.last))
	}
	size, frames, gap = s.size, s.frames, s.gap
	s.frames, s.gap = 0, 0
	return size, frames, gap
}

// until waits until the picture has a size from least to most.
func (s *screen) until(t *testing.T, least, most int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		now := s.size
		s.mu.Unlock()
		if now >= least && now <= most {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("waited too long for size %d to %d", least, most)
		}
	}
}

// TestDrillLayersGoDownBeforePicturesStop gives a subscriber two cameras of 1.4 Mbit/s each in three sizes over a path that becomes 880 kbit/s
// wide, with room for the smallest of both and more, and then wide again.
func TestDrillLayersGoDownBeforePicturesStop(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	rule(t, "meta l4proto udp accept")
	h := newHouse(t, func(e *sfu.Config, _ *Config) {
		if os.Getenv("TRUNKBOARD_TEST_VERBOSE") != "" {
			e.Log = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	})
	for _, name := range []string{"ann", "ben"} {
		p, _ := enter(t, h, options{identity: name, room: "r", single: true})
		p.publishSizes()
	}
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true, mayPause: true, port: narrowPort})
	var screens []*screen
	var sids []string
	for range 2 {
		tr := wait(t, b.tracks, "a track")
		screens, sids = append(screens, watch(tr)), append(sids, tr.ID())
	}
	for _, s := range screens {
		s.until(t, 2, 2)
	}
	lasts := 6 * time.Second
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		lasts = 30 * time.Second
		time.Sleep(10 * time.Second) // the time itself is what is tested: nobody listens to the path any more by then
	}
	narrow(t, 110_000, false, 11_000)
	for _, s := range screens {
		s.take()
	}
	begun := time.Now()
	for _, s := range screens {
		s.until(t, 0, 1)
	}
	t.Logf("both are smaller after %v", time.Since(begun).Round(10*time.Millisecond))
	for time.Since(begun) < lasts {
		time.Sleep(time.Second) // that nothing happens, in each second, is what is tested
		for i, s := range screens {
			size, frames, gap := s.take()
			t.Logf("%v: picture %d has size %d, %d frames, longest gap %v", time.Since(begun).Round(time.Second), i, size, frames, gap.Round(time.Millisecond))
		}
	}
	for len(b.heard) > 0 {
		for _, s := range (<-b.heard).GetStreamStateUpdate().GetStreamStates() {
			if s.GetState() == wire.StreamState_PAUSED {
				t.Errorf("the picture %s was paused although the smallest of both fit", s.GetTrackSid())
			}
		}
	}
	// The smaller one becomes more important.
	n := 0
	if size, _, _ := screens[0].take(); size > 0 {
		n = 1
	}
	b.say(&wire.SignalRequest{Message: &wire.SignalRequest_TrackSetting{TrackSetting: &wire.UpdateTrackSettings{
		TrackSids: []string{sids[n]}, Quality: wire.VideoQuality_HIGH, Priority: 100,
	}}})
	screens[n].until(t, 1, 2)
	rule(t, "meta l4proto udp accept")
	begun = time.Now()
	for i, s := range screens {
		s.until(t, 2, 2)
		t.Logf("picture %d is large again %v after the path is wide again", i, time.Since(begun).Round(10*time.Millisecond))
	}
}
