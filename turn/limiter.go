// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/turn/listen"
)

// limiter is a token bucket for each source of traffic, in memory of a fixed size: sources are hashed to buckets, and the few
// that share one share its tokens. A flood from forged addresses therefore costs nothing but the time to look.
type limiter struct {
	rate, burst float64 // tokens a second; negative rate: no limit
	seed        maphash.Seed
	buckets     [limiterBuckets]bucket
}

const limiterBuckets = 1 << 14

type bucket struct {
	mu     sync.Mutex
	spent  float32 // tokens taken and not yet come back
	millis int64   // when that was right
}

func newLimiter(rate, burst int) *limiter {
	return &limiter{rate: float64(rate), burst: float64(burst), seed: maphash.MakeSeed()}
}

// allow takes a token of the source.
func (l *limiter) allow(from netip.Addr, now time.Time) bool {
	if l.rate < 0 {
		return true
	}
	b := &l.buckets[maphash.Comparable(l.seed, listen.Source(from))%limiterBuckets]
	millis := now.UnixMilli()
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := millis - b.millis; passed > 0 {
		b.spent = max(0, b.spent-float32(float64(passed)*l.rate/1000))
		b.millis = millis
	}
	if float64(b.spent)+1 > l.burst {
		return false
	}
	b.spent++
	return true
}
