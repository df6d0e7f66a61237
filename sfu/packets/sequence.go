// SPDX-License-Identifier: Apache-2.0

package packets

// Newer reports whether sequence number a comes after b, modulo 2^16 (RFC 1982: at most half a turn ahead).
func Newer(a, b uint16) bool { return a != b && a-b < 1<<15 }

// NewerTimestamp is Newer for RTP timestamps, modulo 2^32.
func NewerTimestamp(a, b uint32) bool { return a != b && a-b < 1<<31 }

// Sequence turns 16-bit sequence numbers into a count that never wraps. The zero value is ready.
type Sequence struct {
	last    uint64
	started bool
}

// Extend gives the count of sn: the one nearest to the newest number seen. The first number is counted from 2^16, so that packets
// that arrive before it still have a count above zero.
func (s *Sequence) Extend(sn uint16) uint64 {
	if !s.started {
		s.started = true
		s.last = 1<<16 | uint64(sn)
		return s.last
	}
	count := s.last + uint64(int64(int16(sn-uint16(s.last))))
	if count > s.last {
		s.last = count
	}
	return count
}

// Last is the highest count seen; false before the first.
func (s *Sequence) Last() (uint64, bool) { return s.last, s.started }
