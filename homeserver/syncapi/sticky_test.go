// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// sticking is a membership of a call that sticks for d.
func sticking(sender, key string, d time.Duration) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: "m.rtc.member", Content: raw(map[string]any{"msc4354_sticky_key": key, "body": key}), Sticky: d}
}

func (j joined) stuck() string {
	if j.Sticky == nil {
		return "none"
	}
	return fmt.Sprint(bodies(j.Sticky.Events))
}

// ignoring is a list of users whom everybody ignores.
type ignoring map[string]struct{}

func (g ignoring) Ignored(context.Context, string) (map[string]struct{}, error) { return g, nil }

func short(t *testing.T, limit int) *filter.Filter {
	f, err := filter.Parse([]byte(fmt.Sprintf(`{"room":{"timeline":{"limit":%d}}}`, limit)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatSticksIsToldWhateverTheTimelineHolds(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		clock := clocktest.New()
		w := startAt(t, syncapi.Deps{Store: st, Clock: clock})
		id := w.room(state(alice, "m.room.history_visibility", map[string]any{"history_visibility": "joined"}))
		w.send(id, sticking(alice, "long", time.Hour), sticking(alice, "brief", time.Minute), text(alice, "plain"))
		clock.Advance(30 * time.Second)
		w.send(id, member(bob, bob, "join"))
		// Bob came later, may see nothing of what went before, and is told of it all the same.
		q := syncapi.Request{User: bob, Device: "B", Filter: short(t, 2)}
		first := w.get(q)
		j := first.Rooms.Join[id]
		if j.stuck() != "[long brief]" || len(bodies(j.Timeline.Events)) != 0 {
			t.Fatalf("a first sync: %s beside %v", j.stuck(), bodies(j.Timeline.Events))
		}
		if e := j.Sticky.Events[0]; e.Unsigned["msc4354_sticky_duration_ttl_ms"] != float64(3570000) || e.RoomID != nil {
			t.Errorf("unsigned is %v, room_id %s", e.Unsigned, e.RoomID)
		}
		// In the timeline or apart, never both, over the live way and from the store.
		q.Since = first.Next
		w.send(id, sticking(alice, "out", time.Hour), text(alice, "1"), sticking(alice, "in", time.Hour))
		live := w.get(q)
		stored := startAt(t, syncapi.Deps{Store: st, Clock: clock}).get(q)
		st.Observe(w.sync.Observe)
		for how, r := range map[string]result{"live": live, "stored": stored} {
			if j := r.Rooms.Join[id]; j.stuck() != "[out]" || fmt.Sprint(bodies(j.Timeline.Events)) != "[1 in]" {
				t.Errorf("%s: %s beside %v", how, j.stuck(), bodies(j.Timeline.Events))
			}
			if e := r.Rooms.Join[id].Timeline.Events[1]; e.Unsigned["msc4354_sticky_duration_ttl_ms"] != float64(3600000) {
				t.Errorf("%s: in the timeline unsigned is %v", how, e.Unsigned)
			}
		}
		if r := w.get(syncapi.Request{User: bob, Device: "B", Since: live.Next}); len(r.Rooms.Join) != 0 {
			t.Errorf("told twice: %+v", r)
		}
		// What a filter takes out of the timeline is told apart, and wakes a client that waits for nothing else.
		f, _ := filter.Parse([]byte(`{"room":{"timeline":{"not_types":["m.rtc.member"]}}}`))
		q = syncapi.Request{User: bob, Device: "B", Since: live.Next, Filter: f}
		w.send(id, sticking(alice, "filtered", time.Hour))
		if r := w.get(q); r.Rooms.Join[id].stuck() != "[filtered]" || len(r.Rooms.Join[id].Timeline.Events) != 0 {
			t.Errorf("filtered: %+v", r)
		}
		// What has expired is told no more, over a restart too, and is forgotten; the others go on.
		clock.Advance(31 * time.Second)
		w = startAt(t, syncapi.Deps{Store: st, Clock: clock})
		if got := w.get(syncapi.Request{User: bob, Device: "C", Filter: short(t, 1)}).Rooms.Join[id].stuck(); got != "[long out in]" {
			t.Errorf("after a minute: %s", got)
		}
		clock.Advance(59*time.Minute + time.Second)
		if err := w.rooms.PruneSticky(context.Background()); err != nil {
			t.Fatal(err)
		}
		left, err := st.StickyOfUser(context.Background(), bob, 0, 1<<60, 0, 100)
		if err != nil || len(left) != 3 {
			t.Errorf("%d rows are left (%v)", len(left), err)
		}
		clock.Advance(time.Hour)
		if r := w.get(syncapi.Request{User: bob, Device: "D", Filter: short(t, 1)}); r.Rooms.Join[id].stuck() != "none" {
			t.Errorf("after an hour: %+v", r.Rooms.Join[id].Sticky)
		}
	})
}

func TestARedactedOrIgnoredEventDoesNotStick(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		clock := clocktest.New()
		w := startAt(t, syncapi.Deps{Store: st, Clock: clock, Ignores: ignoring{carol: {}}})
		id := w.room()
		w.send(id, member(bob, bob, "join"), member(carol, carol, "join"))
		since := w.get(syncapi.Request{User: bob, Device: "B"}).Next
		gone := w.send(id, sticking(alice, "redacted", time.Hour), sticking(carol, "ignored", time.Hour), sticking(alice, "kept", time.Hour))[0]
		w.send(id, rooms.Draft{Sender: alice, Type: "m.room.redaction", Redacts: gone, Content: raw(map[string]any{})}, text(alice, "x"))
		for how, s := range map[string]string{"first": "", "next": since} {
			r := w.get(syncapi.Request{User: bob, Device: "B", Since: s, Filter: short(t, 1)})
			want := "[kept]"
			if how == "next" {
				want = "[redacted kept]" // as it was sent: the redaction is in the timeline
			}
			if got := r.Rooms.Join[id].stuck(); got != want {
				t.Errorf("%s: %s, want %s", how, got, want)
			}
		}
		if got := startAt(t, syncapi.Deps{Store: st, Clock: clock, Ignores: ignoring{carol: {}}}).get(syncapi.Request{User: bob, Device: "B", Since: since, Filter: short(t, 1)}).Rooms.Join[id].stuck(); got != "[kept]" {
			t.Errorf("from the store: %s", got)
		}
	})
}

func TestManyStickyEventsComeInPagesAndNoneIsLost(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		clock := clocktest.New()
		w := startAt(t, syncapi.Deps{Store: st, Clock: clock})
		id, other := w.room(), den(w)
		w.send(id, member(bob, bob, "join"))
		away := w.get(syncapi.Request{User: bob, Device: "B"}).Next
		for i := range 250 {
			w.send(id, sticking(alice, fmt.Sprint("s", i), time.Hour))
		}
		for i := range 120 {
			w.send(other, sticking(alice, fmt.Sprint("o", i), time.Hour))
		}
		pages := func(since string) (pages int, seen map[string]int) {
			seen = map[string]int{}
			for {
				r := w.get(syncapi.Request{User: bob, Device: "B", Since: since, Filter: short(t, 1)})
				n := 0
				for _, j := range r.Rooms.Join {
					if j.Sticky != nil {
						for _, b := range bodies(j.Sticky.Events) {
							seen[b]++
							n++
						}
					}
				}
				if n == 0 {
					return pages, seen
				}
				pages++
				if n > 200 || pages > 20 {
					t.Fatalf("a page of %d, the %dth", n, pages)
				}
				since = r.Next
			}
		}
		for _, since := range []string{"", away} {
			if n, seen := pages(since); n != 3 || len(seen) < 249 {
				t.Errorf("since %q: %d pages with %d events", since, n, len(seen))
			}
		}
		now := w.get(syncapi.Request{User: bob, Device: "B"}).Next
		now = strings.Join(strings.Split(now, "_")[:3], "_") // as if all pages had been taken
		w.send(other, member(bob, bob, "join"))
		_, seen := pages(now)
		for i := range 120 {
			if seen[fmt.Sprint("o", i)] == 0 {
				t.Errorf("o%d of the room that was joined was not told", i)
			}
		}
	})
}

func TestStickyEventsInSlidingSync(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, stable := range []bool{false, true} {
			clock := clocktest.New()
			w := startAt(t, syncapi.Deps{Store: st, Clock: clock, Ignores: ignoring{carol: {}}})
			u := &slider{w: w, user: fmt.Sprintf("@slide%v:example.org", stable), device: "B", conn: "main", stable: stable}
			in, out, unasked := den(w), den(w), den(w, state(alice, "m.room.encryption", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}))
			for _, id := range []string{in, out, unasked} {
				w.send(id, member(u.user, u.user, "join"), sticking(alice, "in "+id, time.Hour))
			}
			w.send(in, member(carol, carol, "join"), sticking(carol, "ignored", time.Hour), text(alice, "newest"))
			since, limit := "", 100
			q := func(to int) ask {
				a := ask{lists: map[string]want{"all": {limit: 1, to: to, filters: map[string]any{"is_encrypted": false}}}, ext: map[string]any{
					"org.matrix.msc4354.sticky_events": map[string]any{"enabled": true, "limit": limit, "since": since},
				}}
				return a
			}
			told := func(r gjson.Result) (got []string) {
				x := r.Get(`extensions.org\.matrix\.msc4354\.sticky_events`)
				if !x.Exists() {
					return nil
				}
				if since = x.Get("next_batch").Str; since == "" {
					t.Fatalf("no next_batch: %s", x)
				}
				x.Get("rooms").ForEach(func(id, room gjson.Result) bool {
					for _, e := range room.Get("events").Array() {
						got = append(got, e.Get("content.body").Str)
						if e.Get("unsigned.msc4354_sticky_duration_ttl_ms").Int() == 0 || e.Get("msc4354_sticky.duration_ms").Int() != 3600000 {
							t.Errorf("%s", e)
						}
					}
					return true
				})
				slices.Sort(got)
				return got
			}
			is := func(what string, got []string, want ...string) {
				t.Helper()
				if slices.Sort(want); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("stable=%v, %s: %q, want %q", stable, what, got, want)
				}
			}
			// Both rooms of the list, though the window has one; not the room that no list is about, nor whom the user ignores.
			is("at first", told(u.sync(q(0))), "in "+in, "in "+out)
			is("again", told(u.sync(q(0))))
			w.send(in, sticking(alice, "a", time.Hour), sticking(alice, "b", time.Hour))
			is("live", told(u.sync(q(0))), "a") // b is in the timeline
			w.send(out, sticking(alice, "c", time.Hour), text(alice, "x"), text(alice, "y"))
			w.send(in, text(alice, "z"))
			is("outside of the window", told(u.sync(q(0))), "c")
			// A room that is subscribed to is told from its beginning.
			sub := func() ask {
				a := q(0)
				a.subs = map[string]want{unasked: {limit: 0}}
				return a
			}
			is("subscribed", told(u.sync(sub())), "in "+unasked)
			is("subscribed, again", told(u.sync(sub())))
			// So is one that was joined.
			late := den(w)
			w.send(late, sticking(alice, "early", time.Hour))
			w.send(late, member(u.user, u.user, "join"))
			w.send(in, text(alice, "newest again"))
			is("joined", told(u.sync(sub())), "early")
			// A lost answer is given again, a new connection goes on from the token, and pages lose nothing.
			before, beforeSince := u.pos, since
			w.send(out, sticking(alice, "lost", time.Hour), text(alice, "y2"))
			is("an answer that is lost", told(u.sync(sub())), "lost")
			u.pos, since = before, beforeSince
			is("given again", told(u.sync(sub())), "lost")
			for i := range 7 {
				w.send(out, sticking(alice, fmt.Sprint("p", i), time.Hour))
			}
			w.send(out, text(alice, "y3"))
			u.pos, limit = "", 3
			var all []string
			for range 4 {
				page := told(u.sync(sub()))
				if len(page) > 3 {
					t.Errorf("a page of %d", len(page))
				}
				all = append(all, page...)
			}
			is("in pages", all, "p0", "p1", "p2", "p3", "p4", "p5", "p6")
			since, limit = "", 100
			clock.Advance(time.Hour)
			u.pos = ""
			is("expired", told(u.sync(sub())))
			for _, bad := range []map[string]any{{"enabled": true, "limit": 0}, {"enabled": true, "since": "x"}, {"enabled": true, "since": "-1"}, {"enabled": 1}} {
				a := q(0)
				a.ext["org.matrix.msc4354.sticky_events"] = bad
				if _, err := u.request(a); err == nil {
					b, _ := json.Marshal(bad)
					t.Errorf("%s was taken", b)
				}
			}
		}
	})
}
