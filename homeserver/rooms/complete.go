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

// Faster joins (MSC3902): the answer to a join may leave out most member events. The room is usable at once: events are held to the members
// whom their auth events name. CompleteState brings the rest of the state later, and puts right the state at every event since.

// PartialRooms lists the rooms whose state is still to be fetched: ask their servers (Via first) for the state at JoinID, which is the
// one right before our join, and give it to CompleteState.
func (s *Service) PartialRooms(ctx context.Context) ([]storage.PartialRoom, error) {
	return s.store.PartialRooms(ctx)
}

// CompleteState gives a room that was joined with members left out its whole state: state is the one right before our join (GET /state at
// joinID), auth its auth chain; the caller has checked the signatures, and left out what has none. The state at every event since is
// worked out anew, and so is the room's. Observers hear of the changes with a Committed whose Stored is the join as an outlier. A room
// that is whole, or was joined anew meanwhile, stays as it is. Errors: ErrNoRoom, M_BAD_JSON (no create event, two events for one
// piece of state).
func (s *Service) CompleteState(ctx context.Context, roomID, joinID string, state, auth []*event.Event) error {
	for try := 0; ; try++ {
		r, err := s.Room(ctx, roomID)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		queued, err := r.complete(ctx, joinID, state, auth, done)
		if err == nil && queued {
			select {
			case err = <-done:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if (errors.Is(err, errStale) || errors.Is(err, storage.ErrConflict)) && s.again(ctx, try) {
			continue
		}
		return err
	}
}

func (r *Room) complete(ctx context.Context, joinID string, state, auth []*event.Event, done chan error) (queued bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	part := r.partial.Load()
	if part == nil {
		return false, nil
	}
	// What is queued is to be in the store: nothing more is queued while we hold the lock.
	if err := r.barrier(ctx); err != nil {
		return false, err
	}
	r.used = r.s.clock.Now()
	joins, err := r.s.byNID(ctx, r.Version, part.JoinNID)
	if err != nil {
		return false, err
	}
	join := joins[part.JoinNID]
	if join == nil || join.ID() != joinID {
		return false, nil
	}
	f := &repair{resolver: resolver{ctx: ctx, r: r, known: map[string]*resolution{}}, now: map[int64]*Stored{}}
	f.p = planned{foreign: true, stays: true}
	defer func() {
		if !queued {
			r.s.pending.drop([]planned{f.p})
		}
	}()
	if err := f.start(join, state, auth); err != nil {
		return false, err
	}
	rows, err := r.s.store.EventsSince(ctx, r.NID, part.JoinNID)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		e, err := r.s.stored(r.Version, row)
		if err != nil {
			return false, err
		}
		if err := f.again(e); err != nil {
			return false, err
		}
	}
	head, err := f.head()
	if err != nil {
		return false, err
	}
	st := *join
	st.Status = storage.StatusOutlier
	f.p.stored = &st
	err = r.enqueue([]planned{f.p}, func(tx *storage.Tx) error {
		for _, e := range f.now {
			if err := tx.SetEventState(e.NID, e.StateBefore, e.StateAfter); err != nil {
				return err
			}
		}
		tx.After(func() {
			for _, e := range f.now {
				r.s.keep(e)
			}
		})
		return tx.DeletePartialRoom(r.NID)
	}, head, func(err error) {
		if err == nil { // the head is the new one by now
			r.partial.Store(nil)
			r.s.whole(r.ID)
		}
		done <- err
	})
	return err == nil, err
}

// repair works out anew the state at the events since a join.
type repair struct {
	resolver
	p   planned
	now map[int64]*Stored // events with another state than before
}

// start puts the join on its whole state.
func (f *repair) start(join *Stored, state, auth []*event.Event) error {
	all := append(append(make([]*event.Event, 0, len(state)+len(auth)), auth...), state...)
	kept, refused, _, err := lawful(all, f.r.ID, f.r.Version, nil)
	if err != nil {
		return err
	}
	nids, err := f.r.putOutliers(f.ctx, kept, refused)
	if err != nil {
		return err
	}
	refs := make(map[event.Key]Ref, len(state))
	for _, e := range state {
		nid, ok := nids[e.ID()]
		if !ok || !e.IsState() {
			continue
		}
		if old, two := refs[e.Key()]; two && old.NID != nid {
			return signalling.BadJSON("the state has two events for %s %q", e.Type(), *e.StateKey())
		}
		refs[e.Key()] = Ref{nid, e.ID()}
	}
	if _, ok := refs[event.Key{Type: "m.room.create"}]; !ok {
		return signalling.BadJSON("the room's state has no create event")
	}
	near, err := f.r.s.group(f.ctx, join.StateBefore)
	if err != nil {
		return err
	}
	g, err := f.r.groupOfRefs(f.ctx, near, refs)
	if err != nil {
		return err
	}
	if g != near {
		f.p.groups = append(f.p.groups, g)
	}
	return f.put(join, g.id, true)
}

// put gives e another state before it; applies says that e, a state event, is state after it.
func (f *repair) put(e *Stored, before int64, applies bool) error {
	st := *e
	st.StateBefore, st.StateAfter = before, before
	if e.IsState() && applies {
		parent, err := f.r.s.group(f.ctx, before)
		if err != nil {
			return err
		}
		g, err := f.r.s.newGroup(f.ctx, parent, map[event.Key]Ref{e.Key(): {e.NID, e.ID()}}, nil)
		if err != nil {
			return err
		}
		f.p.groups = append(f.p.groups, g)
		st.StateAfter = g.id
	}
	f.now[e.NID] = &st
	return nil
}

// again works out the state at an event anew when it stands on one whose state is another now.
func (f *repair) again(e *Stored) error {
	found, err := f.r.s.byEventID(f.ctx, f.r, e.PrevIDs()...)
	if err != nil {
		return err
	}
	moved := false
	var groups []int64
	for _, x := range found {
		after := x.StateAfter
		if n := f.now[x.NID]; n != nil {
			moved, after = true, n.StateAfter
		}
		if after == 0 {
			return nil // across a hole: its own state was told
		}
		groups = addGroup(groups, after)
	}
	if !moved {
		return nil
	}
	res, err := f.resolve(groups)
	if err != nil {
		return err
	}
	if res.id == 0 {
		made, err := f.store(res)
		if err != nil {
			return err
		}
		f.p.groups = append(f.p.groups, made...)
	}
	applies := e.IsState() && e.Status != storage.StatusRejected
	if applies { // what the whole state does not allow does not stay in it
		status, err := judge(storage.StatusRejected, event.Authorise(e.Event, groupView{f.ctx, f.r, res.id}))
		if err != nil {
			return err
		}
		applies = status == storage.StatusOK
	}
	return f.put(e, res.id, applies)
}

// head is where the room stands now.
func (f *repair) head() (*Head, error) {
	r := f.r
	var groups []int64
	found, err := r.s.byNID(f.ctx, r.Version, extNIDs(r.next)...)
	if err != nil {
		return nil, err
	}
	for _, x := range found {
		if n := f.now[x.NID]; n != nil {
			x = n
		}
		groups = addGroup(groups, x.StateAfter)
	}
	res, err := f.resolve(groups)
	if err != nil {
		return nil, err
	}
	if res.id == 0 {
		made, err := f.store(res)
		if err != nil {
			return nil, err
		}
		f.p.groups = append(f.p.groups, made...)
	}
	f.p.changes, f.p.after, err = r.moved(f.ctx, r.next, res.id)
	if err != nil {
		return nil, err
	}
	f.p.after.ext = slices.Clone(r.next.ext)
	return f.p.after, nil
}

// Whole waits until a room has its whole state, or ctx ends. Whoever lists members waits for it.
func (s *Service) Whole(ctx context.Context, roomID string) error {
	for {
		s.mu.Lock()
		c := s.wholes[roomID]
		if c == nil {
			c = make(chan struct{})
			s.wholes[roomID] = c
		}
		s.mu.Unlock()
		r, err := s.Room(ctx, roomID)
		if err != nil || !r.Partial() {
			s.whole(roomID)
			return err
		}
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// whole wakes those who wait for a room's whole state.
func (s *Service) whole(roomID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.wholes[roomID]; c != nil {
		close(c)
		delete(s.wholes, roomID)
	}
}
