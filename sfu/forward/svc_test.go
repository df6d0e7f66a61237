// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"slices"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Descriptors of a stream with two spatial layers that depend on each other in key frames only; packets' tests say how they are made.
// The first byte's low bits are the template: 0 and 1 for key and delta frames of the lower layer, 2 and 3 for those of the upper one.
var structure = []byte{
	0x80, 0x00, 0x00, 0b10000_000, 0b000_00001, 0b00_10_00_11, 0b10_10_10_00, 0b00_10_00_10, 0b0_1_0001_0_1, 0b0000_0_1_00, 0b01_0_0_0_000,
}

const descriptorID = 5

// scalable makes the packets of pictures of two layers, n packets for each layer's frame.
type scalable struct {
	sn     uint16
	ts     uint32
	number uint16
}

func (e *scalable) picture(key bool, n int) (run []Packet) {
	e.ts += 3000
	for layer := range 2 {
		e.number++
		for i := range n {
			e.sn++
			template := 2*layer + 1
			if key {
				template--
			}
			d := []byte{byte(template), byte(e.number >> 8), byte(e.number)}
			if key && layer == 0 && i == 0 {
				d = append([]byte(nil), structure...)
				d[1], d[2] = byte(e.number>>8), byte(e.number)
			}
			if i == 0 {
				d[0] |= 0x80
			}
			if i == n-1 {
				d[0] |= 0x40
			}
			b := make([]byte, 200)
			packets.PutHeader(b, layer == 1 && i == n-1, false, 98, e.sn, e.ts, 7)
			at, _ := packets.PutElements(b, 0, descriptorID, d)
			b = append(b[:at], byte(layer), byte(i))
			p := Packet{Raw: b}
			if !p.Header.Parse(b) {
				panic("broken test packet")
			}
			run = append(run, p)
		}
	}
	return run
}

// stairs is a stage for scalable video.
func stairs() (*stage, *scalable, func(key bool, n int) []got) {
	s := newStage(SVC, true)
	s.cfg.Descriptor = descriptorID
	e := &scalable{sn: 65530}
	return s, e, func(key bool, n int) []got {
		s.now += 33 * time.Millisecond
		s.Forward(0, e.picture(key, n), &s.out)
		return s.out.take()
	}
}

// whole checks that numbers have no gaps and only the last packet of a picture is marked; it gives the packets of each layer.
func whole(t *testing.T, run []got, next *uint64) (low, high int) {
	t.Helper()
	for i, g := range run {
		if *next != 0 && g.index != *next {
			t.Errorf("number %d, want %d", g.index, *next)
		}
		*next = g.index + 1
		if g.header.Marker != (i == len(run)-1) {
			t.Errorf("packet %d of %d: marker %v", i, len(run), g.header.Marker)
		}
		if g.payload[0] == 0 {
			low++
		} else {
			high++
		}
	}
	return low, high
}

func TestOnlyTheLayersThatAreWantedAreForwarded(t *testing.T) {
	s, _, send := stairs()
	g := s.leg(&peer{}, Streams{SSRC: 1, RTXSSRC: 2, Dependency: 9})
	next := uint64(0)
	if n := len(send(false, 2)); n != 0 {
		t.Fatalf("%d packets before the first key frame", n)
	}
	if low, high := whole(t, send(true, 2), &next); low != 2 || high != 2 {
		t.Fatalf("a key frame: %d and %d packets", low, high)
	}
	if low, high := whole(t, send(false, 3), &next); low != 0 || high != 3 {
		t.Errorf("the upper layer does not need the lower one between key frames: %d and %d packets", low, high)
	}
	s.asked = nil
	s.now += time.Second
	g.Want(0, false)
	if len(s.asked) != 1 {
		t.Errorf("key frames asked for: %v", s.asked)
	}
	if low, high := whole(t, send(false, 3), &next); low != 0 || high != 3 {
		t.Errorf("before the key frame: %d and %d packets", low, high)
	}
	if low, high := whole(t, send(true, 3), &next); low != 3 || high != 0 {
		t.Errorf("the key frame for the lower layer: %d and %d packets", low, high)
	}
	lows := send(false, 3)
	if low, high := whole(t, lows, &next); low != 3 || high != 0 {
		t.Errorf("the lower layer: %d and %d packets", low, high)
	}
	g.Resend([]uint16{lows[2].header.Sequence}, &s.out)
	again := s.out.take()
	if len(again) != 1 || !again[0].header.Marker || again[0].payload[2] != 0 || again[0].payload[3] != 2 {
		t.Errorf("sent again: %+v", again)
	}
	g.Want(2, false)
	if low, high := whole(t, send(true, 1), &next); low != 1 || high != 1 {
		t.Errorf("both layers again: %d and %d packets", low, high)
	}
	s.now += 2 * time.Second
	send(false, 1)
	s.Tick()
	s.now += 2 * time.Second
	send(false, 1)
	s.Tick()
	if r := s.Rates(); r[2] == 0 || r[5] <= r[2] || r[8] != 0 {
		t.Errorf("rates %v: the upper layer comes on top of the lower one", r)
	}
}

func TestLatePacketsTakeTheirOwnPlaces(t *testing.T) {
	s, e, send := stairs()
	g := s.leg(&peer{}, Streams{SSRC: 1})
	g.Want(0, false)
	next := uint64(0)
	whole(t, send(true, 2), &next)
	run := e.picture(false, 3) // low 0 1 2, high 3 4 5
	s.Forward(0, []Packet{run[0], run[2]}, &s.out)
	s.Forward(0, []Packet{run[3], run[5]}, &s.out)
	s.Forward(0, []Packet{run[1]}, &s.out)
	s.Forward(0, e.picture(false, 1), &s.out)
	seen := map[uint64]bool{}
	for _, p := range s.out.take() {
		if seen[p.index] {
			t.Errorf("number %d twice", p.index)
		}
		seen[p.index] = true
	}
	for i := next; i < next+3; i++ {
		if !seen[i] {
			t.Errorf("number %d is missing", i)
		}
	}
}

func TestDescriptorsArePassedOnUnderTheSubscribersNumber(t *testing.T) {
	s, _, _ := stairs()
	e := &scalable{}
	out := &raw{}
	g := NewLeg(s.Source, &peer{numbered: true})
	g.Bind(Streams{SSRC: 1, RTXSSRC: 2, Transport: 3, Dependency: 9})
	s.Forward(0, e.picture(true, 1), out)
	s.Forward(0, e.picture(true, 1), out)
	if len(out.packets) == 0 {
		t.Fatal("nothing was sent")
	}
	for _, b := range out.packets {
		var h packets.Header
		if !h.Parse(b) || len(h.Extension(b, 9)) < 3 || len(h.Extension(b, 3)) != 2 {
			t.Errorf("header of % x", b)
		}
	}
}

// raw keeps packets as they are.
type raw struct {
	slot    [packets.MaxSize + 16]byte
	packets [][]byte
}

func (r *raw) Slot() []byte { return r.slot[:] }
func (r *raw) Send(_ Peer, n int, _ uint32, _ int) {
	r.packets = append(r.packets, append([]byte(nil), r.slot[:n]...))
}

func TestAPacketsMemoryIsUsedAgainWithoutAnothersDescriptor(t *testing.T) {
	ladder, _, _ := stairs()
	plain := newStage(VP8, true)
	out := &raw{}
	for _, s := range []*stage{ladder, plain} {
		g := NewLeg(s.Source, &peer{})
		g.Bind(Streams{SSRC: 1, Dependency: 9})
	}
	run := (&scalable{}).picture(true, 1)
	ladder.Forward(0, run, out)
	for i, p := range (&encoder{}).frame(true, 2) {
		run[i].Raw, run[i].Header = p.Raw, p.Header
	}
	out.packets = nil
	plain.Forward(0, run, out)
	plain.Forward(0, run, out)
	for _, b := range out.packets {
		if b[0]&0x10 != 0 {
			t.Errorf("a plain packet has a header extension: % x", b)
		}
	}
}

// halves are descriptors of a stream of one spatial and two temporal layers: templates 0 and 1 for key and delta frames of the base layer,
// 2 for those of the upper one. Bits: see packets' tests; 2 targets, frames of the base layer are switches of both.
var halves = []byte{
	0x80, 0x00, 0x00, 0b10000_000, 0b000_00001, 0b00_01_11_10, 0b10_10_10_00, 0b01_0_10001, 0b0_10000_0_1, 0b0_0000_001, 0b0_0001_0_00,
}

func TestTemporalLayersOfScalableVideoAreLeftOut(t *testing.T) {
	s := newStage(SVC, true)
	s.cfg.Descriptor = descriptorID
	g := s.leg(&peer{}, Streams{SSRC: 1})
	sn, number := uint16(0), uint16(0)
	send := func(key bool) []got {
		number++
		template := byte(1 + (number-1)%2)
		d := []byte{template, 0, byte(number)}
		if key {
			d = slices.Clone(halves)
			d[2] = byte(number)
		}
		d[0] |= 0xC0
		sn++
		b := make([]byte, 200)
		packets.PutHeader(b, true, false, 98, sn, uint32(number)*3000, 7)
		at, _ := packets.PutElements(b, 0, descriptorID, d)
		p := Packet{Raw: append(b[:at], byte(number))}
		if !p.Header.Parse(p.Raw) {
			t.Fatal("broken test packet")
		}
		return s.show([]Packet{p}, 0)
	}
	next := uint64(0)
	see := func(frames int) (n int) {
		for range frames {
			for _, g := range send(false) {
				if next != 0 && g.index != next {
					t.Errorf("number %d, want %d", g.index, next)
				}
				next = g.index + 1
				n++
			}
		}
		return n
	}
	if n := len(send(true)); n != 1 {
		t.Fatalf("a key frame: %d packets", n)
	}
	if n := see(7); n != 7 {
		t.Errorf("all of 7 frames: %d", n)
	}
	s.asked = nil
	s.now += time.Second
	g.Allow(Level(0, 0))
	if n := see(10); n != 5 {
		t.Errorf("half of 10 frames: %d", n)
	}
	g.Allow(Everything)
	if n := see(10); n != 10 {
		t.Errorf("all of 10 frames: %d", n)
	}
	if len(s.asked) != 0 {
		t.Error("a key frame was asked for, although every frame of the base layer is a way in")
	}
	for range 40 {
		see(2)
		s.Tick()
	}
	if r := s.Rates(); r[0] == 0 || r[2] <= r[0] || r[1] != 0 {
		t.Errorf("rates %v", r)
	}
}
