// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/sha1"
	"encoding/hex"
	"os"
	"slices"
	"sort"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
)

// Two second opinions on state resolution: the specification written down once more, as literally as can be, and the library.

// reference is state resolution written down from the spec without a thought for speed, over whole states and full auth chains.
func (w *world) reference(states []map[Key]string) map[Key]string {
	unconflicted, conflicted := map[Key]string{}, map[string]bool{}
	for _, s := range states {
		for k, id := range s {
			agree := true
			for _, o := range states {
				if other, ok := o[k]; other != id && (ok || w.v != "1") {
					agree = false
				}
			}
			if agree {
				unconflicted[k] = id
			} else {
				conflicted[id] = true
			}
		}
	}
	if len(conflicted) == 0 {
		return unconflicted
	}
	if w.v == "1" {
		return w.referenceV1(unconflicted, conflicted)
	}
	var chain func(id string, into map[string]bool)
	chain = func(id string, into map[string]bool) {
		for _, a := range w.events[id].AuthIDs() {
			if !into[a] {
				into[a] = true
				chain(a, into)
			}
		}
	}
	count := map[string]int{}
	for _, s := range states {
		in := map[string]bool{}
		for _, id := range s {
			chain(id, in)
		}
		for id := range in {
			count[id]++
		}
	}
	full := map[string]bool{}
	for id := range conflicted {
		full[id] = true
	}
	for id, n := range count {
		if n < len(states) {
			full[id] = true
		}
	}
	if w.v == "12" { // the conflicted state subgraph
		for id := range count {
			above := map[string]bool{}
			chain(id, above)
			up, down := conflicted[id], conflicted[id]
			for c := range conflicted {
				up = up || above[c]
				below := map[string]bool{}
				chain(c, below)
				down = down || below[id]
			}
			if up && down {
				full[id] = true
			}
		}
	}
	power := func(e *Event) bool {
		if e.Is("m.room.power_levels", "") || e.Is("m.room.join_rules", "") {
			return true
		}
		m := e.Membership()
		return (m == "leave" || m == "ban") && *e.StateKey() != e.Sender()
	}
	first := map[string]bool{}
	var pull func(id string)
	pull = func(id string) {
		if first[id] || !full[id] {
			return
		}
		first[id] = true
		for _, a := range w.events[id].AuthIDs() {
			pull(a)
		}
	}
	for id := range full {
		if power(w.events[id]) {
			pull(id)
		}
	}
	authEvent := func(e *Event, typ string) *Event {
		for _, a := range e.AuthIDs() {
			if x := w.events[a]; x.Is(typ, "") {
				return x
			}
		}
		return nil
	}
	level := func(e *Event) int64 {
		create, pl := authEvent(e, "m.room.create"), authEvent(e, "m.room.power_levels")
		st := EventsState{}
		if create != nil {
			st[createKey] = create
		}
		if pl != nil {
			st[powerKey] = pl
		}
		p, _ := PowerOf(st)
		return p.User(e.Sender())
	}
	var sorted []string
	for len(sorted) < len(first) {
		best := ""
		for id := range first {
			ready := !slices.Contains(sorted, id)
			for _, a := range w.events[id].AuthIDs() {
				ready = ready && (!first[a] || slices.Contains(sorted, a))
			}
			if !ready {
				continue
			}
			if best != "" {
				x, y := w.events[id], w.events[best]
				lx, ly := level(x), level(y)
				if lx < ly || lx == ly && (x.OriginTS() > y.OriginTS() || x.OriginTS() == y.OriginTS() && x.ID() > y.ID()) {
					continue
				}
			}
			best = id
		}
		sorted = append(sorted, best)
	}
	state := map[Key]string{}
	if w.v != "12" {
		for k, id := range unconflicted {
			state[k] = id
		}
	}
	check := func(ids []string) {
		for _, id := range ids {
			e := w.events[id]
			st := EventsState{}
			for _, a := range e.AuthIDs() {
				st[w.events[a].Key()] = w.events[a]
			}
			for k, id := range state {
				st[k] = w.events[id]
			}
			if Authorise(e, st) == nil {
				state[e.Key()] = id
			}
		}
	}
	check(sorted)
	var mainline []string
	for x := w.events[state[powerKey]]; x != nil; x = authEvent(x, "m.room.power_levels") {
		mainline = append(mainline, x.ID())
	}
	position := func(id string) int {
		for x := w.events[id]; x != nil; x = authEvent(x, "m.room.power_levels") {
			if i := slices.Index(mainline, x.ID()); i >= 0 {
				return i
			}
		}
		return len(mainline)
	}
	var rest []string
	for id := range full {
		if !first[id] {
			rest = append(rest, id)
		}
	}
	sort.Slice(rest, func(i, j int) bool {
		x, y := w.events[rest[i]], w.events[rest[j]]
		if px, py := position(rest[i]), position(rest[j]); px != py {
			return px > py
		}
		if x.OriginTS() != y.OriginTS() {
			return x.OriginTS() < y.OriginTS()
		}
		return x.ID() < y.ID()
	})
	check(rest)
	for k, id := range unconflicted {
		state[k] = id
	}
	return state
}

func (w *world) referenceV1(state map[Key]string, conflicted map[string]bool) map[Key]string {
	blocks := map[Key][]*Event{}
	for id := range conflicted {
		k := w.events[id].Key()
		blocks[k] = append(blocks[k], w.events[id])
	}
	for _, b := range blocks { // shallow first; within a depth by descending SHA-1
		sort.Slice(b, func(i, j int) bool {
			if b[i].Depth() != b[j].Depth() {
				return b[i].Depth() < b[j].Depth()
			}
			x, y := sha1.Sum([]byte(b[i].ID())), sha1.Sum([]byte(b[j].ID()))
			return hex.EncodeToString(x[:]) > hex.EncodeToString(y[:])
		})
	}
	for _, typ := range []string{"m.room.power_levels", "m.room.join_rules", "m.room.member", ""} {
		found := map[Key]string{}
		for k, b := range blocks {
			if k.Type != typ && typ != "" || state[k] != "" {
				continue
			}
			if typ == "" {
				found[k] = b[0].ID()
				for i := len(b) - 1; i >= 0; i-- {
					if Authorise(b[i], worldState{w, state}) == nil {
						found[k] = b[i].ID()
						break
					}
				}
				continue
			}
			with := map[Key]string{}
			for k, id := range state {
				with[k] = id
			}
			with[k] = b[0].ID()
			for _, e := range b[1:] {
				if Authorise(e, worldState{w, with}) != nil {
					break
				}
				with[k] = e.ID()
			}
			found[k] = with[k]
		}
		for k, id := range found {
			state[k] = id
		}
	}
	return state
}

// library is the second opinion: gomatrixserverlib over whole states and full auth chains.
func (w *world) library(states []map[Key]string) map[Key]string {
	impl := gmsl.MustGetRoomVersion(gmsl.RoomVersion(w.v))
	pdus := map[string]gmsl.PDU{}
	pdu := func(id string) gmsl.PDU {
		if pdus[id] == nil {
			p, err := impl.NewEventFromTrustedJSONWithEventID(id, w.events[id].JSON(), false)
			if err != nil {
				w.t.Fatal(err)
			}
			pdus[id] = p
		}
		return pdus[id]
	}
	sets := make([][]gmsl.PDU, len(states))
	chain := map[string]bool{}
	var walk func(string)
	walk = func(id string) {
		for _, a := range w.events[id].AuthIDs() {
			if !chain[a] {
				chain[a] = true
				walk(a)
			}
		}
	}
	once := map[string]bool{}
	for i, s := range states {
		for _, id := range s {
			sets[i] = append(sets[i], pdu(id))
			walk(id)
			once[id] = true
		}
	}
	var auth []gmsl.PDU
	if w.v == "1" { // v1 wants the state that is not in conflict
		for k, id := range states[0] {
			same := true
			for _, s := range states {
				same = same && s[k] == id
			}
			if same {
				auth = append(auth, pdu(id))
			}
		}
	} else {
		for id := range chain {
			auth = append(auth, pdu(id))
		}
		if w.v == "12" { // its subgraph looks conflicted events up here
			for id := range once {
				if !chain[id] {
					auth = append(auth, pdu(id))
				}
			}
		}
	}
	stdout := os.Stdout // the library prints
	os.Stdout, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	defer func() { _ = os.Stdout.Close(); os.Stdout = stdout }()
	user := func(_ spec.RoomID, s spec.SenderID) (*spec.UserID, error) { return spec.NewUserID(string(s), true) }
	out, err := gmsl.ResolveConflictsNew(gmsl.RoomVersion(w.v), sets, auth, user, func(string) bool { return false })
	if err != nil {
		w.t.Fatal(err)
	}
	state := map[Key]string{}
	for _, p := range out {
		state[Key{p.Type(), *p.StateKey()}] = p.EventID()
	}
	return state
}
