// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"context"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/sfu/transport"
)

// What those may do who run a room rather than take part in it.

// Entry of the journal: what has happened in a room. Participant and Track are set where What says so.
type Entry struct {
	What        What
	At          time.Time
	Room        RoomInfo
	Participant *Info
	Track       *TrackInfo
}

// What has happened.
type What int

// What can happen.
const (
	RoomStarted What = iota
	RoomFinished
	ParticipantJoined  // its connection is up
	ParticipantLeft    // after it had joined
	ParticipantAborted // before its connection was up
	TrackPublished
	TrackUnpublished
)

// note writes into the journal. The caller holds the room's lock.
func (r *Room) note(what What, p *Participant, t *Track) {
	f := r.engine.cfg.Journal
	if f == nil {
		return
	}
	e := Entry{What: what, At: r.engine.now(), Room: r.info()}
	if p != nil {
		if p.profile.Permissions.Hidden {
			return
		}
		i := p.info()
		e.Participant = &i
	}
	if t != nil {
		i := t.info
		e.Track = &i
	}
	f(e)
}

// Setup of a room that is made before anybody joins. Zero values leave the engine's.
type Setup struct {
	Metadata              string
	MaxParticipants       int
	EmptyFor, DepartedFor time.Duration
}

// Configure changes how a room is set up and tells those who are in it.
func (r *Room) Configure(s Setup) RoomInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.MaxParticipants > 0 {
		r.setup.MaxParticipants = min(s.MaxParticipants, r.engine.cfg.MaxParticipants)
	}
	if s.EmptyFor > 0 {
		r.setup.EmptyFor = s.EmptyFor
	}
	if s.DepartedFor > 0 {
		r.setup.DepartedFor = s.DepartedFor
	}
	if s.Metadata != "" {
		r.describe(s.Metadata)
	}
	return r.info()
}

// SetMetadata changes the room's metadata and tells those who are in it.
func (r *Room) SetMetadata(metadata string) RoomInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.describe(metadata)
	return r.info()
}

func (r *Room) describe(metadata string) {
	if r.setup.Metadata == metadata {
		return
	}
	r.setup.Metadata = metadata
	for _, p := range r.order {
		p.observer.Tell(RoomChanged{r.info()})
	}
}

// Say sends a data message of nobody's to everybody, or to those who are named by identity or SID.
func (r *Room) Say(label string, message []byte, identities, sids []string) error {
	if len(message) > transport.MaxMessage {
		return ErrForbidden
	}
	r.mu.Lock()
	var to []*Participant
	for _, p := range r.order {
		if len(identities) == 0 && len(sids) == 0 || slices.Contains(identities, p.profile.Identity) || slices.Contains(sids, p.sid) {
			to = append(to, p)
		}
	}
	r.mu.Unlock()
	deliver(to, label, message)
	return nil
}

// deliver sends a message to each; who does not take messages is let go.
func deliver(to []*Participant, label string, message []byte) {
	for _, p := range to {
		if err := p.receiving.session.SendData(label, message); err == transport.ErrSlow {
			p.Leave(Failed)
		}
	}
}

// Silence mutes a track and tells its publisher to do so. A track cannot be unmuted from outside: nobody opens another's microphone.
func (p *Participant) Silence(sid string) (TrackInfo, error) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	t := p.tracks[sid]
	if t == nil {
		return TrackInfo{}, ErrNoTrack
	}
	if !t.info.Muted {
		t.info.Muted, t.silenced = true, p.room.engine.now()
		p.observer.Tell(Silenced{sid})
		p.changed()
	}
	return t.info, nil
}

// Change sets, for somebody else, what Update sets for oneself; nil permissions leave them. Tracks that may not be published any more
// end, and so do subscriptions that are not permitted any more.
func (p *Participant) Change(name, metadata *string, attributes map[string]string, permissions *Permissions) (Info, error) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.state == Disconnected {
		return Info{}, ErrGone
	}
	p.set(name, metadata, attributes)
	if permissions != nil {
		before := p.profile.Permissions
		p.profile.Permissions = *permissions
		for _, t := range slices.Clone(p.order) {
			if !p.mayPublish(t.info.Source) {
				p.drop(t)
				p.observer.Tell(Unpublished{t.info.SID})
			}
		}
		switch {
		case !permissions.Subscribe:
			for _, s := range p.subscriptions {
				p.unsubscribe(s.track)
			}
		case !before.Subscribe && p.options.AutoSubscribe:
			for _, t := range p.room.tracks {
				p.subscribe(t)
			}
		}
	}
	p.changed()
	return p.info(), nil
}

// mayPublish reports whether tracks of that source are permitted. The caller holds the room's lock.
func (p *Participant) mayPublish(source string) bool {
	may := p.profile.Permissions
	return may.Publish && (len(may.Sources) == 0 || slices.Contains(may.Sources, source))
}

// Audience says who may receive a publisher's tracks: everybody, or for each identity (or SID) the tracks that are named, all of them
// where All is set.
type Audience struct {
	Everybody bool
	Grants    []AudienceGrant
}

// AudienceGrant is one entry of an Audience.
type AudienceGrant struct {
	Identity, SID string // one of the two
	All           bool
	Tracks        []string
}

func (a *Audience) permits(p *Participant, track string) bool {
	if a == nil || a.Everybody {
		return true
	}
	for _, g := range a.Grants {
		if (g.Identity != "" && g.Identity == p.profile.Identity || g.SID != "" && g.SID == p.sid) && (g.All || slices.Contains(g.Tracks, track)) {
			return true
		}
	}
	return false
}

// SetAudience says who may receive the participant's tracks from now on. Those who may not any more lose them, those who may get them
// if they take everything; both are told.
func (p *Participant) SetAudience(a Audience) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.state == Disconnected {
		return
	}
	before := p.audience
	p.audience = &a
	for _, o := range p.room.order {
		if o == p {
			continue
		}
		for _, t := range p.order {
			if !t.shown() {
				continue
			}
			now := a.permits(o, t.info.SID)
			if before.permits(o, t.info.SID) == now {
				continue
			}
			if !now {
				o.unsubscribe(t)
			}
			o.observer.Tell(Permitted{Publisher: p.sid, SID: t.info.SID, Allowed: now})
			if now && o.options.AutoSubscribe {
				o.subscribe(t)
			}
		}
	}
}

// Drain takes nobody new from now on, and returns when everybody has left or ctx ends. Those who are in a call may go on, and come back
// after their connection broke; Close then tells whoever is left to connect anew.
func (e *Engine) Drain(ctx context.Context) error {
	e.draining.Store(true)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for e.Totals().Participants > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

// Totals counts what the engine holds and has forwarded.
type Totals struct {
	Rooms, Participants, Tracks, Subscriptions, Limited int
	// Since the start, of layers and legs that exist or existed: packets and bytes of payload from publishers and to subscribers.
	PacketsIn, BytesIn, PacketsOut, BytesOut, PacketsAgain uint64
	ByRoom                                                 []RoomTotals
}

// RoomTotals counts one room.
type RoomTotals struct {
	Name                                string
	Participants, Tracks, Subscriptions int
}

// Totals gives the counts as they are now.
func (e *Engine) Totals() (sum Totals) {
	for _, r := range e.Rooms() {
		r.mu.Lock()
		one := RoomTotals{Name: r.name, Participants: len(r.order), Tracks: len(r.tracks)}
		for _, p := range r.order {
			one.Subscriptions += len(p.subscriptions)
			if p.receiving.adaption.limited {
				sum.Limited++
			}
			for _, s := range p.subscriptions {
				sum.leg(s)
			}
		}
		for _, t := range r.tracks {
			sum.source(t)
			if t.backup != nil {
				sum.source(t.backup)
			}
		}
		r.mu.Unlock()
		sum.Rooms++
		sum.Participants += one.Participants
		sum.Tracks += one.Tracks
		sum.Subscriptions += one.Subscriptions
		sum.ByRoom = append(sum.ByRoom, one)
	}
	e.gone.add(&sum)
	return sum
}

func (s *Totals) leg(sub *Subscription) {
	g := sub.leg.Stats()
	s.PacketsOut += g.Packets
	s.BytesOut += g.Octets
	s.PacketsAgain += g.Again
}

func (s *Totals) source(t *Track) {
	if t.source == nil {
		return
	}
	for layer := range 3 {
		l := t.source.Stats(layer)
		s.PacketsIn += l.Packets
		s.BytesIn += l.Bytes
	}
}

// Hold says which sources the participant may not unmute from now on. What is not muted stays so.
func (p *Participant) Hold(sources []string) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.profile.Permissions.Held = slices.Clone(sources)
}
