// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// complete fetches what a join left out.
func (s *server) complete(via *server) {
	s.t.Helper()
	ctx := context.Background()
	list, err := s.PartialRooms(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range list {
		state, auth, err := via.StateFor(ctx, s.Server(), p.RoomID, p.JoinID)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := s.CompleteState(ctx, p.RoomID, p.JoinID, wire(s.t, state...), wire(s.t, auth...)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// hear inserts events, and asks another server for the auth events that are missing.
func (s *server) hear(via *server, id string, events ...*event.Event) {
	s.t.Helper()
	ctx := context.Background()
	for _, e := range events {
		chain, err := via.AuthChainFor(ctx, s.Server(), id, e.ID())
		if err != nil {
			s.t.Fatal(err)
		}
		if err := s.InsertOutliers(ctx, id, wire(s.t, chain...)); err != nil {
			s.t.Fatal(err)
		}
		s.take(id, e)
	}
}

func TestAJoinWithoutMembersIsUsableAtOnceAndWholeLater(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		a.send(id, state("@alice:example.org", "m.room.name", "", map[string]any{"name": "Town"}))
		for _, u := range []string{"@carol:example.org", "@cem:example.org", "@dora:example.org", "@erik:example.org"} {
			a.send(id, join(u))
		}
		in, err := b.answer(a, id, "@bob:b.org", true)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(in.State, func(e *event.Event) bool { return e.Is("m.room.member", "@cem:example.org") }) || !in.Partial || !slices.Equal(in.Servers, []string{"example.org"}) {
			t.Fatalf("the answer is not lean: %v", in.Servers)
		}
		if err := b.Enter(ctx, in); err != nil {
			t.Fatal(err)
		}
		r := b.room(id)
		if !r.Partial() || !newServer(t, b.st, "b.org").room(id).Partial() || r.Head().IsJoined("@cem:example.org") {
			t.Fatal("the room is whole at once")
		}
		// Somebody unknown speaks; somebody is taken power from, and speaks; we speak.
		b.hear(a, id, a.send(id, message("@cem:example.org", "hello")))
		if !b.room(id).Head().IsJoined("@cem:example.org") {
			t.Error("cem is not known by what he said")
		}
		b.hear(a, id, a.send(id, member("@alice:example.org", "@erik:example.org", "ban")), a.send(id, state("@dora:example.org", "m.room.member", "@dora:example.org", map[string]any{"membership": "join", "displayname": "Dora"})))
		a.take(id, b.send(id, message("@bob:b.org", "hi")))
		if x := b.outbox("example.org"); len(x) != 1 {
			t.Errorf("example.org hears of %v", x)
		}
		if _, err := b.MakeMember(ctx, id, "@x:c.org", "join", versions()); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Errorf("lets somebody in without knowing who is there: %v", err)
		}
		waited := make(chan error, 1)
		go func() { waited <- b.Whole(ctx, id) }()
		o := observe(b.st)
		b.complete(a)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		list := o.take()
		o.check(t, list)
		if len(list) != 1 || list[0].Stored.Status == storage.StatusOK || len(list[0].Changes) != 1 { // carol
			t.Errorf("observers are told of %d things", len(list))
		}
		if b.room(id).Partial() || newServer(t, b.st, "b.org").room(id).Partial() {
			t.Error("the room is not whole")
		}
		same(t, id, a, b)
		tl, err := b.room(id).Timeline(ctx, 0, 1<<62, 100, false)
		if err != nil || len(tl) != 5 {
			t.Fatalf("%d events: %v", len(tl), err)
		}
		for _, svc := range []*server{b, newServer(t, b.st, "b.org")} {
			for _, e := range tl {
				x, err := svc.room(id).Event(ctx, e.ID())
				if err != nil {
					t.Fatal(err)
				}
				want, err := a.room(id).Event(ctx, e.ID())
				if err != nil {
					t.Fatal(err)
				}
				p, err := a.room(id).AllStateAt(ctx, want)
				if err != nil {
					t.Fatal(err)
				}
				q, err := svc.room(id).AllStateAt(ctx, x)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(idsOf(p), idsOf(q)); d != "" {
					t.Errorf("another state at %s:\n%s", e.Content(), d)
				}
			}
		}
		b.complete(a) // once more is nothing
		b.hear(a, id, a.send(id, message("@carol:example.org", "and on")))
		same(t, id, a, b)
	})
}

func TestNobodyWaitsForeverForAWholeState(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		id := create(t, a.Service, "10")
		in, err := b.answer(a, id, "@bob:b.org", true)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Enter(context.Background(), in); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		if err := b.Whole(ctx, id); err != context.DeadlineExceeded {
			t.Errorf("%v", err)
		}
		if err := b.Whole(context.Background(), "!none:b.org"); err != rooms.ErrNoRoom {
			t.Errorf("%v", err)
		}
	})
}
