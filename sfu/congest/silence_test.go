// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"testing"
	"time"
)

// Of what is sent on a limited path nothing is heard any more: half of the estimate is believed every one and a half seconds, and all of it
// again if it turns out that only the feedback got lost.
func TestALimitedPathFromWhichNothingIsHeardIsNotTrusted(t *testing.T) {
	for _, c := range []struct {
		name   string
		silent time.Duration
		then   float64 // bit/s that the path carries afterwards
		least  float64 // the estimate a second later
		most   float64
	}{
		{"feedback gets lost for a while", 2500 * time.Millisecond, 1e6, 0.75e6, 1.2e6},
		{"the path was gone, and is worse", 4 * time.Second, 200e3, floor, 300e3},
		{"for long", 30 * time.Second, 1e6, floor, 0.2e6},
	} {
		d := newRoad(1e6, 3e6)
		s := d.senders[0]
		pass := func(span time.Duration) {
			for range span / (100 * time.Millisecond) {
				d.run(100 * time.Millisecond)
				s.e.Asked(3e6, d.now)
			}
		}
		pass(15 * time.Second)
		before, _ := s.e.Limited()
		d.lostBack = 1
		pass(time.Second)
		if rate, _ := s.e.Limited(); rate != before {
			t.Errorf("%s: %d became %d within a second", c.name, before, rate)
		}
		pass(c.silent - time.Second)
		rate, limited := s.e.Limited()
		if !limited || float64(rate) > max(floor, 1.1*float64(before)/float64(int(1)<<min(10, c.silent/silence))) {
			t.Errorf("%s: %d is believed after %v without feedback, %d before", c.name, rate, c.silent, before)
		}
		d.lostBack, d.rate = 0, c.then
		pass(time.Second)
		if rate, _ := s.e.Limited(); float64(rate) < c.least || float64(rate) > c.most {
			t.Errorf("%s: %d a second after feedback comes again, %d before", c.name, rate, before)
		}
	}
}

func TestAPathOnWhichNothingIsSentKeepsItsEstimate(t *testing.T) {
	d := newRoad(1e6, 3e6)
	s := d.senders[0]
	d.run(15 * time.Second)
	s.most = 0 // the cameras are off
	for range 50 {
		d.run(100 * time.Millisecond)
		s.e.Asked(3e6, d.now)
	}
	before, _ := s.e.Limited()
	for range 100 {
		d.run(100 * time.Millisecond)
		s.e.Asked(3e6, d.now)
	}
	if rate, limited := s.e.Limited(); !limited || rate != before || before < 500e3 {
		t.Errorf("%d became %d", before, rate)
	}
}
