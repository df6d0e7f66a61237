// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// town is a room of another server with many members, grown in one line.
type town struct {
	t      testing.TB
	v      event.Version
	id     string
	state  wholeState
	list   []*event.Event // everything, oldest first
	clock  int64
	signer event.Signer
}

func newTown(t testing.TB, v event.Version, members, stateEvents int) *town {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &town{t: t, v: v, state: wholeState{}, clock: time.Now().UnixMilli() - 1e9, signer: event.Signer{Server: "a.org", KeyID: "ed25519:1", Key: key}}
	alice := "@alice:a.org"
	w.add(rooms.Draft{Sender: alice, Type: "m.room.create", StateKey: new(string), Content: content(map[string]any{"room_version": v})})
	w.add(join(alice))
	w.add(state(alice, "m.room.power_levels", "", map[string]any{"users_default": 0}))
	w.add(state(alice, "m.room.join_rules", "", map[string]any{"join_rule": "public"}))
	w.add(state(alice, "m.room.history_visibility", "", map[string]any{"history_visibility": "shared"}))
	for i := range members {
		u := fmt.Sprintf("@user%d:a.org", i)
		w.add(state(u, "m.room.member", u, map[string]any{"membership": "join", "displayname": fmt.Sprint("User ", i), "avatar_url": fmt.Sprint("mxc://a.org/", i)}))
	}
	for i := range stateEvents - members {
		w.add(state(alice, "org.example.state", fmt.Sprint(i), map[string]any{"n": i}))
	}
	return w
}

func (w *town) add(d rooms.Draft) *event.Event {
	w.t.Helper()
	var prev []string
	depth := int64(0)
	if n := len(w.list); n > 0 {
		prev, depth = []string{w.list[n-1].ID()}, w.list[n-1].Depth()
	}
	w.clock++
	e, err := event.Build(w.v, event.Proto{RoomID: w.id, Sender: d.Sender, Type: d.Type, StateKey: d.StateKey, Content: d.Content}, prev, depth+1, w.state, w.signer, time.UnixMilli(w.clock))
	if err != nil {
		w.t.Fatal(err)
	}
	w.id = e.RoomID()
	w.list = append(w.list, e)
	if e.IsState() {
		w.state[e.Key()] = e
	}
	return e
}

// admit makes the answer to send_join.
func (w *town) admit(s *rooms.Service, user string, lean bool) rooms.Entry {
	w.t.Helper()
	in := rooms.Entry{Via: "a.org", Partial: lean}
	for k, e := range w.state {
		if lean && k.Type == "m.room.member" && k.StateKey != "@alice:a.org" {
			continue
		}
		in.State = append(in.State, e)
	}
	in.Auth = w.list[:4]
	last := w.list[len(w.list)-1]
	w.clock++
	var err error
	in.Event, err = event.Build(w.v, event.Proto{RoomID: w.id, Sender: user, Type: "m.room.member", StateKey: &user, Content: content(map[string]any{"membership": "join"})},
		[]string{last.ID()}, last.Depth()+1, w.state, s.Signer(), time.UnixMilli(w.clock))
	if err != nil {
		w.t.Fatal(err)
	}
	if lean {
		in.Servers = []string{"a.org"}
	}
	return in
}

// TestALargeRoomIsEnteredInSeconds enters a room of 5,000 members and 20,000 pieces of state: make test-long.
func TestALargeRoomIsEnteredInSeconds(t *testing.T) {
	members, pieces := 500, 1000
	if long() {
		members, pieces = 5000, 20000
	}
	w := newTown(t, event.DefaultVersion, members, pieces)
	key := w.signer.Key.Public().(ed25519.PublicKey)
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		in := w.admit(s, "@bob:example.org", false)
		var raw [][]byte
		for _, e := range in.State {
			raw = append(raw, e.JSON())
		}
		heap, rss := memory()
		start, busy := time.Now(), cpu()
		in.State = nil
		for _, b := range raw {
			e, err := event.Parse(w.v, b)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.VerifySignature("a.org", "ed25519:1", key); err != nil {
				t.Fatal(err)
			}
			in.State = append(in.State, e)
		}
		parsed := time.Since(start)
		if err := s.Enter(ctx, in); err != nil {
			t.Fatal(err)
		}
		took, used := time.Since(start), time.Duration(cpu()-busy)
		heap2, rss2 := memory()
		fresh := open(t, st)
		at := time.Now()
		r, err := fresh.Room(ctx, w.id)
		if err != nil {
			t.Fatal(err)
		}
		loaded := time.Since(at)
		if n := len(r.Head().Joined()); n != members+2 || r.Head().Size() != len(w.state)+1 {
			t.Fatalf("%d members, %d pieces of state", n, r.Head().Size())
		}
		t.Logf("%d members, %d state events: parsed and verified in %v, entered after %v with %v of processor time, loaded in %v; heap +%d MB, resident +%d MB", members, pieces, parsed, took, used, loaded, (heap2-heap)>>20, (rss2-rss)>>20)
		if long() && used > 15*time.Second { // whatever else the machine does
			t.Errorf("entering took %v of processor time", used)
		}
		if heap2-heap > 150<<20 {
			t.Errorf("the heap grew by %d MB", (heap2-heap)>>20)
		}
	})
}
