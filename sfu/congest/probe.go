// SPDX-License-Identifier: Apache-2.0

package congest

import "time"

// probe is a burst above the usual rate: what arrives of it shows whether there is room.
type probe struct {
	from, to    uint64 // counts
	target      float64
	first, last time.Duration // arrivals
	size, got   int
	lost        int
	firstSize   int
	begun, sent time.Duration // sending it
	running     bool
	test        bool

	firstSent, lastSent time.Duration
	sentSize            int // all but the first
}

const (
	probeReached = 0.9 // of the rate of a probe has to arrive
	probeLost    = 5   // packets lost end it
)

// StartProbe says that what is sent from now until EndProbe is meant to reach target bit/s; test, that it was Doubt who asked for it.
func (e *Estimator) StartProbe(target int, test bool, now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probe = probe{from: e.next + 1, to: 1<<64 - 1, target: float64(target), begun: now, running: true, test: test}
}

// EndProbe ends the burst.
func (e *Estimator) EndProbe(now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probe.to, e.probe.sent, e.doubt.probed = e.next, now, now
}

// ProbeTold reports whether all is told of a probe that has ended, or enough of one that has not for it to be in vain.
func (e *Estimator) ProbeTold() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.probe
	if p.sent == 0 {
		return !p.test && p.lost >= probeLost && e.tooMuchLost() || e.delayed > p.begun
	}
	return uint64(p.got+p.lost) > p.to-p.from
}

// tooMuchLost reports whether the probe lost more than the path does at any rate.
func (e *Estimator) tooMuchLost() bool {
	p := &e.probe
	return float64(p.lost) > (0.05+e.loss.noise)*float64(p.got+p.lost)
}

// probed counts what is told of a probe.
func (e *Estimator) probed(count uint64, size int, arrival time.Duration, received bool) {
	p := &e.probe
	if !p.running || count < p.from || count > p.to {
		return
	}
	if !received {
		p.lost++
		return
	}
	if p.got == 0 || arrival < p.first {
		p.first, p.firstSize = arrival, size
	}
	p.last = max(p.last, arrival)
	p.size += size
	p.got++
}

// ProbeResult ends a probe: found says that what was sent came through, at its rate, so that the estimate was raised; conclusive is false
// if it says nothing, because less was sent than was meant to, or too little is known of it. Packets of which nothing was told, because
// feedback got lost, count for nothing, but half must be known.
func (e *Estimator) ProbeResult(now time.Duration) (found, conclusive bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.probe
	defer func() { e.probe = probe{} }()
	sent, told := p.to-p.from+1, p.got+p.lost
	if !p.running || told < 5 || uint64(2*told) < sent && !p.test || p.lastSent <= p.firstSent {
		if p.test {
			e.doubt.again(now)
		}
		return false, false
	}
	meant := float64(8*p.sentSize) / (p.lastSent - p.firstSent).Seconds()
	if p.test {
		return e.tested(meant, float64(p.lost)/float64(told), told, now)
	}
	if e.tooMuchLost() || p.last <= p.first || e.delayed > p.sent {
		return false, true
	}
	got := float64(8*(p.size-p.firstSize)) / (p.last - p.first).Seconds()
	if float64(told) < 0.95*float64(sent) {
		got *= float64(sent) / float64(told) // at most twice: see above
	}
	got /= 1 - min(e.loss.noise, 0.5)
	if got < probeReached*min(meant, p.target) {
		return false, true
	}
	if e.limited {
		e.rate = max(e.rate, min(got, p.target))
	}
	e.loss.reset()
	e.before.set = false
	return got >= probeReached*p.target, meant >= probeReached*p.target
}

// tested ends a test of a path that loses packets.
func (e *Estimator) tested(rate, lost float64, told int, now time.Duration) (bad, known bool) {
	d := &e.doubt
	bad, known = d.tested(rate, lost, told)
	switch {
	case bad:
		e.loss.noise = max(e.loss.noise, (d.seen.n*d.seen.loss+float64(told)*lost)/(d.seen.n+float64(told)))
		e.limited, e.rate = d.limited, max(e.rate, d.rate)
		d.open, d.unknown, d.pause, e.before.set = false, 0, 0, false
		e.loss.reset()
		e.listening = max(e.listening, now+listenAfter)
	case known:
		d.later()
	default:
		d.again(now)
	}
	return bad, known
}
