// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// peer is a subscriber whose packets a test reads.
type peer struct {
	shut, numbered bool
	holding, full  bool
	noRoom         bool
	held           [][]byte
	dropped        []uint32 // SSRCs
}

func (p *peer) Open() bool     { return !p.shut }
func (p *peer) Numbered() bool { return p.numbered }
func (p *peer) Room() bool     { return !p.noRoom }

func (p *peer) Drop(ssrc, rtx uint32) { p.dropped = append(p.dropped, ssrc, rtx) }

func (p *peer) Hold(b []byte, _ uint32, _ int, _ bool) (held, full bool) {
	if p.holding && !p.full {
		p.held = append(p.held, slices.Clone(b))
	}
	return p.holding && !p.full, p.full
}
func (p *peer) Fetch() int { return 0 }

// got is a packet as a subscriber gets it.
type got struct {
	to      Peer
	header  packets.Header
	payload []byte
	index   uint64 // rollover counter and sequence number
	number  int    // where the transport-wide number is to be written
}

// sink collects what is sent.
type sink struct {
	slot [packets.MaxSize + 16]byte
	got  []got
}

func (s *sink) Slot() []byte { return s.slot[:] }

func (s *sink) Send(to Peer, n int, roc uint32, number int) {
	b := slices.Clone(s.slot[:n])
	var h packets.Header
	if !h.Parse(b) {
		panic("an RTP packet that cannot be read")
	}
	s.got = append(s.got, got{to, h, b[h.Payload:], uint64(roc)<<16 | uint64(h.Sequence), number})
}

func (s *sink) take() []got {
	g := s.got
	s.got = nil
	return g
}

// stage is a source with a clock and a list of the key frames asked for.
type stage struct {
	*Source
	now   time.Duration
	asked []int
	out   sink
}

func newStage(codec Codec, video bool) *stage {
	s := &stage{now: time.Hour}
	s.Source = NewSource(Config{
		Codec: codec, Video: video, ClockRate: 90000,
		Now:         func() time.Duration { return s.now },
		AskKeyFrame: func(layer int) { s.asked = append(s.asked, layer) },
	})
	return s
}

func (s *stage) leg(p Peer, n Streams) *Leg {
	g := NewLeg(s.Source, p)
	g.Bind(n)
	g.Start(&s.out)
	return g
}

// encoder makes the packets of one layer.
type encoder struct {
	layer   int
	sn      uint16
	ts      uint32
	picture uint16
	tl0     uint8
}

// frame makes a frame of n packets; every packet's last byte is its number in the frame.
func (e *encoder) frame(key bool, n int) (run []Packet) {
	e.ts += 3000
	e.picture++
	e.tl0++
	for i := range n {
		e.sn++
		b := make([]byte, packets.HeaderSize, 64)
		packets.PutHeader(b, i == n-1, false, 96, e.sn, e.ts, uint32(1000+e.layer))
		first := byte(0x80)
		if i == 0 {
			first |= 0x10
		}
		b = append(b, first, 0xE0, 0x80|byte(e.picture>>8)&0x7F, byte(e.picture), e.tl0, 0x20)
		if i == 0 && key {
			b = append(b, 0x10)
		} else {
			b = append(b, 0x11)
		}
		b = append(b, byte(e.layer), byte(i))
		p := Packet{Raw: b}
		if !p.Header.Parse(b) {
			panic("broken test packet")
		}
		run = append(run, p)
	}
	return run
}

func (s *stage) send(e *encoder, key bool, n int) []got {
	s.now += 33 * time.Millisecond
	s.Forward(e.layer, e.frame(key, n), &s.out)
	return s.out.take()
}

func TestEverySubscriberGetsItsOwnNumbersAndTheSamePayload(t *testing.T) {
	s := newStage(VP8, true)
	a, b := &peer{}, &peer{}
	s.leg(a, Streams{SSRC: 11, PayloadType: 100})
	s.leg(b, Streams{SSRC: 22, PayloadType: 101})
	e := &encoder{sn: 65533, ts: 5, picture: 7}
	if got := s.send(e, false, 2); len(got) != 0 {
		t.Fatalf("%d packets before the first key frame", len(got))
	}
	all := s.send(e, true, 6)
	all = append(all, s.send(e, false, 6)...)
	if len(all) != 24 {
		t.Fatalf("%d packets, want 24", len(all))
	}
	for p, want := range map[Peer]Streams{a: {SSRC: 11, PayloadType: 100}, b: {SSRC: 22, PayloadType: 101}} {
		next := uint64(0)
		for _, g := range all {
			if g.to != p {
				continue
			}
			if g.header.SSRC != want.SSRC || g.header.PayloadType != want.PayloadType {
				t.Errorf("numbers %+v", g.header)
			}
			if next != 0 && g.index != next {
				t.Errorf("sequence %d, want %d", g.index, next)
			}
			next = g.index + 1
			if i := g.payload[len(g.payload)-1]; g.header.Marker != (i == 5) {
				t.Errorf("marker %v on packet %d of a frame", g.header.Marker, i)
			}
		}
	}
}

func TestRolloverCounterRisesWhenOurNumbersWrap(t *testing.T) {
	s := newStage(Opaque, false)
	s.leg(&peer{}, Streams{SSRC: 1})
	e := &encoder{}
	last := uint64(0)
	for range 70_000 {
		for _, g := range s.send(e, false, 1) {
			if last != 0 && g.index != last+1 {
				t.Fatalf("index %d after %d", g.index, last)
			}
			last = g.index
		}
	}
	if last>>16 != 1 {
		t.Errorf("rollover counter %d after 70000 packets", last>>16)
	}
}

func TestLayerChangesAtAKeyFrameAndNumbersGoOn(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	low, high := &encoder{layer: 0, sn: 100, ts: 1 << 20, picture: 50, tl0: 9}, &encoder{layer: 2, sn: 9000, ts: 77, picture: 30000}
	var all []got
	all = append(all, s.send(low, true, 2)...)
	all = append(all, s.send(high, false, 4)...) // not a key frame: stays low
	all = append(all, s.send(low, false, 2)...)
	if !slices.Contains(s.asked, 2) {
		t.Errorf("no key frame of layer 2 asked for: %v", s.asked)
	}
	all = append(all, s.send(high, true, 4)...)
	all = append(all, s.send(low, true, 2)...) // dropped now
	all = append(all, s.send(high, false, 4)...)
	if g.Layer() != 2 {
		t.Fatalf("on layer %d", g.Layer())
	}
	layers := []byte{}
	var v packets.VP8
	for i, p := range all {
		if !v.Parse(p.payload) {
			t.Fatal("broken payload")
		}
		layers = append(layers, p.payload[len(p.payload)-2])
		if i == 0 {
			continue
		}
		var before packets.VP8
		before.Parse(all[i-1].payload)
		frame := uint16(0)
		if v.Start {
			frame = 1
			if !packets.NewerTimestamp(p.header.Timestamp, all[i-1].header.Timestamp) || p.header.Timestamp-all[i-1].header.Timestamp > 90000 {
				t.Errorf("timestamp %d after %d", p.header.Timestamp, all[i-1].header.Timestamp)
			}
		}
		if p.index != all[i-1].index+1 || v.PictureID != before.PictureID+frame || v.TL0 != before.TL0+uint8(frame) {
			t.Errorf("packet %d: index %d picture %d tl0 %d after %d %d %d", i, p.index, v.PictureID, v.TL0, all[i-1].index, before.PictureID, before.TL0)
		}
	}
	if want := []byte{0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2}; !slices.Equal(layers, want) {
		t.Errorf("layers %v, want %v", layers, want)
	}
}

func TestLayerChangeKeepsTimeBySenderReports(t *testing.T) {
	s := newStage(VP8, true)
	s.leg(&peer{}, Streams{SSRC: 1})
	low, high := &encoder{layer: 0, ts: 1_000_000}, &encoder{layer: 1, ts: 5_000_000}
	first := s.send(low, true, 1)
	// Both layers' frames so far were captured 10 s into the day; the next of the high one is 3000 ticks later.
	s.Report(0, packets.Report{NTP: 10 << 32, RTP: low.ts})
	s.Report(1, packets.Report{NTP: 10 << 32, RTP: high.ts})
	s.now += 500 * time.Millisecond // the network was slow, the camera was not
	next := s.send(high, true, 1)
	if d := next[0].header.Timestamp - first[0].header.Timestamp; d != 3000 {
		t.Errorf("%d ticks apart, want 3000", d)
	}
}

func TestALayerThatFallsSilentIsReplaced(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	low, high := &encoder{layer: 0}, &encoder{layer: 1}
	s.send(low, true, 1)
	s.send(high, true, 1)
	if g.Layer() != 1 {
		t.Fatalf("on layer %d", g.Layer())
	}
	for range 30 {
		s.send(low, false, 1)
		s.Tick()
	}
	s.send(low, true, 1)
	if g.Layer() != 0 {
		t.Errorf("still on layer %d", g.Layer())
	}
}

func TestKeyFramesAreAskedForTwiceASecondAtMost(t *testing.T) {
	s := newStage(VP8, true)
	e := &encoder{}
	g := s.leg(&peer{}, Streams{SSRC: 1})
	s.send(e, true, 1)
	s.asked = nil
	for range 100 {
		s.send(e, false, 1)
		g.KeyFrame()
		s.Tick()
	}
	if n := len(s.asked); n < 6 || n > 7 {
		t.Errorf("asked %d times in 3.3 seconds", n)
	}
}

func TestANewSubscriberIsServedFromAFreshKeyFrame(t *testing.T) {
	s := newStage(VP8, true)
	e := &encoder{}
	s.leg(&peer{}, Streams{SSRC: 1})
	s.send(e, true, 3)
	s.send(e, false, 2)
	s.asked = nil
	late := &peer{}
	s.leg(late, Streams{SSRC: 2})
	if got := s.out.take(); len(got) != 5 || got[0].to != late || len(s.asked) != 0 {
		t.Fatalf("%d packets at once, asked %v", len(got), s.asked)
	}
	s.now += time.Second
	s.leg(&peer{}, Streams{SSRC: 3})
	if got := s.out.take(); len(got) != 0 || len(s.asked) != 1 {
		t.Errorf("an old key frame: %d packets, asked %v", len(got), s.asked)
	}
}

func TestLostPacketsAreSentAgainAsTheyWere(t *testing.T) {
	s := newStage(VP8, true)
	plain := s.leg(&peer{}, Streams{SSRC: 1, PayloadType: 96})
	rtx := s.leg(&peer{}, Streams{SSRC: 2, PayloadType: 96, RTXSSRC: 3, RTXType: 97})
	e := &encoder{sn: 500, picture: 300}
	first := s.send(e, true, 3)
	plain.Resend([]uint16{first[1].header.Sequence, 40000}, &s.out)
	if got := s.out.take(); len(got) != 1 || got[0].index != first[1].index || !slices.Equal(got[0].payload, first[1].payload) || got[0].header.Timestamp != first[1].header.Timestamp {
		t.Fatalf("again: %+v", got)
	}
	rtx.Resend([]uint16{first[4].header.Sequence}, &s.out)
	got := s.out.take()
	if len(got) != 1 || got[0].header.SSRC != 3 || got[0].header.PayloadType != 97 {
		t.Fatalf("rtx: %+v", got)
	}
	if binary.BigEndian.Uint16(got[0].payload) != first[4].header.Sequence || !slices.Equal(got[0].payload[2:], first[4].payload) {
		t.Error("the RTX packet does not hold the original")
	}
}

func TestAPausedLegIsSilentAndBeginsAgainWithAKeyFrame(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	e := &encoder{}
	before := s.send(e, true, 1)
	g.Want(2, true)
	if got := s.send(e, false, 1); len(got) != 0 || g.Wanted() != -1 {
		t.Fatal("a paused leg sends")
	}
	g.Want(2, false)
	if got := s.send(e, false, 1); len(got) != 0 {
		t.Error("resumed in the middle of a picture")
	}
	after := s.send(e, true, 1)
	if len(after) != 1 || after[0].index != before[0].index+1 {
		t.Errorf("after the pause: %+v", after)
	}
}

func TestDuplicatesAndLatePacketsKeepTheirPlaces(t *testing.T) {
	s := newStage(Opaque, false)
	s.leg(&peer{}, Streams{SSRC: 1})
	e := &encoder{}
	run := e.frame(false, 4)
	in := []Packet{run[0], run[2], run[2], run[1], run[3], run[0]}
	s.Forward(0, in, &s.out)
	var order []uint16
	for _, g := range s.out.take() {
		order = append(order, g.header.Sequence)
	}
	if first := order[0]; !slices.Equal(order, []uint16{first, first + 2, first + 1, first + 3}) {
		t.Errorf("order %v", order)
	}
}

func TestNothingIsAllocatedPerPacket(t *testing.T) {
	s := newStage(VP8, true)
	out := &counter{}
	for range 50 {
		g := NewLeg(s.Source, &peer{})
		g.Bind(Streams{SSRC: 1, RTXSSRC: 2})
	}
	e := &encoder{}
	s.Forward(0, e.frame(true, 6), out)
	run := e.frame(false, 6)
	again := make([]Packet, len(run))
	allocs := testing.AllocsPerRun(100, func() {
		copy(again, run)
		for i := range again {
			e.sn++
			binary.BigEndian.PutUint16(again[i].Raw[2:], e.sn)
			again[i].Header.Sequence = e.sn
		}
		s.Forward(0, again, out)
		(*s.legs.Load())[0].Resend(out.lost[:], out)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for 6 packets to 50 subscribers", allocs)
	}
	if out.n < 300*100 {
		t.Errorf("only %d packets were sent", out.n)
	}
}

// counter only counts.
type counter struct {
	slot [packets.MaxSize + 16]byte
	n    int
	lost [3]uint16
}

func (c *counter) Slot() []byte { return c.slot[:] }
func (c *counter) Send(Peer, int, uint32, int) {
	c.n++
	c.lost[c.n%3] = binary.BigEndian.Uint16(c.slot[2:])
}

func BenchmarkForwardTo50(b *testing.B) {
	s := newStage(VP8, true)
	out := &counter{}
	for range 50 {
		g := NewLeg(s.Source, &peer{})
		g.Bind(Streams{SSRC: 1})
	}
	e := &encoder{}
	s.Forward(0, e.frame(true, 6), out)
	run := e.frame(false, 6)
	for i := range run {
		run[i].Raw = append(run[i].Raw, make([]byte, 1100)...)
		run[i].Header.Parse(run[i].Raw)
	}
	again := make([]Packet, len(run))
	b.ReportAllocs()
	for b.Loop() {
		copy(again, run)
		for i := range again {
			e.sn++
			again[i].Header.Sequence = e.sn
		}
		s.Forward(0, again, out)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/300, "ns/packet")
}

func TestATrackWithoutRoomIsSilentAndBeginsAgainWithAKeyFrame(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	low, high := &encoder{layer: 0}, &encoder{layer: 2}
	both := func(key bool) (n int) {
		s.Forward(0, low.frame(key, 2), &s.out)
		s.Forward(2, high.frame(key, 3), &s.out)
		s.now += 33 * time.Millisecond
		return len(s.out.take())
	}
	both(true)
	both(true)
	if n := both(false); n != 3 || g.Layer() != 2 {
		t.Fatalf("%d packets of layer %d", n, g.Layer())
	}
	g.Allow(Level(0, 2))
	s.now += time.Second
	if n := both(true); n == 0 || g.Layer() != 0 {
		t.Errorf("room for the low layer: %d packets, layer %d", n, g.Layer())
	}
	if g.Wanted() != 2 {
		t.Errorf("the publisher is told that only layer %d is wanted", g.Wanted())
	}
	g.Allow(-1)
	if n := both(true); n != 0 {
		t.Errorf("%d packets without room", n)
	}
	g.Allow(Everything)
	if n := both(false); n != 0 {
		t.Errorf("%d packets before a key frame", n)
	}
	if n := both(true); n != 3 {
		t.Errorf("%d packets after the key frame", n)
	}
}

func TestTransportNumbersAreWrittenOnlyWhereTheyMayDiffer(t *testing.T) {
	for _, c := range []struct {
		name     string
		peer     *peer
		streams  Streams
		expected bool
	}{
		{"wanted", &peer{numbered: true}, Streams{SSRC: 1, RTXSSRC: 2, Transport: 3}, true},
		{"not now", &peer{}, Streams{SSRC: 1, RTXSSRC: 2, Transport: 3}, false},
		{"without RTX", &peer{numbered: true}, Streams{SSRC: 1, Transport: 3}, false},
		{"not agreed upon", &peer{numbered: true}, Streams{SSRC: 1, RTXSSRC: 2}, false},
	} {
		s := newStage(VP8, true)
		g := s.leg(c.peer, c.streams)
		e := &encoder{}
		packets := s.send(e, true, 2)
		g.Resend([]uint16{packets[0].header.Sequence}, &s.out)
		for _, p := range append(packets, s.out.take()...) {
			if (p.number > 0) != c.expected {
				t.Errorf("%s: number at %d of stream %d", c.name, p.number, p.header.SSRC)
			}
			if p.payload[len(p.payload)-1] > 1 {
				t.Errorf("%s: payload % x", c.name, p.payload)
			}
		}
	}
}

func TestPaddingRepeatsWhatWasSentOnTheRepairStream(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{numbered: true}, Streams{SSRC: 1, RTXSSRC: 2, Transport: 3})
	e := &encoder{}
	s.send(e, true, 10)
	n := g.Pad(100, &s.out)
	got := s.out.take()
	if n < 100 || len(got) < 3 {
		t.Fatalf("%d bytes in %d packets", n, len(got))
	}
	for i, p := range got {
		if p.header.SSRC != 2 || i > 0 && p.index != got[i-1].index+1 {
			t.Errorf("packet %+v", p.header)
		}
	}
}

// S35, S38, S39: sound is passed on as it is, whatever it holds: it may be encrypted, and redundancy within redundancy is the receiver's to refuse.
func TestRedundantSoundIsNotLookedInto(t *testing.T) {
	s := newStage(Opaque, false)
	s.leg(&peer{}, Streams{SSRC: 11, PayloadType: 100})
	deep := []byte{}
	for range 300 { // RED blocks that announce RED blocks, none of which is there
		deep = append(deep, 0x80|63, 0xFF, 0xFF, 0xFF)
	}
	for i, payload := range [][]byte{deep, {63}, {0x80 | 63}, {0xFF, 0, 0, 0}, nil} {
		b := make([]byte, packets.HeaderSize, packets.MaxSize)
		packets.PutHeader(b, false, false, 111, uint16(i+1), uint32(960*i), 5)
		p := Packet{Raw: append(b, payload...)}
		if !p.Header.Parse(p.Raw) {
			t.Fatal("no header")
		}
		s.now += 20 * time.Millisecond
		s.Forward(0, []Packet{p}, &s.out)
		got := s.out.take()
		if len(got) != 1 || !slices.Equal(got[0].payload, payload) || got[0].header.PayloadType != 100 {
			t.Errorf("payload %d became %v", i, got)
		}
	}
}

// A path that has no room for a packet: the rest of the picture is of no use, so nothing is sent until there is room, and then a key frame.
func TestALegThatFindsNoRoomGoesOnWithAKeyFrame(t *testing.T) {
	s := newStage(VP8, true)
	p := &peer{numbered: true, holding: true}
	s.leg(p, Streams{SSRC: 1, RTXSSRC: 2, Transport: 3})
	e := &encoder{}
	if got := s.send(e, true, 3); len(got) != 0 || len(p.held) != 3 {
		t.Fatalf("%d sent, %d held", len(got), len(p.held))
	}
	s.asked = nil
	p.full, p.noRoom = true, true
	s.send(e, false, 2)
	p.full, p.held = false, nil
	if s.send(e, false, 2); len(p.held) != 0 || len(s.asked) != 0 {
		t.Fatalf("goes on in the middle of a picture: %d packets, %d requests", len(p.held), len(s.asked))
	}
	p.noRoom = false
	s.now += time.Second
	if s.send(e, false, 2); len(p.held) != 0 || len(s.asked) != 1 {
		t.Fatalf("with room: %d packets, %d requests for a key frame", len(p.held), len(s.asked))
	}
	s.send(e, true, 1)
	if len(p.held) != 1 || binary.BigEndian.Uint16(p.held[0][2:]) != 4 { // the number of the one that was dropped
		t.Errorf("after the gap: % x", p.held)
	}
}

// What a subscriber asks for again and again comes ever more seldom, and not at all on a paused leg.
func TestRepeatedRequestsAreAnsweredEverMoreSeldom(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 2, PayloadType: 96, RTXSSRC: 3, RTXType: 97})
	first := s.send(&encoder{}, true, 1)
	n := 0
	for range 200 {
		g.Resend([]uint16{first[0].header.Sequence}, &s.out)
		n += len(s.out.take())
		s.now += 20 * time.Millisecond
	}
	if n < 5 || n > againTries {
		t.Errorf("sent again %d times in four seconds", n)
	}
	more := s.send(&encoder{sn: 50}, true, 1)
	g.Allow(-1)
	if g.Resend([]uint16{more[0].header.Sequence}, &s.out); len(s.out.take()) != 0 {
		t.Error("a paused leg repairs")
	}
}

// Where a layer goes down because the path has become narrow, what waits of the higher one is of no use, nor are repairs of it: the key frame
// of the lower one would come after them.
func TestALayerThatIsLeftDoesNotStandInTheWayOfTheLowerOne(t *testing.T) {
	s := newStage(VP8, true)
	low, high := &encoder{layer: 0}, &encoder{layer: 2}
	p := &peer{numbered: true, holding: true}
	g := s.leg(p, Streams{SSRC: 1, PayloadType: 100, RTXSSRC: 2, RTXType: 101, Transport: 3})
	s.show(low.frame(true, 1), 0)
	s.show(high.frame(true, 4), 2)
	if g.Layer() != 2 || len(p.held) != 5 {
		t.Fatalf("on layer %d, %d packets are held", g.Layer(), len(p.held))
	}
	var lost []uint16
	for _, b := range p.held[1:] {
		lost = append(lost, binary.BigEndian.Uint16(b[2:]))
	}
	g.Allow(Level(0, MaxTemporal-1))
	s.show(high.frame(false, 2), 2)
	if g.Layer() != 2 || len(p.held) != 7 || p.dropped != nil {
		t.Fatalf("there is room, so the higher layer goes on until the key frame: on layer %d, %d packets are held", g.Layer(), len(p.held))
	}
	p.noRoom = true
	s.show(high.frame(false, 2), 2)
	if g.Layer() != -1 || len(p.held) != 7 || !slices.Equal(p.dropped, []uint32{1, 2}) {
		t.Fatalf("there is no room: on layer %d, %d packets are held, dropped %v", g.Layer(), len(p.held), p.dropped)
	}
	s.now += time.Second
	g.Resend(lost, &s.out)
	if len(p.held) != 7 {
		t.Error("repairs while a key frame is waited for")
	}
	s.show(low.frame(true, 2), 0)
	if g.Layer() != 0 || len(p.held) != 9 {
		t.Fatalf("on layer %d, %d packets are held", g.Layer(), len(p.held))
	}
	g.Resend(lost, &s.out)
	if len(p.held) != 9 {
		t.Error("repairs of what was before the key frame")
	}
	lost = []uint16{binary.BigEndian.Uint16(p.held[8][2:])}
	p.full = true // no room for repairs: as if they had not been asked for
	for range 2 * againTries {
		s.now += time.Second
		g.Resend(lost, &s.out)
	}
	p.full = false
	g.Resend(lost, &s.out)
	if len(p.held) != 10 {
		t.Error("what was lost of the key frame is not repaired")
	}
}
