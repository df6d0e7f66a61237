// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"math"
	"time"
)

// Constants of the judgement of losses.
const (
	lossSpan    = 500 * time.Millisecond // an observation takes at least as long
	lossPackets = 20                     // and that many packets,
	lossLongest = 2 * time.Second        // unless so much time has passed
	lossMemory  = 12 * time.Second
	lossMuch    = 0.25    // with this much lost, no more than what arrives is believed to fit
	lossMost    = 0.5     // with this much lost, that is believed at once
	lossNotice  = 0.02    // less than this needs no explanation
	lossUsual   = 0.05    // a path may lose that much at any rate before other explanations are sought
	lossWeight  = 25      // observed packets count as no more than this many: losses come in bursts, not one by one
	lossDoubt   = 60.0    // log likelihood that a unit of loss beyond the usual costs, if the path is to blame and not the rate
	lossShy     = 10.0    // and a unit of what is usual
	lossTie     = 1.0     // log likelihood within which no limit is believed
	lossWorn    = 20.0    // and more, for a unit of what it loses at any rate: by chance some observations look worse
	lossNarrow  = 12.0    // log likelihood that a path costs for each time that its capacity is half of
	lossCommon  = 300_000 // bit/s: narrower ones are rare, while a small picture over a bad one is not
)

// observation is what became of what was sent in a while.
type observation struct {
	at   time.Duration
	sent float64 // bit/s
	loss float64
	n    float64 // packets that it counts for
}

// worse reports whether more was lost than in p, by more than chance explains.
func (o *observation) worse(p *observation) bool {
	mean := (o.n*o.loss + p.n*p.loss) / (o.n + p.n)
	return o.loss-p.loss > math.Max(0.05, 2.5*math.Sqrt(mean*(1-mean)*(1/o.n+1/p.n)))
}

// losses explains the losses of a path. A path that is too narrow and a path that is bad look the same at one rate: a share is lost.
// They differ in what happens at another rate. So the newest observations are compared with what paths of different capacities and
// with different shares of random loss would have done with them, and the likeliest one is believed; the random share that was found
// once is remembered. A bad radio link is so not starved for losses that lower rates do not cure, and a policer, which drops and does
// not delay, is found.
type losses struct {
	ring  [24]observation
	n     int
	open  stretch // the next observation
	share float64 // lost at the newest one,
	was   float64 // and at the one before
	noise float64 // random share that is believed
}

// note takes a stretch; it reports whether an observation is complete.
func (l *losses) note(s stretch, now time.Duration) bool {
	l.open.add(s)
	o := &l.open
	if o.sentSpan < lossSpan || o.packets < lossPackets && o.sentSpan < lossLongest {
		return false
	}
	l.was, l.share = l.share, float64(o.lost)/float64(o.packets)
	if l.n == len(l.ring) {
		copy(l.ring[:], l.ring[1:])
		l.n--
	}
	l.ring[l.n] = observation{now, float64(8*o.sent) / o.sentSpan.Seconds(), l.share, math.Min(lossWeight, float64(o.packets))}
	l.n++
	l.open = stretch{}
	l.forget(now)
	return true
}

// forget drops what is old, and what the newest observation disproves: more came through now than the path was thought to carry, so it
// has become wider.
func (l *losses) forget(now time.Duration) {
	last := l.ring[l.n-1]
	carried := last.sent * (1 - last.loss)
	kept := 0
	for i, o := range l.ring[:l.n] {
		narrow := o.worse(&last) && o.sent*(1-o.loss) < 0.85*carried
		if i == l.n-1 || now-o.at < lossMemory && !narrow {
			l.ring[kept] = o
			kept++
		}
	}
	l.n = kept
}

// most reports whether more than half was lost at last, and more than chance makes of what was lost before.
func (l *losses) most() bool {
	o := l.newest()
	before := l.noise
	if n := l.n - 1; n > 0 {
		share, count := 0.0, 0.0
		for _, p := range l.ring[:n] {
			share, count = share+p.n*p.loss, count+p.n
		}
		before = math.Max(before, share/count)
	}
	return o.loss > lossMost && o.loss-before > 3*math.Sqrt(o.loss*(1-o.loss)/o.n)
}

// newest is the newest observation; there must be one.
func (l *losses) newest() *observation { return &l.ring[l.n-1] }

// lately is the share that was lost in the newest observation, and if that was not much also in the one before; half at most. It is nothing if it
// becomes less: what was done about it helps.
func (l *losses) lately() float64 {
	share := l.share
	switch {
	case l.was > 1.5*share:
		return 0
	case share < lossMuch:
		share = math.Min(share, l.was)
	}
	if share < lossUsual {
		return 0
	}
	return math.Min(share, 0.5)
}

// mean is the share that was lost in all observations.
func (l *losses) mean() float64 {
	share, _ := l.meanBelow(math.Inf(1))
	return share
}

// meanBelow is the share that was lost while less than rate was sent, and for how many packets it stands.
func (l *losses) meanBelow(rate float64) (share, n float64) {
	for _, o := range l.ring[:l.n] {
		if o.sent < rate {
			share, n = share+o.n*o.loss, n+o.n
		}
	}
	return share / math.Max(1, n), n
}

// reset forgets everything but the random share: the path was shown to be wider.
func (l *losses) reset() { l.n, l.open = 0, stretch{} }

// capacity is the likeliest capacity of the path by its losses, bit/s; infinite if they do not speak for one.
func (l *losses) capacity() float64 {
	worst, low, high := 0.0, math.Inf(1), 0.0
	for _, o := range l.ring[:l.n] {
		worst = math.Max(worst, o.loss)
		low, high = math.Min(low, o.sent*(1-o.loss)), math.Max(high, o.sent)
	}
	if worst < lossNotice {
		l.noise = math.Min(l.noise, worst+lossNotice)
		return math.Inf(1)
	}
	const steps = 24
	ratio := 1.0
	low = math.Max(low, math.Max(high/100, floor)) // the estimate is never lower
	if low > high {
		low = high
	}
	if low > 0 {
		ratio = math.Pow(high/low, 1.0/steps)
	}
	var score, share [steps + 1]float64
	best := math.Inf(-1)
	for i := range score {
		c := low * math.Pow(ratio, float64(i))
		if i == steps {
			c = math.Inf(1)
		}
		score[i], share[i] = l.explain(c)
		best = math.Max(best, score[i])
	}
	if score[steps] >= best-lossTie-lossWorn*l.noise {
		if l.n > 1 {
			l.noise = share[steps]
		}
		return math.Inf(1)
	}
	at := 0
	for i := range steps {
		if score[i] > score[at] {
			at = i
		}
	}
	c := low * math.Pow(ratio, float64(at))
	if below, n := l.meanBelow(0.9 * c); n >= lossWeight {
		l.noise = math.Min(l.noise, below+lossNotice)
	}
	return c
}

// explain gives the log likelihood of what was observed if the path carried c bit/s, and the random share that goes with it best.
func (l *losses) explain(c float64) (score, share float64) {
	score = math.Inf(-1)
	narrow := lossNarrow * math.Max(0, math.Log2(lossCommon/c))
	for _, p := range [...]float64{0.002, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.14, 0.18, 0.23, 0.28, 0.34, 0.4, 0.5, 0.6, 0.75, 0.9} {
		s := -lossShy*math.Max(0, p-l.noise) - lossDoubt*math.Max(0, p-math.Max(l.noise+lossNotice, lossUsual)) - narrow
		for _, o := range l.ring[:l.n] {
			q := p
			if o.sent > c {
				q += (1 - p) * (1 - c/o.sent)
			}
			s += likelihood(o.loss, o.n, q)
		}
		if s > score {
			score, share = s, p
		}
	}
	return score, share
}

// likelihood is the log likelihood that a share of n packets is lost where each is with probability p.
func likelihood(share, n, p float64) float64 {
	p = math.Min(0.99, math.Max(0.005, p))
	return n * (share*math.Log(p) + (1-share)*math.Log(1-p))
}
