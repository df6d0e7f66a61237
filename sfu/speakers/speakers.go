// SPDX-License-Identifier: Apache-2.0

// Package speakers turns the audio levels that clients write into their packets (RFC 6464: 0 is as loud as can be, 127 is silence,
// in -dBov) into "who speaks". Levels stand outside the encrypted payload, so this works under end-to-end encryption too.
package speakers

import (
	"math"
	"sync"
	"time"
)

// How speech is told from noise. The figures are those of LiveKit's defaults, which clients are tuned to.
const (
	Interval     = 400 * time.Millisecond // between two looks
	activeLevel  = 35                     // -dBov; louder packets count as speech
	activeShare  = 0.40                   // of Interval that must be speech
	packetLength = 20 * time.Millisecond  // the usual Opus frame
	silence      = 127
	smoothing    = 2 // looks over which the level is averaged
)

// Meter listens to one audio track. The zero value is ready.
type Meter struct {
	mu      sync.Mutex
	speech  time.Duration // in this interval
	loudest uint8
	heard   bool
	smooth  float64
}

// Observe notes the level of one packet.
func (m *Meter) Observe(level uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	level &= silence
	if !m.heard || level < m.loudest {
		m.loudest, m.heard = level, true
	}
	if level <= activeLevel {
		m.speech += packetLength
	}
}

// Look ends an interval: how loud the track was, from 0 to 1, and whether somebody spoke.
func (m *Meter) Look() (level float64, speaking bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := 0.0
	if float64(m.speech) >= activeShare*float64(Interval) {
		now = math.Pow(10, -float64(m.loudest)/20)
		// 35 dB below full scale would hardly move a meter; the scale of the wire is 0 to 1 over the range of speech.
		now = math.Min(1, now*math.Pow(10, activeLevel/20.0)/8)
	}
	m.speech, m.heard, m.loudest = 0, false, silence
	m.smooth += (now - m.smooth) * 2 / (smoothing + 1)
	if m.smooth < 0.01 {
		m.smooth = 0
	}
	return m.smooth, m.smooth > 0
}

// Speaker is one track's state as it is told to clients.
type Speaker struct {
	ID     string
	Level  float64
	Active bool
}

// Board remembers who was said to speak, so that only changes are told. The zero value is ready; it is not safe for concurrent use.
type Board struct{ told map[string]float64 }

// coarse is the step in which changes of level are told.
const coarse = 0.125

// Change gives the entries of now that differ from what was told before, and those that fell silent or went away.
func (b *Board) Change(now []Speaker) (changed []Speaker) {
	next := make(map[string]float64, len(now))
	for _, s := range now {
		if !s.Active {
			continue
		}
		step := math.Ceil(s.Level/coarse) * coarse
		next[s.ID] = step
		if before, ok := b.told[s.ID]; !ok || before != step {
			changed = append(changed, Speaker{ID: s.ID, Level: step, Active: true})
		}
	}
	for id := range b.told {
		if _, still := next[id]; !still {
			changed = append(changed, Speaker{ID: id})
		}
	}
	b.told = next
	return changed
}

// Current gives the speakers as they were told last, for somebody who has heard nothing yet.
func (b *Board) Current() (out []Speaker) {
	for id, level := range b.told {
		out = append(out, Speaker{ID: id, Level: level, Active: true})
	}
	return out
}
