// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

// due is what is asked for now, and whether nothing was given up.
func due(t *testing.T, l *Losses, now time.Duration, whole bool, want ...uint16) {
	t.Helper()
	got, ok := l.Due(nil, now)
	if !cmp.Equal(got, want) || ok != whole {
		t.Errorf("at %v: due = %v, whole = %v, want %v, %v", now, got, ok, want, whole)
	}
}

func TestLossesAreAskedForUntilTheyArriveOrGrowOld(t *testing.T) {
	var l Losses
	l.Arrived(100, 0)
	l.Arrived(104, 0)
	due(t, &l, 0, true) // they may be late
	due(t, &l, 10*ms, true, 101, 102, 103)
	l.Arrived(102, 15*ms)
	due(t, &l, 20*ms, true)
	due(t, &l, 60*ms, true, 101, 103)
	due(t, &l, 2*time.Second, false)
	if l.Pending() != 0 {
		t.Errorf("still hoping for %d", l.Pending())
	}
	if l.Arrived(104+1000, 3*time.Second) {
		t.Error("a hole of a thousand packets was not reported")
	}
}

// A path that repairs within trip, and loses that share of requests and of what they bring.
type lossyPath struct {
	trip     time.Duration
	lost     float64
	rng      *rand.Rand
	arriving map[time.Duration][]uint64
}

// run has l ask for one packet of ten that are sent 10 ms apart, for so many; it gives how many were given up, how many came twice, and the mean
// time until a repair came.
func (p *lossyPath) run(l *Losses, n int) (given, twice, asked int, mean time.Duration) {
	const first = 1 << 16
	p.arriving = map[time.Duration][]uint64{}
	missing, holes := map[uint64]time.Duration{}, 0
	var sum time.Duration
	count := uint64(first)
	for now := time.Duration(0); now < time.Duration(n)*10*ms+2*time.Second; now += ms {
		if now%(10*ms) == 0 && now < time.Duration(n)*10*ms {
			count++
			if count%10 == 5 {
				missing[count] = now
				holes++
			} else {
				l.Arrived(count, now)
			}
		}
		for _, c := range p.arriving[now] {
			if at, ok := missing[c]; ok {
				sum += now - at
				delete(missing, c)
				l.Arrived(c, now)
			} else {
				twice++
				l.Twice(c)
			}
		}
		if now%(5*ms) != 0 {
			continue
		}
		numbers, _ := l.Due(nil, now)
		for _, sn := range numbers {
			asked++
			if p.rng.Float64() < p.lost || p.rng.Float64() < p.lost {
				continue
			}
			at := now + p.trip
			p.arriving[at] = append(p.arriving[at], uint64(sn)|count&^0xFFFF)
		}
	}
	return len(missing), twice, asked, sum / time.Duration(max(1, holes-len(missing)))
}

func TestLossesAreRepairedInTimeOverBadPaths(t *testing.T) {
	for _, c := range []struct {
		trip         time.Duration
		lost         float64
		given, twice float64 // of the packets that were missing, at most
		within       time.Duration
	}{
		{2 * ms, 0, 0, 0, 30 * ms},
		{2 * ms, 0.3, 0.005, 0, 70 * ms},
		{50 * ms, 0.3, 0.005, 0.05, 180 * ms},
		{120 * ms, 0, 0, 0.05, 160 * ms},
		{200 * ms, 0.3, 0.05, 0.1, 500 * ms},
		{290 * ms, 0, 0, 0.05, 350 * ms},
	} {
		const n = 20_000
		var l Losses
		p := &lossyPath{trip: c.trip, lost: c.lost, rng: rand.New(rand.NewPCG(1, 2))}
		given, twice, asked, mean := p.run(&l, n)
		holes := float64(n / 10)
		t.Logf("trip %v, %.0f %% lost each way: %d given up, %d twice, %d requests for %.0f packets, repaired after %v", c.trip, 100*c.lost, given, twice, asked, holes, mean)
		if float64(given) > c.given*holes || float64(twice) > c.twice*holes || mean > c.within {
			t.Errorf("trip %v, lost %v: too bad", c.trip, c.lost)
		}
	}
}
