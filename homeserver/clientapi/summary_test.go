// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestASpaceIsWalkedAsFarAsTheReaderMaySee(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		create := func(body string) string { return h.do("POST", "/v3/createRoom", alice, body).ok().str("room_id") }
		space := create(`{"preset":"public_chat","name":"Space","creation_content":{"type":"m.space"}}`)
		inner := create(`{"preset":"public_chat","creation_content":{"type":"m.space"}}`)
		first, second, deep := create(`{"preset":"public_chat"}`), create(`{"preset":"public_chat"}`), create(`{"preset":"public_chat"}`)
		secret := create(`{"preset":"private_chat"}`)
		members := create(`{"preset":"private_chat","initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"` + space + `"}]}}]}`)
		child := func(of, id, content string) {
			h.do("PUT", "/v3/rooms/"+url.PathEscape(of)+"/state/m.space.child/"+url.PathEscape(id), alice, content).ok()
		}
		child(space, second, `{"via":["test"],"order":"b","suggested":true}`)
		child(space, first, `{"via":["test"],"order":"a"}`)
		child(space, inner, `{"via":["test"]}`)
		child(space, secret, `{"via":["test"],"order":"c"}`)
		child(space, members, `{"via":["test"],"order":"d"}`)
		child(inner, deep, `{"via":["test"]}`)
		child(inner, space, `{"via":["test"]}`) // a circle
		walk := func(who, query string) (ids []string, next string) {
			a := h.do("GET", "/v1/rooms/"+url.PathEscape(space)+"/hierarchy"+query, who, nil).ok()
			for _, r := range a.m["rooms"].([]any) {
				ids = append(ids, dig(r, "room_id").(string))
			}
			return ids, a.str("next_batch")
		}
		want := func(what string, got []string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		all, _ := walk(alice, "")
		want("alice sees all", all, space, first, second, secret, members, inner, deep)
		all, _ = walk(bob, "")
		want("bob is not in it", all, space, first, second, inner, deep)
		h.do("POST", "/v3/join/"+url.PathEscape(space), bob, `{}`).ok()
		all, _ = walk(bob, "")
		want("bob is in the space", all, space, first, second, members, inner, deep)
		all, _ = walk(bob, "?suggested_only=true")
		want("suggested", all, space, second)
		all, _ = walk(bob, "?max_depth=1")
		want("one deep", all, space, first, second, members, inner)
		var paged []string
		for next, i := "", 0; i == 0 || next != ""; i++ {
			q := "?limit=2"
			if next != "" {
				q += "&from=" + url.QueryEscape(next)
			}
			var page []string
			page, next = walk(bob, q)
			paged = append(paged, page...)
		}
		want("in pages", paged, space, first, second, members, inner, deep)
		h.do("GET", "/v1/rooms/"+url.PathEscape(secret)+"/hierarchy", bob, nil).refused(403, "M_FORBIDDEN")
		h.do("GET", "/v1/rooms/"+url.PathEscape(space)+"/hierarchy?limit=0", bob, nil).refused(400, "M_INVALID_PARAM")

		s := h.do("GET", "/v1/room_summary/"+url.PathEscape(space), "", nil).ok().m
		if s["name"] != "Space" || s["room_type"] != "m.space" || s["num_joined_members"] != 2.0 || s["join_rule"] != "public" || s["membership"] != nil {
			t.Errorf("summary for a stranger: %v", s)
		}
		if s := h.do("GET", "/unstable/im.nheko.summary/summary/"+url.PathEscape(members), bob, nil).ok().m; s["membership"] != "leave" || !cmp.Equal(s["allowed_room_ids"], []any{space}) {
			t.Errorf("summary of a restricted room: %v", s)
		}
		h.do("GET", "/v1/room_summary/"+url.PathEscape(members), "", nil).refused(404, "M_NOT_FOUND")
		h.do("GET", "/v1/room_summary/"+url.PathEscape(secret), bob, nil).refused(404, "M_NOT_FOUND")
	})
}

func TestEventsAreFoundByTime(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		mallory, _ := h.register("mallory")
		room := h.do("POST", "/v3/createRoom", alice, `{}`).ok().str("room_id")
		h.clock.Advance(time.Hour)
		one, at := h.send(room, alice, "1", "one"), h.clock.Now().UnixMilli()
		h.clock.Advance(time.Hour)
		two := h.send(room, alice, "2", "two")
		ask := func(who string, ts int64, dir string) answer {
			return h.do("GET", fmt.Sprintf("/v1/rooms/%s/timestamp_to_event?ts=%d&dir=%s", url.PathEscape(room), ts, dir), who, nil)
		}
		for _, x := range []struct {
			ts   int64
			dir  string
			want string
		}{{at, "f", one}, {at, "b", one}, {at + 1, "f", two}, {at + 1, "b", one}, {at - 1, "f", one}, {at * 2, "b", two}} {
			if got := ask(alice, x.ts, x.dir).ok().str("event_id"); got != x.want {
				t.Errorf("%d %s: %s, want %s", x.ts-at, x.dir, got, x.want)
			}
		}
		ask(alice, at*2, "f").refused(404, "M_NOT_FOUND")
		ask(alice, 1, "b").refused(404, "M_NOT_FOUND")
		ask(alice, 1, "x").refused(400, "M_INVALID_PARAM")
		ask(mallory, at, "f").refused(403, "M_FORBIDDEN")
	})
}

func TestReportsAreKeptAndTellNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		mallory, _ := h.register("mallory")
		room := h.do("POST", "/v3/createRoom", alice, `{}`).ok().str("room_id")
		event := h.send(room, alice, "1", "spam")
		path := "/v3/rooms/" + url.PathEscape(room) + "/report"
		h.do("POST", path+"/"+url.PathEscape(event), alice, `{"reason":"spam","score":-100}`).ok()
		h.do("POST", path, alice, `{"reason":"the room"}`).ok()
		h.do("POST", "/v3/users/@mallory:test/report", alice, `{"reason":"him"}`).ok()
		h.do("POST", "/v3/users/@nobody:test/report", alice, `{"reason":"who?"}`).ok()
		h.do("POST", path+"/"+url.PathEscape(event), mallory, `{}`).refused(404, "M_NOT_FOUND")
		h.do("POST", path, alice, `{"reason":5}`).refused(400, "M_BAD_JSON")
		h.do("POST", path, alice, map[string]string{"reason": strings.Repeat("x", 3000)}).refused(413, "M_TOO_LARGE")
		rows, err := st.Reports(t.Context(), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range rows {
			got = append(got, strings.Join([]string{x.Reporter, x.RoomID, x.EventID, x.UserID, x.Reason}, " "))
		}
		want := []string{"@alice:test   @mallory:test him", "@alice:test " + room + "   the room", "@alice:test " + room + " " + event + " @alice:test spam"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnOpenIDTokenSaysWhoSomebodyIsForAWhile(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		const path = "/v3/user/@alice:test/openid/request_token"
		h.do("POST", path, bob, `{}`).refused(403, "M_FORBIDDEN")
		got := h.do("POST", path, alice, `{}`).ok()
		token := got.str("access_token")
		if got.m["token_type"] != "Bearer" || got.m["matrix_server_name"] != "test" || got.m["expires_in"] != 3600.0 {
			t.Errorf("token: %v", got.m)
		}
		info := func(token string) answer {
			return h.do("GET", openIDInfo+"?access_token="+url.QueryEscape(token), "", nil)
		}
		if sub := info(token).ok().str("sub"); sub != "@alice:test" {
			t.Errorf("sub is %q", sub)
		}
		if !Serves(openIDInfo) {
			t.Error("the program would not send the request here")
		}
		flipped := []byte(token)
		flipped[3] ^= 1
		for _, bad := range []string{string(flipped), alice, "nonsense", "@alice:test"} {
			info(bad).refused(401, "M_UNKNOWN_TOKEN")
		}
		info("").refused(401, "M_MISSING_TOKEN")
		h.do("GET", "/v3/account/whoami", token, nil).refused(401, "M_UNKNOWN_TOKEN") // it opens nothing else
		h.clock.Advance(time.Hour)
		info(token).refused(401, "M_UNKNOWN_TOKEN")
	})
}
