// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// attacksOnRooms are C17 to C21, C30, C31 and C46 of the catalogue.
func attacksOnRooms() []attack {
	say := func(s *siege, room, token, body string) string {
		s.t.Helper()
		s.n++
		return s.do("PUT", fmt.Sprintf("/v3/rooms/%s/send/m.room.message/say%d", esc(room), s.n), token, map[string]any{"msgtype": "m.text", "body": body}).ok().str("event_id")
	}
	join := func(s *siege, room, token string) {
		s.t.Helper()
		s.do("POST", "/v3/join/"+esc(room), token, `{}`).ok()
	}
	return []attack{
		{"C17 nobody raises himself, lowers his better, puts out his equal or writes power as text", func(s *siege) {
			for _, version := range []string{"6", "10", "12"} {
				users := map[string]any{"@mallory:test": 50, "@bob:test": 50}
				if version != "12" {
					users["@alice:test"] = 100
				}
				room := s.do("POST", "/v3/createRoom", s.alice, map[string]any{"preset": "public_chat", "room_version": version,
					"power_level_content_override": map[string]any{"users": users, "events": map[string]any{"m.room.power_levels": 50}, "ban": 50, "kick": 50, "state_default": 50}}).ok().str("room_id")
				join(s, room, s.bob)
				join(s, room, s.mallory)
				levels := "/v3/rooms/" + esc(room) + "/state/m.room.power_levels"
				before := s.do("GET", levels, s.alice, nil).ok().body
				try := func(token string, change func(c, users map[string]any), codes ...string) {
					s.t.Helper()
					c := s.do("GET", levels, s.alice, nil).ok().m
					u := c["users"].(map[string]any)
					change(c, u)
					s.do("PUT", levels, token, c).oneOf(codes...)
				}
				try(s.mallory, func(_, u map[string]any) { u["@mallory:test"] = 100 }, "M_FORBIDDEN")
				try(s.mallory, func(_, u map[string]any) { u["@accomplice:test"] = 51 }, "M_FORBIDDEN")
				try(s.mallory, func(_, u map[string]any) { u["@bob:test"] = 0 }, "M_FORBIDDEN")
				try(s.mallory, func(c, _ map[string]any) { c["users_default"] = 60 }, "M_FORBIDDEN")
				try(s.mallory, func(c, _ map[string]any) { c["state_default"] = 51 }, "M_FORBIDDEN")
				try(s.mallory, func(c, _ map[string]any) { c["events"] = map[string]any{"m.room.power_levels": 99} }, "M_FORBIDDEN")
				if version == "12" {
					try(s.alice, func(_, u map[string]any) { u["@alice:test"] = 100 }, "M_FORBIDDEN", "M_BAD_JSON", "M_INVALID_PARAM")
					try(s.mallory, func(_, u map[string]any) { u["@alice:test"] = 0 }, "M_FORBIDDEN", "M_BAD_JSON", "M_INVALID_PARAM")
				} else {
					try(s.mallory, func(_, u map[string]any) { u["@alice:test"] = 0 }, "M_FORBIDDEN")
					try(s.mallory, func(_, u map[string]any) { delete(u, "@alice:test") }, "M_FORBIDDEN")
				}
				if version != "6" { // which allowed it
					try(s.alice, func(_, u map[string]any) { u["@mallory:test"] = "50" }, "M_BAD_JSON", "M_FORBIDDEN")
					try(s.alice, func(c, _ map[string]any) { c["ban"] = "50" }, "M_BAD_JSON", "M_FORBIDDEN")
				}
				for _, odd := range []any{nil, []any{}, map[string]any{}, 1e300, true, "x", 1.5} {
					try(s.alice, func(_, u map[string]any) { u["@mallory:test"] = odd }, "M_BAD_JSON", "M_FORBIDDEN")
				}
				for _, whom := range []string{"@bob:test", "@alice:test"} {
					for _, what := range []string{"kick", "ban"} {
						s.do("POST", "/v3/rooms/"+esc(room)+"/"+what, s.mallory, map[string]any{"user_id": whom}).refused(403, "M_FORBIDDEN")
					}
					s.do("PUT", "/v3/rooms/"+esc(room)+"/state/m.room.member/"+whom, s.mallory, `{"membership":"ban"}`).refused(403, "M_FORBIDDEN")
				}
				s.do("PUT", "/v3/rooms/"+esc(room)+"/state/m.room.create/", s.mallory, `{"creator":"@mallory:test"}`).refused(400, "M_BAD_STATE")
				if after := s.do("GET", levels, s.alice, nil).ok().body; after != before {
					s.t.Errorf("version %s: the levels were %s and are %s", version, before, after)
				}
			}
		}},
		{"C18 an alias leads nowhere its owner does not want", func(s *siege) {
			room := s.newRoom(s.alice, `{"preset":"public_chat","room_alias_name":"taken"}`)
			alias := "/v3/directory/room/" + esc("#taken:test")
			own := s.newRoom(s.mallory, `{"preset":"private_chat"}`)
			s.do("PUT", alias, s.mallory, map[string]any{"room_id": own}).oneOf("M_UNKNOWN", "M_FORBIDDEN", "M_ROOM_IN_USE")
			s.do("DELETE", alias, s.mallory, nil).refused(403, "M_FORBIDDEN")
			s.do("PUT", "/v3/directory/room/"+esc("#mine:test"), s.mallory, map[string]any{"room_id": s.room}).refused(403, "M_FORBIDDEN")
			s.do("PUT", "/v3/directory/room/"+esc("#mine:elsewhere"), s.mallory, map[string]any{"room_id": own}).oneOf("M_FORBIDDEN", "M_INVALID_PARAM")
			s.do("POST", "/v3/createRoom", s.mallory, `{"room_alias_name":"taken"}`).oneOf("M_ROOM_IN_USE")
			s.do("PUT", "/v3/rooms/"+esc(own)+"/state/m.room.canonical_alias/", s.mallory, `{"alias":"#taken:test"}`).refused(400, "M_BAD_ALIAS")
			s.do("PUT", "/v3/directory/list/room/"+esc(s.room), s.mallory, `{"visibility":"public"}`).refused(403, "M_FORBIDDEN")
			if got := s.do("GET", alias, s.mallory, nil).ok().str("room_id"); got != room {
				s.t.Errorf("the alias leads to %s", got)
			}
			if strings.Contains(s.do("GET", "/v3/publicRooms", s.mallory, nil).ok().body, s.room) {
				s.t.Error("a private room is in the directory")
			}
		}},
		{"C19 whoever is not in a room reads and writes nothing of it, by any route", func(s *siege) {
			secret := say(s, s.room, s.alice, "a secret word")
			s.since = s.do("GET", "/v3/sync?since="+url.QueryEscape(s.since), s.wendy, nil).ok().str("next_batch")
			room := "/v3/rooms/" + esc(s.room)
			v1 := "/v1/rooms/" + esc(s.room)
			for _, path := range []string{room + "/state", room + "/state/m.room.create", room + "/state/m.room.member/@wendy:test", room + "/members", room + "/joined_members", room + "/messages?dir=b", room + "/messages?dir=f",
				room + "/context/" + esc(secret), room + "/event/" + esc(secret), v1 + "/relations/" + esc(secret), v1 + "/relations/" + esc(secret) + "/m.thread", v1 + "/threads", room + "/aliases", v1 + "/hierarchy", v1 + "/timestamp_to_event?ts=1&dir=f",
				"/v1/room_summary/" + esc(s.room), room + "/initialSync", "/_trunkboard/client/v1/calls?room_id=" + esc(s.room)} {
				for _, token := range []string{s.mallory, s.bob} {
					status, code := 403, "M_FORBIDDEN"
					if strings.Contains(path, "/event/") || strings.Contains(path, "/relations/") || strings.Contains(path, "/room_summary/") {
						status, code = 404, "M_NOT_FOUND" // as the specification has it for these
					}
					a := s.do("GET", path, token, nil).refused(status, code)
					if strings.Contains(a.body, "secret") || strings.Contains(a.body, "wendy") {
						s.t.Errorf("%s tells: %s", path, a.body)
					}
				}
			}
			for _, x := range []struct{ method, path, body string }{
				{"PUT", room + "/send/m.room.message/x", `{"body":"x"}`}, {"PUT", room + "/state/m.room.name", `{"name":"x"}`}, {"PUT", room + "/state/m.room.member/@mallory:test", `{"membership":"join"}`},
				{"PUT", room + "/state/m.room.member/@wendy:test", `{"membership":"leave"}`}, {"PUT", room + "/redact/" + esc(secret) + "/x", `{}`}, {"POST", room + "/invite", `{"user_id":"@mallory:test"}`}, {"POST", room + "/kick", `{"user_id":"@wendy:test"}`},
				{"POST", room + "/ban", `{"user_id":"@wendy:test"}`}, {"POST", room + "/unban", `{"user_id":"@wendy:test"}`}, {"POST", room + "/join", `{}`}, {"POST", "/v3/join/" + esc(s.room), `{}`}, {"POST", "/v3/knock/" + esc(s.room), `{}`},
				{"POST", room + "/upgrade", `{"new_version":"12"}`}, {"PUT", room + "/typing/@mallory:test", `{"typing":true}`}, {"PUT", room + "/typing/@wendy:test", `{"typing":true}`}, {"POST", room + "/receipt/m.read/" + esc(secret), `{}`},
				{"POST", room + "/read_markers", `{"m.fully_read":"` + secret + `"}`}, {"PUT", room + "/send/m.call.invite/x", `{"call_id":"c","version":"1","party_id":"p","lifetime":1,"offer":{"type":"offer","sdp":""}}`},
				{"PUT", delayedBase + "/rooms/" + esc(s.room) + "/delayed_event/x/y", `{"delay_ms":1,"content":{}}`}, {"PUT", room + "/state/x/y?" + delayParam + "=1", `{}`},
			} {
				s.do(x.method, x.path, s.mallory, x.body).refused(403, "M_FORBIDDEN")
			}
			found := s.do("POST", "/v3/search", s.mallory, `{"search_categories":{"room_events":{"search_term":"secret"}}}`).ok()
			if n := gjson.Get(found.body, "search_categories.room_events.results.#").Int(); n != 0 {
				s.t.Errorf("search finds %s", found.body)
			}
			sync := s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync", s.mallory, map[string]any{"room_subscriptions": map[string]any{s.room: map[string]any{"timeline_limit": 10, "required_state": [][]string{{"*", "*"}}}}}).ok()
			if gjson.Get(sync.body, "rooms."+gjson.Escape(s.room)).Exists() {
				s.t.Errorf("sliding sync tells: %s", sync.body)
			}
			if users := s.do("POST", "/v3/user_directory/search", s.mallory, `{"search_term":"wendy"}`).ok(); strings.Contains(users.body, "wendy") {
				s.t.Errorf("the user directory tells: %s", users.body)
			}
		}},
		{"C20 after leaving, being kicked or banned not a byte of the room arrives", func(s *siege) {
			for _, how := range []string{"leave", "kick", "ban"} {
				room := s.newRoom(s.alice, `{"preset":"public_chat"}`)
				join(s, room, s.mallory)
				sliding := map[string]any{"lists": map[string]any{"a": map[string]any{"ranges": [][]int{{0, 99}}, "timeline_limit": 10, "required_state": [][]string{{"*", "*"}}}},
					"room_subscriptions": map[string]any{room: map[string]any{"timeline_limit": 10, "required_state": [][]string{{"*", "*"}}}}}
				open := s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync", s.mallory, sliding).ok()
				since := s.do("GET", "/v3/sync", s.mallory, nil).ok().str("next_batch")
				if how == "leave" {
					s.do("POST", "/v3/rooms/"+esc(room)+"/leave", s.mallory, `{}`).ok()
				} else {
					s.do("POST", "/v3/rooms/"+esc(room)+"/"+how, s.alice, `{"user_id":"@mallory:test"}`).ok()
				}
				secret := say(s, room, s.alice, "aftermath")
				s.do("PUT", "/v3/rooms/"+esc(room)+"/state/m.room.topic/", s.alice, `{"topic":"aftermath"}`).ok()
				s.do("PUT", "/v3/rooms/"+esc(room)+"/typing/@alice:test", s.alice, `{"typing":true}`).ok()
				base := "/v3/rooms/" + esc(room)
				for _, a := range []answer{
					s.do("GET", "/v3/sync?since="+url.QueryEscape(since), s.mallory, nil),
					s.do("GET", "/v3/sync?full_state=true&since="+url.QueryEscape(since), s.mallory, nil),
					s.do("GET", "/v3/sync?filter="+url.QueryEscape(`{"room":{"include_leave":true}}`), s.mallory, nil),
					s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync?pos="+url.QueryEscape(open.str("pos")), s.mallory, sliding),
					s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync", s.mallory, sliding),
					s.do("POST", "/_matrix/client/v4/sync", s.mallory, sliding),
					s.do("GET", base+"/messages?dir=b&limit=100", s.mallory, nil),
					s.do("GET", base+"/messages?dir=f&limit=100", s.mallory, nil),
					s.do("GET", base+"/state", s.mallory, nil),
					s.do("GET", base+"/state/m.room.topic", s.mallory, nil),
					s.do("GET", base+"/event/"+esc(secret), s.mallory, nil),
					s.do("GET", base+"/context/"+esc(secret), s.mallory, nil),
					s.do("GET", "/v1/rooms/"+esc(room)+"/relations/"+esc(secret), s.mallory, nil),
					s.do("POST", "/v3/search", s.mallory, `{"search_categories":{"room_events":{"search_term":"aftermath","include_state":true}}}`),
				} {
					b := strings.ReplaceAll(a.body, `"highlights":["aftermath"]`, "")
					if strings.Contains(b, "aftermath") || strings.Contains(b, "m.typing") || strings.Contains(b, secret) {
						s.t.Errorf("after %s, %s: %s", how, a.what, a.body)
					}
				}
			}
		}},
		{"C21 who sees what follows from the history's visibility and the membership", func(s *siege) {
			type sees struct{ early, late bool }
			// Early is written before the newcomer joins and late after the leaver left.
			for visibility, want := range map[string]map[string]sees{
				"world_readable": {"always": {true, true}, "newcomer": {true, true}, "leaver": {true, true}, "invited": {true, true}, "stranger": {true, true}},
				"shared":         {"always": {true, true}, "newcomer": {true, true}, "leaver": {true, false}, "invited": {false, false}, "stranger": {false, false}},
				"invited":        {"always": {true, true}, "newcomer": {false, true}, "leaver": {true, false}, "stranger": {false, false}},
				"joined":         {"always": {true, true}, "newcomer": {false, true}, "leaver": {true, false}, "invited": {false, false}, "stranger": {false, false}},
			} {
				room := s.newRoom(s.alice, `{"preset":"public_chat","initial_state":[{"type":"m.room.history_visibility","state_key":"","content":{"history_visibility":"`+visibility+`"}}]}`)
				tokens := map[string]string{}
				name := strings.ReplaceAll(visibility, "_", "")
				for _, who := range []string{"always", "newcomer", "leaver", "invited", "stranger"} {
					tokens[who] = s.person(who + name)
				}
				join(s, room, tokens["always"])
				join(s, room, tokens["leaver"])
				s.do("POST", "/v3/rooms/"+esc(room)+"/invite", s.alice, `{"user_id":"@invited`+name+`:test"}`).ok()
				early := say(s, room, s.alice, "early")
				join(s, room, tokens["newcomer"])
				s.do("POST", "/v3/rooms/"+esc(room)+"/leave", tokens["leaver"], `{}`).ok()
				late := say(s, room, s.alice, "late")
				for who, may := range want {
					for id, may := range map[string]bool{early: may.early, late: may.late} {
						for _, path := range []string{"/event/", "/context/"} {
							if a := s.do("GET", "/v3/rooms/"+esc(room)+path+esc(id), tokens[who], nil); (a.status == 200) != may {
								s.t.Errorf("%s room, %s, early %v: %s%d %s, may %v", visibility, who, id == early, path, a.status, a.body, may)
							}
						}
					}
					a := s.do("GET", "/v3/rooms/"+esc(room)+"/messages?dir=b&limit=100", tokens[who], nil)
					for body, may := range map[string]bool{`"early"`: may.early, `"late"`: may.late} {
						if strings.Contains(a.body, body) != may {
							s.t.Errorf("%s room, %s: messages have %s %v, want %v", visibility, who, body, !may, may)
						}
					}
				}
			}
		}},
		{"C30 no number makes an answer larger than the server likes", func(s *siege) {
			room := s.newRoom(s.mallory, `{"preset":"private_chat"}`)
			event := say(s, room, s.mallory, "number")
			base := "/v3/rooms/" + esc(room)
			for _, n := range []string{"99999999", "9223372036854775807", "99999999999999999999999"} {
				s.do("GET", base+"/messages?dir=b&limit="+n, s.mallory, nil).ok()
				s.do("GET", base+"/context/"+esc(event)+"?limit="+n, s.mallory, nil).ok()
				s.do("GET", "/v1/rooms/"+esc(room)+"/relations/"+esc(event)+"?limit="+n, s.mallory, nil).ok()
				s.do("GET", "/v1/rooms/"+esc(room)+"/threads?limit="+n, s.mallory, nil).ok()
				s.do("GET", "/v3/publicRooms?limit="+n, s.mallory, nil).ok()
				s.do("GET", "/_trunkboard/client/v1/calls?limit="+n, s.mallory, nil).ok()
			}
			for _, n := range []string{"-1", "1.5", "x", "1e3", "0x10", "-99999999999999999999999"} {
				for _, path := range []string{base + "/messages?dir=b&limit=", base + "/context/" + esc(event) + "?limit=", "/v1/rooms/" + esc(room) + "/threads?limit=", "/v3/publicRooms?limit=", "/v3/sync?timeout=", "/_trunkboard/client/v1/calls?limit="} {
					s.do("GET", path+n, s.mallory, nil).refused(400, "M_INVALID_PARAM")
				}
			}
			for _, body := range []string{`{"order_by":"x","search_term":"a"}`, `{"search_term":"a","groupings":{"group_by":[{"key":"x"}]}}`, `{"search_term":"a","filter":{"limit":-1}}`, `{}`} {
				s.do("POST", "/v3/search", s.mallory, `{"search_categories":{"room_events":`+body+`}}`).oneOf("M_INVALID_PARAM", "M_BAD_JSON", "M_MISSING_PARAM")
			}
			s.do("POST", "/v3/search", s.mallory, `{"search_categories":{"room_events":{"search_term":"number","filter":{"limit":999999999},"event_context":{"before_limit":999999999,"after_limit":999999999}}}}`).ok()
			s.do("POST", "/v3/user_directory/search", s.mallory, `{"search_term":"a","limit":999999999}`).ok()
			s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync", s.mallory, `{"lists":{"a":{"ranges":[[0,999999999]],"timeline_limit":999999999}}}`)
			s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync", s.mallory, `{"lists":{"a":{"ranges":[[9,1],[-5,-1]],"timeline_limit":-1}}}`).oneOf("M_INVALID_PARAM", "M_BAD_JSON")
		}},
		{"C31 a transaction is done once, by each device for itself", func(s *siege) {
			room := s.newRoom(s.mallory, `{"preset":"private_chat"}`)
			path := "/v3/rooms/" + esc(room) + "/send/m.room.message/once"
			first := s.do("PUT", path, s.mallory, `{"body":"1"}`).ok().str("event_id")
			if again := s.do("PUT", path, s.mallory, `{"body":"other"}`).ok().str("event_id"); again != first {
				s.t.Error("twice on one device")
			}
			second := s.login("mallory", pw, map[string]any{"device_id": "OTHER"}).ok().str("access_token")
			if other := s.do("PUT", path, second, `{"body":"2"}`).ok().str("event_id"); other == first {
				s.t.Error("one event for two devices")
			}
			if n := strings.Count(s.do("GET", "/v3/rooms/"+esc(room)+"/messages?dir=b", s.mallory, nil).ok().body, `"m.room.message"`); n != 2 {
				s.t.Errorf("%d messages", n)
			}
			s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.room.message/"+strings.Repeat("x", 3000), s.mallory, `{"body":"2"}`).refused(400, "M_INVALID_PARAM")
		}},
		{"C46 delayed events are counted, and another's do not exist", func(s *siege) {
			token := s.person("planner")
			room := s.newRoom(token, `{"preset":"private_chat"}`)
			path := "/v3/rooms/" + esc(room) + "/send/m.room.message/"
			n, last := 0, answer{}
			for last = s.do("PUT", path+"0?"+delayParam+"=86400000", token, `{"body":"later"}`); last.status == 200 && n < 500; n++ {
				last = s.do("PUT", fmt.Sprintf("%sd%d?%s=86400000", path, n+1, delayParam), token, `{"body":"later"}`)
			}
			if n != 100 || last.status < 400 || last.status >= 500 || last.str("errcode") == "" {
				s.t.Errorf("%d events wait, then %d %s", n, last.status, last.body)
			}
			s.do("PUT", path+"long?"+delayParam+"=99999999999999999", token, `{"body":"later"}`).oneOf("M_MAX_DELAY_EXCEEDED", "M_INVALID_PARAM", "M_UNKNOWN")
			for _, d := range []string{"-1", "0", "x", "1.5", ""} {
				s.do("PUT", path+"odd?"+delayParam+"="+d, token, `{"body":"later"}`).refused(400, "M_INVALID_PARAM")
			}
			list := s.do("GET", delayedBase+"/delayed_events", token, nil).ok()
			id := gjson.Get(list.body, "delayed_events.0.delay_id").Str
			if id == "" {
				s.t.Fatal(list.body)
			}
			s.do("GET", delayedBase+"/delayed_events/"+id, s.mallory, nil).refused(404, "M_NOT_FOUND")
			s.do("GET", delayedBase+"/delayed_events/"+id, "", nil).refused(401, "M_MISSING_TOKEN")
			if strings.Contains(s.do("GET", delayedBase+"/delayed_events", s.mallory, nil).ok().body, id) {
				s.t.Error("mallory sees another's delayed events")
			}
			for _, action := range []string{"cancel", "send", "restart"} {
				s.do("POST", delayedBase+"/delayed_events/"+id+"x/"+action, s.mallory, `{}`).refused(404, "M_NOT_FOUND")
			}
			s.do("GET", delayedBase+"/delayed_events/"+id, token, nil).ok()
		}},
	}
}

// attacksOnCalls are T01, and the lifetime of T02.
func attacksOnCalls() []attack {
	send := func(s *siege, token, room, typ string, content map[string]any) answer {
		s.n++
		if content["version"] == nil {
			content["version"] = "1"
		}
		return s.do("PUT", fmt.Sprintf("/v3/rooms/%s/send/m.call.%s/call%d", esc(room), typ, s.n), token, content)
	}
	live := func(s *siege, room string) (all []gjson.Result) {
		s.t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.calls.Flush(ctx); err != nil {
			s.t.Fatal(err)
		}
		return gjson.Get(s.do("GET", "/_trunkboard/client/v1/calls?state=live&room_id="+esc(room), s.alice, nil).ok().body, "calls").Array()
	}
	return []attack{
		{"T01 a call is rung, answered and ended by those who are in it", func(s *siege) {
			room := s.newRoom(s.alice, `{"preset":"public_chat"}`)
			for _, token := range []string{s.bob, s.mallory} {
				s.do("POST", "/v3/join/"+esc(room), token, `{}`).ok()
			}
			banned, stranger := s.person("banned"), s.person("outsider")
			s.do("POST", "/v3/rooms/"+esc(room)+"/ban", s.alice, `{"user_id":"@banned:test"}`).ok()
			invite := inviteBody("T01", 60000)
			invite["party_id"], invite["invitee"] = "ALICE", "@bob:test"
			send(s, s.alice, room, "invite", invite).ok()
			alive := func(what string) {
				s.t.Helper()
				if l := live(s, room); len(l) != 1 || l[0].Get("call_id").Str != "T01" || l[0].Get("caller").Str != "@alice:test" {
					s.t.Errorf("after %s the calls are %v", what, l)
				}
			}
			alive("the invite")
			hangup := map[string]any{"call_id": "T01", "party_id": "ALICE", "reason": "user_hangup"}
			answered := map[string]any{"call_id": "T01", "party_id": "BOB", "answer": map[string]any{"type": "answer", "sdp": "v=0\r\n"}}
			for _, token := range []string{banned, stranger} {
				send(s, token, room, "hangup", hangup).refused(403, "M_FORBIDDEN")
				send(s, token, room, "reject", map[string]any{"call_id": "T01", "party_id": "X"}).refused(403, "M_FORBIDDEN")
				send(s, token, room, "answer", answered).refused(403, "M_FORBIDDEN")
				send(s, token, room, "candidates", map[string]any{"call_id": "T01", "party_id": "ALICE", "candidates": []any{}}).refused(403, "M_FORBIDDEN")
				send(s, token, room, "invite", inviteBody("new", 1)).refused(403, "M_FORBIDDEN")
			}
			alive("what outsiders sent")
			send(s, s.mallory, room, "hangup", hangup) // a member may send it; it ends nobody else's call
			alive("a hang-up by a third party")
			send(s, s.mallory, room, "reject", map[string]any{"call_id": "T01", "party_id": "MALLORY"})
			alive("a rejection by a third party")
			send(s, s.mallory, room, "invite", inviteBody("T01", 60000)) // the same call id again
			alive("an invite with the same id")
			send(s, s.bob, room, "answer", answered).ok()
			send(s, s.alice, room, "select_answer", map[string]any{"call_id": "T01", "party_id": "ALICE", "selected_party_id": "BOB"}).ok()
			alive("the answer")
			send(s, s.mallory, room, "hangup", hangup)
			send(s, s.mallory, room, "hangup", map[string]any{"call_id": "T01", "party_id": "BOB"})
			send(s, s.mallory, room, "select_answer", map[string]any{"call_id": "T01", "party_id": "ALICE", "selected_party_id": "MALLORY"})
			send(s, s.bob, room, "hangup", map[string]any{"call_id": "other", "party_id": "BOB"})
			alive("hang-ups by a third party during the talk")
			send(s, s.bob, room, "hangup", map[string]any{"call_id": "T01", "party_id": "BOB"}).ok()
			for _, c := range live(s, room) {
				if c.Get("caller").Str == "@alice:test" {
					s.t.Errorf("the call goes on: %s", c.Raw)
				}
			}
		}},
		{"T02 a ringing time of weeks, none or nonsense is cut or refused", func(s *siege) {
			room := s.newRoom(s.alice, `{"preset":"public_chat"}`)
			for i, ms := range []float64{1e9, 1e15, 1 << 53, 0, -5} {
				a := send(s, s.alice, room, "invite", inviteBody(fmt.Sprint("long", i), ms))
				if a.status >= 400 {
					a.oneOf("M_BAD_JSON", "M_INVALID_PARAM")
				}
			}
			ringing := 0
			for _, c := range live(s, room) {
				if strings.HasPrefix(c.Get("call_id").Str, "long") {
					ringing++
				}
			}
			if ringing == 0 {
				s.t.Error("no call rings at all")
			}
			for _, odd := range []any{"soon", nil, []any{}, map[string]any{}, true} {
				body := inviteBody("odd", 1)
				body["lifetime"] = odd
				send(s, s.alice, room, "invite", body).oneOf("M_BAD_JSON")
			}
			for _, key := range []string{"call_id", "offer", "version"} {
				for _, odd := range []any{nil, []any{}, map[string]any{}, true} {
					body := inviteBody("odd", 1)
					body[key] = odd
					a := s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.call.invite/odd", s.alice, body)
					if a.status < 400 {
						s.t.Errorf("%s: %d %s", a.what, a.status, a.body)
					}
				}
			}
			s.clock.Advance(11 * time.Minute)
			for _, c := range live(s, room) {
				if strings.HasPrefix(c.Get("call_id").Str, "long") {
					s.t.Errorf("rings after eleven minutes: %s", c.Raw)
				}
				if id := c.Get("call_id").Str; id == "odd" {
					s.t.Errorf("a nonsense call rings: %s", c.Raw)
				}
			}
		}},
	}
}
