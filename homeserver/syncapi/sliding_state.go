// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// StateElement matches pieces of state; what is nil matches everything.
type StateElement struct{ Type, StateKey *string }

// StateRule is the required state of one list or subscription (RequiredStateRequest of MSC4186).
type StateRule struct {
	Include, Exclude []StateElement
	Lazy             bool // members as they are needed: only an element that names m.room.member gives more of them

	id string // rules with the same id are the same
}

// SlidingConfig is what a list or a subscription wants of its rooms.
type SlidingConfig struct {
	TimelineLimit int
	State         *StateRule
}

// name gives the rule its id, so that a rule that comes again with the next request is known.
func (r *StateRule) name() {
	var b strings.Builder
	part := func(list []StateElement) {
		for _, e := range list {
			for _, s := range []*string{e.Type, e.StateKey} {
				b.WriteByte(0)
				if s != nil {
					b.WriteByte(1)
					b.WriteString(*s)
				}
			}
		}
		b.WriteByte(2)
	}
	part(r.Include)
	part(r.Exclude)
	if r.Lazy {
		b.WriteByte(3)
	}
	r.id = b.String()
}

func (e *StateElement) matches(k event.Key) bool {
	return (e.Type == nil || *e.Type == k.Type) && (e.StateKey == nil || *e.StateKey == k.StateKey)
}

func (r *StateRule) excludes(k event.Key) bool {
	for i := range r.Exclude {
		if r.Exclude[i].matches(k) {
			return true
		}
	}
	return false
}

func (r *StateRule) matches(k event.Key) bool {
	for i := range r.Include {
		e := &r.Include[i]
		if e.matches(k) && !(r.Lazy && e.Type == nil && k.Type == "m.room.member") {
			return !r.excludes(k)
		}
	}
	return false
}

// roomConfig is the superset of the configs of everything that a room matches. It never changes.
type roomConfig struct {
	limit int
	rules []*StateRule // state that any of them matches is wanted
	lazy  bool
	id    string
}

func newRoomConfig(c SlidingConfig) *roomConfig {
	return &roomConfig{limit: c.TimelineLimit, rules: []*StateRule{c.State}, lazy: c.State.Lazy, id: c.State.id}
}

// with is the superset of c and another; c may be nil.
func (c *roomConfig) with(o *roomConfig) *roomConfig {
	if c == nil {
		return o
	}
	known := func(r *StateRule) bool {
		return slices.ContainsFunc(c.rules, func(x *StateRule) bool { return x.id == r.id })
	}
	if o.limit <= c.limit && known(o.rules[0]) {
		return c
	}
	n := *c
	n.limit = max(c.limit, o.limit)
	if !known(o.rules[0]) {
		n.rules = append(slices.Clone(c.rules), o.rules[0])
		slices.SortFunc(n.rules, func(a, b *StateRule) int { return strings.Compare(a.id, b.id) })
		n.lazy = c.lazy || o.lazy
		n.id = ""
		for _, r := range n.rules {
			n.id += r.id + "\x04"
		}
	}
	return &n
}

func (c *roomConfig) matches(k event.Key) bool {
	for _, r := range c.rules {
		if r.matches(k) {
			return true
		}
	}
	return false
}

// collect picks the state that c wants and less (nil: nothing) does not, oldest first. each goes over all of the state, get looks up
// one piece.
func (c *roomConfig) collect(each func(func(event.Key, rooms.Ref)), get func(event.Key) (rooms.Ref, bool), less *roomConfig) []rooms.Ref {
	var out []rooms.Ref
	take := func(k event.Key, r rooms.Ref) {
		if less == nil || !less.matches(k) {
			out = append(out, r)
		}
	}
	all := false
	for _, r := range c.rules {
		for _, e := range r.Include {
			all = all || e.Type == nil || e.StateKey == nil
		}
	}
	if all {
		each(func(k event.Key, r rooms.Ref) {
			if c.matches(k) {
				take(k, r)
			}
		})
	} else {
		for _, rule := range c.rules {
			for _, e := range rule.Include {
				k := event.Key{Type: *e.Type, StateKey: *e.StateKey}
				if rule.excludes(k) {
					continue
				}
				if r, ok := get(k); ok {
					take(k, r)
				}
			}
		}
	}
	return sortRefs(out)
}

// sortRefs puts refs into the order of their events, each once.
func sortRefs(refs []rooms.Ref) []rooms.Ref {
	slices.SortFunc(refs, func(a, b rooms.Ref) int {
		switch {
		case a.NID < b.NID:
			return -1
		case a.NID > b.NID:
			return 1
		}
		return 0
	})
	return slices.Compact(refs)
}
