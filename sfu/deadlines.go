// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/sfu/forward"
)

// Deadlines of what a client has begun, or was asked for, and does not finish. They are for clients that do something else than they said,
// not for slow ones: a client's time counts only while it is connected, and only up to the moment when it was last heard over its signalling
// connection. Whoever is cut off, asleep or too busy to speak is judged by its connections, and has all the time anew when it is back.

// Spoke notes that the participant's client was heard over its signalling connection.
func (p *Participant) Spoke() { p.spoke.Store(p.room.engine.now().UnixNano()) }

// anew gives a client that has come back all its time again.
func (p *Participant) anew() {
	now := p.room.engine.now()
	for t := range p.all() {
		t.since = now
	}
	p.receiving.told = now
}

// expire does what becomes of things that were not done in time. The caller holds the room's lock.
func (p *Participant) expire() {
	if p.state != Active {
		return // see check
	}
	cfg, spoke := p.room.engine.cfg, time.Unix(0, p.spoke.Load())
	over := func(limit time.Duration, since ...time.Time) bool {
		return spoke.Sub(slices.MaxFunc(append(since, p.primary().since), time.Time.Compare)) > limit
	}
	switch c := p.receiving; {
	case c.outstanding != 0 && over(cfg.AnswerWithin, c.told):
		// Nothing that came later can be offered to it.
		p.room.engine.log.Info("an offer was not answered", "room", p.room.name, "participant", p.sid)
		p.leave(Failed)
		return
	case c.asked && over(cfg.AnswerWithin, c.told):
		c.asked = false
		c.ask()
	}
	for _, t := range slices.Clone(p.order) {
		if b := t.backup; b != nil && b.source == nil && over(cfg.PublishWithin, b.since) {
			p.dropBackup(b)
			p.changed()
		}
		switch {
		case t.info.Muted:
		case t.source == nil && over(cfg.PublishWithin, t.since):
			p.room.engine.log.Info("an announced track was not offered", "room", p.room.name, "participant", p.sid, "track", t.info.SID)
			p.drop(t)
			p.observer.Tell(Unpublished{t.info.SID})
			p.changed()
		case t.source == nil:
		case t.withdrawn && t.flows():
			t.withdrawn = false
			p.published(t)
		case !t.withdrawn && !t.flows() && t.wanted.told >= 0 && p.publishing.connected && over(cfg.PublishWithin, t.since, t.wanted.raised, p.publishing.since):
			p.withdraw(t)
		}
	}
}

// withdraw takes a track of which nothing ever came from the others, who would wait for it, until something comes. Its publisher is not
// told: it may be about to send, as one that shares a window which is still minimised.
func (p *Participant) withdraw(t *Track) {
	p.room.engine.log.Info("nothing comes of a track", "room", p.room.name, "participant", p.sid, "track", t.info.SID)
	p.hide(t)
	t.withdrawn = true
	p.changed()
}

// shown reports whether the others know of the track.
func (t *Track) shown() bool { return t.source != nil && !t.withdrawn }

// flows reports whether anything ever came of the track, in either codec.
func (t *Track) flows() bool {
	for layer := 0; layer < forward.MaxLayers && !t.flowed; layer++ {
		t.flowed = t.live() && t.source.Stats(layer).Packets > 0 || t.backup.live() && t.backup.source.Stats(layer).Packets > 0
	}
	return t.flowed
}
