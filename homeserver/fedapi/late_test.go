// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// A knock is refused, and knocked again before the other server hears of the refusal: when it comes, the second knock stands.
func TestARefusalThatComesLateDoesNotEndTheKnockAfterIt(t *testing.T) {
	w := newWorld(t)
	here, there := w.server("here.test"), w.server("there.test")
	bob := "@bob:there.test"
	room := here.create("11", alice)
	if _, err := here.rooms.Append(t.Context(), room, rooms.Draft{Sender: alice, Type: "m.room.join_rules", StateKey: new(string), Content: json.RawMessage(`{"join_rule":"knock"}`)}); err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		if in, err := there.rooms.UserRooms(t.Context(), bob); err != nil || in[room].Membership != want {
			t.Errorf("bob is %q there, %v; want %q", in[room].Membership, err, want)
		}
	}
	refuse := func() json.RawMessage {
		t.Helper()
		if err := here.rooms.SetMembership(t.Context(), room, alice, "", bob, "leave", "no", nil); err != nil {
			t.Fatal(err)
		}
		ref, _ := here.room(room).Head().Ref("m.room.member", bob)
		e, err := here.room(room).ByRef(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		return e.JSON()
	}
	knock := func() {
		t.Helper()
		if err := there.fed.Knock(t.Context(), entrance(bob, room, here)); err != nil {
			t.Fatal(err)
		}
		is("knock")
	}
	knock()
	first := refuse()
	knock()
	here.send(there, first)
	is("knock")
	here.send(there, refuse())
	is("leave")
}
