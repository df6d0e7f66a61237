// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestNotificationsAreListedFromTheNewestWithWhatWasRead(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		rooms := []string{}
		for range 3 {
			h.clock.Advance(time.Second)
			room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
			h.send(room, alice, "before", "before bob came")
			h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
			rooms = append(rooms, room)
		}
		var want []string // newest first
		var read string
		for i := range 75 { // more than one page of a room
			room := rooms[i%2]
			h.clock.Advance(time.Millisecond)
			id := h.send(room, alice, fmt.Sprint("m", i), fmt.Sprint("message ", i))
			h.send(room, bob, fmt.Sprint("b", i), "his own")
			if i == 40 {
				read = id
			}
			want = append([]string{id}, want...)
		}
		h.do("POST", "/v3/rooms/"+url.PathEscape(rooms[0])+"/receipt/m.read/"+url.PathEscape(read), bob, `{}`).ok()
		loud := h.do("PUT", "/v3/rooms/"+url.PathEscape(rooms[2])+"/send/m.room.message/loud", alice, `{"msgtype":"m.text","body":"bob","m.mentions":{"user_ids":["@bob:test"]}}`).ok().str("event_id")
		want = append([]string{loud}, want...)
		closed := h.do("POST", "/v3/createRoom", alice, `{"invite":["@bob:test"]}`).ok().str("room_id")
		h.send(closed, alice, "secret", "bob is not here yet")

		var got []string
		from := ""
		for pages := 0; ; pages++ {
			if pages > 20 {
				t.Fatal("the pages never end")
			}
			a := h.do("GET", "/v3/notifications?limit=10"+from, bob, nil).ok()
			list := a.m["notifications"].([]any)
			for _, x := range list {
				n := x.(map[string]any)
				e := n["event"].(map[string]any)
				if e["type"] == "m.room.member" {
					if len(got) > 0 || n["room_id"] != closed || n["read"] != false {
						t.Errorf("an invitation: %v", n)
					}
					continue
				}
				id := e["event_id"].(string)
				if len(got) == 1 { // a message without a mention
					if diff := cmp.Diff([]any{"notify"}, n["actions"]); diff != "" && n["actions"] == nil {
						t.Error(diff)
					}
				}
				if e["room_id"] != n["room_id"] || n["ts"] != e["origin_server_ts"] {
					t.Errorf("%v", n)
				}
				var i int
				if _, err := fmt.Sscanf(fmt.Sprint(e["content"].(map[string]any)["body"]), "message %d", &i); err == nil && n["read"] != (i%2 == 0 && i <= 40) {
					t.Errorf("message %d: read is %v", i, n["read"])
				}
				got = append(got, id)
			}
			next, more := a.m["next_token"].(string)
			if !more {
				break
			}
			from = "&from=" + url.QueryEscape(next)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		one := h.do("GET", "/v3/notifications?only=highlight", bob, nil).ok().m["notifications"].([]any)
		if len(one) != 1 || dig(one[0], "event", "event_id") != loud {
			t.Errorf("highlights: %v", one)
		}
		if mine := h.do("GET", "/v3/notifications?limit=500", alice, nil).ok().m["notifications"].([]any); len(mine) != 75 {
			t.Errorf("alice has %d notifications, of bob's 75 messages", len(mine))
		}
		// What is older than a month is not listed.
		h.clock.Advance(31 * 24 * time.Hour)
		if old := h.do("GET", "/v3/notifications", bob, nil).ok(); len(old.m["notifications"].([]any)) != 0 {
			t.Error(old.body)
		}
		for _, bad := range []string{"?from=x", "?from=-1", "?limit=0", "?limit=x"} {
			h.do("GET", "/v3/notifications"+bad, bob, nil).refused(400, "M_INVALID_PARAM")
		}
		h.do("GET", "/v3/notifications", "", nil).refused(401, "M_MISSING_TOKEN")
	})
}
