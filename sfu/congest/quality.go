// SPDX-License-Identifier: Apache-2.0

package congest

import "time"

// Quality is how good a connection is.
type Quality int

// The qualities.
const (
	Poor Quality = iota
	Good
	Excellent
	Lost
)

// Judge gives the quality of a path with that share of packets lost (after repair is not known, so before), jitter and round trip;
// limited says that it cannot carry what is asked for. The score goes from 1 to 5, as a mean opinion would (ITU-T G.107 with the
// effects of delay and loss only).
func Judge(loss float64, jitter, roundTrip time.Duration, limited bool) (Quality, float64) {
	delay := float64(roundTrip/2+2*jitter)/float64(time.Millisecond) + 20
	r := 93.2 - 0.024*delay - 250*loss
	if delay > 177.3 {
		r -= 0.11 * (delay - 177.3)
	}
	if limited {
		r -= 20
	}
	r = max(0, min(100, r))
	score := 1 + 0.035*r + r*(r-60)*(100-r)*7e-6
	switch {
	case score >= 4.1:
		return Excellent, score
	case score >= 3.1:
		return Good, score
	}
	return Poor, max(1, score)
}
