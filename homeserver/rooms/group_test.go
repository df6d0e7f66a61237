// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

// TestStateGroupsAreTheirModel grows groups on groups at random, with changes and removals, and holds each to a plain map: in memory,
// and as another Service reads it from the store.
func TestStateGroupsAreTheirModel(t *testing.T) {
	st := storagetest.Open(t, storagetest.SQLiteURL(t))
	ctx := context.Background()
	fresh := func() *Service {
		s, err := New(ctx, st, "example.org", signalling.SystemClock{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	rapid.Check(t, func(r *rapid.T) {
		s := fresh()
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		n := rapid.IntRange(1, 90).Draw(r, "groups")
		room, err := st.NID(ctx)
		if err != nil {
			r.Fatal(err)
		}
		var rows []storage.EventRow
		ref := func(key string) Ref {
			nid, err := st.NID(ctx)
			if err != nil {
				r.Fatal(err)
			}
			id := fmt.Sprintf("$%d", nid)
			rows = append(rows, storage.EventRow{NID: nid, RoomNID: room, ID: id, Type: "t", StateKey: &key, Sender: "@a:b", JSON: []byte("{}")})
			return Ref{nid, id}
		}
		first := map[event.Key]Ref{}
		for i := range 5 {
			k := fmt.Sprint("k", i)
			first[event.Key{Type: "t", StateKey: k}] = ref(k)
		}
		root, err := s.newGroup(ctx, nil, nil, &stateMap{base: first, size: len(first)})
		if err != nil {
			r.Fatal(err)
		}
		groups, models := []*group{root}, []map[event.Key]Ref{first}
		for range n {
			i := len(groups) - 1
			if rnd.IntN(4) == 0 {
				i = rnd.IntN(len(groups)) // a fork
			}
			model, changes := maps.Clone(models[i]), map[event.Key]Ref{}
			for range 1 + rnd.IntN(3) {
				k := fmt.Sprint("k", rnd.IntN(12))
				key := event.Key{Type: "t", StateKey: k}
				if rnd.IntN(4) == 0 {
					changes[key] = Ref{}
					delete(model, key)
				} else {
					changes[key] = ref(k)
					model[key] = changes[key]
				}
			}
			g, err := s.newGroup(ctx, groups[i], changes, nil)
			if err != nil {
				r.Fatal(err)
			}
			groups, models = append(groups, g), append(models, model)
		}
		if err := st.Write(ctx, func(tx *storage.Tx) error {
			for _, e := range rows {
				if err := tx.InsertEvent(e, nil); err != nil {
					return err
				}
			}
			for _, g := range groups {
				if err := tx.InsertStateGroup(g.row(room)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			r.Fatal(err)
		}
		for _, s := range []*Service{s, fresh()} {
			for i, g := range groups {
				whole, err := s.groupState(ctx, g.id)
				if err != nil {
					r.Fatal(err)
				}
				if d := cmp.Diff(models[i], whole.base); d != "" || whole.size != len(models[i]) {
					r.Fatalf("group %d of height %d:\n%s", i, g.height, d)
				}
				for k := range 12 {
					key := event.Key{Type: "t", StateKey: fmt.Sprint("k", k)}
					got, ok, err := s.groupGet(ctx, g.id, key)
					want, has := models[i][key]
					if err != nil || ok != has || got != want {
						r.Fatalf("group %d: %v is %v %v %v, want %v", i, key, got, ok, err, want)
					}
				}
				steps := 0
				for id := g.id; id != 0; steps++ {
					x, err := s.group(ctx, id)
					if err != nil {
						r.Fatal(err)
					}
					id = x.base
				}
				if most := bits.OnesCount64(uint64(g.height)) + 1; steps > most {
					r.Fatalf("group of height %d is %d steps from its root, want at most %d", g.height, steps, most)
				}
				j := rnd.IntN(len(groups))
				keys, err := s.diverging(ctx, []int64{g.id, groups[j].id})
				if err != nil {
					r.Fatal(err)
				}
				for k := range 12 {
					key := event.Key{Type: "t", StateKey: fmt.Sprint("k", k)}
					if models[i][key] != models[j][key] && !keys[key] {
						r.Fatalf("groups %d and %d differ on %v and that is not seen", i, j, key)
					}
				}
			}
		}
	})
}

// TestHeadsShareWhatTheyCopy changes states and members at random and holds every one that was ever made to its model at the end.
func TestHeadsShareWhatTheyCopy(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		type both struct {
			s  *stateMap
			m  *members
			ss map[event.Key]Ref
			mm map[string]string
		}
		list := []both{{&stateMap{}, newMembers(nil), map[event.Key]Ref{}, map[string]string{}}}
		for i := range rapid.IntRange(1, 300).Draw(r, "steps") {
			last := list[len(list)-1]
			k := event.Key{Type: "t", StateKey: fmt.Sprint(rnd.IntN(150))}
			u := fmt.Sprintf("@u%d:s%d", rnd.IntN(100), rnd.IntN(3))
			next := both{ss: maps.Clone(last.ss), mm: maps.Clone(last.mm)}
			ref := Ref{int64(i + 1), fmt.Sprint(i)}
			if rnd.IntN(4) == 0 {
				ref = Ref{}
				delete(next.ss, k)
			} else {
				next.ss[k] = ref
			}
			membership := []string{"join", "join", "leave", "invite", "ban"}[rnd.IntN(5)]
			next.mm[u] = membership
			next.s, next.m = last.s.with(map[event.Key]Ref{k: ref}), last.m.with(u, membership)
			list = append(list, next)
		}
		for i, x := range list {
			got := map[event.Key]Ref{}
			x.s.each(func(k event.Key, ref Ref) { got[k] = ref })
			if d := cmp.Diff(x.ss, got); d != "" || x.s.size != len(got) {
				r.Fatalf("state %d: size %d\n%s", i, x.s.size, d)
			}
			joined, invited, servers := map[string]bool{}, map[string]bool{}, map[string]bool{}
			for u, m := range x.mm {
				if x.m.of(u) != m {
					r.Fatalf("state %d: %s is %q, not %q", i, u, x.m.of(u), m)
				}
				switch m {
				case "join":
					joined[u] = true
					servers[event.ServerOf(u)] = true
				case "invite":
					invited[u] = true
				}
			}
			for name, pair := range map[string]struct {
				want map[string]bool
				got  []string
			}{"joined": {joined, x.m.joined}, "invited": {invited, x.m.invited}, "servers": {servers, x.m.servers}} {
				set := map[string]bool{}
				for _, s := range pair.got {
					set[s] = true
				}
				if d := cmp.Diff(pair.want, set); d != "" || len(set) != len(pair.got) {
					r.Fatalf("state %d: %s:\n%s", i, name, d)
				}
			}
		}
	})
}
