// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync/atomic"
	"time"
)

// Bandwidth bounds the bytes a second of those that share it: a token bucket that holds one second's worth, in one word, so that
// several processors may take from it without a lock. A nil one bounds nothing.
type Bandwidth struct {
	perByte int64        // nanoseconds that a byte takes at the full rate, times 1024
	spent   atomic.Int64 // unix nanoseconds until which what was taken has used the rate up
}

// burst is how far taking may run ahead of the rate.
const burst = int64(time.Second)

// NewBandwidth makes a bound of so many payload bytes a second, both directions together; nil for none (rate <= 0).
func NewBandwidth(rate int64) *Bandwidth {
	if rate <= 0 {
		return nil
	}
	return &Bandwidth{perByte: max(1, 1024*int64(time.Second)/rate)}
}

// take tells whether n bytes may pass at the time now (unix nanoseconds), and counts them if so.
func (b *Bandwidth) take(n int, now int64) bool {
	if b == nil {
		return true
	}
	cost := int64(n) * b.perByte / 1024
	for {
		spent := b.spent.Load()
		next := max(spent, now-burst) + cost
		if next > now {
			return false
		}
		if b.spent.CompareAndSwap(spent, next) {
			return true
		}
	}
}

// giveBack undoes a take.
func (b *Bandwidth) giveBack(n int) {
	if b != nil {
		b.spent.Add(-int64(n) * b.perByte / 1024)
	}
}

// Limit makes the session share bounds; called before there is traffic.
func (s *Session) Limit(bounds ...*Bandwidth) {
	for _, b := range bounds {
		if b != nil {
			s.bounds = append(s.bounds, b)
		}
	}
}

// May tells whether n bytes may pass now under all bounds, and counts them if so.
func (s *Session) May(n int, now int64) bool {
	for i, b := range s.bounds {
		if !b.take(n, now) {
			for _, taken := range s.bounds[:i] {
				taken.giveBack(n)
			}
			return false
		}
	}
	return true
}

// within shortens a run to the frames that may pass.
func (s *Session) within(frames [][]byte) [][]byte {
	if len(s.bounds) == 0 {
		return frames
	}
	now := s.plane.now().UnixNano()
	for i, f := range frames {
		if !s.May(len(f), now) {
			s.plane.Counts.drop(DropBandwidth, len(frames)-i)
			return frames[:i]
		}
	}
	return frames
}
