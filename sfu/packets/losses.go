// SPDX-License-Identifier: Apache-2.0

package packets

import "time"

// Limits of asking for lost packets again.
const (
	maxLosses    = 128                   // packets asked for at a time; a larger hole needs a key frame
	lossTries    = 5                     // requests per packet
	lossPatience = 1 * time.Second       // older holes are given up
	lossReorder  = 8 * time.Millisecond  // wait before the first request: it may only be late
	lossAgain    = 40 * time.Millisecond // between requests, doubled each time
)

// Losses is the list of packets of one stream that have not arrived. Times are offsets from any fixed start. The zero value is
// ready; it is not safe for concurrent use.
type Losses struct {
	missing [maxLosses]loss
	n       int
	last    uint64
}

type loss struct {
	count uint64
	since time.Duration
	next  time.Duration
	tries int
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

// Due appends the sequence numbers to be asked for now, oldest first.
func (l *Losses) Due(to []uint16, now time.Duration) []uint16 {
	keep := 0
	for i := range l.n {
		m := l.missing[i]
		if now-m.since > lossPatience || m.tries == lossTries {
			continue
		}
		if now >= m.next {
			to = append(to, uint16(m.count))
			m.next = now + lossAgain<<m.tries
			m.tries++
		}
		l.missing[keep] = m
		keep++
	}
	l.n = keep
	return to
}

// Pending is the number of packets still hoped for.
func (l *Losses) Pending() int { return l.n }
