// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// TestHistoryVisibility is the matrix of the client-server API ("Room History Visibility"): what a user may see of one room, by its
// history visibility and by what the user did. A message is sent at each point of the user's way.
func TestHistoryVisibility(t *testing.T) {
	const alice, bob = "@alice:example.org", "@bob:example.org"
	type way struct {
		name  string
		steps []rooms.Draft // a message before the first, and one after each
		want  map[string]string
	}
	invite, leave, kick, ban := member(alice, bob, "invite"), member(bob, bob, "leave"), member(alice, bob, "leave"), member(alice, bob, "ban")
	// One letter per message: y visible, n not.
	for _, w := range []way{
		{"never there", nil, map[string]string{"world_readable": "y", "shared": "n", "invited": "n", "joined": "n"}},
		{"invited", []rooms.Draft{invite}, map[string]string{"world_readable": "yy", "shared": "nn", "invited": "ny", "joined": "nn"}},
		{"invited, joined", []rooms.Draft{invite, join(bob)}, map[string]string{"world_readable": "yyy", "shared": "yyy", "invited": "nyy", "joined": "nny"}},
		{"joined, left", []rooms.Draft{join(bob), leave}, map[string]string{"world_readable": "yyy", "shared": "yyn", "invited": "nyn", "joined": "nyn"}},
		{"joined, kicked", []rooms.Draft{join(bob), kick}, map[string]string{"world_readable": "yyy", "shared": "yyn", "invited": "nyn", "joined": "nyn"}},
		{"joined, banned", []rooms.Draft{join(bob), ban}, map[string]string{"world_readable": "yyy", "shared": "yyn", "invited": "nyn", "joined": "nyn"}},
		{"joined, left, joined again", []rooms.Draft{join(bob), leave, join(bob)}, map[string]string{"world_readable": "yyyy", "shared": "yyyy", "invited": "nyny", "joined": "nyny"}},
	} {
		for visibility, want := range w.want {
			ctx := context.Background()
			s := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
			id := create(t, s, event.DefaultVersion)
			if _, err := s.Append(ctx, id, state(alice, "m.room.history_visibility", "", map[string]any{"history_visibility": visibility})); err != nil {
				t.Fatal(err)
			}
			var sent []string
			say := func() {
				ids, err := s.Append(ctx, id, message(alice, "hello"))
				if err != nil {
					t.Fatal(err)
				}
				sent = append(sent, ids[0])
			}
			say()
			for _, d := range w.steps {
				if _, err := s.Append(ctx, id, d); err != nil {
					t.Fatalf("%s: %v", w.name, err)
				}
				say()
			}
			r, _ := s.Room(ctx, id)
			got := ""
			for _, m := range sent {
				e, err := r.Event(ctx, m)
				if err != nil {
					t.Fatal(err)
				}
				ok, err := r.Visible(ctx, e, bob)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					got += "y"
				} else {
					got += "n"
				}
			}
			if got != want {
				t.Errorf("%s, %s: sees %s, want %s", visibility, w.name, got, want)
			}
		}
	}
}

// TestHistoryVisibilityChanges: of the old and the new visibility the more generous holds for the event that changes it, and the one in
// force at an event for all others.
func TestHistoryVisibilityChanges(t *testing.T) {
	const alice, bob = "@alice:example.org", "@bob:example.org"
	ctx := context.Background()
	s := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	id := create(t, s, event.DefaultVersion)
	set := func(v string) rooms.Draft {
		return state(alice, "m.room.history_visibility", "", map[string]any{"history_visibility": v})
	}
	ids, err := s.Append(ctx, id, set("joined"), message(alice, "joined"), set("world_readable"), message(alice, "world"), set("shared"), message(alice, "shared"), set("joined"), message(alice, "joined"),
		join(bob), set("nonsense"), message(alice, "x"))
	if err != nil {
		t.Fatal(err)
	}
	r, _ := s.Room(ctx, id)
	want := "ynyyyyynyyy"
	for i, x := range ids {
		e, err := r.Event(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := r.Visible(ctx, e, bob); err != nil || ok != (want[i] == 'y') {
			t.Errorf("event %d, %s %s: visible = %v %v", i, e.Type(), e.Content(), ok, err)
		}
	}
}
