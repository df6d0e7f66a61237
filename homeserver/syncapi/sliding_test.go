// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// slider is one connection of a client, in one of the two wire forms. Its request is written in words of our own, which it puts into
// those of the form.
type slider struct {
	w                  *world
	user, device, conn string
	stable             bool
	pos                string
}

// ask is a request: lists by name and subscriptions by room.
type ask struct {
	lists   map[string]want
	subs    map[string]want
	ext     map[string]any
	timeout time.Duration
}

type want struct {
	limit   int
	to      int // the range is 0 to to; negative: all
	state   [][2]string
	filters map[string]any
}

func (c *slider) config(x want) map[string]any {
	m := map[string]any{"timeline_limit": x.limit}
	if !c.stable {
		pairs := [][]string{}
		for _, s := range x.state {
			pairs = append(pairs, s[:])
		}
		m["required_state"] = pairs
		return m
	}
	state := map[string]any{}
	include := []map[string]string{}
	for _, s := range x.state {
		e := map[string]string{}
		if s[0] != "*" {
			e["type"] = s[0]
		}
		switch s[1] {
		case "$LAZY":
			state["lazy_members"] = true
			continue
		case "$ME":
			e["state_key"] = c.user
		case "*":
		default:
			e["state_key"] = s[1]
		}
		include = append(include, e)
	}
	state["include"] = include
	m["required_state"] = state
	return m
}

func (c *slider) request(a ask) (*syncapi.SlidingRequest, error) {
	lists, subs := map[string]any{}, map[string]any{}
	for k, x := range a.lists {
		m := c.config(x)
		if x.to >= 0 {
			if c.stable {
				m["range"] = []int{0, x.to}
			} else {
				m["ranges"] = [][]int{{0, x.to}}
			}
		}
		if x.filters != nil {
			f := map[string]any{}
			for k, v := range x.filters {
				if k == "is_invite" && c.stable {
					k = "is_invited"
				}
				f[k] = v
			}
			m["filters"] = f
		}
		lists[k] = m
	}
	for k, x := range a.subs {
		subs[k] = c.config(x)
	}
	body := map[string]any{"conn_id": c.conn, "lists": lists, "room_subscriptions": subs, "extensions": a.ext}
	if c.stable {
		body["pos"], body["timeout"] = c.pos, a.timeout.Milliseconds()
		q, _, err := syncapi.DecodeSlidingStable(raw(body), c.user, c.device)
		return q, err
	}
	return syncapi.DecodeSlidingUnstable(raw(body), c.user, c.device, c.pos, a.timeout.Milliseconds())
}

// try makes a request and gives the rooms of the answer in the words of the unstable form.
func (c *slider) try(ctx context.Context, a ask) (gjson.Result, error) {
	q, err := c.request(a)
	if err != nil {
		return gjson.Result{}, err
	}
	out, err := c.w.sync.Sliding(ctx, q)
	if err != nil {
		return gjson.Result{}, err
	}
	b := out.Unstable()
	if c.stable {
		b = out.Stable()
	}
	if !json.Valid(b) {
		c.w.t.Fatalf("not JSON: %s", b)
	}
	return gjson.ParseBytes(b), nil
}

func (c *slider) sync(a ask) gjson.Result {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := c.try(ctx, a)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.pos = r.Get("pos").Str
	return r
}

// room gives what an answer says of a room; its timeline stands under "timeline" and stripped state under "stripped".
func (c *slider) room(r gjson.Result, id string) gjson.Result { return r.Get("rooms").Map()[id] }

func (c *slider) timeline(x gjson.Result) []gjson.Result {
	if c.stable {
		return x.Get("timeline_events").Array()
	}
	return x.Get("timeline").Array()
}

func (c *slider) stripped(x gjson.Result) []gjson.Result {
	if c.stable {
		return x.Get("stripped_state").Array()
	}
	return x.Get("invite_state").Array()
}

func (c *slider) texts(x gjson.Result) string {
	var out []string
	for _, e := range c.timeline(x) {
		if b := e.Get("content.body"); b.Exists() {
			out = append(out, b.Str)
		}
	}
	return fmt.Sprint(out)
}

func (c *slider) expanded(x gjson.Result) bool {
	if c.stable {
		return x.Get("expanded_timeline").Bool()
	}
	return x.Get("unstable_expanded_timeline").Bool()
}

func keysOf(x gjson.Result) string {
	var out []string
	for _, e := range x.Get("required_state").Array() {
		out = append(out, e.Get("type").Str+"|"+e.Get("state_key").Str)
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func roomsOf(r gjson.Result) string {
	var out []string
	r.Get("rooms").ForEach(func(k, _ gjson.Result) bool { out = append(out, k.Str); return true })
	return fmt.Sprint(out)
}

// sliding runs f on both engines, in both wire forms.
func sliding(t *testing.T, f func(w *world, client func(user, device string) *slider)) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, stable := range []bool{false, true} {
			w := start(t, st)
			f(w, func(user, device string) *slider {
				return &slider{w: w, user: user, device: fmt.Sprint(device, stable), conn: "main", stable: stable}
			})
		}
	})
}

func one(limit, to int, state ...[2]string) ask {
	return ask{lists: map[string]want{"all": {limit: limit, to: to, state: state}}}
}

// den makes a room like world.room. Its create event is another each time: rooms of version 12 made of the same event are one room.
func den(w *world, more ...rooms.Draft) string {
	w.t.Helper()
	id, err := w.rooms.Create(context.Background(), rooms.NewRoom{Version: "12", Creator: alice, Create: raw(map[string]any{"nonce": rand.Text()}), Drafts: append([]rooms.Draft{
		member(alice, alice, "join"), state(alice, "m.room.power_levels", map[string]any{}), state(alice, "m.room.join_rules", map[string]any{"join_rule": "public"}),
		state(alice, "m.room.history_visibility", map[string]any{"history_visibility": "shared"}),
	}, more...)})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

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

func TestARoomThatWasOutOfTheWindowIsToldFromWhereItWasLeft(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@back%v:example.org", u.stable)
		a, b := den(w), den(w)
		w.send(a, member(u.user, u.user, "join"), text(alice, "a0"))
		w.send(b, member(u.user, u.user, "join"), text(alice, "b0"))
		wide, narrow := one(5, 1, [2]string{"m.room.name", ""}), one(5, 0, [2]string{"m.room.name", ""})
		u.sync(wide)
		u.sync(narrow) // b alone
		w.send(a, text(alice, "a1"), state(alice, "m.room.name", map[string]any{"name": "A"}), text(alice, "a2"))
		w.send(b, text(alice, "b1"))
		if r := u.sync(narrow); roomsOf(r) != fmt.Sprint([]string{b}) {
			t.Fatalf("narrow: %s", r)
		}
		u.sync(narrow)
		r := u.sync(wide)
		x := u.room(r, a)
		if x.Get("initial").Bool() || u.texts(x) != "[a1 a2]" || x.Get("limited").Bool() || x.Get("name").Str != "A" || keysOf(x) != "[m.room.name|]" || roomsOf(r) != fmt.Sprint([]string{a}) {
			t.Errorf("back: %s", r)
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

func TestFiltersSayWhichRoomsAreInAList(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(alice, "A")
		me := fmt.Sprintf("@filter%v:example.org", u.stable)
		u.user = me
		join := func(id string) string { w.send(id, member(me, me, "join")); return id }
		name := map[string]string{}
		put := func(n, id string) string { name[id] = n; return id }
		put("plain", join(den(w)))
		sealed := put("sealed", join(den(w, state(alice, "m.room.encryption", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}))))
		space, err := w.rooms.Create(context.Background(), rooms.NewRoom{Version: "11", Creator: alice, Create: raw(map[string]any{"type": "m.space"}), Drafts: []rooms.Draft{
			member(alice, alice, "join"), state(alice, "m.room.power_levels", map[string]any{"users": map[string]int{alice: 100}}), state(alice, "m.room.join_rules", map[string]any{"join_rule": "public"})}})
		if err != nil {
			t.Fatal(err)
		}
		put("space", join(space))
		child := func(id string, content any) rooms.Draft {
			return rooms.Draft{Sender: alice, Type: "m.space.child", StateKey: &id, Content: raw(content)}
		}
		w.send(space, child(sealed, map[string]any{"via": []string{"example.org"}}))
		inv := put("invite", den(w))
		w.send(inv, member(alice, me, "invite"))
		dm := put("dm", join(den(w)))
		tagged := func(room, typ string, content any) {
			if err := w.store.Write(context.Background(), func(tx *storage.Tx) error {
				pos, err := tx.NextPos()
				if err == nil {
					_, err = tx.PutAccountData(storage.AccountData{UserID: me, RoomID: room, Type: typ, Content: raw(content), Pos: pos})
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		tagged("", "m.direct", map[string]any{bob: []string{dm}, "odd": 7})
		tagged(sealed, "m.tag", map[string]any{"tags": map[string]any{"m.favourite": map[string]any{}}})
		for filter, wanted := range map[string]string{
			`{}`:                                "dm invite plain sealed space",
			`{"is_dm":true}`:                    "dm",
			`{"is_dm":false}`:                   "invite plain sealed space",
			`{"is_encrypted":true}`:             "sealed",
			`{"is_invite":true}`:                "invite",
			`{"is_invite":false,"is_dm":false}`: "plain sealed space",
			`{"room_types":["m.space"]}`:        "space",
			`{"room_types":[null]}`:             "dm invite plain sealed",
			`{"not_room_types":["m.space"]}`:    "dm invite plain sealed",
			`{"room_types":[null,"m.space"],"not_room_types":[null]}`: "space",
			`{"room_types":[]}`:                                   "",
			`{"spaces":["` + space + `"]}`:                        "sealed",
			`{"spaces":["!unknown:example.org"]}`:                 "",
			`{"tags":["m.favourite","u.x"]}`:                      "sealed",
			`{"not_tags":["m.favourite"]}`:                        "dm invite plain space",
			`{"tags":["m.favourite"],"not_tags":["m.favourite"]}`: "",
		} {
			var f map[string]any
			_ = json.Unmarshal([]byte(filter), &f)
			u.pos = ""
			r := u.sync(ask{lists: map[string]want{"l": {limit: 0, to: -1, filters: f}}})
			var got []string
			for id := range r.Get("rooms").Map() {
				got = append(got, name[id])
			}
			slices.Sort(got)
			if s := strings.Join(got, " "); s != wanted || r.Get("lists.l.count").Int() != int64(len(got)) {
				t.Errorf("%s: %s (count %d), want %s", filter, s, r.Get("lists.l.count").Int(), wanted)
			}
		}
		// The lists follow when account data and rooms change.
		q := ask{lists: map[string]want{"dms": {limit: 1, to: -1, filters: map[string]any{"is_dm": true}}, "safe": {limit: 1, to: -1, filters: map[string]any{"is_encrypted": true}}, "all": {limit: 1, to: -1}}}
		u.pos = ""
		if x := u.room(u.sync(q), dm); !x.Get("is_dm").Bool() {
			t.Errorf("a direct room: %s", x)
		}
		tagged("", "m.direct", map[string]any{bob: []string{sealed}})
		r := u.sync(q)
		if x, y := u.room(r, dm), u.room(r, sealed); x.Get("is_dm").Raw != "false" || y.Get("is_dm").Raw != "true" || r.Get("lists.dms.count").Int() != 1 {
			t.Errorf("other direct rooms: %s", r)
		}
		w.send(dm, state(alice, "m.room.encryption", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}))
		if n := u.sync(q).Get("lists.safe.count").Int(); n != 2 {
			t.Errorf("a room that became encrypted: %d", n)
		}
		w.send(space, child(sealed, map[string]any{}))
		u.pos = ""
		if r := u.sync(ask{lists: map[string]want{"l": {limit: 1, to: -1, filters: map[string]any{"spaces": []string{space}}}}}); roomsOf(r) != "[]" {
			t.Errorf("taken out of the space: %s", r)
		}
	})
}

func TestAWaitEndsWithWhatIsInTheWindowAndReadsNothing(t *testing.T) {
	sliding(t, func(w *world, client func(user, device string) *slider) {
		u := client(bob, "B")
		u.user = fmt.Sprintf("@waits%v:example.org", u.stable)
		a, b := den(w), den(w)
		w.send(a, member(u.user, u.user, "join"))
		w.send(b, member(u.user, u.user, "join"), text(alice, "b0"))
		q := ask{subs: map[string]want{b: {limit: 5, state: [][2]string{{"m.room.member", "$LAZY"}, {"m.room.name", ""}}}}, lists: map[string]want{"none": {limit: 1, to: 0}}}
		u.sync(q)
		q.timeout = 20 * time.Second
		// No read: the context is over, so that a query would fail.
		over, cancel := context.WithCancel(context.Background())
		cancel()
		w.send(b, text(alice, "b1"))
		r, err := u.try(over, q)
		if err != nil || u.texts(u.room(r, b)) != "[b1]" {
			t.Fatalf("an answer from memory: %s, %v", r, err)
		}
		u.pos = r.Get("pos").Str
		got := make(chan gjson.Result)
		go func() { got <- u.sync(q) }()
		w.send(b, text(alice, "b2"))
		if r := <-got; u.texts(u.room(r, b)) != "[b2]" {
			t.Fatalf("after a wait: %s", r)
		}
		// What is outside of the window does not end the wait, and is not lost.
		narrow := ask{subs: map[string]want{b: {limit: 5}}, timeout: 20 * time.Second}
		narrow.lists = map[string]want{"mine": {limit: 5, to: -1, filters: map[string]any{"is_encrypted": true}}}
		u.sync(ask{subs: map[string]want{a: {limit: 5}, b: {limit: 5}}})
		go func() { got <- u.sync(narrow) }()
		w.send(a, text(alice, "a1"))
		w.send(a, text(alice, "a2"))
		w.send(b, text(alice, "b3"))
		if r := <-got; roomsOf(r) != fmt.Sprint([]string{b}) || u.texts(u.room(r, b)) != "[b3]" {
			t.Fatalf("outside of the window: %s", r)
		}
		narrow.subs[a] = want{limit: 5}
		if r := u.sync(narrow); u.texts(u.room(r, a)) != "[a1 a2]" || u.room(r, a).Get("initial").Bool() {
			t.Fatalf("not lost: %s", r)
		}
		// A second request takes over from the first one.
		first := *u
		failed := make(chan error, 1)
		go func() {
			_, err := first.try(context.Background(), narrow)
			failed <- err
		}()
		quick := narrow
		quick.timeout = 0
		for {
			if _, err := u.try(context.Background(), quick); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-failed:
				if e := signalling.AsError(err); e.Code != "M_UNKNOWN" || e.Status != 409 {
					t.Fatalf("the first request: %v", err)
				}
				return
			default:
			}
		}
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
}

func TestStateThatIsNoMoreIsToldAsAStub(t *testing.T) {
	a := &syncapi.SlidingAnswer{Pos: "p", Rooms: []*syncapi.SlidingRoom{{ID: "!r:x", Membership: "join", Inside: true, Joined: -1, Invited: -1,
		Deleted: []event.Key{{Type: "m.room.topic"}, {Type: "m.x", StateKey: "k"}}, Name: syncapi.Told{Is: true}, Avatar: syncapi.Told{Is: true}}}}
	if got, want := string(a.Stable()), `{"pos":"p","lists":{},"rooms":{"!r:x":{"membership":"join","name":null,"avatar":null,"required_state":[{"type":"m.room.topic","state_key":""},{"type":"m.x","state_key":"k"}]}},"extensions":{}}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := string(a.Unstable()), `{"pos":"p","lists":{},"rooms":{"!r:x":{"avatar":null}},"extensions":{}}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestRequestsOfTheWrongShapeAreRefused(t *testing.T) {
	lists := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"l%d":{"timeline_limit":1}`, i)
		}
		return `{"lists":{` + strings.TrimPrefix(b.String(), ",") + `}}`
	}
	many := func(item string, n int) string { return strings.TrimPrefix(strings.Repeat(","+item, n), ",") }
	for _, c := range []struct{ unstable, stable, code string }{
		{`{}`, `{}`, ""},
		{``, ``, "M_NOT_JSON"},
		{`{`, `{`, "M_NOT_JSON"},
		{`[]`, `null`, "M_BAD_JSON"},
		{`{"lists":[]}`, `{"lists":[]}`, "M_BAD_JSON"},
		{`{"lists":{"a":{"timeline_limit":"1"}}}`, `{"lists":{"a":{"timeline_limit":1.5}}}`, "M_BAD_JSON"},
		{`{"lists":{"a":{}}}`, `{"lists":{"a":{}}}`, "M_MISSING_PARAM"},
		{`{"room_subscriptions":{"!a:b":{}}}`, `{"room_subscriptions":{"!a:b":{}}}`, "M_MISSING_PARAM"},
		{`{"lists":{"a":{"timeline_limit":-1}}}`, `{"lists":{"a":{"timeline_limit":-1}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[0,9]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[0,9]}}}`, ""},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[9,0]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[9,0]}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[-1,0]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[-1,0]}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[1]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[1,2,3]}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[` + many("[0,1]", 101) + `]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[]}}}`, "M_INVALID_PARAM"},
		{lists(100), lists(100), ""},
		{lists(101), lists(101), "M_INVALID_PARAM"},
		{`{"lists":{"":{"timeline_limit":1}}}`, `{"lists":{"a b":{"timeline_limit":1}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"required_state":[["m.x"]]}}}`, `{"lists":{"a":{"timeline_limit":1,"required_state":{"include":[` + many("{}", 501) + `]}}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"required_state":[` + many(`["m.x","y"]`, 501) + `]}}}`, `{"lists":{"a":{"timeline_limit":1,"required_state":{"include":[{"type":"` + strings.Repeat("x", 300) + `"}]}}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"required_state":{}}}}`, `{"lists":{"a":{"timeline_limit":1,"required_state":[]}}}`, "M_BAD_JSON"},
		{`{"conn_id":"` + strings.Repeat("x", 256) + `"}`, `{"conn_id":"` + strings.Repeat("x", 256) + `"}`, "M_INVALID_PARAM"},
		{`{"extensions":{"to_device":{"enabled":true,"since":"x"}}}`, `{"extensions":{"to_device":{"enabled":true,"since":"-1"}}}`, "M_INVALID_PARAM"},
		{`{"extensions":{"to_device":{"enabled":true,"limit":0}}}`, `{"timeout":-1}`, "M_INVALID_PARAM"},
		{`{"extensions":{"unheard_of":{"enabled":true},"e2ee":{"enabled":true}}}`, `{"extensions":{"unheard_of":7}}`, ""},
	} {
		check := func(form, body string, err error) {
			code := ""
			if err != nil {
				code = signalling.AsError(err).Code
			}
			if code != c.code {
				t.Errorf("%s %.80s: %q, want %q", form, body, code, c.code)
			}
		}
		_, err := syncapi.DecodeSlidingUnstable([]byte(c.unstable), alice, "A", "", 0)
		check("unstable", c.unstable, err)
		_, _, err = syncapi.DecodeSlidingStable([]byte(c.stable), alice, "A")
		check("stable", c.stable, err)
	}
}

func FuzzSlidingRequests(f *testing.F) {
	f.Add([]byte(`{"conn_id":"room-list","lists":{"all":{"ranges":[[0,19]],"timeline_limit":1,"required_state":[["m.room.member","$LAZY"],["*","*"]],"filters":{"is_dm":true,"room_types":[null,"m.space"]}}},"extensions":{"to_device":{"enabled":true,"since":"5"}}}`), "s1_2_3-abc-4")
	f.Add([]byte(`{"pos":"s1_2_3-abc-4","timeout":30000,"lists":{"all":{"range":[0,19],"timeline_limit":1,"required_state":{"include":[{}],"exclude":[{"type":"m.x"}],"lazy_members":true}}},"room_subscriptions":{"!a:b":{"timeline_limit":5}}}`), "")
	w := start(f, storagetest.Open(f, storagetest.SQLiteURL(f)))
	den(w)
	f.Fuzz(func(t *testing.T, body []byte, pos string) {
		u, err := syncapi.DecodeSlidingUnstable(body, alice, "A", pos, 0)
		s, _, err2 := syncapi.DecodeSlidingStable(body, alice, "A")
		for i, q := range []*syncapi.SlidingRequest{u, s} {
			if e := []error{err, err2}[i]; e != nil {
				if signalling.AsError(e).Status != 400 {
					t.Fatalf("%v", e)
				}
				continue
			}
			q.Timeout = 0
			a, e := w.sync.Sliding(context.Background(), q)
			if e != nil {
				if signalling.AsError(e).Code != "M_UNKNOWN_POS" {
					t.Fatalf("%v", e)
				}
				continue
			}
			if !json.Valid(a.Stable()) || !json.Valid(a.Unstable()) {
				t.Fatalf("not JSON: %s", a.Stable())
			}
		}
	})
}
