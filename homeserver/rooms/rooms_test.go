// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

func open(t testing.TB, s *storage.Store) *rooms.Service {
	t.Helper()
	r, err := rooms.New(context.Background(), s, "example.org", signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func key(s string) *string { return &s }

func content(v any) json.RawMessage {
	b, _ := json.Marshal(v)
	return b
}

func public(creator string) []rooms.Draft {
	return []rooms.Draft{
		{Sender: creator, Type: "m.room.member", StateKey: &creator, Content: content(map[string]any{"membership": "join"})},
		{Sender: creator, Type: "m.room.power_levels", StateKey: key(""), Content: content(map[string]any{"users_default": 0, "events_default": 0})},
		{Sender: creator, Type: "m.room.join_rules", StateKey: key(""), Content: content(map[string]any{"join_rule": "public"})},
	}
}

func join(user string) rooms.Draft {
	return rooms.Draft{Sender: user, Type: "m.room.member", StateKey: &user, Content: content(map[string]any{"membership": "join"})}
}

func create(t testing.TB, s *rooms.Service, v event.Version) string {
	t.Helper()
	drafts := public("@alice:example.org")
	if v != "11" && v != "12" || v == "11" {
		drafts[1].Content = content(map[string]any{"users": map[string]int{"@alice:example.org": 100}})
	}
	id, err := s.Create(context.Background(), rooms.NewRoom{Version: v, Creator: "@alice:example.org", Drafts: drafts})
	if err != nil {
		t.Fatalf("create v%s: %v", v, err)
	}
	return id
}

func TestEveryRoomVersionIsCreatedJoinedAndSpokenIn(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := open(t, st)
		if n := len(event.Versions()); n != 12 {
			t.Fatalf("%d room versions, want 12", n)
		}
		for _, v := range event.Versions() {
			id := create(t, s, v)
			ctx := context.Background()
			if _, err := s.Append(ctx, id, join("@bob:example.org")); err != nil {
				t.Fatalf("v%s: join: %v", v, err)
			}
			if _, err := s.Append(ctx, id, rooms.Draft{Sender: "@bob:example.org", Type: "m.room.message", Content: content(map[string]any{"body": "hi", "msgtype": "m.text"})}); err != nil {
				t.Fatalf("v%s: send: %v", v, err)
			}
			_, err := s.Append(ctx, id, rooms.Draft{Sender: "@mallory:example.org", Type: "m.room.message", Content: content(map[string]any{"body": "hi"})})
			if signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Fatalf("v%s: a stranger may send: %v", v, err)
			}
			// The same room, as the store has it.
			fresh := open(t, st)
			r, err := fresh.Room(ctx, id)
			if err != nil {
				t.Fatalf("v%s: load: %v", v, err)
			}
			if !r.Head().IsJoined("@bob:example.org") || len(r.Head().Extremities()) != 1 || r.Head().Size() != 5 {
				t.Fatalf("v%s: loaded head is wrong: %d state", v, r.Head().Size())
			}
			tl, err := r.Timeline(ctx, 0, 1<<60, 100, false)
			if err != nil || len(tl) != 6 {
				t.Fatalf("v%s: timeline of %d: %v", v, len(tl), err)
			}
		}
	})
}

func TestManySendersToOneRoomLeaveOneLine(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := open(t, st)
		id := create(t, s, event.DefaultVersion)
		ctx := context.Background()
		var mu sync.Mutex
		var seen []int64
		st.Observe(func(_ int64, notes []storage.Note) {
			mu.Lock()
			defer mu.Unlock()
			for _, n := range notes {
				seen = append(seen, n.Value.(*rooms.Committed).Stored.Pos)
			}
		})
		var wg sync.WaitGroup
		const n = 100
		for i := range n {
			wg.Go(func() {
				d := rooms.Draft{Sender: "@alice:example.org", Device: "A", TxnID: fmt.Sprint(i / 2), Type: "m.room.message", Content: content(map[string]any{"body": fmt.Sprint(i / 2)})}
				if _, err := s.Append(ctx, id, d); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r, _ := s.Room(ctx, id)
		tl, err := r.Timeline(ctx, 0, 1<<60, 1000, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(tl) != 4+n/2 {
			t.Fatalf("%d events, want %d: each transaction id once", len(tl), 4+n/2)
		}
		for i := 1; i < len(tl); i++ {
			if p := tl[i].PrevIDs(); len(p) != 1 || p[0] != tl[i-1].ID() {
				t.Fatalf("event %d does not follow event %d", i, i-1)
			}
		}
		for i := 1; i < len(seen); i++ {
			if seen[i] <= seen[i-1] {
				t.Fatal("observers were told out of order")
			}
		}
	})
}

func TestAFailedCommitIsForgottenEverywhere(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := open(t, st)
		other := open(t, st) // another node on the same database
		id := create(t, s, event.DefaultVersion)
		ctx := context.Background()
		msg := func(body string) rooms.Draft {
			return rooms.Draft{Sender: "@alice:example.org", Type: "m.room.message", Content: content(map[string]any{"body": body})}
		}
		for i := range 10 {
			if _, err := s.Append(ctx, id, msg(fmt.Sprint("s", i))); err != nil {
				t.Fatal(err)
			}
			if _, err := other.Append(ctx, id, msg(fmt.Sprint("o", i))); err != nil {
				t.Fatal(err)
			}
		}
		r, err := open(t, st).Room(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		tl, err := r.Timeline(ctx, 0, 1<<60, 1000, false)
		if err != nil || len(tl) != 24 {
			t.Fatalf("%d events, %v", len(tl), err)
		}
		for i := 1; i < len(tl); i++ {
			if p := tl[i].PrevIDs(); len(p) != 1 || p[0] != tl[i-1].ID() {
				t.Fatalf("event %d does not follow event %d", i, i-1)
			}
		}
	})
}

func TestARedactionTakesTheContentAway(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := open(t, st)
		ctx := context.Background()
		for _, v := range []event.Version{"1", "10", "12"} {
			id := create(t, s, v)
			if _, err := s.Append(ctx, id, join("@bob:example.org")); err != nil {
				t.Fatal(err)
			}
			ids, err := s.Append(ctx, id, rooms.Draft{Sender: "@alice:example.org", Type: "m.room.message", Content: content(map[string]any{"body": "secret"})})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Append(ctx, id, rooms.Draft{Sender: "@bob:example.org", Type: "m.room.redaction", Redacts: ids[0], Content: content(map[string]any{})})
			if signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Fatalf("v%s: bob may redact alice: %v", v, err)
			}
			if _, err := s.Append(ctx, id, rooms.Draft{Sender: "@alice:example.org", Type: "m.room.redaction", Redacts: ids[0], Content: content(map[string]any{"reason": "oops"})}); err != nil {
				t.Fatalf("v%s: %v", v, err)
			}
			for _, svc := range []*rooms.Service{s, open(t, st)} {
				r, _ := svc.Room(ctx, id)
				e, err := r.Event(ctx, ids[0])
				if err != nil || e == nil {
					t.Fatal(err)
				}
				if string(e.Content()) != "{}" || e.RedactedBy == "" {
					t.Fatalf("v%s: content is %s", v, e.Content())
				}
			}
		}
	})
}

func TestUnknownRoomsAndVersionsAreRefused(t *testing.T) {
	s := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	ctx := context.Background()
	if _, err := s.Append(ctx, "!nowhere:example.org", join("@a:example.org")); !errors.Is(err, rooms.ErrNoRoom) {
		t.Errorf("append to an unknown room: %v", err)
	}
	_, err := s.Create(ctx, rooms.NewRoom{Version: "99", Creator: "@a:example.org"})
	if signalling.AsError(err).Code != "M_UNSUPPORTED_ROOM_VERSION" {
		t.Errorf("create version 99: %v", err)
	}
}

func TestRoomsMadeInTheSameInstantAreTwoRooms(t *testing.T) {
	st := storagetest.Open(t, storagetest.SQLiteURL(t))
	s, err := rooms.New(context.Background(), st, "example.org", clocktest.New(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 20 {
		id := create(t, s, event.DefaultVersion)
		if seen[id] {
			t.Fatalf("%s was made twice", id)
		}
		seen[id] = true
	}
}

func TestPowerLevelsThatNameACreatorAreBadRatherThanForbidden(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := open(t, st)
		id := create(t, s, "12")
		for _, x := range []struct {
			users map[string]int
			code  string
		}{{map[string]int{"@alice:example.org": 100}, "M_BAD_JSON"}, {map[string]int{"@bob:example.org": 100}, ""}} {
			_, err := s.Append(context.Background(), id, state("@alice:example.org", "m.room.power_levels", "", map[string]any{"users": x.users}))
			if code := ""; err != nil {
				if code = signalling.AsError(err).Code; code != x.code {
					t.Errorf("%v: %v", x.users, err)
				}
			} else if x.code != "" {
				t.Errorf("%v are allowed", x.users)
			}
		}
	})
}

func TestAClientDoesNotSayWhoLetItIn(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := create(t, s, "10")
		extra := content(map[string]any{"displayname": "Alice", "join_authorised_via_users_server": "unused"})
		if err := s.SetMembership(ctx, id, "@alice:example.org", "", "@alice:example.org", "join", "", extra); err != nil {
			t.Fatal(err)
		}
		r, err := s.Room(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.State(ctx, r.Head(), "m.room.member", "@alice:example.org")
		if err != nil || string(e.Content()) != `{"displayname":"Alice","membership":"join"}` {
			t.Errorf("%s: %v", e.Content(), err)
		}
	})
}
