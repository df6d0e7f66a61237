// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"

	gmsl "github.com/matrix-org/gomatrixserverlib"
)

// Fetch gives events by id; ids that are not known are left out.
type Fetch func(ids []string) ([]*Event, error)

// Resolve finds what several states of a room resolve to where they differ (state resolution v1, v2 or v2.1, as the room version
// says). Each of sets maps state keys to event ids, for the keys on which the states may differ; agreed gives the id at a key that is
// in none of them, "" for none; rejected says which events failed authorisation and may not become state. The answer holds every key
// of sets that has a value after resolution.
//
// Only what is in conflict, its auth chains, and the unconflicted state that authorises it are loaded and handed to the
// algorithm: the cost grows with the conflict, not with the room.
func Resolve(v Version, sets []map[Key]string, agreed func(Key) string, fetch Fetch, rejected func(id string) bool) (map[Key]string, error) {
	if _, err := v.impl(); err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		return map[Key]string{}, nil
	}
	base, conflicted := split(sets)
	if len(conflicted) == 0 {
		return base, nil
	}
	same := func(k Key) string {
		if id, ok := base[k]; ok {
			return id
		}
		if _, ok := conflicted[k]; ok {
			return ""
		}
		return agreed(k)
	}
	known := map[string]*Event{}
	load := func(ids []string) error {
		var want []string
		for _, id := range ids {
			if _, ok := known[id]; !ok {
				known[id] = nil
				want = append(want, id)
			}
		}
		if len(want) == 0 {
			return nil
		}
		got, err := fetch(want)
		if err != nil {
			return err
		}
		for _, e := range got {
			known[e.ID()] = e
		}
		return nil
	}
	var ids []string
	for k := range conflicted {
		for _, s := range sets {
			if id, ok := s[k]; ok {
				ids = append(ids, id)
			}
		}
	}
	// The unconflicted state that can authorise a conflicted event.
	auth := map[Key]bool{{"m.room.create", ""}: true, {"m.room.power_levels", ""}: true, {"m.room.join_rules", ""}: true}
	if err := load(ids); err != nil {
		return nil, err
	}
	chain, err := closure(ids, known, load)
	if err != nil {
		return nil, err
	}
	for id := range chain {
		e := known[id]
		if e == nil {
			continue
		}
		keys, err := AuthKeys(v, Proto{RoomID: e.RoomID(), Sender: e.Sender(), Type: e.Type(), StateKey: e.StateKey(), Content: e.Content()})
		if err != nil {
			continue // a malformed event authorises nothing
		}
		for _, k := range keys {
			auth[k] = true
		}
	}
	var around []string
	for k := range auth {
		if id := same(k); id != "" {
			around = append(around, id)
		}
	}
	if err := load(around); err != nil {
		return nil, err
	}
	more, err := closure(around, known, load)
	if err != nil {
		return nil, err
	}
	for id := range more {
		chain[id] = true
	}
	stateSets := make([][]gmsl.PDU, len(sets))
	for i, s := range sets {
		for k := range conflicted {
			if e := known[s[k]]; e != nil {
				stateSets[i] = append(stateSets[i], e.pdu)
			}
		}
		for k := range auth {
			if _, ok := conflicted[k]; ok {
				continue
			}
			if e := known[same(k)]; e != nil {
				stateSets[i] = append(stateSets[i], e.pdu)
			}
		}
	}
	authEvents := make([]gmsl.PDU, 0, len(chain))
	for id := range chain {
		if e := known[id]; e != nil {
			authEvents = append(authEvents, e.pdu)
		}
	}
	var out []gmsl.PDU
	if err := noPanic(func() (err error) {
		out, err = gmsl.ResolveConflictsNew(gmsl.RoomVersion(v), stateSets, authEvents, userIDForSender, gmsl.IsRejected(rejected))
		return
	}); err != nil {
		return nil, fmt.Errorf("state resolution: %w", err)
	}
	for _, p := range out {
		if sk := p.StateKey(); sk != nil {
			k := Key{p.Type(), *sk}
			if _, ok := conflicted[k]; ok {
				base[k] = p.EventID()
			}
		}
	}
	return base, nil
}

// split separates the keys on which all sets agree from the others.
func split(sets []map[Key]string) (agreed map[Key]string, conflicted map[Key]struct{}) {
	agreed, conflicted = make(map[Key]string, len(sets[0])), map[Key]struct{}{}
	for k, id := range sets[0] {
		same := true
		for _, s := range sets[1:] {
			if s[k] != id {
				same = false
				break
			}
		}
		if same {
			agreed[k] = id
		} else {
			conflicted[k] = struct{}{}
		}
	}
	for _, s := range sets[1:] {
		for k := range s {
			if _, ok := sets[0][k]; !ok {
				conflicted[k] = struct{}{}
			}
		}
	}
	return agreed, conflicted
}

// closure walks auth_events from ids, loading as it goes, and gives every id met, the start included.
func closure(ids []string, known map[string]*Event, load func([]string) error) (map[string]bool, error) {
	seen := map[string]bool{}
	for len(ids) > 0 {
		var next []string
		for _, id := range ids {
			if seen[id] {
				continue
			}
			seen[id] = true
			if e := known[id]; e != nil {
				for _, a := range e.AuthIDs() {
					if !seen[a] {
						next = append(next, a)
					}
				}
			}
		}
		if err := load(next); err != nil {
			return nil, err
		}
		ids = next
	}
	return seen, nil
}
