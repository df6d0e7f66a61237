// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestTheServerTellsAUserSomethingInARoomOfHisOwn(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		root, _ := h.register("root")
		if err := h.acc.SetAdmin(t.Context(), "@root:test", true); err != nil {
			t.Fatal(err)
		}
		alice, _ := h.register("alice")
		const path = "/_synapse/admin/v1/send_server_notice"
		body := `{"user_id":"@alice:test","content":{"msgtype":"m.text","body":"maintenance at noon"}}`
		h.do("POST", path, alice, body).refused(403, "M_FORBIDDEN")
		h.do("POST", path, root, `{"user_id":"@nobody:test","content":{}}`).refused(404, "M_NOT_FOUND")
		h.do("POST", path, root, `{"user_id":"@alice:test"}`).refused(400, "M_MISSING_PARAM")
		h.do("POST", path, root, `{"user_id":"@alice:test","content":[]}`).refused(400, "M_BAD_JSON")
		first := h.do("POST", path, root, body).ok().str("event_id")
		invited := func() string {
			in, _ := dig(h.do("GET", "/v3/sync", alice, nil).ok().m, "rooms", "invite").(map[string]any)
			for id := range in {
				return id
			}
			t.Fatal("alice is not invited")
			return ""
		}
		room := invited()
		rp := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", rp+"/leave", alice, `{}`).refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
		h.do("PUT", rp+"/state/m.room.member/@alice:test", alice, `{"membership":"leave"}`).refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
		h.do("POST", "/v3/join/"+url.PathEscape(room), alice, `{}`).ok()
		h.do("GET", rp+"/event/"+url.PathEscape(first), alice, nil).ok()
		h.do("PUT", rp+"/send/m.room.message/1", alice, `{"body":"no"}`).refused(403, "M_FORBIDDEN")
		if tags := h.do("GET", "/v3/user/@alice:test/rooms/"+url.PathEscape(room)+"/tags", alice, nil).ok().m["tags"]; dig(tags, "m.server_notice") == nil {
			t.Errorf("tags: %v", tags)
		}
		h.do("POST", rp+"/leave", alice, `{}`).ok()
		one := h.do("PUT", path+"/t1", root, body).ok().str("event_id")
		if two := h.do("PUT", path+"/t1", root, body).ok().str("event_id"); one != two || one == first {
			t.Errorf("events %s, %s and %s", first, one, two)
		}
		if again := invited(); again != room {
			t.Errorf("a second room: %s and %s", room, again)
		}
		h.do("POST", "/v3/register", "", `{"username":"_server","password":"correct horse","auth":{"type":"m.login.dummy"}}`).refused(400, "M_INVALID_USERNAME")
	})
}
