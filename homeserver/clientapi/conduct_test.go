// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// send sends a message and gives its event id.
func (h *home) send(room, token, txn, body string) string {
	h.t.Helper()
	return h.do("PUT", "/v3/rooms/"+url.PathEscape(room)+"/send/m.room.message/"+txn, token, map[string]any{"msgtype": "m.text", "body": body}).ok().str("event_id")
}

// ids gives the event ids of a list of events.
func ids(v any) (out []string) {
	list, _ := v.([]any)
	for _, e := range list {
		id, _ := dig(e, "event_id").(string)
		out = append(out, id)
	}
	return out
}

func TestNothingIsHeardOfIgnoredUsersButState(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		since := h.do("GET", "/v3/sync", alice, nil).ok().str("next_batch")
		h.do("PUT", "/v3/user/@alice:test/account_data/m.ignored_user_list", alice, `{"ignored_users":{"@bob:test":{}}}`).ok()
		bobs := h.do("POST", "/v3/createRoom", bob, `{"invite":["@alice:test"]}`).ok().str("room_id")
		insult := h.send(room, bob, "1", "you fool")
		mine := h.send(room, alice, "1", "who speaks?")
		for _, from := range []string{"", "?since=" + url.QueryEscape(since)} {
			got := h.do("GET", "/v3/sync"+from, alice, nil).ok().m
			if dig(got, "rooms", "invite", bobs) != nil {
				t.Errorf("sync%s shows an invite of an ignored user", from)
			}
			seen := ids(dig(got, "rooms", "join", room, "timeline", "events"))
			if has(seen, insult) || !has(seen, mine) {
				t.Errorf("sync%s: %v, want %s and not %s", from, seen, mine, insult)
			}
		}
		if seen := ids(h.do("GET", path+"/messages?dir=b", alice, nil).ok().m["chunk"]); has(seen, insult) || !has(seen, mine) {
			t.Errorf("messages: %v, want %s and not %s", seen, mine, insult)
		}
		h.do("PUT", "/v3/user/@alice:test/account_data/m.ignored_user_list", alice, `{"ignored_users":{}}`).ok()
		if seen := ids(h.do("GET", path+"/messages?dir=b", alice, nil).ok().m["chunk"]); !has(seen, insult) {
			t.Error("a user who is not ignored any more stays silent")
		}
	})
}

func has(list []string, want string) bool {
	for _, x := range list {
		if x == want {
			return true
		}
	}
	return false
}

func TestAForgottenRoomIsStillLeftOnOtherDevices(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		room := h.do("POST", "/v3/createRoom", alice, `{}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		since := h.do("GET", "/v3/sync", alice, nil).ok().str("next_batch")
		h.do("POST", path+"/leave", alice, `{}`).ok()
		h.do("POST", path+"/forget", alice, `{}`).ok()
		if got := h.do("GET", "/v3/sync?since="+url.QueryEscape(since), alice, nil).ok().m; dig(got, "rooms", "leave", room) == nil {
			t.Error("a device that has the room does not hear that it was left")
		}
		if got := h.do("GET", "/v3/sync?filter="+url.QueryEscape(`{"room":{"include_leave":true}}`), alice, nil).ok().m; dig(got, "rooms", "leave", room) != nil {
			t.Error("a first sync shows a forgotten room")
		}
	})
}

func TestAJoinKeepsTheRestOfItsBodyButNotTheServersWords(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{"foo":"bar","reason":"why not","membership":"ban","join_authorised_via_users_server":"@alice:test"}`).ok()
		got := h.do("GET", "/v3/rooms/"+url.PathEscape(room)+"/state/m.room.member/@bob:test", alice, nil).ok().m
		if got["foo"] != "bar" || got["reason"] != "why not" || got["membership"] != "join" || got["join_authorised_via_users_server"] != nil {
			t.Errorf("member event: %v", got)
		}
		h.do("POST", "/v3/join/"+url.PathEscape(room), alice, `{"reason":7}`).refused(400, "M_BAD_JSON")
		// The names of before v1.1 are served too.
		h.do("GET", "/r0/rooms/"+url.PathEscape(room)+"/joined_members", bob, nil).ok()
	})
}

func TestMembersAreTheOnesOfTheToken(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		carol, _ := h.register("carol")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		got := h.do("GET", "/v3/sync", alice, nil).ok()
		prev := dig(got.m, "rooms", "join", room, "timeline", "prev_batch").(string)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		h.do("POST", path+"/leave", bob, `{}`).ok()
		h.do("POST", "/v3/join/"+url.PathEscape(room), carol, `{}`).ok()
		now := h.do("GET", "/v3/sync", alice, nil).ok().str("next_batch")
		for _, x := range []struct {
			who, at string
			want    int
		}{{alice, prev, 1}, {alice, got.str("next_batch"), 1}, {alice, now, 3}, {bob, now, 2}} {
			if n := len(h.do("GET", path+"/members?at="+url.QueryEscape(x.at), x.who, nil).ok().m["chunk"].([]any)); n != x.want {
				t.Errorf("at %s: %d members, want %d", x.at, n, x.want)
			}
		}
	})
}

func TestSettingsOfADeviceGoWithIt(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		other := h.login("alice", pw, nil).ok()
		for _, typ := range []string{"m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."} {
			h.do("PUT", "/v3/user/@alice:test/account_data/"+typ+other.str("device_id"), alice, `{"is_silenced":true}`).ok()
			h.do("PUT", "/v3/user/@alice:test/account_data/"+typ+"ELSE", alice, `{"is_silenced":true}`).ok()
		}
		h.do("POST", "/v3/logout", other.str("access_token"), `{}`).ok()
		for _, typ := range []string{"m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."} {
			h.do("GET", "/v3/user/@alice:test/account_data/"+typ+other.str("device_id"), alice, nil).refused(404, "M_NOT_FOUND")
			h.do("GET", "/v3/user/@alice:test/account_data/"+typ+"ELSE", alice, nil).ok()
		}
	})
}

func TestStateAfterHasTheMembersOfTheTimelineWhenTheyAreLoadedLazily(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		h.do("POST", "/v3/rooms/"+url.PathEscape(room)+"/leave", bob, `{}`).ok()
		// Who asks in the words of the draft is answered in them: clients that do so look for no other key.
		for param, key := range map[string]string{"use_state_after": "state_after", "org.matrix.msc4222.use_state_after": "org.matrix.msc4222.state_after"} {
			lazy := "/v3/sync?" + param + "=true&filter=" + url.QueryEscape(`{"room":{"state":{"lazy_load_members":true},"include_leave":true}}`)
			got := h.do("GET", lazy, alice, nil).ok().m
			members := map[any]bool{}
			for _, e := range dig(got, "rooms", "join", room, key, "events").([]any) {
				if dig(e, "type") == "m.room.member" {
					members[dig(e, "state_key")] = true
				}
			}
			if !members["@alice:test"] || !members["@bob:test"] {
				t.Errorf("members in %s: %v", key, members)
			}
			left := dig(h.do("GET", lazy, bob, nil).ok().m, "rooms", "leave", room)
			for other := range map[string]bool{"state": true, "state_after": true, "org.matrix.msc4222.state_after": true} {
				if _, ok := left.(map[string]any)[other]; ok != (other == key) {
					t.Errorf("asked by %s, a room that was left has %s: %v", param, other, ok)
				}
			}
		}
	})
}
