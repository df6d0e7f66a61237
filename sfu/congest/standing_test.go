// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"testing"
	"time"
)

func TestAQueueThatStandsIsSeen(t *testing.T) {
	const apart = -time.Hour // the clocks
	var s standing
	now := time.Second
	message := func(ways ...time.Duration) time.Duration {
		now += 100 * time.Millisecond
		s.open(now)
		for _, way := range ways {
			s.note(now, now+apart+way)
		}
		return s.queue()
	}
	for range 50 {
		if q := message(20*time.Millisecond, 45*time.Millisecond, 30*time.Millisecond); q != 0 {
			t.Fatalf("jitter is taken for a queue of %v", q)
		}
	}
	for range 100 {
		if q := message(320*time.Millisecond, 340*time.Millisecond); q != 300*time.Millisecond {
			t.Fatalf("a queue of 300 ms is taken for %v", q)
		}
	}
	for range 350 { // 35 s later it is not a queue, but the way
		message(320 * time.Millisecond)
	}
	if q := message(320 * time.Millisecond); q != 0 {
		t.Errorf("a way that is longer for good is a queue of %v", q)
	}
}
