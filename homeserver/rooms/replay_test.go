// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// memory is what the process holds: bytes of the heap in use after a collection, and resident in RAM.
func memory() (heap, rss int64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b, _ := os.ReadFile("/proc/self/statm")
	if f := bytes.Fields(b); len(f) > 1 {
		pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
		rss = pages * int64(os.Getpagesize())
	}
	return int64(m.HeapInuse), rss
}

// TestAGeneratedRoomIsReplayed fills a room and holds every state of it to a model kept beside.
func TestAGeneratedRoomIsReplayed(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) { replay(t, st, 500, 2000, 50) })
}

// TestLongReplayOfFiveThousandMembers is the room of 5,000 members and 20,000 state events: make test-long. It must not take 150 MB.
func TestLongReplayOfFiveThousandMembers(t *testing.T) {
	if !long() {
		t.Skip("TRUNKBOARD_TEST_LONG is not set")
	}
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		if grown := replay(t, st, 5000, 20000, 50); grown > 150<<20 {
			t.Errorf("the heap grew by %d MB", grown>>20)
		}
	})
}

// replay appends stateEvents state events of members people, and a message for every fifth, and gives how much the heap has grown.
func replay(t *testing.T, st *storage.Store, people, stateEvents, looks int) (grown int64) {
	ctx := context.Background()
	s := open(t, st)
	id := create(t, s, event.DefaultVersion)
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{} // type|key -> event id
	r, err := s.Room(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	r.Head().Each(func(k event.Key, ref rooms.Ref) { model[k.Type+"|"+k.StateKey] = ref.ID })
	type look struct {
		id   string
		want map[string]string
	}
	var seen []look
	membership := make([]string, people)
	heap, rss := memory()
	start := time.Now()
	for i := range stateEvents {
		n := i
		if i >= people {
			n = rnd.IntN(people)
		}
		u := fmt.Sprintf("@user%d:s%d.example.org", n, n%50)
		var d rooms.Draft
		switch k := rnd.IntN(100); {
		case i < people || membership[n] != "join":
			d, membership[n] = join(u), "join"
		case k < 20:
			d, membership[n] = member(u, u, "leave"), "leave"
		case k < 95:
			d = state(u, "m.room.member", u, map[string]any{"membership": "join", "displayname": fmt.Sprint("Name ", i), "avatar_url": "mxc://example.org/" + fmt.Sprint(i)})
		case k < 97:
			d = state("@alice:example.org", "m.room.power_levels", "", map[string]any{"users": map[string]int{u: i % 50}})
		case k < 98:
			d = state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": fmt.Sprint(i)})
		case k < 99:
			d = state("@alice:example.org", "m.room.name", "", map[string]any{"name": fmt.Sprint(i)})
		default:
			d = state("@alice:example.org", "org.example.state", fmt.Sprint(i), map[string]any{"n": i})
		}
		drafts := []rooms.Draft{d}
		if i%5 == 0 {
			drafts = append(drafts, message("@alice:example.org", fmt.Sprint("message ", i)))
		}
		ids, err := s.Append(ctx, id, drafts...)
		if err != nil {
			t.Fatalf("event %d, %s of %s: %v", i, d.Type, *d.StateKey, err)
		}
		model[d.Type+"|"+*d.StateKey] = ids[0]
		if rnd.IntN(stateEvents) < looks {
			want := make(map[string]string, len(model))
			for k, v := range model {
				want[k] = v
			}
			seen = append(seen, look{ids[0], want})
		}
	}
	took := time.Since(start)
	heap2, rss2 := memory()
	// What the model itself holds is not the room's.
	size := int64(0)
	for _, l := range seen {
		size += int64(len(l.want)) * 96
	}
	grown = heap2 - heap - size
	t.Logf("%d members, %d state events appended one by one in %v (%v each); heap in use %+d MB without the model's, resident %+d MB with it", people, stateEvents, took.Round(time.Millisecond),
		(took / time.Duration(stateEvents)).Round(time.Microsecond), grown>>20, (rss2-rss)>>20)
	if d := cmp.Diff(model, headIDs(r.Head())); d != "" {
		t.Fatalf("head:\n%s", d)
	}
	again := open(t, st)
	start = time.Now()
	loaded, err := again.Room(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("loaded in %v", time.Since(start).Round(time.Microsecond))
	if d := cmp.Diff(model, headIDs(loaded.Head())); d != "" {
		t.Fatalf("loaded head:\n%s", d)
	}
	joined := 0
	for n, m := range membership {
		u := fmt.Sprintf("@user%d:s%d.example.org", n, n%50)
		if m == "join" {
			joined++
		}
		if r.Head().IsJoined(u) != (m == "join") || loaded.Head().IsJoined(u) != (m == "join") {
			t.Fatalf("%s: model %q, head %q, loaded %q", u, m, r.Head().Membership(u), loaded.Head().Membership(u))
		}
	}
	for _, h := range []*rooms.Head{r.Head(), loaded.Head()} {
		if len(h.Joined()) != joined+1 || h.Size() != len(model) {
			t.Fatalf("%d joined, want %d; %d pieces of state, want %d", len(h.Joined()), joined+1, h.Size(), len(model))
		}
	}
	if len(seen) == 0 {
		t.Fatal("no state was looked at")
	}
	start = time.Now()
	for _, l := range seen {
		e, err := loaded.Event(ctx, l.id)
		if err != nil || e == nil {
			t.Fatal(err)
		}
		all, err := loaded.AllStateAt(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(l.want, idsOf(all)); d != "" {
			t.Fatalf("state after %s:\n%s", l.id, d)
		}
		n := 0
		for k := range all {
			if n++; n > 20 {
				break
			}
			one, err := loaded.StateAt(ctx, e, true, k.Type, k.StateKey)
			if err != nil || one == nil || one.ID() != l.want[k.Type+"|"+k.StateKey] {
				t.Fatalf("state after %s at %v: %v %v", l.id, k, one, err)
			}
		}
	}
	t.Logf("%d whole states of the past in %v", len(seen), time.Since(start).Round(time.Millisecond))
	runtime.KeepAlive(s)
	reinsert(t, s, id, model)
	return grown
}

// reinsert reads the room's events as another server would get them, 50 at a time, and inserts them into an empty store.
func reinsert(t *testing.T, s *rooms.Service, id string, model map[string]string) {
	t.Helper()
	ctx := context.Background()
	events := timeline(t, s, id)
	v := events[0].Version()
	other := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	start := time.Now()
	for i := 0; i < len(events); i += 50 {
		batch := make([]*event.Event, 0, 50)
		for _, e := range events[i:min(i+50, len(events))] {
			p, err := event.Parse(v, e.JSON())
			if err != nil || p.ID() != e.ID() {
				t.Fatalf("%s: %v", e.JSON(), err)
			}
			batch = append(batch, p)
		}
		if i == 0 {
			if err := other.Import(ctx, v, batch); err != nil {
				t.Fatal(err)
			}
			continue
		}
		status, err := other.Insert(ctx, id, batch)
		if err != nil {
			t.Fatal(err)
		}
		for j, x := range status {
			if x != storage.StatusOK {
				t.Fatalf("event %d is refused: %d", i+j, x)
			}
		}
	}
	took := time.Since(start)
	t.Logf("%d events read and inserted on SQLite, 50 at a time, in %v: %.0f a second", len(events), took.Round(time.Millisecond), float64(len(events))/took.Seconds())
	r, err := other.Room(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(model, headIDs(r.Head())); d != "" {
		t.Fatalf("inserted head:\n%s", d)
	}
}
