// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestMessagesAreFoundByTheirWordsByThoseWhoMaySeeThem(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"private_chat","name":"Harbour"}`).ok().str("room_id")
		other := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		h.do("POST", "/v3/join/"+url.PathEscape(other), bob, `{}`).ok()
		var sent []string
		for i := range 7 {
			sent = append(sent, h.send(room, alice, fmt.Sprint(i), fmt.Sprintf("Message number %d", i)))
		}
		shared := h.send(other, alice, "s", "Größe: 100 messages, it's \"quoted\" AND NOT -plain")
		gone := h.send(room, alice, "g", "message to be taken back")
		h.do("PUT", "/v3/rooms/"+url.PathEscape(room)+"/redact/"+url.PathEscape(gone)+"/r", alice, `{}`).ok()
		search := func(who string, events map[string]any, query string) map[string]any {
			return dig(h.do("POST", "/v3/search"+query, who, map[string]any{"search_categories": map[string]any{"room_events": events}}).ok().m, "search_categories", "room_events").(map[string]any)
		}
		results := func(m map[string]any) (out []string) {
			for _, x := range m["results"].([]any) {
				out = append(out, dig(x, "result", "event_id").(string))
			}
			return out
		}
		in := func(rooms ...string) map[string]any { return map[string]any{"rooms": rooms, "limit": 3} }
		newest := []string{sent[6], sent[5], sent[4]}
		got := search(alice, map[string]any{"search_term": "mess", "order_by": "recent", "filter": in(room)}, "")
		if diff := cmp.Diff(newest, results(got)); diff != "" || got["count"] != 7.0 || got["next_batch"] != "3" {
			t.Errorf("first page: %v %v %s", got["count"], got["next_batch"], diff)
		}
		got = search(alice, map[string]any{"search_term": "mess", "order_by": "recent", "filter": in(room)}, "?next_batch=6")
		if diff := cmp.Diff([]string{sent[0]}, results(got)); diff != "" || got["next_batch"] != nil {
			t.Errorf("last page: %v %s", got["next_batch"], diff)
		}
		for _, x := range []struct {
			who, term string
			want      []string
		}{
			{alice, "MESSAGE 4", sent[4:5]}, {alice, "größe", []string{shared}}, {alice, `quoted" OR "x`, nil}, {alice, "not plain", []string{shared}},
			{alice, "harbour", nil}, {alice, "taken back", nil}, {alice, "?!", nil}, {bob, "number", nil}, {bob, "100 it's", []string{shared}},
		} {
			got := search(x.who, map[string]any{"search_term": x.term, "keys": []string{"content.body"}}, "")
			if diff := cmp.Diff(x.want, results(got)); diff != "" {
				t.Errorf("%q: %s", x.term, diff)
			}
		}
		if got := search(alice, map[string]any{"search_term": "harbour"}, ""); got["count"] != 1.0 {
			t.Errorf("the name of a room is found %v times", got["count"])
		}
		got = search(alice, map[string]any{
			"search_term": "number 3", "include_state": true, "event_context": map[string]any{"before_limit": 1, "after_limit": 2, "include_profile": true},
			"groupings": map[string]any{"group_by": []any{map[string]any{"key": "room_id"}, map[string]any{"key": "sender"}}},
		}, "")
		context := dig(got["results"].([]any)[0], "context")
		if diff := cmp.Diff([]string{sent[2]}, ids(dig(context, "events_before"))); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{sent[4], sent[5]}, ids(dig(context, "events_after"))); diff != "" {
			t.Error(diff)
		}
		if dig(context, "profile_info", "@alice:test", "displayname") != "alice" || dig(got, "state", room) == nil ||
			!cmp.Equal(dig(got, "groups", "sender", "@alice:test", "results"), []any{sent[3]}) || !cmp.Equal(dig(got, "groups", "room_id", room, "results"), []any{sent[3]}) {
			t.Errorf("profiles, state and groups: %v", got)
		}
		// Whoever left finds what he saw, not what came later.
		h.do("POST", "/v3/rooms/"+url.PathEscape(other)+"/leave", bob, `{}`).ok()
		h.send(other, alice, "later", "secret 100")
		if diff := cmp.Diff([]string{shared}, results(search(bob, map[string]any{"search_term": "100"}, ""))); diff != "" {
			t.Error(diff)
		}
		for _, bad := range []string{
			`{"search_term":"x","keys":["content.secret"]}`, `{"search_term":"x","order_by":"size"}`, `{"search_term":"number","groupings":{"group_by":[{"key":"type"}]}}`,
		} {
			h.do("POST", "/v3/search", alice, `{"search_categories":{"room_events":`+bad+`}}`).refused(400, "M_INVALID_PARAM")
		}
		h.do("POST", "/v3/search", alice, `{"search_categories":{"room_events":{}}}`).refused(400, "M_MISSING_PARAM")
		h.do("POST", "/v3/search?next_batch=x", alice, `{"search_categories":{"room_events":{"search_term":"x"}}}`).refused(400, "M_INVALID_PARAM")
		h.do("POST", "/v3/search", "", `{}`).refused(401, "M_MISSING_TOKEN")
	})
}
