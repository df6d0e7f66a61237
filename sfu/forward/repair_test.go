// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"encoding/binary"
	"slices"
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
	if asks < 12 || asks > 40 {
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
	if g.Tell(Told{Sequence: sn, Repair: true, Sent: s.now}, &s.out); sent() {
		t.Error("a repetition that nobody asked for was repeated")
	}
	s.now += 50 * time.Millisecond
	if g.Tell(Told{Sequence: sn, Repair: false, Sent: first}, &s.out); !sent() {
		t.Fatal("it was not sent again")
	}
	again := s.now
	s.now += 50 * time.Millisecond
	if g.Tell(Told{Sequence: sn, Repair: false, Sent: first}, &s.out); sent() {
		t.Error("the original was told as lost again, while its repetition may be on its way")
	}
	if g.Tell(Told{Sequence: sn, Repair: true, Sent: again - time.Millisecond}, &s.out); sent() {
		t.Error("an older repetition counts")
	}
	if g.Tell(Told{Sequence: sn, Repair: true, Sent: again + time.Second}, &s.out); sent() {
		t.Error("a repetition that was sent much later, as padding, counts")
	}
	if g.Tell(Told{Sequence: sn + 5000, Sent: first}, &s.out); sent() {
		t.Error("something was sent that never was before")
	}
	s.asked = nil
	tries := 1
	for range 30 {
		s.now += time.Second
		if g.Tell(Told{Sequence: sn, Repair: true, Sent: again + time.Millisecond}, &s.out); !sent() {
			break
		}
		again = s.now
		tries++
	}
	if tries != againTries || len(s.asked) != 1 {
		t.Errorf("%d tries, then key frames: %v", tries, s.asked)
	}
}

// overdue is a leg on a stage, for tests of Overdue.
func overdue(t *testing.T) (s *stage, p *peer, g *Leg, e *encoder) {
	t.Helper()
	s, p, e = newStage(VP8, true), &peer{numbered: true}, &encoder{}
	g = s.leg(p, Streams{SSRC: 11, PayloadType: 100, RTXSSRC: 12, RTXType: 101, Transport: 3})
	for i := range 5 {
		s.send(e, i == 0, 3)
	}
	return s, p, g, e
}

// again lists the numbers of the packets that were repaired.
func (s *stage) again(t *testing.T) (numbers []uint16) {
	t.Helper()
	for _, g := range s.out.take() {
		if g.header.SSRC != 12 {
			t.Fatalf("sent with SSRC %d", g.header.SSRC)
		}
		numbers = append(numbers, binary.BigEndian.Uint16(g.payload))
	}
	return numbers
}

// A subscriber asks for a packet that the publisher's line lost until it gives up; if it comes then, and gets lost here, nobody asks.
func TestWhatCameLateIsSentUntilItArrives(t *testing.T) {
	s, _, g, e := overdue(t)
	run := e.frame(false, 3)
	s.Forward(0, append(run[:1:1], run[2]), &s.out)
	s.now += 300 * time.Millisecond
	s.out.take()
	s.Forward(0, run[1:2], &s.out)
	late := s.out.take()[0].header.Sequence
	first := s.now
	s.now += 100 * time.Millisecond
	if g.Overdue(first, first, &s.out); len(s.again(t)) != 0 {
		t.Fatal("sent again before anything is told about what was sent then")
	}
	if g.Overdue(s.now, s.now, &s.out); !slices.Equal(s.again(t), []uint16{late}) {
		t.Fatal("it was not sent again, or something else was")
	}
	if g.Overdue(s.now, s.now, &s.out); len(s.again(t)) != 0 {
		t.Error("the repetition was repeated before anything is told about it")
	}
	s.now += 100 * time.Millisecond
	if g.Tell(Told{Sequence: late, Repair: true, Sent: s.now - 100*time.Millisecond, Arrived: true}, &s.out); g.Watching() != true {
		t.Fatal("who watches is known when the list is gone through")
	}
	if g.Overdue(s.now, s.now, &s.out); len(s.again(t)) != 0 || g.Watching() {
		t.Error("what has arrived is sent again")
	}
}

// A repair for which there was no room is made up for, although it may have been asked for for the last time.
func TestWhatWasAskedForIsSentUntilItArrives(t *testing.T) {
	s, p, g, e := overdue(t)
	number := s.send(e, false, 3)[1].header.Sequence
	p.full = true
	g.Resend([]uint16{number}, &s.out)
	p.full = false
	s.now += 50 * time.Millisecond
	if g.Overdue(s.now, s.now, &s.out); !slices.Equal(s.again(t), []uint16{number}) {
		t.Fatal("it was not sent")
	}
	p.holding = true
	s.now += 50 * time.Millisecond
	if g.Overdue(s.now, s.now, &s.out); len(p.held) != 1 {
		t.Fatalf("%d wait", len(p.held))
	}
	p.holding = false
	at := s.now
	s.now += heldWithin / 2
	if g.Overdue(s.now, s.now, &s.out); len(s.again(t)) != 0 {
		t.Error("what waits was repeated")
	}
	s.now = at + 2*heldWithin
	if g.Overdue(s.now, s.now, &s.out); !slices.Equal(s.again(t), []uint16{number}) {
		t.Error("what waited for too long was not repeated")
	}
	s.asked = nil
	tries := 3
	for range 30 {
		s.now += 200 * time.Millisecond
		if g.Overdue(s.now, s.now, &s.out); len(s.again(t)) == 0 {
			break
		}
		tries++
	}
	if tries != againTries || len(s.asked) != 1 || g.Watching() {
		t.Errorf("%d tries, then key frames %v, watching %v", tries, s.asked, g.Watching())
	}
	number = s.send(e, false, 3)[1].header.Sequence
	p.full = true
	g.Resend([]uint16{number}, &s.out)
	p.full = false
	s.now += watchedMost + time.Second
	if g.Overdue(s.now, s.now, &s.out); len(s.again(t)) != 0 || g.Watching() {
		t.Error("what nobody waits for any more was sent")
	}
}

// A path's lock is held by who asks, and wanted by legs that send.
func TestWhetherALegWatchesIsAskedWithoutItsLock(t *testing.T) {
	_, _, g, _ := overdue(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := make(chan bool)
	go func() { asked <- g.Watching() }()
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the leg's lock")
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
