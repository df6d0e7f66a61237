// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestWhoWasErasedIsReadByThoseWhoWereThereAlone(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		for _, erase := range []bool{false, true} {
			name := map[bool]string{true: "erika", false: "karl"}[erase]
			token := s.person(name)
			room := s.newRoom(s.alice, `{"preset":"public_chat"}`)
			base := "/v3/rooms/" + esc(room)
			for _, who := range []string{token, s.bob} {
				s.do("POST", base+"/join", who, `{}`).ok()
			}
			said := s.do("PUT", base+"/send/m.room.message/1", token, `{"msgtype":"m.text","body":"a private word of `+name+`"}`).ok().str("event_id")
			s.do("PUT", "/v3/user/@"+name+":test/account_data/x", token, `{"a":"b"}`).ok()
			s.do("POST", "/v3/account/deactivate", token, map[string]any{"erase": erase, "auth": passwordAuth(name, "")}).ok()
			s.do("POST", base+"/join", s.mallory, `{}`).ok()
			reads := func(who string) (n int) {
				for _, a := range []answer{
					s.do("GET", base+"/event/"+esc(said), who, nil), s.do("GET", base+"/messages?dir=b&limit=50", who, nil), s.do("GET", base+"/context/"+esc(said), who, nil),
					s.do("GET", "/v3/sync?filter="+url.QueryEscape(`{"room":{"timeline":{"limit":50}}}`), who, nil),
					s.do("GET", "/v3/sync?filter="+url.QueryEscape(`{"event_format":"federation","room":{"timeline":{"limit":50}}}`), who, nil),
				} {
					if !strings.Contains(a.ok().body, said) {
						t.Errorf("%s: the event is missing: %s", a.what, a.body)
					}
					if strings.Contains(a.body, "a private word of "+name) {
						n++
					}
				}
				return n
			}
			if n := reads(s.bob); n != 5 {
				t.Errorf("erase %v: bob, who was there, reads %d of 5", erase, n)
			}
			want := map[bool]int{true: 0, false: 5}[erase]
			if n := reads(s.mallory); n != want {
				t.Errorf("erase %v: mallory, who came later, reads %d of 5, want %d", erase, n, want)
			}
			if m := gjson.Get(s.do("GET", base+"/members", s.bob, nil).ok().body, `chunk.#(state_key=="@`+name+`:test").content.membership`).Str; m != "leave" {
				t.Errorf("membership of who ended: %q", m)
			}
			// The list is there after a start too.
			if got, err := st.Erased(t.Context()); err != nil || (got["@"+name+":test"] > 0) != erase {
				t.Errorf("kept: %v %v", got, err)
			}
		}
	})
}
