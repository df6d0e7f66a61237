// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"time"

	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

// How what is sent follows what the path to a subscriber carries.
const (
	probeTime    = 150 * time.Millisecond
	probeStep    = 5 * time.Millisecond
	probeEcho    = 700 * time.Millisecond // until what came of a probe is known
	probeAfter   = 2 * time.Second        // after a change, and between probes; doubled after each that failed, up to probeAtMost
	probeAtMost  = 8 * time.Second
	probeSurplus = 1.2
	trustAfter   = 15 * time.Second // what a probe found must hold for so long
	trustAtMost  = time.Minute
	riseAfter    = 2 * time.Second
	startRate    = 10_000_000 // bit/s: what a new path is trusted with, so that the first key frames of a full room are not one burst
	startFor     = 3 * time.Second
)

// adaption is the state of one receiving connection. It is guarded by the room's lock.
type adaption struct {
	begun   time.Duration // when the connection was made
	limited bool          // the path was limited when it was last looked at
	changed time.Duration // last time something was taken away
	probing bool
	probed  time.Duration // end of the last probe
	wait    time.Duration // until the next
	found   time.Duration // when one found room
	doubt   time.Duration // after such a time another may: doubled when what was found did not hold
}

// adapt gives each video track that p receives the level for which there is room. The caller holds the room's lock.
func (p *Participant) adapt() {
	c := p.receiving
	if !c.session.Open() || !c.adaption.limited && !c.session.Numbered() {
		return // nothing speaks against the path
	}
	c.session.Listen()
	now := p.room.engine.cfg.Transport.Now()
	rate, limited := c.session.Path.Limited()
	a := &c.adaption
	if !limited {
		if now-a.begun > startFor {
			c.session.Pace(0)
		}
		if a.limited {
			a.limited = false
			p.room.engine.log.Debug("the path to a subscriber is wide again", "participant", p.sid)
			for _, s := range p.subscriptions {
				p.allow(s, forward.Everything)
			}
		}
		return
	}
	c.session.Pace(rate)
	if !a.limited {
		a.limited = true
		p.room.engine.log.Debug("the path to a subscriber is limited", "participant", p.sid, "rate", rate, "loss", c.session.Path.Loss())
	}
	var subs []*Subscription
	var demands []congest.Demand
	asked := 0
	for _, s := range p.ordered() {
		if !s.track.info.Video || !s.bound { // sounds are not numbered: the estimate is of what is left beside them
			continue
		}
		d := congest.Demand{Wanted: s.leg.WantedLevel(), Rate: s.track.source.Rates()}
		d.Now = min(s.leg.Allowed(), d.Wanted)
		if s.track.info.Source == "screen_share" {
			d.Priority = 1
		}
		for l := min(d.Wanted, forward.Everything); l >= 0; l-- {
			if d.Rate[l] > 0 {
				asked += d.Rate[l]
				break
			}
		}
		subs, demands = append(subs, s), append(demands, d)
	}
	c.session.Path.Asked(asked, now)
	out := congest.Allocate(rate, demands)
	for i, s := range subs {
		if out[i] < 0 && demands[i].Wanted >= 0 && !p.options.MayPause {
			out[i] = lowest(&demands[i]) // the smallest picture goes on: an estimate may be wrong, and a black tile looks like a broken call
		}
		before := s.leg.Allowed()
		if demands[i].Wanted < 0 || out[i] == before || out[i] == demands[i].Wanted && before >= out[i] {
			continue
		}
		if out[i] < before {
			if a.found > 0 && now-a.found < trustAfter && a.changed < a.found {
				a.doubt = min(max(2*a.doubt, probeAtMost), trustAtMost) // a policer's bucket, perhaps
			}
			a.changed = now
		} else if now-a.changed < riseAfter {
			continue // it has just become narrower
		}
		p.allow(s, out[i])
	}
	if next := congest.Next(demands, out); next > 0 {
		sum := 0
		for i, l := range out {
			if l >= 0 && l < len(demands[i].Rate) {
				sum += demands[i].Rate[l]
			}
		}
		p.seekMore(rate, min(sum, c.session.Path.Throughput()), next, now)
	}
}

// lowest is the least that a demand can have.
func lowest(d *congest.Demand) int {
	for i, rate := range d.Rate {
		if rate > 0 {
			return i
		}
	}
	return forward.Level(0, forward.MaxTemporal-1)
}

// allow lets a track have levels up to level, and tells the subscriber if it stops or goes on.
func (p *Participant) allow(s *Subscription, level int) {
	before := s.leg.Allowed()
	s.leg.Allow(level)
	if (before < 0) != (level < 0) {
		p.observer.Tell(StreamState{Publisher: s.track.publisher.sid, SID: s.track.info.SID, Paused: level < 0})
	}
}

// ordered lists the subscriptions in the order in which the tracks were published, so that it does not change from look to look.
func (p *Participant) ordered() (out []*Subscription) {
	for _, o := range p.room.order {
		for _, t := range o.order {
			if s := p.subscriptions[t.info.SID]; s != nil {
				out = append(out, s)
			}
		}
	}
	return out
}

// seekMore sends, for a moment, as much as the next step up would take beside what is sent already, to see whether it comes through.
func (p *Participant) seekMore(rate, sent, next int, now time.Duration) {
	c := p.receiving
	a := &c.adaption
	if a.wait == 0 {
		a.wait = probeAfter
	}
	if a.found > 0 && now-a.found > trustAfter+a.doubt {
		a.found, a.doubt = 0, 0
	}
	if a.probing || rate >= next || now-max(a.probed, a.changed) < a.wait || a.found > 0 && now-a.found < a.doubt {
		return
	}
	var legs []*forward.Leg
	for _, s := range p.subscriptions {
		if s.bound && s.track.info.Video {
			legs = append(legs, s.leg)
		}
	}
	if len(legs) == 0 {
		return
	}
	a.probing = true
	target := int(probeSurplus * float64(next))
	e := p.room.engine
	e.wait.Go(func() {
		found, conclusive := e.probe(c.session, legs, target, max(target/8, target-sent))
		p.room.mu.Lock()
		defer p.room.mu.Unlock()
		a.probing, a.probed = false, e.cfg.Transport.Now()
		switch {
		case found:
			a.wait, a.found = probeAfter, a.probed
		case conclusive:
			a.wait = min(2*a.wait, probeAtMost)
		}
	})
}

// probe sends extra bit/s beside what is sent anyway, and reports whether target bit/s came through, and whether that is known.
func (e *Engine) probe(s *transport.Session, legs []*forward.Leg, target, extra int) (found, conclusive bool) {
	t := e.cfg.Transport
	tick := time.NewTicker(probeStep)
	defer tick.Stop()
	start, sent := t.Now(), 0
	s.Path.StartProbe(target)
	for i := 0; ; i++ {
		d := t.Now() - start
		if d > probeTime {
			break
		}
		t.Do(func(b *transport.Batch) {
			for tries := 0; sent < int(float64(extra)/8*(d+probeStep).Seconds()) && tries < len(legs); tries++ {
				sent += legs[(i+tries)%len(legs)].Pad(int(float64(extra)/8*(d+probeStep).Seconds())-sent, b)
			}
		})
		if !e.sleep(tick.C) {
			return false, false
		}
	}
	s.Path.EndProbe(t.Now())
	echo := time.NewTimer(probeEcho)
	defer echo.Stop()
	if !e.sleep(echo.C) {
		return false, false
	}
	return s.Path.ProbeResult(t.Now())
}

// sleep waits for c; false when the engine is closed.
func (e *Engine) sleep(c <-chan time.Time) bool {
	select {
	case <-c:
		return true
	case <-e.ctx.Done():
		return false
	}
}
