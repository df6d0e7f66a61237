// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// person is a user of one of the Apps, with a client.
type person struct {
	t     *testing.T
	base  string
	id    string
	token string
	since string
	http  *http.Client
}

func (n *internet) person(a *App, name string) *person {
	n.t.Helper()
	p := &person{t: n.t, base: "http://" + a.Addr("listen.client"), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	in := p.must("POST", "/_matrix/client/v3/register", map[string]any{"username": name, "password": "a long password " + name, "auth": map[string]string{"type": "m.login.dummy"}})
	p.id, p.token = in.Get("user_id").Str, in.Get("access_token").Str
	return p
}

func (p *person) do(method, path string, body any) (int, gjson.Result) {
	p.t.Helper()
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			p.t.Fatal(err)
		}
		r = bytes.NewReader(raw)
	}
	q, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, r)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.token != "" {
		q.Header.Set("Authorization", "Bearer "+p.token)
	}
	a, err := p.http.Do(q)
	if err != nil {
		p.t.Fatal(err)
	}
	defer a.Body.Close()
	out, err := io.ReadAll(a.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return a.StatusCode, gjson.ParseBytes(out)
}

func (p *person) must(method, path string, body any) gjson.Result {
	p.t.Helper()
	status, out := p.do(method, path, body)
	if status != 200 {
		p.t.Fatalf("%s %s: %d %s", method, path, status, out.Raw)
	}
	return out
}

func (p *person) refused(status int, code, method, path string, body any) {
	p.t.Helper()
	got, out := p.do(method, path, body)
	if got != status || out.Get("errcode").Str != code {
		p.t.Errorf("%s %s: %d %s, want %d %s", method, path, got, out.Raw, status, code)
	}
}

func roomPath(room, rest string) string {
	return "/_matrix/client/v3/rooms/" + url.PathEscape(room) + rest
}

// members maps the users of a room to their membership, as p sees them.
func (p *person) members(room string) map[string]string {
	p.t.Helper()
	out := map[string]string{}
	for _, e := range p.must("GET", roomPath(room, "/members"), nil).Get("chunk").Array() {
		out[e.Get("state_key").Str] = e.Get("content.membership").Str
	}
	return out
}

// until syncs until found says so.
func (p *person) until(what string, found func(gjson.Result) bool) gjson.Result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 60*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		path := "/_matrix/client/v3/sync?timeout=2000"
		if p.since != "" {
			path += "&since=" + url.QueryEscape(p.since)
		}
		out := p.must("GET", path, nil)
		p.since = out.Get("next_batch").Str
		if found(out) {
			return out
		}
	}
	p.t.Fatalf("%s never saw %s", p.id, what)
	return gjson.Result{}
}

func escaped(id string) string {
	return strings.NewReplacer(".", `\.`, "*", `\*`, "?", `\?`).Replace(id)
}

func TestUsersOfTwoServersMeetInRooms(t *testing.T) {
	leavesNothing(t)
	n := newInternet(t)
	one, two := n.start("one.test"), n.start("two.test")
	alice, bob := n.person(one, "alice"), n.person(two, "bob")
	for _, version := range []string{"1", "6", "10", "11", "12"} {
		t.Run("join a public room of version "+version, func(t *testing.T) {
			alice, bob := alice.in(t), bob.in(t)
			room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat", "room_version": version, "room_alias_name": "v" + version, "name": "The room"}).Get("room_id").Str
			got := bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape("#v"+version+":one.test"), map[string]any{}).Get("room_id").Str
			if got != room {
				t.Fatalf("bob is in %s, alice in %s", got, room)
			}
			for _, p := range []*person{alice, bob} {
				if m := p.members(room); m[alice.id] != "join" || m[bob.id] != "join" {
					t.Errorf("%s sees %v", p.id, m)
				}
			}
			if name := bob.must("GET", roomPath(room, "/state/m.room.name"), nil).Get("name").Str; name != "The room" {
				t.Errorf("bob's room is called %q", name)
			}
		})
	}
	t.Run("say something to each other", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
		first := alice.must("PUT", roomPath(room, "/send/m.room.message/before"), map[string]string{"msgtype": "m.text", "body": "before bob came"}).Get("event_id").Str
		bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?via=one.test", map[string]any{})
		for i, p := range []*person{alice, bob, alice, bob} {
			other := []*person{bob, alice}[i%2]
			id := p.must("PUT", roomPath(room, "/send/m.room.message/"+strings.Repeat("x", i+1)), map[string]string{"msgtype": "m.text", "body": "hello"}).Get("event_id").Str
			other.until("a message", func(s gjson.Result) bool {
				return strings.Contains(s.Get("rooms.join."+escaped(room)+".timeline").Raw, id)
			})
		}
		back := bob.must("GET", roomPath(room, "/messages?dir=b&limit=50"), nil)
		if !strings.Contains(back.Raw, first) || !strings.Contains(back.Raw, `"type":"m.room.create"`) {
			t.Errorf("bob sees no history: %s", back.Raw)
		}
		bea := n.person(two, "bea").in(t)
		late := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
		first = alice.must("PUT", roomPath(late, "/send/m.room.message/before"), map[string]string{"msgtype": "m.text", "body": "before bea came"}).Get("event_id").Str
		said := alice.must("GET", roomPath(late, "/event/"+url.PathEscape(first)), nil).Get("origin_server_ts").Int()
		bea.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(late)+"?via=one.test", map[string]any{})
		for _, dir := range []string{"f", "b"} { // nobody on her server has read that far back
			at := "/_matrix/client/v1/rooms/" + url.PathEscape(late) + "/timestamp_to_event?dir=" + dir + "&ts=" + strconv.FormatInt(said, 10)
			if found := bea.must("GET", at, nil); found.Get("event_id").Str != first {
				t.Errorf("%s from %d: %s, want %s", dir, said, found.Raw, first)
			}
		}
		if c := bea.must("GET", roomPath(late, "/context/"+url.PathEscape(first)+"?limit=4"), nil); c.Get("event.content.body").Str != "before bea came" || len(c.Get("events_before").Array()) == 0 {
			t.Errorf("around it bea sees %s", c.Raw)
		}
		alice.must("POST", roomPath(room, "/kick"), map[string]string{"user_id": bob.id})
		bob.until("the end", func(s gjson.Result) bool { return s.Get("rooms.leave." + escaped(room)).Exists() })
	})
	t.Run("invite, and accept it", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat", "name": "Between us"}).Get("room_id").Str
		alice.must("POST", roomPath(room, "/invite"), map[string]string{"user_id": bob.id})
		in := bob.until("the invite", func(s gjson.Result) bool { return s.Get("rooms.invite." + escaped(room)).Exists() })
		if !strings.Contains(in.Get("rooms.invite."+escaped(room)).Raw, "Between us") {
			t.Errorf("the invite does not say where to: %s", in.Get("rooms.invite").Raw)
		}
		bob.must("POST", roomPath(room, "/join"), map[string]any{})
		if m := alice.members(room); m[bob.id] != "join" {
			t.Errorf("alice sees %v", m)
		}
	})
	t.Run("invite with a new room, and reject it", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{bob.id}}).Get("room_id").Str
		bob.until("the invite", func(s gjson.Result) bool { return s.Get("rooms.invite." + escaped(room)).Exists() })
		bob.must("POST", roomPath(room, "/leave"), map[string]any{})
		if m := alice.members(room); m[bob.id] != "leave" {
			t.Errorf("alice sees %v", m)
		}
		bob.until("the end of the invite", func(s gjson.Result) bool { return s.Get("rooms.leave." + escaped(room)).Exists() })
	})
	t.Run("knock, be let in", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{
			"preset": "private_chat", "initial_state": []any{map[string]any{"type": "m.room.join_rules", "state_key": "", "content": map[string]string{"join_rule": "knock"}}},
		}).Get("room_id").Str
		bob.must("POST", "/_matrix/client/v3/knock/"+url.PathEscape(room)+"?via=one.test", map[string]string{"reason": "please"})
		if m := alice.members(room); m[bob.id] != "knock" {
			t.Errorf("alice sees %v", m)
		}
		bob.until("the knock", func(s gjson.Result) bool { return s.Get("rooms.knock." + escaped(room)).Exists() })
		alice.must("POST", roomPath(room, "/invite"), map[string]string{"user_id": bob.id})
		bob.must("POST", roomPath(room, "/join"), map[string]any{})
	})
	t.Run("nobody gets in where he may not", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat"}).Get("room_id").Str
		bob.refused(403, "M_FORBIDDEN", "POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?via=one.test", map[string]any{})
		bob.refused(404, "M_NOT_FOUND", "POST", "/_matrix/client/v3/join/"+url.PathEscape("!nowhere:one.test"), map[string]any{})
		bob.refused(502, "M_UNKNOWN", "POST", "/_matrix/client/v3/join/"+url.PathEscape("!nowhere:nobody.test"), map[string]any{})
		bob.refused(404, "M_NOT_FOUND", "POST", "/_matrix/client/v3/join/"+url.PathEscape("#nowhere:one.test"), map[string]any{})
		alice.refused(404, "M_NOT_FOUND", "POST", roomPath(room, "/invite"), map[string]string{"user_id": "@nobody:two.test"})
	})
	t.Run("restricted room", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		club := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat", "initial_state": []any{map[string]any{
			"type": "m.room.join_rules", "state_key": "", "content": map[string]any{"join_rule": "restricted", "allow": []any{map[string]string{"type": "m.room_membership", "room_id": club}}},
		}}}).Get("room_id").Str
		bob.refused(403, "M_FORBIDDEN", "POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?via=one.test", map[string]any{})
		bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(club)+"?via=one.test", map[string]any{})
		bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?via=one.test", map[string]any{})
		if m := alice.members(room); m[bob.id] != "join" {
			t.Errorf("alice sees %v", m)
		}
	})
	t.Run("profiles, directories, media", func(t *testing.T) {
		alice, bob := alice.in(t), bob.in(t)
		alice.must("PUT", "/_matrix/client/v3/profile/"+url.PathEscape(alice.id)+"/displayname", map[string]string{"displayname": "Alice A."})
		if p := bob.must("GET", "/_matrix/client/v3/profile/"+url.PathEscape(alice.id), nil); p.Get("displayname").Str != "Alice A." {
			t.Errorf("bob sees the profile %s", p.Raw)
		}
		bob.refused(404, "M_NOT_FOUND", "GET", "/_matrix/client/v3/profile/"+url.PathEscape("@nobody:one.test"), nil)
		room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"visibility": "public", "name": "Listed"}).Get("room_id").Str
		if l := bob.must("POST", "/_matrix/client/v3/publicRooms?server=one.test", map[string]any{"filter": map[string]string{"generic_search_term": "Listed"}}); l.Get("chunk.0.room_id").Str != room {
			t.Errorf("bob sees the directory %s", l.Raw)
		}
		q, err := http.NewRequestWithContext(t.Context(), "POST", alice.base+"/_matrix/media/v3/upload?filename=a.txt", strings.NewReader("some text"))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+alice.token)
		q.Header.Set("Content-Type", "text/plain")
		a, err := alice.http.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(a.Body)
		a.Body.Close()
		id := strings.TrimPrefix(gjson.GetBytes(raw, "content_uri").Str, "mxc://")
		for range 2 { // fetched, then kept
			q, _ = http.NewRequestWithContext(t.Context(), "GET", bob.base+"/_matrix/client/v1/media/download/"+id, nil)
			q.Header.Set("Authorization", "Bearer "+bob.token)
			a, err = bob.http.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ = io.ReadAll(a.Body)
			a.Body.Close()
			if string(raw) != "some text" || a.Header.Get("Content-Type") != "text/plain" || !strings.Contains(a.Header.Get("Content-Disposition"), "a.txt") {
				t.Errorf("bob gets %d %q, %v", a.StatusCode, raw, a.Header)
			}
		}
		bob.refused(404, "M_NOT_FOUND", "GET", "/_matrix/client/v1/media/download/one.test/nonesuch", nil)
	})
}

// in gives p for a subtest.
func (p *person) in(t *testing.T) *person {
	q := *p
	q.t = t
	return &q
}
