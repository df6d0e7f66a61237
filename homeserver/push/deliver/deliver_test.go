// SPDX-License-Identifier: Apache-2.0

package deliver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

func TestAMessageIsPushedWholeOrByItsIdAlone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		whole, bare := newGateway(t), newGateway(t)
		room := w.room("invite", bob, carol)
		w.send(room, rooms.Draft{Sender: alice, Type: "m.room.name", StateKey: new(string), Content: raw(with{"name": "Kitchen"})})
		w.pusher(bob, "k1", whole.url, with{"x": 1})
		w.pusher(bob, "k2", bare.url, with{"format": "event_id_only", "default_payload": with{"a": 1}})
		ts := float64(w.clock.Now().Unix())
		check := func(g *gatewayServer, want with) {
			t.Helper()
			var got map[string]any
			if err := json.Unmarshal([]byte(g.next().raw), &got); err != nil {
				t.Fatal(err)
			}
			var plain map[string]any
			_ = json.Unmarshal(raw(with{"notification": want}), &plain)
			if diff := cmp.Diff(plain, got); diff != "" {
				t.Error(diff)
			}
		}
		device := func(key string, data, tweaks any) []any {
			d := with{"app_id": "app", "pushkey": key, "pushkey_ts": ts, "data": data}
			if tweaks != nil {
				d["tweaks"] = tweaks
			}
			return []any{d}
		}
		common := with{"room_id": room, "room_name": "Kitchen", "type": "m.room.message", "sender": alice, "sender_display_name": "Alice"}
		add := func(m with) with {
			for k, v := range common {
				m[k] = v
			}
			return m
		}
		quiet := w.say(room, alice, "hello")
		mention := with{"sound": "default", "highlight": true}
		check(whole, add(with{
			"event_id": quiet, "prio": "low", "content": with{"msgtype": "m.text", "body": "hello"}, "counts": with{"unread": 1, "missed_calls": 0}, "devices": device("k1", with{"x": 1}, nil),
		}))
		data := with{"format": "event_id_only", "default_payload": with{"a": 1}}
		check(bare, with{"event_id": quiet, "room_id": room, "prio": "low", "counts": with{"unread": 1, "missed_calls": 0}, "devices": device("k2", data, nil)})
		loud := w.send(room, rooms.Draft{Sender: alice, Type: "m.room.message", Content: raw(with{"msgtype": "m.text", "body": "bob!", "m.mentions": with{"user_ids": []string{bob}}})})
		check(whole, add(with{
			"event_id": loud, "prio": "high", "content": with{"msgtype": "m.text", "body": "bob!", "m.mentions": with{"user_ids": []string{bob}}}, "counts": with{"unread": 2, "missed_calls": 0}, "devices": device("k1", with{"x": 1}, mention),
		}))
		check(bare, with{"event_id": loud, "room_id": room, "prio": "high", "counts": with{"unread": 2, "missed_calls": 0}, "devices": device("k2", data, mention)})
	})
}

func TestAnInvitationIsPushedToWhoIsInvited(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		id := w.send(w.room("invite"), member(alice, bob, "invite", ""))
		if n := g.next(); n.EventID != id || !n.UserIsTarget || n.Type != "m.room.member" {
			t.Errorf("%s", n.raw)
		}
	})
}

func TestWhatNobodyWantsToHearIsNotPushed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		p := w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob, carol)
		w.say(room, bob, "my own")
		w.send(room, rooms.Draft{Sender: alice, Type: "m.room.message", Content: raw(with{"msgtype": "m.notice", "body": "a notice"})})
		w.ignored[bob] = map[string]struct{}{carol: {}}
		w.say(room, carol, "from somebody whom bob ignores")
		off := false
		p.Enabled = &off
		if err := w.rules.SetPusher(t.Context(), bob, "D", p, false); err != nil {
			t.Fatal(err)
		}
		witness := newGateway(t)
		w.pusher(carol, "k", witness.url, nil)
		w.say(room, alice, "while it is switched off")
		witness.next() // it was looked at
		p.Enabled = nil
		if err := w.rules.SetPusher(t.Context(), bob, "D", p, false); err != nil {
			t.Fatal(err)
		}
		last := w.say(room, alice, "heard")
		if n := g.next(); n.EventID != last {
			t.Errorf("%s", n.raw)
		}
		w.send(room, member(bob, bob, "leave", ""))
		w.say(room, alice, "after bob left")
		other := w.say(w.room("invite", bob), alice, "elsewhere")
		if n := g.next(); n.EventID != other {
			t.Errorf("%s", n.raw)
		}
	})
}

func TestWhatWaitedAndWasReadMeanwhileIsNotPushed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		id := w.say(room, alice, "one")
		g.next()
		w.read(room, bob, id)
		g.answers(nil)
		last := w.say(room, alice, "two")
		var n told
		w.until("the second message", func() { w.clock.Advance(time.Second) }, func() bool {
			select {
			case n = <-g.got:
				return true
			default:
				return false
			}
		})
		if n.EventID != last {
			t.Errorf("%s", n.raw)
		}
	})
}

func TestNothingIsLostOrSaidTwiceOverARestart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		first := w.say(room, alice, "before")
		if n := g.next(); n.EventID != first {
			t.Errorf("%s", n.raw)
		}
		g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) })
		queued := w.say(room, alice, "queued")
		g.next() // and not taken
		w.deaf()
		missed := []string{w.say(room, alice, "while nobody looked"), w.say(room, alice, "and again")}
		for len(g.got) > 0 {
			<-g.got
		}
		g.answers(nil)
		w.clock.Advance(time.Minute)
		w = newWorld(t, w.store, w.clock)
		for _, want := range append([]string{queued}, missed...) {
			if n := g.next(); n.EventID != want {
				t.Errorf("got %s, want %s", n.raw, want)
			}
		}
		w = w.again()
		last := w.say(room, alice, "afterwards")
		if n := g.next(); n.EventID != last {
			t.Errorf("said twice: %s", n.raw)
		}
	})
}

func TestAPusherThatFailsIsTriedLaterAndLaterAndInOrder(t *testing.T) {
	w := newWorld(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New())
	g := newGateway(t)
	g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(502) })
	w.pusher(bob, "k", g.url, nil)
	room := w.room("invite", bob)
	first := w.say(room, alice, "one")
	g.next()
	second := w.say(room, alice, "two")
	failures := func() int64 {
		p, err := w.store.PushersOf(t.Context(), bob)
		if err != nil {
			t.Fatal(err)
		}
		return p[0].Failures
	}
	for n := int64(1); n <= 4; n++ {
		w.until("the failure is noted", nil, func() bool { return failures() == n })
		w.clock.Advance(time.Second << (n - 1) * 3 / 4) // less than the shortest rest
		g.nothing("too early")
		w.until("another try", func() { w.clock.Advance(100 * time.Millisecond) }, func() bool { return len(g.got) > 0 })
		if got := g.next(); got.EventID != first {
			t.Fatalf("%s", got.raw)
		}
	}
	g.answers(nil)
	w.until("the last try", func() { w.clock.Advance(time.Second) }, func() bool { return len(g.got) > 1 })
	for _, want := range []string{first, second} {
		if got := g.next(); got.EventID != want {
			t.Errorf("%s", got.raw)
		}
	}
	w.until("the failures are forgotten", nil, func() bool { return failures() == 0 })
	// What is a day old is nobody's news.
	g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(502) })
	w.say(room, alice, "three")
	g.next()
	w.until("the failure is noted", nil, func() bool { return failures() == 1 })
	g.answers(nil)
	w.clock.Advance(25 * time.Hour)
	last := w.say(room, alice, "four")
	if got := g.next(); got.EventID != last {
		t.Errorf("%s", got.raw)
	}
}

func TestOfAPusherThatFailsTheNewestHundredAreKept(t *testing.T) {
	w := newWorld(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New())
	g := newGateway(t)
	g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(502) })
	w.pusher(bob, "k", g.url, nil)
	room := w.room("invite", bob)
	var ids []string
	for i := range 150 {
		ids = append(ids, w.say(room, alice, fmt.Sprint(i)))
	}
	id := storage.PusherID{User: bob, AppID: "app", Key: "k"}
	waiting := func() []storage.PushRow {
		rows, err := w.store.NextPushes(t.Context(), id, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	w.until("the oldest go", func() { w.clock.Advance(10 * time.Second) }, func() bool { r := waiting(); return len(r) == 100 && r[99].EventID == ids[149] })
	if r := waiting(); r[0].EventID != ids[50] {
		t.Error("the wrong ones went")
	}
}

func TestARejectedPushkeyIsForgottenUnlessItWasSetAnew(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k1", g.url, nil)
		w.pusher(bob, "k2", g.url, nil)
		room := w.room("invite", bob)
		g.answers(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, `{"rejected":["k2","k3"]}`) })
		w.say(room, alice, "one")
		w.until("k2 goes", nil, func() bool { return cmp.Equal(w.keys(bob), []string{"k1"}) })
		g.next()
		g.next()
		g.answers(func(rw http.ResponseWriter, _ *http.Request) {
			w.pusher(bob, "k1", g.url, with{"anew": true})
			_, _ = io.WriteString(rw, `{"rejected":["k1"]}`)
		})
		w.say(room, alice, "two")
		g.next()
		g.answers(nil)
		id := w.say(room, alice, "three")
		for n := g.next(); n.EventID != id; n = g.next() {
		}
		if !cmp.Equal(w.keys(bob), []string{"k1"}) {
			t.Error("a pusher that was set anew was removed")
		}
	})
}

func TestANotificationThatIsRefusedForGoodDoesNotHoldUpTheNext(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(400) })
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		w.say(room, alice, "poison")
		g.next()
		g.answers(nil)
		id := w.say(room, alice, "next")
		if n := g.next(); n.EventID != id {
			t.Errorf("%s", n.raw)
		}
	})
}

func TestAGatewayThatNeverAnswersDoesNotHoldUpOthers(t *testing.T) {
	w := newWorld(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New())
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // connections are taken by the system and never answered
	g := newGateway(t)
	users := []string{bob}
	for i := range 40 {
		u := fmt.Sprintf("@u%d:test", i)
		w.pusher(u, "k", "http://"+silent.Addr().String()+gateway.Path, nil)
		users = append(users, u)
	}
	w.pusher(bob, "k", g.url, nil)
	room := w.room("invite", users...)
	start := time.Now()
	for i := range 5 {
		id := w.say(room, alice, fmt.Sprint(i))
		if n := g.next(); n.EventID != id {
			t.Errorf("%s", n.raw)
		}
	}
	if took := time.Since(start); took > gateway.Patience/2 {
		t.Errorf("five pushes took %v beside a gateway that does not answer", took)
	}
}

func TestTheBadgeFallsWhenSomethingIsReadElsewhere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		w.pusher(carol, "k-carol", g.url, with{"org.matrix.msc4076.disable_badge_count": true})
		room := w.room("invite", bob)
		other := w.room("invite", bob)
		first := w.say(room, alice, "one")
		w.say(other, alice, "two")
		g.next()
		if n := g.next(); n.Counts == nil || n.Counts.Unread != 2 {
			t.Errorf("%s", n.raw)
		}
		noted := func(want int64) {
			t.Helper()
			w.until("the badge is noted", nil, func() bool {
				p, err := w.store.PushersOf(t.Context(), bob)
				return err == nil && p[0].Unread == want
			})
		}
		noted(2)
		w.read(room, bob, first)
		w.until("new counts", func() { w.clock.Advance(100 * time.Millisecond) }, func() bool { return len(g.got) > 0 })
		n := g.next()
		if n.EventID != "" || n.RoomID != "" || n.Prio != "low" || n.Counts == nil || n.Counts.Unread != 1 || strings.Contains(n.raw, "withdrawn") {
			t.Errorf("%s", n.raw)
		}
		noted(1)
		// Reading what was read changes no count, so nobody is told.
		w.read(room, bob, w.say(room, bob, "mine"))
		w.until("the queue is empty", func() { w.clock.Advance(time.Second) }, func() bool {
			rows, err := w.store.NextPushes(t.Context(), storage.PusherID{User: bob, AppID: "app", Key: "k"}, 10)
			return err == nil && len(rows) == 0
		})
		g.nothing("the same counts")
	})
}

func TestTwoNodesPushEachEventOnce(t *testing.T) {
	store := storagetest.Open(t, storagetest.PostgresURL(t))
	clock := clocktest.New()
	one := newWorld(t, store, clock)
	two := newWorld(t, store, clock)
	store.Observe(func(pos int64, notes []storage.Note) { // both hear of everything
		one.observe(pos, notes)
		two.observe(pos, notes)
	})
	g := newGateway(t)
	for i := range 5 {
		one.pusher(fmt.Sprintf("@u%d:test", i), "k", g.url, nil)
	}
	room := one.room("invite", "@u0:test", "@u1:test", "@u2:test", "@u3:test", "@u4:test")
	const messages = 40
	for i := range messages {
		one.say(room, alice, fmt.Sprint(i))
	}
	seen := map[string]int{}
	one.until("everybody is told", func() { clock.Advance(time.Second) }, func() bool {
		for len(g.got) > 0 {
			n := g.next()
			seen[n.EventID]++
		}
		total := 0
		for _, n := range seen {
			total += n
		}
		return total >= 5*messages
	})
	for id, n := range seen {
		if n != 5 {
			t.Errorf("%s was pushed %d times", id, n)
		}
	}
}
