// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

// told collects what observers are told.
type told struct {
	mu   sync.Mutex
	list []*rooms.Committed
}

func observe(st *storage.Store) *told {
	o := &told{}
	st.Observe(func(_ int64, notes []storage.Note) {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, n := range notes {
			if c, ok := n.Value.(*rooms.Committed); ok {
				o.list = append(o.list, c)
			}
		}
	})
	return o
}

func (o *told) take() []*rooms.Committed {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.list
	o.list = nil
	return out
}

// check holds every note to the one before: changes lead from one head to the next, and only accepted events bring any.
func (o *told) check(t *testing.T, list []*rooms.Committed) {
	t.Helper()
	for i, c := range list {
		if c.Before == nil {
			continue
		}
		if i > 0 && c.Before != list[i-1].Head {
			t.Errorf("event %d: before is not the head that the event before left", i)
		}
		if c.Head.Pos() != c.Stored.Pos {
			t.Errorf("event %d at %d: the head is at %d", i, c.Stored.Pos, c.Head.Pos())
		}
		want := headIDs(c.Before)
		for _, x := range c.Changes {
			k := x.Key.Type + "|" + x.Key.StateKey
			if x.Old.ID != want[k] {
				t.Errorf("event %d: %s was %q, not %q", i, k, want[k], x.Old.ID)
			}
			if delete(want, k); x.New.NID != 0 {
				want[k] = x.New.ID
			}
		}
		if d := cmp.Diff(want, headIDs(c.Head)); d != "" {
			t.Errorf("event %d: changes do not lead to the head:\n%s", i, d)
		}
		if s := c.Stored.Status; len(c.Changes) > 0 && !s.Accepted() && s != storage.StatusOutlier { // an outlier: the word of another server
			t.Errorf("event %d has status %d and changes the state", i, c.Stored.Status)
		}
	}
}

// shows checks what the room shows and stands on.
func shows(t *testing.T, st *storage.Store, s *rooms.Service, id string, visible, hidden []*event.Event, tips ...string) {
	t.Helper()
	ctx := context.Background()
	for _, svc := range []*rooms.Service{s, open(t, st)} {
		seen := map[string]bool{}
		for _, e := range timeline(t, svc, id) {
			seen[e.ID()] = true
		}
		r, err := svc.Room(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		state := headIDs(r.Head())
		for _, e := range visible {
			if x, err := r.Event(ctx, e.ID()); err != nil || x == nil || !seen[e.ID()] {
				t.Errorf("%s %s is not shown: %v", e.Sender(), e.Content(), err)
			}
		}
		for _, e := range hidden {
			if x, err := r.Event(ctx, e.ID()); err != nil || x != nil || seen[e.ID()] {
				t.Errorf("%s %s is shown: %v", e.Sender(), e.Content(), err)
			}
			for _, ref := range state {
				if ref == e.ID() {
					t.Errorf("%s %s is state", e.Sender(), e.Content())
				}
			}
		}
		var ext []string
		for _, x := range r.Head().Extremities() {
			ext = append(ext, x.ID)
		}
		slices.Sort(ext)
		slices.Sort(tips)
		if d := cmp.Diff(tips, ext); d != "" {
			t.Errorf("extremities:\n%s", d)
		}
	}
	if n := s.Pending(); n != 0 {
		t.Errorf("%d things are pending", n)
	}
}

func TestRefusedEventsAreKeptOutOfSight(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, v := range []event.Version{"1", "10", "12"} {
			ctx := context.Background()
			s := open(t, st)
			id := baseRoom(t, s, v)
			g, tip := graphOf(t, s, id)
			o := observe(st)
			u := "@u1:c.org"
			before := tip // u1 is joined here
			ban := g.grow(&tip, member("@bob:b.org", u, "ban"))
			// On the state before it, u1 may speak; in the room as it is now not: soft-failed. mallory was never there: rejected.
			evade := g.on(g.after[before], []string{before}, message(u, "evaded"))
			rename := g.on(g.after[evade.ID()], []string{evade.ID()}, state(u, "m.room.topic", "", map[string]any{"topic": "evaded"}))
			stranger := g.on(g.after[tip], []string{tip}, message("@mallory:m.org", "let me in"))
			// What an honest server built on top of them.
			onTop := g.on(g.after[tip], []string{tip, rename.ID(), stranger.ID()}, message("@bob:b.org", "on top"))
			status, err := s.Insert(ctx, id, []*event.Event{ban, evade, rename, stranger})
			if err != nil {
				t.Fatal(err)
			}
			want := []storage.Status{storage.StatusOK, storage.StatusSoftFailed, storage.StatusSoftFailed, storage.StatusRejected}
			if d := cmp.Diff(want, status); d != "" {
				t.Errorf("v%s: %s", v, d)
			}
			shows(t, st, s, id, []*event.Event{ban}, []*event.Event{evade, rename, stranger}, ban.ID())
			again, err := s.Insert(ctx, id, []*event.Event{stranger, evade, ban, ban})
			if err != nil || !slices.Equal(again, []storage.Status{storage.StatusRejected, storage.StatusSoftFailed, storage.StatusOK, storage.StatusOK}) {
				t.Errorf("v%s: inserted again: %v %v", v, again, err)
			}
			list := o.take()
			if len(list) != 4 {
				t.Errorf("v%s: observers were told of %d events", v, len(list))
			}
			o.check(t, list)
			if status, err = s.Insert(ctx, id, []*event.Event{onTop}); err != nil || status[0] != storage.StatusOK {
				t.Fatalf("v%s: on top of refused events: %v %v", v, status, err)
			}
			shows(t, st, s, id, []*event.Event{ban, onTop}, []*event.Event{evade, stranger}, onTop.ID())
			o.check(t, o.take())
		}
	})
}

func TestEventsWithoutTheirPastAreRefusedAndLeaveNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := baseRoom(t, s, event.DefaultVersion)
		g, tip := graphOf(t, s, id)
		start := tip
		o := observe(st)
		a := g.grow(&tip, join("@new:d.org"))
		b := g.grow(&tip, state("@new:d.org", "m.room.topic", "", map[string]any{"topic": "hello"}))
		c := g.grow(&tip, message("@new:d.org", "hello"))
		var missing *rooms.Missing
		for _, list := range [][]*event.Event{{c}, {b}, {c, b, a}, {a, c}, {b, a}} {
			if _, err := s.Insert(ctx, id, list); !errors.As(err, &missing) || len(missing.IDs) == 0 {
				t.Fatalf("%v", err)
			}
			shows(t, st, s, id, nil, []*event.Event{a, b, c}, start)
		}
		foreign, end := graphOf(t, s, baseRoom(t, s, event.DefaultVersion))
		other := foreign.grow(&end, message("@alice:example.org", "x"))
		if _, err := s.Insert(ctx, id, []*event.Event{a, other}); signalling.AsError(err).Code != "M_INVALID_PARAM" {
			t.Fatalf("an event of another room: %v", err)
		}
		shows(t, st, s, id, nil, []*event.Event{a}, start)
		o.take()
		// What failed before goes in when its past is there: in one batch, each judged by what the ones before it did.
		status, err := s.Insert(ctx, id, []*event.Event{a, b, c})
		if err != nil || !slices.Equal(status, []storage.Status{0, 0, 0}) {
			t.Fatalf("%v %v", status, err)
		}
		shows(t, st, s, id, []*event.Event{a, b, c}, nil, c.ID())
		list := o.take()
		o.check(t, list)
		if len(list) != 3 || len(list[0].Changes) != 1 || len(list[1].Changes) != 1 || len(list[2].Changes) != 0 {
			t.Errorf("changes are not told with the events that made them")
		}
		if !list[0].Head.IsJoined("@new:d.org") {
			t.Error("the head after the join does not have the new member")
		}
	})
}

func TestOneResolutionServesABatch(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := baseRoom(t, s, event.DefaultVersion)
		g, tip := graphOf(t, s, id)
		o := observe(st)
		x, y := tip, tip
		list := []*event.Event{
			g.grow(&x, state("@u1:c.org", "m.room.topic", "", map[string]any{"topic": "x"})), g.grow(&x, join("@x:x.org")), g.grow(&x, member("@bob:b.org", "@u2:c.org", "ban")),
			g.grow(&y, state("@u2:c.org", "m.room.topic", "", map[string]any{"topic": "y"})), g.grow(&y, join("@y:y.org")),
		}
		// Two events that both merge the forks, and one that merges these two.
		m1 := g.on(g.after[tip], []string{x, y}, message("@alice:example.org", "m1"))
		m2 := g.on(g.after[tip], []string{x, y}, message("@bob:b.org", "m2"))
		m3 := g.on(g.after[tip], []string{m1.ID(), m2.ID()}, message("@u3:c.org", "m3"))
		list = append(list, m1, m2, m3)
		if status, err := s.Insert(ctx, id, list); err != nil || slices.Contains(status[5:], storage.StatusRejected) {
			t.Fatalf("%v %v", status, err)
		}
		notes := o.take()
		o.check(t, notes)
		groups := map[string]int64{}
		for _, c := range notes {
			groups[c.Stored.ID()] = c.Stored.StateBefore
		}
		if groups[m1.ID()] != groups[m2.ID()] || groups[m3.ID()] != groups[m1.ID()] {
			t.Errorf("one state has several groups: %v", groups)
		}
		// Later events that need it find it stored.
		m4 := g.on(g.after[tip], []string{x, y}, message("@u4:c.org", "m4"))
		if _, err := s.Insert(ctx, id, []*event.Event{m4}); err != nil {
			t.Fatal(err)
		}
		for _, c := range o.take() {
			if c.Stored.StateBefore != groups[m1.ID()] {
				t.Errorf("resolved again to group %d", c.Stored.StateBefore)
			}
		}
		shows(t, st, s, id, []*event.Event{m1, m2, m3, m4}, nil, m3.ID(), m4.ID())
	})
}

func TestRedactionsOfOtherServers(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, v := range []event.Version{"3", "10", "12"} {
			ctx := context.Background()
			s := open(t, st)
			id := baseRoom(t, s, v)
			g, tip := graphOf(t, s, id)
			redact := func(sender, target string) rooms.Draft {
				return rooms.Draft{Sender: sender, Type: "m.room.redaction", Redacts: target, Content: content(map[string]any{})}
			}
			one := g.grow(&tip, message("@u1:c.org", "one"))
			two := g.grow(&tip, message("@u1:c.org", "two"))
			three := g.grow(&tip, message("@u1:c.org", "three"))
			four := g.grow(&tip, message("@u1:c.org", "four"))
			list := []*event.Event{one, two, three, four,
				g.grow(&tip, redact("@u2:c.org", one.ID())),    // another user of the same server: that server answers for it
				g.grow(&tip, redact("@bob:b.org", two.ID())),   // a moderator
				g.grow(&tip, redact("@new:d.org", three.ID())), // nobody: refused before that
			}
			list = slices.DeleteFunc(list, func(e *event.Event) bool { return e == nil })
			tip3 := g.grow(&tip, join("@z:z.org"))
			list = append(list, tip3, g.grow(&tip, redact("@z:z.org", three.ID()))) // a member without power of another server
			if _, err := s.Insert(ctx, id, list); err != nil {
				t.Fatal(err)
			}
			late := g.grow(&tip, redact("@u1:c.org", four.ID()))
			if _, err := s.Insert(ctx, id, []*event.Event{late}); err != nil {
				t.Fatal(err)
			}
			for _, svc := range []*rooms.Service{s, open(t, st)} {
				r, _ := svc.Room(ctx, id)
				for e, want := range map[*event.Event]bool{one: true, two: true, three: false, four: true} {
					x, err := r.Event(ctx, e.ID())
					if err != nil || x == nil {
						t.Fatalf("v%s: %v %v", v, x, err)
					}
					if gone := string(x.Content()) == "{}" && x.RedactedBy != ""; gone != want {
						t.Errorf("v%s: %s: redacted = %v, want %v", v, e.Content(), gone, want)
					}
				}
			}
		}
	})
}

func TestARedactionRightBehindItsTargetFindsIt(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := baseRoom(t, s, event.DefaultVersion)
		// The redaction is built while the commit of its target is under way.
		for i := range 20 {
			var target string
			var wg sync.WaitGroup
			ready := make(chan struct{})
			wg.Go(func() {
				ids, err := s.Append(ctx, id, message("@alice:example.org", fmt.Sprint("secret ", i)))
				if err != nil {
					t.Error(err)
					close(ready)
					return
				}
				target = ids[0]
				close(ready)
			})
			<-ready
			if _, err := s.Append(ctx, id, rooms.Draft{Sender: "@alice:example.org", Type: "m.room.redaction", Redacts: target, Content: content(map[string]any{})}); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			r, _ := s.Room(ctx, id)
			e, err := r.Event(ctx, target)
			if err != nil || e == nil || e.RedactedBy == "" || e.Pos == 0 {
				t.Fatalf("%+v %v", e, err)
			}
		}
	})
}

func TestOddRelationsAreNoObstacle(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := create(t, s, event.DefaultVersion)
		for _, rel := range []string{
			`{"event_id":"$x","rel_type":"m.\u0000thread"}`, `{"event_id":"$\u0000","rel_type":"m.thread"}`, `{"event_id":5,"rel_type":"m.thread"}`, `{"rel_type":"m.thread"}`, `[]`, `null`,
			`{"event_id":"$x","rel_type":"` + strings.Repeat("é", 200) + `"}`, `{"event_id":"$x","rel_type":7}`, `{"event_id":"$` + strings.Repeat("x", 300) + `"}`,
		} {
			d := rooms.Draft{Sender: "@alice:example.org", Type: "m.room.message", Content: []byte(`{"body":"x\u0000","m.relates_to":` + rel + `}`)}
			if _, err := s.Append(ctx, id, d); err != nil {
				t.Errorf("%.60s: %v", rel, err)
			}
		}
	})
}

func TestWhatIsOnItsWayIsNotCalledThere(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := baseRoom(t, s, event.DefaultVersion)
		g, tip := graphOf(t, s, id)
		// The writer is held up; meanwhile the same event comes twice, and the same state is set twice.
		hold, held := make(chan struct{}), make(chan struct{})
		if err := st.Enqueue(func(*storage.Tx) error { close(held); <-hold; return nil }, func(error) {}); err != nil {
			t.Fatal(err)
		}
		<-held
		e := g.grow(&tip, message("@u1:c.org", "hello"))
		topic := state("@u2:c.org", "m.room.topic", "", map[string]any{"topic": "same"})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Insert(ctx, id, []*event.Event{e}); err != nil {
				t.Error(err)
			}
			if _, err := s.Append(ctx, id, topic); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := s.Append(ctx, id, topic); err != nil {
				t.Error(err)
			}
		})
		for s.Pending() < 5 { // a message: under nid and id; a topic: the same and its group
			runtime.Gosched()
		}
		// Who does not wait is told that it did not wait, not that all is well.
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.Insert(gone, id, []*event.Event{e}); !errors.Is(err, context.Canceled) {
			t.Errorf("inserted before it was committed: %v", err)
		}
		if _, err := s.Append(gone, id, topic); !errors.Is(err, context.Canceled) {
			t.Errorf("appended before it was committed: %v", err)
		}
		close(hold)
		wg.Wait()
		n := 0
		for _, x := range timeline(t, s, id) {
			if x.ID() == e.ID() || x.Is("m.room.topic", "") {
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d events, want one message and one topic", n)
		}
	})
}
