// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"math"
	"sync"
	"time"
)

// Constants of the estimate.
const (
	sentWindow  = 4096                   // packets remembered; a power of two
	floor       = 100_000                // bit/s; never estimated lower
	backoff     = 0.85                   // of the throughput, after overuse
	lossBackoff = 0.92                   // of the capacity that losses tell
	idle        = 0.7                    // of the estimate: who sends less does not fill the path
	queueFull   = 100 * time.Millisecond // with losses, a queue of that length is taken for their reason
	growth      = 0.08                   // a second, while nothing is wrong
	headroom    = 1.25                   // times the throughput: more was not seen to fit
	between     = 300 * time.Millisecond // decreases
	freeAfter   = 10 * time.Second
	freeRoom    = 1.2             // times what is asked for
	obeyWithin  = 3 * time.Second // what is sent has to follow a limit that losses set;
	obeyAgain   = time.Second     // within less, if it could not follow such a one before
	vainFor     = time.Minute
	quietFor    = 5 * time.Second         // without a queue before losses are not put down to one
	repairRoom  = 1.3                     // times what is sent, when it cannot be less
	silence     = 1500 * time.Millisecond // without word of what was sent, half of the estimate is believed, and again half after each further one
	silenceMost = 3 * time.Second         // after a longer one, what was believed before is not believed again: a probe has to find it
	listenFirst = 4 * time.Second
	listenAfter = 6 * time.Second
)

// Estimator estimates from transport-wide feedback how much a path to a client carries. Until something speaks against it, it is
// taken to carry everything (Limited is false): most paths do, and nothing need be asked of them. Times are offsets from any fixed
// start. The zero value is ready.
type Estimator struct {
	mu     sync.Mutex
	next   uint64
	packet *[sentWindow]sentPacket // made by the first packet: a path that only listens needs none
	trend  trend
	stands standing
	told   stretches
	loss   losses

	limited   bool
	rate      float64 // bit/s
	lowered   time.Duration
	delayed   time.Duration // last decrease for a queue
	raised    time.Duration
	enough    time.Duration // since when all that is asked for fits with room to spare
	obeyed    time.Duration // last time when no more than the limit was sent
	vain      time.Duration // last time when a limit was given up because it could not be obeyed
	listening time.Duration // until when feedback is wanted
	started   bool
	heard     time.Duration // last feedback
	waiting   time.Duration // since when nothing has come about what was sent; 0 if nothing was sent
	halved    time.Duration // last time that was too long

	// Before silence lowered the rate.
	spoken struct {
		rate float64 // 0 if it did not
		at   time.Duration
	}

	// Before losses lowered the rate, in case they are not cured by it.
	before struct {
		set, limited bool
		rate, loss   float64
		at           time.Duration
	}

	probe probe
	doubt doubt
}

type sentPacket struct {
	count uint64
	at    time.Duration
	ref   Ref
	size  int32
}

// Ref says what was sent under a transport-wide number: the SSRC and number of a packet, and the first two bytes of its payload, which
// on an RTX stream are the number of the packet that it repairs.
type Ref struct {
	SSRC               uint32
	Sequence, Original uint16
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
func (e *Estimator) Sent(size int, ref Ref, now time.Duration) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.packet == nil {
		e.packet = new([sentWindow]sentPacket)
	}
	if e.waiting == 0 {
		e.waiting = now
	}
	e.next++
	e.packet[e.next%sentWindow] = sentPacket{e.next, now, ref, int32(size)}
	if p := &e.probe; p.running && e.next <= p.to {
		if p.firstSent == 0 {
			p.firstSent = now
		} else {
			p.sentSize += size
		}
		p.lastSent = now
	}
	return uint16(e.next)
}

// Feedback takes the body of a feedback message; false if it is broken. told, which may be nil, hears of each packet, when it was sent and whether
// it arrived; it must not call back.
func (e *Estimator) Feedback(body []byte, now time.Duration, told func(what Ref, sent time.Duration, arrived bool)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	var r reading
	e.stands.open(now)
	ok := ReadFeedback(body, func(sequence uint16, arrival time.Duration, received bool) {
		if e.packet == nil {
			return // about packets that were never sent
		}
		count := e.next - uint64(uint16(e.next)-sequence)
		p := &e.packet[count%sentWindow]
		if p.count != count || count == 0 || now-p.at > 10*time.Second {
			return
		}
		r.packet(count, p, arrival, received)
		e.probed(count, int(p.size), arrival, received)
		if told != nil {
			told(p.ref, p.at, received)
		}
		if !received {
			return
		}
		e.stands.note(p.at, arrival)
		p.count = 0 // each counts once
		if s, complete := e.trend.note(p.at, arrival); complete {
			e.judge(s, now)
		}
	})
	if !ok {
		return false
	}
	e.heard = now
	news := e.told.close(&r, now)
	if news {
		e.spoke(&r, now)
	}
	if news && !e.probe.test && e.loss.note(r.stretch, now) { // what a test loses says nothing about what was sent before
		e.lost(now)
	}
	return true
}

// judge follows a signal of the detector.
func (e *Estimator) judge(s signal, now time.Duration) {
	switch s {
	case overuse:
		e.listening = max(e.listening, now+listenAfter)
		t := max(e.told.throughput(now), e.told.carried(now))
		if e.limited && e.told.offered(now) < idle*e.rate { // others fill the path, or one large frame did
			t = max(t, e.rate)
		}
		if t > 0 && now-e.lowered > between {
			e.lower(backoff*t, now)
			e.delayed, e.before.set = now, false
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
		if t := headroom * e.told.throughput(now) / (1 - e.loss.noise); t > 0 && e.rate < t {
			e.rate = min(e.rate*(1+growth*dt)+1000*dt, t)
		}
	}
}

func (e *Estimator) lower(to float64, now time.Duration) {
	if to = max(floor, to); !e.limited || to < 0.85*e.rate {
		e.obeyed = now // what is sent needs time to follow
	}
	if e.limited {
		to = min(to, e.rate)
	}
	e.limited, e.rate, e.lowered, e.raised, e.enough = true, to, now, now, 0
}

// lost follows an observation of losses.
func (e *Estimator) lost(now time.Duration) {
	if e.loss.share > lossNotice {
		e.listening = max(e.listening, now+listenAfter)
	}
	if t := e.told.throughput(now); e.loss.most() && t > 0 && now-e.lowered > between {
		// Whatever the reason: of that, pictures cannot be made. What was observed before the path became so explains nothing.
		e.question(now)
		e.lower(t, now)
		e.loss.reset()
		e.before.set = false
		return
	}
	if t := e.told.throughput(now); e.loss.share > lossUsual && t > 0 && e.stands.queue() > queueFull && now-e.lowered > between {
		// A queue that is full and stays so does not grow, and who shares it with others does not see them in its own rates.
		e.lower(lossBackoff*t, now)
		e.delayed, e.before.set = now, false
		return
	}
	switch c := e.loss.capacity(); {
	case e.disobeyed(now):
		// The least that there is to send is more than was thought to fit, so nothing can be learnt by sending less, and a limit that nobody
		// can obey only takes the room that repairs need. Nothing queues: it is taken for a bad path.
		e.loss.noise = max(e.loss.noise, e.loss.mean())
		e.rate = max(e.rate, repairRoom*e.loss.newest().sent)
		e.obeyed, e.vain, e.before.set = now, now, false
	case !math.IsInf(c, 1):
		to := lossBackoff * c
		if e.limited && e.rate <= c || now-e.lowered < between {
			return
		}
		if !e.before.set {
			e.before.set, e.before.limited, e.before.rate, e.before.loss, e.before.at = true, e.limited, e.rate, e.loss.share, now
		}
		if t := e.told.throughput(now); e.loss.share > lossMuch && t > 0 {
			to = min(to, t) // the observation began before the path became narrow
		}
		e.question(now)
		e.lower(to, now)
	case e.before.set && e.loss.share > lossNotice && e.loss.share > 0.7*e.before.loss: // it was not the rate: sending less has cured nothing
		e.limited, e.rate = e.before.limited, max(e.rate, e.before.rate)
		e.before.set = false
	case e.before.set && now-e.before.at > lossMemory:
		e.before.set = false
	}
}

// question has a limit that losses set tested, unless a queue is the reason.
func (e *Estimator) question(now time.Duration) {
	if e.stands.queue() <= doubtQueue {
		e.doubt.raise(e.limited, e.rate, now)
	}
}

// disobeyed reports whether more than the limit has been sent for some time, with losses but no queue.
func (e *Estimator) disobeyed(now time.Duration) bool {
	if o := e.loss.newest(); !e.limited || o.sent < 1.15*e.rate || e.delayed > 0 && now-e.delayed < quietFor {
		e.obeyed = now
	}
	within := obeyWithin
	if e.vain > 0 && now-e.vain < vainFor {
		within = obeyAgain
	}
	return now-e.obeyed > within && e.loss.mean() > lossNotice
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
	return e.loss.share
}

// Worn is the share of packets that get lost: what the path is believed to lose at any rate, or what was lost lately and no queue explains. What
// is sent again for them needs room too, or none of the pictures could be shown.
func (e *Estimator) Worn() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stands.queue() > doubtQueue {
		return e.loss.noise
	}
	return max(e.loss.noise, e.loss.lately())
}

// Repairs is the share of what is sent that may be needed to send it again: what the path is believed to lose at any rate, and while that is in
// doubt, see Doubt, most.
func (e *Estimator) Repairs() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.doubt.open && e.doubt.asked > 0 && (e.probe.test || e.heard-e.doubt.asked < doubtAgain) {
		return 1
	}
	return e.loss.noise
}

// Throughput is what arrived lately, bit/s; 0 while there is too little to say.
func (e *Estimator) Throughput() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return int(e.told.throughput(e.heard))
}

// quiet halves the estimate where nothing is heard any more of what is sent: either the path is gone, or so much goes into it that not even
// feedback comes out, and in both cases sending on as before helps nobody.
func (e *Estimator) quiet(now time.Duration) {
	if !e.limited || e.waiting == 0 || now-max(e.waiting, e.halved) < silence {
		return
	}
	if e.spoken.rate == 0 {
		e.spoken.rate, e.spoken.at = e.rate, e.waiting
	}
	e.halved, e.before.set = now, false
	e.lower(e.rate/2, now)
}

// spoke ends a silence. If it was not for long, and what was sent in it came, only the feedback was lost.
func (e *Estimator) spoke(r *reading, now time.Duration) {
	if s := &e.spoken; s.rate > 0 {
		if now-s.at < silenceMost && float64(r.lost) <= (0.05+e.loss.noise)*float64(r.packets) {
			e.rate = max(e.rate, s.rate)
		}
		s.rate = 0
	}
	e.waiting = 0
}

// Asked tells what all streams together would take, bit/s. A path that has had room for more than that for some time counts as
// unlimited again. It is called several times a second while the path is limited, and notices too if nothing is heard of the client.
func (e *Estimator) Asked(rate int, now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.quiet(now)
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
