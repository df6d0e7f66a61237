// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"crypto/sha1"
	"slices"
)

// Around is the room around a conflict: what Resolve asks of whoever keeps the events.
type Around interface {
	// Agreed gives the id at a key on which all states agree, "" for none.
	Agreed(Key) (string, error)
	// Younger lists the ids of the agreed state that may have one of these events in their auth chain: all that came into the room
	// after the oldest of them, or more.
	Younger(ids []string) ([]string, error)
	// Events gives events by id; ids that are not known are left out.
	Events(ids []string) ([]*Event, error)
	// Rejected says that an event, which Events gave before, failed authorisation and may not become state.
	Rejected(id string) bool
}

// Resolve finds what several states of a room resolve to where they differ (state resolution v1, v2 or v2.1, as the room version
// says). Each of sets maps state keys to event ids, for all keys on which the states may differ; around knows the rest. The answer
// holds every key of sets that has a value after resolution, and keys beyond them where resolution brought an event back.
//
// The cost grows with the conflict, not with the room: only events in conflict, their auth chains and the state that authorises them
// are loaded. That is exact. The auth chains of agreed state are part of every full auth chain, so they only ever take events out of
// the auth difference; they are walked where they are younger than an event in question (Around.Younger), as no event is in the auth
// chain of one that came before it.
func Resolve(v Version, sets []map[Key]string, around Around) (map[Key]string, error) {
	n, err := v.number()
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		return map[Key]string{}, nil
	}
	r := &resolver{n: n, around: around, nodes: map[string]*node{}, agreed: map[Key]*Event{}}
	r.split(sets)
	if len(r.conflicted) == 0 {
		return r.base, nil
	}
	if err := r.load(sets); err != nil {
		return nil, err
	}
	if n == 1 {
		err = r.resolveV1(sets)
	} else {
		err = r.resolveV2(sets)
	}
	if err != nil {
		return nil, err
	}
	for k, x := range r.won {
		if _, ok := r.base[k]; ok {
			continue // agreed on: put back at the end
		}
		if !r.conflicted[k] {
			if id, err := around.Agreed(k); err != nil {
				return nil, err
			} else if id != "" {
				continue
			}
		}
		r.base[k] = x.id
	}
	return r.base, nil
}

// node is an event in the graph of auth_events.
type node struct {
	*Event
	auth       []*node // those that are known
	conflicted bool
	full       bool // in the full conflicted set
	sets       int  // in how many sets' auth chains
	mark       int  // of the walk that met it last
	power      int64
	line       int // position on the mainline, 1 the oldest; 0 unknown yet, -1 none
	waits      int // Kahn: auth events not yet placed
}

type resolver struct {
	n          int
	around     Around
	nodes      map[string]*node
	base       map[Key]string // what all sets agree on
	conflicted map[Key]bool
	start      []*node // the conflicted events
	agreed     map[Key]*Event
	won        map[Key]*Event // resolved so far
	marks      int
}

// split separates the keys on which all sets agree from the others. In v1 a key that some states do not have is no conflict.
func (r *resolver) split(sets []map[Key]string) {
	r.base, r.conflicted, r.won = make(map[Key]string, len(sets[0])), map[Key]bool{}, map[Key]*Event{}
	for i, s := range sets {
		for k, id := range s {
			if _, ok := r.base[k]; ok || r.conflicted[k] {
				continue
			}
			same := i == 0 || r.n == 1
			for _, o := range sets {
				if other, ok := o[k]; other != id && (ok || r.n > 1) {
					same = false
					break
				}
			}
			if same {
				r.base[k] = id
			} else {
				r.conflicted[k] = true
			}
		}
	}
}

// load brings the conflicted events and their auth chains into memory.
func (r *resolver) load(sets []map[Key]string) error {
	var ids []string
	seen := map[string]bool{}
	for k := range r.conflicted {
		for _, s := range sets {
			if id, ok := s[k]; ok && !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	if err := r.fetch(ids); err != nil {
		return err
	}
	for _, id := range ids {
		if x := r.nodes[id]; x != nil {
			x.conflicted = true
			r.start = append(r.start, x)
		}
	}
	return nil
}

// fetch loads events with their whole auth chains.
func (r *resolver) fetch(ids []string) error {
	var fresh []*node
	want := ids
	for len(want) > 0 {
		var ask []string
		for _, id := range want {
			if _, ok := r.nodes[id]; !ok {
				r.nodes[id] = nil
				ask = append(ask, id)
			}
		}
		if len(ask) == 0 {
			break
		}
		got, err := r.around.Events(ask)
		if err != nil {
			return err
		}
		want = want[:0:0]
		for _, e := range got {
			x := &node{Event: e}
			r.nodes[e.id] = x
			fresh = append(fresh, x)
			for _, a := range e.AuthIDs() {
				if _, ok := r.nodes[a]; !ok {
					want = append(want, a)
				}
			}
		}
	}
	for _, x := range fresh {
		ids := x.AuthIDs()
		x.auth = make([]*node, 0, len(ids))
		for _, a := range ids {
			if y := r.nodes[a]; y != nil {
				x.auth = append(x.auth, y)
			}
		}
	}
	return nil
}

// walk calls f once for every event in the auth chains of from; those of from only where another of them leads to them.
func (r *resolver) walk(from []*node, f func(*node)) {
	r.marks++
	stack := slices.Clone(from)
	for len(stack) > 0 {
		x := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, a := range x.auth {
			if a.mark != r.marks {
				a.mark = r.marks
				f(a)
				stack = append(stack, a)
			}
		}
	}
}

// Event is the state as resolved so far (v2: on top of what is agreed), for the auth rules.
func (r *resolver) event(k Key, agreedToo bool) (*Event, error) {
	if e := r.won[k]; e != nil || !agreedToo {
		return e, nil
	}
	if e, ok := r.agreed[k]; ok {
		return e, nil
	}
	id, ok := r.base[k]
	if !ok && !r.conflicted[k] {
		var err error
		if id, err = r.around.Agreed(k); err != nil {
			return nil, err
		}
	}
	var e *Event
	if x := r.nodes[id]; x != nil {
		e = x.Event
	} else if id != "" {
		got, err := r.around.Events([]string{id})
		if err != nil {
			return nil, err
		}
		if len(got) == 1 {
			e = got[0]
		}
	}
	if e != nil && r.around.Rejected(e.id) {
		e = nil
	}
	r.agreed[k] = e
	return e, nil
}

// partial is the state that one event is authorised by: what is resolved so far, and its own auth events where that is silent.
type partial struct {
	r      *resolver
	x      *node
	agreed bool
}

// Event gives the event at k.
func (p partial) Event(k Key) (*Event, error) {
	e, err := p.r.event(k, p.agreed)
	if e != nil || err != nil || p.x == nil {
		return e, err
	}
	for _, a := range p.x.auth {
		if a.Is(k.Type, k.StateKey) && !p.r.around.Rejected(a.id) {
			return a.Event, nil
		}
	}
	return nil, nil
}

// apply authorises events one after another, each on what those before it left ("Iterative auth checks").
func (r *resolver) apply(events []*node, agreed bool) error {
	for _, x := range events {
		if !x.IsState() || r.around.Rejected(x.id) {
			continue
		}
		if err := Authorise(x.Event, partial{r, x, agreed}); err == nil {
			r.won[x.Key()] = x.Event
		} else if !refused(err) {
			return err
		}
	}
	return nil
}

// resolveV1 is "State resolution" of room version 1: power levels, join rules, memberships, then the rest; deeper events win if they
// are allowed.
func (r *resolver) resolveV1(sets []map[Key]string) error {
	blocks := map[Key][]*node{}
	for _, x := range r.start {
		blocks[x.Key()] = append(blocks[x.Key()], x)
	}
	for _, b := range blocks {
		slices.SortFunc(b, func(x, y *node) int {
			if x.depth != y.depth {
				return int(min(1, max(-1, x.depth-y.depth)))
			}
			hx, hy := sha1.Sum([]byte(x.id)), sha1.Sum([]byte(y.id))
			return bytes.Compare(hy[:], hx[:])
		})
	}
	allowed := func(x *node, state State) (bool, error) {
		err := Authorise(x.Event, state)
		if err != nil && !refused(err) {
			return false, err
		}
		return err == nil, nil
	}
	stage := func(of func(Key) bool, auth bool) error {
		done := map[Key]*Event{}
		for k, b := range blocks {
			if !of(k) {
				continue
			}
			delete(blocks, k)
			if !auth {
				done[k] = b[0].Event
				for i := len(b) - 1; i > 0; i-- {
					if ok, err := allowed(b[i], partial{r, nil, true}); err != nil {
						return err
					} else if ok {
						done[k] = b[i].Event
						break
					}
				}
				continue
			}
			cur := b[0].Event
			for _, x := range b[1:] {
				ok, err := allowed(x, candidate{partial{r, nil, true}, k, cur})
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				cur = x.Event
			}
			done[k] = cur
		}
		for k, e := range done { // only now, so that the order within a stage does not matter
			r.won[k] = e
		}
		return nil
	}
	for _, s := range []struct {
		of   func(Key) bool
		auth bool
	}{
		{func(k Key) bool { return k == powerKey }, true},
		{func(k Key) bool { return k == joinRulesKey }, true},
		{func(k Key) bool { return k.Type == "m.room.member" }, true},
		{func(Key) bool { return true }, false},
	} {
		if err := stage(s.of, s.auth); err != nil {
			return err
		}
	}
	return nil
}

// candidate is a state with one piece replaced.
type candidate struct {
	State
	key Key
	is  *Event
}

// Event gives the event at k.
func (c candidate) Event(k Key) (*Event, error) {
	if k == c.key {
		return c.is, nil
	}
	return c.State.Event(k)
}
