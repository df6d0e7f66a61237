// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"testing"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

func TestALegGoesOnInAnotherCodecUnderTheSameNumbers(t *testing.T) {
	first, second := newStage(Opaque, true), newStage(VP8, true)
	n := Streams{SSRC: 7, PayloadType: 98, RTXSSRC: 8, RTXType: 99}
	g := first.leg(&peer{}, n)
	e := &encoder{}
	var before []got
	for range 5 {
		before = append(before, first.send(e, true, 3)...)
	}
	if len(before) != 15 {
		t.Fatalf("%d packets", len(before))
	}
	last := before[14]
	second.now = first.now
	other := &encoder{sn: 40_000, ts: 1_000_000, picture: 77}
	second.send(other, true, 2) // flows already
	h := Succeed(g, second.Source)
	sent := first.send(e, true, 3)
	g.Resend([]uint16{last.header.Sequence}, &first.out)
	if sent = append(sent, first.out.take()...); len(sent) != 0 {
		t.Errorf("the leg before still sends %d packets", len(sent))
	}
	n.PayloadType, n.RTXType = 96, 97
	h.Bind(n)
	h.Start(&second.out)
	after := append(second.out.take(), second.send(other, false, 2)...)
	if len(after) != 4 {
		t.Fatalf("%d packets", len(after))
	}
	for i, p := range after {
		later := p.header.Timestamp - last.header.Timestamp
		if p.index != last.index+1+uint64(i) || p.header.SSRC != 7 || p.header.PayloadType != 96 || !packets.NewerTimestamp(p.header.Timestamp, last.header.Timestamp) || later > 90_000 {
			t.Errorf("%+v, %d later", p, later)
		}
	}
	// What was sent in the codec before is not to be had any more, what came since is, under numbers that were not used for repairs.
	h.Resend([]uint16{last.header.Sequence, after[0].header.Sequence}, &second.out)
	again := second.out.take()
	if len(again) != 1 || again[0].header.SSRC != 8 || again[0].header.PayloadType != 97 || again[0].index < rtxGap {
		t.Errorf("sent again: %+v", again)
	}
	if s := h.Stats(); s.Packets != 19 {
		t.Errorf("%d packets, want 19", s.Packets)
	}
}

func TestALegThatSucceedsWantsWhatTheOneBeforeWanted(t *testing.T) {
	first, second := newStage(VP8, true), newStage(VP8, true)
	g := first.leg(&peer{}, Streams{SSRC: 7, PayloadType: 98})
	g.Want(1, false)
	g.WantRate(7)
	g.Allow(Level(1, 0))
	h := Succeed(g, second.Source)
	if h.Wanted() != 1 || h.Allowed() != Level(1, 0) || h.fps != 7 || first.Wanted() != -1 || second.Wanted() != 1 {
		t.Errorf("%d %d %v, %d %d", h.Wanted(), h.Allowed(), h.fps, first.Wanted(), second.Wanted())
	}
}
