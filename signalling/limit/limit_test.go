// SPDX-License-Identifier: Apache-2.0

package limit_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
	"github.com/trunkboard/trunkboard/signalling/limit"
)

func TestABurstIsLetThroughAndThenTheLastingRateHolds(t *testing.T) {
	clock := clocktest.New()
	l := limit.New(clock, map[string]limit.Rate{"invite": {PerSecond: 2, Burst: 3}}, 0)
	for i := range 3 {
		if ok, _ := l.Allow("invite", "@a:x"); !ok {
			t.Fatalf("request %d of the burst was refused", i+1)
		}
	}
	ok, after := l.Allow("invite", "@a:x")
	if ok || after != 500*time.Millisecond {
		t.Fatalf("fourth request: ok %v, retry after %v; want refused for 500ms", ok, after)
	}
	clock.Advance(after - time.Nanosecond)
	if ok, _ := l.Allow("invite", "@a:x"); ok {
		t.Error("let in a nanosecond too early")
	}
	clock.Advance(time.Nanosecond)
	if ok, _ := l.Allow("invite", "@a:x"); !ok {
		t.Error("refused although it waited as told")
	}
}

func TestKeysAndOperationsDoNotShareABucket(t *testing.T) {
	l := limit.New(clocktest.New(), map[string]limit.Rate{"a": {PerSecond: 1, Burst: 1}, "b": {PerSecond: 1, Burst: 1}}, 0)
	for _, c := range [][2]string{{"a", "k1"}, {"a", "k2"}, {"b", "k1"}} {
		if ok, _ := l.Allow(c[0], c[1]); !ok {
			t.Errorf("first request of %v was refused", c)
		}
	}
	if ok, _ := l.Allow("a", "k1"); ok {
		t.Error("second request of a, k1 was let in")
	}
}

func TestZeroRateAndUnknownOperationAreUnlimited(t *testing.T) {
	l := limit.New(clocktest.New(), map[string]limit.Rate{"free": {}, "odd": {PerSecond: math.NaN(), Burst: 1}}, 0)
	for range 1000 {
		for _, op := range []string{"free", "odd", "unheard of"} {
			if ok, _ := l.Allow(op, "k"); !ok {
				t.Fatalf("%s was refused", op)
			}
		}
	}
	if n := l.Size("free") + l.Size("odd") + l.Size("unheard of"); n != 0 {
		t.Errorf("unlimited operations keep %d buckets", n)
	}
}

func TestVerySlowRatesDoNotOverflow(t *testing.T) {
	clock := clocktest.New()
	l := limit.New(clock, map[string]limit.Rate{"slow": {PerSecond: 1e-300, Burst: math.MaxInt}}, 0)
	if ok, _ := l.Allow("slow", "k"); !ok {
		t.Fatal("first request was refused")
	}
	l = limit.New(clock, map[string]limit.Rate{"slow": {PerSecond: 1e-300, Burst: -5}}, 0)
	if ok, _ := l.Allow("slow", "k"); !ok {
		t.Fatal("first request was refused")
	}
	if ok, after := l.Allow("slow", "k"); ok || after <= 0 {
		t.Fatalf("second request: ok %v after %v", ok, after)
	}
}

func TestRefusalIsLimitExceededWithAWaitThatSuffices(t *testing.T) {
	clock := clocktest.New()
	l := limit.New(clock, map[string]limit.Rate{"login": {PerSecond: 3, Burst: 1}}, 0)
	if err := l.Check("login", "k"); err != nil {
		t.Fatal(err)
	}
	err := l.Check("login", "k")
	var e *signalling.Error
	if !errors.As(err, &e) || e.Status != http.StatusTooManyRequests || e.Code != "M_LIMIT_EXCEEDED" {
		t.Fatalf("got %v", err)
	}
	clock.Advance(time.Duration(e.Fields["retry_after_ms"].(int64)) * time.Millisecond)
	if err := l.Check("login", "k"); err != nil {
		t.Errorf("refused after waiting as told: %v", err)
	}
}

func TestMemoryStaysBoundedAndTheQuietestIsForgottenFirst(t *testing.T) {
	clock := clocktest.New()
	l := limit.New(clock, map[string]limit.Rate{"op": {PerSecond: 0.001, Burst: 1}}, 100)
	l.Allow("op", "victim")
	for i := range 99 {
		l.Allow("op", fmt.Sprint(i))
	}
	if ok, _ := l.Allow("op", "victim"); ok {
		t.Fatal("forgotten although there was room")
	}
	for i := range 5000 {
		l.Allow("op", fmt.Sprint("more", i))
	}
	if n := l.Size("op"); n > 100 {
		t.Errorf("%d buckets kept, 100 allowed", n)
	}
}

func TestBucketsThatAreFullAgainLeaveMemory(t *testing.T) {
	clock := clocktest.New()
	l := limit.New(clock, map[string]limit.Rate{"op": {PerSecond: 10, Burst: 1}}, 0)
	for i := range 1000 {
		l.Allow("op", fmt.Sprint(i))
	}
	clock.Advance(time.Minute)
	for range 1000 {
		l.Allow("op", "one")
	}
	if n := l.Size("op"); n != 1 {
		t.Errorf("%d buckets kept, want 1", n)
	}
}

// TestNoWindowEverHoldsMoreThanItsShare checks the promise of a token bucket: in any window of w seconds at most
// burst + rate*w requests get through, and one that waits as told is never refused again.
func TestNoWindowEverHoldsMoreThanItsShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := limit.Rate{PerSecond: rapid.Float64Range(0.1, 1000).Draw(t, "rate"), Burst: rapid.IntRange(1, 20).Draw(t, "burst")}
		clock := clocktest.New()
		l := limit.New(clock, map[string]limit.Rate{"op": rate}, 0)
		var passed []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			clock.Advance(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "gap")))
			ok, after := l.Allow("op", "k")
			if !ok {
				clock.Advance(after)
				if ok, _ = l.Allow("op", "k"); !ok {
					t.Fatalf("refused after waiting %v as told", after)
				}
			}
			passed = append(passed, clock.Now())
		}
		for i := range passed {
			for j := i; j < len(passed); j++ {
				most := float64(rate.Burst) + rate.PerSecond*passed[j].Sub(passed[i]).Seconds()
				// Intervals are whole nanoseconds, so the rate may be off by one in a million here.
				if float64(j-i+1) > most*1.00001+1e-6 {
					t.Fatalf("%d requests in %v", j-i+1, passed[j].Sub(passed[i]))
				}
			}
		}
	})
}

func TestManyGoroutinesShareOneBurst(t *testing.T) {
	l := limit.New(clocktest.New(), map[string]limit.Rate{"op": {PerSecond: 1, Burst: 50}}, 0)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if ok, _ := l.Allow("op", "k"); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 50 {
		t.Errorf("%d let through, want 50", passed.Load())
	}
}

func TestAskingAgainAllocatesNothing(t *testing.T) {
	l := limit.New(signalling.SystemClock{}, map[string]limit.Rate{"op": {PerSecond: 1e-3, Burst: 1}}, 0)
	l.Allow("op", "k")
	if n := testing.AllocsPerRun(100, func() { l.Allow("op", "k") }); n != 0 {
		t.Errorf("%v allocations for each request", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := limit.New(signalling.SystemClock{}, map[string]limit.Rate{"op": {PerSecond: 1e9, Burst: 1000}}, 0)
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprintf("@user%d:example.org", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Allow("op", keys[i%len(keys)])
	}
}
