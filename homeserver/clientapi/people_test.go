// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestPeopleAreFoundByThoseWhoMayKnowOfThem(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		eve, _ := h.register("eve")
		h.do("PUT", "/v3/profile/@alice:test/displayname", alice, `{"displayname":"Älice 100% Public"}`).ok()
		private := h.do("POST", "/v3/createRoom", bob, `{"invite":["@alice:test"]}`).ok().str("room_id")
		h.do("POST", "/v3/join/"+url.PathEscape(private), alice, `{}`).ok()
		h.do("PUT", "/v3/rooms/"+url.PathEscape(private)+"/state/m.room.member/@alice:test", alice, `{"membership":"join","displayname":"Freddie"}`).ok()
		search := func(who, term string) (out []string) {
			for _, u := range h.do("POST", "/v3/user_directory/search", who, map[string]any{"search_term": term}).ok().m["results"].([]any) {
				out = append(out, dig(u, "user_id").(string))
			}
			return out
		}
		found := []string{"@alice:test"}
		for _, x := range []struct {
			who, term string
			want      []string
		}{
			{bob, "Älice", found}, {bob, "älice", found}, {bob, "public älice", found}, {bob, "ALICE:TEST", found}, {bob, "100%", found}, {bob, "1_0", nil},
			{bob, "Freddie", nil}, {bob, "bob", nil}, {bob, "  ", nil}, {bob, "älice nobody", nil}, {eve, "älice", nil}, {eve, "alice", nil},
		} {
			if diff := cmp.Diff(x.want, search(x.who, x.term)); diff != "" {
				t.Errorf("%q: %s", x.term, diff)
			}
		}
		h.do("POST", "/v3/createRoom", alice, `{"visibility":"public"}`).ok()
		if diff := cmp.Diff(found, search(eve, "alice")); diff != "" {
			t.Error(diff)
		}
		h.do("POST", "/v3/user_directory/search", eve, `{}`).refused(400, "M_MISSING_PARAM")
		h.do("POST", "/v3/user_directory/search", eve, `{"search_term":"a","limit":-1}`).refused(400, "M_INVALID_PARAM")

		if got := h.do("GET", "/v1/mutual_rooms?user_id=@bob:test", alice, nil).ok().m["joined"]; !cmp.Equal(got, []any{private}) {
			t.Errorf("mutual rooms: %v, want %s", got, private)
		}
		if got := h.do("GET", "/v1/mutual_rooms?user_id=@eve:test", alice, nil).ok().m["joined"]; !cmp.Equal(got, []any{}) {
			t.Errorf("mutual rooms with eve: %v", got)
		}
		h.do("GET", "/v1/mutual_rooms?user_id=@alice:test", alice, nil).refused(400, "M_INVALID_PARAM")
		h.do("GET", "/v1/mutual_rooms", alice, nil).refused(400, "M_MISSING_PARAM")
	})
}
