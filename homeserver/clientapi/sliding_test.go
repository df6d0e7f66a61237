// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// eachSlidingHome is a home with everything that sliding sync tells of, on both engines.
func eachSlidingHome(t *testing.T, f func(h *home)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		log := slog.New(slog.DiscardHandler)
		r, err := rooms.New(context.Background(), s, "test", signalling.SystemClock{}, log)
		if err != nil {
			t.Fatal(err)
		}
		keys := e2ee.New(s, "test", log, e2ee.Deps{Rooms: r})
		rules := push.New(s, signalling.SystemClock{}, log)
		sync := syncapi.New(syncapi.Deps{Store: s, Rooms: r, Keys: keys, Unread: rules, Clock: signalling.SystemClock{}, Log: log})
		s.Observe(func(pos int64, notes []storage.Note) { rules.Observe(pos, notes); sync.Observe(pos, notes) })
		h := newHome(t, s, func(_ *accounts.Config, d *Deps) {
			d.Rooms, d.Sync, d.E2EE, d.Push = r, sync, keys, rules
			d.Presence = presence.NewMem(presence.Config{}, signalling.SystemClock{})
		})
		sync.Account, sync.Ignores = h.acc.ForSync(), h.acc
		h.acc.Hook(accounts.Hooks{DeviceDeleted: keys.DeviceDeleted, Logout: keys.ForgetDevice})
		f(h)
	})
}

// loop is one sync loop of a client, at either URL.
type loop struct {
	h      *home
	token  string
	stable bool
	body   map[string]any // but for pos and timeout
	pos    string
}

func (l *loop) try(timeout int) answer {
	l.h.t.Helper()
	if l.stable {
		body := map[string]any{"timeout": timeout}
		if l.pos != "" {
			body["pos"] = l.pos
		}
		for k, v := range l.body {
			body[k] = v
		}
		return l.h.do("POST", "/_matrix/client/v4/sync", l.token, body)
	}
	q := url.Values{"timeout": {fmt.Sprint(timeout)}}
	if l.pos != "" {
		q.Set("pos", l.pos)
	}
	return l.h.do("POST", "/unstable/org.matrix.simplified_msc3575/sync?"+q.Encode(), l.token, l.body)
}

func (l *loop) next(timeout int) gjson.Result {
	l.h.t.Helper()
	r := gjson.Parse(l.try(timeout).ok().body)
	l.pos = r.Get("pos").Str
	return r
}

// state writes required_state in the words of the loop.
func (l *loop) state(user string, pairs ...[2]string) any {
	if !l.stable {
		return pairs
	}
	include, lazy := []map[string]string{}, false
	for _, p := range pairs {
		e := map[string]string{"type": p[0], "state_key": p[1]}
		switch p[1] {
		case "$LAZY":
			lazy = true
			continue
		case "$ME":
			e["state_key"] = user
		case "*":
			delete(e, "state_key")
		}
		include = append(include, e)
	}
	return map[string]any{"include": include, "lazy_members": lazy}
}

func (l *loop) window(to int) {
	list := l.body["lists"].(map[string]any)["all_rooms"].(map[string]any)
	if l.stable {
		list["range"] = []int{0, to}
	} else {
		list["ranges"] = [][]int{{0, to}}
	}
}

func at(r gjson.Result, parent, id string) gjson.Result { return r.Get(parent).Map()[id] }

func (l *loop) bodies(room gjson.Result) string {
	name := "timeline"
	if l.stable {
		name = "timeline_events"
	}
	var out []string
	for _, e := range room.Get(name).Array() {
		if b := e.Get("content.body"); b.Exists() {
			out = append(out, b.Str)
		}
	}
	return fmt.Sprint(out)
}

// What Element X asks for, with its two connections.
var elementState = [][2]string{
	{"m.room.name", ""}, {"m.room.encryption", ""}, {"m.room.member", "$LAZY"}, {"m.room.member", "$ME"}, {"m.room.topic", ""}, {"m.room.avatar", ""},
	{"m.room.canonical_alias", ""}, {"m.room.power_levels", ""}, {"org.matrix.msc3401.call.member", "*"}, {"m.room.join_rules", ""},
	{"m.room.tombstone", ""}, {"m.room.create", ""}, {"m.room.history_visibility", ""}, {"m.space.parent", "*"}, {"m.space.child", "*"},
}

func TestAClientWithARoomListAndAnEncryptionConnection(t *testing.T) {
	eachSlidingHome(t, func(h *home) {
		if flag := gjson.Get(h.do("GET", "/_matrix/client/versions", "", nil).ok().body, "unstable_features").Map()["org.matrix.simplified_msc3575"]; !flag.Bool() {
			t.Error("sliding sync is not advertised")
		}
		aliceToken, _ := h.register("alice")
		for _, stable := range []bool{false, true} {
			name := fmt.Sprint("bob", stable)
			user := "@" + name + ":test"
			bobToken, phone := h.register(name)
			var ids []string
			for i := range 5 {
				id := h.do("POST", "/v3/createRoom", aliceToken, map[string]any{"preset": "public_chat", "name": fmt.Sprint("Room ", i)}).ok().str("room_id")
				h.do("POST", "/v3/join/"+url.PathEscape(id), bobToken, map[string]any{}).ok()
				ids = append(ids, id)
			}
			send := func(room, txn, body string) string {
				return h.do("PUT", "/v3/rooms/"+url.PathEscape(room)+"/send/m.room.message/"+name+txn, aliceToken, map[string]any{"msgtype": "m.text", "body": body}).ok().str("event_id")
			}
			rl := &loop{h: h, token: bobToken, stable: stable}
			rl.body = map[string]any{"conn_id": "room-list",
				"lists":      map[string]any{"all_rooms": map[string]any{"timeline_limit": 1, "required_state": rl.state(user, elementState...), "filters": map[string]any{}}},
				"extensions": map[string]any{"account_data": map[string]any{"enabled": true}, "receipts": map[string]any{"enabled": true, "rooms": []string{"*"}}, "typing": map[string]any{"enabled": true}},
			}
			rl.window(1)
			enc := &loop{h: h, token: bobToken, stable: stable, body: map[string]any{"conn_id": "encryption",
				"extensions": map[string]any{"to_device": map[string]any{"enabled": true}, "e2ee": map[string]any{"enabled": true}}}}

			// The first page, then the rest of the rooms.
			r := rl.next(0)
			if n := len(r.Get("rooms").Map()); n != 2 || r.Get("lists.all_rooms.count").Int() != 5 || at(r, "rooms", ids[4]).Get("name").Str != "Room 4" {
				t.Fatalf("first page: %s", r)
			}
			rl.window(19)
			if r = rl.next(0); len(r.Get("rooms").Map()) != 3 || !at(r, "rooms", ids[0]).Get("initial").Bool() {
				t.Fatalf("the window grows: %s", r)
			}
			e := enc.next(0)
			if e.Get("extensions.to_device.next_batch").Str == "" || e.Get("extensions.e2ee.device_one_time_keys_count.signed_curve25519").Raw != "0" || !e.Get("extensions.e2ee.device_unused_fallback_key_types").IsArray() || len(e.Get("rooms").Map()) != 0 {
				t.Fatalf("encryption: %s", e)
			}

			// A message wakes the room list and not the encryption connection.
			ev := send(ids[2], "1", "hello")
			x := at(rl.next(10_000), "rooms", ids[2])
			if rl.bodies(x) != "[hello]" || x.Get("num_live").Int() != 1 || x.Get("notification_count").Int() != 1 || x.Get("highlight_count").Raw != "0" {
				t.Errorf("a message: %s", x)
			}
			older := x.Get("prev_batch").Str
			p := h.do("GET", "/v3/rooms/"+url.PathEscape(ids[2])+"/messages?dir=b&from="+older, bobToken, nil).ok()
			if strings.Contains(p.body, "hello") || !strings.Contains(p.body, "Room 2") {
				t.Errorf("what came before: %s", p.body)
			}
			h.do("GET", "/v3/rooms/"+url.PathEscape(ids[2])+"/messages?dir=b&from="+url.QueryEscape(rl.pos), bobToken, nil).ok()
			enc.next(0) // takes note of the keys that do not concern it

			// The room is opened: a subscription brings more of it, with its receipts.
			rl.body["room_subscriptions"] = map[string]any{ids[2]: map[string]any{"timeline_limit": 20, "required_state": rl.state(user, append(slices.Clone(elementState), [2]string{"m.room.pinned_events", ""})...)}}
			h.do("POST", "/v3/rooms/"+url.PathEscape(ids[2])+"/receipt/m.read/"+url.PathEscape(ev), aliceToken, map[string]any{}).ok()
			r = rl.next(10_000)
			x = at(r, "rooms", ids[2])
			if flag := map[bool]string{false: "unstable_expanded_timeline", true: "expanded_timeline"}[stable]; !x.Get(flag).Bool() || x.Get("initial").Bool() || rl.bodies(x) != "[hello]" {
				t.Errorf("subscribed: %s", x)
			}
			if rc := at(r, "extensions.receipts.rooms", ids[2]); rc.Get("type").Str != "m.receipt" || !strings.Contains(rc.Raw, "@alice:test") || !strings.Contains(rc.Raw, ev) {
				t.Errorf("receipts: %s", r.Get("extensions"))
			}
			h.do("PUT", "/v3/rooms/"+url.PathEscape(ids[2])+"/typing/@alice:test", aliceToken, map[string]any{"typing": true, "timeout": 60000}).ok()
			if ty := at(rl.next(10_000), "extensions.typing.rooms", ids[2]); ty.Get("content.user_ids.0").Str != "@alice:test" || ty.Get("type").Str != "m.typing" {
				t.Errorf("typing: %s", ty)
			}
			h.do("PUT", "/v3/rooms/"+url.PathEscape(ids[2])+"/typing/@alice:test", aliceToken, map[string]any{"typing": false}).ok()
			if ty := at(rl.next(10_000), "extensions.typing.rooms", ids[2]); ty.Get("content.user_ids").Raw != "[]" {
				t.Errorf("no more typing: %s", ty)
			}
			// The reader's own receipt takes the count away; a private one is his alone.
			h.do("POST", "/v3/rooms/"+url.PathEscape(ids[2])+"/receipt/m.read.private/"+url.PathEscape(ev), bobToken, map[string]any{}).ok()
			r = rl.next(10_000)
			if x = at(r, "rooms", ids[2]); x.Get("notification_count").Raw != "0" || !strings.Contains(r.Get("extensions.receipts").Raw, "m.read.private") || strings.Contains(r.Get("extensions.receipts").Raw, "@alice") {
				t.Errorf("read: %s", r)
			}
			// Account data, global and of a room.
			h.do("PUT", "/v3/user/"+user+"/account_data/m.test", bobToken, map[string]any{"x": 1}).ok()
			if g := rl.next(10_000).Get("extensions.account_data.global"); g.Get("0.type").Str != "m.test" || g.Get("#").Int() != 1 {
				t.Errorf("account data: %s", g)
			}
			h.do("PUT", "/v3/user/"+user+"/rooms/"+url.PathEscape(ids[0])+"/tags/m.favourite", bobToken, map[string]any{"order": 0.5}).ok()
			if g := at(rl.next(10_000), "extensions.account_data.rooms", ids[0]); g.Get("0.type").Str != "m.tag" || !g.Get("0.content.tags").Exists() {
				t.Errorf("account data of a room: %s", g)
			}
			h.do("PUT", "/v3/user/"+user+"/account_data/m.direct", bobToken, map[string]any{"@alice:test": []string{ids[1]}}).ok()
			if r = rl.next(10_000); at(r, "rooms", ids[1]).Get("is_dm").Raw != "true" || r.Get("extensions.account_data.global.0.type").Str != "m.direct" {
				t.Errorf("a direct room: %s", r)
			}
			// A call: the member event of MatrixRTC is asked for by type.
			h.do("PUT", "/v3/rooms/"+url.PathEscape(ids[2])+"/state/org.matrix.msc3401.call.member/_@alice:test_D", aliceToken, map[string]any{"application": "m.call", "who": name}).ok()
			send(ids[2], "2", "ring")
			if x = at(rl.next(10_000), "rooms", ids[2]); rl.bodies(x) != "[ring]" || x.Get("required_state.#").Int() != 1 || x.Get("required_state.0.content.who").Str != name {
				t.Errorf("a call: %s", x)
			}

			// Messages to the device: given until since says that they have arrived, and again after a loss.
			toBob := func(txn string, n int) {
				h.do("PUT", "/v3/sendToDevice/m.test/"+name+txn, aliceToken, map[string]any{"messages": map[string]any{user: map[string]any{phone: map[string]any{"n": n}}}}).ok()
			}
			numbers := func(r gjson.Result) (out []int64) {
				for _, m := range r.Get("extensions.to_device.events.#.content.n").Array() {
					out = append(out, m.Int())
				}
				return out
			}
			since := func(s string) {
				enc.body["extensions"] = map[string]any{"to_device": map[string]any{"enabled": true, "since": s, "limit": 2}, "e2ee": map[string]any{"enabled": true}}
			}
			since(e.Get("extensions.to_device.next_batch").Str)
			toBob("a", 1)
			e = enc.next(10_000)
			if got := numbers(e); !slices.Equal(got, []int64{1}) || e.Get("extensions.to_device.events.0.sender").Str != "@alice:test" {
				t.Fatalf("to-device: %s", e)
			}
			toBob("b", 2)
			if got := numbers(enc.next(0)); !slices.Equal(got, []int64{1, 2}) {
				t.Errorf("not acknowledged: %v", got)
			}
			since(e.Get("extensions.to_device.next_batch").Str)
			toBob("c", 3)
			toBob("d", 4)
			e = enc.next(0)
			if got := numbers(e); !slices.Equal(got, []int64{2, 3}) {
				t.Errorf("a page: %v", got)
			}
			since(e.Get("extensions.to_device.next_batch").Str)
			e = enc.next(0)
			if got := numbers(e); !slices.Equal(got, []int64{4}) {
				t.Errorf("the next page: %v", got)
			}
			since(e.Get("extensions.to_device.next_batch").Str)
			if got := numbers(enc.next(0)); got != nil {
				t.Errorf("acknowledged: %v", got)
			}
			fresh := *enc
			fresh.pos = ""
			fresh.body = map[string]any{"conn_id": "second", "extensions": enc.body["extensions"]}
			if got := numbers(fresh.next(0)); got != nil {
				t.Errorf("another connection: %v", got)
			}
			if err := h.store.Write(context.Background(), func(*storage.Tx) error { return nil }); err != nil { // what is acknowledged is deleted by an earlier write
				t.Fatal(err)
			}
			fresh.body["extensions"] = map[string]any{"to_device": map[string]any{"enabled": true}}
			fresh.pos = ""
			if got := numbers(fresh.next(0)); got != nil {
				t.Errorf("what is acknowledged is gone: %v", got)
			}

			// Keys: the counts of the device, and whose devices changed.
			h.do("POST", "/v3/keys/upload", bobToken, uploadBody(user, phone, 3)).ok()
			e = enc.next(10_000)
			if e.Get("extensions.e2ee.device_one_time_keys_count.signed_curve25519").Int() != 3 || !strings.Contains(e.Get("extensions.e2ee.device_lists.changed").Raw, user) {
				t.Errorf("keys: %s", e)
			}
			if e = enc.next(0); e.Get("extensions.e2ee.device_lists").Exists() {
				t.Errorf("devices changed twice: %s", e)
			}
			carolToken, tablet := h.register("carol" + name)
			h.do("POST", "/v3/keys/upload", carolToken, uploadBody("@carol"+name+":test", tablet, 1)).ok()
			if e = enc.next(0); e.Get("extensions.e2ee.device_lists").Exists() {
				t.Errorf("the devices of a stranger: %s", e)
			}
			h.do("POST", "/v3/join/"+url.PathEscape(ids[3]), carolToken, map[string]any{}).ok()
			if e = enc.next(10_000); e.Get("extensions.e2ee.device_lists.changed").Raw != `["@carol`+name+`:test"]` {
				t.Errorf("somebody comes: %s", e)
			}
			h.do("POST", "/v3/rooms/"+url.PathEscape(ids[3])+"/leave", carolToken, map[string]any{}).ok()
			if e = enc.next(10_000); e.Get("extensions.e2ee.device_lists.left").Raw != `["@carol`+name+`:test"]` {
				t.Errorf("somebody goes: %s", e)
			}

			// What happened while an extension was switched off is told when it is switched on again.
			on := enc.body["extensions"]
			enc.body["extensions"] = map[string]any{}
			h.do("POST", "/v3/join/"+url.PathEscape(ids[3]), carolToken, map[string]any{}).ok()
			if e = enc.next(0); e.Get("extensions").Raw != "{}" {
				t.Errorf("switched off: %s", e)
			}
			enc.body["extensions"] = on
			if e = enc.next(10_000); e.Get("extensions.e2ee.device_lists.changed").Raw != `["@carol`+name+`:test"]` {
				t.Errorf("switched on: %s", e)
			}
			enc.body["extensions"] = map[string]any{}
			h.do("POST", "/v3/rooms/"+url.PathEscape(ids[3])+"/leave", carolToken, map[string]any{}).ok()
			enc.next(0)
			enc.body["extensions"] = on
			if e = enc.next(10_000); e.Get("extensions.e2ee.device_lists.left").Raw != `["@carol`+name+`:test"]` {
				t.Errorf("switched on: %s", e)
			}
			rl.next(0)
			all := rl.body["extensions"]
			rl.body["extensions"] = map[string]any{"receipts": map[string]any{"enabled": true, "lists": []string{}, "rooms": []string{ids[2]}}, "typing": map[string]any{"enabled": true, "lists": []string{"other"}}}
			first := h.do("GET", "/v3/rooms/"+url.PathEscape(ids[0])+"/messages?dir=b&limit=1", bobToken, nil).ok()
			newest := gjson.Get(first.body, "chunk.0.event_id").Str
			h.do("POST", "/v3/rooms/"+url.PathEscape(ids[0])+"/receipt/m.read/"+url.PathEscape(newest), aliceToken, map[string]any{}).ok()
			h.do("PUT", "/v3/rooms/"+url.PathEscape(ids[0])+"/typing/@alice:test", aliceToken, map[string]any{"typing": true, "timeout": 60000}).ok()
			h.do("PUT", "/v3/user/"+user+"/account_data/m.late", bobToken, map[string]any{"x": 2}).ok()
			h.do("PUT", "/v3/user/"+user+"/rooms/"+url.PathEscape(ids[0])+"/account_data/m.late", bobToken, map[string]any{"x": 3}).ok()
			if r = rl.next(0); r.Get("extensions").Raw != "{}" {
				t.Errorf("not of these rooms: %s", r)
			}
			rl.body["extensions"] = all
			r = rl.next(10_000)
			if g := at(r, "extensions.receipts.rooms", ids[0]); !strings.Contains(g.Raw, newest) || len(r.Get("extensions.receipts.rooms").Map()) != 1 {
				t.Errorf("receipts that came late: %s", r)
			}
			if g := at(r, "extensions.typing.rooms", ids[0]); g.Get("content.user_ids.0").Str != "@alice:test" {
				t.Errorf("typing that came late: %s", r)
			}
			if g := r.Get("extensions.account_data"); g.Get("global.#").Int() != 1 || g.Get("global.0.type").Str != "m.late" || at(g, "rooms", ids[0]).Get("0.type").Str != "m.late" {
				t.Errorf("account data that came late: %s", r)
			}
			h.do("PUT", "/v3/rooms/"+url.PathEscape(ids[0])+"/typing/@alice:test", aliceToken, map[string]any{"typing": false}).ok()

			// The connection is lost: the client is told so and begins again.
			rl.pos = strings.Replace(rl.pos, "-", "-x", 1)
			a := rl.try(0)
			wantError(t, "a lost connection", a.status, a.body, 400, "M_UNKNOWN_POS")
			rl.pos = ""
			if r = rl.next(0); len(r.Get("rooms").Map()) != 5 || at(r, "rooms", ids[1]).Get("is_dm").Raw != "true" || len(r.Get("extensions.account_data.global").Array()) != 3 {
				t.Errorf("a new beginning: %s", r)
			}
			if got := at(r, "extensions.account_data.rooms", ids[0]); got.Get("#").Int() != 2 {
				t.Errorf("account data again: %s", r.Get("extensions"))
			}
			// An ignored user is not heard.
			h.do("PUT", "/v3/user/"+user+"/account_data/m.ignored_user_list", bobToken, map[string]any{"ignored_users": map[string]any{"@alice:test": map[string]any{}}}).ok()
			rl.next(0)
			send(ids[2], "3", "psst")
			if r = rl.next(0); strings.Contains(r.Raw, "psst") {
				t.Errorf("an ignored user: %s", r)
			}
		}
	})
}

func TestSlidingSyncRefusesWhatItMust(t *testing.T) {
	eachSlidingHome(t, func(h *home) {
		token, _ := h.register("alice")
		const unstable, v4 = "/unstable/org.matrix.simplified_msc3575/sync", "/_matrix/client/v4/sync"
		for _, c := range []struct {
			path, body string
			token      string
			status     int
			code       string
		}{
			{unstable, `{}`, "", 401, "M_MISSING_TOKEN"},
			{v4, `{}`, "", 401, "M_MISSING_TOKEN"},
			{unstable, `[]`, token, 400, "M_BAD_JSON"},
			{v4, `{`, token, 400, "M_NOT_JSON"},
			{v4, ``, token, 400, "M_NOT_JSON"},
			{unstable + "?timeout=x", `{}`, token, 400, "M_INVALID_PARAM"},
			{v4, `{"timeout":-5}`, token, 400, "M_INVALID_PARAM"},
			{unstable + "?pos=nothing", `{}`, token, 400, "M_UNKNOWN_POS"},
			{v4, `{"pos":"s1_1_1-aaaaaaaaaa-1"}`, token, 400, "M_UNKNOWN_POS"},
			{v4, `{"set_presence":"asleep"}`, token, 400, "M_INVALID_PARAM"},
			{unstable + "?set_presence=asleep", `{}`, token, 400, "M_INVALID_PARAM"},
			{v4, `{"pos":7}`, token, 400, "M_BAD_JSON"},
			{v4, `{"lists":{"a":{"timeline_limit":1,"range":[5,1]}}}`, token, 400, "M_INVALID_PARAM"},
			{unstable, `{"lists":{"a":{"ranges":[[0,1]]}}}`, token, 400, "M_MISSING_PARAM"},
			{unstable, `{"conn_id":"` + strings.Repeat("x", MaxBody) + `"}`, token, 413, "M_TOO_LARGE"},
		} {
			a := h.do("POST", c.path, c.token, c.body)
			wantError(t, c.path+" "+c.body[:min(len(c.body), 60)], a.status, a.body, c.status, c.code)
		}
		for value, want := range map[string]string{"offline": "unavailable", "": "online"} {
			h.do("PUT", "/v3/presence/@alice:test/status", token, map[string]any{"presence": "unavailable"}).ok()
			h.do("POST", v4, token, map[string]any{"set_presence": value}).ok()
			if got := h.do("GET", "/v3/presence/@alice:test/status", token, nil).ok().str("presence"); got != want {
				t.Errorf("set_presence %q: %s", value, got)
			}
		}
		for _, p := range []string{unstable, v4} {
			a := h.do("POST", p, token, `{}`).ok()
			if !json.Valid([]byte(a.body)) || gjson.Get(a.body, "pos").Str == "" {
				t.Errorf("%s: %s", p, a.body)
			}
		}
	})
}
