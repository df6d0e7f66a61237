// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// Three of ten datagrams are lost on the way to the server and from it, also requests for repairs, what they bring, and reports, from one moment to
// the next on a call that was good. A browser asks for a packet ten times, then stands still for three seconds before it wants a key frame.
func TestPicturesGoOnOverABadLine(t *testing.T) {
	type line struct {
		delay  time.Duration
		rates  []int
		seldom int // one of so many calls may stand still for more than a second
		most   time.Duration
	}
	near, far := time.Millisecond, 15*time.Millisecond
	lines := []line{{near, []int{130_000}, 8, 2 * time.Second}, {near, []int{400_000}, 8, 2 * time.Second}, {near, threeSizes, 8, 2 * time.Second}, {far, []int{400_000}, 8, 2 * time.Second}}
	calls := 10
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		calls = 40
		lines = append(lines, line{far, []int{130_000}, 8, 4 * time.Second}, line{far, threeSizes, 3, 4 * time.Second})
	}
	for _, l := range lines {
		t.Run(fmt.Sprintf("%v, %d", l.delay, l.rates), func(t *testing.T) {
			var longest []time.Duration
			frames, long := 0, 0
			var again, sent uint64
			for call := range calls {
				down := wide()
				down.delay = l.delay
				s := newShow(t, down, l.rates)
				s.seed(uint64(call))
				s.patience = 3 * time.Second
				s.run(5 * time.Second)
				s.bad = 0.3
				s.take()
				s.run(time.Minute)
				c := s.cameras[0]
				longest = append(longest, c.max.Truncate(10*time.Millisecond))
				frames += c.frames
				if c.max > time.Second {
					long++
				}
				stats := c.leg.Stats()
				again, sent = again+stats.Again, sent+stats.Packets
			}
			slices.Sort(longest)
			t.Logf("%d of 1500 frames; stood still for %v at most in half of the calls, %v in all; for more than a second in %d of %d; repairs for %d %% of the packets", frames/calls, longest[calls/2], longest[calls-1], long, calls, 100*again/sent)
			// Half of the requests for a packet, and of what they bring, get lost: now and then that takes more than a second.
			if frames < calls*1440 || long*l.seldom > calls || longest[calls-1] > l.most {
				t.Errorf("%d of 1500 frames; stood still for more than a second in %d of %d calls: %v", frames/calls, long, calls, longest)
			}
		})
	}
}

// Where less is lost than is asked for again and again, a client's report says so soon enough.
func TestManyRequestsAreSuspicious(t *testing.T) {
	var a asking
	now := time.Minute
	for i := range manyLost {
		if got := a.many(1, now); got != (i == manyLost-1) {
			t.Errorf("request %d: %v", i, got)
		}
		now += manyIn / manyLost
	}
	for range 3 * manyLost {
		now += 2 * manyIn / manyLost
		if a.many(1, now) {
			t.Error("few are taken for many")
			break
		}
	}
	if !a.many(manyLost, now) {
		t.Error("many at once are not many")
	}
}
