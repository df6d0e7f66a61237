// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Payload types: a publisher's, and a subscriber's who counts differently.
const (
	plainIn, redIn   = 111, 63
	plainOut, redOut = 109, 112
)

// microphone makes packets of sound; each sound is its number.
type microphone struct {
	sn     uint16
	deep   int // older sounds in each packet
	sounds []string
}

func (m *microphone) packet() Packet {
	m.sn++
	m.sounds = append(m.sounds, fmt.Sprintf("sound %d", m.sn))
	b := make([]byte, packets.HeaderSize, 200)
	if m.deep == 0 {
		packets.PutHeader(b, false, false, plainIn, m.sn, uint32(m.sn)*960, 5)
		b = append(b, m.sounds[len(m.sounds)-1]...)
	} else {
		packets.PutHeader(b, false, false, redIn, m.sn, uint32(m.sn)*960, 5)
		last := m.sounds[max(0, len(m.sounds)-1-m.deep):]
		n := len(last) - 1
		head := make([]byte, packets.RedundantHead(n))
		for i, s := range last[:n] {
			packets.PutOlder(head, i, plainIn, uint32(960*(n-i)), len(s))
		}
		packets.PutOwn(head, n, plainIn)
		b = append(append(b, head...), bytes.Join(bytesOf(last), nil)...)
	}
	p := Packet{Raw: b}
	if !p.Header.Parse(b) {
		panic("broken test packet")
	}
	return p
}

func bytesOf(s []string) (out [][]byte) {
	for _, x := range s {
		out = append(out, []byte(x))
	}
	return out
}

func newSoundStage(red bool) *stage {
	s := newStage(Opaque, false)
	s.cfg.ClockRate, s.cfg.Plain, s.cfg.MayWrap = 48000, plainIn, true
	if red {
		s.cfg.Red = redIn
	}
	return s
}

func (s *stage) hear(p ...Packet) []got {
	s.now += 20 * time.Millisecond
	s.Forward(0, p, &s.out)
	return s.out.take()
}

func TestRedundantSoundReachesEverybodyAsTheyTakeIt(t *testing.T) {
	s := newSoundStage(true)
	red, plain := &peer{}, &peer{}
	s.leg(red, Streams{SSRC: 1, PayloadType: plainOut, RedType: redOut})
	s.leg(plain, Streams{SSRC: 2, PayloadType: plainOut})
	m := &microphone{deep: 2, sn: 65533}
	for i := range 6 {
		in := m.packet()
		out := s.hear(in)
		if len(out) != 2 {
			t.Fatalf("%d packets", len(out))
		}
		for _, g := range out {
			switch g.to {
			case plain:
				if want := m.sounds[i]; string(g.payload) != want || g.header.PayloadType != plainOut {
					t.Errorf("plain: %q of type %d, want %q", g.payload, g.header.PayloadType, want)
				}
			case red:
				var r packets.Redundancy
				if g.header.PayloadType != redOut || !r.Parse(g.payload, plainOut) || r.N != min(i, 2) || string(g.payload[r.Primary:]) != m.sounds[i] {
					t.Errorf("redundant: %+v", g)
				}
			}
		}
	}
	// A packet that its browser did not make redundant: it does so with long ones.
	m.deep = 0
	for _, g := range s.hear(m.packet()) {
		if g.header.PayloadType != plainOut || string(g.payload) != m.sounds[6] {
			t.Errorf("plain between redundant ones: %+v", g)
		}
	}
}

func TestAlienAndBrokenRedundancyIsDropped(t *testing.T) {
	s := newSoundStage(true)
	s.leg(&peer{}, Streams{SSRC: 1, PayloadType: plainOut, RedType: redOut})
	s.leg(&peer{}, Streams{SSRC: 2, PayloadType: plainOut})
	deep := []byte{}
	for range 300 { // blocks that announce redundancy, none of which is there
		deep = append(deep, 0x80|redIn, 0xFF, 0xFF, 0xFF)
	}
	for i, payload := range [][]byte{deep, {redIn}, {0x80 | plainIn}, {0x80 | plainIn, 0, 0, 9, plainIn, 1, 2}} {
		b := make([]byte, packets.HeaderSize, packets.MaxSize)
		packets.PutHeader(b, false, false, redIn, uint16(i+1), uint32(960*i), 5)
		p := Packet{Raw: append(b, payload...)}
		p.Header.Parse(p.Raw)
		if got := s.hear(p); len(got) != 0 {
			t.Errorf("payload % x became %v", payload[:min(len(payload), 8)], got)
		}
	}
}

func TestALostSoundIsTakenFromALaterPacketAndSentOnce(t *testing.T) {
	s := newSoundStage(true)
	p := &peer{}
	leg := s.leg(p, Streams{SSRC: 2, PayloadType: plainOut})
	m := &microphone{deep: 2, sn: 10}
	first := s.hear(m.packet())
	lost := []Packet{m.packet(), m.packet()}
	got := s.hear(m.packet())
	if len(got) != 3 {
		t.Fatalf("%d packets after two losses, want 3: %+v", len(got), got)
	}
	for i, g := range got {
		if string(g.payload) != m.sounds[1+i] || g.header.PayloadType != plainOut || g.index != first[0].index+1+uint64(i) || g.header.Timestamp != first[0].header.Timestamp+uint32(960*(1+i)) {
			t.Errorf("packet %d: %q %+v", i, g.payload, g.header)
		}
	}
	// The lost ones arrive after all: their numbers are used up.
	if late := s.hear(lost[1], lost[0]); len(late) != 0 {
		t.Errorf("sent twice: %+v", late)
	}
	// What stood in for a lost one can be sent again, byte for byte.
	s.now += time.Second
	leg.Resend([]uint16{got[0].header.Sequence, got[2].header.Sequence}, &s.out)
	again := s.out.take()
	if len(again) != 2 || !same(again[0], got[0]) || !same(again[1], got[2]) {
		t.Errorf("again %+v", again)
	}
}

func same(a, b got) bool {
	return a.index == b.index && a.header == b.header && bytes.Equal(a.payload, b.payload)
}

func TestALaterRepairDoesNotOvertakeWhatIsThere(t *testing.T) {
	s := newSoundStage(true)
	s.leg(&peer{}, Streams{SSRC: 2, PayloadType: plainOut})
	m := &microphone{deep: 1}
	first := s.hear(m.packet())[0]
	m.packet() // lost for good
	late := m.packet()
	m.packet()
	got := s.hear(m.packet()) // carries the one before it
	if len(got) != 2 || string(got[0].payload) != "sound 4" {
		t.Fatalf("%+v", got)
	}
	if got = s.hear(late); len(got) != 2 || string(got[0].payload) != "sound 2" || string(got[1].payload) != "sound 3" || got[0].index != first.index+1 {
		t.Errorf("a late packet and what it carries: %+v", got)
	}
}

func TestPlainSoundIsMadeRedundantForWhoeverLosesPackets(t *testing.T) {
	s := newSoundStage(false)
	red, plain := &peer{}, &peer{}
	leg := s.leg(red, Streams{SSRC: 1, PayloadType: plainOut, RedType: redOut})
	other := s.leg(plain, Streams{SSRC: 2, PayloadType: plainOut})
	m := &microphone{}
	for range 3 {
		for _, g := range s.hear(m.packet()) {
			if g.header.PayloadType != plainOut {
				t.Fatal("redundant although nothing is lost")
			}
		}
	}
	leg.Losing(true)
	other.Losing(true)
	var sent []got
	for range 5 {
		for _, g := range s.hear(m.packet()) {
			if g.to == plain {
				if g.header.PayloadType != plainOut {
					t.Error("redundant for whoever does not take it")
				}
				continue
			}
			var r packets.Redundancy
			if g.header.PayloadType != redOut || !r.Parse(g.payload, plainOut) || r.N != 2 {
				t.Fatalf("%+v", g)
			}
			for n := 1; n <= 2; n++ {
				o, ok := r.Older(n)
				if want := m.sounds[len(m.sounds)-1-n]; !ok || string(g.payload[o.At:o.At+o.Size]) != want || o.Age != uint32(960*n) {
					t.Errorf("%d before: %+v, want %q", n, o, want)
				}
			}
			if string(g.payload[r.Primary:]) != m.sounds[len(m.sounds)-1] {
				t.Errorf("own sound %q", g.payload[r.Primary:])
			}
			sent = append(sent, g)
		}
	}
	// The subscriber's own luck changes what is sent from now on, not what was.
	leg.Losing(false)
	s.now += time.Second
	leg.Resend([]uint16{sent[3].header.Sequence}, &s.out)
	if again := s.out.take(); len(again) != 1 || !same(again[0], sent[3]) {
		t.Errorf("again %+v", again)
	}
	// After a loss only what is there is put in; a packet that comes late changes nothing about one that was sent.
	leg.Losing(true)
	late := m.packet()
	hole := s.hear(m.packet())[0]
	if hole.header.PayloadType != plainOut || string(hole.payload) != m.sounds[len(m.sounds)-1] {
		t.Errorf("after a hole: %+v", hole)
	}
	s.hear(late)
	s.now += time.Second
	leg.Resend([]uint16{hole.header.Sequence}, &s.out)
	if again := s.out.take(); len(again) != 1 || !same(again[0], hole) {
		t.Errorf("again %+v", again)
	}
}

func TestEncryptedSoundIsNeverMadeRedundant(t *testing.T) {
	s := newSoundStage(false)
	s.cfg.MayWrap = false
	leg := s.leg(&peer{}, Streams{SSRC: 1, PayloadType: plainOut, RedType: redOut})
	leg.Losing(true)
	m := &microphone{}
	for range 5 {
		if got := s.hear(m.packet()); len(got) != 1 || string(got[0].payload) != m.sounds[len(m.sounds)-1] || got[0].header.PayloadType != plainOut {
			t.Errorf("%+v", got)
		}
	}
}

func TestLongSoundsAreNotMadeRedundant(t *testing.T) {
	s := newSoundStage(false)
	s.leg(&peer{}, Streams{SSRC: 1, PayloadType: plainOut, RedType: redOut}).Losing(true)
	for i, size := range []int{1023, 100, 1024, 100, 800, 800} {
		b := make([]byte, packets.HeaderSize+size)
		packets.PutHeader(b, false, false, plainIn, uint16(i+1), uint32(960*i), 5)
		p := Packet{Raw: b}
		p.Header.Parse(b)
		got := s.hear(p)[0]
		// The fourth comes after one that is too long, the sixth has no room for the one before.
		if want := slices.Contains([]int{1, 2, 4}, i); (got.header.PayloadType == redOut) != want {
			t.Errorf("packet %d: type %d", i, got.header.PayloadType)
		}
	}
}

// A number is used once, whatever a publisher does: the same nonce over another packet would give the key away.
func TestANumberIsNeverUsedTwice(t *testing.T) {
	s := newStage(Opaque, false)
	leg := s.leg(&peer{}, Streams{SSRC: 2, PayloadType: plainOut})
	seen := map[uint64]bool{}
	note := func(out []got) {
		t.Helper()
		for _, g := range out {
			if seen[g.index] {
				t.Fatalf("number %d twice", g.index)
			}
			seen[g.index] = true
		}
	}
	m := &microphone{sn: 100}
	var old []Packet
	for range 600 {
		p := m.packet()
		old = append(old, p)
		note(s.hear(p))
	}
	for _, p := range old { // all of them once more, with something else in them
		p.Raw[packets.HeaderSize] ^= 1
		note(s.hear(p))
	}
	leg.Bind(Streams{SSRC: 2, PayloadType: plainIn}) // what was sent is forgotten
	note(s.hear(old[len(old)-20:]...))
	note(s.hear(m.packet()))
	if len(seen) != 601 {
		t.Errorf("%d packets were sent", len(seen))
	}
}

func TestNothingIsAllocatedPerPacketOfRedundantSound(t *testing.T) {
	for _, red := range []bool{true, false} {
		s := newSoundStage(red)
		out := &counter{}
		for i := range 20 {
			n := Streams{SSRC: uint32(i + 1), PayloadType: plainOut}
			if i%2 == 0 {
				n.RedType = redOut
			}
			g := NewLeg(s.Source, &peer{})
			g.Bind(n)
			g.Losing(true)
		}
		m := &microphone{}
		if red {
			m.deep = 2
		}
		var in []Packet
		for range 600 {
			in = append(in, m.packet())
		}
		i := 0
		allocs := testing.AllocsPerRun(200, func() {
			s.Forward(0, in[i:i+1], out)
			s.Forward(0, in[i+2:i+3], out) // one is lost
			(*s.legs.Load())[1].Resend(out.lost[:], out)
			i += 3
		})
		if allocs != 0 {
			t.Errorf("%v allocations (redundant: %v)", allocs, red)
		}
	}
}
