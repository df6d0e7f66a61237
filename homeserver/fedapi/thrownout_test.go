// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// A server that joined with members left out asks for them afterwards. When its users are thrown out meanwhile, it can still put together
// what it was told of, and nothing of what came before, where history is not for those who come later, or after.
func TestAServerThatWasThrownOutIsToldWhatItWasIn(t *testing.T) {
	const v1 = "/_matrix/federation/v1/"
	for _, visibility := range []string{"shared", "joined"} {
		for _, end := range []string{"ban", "leave"} {
			t.Run(visibility+" "+end, func(t *testing.T) {
				w := newWorld(t)
				here, there, stranger := w.server("here.test"), w.server("there.test"), w.server("stranger.test")
				bob := "@bob:there.test"
				room := here.create("11", alice)
				do := func(typ, content string, state bool) string {
					t.Helper()
					d := rooms.Draft{Sender: alice, Type: typ, Content: json.RawMessage(content)}
					if state {
						d.StateKey = new(string)
					}
					ids, err := here.rooms.Append(t.Context(), room, d)
					if err != nil {
						t.Fatal(err)
					}
					return ids[0]
				}
				do("m.room.history_visibility", `{"history_visibility":"`+visibility+`"}`, true)
				old := do("m.room.message", `{"msgtype":"m.text","body":"long before"}`, false)
				name := do("m.room.name", `{"name":"Before"}`, true)
				before := do("m.room.message", `{"msgtype":"m.text","body":"right before"}`, false)
				there.join(bob, room, here)
				join := here.stateID(room, "m.room.member", bob)
				during := do("m.room.message", `{"msgtype":"m.text","body":"meanwhile"}`, false)
				if err := here.rooms.SetMembership(t.Context(), room, alice, "", bob, end, "", nil); err != nil {
					t.Fatal(err)
				}
				out := here.stateID(room, "m.room.member", bob)
				topic := do("m.room.topic", `{"topic":"a secret"}`, true)
				after := do("m.room.message", `{"msgtype":"m.text","body":"afterwards"}`, false)

				get := func(path string) string {
					t.Helper()
					a, err := there.ask(here, "GET", v1+path, nil)
					if err != nil {
						t.Errorf("%s: %v", path, err)
					}
					return a.Raw
				}
				at := func(what, id string) string { return what + "/" + esc(room) + "?event_id=" + esc(id) }
				for _, id := range []string{before, join, during, out} {
					ids, whole, chain := get(at("state_ids", id)), get(at("state", id)), get("event_auth/"+esc(room)+"/"+esc(id))
					for _, later := range []string{topic, after} {
						if strings.Contains(ids+chain, later) || strings.Contains(whole, "a secret") {
							t.Errorf("at %s it is told of what came later", id)
						}
					}
					if !strings.Contains(ids, name) || strings.Contains(ids, join) != (id == during || id == out) || strings.Contains(ids, out) {
						t.Errorf("at %s the state is %s", id, ids)
					}
				}
				for _, id := range []string{before, name, during, out} {
					get("event/" + esc(id))
				}
				if text := get("event/" + esc(before)); strings.Contains(text, "right before") != (visibility == "shared") {
					t.Errorf("what was said right before the join: %s", text)
				}
				if visibility == "shared" {
					get(at("state_ids", old))
				} else {
					there.refused(here, 403, "M_FORBIDDEN", "GET", v1+at("state_ids", old), nil)
					there.refused(here, 403, "M_FORBIDDEN", "GET", v1+"event/"+esc(old), nil)
				}
				for _, id := range []string{topic, after, "$missing"} {
					there.refused(here, 403, "M_FORBIDDEN", "GET", v1+at("state_ids", id), nil)
					there.refused(here, 403, "M_FORBIDDEN", "GET", v1+at("state", id), nil)
					there.refused(here, 403, "M_FORBIDDEN", "GET", v1+"event_auth/"+esc(room)+"/"+esc(id), nil)
				}
				there.refused(here, 403, "M_FORBIDDEN", "GET", v1+"event/"+esc(topic), nil)
				there.refused(here, 403, "M_FORBIDDEN", "GET", v1+"backfill/"+esc(room)+"?limit=5&v="+esc(after), nil)
				for _, id := range []string{before, join, during, out} {
					stranger.refused(here, 403, "M_FORBIDDEN", "GET", v1+at("state_ids", id), nil)
					stranger.refused(here, 403, "M_FORBIDDEN", "GET", v1+"event/"+esc(id), nil)
				}
				// One that is shut out is shut out of the past too.
				do("m.room.server_acl", `{"allow":["*"],"deny":["there.test"]}`, true)
				there.refused(here, 403, "M_FORBIDDEN", "GET", v1+at("state_ids", during), nil)
			})
		}
	}
}
