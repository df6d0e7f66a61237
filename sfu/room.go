// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/sfu/speakers"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

// Room is where participants meet.
type Room struct {
	engine  *Engine
	name    string
	sid     string
	created time.Time

	mu         sync.Mutex
	members    map[string]*Participant // by identity
	order      []*Participant          // by time of joining
	tracks     map[string]*Track       // by SID
	board      speakers.Board
	emptySince time.Time
	visited    bool
	closed     bool
	setup      Setup
	recall     recall
	scratch    []byte // for one compound packet
}

// RoomInfo describes a room.
type RoomInfo struct {
	SID, Name                string
	Created                  time.Time
	Participants, Publishers int
	EmptyFor, DepartedFor    time.Duration
	MaxParticipants          int
	Metadata                 string
}

// Info describes the room as it is now.
func (r *Room) Info() RoomInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.info()
}

func (r *Room) info() RoomInfo {
	i := RoomInfo{
		SID: r.sid, Name: r.name, Created: r.created, EmptyFor: cmp.Or(r.setup.EmptyFor, r.engine.cfg.EmptyFor),
		DepartedFor: cmp.Or(r.setup.DepartedFor, r.engine.cfg.DepartedFor), MaxParticipants: r.setup.MaxParticipants, Metadata: r.setup.Metadata,
	}
	for _, p := range r.order {
		if p.profile.Permissions.Hidden {
			continue
		}
		i.Participants++
		if len(p.tracks) > 0 {
			i.Publishers++
		}
	}
	return i
}

// Participants lists who is in the room, hidden ones too.
func (r *Room) Participants() []Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Info, 0, len(r.order))
	for _, p := range r.order {
		out = append(out, p.info())
	}
	return out
}

// Options of a join.
type Options struct {
	TwoConnections bool // one to send and one to receive on, which the SFU offers; else one, which the client offers
	AutoSubscribe  bool // receive every track
	MayPause       bool // pictures may stop where the path is too narrow for the smallest of them
}

// Join puts a participant into the room. An older one of the same identity is removed. welcome is called before any event, with the
// room locked.
func (r *Room) Join(profile Profile, o Options, observer Observer, welcome func(p *Participant, self Info, others []Info, room RoomInfo)) (*Participant, error) {
	p := &Participant{
		room: r, sid: newSID("PA_"), profile: profile, options: o, observer: observer, joined: r.engine.now(), version: 1, state: Joined,
		tracks: map[string]*Track{}, subscriptions: map[string]*Subscription{},
	}
	if err := p.open(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		p.hangUp()
		return nil, ErrGone
	}
	old := r.members[profile.Identity]
	if old == nil && r.engine.draining.Load() {
		p.hangUp()
		return nil, ErrGone
	}
	if old == nil && len(r.order) >= cmp.Or(r.setup.MaxParticipants, r.engine.cfg.MaxParticipants) {
		p.hangUp()
		return nil, ErrFull
	}
	if old != nil {
		old.leave(Duplicate)
	}
	r.members[profile.Identity] = p
	p.ear.since = p.joined
	r.order = append(r.order, p)
	r.visited = true
	if w := r.engine.cfg.Watcher; w != nil {
		w.Came(r.name, profile.Identity, p.sid)
	}
	welcome(p, p.info(), r.others(p), r.info())
	r.greet(p)
	for _, other := range r.order {
		if other != p && !profile.Permissions.Hidden {
			other.observer.Tell(Changed{[]Info{p.info()}})
		}
	}
	if o.AutoSubscribe {
		for _, t := range r.tracks {
			p.subscribe(t)
		}
	}
	if o.TwoConnections {
		p.receiving.begun = true
		p.receiving.offer()
	}
	return p, nil
}

// Find gives the participant of that identity, nil if there is none.
func (r *Room) Find(identity string) *Participant {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[identity]
}

// Close removes everybody and ends the room.
func (r *Room) Close(reason Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	for len(r.order) > 0 {
		r.order[0].leave(reason)
	}
	r.engine.forget(r)
	r.note(RoomFinished, nil, nil)
}

// announce tells everybody else, and p itself, how p is now.
func (r *Room) announce(p *Participant) {
	i := p.info()
	for _, o := range r.order {
		if o == p || !p.profile.Permissions.Hidden {
			o.observer.Tell(Changed{[]Info{i}})
		}
	}
}

// others lists everybody but p whom p may see.
func (r *Room) others(p *Participant) (out []Info) {
	for _, o := range r.order {
		if o != p && !o.profile.Permissions.Hidden {
			out = append(out, o.info())
		}
	}
	return out
}

// greet tells p who speaks; later it hears of changes only.
func (r *Room) greet(p *Participant) {
	if now := r.board.Current(); len(now) > 0 {
		p.observer.Tell(Speakers{now})
	}
}

// tick does what is due. It tells how soon it wants to be called again.
func (r *Room) tick(due agenda, out *transport.Batch) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return reportPeriod
	}
	if len(r.order) == 0 {
		r.recall = recall{}
		i := r.info()
		limit := i.EmptyFor
		if r.visited {
			limit = i.DepartedFor
		}
		if r.engine.now().Sub(r.emptySince) > limit {
			r.closed = true
			r.engine.forget(r)
			r.note(RoomFinished, nil, nil)
		}
		return reportPeriod
	}
	if len(r.tracks) > 0 {
		for _, p := range r.order {
			if len(p.tracks) > 0 {
				p.feedback(due.sources, due.report, out)
			}
		}
	}
	if due.sources {
		for _, t := range r.tracks {
			if t.source != nil {
				t.source.Tick()
				if t.backup.live() {
					t.backup.source.Tick()
				}
				t.dynacast()
			}
		}
		if len(r.tracks) > 0 {
			for _, p := range r.order {
				if len(p.subscriptions) > 0 {
					p.adapt()
				}
			}
		}
	}
	if due.quality {
		r.judge()
	}
	if due.speakers {
		r.hear()
	}
	if due.report {
		r.recall.prune(r.engine.now())
		for _, p := range slices.Clone(r.order) {
			p.report(out)
			p.check()
			p.expire()
		}
	}
	if len(r.tracks) == 0 {
		return reportPeriod
	}
	for _, t := range r.tracks {
		if t.live() && t.source.Restless() || t.backup.live() && t.backup.source.Restless() {
			return period
		}
	}
	return calmPeriod
}

// hear tells who speaks.
func (r *Room) hear() {
	var now []speakers.Speaker
	var defiant []*Track
	for _, p := range r.order {
		best := speakers.Speaker{ID: p.sid}
		for _, t := range p.tracks {
			if t.source == nil || t.source.Video() {
				continue
			}
			switch level, speaking := t.meter.Look(); {
			case !speaking:
			case t.info.Muted:
				if !t.silenced.IsZero() && r.engine.now().Sub(t.silenced) > defiance {
					defiant = append(defiant, t)
				}
			case level > best.Level:
				best.Level, best.Active = level, true
			}
		}
		if best.Active {
			now = append(now, best)
		}
	}
	for _, t := range defiant {
		p := t.publisher
		p.drop(t)
		p.observer.Tell(Unpublished{t.info.SID})
		p.changed()
	}
	if changed := r.board.Change(now); len(changed) > 0 {
		for _, p := range r.order {
			p.observer.Tell(Speakers{changed})
		}
	}
}
