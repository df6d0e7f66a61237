// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

type world struct {
	t     testing.TB
	store *storage.Store
	rooms *rooms.Service
	sync  *syncapi.Service
}

func start(t testing.TB, st *storage.Store) *world {
	t.Helper()
	return startAt(t, syncapi.Deps{Store: st, Clock: signalling.SystemClock{}})
}

// startAt makes a world of the store, the clock and whatever else d names.
func startAt(t testing.TB, d syncapi.Deps) *world {
	t.Helper()
	st := d.Store
	r, err := rooms.New(context.Background(), st, "example.org", d.Clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.Rooms, d.Log = r, slog.New(slog.DiscardHandler)
	s := syncapi.New(d)
	st.Observe(s.Observe)
	return &world{t, st, r, s}
}

const (
	alice = "@alice:example.org"
	bob   = "@bob:example.org"
	carol = "@carol:example.org"
)

func raw(v any) json.RawMessage {
	b, _ := json.Marshal(v)
	return b
}

func member(sender, target, membership string) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: "m.room.member", StateKey: &target, Content: raw(map[string]any{"membership": membership})}
}

func state(sender, typ string, content any) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: typ, StateKey: new(string), Content: raw(content)}
}

func text(sender, body string) rooms.Draft {
	return rooms.Draft{Sender: sender, Device: "D" + sender[1:2], TxnID: body, Type: "m.room.message", Content: raw(map[string]any{"msgtype": "m.text", "body": body})}
}

func (w *world) room(more ...rooms.Draft) string {
	w.t.Helper()
	id, err := w.rooms.Create(context.Background(), rooms.NewRoom{Version: event.DefaultVersion, Creator: alice, Drafts: append([]rooms.Draft{
		member(alice, alice, "join"), state(alice, "m.room.power_levels", map[string]any{}), state(alice, "m.room.join_rules", map[string]any{"join_rule": "public"}),
		state(alice, "m.room.history_visibility", map[string]any{"history_visibility": "shared"}),
	}, more...)})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) send(room string, d ...rooms.Draft) []string {
	w.t.Helper()
	ids, err := w.rooms.Append(context.Background(), room, d...)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

type ev struct {
	ID       string          `json:"event_id"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Sender   string          `json:"sender"`
	Content  map[string]any  `json:"content"`
	Unsigned map[string]any  `json:"unsigned"`
	RoomID   json.RawMessage `json:"room_id"`
}

type evs struct {
	Events []ev `json:"events"`
}

type joined struct {
	Timeline struct {
		evs
		Limited bool   `json:"limited"`
		Prev    string `json:"prev_batch"`
	} `json:"timeline"`
	State      evs            `json:"state"`
	StateAfter *evs           `json:"state_after"`
	Ephemeral  evs            `json:"ephemeral"`
	Summary    map[string]any `json:"summary"`
	Sticky     *evs           `json:"msc4354_sticky"`
}

type result struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join   map[string]joined         `json:"join"`
		Leave  map[string]joined         `json:"leave"`
		Invite map[string]map[string]evs `json:"invite"`
	} `json:"rooms"`
	DeviceLists struct{ Changed, Left []string } `json:"device_lists"`
}

func (w *world) get(q syncapi.Request) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := w.sync.Sync(ctx, &q)
	if err != nil {
		w.t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		w.t.Fatalf("%v in %s", err, b)
	}
	return r
}

func bodies(e []ev) (out []string) {
	for _, x := range e {
		if b, ok := x.Content["body"].(string); ok {
			out = append(out, b)
		}
	}
	return out
}

func TestAFirstSyncThenALiveOne(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w := start(t, st)
		id := w.room()
		w.send(id, member(bob, bob, "join"), text(alice, "one"))
		r := w.get(syncapi.Request{User: bob, Device: "B"})
		j := r.Rooms.Join[id]
		if got := bodies(j.Timeline.Events); fmt.Sprint(got) != "[one]" {
			t.Fatalf("first sync has %v", got)
		}
		if n := len(j.State.Events) + len(j.Timeline.Events); n != 7 {
			t.Fatalf("first sync has %d events, want 7: each once", n)
		}
		got := make(chan result)
		go func() {
			got <- w.get(syncapi.Request{User: bob, Device: "B", Since: r.Next, Timeout: 20 * time.Second})
		}()
		w.send(id, text(alice, "two"))
		r2 := <-got
		if b := bodies(r2.Rooms.Join[id].Timeline.Events); fmt.Sprint(b) != "[two]" {
			t.Fatalf("live sync has %v", b)
		}
		if r3 := w.get(syncapi.Request{User: bob, Device: "B", Since: r2.Next}); len(r3.Rooms.Join) != 0 {
			t.Fatal("the same news twice")
		}
		// The token of a live answer serves a node that knows nothing.
		w.send(id, text(alice, "three"))
		other := start(t, st)
		if b := bodies(other.get(syncapi.Request{User: bob, Device: "B", Since: r2.Next}).Rooms.Join[id].Timeline.Events); fmt.Sprint(b) != "[three]" {
			t.Fatalf("after a restart: %v", b)
		}
	})
}

func TestLiveAndStoredAnswersAreTheSame(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w := start(t, st)
		id := w.room()
		w.send(id, member(bob, bob, "join"))
		for _, after := range []bool{false, true} {
			for _, lazy := range []bool{false, true} {
				f, err := filter.Parse([]byte(fmt.Sprintf(`{"room":{"timeline":{"limit":5},"state":{"lazy_load_members":%v}}}`, lazy)))
				if err != nil {
					t.Fatal(err)
				}
				q := syncapi.Request{User: bob, Device: fmt.Sprint("B", after, lazy), Filter: f, StateAfter: after}
				q.Since = w.get(q).Next
				w.send(id, member(carol, carol, "join"), state(alice, "m.room.topic", map[string]any{"topic": fmt.Sprint(after, lazy)}))
				for i := range 7 {
					w.send(id, text(alice, fmt.Sprint(after, lazy, i)))
				}
				w.send(id, state(alice, "m.room.name", map[string]any{"name": fmt.Sprint(after, lazy)}), member(carol, carol, "leave"))
				live := w.get(q)
				stored := start(t, st).get(q)
				st.Observe(w.sync.Observe)
				lj, sj := live.Rooms.Join[id], stored.Rooms.Join[id]
				if a, b := ids(lj.Timeline.Events), ids(sj.Timeline.Events); a != b || len(lj.Timeline.Events) != 5 {
					t.Errorf("timelines: live %s, stored %s", a, b)
				}
				if !lj.Timeline.Limited || !sj.Timeline.Limited || lj.Timeline.Prev != sj.Timeline.Prev {
					t.Errorf("limited %v %v, prev %s %s", lj.Timeline.Limited, sj.Timeline.Limited, lj.Timeline.Prev, sj.Timeline.Prev)
				}
				ls, ss := lj.State, sj.State
				if after {
					ls, ss = *lj.StateAfter, *sj.StateAfter
				}
				if lazy { // a new process gives the senders' memberships again
					ls, ss = withoutMembers(ls), withoutMembers(ss)
				}
				if a, b := set(ls.Events), set(ss.Events); a != b {
					t.Errorf("after=%v lazy=%v: state: live %s, stored %s", after, lazy, a, b)
				}
			}
		}
	})
}

func withoutMembers(e evs) (out evs) {
	for _, x := range e.Events {
		if x.Type != "m.room.member" {
			out.Events = append(out.Events, x)
		}
	}
	return out
}

func ids(e []ev) (s string) {
	for _, x := range e {
		s += x.ID + " "
	}
	return s
}

func set(e []ev) string {
	m := map[string]bool{}
	for _, x := range e {
		m[x.Type+"|"+*x.StateKey+"|"+x.ID] = true
	}
	return fmt.Sprint(m)
}

func TestAnInviteThenAJoinThenAKick(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w := start(t, st)
		id := w.room(state(alice, "m.room.name", map[string]any{"name": "Den"}))
		since := w.get(syncapi.Request{User: bob, Device: "B"}).Next
		w.send(id, member(alice, bob, "invite"))
		r := w.get(syncapi.Request{User: bob, Device: "B", Since: since})
		inv := r.Rooms.Invite[id]["invite_state"].Events
		var name, own bool
		for _, e := range inv {
			name = name || e.Content["name"] == "Den"
			own = own || (e.StateKey != nil && *e.StateKey == bob && e.Content["membership"] == "invite")
		}
		if !name || !own {
			t.Fatalf("invite state is %v", inv)
		}
		w.send(id, text(alice, "before"), member(bob, bob, "join"))
		r = w.get(syncapi.Request{User: bob, Device: "B", Since: r.Next})
		j, ok := r.Rooms.Join[id]
		if !ok || len(j.State.Events)+len(j.Timeline.Events) < 8 {
			t.Fatalf("after joining: %+v", r)
		}
		if len(r.DeviceLists.Changed) != 2 {
			t.Fatalf("device lists changed: %v", r.DeviceLists.Changed)
		}
		w.send(id, text(alice, "seen"), member(alice, bob, "leave"), text(alice, "unseen"))
		r = w.get(syncapi.Request{User: bob, Device: "B", Since: r.Next})
		l, ok := r.Rooms.Leave[id]
		if !ok || fmt.Sprint(bodies(l.Timeline.Events)) != "[seen]" {
			t.Fatalf("after the kick: %+v", r)
		}
		if fmt.Sprint(r.DeviceLists.Left) != "["+alice+"]" {
			t.Fatalf("device lists left: %v", r.DeviceLists.Left)
		}
	})
}

func TestTheSenderSeesItsTransactionIDAndNobodyElseDoes(t *testing.T) {
	w := start(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	id := w.room()
	w.send(id, member(bob, bob, "join"))
	a, b := w.get(syncapi.Request{User: alice, Device: "Da"}).Next, w.get(syncapi.Request{User: bob, Device: "Da"}).Next
	w.send(id, text(alice, "txn7"))
	for user, q := range map[string]syncapi.Request{"sender": {User: alice, Device: "Da", Since: a}, "other device": {User: alice, Device: "Dx", Since: a}, "other user": {User: bob, Device: "Da", Since: b}} {
		e := w.get(q).Rooms.Join[id].Timeline.Events[0]
		if _, has := e.Unsigned["transaction_id"]; has != (user == "sender") {
			t.Errorf("%s: unsigned is %v", user, e.Unsigned)
		}
		if e.Unsigned["membership"] != "join" {
			t.Errorf("%s: unsigned is %v", user, e.Unsigned)
		}
	}
}

func TestTypingAndReceiptsReachTheOthers(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w := start(t, st)
		id := w.room()
		ev := w.send(id, member(bob, bob, "join"), text(alice, "hi"))[1]
		since := w.get(syncapi.Request{User: alice, Device: "A"}).Next
		r, _ := w.rooms.Room(context.Background(), id)
		w.sync.SetTyping(r, bob, time.Minute)
		x := w.get(syncapi.Request{User: alice, Device: "A", Since: since})
		if e := x.Rooms.Join[id].Ephemeral.Events; len(e) != 1 || fmt.Sprint(e[0].Content["user_ids"]) != "["+bob+"]" {
			t.Fatalf("typing: %+v", e)
		}
		w.sync.SetTyping(r, bob, 0)
		if err := w.sync.SetReceipt(context.Background(), r, bob, "m.read", ev, ""); err != nil {
			t.Fatal(err)
		}
		if err := w.sync.SetReceipt(context.Background(), r, bob, "m.read.private", ev, ""); err != nil {
			t.Fatal(err)
		}
		x = w.get(syncapi.Request{User: alice, Device: "A", Since: x.Next})
		e := x.Rooms.Join[id].Ephemeral.Events
		if len(e) != 2 || e[0].Type != "m.receipt" || len(e[0].Content[ev].(map[string]any)) != 1 || fmt.Sprint(e[1].Content["user_ids"]) != "[]" {
			t.Fatalf("receipt: %+v", e)
		}
	})
}

// TestAReceiptForTheRoomGoesBeforeOneForAThreadAtTheSameEvent is MSC4102: live and in a first sync, whichever came first.
func TestAReceiptForTheRoomGoesBeforeOneForAThreadAtTheSameEvent(t *testing.T) {
	for _, threads := range [][]string{{"", "$thread"}, {"$thread", ""}} {
		w := start(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
		id := w.room()
		ev := w.send(id, member(bob, bob, "join"), text(alice, "hi"))[1]
		since := w.get(syncapi.Request{User: alice, Device: "A"}).Next
		r, _ := w.rooms.Room(context.Background(), id)
		for _, thread := range threads {
			if err := w.sync.SetReceipt(context.Background(), r, bob, "m.read", ev, thread); err != nil {
				t.Fatal(err)
			}
		}
		for _, from := range []string{since, ""} {
			e := w.get(syncapi.Request{User: alice, Device: "A", Since: from}).Rooms.Join[id].Ephemeral.Events
			if len(e) != 1 || e[0].Type != "m.receipt" {
				t.Fatalf("%q since %q: %+v", threads, from, e)
			}
			read := e[0].Content[ev].(map[string]any)["m.read"].(map[string]any)[bob].(map[string]any)
			if thread, there := read["thread_id"]; there || read["ts"] == nil {
				t.Errorf("%q since %q: the receipt is one for thread %v", threads, from, thread)
			}
		}
	}
}

func TestTokensOfStrangersAreRefused(t *testing.T) {
	w := start(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	for _, bad := range []string{"x", "s", "s-1", "s1_2_3_4_5", "s1_2_3_x", "s99999999999999999999", "s1_+2", "s1_x", "t5"} {
		if _, err := w.sync.Sync(context.Background(), &syncapi.Request{User: alice, Since: bad}); signalling.AsError(err).Code != "M_INVALID_PARAM" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// A token from the future, as after a database was put back: time goes on from now.
	if r := w.get(syncapi.Request{User: alice, Since: "s999999_9999999999999999_999999"}); r.Next == "s999999_9999999999999999_999999" {
		t.Error("a token from the future was believed")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("s1_2_3")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := syncapi.ParseToken(s)
		if err != nil {
			return
		}
		if again, err := syncapi.ParseToken(tok.String()); err != nil || again != tok {
			t.Fatalf("%q -> %v -> %v, %v", s, tok, again, err)
		}
	})
}

func TestAFloodBeyondTheInboxIsServedFromTheStore(t *testing.T) {
	w := start(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	id := w.room()
	w.send(id, member(bob, bob, "join"))
	since := w.get(syncapi.Request{User: bob, Device: "B"}).Next
	for i := range 500 {
		w.send(id, text(alice, fmt.Sprint("m", i)))
	}
	f, _ := filter.Parse([]byte(`{"room":{"timeline":{"limit":1000}}}`))
	r := w.get(syncapi.Request{User: bob, Device: "B", Since: since, Filter: f})
	if n := len(r.Rooms.Join[id].Timeline.Events); n != 500 || r.Rooms.Join[id].Timeline.Limited {
		t.Fatalf("%d events", n)
	}
}
