// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Entry is what the server that let us into a room answered to send_join. The caller has checked the signatures of every event, and
// left out those that have none.
type Entry struct {
	Event   *event.Event   // our join, as the other server has it
	State   []*event.Event // right before it
	Auth    []*event.Event // the auth chain of State
	Partial bool           // members were left out of State (MSC3706): CompleteState is to bring them
	Via     string         // who answered
	Servers []string       // in the room, with Partial
}

// leap is how many positions of the stream are left free below an event whose past is not there: history takes them as it comes in.
// Positions stay below 2^53 for 2^29 leaps.
const leap = 1 << 24

// outlierBatch is how many outliers go into one commit: others wait for it.
const outlierBatch = 1024

// Enter takes this server into a room, or back into one that all its users had left: the state before the join becomes the room's,
// as far as the auth rules allow it. Events without lawful auth events are dropped. Where the server is in the room already, the join
// is inserted as one of many. All or nothing, but for outliers. Errors: M_FORBIDDEN (the join is not allowed in that state), M_BAD_JSON
// (no create event, two events for one piece of state), M_INCOMPATIBLE_ROOM_VERSION.
func (s *Service) Enter(ctx context.Context, in Entry) error {
	j := in.Event
	if j.Membership() != "join" || j.StateKey() == nil || *j.StateKey() != j.Sender() || event.ServerOf(j.Sender()) != s.signer.Server {
		return signalling.InvalidParam("this is no join of one of our users")
	}
	all := make([]*event.Event, 0, len(in.State)+len(in.Auth))
	kept, _, _, err := lawful(append(append(all, in.Auth...), in.State...), j.RoomID(), j.Version(), nil)
	if err != nil {
		return err
	}
	good := make(map[string]*event.Event, len(kept))
	for _, e := range kept {
		good[e.ID()] = e
	}
	var list []*event.Event
	for _, e := range in.State {
		if good[e.ID()] != nil {
			list = append(list, good[e.ID()])
		}
	}
	state, err := stateOf(list)
	if err != nil {
		return err
	}
	create := state[event.Key{Type: "m.room.create"}]
	if create == nil {
		return signalling.BadJSON("the room's state has no create event")
	}
	if v := gjson.GetBytes(create.Content(), "room_version"); v.Exists() && v.Str != string(j.Version()) || !v.Exists() && j.Version() != "1" {
		return signalling.Refuse(400, "M_INCOMPATIBLE_ROOM_VERSION", "the room is not of version %s", string(j.Version())).With("room_version", v.Str)
	}
	byAuth, auth := event.EventsState{}, []*event.Event{}
	for _, id := range j.AuthIDs() {
		a := good[id]
		if a == nil {
			return signalling.Forbidden("the join stands on auth events that the other server does not have, or that are not allowed")
		}
		auth = append(auth, a)
		byAuth[a.Key()] = a
	}
	if err := event.CheckAuthEvents(j, auth); err != nil {
		return err
	}
	if err := event.Authorise(j, byAuth); err != nil {
		return err
	}
	view := event.State(state)
	if in.Partial {
		view = eitherState{state, byAuth}
	}
	if err := event.Authorise(j, view); err != nil {
		return err
	}
	for try := 0; ; try++ {
		err := s.enter(ctx, in, kept, state)
		if (errors.Is(err, errStale) || errors.Is(err, storage.ErrConflict)) && s.again(ctx, try) {
			continue
		}
		return err
	}
}

func (s *Service) enter(ctx context.Context, in Entry, kept []*event.Event, state event.EventsState) error {
	r, err := s.known(ctx, in.Event.RoomID(), in.Event.Version())
	if err != nil {
		return err
	}
	if r.Here() {
		if err := r.outliers(ctx, kept, nil); err != nil {
			return err
		}
		given := make([]string, 0, len(state))
		for _, e := range state {
			given = append(given, e.ID())
		}
		status, err := s.insertAll(ctx, r.ID, []*event.Event{in.Event}, entry{given: map[string][]string{in.Event.ID(): given}})
		if err == nil && status[0] != storage.StatusOK {
			err = signalling.Forbidden("the room does not allow this join")
		}
		return err
	}
	done := make(chan error, 1)
	if err := r.enter(ctx, in, kept, state, done); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// known finds a room, or notes that there is one of which nothing is known yet.
func (s *Service) known(ctx context.Context, id string, v event.Version) (*Room, error) {
	r, err := s.Room(ctx, id)
	if errors.Is(err, ErrNoRoom) {
		nid, err := s.store.NID(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.store.Write(ctx, func(tx *storage.Tx) error {
			return tx.InsertRoomOnce(storage.RoomRow{NID: nid, ID: id, Version: string(v)})
		}); err != nil {
			return nil, err
		}
		if r, err = s.Room(ctx, id); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if r.Version == v {
		return r, nil
	}
	if r.Head().StateGroup() != 0 {
		return nil, signalling.Refuse(400, "M_INCOMPATIBLE_ROOM_VERSION", "the room is not of version %s", string(v)).With("room_version", string(r.Version))
	}
	// An invite said another version; the room itself knows best.
	if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetRoomVersion(r.NID, string(v)) }); err != nil {
		return nil, err
	}
	s.giveUp(r)
	return s.Room(ctx, id)
}

// enter replaces what the room stands on: the room's lock is held from here to the queue.
func (r *Room) enter(ctx context.Context, in Entry, kept []*event.Event, state event.EventsState, done chan error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() || r.next.here(r.s.signer.Server) {
		return errStale
	}
	r.used = r.s.clock.Now()
	nids, err := r.putOutliers(ctx, kept, nil)
	if err != nil {
		return err
	}
	refs := make(map[event.Key]Ref, len(state))
	members := make([]storage.Membership, 0, len(state))
	for k, e := range state {
		nid, ok := nids[e.ID()]
		if !ok {
			continue
		}
		refs[k] = Ref{nid, e.ID()}
		if m := e.Membership(); m != "" {
			members = append(members, storage.Membership{User: k.StateKey, Membership: m})
		}
	}
	before := &stateMap{base: refs, size: len(refs)}
	plan := []planned{{foreign: true, missing: in.Event.PrevIDs(), skip: leap}}
	p := &plan[0]
	queued := false
	defer func() {
		if !queued {
			r.s.pending.drop(plan)
		}
	}()
	g, err := r.s.newGroup(ctx, nil, nil, before)
	if err != nil {
		return err
	}
	p.groups = append(p.groups, g)
	there, err := r.s.byEventID(ctx, r, in.Event.ID())
	if err != nil {
		return err
	}
	nid := int64(0)
	if old := there[in.Event.ID()]; old != nil {
		nid, p.place = old.NID, true
	} else if nid, err = r.nid(ctx, 0); err != nil {
		return err
	}
	change := map[event.Key]Ref{in.Event.Key(): {nid, in.Event.ID()}}
	g2, err := r.s.newGroup(ctx, g, change, nil)
	if err != nil {
		return err
	}
	p.groups = append(p.groups, g2)
	p.stored = &Stored{Event: in.Event, NID: nid, StateBefore: g.id, StateAfter: g2.id}
	head := &Head{state: before.with(change), group: g2, members: newMembers(members).with(in.Event.Sender(), "join"), ext: []Extremity{{NID: nid, ID: in.Event.ID(), Depth: in.Event.Depth()}}}
	p.after = head
	head.state.each(func(k event.Key, ref Ref) {
		if old, _ := r.next.state.get(k); old.NID != ref.NID {
			p.changes = append(p.changes, Change{Key: k, New: ref, Old: old})
		}
	})
	r.next.state.each(func(k event.Key, old Ref) {
		if _, ok := head.state.get(k); !ok {
			p.changes = append(p.changes, Change{Key: k, Old: old})
		}
	})
	_, p.fillsGap = r.gaps[in.Event.ID()]
	r.s.pending.addEvent(p.stored)
	var part *storage.PartialRoom
	if in.Partial {
		part = &storage.PartialRoom{RoomNID: r.NID, RoomID: r.ID, JoinNID: nid, JoinID: in.Event.ID(), Via: in.Via, Servers: in.Servers}
	}
	err = r.enqueue(plan, func(tx *storage.Tx) error {
		if err := tx.DeleteInvite(in.Event.Sender(), r.NID); err != nil {
			return err
		}
		if part == nil {
			tx.After(func() { r.partial.Store(nil) })
			return tx.DeletePartialRoom(r.NID)
		}
		tx.After(func() { r.partial.Store(part) })
		return tx.InsertPartialRoom(*part)
	}, head, func(err error) { done <- err })
	if err == nil {
		queued = true
	}
	return err
}

// outliers stores events whose place in the room is not known, each behind its auth events, which are there or in the list.
func (r *Room) outliers(ctx context.Context, accepted, refused []*event.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return errStale
	}
	_, err := r.putOutliers(ctx, accepted, refused)
	return err
}

// putOutliers stores those events that are not there and gives the internal ids of all but the rejected. The room's lock is held. Events of another room
// with the same id are an error: nothing of ours is overwritten.
func (r *Room) putOutliers(ctx context.Context, accepted, refused []*event.Event) (map[string]int64, error) {
	ids := make([]string, 0, len(accepted)+len(refused))
	for _, list := range [][]*event.Event{accepted, refused} {
		for _, e := range list {
			ids = append(ids, e.ID())
		}
	}
	there, err := r.s.places(ctx, ids)
	if err != nil {
		return nil, err
	}
	nids := make(map[string]int64, len(ids))
	var rows []storage.EventRow
	type moved struct {
		user     string
		old, now int64
	}
	var early []moved
	for i, list := range [][]*event.Event{accepted, refused} {
		status := storage.StatusOutlier
		if i == 1 {
			status = storage.StatusRejected
		}
		for _, e := range list {
			p, ok := there[e.ID()]
			switch {
			case ok && p.RoomNID != r.NID:
				return nil, signalling.BadJSON("event %s is of another room", e.ID())
			case ok && p.Status == storage.StatusOutlier && p.Pos != 0 && p.StateAfter == 0:
				// An invite or a knock that came before anything else of the room: now it gets behind what it builds on.
				nid, err := r.nid(ctx, 0)
				if err != nil {
					return nil, err
				}
				nids[e.ID()] = nid
				early = append(early, moved{*e.StateKey(), p.NID, nid})
			case ok && p.Status == storage.StatusRejected: // it stays out of the state
			case ok:
				nids[e.ID()] = p.NID
			default:
				nid, err := r.nid(ctx, 0)
				if err != nil {
					return nil, err
				}
				if i == 0 {
					nids[e.ID()] = nid
				}
				st := &Stored{Event: e, NID: nid, Status: status}
				rows = append(rows, r.row(st, 0))
			}
		}
	}
	var failed atomic.Pointer[error]
	left := make(chan struct{}, len(rows)/outlierBatch+2)
	n := 0
	put := func(op func(*storage.Tx) error) error {
		err := r.s.store.Enqueue(op, func(err error) {
			if err != nil {
				failed.Store(&err)
			}
			left <- struct{}{}
		})
		if err == nil {
			n++
		}
		return err
	}
	for len(rows) > 0 && err == nil {
		part := rows[:min(outlierBatch, len(rows))]
		rows = rows[len(part):]
		err = put(func(tx *storage.Tx) error { return tx.InsertEvents(part, nil) })
	}
	if len(early) > 0 && err == nil {
		err = put(func(tx *storage.Tx) error {
			for _, m := range early {
				if err := tx.RenumberMember(r.NID, m.user, m.old, m.now); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range n { // the writer finishes what was queued, whether we wait or not
		<-left
	}
	if err != nil {
		return nil, err
	}
	if e := failed.Load(); e != nil {
		return nil, *e
	}
	for _, m := range early {
		r.renumber(m.user, m.old, m.now)
	}
	return nids, nil
}

// renumber follows RenumberMember in memory. The room's lock is held, and nothing is queued for a room that we are not in.
func (r *Room) renumber(user string, old, now int64) {
	if e, ok := r.s.events.Get(old); ok {
		r.s.events.Remove(old)
		st := *e
		st.NID = now
		r.s.keep(&st)
	}
	r.s.users.renumber(user, r.ID, old, now)
	h := *r.next
	k := event.Key{Type: "m.room.member", StateKey: user}
	if ref, ok := h.state.get(k); ok && ref.NID == old {
		h.state = h.state.with(map[event.Key]Ref{k: {now, ref.ID}})
		r.next = &h
		r.head.Store(&h)
	}
}
