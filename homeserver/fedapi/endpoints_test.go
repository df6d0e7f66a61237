// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// TestServersAskEachOtherWhatTheyMay calls what no other test of this package has called with success.
func TestServersAskEachOtherWhatTheyMay(t *testing.T) {
	w := newWorld(t)
	var acc *accounts.Service
	var files *media.Service
	here, there := w.server("here.test", func(d *Deps) { acc, files = d.Accounts, d.Media }), w.server("there.test")
	if _, err := acc.Create(t.Context(), accounts.NewUser{Localpart: "alice", Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	bob := "@bob:there.test"
	room := here.create("11", alice)
	there.join(bob, room, here)
	head := here.room(room).Head().Extremities()[0].ID
	ask := func(method, path string, body any) (string, func(string) string) {
		t.Helper()
		out, err := there.ask(here, method, path, body)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
		return out.Raw, func(p string) string { return out.Get(p).String() }
	}
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, path := range []string{"/_matrix/key/v2/server", "/_matrix/key/v2/server/ed25519:x", "/_matrix/key/v2/query/here.test", "/_matrix/federation/v1/version"} {
		if status, out := here.plain("GET", path, nil); status != 200 {
			t.Errorf("%s: %d %s", path, status, out.Raw)
		}
	}
	if status, out := here.plain("POST", "/_matrix/key/v2/query", map[string]any{"server_keys": map[string]any{"there.test": map[string]any{}, "here.test": map[string]any{}}}); status != 200 || len(out.Get("server_keys").Array()) != 2 {
		t.Errorf("%d %s", status, out.Raw)
	}
	const v1 = "/_matrix/federation/v1/"
	_, get := ask("GET", v1+"state/"+esc(room)+"?event_id="+esc(head), nil)
	is(get("pdus.#"), "4") // create, levels, rules, alice
	_, get = ask("GET", v1+"state_ids/"+esc(room)+"?event_id="+esc(head), nil)
	is(get("pdu_ids.#"), "4")
	_, get = ask("GET", v1+"event_auth/"+esc(room)+"/"+esc(head), nil)
	is(get("auth_chain.#"), "4")
	_, get = ask("GET", v1+"event/"+esc(head), nil)
	is(get("pdus.0.sender"), bob)
	_, get = ask("GET", v1+"timestamp_to_event/"+esc(room)+"?ts=0&dir=f", nil)
	is(get("event_id"), here.stateID(room, "m.room.create", ""))
	_, get = ask("GET", v1+"hierarchy/"+esc(room)+"?suggested_only=false", nil)
	is(get("room.room_id"), room)
	_, get = ask("GET", v1+"publicRooms?limit=5", nil)
	is(get("chunk.#"), "0")
	_, get = ask("POST", v1+"publicRooms", map[string]any{"filter": map[string]any{"generic_search_term": "x"}})
	is(get("chunk.#"), "0")
	_, get = ask("GET", v1+"query/profile?user_id="+esc(alice)+"&field=displayname", nil)
	is(get("displayname"), "alice")
	if err := here.rooms.AddAlias(t.Context(), "#a:here.test", here.room(room), alice); err != nil {
		t.Fatal(err)
	}
	_, get = ask("GET", v1+"query/directory?room_alias="+esc("#a:here.test"), nil)
	is(get("room_id"), room)
	is(get("servers.1"), "there.test")
	_, get = ask("GET", v1+"user/devices/"+esc(alice), nil)
	is(get("user_id"), alice)
	raw, _ := ask("POST", v1+"user/keys/query", map[string]any{"device_keys": map[string]any{alice: []string{}}})
	if !strings.Contains(raw, alice) {
		t.Error(raw)
	}
	_, get = ask("POST", v1+"user/keys/claim", map[string]any{"one_time_keys": map[string]any{alice: map[string]string{"X": "signed_curve25519"}}})
	is(get("one_time_keys"), "{}")
	upload := func(typ, content string) string {
		t.Helper()
		uri, err := files.Upload(t.Context(), alice, media.Incoming{ContentType: typ, Length: -1, Body: strings.NewReader(content)})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(uri, "mxc://here.test/")
	}
	if raw, err := there.fed.Client.Do(t.Context(), federation.Ask{Server: "here.test", Path: v1 + "media/download/" + upload("text/plain", "hello")}); err != nil || !strings.Contains(string(raw), "hello") {
		t.Errorf("%q, %v", raw, err)
	}
	if raw, err := there.fed.Client.Do(t.Context(), federation.Ask{Server: "here.test", Path: v1 + "media/thumbnail/" + upload("image/png", aPNG) + "?width=32&height=32"}); err != nil || !strings.Contains(string(raw), "PNG") {
		t.Errorf("%q, %v", raw, err)
	}

	// In and out by the endpoints of old servers, and by those for knocking.
	door := func(what, user, version string) json.RawMessage {
		t.Helper()
		out, err := there.ask(here, "GET", v1+"make_"+what+"/"+esc(room)+"/"+esc(user)+"?ver=11", nil)
		if err != nil {
			t.Fatalf("make_%s: %v", what, err)
		}
		var tmpl rooms.Template
		if err := json.Unmarshal([]byte(out.Raw), &tmpl); err != nil {
			t.Fatal(err)
		}
		e, err := there.rooms.FromTemplate(t.Context(), tmpl, rooms.Wanted{RoomID: room, User: user, Membership: what})
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := ask("PUT", "/_matrix/federation/"+version+"/send_"+what+"/"+esc(room)+"/"+esc(e.ID()), json.RawMessage(e.JSON()))
		return json.RawMessage(raw)
	}
	carol := "@carol:there.test"
	if a := string(door("join", carol, "v1")); !strings.HasPrefix(a, "[200,{") {
		t.Errorf("%.100s", a)
	}
	is(string(door("leave", carol, "v1")), "[200,{}]")
	door("join", carol, "v2")
	is(string(door("leave", carol, "v2")), "{}")
	if _, err := here.rooms.Append(t.Context(), room, rooms.Draft{Sender: alice, Type: "m.room.join_rules", StateKey: new(string), Content: json.RawMessage(`{"join_rule":"knock"}`)}); err != nil {
		t.Fatal(err)
	}
	if a := string(door("knock", carol, "v1")); !strings.Contains(a, "knock_room_state") {
		t.Error(a)
	}
	old := there.create("1", bob)
	eve := "@eve:here.test"
	e := there.build(old, event.Proto{Sender: bob, Type: "m.room.member", StateKey: &eve, Content: json.RawMessage(`{"membership":"invite"}`)})
	if raw, _ := ask("PUT", v1+"invite/"+esc(old)+"/"+esc(e.ID()), json.RawMessage(e.JSON())); !strings.HasPrefix(raw, "[200,{") {
		t.Error(raw)
	}
}

// aPNG is a picture of one pixel.
const aPNG = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d\x00\x00\x00\x00IEND\xaeB`\x82"

// TestHostileStrangers is F44 and F45: without a signature nothing is told but what is for everybody, files least of all, and of users of other
// servers nobody is told anything here, whoever asks.
func TestHostileStrangers(t *testing.T) {
	s := newScene(t, "11")
	_, patterns, err := everything()
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]bool{
		"GET /_matrix/key/v2/server": true, "GET /_matrix/key/v2/server/{key}": true, "GET /_matrix/key/v2/query/{server}": true, "POST /_matrix/key/v2/query": true,
		"GET /_matrix/federation/v1/version": true, "PUT /_matrix/federation/v1/3pid/onbind": true,
	}
	for _, p := range patterns {
		method, path, _ := strings.Cut(p, " ")
		if open[p] || strings.Contains(p, "/rtc/") { // served where there is an SFU
			continue
		}
		path = placeholder.ReplaceAllString(path, "x")
		for what, header := range map[string]string{"none": "", "a client's": "Bearer abc", "an empty one": `X-Matrix origin="evil.test",destination="here.test",key="",sig=""`, "ours": `X-Matrix origin="here.test",destination="here.test",key="ed25519:1",sig="x"`} {
			q := httptest.NewRequest(method, path, strings.NewReader(`{}`))
			if header != "" {
				q.Header.Set("Authorization", header)
			}
			rec := httptest.NewRecorder()
			s.here.api.ServeHTTP(rec, q)
			if rec.Code != http.StatusUnauthorized || !strings.Contains(rec.Body.String(), "M_UNAUTHORIZED") {
				t.Errorf("%s with %s: %d %s", p, what, rec.Code, rec.Body)
			}
		}
	}
	const v1 = "/_matrix/federation/v1/"
	s.evil.refused(s.here, 404, "M_NOT_FOUND", "GET", v1+"user/devices/"+esc(witness), nil)
	s.evil.refused(s.here, 404, "M_NOT_FOUND", "GET", v1+"user/devices/"+esc("@nobody:here.test"), nil)
	s.evil.refused(s.here, 404, "M_NOT_FOUND", "GET", v1+"query/profile?user_id="+esc(witness), nil)
	s.evil.refused(s.here, 404, "M_NOT_FOUND", "GET", v1+"query/directory?room_alias="+esc("#x:third.test"), nil)
	s.evil.refused(s.here, 404, "M_UNRECOGNIZED", "GET", v1+"query/anything?x=y", nil)
	for path, field := range map[string]string{"user/keys/query": "device_keys", "user/keys/claim": "one_time_keys"} {
		out, err := s.evil.ask(s.here, "POST", v1+path, map[string]any{field: map[string]any{witness: map[string]any{"X": "signed_curve25519"}}})
		if err == nil && strings.Contains(out.Raw, witness) || signalling.AsError(err).Status >= 500 && err != nil {
			t.Errorf("%s: %s, %v", path, out.Raw, err)
		}
	}
	s.evil.refused(s.here, 404, "M_NOT_FOUND", "GET", v1+"media/download/x", nil)
	s.evil.refused(s.here, 405, "M_UNRECOGNIZED", "PUT", v1+"media/download/x", nil)
	s.end()
}
