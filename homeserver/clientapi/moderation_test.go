// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func (s *siege) admin(name string) string {
	s.t.Helper()
	token := s.person(name)
	if err := s.acc.SetAdmin(s.t.Context(), "@"+name+":test", true); err != nil {
		s.t.Fatal(err)
	}
	return token
}

func TestAdministratorsLockAndSuspendAccounts(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	root := s.admin("root")
	s.admin("other")
	for what, key := range map[string]string{"lock": "locked", "suspend": "suspended"} {
		path := "/v1/admin/" + what + "/"
		if a := s.do("GET", path+"@mallory:test", root, nil).ok(); a.m[key] != false {
			t.Error(a.body)
		}
		for _, value := range []bool{true, false} {
			if a := s.do("PUT", path+"@mallory:test", root, map[string]bool{key: value}).ok(); a.m[key] != value {
				t.Error(a.body)
			}
			if a := s.do("GET", path+"@mallory:test", root, nil).ok(); a.m[key] != value {
				t.Error(a.body)
			}
		}
		// Who may not ask learns nothing of who is there.
		for _, user := range []string{"@alice:test", "@nobody:test", "@x:elsewhere", "junk"} {
			s.do("GET", path+user, s.mallory, nil).refused(403, "M_FORBIDDEN")
			s.do("PUT", path+user, s.mallory, map[string]bool{key: true}).refused(403, "M_FORBIDDEN")
		}
		s.do("PUT", path+"@x:elsewhere", root, map[string]bool{key: true}).refused(400, "M_INVALID_PARAM")
		s.do("PUT", path+"junk", root, map[string]bool{key: true}).refused(400, "M_INVALID_PARAM")
		s.do("GET", path+"@nobody:test", root, nil).refused(404, "M_NOT_FOUND")
		s.do("PUT", path+"@nobody:test", root, map[string]bool{key: true}).refused(404, "M_NOT_FOUND")
		s.do("PUT", path+"@root:test", root, map[string]bool{key: true}).refused(403, "M_FORBIDDEN")
		s.do("PUT", path+"@other:test", root, map[string]bool{key: true}).refused(403, "M_FORBIDDEN")
		s.do("PUT", path+"@mallory:test", root, `{}`).refused(400, "M_MISSING_PARAM")
		s.do("PUT", path+"@mallory:test", root, `{"`+key+`":"yes"}`).refused(400, "M_BAD_JSON")
	}
	s.do("PUT", "/v1/admin/lock/@mallory:test", root, `{"locked":true}`).ok()
	if a := s.do("GET", "/v3/account/whoami", s.mallory, nil).refused(401, "M_USER_LOCKED"); a.m["soft_logout"] != true {
		t.Error(a.body)
	}
	may := gjson.Get(s.do("GET", "/v3/capabilities", root, nil).ok().body, `capabilities.m\.account_moderation`).Raw
	if may != `{"lock":true,"suspend":true}` || gjson.Get(s.do("GET", "/v3/capabilities", s.alice, nil).ok().body, `capabilities.m\.account_moderation`).Exists() {
		t.Errorf("capability: %s", may)
	}
	s.unaffected()
}

func TestASuspendedUserReadsAndLeavesButReachesNobody(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	root := s.admin("root")
	token := s.person("sue")
	room := s.newRoom(token, `{"preset":"public_chat"}`)
	s.do("POST", "/v3/join/"+esc(room), s.bob, `{}`).ok()
	own := s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.room.message/1", token, `{"body":"mine"}`).ok().str("event_id")
	other := s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.room.message/2", s.bob, `{"body":"his"}`).ok().str("event_id")
	s.do("PUT", "/v1/admin/suspend/@sue:test", root, `{"suspended":true}`).ok()

	base := "/v3/rooms/" + esc(room)
	for _, c := range [][3]string{
		{"POST", "/v3/createRoom", `{}`}, {"POST", "/v3/join/" + esc(s.room), `{}`}, {"POST", "/v3/knock/" + esc(s.room), `{}`}, {"POST", base + "/join", `{}`},
		{"POST", base + "/invite", `{"user_id":"@wendy:test"}`}, {"POST", base + "/kick", `{"user_id":"@bob:test"}`}, {"POST", base + "/ban", `{"user_id":"@bob:test"}`},
		{"PUT", base + "/send/m.room.message/3", `{"body":"x"}`}, {"PUT", base + "/send/m.call.invite/4", `{}`}, {"PUT", base + "/state/m.room.name", `{"name":"x"}`},
		{"PUT", base + "/redact/" + esc(other) + "/5", `{}`}, {"PUT", "/v3/profile/@sue:test/displayname", `{"displayname":"x"}`}, {"DELETE", "/v3/profile/@sue:test/displayname", ``},
		{"PUT", "/unstable/org.matrix.msc4140/rooms/" + esc(room) + "/delayed_event/m.room.message/6", `{"delay_ms":1000,"content":{}}`},
		{"PUT", "/v3/directory/room/%23sue:test", `{"room_id":"` + room + `"}`}, {"PUT", "/v3/directory/list/room/" + esc(room), `{"visibility":"public"}`},
	} {
		s.do(c[0], c[1], token, c[2]).refused(403, "M_USER_SUSPENDED")
	}
	s.do("GET", "/v3/sync", token, nil).ok()
	s.do("GET", base+"/messages?dir=b", token, nil).ok()
	s.do("PUT", base+"/redact/"+esc(own)+"/7", token, `{}`).ok()
	s.do("PUT", "/v3/sendToDevice/m.key.verification.request/8", token, `{"messages":{}}`).ok()
	s.login("sue", pw, nil).ok()
	s.do("POST", base+"/leave", token, `{}`).ok()
	s.do("PUT", "/v1/admin/suspend/@sue:test", root, `{"suspended":false}`).ok()
	s.do("POST", base+"/join", token, `{}`).ok()
	s.unaffected()

	served := s.routes()
	for pattern := range forbiddenToSuspended() {
		if pattern != "POST /_matrix/client/v3/account/3pid/delete" && !slices.Contains(served, pattern) {
			t.Errorf("%s is forbidden to suspended users, but no route", pattern)
		}
	}
}

func TestWhoisTellsTheUserAndAdministratorsWhereDevicesWereSeen(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	root := s.admin("root")
	s.clock.Advance(2 * time.Minute)
	s.do("GET", "/v3/account/whoami", s.mallory, nil).ok()
	for _, asker := range []string{s.mallory, root} {
		a := s.do("GET", "/v3/admin/whois/@mallory:test", asker, nil).ok()
		if ip := gjson.Get(a.body, "devices.MALLORY.sessions.0.connections.0.ip").Str; ip != "127.0.0.1" || a.str("user_id") != "@mallory:test" {
			t.Error(a.body)
		}
	}
	s.do("GET", "/v3/admin/whois/@wendy:test", s.mallory, nil).refused(403, "M_FORBIDDEN")
	s.do("GET", "/v3/admin/whois/@nobody:test", s.mallory, nil).refused(403, "M_FORBIDDEN")
	s.do("GET", "/v3/admin/whois/@nobody:test", root, nil).refused(404, "M_NOT_FOUND")
	s.do("GET", "/v3/admin/whois/@x:elsewhere", root, nil).refused(400, "M_INVALID_PARAM")
	s.do("GET", "/v3/admin/whois/@mallory:test", "", nil).refused(401, "M_MISSING_TOKEN")
	s.unaffected()
}

func TestThereIsNoThirdPartyNetwork(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	if a := s.do("GET", "/v3/thirdparty/protocols", s.alice, nil).ok(); a.body != "{}" {
		t.Error(a.body)
	}
	for _, path := range []string{"protocol/irc", "location/irc?x=y", "user/irc?x=y", "location?alias=%23a:test", "user?userid=@a:test"} {
		s.do("GET", "/v3/thirdparty/"+path, s.alice, nil).refused(404, "M_NOT_FOUND")
		s.do("GET", "/v3/thirdparty/"+path, "", nil).refused(401, "M_MISSING_TOKEN")
	}
}
