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

// picture is a subscribed video track as it is shared out.
type picture struct {
	leg    *forward.Leg
	source *forward.Source
	screen bool
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
	var pictures []picture
	for _, s := range p.ordered() {
		if s.track.info.Video && s.bound { // sounds are not numbered: the estimate is of what is left beside them
			subs = append(subs, s)
			pictures = append(pictures, picture{s.leg, s.track.source, s.track.info.Source == "screen_share"})
		}
	}
	target, extra := a.share(c.session.Path, pictures, p.options.MayPause, now, func(i, level int) { p.allow(subs[i], level) })
	if target > 0 {
		p.seekMore(pictures, target, extra)
	}
}

// share calls allow for each picture whose level is to change. It tells what a probe should reach now, in bit/s, 0 for none, and how much of it
// is not sent already.
func (a *adaption) share(path *congest.Estimator, pictures []picture, mayPause bool, now time.Duration, allow func(i, level int)) (target, extra int) {
	rate, _ := path.Limited()
	demands := make([]congest.Demand, len(pictures))
	asked := 0
	for i, s := range pictures {
		d := congest.Demand{Wanted: s.leg.WantedLevel(), Rate: s.source.Rates()}
		d.Now = min(s.leg.Allowed(), d.Wanted)
		if s.screen {
			d.Priority = 1
		}
		for l := min(d.Wanted, forward.Everything); l >= 0; l-- {
			if d.Rate[l] > 0 {
				asked += d.Rate[l]
				break
			}
		}
		demands[i] = d
	}
	path.Asked(asked, now)
	out := congest.Allocate(int(float64(rate)*(1-path.Noise())), demands)
	for i, s := range pictures {
		if out[i] < 0 && demands[i].Wanted >= 0 && !mayPause {
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
		allow(i, out[i])
	}
	next := congest.Next(demands, out)
	if next == 0 {
		return 0, 0
	}
	sum := 0
	for i, l := range out {
		if l >= 0 && l < len(demands[i].Rate) {
			sum += demands[i].Rate[l]
		}
	}
	sent := min(sum, path.Throughput())
	if a.wait == 0 {
		a.wait = probeAfter
	}
	if a.found > 0 && now-a.found > trustAfter+a.doubt {
		a.found, a.doubt = 0, 0
	}
	if a.probing || rate >= next || now-max(a.probed, a.changed) < a.wait || a.found > 0 && now-a.found < a.doubt {
		return 0, 0
	}
	target = int(probeSurplus * float64(next))
	return target, max(target/8, target-sent)
}

// result notes what came of a probe.
func (a *adaption) result(found, conclusive bool, now time.Duration) {
	a.probing, a.probed = false, now
	switch {
	case found:
		a.wait, a.found = probeAfter, now
	case conclusive:
		a.wait = min(2*a.wait, probeAtMost)
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

// seekMore probes beside what p is sent. The caller holds the room's lock.
func (p *Participant) seekMore(pictures []picture, target, extra int) {
	c := p.receiving
	e := p.room.engine
	b := probe{path: c.session.Path, target: target, extra: extra}
	for _, s := range pictures {
		b.legs = append(b.legs, s.leg)
	}
	c.adaption.probing = true
	e.wait.Go(func() {
		found, conclusive := e.probe(&b)
		p.room.mu.Lock()
		defer p.room.mu.Unlock()
		c.adaption.result(found, conclusive, e.cfg.Transport.Now())
	})
}

// probe sends, for a moment, what was sent already once more, to see whether it comes through.
type probe struct {
	path          *congest.Estimator
	legs          []*forward.Leg
	target, extra int // bit/s: of all that is sent, and of what is sent beside the pictures
	begun, ended  time.Duration
	running, over bool
	sent, turn    int
}

// step is called every few milliseconds; it reports whether the probe is over and its result known as well as it will be.
func (b *probe) step(now time.Duration, out forward.Out) (done bool) {
	switch {
	case !b.running:
		b.running, b.begun = true, now
		b.path.StartProbe(b.target)
	case b.over:
		return now-b.ended > probeEcho
	}
	d := now - b.begun
	if d > probeTime {
		b.over, b.ended = true, now
		b.path.EndProbe(now)
		return false
	}
	due := int(float64(b.extra) / 8 * (d + probeStep).Seconds())
	for tries := 0; b.sent < due && tries < len(b.legs); tries++ {
		b.sent += b.legs[(b.turn+tries)%len(b.legs)].Pad(due-b.sent, out)
	}
	b.turn++
	return false
}

// probe runs b, and reports whether its target came through, and whether that is known.
func (e *Engine) probe(b *probe) (found, conclusive bool) {
	t := e.cfg.Transport
	tick := time.NewTicker(probeStep)
	defer tick.Stop()
	for done := false; !done; {
		t.Do(func(out *transport.Batch) { done = b.step(t.Now(), out) })
		if !e.sleep(tick.C) {
			return false, false
		}
	}
	return b.path.ProbeResult(t.Now())
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
