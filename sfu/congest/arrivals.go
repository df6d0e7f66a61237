// SPDX-License-Identifier: Apache-2.0

// Package congest is about how much a path can carry. So far it holds the receiving side: transport-wide feedback, from which a
// publisher estimates its bandwidth.
package congest

import (
	"encoding/binary"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Sizes of the feedback.
const (
	window     = 1024                   // packets remembered
	maxPackets = 400                    // described by one message
	tick       = 250 * time.Microsecond // unit of arrival times
	refTick    = 64 * time.Millisecond  // unit of the reference time
	vector     = 7                      // packets per status chunk
)

// Arrivals notes when the packets of one connection came and writes transport-wide feedback about them
// (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1). The zero value is ready; it is not safe for concurrent use.
type Arrivals struct {
	sequence packets.Sequence
	seen     [window]arrival
	next     uint64 // first packet not yet described
	last     uint64
	count    uint8 // of messages
}

type arrival struct {
	count uint64
	at    time.Duration
}

// Note takes the arrival of the packet with that transport-wide sequence number.
func (a *Arrivals) Note(sequence uint16, at time.Duration) {
	c := a.sequence.Extend(sequence)
	if a.next == 0 {
		a.next = c
	}
	a.seen[c%window] = arrival{c, at}
	a.last = max(a.last, c)
	if a.last-a.next >= window {
		a.next = a.last - window + 1
	}
}

// Pending reports whether packets wait to be described.
func (a *Arrivals) Pending() bool { return a.next != 0 && a.last >= a.next }

// Append appends a feedback message about the packets since the last one; nothing if there are none.
func (a *Arrivals) Append(to []byte, sender, media uint32) []byte {
	if !a.Pending() {
		return to
	}
	// The first one that arrived gives the reference time. Those before it are told as lost, unless they are so many that the numbers
	// have rather jumped.
	first, came := a.next, a.next
	for came < a.last && a.seen[came%window].count != came {
		came++
	}
	if came-first > maxPackets/2 {
		first = came
	}
	n := int(min(a.last-first+1, maxPackets))
	reference := a.seen[came%window].at / refTick
	start := len(to)
	to = append(to, 0x80|15, packets.TransportFB, 0, 0)
	to = binary.BigEndian.AppendUint32(to, sender)
	to = binary.BigEndian.AppendUint32(to, media)
	to = binary.BigEndian.AppendUint16(to, uint16(first))
	to = binary.BigEndian.AppendUint16(to, uint16(n))
	to = append(to, byte(reference>>16), byte(reference>>8), byte(reference), a.count)
	chunks := len(to)
	to = append(to, make([]byte, 2*((n+vector-1)/vector))...)
	before := int64(reference * (refTick / tick))
	done := 0
	for ; done < n; done++ {
		c := first + uint64(done)
		symbol := uint16(0)
		if e := a.seen[c%window]; e.count == c {
			at := int64(e.at / tick)
			delta := at - before
			if delta > 1<<15-1 || delta < -1<<15 {
				break // too far apart: the next message has its own reference
			}
			before = at
			if delta >= 0 && delta < 256 {
				symbol, to = 1, append(to, byte(delta))
			} else {
				symbol, to = 2, binary.BigEndian.AppendUint16(to, uint16(int16(delta)))
			}
		}
		i := chunks + 2*(done/vector)
		word := binary.BigEndian.Uint16(to[i:]) | 0xC000 | symbol<<(2*(vector-1-done%vector))
		binary.BigEndian.PutUint16(to[i:], word)
	}
	a.next = first + uint64(done)
	a.count++
	if done < n { // fewer chunks than there was room for
		used, room := chunks+2*((done+vector-1)/vector), chunks+2*((n+vector-1)/vector)
		to = append(to[:used], to[room:]...)
		binary.BigEndian.PutUint16(to[start+14:], uint16(done))
	}
	if pad := (4 - (len(to)-start)%4) % 4; pad > 0 {
		to[start] |= 0x20
		for range pad - 1 {
			to = append(to, 0)
		}
		to = append(to, byte(pad))
	}
	binary.BigEndian.PutUint16(to[start+2:], uint16((len(to)-start)/4-1))
	return to
}
