// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func bcryptHash(t *testing.T, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFiltersAreKeptAndGivenBackToTheirOwner(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		const path = "/v3/user/@alice:test/filter"
		const f = `{"room":{"timeline":{"limit":100},"state":{"lazy_load_members":true}},"x":[1,2.5]}`
		id := h.do("POST", path, alice, f).ok().str("filter_id")
		if got := h.do("GET", path+"/"+id, alice, nil).ok(); got.body != f {
			t.Errorf("got %s", got.body)
		}
		if again := h.do("POST", "/v3/user/%40alice%3Atest/filter", alice, f).ok().str("filter_id"); again != id {
			t.Errorf("the same filter has ids %s and %s", id, again)
		}
		if other := h.do("POST", path, alice, `{}`).ok().str("filter_id"); other == id {
			t.Error("two filters with one id")
		}
		for range 2 {
			p, err := h.acc.Filter(t.Context(), "@alice:test", id)
			if err != nil || p.Room.Timeline.Limit != 100 || !p.Room.State.LazyLoadMembers {
				t.Errorf("%+v %v", p, err)
			}
		}
		fresh := newHome(t, h.store)
		if p, err := fresh.acc.Filter(t.Context(), "@alice:test", id); err != nil || p.Room.Timeline.Limit != 100 {
			t.Errorf("after a restart: %+v %v", p, err)
		}
		if _, err := h.acc.Filter(t.Context(), "@bob:test", id); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Error(err)
		}
		h.do("GET", path+"/"+id, bob, nil).refused(403, "M_FORBIDDEN")
		h.do("POST", path, bob, f).refused(403, "M_FORBIDDEN")
		for _, bad := range []string{"99", "x", "-1", "0", "1.0", "99999999999999999999", "+1", "01"} {
			h.do("GET", path+"/"+bad, alice, nil).refused(404, "M_NOT_FOUND")
		}
		for body, code := range map[string]string{`{"room":"x"}`: "M_BAD_JSON", `[]`: "M_BAD_JSON", ``: "M_NOT_JSON", `{"room":{"timeline":{"limit":-1}}}`: "M_INVALID_PARAM"} {
			h.do("POST", path, alice, body).refused(400, code)
		}
		h.do("POST", path, alice, `{"x":"`+strings.Repeat("x", 70000)+`"}`).refused(413, "M_TOO_LARGE")
	})
}

func TestAccountDataIsStoredNotedAndPrivate(t *testing.T) {
	eachHome(t, func(h *home) {
		var notes []storage.Note
		h.store.Observe(func(_ int64, n []storage.Note) { notes = append(notes, n...) })
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		const global, room = "/v3/user/@alice:test/account_data/", "/v3/user/@alice:test/rooms/!r%2F1:test/account_data/"
		h.do("GET", global+"m.direct", alice, nil).refused(404, "M_NOT_FOUND")
		h.do("PUT", global+"m.direct", alice, `{"@bob:test":["!r/1:test"],"nul":"\u0000"}`).ok()
		h.do("PUT", room+"org.x", alice, `{"a":1}`).ok()
		h.do("PUT", room+"org.x", alice, `{"a":2}`).ok()
		if got := h.do("GET", global+"m.direct", alice, nil).ok(); got.body != `{"@bob:test":["!r/1:test"],"nul":"\u0000"}` {
			t.Error(got.body)
		}
		if got := h.do("GET", room+"org.x", alice, nil).ok(); got.body != `{"a":2}` {
			t.Error(got.body)
		}
		h.do("GET", global+"org.x", alice, nil).refused(404, "M_NOT_FOUND")
		for _, p := range []string{global + "m.direct", room + "org.x"} {
			h.do("GET", p, bob, nil).refused(403, "M_FORBIDDEN")
			h.do("PUT", p, bob, `{}`).refused(403, "M_FORBIDDEN")
		}
		pos := h.store.Pos()
		for _, typ := range []string{"m.fully_read", "m.push_rules"} {
			h.do("PUT", global+typ, alice, `{}`).refused(405, "M_BAD_JSON")
			h.do("PUT", room+typ, alice, `{}`).refused(405, "M_BAD_JSON")
		}
		h.do("PUT", global+"x", alice, `[]`).refused(400, "M_BAD_JSON")
		h.do("PUT", global+"x", alice, `"x"`).refused(400, "M_BAD_JSON")
		h.do("PUT", global+"x", alice, `{`).refused(400, "M_NOT_JSON")
		h.do("PUT", global+"x", alice, ``).refused(400, "M_NOT_JSON")
		h.do("PUT", global+"x", alice, `{"x":"`+strings.Repeat("x", 10<<20)+`"}`).refused(413, "M_TOO_LARGE")
		h.do("PUT", global+strings.Repeat("x", 300), alice, `{}`).refused(400, "M_INVALID_PARAM")
		h.do("PUT", "/v3/user/@alice:test/rooms/nonsense/account_data/x", alice, `{}`).refused(400, "M_INVALID_PARAM")
		if h.store.Pos() != pos {
			t.Error("a refused write took a position")
		}
		type note struct {
			Pos        int64
			Room, Data string
		}
		var got []note
		for _, n := range notes {
			if n.Kind == storage.NoteAccountData && n.User == "@alice:test" {
				got = append(got, note{n.Pos, n.Room, string(n.Value.(storage.AccountData).Content)})
			}
		}
		want := []note{{1, "", `{"@bob:test":["!r/1:test"],"nul":"\u0000"}`}, {2, "!r/1:test", `{"a":1}`}, {3, "!r/1:test", `{"a":2}`}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		since, err := h.store.AccountDataSince(t.Context(), "@alice:test", 1, pos)
		if err != nil || len(since) != 1 || since[0].Type != "org.x" || since[0].Pos != 3 {
			t.Errorf("since 1: %+v %v", since, err)
		}
	})
}

func TestTagsComeAndGo(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		const tags = "/v3/user/@alice:test/rooms/!r:test/tags"
		h.do("PUT", tags+"/m.favourite", alice, `{"order":0.5}`).ok()
		h.do("PUT", tags+"/u.work%2Fhome", alice, `{}`).ok()
		want := map[string]any{"tags": map[string]any{"m.favourite": map[string]any{"order": 0.5}, "u.work/home": map[string]any{}}}
		if diff := cmp.Diff(want, h.do("GET", tags, alice, nil).ok().m); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, h.do("GET", "/v3/user/@alice:test/rooms/!r:test/account_data/m.tag", alice, nil).ok().m); diff != "" {
			t.Error(diff)
		}
		h.do("DELETE", tags+"/m.favourite", alice, nil).ok()
		h.do("DELETE", tags+"/u.work%2Fhome", alice, nil).ok()
		if got := h.do("GET", tags, alice, nil).ok(); got.body != `{"tags":{}}` {
			t.Error(got.body)
		}
		h.do("PUT", tags+"/x", alice, `{"order":"first"}`).refused(400, "M_BAD_JSON")
		h.do("PUT", tags+"/x", bob, `{}`).refused(403, "M_FORBIDDEN")
		h.do("GET", tags, bob, nil).refused(403, "M_FORBIDDEN")
		for i := range 100 {
			if err := h.acc.SetTag(t.Context(), "@alice:test", "!r:test", fmt.Sprint(i), []byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
		h.do("PUT", tags+"/one.too.many", alice, `{}`).refused(413, "M_TOO_LARGE")
		h.do("PUT", "/v3/user/@alice:test/rooms/!s:test/account_data/m.tag", alice, `{"tags":"junk"}`).ok()
		if got := h.do("GET", "/v3/user/@alice:test/rooms/!s:test/tags", alice, nil).ok(); got.body != `{"tags":{}}` {
			t.Error(got.body)
		}
	})
}

func TestProfilesAreChangedByTheirOwnerAndReadByAll(t *testing.T) {
	eachHome(t, func(h *home) {
		var changed []string
		h.acc.Hook(accounts.Hooks{ProfileChange: func(_ context.Context, user string) { changed = append(changed, user) }})
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		const p = "/v3/profile/@alice:test"
		if got := h.do("GET", p, "", nil).ok(); got.body != `{"displayname":"alice"}` {
			t.Error(got.body)
		}
		h.do("PUT", p+"/displayname", alice, `{"displayname":"Alice <€>"}`).ok()
		h.do("PUT", p+"/avatar_url", alice, `{"avatar_url":"mxc://test/a"}`).ok()
		h.do("PUT", p+"/m.tz", alice, `{"m.tz":"Europe/Berlin"}`).ok()
		h.do("PUT", p+"/org.x", alice, `{"org.x":{"a":[1]}}`).ok()
		want := map[string]any{"displayname": "Alice <€>", "avatar_url": "mxc://test/a", "m.tz": "Europe/Berlin", "org.x": map[string]any{"a": []any{1.0}}}
		if diff := cmp.Diff(want, h.do("GET", p, bob, nil).ok().m); diff != "" {
			t.Error(diff)
		}
		if got := h.do("GET", p+"/displayname", "", nil).ok(); got.str("displayname") != "Alice <€>" || len(got.m) != 1 {
			t.Error(got.body)
		}
		h.do("PUT", p+"/displayname", alice, `{"displayname":null}`).ok()
		h.do("DELETE", p+"/avatar_url", alice, nil).ok()
		h.do("DELETE", p+"/org.x", alice, nil).ok()
		if got := h.do("GET", p, "", nil).ok(); got.body != `{"m.tz":"Europe/Berlin"}` {
			t.Error(got.body)
		}
		if got := h.do("GET", p+"/avatar_url", "", nil).ok(); got.body != `{}` {
			t.Error(got.body)
		}
		if !cmp.Equal(changed, []string{"@alice:test", "@alice:test", "@alice:test", "@alice:test"}) {
			t.Errorf("told of %v", changed)
		}
		h.do("GET", p+"/org.x", "", nil).refused(404, "M_NOT_FOUND")
		h.do("GET", "/v3/profile/@nobody:test", "", nil).refused(404, "M_NOT_FOUND")
		h.do("GET", "/v3/profile/@alice:elsewhere/displayname", "", nil).refused(404, "M_NOT_FOUND")
		h.do("PUT", p+"/displayname", bob, `{"displayname":"Bob was here"}`).refused(403, "M_FORBIDDEN")
		h.do("DELETE", p+"/m.tz", bob, nil).refused(403, "M_FORBIDDEN")
		for body, code := range map[string]string{`{"displayname":7}`: "M_BAD_JSON", `{"displayname":["x"]}`: "M_BAD_JSON", `{"displayname":"a\u0000b"}`: "M_BAD_JSON", `{}`: "M_MISSING_PARAM", `null`: "M_BAD_JSON"} {
			h.do("PUT", p+"/displayname", alice, body).refused(400, code)
		}
		h.do("PUT", p+"/displayname", alice, map[string]any{"displayname": strings.Repeat("x", 300)}).refused(413, "M_TOO_LARGE")
		h.do("PUT", p+"/avatar_url", alice, map[string]any{"avatar_url": strings.Repeat("x", 3000)}).refused(413, "M_TOO_LARGE")
		h.do("PUT", p+"/big", alice, map[string]any{"big": strings.Repeat("x", 70000)}).refused(400, "M_PROFILE_TOO_LARGE")
		h.do("PUT", p+"/"+strings.Repeat("k", 300), alice, map[string]any{strings.Repeat("k", 300): 1}).refused(400, "M_KEY_TOO_LARGE")
	})
}

// issuer makes credentials that name who they are for.
type issuer struct{ uris []string }

func (i issuer) Issue(user, device string) signalling.ICEServer {
	return signalling.ICEServer{URIs: i.uris, Username: "1:" + user + ":" + device, Credential: `pass"word\`, TTL: time.Hour}
}

func TestTurnServerGivesCredentialsForTheDevice(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, phone := h.register("alice")
		got := h.do("GET", "/v3/voip/turnServer", alice, nil).ok()
		want := map[string]any{"username": "1:@alice:test:" + phone, "password": `pass"word\`, "uris": []any{"turn:t:1?transport=udp", "turns:t:2"}, "ttl": 3600.0}
		if diff := cmp.Diff(want, got.m); diff != "" {
			t.Error(diff)
		}
		h.do("GET", "/v3/voip/turnServer", "", nil).refused(401, "M_MISSING_TOKEN")
		h.do("POST", "/v3/logout", alice, nil).ok()
		h.do("GET", "/v3/voip/turnServer", alice, nil).refused(401, "M_UNKNOWN_TOKEN")
	}, func(_ *accounts.Config, d *Deps) { d.ICE = issuer{[]string{"turn:t:1?transport=udp", "turns:t:2"}} })
	for name, ice := range map[string]ICEIssuer{"no relay": nil, "no addresses": issuer{}} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t, storagetest.Open(t, storagetest.SQLiteURL(t)), func(_ *accounts.Config, d *Deps) { d.ICE = ice })
			alice, _ := h.register("alice")
			if got := h.do("GET", "/v3/voip/turnServer", alice, nil).ok(); got.body != "{}" {
				t.Error(got.body)
			}
		})
	}
}

func TestDiscoveryTellsWhatIsServed(t *testing.T) {
	h := newHome(t, storagetest.Open(t, storagetest.SQLiteURL(t)), func(_ *accounts.Config, d *Deps) {
		d.Config.PublicURL, d.Config.Federation = "https://chat.test", "chat.test:443"
	})
	alice, _ := h.register("alice")
	if got := h.do("GET", "/_matrix/client/versions", "bad token", nil).ok(); !strings.Contains(got.body, `"v1.11"`) || got.m["unstable_features"] == nil {
		t.Error(got.body)
	}
	if got := h.do("GET", "/.well-known/matrix/client", "", nil).ok(); !strings.Contains(got.body, `"base_url":"https://chat.test"`) {
		t.Error(got.body)
	}
	if got := h.do("GET", "/.well-known/matrix/server", "", nil).ok(); got.body != `{"m.server":"chat.test:443"}` {
		t.Error(got.body)
	}
	if got := h.do("GET", "/v3/capabilities", alice, nil).ok(); !strings.Contains(got.body, `"default":"12"`) || !strings.Contains(got.body, `"10":"stable"`) {
		t.Error(got.body)
	}
	if got := h.do("GET", "/v3/account/3pid", alice, nil).ok(); got.body != `{"threepids":[]}` {
		t.Error(got.body)
	}
	h.do("GET", "/v3/capabilities", "", nil).refused(401, "M_MISSING_TOKEN")
	bare := newHome(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	bare.do("GET", "/.well-known/matrix/client", "", nil).refused(404, "M_NOT_FOUND")
	bare.do("GET", "/.well-known/matrix/server", "", nil).refused(404, "M_NOT_FOUND")
	bare.do("GET", "/.well-known/matrix/policy_server", "", nil).refused(404, "M_NOT_FOUND")
}
