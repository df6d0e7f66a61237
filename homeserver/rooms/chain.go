// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// ordered puts events behind those of the same list that before names; those in a cycle, and what stands on them, are left out.
func ordered(events []*event.Event, before func(*event.Event) []string) []*event.Event {
	const (
		unseen = iota
		open
		done
		cyclic
	)
	byID := make(map[string]*event.Event, len(events))
	for _, e := range events {
		byID[e.ID()] = e
	}
	out := make([]*event.Event, 0, len(byID))
	mark := make(map[string]int, len(byID))
	type step struct {
		e    *event.Event
		ids  []string
		next int
		bad  bool
	}
	for _, first := range events {
		if mark[first.ID()] != unseen {
			continue
		}
		mark[first.ID()] = open
		stack := []step{{e: first, ids: before(first)}}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next < len(top.ids) {
				id := top.ids[top.next]
				top.next++
				e := byID[id]
				if e == nil {
					continue
				}
				switch mark[id] {
				case unseen:
					mark[id] = open
					stack = append(stack, step{e: e, ids: before(e)})
				case open, cyclic:
					top.bad = true
				}
				continue
			}
			s := *top
			stack = stack[:len(stack)-1]
			if s.bad {
				mark[s.e.ID()] = cyclic
				if len(stack) > 0 {
					stack[len(stack)-1].bad = true
				}
				continue
			}
			mark[s.e.ID()] = done
			out = append(out, s.e)
		}
	}
	return out
}

// lawful keeps the events of a room that their own auth events allow, each behind its auth events. have gives auth events that are not
// in the list and were accepted; nil where there are none. lacking names those that were in neither.
func lawful(events []*event.Event, roomID string, v event.Version, have func(id string) *event.Event) (kept []*event.Event, refused []*event.Event, lacking []string, err error) {
	good := make(map[string]*event.Event, len(events))
	bad := map[string]bool{}
next:
	for _, e := range ordered(events, (*event.Event).AuthIDs) {
		if e.RoomID() != roomID || e.Version() != v || good[e.ID()] != nil || bad[e.ID()] {
			continue
		}
		ids := e.AuthIDs()
		auth := make([]*event.Event, 0, len(ids))
		state := make(event.EventsState, len(ids))
		for _, id := range ids {
			a := good[id]
			if a == nil && have != nil {
				a = have(id)
			}
			if a == nil {
				if bad[id] {
					bad[e.ID()] = true
					refused = append(refused, e)
				} else {
					lacking = append(lacking, id)
				}
				continue next
			}
			auth = append(auth, a)
			if a.IsState() {
				state[a.Key()] = a
			}
		}
		err := event.CheckAuthEvents(e, auth)
		if err == nil {
			err = event.Authorise(e, state)
		}
		switch status, err := judge(1, err); {
		case err != nil:
			return nil, nil, nil, err
		case status != 0:
			bad[e.ID()] = true
			refused = append(refused, e)
		default:
			good[e.ID()] = e
			kept = append(kept, e)
		}
	}
	slices.Sort(lacking)
	return kept, refused, slices.Compact(lacking), nil
}

// stateOf makes a state of events; two for one key are refused, what is no state is left out.
func stateOf(events []*event.Event) (event.EventsState, error) {
	s := make(event.EventsState, len(events))
	for _, e := range events {
		if !e.IsState() {
			continue
		}
		if old := s[e.Key()]; old != nil && old.ID() != e.ID() {
			return nil, signalling.BadJSON("the state has two events for %s %q", e.Type(), *e.StateKey())
		}
		s[e.Key()] = e
	}
	return s, nil
}
