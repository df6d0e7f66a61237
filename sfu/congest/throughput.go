// SPDX-License-Identifier: Apache-2.0

package congest

import "time"

// Constants of what is measured from feedback.
const (
	rateSpan   = 500 * time.Millisecond // over which the throughput is measured
	rateLeast  = 120 * time.Millisecond // less says nothing
	carriedIn  = 450 * time.Millisecond // the last moments
	stale      = 2 * time.Second        // what is older is not counted
	stretchGap = 3 * time.Second        // a longer silence between two messages is not a stretch that was measured
)

// stretch is what one feedback message, or some that follow each other without a gap, tell about: packets from one to another.
type stretch struct {
	at             time.Duration // when it was told
	sentSpan, span time.Duration // how long sending and arriving took
	sent, got      int           // bytes
	packets, lost  int
}

func (s *stretch) add(o stretch) {
	s.at = o.at
	s.sentSpan += o.sentSpan
	s.span += o.span
	s.sent += o.sent
	s.got += o.got
	s.packets += o.packets
	s.lost += o.lost
}

// stretches keeps what was told lately. Feedback that got lost leaves a hole, which is no slowness of the path: only what was described
// is counted, against the time that it took.
type stretches struct {
	ring [16]stretch
	next int

	described          uint64        // last packet that a message told about
	lastSent, lastCame time.Duration // of the last one that arrived
}

func (t *stretches) note(s stretch) {
	t.ring[t.next] = s
	t.next = (t.next + 1) % len(t.ring)
}

// carried is what arrived in the last moments, bit/s; 0 while there is too little to say. While a queue grows, that is what the path
// carries, whereas the throughput may be no more than what there was to send before.
func (t *stretches) carried(now time.Duration) float64 { return t.arrived(now, rateLeast, carriedIn) }

// throughput is what arrived lately, bit/s; 0 while there is too little to say.
func (t *stretches) throughput(now time.Duration) float64 { return t.arrived(now, rateSpan, stale) }

// offered is what was sent lately, bit/s; 0 while there is too little to say.
func (t *stretches) offered(now time.Duration) float64 {
	bytes, span := 0, time.Duration(0)
	for i := range t.ring {
		s := &t.ring[(t.next-1-i+2*len(t.ring))%len(t.ring)]
		if s.packets == 0 || now-s.at > stale || span >= rateSpan {
			break
		}
		bytes, span = bytes+s.sent, span+s.sentSpan
	}
	if span < rateLeast {
		return 0
	}
	return float64(8*bytes) / span.Seconds()
}

// arrived is what arrived in the newest stretches that take most together and were told within age.
func (t *stretches) arrived(now, most, age time.Duration) float64 {
	bytes, span := 0, time.Duration(0)
	for i := range t.ring {
		s := &t.ring[(t.next-1-i+2*len(t.ring))%len(t.ring)]
		if s.packets == 0 || now-s.at > age || span >= most {
			break
		}
		bytes, span = bytes+s.got, span+s.span
	}
	if span < rateLeast {
		return 0
	}
	return float64(8*bytes) / span.Seconds()
}

// reading gathers a stretch while a message is read.
type reading struct {
	stretch
	first, last         uint64 // packets
	firstSent, lastSent time.Duration
	firstCame, lastCame time.Duration
	firstSize           int
	came                int
}

func (r *reading) packet(count uint64, p *sentPacket, arrival time.Duration, received bool) {
	if r.first == 0 {
		r.first = count
	}
	r.last = max(r.last, count)
	r.packets++
	r.sent += int(p.size)
	if r.packets == 1 {
		r.firstSent = p.at
	}
	r.lastSent = p.at
	if !received {
		r.lost++
		return
	}
	if r.came == 0 {
		r.firstCame, r.firstSize = arrival, int(p.size)
	}
	r.lastCame = max(r.lastCame, arrival)
	r.got += int(p.size)
	r.came++
}

// close ends the message: its spans begin where the message before ended, if nothing is missing between them; false if
// it told nothing new.
func (t *stretches) close(r *reading, now time.Duration) bool {
	if r.packets == 0 {
		return false
	}
	r.at = now
	if r.first == t.described+1 && t.lastCame > 0 && r.lastSent-t.lastSent < stretchGap && r.lastCame-t.lastCame < stretchGap {
		r.sentSpan = r.lastSent - t.lastSent
		r.span = max(0, r.lastCame-t.lastCame)
	} else {
		r.sentSpan, r.span = r.lastSent-r.firstSent, r.lastCame-r.firstCame
		r.got -= r.firstSize
		r.sent -= r.firstSize
	}
	if r.came > 0 {
		t.lastCame = r.lastCame
	}
	t.lastSent, t.described = r.lastSent, r.last
	t.note(r.stretch)
	return true
}
