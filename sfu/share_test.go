// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// threeSizes are what the sizes of a camera take, bit/s.
var threeSizes = []int{130_000, 400_000, 1_400_000}

func wide() *lane { return &lane{rate: 50e6, queue: 1 << 20, delay: 15 * time.Millisecond} }

// Two cameras of 1.4 Mbit/s, and a path that becomes 880 or 500 kbit/s wide: the smallest of both fit, so neither stops.
func TestSharedLayersGoDownBeforePicturesStop(t *testing.T) {
	for _, queue := range []int{3000, 11_000, 110_000} {
		for _, late := range []time.Duration{2 * time.Second, 10 * time.Second, 10300 * time.Millisecond} { // 2 s: the path is new
			for _, rate := range []float64{500e3, 880e3} {
				t.Run(fmt.Sprintf("%.0f kbit/s, %d bytes, after %v", rate/1000, queue, late), func(t *testing.T) {
					s := newShow(t, wide(), threeSizes, threeSizes)
					s.run(late)
					s.down.rate, s.down.queue = rate, queue
					s.take()
					s.run(5 * time.Second)
					for i, c := range s.cameras {
						t.Logf("picture %d stood still for %v at first", i, c.max)
						if c.max > 4*time.Second {
							t.Errorf("picture %d stood still for %v", i, c.max)
						}
					}
					paused := s.paused
					s.take()
					s.run(15 * time.Second)
					estimate, _ := s.path.Limited()
					for i, c := range s.cameras {
						t.Logf("then picture %d showed %d of 375 frames in size %d and stood still for %v; estimate %d", i, c.frames, c.size, c.max, estimate/1000)
						if c.frames < 340 || c.max > 2*time.Second {
							t.Errorf("picture %d showed %d of 375 frames and stood still for %v", i, c.frames, c.max)
						}
					}
					if paused += s.paused; paused > 0 {
						t.Errorf("pictures were paused %d times", paused)
					}
				})
			}
		}
	}
}

// A path that was narrow for a while and is wide again: all is as large as before within a few seconds. While it is narrow, looking for room
// costs few pictures.
func TestSharedLayersComeBackSoonAfterThePathIsWideAgain(t *testing.T) {
	spans := []time.Duration{5 * time.Second, 21300 * time.Millisecond}
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		spans = append(spans, 63*time.Second, 3*time.Minute)
	}
	for _, c := range []struct {
		rate   float64
		queue  int
		police bool
		within time.Duration
		shown  float64 // share of the frames of both while it is narrow
	}{
		{500e3, 11_000, false, 10 * time.Second, 0.98},
		{880e3, 5500, false, 10 * time.Second, 0.98},
		{880e3, 44_000, false, 10 * time.Second, 0.98},
		{1500e3, 11_000, false, 10 * time.Second, 0.98},
		{500e3, 11_000, true, 15 * time.Second, 0.85},
		{880e3, 5500, true, 15 * time.Second, 0.85},
		{880e3, 44_000, true, 15 * time.Second, 0.85},
		{1500e3, 11_000, true, 15 * time.Second, 0.85},
	} {
		name := "a queue"
		if c.police {
			name = "a policer"
		}
		t.Run(fmt.Sprintf("%s of %d bytes, %.0f kbit/s", name, c.queue, c.rate/1000), func(t *testing.T) {
			for _, narrow := range spans {
				s := newShow(t, wide(), threeSizes, threeSizes)
				s.run(10 * time.Second)
				s.down.rate, s.down.queue, s.down.police = c.rate, c.queue, c.police
				s.run(4 * time.Second)
				s.take()
				s.run(narrow - 4*time.Second)
				frames := float64(s.cameras[0].frames+s.cameras[1].frames) / 2 / (narrow - 4*time.Second).Seconds() * showFrame.Seconds()
				dropped, probes := s.down.dropped, s.probes
				s.down.rate, s.down.queue, s.down.police = 50e6, 1<<20, false
				took, ok := s.until(c.within, sized(2, s.cameras))
				t.Logf("narrow for %v: %.0f %% of the frames shown, %d packets dropped, %d probes; back after %v", narrow, 100*frames, dropped, probes, took)
				if !ok {
					t.Errorf("not back %v after the path is wide again", took)
				}
				if narrow > 10*time.Second && frames < c.shown {
					t.Errorf("%.0f %% of the frames were shown while it was narrow", 100*frames)
				}
			}
		})
	}
}

// What a subscriber says is more important keeps its quality longer, whatever the order; and what is less important does not stop for it.
func TestSharedLayersFollowPriority(t *testing.T) {
	for chosen := range 2 {
		s := newShow(t, wide(), threeSizes, threeSizes)
		s.cameras[chosen].priority = 10
		s.run(10 * time.Second)
		s.down.rate, s.down.queue = 880e3, 11_000
		s.run(5 * time.Second)
		s.take()
		s.run(15 * time.Second)
		more, less := s.cameras[chosen], s.cameras[1-chosen]
		if more.size != 1 || less.size != 0 || more.frames < 350 || less.frames < 350 || s.paused > 0 {
			t.Errorf("of the chosen one, number %d, %d frames of 375 are shown, now in size %d; of the other one %d in size %d", chosen, more.frames, more.size, less.frames, less.size)
		}
	}
}

// Two subscribers behind one narrow path, each looking for room.
func TestSubscribersThatLookForRoomShareAPath(t *testing.T) {
	for _, queue := range []int{20_000, 60_000} {
		down := &lane{rate: 2e6, queue: queue, delay: 15 * time.Millisecond}
		one, other := newShow(t, down, threeSizes, threeSizes), newShow(t, down, threeSizes, threeSizes)
		other.seed(7)
		together(20*time.Second, one, other)
		one.take()
		other.take()
		together(time.Minute, one, other)
		var got [2]float64
		for i, s := range []*show{one, other} {
			got[i] = float64(8*s.bytes) / 60
			for n, c := range s.cameras {
				t.Logf("queue %d: subscriber %d, picture %d: %d of 1500 frames, stood still for %v", queue, i, n, c.frames, c.max)
				if c.frames < 1350 || c.max > 4*time.Second {
					t.Errorf("subscriber %d, picture %d: %d of 1500 frames, stood still for %v", i, n, c.frames, c.max)
				}
			}
			if s.paused > 0 {
				t.Errorf("pictures of subscriber %d were paused", i)
			}
		}
		t.Logf("queue %d: %.0f and %.0f kbit/s, %d packets dropped, %d probes", queue, got[0]/1000, got[1]/1000, down.dropped, one.probes+other.probes)
		if got[0] > 2.5*got[1] || got[1] > 2.5*got[0] || got[0]+got[1] < 1e6 {
			t.Errorf("%.0f and %.0f kbit/s of 2000", got[0]/1000, got[1]/1000)
		}
	}
}
