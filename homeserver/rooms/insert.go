// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Insert adds events that somebody else built to a room, in an order in which each comes after its prev_events (an event whose
// prev_events are not known is an error: fetch them first). Each is authorised by its auth events, by the state before it, and by the
// current state (server-server API, "Checks performed on receipt of a PDU"): one that fails the first two is stored as rejected, one
// that fails the third as soft-failed; neither is shown to clients nor moves the room. Events that are already there are passed over.
// Signatures are the caller's to check. The answer holds one status per event.
func (s *Service) Insert(ctx context.Context, roomID string, events []*event.Event) ([]storage.Status, error) {
	for try := 0; ; try++ {
		r, err := s.Room(ctx, roomID)
		if err != nil {
			return nil, err
		}
		done := make(chan error, 1)
		st, queued, err := r.insert(ctx, events, done)
		if err == nil && queued {
			select {
			case err = <-done:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if (errors.Is(err, errStale) || errors.Is(err, storage.ErrConflict)) && try < 5 {
			continue
		}
		return st, err
	}
}

func (r *Room) insert(ctx context.Context, events []*event.Event, done chan error) (out []storage.Status, queued bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return nil, false, errStale
	}
	r.used = r.s.clock.Now()
	head := r.next
	fresh := map[string]*Stored{} // of this batch
	find := func(ids []string) (map[string]*Stored, error) {
		found := make(map[string]*Stored, len(ids))
		var rest []string
		for _, id := range ids {
			if e := fresh[id]; e != nil {
				found[id] = e
			} else {
				rest = append(rest, id)
			}
		}
		more, err := r.s.byEventID(ctx, r, rest...)
		for id, e := range more {
			found[id] = e
		}
		return found, err
	}
	var plan []planned
	ext := slices.Clone(head.ext)
	extState := map[int64]int64{} // extremity -> state group after it
	for _, e := range events {
		if e.RoomID() != r.ID || e.Version() != r.Version {
			return nil, false, signalling.InvalidParam("event %s is not of room %s", e.ID(), r.ID)
		}
		there, err := find([]string{e.ID()})
		if err != nil {
			return nil, false, err
		}
		if old := there[e.ID()]; old != nil {
			out = append(out, old.Status)
			continue
		}
		p, status, err := r.planForeign(ctx, e, head, find)
		if err != nil {
			return nil, false, err
		}
		out = append(out, status)
		fresh[e.ID()] = p.stored
		if status == storage.StatusOK {
			ext = slices.DeleteFunc(ext, func(x Extremity) bool { return slices.Contains(e.PrevIDs(), x.ID) })
			ext = append(ext, Extremity{NID: p.stored.NID, ID: e.ID(), Depth: e.Depth()})
			extState[p.stored.NID] = p.stored.StateAfter
			if e.Type() == "m.room.redaction" && e.Redacts() != "" {
				if p.redact, err = r.redaction(ctx, e, head, false); err != nil {
					return nil, false, err
				}
			}
		}
		plan = append(plan, p)
	}
	if len(plan) == 0 {
		return out, false, nil
	}
	after, changes, grp, err := r.settle(ctx, head, ext, extState)
	if err != nil {
		return nil, false, err
	}
	// The last event of the batch carries what the batch did to the current state.
	last := len(plan) - 1
	for i := range plan {
		plan[i].before, plan[i].after = head, head
	}
	plan[last].after = after
	plan[last].changes = changes
	if grp != nil {
		plan[last].groups = append(plan[last].groups, grp)
	}
	return out, true, r.enqueue(plan, nil, after, func(err error) { done <- err })
}

// planForeign finds the state before e and authorises it.
func (r *Room) planForeign(ctx context.Context, e *event.Event, head *Head, find func([]string) (map[string]*Stored, error)) (p planned, status storage.Status, err error) {
	prev, err := find(e.PrevIDs())
	if err != nil {
		return p, 0, err
	}
	var groups []int64
	for _, id := range e.PrevIDs() {
		x := prev[id]
		if x == nil || x.StateAfter == 0 {
			return p, 0, fmt.Errorf("event %s: its previous event %s is not known", e.ID(), id)
		}
		if !slices.Contains(groups, x.StateAfter) {
			groups = append(groups, x.StateAfter)
		}
	}
	if len(groups) == 0 {
		return p, 0, signalling.BadJSON("event %s has no previous events", e.ID())
	}
	before, made, err := r.resolve(ctx, groups)
	if err != nil {
		return p, 0, err
	}
	if made != nil {
		p.groups = append(p.groups, made)
	}
	auth, err := find(e.AuthIDs())
	if err != nil {
		return p, 0, err
	}
	byAuth := event.EventsState{}
	for _, id := range e.AuthIDs() {
		a := auth[id]
		if a == nil {
			return p, 0, fmt.Errorf("event %s: its auth event %s is not known", e.ID(), id)
		}
		if a.Status == storage.StatusRejected {
			status = storage.StatusRejected
		}
		if a.IsState() {
			byAuth[a.Key()] = a.Event
		}
	}
	for _, st := range []event.State{byAuth, groupView{ctx, r, before}} {
		if status != storage.StatusOK {
			break
		}
		if err := event.Authorise(e, st); err != nil {
			if !refused(err) {
				return p, 0, err
			}
			status = storage.StatusRejected
		}
	}
	if status == storage.StatusOK && !(len(groups) == 1 && groups[0] == head.StateGroup()) {
		if err := event.Authorise(e, headState{ctx, r, head}); err != nil {
			if !refused(err) {
				return p, 0, err
			}
			status = storage.StatusSoftFailed
		}
	}
	nid, err := r.s.store.NID(ctx)
	if err != nil {
		return p, 0, err
	}
	p.stored = &Stored{Event: e, NID: nid, Status: status, StateBefore: before, StateAfter: before}
	if e.IsState() && status != storage.StatusRejected {
		parent, err := r.s.group(ctx, before)
		if err != nil {
			return p, 0, err
		}
		g, err := r.s.newGroup(ctx, parent, map[event.Key]Ref{e.Key(): {nid, e.ID()}}, nil)
		if err != nil {
			return p, 0, err
		}
		r.s.groups.Add(g.id, g)
		p.groups = append(p.groups, g)
		p.stored.StateAfter = g.id
	}
	r.s.keep(p.stored)
	return p, status, nil
}

func refused(err error) bool {
	var e *signalling.Error
	return errors.As(err, &e) && e.Code == "M_FORBIDDEN"
}

// groupView shows the state of a group to the auth rules.
type groupView struct {
	ctx context.Context
	r   *Room
	id  int64
}

func (v groupView) Event(k event.Key) (*event.Event, error) {
	ref, ok, err := v.r.s.groupGet(v.ctx, v.id, k)
	if err != nil || !ok {
		return nil, err
	}
	e, err := v.r.ByRef(v.ctx, ref)
	if e == nil {
		return nil, err
	}
	return e.Event, err
}

// resolve finds the state group that several groups resolve to; made is the new group when none of them is the answer.
func (r *Room) resolve(ctx context.Context, ids []int64) (id int64, made *group, err error) {
	if len(ids) == 1 {
		return ids[0], nil, nil
	}
	ids = slices.Clone(ids)
	slices.Sort(ids)
	key := fmt.Sprint(ids)
	if id, ok := r.s.resolved.Get(key); ok {
		return id, nil, nil
	}
	keys, err := r.s.diverging(ctx, ids)
	if err != nil {
		return 0, nil, err
	}
	nids := map[string]int64{}
	sets := make([]map[event.Key]string, len(ids))
	for i, g := range ids {
		sets[i] = map[event.Key]string{}
		for k := range keys {
			ref, ok, err := r.s.groupGet(ctx, g, k)
			if err != nil {
				return 0, nil, err
			}
			if ok {
				sets[i][k] = ref.ID
				nids[ref.ID] = ref.NID
			}
		}
	}
	var readErr error
	agreed := func(k event.Key) string {
		ref, _, err := r.s.groupGet(ctx, ids[0], k)
		if err != nil {
			readErr = err
		}
		nids[ref.ID] = ref.NID
		return ref.ID
	}
	rejected := map[string]bool{}
	fetch := func(want []string) ([]*event.Event, error) {
		m, err := r.s.byEventID(ctx, r, want...)
		if err != nil {
			return nil, err
		}
		out := make([]*event.Event, 0, len(m))
		for id, e := range m {
			rejected[id] = e.Status == storage.StatusRejected
			nids[id] = e.NID
			out = append(out, e.Event)
		}
		return out, nil
	}
	state, err := event.Resolve(r.Version, sets, agreed, fetch, func(id string) bool { return rejected[id] })
	if err = errors.Join(err, readErr); err != nil {
		return 0, nil, err
	}
	// Build on the group that is nearest to the answer.
	best, bestChanges := -1, map[event.Key]Ref(nil)
	for i := range ids {
		ch := map[event.Key]Ref{}
		for k := range keys {
			if state[k] != sets[i][k] {
				ch[k] = Ref{nids[state[k]], state[k]}
			}
		}
		if best < 0 || len(ch) < len(bestChanges) {
			best, bestChanges = i, ch
		}
	}
	if len(bestChanges) == 0 {
		r.s.resolved.Add(key, ids[best])
		return ids[best], nil, nil
	}
	parent, err := r.s.group(ctx, ids[best])
	if err != nil {
		return 0, nil, err
	}
	whole, err := r.s.groupState(ctx, parent.id)
	if err != nil {
		return 0, nil, err
	}
	g, err := r.s.newGroup(ctx, parent, bestChanges, whole.with(bestChanges))
	if err != nil {
		return 0, nil, err
	}
	r.s.groups.Add(g.id, g)
	// Not remembered in resolved: until the commit the group exists only here.
	return g.id, g, nil
}

// settle works out the head that a batch leaves: its extremities, and the state that they resolve to.
func (r *Room) settle(ctx context.Context, head *Head, ext []Extremity, after map[int64]int64) (*Head, []Change, *group, error) {
	var groups []int64
	for _, x := range ext {
		g, ok := after[x.NID]
		if !ok {
			m, err := r.s.byNID(ctx, r.Version, x.NID)
			if err != nil {
				return nil, nil, nil, err
			}
			if m[x.NID] == nil {
				return nil, nil, nil, fmt.Errorf("extremity %d is not there", x.NID)
			}
			g = m[x.NID].StateAfter
		}
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	id, made, err := r.resolve(ctx, groups)
	if err != nil {
		return nil, nil, nil, err
	}
	next := *head
	next.ext, next.pos = ext, 0
	if id == head.StateGroup() {
		return &next, nil, made, nil
	}
	g, err := r.s.group(ctx, id)
	if err != nil {
		return nil, nil, nil, err
	}
	next.group = g
	keys, err := r.s.diverging(ctx, []int64{head.StateGroup(), id})
	if err != nil {
		return nil, nil, nil, err
	}
	diff := map[event.Key]Ref{}
	var changes []Change
	for k := range keys {
		ref, _, err := r.s.groupGet(ctx, id, k)
		if err != nil {
			return nil, nil, nil, err
		}
		old, _ := head.state.get(k)
		if ref.NID == old.NID {
			continue
		}
		diff[k] = ref
		changes = append(changes, Change{Key: k, New: ref, Old: old})
	}
	sort.Slice(changes, func(i, j int) bool { return changes[i].New.NID < changes[j].New.NID })
	next.state = head.state.with(diff)
	for _, c := range changes {
		if c.Key.Type != "m.room.member" {
			continue
		}
		m := "leave"
		if c.New.NID != 0 {
			e, err := r.ByRef(ctx, c.New)
			if err != nil {
				return nil, nil, nil, err
			}
			if e != nil {
				m = e.Membership()
			}
		}
		next.members = next.members.with(c.Key.StateKey, m)
	}
	return &next, changes, made, nil
}
