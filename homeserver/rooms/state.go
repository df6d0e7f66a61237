// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Ref names the event at a piece of state.
type Ref struct {
	NID int64
	ID  string
}

// overMax is when a stateMap's overlay is folded into a new base. A change copies the overlay (at most overMax entries), every
// overMax-th one the base: for a room of n pieces of state that is n/overMax + overMax/2 entries a change.
const overMax = 64

// stateMap is one state of a room. It never changes; with makes the next one and shares what did not change.
type stateMap struct {
	base, over map[event.Key]Ref // over wins; NID 0 in over: removed
	size       int
}

func (m *stateMap) get(k event.Key) (Ref, bool) {
	if r, ok := m.over[k]; ok {
		return r, r.NID != 0
	}
	r, ok := m.base[k]
	return r, ok
}

func (m *stateMap) with(changes map[event.Key]Ref) *stateMap {
	n := &stateMap{base: m.base, over: make(map[event.Key]Ref, len(m.over)+len(changes)), size: m.size}
	for k, r := range m.over {
		n.over[k] = r
	}
	for k, r := range changes {
		_, had := m.get(k)
		n.over[k] = r
		switch {
		case r.NID != 0 && !had:
			n.size++
		case r.NID == 0 && had:
			n.size--
		}
	}
	if len(n.over) > overMax {
		base := make(map[event.Key]Ref, n.size)
		n.each(func(k event.Key, r Ref) { base[k] = r })
		n.base, n.over = base, nil
	}
	return n
}

func (m *stateMap) each(f func(event.Key, Ref)) {
	for k, r := range m.base {
		if _, ok := m.over[k]; !ok {
			f(k, r)
		}
	}
	for k, r := range m.over {
		if r.NID != 0 {
			f(k, r)
		}
	}
}

// group is a state group in memory: see the schema. base is 0 for a group that holds its whole state. A Ref in delta with a negative
// NID says that a piece of state is not there any more; -NID is the event that was.
type group struct {
	id, base, height int64
	delta            map[event.Key]Ref
	resolves         string // the groups that it is the resolution of, while its commit is under way
}

func (g *group) row(roomNID int64) storage.StateGroup {
	var b []byte
	for _, r := range g.delta {
		b = binary.AppendVarint(b, r.NID)
	}
	if b == nil {
		b = []byte{}
	}
	return storage.StateGroup{ID: g.id, RoomNID: roomNID, Base: g.base, Height: g.height, Delta: b}
}

// group finds a state group in the cache or in the store.
func (s *Service) group(ctx context.Context, id int64) (*group, error) {
	if g, ok := s.groups.Get(id); ok {
		return g, nil
	}
	if g := s.pending.group(id); g != nil {
		return g, nil
	}
	row, err := s.store.StateGroup(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("state group %d: %w", id, err)
	}
	var nids []int64
	var gone map[int64]bool
	for b := row.Delta; len(b) > 0; {
		v, n := binary.Varint(b)
		if n <= 0 {
			return nil, fmt.Errorf("state group %d is damaged", id)
		}
		if v < 0 {
			if v = -v; gone == nil {
				gone = map[int64]bool{}
			}
			gone[v] = true
		}
		nids = append(nids, v)
		b = b[n:]
	}
	refs, err := s.store.StateRefs(ctx, nids)
	if err != nil {
		return nil, err
	}
	if len(refs) != len(nids) {
		return nil, fmt.Errorf("state group %d names events that are not there", id)
	}
	g := &group{id: id, base: row.Base, height: row.Height, delta: make(map[event.Key]Ref, len(refs))}
	for _, r := range refs {
		ref := Ref{r.EventNID, r.EventID}
		if gone[r.EventNID] {
			ref = Ref{NID: -r.EventNID}
		}
		g.delta[event.Key{Type: r.Type, StateKey: r.StateKey}] = ref
	}
	s.groups.Add(id, g)
	return g, nil
}

// newGroup makes the group that follows parent when changes are applied (NID 0: removed); without a parent the group is whole. It is
// pending until its commit.
func (s *Service) newGroup(ctx context.Context, parent *group, changes map[event.Key]Ref, whole *stateMap) (*group, error) {
	id, err := s.store.NID(ctx)
	if err != nil {
		return nil, err
	}
	g := &group{id: id}
	defer func() {
		if err == nil {
			s.pending.addGroup(g)
		}
	}()
	if parent == nil {
		g.delta = make(map[event.Key]Ref, whole.size)
		whole.each(func(k event.Key, r Ref) { g.delta[k] = r })
		return g, nil
	}
	g.height = parent.height + 1
	g.delta = make(map[event.Key]Ref, len(changes))
	for k, r := range changes {
		if r.NID == 0 {
			var old Ref
			if old, _, err = s.groupGet(ctx, parent.id, k); err != nil {
				return nil, err
			}
			if old.NID == 0 {
				continue
			}
			r = Ref{NID: -old.NID}
		}
		g.delta[k] = r
	}
	// The base is the ancestor whose height has our lowest set bit cleared; what lies between is merged into our delta.
	at, floor := parent, g.height&(g.height-1)
	for at.height > floor {
		for k, r := range at.delta {
			if _, ok := g.delta[k]; !ok {
				g.delta[k] = r
			}
		}
		if at, err = s.group(ctx, at.base); err != nil {
			return nil, err
		}
	}
	g.base = at.id
	return g, nil
}

var errNoState = errors.New("rooms: no state is known at that event")

// groupGet finds one piece of the state that a group stands for.
func (s *Service) groupGet(ctx context.Context, id int64, key event.Key) (Ref, bool, error) {
	if id == 0 {
		return Ref{}, false, errNoState
	}
	for id != 0 {
		g, err := s.group(ctx, id)
		if err != nil {
			return Ref{}, false, err
		}
		if r, ok := g.delta[key]; ok {
			if r.NID < 0 {
				return Ref{}, false, nil
			}
			return r, true, nil
		}
		id = g.base
	}
	return Ref{}, false, nil
}

// groupState is the whole state that a group stands for.
func (s *Service) groupState(ctx context.Context, id int64) (*stateMap, error) {
	m := &stateMap{base: map[event.Key]Ref{}}
	for id != 0 {
		g, err := s.group(ctx, id)
		if err != nil {
			return nil, err
		}
		for k, r := range g.delta {
			if _, ok := m.base[k]; !ok {
				m.base[k] = r
			}
		}
		id = g.base
	}
	for k, r := range m.base {
		if r.NID < 0 {
			delete(m.base, k)
		}
	}
	m.size = len(m.base)
	return m, nil
}

// diverging collects the keys on which the states of several groups may differ: everything above their common ancestor.
func (s *Service) diverging(ctx context.Context, ids []int64) (map[event.Key]bool, error) {
	chains := make([][]*group, len(ids))
	met := map[int64]int{}
	for i, id := range ids {
		for id != 0 {
			g, err := s.group(ctx, id)
			if err != nil {
				return nil, err
			}
			chains[i] = append(chains[i], g)
			met[id]++
			id = g.base
		}
	}
	keys := map[event.Key]bool{}
	for _, c := range chains {
		for _, g := range c {
			if met[g.id] == len(ids) {
				break
			}
			for k := range g.delta {
				keys[k] = true
			}
		}
	}
	return keys, nil
}
