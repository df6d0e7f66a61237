// SPDX-License-Identifier: Apache-2.0

package event

import (
	"cmp"
	"container/heap"
	"errors"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/signalling"
)

func refused(err error) bool {
	var e *signalling.Error
	return errors.As(err, &e) && e.Code == "M_FORBIDDEN"
}

// resolveV2 is state resolution v2 (room versions 2 to 11), and v2.1 (v12, MSC4297), which adds the conflicted state subgraph and
// authorises from nothing rather than from what is agreed.
func (r *resolver) resolveV2(sets []map[Key]string) error {
	full, err := r.fullConflictedSet(sets)
	if err != nil {
		return err
	}
	agreed := r.n < 12
	// Power events, and what leads to them within the full conflicted set, come first.
	r.marks++
	var first []*node
	var stack []*node
	for _, x := range full {
		if x.TakesPower() && x.mark != r.marks {
			x.mark = r.marks
			stack = append(stack, x)
		}
		for len(stack) > 0 {
			y := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			first = append(first, y)
			for _, a := range y.auth {
				if a.full && a.mark != r.marks {
					a.mark = r.marks
					stack = append(stack, a)
				}
			}
		}
	}
	rest := slices.DeleteFunc(slices.Clone(full), func(x *node) bool { return x.mark == r.marks })
	if first, err = r.powerOrder(first); err != nil {
		return err
	}
	if err := r.apply(first, agreed); err != nil {
		return err
	}
	if rest, err = r.mainlineOrder(rest, agreed); err != nil {
		return err
	}
	return r.apply(rest, agreed)
}

// fullConflictedSet is the conflicted state set with the auth difference, and from v2.1 on the conflicted state subgraph.
func (r *resolver) fullConflictedSet(sets []map[Key]string) ([]*node, error) {
	for _, s := range sets {
		var from []*node
		for k := range r.conflicted {
			if x := r.nodes[s[k]]; x != nil {
				from = append(from, x)
			}
		}
		r.walk(from, func(x *node) { x.sets++ })
	}
	full := slices.Clone(r.start)
	for _, x := range full {
		x.full = true
	}
	if r.n >= 12 {
		full = append(full, r.subgraph()...)
	}
	var differ []*node
	var ids []string
	r.walk(r.start, func(x *node) {
		if !x.full && x.sets < len(sets) {
			differ = append(differ, x)
			ids = append(ids, x.id)
		}
	})
	if len(differ) == 0 {
		return full, nil
	}
	// What is in the auth chain of an agreed event is in every full auth chain.
	younger, err := r.around.Younger(ids)
	if err != nil {
		return nil, err
	}
	if err := r.fetch(younger); err != nil {
		return nil, err
	}
	var from []*node
	for _, id := range younger {
		if x := r.nodes[id]; x != nil && !x.conflicted {
			from = append(from, x)
		}
	}
	r.walk(from, func(x *node) { x.sets = len(sets) })
	for _, x := range differ {
		if x.sets < len(sets) {
			x.full = true
			full = append(full, x)
		}
	}
	return full, nil
}

// subgraph is the conflicted state subgraph without the conflicted events themselves: what lies on a path of auth events from one
// conflicted event to another.
func (r *resolver) subgraph() (between []*node) {
	before := map[*node][]*node{} // who names an event among their auth events
	note := func(x *node) {
		for _, a := range x.auth {
			before[a] = append(before[a], x)
		}
	}
	for _, x := range r.start {
		note(x)
	}
	r.walk(r.start, func(x *node) {
		if !x.conflicted {
			note(x)
		}
	})
	stack := slices.Clone(r.start)
	for len(stack) > 0 {
		x := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, y := range before[x] {
			if !y.full {
				y.full = true
				between = append(between, y)
				stack = append(stack, y)
			}
		}
	}
	return between
}

// TakesPower says whether e may take away what others may do: it sets power levels or join rules, or kicks or bans somebody ("Power
// events" of state resolution v2).
func (e *Event) TakesPower() bool {
	switch e.typ {
	case "m.room.power_levels", "m.room.join_rules":
		return e.stateKey != nil && *e.stateKey == ""
	case "m.room.member":
		if e.stateKey != nil && *e.stateKey != e.sender {
			m := e.Membership()
			return m == "leave" || m == "ban"
		}
	}
	return false
}

// senderPower is the level of x's sender by x's own auth events.
func (x *node) senderPower() int64 {
	var create, levels *Event
	for _, a := range x.auth {
		switch {
		case a.isCreate():
			create = a.Event
		case a.Is("m.room.power_levels", ""):
			levels = a.Event
		}
	}
	return powerOf(create, levels).User(x.sender)
}

// powerOrder is "Reverse topological power ordering": Kahn's algorithm from the oldest on, and of those that may come next the one
// with the most powerful sender, then the earliest, then the smallest id.
func (r *resolver) powerOrder(events []*node) ([]*node, error) {
	r.marks++
	for _, x := range events {
		x.mark, x.power, x.waits = r.marks, x.senderPower(), 0
	}
	after := make(map[*node][]*node, len(events))
	ready := &queue{}
	for _, x := range events {
		for i, a := range x.auth {
			if a.mark == r.marks && a != x && !slices.Contains(x.auth[:i], a) {
				x.waits++
				after[a] = append(after[a], x)
			}
		}
		if x.waits == 0 {
			*ready = append(*ready, x)
		}
	}
	heap.Init(ready)
	out := make([]*node, 0, len(events))
	for ready.Len() > 0 {
		x := heap.Pop(ready).(*node)
		out = append(out, x)
		for _, y := range after[x] {
			if y.waits--; y.waits == 0 {
				heap.Push(ready, y)
			}
		}
	}
	if len(out) < len(events) {
		return nil, errors.New("state resolution: auth events in a circle")
	}
	return out, nil
}

// queue is a heap of events by power, time and id.
type queue []*node

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[j].power, q[i].power), cmp.Compare(q[i].ts, q[j].ts), strings.Compare(q[i].id, q[j].id)) < 0
}
func (q *queue) Push(x any) { *q = append(*q, x.(*node)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// powerLevels is the power levels event among x's auth events.
func (x *node) powerLevels() *node {
	for _, a := range x.auth {
		if a.Is("m.room.power_levels", "") {
			return a
		}
	}
	return nil
}

// mainlineOrder is "Mainline ordering": by the closest power levels event on the mainline, the oldest first and none before all, then
// by time and id.
func (r *resolver) mainlineOrder(events []*node, agreed bool) ([]*node, error) {
	e, err := r.event(powerKey, agreed)
	if err != nil {
		return nil, err
	}
	if e != nil {
		if err := r.fetch([]string{e.id}); err != nil {
			return nil, err
		}
		var line []*node
		r.marks++
		for x := r.nodes[e.id]; x != nil && x.mark != r.marks; x = x.powerLevels() {
			x.mark = r.marks
			line = append(line, x)
		}
		for i, x := range line {
			x.line = len(line) - i
		}
	}
	for _, x := range events {
		var path []*node
		y := x
		r.marks++
		for y != nil && y.line == 0 && y.mark != r.marks {
			y.mark = r.marks
			path = append(path, y)
			y = y.powerLevels()
		}
		line := -1
		if y != nil && y.line != 0 {
			line = y.line
		}
		for _, p := range path {
			p.line = line
		}
	}
	slices.SortFunc(events, func(x, y *node) int {
		return cmp.Or(cmp.Compare(x.line, y.line), cmp.Compare(x.ts, y.ts), strings.Compare(x.id, y.id))
	})
	return events, nil
}
