// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// attacksOnAccounts are C01 to C12, C15, C16, C22, C23, C41, C42 and C45 of the catalogue. C14 has only the links of mails to attack here
// (email_test.go): there is no third-party log-in.
func attacksOnAccounts() []attack {
	who := func(s *siege, token string) answer { return s.do("GET", "/v3/account/whoami", token, nil) }
	return []attack{
		{"C01 a token in the query opens nothing and is not logged", func(s *siege) {
			for _, path := range []string{"/v3/sync", "/v3/account/whoami", "/v3/devices", "/v3/joined_rooms", "/v3/pushrules/"} {
				s.do("GET", path+"?access_token="+s.alice, "", nil).refused(401, "M_MISSING_TOKEN")
			}
			s.do("POST", "/v3/createRoom?access_token="+s.alice, "", `{}`).refused(401, "M_MISSING_TOKEN")
			if strings.Contains(s.log.String(), s.alice) {
				s.t.Error("the log has a token")
			}
		}},
		{"C02 a token ends with the log-out, the device and the account", func(s *siege) {
			token := s.person("ender")
			in := func() string { return s.login("ender", pw, nil).ok().str("access_token") }
			s.do("POST", "/v3/logout", token, `{}`).ok()
			who(s, token).refused(401, "M_UNKNOWN_TOKEN")
			token, other := in(), s.login("ender", pw, map[string]any{"device_id": "GONE"}).ok().str("access_token")
			s.do("POST", "/v3/delete_devices", token, map[string]any{"devices": []string{"GONE"}, "auth": passwordAuth("ender", "")}).ok()
			who(s, other).refused(401, "M_UNKNOWN_TOKEN")
			s.do("POST", "/v3/account/deactivate", token, map[string]any{"auth": passwordAuth("ender", "")}).ok()
			who(s, token).refused(401, "M_UNKNOWN_TOKEN")
			s.do("PUT", "/v3/rooms/"+esc(s.room)+"/send/m.room.message/x", token, `{}`).refused(401, "M_UNKNOWN_TOKEN")
		}},
		{"C03 a token that has run out says so, and only its refresh token helps", func(s *siege) {
			s.person("sleeper")
			l := s.login("sleeper", pw, map[string]any{"refresh_token": true}).ok()
			s.clock.Advance(16 * time.Minute)
			if a := who(s, l.str("access_token")).refused(401, "M_UNKNOWN_TOKEN"); a.m["soft_logout"] != true {
				s.t.Error(a.body)
			}
			s.do("POST", "/v3/refresh", "", map[string]string{"refresh_token": l.str("access_token")}).refused(401, "M_UNKNOWN_TOKEN")
			who(s, s.do("POST", "/v3/refresh", "", map[string]string{"refresh_token": l.str("refresh_token")}).ok().str("access_token")).ok()
		}},
		{"C04 tokens cannot be guessed: one changed character, a cut or a longer token opens nothing", func(s *siege) {
			seen := map[string]bool{}
			for range 50 {
				token := s.login("mallory", pw, map[string]any{"device_id": "GUESS"}).ok().str("access_token")
				if seen[token] || len(token) < 43 {
					s.t.Fatalf("token %d is %q", len(seen), token)
				}
				seen[token] = true
			}
			for i := range s.alice {
				c := byte('A')
				if s.alice[i] == c {
					c = 'B'
				}
				who(s, s.alice[:i]+string(c)+s.alice[i+1:]).refused(401, "M_UNKNOWN_TOKEN")
			}
			who(s, s.alice[:len(s.alice)-1]).refused(401, "M_UNKNOWN_TOKEN")
			who(s, s.alice+"A").refused(401, "M_UNKNOWN_TOKEN")
			who(s, strings.Repeat("A", 100_000)).refused(401, "M_UNKNOWN_TOKEN")
			for _, h := range []string{"Basic YTpi", "Bearer", "Bearer ", "bearer\t" + s.alice} {
				req, _ := http.NewRequestWithContext(s.t.(*testing.T).Context(), "GET", s.url+"/_matrix/client/v3/account/whoami", nil)
				req.Header.Set("Authorization", h)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					s.t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != 401 {
					s.t.Errorf("%q: %d", h, res.StatusCode)
				}
			}
		}},
		{"C05 a refresh token that comes back a second time ends the whole family", func(s *siege) {
			s.person("cousin")
			l := s.login("cousin", pw, map[string]any{"refresh_token": true}).ok()
			refresh := func(token string) answer {
				return s.do("POST", "/v3/refresh", "", map[string]string{"refresh_token": token})
			}
			next := refresh(l.str("refresh_token")).ok()
			who(s, next.str("access_token")).ok()
			refresh(l.str("refresh_token")).refused(401, "M_UNKNOWN_TOKEN")
			who(s, next.str("access_token")).refused(401, "M_UNKNOWN_TOKEN")
			refresh(next.str("refresh_token")).refused(401, "M_UNKNOWN_TOKEN")
		}},
		{"C06 what another user keeps can be neither read nor written", func(s *siege) {
			s.do("PUT", "/v3/user/@alice:test/account_data/x.secret", s.alice, `{"a":"secret"}`).ok()
			filter := s.do("POST", "/v3/user/@alice:test/filter", s.alice, `{"room":{"timeline":{"limit":3}}}`).ok().str("filter_id")
			room := "/v3/user/@alice:test/rooms/" + esc(s.room)
			for _, path := range []string{"/v3/user/@alice:test/account_data/x.secret", room + "/account_data/x", room + "/tags", "/v3/user/@alice:test/filter/" + filter} {
				s.do("GET", path, s.mallory, nil).refused(403, "M_FORBIDDEN")
			}
			for _, path := range []string{"/v3/user/@alice:test/account_data/x.secret", room + "/account_data/x", room + "/tags/t", "/v3/presence/@alice:test/status", "/v3/profile/@alice:test/displayname"} {
				s.do("PUT", path, s.mallory, `{"displayname":"m","presence":"offline"}`).refused(403, "M_FORBIDDEN")
			}
			s.do("DELETE", room+"/tags/t", s.mallory, nil).refused(403, "M_FORBIDDEN")
			s.do("DELETE", "/v3/profile/@alice:test/displayname", s.mallory, nil).refused(403, "M_FORBIDDEN")
			s.do("POST", "/v3/user/@alice:test/filter", s.mallory, `{}`).refused(403, "M_FORBIDDEN")
			s.do("GET", "/v3/sync?filter="+filter+"9", s.mallory, nil).oneOf("M_NOT_FOUND", "M_INVALID_PARAM")
			if got := s.do("GET", "/v3/user/@alice:test/account_data/x.secret", s.alice, nil).ok().str("a"); got != "secret" {
				s.t.Errorf("alice has %q", got)
			}
		}},
		{"C07 another user's devices and pushers do not exist for mallory", func(s *siege) {
			s.do("GET", "/v3/devices/ALICE", s.mallory, nil).refused(404, "M_NOT_FOUND")
			s.do("PUT", "/v3/devices/ALICE", s.mallory, `{"display_name":"mine"}`).refused(404, "M_NOT_FOUND")
			s.do("DELETE", "/v3/devices/ALICE", s.mallory, map[string]any{"auth": passwordAuth("mallory", "")})
			s.do("POST", "/v3/delete_devices", s.mallory, map[string]any{"devices": []string{"ALICE", "WENDY"}, "auth": passwordAuth("mallory", "")})
			if d := s.do("GET", "/v3/devices/ALICE", s.alice, nil).ok(); d.str("display_name") == "mine" {
				s.t.Error(d.body)
			}
			who(s, s.wendy).ok()
			pusher := func(kind any) map[string]any {
				return map[string]any{"pushkey": "k", "kind": kind, "app_id": "a", "app_display_name": "n", "device_display_name": "d", "lang": "en", "append": true, "data": map[string]any{"url": "https://push.example/_matrix/push/v1/notify"}}
			}
			s.do("POST", "/v3/pushers/set", s.alice, pusher("http")).ok()
			s.do("POST", "/v3/pushers/set", s.mallory, pusher(nil)).ok()
			if n := len(s.do("GET", "/v3/pushers", s.mallory, nil).ok().m["pushers"].([]any)); n != 0 {
				s.t.Errorf("mallory sees %d pushers", n)
			}
			if n := len(s.do("GET", "/v3/pushers", s.alice, nil).ok().m["pushers"].([]any)); n != 1 {
				s.t.Errorf("alice has %d pushers", n)
			}
			s.do("POST", "/v3/pushers/set", s.alice, pusher(nil)).ok()
		}},
		{"C08 another user's transactions, messages to devices and key backup stay his", func(s *siege) {
			room := "/v3/rooms/" + esc(s.newRoom(s.alice, `{"preset":"public_chat"}`))
			s.do("POST", room+"/join", s.mallory, `{}`).ok()
			hers := s.do("PUT", room+"/send/m.room.message/same", s.alice, `{"body":"a"}`).ok().str("event_id")
			if his := s.do("PUT", room+"/send/m.room.message/same", s.mallory, `{"body":"m"}`).ok().str("event_id"); his == hers {
				s.t.Error("one transaction id for two users")
			}
			s.do("PUT", "/v3/sendToDevice/x.secret/1", s.bob, `{"messages":{"@alice:test":{"ALICE":{"a":"secret"}}}}`).ok()
			if a := s.do("GET", "/v3/sync", s.mallory, nil).ok(); strings.Contains(a.body, "secret") {
				s.t.Error("mallory got a message for alice")
			}
			v := s.do("POST", "/v3/room_keys/version", s.alice, `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{}}`).ok().str("version")
			for _, path := range []string{"/v3/room_keys/version/" + v, "/v3/room_keys/keys?version=" + v} {
				s.do("GET", path, s.mallory, nil).refused(404, "M_NOT_FOUND")
			}
			s.do("PUT", "/v3/room_keys/keys?version="+v, s.mallory, `{"rooms":{}}`).oneOf("M_NOT_FOUND", "M_WRONG_ROOM_KEYS_VERSION")
			s.do("DELETE", "/v3/room_keys/version/"+v, s.mallory, nil)
			s.do("GET", "/v3/room_keys/version/"+v, s.alice, nil).ok()
		}},
		{"C09 a confirmation is for one operation of one user, by the stage that was asked for", func(s *siege) {
			s.login("alice", pw, map[string]any{"device_id": "SPARE"}).ok()
			session := s.do("DELETE", "/v3/devices/SPARE", s.alice, `{}`).challenged("", "m.login.password")
			try := func(token, path string, auth map[string]any) {
				s.t.Helper()
				if a := s.do("POST", path, token, map[string]any{"auth": auth, "new_password": "taken over 1", "devices": []string{"ALICE"}}); a.status != 401 || a.m["flows"] == nil {
					s.t.Errorf("%s: %d %s", a.what, a.status, a.body)
				}
			}
			for _, path := range []string{"/v3/account/password", "/v3/account/deactivate", "/v3/delete_devices"} {
				try(s.alice, path, passwordAuth("alice", session))
				try(s.mallory, path, passwordAuth("mallory", session))
				for _, stage := range []string{"m.login.dummy", "m.login.registration_token", "m.login.email.identity", "m.login.token", ""} {
					try(s.alice, path, map[string]any{"type": stage, "session": session})
					try(s.alice, path, map[string]any{"type": stage})
				}
			}
			s.do("POST", "/v3/account/password", s.mallory, map[string]any{"auth": passwordAuth("alice", ""), "new_password": "taken over 1"}).oneOf("M_FORBIDDEN")
			s.do("GET", "/v3/devices/SPARE", s.alice, nil).ok()
			s.login("alice", pw, map[string]any{"device_id": "SPARE"}).ok()
		}},
		{"C10 no second account has the name of the first, in any writing", func(s *siege) {
			for _, name := range []string{"alice", "ALICE", "Alice", "@alice:test"} {
				s.do("POST", "/v3/register", "", map[string]any{"username": name, "password": "not hers 123", "auth": map[string]any{"type": "m.login.dummy"}}).oneOf("M_USER_IN_USE", "M_INVALID_USERNAME")
			}
			for _, name := range []string{"аlice", "alice\u200b", "alice ", "alice%00", "alıce"} {
				s.do("POST", "/v3/register", "", map[string]any{"username": name, "password": "not hers 123", "auth": map[string]any{"type": "m.login.dummy"}}).refused(400, "M_INVALID_USERNAME")
			}
			for _, id := range []map[string]any{{"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"}, {"type": "m.id.phone", "country": "DE", "phone": "1"}, {"type": "m.id.user", "user": "@alice:elsewhere"}} {
				s.do("POST", "/v3/login", "", map[string]any{"type": "m.login.password", "identifier": id, "password": pw}).oneOf("M_FORBIDDEN", "M_UNKNOWN", "M_INVALID_PARAM")
			}
			for _, typ := range []string{"m.login.token", "m.login.sso", "m.login.application_service", "m.login.dummy", ""} {
				s.do("POST", "/v3/login", "", map[string]any{"type": typ, "token": "x", "user": "alice", "identifier": map[string]any{"type": "m.id.user", "user": "alice"}}).oneOf("M_UNKNOWN", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_FORBIDDEN")
			}
		}},
		{"C11 whoever is deactivated stays out", func(s *siege) {
			token := s.person("gone")
			s.do("POST", "/v3/account/deactivate", token, map[string]any{"auth": passwordAuth("gone", "")}).ok()
			s.login("gone", pw, nil).refused(403, "M_USER_DEACTIVATED")
			s.do("POST", "/v3/register", "", map[string]any{"username": "gone", "password": pw, "auth": map[string]any{"type": "m.login.dummy"}}).refused(400, "M_USER_IN_USE")
		}},
		{"C12 no password is in the database, not even while it changes", func(s *siege) {
			token := s.person("changer")
			const secret = "needle-in-the-haystack-77"
			session := s.do("POST", "/v3/account/password", token, map[string]any{"new_password": secret}).challenged("", "m.login.password")
			wrong := passwordAuth("changer", session)
			wrong["password"] = secret
			s.do("POST", "/v3/account/password", token, map[string]any{"new_password": secret, "auth": wrong}).challenged("M_FORBIDDEN", "m.login.password")
			s.do("POST", "/v3/account/password", token, map[string]any{"new_password": secret, "auth": passwordAuth("changer", session)}).ok()
			s.login("changer", secret, nil).ok()
			files, err := filepath.Glob(filepath.Join(s.dir, "*"))
			if err != nil || len(files) == 0 {
				s.t.Fatal(files, err)
			}
			found := false
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					s.t.Fatal(err)
				}
				found = found || strings.Contains(string(b), "changer")
				for _, needle := range []string{secret, pw, token, s.alice} {
					if strings.Contains(string(b), needle) {
						s.t.Errorf("%s holds %q", filepath.Base(f), needle)
					}
				}
			}
			if !found {
				s.t.Error("these files are not the database")
			}
			if log := s.log.String(); strings.Contains(log, secret) || strings.Contains(log, pw) {
				s.t.Error("the log has a password")
			}
		}},
		{"C15 a forged signature is told of and kept nowhere", func(s *siege) {
			s.do("POST", "/v3/keys/upload", s.alice, uploadBody("@alice:test", "ALICE", 0)).ok()
			before := s.do("POST", "/v3/keys/query", s.alice, `{"device_keys":{"@alice:test":[]}}`).ok()
			device := gjson.Get(before.body, `device_keys.@alice:test.ALICE`)
			var forged map[string]any = map[string]any{}
			device.ForEach(func(k, v gjson.Result) bool {
				if k.Str != "unsigned" {
					forged[k.Str] = v.Value()
				}
				return true
			})
			_, key := newKey()
			delete(forged, "signatures")
			signedWith(forged, "@mallory:test", "ed25519:MALLORY", key)
			for _, token := range []string{s.mallory, s.alice} {
				a := s.do("POST", "/v3/keys/signatures/upload", token, map[string]any{"@alice:test": map[string]any{"ALICE": forged}}).ok()
				if !gjson.Get(a.body, `failures.@alice:test.ALICE.errcode`).Exists() {
					s.t.Errorf("a forged signature: %s", a.body)
				}
			}
			after := s.do("POST", "/v3/keys/query", s.alice, `{"device_keys":{"@alice:test":[]}}`).ok()
			if gjson.Get(after.body, "device_keys").Raw != gjson.Get(before.body, "device_keys").Raw {
				s.t.Errorf("keys were %s and are %s", before.body, after.body)
			}
		}},
		{"C16 a one-time key is given to one of those who ask at once", func(s *siege) {
			token := s.person("keyed")
			s.do("POST", "/v3/keys/upload", token, uploadBody("@keyed:test", "DKEYED", 20)).ok()
			var mu sync.Mutex
			var wg sync.WaitGroup
			got := map[string]int{}
			for i := range 40 {
				wg.Go(func() {
					token := s.mallory
					if i%2 == 0 {
						token = s.bob
					}
					a := s.do("POST", "/v3/keys/claim", token, `{"one_time_keys":{"@keyed:test":{"DKEYED":"signed_curve25519"}}}`)
					mu.Lock()
					defer mu.Unlock()
					gjson.Get(a.body, `one_time_keys.@keyed:test.DKEYED`).ForEach(func(id, _ gjson.Result) bool {
						got[id.Str]++
						return true
					})
				})
			}
			wg.Wait()
			for id, n := range got {
				if n != 1 {
					s.t.Errorf("%s was given %d times", id, n)
				}
			}
			if len(got) != 20 {
				s.t.Errorf("%d keys were given of 20", len(got))
			}
		}},
		{"C22 a guest invites nobody, uploads nothing, and gets no relay and no directory", func(s *siege) {
			guest := s.do("POST", "/v3/register?kind=guest", "", `{}`).ok().str("access_token")
			room := "/v3/rooms/" + esc(s.room)
			for _, x := range [][2]string{{"POST", "/v3/createRoom"}, {"POST", room + "/invite"}, {"POST", "/v3/knock/" + esc(s.room)}, {"GET", "/v3/voip/turnServer"}, {"POST", "/_matrix/media/v3/upload"}, {"POST", "/_matrix/media/v1/create"},
				{"POST", "/v3/user_directory/search"}, {"PUT", "/v3/directory/room/" + esc("#guest:test")}, {"POST", "/v3/search"}, {"PUT", "/v3/profile/@alice:test/displayname"}, {"POST", "/v3/pushers/set"}, {"POST", "/v3/account/password"}} {
				s.do(x[0], x[1], guest, `{}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
			}
			s.do("PUT", room+"/send/m.room.message/g", guest, `{"body":"x"}`).refused(403, "M_FORBIDDEN")
			closed := s.newRoom(s.alice, `{"preset":"public_chat"}`)
			s.do("POST", "/v3/join/"+esc(closed), guest, `{}`).oneOf("M_FORBIDDEN", "M_GUEST_ACCESS_FORBIDDEN")
		}},
		{"C23 credentials of the relay are for users only", func(s *siege) {
			s.do("GET", "/v3/voip/turnServer", "", nil).refused(401, "M_MISSING_TOKEN")
			s.do("GET", "/v3/voip/turnServer", "nonsense", nil).refused(401, "M_UNKNOWN_TOKEN")
			guest := s.do("POST", "/v3/register?kind=guest", "", `{}`).ok().str("access_token")
			if a := s.do("GET", "/v3/voip/turnServer", guest, nil); strings.Contains(a.body, "relay-password") {
				s.t.Error(a.body)
			}
			if a := s.do("GET", "/v3/voip/turnServer", s.mallory, nil).ok(); a.str("username") != "@mallory:testMALLORY" {
				s.t.Errorf("credentials of somebody else: %s", a.body)
			}
		}},
		{"C41 a nonce of the shared secret serves once", func(s *siege) {
			const path = "/_synapse/admin/v1/register"
			nonce := s.do("GET", path, "", nil).ok().str("nonce")
			body := func(nonce, name, secret, admin string) map[string]any {
				m := hmac.New(sha1.New, []byte(secret))
				m.Write([]byte(nonce + "\x00" + name + "\x00" + pw + "\x00" + admin))
				return map[string]any{"nonce": nonce, "username": name, "password": pw, "mac": hex.EncodeToString(m.Sum(nil))}
			}
			s.do("POST", path, "", body(nonce, "minted", "guess", "notadmin")).refused(403, "M_FORBIDDEN")
			nonce = s.do("GET", path, "", nil).ok().str("nonce")
			raised := body(nonce, "minted", siegeSecret, "notadmin")
			raised["admin"] = true // signed for somebody who is none
			s.do("POST", path, "", raised).refused(403, "M_FORBIDDEN")
			nonce = s.do("GET", path, "", nil).ok().str("nonce")
			s.do("POST", path, "", body(nonce, "minted", siegeSecret, "notadmin")).ok()
			if a := s.do("POST", path, "", body(nonce, "minted2", siegeSecret, "notadmin")); a.status < 400 {
				s.t.Errorf("a nonce served twice: %s", a.body)
			}
			s.login("minted2", pw, nil).refused(403, "M_FORBIDDEN")
		}},
		{"C42 no origin gets an answer with credentials", func(s *siege) {
			for _, origin := range []string{"null", "https://evil.example", "http://test"} {
				for _, method := range []string{"GET", "OPTIONS"} {
					res, _ := ask(s.t.(*testing.T), method, s.url+"/_matrix/client/v3/account/whoami", s.alice, "", "", "Origin", origin, "Access-Control-Request-Method", "PUT")
					if got := res.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" || res.Header.Get("Access-Control-Allow-Credentials") != "" || res.Header.Get("Set-Cookie") != "" {
						s.t.Errorf("%s from %s: %v", method, origin, res.Header)
					}
				}
			}
		}},
		{"C45 no answer and no printed configuration shows a secret", func(s *siege) {
			for _, path := range []string{"/_matrix/client/versions", "/.well-known/matrix/client", "/v3/capabilities", "/v3/login", "/_synapse/admin/v1/register", "/v3/devices", "/v3/account/whoami"} {
				if a := s.do("GET", path, s.mallory, nil); strings.Contains(a.body, siegeSecret) || strings.Contains(a.body, "argon2") || strings.Contains(a.body, s.mallory) {
					s.t.Errorf("%s: %s", path, a.body)
				}
			}
			c := configs.Default()
			c.Redis.URL = "redis://:redis-hidden@127.0.0.1"
			c.Database.URL = "postgres://u:pg-hidden@127.0.0.1/db"
			text, err := c.Effective()
			if err != nil || strings.Contains(text, "hidden") {
				s.t.Error(text, err)
			}
			if strings.Contains(s.log.String(), siegeSecret) {
				s.t.Error("the log has the shared secret")
			}
		}},
	}
}

// attacksByNumber are those that the limits answer, which are on by default: C13, C39 and T02.
func attacksByNumber() []attack {
	return []attack{
		{"C13 passwords cannot be tried at will, and an unknown name looks like a wrong password", func(s *siege) {
			var limitedAt int
			known, unknown := s.login("alice", "wrong horse", nil), s.login("nobody", "wrong horse", nil)
			if known.status != unknown.status || known.body != unknown.body {
				s.t.Errorf("a known name: %d %s, an unknown one: %d %s", known.status, known.body, unknown.status, unknown.body)
			}
			for i := range 100 {
				if a := s.login("alice", fmt.Sprint("wrong horse ", i), nil); a.status == 429 {
					if a.str("errcode") != "M_LIMIT_EXCEEDED" || a.m["retry_after_ms"] == nil {
						s.t.Error(a.body)
					}
					limitedAt = i + 1
					break
				}
			}
			if limitedAt == 0 {
				s.t.Error("a hundred passwords were tried")
			}
			s.do("GET", "/v3/account/whoami", s.alice, nil).ok()
		}},
		{"C39 an address that mallory writes himself is not counted as another", func(s *siege) {
			s.clock.Advance(time.Hour)
			body := `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"bob"},"password":"wrong horse"}`
			last := 0
			for i := range 100 {
				res, _ := ask(s.t.(*testing.T), "POST", s.url+"/_matrix/client/v3/login", "", "application/json", body,
					"X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i), "Forwarded", fmt.Sprintf("for=203.0.113.%d", i), "X-Real-IP", fmt.Sprintf("203.0.113.%d", i))
				if last = res.StatusCode; last == 429 {
					break
				}
			}
			if last != 429 {
				s.t.Errorf("a hundred passwords were tried: %d", last)
			}
		}},
		{"T02 a telephone cannot be made to ring without end", func(s *siege) {
			room := s.newRoom(s.mallory, `{"preset":"private_chat","invite":["@bob:test"]}`)
			s.do("POST", "/v3/join/"+esc(room), s.bob, `{}`).ok()
			rung, refused := 0, 0
			for i := range 200 {
				a := s.do("PUT", fmt.Sprintf("/v3/rooms/%s/send/m.call.invite/%d", esc(room), i), s.mallory, inviteBody(fmt.Sprint("flood", i), 60000))
				switch {
				case a.status == 200:
					rung++
				case a.status == 429 && a.str("errcode") == "M_LIMIT_EXCEEDED":
					refused++
				default:
					s.t.Fatalf("%d %s", a.status, a.body)
				}
			}
			if rung > 60 || refused < 100 {
				s.t.Errorf("%d of 200 invites rang, %d were refused", rung, refused)
			}
			s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.call.hangup/end", s.mallory, `{"call_id":"flood0","version":"1","party_id":"MALLORY","reason":"user_hangup"}`).ok()
		}},
	}
}

func inviteBody(call string, lifetime float64) map[string]any {
	return map[string]any{"call_id": call, "version": "1", "party_id": "P", "lifetime": lifetime, "offer": map[string]any{"type": "offer", "sdp": "v=0\r\n"}}
}

func TestHostileOnAClosedServer(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)), func(c *accounts.Config, _ *Deps) { c.Open, c.Guests = false, false })
	s.besiege(t, []attack{{"C40 a registration token for one is used by one, however many send it at once", func(s *siege) {
		token, err := s.acc.NewRegistrationToken(t.Context(), "", 1, time.Time{})
		if err != nil {
			s.t.Fatal(err)
		}
		session := s.do("POST", "/v3/register", "", `{}`).challenged("", "m.login.registration_token")
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for i := range 20 {
			wg.Go(func() {
				a := s.do("POST", "/v3/register", "", map[string]any{"username": fmt.Sprint("crowd", i), "password": pw, "auth": map[string]any{"type": "m.login.registration_token", "token": token, "session": session}})
				mu.Lock()
				defer mu.Unlock()
				if a.status == 200 {
					made++
				}
			})
		}
		wg.Wait()
		if made != 1 {
			s.t.Errorf("%d accounts were made", made)
		}
		s.do("POST", "/v3/register?kind=guest", "", `{}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
	}}})
}
