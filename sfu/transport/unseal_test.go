// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// both opens the same packets with our unsealer and with another implementation.
type both struct {
	t      testing.TB
	seals  *sealer
	ours   *unsealer
	theirs *srtp.Context
	x      scratch
}

func newBoth(t testing.TB, profile dtls.SRTPProtectionProfile, key, salt []byte) *both {
	t.Helper()
	b := &both{t: t}
	var err error
	if b.seals, err = sealerFor(profile, key, salt); err != nil {
		t.Fatal(err)
	}
	if b.ours, err = newUnsealer(profile, key, salt); err != nil {
		t.Fatal(err)
	}
	b.theirs, err = srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile), srtp.SRTPReplayProtection(rtpWindow), srtp.SRTCPReplayProtection(rtcpWindow))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packet gives the sealed packet of a stream with that index.
func (b *both) packet(ssrc uint32, index uint64, payload int) []byte {
	p := make([]byte, slotSize)
	packets.PutHeader(p, index%2 == 0, false, 96, uint16(index), uint32(index), ssrc)
	n := packets.HeaderSize + copy(p[packets.HeaderSize:], bytes.Repeat([]byte{byte(index)}, payload))
	return p[:b.seals.seal(p, n, uint32(index>>16), &b.x)]
}

// open opens p with both, which must agree.
func (b *both) open(what string, p []byte) (passed bool) {
	b.t.Helper()
	want, err := b.theirs.DecryptRTP(nil, bytes.Clone(p), nil)
	got := b.ours.RTP(bytes.Clone(p))
	if (got != nil) != (err == nil) || !bytes.Equal(got, want) {
		b.t.Fatalf("%s: ours %x, theirs %x (%v)", what, got, want, err)
	}
	return got != nil
}

func TestPacketsPassWhereTheyPassAnotherImplementation(t *testing.T) {
	for _, profile := range profiles {
		for seed := range uint64(4) {
			key, salt := keysFor(t, profile)
			b := newBoth(t, profile, key, salt)
			chance := rand.New(rand.NewPCG(seed, 1))
			latest := map[uint32]uint64{1: chance.Uint64N(1 << 16), 2: 0, 3: 1 << 15, 4: 65_535}
			passed, steps := 0, 20_000
			for i := range steps {
				ssrc := 1 + chance.Uint32N(4)
				index := latest[ssrc]
				switch chance.IntN(12) {
				case 0: // late, or again
					index -= min(index, chance.Uint64N(2*rtpWindow))
				case 1: // a gap
					index += chance.Uint64N(3 * rtpWindow)
				case 2: // a gap as long as can be known, or longer
					if chance.IntN(20) == 0 {
						index += chance.Uint64N(1<<15 + 100)
					}
				case 3: // one turn back or ahead of what is expected
					index += 1 << 16
				case 4:
					index -= min(index, 1<<16)
				default:
					index++
				}
				p := b.packet(ssrc, index, chance.IntN(40))
				if chance.IntN(10) == 0 {
					p[chance.IntN(len(p))] ^= 1 << chance.IntN(8)
				}
				if chance.IntN(50) == 0 {
					p = p[:chance.IntN(len(p))]
				}
				if b.open(fmt.Sprintf("profile %v, seed %d, step %d: stream %d, index %d after %d", profile, seed, i, ssrc, index, latest[ssrc]), p) {
					passed++
					if len(p) > 12 && binary.BigEndian.Uint32(p[8:]) == ssrc {
						latest[ssrc] = max(latest[ssrc], index)
					}
				}
			}
			if passed < steps/3 || passed > steps*9/10 {
				t.Errorf("profile %v: %d of %d packets passed: nothing was tried", profile, passed, steps)
			}
		}
	}
}

func TestHeadersOfAllShapesAreOpened(t *testing.T) {
	for _, profile := range profiles {
		key, salt := keysFor(t, profile)
		b := newBoth(t, profile, key, salt)
		from, err := srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			h := rtp.Header{Version: 2, PayloadType: 111, SequenceNumber: uint16(65_500 + i), Timestamp: uint32(i), SSRC: 9}
			h.CSRC = make([]uint32, i%16)
			if i%3 == 0 {
				if err := h.SetExtension(3, make([]byte, 1+i%16)); err != nil {
					t.Fatal(err)
				}
			}
			plain, err := (&rtp.Packet{Header: h, Payload: make([]byte, i%5)}).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := from.EncryptRTP(nil, plain, nil)
			if err != nil {
				t.Fatal(err)
			}
			for cut := range sealed {
				if b.open("cut short", sealed[:cut]) {
					t.Errorf("profile %v: %d of %d bytes pass", profile, cut, len(sealed))
				}
			}
			if !b.open("whole", sealed) {
				t.Errorf("profile %v: packet %d does not pass", profile, i)
			}
		}
	}
}

// TestTheLastIndexOfAKeyIsTheEnd: an index may not begin anew (RFC 3711 section 3.3.1).
func TestTheLastIndexOfAKeyIsTheEnd(t *testing.T) {
	s := &incoming{started: true, latest: mostIndex - 1}
	if index, ok := s.index(0xFFFF); !ok || index != mostIndex {
		t.Errorf("%x %v", index, ok)
	}
	s.note(mostIndex)
	for _, sequence := range []uint16{0, 1, 0xFFFF} {
		if index, ok := s.index(sequence); ok {
			t.Errorf("%d passes as %x", sequence, index)
		}
	}
	if _, ok := s.index(0xFFF0); !ok {
		t.Error("a late one does not pass")
	}
}

func TestReportsPassBetweenUsAndAnotherImplementationOnce(t *testing.T) {
	for _, profile := range profiles {
		key, salt := keysFor(t, profile)
		b := newBoth(t, profile, key, salt)
		ours, err := newReports(profile, key, salt)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile))
		if err != nil {
			t.Fatal(err)
		}
		var sent [][]byte
		room := make([]byte, slotSize)
		for i := range 200 {
			for _, ssrc := range []uint32{1, 2} {
				plain := packets.AppendReceiverReport(nil, ssrc, make([]packets.Reception, i%20))
				n := ours.seal(room, plain)
				clear, err := b.theirs.DecryptRTCP(nil, room[:n], nil)
				if err != nil || !bytes.Equal(clear, plain) {
					t.Fatalf("profile %v, report %d: %x, want %x (%v)", profile, i, clear, plain, err)
				}
				sealed, err := theirs.EncryptRTCP(nil, plain, nil)
				if err != nil {
					t.Fatal(err)
				}
				sent = append(sent, sealed)
				if i%7 == 3 {
					continue // comes later
				}
				if got := b.ours.RTCP(bytes.Clone(sealed)); !bytes.Equal(got, plain) {
					t.Fatalf("profile %v, report %d: got %x, want %x", profile, i, got, plain)
				}
			}
		}
		for i, p := range sent {
			kept := i/2%7 == 3 && 199-i/2 < rtcpWindow
			if got := b.ours.RTCP(bytes.Clone(p)); (got != nil) != kept {
				t.Errorf("profile %v: report %d, late or again: %x", profile, i/2, got)
			}
		}
		next, err := theirs.EncryptRTCP(nil, packets.AppendReceiverReport(nil, 1, nil), nil)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(next) {
			p := bytes.Clone(next)
			p[bit/8] ^= 1 << (bit % 8)
			if b.ours.RTCP(p) != nil {
				t.Errorf("profile %v: a report with bit %d turned passes", profile, bit)
			}
		}
		for cut := range next {
			if b.ours.RTCP(bytes.Clone(next[:cut])) != nil {
				t.Errorf("profile %v: %d of %d bytes pass", profile, cut, len(next))
			}
		}
		if b.ours.RTCP(next) == nil {
			t.Errorf("profile %v: the true one does not pass", profile)
		}
		if ours.context == nil {
			ours.index = mostSending
			if n := ours.seal(room, packets.AppendReceiverReport(nil, 1, nil)); n != 0 {
				t.Errorf("a report goes out after the last number: %d bytes", n)
			}
		}
	}
}

func TestTheStreamsOfOneClientAreBounded(t *testing.T) {
	for _, profile := range profiles {
		key, salt := keysFor(t, profile)
		b := newBoth(t, profile, key, salt)
		from, err := srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile))
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint32(2 * maxStreams) {
			if passed := b.ours.RTP(b.packet(i, 1, 5)) != nil; passed != (i < maxStreams) {
				t.Errorf("profile %v: stream %d passes: %v", profile, i, passed)
			}
			p, err := from.EncryptRTCP(nil, packets.AppendReceiverReport(nil, i, nil), nil)
			if err != nil {
				t.Fatal(err)
			}
			if passed := b.ours.RTCP(p) != nil; b.ours.context == nil && passed != (i < maxStreams) {
				t.Errorf("profile %v: source %d passes: %v", profile, i, passed)
			}
		}
		if !b.open("a stream that is known", b.packet(0, 2, 5)) && b.ours.context == nil {
			t.Error("a known stream does not pass")
		}
	}
}

func TestUnsealingAllocatesNothing(t *testing.T) {
	key, salt := keysFor(t, profiles[0])
	b := newBoth(t, profiles[0], key, salt)
	from, err := newReports(profiles[0], key, salt)
	if err != nil {
		t.Fatal(err)
	}
	index, report, room := uint64(0), packets.AppendReceiverReport(nil, 1, make([]packets.Reception, 1)), make([]byte, slotSize)
	p := make([]byte, slotSize)
	if n := testing.AllocsPerRun(100, func() {
		index++
		packets.PutHeader(p, false, false, 96, uint16(index), 0, 7)
		if b.ours.RTP(p[:b.seals.seal(p, 1100, 0, &b.x)]) == nil {
			t.Fatal("a packet does not pass")
		}
		if b.ours.RTCP(room[:from.seal(room, report)]) == nil {
			t.Fatal("a report does not pass")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzUnseal has packets arrive in an order that the input gives, damaged as it says, at our unsealer and at another implementation, and the
// input itself too.
func FuzzUnseal(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 0})
	f.Add([]byte{0, 0xFF, 0xFF, 0, 1, 1, 0, 0, 0, 0x7F, 0xFF, 0, 2, 0x80, 0, 0, 2, 0x80, 1, 5})
	f.Add([]byte{0x80, 200, 0, 1, 0, 0, 0, 1, 0x80, 0, 0, 1})
	key, salt := bytes.Repeat([]byte{7}, 16), bytes.Repeat([]byte{9}, 12)
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBoth(t, profiles[0], key, salt)
		b.open("the input", script)
		if b.ours.RTCP(bytes.Clone(script)) != nil {
			t.Error("the input passes as a report")
		}
		var at [2]uint64
		for step := 0; len(script) >= 4 && step < 1000; script, step = script[4:], step+1 {
			stream, by := script[0]&1, uint64(binary.BigEndian.Uint16(script[1:]))
			switch script[0] >> 1 & 3 {
			case 0:
				at[stream] += by
			case 1:
				at[stream] -= min(at[stream], by)
			case 2:
				at[stream] += by << 8
			default:
				at[stream]++
			}
			p := b.packet(uint32(stream), at[stream], int(script[3]&0x0F))
			if script[3] >= 0xC0 {
				p[int(by)%len(p)] ^= script[3] & 0x0F
			}
			b.open(fmt.Sprint("step ", step, ", index ", at[stream]), p)
		}
	})
}
