// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"fmt"
	"testing"
	"time"
)

// doubted lets a sender that cannot send less run for span, and makes the tests that its estimator asks for. It gives when they were made, how
// many found a bad path, and for how long, of that span, the path was limited to less than is sent.
func doubted(d *road, span time.Duration) (tests []time.Duration, bad int, short time.Duration) {
	s := d.senders[0]
	usual, begun := s.most, d.now
	for d.now-begun < span {
		d.run(100 * time.Millisecond)
		if rate, limited := s.e.Limited(); limited && float64(rate) < usual {
			short += 100 * time.Millisecond
		}
		target := s.e.Doubt(d.now)
		if target == 0 {
			continue
		}
		tests = append(tests, d.now-begun)
		s.e.StartProbe(target, true, d.now)
		s.most = float64(target)
		d.run(150 * time.Millisecond)
		s.e.EndProbe(d.now)
		s.most = usual
		d.run(300 * time.Millisecond)
		if found, _ := s.e.ProbeResult(d.now); found {
			bad++
		}
	}
	return tests, bad, short
}

// A picture that cannot be smaller, over a line that begins to lose packets whatever is sent: the limit that this sets goes soon, and is not set
// again for long. If feedback gets lost too, that takes a little longer.
func TestABadLineIsToldFromANarrowOne(t *testing.T) {
	for _, rate := range []float64{130e3, 400e3} {
		for _, loss := range []float64{0.15, 0.3} {
			for _, lostBack := range []float64{0, loss} {
				t.Run(fmt.Sprintf("%.0f kbit/s, %.2f and %.2f lost", rate/1000, loss, lostBack), func(t *testing.T) {
					d := newRoad(50e6, rate)
					d.senders[0].fixed = true
					d.run(5 * time.Second)
					d.loss, d.lostBack = loss, lostBack
					for _, c := range []struct{ span, short time.Duration }{{10 * time.Second, 5 * time.Second}, {time.Minute, 6 * time.Second}} {
						tests, bad, short := doubted(d, c.span)
						t.Logf("in %v, tests after %v, of which %d found a bad line; limited to less than is sent for %v", c.span, tests, bad, short)
						if short > c.short || len(tests) > 0 && bad == 0 {
							t.Errorf("in %v, tests after %v, of which %d found a bad line; limited to less than is sent for %v", c.span, tests, bad, short)
						}
					}
				})
			}
		}
	}
}

// Where a path is policed, tests say so, and become seldom; where a queue stands there are none, until it has stood for so long that it counts as
// part of the way.
func TestANarrowLineIsNotTakenForABadOne(t *testing.T) {
	for _, queue := range []int{5000, 20_000} {
		d := newRoad(300e3, 500e3)
		d.police, d.queue, d.senders[0].fixed = true, queue, true
		tests, bad, _ := doubted(d, time.Minute)
		t.Logf("a bucket of %d bytes: tests after %v, %d found a bad line", queue, tests, bad)
		if bad > 0 || len(tests) > 8 {
			t.Errorf("a bucket of %d bytes: tests after %v, %d found a bad line", queue, tests, bad)
		}
	}
	d := newRoad(300e3, 500e3)
	d.senders[0].fixed = true
	if tests, bad, _ := doubted(d, time.Minute); bad > 0 || len(tests) > 0 && tests[0] < standingFor || len(tests) > 8 {
		t.Errorf("a queue: tests after %v, %d found a bad line", tests, bad)
	}
}

// What was lost lately needs room for repairs, unless it was little, or a queue explains it.
func TestWhatIsLostNeedsRoom(t *testing.T) {
	for _, c := range []struct {
		name  string
		seen  []float64
		queue time.Duration
		want  float64
	}{
		{"nothing", nil, 0, 0},
		{"much, once", []float64{0, 0.3}, 0, 0.3},
		{"some, once", []float64{0, 0.1}, 0, 0},
		{"some, twice", []float64{0.1, 0.15}, 0, 0.1},
		{"less and less", []float64{0.8, 0.4}, 0, 0},
		{"little", []float64{0.03, 0.03}, 0, 0},
		{"nearly all", []float64{0.9, 0.8}, 0, 0.5},
		{"a queue", []float64{0.3, 0.3}, 100 * time.Millisecond, 0},
	} {
		var e Estimator
		for i, loss := range c.seen {
			e.loss.note(stretch{sentSpan: lossSpan, packets: 100, lost: int(100 * loss), sent: 10_000}, time.Duration(i+1)*time.Second)
		}
		e.stands.open(time.Second)
		e.stands.note(0, time.Second)
		e.stands.open(time.Second)
		e.stands.note(time.Second, 2*time.Second+c.queue)
		if got := e.Worn(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
