// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"fmt"
	"sort"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// resolution is the state that several groups resolve to: a group, or one with changes that is not stored yet.
type resolution struct {
	key     string
	id      int64 // the group that is the answer; 0: none is
	base    int64
	changes map[event.Key]Ref // NID 0: removed
}

// resolver resolves state groups of a room and remembers what it found.
type resolver struct {
	ctx   context.Context
	r     *Room
	known map[string]*resolution
}

// resolve finds what groups, in order and each once, resolve to.
func (v *resolver) resolve(ids []int64) (*resolution, error) {
	if len(ids) == 1 {
		return &resolution{id: ids[0], base: ids[0]}, nil
	}
	key := fmt.Sprint(ids)
	if res := v.known[key]; res != nil {
		return res, nil
	}
	if id, ok := v.r.s.resolved.Get(key); ok {
		return &resolution{key: key, id: id, base: id}, nil
	}
	res, err := v.r.resolveGroups(v.ctx, ids)
	if err != nil {
		return nil, err
	}
	res.key = key
	v.known[key] = res
	return res, nil
}

// store makes the group of a resolution that none of the groups was; it goes into the plan once, with whoever needs it first.
func (v *resolver) store(res *resolution) ([]*group, error) {
	parent, err := v.r.s.group(v.ctx, res.base)
	if err != nil {
		return nil, err
	}
	g, err := v.r.s.newGroup(v.ctx, parent, res.changes, nil)
	if err != nil {
		return nil, err
	}
	g.resolves, res.id = res.key, g.id
	return []*group{g}, nil
}

// groupView shows the state of a group to the auth rules.
type groupView struct {
	ctx context.Context
	r   *Room
	id  int64
}

// Event gives the event at k.
func (v groupView) Event(k event.Key) (*event.Event, error) {
	ref, ok, err := v.r.s.groupGet(v.ctx, v.id, k)
	if err != nil || !ok {
		return nil, err
	}
	return v.r.content(v.ctx, ref)
}

func (r *Room) content(ctx context.Context, ref Ref) (*event.Event, error) {
	e, err := r.ByRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, fmt.Errorf("rooms: state event %s is not there", ref.ID)
	}
	return e.Event, nil
}

// currentView shows the state that forked extremities resolve to. They are resolved only when one of the keys that are asked for is
// in conflict: what they agree on stays as it is.
type currentView struct {
	b      *batch
	groups []int64
}

// Event gives the event at k.
func (v currentView) Event(k event.Key) (*event.Event, error) {
	s, ctx := v.b.r.s, v.b.ctx
	var first Ref
	for i, g := range v.groups {
		ref, _, err := s.groupGet(ctx, g, k)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = ref
		}
		if ref.NID == first.NID {
			continue
		}
		if v.b.fork == nil {
			res, err := v.b.resolve(v.groups)
			if err != nil {
				return nil, err
			}
			v.b.fork = &fork{res: res, since: map[event.Key]Ref{}}
		}
		ref, changed := v.b.fork.since[k]
		if !changed {
			ref, changed = v.b.fork.res.changes[k]
		}
		if !changed {
			if ref, _, err = s.groupGet(ctx, v.b.fork.res.base, k); err != nil {
				return nil, err
			}
		}
		first = ref
		break
	}
	if first.NID == 0 {
		return nil, nil
	}
	return v.b.r.content(ctx, first)
}

// conflict is the room around several state groups, for event.Resolve.
type conflict struct {
	ctx      context.Context
	r        *Room
	group    int64 // one of them
	nids     map[string]int64
	rejected map[string]bool
}

// Agreed gives the id at a key on which all groups agree.
func (c *conflict) Agreed(k event.Key) (string, error) {
	ref, _, err := c.r.s.groupGet(c.ctx, c.group, k)
	c.nids[ref.ID] = ref.NID
	return ref.ID, err
}

// Younger lists the state events with a higher nid than the oldest of these: nids of a room rise along prev_events and auth_events.
func (c *conflict) Younger(ids []string) (out []string, err error) {
	oldest := c.nids[ids[0]]
	for _, id := range ids {
		oldest = min(oldest, c.nids[id])
	}
	for id := c.group; id != 0; {
		g, err := c.r.s.group(c.ctx, id)
		if err != nil {
			return nil, err
		}
		for k, ref := range g.delta {
			if ref.NID <= oldest {
				continue
			}
			if now, _, err := c.r.s.groupGet(c.ctx, c.group, k); err != nil {
				return nil, err
			} else if now.NID == ref.NID {
				c.nids[ref.ID] = ref.NID
				out = append(out, ref.ID)
			}
		}
		id = g.base
	}
	return out, nil
}

// Events gives events by id.
func (c *conflict) Events(ids []string) ([]*event.Event, error) {
	m, err := c.r.s.byEventID(c.ctx, c.r, ids...)
	if err != nil {
		return nil, err
	}
	out := make([]*event.Event, 0, len(m))
	for id, e := range m {
		if e.Status == storage.StatusRejected {
			c.rejected[id] = true
		}
		c.nids[id] = e.NID
		out = append(out, e.Event)
	}
	return out, nil
}

// Rejected says that an event failed authorisation.
func (c *conflict) Rejected(id string) bool { return c.rejected[id] }

// resolveGroups resolves state groups, and builds on the one that is nearest to the answer.
func (r *Room) resolveGroups(ctx context.Context, ids []int64) (*resolution, error) {
	keys, err := r.s.diverging(ctx, ids)
	if err != nil {
		return nil, err
	}
	c := &conflict{ctx: ctx, r: r, group: ids[0], nids: map[string]int64{}, rejected: map[string]bool{}}
	sets := make([]map[event.Key]string, len(ids))
	for i, g := range ids {
		sets[i] = make(map[event.Key]string, len(keys))
		for k := range keys {
			ref, ok, err := r.s.groupGet(ctx, g, k)
			if err != nil {
				return nil, err
			}
			if ok {
				sets[i][k] = ref.ID
				c.nids[ref.ID] = ref.NID
			}
		}
	}
	state, err := event.Resolve(r.Version, sets, c)
	if err != nil {
		return nil, fmt.Errorf("resolve the state of room %s: %w", r.ID, err)
	}
	for k := range state {
		keys[k] = true
	}
	var res *resolution
	for i, g := range ids {
		changes := map[event.Key]Ref{}
		for k := range keys {
			if id := state[k]; id != sets[i][k] {
				changes[k] = Ref{c.nids[id], id}
			}
		}
		if res == nil || len(changes) < len(res.changes) {
			res = &resolution{base: g, changes: changes}
		}
	}
	if len(res.changes) == 0 {
		res.id = res.base
		r.s.resolved.Add(fmt.Sprint(ids), res.id)
	}
	return res, nil
}

// moved works out the head with another state group, and what changed on the way.
func (r *Room) moved(ctx context.Context, head *Head, id int64) ([]Change, *Head, error) {
	next := *head
	next.pos = 0
	if id == head.StateGroup() {
		return nil, &next, nil
	}
	g, err := r.s.group(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	next.group = g
	keys, err := r.s.diverging(ctx, []int64{head.StateGroup(), id})
	if err != nil {
		return nil, nil, err
	}
	diff := map[event.Key]Ref{}
	var changes []Change
	for k := range keys {
		ref, _, err := r.s.groupGet(ctx, id, k)
		if err != nil {
			return nil, nil, err
		}
		old, _ := head.state.get(k)
		if ref.NID == old.NID {
			continue
		}
		diff[k] = ref
		changes = append(changes, Change{Key: k, New: ref, Old: old})
	}
	sort.Slice(changes, func(i, j int) bool {
		a, b := changes[i], changes[j]
		if a.New.NID != b.New.NID {
			return a.New.NID < b.New.NID
		}
		return a.Old.NID < b.Old.NID
	})
	next.state = head.state.with(diff)
	var nids []int64
	for _, c := range changes {
		if c.Key.Type == "m.room.member" && c.New.NID != 0 {
			nids = append(nids, c.New.NID)
		}
	}
	found, err := r.s.byNID(ctx, r.Version, nids...)
	if err != nil {
		return nil, nil, err
	}
	members := map[string]string{}
	for _, c := range changes {
		if c.Key.Type != "m.room.member" {
			continue
		}
		m := "leave"
		if c.New.NID != 0 {
			e := found[c.New.NID]
			if e == nil {
				return nil, nil, fmt.Errorf("rooms: state event %s is not there", c.New.ID)
			}
			if e.Membership() != "" {
				m = e.Membership()
			}
		}
		members[c.Key.StateKey] = m
	}
	next.members = next.members.withAll(members)
	return changes, &next, nil
}

// nid takes an internal id above floor and above every id that the room has seen: state resolution relies on nids that rise along the
// graph, and blocks of ids are handed out to several nodes.
func (r *Room) nid(ctx context.Context, floor int64) (int64, error) {
	floor = max(floor, r.floor)
	for {
		id, err := r.s.store.NID(ctx)
		if err != nil {
			return 0, err
		}
		if id > floor {
			r.floor = id
			return id, nil
		}
	}
}
