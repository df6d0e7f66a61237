// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestARoomIsReplacedByOneOfAnotherVersion(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		h.register("mallory")
		for _, v := range [][2]string{{"8", "9"}, {"10", "12"}, {"12", "11"}} {
			old := h.do("POST", "/v3/createRoom", alice, map[string]any{"preset": "public_chat", "visibility": "public", "room_version": v[0], "name": "Den", "topic": "Talk", "room_alias_name": "den" + v[0]}).ok().str("room_id")
			path := "/v3/rooms/" + url.PathEscape(old)
			h.do("POST", "/v3/join/"+url.PathEscape(old), bob, `{}`).ok()
			h.do("POST", path+"/ban", alice, `{"user_id":"@mallory:test"}`).ok()
			h.do("POST", path+"/upgrade", bob, `{"new_version":"11"}`).refused(403, "M_FORBIDDEN")
			h.do("POST", path+"/upgrade", alice, `{"new_version":"99"}`).refused(400, "M_UNSUPPORTED_ROOM_VERSION")
			h.do("POST", path+"/upgrade", alice, `{}`).refused(400, "M_MISSING_PARAM")
			h.do("GET", path+"/state/m.room.tombstone", alice, nil).refused(404, "M_NOT_FOUND")
			id := h.do("POST", path+"/upgrade", alice, `{"new_version":"`+v[1]+`"}`).ok().str("replacement_room")
			if got := h.do("GET", path+"/state/m.room.tombstone", bob, nil).ok().m["replacement_room"]; got != id {
				t.Errorf("%v: the tombstone leads to %v, want %s", v, got, id)
			}
			next := "/v3/rooms/" + url.PathEscape(id)
			h.do("POST", "/v3/join/"+url.PathEscape(id), bob, `{}`).ok()
			for typ, want := range map[string]string{"m.room.name": "Den", "m.room.topic": "Talk", "m.room.join_rules": "public", "m.room.canonical_alias": "#den" + v[0] + ":test"} {
				got := h.do("GET", next+"/state/"+typ, bob, nil).ok().m
				if got["name"] != want && got["topic"] != want && got["join_rule"] != want && got["alias"] != want {
					t.Errorf("%v: %s is %v, want %s", v, typ, got, want)
				}
			}
			create := h.do("GET", next+"/state/m.room.create", bob, nil).ok().m
			if dig(create, "predecessor", "room_id") != old || create["room_version"] != v[1] {
				t.Errorf("%v: create is %v", v, create)
			}
			if got := h.do("GET", "/v3/directory/room/"+url.PathEscape("#den"+v[0]+":test"), "", nil).ok().str("room_id"); got != id {
				t.Errorf("%v: the alias names %s, want %s", v, got, id)
			}
			if h.do("GET", "/v3/directory/list/room/"+url.PathEscape(id), "", nil).ok().str("visibility") != "public" || h.do("GET", "/v3/directory/list/room/"+url.PathEscape(old), "", nil).ok().str("visibility") != "private" {
				t.Errorf("%v: the directory did not move on", v)
			}
			if got := h.do("GET", next+"/state/m.room.member/@mallory:test", alice, nil).ok().m["membership"]; got != "ban" {
				t.Errorf("%v: mallory is %v in the new room", v, got)
			}
			h.do("PUT", next+"/state/m.room.name", alice, `{"name":"alice still rules"}`).ok()
			h.do("PUT", path+"/send/m.room.message/1", bob, `{"body":"anybody there?"}`).refused(403, "M_FORBIDDEN")
		}
	})
}
