// SPDX-License-Identifier: Apache-2.0

// Package limit refuses what comes too often: token buckets by operation and key.
//
// An operation is a word of the program ("login", "invite", "message"), a key is whoever is counted: a user, an address, a pair
// of users. A bucket is one instant, not a counter: the time at which it will be full again (the generic cell rate algorithm).
// A request moves that instant one interval further; it is refused when that would be more than a burst away from now. So nothing
// has to be refilled, and a bucket whose instant has passed says nothing and can be forgotten.
//
// Memory is bounded: each operation keeps at most a set number of buckets of fixed size (keys are hashed with a secret seed). When
// a new key comes and all are taken, the bucket that has been quiet for longest is forgotten; its owner starts with a full burst.
package limit

import (
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// DefaultMaxKeys is how many buckets an operation keeps when New is told 0. A bucket takes about 100 bytes.
const DefaultMaxKeys = 100_000

// Rate is how often something may happen. The zero Rate means as often as one likes.
type Rate struct {
	PerSecond float64 // lasting rate; 0 or less = unlimited
	Burst     int     // how many at once after a rest; less than 1 counts as 1
}

// Limiter counts requests by operation and key. It is safe for concurrent use.
type Limiter struct {
	clock signalling.Clock
	start time.Time
	seed  maphash.Seed
	ops   map[string]*operation // never written after New
}

// operation holds the buckets of one operation, ordered from the longest quiet to the latest used.
type operation struct {
	interval time.Duration // one request's worth of time
	slack    time.Duration // (burst-1) intervals
	max      int

	mu      sync.Mutex
	buckets map[uint64]*bucket
	ring    bucket // ring.next is the longest quiet
}

type bucket struct {
	key        uint64
	full       time.Duration // since Limiter.start: when the bucket will be full again
	prev, next *bucket
}

// New makes a Limiter from rates by operation; an operation without an entry, or with a zero Rate, is unlimited. maxKeys bounds
// the buckets of each operation; 0 means DefaultMaxKeys.
func New(clock signalling.Clock, rates map[string]Rate, maxKeys int) *Limiter {
	if maxKeys <= 0 {
		maxKeys = DefaultMaxKeys
	}
	l := &Limiter{clock: clock, start: clock.Now(), seed: maphash.MakeSeed(), ops: make(map[string]*operation, len(rates))}
	for name, rate := range rates {
		if rate.PerSecond <= 0 || math.IsNaN(rate.PerSecond) || math.IsInf(rate.PerSecond, 1) {
			continue
		}
		// A year is long enough for a limit, and keeps burst times interval far from overflowing.
		const longest = 365 * 24 * time.Hour
		interval := min(float64(time.Second)/rate.PerSecond, float64(longest))
		op := &operation{
			interval: max(1, time.Duration(interval)),
			slack:    time.Duration(min(interval*float64(max(rate.Burst, 1)-1), float64(longest))),
			max:      maxKeys,
			buckets:  make(map[uint64]*bucket),
		}
		op.ring.prev, op.ring.next = &op.ring, &op.ring
		l.ops[name] = op
	}
	return l
}

// Allow counts one request of op by key. When it must wait, ok is false, nothing is counted, and retryAfter says how long.
func (l *Limiter) Allow(op, key string) (ok bool, retryAfter time.Duration) {
	o := l.ops[op]
	if o == nil {
		return true, 0
	}
	return o.allow(maphash.String(l.seed, key), l.clock.Now().Sub(l.start))
}

// Check is Allow for callers that answer with an error: 429 M_LIMIT_EXCEEDED with retry_after_ms, or nil.
func (l *Limiter) Check(op, key string) error {
	if ok, after := l.Allow(op, key); !ok {
		// Rounded up, so that a client that waits exactly so long is let in.
		return signalling.LimitExceeded(after.Truncate(time.Millisecond) + time.Millisecond)
	}
	return nil
}

// Size is the number of buckets of op in memory.
func (l *Limiter) Size(op string) int {
	o := l.ops[op]
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.buckets)
}

func (o *operation) allow(key uint64, now time.Duration) (bool, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Two steps of tidying for each request are enough to outrun the one bucket that it may add.
	for range 2 {
		if b := o.ring.next; b != &o.ring && b.full <= now {
			o.forget(b)
		}
	}
	b := o.buckets[key]
	full := now
	if b != nil {
		full = max(full, b.full)
	}
	if wait := full - now - o.slack; wait > 0 {
		return false, wait
	}
	if b == nil {
		if len(o.buckets) >= o.max {
			o.forget(o.ring.next)
		}
		b = &bucket{key: key}
		o.buckets[key] = b
	} else {
		b.unlink()
	}
	b.full = full + o.interval
	b.prev, b.next = o.ring.prev, &o.ring
	b.prev.next, b.next.prev = b, b
	return true, 0
}

func (o *operation) forget(b *bucket) {
	b.unlink()
	delete(o.buckets, b.key)
}

func (b *bucket) unlink() {
	b.prev.next, b.next.prev = b.next, b.prev
}
