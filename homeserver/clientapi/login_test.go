// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

func (h *home) loginToken(token, user string) string {
	h.t.Helper()
	a := h.do("POST", "/v1/login/get_token", token, map[string]any{"auth": passwordAuth(user, "")}).ok()
	if a.m["expires_in_ms"] != 120000.0 {
		h.t.Errorf("life of a log-in token: %s", a.body)
	}
	return a.str("login_token")
}

func (h *home) loginBy(loginToken string) answer {
	h.t.Helper()
	return h.do("POST", "/v3/login", "", map[string]any{"type": "m.login.token", "token": loginToken, "device_id": "SECOND", "initial_device_display_name": "tablet"})
}

func TestALogInTokenLogsASecondDeviceInOnce(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		flow := gjson.Get(h.do("GET", "/v3/login", "", nil).ok().body, `flows.#(type=="m.login.token").get_login_token`)
		if !flow.Bool() {
			t.Error("the log-in flows do not tell of get_login_token")
		}
		if c := gjson.Get(h.do("GET", "/v3/capabilities", alice, nil).ok().body, `capabilities.m\.get_login_token.enabled`); !c.Bool() {
			t.Error("the capability is missing")
		}
		// It asks every time, also right after an answer.
		h.do("POST", "/v1/login/get_token", alice, `{}`).challenged("", "m.login.password")
		token := h.loginToken(alice, "alice")
		h.do("POST", "/v1/login/get_token", alice, `{}`).challenged("", "m.login.password")

		second := h.loginBy(token).ok()
		if second.str("user_id") != "@alice:test" || second.str("device_id") != "SECOND" {
			t.Errorf("logged in: %s", second.body)
		}
		h.do("GET", "/v3/account/whoami", second.str("access_token"), nil).ok()
		h.do("GET", "/v3/account/whoami", alice, nil).ok() // the first device stays
		h.loginBy(token).refused(403, "M_FORBIDDEN")
		h.loginBy("tbl_made_up").refused(403, "M_FORBIDDEN")
		if strings.Contains(h.log.String(), token) {
			t.Error("the log has a log-in token")
		}
	})
}

func TestLogInTokensEnd(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		late := h.loginToken(alice, "alice")
		h.clock.Advance(2*time.Minute + time.Second)
		h.loginBy(late).refused(403, "M_FORBIDDEN")

		changed := h.loginToken(alice, "alice")
		h.do("POST", "/v3/account/password", alice, map[string]any{"new_password": "another long one", "auth": passwordAuth("alice", "")}).ok()
		h.loginBy(changed).refused(403, "M_FORBIDDEN")

		bob, _ := h.register("bob")
		token := h.loginToken(bob, "bob")
		locked := h.loginToken(bob, "bob")
		if err := h.acc.SetLocked(t.Context(), "@bob:test", true); err != nil {
			t.Fatal(err)
		}
		h.loginBy(locked).refused(401, "M_USER_LOCKED")
		if err := h.acc.SetLocked(t.Context(), "@bob:test", false); err != nil {
			t.Fatal(err)
		}
		h.do("POST", "/v3/account/deactivate", bob, map[string]any{"auth": passwordAuth("bob", "")}).ok()
		h.loginBy(token).refused(403, "M_FORBIDDEN")
	})
}

func TestALogInTokenServesOneOfManyWhoSendItAtOnce(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		token := h.loginToken(alice, "alice")
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		for range 20 {
			wg.Go(func() {
				status := h.loginBy(token).status
				mu.Lock()
				got[status]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if got[200] != 1 || got[403] != 19 {
			t.Errorf("%v", got)
		}
	})
}
