// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// config sets a piece of account data of a user.
func (s *siege) config(token, user, typ, content string) {
	s.t.Helper()
	s.do("PUT", "/v3/user/"+user+"/account_data/"+typ, token, content).ok()
}

// invited says whether both kinds of sync show an invite to a room; they must agree.
func (s *siege) invited(token, room string) bool {
	s.t.Helper()
	first := gjson.Get(s.do("GET", "/v3/sync", token, nil).ok().body, "rooms.invite").Map()[room].Exists()
	a := s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync", token, `{"lists":{"all":{"ranges":[[0,99]],"timeline_limit":0,"required_state":[]}}}`).ok()
	second := gjson.Get(a.body, "rooms").Map()[room].Exists()
	if first != second {
		s.t.Errorf("sync shows the invite: %v, sliding sync: %v", first, second)
	}
	if !second && gjson.Get(a.body, "lists.all.count").Int() != int64(len(gjson.Get(a.body, "rooms").Map())) {
		s.t.Errorf("a hidden invite is counted: %s", a.body)
	}
	return first
}

const blocked4155 = "ORG.MATRIX.MSC4155.INVITE_BLOCKED"

func TestWhoBlocksInvitesGetsNone(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		room := s.newRoom(s.mallory, `{"preset":"private_chat"}`)
		old := s.newRoom(s.mallory, `{"preset":"private_chat","invite":["@bob:test"]}`)
		if !s.invited(s.bob, old) {
			t.Fatal("an invite is not shown")
		}
		for _, typ := range []string{"m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"} {
			s.config(s.bob, "@bob:test", typ, `{"default_action":"block"}`)
			s.do("POST", "/v3/rooms/"+esc(room)+"/invite", s.mallory, `{"user_id":"@bob:test"}`).refused(403, "M_INVITE_BLOCKED")
			s.do("PUT", "/v3/rooms/"+esc(room)+"/state/m.room.member/@bob:test", s.mallory, `{"membership":"invite"}`).refused(403, "M_INVITE_BLOCKED")
			s.do("POST", "/v3/createRoom", s.mallory, `{"invite":["@bob:test"]}`).refused(403, "M_INVITE_BLOCKED")
			s.do("GET", "/v3/rooms/"+esc(room)+"/state/m.room.member/@bob:test", s.mallory, nil).refused(404, "M_NOT_FOUND")
			if s.invited(s.bob, old) {
				t.Error("an invite of before is shown to one who blocks them")
			}
			s.config(s.bob, "@bob:test", typ, `{}`)
		}
		if !s.invited(s.bob, old) {
			t.Error("the invite does not come back when blocking ends")
		}
		for _, odd := range []string{`{"default_action":"allow"}`, `{"default_action":7}`, `{"default_action":null}`, `{"default_action":["block"]}`} {
			s.config(s.bob, "@bob:test", "m.invite_permission_config", odd)
		}
		// Only who may invite at all learns anything.
		s.config(s.bob, "@bob:test", "m.invite_permission_config", `{"default_action":"block"}`)
		s.do("POST", "/v3/rooms/"+esc(s.room)+"/invite", s.mallory, `{"user_id":"@bob:test"}`).refused(403, "M_FORBIDDEN")
		s.config(s.bob, "@bob:test", "m.invite_permission_config", `{}`)
		s.do("POST", "/v3/rooms/"+esc(room)+"/invite", s.mallory, `{"user_id":"@bob:test"}`).ok()
		s.unaffected()
		flags := s.do("GET", "/_matrix/client/versions", "", nil).ok().body
		for _, f := range []string{"org.matrix.msc4155", "org.matrix.msc4380", "org.matrix.msc4380.stable"} {
			if !gjson.Get(flags, "unstable_features").Map()[f].Bool() {
				t.Errorf("%s is not advertised", f)
			}
		}
	})
}

// The cases of MSC4155: users before servers; allow, then ignore, then block.
func TestInvitesAreFilteredByUserAndServer(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		n := 0
		const shown, hidden, refused = "shown", "hidden", "refused"
		for name, c := range map[string]struct{ rules, bob, mallory string }{
			"no rules":                           {`{}`, shown, shown},
			"a user is blocked":                  {`{"blocked_users":["@bob:test"]}`, refused, shown},
			"a user is ignored":                  {`{"ignored_users":["@bob:test"]}`, hidden, shown},
			"a server is blocked":                {`{"blocked_servers":["test"]}`, refused, refused},
			"a server is ignored":                {`{"ignored_servers":["test"]}`, hidden, hidden},
			"servers by pattern":                 {`{"blocked_servers":["t*"]}`, refused, refused},
			"another server":                     {`{"blocked_servers":["t?","tes","*.test","elsewhere"]}`, shown, shown},
			"users by pattern":                   {`{"blocked_users":["@b?b*"]}`, refused, shown},
			"a user of a blocked server":         {`{"allowed_users":["@bob:test"],"blocked_servers":["test"]}`, shown, refused},
			"a blocked user of a server":         {`{"blocked_users":["@mallory:test"],"allowed_servers":["test"]}`, shown, refused},
			"only one":                           {`{"allowed_users":["@bob:test"],"ignored_users":["*"]}`, shown, hidden},
			"nulls":                              {`{"allowed_users":null,"ignored_users":null,"blocked_users":null,"allowed_servers":null,"ignored_servers":null,"blocked_servers":null}`, shown, shown},
			"in several lists":                   {`{"ignored_users":["@bob:test"],"blocked_users":["@mallory:test"],"allowed_users":["@bob:test","@mallory:test"]}`, shown, shown},
			"a list that is none beside one":     {`{"allowed_users":{"a":1},"ignored_users":[7],"blocked_users":["@bob:test"]}`, refused, shown},
			"a pattern that costs a long search": {`{"blocked_users":["*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"]}`, shown, shown},
		} {
			t.Run(name, func(t *testing.T) {
				in := s.within(t)
				n++
				name := fmt.Sprint("carol", n)
				token := in.person(name)
				in.config(token, "@"+name+":test", "org.matrix.msc4155.invite_permission_config", c.rules)
				for who, want := range map[string]string{in.bob: c.bob, in.mallory: c.mallory} {
					room := in.newRoom(who, `{"preset":"private_chat"}`)
					a := in.do("POST", "/v3/rooms/"+esc(room)+"/invite", who, `{"user_id":"@`+name+`:test"}`)
					if want == refused {
						a.refused(403, blocked4155)
					} else {
						a.ok()
					}
					if got := in.invited(token, room); got != (want == shown) {
						t.Errorf("shown: %v, want it %s", got, want)
					}
				}
			})
		}
		s.unaffected()
	})
}
