// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

// state asks another server for the state before an event, and stores what is not there.
func (s *server) stateBefore(via *server, id, eventID string) []string {
	s.t.Helper()
	ctx := context.Background()
	state, chain, err := via.StateIDsFor(ctx, s.Server(), id, eventID)
	if err != nil {
		s.t.Fatal(err)
	}
	unknown, err := s.Unknown(ctx, append(slices.Clone(chain), state...))
	if err != nil {
		s.t.Fatal(err)
	}
	var list []*event.Event
	for _, x := range unknown {
		e, err := via.EventFor(ctx, s.Server(), x)
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, e)
	}
	if err := s.InsertOutliers(ctx, id, wire(s.t, list...)); err != nil {
		s.t.Fatal(err)
	}
	return state
}

// backfill fills the newest hole in a room's history.
func (s *server) backfill(via *server, id string, limit int) (n int) {
	s.t.Helper()
	ctx := context.Background()
	r := s.room(id)
	tl, err := r.Timeline(ctx, -1<<62, 1<<62, 10000, true)
	if err != nil {
		s.t.Fatal(err)
	}
	_, missing := r.Holes(tl...)
	if missing == nil {
		return 0
	}
	list, err := via.BackfillFor(ctx, s.Server(), id, missing, limit)
	if err != nil {
		s.t.Fatal(err)
	}
	states := map[string][]string{}
	for range 100 {
		n, err = s.Backfill(ctx, id, wire(s.t, list...), states)
		var m *rooms.Missing
		if !errors.As(err, &m) {
			break
		}
		states[m.Event] = s.stateBefore(via, id, m.Event)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// history lists a room's timeline by event id, the oldest first, as the store has it.
func (s *server) history(id string) (out []string) {
	s.t.Helper()
	r, err := newServer(s.t, s.st, s.Server()).Room(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	tl, err := r.Timeline(context.Background(), -1<<62, 1<<62, 10000, false)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range tl {
		out = append(out, e.ID())
	}
	return out
}

func TestHistoryIsBackfilledInItsOrderWithItsState(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		for _, v := range []event.Version{"1", "6", "12"} {
			ctx := context.Background()
			id := create(t, a.Service, v)
			var said []*event.Event
			for i := range 25 {
				switch i % 5 {
				case 3:
					said = append(said, a.send(id, state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": fmt.Sprint(i)})))
				case 4:
					said = append(said, a.send(id, join(fmt.Sprintf("@user%d:example.org", i))))
				default:
					said = append(said, a.send(id, message("@alice:example.org", fmt.Sprint(i))))
				}
			}
			a.send(id, rooms.Draft{Sender: "@alice:example.org", Type: "m.room.redaction", Redacts: said[10].ID(), Content: content(map[string]any{})})
			b.mustJoin(a, id, "@bob:b.org")
			b.take(id, a.send(id, message("@alice:example.org", "after")))
			head := headIDs(b.room(id).Head())
			o := observe(b.st)
			total := 0
			for range 10 {
				n := b.backfill(a, id, 7)
				if total += n; n == 0 {
					break
				}
			}
			if d := cmp.Diff(a.history(id), b.history(id)); d != "" {
				t.Fatalf("v%s: another history:\n%s", v, d)
			}
			if total != len(a.history(id))-2 {
				t.Errorf("v%s: %d events were told of", v, total)
			}
			if d := cmp.Diff(head, headIDs(b.room(id).Head())); d != "" || len(o.take()) != 0 {
				t.Errorf("v%s: the past moved the room:\n%s", v, d)
			}
			same(t, id, a, b)
			for _, e := range said {
				for _, svc := range []*server{b, newServer(t, b.st, "b.org")} {
					x, err := svc.room(id).Event(ctx, e.ID())
					if err != nil || x == nil {
						t.Fatalf("v%s: %v %v", v, x, err)
					}
					want, err := a.room(id).Event(ctx, e.ID())
					if err != nil {
						t.Fatal(err)
					}
					p, err := a.room(id).AllStateAt(ctx, want)
					if err != nil {
						t.Fatal(err)
					}
					q, err := svc.room(id).AllStateAt(ctx, x)
					if err != nil {
						t.Fatal(err)
					}
					if d := cmp.Diff(idsOf(p), idsOf(q)); d != "" {
						t.Fatalf("v%s: another state at %s:\n%s", v, e.Content(), d)
					}
					if string(x.Content()) != string(want.Content()) {
						t.Errorf("v%s: %s is shown as %s", v, want.Content(), x.Content())
					}
				}
			}
			if n := b.backfill(a, id, 7); n != 0 {
				t.Errorf("v%s: holes are left", v)
			}
		}
	})
}

func TestWhatHappenedWhileWeWereOutComesBetween(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		b.mustJoin(a, id, "@bob:b.org")
		b.take(id, a.send(id, message("@alice:example.org", "one")))
		a.take(id, b.send(id, member("@bob:b.org", "@bob:b.org", "leave")))
		if b.room(id).Here() || a.room(id).HasServer("b.org") {
			t.Fatal("the room is not left")
		}
		for i := range 5 {
			a.send(id, message("@alice:example.org", fmt.Sprint("missed ", i)))
		}
		a.send(id, state("@alice:example.org", "m.room.name", "", map[string]any{"name": "renamed"}))
		a.send(id, join("@carol:example.org"))
		if _, err := b.Append(ctx, id, join("@bob:b.org")); err == nil {
			t.Error("joined a room that only others are in, without asking them")
		}
		b.mustJoin(a, id, "@bob:b.org")
		same(t, id, a, b)
		b.take(id, a.send(id, message("@alice:example.org", "again")))
		for b.backfill(a, id, 3) > 0 {
		}
		if d := cmp.Diff(a.history(id), b.history(id)); d != "" {
			t.Errorf("another history:\n%s", d)
		}
	})
}

func TestAnEventAcrossAGapComesWithTheStateThatItsServerTells(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		b.mustJoin(a, id, "@bob:b.org")
		b.take(id, a.send(id, message("@alice:example.org", "one")))
		for i := range 30 { // lost on the way
			a.send(id, message("@alice:example.org", fmt.Sprint("lost ", i)))
		}
		a.send(id, state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": "lost"}))
		prev := a.send(id, message("@alice:example.org", "last lost"))
		e := a.send(id, message("@alice:example.org", "heard"))
		var m *rooms.Missing
		if _, err := b.Insert(ctx, id, wire(t, e)); !errors.As(err, &m) || !slices.Equal(m.IDs, []string{prev.ID()}) {
			t.Fatalf("%v", err)
		}
		// What the answer to get_missing_events brings is not enough.
		list, err := a.MissingFor(ctx, "b.org", id, []string{}, []string{e.ID()}, 5, 0)
		if err != nil || len(list) != 5 || list[4].ID() != prev.ID() {
			t.Fatalf("%d events: %v", len(list), err)
		}
		list = wire(t, append(list, e)...)
		status, err := b.InsertWith(ctx, id, list, map[string][]string{list[0].ID(): b.stateBefore(a, id, list[0].ID())})
		if err != nil || slices.Contains(status, storage.StatusRejected) {
			t.Fatalf("%v %v", status, err)
		}
		same(t, id, a, b)
		for b.backfill(a, id, 10) > 0 {
		}
		same(t, id, a, b)
		if d := cmp.Diff(a.history(id), b.history(id)); d != "" {
			t.Errorf("another history:\n%s", d)
		}
		// The fork that the gap was is one line again with the next event of ours.
		a.take(id, b.send(id, message("@bob:b.org", "well")))
		if n := len(b.room(id).Head().Extremities()); n != 1 {
			t.Errorf("%d extremities", n)
		}
	})
}

func TestARedactionThatComesBeforeItsTargetTakesItsContent(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, v := range []event.Version{"5", "12"} {
			ctx := context.Background()
			s := open(t, st)
			id := baseRoom(t, s, v)
			g, tip := graphOf(t, s, id)
			x, y := tip, tip
			target := g.grow(&x, message("@u1:c.org", "secret"))
			stays := g.grow(&x, message("@u1:c.org", "stays"))
			by := g.grow(&y, rooms.Draft{Sender: "@bob:b.org", Type: "m.room.redaction", Redacts: target.ID(), Content: content(map[string]any{})})
			other := g.grow(&y, rooms.Draft{Sender: "@u3:d.org", Type: "m.room.redaction", Redacts: stays.ID(), Content: content(map[string]any{})})
			list := []*event.Event{by}
			if other != nil {
				list = append(list, other)
			}
			if _, err := s.Insert(ctx, id, list); err != nil {
				t.Fatal(err)
			}
			s = open(t, st) // the redactions are remembered
			if _, err := s.Insert(ctx, id, []*event.Event{target, stays}); err != nil {
				t.Fatal(err)
			}
			for _, svc := range []*rooms.Service{s, open(t, st)} {
				r, _ := svc.Room(ctx, id)
				e, err := r.Event(ctx, target.ID())
				if err != nil || e == nil || string(e.Content()) != "{}" || e.RedactedBy != by.ID() {
					t.Errorf("v%s: %v %v", v, e, err)
				}
				if e, err = r.Event(ctx, stays.ID()); err != nil || e == nil || e.Redacted() {
					t.Errorf("v%s: %v %v", v, e, err)
				}
			}
		}
	})
}

func TestAnEventThatOnlyAnotherServerHasCanBeRedacted(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		redact := func(target string) rooms.Draft {
			return rooms.Draft{Sender: "@alice:example.org", Type: "m.room.redaction", Redacts: target, Content: content(map[string]any{})}
		}
		if _, err := a.Append(ctx, id, redact("$nothing")); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Errorf("nobody else is there: %v", err)
		}
		b.mustJoin(a, id, "@bob:b.org")
		lost := b.send(id, message("@bob:b.org", "rude"))
		by := a.send(id, redact(lost.ID()))
		a.take(id, lost)
		b.take(id, by)
		for _, s := range []*server{a, newServer(t, a.st, "example.org"), b} {
			if e := s.get(id, lost.ID()); string(e.Content()) != "{}" {
				t.Errorf("%s shows %s", s.Server(), e.Content())
			}
		}
	})
}
