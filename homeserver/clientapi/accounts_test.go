// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestRegisterLogInWhoamiLogOut(t *testing.T) {
	eachHome(t, func(h *home) {
		session := h.do("POST", "/v3/register", "", `{"username":"alice","password":"correct horse"}`).challenged("", "m.login.dummy")
		r := h.do("POST", "/v3/register", "", map[string]any{"username": "alice", "password": pw, "device_id": "PHONE", "initial_device_display_name": "My phone",
			"auth": map[string]any{"type": "m.login.dummy", "session": session}}).ok()
		if r.str("user_id") != "@alice:test" || r.str("device_id") != "PHONE" || len(r.str("access_token")) < 43 || r.m["refresh_token"] != nil {
			t.Fatalf("registered: %s", r.body)
		}
		for _, name := range []string{"alice", "@alice:test", "ALICE", "@Alice:test"} {
			l := h.login(name, pw, nil).ok()
			w := h.do("GET", "/v3/account/whoami", l.str("access_token"), nil).ok()
			if w.str("user_id") != "@alice:test" || w.str("device_id") != l.str("device_id") || w.m["is_guest"] != false {
				t.Errorf("%s: %s", name, w.body)
			}
		}
		h.do("POST", "/v3/login", "", map[string]any{"type": "m.login.password", "user": "alice", "password": pw}).ok() // the older form
		second := h.login("alice", pw, map[string]any{"device_id": "PHONE"}).ok().str("access_token")
		h.do("GET", "/v3/account/whoami", r.str("access_token"), nil).refused(401, "M_UNKNOWN_TOKEN") // the device logged in anew
		if d := h.do("GET", "/v3/devices/PHONE", second, nil).ok(); d.str("display_name") != "My phone" {
			t.Errorf("the device lost its name: %s", d.body)
		}
		h.do("POST", "/v3/logout", second, `{}`).ok()
		if a := h.do("GET", "/v3/account/whoami", second, nil).refused(401, "M_UNKNOWN_TOKEN"); a.m["soft_logout"] != false {
			t.Errorf("soft log-out after a log-out: %s", a.body)
		}
		third, fourth := h.login("alice", pw, nil).ok().str("access_token"), h.login("alice", pw, nil).ok().str("access_token")
		h.do("POST", "/v3/logout/all", third, "").ok()
		h.do("GET", "/v3/account/whoami", third, nil).refused(401, "M_UNKNOWN_TOKEN")
		h.do("GET", "/v3/account/whoami", fourth, nil).refused(401, "M_UNKNOWN_TOKEN")
		if log := h.log.String(); strings.Contains(log, pw) || strings.Contains(log, third) {
			t.Errorf("secrets in the log: %s", log)
		}
	})
}

func TestWrongLogInsAreRefusedAlike(t *testing.T) {
	eachHome(t, func(h *home) {
		h.register("alice")
		wrong := h.login("alice", "wrong horse", nil).refused(403, "M_FORBIDDEN")
		nobody := h.login("nobody", pw, nil).refused(403, "M_FORBIDDEN")
		if wrong.body != nobody.body {
			t.Errorf("a stranger can tell who is there: %s %s", wrong.body, nobody.body)
		}
		h.login("@alice:elsewhere", pw, nil).refused(403, "M_FORBIDDEN")
		h.login("alice", "", nil).refused(403, "M_FORBIDDEN")
		h.login("alice", strings.Repeat("x", 100000), nil).refused(403, "M_FORBIDDEN")
		h.login(`'; DROP TABLE users; --`, pw, nil).refused(403, "M_FORBIDDEN")
		h.login("alice", pw, map[string]any{"device_id": strings.Repeat("d", 300)}).refused(400, "M_INVALID_PARAM")
		h.login("alice", pw, map[string]any{"initial_device_display_name": strings.Repeat("d", 300)}).refused(413, "M_TOO_LARGE")
		for body, code := range map[string]string{
			`{}`: "M_UNKNOWN", `{"type":"m.login.token"}`: "M_MISSING_PARAM", `{"type":"m.login.magic","token":"x"}`: "M_UNKNOWN", `{"type":7}`: "M_BAD_JSON", `[]`: "M_BAD_JSON", ``: "M_NOT_JSON",
			`{"type":"m.login.password"}`:                                                                   "M_MISSING_PARAM",
			`{"type":"m.login.password","user":"alice"}`:                                                    "M_MISSING_PARAM",
			`{"type":"m.login.password","identifier":{"type":"m.id.phone"},"password":"x"}`:                 "M_UNKNOWN",
			`{"type":"m.login.password","identifier":"alice","password":"x"}`:                               "M_BAD_JSON",
			`{"type":"m.login.password","identifier":{"type":"m.id.user","user":["a"]},"password":"x"}`:     "M_BAD_JSON",
			`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"a"},"password":null}`:      "M_MISSING_PARAM",
			`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"a\u0000"},"password":"x"}`: "M_BAD_JSON",
		} {
			h.do("POST", "/v3/login", "", body).refused(400, code)
		}
		if f := h.do("GET", "/v3/login", "", nil).ok(); !strings.Contains(f.body, `"m.login.password"`) {
			t.Error(f.body)
		}
	})
}

func TestInteractiveAuthenticationIsBoundToItsOperationAndUser(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		for _, d := range []string{"D1", "D2"} {
			h.login("alice", pw, map[string]any{"device_id": d}).ok()
		}
		session := h.do("DELETE", "/v3/devices/D1", alice, "{}").challenged("", "m.login.password")
		del := func(token, device string, auth any) answer {
			return h.do("DELETE", "/v3/devices/"+device, token, map[string]any{"auth": auth})
		}
		// Another operation, another user, another stage, a made-up session.
		del(alice, "D2", passwordAuth("alice", session)).challenged("M_FORBIDDEN", "m.login.password")
		del(bob, "D1", passwordAuth("bob", session)).challenged("M_FORBIDDEN", "m.login.password")
		del(alice, "D1", map[string]any{"type": "m.login.dummy", "session": session}).challenged("M_FORBIDDEN", "m.login.password")
		del(alice, "D1", map[string]any{"type": "m.login.dummy"}).challenged("M_FORBIDDEN", "m.login.password")
		del(alice, "D1", passwordAuth("alice", strings.Repeat("ab", 36))).challenged("M_FORBIDDEN", "m.login.password")
		del(alice, "D1", passwordAuth("bob", session)).refused(403, "M_FORBIDDEN")
		wrong := passwordAuth("alice", session)
		wrong["password"] = "wrong horse"
		if again := del(alice, "D1", wrong).challenged("M_FORBIDDEN", "m.login.password"); again != session {
			t.Errorf("the session changed after a wrong password")
		}
		del(alice, "D1", map[string]any{"session": session}).challenged("", "m.login.password")
		h.do("DELETE", "/v3/devices/D1", alice, `{"auth":"yes"}`).refused(400, "M_BAD_JSON")
		h.do("GET", "/v3/devices/D1", alice, nil).ok()
		del(alice, "D1", passwordAuth("alice", session)).ok()
		h.do("GET", "/v3/devices/D1", alice, nil).refused(404, "M_NOT_FOUND")
		h.do("GET", "/v3/devices/D2", alice, nil).ok()

		session = h.do("DELETE", "/v3/devices/D2", alice, "").challenged("", "m.login.password")
		h.clock.Advance(61 * time.Minute)
		del(alice, "D2", passwordAuth("alice", session)).challenged("M_FORBIDDEN", "m.login.password")
		h.do("POST", "/v3/delete_devices", alice, map[string]any{"devices": []string{"D2", "nothing"}, "auth": passwordAuth("@alice:test", "")}).ok()
		h.do("GET", "/v3/devices/D2", alice, nil).refused(404, "M_NOT_FOUND")
		h.do("POST", "/v3/delete_devices", alice, `{"devices":"D2"}`).refused(400, "M_BAD_JSON")
		h.do("POST", "/v3/delete_devices", alice, `{}`).refused(400, "M_MISSING_PARAM")
	})
}

func TestDevicesAreSeenOnlyByTheirOwner(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, phone := h.register("alice")
		bob, _ := h.register("bob")
		h.do("PUT", "/v3/devices/"+phone, alice, `{"display_name":"Telefon"}`).ok()
		h.do("PUT", "/v3/devices/"+phone, alice, `{}`).ok()
		h.do("PUT", "/v3/devices/"+phone, alice, `{"display_name":7}`).refused(400, "M_BAD_JSON")
		h.do("PUT", "/v3/devices/"+phone, alice, map[string]any{"display_name": strings.Repeat("x", 500)}).refused(413, "M_TOO_LARGE")
		h.do("PUT", "/v3/devices/NOPE", alice, `{"display_name":"x"}`).refused(404, "M_NOT_FOUND")
		h.do("PUT", "/v3/devices/"+phone, bob, `{"display_name":"mine"}`).refused(404, "M_NOT_FOUND")
		h.do("GET", "/v3/devices/"+phone, bob, nil).refused(404, "M_NOT_FOUND")
		h.clock.Advance(2 * time.Minute)
		h.do("GET", "/v3/account/whoami", alice, nil).ok()
		want := map[string]any{"device_id": phone, "display_name": "Telefon", "last_seen_ip": "127.0.0.1", "last_seen_ts": float64(h.clock.Now().UnixMilli())}
		for range 2 { // from memory, then from the store
			d := h.do("GET", "/v3/devices", alice, nil).ok()
			if diff := cmp.Diff(map[string]any{"devices": []any{want}}, d.m); diff != "" {
				t.Error(diff)
			}
			if err := h.acc.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		h.do("DELETE", "/v3/devices/"+phone, bob, map[string]any{"auth": passwordAuth("bob", "")}).ok() // a device that bob does not have
		h.do("GET", "/v3/account/whoami", alice, nil).ok()
	})
}

func TestARefreshTokenThatComesBackLogsItsDeviceOut(t *testing.T) {
	eachHome(t, func(h *home) {
		h.register("alice")
		var ended []string
		h.acc.Hook(accounts.Hooks{Logout: func(user, device string) { ended = append(ended, user+" "+device) }})
		l := h.login("alice", pw, map[string]any{"refresh_token": true, "device_id": "D"}).ok()
		a1, r1 := l.str("access_token"), l.str("refresh_token")
		if l.m["expires_in_ms"] != float64(15*60*1000) || r1 == "" {
			t.Fatalf("log-in: %s", l.body)
		}
		who := func(token string) answer { return h.do("GET", "/v3/account/whoami", token, nil) }
		refresh := func(token string) answer {
			return h.do("POST", "/v3/refresh", "", map[string]string{"refresh_token": token})
		}
		who(a1).ok()
		h.clock.Advance(16 * time.Minute)
		if a := who(a1).refused(401, "M_UNKNOWN_TOKEN"); a.m["soft_logout"] != true {
			t.Errorf("expired: %s", a.body)
		}
		lost := refresh(r1).ok() // the answer does not arrive
		again := refresh(r1).ok()
		a2, r2 := again.str("access_token"), again.str("refresh_token")
		who(lost.str("access_token")).refused(401, "M_UNKNOWN_TOKEN")
		refresh(lost.str("refresh_token")).refused(401, "M_UNKNOWN_TOKEN")
		who(a2).ok()
		who(a2).ok()
		third := refresh(r2).ok()
		who(a2).ok() // until the new one is used
		who(third.str("access_token")).ok()
		who(a2).refused(401, "M_UNKNOWN_TOKEN")
		if len(ended) != 0 {
			t.Errorf("logged out: %v", ended)
		}
		refresh(r1).refused(401, "M_UNKNOWN_TOKEN")
		who(third.str("access_token")).refused(401, "M_UNKNOWN_TOKEN")
		refresh(third.str("refresh_token")).refused(401, "M_UNKNOWN_TOKEN")
		if !cmp.Equal(ended, []string{"@alice:test D"}) {
			t.Errorf("logged out: %v", ended)
		}
		h.do("POST", "/v3/refresh", "", `{}`).refused(400, "M_MISSING_PARAM")
		refresh("tbr_nonsense").refused(401, "M_UNKNOWN_TOKEN")
		if strings.Contains(h.log.String(), r1) {
			t.Error("a token in the log")
		}
	})
}

func TestUsingTheNextRefreshTokenShowsThatItArrived(t *testing.T) {
	eachHome(t, func(h *home) {
		h.register("alice")
		l := h.login("alice", pw, map[string]any{"refresh_token": true}).ok()
		refresh := func(token string) answer {
			return h.do("POST", "/v3/refresh", "", map[string]string{"refresh_token": token})
		}
		second := refresh(l.str("refresh_token")).ok()
		third := refresh(second.str("refresh_token")).ok() // without the second access token having been used
		h.do("GET", "/v3/account/whoami", third.str("access_token"), nil).ok()
		refresh(l.str("refresh_token")).refused(401, "M_UNKNOWN_TOKEN")
		h.do("GET", "/v3/account/whoami", third.str("access_token"), nil).refused(401, "M_UNKNOWN_TOKEN")
	})
}

func TestANewPasswordLogsTheOthersOut(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		other := h.login("alice", pw, nil).ok().str("access_token")
		h.do("POST", "/v3/account/password", alice, `{"new_password":"battery staple"}`).challenged("", "m.login.password")
		h.do("POST", "/v3/account/password", alice, map[string]any{"new_password": "short", "auth": passwordAuth("alice", "")}).refused(400, "M_WEAK_PASSWORD")
		h.do("POST", "/v3/account/password", alice, map[string]any{"auth": passwordAuth("alice", "")}).refused(400, "M_MISSING_PARAM")
		h.do("GET", "/v3/account/whoami", other, nil).ok()
		h.do("POST", "/v3/account/password", alice, map[string]any{"new_password": "battery staple", "auth": passwordAuth("alice", "")}).ok()
		h.do("GET", "/v3/account/whoami", other, nil).refused(401, "M_UNKNOWN_TOKEN")
		h.do("GET", "/v3/account/whoami", alice, nil).ok()
		h.login("alice", pw, nil).refused(403, "M_FORBIDDEN")
		third := h.login("alice", "battery staple", nil).ok().str("access_token")
		auth := passwordAuth("alice", "")
		auth["password"] = "battery staple"
		h.do("POST", "/v3/account/password", alice, map[string]any{"new_password": pw, "logout_devices": false, "auth": auth}).ok()
		h.do("GET", "/v3/account/whoami", third, nil).ok()
		var stored []string
		u, err := h.store.User(t.Context(), "@alice:test")
		if err != nil {
			t.Fatal(err)
		}
		if stored = strings.Split(u.PasswordHash, "$"); len(stored) != 6 || stored[1] != "argon2id" || strings.Contains(u.PasswordHash, pw) {
			t.Errorf("stored: %s", u.PasswordHash)
		}
	})
}

func TestADeactivatedUserIsGone(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, phone := h.register("alice")
		h.do("PUT", "/v3/profile/@alice:test/displayname", alice, `{"displayname":"Alice"}`).ok()
		var deleted, left []string
		h.acc.Hook(accounts.Hooks{
			DeviceDeleted: func(_ *storage.Tx, user, device string) error {
				deleted = append(deleted[:0], user+" "+device)
				return nil
			},
			Deactivate: func(_ context.Context, user string, erase bool) error { left = append(left, user); return nil },
		})
		h.do("POST", "/v3/account/deactivate", alice, `{}`).challenged("", "m.login.password")
		if a := h.do("POST", "/v3/account/deactivate", alice, map[string]any{"auth": passwordAuth("alice", ""), "erase": true}).ok(); a.str("id_server_unbind_result") != "no-support" {
			t.Error(a.body)
		}
		h.do("GET", "/v3/account/whoami", alice, nil).refused(401, "M_UNKNOWN_TOKEN")
		h.login("alice", pw, nil).refused(403, "M_USER_DEACTIVATED")
		h.do("GET", "/v3/profile/@alice:test", "", nil).refused(404, "M_NOT_FOUND")
		h.do("POST", "/v3/register", "", map[string]any{"username": "alice", "password": pw, "auth": map[string]any{"type": "m.login.dummy"}}).refused(400, "M_USER_IN_USE")
		if !cmp.Equal(deleted, []string{"@alice:test " + phone}) || !cmp.Equal(left, []string{"@alice:test"}) {
			t.Errorf("told of %v, %v", deleted, left)
		}
		if err := h.acc.SetPassword(t.Context(), "@alice:test", pw+"x", true, ""); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Errorf("a password for a deactivated account: %v", err)
		}
	})
}

func TestALockedUserMayOnlyLogOut(t *testing.T) {
	eachHome(t, func(h *home) {
		alice, _ := h.register("alice")
		h.do("GET", "/v3/account/whoami", alice, nil).ok()
		if err := h.acc.SetLocked(t.Context(), "@alice:test", true); err != nil {
			t.Fatal(err)
		}
		if a := h.do("GET", "/v3/account/whoami", alice, nil).refused(401, "M_USER_LOCKED"); a.m["soft_logout"] != true {
			t.Error(a.body)
		}
		h.login("alice", pw, nil).refused(401, "M_USER_LOCKED")
		h.do("POST", "/v3/logout", alice, nil).ok()
		h.do("GET", "/v3/account/whoami", alice, nil).refused(401, "M_UNKNOWN_TOKEN")
		if err := h.acc.SetLocked(t.Context(), "@nobody:test", true); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Error(err)
		}
	})
}

func TestGuestsMayLookAndLittleElse(t *testing.T) {
	guests := func(c *accounts.Config, _ *Deps) { c.Guests = true }
	eachHome(t, func(h *home) {
		a := h.do("POST", "/v3/register?kind=guest", "", `{"device_id":"mine"}`).ok()
		if !strings.HasPrefix(a.str("user_id"), "@guest-") || a.str("device_id") == "mine" {
			t.Error(a.body)
		}
		token := a.str("access_token")
		if w := h.do("GET", "/v3/account/whoami", token, nil).ok(); w.m["is_guest"] != true {
			t.Error(w.body)
		}
		h.do("GET", "/v3/voip/turnServer", token, nil).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		h.do("GET", "/v3/devices", token, nil).ok()
		h.do("POST", "/v3/account/password", token, `{"new_password":"long enough"}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		h.login(a.str("user_id"), "", nil).refused(403, "M_FORBIDDEN")
	}, guests)
}

func TestPasswordsOfOtherServersAreTakenOverAtTheFirstLogIn(t *testing.T) {
	eachHome(t, func(h *home) {
		// "correct horse", cost 4
		if err := h.acc.Import(t.Context(), "old", bcryptHash(t, pw), false); err != nil {
			t.Fatal(err)
		}
		if err := h.acc.Import(t.Context(), "older", "md5:abc", false); signalling.AsError(err).Code != "M_INVALID_PARAM" {
			t.Error(err)
		}
		h.login("old", "wrong horse", nil).refused(403, "M_FORBIDDEN")
		h.login("old", pw, nil).ok()
		u, err := h.store.User(t.Context(), "@old:test")
		if err != nil || !strings.HasPrefix(u.PasswordHash, "$argon2id$") {
			t.Errorf("%s %v", u.PasswordHash, err)
		}
		h.login("old", pw, nil).ok()
	})
}

func TestALogOutOnAnotherNodeIsNoticed(t *testing.T) {
	u := storagetest.PostgresURL(t)
	one, two := newHome(t, storagetest.Open(t, u)), newHome(t, storagetest.Open(t, u))
	alice, _ := one.register("alice")
	for _, h := range []*home{one, two} {
		h.do("GET", "/v3/account/whoami", alice, nil).ok()
	}
	one.do("POST", "/v3/logout", alice, nil).ok()
	one.do("GET", "/v3/account/whoami", alice, nil).refused(401, "M_UNKNOWN_TOKEN")
	two.do("GET", "/v3/account/whoami", alice, nil).ok() // believed for a while
	two.clock.Advance(31 * time.Second)
	two.do("GET", "/v3/account/whoami", alice, nil).refused(401, "M_UNKNOWN_TOKEN")

	bob, _ := one.register("bob")
	two.do("GET", "/v3/account/whoami", bob, nil).ok()
	session := one.do("DELETE", "/v3/devices/X", bob, nil).challenged("", "m.login.password")
	two.do("DELETE", "/v3/devices/X", bob, map[string]any{"auth": passwordAuth("bob", session)}).ok() // sessions are good on every node
	one.do("POST", "/v3/logout", bob, nil).ok()
	two.acc.Forget("@bob:test")
	two.do("GET", "/v3/account/whoami", bob, nil).refused(401, "M_UNKNOWN_TOKEN")
}
