// SPDX-License-Identifier: Apache-2.0

package packets

import "time"

// Limits of asking for lost packets again. Where three of ten packets are lost in each direction, half of the requests come to nothing:
// twelve leave one packet of four thousand, and browsers answer for a packet only once in what they take for a round trip.
const (
	maxLosses    = 128                     // packets asked for at a time; a larger hole needs a key frame
	lossTries    = 40                      // requests per packet
	lossSteady   = 32                      // of which so many come at an even pace; then each waits half as long again, for a path that was down
	lossPatience = 1500 * time.Millisecond // older holes are given up
	lossReorder  = 8 * time.Millisecond    // wait before the first request: it may only be late
	lossTrip     = 40 * time.Millisecond   // what a repair is taken to need before one was seen
	lossLeast    = 20 * time.Millisecond   // between requests for a packet
	lossMost     = 300 * time.Millisecond
	lossRepeats  = 16 // repaired packets that are remembered, to tell whether they come twice
)

// Losses is the list of packets of one stream that have not arrived, and when to ask for them: as often as the sender can have answered,
// which is learnt from its answers. Times are offsets from any fixed start. The zero value is ready; it is not safe for concurrent use.
type Losses struct {
	missing [maxLosses]loss
	n       int
	last    uint64
	trip    time.Duration // from a request to what it brings, smoothed; 0 while unknown

	repaired [lossRepeats]repaired // that were asked for more than once
	next     int
}

type loss struct {
	count uint64
	since time.Duration
	first time.Duration // first request
	next  time.Duration
	wait  time.Duration // between the newest request and next
	tries int
}

type repaired struct {
	count uint64
	took  time.Duration // since the first request
}

// Arrived notes the packet with extended sequence number count, and the holes before it. It reports false when more went missing than
// can be asked for.
func (l *Losses) Arrived(count uint64, now time.Duration) bool {
	if l.last == 0 || count == l.last+1 {
		l.last = count
		return true
	}
	if count <= l.last {
		for i := range l.n {
			if l.missing[i].count == count {
				l.learn(&l.missing[i], now)
				l.n--
				copy(l.missing[i:l.n], l.missing[i+1:l.n+1])
				break
			}
		}
		return true
	}
	hole := count - l.last - 1
	first := l.last + 1
	l.last = count
	if hole > uint64(maxLosses-l.n) {
		l.n = 0
		return false
	}
	for c := first; c < count; c++ {
		l.missing[l.n] = loss{count: c, since: now, next: now + lossReorder}
		l.n++
	}
	return true
}

// learn takes the time that a repair took. Which of several requests it answers cannot be known (Karn's rule), but if it comes twice, it
// was the first: see Twice.
func (l *Losses) learn(m *loss, now time.Duration) {
	switch {
	case m.tries == 1 && l.trip == 0:
		l.trip = now - m.first
	case m.tries == 1:
		l.trip += (now - m.first - l.trip) / 4
	case m.tries > 1:
		l.repaired[l.next%lossRepeats] = repaired{m.count, now - m.first}
		l.next++
	}
}

// Twice notes a packet that had arrived before. If it was asked for more than once, the first request would have done: answers take longer
// than was thought.
func (l *Losses) Twice(count uint64) {
	for i := range l.repaired {
		if r := &l.repaired[i]; r.count == count && count != 0 {
			if r.took > l.trip {
				l.trip += (r.took - l.trip) / 2
			}
			r.count = 0
			return
		}
	}
}

// pace is the time between requests for one packet.
func (l *Losses) pace() time.Duration {
	trip := l.trip
	if trip == 0 {
		trip = lossTrip
	}
	return min(max(trip+trip/4, lossLeast), lossMost)
}

// Due appends the sequence numbers to be asked for now, oldest first. It reports false when it has given up one.
func (l *Losses) Due(to []uint16, now time.Duration) ([]uint16, bool) {
	keep := 0
	for i := range l.n {
		m := l.missing[i]
		if now-m.since > lossPatience || m.tries == lossTries && now >= m.next {
			continue
		}
		if now >= m.next {
			to = append(to, uint16(m.count))
			switch {
			case m.tries == 0:
				m.first, m.wait = now, l.pace()
			case m.tries < lossSteady:
				m.wait = max(m.wait, l.pace())
			default:
				m.wait += m.wait / 2
			}
			m.next = now + m.wait
			m.tries++
		}
		l.missing[keep] = m
		keep++
	}
	whole := keep == l.n
	l.n = keep
	return to, whole
}

// Pending is the number of packets still hoped for.
func (l *Losses) Pending() int { return l.n }
