// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func (s *siege) guest() (token, user string) {
	s.t.Helper()
	a := s.do("POST", "/v3/register?kind=guest", "", `{}`).ok()
	return a.str("access_token"), a.str("user_id")
}

// leftRoom waits until a sync from since on tells that its user is out of a room.
func (s *siege) leftRoom(token, room, since string) {
	s.t.Helper()
	for range 20 {
		a := s.do("GET", "/v3/sync?timeout=2000&since="+url.QueryEscape(since), token, nil).ok()
		if gjson.Get(a.body, "rooms.leave").Map()[room].Exists() {
			return
		}
		since = a.str("next_batch")
	}
	s.t.Errorf("the user is still in %s", room)
}

func TestAGuestJoinsWhereHeMayAndIsPutOutWhenThatEnds(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		token, user := s.guest()
		closed := s.newRoom(s.alice, `{"preset":"public_chat"}`)
		open := s.newRoom(s.alice, `{"preset":"public_chat","initial_state":[{"type":"m.room.guest_access","state_key":"","content":{"guest_access":"can_join"}}]}`)
		member := "/state/m.room.member/" + user
		for _, x := range [][3]string{{"POST", "/v3/join/" + esc(closed), `{}`}, {"POST", "/v3/rooms/" + esc(closed) + "/join", `{}`}, {"PUT", "/v3/rooms/" + esc(closed) + member, `{"membership":"join"}`}} {
			s.do(x[0], x[1], token, x[2]).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		}
		// An invite does not open it either.
		s.do("POST", "/v3/rooms/"+esc(closed)+"/invite", s.alice, map[string]string{"user_id": user}).ok()
		s.do("POST", "/v3/join/"+esc(closed), token, `{}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		s.do("PUT", "/v3/rooms/"+esc(closed)+member, token, `{"membership":"join"}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")

		s.do("POST", "/v3/join/"+esc(open), token, `{}`).ok()
		s.do("PUT", "/v3/rooms/"+esc(open)+"/send/m.room.message/1", token, `{"body":"hello"}`).ok()
		s.do("PUT", "/v3/rooms/"+esc(open)+"/state/m.room.member/@wendy:test", token, `{"membership":"invite"}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		s.do("POST", "/v3/join/"+esc(open), s.bob, `{}`).ok()
		since := s.do("GET", "/v3/sync", token, nil).ok().str("next_batch")
		s.do("PUT", "/v3/rooms/"+esc(open)+"/state/m.room.guest_access/", s.alice, `{"guest_access":"forbidden"}`).ok()
		s.leftRoom(token, open, since)
		s.do("PUT", "/v3/rooms/"+esc(open)+"/send/m.room.message/2", token, `{"body":"hello"}`).refused(403, "M_FORBIDDEN")
		s.do("PUT", "/v3/rooms/"+esc(open)+"/send/m.room.message/3", s.bob, `{"body":"still here"}`).ok()
		s.unaffected()
	})
}

func TestAGuestBecomesAUser(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		token, user := s.guest()
		local := strings.TrimPrefix(strings.TrimSuffix(user, ":test"), "@")
		up := func(token, name string) answer {
			return s.do("POST", "/v3/register", "", map[string]any{"username": name, "password": pw, "guest_access_token": token, "auth": map[string]any{"type": "m.login.dummy"}})
		}
		up(token, "somebody").refused(400, "M_INVALID_USERNAME")
		up(token, "").refused(400, "M_INVALID_USERNAME")
		up(token, "wendy").refused(400, "M_INVALID_USERNAME")
		up("nonsense", local).refused(401, "M_UNKNOWN_TOKEN")
		up(s.mallory, "mallory").refused(403, "M_FORBIDDEN")
		up(s.mallory, local).refused(403, "M_FORBIDDEN")
		s.do("POST", "/v3/createRoom", token, `{}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		fresh := up(token, local).ok()
		if fresh.str("user_id") != user {
			t.Error(fresh.body)
		}
		for _, tok := range []string{token, fresh.str("access_token"), s.login(local, pw, nil).ok().str("access_token")} {
			if a := s.do("GET", "/v3/account/whoami", tok, nil).ok(); a.m["is_guest"] != false {
				t.Error(a.body)
			}
			s.do("POST", "/v3/createRoom", tok, `{}`).ok()
		}
		up(token, local).refused(403, "M_FORBIDDEN") // once
		s.unaffected()
	})
}

func TestGuestsReachWhatIsForThemAndNothingElse(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	token, user := s.guest()
	s.do("PUT", "/v3/profile/"+user+"/displayname", token, `{"displayname":"visitor"}`).ok()
	s.do("DELETE", "/v3/profile/"+user+"/displayname", token, nil).ok()
	for _, field := range []string{"avatar_url", "m.tz"} {
		s.do("PUT", "/v3/profile/"+user+"/"+field, token, `{"`+field+`":"mxc://a/b"}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
		s.do("DELETE", "/v3/profile/"+user+"/"+field, token, nil).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
	}
	s.do("PUT", "/v3/profile/@wendy:test/displayname", token, `{"displayname":"x"}`).refused(403, "M_GUEST_ACCESS_FORBIDDEN")
	device := gjson.Get(s.do("GET", "/v3/devices", token, nil).ok().body, "devices.0.device_id").Str
	s.do("PUT", "/v3/devices/"+device, token, `{"display_name":"n"}`).ok()
	s.do("GET", "/v3/devices/"+device, token, nil).ok()

	// What a route takes from a guest that the spec's list does not name, it takes because a guest in a room needs it.
	mayToo := []string{
		"/filter", "/account_data/", "/tags", "/typing/", "/receipt/", "/read_markers", "/relations/", "/threads", "/thread", "/joined_rooms", "/joined_members", "/aliases", "/forget",
		"/hierarchy", "/timestamp_to_event", "/summary", "/room_summary", "/publicRooms", "/pushrules", "/presence/", "/logout", "/capabilities", "/keys/changes", "/config", "/calls", "/rtc/", "/delayed_event",
		"/sync", "/keys/upload/{device}", "/whois/", "/openid/", "/requestToken",
	}
	spec := []string{ // client-server API, "Guest Access"
		"GET /rooms/{room}/state", "GET /rooms/{room}/context/{event}", "GET /rooms/{room}/event/{event}", "GET /rooms/{room}/state/{type}", "GET /rooms/{room}/state/{type}/{$}", "GET /rooms/{room}/state/{type}/{key}",
		"GET /rooms/{room}/messages", "GET /rooms/{room}/members", "GET /rooms/{room}/initialSync", "GET /sync", "GET /events", "POST /rooms/{room}/join", "POST /join/{room}", "POST /rooms/{room}/leave",
		"PUT /rooms/{room}/send/{type}/{txn}", "PUT /rooms/{room}/state/{type}", "PUT /rooms/{room}/state/{type}/{$}", "PUT /rooms/{room}/state/{type}/{key}", "PUT /sendToDevice/{type}/{txn}", "GET /devices", "GET /devices/{deviceID}",
		"PUT /devices/{deviceID}", "GET /account/whoami", "POST /keys/upload", "POST /keys/query", "POST /keys/claim",
	}
	f := &fuzzer{siege: s, token: token, room: s.room, event: "$x", seen: map[int]int{}}
	for _, pattern := range s.routes() {
		method, _, _ := strings.Cut(pattern, " ")
		path := f.path(pattern, -1, "")
		if s.home.do(method, path, "", `{}`).str("errcode") != "M_MISSING_TOKEN" {
			continue // open to everybody
		}
		may := slices.Contains(spec, bodyKey(pattern)) || slices.ContainsFunc(mayToo, func(p string) bool { return strings.Contains(pattern, p) }) || strings.Contains(pattern, "media/download") || strings.Contains(pattern, "media/thumbnail")
		if strings.Contains(pattern, "logout") {
			continue // it would end the test
		}
		if got := s.home.do(method, path, token, `{}`).str("errcode") != "M_GUEST_ACCESS_FORBIDDEN"; got && !may {
			t.Errorf("a guest reaches %s", pattern)
		} else if !got && slices.Contains(spec, bodyKey(pattern)) && !strings.Contains(pattern, "join") {
			t.Errorf("a guest does not reach %s", pattern)
		}
	}
	s.unaffected()
}
