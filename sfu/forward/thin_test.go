// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"slices"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// cadence makes VP8 with three temporal layers, as libvpx does: layers 0 2 1 2, where the second half of the cycle needs the first one's
// upper layers. In a quarter of the frames each of the upper layers is entered.
type cadence struct {
	layer   int
	n       int
	sn      uint16
	ts      uint32
	picture uint16
	tl0     uint8
}

// frame makes the next frame of packets packets. The byte after the descriptor and the frame's first byte is its temporal layer.
func (e *cadence) frame(key bool, count int) (run []Packet) {
	if key {
		e.n = 0
	}
	tid := []byte{0, 2, 1, 2}[e.n%4]
	sync := e.n%8 == 1 || e.n%8 == 2
	e.n++
	e.ts += 3000
	e.picture++
	if tid == 0 {
		e.tl0++
	}
	for i := range count {
		e.sn++
		b := make([]byte, packets.HeaderSize, 64)
		packets.PutHeader(b, i == count-1, false, 96, e.sn, e.ts, uint32(1000+e.layer))
		first, last := byte(0x80), tid<<6
		if i == 0 {
			first |= 0x10
		}
		if sync {
			last |= 0x20
		}
		b = append(b, first, 0xE0, 0x80|byte(e.picture>>8)&0x7F, byte(e.picture), e.tl0, last)
		if i == 0 && key {
			b = append(b, 0x10)
		} else {
			b = append(b, 0x11)
		}
		p := Packet{Raw: append(b, tid, byte(i))}
		if !p.Header.Parse(p.Raw) {
			panic("broken test packet")
		}
		run = append(run, p)
	}
	return run
}

func (s *stage) show(run []Packet, layer int) []got {
	s.now += 33 * time.Millisecond
	s.Forward(layer, run, &s.out)
	return s.out.take()
}

// viewer checks what a subscriber gets: numbers and picture IDs without gaps, TL0PICIDX rising with the base layer, every frame decodable.
type viewer struct {
	t       *testing.T
	index   uint64
	picture int // -1 before the first
	tl0     int
	layers  []int // of the frames
	open    [3]bool
}

func watch(t *testing.T) *viewer { return &viewer{t: t, picture: -1, tl0: -1} }

func (v *viewer) see(run []got) {
	v.t.Helper()
	for _, g := range run {
		if v.index != 0 && g.index != v.index+1 {
			v.t.Errorf("number %d after %d", g.index, v.index)
		}
		v.index = g.index
		var d packets.VP8
		if !d.Parse(g.payload) {
			v.t.Fatalf("%+v", g)
		}
		if !d.Start {
			continue
		}
		if v.picture >= 0 && d.PictureID != uint16(v.picture+1)&0x7FFF {
			v.t.Errorf("picture %d after %d", d.PictureID, v.picture)
		}
		tl0 := v.tl0
		if d.TID == 0 && v.tl0 >= 0 {
			tl0++
		}
		if v.tl0 >= 0 && int(d.TL0) != tl0&0xFF {
			v.t.Errorf("TL0PICIDX %d after %d, layer %d", d.TL0, v.tl0, d.TID)
		}
		switch {
		case d.KeyFrame:
			v.open = [3]bool{true, true, true}
		case d.TID > 0 && !d.Sync && !v.open[d.TID]:
			v.t.Errorf("a frame of layer %d that needs what was not sent", d.TID)
		}
		v.open[d.TID] = true
		v.picture, v.tl0 = int(d.PictureID), int(d.TL0)
		v.layers = append(v.layers, int(d.TID))
	}
}

// missed notes that frames of those layers were left out: later ones may need them.
func (v *viewer) missed(from int) {
	for i := from; i < 3; i++ {
		v.open[i] = false
	}
}

func TestUpperTemporalLayersAreLeftOutWithoutAHole(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	e := &cadence{picture: 32760, sn: 65500}
	v := watch(t)
	run := func(frames int) []int {
		v.layers = nil
		for range frames {
			v.see(s.show(e.frame(false, 3), 0))
		}
		return v.layers
	}
	v.see(s.show(e.frame(true, 3), 0))
	if got := run(7); !slices.Equal(got, []int{2, 1, 2, 0, 2, 1, 2}) {
		t.Errorf("all layers: %v", got)
	}
	g.Allow(Level(0, 1))
	v.missed(2)
	if got := run(8); !slices.Equal(got, []int{0, 1, 0, 1}) {
		t.Errorf("two layers: %v", got)
	}
	g.Allow(Level(0, 0))
	v.missed(1)
	if got := run(8); !slices.Equal(got, []int{0, 0}) {
		t.Errorf("one layer: %v", got)
	}
	// Up again in the middle of a cycle: only frames whose needs were sent.
	run(4)
	g.Allow(Level(0, 2))
	if got := run(4); !slices.Equal(got, []int{0}) {
		t.Errorf("before layers can be entered: %v", got)
	}
	if got := run(8); !slices.Equal(got, []int{0, 2, 1, 2, 0, 2, 1, 2}) {
		t.Errorf("all layers again: %v", got)
	}
	// A key frame opens all at once.
	g.Allow(Level(0, 0))
	run(8)
	v.missed(1)
	g.Allow(Everything)
	run(5)
	v.see(s.show(e.frame(true, 3), 0))
	if got := run(3); !slices.Equal(got, []int{2, 1, 2}) {
		t.Errorf("after a key frame: %v", got)
	}
}

func TestALatePacketOfALeftOutFrameLeavesNoHole(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	e := &cadence{}
	first := s.show(e.frame(true, 1), 0)
	g.Allow(Level(0, 1))
	upper, middle := e.frame(false, 3), e.frame(false, 2)
	// The first packet of the frame that is not wanted is late: a number was kept for it.
	got := s.show(append(append([]Packet{}, upper[1:]...), middle[0]), 0)
	if len(got) != 1 || got[0].index != first[0].index+2 {
		t.Fatalf("%+v", got)
	}
	late := s.show(upper[:1], 0)
	if len(late) != 1 || late[0].index != first[0].index+1 || len(late[0].payload) != 0 || late[0].header.Marker {
		t.Fatalf("in the place of a late packet: %+v", late)
	}
	if twice := s.show(upper[:1], 0); len(twice) != 0 {
		t.Errorf("twice: %+v", twice)
	}
	rest := s.show(middle[1:], 0)
	if len(rest) != 1 || rest[0].index != first[0].index+3 || !rest[0].header.Marker {
		t.Errorf("%+v", rest)
	}
	var a, b packets.VP8
	if a.Parse(first[0].payload); !b.Parse(rest[0].payload) || b.PictureID != a.PictureID+1 {
		t.Errorf("picture %d after %d", b.PictureID, a.PictureID)
	}
	// All of them can be asked for again, as they were.
	s.now += time.Second
	g.Resend([]uint16{late[0].header.Sequence, got[0].header.Sequence, rest[0].header.Sequence}, &s.out)
	if again := s.out.take(); len(again) != 3 || !same(again[0], late[0]) || !same(again[1], got[0]) || !same(again[2], rest[0]) {
		t.Errorf("again: %+v", again)
	}
	// A late packet of a frame that is wanted is sent where it belongs.
	if got := s.show(e.frame(false, 3), 0); len(got) != 0 {
		t.Errorf("the highest layer: %+v", got)
	}
	base := e.frame(false, 3)
	before := s.show([]Packet{base[0], base[2]}, 0)
	if late = s.show(base[1:2], 0); len(late) != 1 || late[0].index != before[0].index+1 || len(late[0].payload) == 0 {
		t.Errorf("a late packet: %+v", late)
	}
}

func TestSimulcastLayersAreChangedWhileFramesAreLeftOut(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	low, high := &cadence{layer: 0, picture: 100}, &cadence{layer: 1, picture: 5000, sn: 7}
	v := watch(t)
	g.Allow(Level(0, 0))
	for i := range 12 {
		run := s.show(low.frame(i == 0, 2), 0)
		v.see(run)
		s.show(high.frame(i == 0, 2), 1)
	}
	g.Allow(Level(1, 1)) // waits for a key frame of the higher layer; until then all of the lower one
	v.missed(1)
	for range 3 {
		v.see(s.show(low.frame(false, 2), 0))
	}
	v.tl0 = -1 // goes on in the other layer's count
	v.see(s.show(high.frame(true, 2), 1))
	v.layers = nil
	for range 7 {
		v.see(s.show(high.frame(false, 2), 1))
		if got := s.show(low.frame(false, 2), 0); len(got) != 0 {
			t.Errorf("two layers at once: %+v", got)
		}
	}
	if !slices.Equal(v.layers, []int{1, 0, 1}) {
		t.Errorf("layers %v", v.layers)
	}
	// On the way down the higher layer gives way at once, before the key frame of the lower one.
	g.Allow(Level(0, 2))
	v.layers = nil
	for range 8 {
		v.see(s.show(high.frame(false, 2), 1))
	}
	if !slices.Equal(v.layers, []int{0, 0}) {
		t.Errorf("layers %v", v.layers)
	}
	v.tl0 = -1
	v.see(s.show(low.frame(true, 2), 0))
	v.layers = nil
	for range 4 {
		v.see(s.show(low.frame(false, 2), 0))
	}
	if !slices.Equal(v.layers, []int{2, 1, 2, 0}) {
		t.Errorf("layers %v", v.layers)
	}
}

func TestFramesASecondChooseATemporalLayer(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{}, Streams{SSRC: 1})
	g.WantRate(15)
	e := &cadence{}
	v := watch(t)
	for i := range 100 {
		v.see(s.show(e.frame(i == 0, 4), 0))
		if i%3 == 0 {
			s.Tick()
		}
	}
	if n := len(v.layers); n > 80 {
		t.Errorf("%d of 100 frames", n)
	}
	r := s.Rates()
	if r[0] == 0 || r[1] <= r[0] || r[2] <= r[1] || r[5] != 0 || g.WantedLevel() != Level(2, 2) {
		t.Errorf("rates %v, wanted %d", r, g.WantedLevel())
	}
	for want, fps := range map[int]uint32{0: 7, 1: 15, 2: 20} {
		g.WantRate(fps)
		g.Want(0, false)
		if got := g.WantedLevel(); got != Level(0, want) {
			t.Errorf("%d frames a second: level %d", fps, got)
		}
	}
	g.WantRate(0)
	if got := g.WantedLevel(); got != Level(0, 2) {
		t.Errorf("as many as there are: level %d", got)
	}
}

func TestLevelsOfUpperLayersHaveHalfTheFrames(t *testing.T) {
	s := newStage(VP8, true)
	low, high, flat := &cadence{layer: 0}, &cadence{layer: 1}, &encoder{layer: 2}
	for i := range 100 {
		s.show(low.frame(i == 0, 1), 0)
		s.show(high.frame(i == 0, 3), 1)
		for _, p := range flat.frame(i == 0, 5) {
			p.Raw[packets.HeaderSize+5] = 0 // temporal layer 0, for ever
			s.show([]Packet{p}, 2)
		}
		s.Tick()
	}
	r := s.Rates()
	for i, there := range []bool{true, true, true, false, true, true, false, false, true} {
		if (r[i] > 0) != there {
			t.Errorf("level %d: %v", i, r)
		}
	}
	if !slices.IsSorted(slices.DeleteFunc(r[:], func(n int) bool { return n == 0 })) {
		t.Errorf("levels do not rise: %v", r)
	}
}

func TestNothingIsAllocatedPerPacketThatIsLeftOut(t *testing.T) {
	s := newStage(VP8, true)
	out := &counter{}
	for range 10 {
		g := NewLeg(s.Source, &peer{})
		g.Bind(Streams{SSRC: 1})
		g.Allow(Level(0, 0))
	}
	e := &cadence{}
	s.Forward(0, e.frame(true, 3), out)
	s.Forward(0, e.frame(false, 3), out)
	var in [][]Packet
	for range 250 {
		in = append(in, e.frame(false, 3))
	}
	i := 0
	if n := testing.AllocsPerRun(200, func() {
		s.Forward(0, in[i], out)
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Chromium's VP8 and H264 with a dependency descriptor, which says what VP8's own then does not.
func TestTemporalLayersAreReadFromDescriptorsToo(t *testing.T) {
	for _, codec := range []Codec{VP8, H264} {
		s := newStage(codec, true)
		s.cfg.Descriptor = descriptorID
		g := s.leg(&peer{}, Streams{SSRC: 1, Dependency: 9})
		sn, number := uint16(0), uint16(0)
		frame := func(key bool) (run []Packet) {
			number++
			for i := range 3 {
				d := []byte{byte(1 + (number-1)%2), 0, byte(number)}
				payload := []byte{0x00, 0x01, byte(number), byte(i)}
				if i == 0 {
					payload[0] = 0x10
				}
				if codec == H264 {
					payload[0] = 1
				}
				if key && i == 0 {
					d = slices.Clone(halves)
					d[2] = byte(number)
					payload[1] = 0
					if codec == H264 {
						payload[0] = nalIDR
					}
				}
				if i == 0 {
					d[0] |= 0x80
				}
				if i == 2 {
					d[0] |= 0x40
				}
				sn++
				b := make([]byte, 200)
				packets.PutHeader(b, i == 2, false, 96, sn, uint32(number)*3000, 7)
				at, _ := packets.PutElements(b, 0, descriptorID, d)
				p := Packet{Raw: append(b[:at], payload...)}
				if !p.Header.Parse(p.Raw) {
					t.Fatal("broken test packet")
				}
				run = append(run, p)
			}
			return run
		}
		next := uint64(0)
		see := func(frames int) (shown []byte) {
			for range frames {
				for _, g := range s.show(frame(false), 0) {
					if next != 0 && g.index != next {
						t.Errorf("number %d, want %d", g.index, next)
					}
					next = g.index + 1
					if g.header.Payload != packets.HeaderSize {
						t.Error("a simulcast stream's descriptor was passed on")
					}
					if g.payload[3] == 0 {
						shown = append(shown, g.payload[2])
					}
				}
			}
			return shown
		}
		if n := len(s.show(frame(true), 0)); n != 3 {
			t.Fatalf("a key frame: %d packets", n)
		}
		if n := len(see(7)); n != 7 {
			t.Errorf("all of 7 frames: %d", n)
		}
		s.asked = nil
		g.Allow(Level(0, 0))
		if n := len(see(10)); n != 5 {
			t.Errorf("half of 10 frames: %d", n)
		}
		g.Allow(Everything)
		if n := len(see(10)); n != 10 {
			t.Errorf("all of 10 frames: %d", n)
		}
		if len(s.asked) != 0 {
			t.Error("a key frame was asked for")
		}
		for range 40 {
			see(2)
			s.Tick()
		}
		if r := s.Rates(); r[0] == 0 || r[2] <= r[0] || r[1] != 0 || r[5] != 0 {
			t.Errorf("rates %v", r)
		}
	}
}
