// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"encoding/binary"
	"time"
)

// ReadFeedback reads the body (after the first four bytes) of a transport-wide feedback message and calls each for every packet that
// it describes, in order: when it arrived, by the receiver's clock, or that it did not. It reads at most maxDescribed packets and
// nothing beyond body; false if the message is cut short or contradicts itself.
func ReadFeedback(body []byte, each func(sequence uint16, arrival time.Duration, received bool)) bool {
	const fixed = 16 // SSRCs, base, count, reference time, message count
	if len(body) < fixed {
		return false
	}
	base, count := binary.BigEndian.Uint16(body[8:]), int(binary.BigEndian.Uint16(body[10:]))
	if count > maxDescribed {
		return false
	}
	at := time.Duration(uint32(body[12])<<16|uint32(body[13])<<8|uint32(body[14])) * refTick
	chunks := body[fixed:]
	// The deltas stand after the chunks: find their start first.
	used := 0
	for n := 0; n < count; used += 2 {
		if used+2 > len(chunks) {
			return false
		}
		n += chunkLength(binary.BigEndian.Uint16(chunks[used:]))
	}
	deltas := chunks[used:]
	left := count
	for i := 0; i < used; i += 2 {
		word := binary.BigEndian.Uint16(chunks[i:])
		for j := range min(left, chunkLength(word)) {
			received := true
			switch chunkSymbol(word, j) {
			case 1:
				if len(deltas) < 1 {
					return false
				}
				at += time.Duration(deltas[0]) * tick
				deltas = deltas[1:]
			case 2:
				if len(deltas) < 2 {
					return false
				}
				at += time.Duration(int16(binary.BigEndian.Uint16(deltas))) * tick
				deltas = deltas[2:]
			default:
				received = false
			}
			each(base, at, received)
			base++
			left--
		}
	}
	return true
}

// maxDescribed bounds what one message may describe: a run-length chunk of two bytes stands for up to 8191 packets.
const maxDescribed = 4096

// chunkLength is how many packets a status chunk describes: a run, 14 symbols of one bit, or 7 of two.
func chunkLength(word uint16) int {
	switch {
	case word&0x8000 == 0:
		return max(1, int(word&0x1FFF)) // an empty run would never end
	case word&0x4000 == 0:
		return 14
	}
	return 7
}

// chunkSymbol is the status of a chunk's i-th packet: 0 lost, 1 small delta, 2 large delta.
func chunkSymbol(word uint16, i int) uint16 {
	switch {
	case word&0x8000 == 0:
		return word >> 13 & 3
	case word&0x4000 == 0:
		return word >> (13 - i) & 1
	}
	return word >> (12 - 2*i) & 3
}
