// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestUserNamesFollowTheGrammar(t *testing.T) {
	eachHome(t, func(h *home) {
		try := func(name string) answer {
			return h.do("POST", "/v3/register", "", map[string]any{"username": name, "password": pw, "auth": map[string]any{"type": "m.login.dummy"}})
		}
		for _, bad := range []string{"a!b", `a"b`, "a:b", "a?b", `a\b`, "@a", "a[", "a]", "a{", "a|", "a}", "a£", "é", "a\nb", "a'b", "a b", "_a", strings.Repeat("x", 250)} {
			try(bad).refused(400, "M_INVALID_USERNAME")
		}
		for _, good := range []string{"q", "3", "a.b", "a_b", "a=b", "a-b", "a/b", "a+b", "UPPER"} {
			if got := try(good).ok().str("user_id"); got != "@"+strings.ToLower(good)+":test" {
				t.Errorf("%s became %s", good, got)
			}
		}
		try("upper").refused(400, "M_USER_IN_USE")
		h.do("GET", "/v3/register/available?username=upper", "", nil).refused(400, "M_USER_IN_USE")
		h.do("GET", "/v3/register/available?username=a,b", "", nil).refused(400, "M_INVALID_USERNAME")
		if a := h.do("GET", "/v3/register/available?username=free", "", nil).ok(); a.m["available"] != true {
			t.Error(a.body)
		}
		if id := h.do("POST", "/v3/register", "", map[string]any{"password": pw, "auth": map[string]any{"type": "m.login.dummy"}}).ok().str("user_id"); len(id) < 10 {
			t.Errorf("made up: %q", id)
		}
		a := h.do("POST", "/v3/register", "", map[string]any{"username": "quiet", "password": pw, "inhibit_login": true, "auth": map[string]any{"type": "m.login.dummy"}}).ok()
		if a.m["access_token"] != nil || a.m["device_id"] != nil || a.str("user_id") != "@quiet:test" {
			t.Errorf("inhibit_login: %s", a.body)
		}
		h.do("POST", "/v3/register", "", map[string]any{"username": "weak", "password": "short", "auth": map[string]any{"type": "m.login.dummy"}}).refused(400, "M_WEAK_PASSWORD")
		h.do("POST", "/v3/register", "", map[string]any{"username": "weak", "auth": map[string]any{"type": "m.login.dummy"}}).refused(400, "M_MISSING_PARAM")
		h.do("POST", "/v3/register?kind=guest", "", "{}").refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		h.do("POST", "/v3/register?kind=robot", "", "{}").refused(400, "M_INVALID_PARAM")
	})
}

func TestTheSameNameIsGivenOnceEvenToAHundredAtOnce(t *testing.T) {
	eachHome(t, func(h *home) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		for range 50 {
			wg.Go(func() {
				res := httptest.NewRecorder()
				_, err := h.acc.Create(t.Context(), accounts.NewUser{Localpart: "popular", Password: pw, Login: &accounts.Login{}})
				if err == nil {
					res.Code = 200
				} else {
					res.Code = signalling.AsError(err).Status
				}
				mu.Lock()
				got[res.Code]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if got[200] != 1 || got[400] != 49 {
			t.Errorf("%v", got)
		}
	})
}

func TestARegistrationTokenServesAsOftenAsItSays(t *testing.T) {
	closed := func(c *accounts.Config, _ *Deps) { c.Open = false }
	eachHome(t, func(h *home) {
		try := func(name, token string) answer {
			return h.do("POST", "/v3/register", "", map[string]any{"username": name, "password": pw, "auth": map[string]any{"type": "m.login.registration_token", "token": token}})
		}
		valid := func(token string) any {
			return h.do("GET", "/_matrix/client/v1/register/m.login.registration_token/validity?token="+token, "", nil).ok().m["valid"]
		}
		try("alice", "x").refused(403, "M_FORBIDDEN")
		h.do("POST", "/v3/register", "", `{}`).refused(403, "M_FORBIDDEN")
		once, err := h.acc.NewRegistrationToken(t.Context(), "", 1, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.acc.NewRegistrationToken(t.Context(), "brief", -1, h.clock.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []struct {
			token string
			uses  int64
		}{{"a b", 1}, {strings.Repeat("x", 65), 1}, {"x", 0}, {"x", -2}, {"brief", 1}} {
			if _, err := h.acc.NewRegistrationToken(t.Context(), bad.token, bad.uses, time.Time{}); signalling.AsError(err).Code != "M_INVALID_PARAM" {
				t.Errorf("%v: %v", bad, err)
			}
		}
		h.do("POST", "/v3/register", "", `{}`).challenged("", "m.login.registration_token")
		try("alice", "x").challenged("M_UNAUTHORIZED", "m.login.registration_token")
		h.do("POST", "/v3/register", "", map[string]any{"username": "alice", "password": pw, "auth": map[string]any{"type": "m.login.dummy"}}).challenged("M_FORBIDDEN", "m.login.registration_token")
		if valid(once) != true || valid("x") != false || valid("") != false {
			t.Error("validity")
		}
		// Fifty people hold the same token; it serves one of them.
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 50 {
			wg.Go(func() {
				_, err := h.acc.Create(t.Context(), accounts.NewUser{Localpart: "u" + string(rune('a'+i%26)) + string(rune('a'+i/26)), Password: pw, Token: once})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if signalling.AsError(err).Code != "M_UNAUTHORIZED" {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 || valid(once) != false {
			t.Errorf("served %d times", won)
		}
		try("bob", once).challenged("M_UNAUTHORIZED", "m.login.registration_token")
		try("bob", "brief").ok()
		try("carol", "brief").ok()
		h.clock.Advance(2 * time.Minute)
		try("dave", "brief").refused(403, "M_FORBIDDEN") // no token is left: registration is closed
		if err := h.acc.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		left, err := h.acc.RegistrationTokens(t.Context())
		if err != nil || len(left) != 1 || left[0].Token != once || left[0].Uses != 0 {
			t.Errorf("left: %+v %v", left, err)
		}
	}, closed)
}

func TestToolsRegisterWithTheSharedSecret(t *testing.T) {
	secret := func(c *accounts.Config, _ *Deps) { c.Open, c.SharedSecret = false, "s3cret" }
	eachHome(t, func(h *home) {
		const path = "/_synapse/admin/v1/register"
		nonce := func() string { return h.do("GET", path, "", nil).ok().str("nonce") }
		mac := func(secret string, fields ...string) string {
			m := hmac.New(sha1.New, []byte(secret))
			m.Write([]byte(strings.Join(fields, "\x00")))
			return hex.EncodeToString(m.Sum(nil))
		}
		n := nonce()
		a := h.do("POST", path, "", map[string]any{"nonce": n, "username": "Root", "password": pw, "admin": true, "displayname": "The root", "mac": mac("s3cret", n, "Root", pw, "admin")}).ok()
		if a.str("user_id") != "@root:test" || a.str("access_token") == "" || a.str("device_id") == "" || a.str("home_server") != "test" {
			t.Error(a.body)
		}
		if u, err := h.acc.User(t.Context(), "@root:test"); err != nil || !u.Admin || u.DisplayName != "The root" {
			t.Errorf("%+v %v", u, err)
		}
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "again", "password": pw, "mac": mac("s3cret", n, "again", pw, "notadmin")}).refused(400, "M_UNKNOWN")
		n = nonce()
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "bob", "password": pw, "mac": mac("guess", n, "bob", pw, "notadmin")}).refused(403, "M_FORBIDDEN")
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "bob", "password": pw, "admin": true, "mac": mac("s3cret", n, "bob", pw, "notadmin")}).refused(403, "M_FORBIDDEN")
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "bob", "password": pw, "mac": "zz"}).refused(403, "M_FORBIDDEN")
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "b,b", "password": pw, "mac": mac("s3cret", n, "b,b", pw, "notadmin")}).refused(400, "M_INVALID_USERNAME")
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "bot", "password": pw, "user_type": "bot", "mac": mac("s3cret", n, "bot", pw, "notadmin", "bot")}).ok()
		n = nonce()
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "bot2", "password": pw, "user_type": "cat", "mac": mac("s3cret", n, "bot2", pw, "notadmin", "cat")}).refused(400, "M_INVALID_PARAM")
		h.clock.Advance(61 * time.Second)
		h.do("POST", path, "", map[string]any{"nonce": n, "username": "late", "password": pw, "mac": mac("s3cret", n, "late", pw, "notadmin")}).refused(400, "M_UNKNOWN")
		h.do("POST", path, "", map[string]any{"nonce": "made up", "username": "x", "password": pw, "mac": mac("s3cret", "made up", "x", pw, "notadmin")}).refused(400, "M_UNKNOWN")
		h.do("POST", path, "", `{"nonce":7}`).refused(400, "M_BAD_JSON")
		h.do("POST", path, "", `{}`).refused(400, "M_MISSING_PARAM")
		if strings.Contains(h.log.String(), "s3cret") {
			t.Error("the secret is in the log")
		}
	}, secret)
	t.Run("closed without a secret", func(t *testing.T) {
		h := newHome(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
		h.do("GET", "/_synapse/admin/v1/register", "", nil).refused(404, "M_UNRECOGNIZED")
		h.do("POST", "/_synapse/admin/v1/register", "", `{"nonce":"a","username":"b","password":"c","mac":"d"}`).refused(404, "M_UNRECOGNIZED")
	})
}
