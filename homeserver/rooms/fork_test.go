// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// long says that the drills run at full size: make test-long.
func long() bool { return os.Getenv("TRUNKBOARD_TEST_LONG") != "" }

// graph is a room as another server builds it: events on prev_events of its choice, each with its whole state kept.
type graph struct {
	t      testing.TB
	v      event.Version
	room   string
	events map[string]*event.Event
	after  map[string]map[event.Key]*event.Event
	clock  int64
	keys   map[string]event.Signer
}

type wholeState map[event.Key]*event.Event

func (s wholeState) Event(k event.Key) (*event.Event, error) { return s[k], nil }

// graphOf takes over a room that a Service made.
func graphOf(t testing.TB, s *rooms.Service, id string) (g *graph, tip string) {
	t.Helper()
	ctx := context.Background()
	r, err := s.Room(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	tl, err := r.Timeline(ctx, 0, 1<<60, 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	g = &graph{t: t, v: r.Version, room: id, events: map[string]*event.Event{}, after: map[string]map[event.Key]*event.Event{}, clock: time.Now().UnixMilli(), keys: map[string]event.Signer{}}
	for _, e := range tl {
		var before map[event.Key]*event.Event
		if len(e.PrevIDs()) == 1 {
			before = g.after[e.PrevIDs()[0]]
		}
		g.note(e.Event, before)
		tip = e.ID()
	}
	return g, tip
}

func (g *graph) note(e *event.Event, before map[event.Key]*event.Event) {
	after := before
	if e.IsState() {
		after = make(map[event.Key]*event.Event, len(before)+1)
		for k, x := range before {
			after[k] = x
		}
		after[e.Key()] = e
	}
	g.events[e.ID()], g.after[e.ID()] = e, after
}

// on builds an event on prev in the state before; it does not ask whether it is allowed.
func (g *graph) on(before map[event.Key]*event.Event, prev []string, d rooms.Draft) *event.Event {
	g.t.Helper()
	depth := int64(0)
	for _, p := range prev {
		depth = max(depth, g.events[p].Depth())
	}
	g.clock++
	server := event.ServerOf(d.Sender)
	if _, ok := g.keys[server]; !ok {
		_, key, _ := ed25519.GenerateKey(nil)
		g.keys[server] = event.Signer{Server: server, KeyID: "ed25519:1", Key: key}
	}
	e, err := event.Build(g.v, event.Proto{RoomID: g.room, Sender: d.Sender, Type: d.Type, StateKey: d.StateKey, Content: d.Content, Redacts: d.Redacts, Sticky: d.Sticky}, prev, depth+1, wholeState(before), g.keys[server], time.UnixMilli(g.clock))
	if err != nil {
		g.t.Fatal(err)
	}
	g.note(e, before)
	return e
}

// grow adds an event on one tip if the rules allow it, and moves the tip.
func (g *graph) grow(tip *string, d rooms.Draft) *event.Event {
	g.t.Helper()
	e := g.on(g.after[*tip], []string{*tip}, d)
	if event.Authorise(e, wholeState(g.after[*tip])) != nil {
		return nil
	}
	*tip = e.ID()
	return e
}

func state(sender, typ, stateKey string, c any) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: typ, StateKey: &stateKey, Content: content(c)}
}

func member(sender, user, membership string) rooms.Draft {
	return state(sender, "m.room.member", user, map[string]any{"membership": membership})
}

func message(sender, body string) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: "m.room.message", Content: content(map[string]any{"body": body, "msgtype": "m.text"})}
}

// idsOf is a state by event ids.
func idsOf(h map[event.Key]rooms.Ref) map[string]string {
	out := make(map[string]string, len(h))
	for k, ref := range h {
		out[k.Type+"|"+k.StateKey] = ref.ID
	}
	return out
}

func headIDs(h *rooms.Head) map[string]string {
	m := map[event.Key]rooms.Ref{}
	h.Each(func(k event.Key, r rooms.Ref) { m[k] = r })
	return idsOf(m)
}

// forks grows two forks of n events from a room of 40: members come and go on both, power levels move on one, which also bans people who
// are active on the other, name and topic are set on both.
func forks(g *graph, tip string, n int) (a, b []*event.Event) {
	x, y := tip, tip
	keep := func(list *[]*event.Event, e *event.Event) {
		if e != nil {
			*list = append(*list, e)
		}
	}
	levels := func(i int) map[string]any {
		users := map[string]int{"@bob:b.org": 50, fmt.Sprintf("@u%d:c.org", i%40): 10}
		if !g.v.CreatorsRule() {
			users["@alice:example.org"] = 100
		}
		return map[string]any{"users": users, "events": map[string]int{"m.room.name": 0, "m.room.topic": 0}}
	}
	for i := range n {
		u, was := fmt.Sprintf("@u%d:c.org", i%40), fmt.Sprintf("@u%d:c.org", i/8%20)
		switch i % 8 {
		case 0:
			keep(&a, g.grow(&x, state("@alice:example.org", "m.room.power_levels", "", levels(i/8))))
		case 1:
			keep(&a, g.grow(&x, state("@bob:b.org", "m.room.topic", "", map[string]any{"topic": fmt.Sprint("a", i)})))
		case 2:
			keep(&a, g.grow(&x, state("@bob:b.org", "m.room.name", "", map[string]any{"name": fmt.Sprint("a", i)})))
		case 3:
			keep(&a, g.grow(&x, member("@bob:b.org", was, "ban")))
		default:
			keep(&a, g.grow(&x, join(fmt.Sprintf("@a%d:d.org", i))))
		}
		switch i % 8 {
		case 0:
			keep(&b, g.grow(&y, state(u, "m.room.topic", "", map[string]any{"topic": fmt.Sprint("b", i)})))
		case 1:
			keep(&b, g.grow(&y, state(u, "m.room.name", "", map[string]any{"name": fmt.Sprint("b", i)})))
		case 2:
			keep(&b, g.grow(&y, member(u, u, "leave")))
		case 3, 4:
			keep(&b, g.grow(&y, state(u, "m.room.member", u, map[string]any{"membership": "join", "displayname": fmt.Sprint("b", i)})))
		case 5:
			keep(&b, g.grow(&y, message(u, fmt.Sprint("hello ", i))))
		default:
			keep(&b, g.grow(&y, join(fmt.Sprintf("@b%d:d.org", i))))
		}
	}
	return a, b
}

// baseRoom makes a room with alice, bob (50) and u0 … u39.
func baseRoom(t testing.TB, s *rooms.Service, v event.Version) string {
	t.Helper()
	ctx := context.Background()
	id := create(t, s, v)
	users := map[string]int{"@bob:b.org": 50}
	if !v.CreatorsRule() {
		users["@alice:example.org"] = 100
	}
	drafts := []rooms.Draft{state("@alice:example.org", "m.room.power_levels", "", map[string]any{"users": users, "events": map[string]int{"m.room.name": 0, "m.room.topic": 0}}), join("@bob:b.org")}
	for i := range 40 {
		drafts = append(drafts, join(fmt.Sprintf("@u%d:c.org", i)))
	}
	if _, err := s.Append(ctx, id, drafts...); err != nil {
		t.Fatal(err)
	}
	return id
}

// timeline is all that a room shows.
func timeline(t testing.TB, s *rooms.Service, id string) (out []*event.Event) {
	t.Helper()
	r, err := s.Room(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	tl, err := r.Timeline(context.Background(), 0, 1<<60, 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range tl {
		out = append(out, e.Event)
	}
	return out
}

// insertion is an order of events, cut into batches.
type insertion struct {
	name   string
	events []*event.Event
	size   int
}

// TestForksResolveAlikeInEveryOrder inserts the two forks in different orders and batches, on both engines, and then an event that
// merges them: the state before it must be the same everywhere.
func TestForksResolveAlikeInEveryOrder(t *testing.T) {
	forksDrill(t, 60, "1", "2", "6", "10", "11", "12")
}

// TestLongForksOfAThousandEvents is the same at full size: make test-long.
func TestLongForksOfAThousandEvents(t *testing.T) {
	if !long() {
		t.Skip("TRUNKBOARD_TEST_LONG is not set")
	}
	forksDrill(t, 1000, "2", "12")
}

func forksDrill(t *testing.T, n int, versions ...event.Version) {
	for _, v := range versions {
		t.Run(string(v), func(t *testing.T) {
			first := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
			id := baseRoom(t, first, v)
			g, tip := graphOf(t, first, id)
			base := timeline(t, first, id)
			a, b := forks(g, tip, n)
			merge := g.on(g.after[tip], []string{a[len(a)-1].ID(), b[len(b)-1].ID()}, message("@alice:example.org", "merge"))
			mixed := make([]*event.Event, 0, len(a)+len(b))
			random := append([]*event.Event(nil), mixed...)
			for i := range max(len(a), len(b)) {
				if i < len(a) {
					mixed = append(mixed, a[i])
				}
				if i < len(b) {
					mixed = append(mixed, b[i])
				}
			}
			rnd := rand.New(rand.NewPCG(5, uint64(len(v))))
			for i, j := 0, 0; i < len(a) || j < len(b); {
				if j == len(b) || i < len(a) && rnd.IntN(2) == 0 {
					random = append(random, a[i])
					i++
				} else {
					random = append(random, b[j])
					j++
				}
			}
			all := len(a) + len(b)
			cases := []insertion{
				{"one after the other", append(append([]*event.Event(nil), a...), b...), all}, {"the other first", append(append([]*event.Event(nil), b...), a...), 50},
				{"in turns", mixed, 50}, {"in turns", mixed, all}, {"at random", random, 7}, {"at random", random, 100},
			}
			if n < 1000 {
				cases = append(cases, insertion{"in turns", mixed, 1}, insertion{"one after the other", cases[0].events, 3})
			}
			var want map[string]string
			for engine, url := range map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteURL, "postgres": storagetest.PostgresURL} {
				t.Run(engine, func(t *testing.T) {
					list := cases
					if engine == "postgres" && n < 1000 {
						list = []insertion{cases[4]}
					}
					for _, c := range list {
						got := insertForks(t, storagetest.Open(t, url(t)), g, base, c, merge)
						if want == nil {
							want = got
						}
						if d := cmp.Diff(want, got); d != "" {
							t.Fatalf("%s in batches of %d: state differs:\n%s", c.name, c.size, d)
						}
					}
				})
			}
			if len(want) < 40 {
				t.Fatalf("%d pieces of state", len(want))
			}
		})
	}
}

// insertForks inserts c and the merge into a copy of the base room, and gives the state that they resolve to.
func insertForks(t *testing.T, st *storage.Store, g *graph, base []*event.Event, c insertion, merge *event.Event) map[string]string {
	t.Helper()
	ctx := context.Background()
	s := open(t, st)
	if err := s.Import(ctx, g.v, base); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := 0; i < len(c.events); i += c.size {
		if _, err := s.Insert(ctx, g.room, c.events[i:min(i+c.size, len(c.events))]); err != nil {
			t.Fatalf("%s in batches of %d: %v", c.name, c.size, err)
		}
	}
	inserted := time.Since(start)
	start = time.Now()
	status, err := s.Insert(ctx, g.room, []*event.Event{merge})
	if err != nil || status[0] != storage.StatusOK {
		t.Fatalf("%s in batches of %d: merge: %v %v", c.name, c.size, status, err)
	}
	t.Logf("v%s %s, batches of %d: %d events in %v, the merge in %v", g.v, c.name, c.size, len(c.events), inserted.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	r, err := s.Room(ctx, g.room)
	if err != nil {
		t.Fatal(err)
	}
	if x := r.Head().Extremities(); len(x) != 1 || x[0].ID != merge.ID() {
		t.Errorf("%s in batches of %d: %d extremities after the merge", c.name, c.size, len(x))
	}
	e, err := r.Event(ctx, merge.ID())
	if err != nil || e == nil {
		t.Fatal(err)
	}
	all, err := r.AllStateAt(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	got := idsOf(all)
	if d := cmp.Diff(got, headIDs(r.Head())); d != "" {
		t.Fatalf("%s in batches of %d: the head is not the state after its extremity:\n%s", c.name, c.size, d)
	}
	again, err := open(t, st).Room(ctx, g.room)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, headIDs(again.Head())); d != "" {
		t.Fatalf("%s in batches of %d: loaded state differs:\n%s", c.name, c.size, d)
	}
	if n := s.Pending(); n != 0 {
		t.Errorf("%d things pending after the last commit", n)
	}
	return got
}
