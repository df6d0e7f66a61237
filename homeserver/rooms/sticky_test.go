// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func sticks(sender, body string) rooms.Draft {
	d := message(sender, body)
	d.Sticky = time.Hour
	return d
}

// stuckIn lists what clients are told sticks in a room.
func stuckIn(t *testing.T, s *rooms.Service, id string) (ids []string) {
	t.Helper()
	r, err := s.Room(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Sticky(context.Background(), 0, 1<<60, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		ids = append(ids, x.Stored.ID())
	}
	return ids
}

func TestASoftFailedStickyEventIsLetInWhenItsSenderComesBack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, v := range []event.Version{"10", "12"} {
			ctx := context.Background()
			s := open(t, st)
			id := baseRoom(t, s, v)
			g, tip := graphOf(t, s, id)
			var told []*rooms.Sticky
			st.Observe(func(_ int64, notes []storage.Note) {
				for _, n := range notes {
					if x, ok := n.Value.(*rooms.Sticky); ok && n.Kind == storage.NoteSticky && n.Pos == x.Pos {
						told = append(told, x)
					}
				}
			})
			u, before := "@u1:c.org", tip
			kick := g.grow(&tip, member("@bob:b.org", u, "leave"))
			evade := g.on(g.after[before], []string{before}, sticks(u, "evaded"))
			stranger := g.on(g.after[tip], []string{tip}, sticks("@mallory:m.org", "let me in"))
			fine := g.grow(&tip, sticks("@u2:c.org", "fine"))
			status, err := s.Insert(ctx, id, []*event.Event{kick, evade, stranger, fine})
			if want := []storage.Status{storage.StatusOK, storage.StatusSoftFailed, storage.StatusRejected, storage.StatusOK}; err != nil || !slices.Equal(status, want) {
				t.Fatalf("v%s: %v %v", v, status, err)
			}
			if d := cmp.Diff([]string{fine.ID()}, stuckIn(t, s, id)); d != "" {
				t.Fatalf("v%s: %s", v, d)
			}
			// Somebody else who comes in lets nobody in.
			if _, err := s.Insert(ctx, id, []*event.Event{g.grow(&tip, join("@x:x.org"))}); err != nil || len(told) != 0 {
				t.Fatalf("v%s: %v, %d are let in", v, err, len(told))
			}
			s = open(t, st) // it is remembered over a restart
			if _, err := s.Insert(ctx, id, []*event.Event{g.grow(&tip, join(u))}); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{fine.ID(), evade.ID()}, stuckIn(t, s, id)); d != "" {
				t.Errorf("v%s: back again: %s", v, d)
			}
			if len(told) != 1 || told[0].Stored.ID() != evade.ID() {
				t.Errorf("v%s: observers are told of %d", v, len(told))
			}
			// The timeline keeps what it showed.
			shows(t, st, s, id, nil, []*event.Event{evade, stranger}, tip)
		}
	})
}

func TestAServerThatComesIntoARoomIsSentWhatOurUsersMadeStick(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		s := open(t, st)
		id := baseRoom(t, s, event.DefaultVersion)
		ours, err := s.Append(ctx, id, sticks("@alice:example.org", "one"), sticks("@alice:example.org", "two"), sticks("@alice:example.org", "gone"), message("@alice:example.org", "plain"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(ctx, id, rooms.Draft{Sender: "@alice:example.org", Type: "m.room.redaction", Redacts: ours[2], Content: content(map[string]any{})}); err != nil {
			t.Fatal(err)
		}
		g, tip := graphOf(t, s, id)
		list := []*event.Event{g.grow(&tip, sticks("@u1:c.org", "theirs")), g.grow(&tip, join("@new:n.org")), g.grow(&tip, join("@two:n.org")), g.grow(&tip, join("@u99:c.org"))}
		if _, err := s.Insert(ctx, id, list); err != nil {
			t.Fatal(err)
		}
		sent := outbox(t, st, "n.org")
		if d := cmp.Diff(ours[:2], sent); d != "" {
			t.Errorf("the new server is sent: %s", d)
		}
		if n := len(outbox(t, st, "c.org")); n != 5 {
			t.Errorf("a server that was there is sent %d events, want each of ours once", n)
		}
	})
}

// outbox lists the ids of the events that wait for a server, in order.
func outbox(t *testing.T, st *storage.Store, server string) (ids []string) {
	t.Helper()
	err := st.Write(context.Background(), func(tx *storage.Tx) error {
		ids = nil
		return tx.Rows(func(r *sql.Rows) error {
			var id string
			err := r.Scan(&id)
			ids = append(ids, id)
			return err
		}, `SELECT e.event_id FROM outbox o JOIN events e ON e.event_nid = o.event_nid WHERE o.destination = $1 ORDER BY o.seq`, server)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
