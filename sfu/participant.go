// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

// Participant is somebody in a room.
type Participant struct {
	room     *Room
	sid      string
	options  Options
	joined   time.Time
	observer Observer

	// All below is guarded by room.mu.
	profile       Profile
	state         State
	version       uint32
	reason        Reason
	tracks        map[string]*Track // published, by SID; pending ones too
	order         []*Track
	subscriptions map[string]*Subscription // by SID of the track
	publishing    *connection
	receiving     *connection // the same as publishing for a single connection
	judged        Quality     // as it was told last
	audience      *Audience   // nil for everybody
	came          bool        // its connection was up once
	ear           ear
	spoke         atomic.Int64 // when the client was last heard over its signalling connection, Unix time in ns; not guarded
}

// open makes the connections.
func (p *Participant) open() error {
	t := p.room.engine.cfg.Transport
	c, err := newConnection(p, t)
	if err != nil {
		return err
	}
	p.publishing, p.receiving = c, c
	if p.options.TwoConnections {
		if p.receiving, err = newConnection(p, t); err != nil {
			p.hangUp()
			return err
		}
		p.receiving.offers = true
	}
	return nil
}

// hangUp ends the connections. Their sessions are closed on a goroutine: closing waits for calls that may want the room's lock.
func (p *Participant) hangUp() {
	sessions := []*transport.Session{p.publishing.session}
	if p.receiving != nil && p.receiving != p.publishing {
		sessions = append(sessions, p.receiving.session)
	}
	p.room.engine.wait.Go(func() {
		for _, s := range sessions {
			s.Close()
		}
	})
}

// SID is the participant's number.
func (p *Participant) SID() string { return p.sid }

// Room is where it is.
func (p *Participant) Room() *Room { return p.room }

// Info describes the participant as it is now.
func (p *Participant) Info() Info {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.info()
}

func (p *Participant) info() Info {
	i := Info{
		Profile: p.profile, SID: p.sid, State: p.state, Joined: p.joined, Version: p.version, Publisher: len(p.tracks) > 0, Reason: p.reason,
	}
	i.Attributes = maps.Clone(p.profile.Attributes)
	for _, t := range p.order {
		if t.shown() {
			i.Tracks = append(i.Tracks, t.info)
		}
	}
	return i
}

// changed makes a new version and tells everybody.
func (p *Participant) changed() {
	p.version++
	p.room.announce(p)
}

// Resume makes o the participant's observer. welcome is called before any event, with the room locked, so that nothing is lost or
// told twice between the two. It gives the observer until now.
// said is the number of the last numbered message from the participant.
func (p *Participant) Resume(o Observer, welcome func(self Info, others []Info, room RoomInfo, said uint32)) (before Observer, err error) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.state == Disconnected {
		return nil, ErrGone
	}
	welcome(p.info(), p.room.others(p), p.room.info(), p.ear.said)
	before, p.observer = p.observer, o
	p.anew()
	p.room.greet(p)
	return before, nil
}

// Observes reports whether o is the participant's observer.
func (p *Participant) Observes(o Observer) bool {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.observer == o
}

// Leave takes the participant out of the room.
func (p *Participant) Leave(reason Reason) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.leave(reason)
}

func (p *Participant) leave(reason Reason) {
	if p.state == Disconnected {
		return
	}
	r := p.room
	p.state, p.reason = Disconnected, reason
	if w := r.engine.cfg.Watcher; w != nil {
		w.Went(r.name, p.profile.Identity, p.sid, reason)
	}
	for _, s := range p.subscriptions {
		p.unsubscribe(s.track)
	}
	for _, t := range slices.Clone(p.order) {
		p.drop(t)
	}
	if r.members[p.profile.Identity] == p {
		delete(r.members, p.profile.Identity)
	}
	r.order = slices.DeleteFunc(r.order, func(o *Participant) bool { return o == p })
	if len(r.order) == 0 {
		r.emptySince = r.engine.now()
	}
	p.version++
	r.announce(p)
	if p.came {
		r.note(ParticipantLeft, p, nil)
	} else {
		r.note(ParticipantAborted, p, nil)
	}
	p.observer.Tell(Gone{reason})
	p.hangUp()
}

// check removes the participant if its connection never came up or has fallen silent.
func (p *Participant) check() {
	cfg := p.room.engine.cfg
	switch {
	case p.state != Active:
		if p.room.engine.now().Sub(p.joined) > cfg.JoinWithin {
			p.leave(TimedOut)
		}
	case p.primary().session.Silent() > cfg.SilentFor:
		p.leave(TimedOut)
	}
}

// primary is the connection whose state is the participant's.
func (p *Participant) primary() *connection { return p.receiving }

// Update changes name, metadata and attributes; attributes set to "" are removed. Nil leaves a field as it is.
func (p *Participant) Update(name, metadata *string, attributes map[string]string) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	may := p.profile.Permissions
	if !may.UpdateMetadata || may.KeepMetadata && metadata != nil && *metadata != p.profile.Metadata {
		return ErrForbidden
	}
	p.set(name, metadata, attributes)
	p.changed()
	return nil
}

// set changes what is not nil.
func (p *Participant) set(name, metadata *string, attributes map[string]string) {
	if name != nil {
		p.profile.Name = *name
	}
	if metadata != nil {
		p.profile.Metadata = *metadata
	}
	if len(attributes) > 0 {
		all := maps.Clone(p.profile.Attributes)
		if all == nil {
			all = map[string]string{}
		}
		for k, v := range attributes {
			if v == "" {
				delete(all, k)
			} else {
				all[k] = v
			}
		}
		p.profile.Attributes = all
	}
}

// Publish announces a track that the client will offer, by its CID. Published follows, or ErrForbidden or ErrFull.
func (p *Participant) Publish(info TrackInfo) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	switch {
	case p.state == Disconnected:
		return ErrGone
	case !p.mayPublish(info.Source):
		return ErrForbidden
	case len(p.tracks) >= p.room.engine.cfg.MaxTracks:
		return ErrFull
	}
	for _, t := range p.order {
		if t.info.CID == info.CID && t.source == nil {
			t.since = p.room.engine.now()
			p.observer.Tell(Published{t.info}) // asked twice
			return nil
		}
	}
	info.SID = newSID("TR_")
	held := !info.Muted && slices.Contains(p.profile.Permissions.Held, info.Source)
	info.Muted = info.Muted || held
	t := &Track{publisher: p, info: info, since: p.room.engine.now()}
	p.tracks[info.SID] = t
	p.order = append(p.order, t)
	p.observer.Tell(Published{t.info})
	if held {
		t.silenced = t.since
		p.observer.Tell(Silenced{info.SID})
	}
	p.publishing.match(t)
	return nil
}

// published makes a track known once its codec is.
func (p *Participant) published(t *Track) {
	if t.primary != nil {
		p.begun(t)
		return
	}
	p.room.tracks[t.info.SID] = t
	p.room.engine.hurry()
	p.room.note(TrackPublished, p, t)
	p.changed()
	for _, o := range p.room.order {
		if o != p && o.options.AutoSubscribe {
			o.subscribe(t)
		}
	}
}

// drop forgets a track of p and everybody's subscription to it.
func (p *Participant) drop(t *Track) {
	if t.primary != nil {
		p.dropBackup(t)
		return
	}
	p.hide(t)
	delete(p.tracks, t.info.SID)
	p.order = slices.DeleteFunc(p.order, func(o *Track) bool { return o == t })
	if t.section != nil {
		t.section.up = nil
		p.publishing.forget(t)
	}
	if t.backup != nil {
		p.dropBackup(t.backup)
	}
}

// hide takes a track of p from everybody else.
func (p *Participant) hide(t *Track) {
	for _, o := range p.room.order {
		o.unsubscribe(t)
	}
	if p.room.tracks[t.info.SID] != nil {
		p.room.engine.gone.keep(func(sum *Totals) { sum.source(t) })
		p.room.note(TrackUnpublished, p, t)
	}
	delete(p.room.tracks, t.info.SID)
}

// Mute notes that a track of the participant is silent, or no longer.
func (p *Participant) Mute(sid string, muted bool) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	t := p.tracks[sid]
	if t == nil {
		return ErrNoTrack
	}
	if t.info.Muted == muted {
		return nil
	}
	if !muted && slices.Contains(p.profile.Permissions.Held, t.info.Source) {
		t.silenced = p.room.engine.now()
		p.observer.Tell(Silenced{sid})
		return ErrForbidden
	}
	t.info.Muted, t.silenced, t.since = muted, time.Time{}, p.room.engine.now()
	p.changed()
	return nil
}

// Describe changes what the participant says of one of its tracks, of that kind; change must not touch the number, the kind or the source.
func (p *Participant) Describe(sid string, video bool, change func(*TrackInfo)) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	t := p.tracks[sid]
	if t == nil || t.info.Video != video {
		return ErrNoTrack
	}
	change(&t.info)
	p.changed()
	return nil
}

// Subscribe asks for a track, or gives it up.
func (p *Participant) Subscribe(sid string, on bool) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	t := p.room.tracks[sid]
	switch {
	case p.state == Disconnected:
		return ErrGone
	case t == nil || t.publisher == p:
		return ErrNoTrack
	case !on:
		p.unsubscribe(t)
	case !p.profile.Permissions.Subscribe:
		return ErrForbidden
	default:
		p.subscribe(t)
	}
	return nil
}

// maxPriority is the highest priority of a track.
const maxPriority = 255

// Settings is what a subscriber has use for.
type Settings struct {
	Disabled      bool // nothing: the picture is not visible
	Layer         int  // the highest layer, 0 to 2; counts if Width and Height are 0
	Width, Height uint32
	FPS           uint32 // frames a second; 0 for all
	Priority      uint32 // 1 to 255: a larger one keeps its quality before all with smaller ones; 0 is unset, which counts as 1
}

// Set tells how a subscribed track is shown.
func (p *Participant) Set(sid string, s Settings) error {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	sub := p.subscriptions[sid]
	if sub == nil {
		return ErrNoTrack
	}
	sub.priority = int(max(1, min(s.Priority, maxPriority)))
	sub.settings = &s
	sub.want()
	sub.track.dynacast()
	if !s.Disabled && sub.bound && p.receiving.session.Open() {
		p.room.engine.cfg.Transport.Do(func(b *transport.Batch) { sub.leg.Start(b) })
	}
	return nil
}

func (p *Participant) subscribe(t *Track) {
	if t.publisher == p || !p.profile.Permissions.Subscribe || p.subscriptions[t.info.SID] != nil || p.state == Disconnected {
		return
	}
	if !t.publisher.audience.permits(p, t.info.SID) {
		p.observer.Tell(Permitted{Publisher: t.publisher.sid, SID: t.info.SID})
		return
	}
	from := t
	if t.regressed && t.backup.live() {
		from = t.backup
	}
	s := &Subscription{track: from, to: p, priority: 1, leg: forward.NewLeg(from.source, p.receiving.session)}
	p.subscriptions[t.info.SID] = s
	p.receiving.add(s)
	t.dynacast()
}

func (p *Participant) unsubscribe(t *Track) {
	s := p.subscriptions[t.info.SID]
	if s == nil {
		return
	}
	delete(p.subscriptions, t.info.SID)
	p.room.engine.gone.keep(func(sum *Totals) { sum.leg(s) })
	s.track.source.Remove(s.leg)
	p.receiving.remove(s)
	t.dynacast()
}

// refuse ends a subscription that no codec was found for. The client may ask for the track again.
func (p *Participant) refuse(s *Subscription) {
	p.unsubscribe(s.track)
	p.observer.Tell(Refused{s.track.info.SID})
}
