// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// house is the API over a real store, with a few users whose tokens are their names.
type house struct {
	t    *testing.T
	base string
}

func newHouse(t *testing.T, st *storage.Store) *house {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r, err := rooms.New(context.Background(), st, "test", signalling.SystemClock{}, log)
	if err != nil {
		t.Fatal(err)
	}
	s := syncapi.New(syncapi.Deps{Store: st, Rooms: r, Clock: signalling.SystemClock{}, Log: log})
	st.Observe(s.Observe)
	users := tokens{}
	for _, n := range []string{"alice", "bob", "carol", "mallory"} {
		users[n] = accounts.Session{UserID: "@" + n + ":test", DeviceID: strings.ToUpper(n)}
	}
	srv := httptest.NewServer(recorded(t, New(Deps{Config: Config{ServerName: "test"}, Auth: users, Rooms: r, Sync: s})))
	t.Cleanup(srv.Close)
	return &house{t, srv.URL}
}

// do makes one call and gives the status and the answer.
func (h *house) do(who, method, path string, body any) (int, map[string]any) {
	h.t.Helper()
	text := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		text = string(b)
	}
	status, _, answer := raw(h.t, h.base, method, "/_matrix/client/v3"+path, who, text)
	out := map[string]any{}
	if strings.HasPrefix(answer, "[") {
		answer = `{"list":` + answer + `}`
	}
	if err := json.Unmarshal([]byte(answer), &out); err != nil {
		h.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return status, out
}

// must is do for calls that succeed.
func (h *house) must(who, method, path string, body any) map[string]any {
	h.t.Helper()
	status, out := h.do(who, method, path, body)
	if status != 200 {
		h.t.Fatalf("%s %s as %s: %d %v", method, path, who, status, out)
	}
	return out
}

// refused is do for calls that fail with a code.
func (h *house) refused(code, who, method, path string, body any) {
	h.t.Helper()
	status, out := h.do(who, method, path, body)
	if status < 400 || out["errcode"] != code {
		h.t.Errorf("%s %s as %s: %d %v, want %s", method, path, who, status, out, code)
	}
}

func esc(id string) string { return url.PathEscape(id) }

func each(t *testing.T, f func(h *house)) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) { f(newHouse(t, st)) })
}

func TestARoomFromItsCreationToItsEnd(t *testing.T) {
	each(t, func(h *house) {
		for _, v := range []string{"1", "6", "10", "11", "12"} {
			id := h.must("alice", "POST", "/createRoom", map[string]any{"preset": "private_chat", "room_version": v, "name": "Den", "topic": "Talk", "invite": []string{"@bob:test"}, "is_direct": true})["room_id"].(string)
			r := "/rooms/" + esc(id)
			h.refused("M_FORBIDDEN", "mallory", "POST", "/join/"+esc(id), nil)
			h.must("bob", "POST", "/join/"+esc(id), nil)
			sent := h.must("bob", "PUT", r+"/send/m.room.message/t1", map[string]any{"msgtype": "m.text", "body": "hello"})
			again := h.must("bob", "PUT", r+"/send/m.room.message/t1", map[string]any{"msgtype": "m.text", "body": "hello"})
			if sent["event_id"] != again["event_id"] {
				t.Errorf("v%s: a repeated transaction made another event", v)
			}
			h.refused("M_FORBIDDEN", "mallory", "PUT", r+"/send/m.call.invite/t1", map[string]any{"call_id": "c", "version": "1", "party_id": "p", "lifetime": 60000, "offer": map[string]any{"type": "offer", "sdp": "v=0"}})
			h.refused("M_FORBIDDEN", "bob", "PUT", r+"/state/m.room.name/", map[string]any{"name": "mine"})
			if n := h.must("bob", "GET", r+"/state/m.room.name", nil)["name"]; n != "Den" {
				t.Errorf("v%s: name is %v", v, n)
			}
			e := h.must("alice", "GET", r+"/event/"+esc(sent["event_id"].(string)), nil)
			if e["content"].(map[string]any)["body"] != "hello" || e["room_id"] != id || e["unsigned"].(map[string]any)["transaction_id"] != nil {
				t.Errorf("v%s: event is %v", v, e)
			}
			h.refused("M_NOT_FOUND", "mallory", "GET", r+"/event/"+esc(sent["event_id"].(string)), nil)
			h.refused("M_FORBIDDEN", "mallory", "GET", r+"/state", nil)
			h.refused("M_FORBIDDEN", "mallory", "GET", r+"/members", nil)
			h.refused("M_FORBIDDEN", "mallory", "GET", r+"/messages?dir=b", nil)
			h.must("alice", "PUT", r+"/redact/"+esc(sent["event_id"].(string))+"/t9", map[string]any{"reason": "x"})
			e = h.must("bob", "GET", r+"/event/"+esc(sent["event_id"].(string)), nil)
			if len(e["content"].(map[string]any)) != 0 || e["unsigned"].(map[string]any)["redacted_because"] == nil {
				t.Errorf("v%s: redacted event is %v", v, e)
			}
			h.must("alice", "POST", r+"/kick", map[string]any{"user_id": "@bob:test", "reason": "enough"})
			h.refused("M_FORBIDDEN", "bob", "PUT", r+"/send/m.room.message/t2", map[string]any{"body": "still here"})
			h.must("alice", "POST", r+"/ban", map[string]any{"user_id": "@bob:test"})
			h.refused("M_FORBIDDEN", "bob", "POST", "/join/"+esc(id), nil)
			h.must("alice", "POST", r+"/unban", map[string]any{"user_id": "@bob:test"})
			h.refused("M_FORBIDDEN", "alice", "POST", r+"/unban", map[string]any{"user_id": "@bob:test"})
			h.must("bob", "POST", r+"/forget", nil)
			h.refused("M_FORBIDDEN", "bob", "GET", r+"/messages?dir=b", nil)
		}
	})
}

func TestHistoryIsReadInBothDirections(t *testing.T) {
	each(t, func(h *house) {
		id := h.must("alice", "POST", "/createRoom", map[string]any{"preset": "public_chat"})["room_id"].(string)
		r := "/rooms/" + esc(id)
		for i := range 25 {
			h.must("alice", "PUT", fmt.Sprintf("%s/send/m.room.message/%d", r, i), map[string]any{"body": fmt.Sprint(i)})
		}
		collect := func(dir, from string) (bodies []string) {
			for range 20 {
				p := h.must("alice", "GET", r+"/messages?limit=7&dir="+dir+"&from="+from, nil)
				for _, e := range p["chunk"].([]any) {
					if b, ok := e.(map[string]any)["content"].(map[string]any)["body"].(string); ok {
						bodies = append(bodies, b)
					}
				}
				end, ok := p["end"].(string)
				if !ok {
					return bodies
				}
				from = end
			}
			return bodies
		}
		back, forth := collect("b", ""), collect("f", "")
		if len(back) != 25 || back[0] != "24" || back[24] != "0" {
			t.Errorf("backwards: %v", back)
		}
		if len(forth) != 25 || forth[0] != "0" || forth[24] != "24" {
			t.Errorf("forwards: %v", forth)
		}
		s := h.must("alice", "GET", `/sync?filter={"room":{"timeline":{"limit":5}}}`, nil)
		j := s["rooms"].(map[string]any)["join"].(map[string]any)[id].(map[string]any)["timeline"].(map[string]any)
		if older := collect("b", j["prev_batch"].(string)); len(older) != 20 || older[0] != "19" {
			t.Errorf("before the timeline: %v", older)
		}
		h.refused("M_INVALID_PARAM", "alice", "GET", r+"/messages?dir=x", nil)
		h.refused("M_INVALID_PARAM", "alice", "GET", r+"/messages?dir=b&from=zzz", nil)
		h.refused("M_MISSING_PARAM", "alice", "GET", r+"/messages", nil)
		ev := h.must("alice", "PUT", r+"/send/m.room.message/mid", map[string]any{"body": "mid"})["event_id"].(string)
		h.must("alice", "PUT", r+"/send/m.room.message/after", map[string]any{"body": "after"})
		c := h.must("alice", "GET", r+"/context/"+esc(ev)+"?limit=4", nil)
		if len(c["events_before"].([]any)) != 2 || len(c["events_after"].([]any)) != 1 || len(c["state"].([]any)) == 0 {
			t.Errorf("context: %v", c)
		}
	})
}

func TestAliasesNameRooms(t *testing.T) {
	each(t, func(h *house) {
		id := h.must("alice", "POST", "/createRoom", map[string]any{"preset": "public_chat", "room_alias_name": "den", "visibility": "public", "name": "The Den"})["room_id"].(string)
		h.refused("M_ROOM_IN_USE", "bob", "POST", "/createRoom", map[string]any{"room_alias_name": "den"})
		if got := h.must("", "GET", "/directory/room/"+esc("#den:test"), nil)["room_id"]; got != id {
			t.Errorf("alias leads to %v", got)
		}
		h.must("bob", "POST", "/join/"+esc("#den:test"), nil)
		h.must("bob", "PUT", "/directory/room/"+esc("#bobs:test"), map[string]any{"room_id": id})
		h.refused("M_UNKNOWN", "alice", "PUT", "/directory/room/"+esc("#bobs:test"), map[string]any{"room_id": id})
		h.refused("M_FORBIDDEN", "mallory", "PUT", "/directory/room/"+esc("#evil:test"), map[string]any{"room_id": id})
		h.refused("M_FORBIDDEN", "mallory", "DELETE", "/directory/room/"+esc("#bobs:test"), nil)
		h.must("bob", "DELETE", "/directory/room/"+esc("#bobs:test"), nil)
		h.refused("M_NOT_FOUND", "bob", "DELETE", "/directory/room/"+esc("#bobs:test"), nil)
		list := h.must("", "GET", "/publicRooms", nil)["chunk"].([]any)
		if len(list) != 1 || list[0].(map[string]any)["name"] != "The Den" || list[0].(map[string]any)["num_joined_members"] != 2.0 {
			t.Errorf("directory: %v", list)
		}
		if n := len(h.must("alice", "POST", "/publicRooms", map[string]any{"filter": map[string]any{"generic_search_term": "nothing"}})["chunk"].([]any)); n != 0 {
			t.Errorf("%d rooms match nothing", n)
		}
	})
}

func TestBadEventsAreRefusedAndChangeNothing(t *testing.T) {
	each(t, func(h *house) {
		id := h.must("alice", "POST", "/createRoom", map[string]any{})["room_id"].(string)
		r := "/rooms/" + esc(id)
		before := h.must("alice", "GET", "/sync", nil)["next_batch"]
		send := func(body string) string {
			_, _, a := raw(t, h.base, "PUT", "/_matrix/client/v3"+r+"/send/m.room.message/x"+fmt.Sprint(len(body)), "alice", body)
			var e struct{ Errcode string }
			_ = json.Unmarshal([]byte(a), &e)
			return e.Errcode
		}
		for body, want := range map[string]string{
			`{"body":`:               "M_NOT_JSON",
			`[]`:                     "M_BAD_JSON",
			`"x"`:                    "M_BAD_JSON",
			`{"n":1.5}`:              "M_BAD_JSON",
			`{"n":9007199254740993}`: "M_BAD_JSON",
			"{\"b\":\"\xff\"}":       "M_NOT_JSON",
			`{"b":"\u0000"}`:         "M_BAD_JSON",
			`{"b":"` + strings.Repeat("x", 66000) + `"}`:                  "M_TOO_LARGE",
			strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat(`}`, 200): "M_BAD_JSON",
		} {
			if got := send(body); got != want {
				t.Errorf("%.40q: %s, want %s", body, got, want)
			}
		}
		h.refused("M_TOO_LARGE", "alice", "PUT", r+"/send/"+strings.Repeat("t", 256)+"/1", map[string]any{})
		h.refused("M_BAD_JSON", "alice", "PUT", r+"/send/m.call.invite/1", map[string]any{"call_id": 5})
		h.refused("M_BAD_JSON", "alice", "PUT", r+"/state/m.room.member/"+esc("@bob:test"), map[string]any{"membership": "king"})
		h.refused("M_BAD_STATE", "alice", "PUT", r+"/state/m.room.create/", map[string]any{})
		h.refused("M_INVALID_PARAM", "alice", "POST", r+"/invite", map[string]any{"user_id": "bob"})
		h.refused("M_UNSUPPORTED_ROOM_VERSION", "alice", "POST", "/createRoom", map[string]any{"room_version": "77"})
		h.refused("M_INVALID_PARAM", "alice", "POST", "/createRoom", map[string]any{"preset": "party"})
		if after := h.must("alice", "GET", "/sync", nil)["next_batch"]; strings.Split(fmt.Sprint(after), "_")[0] != strings.Split(fmt.Sprint(before), "_")[0] {
			t.Errorf("refused requests moved the stream from %v to %v", before, after)
		}
	})
}

func TestARestrictedRoomLetsInWhoIsInTheOther(t *testing.T) {
	each(t, func(h *house) {
		space := h.must("alice", "POST", "/createRoom", map[string]any{"preset": "public_chat"})["room_id"].(string)
		id := h.must("alice", "POST", "/createRoom", map[string]any{"preset": "private_chat", "initial_state": []any{map[string]any{
			"type": "m.room.join_rules", "state_key": "", "content": map[string]any{"join_rule": "restricted", "allow": []any{map[string]any{"type": "m.room_membership", "room_id": space}}},
		}}})["room_id"].(string)
		h.refused("M_FORBIDDEN", "bob", "POST", "/join/"+esc(id), nil)
		h.must("bob", "POST", "/join/"+esc(space), nil)
		h.must("bob", "POST", "/join/"+esc(id), nil)
	})
}
