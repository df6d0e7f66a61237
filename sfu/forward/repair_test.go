// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"testing"
	"time"
)

// A browser that waits for a packet that nobody has stands still for three seconds before it asks for a key frame.
func TestAPictureOfWhichAPacketIsGivenUpGetsAKeyFrame(t *testing.T) {
	s := newStage(VP8, true)
	s.leg(&peer{}, Streams{SSRC: 11, PayloadType: 100})
	missing := 0
	s.Source.cfg.Missing = func() { missing++ }
	e := &encoder{}
	s.send(e, true, 3)
	run := e.frame(false, 3)
	s.Forward(0, append(run[:1:1], run[2]), &s.out)
	if missing != 1 {
		t.Fatalf("told %d times that something is missing", missing)
	}
	s.asked = nil
	asks := 0
	for range 400 {
		s.now += 5 * time.Millisecond
		lost, more := s.Lost(0, nil)
		if asks += len(lost); !more {
			break
		}
		s.send(e, false, 1)
	}
	if asks < 8 || asks > 12 {
		t.Errorf("asked %d times", asks)
	}
	s.Tick()
	if len(s.asked) != 1 {
		t.Errorf("asked for key frames: %v", s.asked)
	}
}

func TestARepairThatFindsNoRoomMayBeAskedForAgain(t *testing.T) {
	s := newStage(VP8, true)
	p := &peer{numbered: true, full: false}
	g := s.leg(p, Streams{SSRC: 11, PayloadType: 100, RTXSSRC: 12, RTXType: 101, Transport: 3})
	e := &encoder{}
	got := s.send(e, true, 2)
	p.full = true
	for range 3 * againTries {
		s.now += time.Millisecond
		g.Resend([]uint16{got[0].header.Sequence}, &s.out)
	}
	if n := len(s.out.take()); n != 0 || g.Stats().Again != 0 {
		t.Fatalf("%d were sent, %d are said to have been", n, g.Stats().Again)
	}
	p.full = false
	if g.Resend([]uint16{got[0].header.Sequence}, &s.out); len(s.out.take()) != 1 || g.Stats().Again != 1 {
		t.Error("it was not sent when there was room")
	}
}

// What feedback says did not arrive is sent again without a request, but not while a newer repetition may be on its way, and not for a
// repetition that was only meant to load the path.
func TestWhatFeedbackMissesIsSentAgain(t *testing.T) {
	s := newStage(VP8, true)
	g := s.leg(&peer{numbered: true}, Streams{SSRC: 11, PayloadType: 100, RTXSSRC: 12, RTXType: 101, Transport: 3})
	e := &encoder{}
	var sn uint16
	for i := range 5 {
		sn = s.send(e, i == 0, 3)[0].header.Sequence // also what a repair costs is saved up
	}
	first := s.now
	sent := func() bool { return len(s.out.take()) == 1 }
	if g.Pad(100, &s.out); len(s.out.take()) == 0 {
		t.Fatal("no padding")
	}
	if g.Missed(sn, true, s.now, &s.out); sent() {
		t.Error("a repetition that nobody asked for was repeated")
	}
	s.now += 50 * time.Millisecond
	if g.Missed(sn, false, first, &s.out); !sent() {
		t.Fatal("it was not sent again")
	}
	again := s.now
	s.now += 50 * time.Millisecond
	if g.Missed(sn, false, first, &s.out); sent() {
		t.Error("the original was told as lost again, while its repetition may be on its way")
	}
	if g.Missed(sn, true, again-time.Millisecond, &s.out); sent() {
		t.Error("an older repetition counts")
	}
	if g.Missed(sn, true, again+time.Second, &s.out); sent() {
		t.Error("a repetition that was sent much later, as padding, counts")
	}
	if g.Missed(sn+5000, false, first, &s.out); sent() {
		t.Error("something was sent that never was before")
	}
	s.asked = nil
	tries := 1
	for range 30 {
		s.now += time.Second
		if g.Missed(sn, true, again+time.Millisecond, &s.out); !sent() {
			break
		}
		again = s.now
		tries++
	}
	if tries != againTries || len(s.asked) != 1 {
		t.Errorf("%d tries, then key frames: %v", tries, s.asked)
	}
}

// The first packet of a key frame is lost and comes after the others: who waited for it gets the others too.
func TestAKeyFrameWhoseFirstPacketComesLastIsWhole(t *testing.T) {
	s := newStage(VP8, true)
	s.leg(&peer{}, Streams{SSRC: 11, PayloadType: 100})
	small, large := &encoder{}, &encoder{layer: 1}
	s.send(small, true, 2)
	s.send(large, false, 2)
	before := s.send(small, false, 2)
	run := large.frame(true, 4)
	s.now += 33 * time.Millisecond
	s.Forward(1, run[1:], &s.out)
	if n := len(s.out.take()); n != 0 {
		t.Fatalf("%d packets of a key frame without its beginning were sent", n)
	}
	s.now += 40 * time.Millisecond
	s.Forward(1, run[:1], &s.out)
	got := s.out.take()
	got = append(got, s.send(large, false, 2)...)
	next := before[len(before)-1].index
	for i, g := range got {
		if next++; g.index != next {
			t.Errorf("packet %d has number %d, want %d", i, g.index, next)
		}
	}
	if len(got) != 6 {
		t.Errorf("%d packets were sent", len(got))
	}
	s.now += time.Millisecond
	if s.Forward(1, run[1:2], &s.out); len(s.out.take()) != 0 {
		t.Error("a packet that came twice was sent twice")
	}
}
