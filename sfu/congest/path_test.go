// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// road is a path in virtual time, shared by some senders: a bottleneck with a queue that drops what does not fit (drop-tail) or a
// policer that has none, random loss, jitter, and a way back for feedback that may lose it too.
type road struct {
	r   *rand.Rand
	now time.Duration

	rate     float64       // bit/s
	queue    int           // bytes
	police   bool          // drop what is above the rate; queue is the bucket's size
	loss     float64       // random
	jitter   time.Duration // at most
	delay    time.Duration // each way
	lostBack float64       // feedback

	backlog, level float64 // bytes in the queue; bytes that the policer lets through
	senders        []*sender
	dropped        int
	longest        time.Duration // that a packet waited
}

// sender is a stream of pictures that follows the estimate, and its receiver.
type sender struct {
	road     *road
	e        Estimator
	pacer    *Pacer  // nil: frames go out in one burst
	most     float64 // bit/s that it has to send
	fixed    bool    // it cannot send less: the smallest layer
	keyEvery int     // frames; 0 for no key frames but what comes
	frame    int
	debt     float64
	flying   []flight
	arrivals Arrivals
	fed      time.Duration
	back     []report
	received int // bytes
	low, max float64
	paced    [1500]byte
}

type flight struct {
	sequence uint16
	size     int
	at       time.Duration
}

type report struct {
	at   time.Duration
	body []byte
}

func newRoad(rate float64, most ...float64) *road {
	d := &road{r: rand.New(rand.NewPCG(3, 4)), now: time.Second, rate: rate, queue: int(rate / 8 * 0.3), delay: 20 * time.Millisecond}
	d.level = float64(d.queue)
	for i, m := range most {
		d.senders = append(d.senders, &sender{road: d, most: m, fed: time.Duration(i) * 17 * time.Millisecond, frame: 11 * i})
	}
	return d
}

// enter takes a packet into the bottleneck; false if it is dropped, else when it comes out.
func (d *road) enter(size int) (time.Duration, bool) {
	if d.r.Float64() < d.loss {
		return 0, false
	}
	wait := time.Duration(0)
	if d.police {
		if d.level < float64(size) {
			d.dropped++
			return 0, false
		}
		d.level -= float64(size)
	} else {
		if d.backlog+float64(size) > float64(d.queue) {
			d.dropped++
			return 0, false
		}
		d.backlog += float64(size)
		wait = time.Duration(d.backlog * 8 / d.rate * float64(time.Second))
		d.longest = max(d.longest, wait)
	}
	if d.jitter > 0 {
		wait += time.Duration(d.r.Int64N(int64(d.jitter)))
	}
	return d.now + d.delay + wait, true
}

// run lets time pass, a millisecond at a time.
func (d *road) run(span time.Duration) {
	const step = time.Millisecond
	for end := d.now + span; d.now < end; d.now += step {
		bytes := d.rate / 8 * step.Seconds()
		d.backlog = max(0, d.backlog-bytes)
		d.level = min(float64(d.queue), d.level+bytes)
		for i := range d.senders {
			d.senders[(i+int(d.now/step))%len(d.senders)].step()
		}
	}
}

func (s *sender) wants() float64 {
	if rate, limited := s.e.Limited(); limited && !s.fixed {
		return min(s.most, float64(rate))
	}
	return s.most
}

func (s *sender) step() {
	d := s.road
	if (d.now/time.Millisecond)%33 == 0 {
		s.frame++
		s.debt += s.wants() / 8 * 0.033
		size := s.debt
		if s.keyEvery > 0 && s.frame%s.keyEvery == 0 {
			size *= 8
		}
		s.debt -= size // the frames after a key frame are smaller
		if s.debt < -s.wants()/8 {
			s.debt = -s.wants() / 8
		}
		for ; size > 0; size -= 1150 {
			s.packet(max(60, min(1150, int(size))))
		}
	}
	if s.pacer != nil && (d.now/time.Millisecond)%5 == 0 {
		rate, _ := s.e.Limited()
		s.pacer.Follow(rate, 0, d.now)
		for {
			n, _, _, _ := s.pacer.Next(s.paced[:], d.now)
			if n == 0 {
				break
			}
			s.send(n)
		}
	}
	s.hear()
	if s.low == 0 || s.wants() < s.low {
		s.low = s.wants()
	}
	s.max = max(s.max, s.wants())
}

func (s *sender) packet(size int) {
	if s.pacer != nil {
		if held, full, _ := s.pacer.Hold(s.paced[:size], 0, 0, false, s.road.now); held || full {
			return
		}
	}
	s.send(size)
}

func (s *sender) send(size int) {
	sequence := s.e.Sent(size, Ref{}, s.road.now)
	if at, ok := s.road.enter(size); ok {
		if n := len(s.flying); n > 0 {
			at = max(at, s.flying[n-1].at)
		}
		s.flying = append(s.flying, flight{sequence, size, at})
	}
}

// hear is the receiver's part and the way back.
func (s *sender) hear() {
	d := s.road
	for len(s.flying) > 0 && s.flying[0].at <= d.now {
		s.arrivals.Note(s.flying[0].sequence, s.flying[0].at)
		s.received += s.flying[0].size
		s.flying = s.flying[1:]
	}
	if d.now-s.fed >= 100*time.Millisecond && s.arrivals.Pending() {
		s.fed = d.now
		b := s.arrivals.Append(nil, 1, 2)[4:]
		if d.r.Float64() >= d.lostBack {
			s.back = append(s.back, report{d.now + d.delay, b})
		}
	}
	for len(s.back) > 0 && s.back[0].at <= d.now {
		s.e.Feedback(s.back[0].body, d.now, nil)
		s.back = s.back[1:]
	}
}

// measure lets time pass and gives what each sender got through in it, bit/s.
func (d *road) measure(span time.Duration) (rates []float64) {
	for _, s := range d.senders {
		s.received, s.low, s.max = 0, 0, 0
	}
	d.dropped, d.longest = 0, 0
	d.run(span)
	for _, s := range d.senders {
		rates = append(rates, float64(8*s.received)/span.Seconds())
	}
	return rates
}

func TestSendersFindWhatAPathCarries(t *testing.T) {
	for _, rate := range []float64{300e3, 1e6, 4e6} {
		for name, change := range map[string]func(*road){
			"a queue of 300 ms":          func(*road) {},
			"a queue of 50 ms":           func(d *road) { d.queue = max(5000, int(d.rate/8*0.05)) },
			"a queue of a second":        func(d *road) { d.queue = int(d.rate / 8) },
			"a policer":                  func(d *road) { d.police, d.queue = true, max(5000, int(d.rate/8*0.1)) },
			"a far one":                  func(d *road) { d.delay = 150 * time.Millisecond },
			"jitter":                     func(d *road) { d.jitter = 30 * time.Millisecond },
			"3 % random loss":            func(d *road) { d.loss = 0.03 },
			"half the feedback":          func(d *road) { d.lostBack = 0.5 },
			"policer, half the feedback": func(d *road) { d.police, d.queue, d.lostBack = true, max(5000, int(d.rate/8*0.1)), 0.5 },
			"key frames":                 func(d *road) { d.senders[0].keyEvery = 90 },
		} {
			t.Run(fmt.Sprintf("%s at %.0f kbit/s", name, rate/1000), func(t *testing.T) {
				d := newRoad(rate, 3*rate)
				change(d)
				d.run(10 * time.Second)
				got := d.measure(20 * time.Second)
				s := d.senders[0]
				share := got[0] / rate
				t.Logf("%.0f %% of it used, estimate from %.2f to %.2f, %d packets dropped, longest wait %v", 100*share, s.low/rate, s.max/rate, d.dropped, d.longest)
				if share < 0.6 || share > 1.02 || s.max > 1.5*rate {
					t.Errorf("%.0f %% used", 100*share)
				}
			})
		}
	}
}

// A key frame of eight frames' size over a path whose queue holds less than it: in one burst much of it is lost, paced it is not.
func TestPacedKeyFramesFitAShortQueue(t *testing.T) {
	dropped := map[bool]int{}
	for _, paced := range []bool{false, true} {
		d := newRoad(1e6, 800e3)
		d.queue = 15_000
		s := d.senders[0]
		s.keyEvery = 60
		s.e.limited, s.e.rate = true, 900e3 // as it is known already
		if paced {
			s.pacer = &Pacer{}
		}
		got := d.measure(30 * time.Second)
		dropped[paced] = d.dropped
		t.Logf("paced %v: %d packets dropped, %.0f kbit/s, longest wait %v, estimate from %.0f", paced, d.dropped, got[0]/1000, d.longest, s.low/1000)
		if paced && (got[0] < 600e3 || s.low < 500e3) {
			t.Errorf("%.0f kbit/s, estimate from %.0f", got[0]/1000, s.low/1000)
		}
	}
	if dropped[false] < 50 || dropped[true] > dropped[false]/10 {
		t.Errorf("%d packets dropped, %d paced", dropped[false], dropped[true])
	}
}

func TestTwoSendersShareAPath(t *testing.T) {
	for name, change := range map[string]func(*road){
		"together": func(*road) {},
		"one comes later": func(d *road) {
			late := d.senders[1]
			d.senders = d.senders[:1]
			d.run(15 * time.Second)
			d.senders = append(d.senders, late)
		},
		"a policer": func(d *road) { d.police, d.queue = true, 20000 },
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(2e6, 3e6, 3e6)
			change(d)
			d.run(20 * time.Second)
			got := d.measure(40 * time.Second)
			t.Logf("%.0f and %.0f kbit/s, %d dropped", got[0]/1000, got[1]/1000, d.dropped)
			if got[0]+got[1] < 1.2e6 || got[0] > 2*got[1] || got[1] > 2*got[0] {
				t.Errorf("%.0f and %.0f kbit/s of 2000", got[0]/1000, got[1]/1000)
			}
			if d.dropped > 400 { // of 8700; a queue that is full and stays so is noticed
				t.Errorf("%d packets dropped", d.dropped)
			}
		})
	}
}

func TestABadPathThatIsWideIsNotStarved(t *testing.T) {
	for _, loss := range []float64{0.02, 0.1, 0.2, 0.3} {
		d := newRoad(20e6, 2e6)
		d.loss = loss
		d.run(5 * time.Second)
		got := d.measure(60 * time.Second)
		s := d.senders[0]
		t.Logf("%.0f %% lost: %.0f kbit/s arrive, estimate from %.0f", 100*loss, got[0]/1000, s.low/1000)
		if got[0] < 0.8*(1-loss)*2e6 {
			t.Errorf("%.0f %% lost: %.0f kbit/s arrive of 2000", 100*loss, got[0]/1000)
		}
	}
}

// A few small pictures that cannot be smaller, over a bad path with room for much more: the losses would fit a path that carries
// seven tenths of them just as well, as nothing else is ever sent. If that were believed for long, there would be no room for repairs.
func TestSmallPicturesOverABadPathKeepRoomForRepairs(t *testing.T) {
	runs, sum := 0, 0
	for _, most := range []float64{60e3, 130e3, 300e3, 700e3} {
		for _, loss := range []float64{0.1, 0.2, 0.3} {
			for seed := range uint64(4) {
				d := newRoad(20e6, most)
				d.r = rand.New(rand.NewPCG(seed, 9))
				d.loss, d.lostBack = loss, loss
				s := d.senders[0]
				s.fixed = true
				tight, needed := 0, most/(1-loss)
				for range 300 {
					d.run(100 * time.Millisecond)
					if rate, limited := s.e.Limited(); limited && paceFactor*float64(rate) < needed {
						tight++
					}
				}
				runs, sum = runs+1, sum+tight
				if tight > 250 {
					t.Errorf("%.0f kbit/s, %.0f %% lost: too narrow for %.1f s of 30", most/1000, 100*loss, float64(tight)/10)
				}
			}
		}
	}
	mean := float64(sum) / float64(10*runs)
	t.Logf("too narrow for %.1f s of 30 on average", mean)
	if mean > 5 {
		t.Errorf("too narrow for %.1f s of 30 on average", mean)
	}
}
