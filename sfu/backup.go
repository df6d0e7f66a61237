// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// A publisher may announce a second codec for a picture, for those who cannot show the first: VP8 beside VP9, say. It sends the second one
// when it is told that somebody wants it, as a stream of its own, which is a Track without a number of its own: first.backup. A
// subscription is to the one or to the other. Who can take both goes from one to the other within its stream; only the payload type changes.

// Policy says what becomes of those who take the first codec when somebody needs the second.
type Policy int

// The policies.
const (
	PreferRegression Policy = iota // in a small room all get the second, so that its publisher encodes once
	Simulcast                      // everybody gets what he can show
	Regression                     // all get the second
)

// Backup is a track in its second codec, once that is published.
type Backup struct {
	CID, MID string
	Detail   any // as TrackInfo's
}

const regressBelow = 5 // participants in a room that is small: LiveKit's default

// first is the track as it was announced.
func (t *Track) first() *Track {
	if t.primary != nil {
		return t.primary
	}
	return t
}

// live reports whether the track has packets to give; t may be nil.
func (t *Track) live() bool { return t != nil && t.source != nil }

// other is the codec that the track may come in besides the one it comes in; false if there is none.
func (t *Track) other() (sdp.Codec, bool) {
	f := t.first()
	switch {
	case f.info.Second == "":
		return sdp.Codec{}, false
	case t != f:
		return f.codec, f.source != nil
	case f.backup.live():
		return f.backup.codec, true
	}
	_, name, _ := strings.Cut(f.info.Second, "/")
	c := sdp.Codec{Name: name, Clock: 90000}
	if c.Is("H264") {
		c.Format = commonH264
	}
	return c, true
}

// all lists the tracks that p publishes, each codec for itself.
func (p *Participant) all() iter.Seq[*Track] {
	return func(yield func(*Track) bool) {
		for _, t := range p.order {
			if !yield(t) || t.backup != nil && !yield(t.backup) {
				return
			}
		}
	}
}

// PublishSecond announces the second codec of a track, which the client will offer by its CID. Published follows, or ErrNoTrack if there is
// no such track or it has no second codec, or ErrForbidden if that is published already.
func (p *Participant) PublishSecond(sid string, info TrackInfo) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	t := p.tracks[sid]
	switch {
	case p.state == Disconnected:
		return ErrGone
	case t == nil || t.info.Second == "":
		return ErrNoTrack
	case t.backup != nil && (t.backup.source != nil || t.backup.info.CID != info.CID):
		return ErrForbidden
	}
	asked := t.backup != nil // twice
	if !asked {
		b := t.info
		b.CID, b.MIME, b.MID, b.Layers, b.Second = info.CID, t.info.Second, "", info.Layers, ""
		t.backup = &Track{publisher: p, primary: t, info: b, since: p.room.engine.now()}
		t.info.Backup = &Backup{CID: info.CID, Detail: info.Detail}
	}
	told := t.info
	told.CID = info.CID
	p.observer.Tell(Published{told})
	if !asked {
		p.publishing.match(t.backup)
	}
	return nil
}

// begun makes the second codec of a track known, of which packets will come.
func (p *Participant) begun(b *Track) {
	t := b.primary
	second := *t.info.Backup
	second.MID = b.info.MID
	t.info.Backup = &second
	p.room.engine.hurry()
	p.changed()
	t.settle()
}

// dropBackup forgets the second codec of a track.
func (p *Participant) dropBackup(b *Track) {
	t := b.primary
	t.backup, t.info.Backup = nil, nil
	for _, o := range p.room.order {
		s := o.subscriptions[t.info.SID]
		if s == nil || s.track != b {
			continue
		}
		if s.only {
			s.awaits = p.room.engine.now() // nothing is to be put into the section that becomes free
			o.receiving.remove(s)
			s.become(t)
			s.await()
		} else {
			o.receiving.turn(s, t)
		}
	}
	if b.source != nil {
		p.room.engine.gone.keep(func(sum *Totals) { sum.source(b) })
	}
	if b.section != nil {
		b.section.up = nil
		p.publishing.forget(b)
	}
}

// become makes s a subscription to a track's other codec. It is silent until it is bound again.
func (s *Subscription) become(t *Track) {
	s.leg, s.track, s.bound, s.told = forward.Succeed(s.leg, t.source), t, false, false
	s.awaits = time.Time{}
	s.want()
}

// await makes s wait until the second codec is published.
func (s *Subscription) await() {
	s.awaits = s.to.room.engine.now()
	s.track.source.Remove(s.leg)
}

// want asks the leg for what the subscriber has use for.
func (s *Subscription) want() {
	if s.settings == nil {
		return
	}
	layer := max(0, min(s.settings.Layer, forward.MaxLayers-1))
	if s.settings.Width > 0 && s.settings.Height > 0 {
		layer = s.track.layerFor(s.settings.Width, s.settings.Height)
	}
	s.leg.WantRate(s.settings.FPS)
	s.leg.Want(layer, s.settings.Disabled)
}

// fallBack does what is to be done for a client that does not take the codec of a subscription: the other one, if there is one, or nothing.
func (p *Participant) fallBack(s *Subscription) {
	t := s.track.first()
	switch {
	case s.track != t && !s.only:
		s.plain = true
		s.become(t)
	case s.track == t && t.info.Second != "" && !s.only && !s.plain:
		if s.only = true; t.backup.live() {
			s.become(t.backup)
		} else {
			s.await()
		}
	default:
		p.refuse(s)
		return
	}
	t.settle()
}

// turn makes sub go on in a track's other codec, within its stream if the client has agreed to that, else in a new one.
func (c *connection) turn(sub *Subscription, to *Track) {
	s, before := sub.section, sub.leg
	if s == nil {
		sub.become(to)
		return
	}
	if codec := matching(&s.media, to.codec); codec == nil || !slices.Contains(s.agreed, codec.Type) {
		sub.awaits = c.p.room.engine.now() // as in dropBackup
		c.remove(sub)
		sub.become(to)
		c.add(sub)
		return
	}
	told := sub.told
	sub.become(to)
	sub.told = told
	c.mu.Lock()
	if h := c.heard[before]; h != nil {
		delete(c.heard, before)
		c.heard[sub.leg] = h
	}
	delete(c.repeats, s.streams.RTXSSRC)
	c.mu.Unlock()
	if c.bindDown(s, sub) && c.session.Open() {
		c.p.room.engine.cfg.Transport.Do(func(b *transport.Batch) { sub.leg.Start(b) })
	}
}

// settle gives everybody the codec he should have, as far as it flows, and tells the publisher what is wanted of each.
func (t *Track) settle() {
	if t.source == nil {
		return
	}
	r := t.publisher.room
	now := r.engine.now()
	var subs []*Subscription
	needed := false
	for _, o := range r.order {
		if s := o.subscriptions[t.info.SID]; s != nil {
			subs, needed = append(subs, s), needed || s.only
		}
	}
	switch {
	case needed:
		t.needed = now
		t.regressed = t.regressed || t.info.Policy == Regression || t.info.Policy == PreferRegression && len(r.order) < regressBelow
	case now.Sub(t.needed) > r.engine.cfg.ReturnAfter:
		t.regressed = false
	}
	var want [2]int
	want[0], want[1] = -1, -1
	for _, s := range subs {
		to, i := t, 0
		if s.only || t.regressed && !s.plain {
			to, i = t.backup, 1
		}
		want[i] = max(want[i], s.leg.Wanted())
		switch {
		case !s.awaits.IsZero() && to.live():
			s.become(to)
			s.to.receiving.add(s)
		case !s.awaits.IsZero() && now.Sub(s.awaits) > r.engine.cfg.SecondWithin:
			s.to.refuse(s)
		case !s.awaits.IsZero() || s.track == to:
		case to.live() && to.source.Alive() != 0 && s.bound:
			s.to.receiving.turn(s, to)
		default: // until the other one flows
			want[1-i] = max(want[1-i], s.leg.Wanted())
		}
	}
	first, second := t.wanted.due(want[0], now), t.secondWanted.due(want[1], now)
	if first || second {
		t.publisher.observer.Tell(Wanted{t.info.SID, []WantedCodec{{t.info.MIME, t.wanted.told}, {t.info.Second, t.secondWanted.told}}})
	}
}
