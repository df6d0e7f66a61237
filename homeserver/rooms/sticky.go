// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Sticky events (MSC4354) are events of the room like others, but clients and servers hear of them, while they stick, whatever the
// timeline shows: a client gets those that no timeline held, a server that joins gets ours, and one that was soft-failed is looked at
// again when its sender comes back into the room. The table sticky_events lists them until they cease to stick.

// Sticky is an event that sticks, and where clients hear of it. It is the Value of a storage.NoteSticky.
type Sticky struct {
	Room   *Room
	Stored *Stored
	Pos    int64
}

// stickyUntil is when e ceases to stick, in milliseconds since 1970; 0 when it does not stick, or never did.
func stickyUntil(e *event.Event, received time.Time) int64 {
	until := e.StickyUntil(received)
	if until.IsZero() || !until.After(received) {
		return 0
	}
	return until.UnixMilli()
}

// writeSticky does what stickiness adds to writing an event that was given a position.
func (r *Room) writeSticky(tx *storage.Tx, p *planned, before *Head, pos int64) error {
	e := p.stored
	if e.StickyUntil != 0 && (e.Status == storage.StatusOK || e.Status == storage.StatusSoftFailed) {
		row := storage.StickyRow{EventNID: e.NID, RoomNID: r.NID, Sender: e.Sender(), Pos: pos, UntilTS: e.StickyUntil, Soft: e.Status == storage.StatusSoftFailed}
		if err := tx.InsertSticky(row); err != nil {
			return err
		}
	}
	p.letIn = nil
	if before == nil || !slices.ContainsFunc(p.changes, func(c Change) bool { return c.Key.Type == "m.room.member" && p.after.IsJoined(c.Key.StateKey) }) {
		return nil
	}
	if err := r.letIn(tx, p, before); err != nil {
		return err
	}
	return r.greet(tx, e, before, p.after)
}

// letIn looks again at what was soft-failed, of those whom p lets into the room.
func (r *Room) letIn(tx *storage.Tx, p *planned, before *Head) error {
	rows, err := tx.Sticky(r.NID, r.s.clock.Now().UnixMilli(), true)
	if err != nil {
		return err
	}
	for _, x := range rows {
		if !p.after.IsJoined(x.Sender) || before.IsJoined(x.Sender) {
			continue
		}
		st, err := r.ByRef(tx.Context(), Ref{NID: x.EventNID})
		if err != nil {
			return err
		}
		if st == nil || event.Authorise(st.Event, headState{tx.Context(), r, p.after}) != nil {
			continue
		}
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		if err := tx.LetInSticky(x.EventNID, pos); err != nil {
			return err
		}
		p.letIn = append(p.letIn, &Sticky{Room: r, Stored: st, Pos: pos})
	}
	return nil
}

// greet queues what our users made stick for servers that come into the room with e.
func (r *Room) greet(tx *storage.Tx, e *Stored, before, after *Head) error {
	var own []storage.StickyRow
	for _, server := range after.members.servers {
		if server == r.s.signer.Server || slices.Contains(before.members.servers, server) {
			continue
		}
		if own == nil {
			all, err := tx.Sticky(r.NID, r.s.clock.Now().UnixMilli(), false)
			if err != nil {
				return err
			}
			own = slices.DeleteFunc(all, func(x storage.StickyRow) bool {
				return event.ServerOf(x.Sender) != r.s.signer.Server || x.EventNID == e.NID
			})
			if len(own) == 0 {
				return nil
			}
		}
		for _, x := range own {
			seq, err := tx.NextPos()
			if err != nil {
				return err
			}
			if err := tx.InsertOutbox(storage.Queued{Destination: server, Seq: seq, EventNID: x.EventNID, Urgent: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sticky lists what sticks in the room now and was told with from < position <= to, oldest first.
func (r *Room) Sticky(ctx context.Context, from, to int64, limit int) ([]Sticky, error) {
	rows, err := r.s.store.StickyOfRoom(ctx, r.NID, from, to, r.s.clock.Now().UnixMilli(), limit)
	if err != nil {
		return nil, err
	}
	return r.sticky(ctx, rows)
}

// StickyOf lists what sticks now in the rooms that a user is joined to and was told with from < position <= to, oldest first of each
// room, by room id. last is the position of the newest, full that there may be more than limit.
func (s *Service) StickyOf(ctx context.Context, user string, from, to int64, limit int) (byRoom map[string][]Sticky, last int64, full bool, err error) {
	rows, err := s.store.StickyOfUser(ctx, user, from, to, s.clock.Now().UnixMilli(), limit)
	if err != nil || len(rows) == 0 {
		return nil, 0, false, err
	}
	all, err := s.UserRooms(ctx, user)
	if err != nil {
		return nil, 0, false, err
	}
	byRoom = map[string][]Sticky{}
	byNID := map[int64][]storage.StickyRow{}
	for _, x := range rows {
		byNID[x.RoomNID] = append(byNID[x.RoomNID], x)
	}
	for id, m := range all {
		if byNID[m.RoomNID] == nil {
			continue
		}
		r, err := s.Room(ctx, id)
		if err != nil {
			return nil, 0, false, err
		}
		if byRoom[id], err = r.sticky(ctx, byNID[m.RoomNID]); err != nil {
			return nil, 0, false, err
		}
	}
	return byRoom, rows[len(rows)-1].Pos, len(rows) == limit, nil
}

func (r *Room) sticky(ctx context.Context, rows []storage.StickyRow) ([]Sticky, error) {
	refs := make([]Ref, len(rows))
	for i, x := range rows {
		refs[i] = Ref{NID: x.EventNID}
	}
	events, err := r.ByRefs(ctx, refs)
	if err != nil {
		return nil, err
	}
	byNID := make(map[int64]*Stored, len(events))
	for _, e := range events {
		byNID[e.NID] = e
	}
	out := make([]Sticky, 0, len(rows))
	for _, x := range rows {
		if e := byNID[x.EventNID]; e != nil {
			out = append(out, Sticky{Room: r, Stored: e, Pos: x.Pos})
		}
	}
	return out, nil
}

// PruneSticky forgets what has ceased to stick; call it now and then.
func (s *Service) PruneSticky(ctx context.Context) error {
	now := s.clock.Now().UnixMilli()
	if some, err := s.store.StickyExpired(ctx, now); err != nil || !some {
		return err
	}
	return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.PruneSticky(now) })
}
