// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"sync"
	"time"
)

// Constants of the estimate.
const (
	sentWindow  = 4096                   // packets remembered; a power of two
	ackWindow   = 500 * time.Millisecond // over which the throughput is measured
	floor       = 100_000                // bit/s; never estimated lower
	backoff     = 0.85                   // of the throughput, after overuse
	growth      = 0.08                   // a second, while nothing is wrong
	headroom    = 1.5                    // times the throughput: more was not seen to fit
	between     = 300 * time.Millisecond // decreases
	lossWindow  = time.Second
	lossHigh    = 0.10
	lossAnswer  = 3 * time.Second // after a decrease for loss: has it helped?
	freeAfter   = 10 * time.Second
	freeRoom    = 1.2 // times what is asked for
	listenFirst = 4 * time.Second
	listenAfter = 6 * time.Second
)

// Estimator estimates from transport-wide feedback how much a path to a client carries. Until something speaks against it, it is
// taken to carry everything (Limited is false): most paths do, and nothing need be asked of them. Times are offsets from any fixed
// start. The zero value is ready.
type Estimator struct {
	mu     sync.Mutex
	next   uint64
	packet [sentWindow]sentPacket
	trend  trend

	acks     [256]ack // ring of what arrived lately
	ackN     int
	ackBytes int

	limited   bool
	rate      float64 // bit/s
	lowered   time.Duration
	raised    time.Duration
	enough    time.Duration // since when all that is asked for fits with room to spare
	listening time.Duration // until when feedback is wanted
	started   bool

	seen, missing int // in this loss window
	lossFrom      time.Duration
	loss          float64
	noise         float64 // loss that lower rates do not cure
	lossBefore    float64
	lossAsked     time.Duration

	probe probe
}

type sentPacket struct {
	count uint64
	size  int32
	at    time.Duration
}

type ack struct {
	at   time.Duration // arrival, the receiver's clock
	size int
}

// probe is a burst above the usual rate: what arrives of it shows whether there is room.
type probe struct {
	from, to    uint64 // counts
	target      float64
	first, last time.Duration // arrivals
	size, got   int
	firstSize   int
	sent        time.Duration // when it ended
	running     bool
}

// Listening reports whether packets should carry a transport-wide number, so that the client reports on them: when the path is new,
// when it is limited, and for a while after anything suspicious. Otherwise the reports would cost both sides and tell nothing.
func (e *Estimator) Listening(now time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.listen(now)
}

func (e *Estimator) listen(now time.Duration) bool {
	if !e.started {
		e.started, e.listening = true, now+listenFirst
	}
	return e.limited || now < e.listening
}

// Suspect notes that something may be wrong with the path: losses, a longer way.
func (e *Estimator) Suspect(now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started, e.listening = true, max(e.listening, now+listenAfter)
}

// Sent gives the number of the next packet, of size bytes, and notes that it goes out now.
func (e *Estimator) Sent(size int, now time.Duration) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	e.packet[e.next%sentWindow] = sentPacket{e.next, int32(size), now}
	return uint16(e.next)
}

// Feedback takes the body of a feedback message.
func (e *Estimator) Feedback(body []byte, now time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return ReadFeedback(body, func(sequence uint16, arrival time.Duration, received bool) {
		count := e.next - uint64(uint16(e.next)-sequence)
		p := &e.packet[count%sentWindow]
		if p.count != count || count == 0 {
			return
		}
		if now-p.at < 10*time.Second {
			e.seen++
			if !received {
				e.missing++
			}
		}
		if !received {
			return
		}
		p.count = 0 // each counts once
		e.acked(int(p.size), arrival)
		e.probed(count, int(p.size), arrival)
		if s, complete := e.trend.note(p.at, arrival); complete {
			e.judge(s, now)
		}
	}) && e.losses(now)
}

// acked keeps the throughput.
func (e *Estimator) acked(size int, at time.Duration) {
	if e.ackN == len(e.acks) || e.ackN > 0 && at-e.acks[0].at > ackWindow {
		drop := 0
		for drop < e.ackN && (at-e.acks[drop].at > ackWindow || e.ackN-drop == len(e.acks)) {
			e.ackBytes -= e.acks[drop].size
			drop++
		}
		copy(e.acks[:], e.acks[drop:e.ackN])
		e.ackN -= drop
	}
	// Packets of one moment share an entry, so that the ring spans the window at any rate.
	if e.ackN > 0 && at-e.acks[e.ackN-1].at < ackWindow/128 {
		e.acks[e.ackN-1].size += size
	} else {
		e.acks[e.ackN] = ack{at, size}
		e.ackN++
	}
	e.ackBytes += size
}

// throughput is what arrived in the last window, bit/s; 0 while there is too little to say.
func (e *Estimator) throughput() float64 {
	if e.ackN < 3 {
		return 0
	}
	span := e.acks[e.ackN-1].at - e.acks[0].at
	if span < ackWindow/4 {
		return 0
	}
	return float64(8*(e.ackBytes-e.acks[0].size)) / span.Seconds()
}

// judge follows a signal of the detector.
func (e *Estimator) judge(s signal, now time.Duration) {
	switch s {
	case overuse:
		e.listening = max(e.listening, now+listenAfter)
		if t := e.throughput(); t > 0 && now-e.lowered > between {
			e.lower(backoff*t, now)
		}
	case underuse: // the queue drains: wait
		e.raised = now
	case normal:
		if !e.limited || now-e.lowered < between {
			e.raised = now
			return
		}
		dt := min(now-e.raised, time.Second).Seconds()
		e.raised = now
		if t := e.throughput(); t > 0 && e.rate < headroom*t {
			e.rate = min(e.rate*(1+growth*dt)+1000*dt, headroom*t)
		}
	}
}

func (e *Estimator) lower(to float64, now time.Duration) {
	if e.limited {
		to = min(to, e.rate)
	}
	e.limited, e.rate, e.lowered, e.raised, e.enough = true, max(floor, to), now, now, 0
}

// losses looks at a window of losses. Loss is a sign of congestion only if sending less cures it: a bad radio link loses the same
// share at any rate, and lowering the rate for it would end in a still picture for nothing.
func (e *Estimator) losses(now time.Duration) bool {
	if e.lossFrom == 0 {
		e.lossFrom = now
	}
	if now-e.lossFrom < lossWindow || e.seen < 20 {
		return true
	}
	e.loss = float64(e.missing) / float64(e.seen)
	e.seen, e.missing, e.lossFrom = 0, 0, now
	if e.lossAsked > 0 && now-e.lossAsked > lossAnswer {
		if e.loss > 0.7*e.lossBefore {
			e.noise = e.loss
		}
		e.lossAsked = 0
	}
	e.noise = min(e.noise, e.loss+0.05)
	if e.loss > lossHigh {
		e.listening = max(e.listening, now+listenAfter)
	}
	if e.loss-e.noise > lossHigh && now-e.lowered > between && e.lossAsked == 0 {
		if t := e.throughput(); t > 0 {
			e.lossBefore, e.lossAsked = e.loss, now
			e.lower(t*(1-0.5*e.loss), now)
		}
	}
	return true
}

// Limited tells the estimate in bit/s; false while nothing speaks against sending everything.
func (e *Estimator) Limited() (rate int, limited bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return int(e.rate), e.limited
}

// Loss is the share of packets that were lost lately.
func (e *Estimator) Loss() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loss
}

// Asked tells what all streams together would take, bit/s. A path that has had room for more than that for some time counts as
// unlimited again.
func (e *Estimator) Asked(rate int, now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !e.limited:
	case e.rate < freeRoom*float64(rate):
		e.enough = 0
	case e.enough == 0:
		e.enough = now
	case now-e.enough > freeAfter:
		e.limited, e.enough = false, 0
		e.listening = now + listenAfter
	}
}

// StartProbe says that what is sent from now until EndProbe is meant to reach target bit/s.
func (e *Estimator) StartProbe(target int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probe = probe{from: e.next + 1, to: 1<<64 - 1, target: float64(target), running: true}
}

// EndProbe ends the burst.
func (e *Estimator) EndProbe(now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probe.to, e.probe.sent = e.next, now
}

// probed counts what arrives of a probe.
func (e *Estimator) probed(count uint64, size int, arrival time.Duration) {
	p := &e.probe
	if !p.running || count < p.from || count > p.to {
		return
	}
	if p.got == 0 || arrival < p.first {
		p.first, p.firstSize = arrival, size
	}
	p.last = max(p.last, arrival)
	p.size += size
	p.got++
}

// ProbeResult ends a probe: whether nearly all of it came through, at its rate, so that the estimate was raised.
func (e *Estimator) ProbeResult(now time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.probe
	e.probe = probe{}
	sent := p.to - p.from + 1
	if !p.running || p.got < 5 || float64(p.got) < (0.95-e.noise)*float64(sent) || p.last <= p.first || e.lowered > p.sent {
		return false
	}
	got := float64(8*(p.size-p.firstSize)) / (p.last - p.first).Seconds()
	if got < 0.85*p.target {
		return false
	}
	e.rate = max(e.rate, min(got, p.target))
	return true
}
