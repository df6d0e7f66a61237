// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/notices"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/search"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
)

// newWhole is accounts, rooms and sync over one store, wired as the program does it.
func newWhole(t *testing.T, st *storage.Store) *home {
	t.Helper()
	h := newHome(t, st)
	log := slog.New(slog.DiscardHandler)
	r, err := rooms.New(context.Background(), st, "test", h.clock, log)
	if err != nil {
		t.Fatal(err)
	}
	r.UseProfiles(h.acc.NameAndAvatar)
	h.acc.Hook(accounts.Hooks{ProfileChange: func(ctx context.Context, user string) {
		if err := r.ProfileChanged(ctx, user); err != nil {
			t.Error(err)
		}
	}})
	s := syncapi.New(syncapi.Deps{Store: st, Rooms: r, Account: h.acc.ForSync(), Ignores: h.acc, Clock: h.clock, Log: log})
	st.Observe(s.Observe)
	later := delayed.New(st, r, h.clock, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = later.Run(ctx)
	}()
	h.stop = func() { cancel(); <-done }
	t.Cleanup(h.stop)
	srv := httptest.NewServer(recorded(t, New(Deps{Config: Config{ServerName: "test"}, Clock: h.clock, Accounts: h.acc, Rooms: r, Push: push.New(st, h.clock, log), Delayed: later, Notices: notices.New(st, r, h.acc), Search: search.New(st, h.clock, log), Sync: s})))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

func TestAProfileReachesTheRoomsAndAccountDataReachesSync(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		h.do("PUT", "/v3/profile/@alice:test/avatar_url", alice, `{"avatar_url":"mxc://test/a"}`).ok()
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		member := func(who string) map[string]any {
			return h.do("GET", path+"/state/m.room.member/"+who, bob, nil).ok().m
		}
		if diff := cmp.Diff(map[string]any{"membership": "join", "displayname": "alice", "avatar_url": "mxc://test/a"}, member("@alice:test")); diff != "" {
			t.Error(diff)
		}
		h.do("PUT", "/v3/profile/@alice:test/displayname", alice, `{"displayname":"Alice"}`).ok()
		if diff := cmp.Diff(map[string]any{"membership": "join", "displayname": "Alice", "avatar_url": "mxc://test/a"}, member("@alice:test")); diff != "" {
			t.Error(diff)
		}
		h.do("PUT", "/v3/profile/@alice:test/displayname", alice, `{"displayname":""}`).ok()
		if diff := cmp.Diff(map[string]any{"membership": "join", "avatar_url": "mxc://test/a"}, member("@alice:test")); diff != "" {
			t.Error(diff)
		}

		first := h.do("GET", "/v3/sync", alice, nil).ok().str("next_batch")
		h.do("PUT", "/v3/user/@alice:test/account_data/m.direct", alice, `{"@bob:test":[]}`).ok()
		h.do("PUT", "/v3/user/@alice:test/rooms/"+url.PathEscape(room)+"/tags/m.favourite", alice, `{"order":0.1}`).ok()
		h.do("POST", path+"/read_markers", alice, map[string]any{"m.fully_read": lastEvent(h, path, alice)}).ok()
		got := h.do("GET", "/v3/sync?since="+url.QueryEscape(first), alice, nil).ok()
		global := []any{map[string]any{"type": "m.direct", "content": map[string]any{"@bob:test": []any{}}}}
		if diff := cmp.Diff(map[string]any{"events": global}, got.m["account_data"]); diff != "" {
			t.Error(diff)
		}
		types := map[string]bool{}
		for _, e := range dig(got.m, "rooms", "join", room, "account_data", "events").([]any) {
			types[e.(map[string]any)["type"].(string)] = true
		}
		if !cmp.Equal(types, map[string]bool{"m.tag": true, "m.fully_read": true}) {
			t.Errorf("account data of the room: %v", types)
		}
		if other := h.do("GET", "/v3/sync", bob, nil).ok(); cmp.Equal(other.m["account_data"], got.m["account_data"]) {
			t.Error("bob sees alice's account data")
		}
	})
}

func lastEvent(h *home, path, token string) string {
	chunk := h.do("GET", path+"/messages?dir=b&limit=1", token, nil).ok().m["chunk"].([]any)
	return chunk[0].(map[string]any)["event_id"].(string)
}

func dig(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}
