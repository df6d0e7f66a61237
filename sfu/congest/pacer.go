// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Constants of the pacer.
const (
	paceFactor    = 1.35 // times the estimate: a key frame's queue in the path stays short, and the frames after it find it empty
	paceBurst     = 10 * time.Millisecond
	paceLeast     = 2500                   // bytes that may go at once at any rate: a small frame
	paceWithin    = 800 * time.Millisecond // what waits goes faster rather than later than this
	repairLeast   = 1.0 / 12               // of the estimate repairs may take in any case, beyond what pictures leave; more where more is lost at random
	repairMost    = 0.5
	repairSpare   = 200 * time.Millisecond // for so long what pictures leave is saved up
	maxWaiting    = 400                    // packets of media; more than any frame that a receiver could be sent again
	littleWaiting = 8                      // so many packets of media are little, and as many as go within littleWithin, if they are no
	littleMost    = maxWaiting / 8         // more than these
	littleWithin  = 150 * time.Millisecond
	maxRepairs    = 64
	repairWaits   = 1.0 / 3                // of the estimate, for repairWithin: so much of repairs may wait
	repairWithin  = 50 * time.Millisecond  // a repair that would come later is asked for again before: browsers do every 20 ms
	repairStale   = 100 * time.Millisecond // and one that waited for as long is not sent
)

// Pacer spreads what goes to one path that does not carry everything over time, so that a key frame is not lost where the path is
// narrow: at 1.35 times the estimate, faster only if it would take longer than paceWithin. Repairs go first, but only into what
// pictures leave of the estimate itself, or a path that is full would stay full of repairs of what they made it lose. Sound does not come
// here: it never waits.
//
// Both queues are bounded. A repair that could not go soon is dropped: it will be asked for again, and if it waited, the queue would fill
// with the same packets many times over, each too late. Media that finds no room is dropped too, and its sender has to drop what follows up
// to the next key frame, which it asks for when Room says that there is room for it.
//
// It is safe for concurrent use and allocates only until its queues have been as long as they get.
type Pacer struct {
	mu      sync.Mutex
	rate    float64 // bytes a second; 0 for no limit
	debt    float64 // bytes sent ahead of time
	repairs float64 // the same, of repairs at the estimate
	sure    float64 // and at the share they have in any case,
	least   float64 // which is this
	eager   bool    // repairs always go
	total   float64 // of everything at the estimate itself; less than 0 where there is something to spare
	settled time.Duration
	media   queue
	repair  queue
	free    *waiting
	bytes   int // of media that waits
}

// waiting is a packet that waits, without its transport-wide number and seal, which it gets when it goes.
type waiting struct {
	next   *waiting
	size   int
	roc    uint32
	number int
	since  time.Duration
	bytes  [packets.MaxSize]byte
}

type queue struct {
	first, last *waiting
	n           int
}

// Follow sets the rate to the estimate, in bit/s; 0 for no limit. noise is the share of packets that get lost at any rate: for those there is
// room even if pictures take all of the estimate, as none of them could be shown otherwise. Where it is 1, repairs always go.
func (p *Pacer) Follow(estimate int, noise float64, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(now)
	p.rate = paceFactor * float64(estimate) / 8
	p.least = max(repairLeast, min(repairMost, noise/(1-min(noise, 0.5))))
	p.eager = noise == 1
}

// settle lets time pay the debts. The caller holds mu.
func (p *Pacer) settle(now time.Duration) {
	d := now - p.settled
	if d <= 0 {
		return
	}
	p.settled = now
	paid := p.pace() * d.Seconds()
	if p.rate == 0 {
		p.debt, p.repairs, p.sure, p.total = 0, 0, 0, 0
		return
	}
	estimate := p.rate / paceFactor
	p.debt = max(0, p.debt-paid)
	p.repairs = max(0, p.repairs-estimate*d.Seconds())
	p.sure = max(0, p.sure-p.least*estimate*d.Seconds())
	p.total = max(-estimate*repairSpare.Seconds(), p.total-estimate*d.Seconds())
}

// pace is the rate that holds now.
func (p *Pacer) pace() float64 { return max(p.rate, float64(p.bytes)/paceWithin.Seconds()) }

// burst is how much may go ahead of time.
func (p *Pacer) burst() float64 { return max(paceLeast, p.rate*paceBurst.Seconds()) }

func (p *Pacer) mediaDue() bool { return p.rate == 0 || p.debt < p.burst() }
func (p *Pacer) repairDue() bool {
	return p.eager || p.mediaDue() && (p.rate == 0 || p.total < 0 && p.repairs < p.burst() || p.sure == 0)
}

func (p *Pacer) charge(size int, repair bool) {
	if p.rate == 0 {
		return
	}
	p.debt += float64(size)
	p.total = min(p.total+float64(size), p.rate) // a burst is forgotten after a while
	if repair {
		p.repairs += float64(size)
		p.sure = min(p.sure+float64(size), p.least*p.rate) // a second of them
	}
}

// repairRoom is how many bytes of repairs may wait.
func (p *Pacer) repairRoom() float64 {
	return repairWaits * p.rate / paceFactor * repairWithin.Seconds()
}

// Hold takes a packet that is ready but for its transport-wide number, which belongs at number, and its seal, for which roc is needed.
// It keeps a copy if the packet has to wait; full says that it has been dropped. If it is neither, the caller sends it now. first says
// that nothing waited before it: somebody has to call Next from now on.
func (p *Pacer) Hold(b []byte, roc uint32, number int, repair bool, now time.Duration) (held, full, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(now)
	q, most := &p.media, maxWaiting
	if repair {
		q, most = &p.repair, maxRepairs
	}
	if q.n == 0 && (repair && p.repairDue() || !repair && p.mediaDue()) {
		p.charge(len(b), repair)
		return false, false, false
	}
	if repair && q.has(b) {
		return true, false, false // the same is about to go
	}
	if q.n == most || len(b) > packets.MaxSize || repair && q.n > 0 && float64((q.n+1)*len(b)) > p.repairRoom() {
		return false, true, false
	}
	first = p.media.n+p.repair.n == 0
	w := p.free
	if w == nil {
		w = &waiting{}
	} else {
		p.free = w.next
	}
	w.size, w.roc, w.number, w.since = copy(w.bytes[:], b), roc, number, now
	q.put(w)
	if !repair {
		p.bytes += w.size
	}
	return true, false, first
}

// Next gives the next packet that is due, copied to to, which has room for the largest; 0 if none is due. left reports whether others
// wait.
func (p *Pacer) Next(to []byte, now time.Duration) (n int, roc uint32, number int, left bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(now)
	q := &p.repair
	for q.n > 0 && now-q.first.since > repairStale {
		w := q.take()
		w.next, p.free = p.free, w
	}
	repair := q.n > 0 && p.repairDue()
	if !repair {
		q = &p.media
		if q.n == 0 || !p.mediaDue() {
			return 0, 0, 0, p.media.n+p.repair.n > 0
		}
	}
	w := q.take()
	if !repair {
		p.bytes -= w.size
	}
	p.charge(w.size, repair)
	n, roc, number = copy(to, w.bytes[:w.size]), w.roc, w.number
	w.next, p.free = p.free, w
	return n, roc, number, p.media.n+p.repair.n > 0
}

// Room reports whether there is room for a key frame: little waits.
func (p *Pacer) Room() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.media.n <= littleWaiting || p.media.n <= littleMost && float64(p.bytes) <= p.rate*littleWithin.Seconds()
}

// Drop forgets what waits of the streams with these SSRCs.
func (p *Pacer) Drop(ssrc, rtx uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range []*queue{&p.media, &p.repair} {
		all := q.first
		*q = queue{}
		for w := all; w != nil; w = all {
			all = w.next
			if of := binary.BigEndian.Uint32(w.bytes[8:]); of == ssrc || of == rtx {
				if q == &p.media {
					p.bytes -= w.size
				}
				w.next, p.free = p.free, w
				continue
			}
			q.put(w)
		}
	}
}

// take takes the first one out; there must be one.
func (q *queue) take() *waiting {
	w := q.first
	if q.first = w.next; q.first == nil {
		q.last = nil
	}
	q.n--
	return w
}

// has reports whether a repair of the packet that b repairs waits already: on an RTX stream, the payload begins with its number.
func (q *queue) has(b []byte) bool {
	at := packets.HeaderLength(b)
	if at+2 > len(b) {
		return false
	}
	for w := q.first; w != nil; w = w.next {
		i := packets.HeaderLength(w.bytes[:w.size])
		if i+2 <= w.size && [4]byte(w.bytes[8:]) == [4]byte(b[8:]) && [2]byte(w.bytes[i:]) == [2]byte(b[at:]) {
			return true
		}
	}
	return false
}

func (q *queue) put(w *waiting) {
	w.next = nil
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.n++
}

// Idle reports whether there is no limit and nothing waits: the pacer is of no more use.
func (p *Pacer) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate == 0 && p.media.n+p.repair.n == 0
}

// Waiting is how many packets wait.
func (p *Pacer) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.media.n + p.repair.n
}
