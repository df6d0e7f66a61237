// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

// server is another homeserver: a whole one, with a database of its own. What goes between servers is carried by the test, as the bytes
// that would go over the wire.
type server struct {
	*rooms.Service
	t  *testing.T
	st *storage.Store
}

func newServer(t *testing.T, st *storage.Store, name string) *server {
	t.Helper()
	s, err := rooms.New(context.Background(), st, name, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return &server{s, t, st}
}

// wire reads events as another server does.
func wire(t testing.TB, events ...*event.Event) []*event.Event {
	t.Helper()
	out := make([]*event.Event, len(events))
	for i, e := range events {
		x, err := event.Parse(e.Version(), e.JSON())
		if err != nil {
			t.Fatal(err)
		}
		if x.ID() != e.ID() {
			t.Fatalf("%s became %s", e.ID(), x.ID())
		}
		out[i] = x
	}
	return out
}

func versions() (out []string) {
	for _, v := range event.Versions() {
		out = append(out, string(v))
	}
	return out
}

// answer is make_join and send_join, up to the answer.
func (s *server) answer(via *server, id, user string, partial bool) (rooms.Entry, error) {
	s.t.Helper()
	ctx := context.Background()
	tmpl, err := via.MakeMember(ctx, id, user, "join", versions())
	if err != nil {
		return rooms.Entry{}, err
	}
	e, err := s.FromTemplate(ctx, *tmpl, rooms.Wanted{RoomID: id, User: user, Membership: "join"})
	if err != nil {
		return rooms.Entry{}, err
	}
	got, err := via.AcceptMember(ctx, id, wire(s.t, e)[0], "join", partial)
	if err != nil {
		return rooms.Entry{}, err
	}
	return rooms.Entry{Event: wire(s.t, got.Event)[0], State: wire(s.t, got.State...), Auth: wire(s.t, got.AuthChain...), Partial: got.Partial, Via: via.Server(), Servers: got.Servers}, nil
}

func (s *server) join(via *server, id, user string) error {
	s.t.Helper()
	in, err := s.answer(via, id, user, false)
	if err != nil {
		return err
	}
	return s.Enter(context.Background(), in)
}

func (s *server) mustJoin(via *server, id, user string) {
	s.t.Helper()
	if err := s.join(via, id, user); err != nil {
		s.t.Fatalf("%s joins: %v", user, err)
	}
}

// send appends and gives the event.
func (s *server) send(id string, d rooms.Draft) *event.Event {
	s.t.Helper()
	ctx := context.Background()
	ids, err := s.Append(ctx, id, d)
	if err != nil {
		s.t.Fatalf("%s: %v", d.Type, err)
	}
	return s.get(id, ids[0])
}

func (s *server) room(id string) *rooms.Room {
	s.t.Helper()
	r, err := s.Room(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *server) get(id, eventID string) *event.Event {
	s.t.Helper()
	e, err := s.room(id).Event(context.Background(), eventID)
	if err != nil || e == nil {
		s.t.Fatalf("%s is not there: %v", eventID, err)
	}
	return e.Event
}

// take inserts events that came over the wire; all must be accepted.
func (s *server) take(id string, events ...*event.Event) {
	s.t.Helper()
	status, err := s.Insert(context.Background(), id, wire(s.t, events...))
	if err != nil {
		s.t.Fatal(err)
	}
	for i, x := range status {
		if !x.Accepted() {
			s.t.Errorf("event %d has status %d", i, x)
		}
	}
}

// outbox lists what waits for a server, as event ids.
func (s *server) outbox(destination string) (out []string) {
	s.t.Helper()
	list, err := s.st.QueuedEvents(context.Background(), destination)
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// same holds two servers to one state of a room.
func same(t *testing.T, id string, a, b *server) {
	t.Helper()
	for _, s := range []*server{b, newServer(t, b.st, b.Server())} {
		if d := cmp.Diff(headIDs(a.room(id).Head()), headIDs(s.room(id).Head())); d != "" {
			t.Errorf("the state is not the same:\n%s", d)
		}
		x, y := slices.Sorted(slices.Values(a.room(id).Head().Joined())), slices.Sorted(slices.Values(s.room(id).Head().Joined()))
		if d := cmp.Diff(x, y); d != "" {
			t.Errorf("the members are not the same:\n%s", d)
		}
		if n := s.Pending(); n != 0 {
			t.Errorf("%d things are pending", n)
		}
	}
}

func eachPair(t *testing.T, f func(t *testing.T, a, b *server)) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		f(t, newServer(t, storagetest.Open(t, storagetest.SQLiteURL(t)), "example.org"), newServer(t, st, "b.org"))
	})
}

func TestAServerJoinsARoomOfEachVersionAndTalksInIt(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		for _, v := range event.Versions() {
			id := create(t, a.Service, v)
			for _, d := range []rooms.Draft{join("@carol:example.org"), state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": "old"}), message("@carol:example.org", "before"),
				state("@alice:example.org", "m.room.topic", "", map[string]any{"topic": "new"})} {
				a.send(id, d)
			}
			o := observe(b.st)
			b.mustJoin(a, id, "@bob:b.org")
			same(t, id, a, b)
			list := o.take()
			o.check(t, list)
			if len(list) != 1 || list[0].Stored.Sender() != "@bob:b.org" || len(list[0].Changes) != b.room(id).Head().Size() {
				t.Fatalf("v%s: observers are told of %d events", v, len(list))
			}
			if all, err := b.UserRooms(ctx, "@bob:b.org"); err != nil || all[id].Membership != "join" {
				t.Errorf("v%s: %v %v", v, all[id], err)
			}
			if tl := timeline(t, b.Service, id); len(tl) != 1 || tl[0].Membership() != "join" {
				t.Errorf("v%s: %d events are shown", v, len(tl))
			}
			if got := b.room(id).Servers(); !slices.Equal(got, []string{"example.org"}) || !b.room(id).Here() {
				t.Errorf("v%s: servers %v", v, got)
			}
			// Both ways, and state on top.
			b.take(id, a.send(id, message("@alice:example.org", "welcome")))
			a.take(id, b.send(id, message("@bob:b.org", "thanks")), b.send(id, state("@bob:b.org", "m.room.member", "@bob:b.org", map[string]any{"membership": "join", "displayname": "Bob"})))
			b.take(id, a.send(id, state("@alice:example.org", "m.room.name", "", map[string]any{"name": "both"})))
			same(t, id, a, b)
			// The join went to nobody else: no other server was there. What each says is queued for the other.
			if n := len(a.outbox("b.org")); n != 2*slices.Index(event.Versions(), v)+2 {
				t.Errorf("v%s: %d events wait for b.org", v, n)
			}
		}
		if x := a.outbox("example.org"); len(x) != 0 {
			t.Errorf("a sends to itself: %v", x)
		}
	})
}

func TestAJoinIsRelayedToTheOtherServersInTheRoom(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		c := newServer(t, storagetest.Open(t, storagetest.SQLiteURL(t)), "c.org")
		id := create(t, a.Service, event.DefaultVersion)
		b.mustJoin(a, id, "@bob:b.org")
		in, err := c.answer(a, id, "@cem:c.org", false)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Enter(context.Background(), in); err != nil {
			t.Fatal(err)
		}
		if x := a.outbox("b.org"); !slices.Equal(x, []string{in.Event.ID()}) {
			t.Errorf("b.org hears of %v", x)
		}
		if x := a.outbox("c.org"); len(x) != 0 {
			t.Errorf("c.org hears of its own join: %v", x)
		}
		b.take(id, in.Event)
		same(t, id, a, b)
		same(t, id, a, c)
		// A kick reaches the server that it takes out of the room.
		kick := a.send(id, member("@alice:example.org", "@cem:c.org", "leave"))
		if x := a.outbox("c.org"); !slices.Equal(x, []string{kick.ID()}) {
			t.Errorf("c.org hears of %v", x)
		}
		c.take(id, kick)
		if c.room(id).Here() {
			t.Error("c.org thinks that it is in the room")
		}
		if _, err := c.Insert(context.Background(), id, wire(t, a.send(id, message("@alice:example.org", "alone")))); err != rooms.ErrNoRoom {
			t.Errorf("an event of a room that c.org is not in: %v", err)
		}
	})
}

func TestWhoeverMayNotJoinIsRefused(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, event.DefaultVersion)
		if _, err := a.MakeMember(ctx, id, "@bob:b.org", "join", []string{"1", "10"}); signalling.AsError(err).Code != "M_INCOMPATIBLE_ROOM_VERSION" || signalling.AsError(err).Fields["room_version"] != "12" {
			t.Errorf("another room version: %v", err)
		}
		if _, err := a.MakeMember(ctx, "!nothing:example.org", "@bob:b.org", "join", versions()); signalling.AsError(err).Code != "M_NOT_FOUND" {
			t.Errorf("no room: %v", err)
		}
		early, err := a.MakeMember(ctx, id, "@bob:b.org", "join", versions())
		if err != nil {
			t.Fatal(err)
		}
		a.send(id, member("@alice:example.org", "@bob:b.org", "ban"))
		if _, err := a.MakeMember(ctx, id, "@bob:b.org", "join", versions()); signalling.AsError(err).Code != "M_FORBIDDEN" {
			t.Errorf("banned: %v", err)
		}
		// The template went out before the ban.
		e, err := b.FromTemplate(ctx, *early, rooms.Wanted{RoomID: id, User: "@bob:b.org", Membership: "join"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.AcceptMember(ctx, id, wire(t, e)[0], "join", false); signalling.AsError(err).Code != "M_FORBIDDEN" {
			t.Errorf("banned meanwhile: %v", err)
		}
		if a.room(id).HasServer("b.org") {
			t.Error("a banned user is in the room")
		}
		if _, err := a.MakeMember(ctx, id, "@bea:b.org", "leave", nil); signalling.AsError(err).Code != "M_FORBIDDEN" {
			t.Errorf("leaving without being in: %v", err)
		}
	})
}

func TestATemplateCannotMakeUsSignSomethingElse(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		id := create(t, a.Service, "10")
		good, err := a.MakeMember(ctx, id, "@bob:b.org", "join", versions())
		if err != nil {
			t.Fatal(err)
		}
		w := rooms.Wanted{RoomID: id, User: "@bob:b.org", Membership: "join"}
		change := func(f func(m map[string]any)) rooms.Template {
			var m map[string]any
			if err := json.Unmarshal(good.Event, &m); err != nil {
				t.Fatal(err)
			}
			f(m)
			return rooms.Template{Version: good.Version, Event: content(m)}
		}
		for name, tmpl := range map[string]rooms.Template{
			"type":       change(func(m map[string]any) { m["type"] = "m.room.power_levels" }),
			"sender":     change(func(m map[string]any) { m["sender"] = "@bea:b.org" }),
			"state_key":  change(func(m map[string]any) { m["state_key"] = "@bea:b.org" }),
			"room":       change(func(m map[string]any) { m["room_id"] = "!other:b.org" }),
			"membership": change(func(m map[string]any) { m["content"] = map[string]any{"membership": "ban"} }),
			"prev":       change(func(m map[string]any) { m["prev_events"] = []any{"x"} }),
			"many prev":  change(func(m map[string]any) { m["prev_events"] = slices.Repeat([]any{"$x"}, 21) }),
			"auth":       change(func(m map[string]any) { m["auth_events"] = []any{7} }),
			"depth":      change(func(m map[string]any) { m["depth"] = -1 }),
			"depth 2^63": change(func(m map[string]any) { m["depth"] = json.Number("9223372036854775807") }),
			"version":    {Version: "99", Event: good.Event},
			"not json":   {Version: "10", Event: []byte(`{"type":`)},
		} {
			if e, err := b.FromTemplate(ctx, tmpl, w); err == nil || signalling.AsError(err).Status >= 500 {
				t.Errorf("%s: %v %v", name, e, err)
			}
		}
		e, err := b.FromTemplate(ctx, change(func(m map[string]any) {
			m["content"] = map[string]any{"membership": "join", "displayname": "Mallory", "third_party_invite": map[string]any{}}
			m["redacts"] = "$x"
			m["extra"] = "x"
		}), w)
		if err != nil || string(e.Content()) != `{"membership":"join"}` || e.Redacts() != "" {
			t.Errorf("%v %s", err, e.JSON())
		}
	})
}
