// SPDX-License-Identifier: Apache-2.0

package forward

import "time"

// A level is what a subscriber may get of a track: a spatial layer, and the temporal layers of it up to one. Levels are numbered upwards;
// those that a track does not have are left out.

// Levels is the number of levels.
const Levels = MaxLayers * MaxTemporal

// Everything is the highest level.
const Everything = Levels - 1

// Level numbers the frames up to temporal of layer.
func Level(layer, temporal int) int { return MaxTemporal*layer + temporal }

// ratePeriod is over how long the rates of a layer are measured.
const ratePeriod = time.Second

// grid holds something for each spatial and temporal layer; a stream of a single spatial layer uses the first row.
type grid[T any] [MaxLayers][MaxTemporal]T

// rates measures a stream.
type rates struct {
	began            bool
	from             time.Duration
	bytes, frames    grid[uint64]
	wasBytes         grid[uint64]
	wasFrames        grid[uint64]
	perSecond, speed grid[float64] // bit/s, smoothed, and frames a second, both of one layer alone
}

// note counts a packet.
func (r *rates) note(spatial, temporal, size int, begins bool) {
	spatial, temporal = min(spatial, MaxLayers-1), min(temporal, MaxTemporal-1)
	r.bytes[spatial][temporal] += uint64(size)
	if begins {
		r.frames[spatial][temporal]++
	}
}

// measure is called often; it reports whether there are new rates.
func (r *rates) measure(now time.Duration) bool {
	d := now - r.from
	switch {
	case !r.began:
		r.began, r.from = true, now
		return false
	case d < ratePeriod:
		return false
	}
	smooth := func(to *float64, n uint64, unit float64) {
		rate := unit * float64(n) / d.Seconds()
		if *to == 0 {
			*to = rate
		} else {
			*to += (rate - *to) / 2
		}
	}
	for s := range r.bytes {
		for t := range r.bytes[s] {
			smooth(&r.perSecond[s][t], r.bytes[s][t]-r.wasBytes[s][t], 8)
			smooth(&r.speed[s][t], r.frames[s][t]-r.wasFrames[s][t], 1)
		}
	}
	r.from, r.wasBytes, r.wasFrames = now, r.bytes, r.frames
	return true
}

// top is the highest temporal layer of row s that has packets, -1 if none has.
func (r *rates) top(s int) int {
	for t := MaxTemporal - 1; t >= 0; t-- {
		if r.perSecond[s][t] > 0 {
			return t
		}
	}
	return -1
}

// fill writes the levels of layer, whose own frames are in row s; below is what comes with it from lower layers, for each temporal layer.
// Of layers above the lowest only levels with at least half the frames count: a smaller picture that moves is better.
func (r *rates) fill(to *[Levels]int, layer, s int, below *[MaxTemporal]float64, lowest bool) {
	top, sum := r.top(s), 0.0
	for t := range MaxTemporal {
		sum += r.perSecond[s][t]
		below[t] += sum
		switch {
		case t == MaxTemporal-1 && top >= 0:
			to[Level(layer, t)] = int(below[t])
		case t < top && r.perSecond[s][t] > 0 && (lowest || t == top-1):
			to[Level(layer, t)] = int(below[t])
		}
	}
}

// Rates gives what each level of the track takes now, bit/s; 0 for those that are not sent.
func (s *Source) Rates() (levels [Levels]int) {
	alive := s.alive.Load()
	lowest := true
	if s.cfg.Codec == SVC { // each spatial layer needs those below it
		l := &s.layers[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		var below [MaxTemporal]float64
		for i := range MaxLayers {
			if alive&1 != 0 && l.rates.top(i) >= 0 {
				l.rates.fill(&levels, i, i, &below, lowest)
				lowest = false
			}
		}
		return levels
	}
	for i := range s.layers {
		if alive&(1<<i) != 0 {
			l := &s.layers[i]
			l.mu.Lock()
			l.rates.fill(&levels, i, 0, &[MaxTemporal]float64{}, lowest)
			l.mu.Unlock()
			lowest = false
		}
	}
	return levels
}

// fpsTolerance is how much less than what it asked for a subscriber is content with: cameras do not keep to the frame.
const fpsTolerance = 0.9

// temporalFor gives the lowest temporal layer of layer with which fps frames a second are sent; the highest where that is not known.
func (s *Source) temporalFor(layer int, fps float64) int {
	row, stream := 0, layer
	if s.cfg.Codec == SVC {
		row, stream = layer, 0
	}
	speed := s.layers[stream].speed.Load()
	if speed == nil {
		return MaxTemporal - 1
	}
	sum := 0.0
	for t := range MaxTemporal {
		if sum += speed[row][t]; sum >= fpsTolerance*fps {
			return t
		}
	}
	return MaxTemporal - 1
}

// Video reports whether the leg's source is video.
func (g *Leg) Video() bool { return g.source.cfg.Video }
