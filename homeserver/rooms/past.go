// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Unknown lists those of ids that are not there, not even as outliers.
func (s *Service) Unknown(ctx context.Context, ids []string) ([]string, error) {
	m, err := s.store.EventPlaces(ctx, ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, ok := m[id]; return ok || s.pending.byID(id) != nil }), nil
}

// InsertOutliers stores events whose place in the room is not known: the auth chain of an event, or the state at one. Each is held to its
// auth events, which are in the list, in any order, or there already; what they do not allow is stored as rejected. *Missing names auth
// events that are in neither: what stands on them is left out, the rest is stored. The caller has checked the signatures. Errors:
// ErrNoRoom.
func (s *Service) InsertOutliers(ctx context.Context, roomID string, events []*event.Event) error {
	for try := 0; ; try++ {
		r, err := s.Room(ctx, roomID)
		if err != nil {
			return err
		}
		if err = r.insertOutliers(ctx, events); errors.Is(err, errStale) && try < 5 {
			continue
		}
		return err
	}
}

func (r *Room) insertOutliers(ctx context.Context, events []*event.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return errStale
	}
	in := make(map[string]bool, len(events))
	for _, e := range events {
		in[e.ID()] = true
	}
	var want []string
	for _, e := range events {
		for _, id := range e.AuthIDs() {
			if !in[id] {
				in[id] = true
				want = append(want, id)
			}
		}
	}
	there, err := r.s.byEventID(ctx, r, want...)
	if err != nil {
		return err
	}
	rejected := map[string]bool{}
	kept, refused, lacking, err := lawful(events, r.ID, r.Version, func(id string) *event.Event {
		e := there[id]
		if e == nil {
			return nil
		}
		if e.Status == storage.StatusRejected {
			rejected[id] = true
		}
		return e.Event
	})
	if err != nil {
		return err
	}
	if len(rejected) > 0 { // what stands on a rejected event is rejected
		for again := true; again; {
			again = false
			kept = slices.DeleteFunc(kept, func(e *event.Event) bool {
				bad := slices.ContainsFunc(e.AuthIDs(), func(id string) bool { return rejected[id] })
				if bad {
					rejected[e.ID()], again = true, true
					refused = append(refused, e)
				}
				return bad
			})
		}
	}
	if _, err := r.putOutliers(ctx, kept, refused); err != nil {
		return err
	}
	if len(lacking) > 0 {
		return &Missing{Event: "an outlier", IDs: lacking}
	}
	return nil
}

// InsertWith is Insert for events whose past nobody gives us: states holds, by event id, the ids of the whole state right before an event
// (GET /state_ids), all of which are there (InsertOutliers). Where such an event's past is there after all its own state counts. History
// has a hole before it, which Backfill may fill later. *Missing names what is not there.
func (s *Service) InsertWith(ctx context.Context, roomID string, events []*event.Event, states map[string][]string) ([]storage.Status, error) {
	return s.insertAll(ctx, roomID, events, entry{given: states})
}

// Holes names the missing prev_events of the first of events, in the order given, before which history has a hole; none when there is no
// such event. GET /backfill from them brings what Backfill wants.
func (r *Room) Holes(events ...*Stored) (at *Stored, missing []string) {
	if r.holes.Load() == 0 {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		for _, id := range e.PrevIDs() {
			if slices.Contains(r.gaps[id], e.NID) {
				missing = append(missing, id)
			}
		}
		if len(missing) > 0 {
			return e, missing
		}
	}
	return nil, nil
}

// CloseHole forgets a hole that nobody can fill: history ends there.
func (s *Service) CloseHole(ctx context.Context, r *Room, missing []string) error {
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		for _, id := range missing {
			if err := tx.DeleteGap(r.NID, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, id := range missing {
			delete(r.gaps, id)
		}
		r.holes.Store(int64(len(r.gaps)))
	}
	return err
}

// HasHole says that history has a hole right before e.
func (r *Room) HasHole(e *Stored) bool {
	at, _ := r.Holes(e)
	return at != nil
}

// Backfill adds history to a room, below the hole that it fills (GET /backfill, in any order). Each event gets the state that its
// prev_events leave; where they are not there, states holds the ids of the whole state right before it, as for InsertWith, and history
// has its next hole there. It moves neither extremities nor the current state, and observers do not hear of it. Events that are not
// allowed are stored as rejected. The answer is how many came into the timeline. *Missing names an event and what is missing for it,
// prev_events or auth events: then nothing is added. The caller has checked the signatures. Errors: ErrNoRoom.
func (s *Service) Backfill(ctx context.Context, roomID string, events []*event.Event, states map[string][]string) (int, error) {
	for try := 0; ; try++ {
		r, err := s.Room(ctx, roomID)
		if err != nil {
			return 0, err
		}
		n, err := r.backfill(ctx, events, states)
		if errors.Is(err, errStale) && try < 5 {
			continue
		}
		return n, err
	}
}

func (r *Room) backfill(ctx context.Context, events []*event.Event, states map[string][]string) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return 0, errStale
	}
	if !r.next.here(r.s.signer.Server) {
		return 0, ErrNoRoom
	}
	r.used = r.s.clock.Now()
	b := &batch{ctx: ctx, r: r, how: entry{given: states}, head: r.next, resolver: resolver{ctx: ctx, r: r, known: map[string]*resolution{}}}
	defer func() { r.s.pending.drop(b.plan) }()
	for _, e := range ordered(events, (*event.Event).PrevIDs) {
		if e.RoomID() != r.ID || e.Version() != r.Version {
			return 0, signalling.InvalidParam("event %s is not of room %s", e.ID(), r.ID)
		}
		there, err := r.s.byEventID(ctx, r, e.ID())
		if err != nil {
			return 0, err
		}
		old := there[e.ID()]
		if old != nil && (old.StateAfter != 0 || old.Is("m.room.create", "") && old.Status == storage.StatusOK) {
			continue
		}
		if err := b.recall(e, old); err != nil {
			return 0, err
		}
	}
	if len(b.plan) == 0 {
		return 0, nil
	}
	if err := b.locate(); err != nil {
		return 0, err
	}
	err = r.s.store.Write(ctx, func(tx *storage.Tx) error {
		if r.poisoned.Load() {
			return errStale
		}
		for i := range b.plan {
			if err := r.writePast(tx, &b.plan[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, p := range b.plan {
		r.s.keep(p.stored)
		r.keepRedacted(p.redact, p.stored.ID())
		for _, g := range p.groups {
			r.s.groups.Add(g.id, g)
		}
		if p.stored.Status == storage.StatusOK {
			n++
		}
	}
	r.noteHoles(b.plan)
	return n, nil
}

// recall plans one event of the past.
func (b *batch) recall(e *event.Event, old *Stored) (err error) {
	r := b.r
	p := planned{foreign: true, place: old != nil}
	defer func() {
		if err != nil {
			r.s.pending.drop([]planned{p})
		}
	}()
	_, p.fillsGap = r.gaps[e.ID()]
	_, p.fillsEarly = r.early[e.ID()]
	var before, after int64
	status := storage.StatusOK
	if old != nil && old.Status == storage.StatusRejected {
		status = old.Status
	}
	if len(e.PrevIDs()) == 0 {
		if !e.Is("m.room.create", "") {
			return signalling.BadJSON("event %s has no previous events", e.ID())
		}
	} else {
		given := b.how.given[e.ID()]
		prev, auth, holes, err := b.ancestors(e, given != nil)
		if err != nil {
			return err
		}
		if p.missing = holes; len(holes) > 0 {
			g, err := r.groupOf(b.ctx, b.head.group, e.ID(), given)
			if err != nil {
				return err
			}
			if before = g.id; g != b.head.group {
				p.groups = []*group{g}
			}
		} else {
			var groups []int64
			for _, x := range prev {
				groups = addGroup(groups, x.StateAfter)
			}
			res, err := b.resolve(groups)
			if err != nil {
				return err
			}
			if res.id == 0 {
				if p.groups, err = b.store(res); err != nil {
					return err
				}
			}
			before = res.id
		}
		byAuth, list := event.EventsState{}, make([]*event.Event, 0, len(auth))
		for _, a := range auth {
			list = append(list, a.Event)
			if a.Status == storage.StatusRejected {
				status = storage.StatusRejected
			}
			if a.IsState() {
				byAuth[a.Key()] = a.Event
			}
		}
		if status == storage.StatusOK {
			if status, err = judge(storage.StatusRejected, event.CheckAuthEvents(e, list)); err != nil {
				return err
			}
		}
		for _, st := range []event.State{byAuth, groupView{b.ctx, r, before}} {
			if r.partial.Load() != nil {
				st = eitherState{st, byAuth}
			}
			if status == storage.StatusOK {
				if status, err = judge(storage.StatusRejected, event.Authorise(e, st)); err != nil {
					return err
				}
			}
		}
	}
	if status == storage.StatusOK && e.Type() == DummyType && !e.IsState() {
		status = storage.StatusHidden
	}
	nid := int64(0)
	if old != nil {
		nid = old.NID
	} else if nid, err = r.nid(b.ctx, 0); err != nil {
		return err
	}
	after = before
	if e.IsState() && status != storage.StatusRejected {
		change := map[event.Key]Ref{e.Key(): {nid, e.ID()}}
		var parent *group
		if before != 0 {
			if parent, err = r.s.group(b.ctx, before); err != nil {
				return err
			}
		}
		g, err := r.s.newGroup(b.ctx, parent, change, &stateMap{base: change, size: 1})
		if err != nil {
			return err
		}
		p.groups = append(p.groups, g)
		after = g.id
	}
	p.stored = &Stored{Event: e, NID: nid, Status: status, StateBefore: before, StateAfter: after}
	if status == storage.StatusOK {
		if err := b.redactEarly(&p); err != nil {
			return err
		}
	}
	if e.Type() == "m.room.redaction" && e.Redacts() != "" && status == storage.StatusOK {
		known := false
		if p.redact, known, err = r.redaction(b.ctx, e, groupView{b.ctx, r, before}, false); err != nil {
			return err
		}
		if !known && fits(e.Redacts()) {
			p.early = e.Redacts()
		}
	}
	r.s.pending.addEvent(p.stored)
	b.plan = append(b.plan, p)
	return nil
}

// locate gives the events of the plan, which are in order, positions right below the events whose holes they fill; where there is no
// room, or no such event, below everything.
func (b *batch) locate() error {
	// An answer may reach past what we have and fill an older hole too: each run of events goes below its own.
	type run struct {
		top    int64
		events []int // in the plan, the newest first
	}
	runs := map[int64]*run{}
	of := map[string]*run{}
	kids := map[string][]string{}
	for _, p := range b.plan {
		for _, id := range p.stored.PrevIDs() {
			kids[id] = append(kids[id], p.stored.ID())
		}
	}
	var order []*run
	for i := len(b.plan) - 1; i >= 0; i-- {
		e := b.plan[i].stored
		found, err := b.r.s.byNID(b.ctx, b.r.Version, b.r.gaps[e.ID()]...)
		if err != nil {
			return err
		}
		var best *run
		for _, c := range found {
			if c.Pos == 0 || best != nil && best.top <= c.Pos {
				continue
			}
			if best = runs[c.Pos]; best == nil {
				best = &run{top: c.Pos}
			}
		}
		for _, id := range kids[e.ID()] {
			if x := of[id]; x != nil && (best == nil || x.top != 0 && x.top < best.top) {
				best = x
			}
		}
		if best == nil {
			if best = runs[0]; best == nil {
				best = &run{}
			}
		}
		if runs[best.top] == nil {
			runs[best.top] = best
			order = append(order, best)
		}
		of[e.ID()] = best
		if e.Status == storage.StatusOK {
			best.events = append(best.events, i)
		}
	}
	lowest, err := b.r.s.store.LowestPos(b.ctx, b.r.NID)
	if err != nil {
		return err
	}
	for _, x := range order {
		n := int64(len(x.events))
		if x.top == 0 {
			x.top = lowest
		}
		below, err := b.r.s.store.PosBelow(b.ctx, b.r.NID, x.top)
		if errors.Is(err, storage.ErrNotFound) {
			below, err = min(0, x.top-n-1), nil
		}
		if err != nil {
			return err
		}
		at := x.top
		if at-n <= below || at > 0 && at-n <= 0 {
			at = min(lowest, 0)
			lowest = at - n
		}
		for _, i := range x.events {
			at--
			st := *b.plan[i].stored
			st.Pos = at
			b.plan[i].stored = &st
		}
	}
	return nil
}

// writePast puts one event of the past into the transaction.
func (r *Room) writePast(tx *storage.Tx, p *planned) error {
	e := p.stored
	put := tx.InsertEvent
	if p.place {
		put = tx.PlaceEvent
	}
	if err := put(r.row(e, e.Pos), e.PrevIDs()); err != nil {
		return err
	}
	if p.place && e.RedactedBy != "" {
		if err := tx.RedactEvent(e.NID, e.JSON(), e.RedactedBy); err != nil {
			return err
		}
	}
	for _, g := range p.groups {
		if err := tx.InsertStateGroup(g.row(r.NID)); err != nil {
			return err
		}
	}
	if err := r.writeHoles(tx, p); err != nil || !e.Status.Accepted() {
		return err
	}
	return r.writeMeaning(tx, p, e.Pos)
}
