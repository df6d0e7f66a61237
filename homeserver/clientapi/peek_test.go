// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"log/slog"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

// bodiesIn lists what messages in a chunk say.
func bodiesIn(chunk any) (out []string) {
	for _, e := range chunk.([]any) {
		if b, ok := e.(map[string]any)["content"].(map[string]any)["body"].(string); ok {
			out = append(out, b)
		}
	}
	return out
}

func TestWhoeverLooksIntoAnOpenRoomSeesItAndWhatComes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		open := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat","visibility":"public","name":"Square","initial_state":[{"type":"m.room.history_visibility","content":{"history_visibility":"world_readable"}}]}`).ok().str("room_id")
		shut := h.do("POST", "/v3/createRoom", alice, `{"preset":"private_chat"}`).ok().str("room_id")
		say := func(text string) {
			h.do("PUT", "/v3/rooms/"+esc(open)+"/send/m.room.message/"+text, alice, `{"msgtype":"m.text","body":"`+text+`"}`).ok()
		}
		say("one")
		say("two")
		first := h.do("GET", "/v3/rooms/"+esc(open)+"/initialSync?limit=2", bob, nil).ok().m
		messages := first["messages"].(map[string]any)
		if got := bodiesIn(messages["chunk"]); !cmp.Equal(got, []string{"one", "two"}) || first["visibility"] != "public" || first["room_id"] != open || first["membership"] != nil {
			t.Errorf("initialSync: %v %v", got, first)
		}
		name := ""
		for _, e := range first["state"].([]any) {
			if e := e.(map[string]any); e["type"] == "m.room.name" {
				name, _ = e["content"].(map[string]any)["name"].(string)
			}
		}
		if name != "Square" {
			t.Errorf("the state has the name %q", name)
		}
		older := h.do("GET", "/v3/rooms/"+esc(open)+"/messages?dir=b&from="+messages["start"].(string), bob, nil).ok().m
		if got := bodiesIn(older["chunk"]); len(got) != 0 || len(older["chunk"].([]any)) != 2 {
			t.Errorf("before it: %v", older["chunk"])
		}
		if m := h.do("GET", "/v3/rooms/"+esc(shut)+"/initialSync", alice, nil).ok().m; m["membership"] != "join" || m["visibility"] != "private" {
			t.Errorf("one's own room: %v", m)
		}

		events := func(from string, timeout int) string {
			return fmt.Sprintf("/v3/events?room_id=%s&from=%s&timeout=%d", url.QueryEscape(open), from, timeout)
		}
		end := messages["end"].(string)
		if m := h.do("GET", events(end, 0), bob, nil).ok().m; len(m["chunk"].([]any)) != 0 || m["end"] != end {
			t.Errorf("nothing yet: %v", m)
		}
		got := make(chan answer)
		go func() { got <- h.do("GET", events(end, 30000), bob, nil) }()
		say("three")
		m := (<-got).ok().m
		if b := bodiesIn(m["chunk"]); !cmp.Equal(b, []string{"three"}) || m["start"] != end {
			t.Errorf("what came: %v", m)
		}
		if m = h.do("GET", events(m["end"].(string), 0), bob, nil).ok().m; len(m["chunk"].([]any)) != 0 {
			t.Errorf("told twice: %v", m)
		}
		// Whoever looks on is put out when the room is closed.
		go func() { got <- h.do("GET", events(m["end"].(string), 30000), bob, nil) }()
		h.do("PUT", "/v3/rooms/"+esc(open)+"/state/m.room.history_visibility", alice, `{"history_visibility":"joined"}`).ok()
		if a := <-got; a.status == 200 { // the change itself may be seen, as it came before the close
			h.do("GET", events(a.str("end"), 30000), bob, nil).refused(403, "M_FORBIDDEN")
		} else {
			a.refused(403, "M_FORBIDDEN")
		}

		for _, path := range []string{"/v3/rooms/" + esc(shut) + "/initialSync", "/v3/rooms/!nowhere:test/initialSync", "/v3/events?room_id=" + url.QueryEscape(shut), "/v3/events?room_id=!nowhere:test"} {
			h.do("GET", path, bob, nil).refused(403, "M_FORBIDDEN")
			h.do("GET", path, "", nil).refused(401, "M_MISSING_TOKEN")
		}
		h.do("GET", "/v3/events", bob, nil).refused(400, "M_MISSING_PARAM")
		h.do("GET", "/v3/events?from=x&room_id="+url.QueryEscape(open), alice, nil).refused(400, "M_INVALID_PARAM")
	})
}

func TestWhoeverRunsTheServerIsNamed(t *testing.T) {
	st := storagetest.Open(t, storagetest.SQLiteURL(t))
	newHome(t, st).do("GET", "/.well-known/matrix/support", "", nil).refused(404, "M_NOT_FOUND")
	r, err := rooms.New(t.Context(), st, "test", signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t, st, func(_ *accounts.Config, d *Deps) {
		d.Rooms = r
		d.Config.Contact = []string{"help@example.org", "@admin:test", "https://example.org/help"}
		d.Config.PublicURL, d.Config.Federation = "https://test", "test:443"
	})
	want := map[string]any{"support_page": "https://example.org/help", "contacts": []any{
		map[string]any{"role": "m.role.admin", "email_address": "help@example.org"}, map[string]any{"role": "m.role.admin", "matrix_id": "@admin:test"},
	}}
	if d := cmp.Diff(want, h.do("GET", "/.well-known/matrix/support", "", nil).ok().m); d != "" {
		t.Error(d)
	}
	if h.do("GET", "/.well-known/matrix/server", "", nil).ok().str("m.server") != "test:443" {
		t.Error("the server's address is another")
	}
	if one, two := h.do("GET", "/.well-known/matrix/policy_server", "", nil).ok(), h.do("GET", "/.well-known/matrix/policy_server", "", nil).ok(); len(one.body) != len(`{"public_keys":{"ed25519":""}}`)+43 || one.body != two.body {
		t.Errorf("%s, then %s", one.body, two.body)
	}
	h.do("GET", "/.well-known/matrix/client", "", nil).ok()
}
