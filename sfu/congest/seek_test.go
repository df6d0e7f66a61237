// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"testing"
	"time"
)

// climb lets k look for room until limit: a probe comes through if the path carries its target, for as long as it lasts. It gives the
// targets, and when the first one of each climb began.
func climb(k *Seeker, rate, next, all int, from, limit time.Duration, carries func(target int, lasts time.Duration) bool) (targets []int, began []time.Duration) {
	last := 0
	for now := from; now < limit; now += 100 * time.Millisecond {
		target, lasts := k.Seek(rate, next, all, now)
		if target == 0 {
			last = 0
			continue
		}
		if again, _ := k.Seek(rate, next, all, now); again != 0 {
			panic("two probes at once")
		}
		if last == 0 {
			began = append(began, now)
		}
		last = target
		targets = append(targets, target)
		now += lasts + 100*time.Millisecond
		found := carries(target, lasts)
		if found {
			rate = max(rate, target)
		}
		k.Sought(found, true, now)
		if !found {
			last = 0
		}
	}
	return targets, began
}

func TestProbesDoubleAsLongAsTheyComeThrough(t *testing.T) {
	var k Seeker
	k.Lowered(time.Second)
	targets, began := climb(&k, 400_000, 700_000, 2_800_000, time.Second, 10*time.Second, func(int, time.Duration) bool { return true })
	if len(began) != 1 || began[0] < 3*time.Second || began[0] > 3200*time.Millisecond {
		t.Errorf("climbs began at %v", began)
	}
	// Small, then no further than is of use, then twice as much each time.
	for i, want := range []int{600_000, 840_000, 1_680_000, 3_360_000, 3_500_000} {
		if i >= len(targets) || targets[i] != want {
			t.Fatalf("targets %v, number %d should be %d", targets, i, want)
		}
	}
	if len(targets) != 5 {
		t.Errorf("targets %v: there is room for everything", targets)
	}
}

func TestClimbsInVainBecomeSeldom(t *testing.T) {
	var k Seeker
	targets, began := climb(&k, 400_000, 700_000, 2_800_000, 10*time.Second, 40*time.Second, func(int, time.Duration) bool { return false })
	for i := range began {
		if targets[i] != 600_000 {
			t.Errorf("targets %v", targets)
		}
	}
	if n := len(began); n < 5 || n > 8 || began[n-1]-began[n-2] > 6*time.Second {
		t.Errorf("climbs began at %v", began)
	}
}

// Levels that go up and down must not keep it from looking.
func TestProbesComeThoughMuchIsTakenAway(t *testing.T) {
	var k Seeker
	k.deceived = 2
	probes := 0
	for now := time.Second; now < time.Minute; now += 100 * time.Millisecond {
		if now%(3*time.Second) == 0 {
			k.Lowered(now)
		}
		if target, _ := k.Seek(400_000, 450_000, 500_000, now); target > 0 {
			probes++
			k.Sought(false, true, now+300*time.Millisecond)
		}
	}
	if probes < 4 {
		t.Errorf("%d probes in a minute", probes)
	}
}

func TestAfterADeceptionProbesBecomeLonger(t *testing.T) {
	var k Seeker
	now := time.Second
	probe := func() time.Duration {
		t.Helper()
		now += 11 * time.Second
		target, lasts := k.Seek(400_000, 450_000, 500_000, now)
		if target == 0 {
			t.Fatal("no probe")
		}
		k.Sought(true, true, now)
		return lasts
	}
	for i, want := range []time.Duration{seekFor, 2 * seekFor, 4 * seekFor, seekLongest, seekLongest, seekLongest} {
		if lasts := probe(); lasts != want {
			t.Errorf("probe %d lasts %v, want %v", i, lasts, want)
		}
		now += 5 * time.Second
		k.Lowered(now) // it did not hold
	}
	probe()
	now += trustAfter
	k.Lowered(now) // it held: the path has become narrower since
	if lasts := probe(); lasts != seekFor {
		t.Errorf("a probe lasts %v although what was found held", lasts)
	}
}

// Two subscribers behind one path must not look for room at the same moment each time.
func TestClimbsAreSpreadInTime(t *testing.T) {
	starts := func(random func() float64) (began []time.Duration) {
		k := Seeker{Random: random}
		k.Lowered(time.Second)
		_, began = climb(&k, 400_000, 700_000, 2_800_000, time.Second, time.Minute, func(int, time.Duration) bool { return false })
		return began
	}
	early, late := starts(func() float64 { return 0 }), starts(func() float64 { return 0.999 })
	if len(early) < 5 || len(late) < 5 {
		t.Fatalf("climbs at %v and %v", early, late)
	}
	for i := 1; i < 5; i++ {
		if apart := (late[i] - late[i-1]) - (early[i] - early[i-1]); apart < 800*time.Millisecond || apart > 1100*time.Millisecond {
			t.Errorf("climb %d: %v and %v", i, early[:5], late[:5])
		}
	}
}
