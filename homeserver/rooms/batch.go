// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// A batch of events on its way in: each is judged in its turn, as the ones before it left the room.

// batch is an Insert under way. The room's lock is held.
type batch struct {
	ctx    context.Context
	r      *Room
	how    entry
	plan   []planned
	head   *Head // as settled last
	ext    []Extremity
	after  map[int64]int64 // state group after extremities that the batch looked at
	last   int             // the newest accepted event
	forked bool            // ext has moved on from head
	fork   *fork           // nil: to be resolved when it is needed
	resolver
}

// fork is what forked extremities resolved to a few events ago, with what was accepted since. A thousand events on one side of a fork
// would otherwise be a thousand resolutions, each larger than the one before. It is resolved anew after forkAge events, after every
// event that may take power away, and before an event is soft-failed by it.
type fork struct {
	res   *resolution
	since map[event.Key]Ref
	n     int
}

const forkAge = 64

// start is the head that event i of the plan found.
func (b *batch) start(i int) *Head {
	for i--; i >= 0; i-- {
		if b.plan[i].after != nil {
			return b.plan[i].after
		}
	}
	return b.r.next
}

// add plans one event; old is what is there of it already, an outlier, or nil.
func (b *batch) add(e *event.Event, old *Stored) (status storage.Status, err error) {
	r := b.r
	p := planned{foreign: true, relay: b.how.relay, place: old != nil}
	defer func() {
		if err != nil {
			r.s.pending.drop([]planned{p})
		}
	}()
	if old != nil && old.Status == storage.StatusRejected {
		status = old.Status
	}
	given := b.how.given[e.ID()]
	if given != nil { // not needed where its past is there after all
		if _, _, _, err := b.ancestors(e, false); err == nil {
			given = nil
		}
	}
	prev, auth, missing, err := b.ancestors(e, given != nil)
	if err != nil {
		return 0, err
	}
	if p.missing = missing; len(missing) > 0 {
		p.skip = leap
	}
	_, p.fillsGap = r.gaps[e.ID()]
	_, p.fillsEarly = r.early[e.ID()]
	var groups []int64
	floor := r.floor
	for _, x := range prev {
		floor = max(floor, x.NID)
		groups = addGroup(groups, x.StateAfter)
	}
	byAuth := event.EventsState{}
	list := make([]*event.Event, 0, len(auth))
	for _, a := range auth {
		floor = max(floor, a.NID)
		list = append(list, a.Event)
		if a.Status == storage.StatusRejected {
			status = storage.StatusRejected
		}
		if a.IsState() {
			byAuth[a.Key()] = a.Event
		}
	}
	var before *resolution
	switch {
	case given != nil:
		g, err := r.groupOf(b.ctx, b.head.group, e.ID(), given)
		if err != nil {
			return 0, err
		}
		if before = (&resolution{id: g.id, base: g.id}); g != b.head.group {
			p.groups = []*group{g}
		}
		groups = nil
	default:
		if before, err = b.resolve(groups); err != nil {
			return 0, err
		}
		if before.id == 0 {
			if p.groups, err = b.store(before); err != nil {
				return 0, err
			}
		}
	}
	if r.partial.Load() != nil {
		if before, err = b.learn(before, byAuth, &p); err != nil {
			return 0, err
		}
	}
	if status == storage.StatusOK {
		if status, err = judge(storage.StatusRejected, event.CheckAuthEvents(e, list)); err != nil {
			return 0, err
		}
	}
	for _, st := range []event.State{byAuth, groupView{b.ctx, r, before.id}} {
		if status == storage.StatusOK {
			if status, err = judge(storage.StatusRejected, event.Authorise(e, st)); err != nil {
				return 0, err
			}
		}
	}
	current, err := b.groups()
	if err != nil {
		return 0, err
	}
	if status == storage.StatusOK && !slices.Equal(current, groups) {
		var view event.State = currentView{b, current}
		if r.partial.Load() != nil {
			view = eitherState{view, byAuth}
		}
		if status, err = judge(storage.StatusSoftFailed, event.Authorise(e, view)); err != nil {
			return 0, err
		}
		if status != storage.StatusOK && b.fork != nil && b.fork.n > 0 { // only what stands when resolved anew is refused
			b.fork = nil
			if status, err = judge(storage.StatusSoftFailed, event.Authorise(e, view)); err != nil {
				return 0, err
			}
		}
	}
	if status == storage.StatusOK && b.how.soft[e.ID()] {
		status = storage.StatusSoftFailed
	}
	if status == storage.StatusOK && e.Type() == DummyType && !e.IsState() {
		status = storage.StatusHidden
	}
	var nid int64
	if old != nil {
		nid = old.NID
	} else if nid, err = r.nid(b.ctx, floor); err != nil {
		return 0, err
	}
	p.stored = &Stored{Event: e, NID: nid, Status: status, StateBefore: before.id, StateAfter: before.id, StickyUntil: stickyUntil(e, r.s.clock.Now())}
	if own := b.how.own; own != nil {
		p.stored.Device, p.stored.TxnID = own.Device, own.TxnID
	}
	if e.IsState() && status != storage.StatusRejected {
		parent, err := r.s.group(b.ctx, before.id)
		if err != nil {
			return 0, err
		}
		g, err := r.s.newGroup(b.ctx, parent, map[event.Key]Ref{e.Key(): {nid, e.ID()}}, nil)
		if err != nil {
			return 0, err
		}
		p.groups = append(p.groups, g)
		p.stored.StateAfter = g.id
	}
	if status == storage.StatusOK {
		if err := b.redactEarly(&p); err != nil {
			return 0, err
		}
	}
	r.s.pending.addEvent(p.stored)
	b.plan = append(b.plan, p)
	if !status.Accepted() {
		return status, nil
	}
	return status, b.move(prev)
}

// move puts the event planned last onto the room's extremities, in the place of those it builds on.
func (b *batch) move(prev []*Stored) error {
	b.last = len(b.plan) - 1
	p := &b.plan[b.last]
	gone, err := b.covered(prev)
	if err != nil {
		return err
	}
	b.ext = slices.DeleteFunc(b.ext, func(x Extremity) bool { return gone[x.NID] })
	if p.fillsGap && len(b.ext) > 0 {
		return nil // it fills a hole: what stands on it is there already, with its state
	}
	b.ext = append(b.ext, Extremity{NID: p.stored.NID, ID: p.stored.ID(), Depth: p.stored.Depth()})
	b.after[p.stored.NID] = p.stored.StateAfter
	b.forked = true
	if b.fork != nil && p.stored.IsState() {
		b.fork.since[p.stored.Key()] = Ref{p.stored.NID, p.stored.ID()}
		if b.fork.n++; b.fork.n > forkAge || p.stored.TakesPower() {
			b.fork = nil
		}
	}
	if e := p.stored; e.Type() == "m.room.redaction" && e.Redacts() != "" {
		known := false
		if p.redact, known, err = b.r.redaction(b.ctx, e.Event, groupView{b.ctx, b.r, e.StateBefore}, false); err != nil {
			return err
		}
		if !known && fits(e.Redacts()) {
			p.early = e.Redacts()
		}
	}
	if len(b.ext) == 1 {
		return b.settle(b.last)
	}
	return nil
}

// covered collects what an event with these prev_events stands on: the prev_events themselves, and, through those that were not
// accepted, what lies behind them.
func (b *batch) covered(prev []*Stored) (map[int64]bool, error) {
	gone := map[int64]bool{}
	left := len(b.ext)
	for len(prev) > 0 && left > 0 {
		var next []string
		for _, x := range prev {
			if gone[x.NID] {
				continue
			}
			gone[x.NID] = true
			if !x.Status.Accepted() {
				next = append(next, x.PrevIDs()...)
			} else if slices.ContainsFunc(b.ext, func(y Extremity) bool { return y.NID == x.NID }) {
				left--
			}
		}
		if len(next) == 0 {
			break
		}
		found, err := b.r.s.byEventID(b.ctx, b.r, next...)
		if err != nil {
			return nil, err
		}
		prev = prev[:0:0]
		for _, x := range found {
			prev = append(prev, x)
		}
	}
	return gone, nil
}

// ancestors loads the events that e names; *Missing when one is not there or, for prev_events, has no state. With loose, prev_events may
// be missing: they are named.
func (b *batch) ancestors(e *event.Event, loose bool) (prev, auth []*Stored, holes []string, err error) {
	if len(e.PrevIDs()) == 0 {
		return nil, nil, nil, signalling.BadJSON("event %s has no previous events", e.ID())
	}
	ids := e.AuthIDs()
	found, err := b.r.s.byEventID(b.ctx, b.r, append(slices.Clone(ids), e.PrevIDs()...)...)
	if err != nil {
		return nil, nil, nil, err
	}
	var missing []string
	for _, id := range e.PrevIDs() {
		if x := found[id]; x == nil || x.StateAfter == 0 {
			if loose {
				holes = append(holes, id)
			} else {
				missing = append(missing, id)
			}
		} else {
			prev = append(prev, x)
		}
	}
	for _, id := range ids {
		if x := found[id]; x == nil {
			missing = append(missing, id)
		} else {
			auth = append(auth, x)
		}
	}
	if len(missing) > 0 {
		return nil, nil, nil, &Missing{Event: e.ID(), IDs: missing}
	}
	return prev, auth, holes, nil
}

// groups are the state groups after the extremities, in order and each once.
func (b *batch) groups() (ids []int64, err error) {
	for _, x := range b.ext {
		g, ok := b.after[x.NID]
		if !ok {
			m, err := b.r.s.byNID(b.ctx, b.r.Version, x.NID)
			if err != nil {
				return nil, err
			}
			if m[x.NID] == nil {
				return nil, fmt.Errorf("extremity %d is not there", x.NID)
			}
			g = m[x.NID].StateAfter
			b.after[x.NID] = g
		}
		ids = addGroup(ids, g)
	}
	return ids, nil
}

// addGroup adds an id to a list that is in order and holds each once.
func addGroup(ids []int64, id int64) []int64 {
	if i, found := slices.BinarySearch(ids, id); !found {
		ids = slices.Insert(ids, i, id)
	}
	return ids
}

// judge turns the answer of a check into a status: refused, or fine, or an error of our own.
func judge(refusal storage.Status, err error) (storage.Status, error) {
	var e *signalling.Error
	switch {
	case err == nil:
		return storage.StatusOK, nil
	case errors.As(err, &e) && e.Code == "M_FORBIDDEN":
		return refusal, nil
	}
	return refusal, err
}

// settle works out the head that the extremities leave, and notes what changed with event i of the plan.
func (b *batch) settle(i int) error {
	b.forked, b.fork = false, nil
	groups, err := b.groups()
	if err != nil {
		return err
	}
	res, err := b.resolve(groups)
	if err != nil {
		return err
	}
	p := &b.plan[i]
	if res.id == 0 {
		made, err := b.store(res)
		if err != nil {
			return err
		}
		p.groups = append(p.groups, made...)
	}
	if p.changes, p.after, err = b.r.moved(b.ctx, b.head, res.id); err != nil {
		return err
	}
	p.after.ext = slices.Clone(b.ext)
	b.head = p.after
	return nil
}
