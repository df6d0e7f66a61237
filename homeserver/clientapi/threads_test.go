// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestThreadsAreSubscribedToAndTheClientIsTold(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		mallory, _ := h.register("mallory")
		room := h.do("POST", "/v3/createRoom", alice, `{}`).ok().str("room_id")
		root := h.send(room, alice, "1", "root")
		other := h.send(room, alice, "2", "other")
		at := func(root string) string {
			return "/unstable/io.element.msc4306/rooms/" + url.PathEscape(room) + "/thread/" + url.PathEscape(root) + "/subscription"
		}
		put := func(cause string) answer { return h.do("PUT", at(root), alice, map[string]any{"automatic": cause}) }
		is := func(want any) {
			t.Helper()
			if want == nil {
				h.do("GET", at(root), alice, nil).refused(404, "M_NOT_FOUND")
			} else if got := h.do("GET", at(root), alice, nil).ok().m["automatic"]; got != want {
				t.Errorf("automatic is %v, want %v", got, want)
			}
		}
		slide := func(pos string) (map[string]any, string) {
			a := h.do("POST", "/unstable/org.matrix.simplified_msc3575/sync?timeout=0&pos="+url.QueryEscape(pos), alice, `{"extensions":{"io.element.msc4308.thread_subscriptions":{"enabled":true,"limit":2}}}`).ok()
			m, _ := dig(a.m, "extensions", "io.element.msc4308.thread_subscriptions").(map[string]any)
			return m, a.str("pos")
		}
		told, pos := slide("")
		if told != nil {
			t.Errorf("told of subscriptions before there are any: %v", told)
		}
		one := h.relate(room, alice, "m.room.message", "m.thread", root, "one")
		elsewhere := h.relate(room, alice, "m.room.message", "m.thread", other, "elsewhere")
		is(nil)
		h.do("DELETE", at(root), alice, nil).ok()
		put(root).refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD")
		put(elsewhere).refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD")
		put("$nothing").refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD")
		put(one).ok()
		is(true)
		if told, pos = slide(pos); dig(told, "subscribed", room, root, "automatic") != true {
			t.Errorf("told of %v", told)
		}
		h.do("PUT", at(root), alice, `{}`).ok()
		is(false)
		put(one).ok()
		is(false) // what the user wants stays
		two := h.relate(room, alice, "m.room.message", "m.thread", root, "two")
		h.do("DELETE", at(root), alice, nil).ok()
		if told, pos = slide(pos); dig(told, "unsubscribed", room, root, "bump_stamp") == nil || told["subscribed"] != nil {
			t.Errorf("told of %v", told)
		}
		if told, _ = slide(pos); told != nil {
			t.Errorf("told twice: %v", told)
		}
		three := h.relate(room, alice, "m.room.message", "m.thread", root, "three")
		put(one).refused(409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
		put(two).refused(409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
		is(nil)
		put(three).ok()
		is(true)
		for i := range 4 {
			h.do("PUT", at(h.send(room, alice, fmt.Sprint("r", i), "root")), alice, nil).ok()
		}
		told, _ = slide("")
		if n := len(dig(told, "subscribed", room).(map[string]any)); n != 2 {
			t.Errorf("%d subscriptions in one answer, want 2", n)
		}
		rest := h.do("GET", "/unstable/io.element.msc4308/thread_subscriptions?dir=b&from="+url.QueryEscape(told["prev_batch"].(string)), alice, nil).ok().m
		if n := len(dig(rest, "subscribed", room).(map[string]any)); n != 3 || rest["end"] != nil {
			t.Errorf("the rest is %v", rest)
		}
		h.do("PUT", at(root), mallory, `{}`).refused(404, "M_NOT_FOUND")
		h.do("PUT", at("$nothing"), alice, `{}`).refused(404, "M_NOT_FOUND")
		h.do("GET", "/unstable/io.element.msc4308/thread_subscriptions?from=x", alice, nil).refused(400, "M_INVALID_PARAM")
	})
}
