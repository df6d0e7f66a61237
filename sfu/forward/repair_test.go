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
