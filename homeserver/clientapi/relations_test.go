// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// relate sends a message that relates to another.
func (h *home) relate(room, token, typ, rel, to, body string) string {
	h.t.Helper()
	c := map[string]any{"msgtype": "m.text", "body": body, "m.relates_to": map[string]any{"rel_type": rel, "event_id": to}}
	if rel == "m.replace" {
		c["m.new_content"] = map[string]any{"msgtype": "m.text", "body": body}
	}
	return h.do("PUT", "/v3/rooms/"+url.PathEscape(room)+"/send/"+typ+"/"+url.PathEscape(rel+to+body), token, c).ok().str("event_id")
}

func TestRelationsArePagedInBothDirectionsAndFiltered(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		mallory, _ := h.register("mallory")
		room := h.do("POST", "/v3/createRoom", alice, `{}`).ok().str("room_id")
		base := "/v1/rooms/" + url.PathEscape(room) + "/relations/"
		root := h.send(room, alice, "1", "root")
		var all []string
		for i := range 7 {
			all = append(all, h.relate(room, alice, "m.room.message", "m.thread", root, fmt.Sprint(i)))
		}
		odd := h.relate(room, alice, "x.odd", "m.thread", root, "odd")
		ref := h.relate(room, alice, "m.room.message", "m.reference", root, "ref")
		deep := h.relate(room, alice, "m.room.message", "m.reference", all[6], "deep")
		list := func(path string) ([]string, string) {
			a := h.do("GET", base+url.PathEscape(root)+path, alice, nil).ok()
			return ids(a.m["chunk"]), a.str("next_batch")
		}
		pages := func(path string) (got []string) {
			next := ""
			for range 10 {
				page, more := list(path + next)
				got = append(got, page...)
				if more == "" {
					return got
				}
				next = "&from=" + url.QueryEscape(more)
			}
			t.Fatal("the pages never end")
			return nil
		}
		forward := append(slices.Clone(all), odd, ref)
		if diff := cmp.Diff(forward, pages("?dir=f&limit=2")); diff != "" {
			t.Error(diff)
		}
		back := slices.Clone(forward)
		slices.Reverse(back)
		if diff := cmp.Diff(back, pages("?limit=3")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{ref}, pages("/m.reference?limit=9")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{odd}, pages("/m.thread/x.odd?limit=9")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{deep, ref}, pages("/m.reference?limit=9&recurse=true")); diff != "" {
			t.Error(diff)
		}
		h.do("PUT", "/v3/rooms/"+url.PathEscape(room)+"/redact/"+url.PathEscape(odd)+"/r1", alice, `{}`).ok()
		if got := pages("/m.thread/x.odd?limit=9"); got != nil {
			t.Errorf("a redacted event still relates: %v", got)
		}
		h.do("GET", base+url.PathEscape(root), mallory, nil).refused(404, "M_NOT_FOUND")
		for _, bad := range []string{"?dir=x", "?limit=0", "?from=nonsense", "?recurse=maybe"} {
			h.do("GET", base+url.PathEscape(root)+bad, alice, nil).refused(400, "M_INVALID_PARAM")
		}
	})
}

func TestEventsCarryTheirEditThreadAndReferences(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		root := h.send(room, alice, "1", "root")
		h.relate(room, bob, "m.room.message", "m.replace", root, "bob may not edit alice")
		h.relate(room, alice, "m.room.message", "m.replace", root, "first")
		h.clock.Advance(time.Second)
		edit := h.relate(room, alice, "m.room.message", "m.replace", root, "second")
		h.relate(room, alice, "m.room.message", "m.thread", root, "one")
		last := h.relate(room, alice, "m.room.message", "m.thread", root, "two")
		gone := h.relate(room, alice, "m.room.message", "m.thread", root, "three")
		ref := h.relate(room, alice, "m.room.message", "m.reference", root, "see there")
		h.do("PUT", path+"/redact/"+url.PathEscape(gone)+"/r", alice, `{}`).ok()
		find := func(v any) any {
			list, _ := v.([]any)
			for _, e := range list {
				if dig(e, "event_id") == root {
					return e
				}
			}
			return nil
		}
		for name, e := range map[string]any{
			"event":    h.do("GET", path+"/event/"+url.PathEscape(root), bob, nil).ok().m,
			"messages": find(h.do("GET", path+"/messages?dir=b&limit=50", bob, nil).ok().m["chunk"]),
			"context":  h.do("GET", path+"/context/"+url.PathEscape(root), bob, nil).ok().m["event"],
			"sync":     find(dig(h.do("GET", "/v3/sync?filter="+url.QueryEscape(`{"room":{"timeline":{"limit":50}}}`), bob, nil).ok().m, "rooms", "join", room, "timeline", "events")),
			"threads":  find(h.do("GET", "/v1/rooms/"+url.PathEscape(room)+"/threads", bob, nil).ok().m["chunk"]),
		} {
			rel := dig(e, "unsigned", "m.relations")
			if dig(rel, "m.replace", "event_id") != edit {
				t.Errorf("%s: the edit is %v, want %s", name, dig(rel, "m.replace", "event_id"), edit)
			}
			if dig(rel, "m.thread", "latest_event", "event_id") != last || dig(rel, "m.thread", "count") != 2.0 || dig(rel, "m.thread", "current_user_participated") != false {
				t.Errorf("%s: the thread is %v", name, dig(rel, "m.thread"))
			}
			if diff := cmp.Diff([]string{ref}, ids(dig(rel, "m.reference", "chunk"))); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if dig(e, "content", "body") != "root" {
				t.Errorf("%s: the server put an edit into the event", name)
			}
		}
		if got := h.do("GET", "/v1/rooms/"+url.PathEscape(room)+"/threads?include=participated", bob, nil).ok().m["chunk"].([]any); len(got) != 0 {
			t.Errorf("bob took part in no thread, got %v", got)
		}
		if got := ids(h.do("GET", "/v1/rooms/"+url.PathEscape(room)+"/threads?include=participated", alice, nil).ok().m["chunk"]); !slices.Equal(got, []string{root}) {
			t.Errorf("alice's threads: %v", got)
		}
		for filter, want := range map[string][]string{
			`{"org.matrix.msc3874.rel_types":["m.thread"]}`:                                 {last},
			`{"org.matrix.msc3874.rel_types":["m.reference"]}`:                              {ref},
			`{"related_by_rel_types":["m.thread"],"types":["m.room.message"]}`:              {root},
			`{"related_by_rel_types":["m.thread"],"related_by_senders":["@bob:test"]}`:      nil,
			`{"related_by_senders":["@bob:test"],"org.matrix.msc3874.not_rel_types":["x"]}`: {root},
		} {
			got := ids(h.do("GET", path+"/messages?dir=b&limit=50&filter="+url.QueryEscape(filter), bob, nil).ok().m["chunk"])
			if len(want) == 1 && (len(got) == 0 || got[0] != want[0]) || want == nil && got != nil {
				t.Errorf("%s: %v, want %v first", filter, got, want)
			}
		}
		h.do("GET", "/v1/rooms/"+url.PathEscape(room)+"/threads?include=some", bob, nil).refused(400, "M_INVALID_PARAM")
	})
}
