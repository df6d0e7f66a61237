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
	testFor   = 150 * time.Millisecond
	probeStep = 5 * time.Millisecond
	settleFor = time.Second            // after something was taken away, it is seen what that brings
	probeEcho = 700 * time.Millisecond // until what came of a probe is known at the latest
	riseAfter = 2 * time.Second
	stopAfter = 1500 * time.Millisecond // something was taken away from any, a picture may stop
	stopNow   = 0.65                    // of what the lowest layers take: with less than that, at once
	losesMuch = 0.05                    // after this share was lost
	losesFor  = 3 * time.Second         // for so long, pictures that do not quite fit stop
	startRate = 10_000_000              // bit/s: what a new path is trusted with, so that the first key frames of a full room are not one burst
	startFor  = 3 * time.Second
)

// adaption is the state of one receiving connection. It is guarded by the room's lock.
type adaption struct {
	begun   time.Duration // when the connection was made
	limited bool          // the path was limited when it was last looked at
	intact  time.Duration // when it lost little last
	short   time.Duration // since when there is no room for a picture that is shown; 0 if there is
	seeker  congest.Seeker
	testing bool // a probe tests whether the path is narrow at all
}

// picture is a subscribed video track as it is shared out.
type picture struct {
	leg    *forward.Leg
	source *forward.Source
	// Of those of the same priority, the screen comes first.
	screen   bool
	priority int
}

// adapt gives each video track that p receives the level for which there is room. The caller holds the room's lock.
func (p *Participant) adapt() {
	c := p.receiving
	if !c.session.Open() || !c.adaption.limited && !c.session.Numbered() {
		return // nothing speaks against the path
	}
	c.session.Listen()
	now := p.room.engine.cfg.Transport.Now()
	c.p.room.engine.repairs.add(&c.unheard) // also for what came late, which nobody has asked for
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
			pictures = append(pictures, picture{s.leg, s.track.source, s.track.info.Source == "screen_share", s.priority})
		}
	}
	b := a.share(c.session.Path, pictures, p.options.MayPause, now, func(i, level int) {
		p.room.engine.log.Debug("a picture's level", "participant", p.sid, "track", subs[i].track.info.SID, "from", subs[i].leg.Allowed(), "to", level,
			"rate", rate, "loss", c.session.Path.Loss(), "rates", subs[i].track.source.Rates())
		p.allow(subs[i], level)
	})
	if b != nil {
		p.seekMore(b)
	}
}

// share calls allow for each picture whose level is to change. It gives the probe that is due, nil for none.
func (a *adaption) share(path *congest.Estimator, pictures []picture, mayPause bool, now time.Duration, allow func(i, level int)) *probe {
	rate, _ := path.Limited()
	demands := make([]congest.Demand, len(pictures))
	asked := 0
	for i, s := range pictures {
		d := congest.Demand{Wanted: s.leg.WantedLevel(), Rate: s.source.Rates(), Priority: s.priority, Ahead: s.screen}
		d.Now = min(s.leg.Allowed(), d.Wanted)
		for l := min(d.Wanted, forward.Everything); l >= 0; l-- {
			if d.Rate[l] > 0 {
				asked += d.Rate[l]
				break
			}
		}
		demands[i] = d
	}
	path.Asked(asked, now)
	use := 1 - path.Worn() // the rest is for repairs
	keep := 1.0
	if path.Loss() < losesMuch {
		a.intact = now
	}
	if now-a.intact < losesFor {
		keep = congest.StopRoom
	}
	out := congest.Allocate(int(use*float64(rate)), keep, demands)
	switch {
	case !congest.Stops(demands, out):
		a.short = 0
	case a.short == 0:
		a.short = now
		fallthrough
	case now-a.short < stopAfter: // an estimate may dip: only what does not fit by far stops at once
		out = congest.Allocate(int(use*float64(rate)), min(keep, stopNow), demands)
	}
	for i, s := range pictures {
		if out[i] < 0 && demands[i].Wanted >= 0 && !mayPause {
			out[i] = lowest(&demands[i]) // the smallest picture goes on: an estimate may be wrong, and a black tile looks like a broken call
		}
		low, before := lowest(&demands[i]), s.leg.Allowed()
		for before > low && demands[i].Rate[before] == 0 {
			before-- // it is not sent
		}
		if out[i] < 0 && demands[i].Wanted >= 0 && before >= 0 && (before > low || a.seeker.Narrowed(stopAfter, now)) {
			out[i] = low // layers go down first: what that brings has to be seen
		}
		if demands[i].Wanted < 0 || out[i] == before || out[i] == s.leg.Allowed() || out[i] == demands[i].Wanted && before >= out[i] {
			continue
		}
		if out[i] < before {
			a.seeker.Lowered(now)
		} else if a.seeker.Narrowed(riseAfter, now) {
			continue // it has just become narrower
		}
		allow(i, out[i])
	}
	if a.testing {
		return nil
	}
	target, lasts := a.seeker.Seek(rate, int(float64(congest.Next(demands, out))/use), asked, now)
	if target == 0 {
		if a.seeker.Busy() || a.seeker.Narrowed(settleFor, now) || !least(demands, out) {
			return nil
		}
		if target, lasts = path.Doubt(now), testFor; target == 0 {
			return nil
		}
		a.testing = true
	}
	b := &probe{path: path, target: target, lasts: lasts, test: a.testing}
	sum := 0
	for i, l := range out {
		b.legs = append(b.legs, pictures[i].leg)
		if l >= 0 && l < len(demands[i].Rate) {
			sum += demands[i].Rate[l]
		}
	}
	b.extra = max(target/8, target-min(sum, path.Throughput()))
	return b
}

// least reports whether nothing smaller can be sent than out.
func least(demands []congest.Demand, out []int) bool {
	for i, level := range out {
		if level > lowest(&demands[i]) {
			return false
		}
	}
	return true
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
func (p *Participant) seekMore(b *probe) {
	c := p.receiving
	e := p.room.engine
	e.wait.Go(func() {
		found, conclusive := e.probe(b)
		p.room.mu.Lock()
		defer p.room.mu.Unlock()
		e.log.Debug("looked for room", "participant", p.sid, "target", b.target, "found", found, "conclusive", conclusive)
		c.adaption.sought(b, found, conclusive, e.cfg.Transport.Now())
	})
}

// sought takes what came of b.
func (a *adaption) sought(b *probe, found, conclusive bool, now time.Duration) {
	if b.test {
		a.testing = false
	} else {
		a.seeker.Sought(found, conclusive, now)
	}
}

// probe sends, for a moment, what was sent already once more, to see whether it comes through.
type probe struct {
	path          *congest.Estimator
	legs          []*forward.Leg
	target, extra int // bit/s: of all that is sent, and of what is sent beside the pictures
	lasts         time.Duration
	begun, ended  time.Duration
	running, over bool
	test          bool // see congest.Estimator.Doubt
	sent, turn    int
}

// step is called every few milliseconds; it reports whether the probe is over and its result known as well as it will be.
func (b *probe) step(now time.Duration, out forward.Out) (done bool) {
	switch {
	case !b.running:
		b.running, b.begun = true, now
		b.path.StartProbe(b.target, b.test, now)
	case b.over:
		return b.path.ProbeTold() || now-b.ended > probeEcho
	}
	d := now - b.begun
	if d > b.lasts || b.path.ProbeTold() {
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
