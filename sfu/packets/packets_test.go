// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewerGoesHalfATurnAround(t *testing.T) {
	for _, c := range []struct {
		a, b uint16
		want bool
	}{{1, 0, true}, {0, 1, false}, {0, 65535, true}, {65535, 0, false}, {32767, 0, true}, {32768, 0, false}, {5, 5, false}} {
		if got := Newer(c.a, c.b); got != c.want {
			t.Errorf("Newer(%d, %d) = %v", c.a, c.b, got)
		}
	}
	if !NewerTimestamp(3, 0xFFFFFFF0) || NewerTimestamp(0xFFFFFFF0, 3) {
		t.Error("timestamps do not wrap")
	}
}

func TestSequenceCountsThroughWrapsAndReordering(t *testing.T) {
	var s Sequence
	truth := uint64(1<<16 | 65000)
	if got := s.Extend(65000); got != truth {
		t.Fatalf("first = %d, want %d", got, truth)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		truth += uint64(r.IntN(3))
		late := truth - uint64(r.IntN(100))
		if got := s.Extend(uint16(truth)); got != truth {
			t.Fatalf("Extend(%d) = %d, want %d", uint16(truth), got, truth)
		}
		if got := s.Extend(uint16(late)); got != late {
			t.Fatalf("late: Extend(%d) = %d, want %d", uint16(late), got, late)
		}
	}
}

func rtpPacket(ext []byte, profile uint16, payload []byte) []byte {
	b := make([]byte, HeaderSize)
	PutHeader(b, true, false, 96, 1234, 5678, 0xCAFE)
	if ext != nil {
		b[0] |= 0x10
		b = binary.BigEndian.AppendUint16(b, profile)
		b = binary.BigEndian.AppendUint16(b, uint16((len(ext)+3)/4))
		b = append(b, ext...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return append(b, payload...)
}

func TestHeaderExtensionsOfBothKinds(t *testing.T) {
	for name, b := range map[string][]byte{
		"one byte": rtpPacket([]byte{0x10, 7, 0, 0x32, 1, 2, 3}, 0xBEDE, []byte("pay")),
		"two byte": rtpPacket([]byte{1, 1, 7, 0, 3, 3, 1, 2, 3, 9, 0}, 0x1000, []byte("pay")),
	} {
		var h Header
		if !h.Parse(b) || !h.StripPadding(b) {
			t.Fatalf("%s: refused", name)
		}
		if string(b[h.Payload:h.End]) != "pay" || h.Sequence != 1234 || h.Timestamp != 5678 || h.SSRC != 0xCAFE || !h.Marker || h.PayloadType != 96 {
			t.Errorf("%s: %+v", name, h)
		}
		if got := h.Extension(b, 1); !bytes.Equal(got, []byte{7}) {
			t.Errorf("%s: 1 = %v", name, got)
		}
		if got := h.Extension(b, 3); !bytes.Equal(got, []byte{1, 2, 3}) {
			t.Errorf("%s: 3 = %v", name, got)
		}
		if got := h.Extension(b, 5); got != nil {
			t.Errorf("%s: 5 = %v", name, got)
		}
	}
}

func TestBrokenHeadersAreRefused(t *testing.T) {
	ok := rtpPacket([]byte{0x10, 7}, 0xBEDE, []byte("pay"))
	long := bytes.Clone(ok)
	binary.BigEndian.PutUint16(long[14:], 9999)
	csrc := bytes.Clone(ok)
	csrc[0] |= 0x0F
	version := bytes.Clone(ok)
	version[0] &= 0x3F
	var h Header
	for name, b := range map[string][]byte{"short": ok[:11], "extension past the end": long, "CSRCs past the end": csrc, "version": version, "cut in the extension": ok[:14]} {
		if h.Parse(b) {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, pad := range []byte{0, 255} {
		b := append(rtpPacket(nil, 0, []byte("pay")), pad)
		b[0] |= 0x20
		if !h.Parse(b) || h.StripPadding(b) {
			t.Errorf("padding of %d accepted", pad)
		}
	}
}

func TestVP8DescriptorIsReadAndRewrittenInPlace(t *testing.T) {
	key := []byte{0x90, 0xE0, 0x81, 0x02, 0x05, 0x40, 0x10, 0, 0, 0x9d}
	var v VP8
	if !v.Parse(key) {
		t.Fatal("refused")
	}
	if v.Size != 6 || !v.Start || !v.KeyFrame || v.PictureID != 0x102 || v.TL0 != 5 || v.TID != 1 {
		t.Fatalf("%+v", v)
	}
	v.Rewrite(key, 0x7ABC, 9)
	if want := []byte{0x90, 0xE0, 0xFA, 0xBC, 9, 0x40, 0x10, 0, 0, 0x9d}; !bytes.Equal(key, want) {
		t.Errorf("% x", key)
	}
	for _, c := range []struct {
		b    []byte
		want VP8
	}{
		{[]byte{0x10, 0x11}, VP8{Size: 1, Start: true}},
		{[]byte{0x00, 0x10}, VP8{Size: 1}},
		{[]byte{0x90, 0x80, 0x05, 0x10}, VP8{Size: 3, Start: true, KeyFrame: true, PictureID: 5, PictureIDSize: 1, pictureID: 2}},
	} {
		if !v.Parse(c.b) {
			t.Fatalf("% x refused", c.b)
		}
		if diff := cmp.Diff(c.want, v, cmp.AllowUnexported(VP8{})); diff != "" {
			t.Error(diff)
		}
	}
	for _, b := range [][]byte{nil, {0x80}, {0x80, 0x80}, {0x80, 0x80, 0x80}, {0x80, 0x40}, {0x80, 0x20}} {
		if v.Parse(b) {
			t.Errorf("% x accepted", b)
		}
	}
}

func TestRingForgetsTheOldestAndNeverGivesTornPackets(t *testing.T) {
	r := NewRing(64, 20_000)
	for c := uint64(1 << 16); c < 1<<16+5000; c++ {
		b := bytes.Repeat([]byte{byte(c)}, int(100+c*37%1300))
		r.Put(c, b)
		found := 0
		for back := uint64(0); back < 80; back++ {
			got := r.Get(c - back)
			if got == nil {
				continue
			}
			found++
			for _, x := range got {
				if x != byte(c-back) {
					t.Fatalf("packet %d holds bytes of another", c-back)
				}
			}
		}
		if c > 1<<16+100 && found < 12 {
			t.Fatalf("only %d packets kept", found)
		}
	}
	if r.Get(0) != nil {
		t.Error("an empty slot was given")
	}
}

func TestRTCPIsReadAsItIsWritten(t *testing.T) {
	b := AppendSenderReport(nil, Report{SSRC: 1, NTP: 2, RTP: 3, Packets: 4, Octets: 5})
	b = AppendReceiverReport(b, 9, []Reception{{SSRC: 7, FractionLost: 8, Lost: 9, Highest: 10, Jitter: 11, LastSR: 12, Delay: 13}})
	b = AppendNACK(b, 9, 7, []uint16{65535, 0, 16, 17, 40})
	b = AppendPLI(b, 9, 7)
	if !IsRTCP(b) {
		t.Error("not taken for RTCP")
	}
	p, b, ok := NextRTCP(b)
	if r, is := p.Sender(); !ok || !is || r != (Report{1, 2, 3, 4, 5}) {
		t.Errorf("sender report: %+v", r)
	}
	p, b, _ = NextRTCP(b)
	var got []Reception
	p.Receptions(func(r Reception) { got = append(got, r) })
	if diff := cmp.Diff([]Reception{{7, 8, 9, 10, 11, 12, 13}}, got); diff != "" {
		t.Error(diff)
	}
	p, b, _ = NextRTCP(b)
	if ssrc, sns, is := p.NACK(nil); !is || ssrc != 7 || !cmp.Equal(sns, []uint16{65535, 0, 16, 17, 40}) {
		t.Errorf("NACK: %d %v", ssrc, sns)
	}
	p, b, _ = NextRTCP(b)
	asked := uint32(0)
	p.WantsKeyFrame(func(ssrc uint32) { asked = ssrc })
	if asked != 7 || len(b) != 0 {
		t.Errorf("PLI for %d, %d bytes left", asked, len(b))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(rtpPacket([]byte{0x10, 7}, 0xBEDE, []byte{0x90, 0x80, 0x05, 0x10}))
	f.Add(rtpPacket([]byte{1, 1, 7}, 0x1000, nil))
	f.Add(AppendNACK(AppendSenderReport(nil, Report{}), 1, 2, []uint16{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		var v VP8
		if h.Parse(b) && h.StripPadding(b) {
			for id := range uint8(16) {
				_ = h.Extension(b, id)
			}
			if p := b[h.Payload:h.End]; v.Parse(p) {
				v.Rewrite(p, 1, 2)
				again := VP8{}
				if !again.Parse(p) || again.Size != v.Size {
					t.Fatal("a rewritten descriptor reads differently")
				}
			}
		}
		for rest := b; ; {
			p, more, ok := NextRTCP(rest)
			if !ok {
				break
			}
			p.Sender()
			p.Receptions(func(Reception) {})
			p.NACK(nil)
			p.WantsKeyFrame(func(uint32) {})
			rest = more
		}
	})
}
