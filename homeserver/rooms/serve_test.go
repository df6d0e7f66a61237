// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestServersSeeWhatTheirUsersMaySee(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		for vis, want := range map[string][3]bool{"world_readable": {true, true, true}, "shared": {true, true, true}, "invited": {false, true, true}, "joined": {false, false, true}} {
			id := create(t, a.Service, event.DefaultVersion)
			a.send(id, state("@alice:example.org", "m.room.history_visibility", "", map[string]any{"history_visibility": vis}))
			say := func(hour int, body string) *event.Event {
				d := message("@alice:example.org", body)
				d.TS = time.Now().Add(time.Duration(hour) * time.Hour)
				return a.send(id, d)
			}
			said := []*event.Event{say(1, "before")}
			a.invite(b, id, "@alice:example.org", "@bob:b.org")
			said = append(said, say(2, "invited"))
			b.mustJoin(a, id, "@bob:b.org")
			said = append(said, say(3, "joined"))
			last := a.send(id, message("@alice:example.org", "last"))
			list, err := a.BackfillFor(ctx, "b.org", id, []string{last.ID()}, 100)
			if err != nil || len(list) != 11 {
				t.Fatalf("%s: %d events: %v", vis, len(list), err)
			}
			missing, err := a.MissingFor(ctx, "b.org", id, nil, []string{last.ID()}, 10, 0)
			if err != nil || len(missing) != 10 || !slices.IsSortedFunc(missing, func(x, y *event.Event) int { return int(x.Depth() - y.Depth()) }) {
				t.Fatalf("%s: %d events: %v", vis, len(missing), err)
			}
			for i, e := range said {
				for _, answer := range [][]*event.Event{list, missing} {
					j := slices.IndexFunc(answer, func(x *event.Event) bool { return x.ID() == e.ID() })
					if j < 0 || (string(answer[j].Content()) == "{}") == want[i] {
						t.Errorf("%s: %s is %d of the answer, as %s", vis, e.Content(), j, answer[max(j, 0)].Content())
					}
				}
				x, err := a.EventFor(ctx, "b.org", e.ID())
				if err != nil || (string(x.Content()) == "{}") == want[i] {
					t.Errorf("%s: %s is given as %v: %v", vis, e.Content(), x, err)
				}
				at, err := a.EventAtFor(ctx, "b.org", id, e.OriginTS(), false)
				if want[i] != (err == nil && at.OriginTS() == e.OriginTS()) && signalling.AsError(err).Code != "M_NOT_FOUND" {
					t.Errorf("%s: by time: %v %v", vis, at, err)
				}
			}
		}
	})
}

func TestAServerThatIsNotInTheRoomLearnsNothing(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		e := a.send(id, state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": "secret"}))
		other := create(t, a.Service, event.DefaultVersion)
		b.mustJoin(a, other, "@bob:b.org")
		ask := map[string]func(server, room, id string) error{
			"state":     func(s, r, id string) error { _, _, err := a.StateFor(ctx, s, r, id); return err },
			"state_ids": func(s, r, id string) error { _, _, err := a.StateIDsFor(ctx, s, r, id); return err },
			"auth":      func(s, r, id string) error { _, err := a.AuthChainFor(ctx, s, r, id); return err },
			"backfill":  func(s, r, id string) error { _, err := a.BackfillFor(ctx, s, r, []string{id}, 10); return err },
			"missing": func(s, r, id string) error {
				_, err := a.MissingFor(ctx, s, r, nil, []string{id}, 10, 0)
				return err
			},
			"time": func(s, r, id string) error { _, err := a.EventAtFor(ctx, s, r, 0, false); return err },
		}
		for name, f := range ask {
			x, y := f("b.org", id, e.ID()), f("b.org", "!none:example.org", e.ID())
			if signalling.AsError(x).Code != "M_FORBIDDEN" || fmt.Sprint(x) != fmt.Sprint(y) {
				t.Errorf("%s: %v, and for no room %v", name, x, y)
			}
		}
		if _, err := a.EventFor(ctx, "b.org", e.ID()); signalling.AsError(err).Status != 403 {
			t.Errorf("%v", err)
		}
		// An event of one room, asked for in another: as if it were not there.
		for _, name := range []string{"state", "state_ids", "auth"} {
			x, y := ask[name]("b.org", other, e.ID()), ask[name]("b.org", other, "$none")
			if signalling.AsError(x).Code != "M_NOT_FOUND" || fmt.Sprint(x) != fmt.Sprint(y) {
				t.Errorf("%s: %v, and for no event %v", name, x, y)
			}
		}
		if list, err := a.BackfillFor(ctx, "b.org", other, []string{e.ID()}, 10); err != nil || len(list) != 0 {
			t.Errorf("%v %v", list, err)
		}
	})
}

func TestAccessListsOfARoom(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := newServer(t, st, "example.org")
		for i, x := range []struct {
			acl       map[string]any
			allow, no []string
		}{
			{nil, []string{"b.org", "1.2.3.4", "[::1]:8448"}, nil},
			{map[string]any{"allow": []string{"*"}, "deny": []string{"*.evil.org", "bad.org", "b?d.net"}}, []string{"evil.org", "b.org", "bd.net", "1.2.3.4"},
				[]string{"a.evil.org", "A.EVIL.org", "bad.org:8448", "BAD.ORG", "bad.net"}},
			{map[string]any{"allow": []string{"*"}, "allow_ip_literals": false}, []string{"b.org", "1.2.3.4.org"}, []string{"1.2.3.4", "1.2.3.4:8448", "[::1]", "[2001:db8::1]:8448"}},
			{map[string]any{"allow": []string{"B.org"}}, []string{"b.org", "b.org:1"}, []string{"c.org", "ab.org"}},
			{map[string]any{}, nil, []string{"b.org"}},
			{map[string]any{"allow": "x", "deny": 7, "allow_ip_literals": "no"}, nil, []string{"b.org"}},
			{map[string]any{"allow": []any{7, "*"}, "allow_ip_literals": "no"}, []string{"b.org", "1.2.3.4"}, nil},
		} {
			id := create(t, s.Service, event.DefaultVersion)
			if x.acl != nil {
				s.send(id, state("@alice:example.org", "m.room.server_acl", "", x.acl))
			}
			for _, name := range append(x.allow, "example.org") {
				if err := s.room(id).Allows(ctx, name); err != nil {
					t.Errorf("%d: %s: %v", i, name, err)
				}
			}
			for _, name := range x.no {
				if err := s.room(id).Allows(ctx, name); signalling.AsError(err).Code != "M_FORBIDDEN" {
					t.Errorf("%d: %s: %v", i, name, err)
				}
			}
		}
		// A list as large as an event can be, of patterns that backtrack.
		id := create(t, s.Service, event.DefaultVersion)
		s.send(id, state("@alice:example.org", "m.room.server_acl", "", map[string]any{"allow": []string{"*"}, "deny": slices.Repeat([]string{strings.Repeat("a*", 20) + "b"}, 1300)}))
		start := cpu()
		if err := s.room(id).Allows(ctx, strings.Repeat("a", 250)); err != nil {
			t.Error(err)
		}
		if used := time.Duration(cpu() - start); used > 200*time.Millisecond {
			t.Errorf("asking a large list takes %v", used)
		}
	})
}

func TestRestrictedRoomsLetInWhomTheyShould(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		for _, v := range []event.Version{"8", "10", "12"} {
			club := create(t, a.Service, v)
			id := create(t, a.Service, v)
			a.send(id, state("@alice:example.org", "m.room.join_rules", "", map[string]any{"join_rule": "restricted", "allow": []any{map[string]any{"type": "m.room_membership", "room_id": club}}}))
			if err := b.join(a, id, "@bob:b.org"); signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Fatalf("v%s: not in the club: %v", v, err)
			}
			b.mustJoin(a, club, "@bob:b.org")
			in, err := b.answer(a, id, "@bob:b.org", false)
			if err != nil {
				t.Fatalf("v%s: in the club: %v", v, err)
			}
			if err := in.Event.VerifySignature("example.org", a.Signer().KeyID, a.Signer().Key.Public().(ed25519.PublicKey)); err != nil {
				t.Errorf("v%s: the join is not signed by who authorised it: %v", v, err)
			}
			if err := b.Enter(ctx, in); err != nil {
				t.Fatal(err)
			}
			same(t, id, a, b)
			// b.org is in the room, but none of its users may invite; and later not in the club.
			b.mustJoin(a, club, "@bea:b.org")
			b.take(id, a.send(id, state("@alice:example.org", "m.room.power_levels", "", map[string]any{"invite": 50, "users": powerOf(v)})))
			if err := b.CanJoin(ctx, id, "@bea:b.org"); signalling.AsError(err).Code != "M_UNABLE_TO_GRANT_JOIN" {
				t.Errorf("v%s: %v", v, err)
			}
			out := b.send(club, member("@bob:b.org", "@bob:b.org", "leave"))
			out2 := b.send(club, member("@bea:b.org", "@bea:b.org", "leave"))
			a.take(club, out, out2)
			if err := b.CanJoin(ctx, id, "@bea:b.org"); signalling.AsError(err).Code != "M_UNABLE_TO_AUTHORISE_JOIN" {
				t.Errorf("v%s: %v", v, err)
			}
			if _, err := a.MakeMember(ctx, id, "@bea:b.org", "join", versions()); signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Errorf("v%s: %v", v, err)
			}
			// A template from the time in the club.
			b.mustJoin(a, club, "@bea:b.org")
			tmpl, err := a.MakeMember(ctx, id, "@bea:b.org", "join", versions())
			if err != nil {
				t.Fatal(err)
			}
			e, err := b.FromTemplate(ctx, *tmpl, rooms.Wanted{RoomID: id, User: "@bea:b.org", Membership: "join"})
			if err != nil {
				t.Fatal(err)
			}
			a.take(club, b.send(club, member("@bea:b.org", "@bea:b.org", "leave")))
			if _, err := a.AcceptMember(ctx, id, wire(t, e)[0], "join", false); signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Errorf("v%s: let in with an old template: %v", v, err)
			}
		}
	})
}

// powerOf keeps alice's power in rooms where her being the creator does not give it.
func powerOf(v event.Version) map[string]int {
	if v == "12" {
		return map[string]int{}
	}
	return map[string]int{"@alice:example.org": 100}
}

func TestManyForksAreMergedByAnEventOfOurs(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		g, tip := graphOf(t, a.Service, id)
		var list []*event.Event
		for i := range 35 {
			x := tip
			list = append(list, g.grow(&x, join(fmt.Sprintf("@u%d:c.org", i))))
		}
		o := observe(a.st)
		if _, err := a.Insert(ctx, id, list); err != nil {
			t.Fatal(err)
		}
		head := a.room(id).Head()
		if n := len(head.Extremities()); n > 10 {
			t.Errorf("%d extremities are left", n)
		}
		if n := len(head.Joined()); n != 36 {
			t.Errorf("%d members", n)
		}
		o.check(t, o.take())
		for _, e := range timeline(t, a.Service, id) {
			if e.Type() == rooms.DummyType {
				t.Error("clients are shown what merges forks")
			}
		}
		// It goes to the other servers, and who joins later stands on it.
		if len(a.outbox("c.org")) == 0 {
			t.Error("nobody else hears of the merge")
		}
		b.mustJoin(a, id, "@bob:b.org")
		same(t, id, a, b)
		b.take(id, a.send(id, message("@alice:example.org", "hello")))
		for b.backfill(a, id, 50) > 0 {
		}
		if x, y := len(a.history(id)), len(b.history(id)); x != y {
			t.Errorf("%d events of history, not %d", y, x)
		}
	})
}
