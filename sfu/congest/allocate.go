// SPDX-License-Identifier: Apache-2.0

package congest

import "slices"

// MaxSteps is the number of steps a demand may have.
const MaxSteps = 9

// Demand is a video track that a client would like to receive, in steps from the least of it to all: smaller before larger pictures, and
// of each size fewer before more a second.
type Demand struct {
	Wanted   int           // highest step the client has a use for, -1 for none
	Now      int           // what it may have now, -1 for nothing
	Rate     [MaxSteps]int // bit/s of each step; 0 for one that does not exist
	Priority int           // gets all it can before those of lower priority get more than their lowest step
	Ahead    bool          // is served first of those with its priority
}

// upgradeRoom is how much more than its share must be there before a track gets a higher step than it has: without it, pictures
// would change with every breath of the estimate.
const upgradeRoom = 1.15

// StopRoom is how much of what the lowest steps take must be there for all to go on while nothing is lost: an estimate errs by as much, and
// a picture that stops for nothing is worse than a queue.
const StopRoom = 0.75

// Allocate shares rate bit/s among demands: it gives the step for each, or -1 where there is nothing left and the track is paused.
// All get their lowest step first, by priority and then in their order, then those with the highest priority each in turn a higher one, as
// far as that goes, then those with the next. The first one always gets
// something: a picture that moves badly says more than none. keep is how much of what the lowest steps take must be there for pictures that
// are shown to go on: 1, or StopRoom.
func Allocate(rate int, keep float64, demands []Demand) []int {
	out := make([]int, len(demands))
	order := make([]int, 0, len(demands))
	for i := range demands {
		out[i] = -1
		if demands[i].Wanted >= 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		a, b = demands[a].rank(), demands[b].rank()
		return b - a
	})
	left := float64(rate)
	for first, i := range order {
		layer, cost := demands[i].step(-1)
		if layer < 0 {
			out[i] = demands[i].Wanted // nothing is known of it yet
			continue
		}
		if first == 0 || demands[i].fits(layer, cost, left) || demands[i].Now >= 0 && keep*(float64(rate)-left+float64(cost)) <= float64(rate) {
			out[i], left = layer, left-float64(cost)
		}
	}
	for len(order) > 0 {
		n := 1
		for n < len(order) && demands[order[n]].Priority == demands[order[0]].Priority {
			n++
		}
		left = raise(demands, order[:n], out, left)
		order = order[n:]
	}
	return out
}

// raise gives each in turn a higher step, until no more fits into left bit/s; it gives what is left then.
func raise(demands []Demand, order, out []int, left float64) float64 {
	for raised := true; raised; {
		raised = false
		for _, i := range order {
			d := &demands[i]
			if out[i] < 0 {
				continue
			}
			layer, cost := d.step(out[i])
			if layer < 0 || !d.fits(layer, cost, left) {
				continue
			}
			out[i], left, raised = layer, left-float64(cost), true
		}
	}
	return left
}

// rank says who is served first.
func (d *Demand) rank() int {
	if d.Ahead {
		return 2*d.Priority + 1
	}
	return 2 * d.Priority
}

// Stops reports whether out takes away all of a picture that is shown.
func Stops(demands []Demand, out []int) bool {
	for i := range demands {
		if out[i] < 0 && demands[i].Now >= 0 && demands[i].Wanted >= 0 {
			return true
		}
	}
	return false
}

// step gives the next higher step than from that exists and is wanted, and what it costs more; -1 if there is none.
func (d *Demand) step(from int) (layer, cost int) {
	have := 0
	if from >= 0 {
		have = d.Rate[from]
	}
	for l := from + 1; l <= min(d.Wanted, MaxSteps-1); l++ {
		if d.Rate[l] > 0 {
			return l, max(0, d.Rate[l]-have)
		}
	}
	// A client that wants less than the lowest layer there is gets that one.
	if from < 0 {
		for l := max(0, d.Wanted+1); l < MaxSteps; l++ {
			if d.Rate[l] > 0 {
				return l, d.Rate[l]
			}
		}
	}
	return -1, 0
}

func (d *Demand) fits(layer, cost int, left float64) bool {
	if layer > d.Now {
		return upgradeRoom*float64(cost) <= left
	}
	return float64(cost) <= left
}

// Next is the smallest rate at which some demand would get more than out gives it; 0 if all have what they want.
func Next(demands []Demand, out []int) int {
	total, next := 0, 0
	for i := range demands {
		d := &demands[i]
		if out[i] >= 0 {
			total += d.Rate[out[i]]
		}
		if d.Wanted < 0 {
			continue
		}
		if layer, cost := d.step(out[i]); layer >= 0 && (next == 0 || cost < next) {
			next = cost
		}
	}
	if next == 0 {
		return 0
	}
	return int(float64(total) + upgradeRoom*float64(next))
}
