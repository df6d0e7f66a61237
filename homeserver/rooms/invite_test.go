// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// invite is PUT /invite as both servers do it.
func (s *server) invite(to *server, id, sender, target string) *event.Event {
	s.t.Helper()
	ctx := context.Background()
	inv, err := s.MakeInvite(ctx, id, sender, target, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := to.TakeInvite(ctx, wire(s.t, inv.Event)[0], inv.Stripped)
	if err != nil {
		s.t.Fatal(err)
	}
	signed = wire(s.t, signed)[0]
	for _, x := range []*server{s, to} {
		if err := signed.VerifySignature(x.Server(), x.Signer().KeyID, x.Signer().Key.Public().(ed25519.PublicKey)); err != nil {
			s.t.Error(err)
		}
	}
	if err := s.SendSigned(ctx, signed); err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func (s *server) membership(id, user string) string {
	s.t.Helper()
	all, err := newServer(s.t, s.st, s.Server()).UserRooms(context.Background(), user)
	if err != nil {
		s.t.Fatal(err)
	}
	now, err := s.UserRooms(context.Background(), user)
	if err != nil || now[id].Membership != all[id].Membership || now[id].EventNID != all[id].EventNID {
		s.t.Errorf("in memory %+v, stored %+v: %v", now[id], all[id], err)
	}
	return all[id].Membership
}

func TestAnInviteFromAnotherServerIsTakenAndAccepted(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		for _, v := range []event.Version{"2", "10", "12"} {
			id := create(t, a.Service, v)
			a.send(id, state("@alice:example.org", "m.room.join_rules", "", map[string]any{"join_rule": "invite"}))
			a.send(id, state("@alice:example.org", "m.room.name", "", map[string]any{"name": "Room"}))
			o := observe(b.st)
			inv := a.invite(b, id, "@alice:example.org", "@bob:b.org")
			if m := b.membership(id, "@bob:b.org"); m != "invite" {
				t.Fatalf("v%s: bob is %q", v, m)
			}
			list := o.take()
			if len(list) != 1 || len(list[0].Changes) != 1 || list[0].Head.Membership("@bob:b.org") != "invite" {
				t.Errorf("v%s: observers hear %d things", v, len(list))
			}
			for _, svc := range []*server{b, newServer(t, b.st, "b.org")} {
				r := svc.room(id)
				stripped, outside, err := r.StrippedFor(ctx, "@bob:b.org")
				if err != nil || !outside || r.Here() {
					t.Fatalf("v%s: %v %v", v, outside, err)
				}
				names := map[string]string{}
				for _, raw := range stripped {
					names[gjson.GetBytes(raw, "type").Str] = gjson.GetBytes(raw, "content").Raw
				}
				if names["m.room.name"] != `{"name":"Room"}` || names["m.room.create"] == "" || names["m.room.member"] == "" {
					t.Errorf("v%s: stripped state %v", v, names)
				}
				if tl := timeline(t, svc.Service, id); len(tl) != 0 {
					t.Errorf("v%s: the invite is in a timeline", v)
				}
			}
			// The same once more changes nothing.
			if _, err := b.TakeInvite(ctx, inv, nil); err != nil || len(o.take()) != 0 {
				t.Errorf("v%s: the same invite again: %v", v, err)
			}
			b.mustJoin(a, id, "@bob:b.org")
			same(t, id, a, b)
			if m := b.membership(id, "@bob:b.org"); m != "join" {
				t.Errorf("v%s: bob is %q", v, m)
			}
			for b.backfill(a, id, 4) > 0 {
			}
			if x, y := a.history(id), b.history(id); !slices.Equal(x, y) {
				t.Errorf("v%s: another history: %d events, not %d", v, len(y), len(x))
			}
		}
	})
}

func TestAnInviteIsRejectedTakenBackOrDropped(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		leave := func() error {
			tmpl, err := a.MakeMember(ctx, id, "@bob:b.org", "leave", nil)
			if err != nil {
				return err
			}
			e, err := b.FromTemplate(ctx, *tmpl, rooms.Wanted{RoomID: id, User: "@bob:b.org", Membership: "leave"})
			if err != nil {
				return err
			}
			if _, err := a.AcceptMember(ctx, id, wire(t, e)[0], "leave", false); err != nil {
				return err
			}
			return b.TakeLeave(ctx, e)
		}
		a.invite(b, id, "@alice:example.org", "@bob:b.org")
		if err := leave(); err != nil {
			t.Fatal(err)
		}
		if m := b.membership(id, "@bob:b.org"); m != "leave" || a.room(id).Head().Membership("@bob:b.org") != "leave" {
			t.Errorf("bob is %q", m)
		}
		// Taken back: the kick is queued for the invited server, which takes it as it comes.
		a.invite(b, id, "@alice:example.org", "@bob:b.org")
		if m := b.membership(id, "@bob:b.org"); m != "invite" {
			t.Fatalf("bob is %q", m)
		}
		kick := a.send(id, member("@alice:example.org", "@bob:b.org", "leave"))
		if x := a.outbox("b.org"); !slices.Equal(x, []string{kick.ID()}) {
			t.Errorf("b.org hears of %v", x)
		}
		if err := b.TakeLeave(ctx, wire(t, kick)[0]); err != nil {
			t.Fatal(err)
		}
		if m := b.membership(id, "@bob:b.org"); m != "leave" {
			t.Errorf("bob is %q", m)
		}
		if err := b.TakeLeave(ctx, wire(t, kick)[0]); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Errorf("nothing to take back: %v", err)
		}
		// Dropped without asking anybody; and one user's end is not another's.
		a.invite(b, id, "@alice:example.org", "@bob:b.org")
		a.invite(b, id, "@alice:example.org", "@bea:b.org")
		if err := b.DropInvite(ctx, id, "@bob:b.org", ""); err != nil {
			t.Fatal(err)
		}
		if x, y := b.membership(id, "@bob:b.org"), b.membership(id, "@bea:b.org"); x != "leave" || y != "invite" {
			t.Errorf("bob is %q, bea is %q", x, y)
		}
		if err := b.DropInvite(ctx, id, "@nobody:b.org", ""); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Errorf("%v", err)
		}
		// What bob left behind does not stand in his way.
		b.mustJoin(a, id, "@bea:b.org")
		same(t, id, a, b)
		if m := b.membership(id, "@bob:b.org"); m != "invite" { // the room's word: it never heard that he dropped it
			t.Errorf("bob is %q", m)
		}
	})
}

func TestAnInviteIntoARoomThatAllHadLeftComesFromOutside(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		id := create(t, a.Service, event.DefaultVersion)
		b.mustJoin(a, id, "@bob:b.org")
		left, err := a.Append(context.Background(), id, member("@alice:example.org", "@alice:example.org", "leave"), join("@carol:example.org"))
		if err != nil {
			t.Fatal(err)
		}
		b.take(id, a.get(id, left[0])) // and does not hear of carol
		out := b.send(id, member("@bob:b.org", "@bob:b.org", "leave"))
		if !b.room(id).Here() {
			t.Fatal("nobody else can be asked")
		}
		a.take(id, out)
		a.send(id, join("@alice:example.org"))
		a.send(id, state("@alice:example.org", "m.room.name", "", map[string]any{"name": "Back"}))
		a.invite(b, id, "@alice:example.org", "@bob:b.org")
		if b.room(id).Here() || b.membership(id, "@bob:b.org") != "invite" {
			t.Fatalf("here: %v, bob is %q", b.room(id).Here(), b.membership(id, "@bob:b.org"))
		}
		b.mustJoin(a, id, "@bob:b.org")
		same(t, id, a, b)
	})
}

func TestAKnockIsTakenAndAnswered(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		a.send(id, state("@alice:example.org", "m.room.join_rules", "", map[string]any{"join_rule": "knock"}))
		knock := func() {
			tmpl, err := a.MakeMember(ctx, id, "@bob:b.org", "knock", versions())
			if err != nil {
				t.Fatal(err)
			}
			e, err := b.FromTemplate(ctx, *tmpl, rooms.Wanted{RoomID: id, User: "@bob:b.org", Membership: "knock", Reason: "please"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.AcceptMember(ctx, id, wire(t, e)[0], "knock", false); err != nil {
				t.Fatal(err)
			}
			stripped, err := a.room(id).Stripped(ctx, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := b.TakeKnock(ctx, e, stripped); err != nil {
				t.Fatal(err)
			}
		}
		knock()
		if m := b.membership(id, "@bob:b.org"); m != "knock" || a.room(id).Head().Membership("@bob:b.org") != "knock" {
			t.Fatalf("bob is %q", m)
		}
		no := a.send(id, member("@alice:example.org", "@bob:b.org", "leave"))
		if err := b.TakeLeave(ctx, wire(t, no)[0]); err != nil || b.membership(id, "@bob:b.org") != "leave" {
			t.Fatalf("%v %q", err, b.membership(id, "@bob:b.org"))
		}
		knock()
		a.invite(b, id, "@alice:example.org", "@bob:b.org")
		if m := b.membership(id, "@bob:b.org"); m != "invite" {
			t.Fatalf("bob is %q", m)
		}
		b.mustJoin(a, id, "@bob:b.org")
		same(t, id, a, b)
	})
}

func TestInvitesThatAreNoneAreRefused(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		inv, err := a.MakeInvite(ctx, id, "@alice:example.org", "@bob:b.org", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		other, err := a.MakeInvite(ctx, id, "@alice:example.org", "@cem:c.org", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		own := a.send(id, state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": "x"}))
		for _, e := range []*event.Event{other.Event, own, a.send(id, join("@carol:example.org"))} {
			if x, err := b.TakeInvite(ctx, wire(t, e)[0], nil); signalling.AsError(err).Code != "M_INVALID_PARAM" {
				t.Errorf("signed %v: %v", x, err)
			}
		}
		if _, err := b.Room(ctx, id); err != rooms.ErrNoRoom {
			t.Errorf("a trace is left: %v", err)
		}
		if _, err := a.MakeInvite(ctx, id, "@carol:example.org", "no user", "", nil); signalling.AsError(err).Status != 400 {
			t.Errorf("%v", err)
		}
		// Stripped state that would break a client's /sync is left out.
		bad := []json.RawMessage{[]byte(`{"type":"m.room.name"}`), []byte(`{"type":7,"state_key":"","sender":"@a:b","content":{}}`), []byte(`[]`), []byte(`{`), []byte(`null`),
			[]byte(`{"type":"m.room.name","state_key":"","sender":"@a:b","content":"x"}`), []byte(`{"type":"m.room.name","state_key":"","sender":"@a:b","content":{"name":"x"},"extra":1}`),
			[]byte(`{"type":"m.room.topic","state_key":"","sender":"@a:b","content":{"topic":"` + strings.Repeat("x", 70000) + `"}}`)}
		bad = append(bad, slices.Repeat(bad[6:7], 100)...)
		if _, err := b.TakeInvite(ctx, wire(t, inv.Event)[0], bad); err != nil {
			t.Fatal(err)
		}
		got, _, err := b.room(id).StrippedFor(ctx, "@bob:b.org")
		if err != nil || len(got) != 64 || string(got[0]) != `{"content":{"name":"x"},"sender":"@a:b","state_key":"","type":"m.room.name"}` {
			t.Errorf("%v: %d, %s", err, len(got), got[0])
		}
	})
}
