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
	"github.com/trunkboard/trunkboard/signalling"
)

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
		in := ask{lists: map[string]want{"l": {limit: 1, to: -1, filters: map[string]any{"spaces": []string{space}}}}}
		ev := w.send(space, child(dm, map[string]any{"via": []string{"example.org"}}))[0]
		u.pos = ""
		if n := u.sync(in).Get("lists.l.count").Int(); n != 2 {
			t.Errorf("another room in the space: %d", n)
		}
		w.send(space, rooms.Draft{Sender: alice, Type: "m.room.redaction", Redacts: ev, Content: raw(map[string]any{"redacts": ev})})
		if n := u.sync(in).Get("lists.l.count").Int(); n != 1 {
			t.Errorf("the child was redacted: %d", n)
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
			// The first request may begin after this one, and take over from it.
			if _, err := u.try(context.Background(), quick); err != nil && signalling.AsError(err).Status != 409 {
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
