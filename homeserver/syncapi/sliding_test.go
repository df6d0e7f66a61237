// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestAWindowOfRoomsThenWhatIsNewInThem(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@bob%v:example.org", u.stable)
		var ids []string
		for i := range 3 {
			id := den(w, state(alice, "m.room.name", map[string]any{"name": fmt.Sprint("Room ", i)}))
			w.send(id, member(u.user, u.user, "join"), text(alice, fmt.Sprint("first in ", i)))
			ids = append(ids, id)
		}
		q := one(1, 1, [2]string{"m.room.create", ""}, [2]string{"m.room.member", "$ME"})
		r := u.sync(q)
		if n := r.Get("lists.all.count").Int(); n != 3 {
			t.Errorf("count is %d", n)
		}
		if got, want := roomsOf(r), fmt.Sprint([]string{ids[2], ids[1]}); got != want {
			t.Fatalf("rooms %s, want %s", got, want)
		}
		x := u.room(r, ids[2])
		if !x.Get("initial").Bool() || x.Get("name").Str != "Room 2" || u.texts(x) != "[first in 2]" || !x.Get("limited").Bool() ||
			x.Get("num_live").Int() != 0 || x.Get("joined_count").Int() != 2 || x.Get("invited_count").Int() != 0 || x.Get("prev_batch").Str == "" || x.Get("heroes").Exists() {
			t.Errorf("a fresh room: %s", x)
		}
		if got, want := keysOf(x), "[m.room.create| m.room.member|"+u.user+"]"; got != want {
			t.Errorf("state %s, want %s", got, want)
		}
		if u.stable && (x.Get("membership").Str != "join" || x.Get("lists").Raw != `["all"]`) {
			t.Errorf("a fresh room: %s", x)
		}
		// Nothing has happened: nothing is told.
		if r = u.sync(q); roomsOf(r) != "[]" || r.Get("lists.all.count").Int() != 3 {
			t.Errorf("nothing new: %s", r)
		}
		w.send(ids[2], text(alice, "news"))
		x = u.room(u.sync(q), ids[2])
		if x.Get("initial").Bool() || x.Get("name").Exists() || x.Get("required_state").Exists() || x.Get("joined_count").Exists() || u.texts(x) != "[news]" || x.Get("num_live").Int() != 1 || !x.Get("bump_stamp").Exists() || x.Get("limited").Bool() {
			t.Errorf("a live event: %s", x)
		}
		// The room outside of the window comes into it by what happens in it, and the other one goes.
		w.send(ids[0], text(alice, "here I come"))
		r = u.sync(q)
		if x = u.room(r, ids[0]); roomsOf(r) != fmt.Sprint([]string{ids[0]}) || !x.Get("initial").Bool() || u.texts(x) != "[here I come]" || x.Get("num_live").Int() != 1 {
			t.Errorf("into the window: %s", r)
		}
		// What happens in a room that has left the window is told when it comes back, and only that.
		w.send(ids[1], text(alice, "a"), text(alice, "b"), state(alice, "m.room.topic", map[string]any{"topic": "t"}))
		w.send(ids[0], text(alice, "x"))
		w.send(ids[2], text(alice, "y"))
		u.sync(q)
		grown := one(10, 19, [2]string{"m.room.create", ""}, [2]string{"m.room.topic", ""})
		r = u.sync(grown)
		if got := strings.Count(roomsOf(r), "!"); got != 3 {
			t.Fatalf("a longer timeline is told of %d rooms: %s", got, r)
		}
		if x = u.room(r, ids[1]); x.Get("initial").Bool() || !u.expanded(x) || keysOf(x) != "[m.room.topic|]" || u.texts(x) != "[first in 1 a b]" {
			t.Errorf("back in the window: %s", x)
		}
		if x = u.room(r, ids[0]); !u.expanded(x) || u.texts(x) != "[first in 0 here I come x]" || x.Get("num_live").Int() != 0 {
			t.Errorf("expanded: %s", x)
		}
		if r = u.sync(grown); roomsOf(r) != "[]" {
			t.Errorf("expanded twice: %s", r)
		}
	})
}

func TestARetryGivesTheSameAndAnOldPositionIsUnknown(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(alice, "A")
		id := den(w)
		q := one(10, 9)
		q.timeout = 50 * time.Millisecond
		u.sync(q)
		first := u.pos
		w.send(id, text(alice, "one"))
		if x := u.room(u.sync(q), id); u.texts(x) != "[one]" {
			t.Fatalf("live: %s", x)
		}
		// The answer was lost: the client asks again, and more has happened.
		u.pos = first
		w.send(id, text(alice, "two"))
		if x := u.room(u.sync(q), id); u.texts(x) != "[one two]" {
			t.Fatalf("again: %s", x)
		}
		second := u.pos
		if r := u.sync(q); roomsOf(r) != "[]" {
			t.Fatalf("told twice: %s", r)
		}
		code := func(pos string) string {
			c := *u
			c.pos = pos
			_, err := c.try(context.Background(), q)
			return signalling.AsError(err).Code
		}
		for _, bad := range []string{first, "s1_2_3", "x", "s1_2_3-abc-1", "s1_2_3--", second + "0", strings.Repeat("9", 300), "s1_2_3-" + strings.Split(second, "-")[1] + "-99"} {
			if got := code(bad); got != "M_UNKNOWN_POS" {
				t.Errorf("%q: %s", bad, got)
			}
		}
		if _, err := syncapi.ParseToken(second); err != nil {
			t.Errorf("a pos is a token for /messages too: %v", err)
		}
		// Another connection has its own state, and a new one with the same name takes the place of the old one.
		other := *u
		other.conn, other.pos = "other", ""
		if x := u.room(other.sync(q), id); !x.Get("initial").Bool() {
			t.Errorf("another connection: %s", x)
		}
		old := u.pos
		u.pos = ""
		if x := u.room(u.sync(q), id); !x.Get("initial").Bool() || u.texts(x) != "[one two]" {
			t.Errorf("a new beginning: %s", x)
		}
		if got := code(old); got != "M_UNKNOWN_POS" {
			t.Errorf("the connection that was replaced: %s", got)
		}
		// Another node, or this one after a restart, knows nothing of it.
		u.w = start(t, w.store)
		if got := code(u.pos); got != "M_UNKNOWN_POS" {
			t.Errorf("after a restart: %s", got)
		}
		w.store.Observe(w.sync.Observe)
	})
}

func TestAnInviteAJoinAndAKickInSlidingSync(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@guest%v:example.org", u.stable)
		q := one(20, 9, [2]string{"*", "*"})
		u.sync(q)
		id := den(w, state(alice, "m.room.name", map[string]any{"name": "Den"}), state(alice, "m.room.secret", map[string]any{"not": "for guests"}))
		w.send(id, text(alice, "before"), member(alice, u.user, "invite"))
		r := u.sync(q)
		x := u.room(r, id)
		types := map[string]bool{}
		for _, e := range u.stripped(x) {
			types[e.Get("type").Str] = true
		}
		if !x.Get("initial").Bool() && !u.stable || !types["m.room.name"] || !types["m.room.member"] || types["m.room.secret"] || x.Get("required_state").Exists() || len(u.timeline(x)) != 0 || x.Get("joined_count").Exists() || x.Get("name").Exists() {
			t.Errorf("an invite: %s", x)
		}
		if u.stable && x.Get("membership").Str != "invite" {
			t.Errorf("an invite: %s", x)
		}
		w.send(id, text(alice, "while invited"))
		if r = u.sync(q); roomsOf(r) != "[]" {
			t.Errorf("something is told of a room that the user is only invited to: %s", r)
		}
		w.send(id, member(u.user, u.user, "join"))
		x = u.room(u.sync(q), id)
		if !x.Get("initial").Bool() || x.Get("name").Str != "Den" || !strings.Contains(keysOf(x), "m.room.secret") {
			t.Errorf("joined: %s", x)
		}
		w.send(id, text(alice, "seen"), state(alice, "m.room.topic", map[string]any{"topic": "seen"}), member(alice, u.user, "leave"),
			text(alice, "unseen"), state(alice, "m.room.topic", map[string]any{"topic": "unseen"}), state(alice, "m.room.name", map[string]any{"name": "Unseen"}), member(carol, carol, "join"))
		r = u.sync(q)
		x = u.room(r, id)
		if u.texts(x) != "[seen]" || keysOf(x) != "[m.room.member|"+u.user+" m.room.topic|]" || strings.Contains(r.Raw, "unseen") || strings.Contains(r.Raw, "Unseen") || strings.Contains(r.Raw, carol) {
			t.Errorf("kicked: %s", r)
		}
		if u.stable && x.Get("membership").Str != "leave" {
			t.Errorf("kicked: %s", x)
		}
		w.send(id, text(alice, "later"), state(alice, "m.room.secret", map[string]any{"now": "changed"}))
		r = u.sync(ask{lists: map[string]want{"all": {limit: 50, to: -1, state: [][2]string{{"*", "*"}}}}, subs: map[string]want{id: {limit: 50, state: [][2]string{{"m.room.secret", ""}}}}})
		if roomsOf(r) != "[]" {
			t.Errorf("something is told of a room after the kick: %s", r)
		}
		// A new connection learns of the kick, and of nothing after it.
		fresh := *u
		fresh.pos, fresh.conn = "", "fresh"
		r = fresh.sync(q)
		x = u.room(r, id)
		if !x.Get("initial").Bool() || x.Get("name").Str != "Den" || !strings.Contains(x.Raw, "not") || strings.Contains(r.Raw, "unseen") || strings.Contains(r.Raw, "Unseen") || strings.Contains(r.Raw, "changed") || strings.Contains(r.Raw, "later") || strings.Contains(r.Raw, carol) || x.Get("joined_count").Exists() {
			t.Errorf("a new connection after the kick: %s", r)
		}
		// Whoever leaves is told so by the connection that had the room, and by no other.
		w.send(id, member(u.user, u.user, "join"))
		u.sync(q)
		w.send(id, member(u.user, u.user, "leave"), text(alice, "behind his back"))
		r = u.sync(q)
		if x = u.room(r, id); !strings.Contains(keysOf(x), u.user) || strings.Contains(r.Raw, "behind") {
			t.Errorf("left: %s", r)
		}
		if r = u.sync(q); roomsOf(r) != "[]" || r.Get("lists.all.count").Int() != 0 {
			t.Errorf("after leaving: %s", r)
		}
		fresh.pos = ""
		if r = fresh.sync(q); roomsOf(r) != "[]" {
			t.Errorf("a new connection after leaving: %s", r)
		}
		// An invite that is turned down.
		w.send(id, member(alice, u.user, "invite"))
		u.sync(q)
		w.send(id, member(u.user, u.user, "leave"), state(alice, "m.room.topic", map[string]any{"topic": "not his any more"}))
		r = u.sync(q)
		if !strings.Contains(r.Raw, `"leave"`) || strings.Contains(r.Raw, "not his") {
			t.Errorf("turned down: %s", r)
		}
	})
}

func TestSomebodyWhoNeverWasInARoomIsToldNothingOfIt(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@stranger%v:example.org", u.stable)
		id := den(w, state(alice, "m.room.name", map[string]any{"name": "Private"}))
		q := ask{lists: map[string]want{"all": {limit: 10, to: -1, state: [][2]string{{"*", "*"}}}}, subs: map[string]want{id: {limit: 10, state: [][2]string{{"*", "*"}}}, "!nothing:example.org": {limit: 1}}}
		if r := u.sync(q); roomsOf(r) != "[]" {
			t.Errorf("a stranger: %s", r)
		}
		w.send(id, text(alice, "secret"), member(alice, u.user, "ban"))
		if r := u.sync(q); roomsOf(r) != "[]" {
			t.Errorf("banned without having been there: %s", r)
		}
		w.send(id, member(alice, u.user, "leave"), member(alice, u.user, "invite"))
		u.sync(q)
		w.send(id, member(u.user, u.user, "leave"))
		r := u.sync(q)
		if x := u.room(r, id); !x.Exists() || strings.Contains(r.Raw, "secret") || strings.Contains(r.Raw, "Private") || u.stable && x.Get("membership").Str != "leave" {
			t.Errorf("an invite turned down: %s", r)
		}
	})
}

func TestRequiredStateNamesWhatIsTold(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		id := den(w, state(alice, "m.room.name", map[string]any{"name": "N"}))
		w.send(id, member(bob, bob, "join"), member(carol, carol, "join"), text(bob, "hi"))
		for _, c := range []struct {
			state [][2]string
			want  string
		}{
			{nil, "[]"},
			{[][2]string{{"m.room.member", "$ME"}}, "[m.room.member|" + alice + "]"},
			{[][2]string{{"m.room.member", "$LAZY"}}, "[m.room.member|" + bob + "]"},
			{[][2]string{{"m.room.member", "$LAZY"}, {"m.room.member", "$ME"}, {"m.room.name", ""}}, "[m.room.member|" + alice + " m.room.member|" + bob + " m.room.name|]"},
			{[][2]string{{"m.room.member", "*"}}, "[m.room.member|" + alice + " m.room.member|" + bob + " m.room.member|" + carol + "]"},
			{[][2]string{{"*", bob}}, "[m.room.member|" + bob + "]"},
			{[][2]string{{"*", "*"}, {"m.room.member", "$LAZY"}}, "[m.room.create| m.room.history_visibility| m.room.join_rules| m.room.member|" + bob + " m.room.name| m.room.power_levels|]"},
			{[][2]string{{"m.room.nothing", ""}, {"m.room.create", "x"}}, "[]"},
		} {
			u := client(alice, "A")
			r := u.sync(ask{subs: map[string]want{id: {limit: 1, state: c.state}}})
			if got := keysOf(u.room(r, id)); got != c.want {
				t.Errorf("%v: %s, want %s", c.state, got, c.want)
			}
			if u.stable && u.room(r, id).Get("lists").Exists() {
				t.Errorf("a room that is in no list: %s", r)
			}
		}
		// Lazily: a membership once; the change of one that the client may know; and the subject of a membership event.
		u := client(alice, "L")
		q := ask{subs: map[string]want{id: {limit: 1, state: [][2]string{{"m.room.member", "$LAZY"}}}}}
		u.sync(q)
		w.send(id, text(bob, "again"))
		if got := keysOf(u.room(u.sync(q), id)); got != "[]" {
			t.Errorf("a membership twice: %s", got)
		}
		w.send(id, text(carol, "me too"))
		if got := keysOf(u.room(u.sync(q), id)); got != "[m.room.member|"+carol+"]" {
			t.Errorf("a new sender: %s", got)
		}
		w.send(id, member(carol, carol, "leave"))
		x := u.room(u.sync(q), id)
		if got := keysOf(x); got != "[m.room.member|"+carol+"]" || x.Get("joined_count").Int() != 2 {
			t.Errorf("somebody leaves: %s", x)
		}
		// More is wanted than before: it is told at once, without a wait.
		more := ask{subs: map[string]want{id: {limit: 1, state: [][2]string{{"m.room.member", "$LAZY"}, {"m.room.name", ""}}}}, timeout: 10 * time.Second}
		if got := keysOf(u.room(u.sync(more), id)); got != "[m.room.name|]" {
			t.Errorf("more state: %s", got)
		}
		w.send(id, member(carol, carol, "join"))
	})
}

func TestAClientThatWasAwayForLongIsServedFromTheStore(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@away%v:example.org", u.stable)
		a, b := den(w), den(w)
		w.send(a, member(u.user, u.user, "join"))
		w.send(b, member(u.user, u.user, "join"))
		all := one(10, -1, [2]string{"m.room.name", ""})
		few := one(10, 0, [2]string{"m.room.name", ""})
		u.sync(all)
		for i := range 450 {
			w.send(a, text(alice, fmt.Sprint("m", i)))
		}
		w.send(b, text(alice, "only"), state(alice, "m.room.name", map[string]any{"name": "B"}))
		r := u.sync(few)
		if x := u.room(r, b); roomsOf(r) != fmt.Sprint([]string{b}) || x.Get("initial").Bool() || u.texts(x) != "[only]" || x.Get("name").Str != "B" || keysOf(x) != "[m.room.name|]" {
			t.Errorf("away: %s", r)
		}
		x := u.room(u.sync(all), a)
		if x.Get("initial").Bool() || !x.Get("limited").Bool() || len(u.timeline(x)) != 10 || x.Get("num_live").Int() != 0 {
			t.Errorf("left behind while away: %s", x)
		}
	})
}

func TestReceiptsOfARoomThatIsNewAreThoseOfItsEventsAndTheReadersOwn(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@reader%v:example.org", u.stable)
		id := den(w)
		ev := w.send(id, member(u.user, u.user, "join"), member(carol, carol, "join"), text(alice, "old"), text(alice, "new"))[2:]
		r, err := w.rooms.Room(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		for user, e := range map[string]string{alice: ev[1], carol: ev[0], u.user: ev[0]} {
			if err := w.sync.SetReceipt(context.Background(), r, user, "m.read", e, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.sync.SetReceipt(context.Background(), r, alice, "m.read.private", ev[1], ""); err != nil {
			t.Fatal(err)
		}
		q := one(1, 0)
		q.ext = map[string]any{"receipts": map[string]any{"enabled": true}}
		got := u.sync(q).Get("extensions.receipts.rooms").Map()[id].Raw
		if !strings.Contains(got, alice) || !strings.Contains(got, u.user) || strings.Contains(got, carol) || strings.Contains(got, "private") {
			t.Errorf("receipts: %s", got)
		}
		// Further back in the timeline there are more.
		q.lists["all"] = want{limit: 5, to: 0}
		if got = u.sync(q).Get("extensions.receipts.rooms").Map()[id].Raw; !strings.Contains(got, carol) {
			t.Errorf("receipts: %s", got)
		}
		// Whoever is not in the room any more hears of no receipts.
		w.send(id, member(alice, u.user, "leave"))
		u.sync(q)
		last := w.send(id, text(alice, "newest"))[0]
		if err := w.sync.SetReceipt(context.Background(), r, alice, "m.read", last, ""); err != nil {
			t.Fatal(err)
		}
		w.sync.SetTyping(r, alice, time.Minute)
		q.ext["typing"] = map[string]any{"enabled": true}
		if x := u.sync(q); x.Get("extensions").Raw != "{}" {
			t.Errorf("after leaving: %s", x)
		}
		w.sync.SetTyping(r, alice, 0)
	})
}

func TestConnectionsOfADeviceAreBounded(t *testing.T) {
	w := start(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	den(w)
	var all []*slider
	for i := range 40 {
		u := &slider{w: w, user: alice, device: "A", conn: fmt.Sprint(i)}
		u.sync(one(1, 1))
		all = append(all, u)
	}
	known := 0
	for i, u := range all {
		_, err := u.try(context.Background(), one(1, 1))
		switch {
		case err == nil:
			known++
		case signalling.AsError(err).Code != "M_UNKNOWN_POS" || i >= 24:
			t.Errorf("%d: %v", i, err)
		}
	}
	if known != 16 {
		t.Errorf("%d connections are known", known)
	}
	// A request that waits on a connection which is forgotten is told so.
	failed := make(chan error, 1)
	go func() {
		q := one(1, 1)
		q.timeout = 20 * time.Second
		_, err := all[39].try(context.Background(), q)
		failed <- err
	}()
	for i := 0; ; i++ { // until it is, however late it came
		(&slider{w: w, user: alice, device: "A", conn: fmt.Sprint("more", i)}).sync(one(1, 1))
		select {
		case err := <-failed:
			if signalling.AsError(err).Code != "M_UNKNOWN_POS" {
				t.Errorf("a connection that is forgotten: %v", err)
			}
			return
		default:
		}
	}
}
