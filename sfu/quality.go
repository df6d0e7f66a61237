// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"time"

	"github.com/trunkboard/trunkboard/sfu/congest"
)

// lostAfter is how long a client may be silent before its connection is called lost; browsers check every 2.5 s.
const lostAfter = 8 * time.Second

// hearing is how a subscriber hears a stream, by its receiver reports.
type hearing struct {
	loss   float64 // smoothed
	jitter time.Duration
	trip   time.Duration // round trip; 0 while unknown
	least  time.Duration // the shortest one
	at     time.Duration
	told   bool // that the subscriber is losing
}

// From losingFrom on, sound is sent redundantly until losses are down to losingUntil: it doubles what sound takes.
const (
	losingFrom  = 0.03
	losingUntil = 0.005
)

// losing reports whether the subscriber loses so much that redundancy is worth it.
func (h *hearing) losing() bool { return h.loss > losingFrom || h.told && h.loss > losingUntil }

// hear notes a report block; it reports whether something about it is suspicious.
func (h *hearing) hear(lost float64, jitter, trip, now time.Duration) bool {
	h.loss += (lost - h.loss) / 3
	h.jitter, h.at = jitter, now
	if trip > 0 {
		h.trip = trip
		if h.least == 0 || trip < h.least {
			h.least = trip
		}
	}
	return lost > 0.02 || trip > max(2*h.least, h.least+100*time.Millisecond)
}

// quality judges p's connections in both directions. The caller holds the room's lock.
func (p *Participant) quality() (congest.Quality, float64) {
	now := p.room.engine.cfg.Transport.Now()
	if p.state != Active || p.primary().session.Silent() > lostAfter {
		return congest.Lost, 1
	}
	best, score := congest.Excellent, 5.0
	worse := func(q congest.Quality, s float64) {
		if s < score {
			best, score = q, s
		}
	}
	for t := range p.all() {
		if t.source == nil {
			continue
		}
		if loss, jitter, ok := t.source.Reach(); ok {
			worse(congest.Judge(loss, jitter, 0, false))
		}
	}
	_, limited := p.receiving.session.Path.Limited()
	c := p.receiving
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.legs {
		if h := c.heard[l]; h != nil && now-h.at < 2*qualityPeriod {
			worse(congest.Judge(h.loss, h.jitter, h.trip, limited))
		}
	}
	return best, score
}

// judge tells everybody whose connection has become better or worse. The caller holds the room's lock.
func (r *Room) judge() {
	var changed []Quality
	for _, p := range r.order {
		if p.state != Active && p.judged.Score == 0 {
			continue // not there yet
		}
		q, score := p.quality()
		if p.judged.Score != 0 && q == p.judged.Quality {
			continue
		}
		p.judged = Quality{SID: p.sid, Quality: q, Score: score}
		if !p.profile.Permissions.Hidden {
			changed = append(changed, p.judged)
		}
	}
	if len(changed) == 0 {
		return
	}
	for _, p := range r.order {
		p.observer.Tell(Qualities{changed})
	}
}
