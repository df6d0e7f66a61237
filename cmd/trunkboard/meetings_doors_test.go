// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling/meeting"
)

func TestAPasswordKeepsStrangersOut(t *testing.T) {
	eachStore(t, func(t *testing.T, set ...string) {
		a, _ := start(t, testConfig(t, set...))
		ann := comes(t, guest(t, a), "m", map[string]any{"display_name": "Ann"}).talks()
		ann.acts("password", map[string]any{"password": "open sesame"})
		ann.until("the state", func() bool { return ann.state.Password && !ann.state.Lobby })
		who := guest(t, a)
		if m := who.must("GET", meetPath("m", ""), nil); m["access"] != "password" || m["subject"] != "" {
			t.Errorf("%v", m)
		}
		for _, wrong := range []any{"", "Open sesame"} {
			who.refused(meetPath("m", "join"), map[string]any{"display_name": "Bob", "password": wrong}, 401, "IO_TRUNKBOARD_PASSWORD")
		}
		bob := comes(t, who, "m", map[string]any{"display_name": "Bob", "password": "open sesame"}).talks()
		if bob.Host {
			t.Error("a password makes no host")
		}
		// Nobody gets past it through Matrix, which asks for none.
		eve := signUp(t, a, "eve")
		if status, m := eve.ask("POST", "/_matrix/client/v3/join/"+url.PathEscape("#meet_m:localhost"), map[string]any{}); status != 403 {
			t.Errorf("%d %v", status, m)
		}
		ann.acts("password", map[string]any{"password": ""})
		comes(t, guest(t, a), "m", map[string]any{"display_name": "Cid"}).in()
	})
}

func TestPasswordsCannotBeGuessedQuickly(t *testing.T) {
	a, _ := start(t, testConfig(t))
	ann := comes(t, guest(t, a), "m", map[string]any{}).in()
	ann.acts("password", map[string]any{"password": "open sesame"})
	who := guest(t, a)
	for try := range 20 {
		status, m := who.ask("POST", meetPath("m", "join"), map[string]any{"password": "wrong"})
		switch {
		case status == 429 && m["errcode"] == "M_LIMIT_EXCEEDED" && m["retry_after_ms"].(float64) > 0:
			// Not even the right one, for now.
			who.refused(meetPath("m", "join"), map[string]any{"password": "open sesame"}, 429, "M_LIMIT_EXCEEDED")
			return
		case status != 401:
			t.Fatalf("try %d: %d %v", try, status, m)
		}
	}
	t.Error("twenty tries in a row")
}

func TestTheLobbyLetsInWhomAHostAdmits(t *testing.T) {
	eachStore(t, func(t *testing.T, set ...string) {
		a, _ := start(t, testConfig(t, append(set, "limits.enabled=false")...))
		ann := comes(t, guest(t, a), "m", map[string]any{"display_name": "Ann"}).talks()
		ann.acts("lobby", map[string]any{"on": true})
		ann.until("the state", func() bool { return ann.state.Lobby })
		if m := ann.must("GET", meetPath("m", ""), nil); m["access"] != "lobby" {
			t.Errorf("%v", m)
		}
		knock := func(name string) *visitor {
			v := comes(t, guest(t, a), "m", map[string]any{"display_name": name})
			if v.status != http.StatusAccepted || !v.Waiting || v.Session == "" || v.Media != nil || v.Matrix != nil {
				t.Fatalf("%d %+v", v.status, v.entry)
			}
			return v
		}
		bob, cid, dee := knock("Bob"), knock("Cid"), knock("Dee")
		ann.until("the knocks", func() bool { return ann.state.Knocking == 3 })
		if status, m := bob.ask("POST", meetPath("m", "token"), map[string]any{"session": bob.Session}); status != 403 {
			t.Errorf("a token for who waits: %d %v", status, m)
		}
		if status, m := bob.act("admit_all", nil); status != 403 {
			t.Errorf("who waits lets himself in: %d %v", status, m)
		}
		answers := make(chan *visitor, 3)
		for _, v := range []*visitor{bob, cid, dee} {
			go func() {
				v.ask1("wait", map[string]any{"session": v.Session})
				answers <- v
			}()
		}
		status, _, text := raw(t, "GET", ann.base+meetPath("m", "knocks"), "", "Session "+ann.Session, "")
		var all struct{ Knocks []meeting.Knock }
		if err := json.Unmarshal([]byte(text), &all); err != nil || status != 200 || len(all.Knocks) != 3 {
			t.Fatalf("%d %s", status, text)
		}
		users := map[string]string{}
		for _, k := range all.Knocks {
			users[k.DisplayName] = k.UserID
			if k.Since == 0 {
				t.Errorf("%+v", k)
			}
		}
		if status, _, text := raw(t, "GET", ann.base+meetPath("m", "knocks"), "", "Session "+bob.Session, ""); status != 403 {
			t.Errorf("who waits sees who waits: %d %s", status, text)
		}
		ann.acts("deny", map[string]any{"user_id": users["Cid"]})
		if v := <-answers; v != cid || v.status != 403 {
			t.Errorf("%s: %d %+v", v.DisplayName, v.status, v.entry)
		}
		ann.acts("admit", map[string]any{"user_id": users["Bob"]})
		if v := <-answers; v != bob {
			t.Errorf("%d %+v", v.status, v.entry)
		}
		bob.talks()
		if status, _ := ann.act("admit", map[string]any{"user_id": users["Bob"]}); status != 404 {
			t.Errorf("admitted twice: %d", status)
		}
		// Without a lobby whoever waits comes in.
		ann.acts("lobby", map[string]any{"on": false})
		if v := <-answers; v != dee {
			t.Errorf("%d %+v", v.status, v.entry)
		}
		dee.talks()
		ann.until("nobody waits", func() bool { return ann.state.Knocking == 0 && !ann.state.Lobby })
		// With a password, who knows it need not wait.
		ann.acts("lobby", map[string]any{"on": true})
		ann.acts("password", map[string]any{"password": "open sesame"})
		knock("Eve")
		comes(t, guest(t, a), "m", map[string]any{"password": "open sesame"}).in()
		fay := comes(t, guest(t, a), "m", map[string]any{"password": "wrong"})
		if fay.status != 401 {
			t.Errorf("%d %+v", fay.status, fay.entry)
		}
		// Who goes again does not wait any more.
		gus := knock("Gus")
		gus.must("POST", meetPath("m", "leave"), map[string]any{"session": gus.Session})
		ann.until("Eve alone", func() bool { return ann.state.Knocking == 1 })
		ann.acts("admit_all", nil)
		ann.until("nobody waits", func() bool { return ann.state.Knocking == 0 })
		// Somebody who knocks in Matrix is one like others.
		hal := signUp(t, a, "hal")
		hal.must("POST", "/_matrix/client/v3/knock/"+url.PathEscape("#meet_m:localhost"), map[string]any{})
		ann.until("Hal", func() bool { return ann.state.Knocking == 1 })
		ann.acts("admit", map[string]any{"user_id": hal.user})
		comes(t, hal, "m", nil).in()
	})
}

func TestWhatChangesInTheRoomChangesTheMeeting(t *testing.T) {
	eachStore(t, func(t *testing.T, set ...string) {
		a, _ := start(t, testConfig(t, append(set, "limits.enabled=false")...))
		ann, bob := signUp(t, a, "ann"), signUp(t, a, "bob")
		hers := comes(t, ann, "m", nil).talks()
		his := comes(t, bob, "m", nil).talks()
		if !hers.Host || his.Host || hers.Matrix.AccessToken != "" || hers.DisplayName != "ann" {
			t.Fatalf("%+v %+v", hers.entry, his.entry)
		}
		room := "/_matrix/client/v3/rooms/" + url.PathEscape(hers.RoomID)
		levels := ann.must("GET", room+"/state/m.room.power_levels", nil)
		set1 := func(level int) {
			levels["users"].(map[string]any)[bob.user] = level
			ann.must("PUT", room+"/state/m.room.power_levels", levels)
		}
		set1(49)
		set1(50)
		began := time.Now()
		his.until("promoted", func() bool { return len(his.state.Hosts) == 2 })
		t.Logf("promoted after %s", time.Since(began))
		his.acts("subject", map[string]any{"subject": "Budget <i>"})
		hers.until("the subject", func() bool { return hers.state.Subject == "Budget <i>" })
		if m := ann.must("GET", room+"/state/m.room.name", nil); m["name"] != "Budget <i>" {
			t.Errorf("%v", m)
		}
		bob.must("PUT", room+"/state/m.room.name", map[string]any{"name": "Numbers"})
		hers.until("the name", func() bool { return hers.state.Subject == "Numbers" })
		// Ann may not take it from her equal in Matrix, but as a host of the meeting.
		hers.acts("demote", map[string]any{"identity": his.Identity})
		his.until("demoted", func() bool { return cmp.Equal(his.state.Hosts, []string{hers.Identity}) })
		if status, _ := his.act("subject", map[string]any{"subject": "x"}); status != 403 {
			t.Errorf("a host no more: %d", status)
		}
		ann.must("POST", room+"/ban", map[string]any{"user_id": bob.user})
		his.until("gone", func() bool { return his.leave != nil })
		if again := comes(t, bob, "m", nil); again.status != 403 {
			t.Errorf("%d %+v", again.status, again.entry)
		}
		dan := comes(t, guest(t, a), "m", nil).talks()
		ann.must("POST", room+"/kick", map[string]any{"user_id": dan.UserID})
		dan.until("gone", func() bool { return dan.leave != nil })
		for end := time.Now().Add(time.Minute); ; { // the sessions end a moment later
			if v := comes(t, guest(t, a), "m", map[string]any{"session": dan.Session}).in(); v.UserID != dan.UserID {
				break
			} else if time.Now().After(end) {
				t.Fatal("the session of whoever was thrown out is good still")
			}
		}
		// Hosts with an account stay hosts; who comes first when they are away is none.
		hers.must("POST", meetPath("m", "leave"), map[string]any{"session": hers.Session})
		hers.until("gone", func() bool { return hers.leave != nil })
		if cid := comes(t, guest(t, a), "m", nil).in(); cid.Host {
			t.Error("a guest took over")
		}
		if back := comes(t, ann, "m", nil).in(); !back.Host {
			t.Error("a host no more")
		}
	})
}

func TestASessionComesBackAfterARestart(t *testing.T) {
	eachStore(t, func(t *testing.T, set ...string) {
		cfg := testConfig(t, set...)
		a, stop := start(t, cfg)
		ann := comes(t, guest(t, a), "m", map[string]any{"display_name": "Ann"}).talks()
		bob := comes(t, guest(t, a), "m", map[string]any{"display_name": "Bob"}).talks()
		ann.until("bob", func() bool { return ann.people[bob.Identity] != nil })
		first := ann.state.Started
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		a, _ = start(t, cfg)
		for _, v := range []*visitor{ann, bob} {
			before := v.entry
			again := comes(t, guest(t, a), "m", map[string]any{"session": v.Session}).talks()
			if again.Identity != before.Identity || again.UserID != before.UserID || again.Host != before.Host || again.DisplayName != before.DisplayName || again.Session != before.Session {
				t.Errorf("%+v\n%+v", before, again.entry)
			}
			again.token = again.Matrix.AccessToken
			again.must("GET", "/_matrix/client/v3/account/whoami", nil)
			again.until("the state", func() bool {
				return again.state.Started == first && cmp.Equal(again.state.Hosts, []string{ann.Identity})
			})
		}
		if m := guest(t, a).must("GET", meetPath("m", ""), nil); m["participants"] != 2.0 {
			t.Errorf("%v", m)
		}
		// A session is for one meeting, and no other secret is one.
		for _, other := range []string{"", "mts_x", ann.Session + "x"} {
			guest(t, a).refused(meetPath("m", "token"), map[string]any{"session": other}, 403, "M_FORBIDDEN")
		}
		guest(t, a).refused(meetPath("n", "token"), map[string]any{"session": ann.Session}, 403, "M_FORBIDDEN")
	})
}

func TestWhoMayBeginAMeetingIsAQuestionOfTheSettings(t *testing.T) {
	const secret = "a secret of enough characters"
	sign := func(claims jwt.MapClaims) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(strings.ReplaceAll(secret, " ", "_")))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	claims := func(room string, more jwt.MapClaims) jwt.MapClaims {
		c := jwt.MapClaims{"iss": "app", "aud": "jitsi", "room": room, "exp": time.Now().Add(time.Hour).Unix()}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	a, _ := start(t, testConfig(t, "meetings.options=create users"))
	who := guest(t, a)
	if m := who.must("GET", meetPath("m", ""), nil); m["may_create"] != false || m["sign_in_required"] != true {
		t.Errorf("%v", m)
	}
	who.refused(meetPath("m", "join"), map[string]any{"display_name": "Bob"}, 403, "IO_TRUNKBOARD_SIGN_IN")
	ann := signUp(t, a, "ann")
	if m := ann.must("GET", meetPath("m", ""), nil); m["may_create"] != true || m["sign_in_required"] != false {
		t.Errorf("%v", m)
	}
	comes(t, ann, "m", nil).in()
	comes(t, who, "m", map[string]any{"display_name": "Bob"}).in()

	a, _ = start(t, testConfig(t, "meetings.options=create nobody"))
	if m := guest(t, a).must("GET", meetPath("m", ""), nil); m["access"] != "closed" || m["may_create"] != false {
		t.Errorf("%v", m)
	}
	guest(t, a).refused(meetPath("m", "join"), map[string]any{}, 404, "M_NOT_FOUND")

	a, _ = start(t, testConfig(t, "limits.enabled=false", "meetings.options=create jwt,jwt app secret="+strings.ReplaceAll(secret, " ", "_")+" audience=jitsi"))
	who = guest(t, a)
	if m := who.must("GET", meetPath("m", ""), nil); m["jwt_required"] != true || m["may_create"] != false {
		t.Errorf("%v", m)
	}
	who.refused(meetPath("m", "join"), map[string]any{}, 403, "IO_TRUNKBOARD_JWT")
	none := jwt.NewWithClaims(jwt.SigningMethodNone, claims("*", nil))
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"rubbish": "x.y.z", "no signature": unsigned, "another room": sign(claims("other", nil)), "run out": sign(claims("m", jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})),
		"another issuer": sign(claims("m", jwt.MapClaims{"iss": "other"})), "another audience": sign(claims("m", jwt.MapClaims{"aud": "x"})),
		"no end": sign(jwt.MapClaims{"iss": "app", "aud": "jitsi", "room": "m"}), "not yet": sign(claims("m", jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()})),
	} {
		if status, m := who.ask("POST", meetPath("m", "join"), map[string]any{"jwt": token}); status != 403 || m["errcode"] != "IO_TRUNKBOARD_JWT" {
			t.Errorf("%s: %d %v", what, status, m)
		}
	}
	user := func(more map[string]any) jwt.MapClaims {
		return jwt.MapClaims{"context": map[string]any{"user": more, "features": map[string]any{"recording": true, "livestreaming": "false"}}}
	}
	first := comes(t, guest(t, a), "M", map[string]any{"display_name": "I say", "jwt": sign(claims("m", user(map[string]any{"name": "Their Name", "avatar": "https://example.org/x.png", "moderator": false})))}).talks()
	if first.Host || first.DisplayName != "Their Name" {
		t.Errorf("%+v", first.entry)
	}
	boss := comes(t, guest(t, a), "m", map[string]any{"jwt": sign(claims("*", user(map[string]any{"name": "Boss", "moderator": "true"})))}).talks()
	if !boss.Host {
		t.Errorf("%+v", boss.entry)
	}
	boss.acts("lobby", map[string]any{"on": true})
	boss.acts("password", map[string]any{"password": "open sesame"})
	if v := comes(t, guest(t, a), "m", map[string]any{"jwt": sign(claims("m", user(map[string]any{"name": "Bob"})))}); v.status != 202 {
		t.Errorf("%d %+v", v.status, v.entry)
	}
	comes(t, guest(t, a), "m", map[string]any{"jwt": sign(claims("m", user(map[string]any{"affiliation": "owner"})))}).in()
	comes(t, guest(t, a), "m", map[string]any{"jwt": sign(claims("m", user(map[string]any{"lobby_bypass": true})))}).in()
}

func TestElementsTokenIsAsGoodAsTheOpenIDTokenInIt(t *testing.T) {
	a, _ := start(t, testConfig(t, "limits.enabled=false"))
	ann, eve := signUp(t, a, "ann"), signUp(t, a, "eve")
	room := ann.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat", "name": "Team"})["room_id"].(string)
	element := func(openID map[string]any, room string) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": "localhost", "sub": "localhost", "aud": "https://localhost", "room": "*",
			"context": map[string]any{
				"matrix": map[string]any{"token": openID["access_token"], "room_id": room, "server_name": openID["matrix_server_name"]},
				"user":   map[string]any{"avatar": "https://example.org/a.png", "name": "Ann E."},
			},
		}).SignedString([]byte("notused"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	body := func(c *caller) map[string]any { return map[string]any{"jwt": element(c.openID(), room)} }
	v := comes(t, guest(t, a), "jitsibase32name", body(ann)).talks()
	if v.UserID != ann.user || v.RoomID != room || v.Matrix != nil || !v.Host || v.DisplayName != "Ann E." || v.Subject != "Team" {
		t.Errorf("%+v", v.entry)
	}
	who := guest(t, a)
	who.refused(meetPath("x", "join"), body(eve), 403, "M_FORBIDDEN")
	forged := ann.openID()
	forged["access_token"] = "x" + forged["access_token"].(string)
	who.refused(meetPath("x", "join"), map[string]any{"jwt": element(forged, room)}, 401, "M_UNAUTHORIZED")
	elsewhere := eve.openID()
	elsewhere["matrix_server_name"] = "elsewhere.example"
	who.refused(meetPath("x", "join"), map[string]any{"jwt": element(elsewhere, room)}, 401, "M_UNAUTHORIZED")
	who.refused(meetPath("x", "join"), map[string]any{"openid": ann.openID()}, 400, "M_MISSING_PARAM")
	who.refused(meetPath("x", "join"), map[string]any{"display_name": "Bob", "room_id": room}, 403, "M_FORBIDDEN")
	// The widget's form, and the Bearer's, lead to the same meeting; what is the room's is changed in the room.
	ann.must("POST", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/invite", map[string]any{"user_id": eve.user})
	eve.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
	w := comes(t, guest(t, a), "other", map[string]any{"openid": eve.openID(), "room_id": room}).talks()
	if w.RoomID != room || w.Host || w.UserID != eve.user {
		t.Errorf("%+v", w.entry)
	}
	hers := comes(t, ann, "third", map[string]any{"room_id": room}).talks()
	for _, action := range []string{"lobby", "password", "subject", "promote", "demote", "admit_all"} {
		if status, _ := hers.act(action, map[string]any{"identity": w.Identity, "on": true}); status != 403 {
			t.Errorf("%s: %d", action, status)
		}
	}
	hers.acts("kick", map[string]any{"identity": w.Identity, "ban": true})
	w.until("out of the media", func() bool { return w.leave != nil })
	if m := ann.must("GET", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/joined_members", nil); len(m["joined"].(map[string]any)) != 2 {
		t.Errorf("a meeting threw somebody out of a room: %v", m)
	}
	// Nobody has made a room under those names.
	if m := who.must("GET", meetPath("other", ""), nil); m["exists"] != false {
		t.Errorf("%v", m)
	}
}

func TestTheMeetingAPIAnswersBadInputAsTheMatrixAPIDoes(t *testing.T) {
	a, _ := start(t, testConfig(t, "limits.enabled=false"))
	who := guest(t, a)
	base := who.base
	if status, h, text := raw(t, "GET", base+"/.well-known/element/jitsi", "", "", ""); status != 200 || strings.TrimSpace(text) != `{"auth":"openidtoken-jwt"}` || h.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d %v %s", status, h, text)
	}
	if m := who.must("GET", "/.well-known/matrix/client", nil); m["io.element.jitsi"] == nil {
		t.Errorf("%v", m)
	}
	long := strings.Repeat("x", 101)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", meetPath(long, ""), "", 400, "M_INVALID_PARAM"},
		{"GET", meetPath("a:b", ""), "", 400, "M_INVALID_PARAM"},
		{"GET", "/_trunkboard/meet/v1/%00", "", 400, "M_INVALID_PARAM"},
		{"GET", "/_trunkboard/meet/v1/%ff", "", 400, "M_INVALID_PARAM"},
		{"GET", "/_trunkboard/meet/v1/a%2Fb%2Fc", "", 400, "M_INVALID_PARAM"},
		{"GET", "/_trunkboard/meet/v1/", "", 404, "M_UNRECOGNIZED"},
		{"GET", "/_trunkboard/meet/v1/a/b", "", 404, "M_UNRECOGNIZED"},
		{"POST", meetPath("m", "join"), "", 400, "M_NOT_JSON"},
		{"POST", meetPath("m", "join"), "[]", 400, "M_BAD_JSON"},
		{"POST", meetPath("m", "join"), `{"display_name":7}`, 400, "M_BAD_JSON"},
		{"POST", meetPath("m", "join"), `{"display_name":"` + strings.Repeat("x", 200) + `"}`, 400, "M_INVALID_PARAM"},
		{"POST", meetPath("m", "join"), `{"display_name":"a\u0000b"}`, 400, "M_BAD_JSON"},
		{"POST", meetPath("m", "join"), `{"avatar_url":"javascript:alert(1)"}`, 400, "M_INVALID_PARAM"},
		{"POST", meetPath("m", "join"), `{"display_name":"` + strings.Repeat("x", 70_000) + `"}`, 413, "M_TOO_LARGE"},
		{"POST", meetPath("m", "wait"), `{}`, 403, "M_FORBIDDEN"},
		{"POST", meetPath("m", "token"), `{"session":"x"}`, 403, "M_FORBIDDEN"},
		{"POST", meetPath("m", "host"), `{"session":"x","action":"end"}`, 403, "M_FORBIDDEN"},
		{"GET", meetPath("m", "knocks"), "", 403, "M_FORBIDDEN"},
		{"GET", meetPath("records", "") + "?name=m", "", 403, "M_FORBIDDEN"},
	} {
		status, _, text := raw(t, c.method, base+c.path, "application/json", "", c.body)
		var m map[string]any
		if json.Unmarshal([]byte(text), &m) != nil || status != c.status || m["errcode"] != c.code {
			t.Errorf("%s %.60s %.60s: %d %s, want %d %s", c.method, c.path, c.body, status, text, c.status, c.code)
		}
	}
	for _, auth := range []string{"Bearer nonsense", "Basic x", "Bearer "} {
		if status, _, text := raw(t, "POST", base+meetPath("m", "join"), "", auth, "{}"); status != 401 {
			t.Errorf("%s: %d %s", auth, status, text)
		}
	}
	// Nothing of this has made a meeting. Two tenants' rooms are two meetings; beacons are text.
	if m := who.must("GET", meetPath("m", ""), nil); m["exists"] != false {
		t.Errorf("%v", m)
	}
	one, two := comes(t, who, "tenant/room", nil).talks(), comes(t, who, "room", nil).in()
	if one.RoomID == two.RoomID || one.DisplayName != "Guest" {
		t.Errorf("%+v %+v", one.entry, two.entry)
	}
	if status, _, text := raw(t, "POST", base+meetPath("tenant/room", "leave"), "text/plain;charset=UTF-8", "", `{"session":"`+one.Session+`"}`); status != 200 || strings.TrimSpace(text) != "{}" {
		t.Errorf("%d %s", status, text)
	}
	one.until("gone", func() bool { return one.leave != nil })
	comes(t, who, "tenant/room", map[string]any{"session": one.Session}).in()
}
