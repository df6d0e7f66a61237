// SPDX-License-Identifier: Apache-2.0

package congest

import "time"

// Constants of looking for room.
const (
	seekAfter   = 2 * time.Second // after something was taken away, and between climbs; doubled after each that was in vain, up to seekAtMost
	seekAtMost  = 5 * time.Second
	seekSpread  = time.Second
	seekFirst   = 1.5                    // times the estimate is the first probe of a climb: what does not fit of it, most queues hold
	seekFurther = 2                      // times the last one is the next
	seekSurplus = 1.2                    // times what the next step takes
	seekAll     = 1.25                   // times what everything takes is enough
	seekFor     = 150 * time.Millisecond // a probe, doubled after each deception, up to
	seekLongest = 1200 * time.Millisecond
	seekUnknown = 2                // probes that say nothing are made again
	trustAfter  = 15 * time.Second // what a probe found must hold for so long
)

// Seeker decides when to look whether a limited path has become wider, and how far. The first probe is small, so that one in vain does
// little harm; one that came through is followed at once by another, up to twice as large, until there is room for everything: four times as
// wide a path is found in a second. Where what was found so did not hold, probes become longer: a policer lets a bucket full through, and
// looks like a wide path until that is empty. The zero value is ready; it is not safe for concurrent use.
type Seeker struct {
	// Random spreads climbs in time, if it is not nil: it gives numbers from 0 to 1. Subscribers behind one path that look for room at the same
	// moment, again and again, find none.
	Random func() float64

	spread   time.Duration
	busy     bool
	target   int           // of the newest probe
	climbed  int           // what came through in this climb, 0 before the first probe
	worth    int           // the least that would be of use when it began
	wait     time.Duration // from one climb to the next
	ended    time.Duration // when the last probe did
	lowered  time.Duration
	found    time.Duration // when one found room that was of use
	deceived int           // how often that did not hold
	unknown  int           // probes of this climb of which too little is known
	short    bool          // the last climb brought something: the next one may follow soon
}

// Seek tells which rate a probe should reach now, in bit/s, and for how long; 0 for none. rate is the estimate, next the least with which
// something could be given more, 0 for nothing, and all what everything takes. The caller makes the probe and tells Sought what came of it.
func (k *Seeker) Seek(rate, next, all int, now time.Duration) (target int, lasts time.Duration) {
	if k.found > 0 && now-k.found > trustAfter {
		k.found, k.deceived = 0, 0
	}
	enough := int(seekAll * float64(all))
	switch {
	case k.busy:
		return 0, 0
	case next == 0 || rate >= enough:
		k.climbed = 0
		return 0, 0
	case k.climbed >= k.worth && k.climbed > 0:
		k.target = min(seekFurther*k.climbed, enough)
	case k.climbed > 0:
		k.target = min(seekFurther*k.climbed, int(seekSurplus*float64(k.worth)))
	case rate >= next || now-k.ended < k.pause() || k.lowered > 0 && now-k.lowered < seekAfter:
		return 0, 0
	default:
		k.worth, k.target = next, min(int(seekFirst*float64(rate)), int(seekSurplus*float64(next)))
	}
	k.busy = true
	return k.target, min(seekFor<<k.deceived, seekLongest)
}

// Busy reports whether a probe is under way.
func (k *Seeker) Busy() bool { return k.busy }

// pause is how long it takes from one climb to the next.
func (k *Seeker) pause() time.Duration {
	switch {
	case k.short:
		return seekAfter + k.spread
	case k.deceived == 0:
		return max(k.wait, seekAfter) + k.spread
	}
	return seekAtMost*time.Duration(min(k.deceived, 2)+1)/2 + k.spread
}

// Sought tells what came of the probe, as Estimator.ProbeResult does.
func (k *Seeker) Sought(found, conclusive bool, now time.Duration) {
	k.busy, k.ended = false, now
	if k.Random != nil {
		k.spread = time.Duration(k.Random() * float64(seekSpread))
	}
	reached := k.climbed
	k.climbed, k.short = 0, false
	switch {
	case found:
		if k.climbed, k.unknown = k.target, 0; k.target >= k.worth {
			k.found, k.wait = now, seekAfter
		}
	case !conclusive && reached > 0 && k.unknown < seekUnknown:
		k.climbed = reached
		k.unknown++
	case reached >= k.worth: // it has helped, if not as much as it might
		k.short = true
	case conclusive:
		k.wait = min(2*max(k.wait, seekAfter), seekAtMost)
	}
}

// Lowered tells that something was taken away again.
func (k *Seeker) Lowered(now time.Duration) {
	switch {
	case k.found == 0:
	case now-k.found < trustAfter:
		k.deceived = min(k.deceived+1, 4)
	default:
		k.deceived = 0
	}
	k.found, k.climbed, k.lowered, k.short = 0, 0, now, false
}

// Narrowed reports whether something was taken away in the time before now.
func (k *Seeker) Narrowed(before, now time.Duration) bool {
	return k.lowered > 0 && now-k.lowered < before
}
