// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// StickyWanted asks for sticky events (MSC4480). The client has those that are not after Since.
type StickyWanted struct {
	Since int64
	Limit int
}

// StickyGiven is the answer of the extension: by room, the inside of {"events":[…]} with its braces.
type StickyGiven struct {
	Next  int64
	Rooms []RoomJSON
}

// stuck is what a connection was told of sticky events.
type stuck struct {
	given int64               // the newest next_batch
	upTo  int64               // everything up to here was told; 0: ask the store
	rooms map[string]struct{} // in which rooms
}

// stickyEvents answers the extension: what sticks in the joined rooms of all lists and subscriptions, in the window or not, oldest
// first, without what the timelines of this answer show. A room that is new to the connection is told from its beginning; when that
// is more than a page, next_batch stays behind and other rooms' events may be told again.
func (a *slide) stickyEvents() error {
	if a.q.Sticky == nil {
		return nil
	}
	had, limit := a.c.sticky, a.q.Sticky.Limit
	since := min(a.q.Sticky.Since, a.next.Pos)
	live := !a.first && a.news.ok && had.upTo > 0 && had.upTo == a.since.Pos && a.q.Sticky.Since >= had.given
	if live {
		since = a.since.Pos
	}
	byRoom := map[string][]*rooms.Stored{}
	add := func(id string, e *rooms.Stored) {
		if e.StickyUntil > a.now.UnixMilli() && !a.v2.ignores(e) && !slices.ContainsFunc(byRoom[id], func(x *rooms.Stored) bool { return x.NID == e.NID }) {
			byRoom[id] = append(byRoom[id], e)
		}
	}
	fresh, err := a.freshForSticky(had.rooms, since)
	if err != nil {
		return err
	}
	next := a.next.Pos
	for _, id := range fresh {
		r, err := a.s.Rooms.Room(a.ctx, id)
		if err != nil {
			return err
		}
		list, err := r.Sticky(a.ctx, 0, a.next.Pos, limit)
		if err != nil {
			return err
		}
		for _, x := range list {
			add(id, x.Stored)
		}
		if len(list) == limit {
			next = min(next, list[limit-1].Pos)
		}
	}
	if live {
		for id, t := range a.touched {
			if a.wide[id] == nil || slices.Contains(fresh, id) {
				continue
			}
			for _, c := range t.commits {
				if c.Stored.Status == storage.StatusOK {
					add(id, c.Stored)
				}
			}
			for _, x := range t.letIn {
				add(id, x.Stored)
			}
		}
	} else {
		for {
			found, last, full, err := a.s.Rooms.StickyOf(a.ctx, a.q.User, since, a.next.Pos, limit)
			if err != nil {
				return err
			}
			some := false
			for id, list := range found {
				if a.wide[id] == nil || slices.Contains(fresh, id) {
					continue
				}
				some = true
				for _, x := range list {
					add(id, x.Stored)
				}
			}
			if !full {
				break
			}
			if since = last; some {
				next = min(next, last)
				break
			}
		}
	}
	now := stuck{given: had.given, upTo: a.next.Pos, rooms: had.rooms}
	if next < a.next.Pos {
		now.upTo = 0 // there is more in the store
	}
	if len(had.rooms) != len(a.wide) || !within(a.wide, had.rooms) {
		now.rooms = make(map[string]struct{}, len(a.wide))
		for id := range a.wide {
			now.rooms[id] = struct{}{}
		}
	}
	if err := a.giveSticky(byRoom, next, &now); err != nil {
		return err
	}
	a.step.sticky = now
	return nil
}

func within(all map[string]*listed, set map[string]struct{}) bool {
	for id := range all {
		if _, ok := set[id]; !ok {
			return false
		}
	}
	return true
}

// freshForSticky lists the rooms that are new to the connection, or that the user came into after since.
func (a *slide) freshForSticky(had map[string]struct{}, since int64) (fresh []string, err error) {
	if since == 0 {
		return nil, nil // everything is
	}
	v := *a.v2
	v.since = Token{Pos: since}
	for id, l := range a.wide {
		_, known := had[id]
		if known = known || had == nil; known && l.m.Pos > since {
			r, err := a.s.Rooms.Room(a.ctx, id)
			if err != nil {
				return nil, err
			}
			joined, err := v.newlyJoined(r, l.m)
			if err != nil {
				return nil, err
			}
			known = !joined
		}
		if !known {
			fresh = append(fresh, id)
		}
	}
	return fresh, nil
}

// giveSticky writes what the timelines do not show.
func (a *slide) giveSticky(byRoom map[string][]*rooms.Stored, next int64, now *stuck) error {
	shown := map[string][]string{}
	for _, r := range a.out.Rooms {
		shown[r.ID] = r.shown
	}
	g := &StickyGiven{Next: next}
	for id, list := range byRoom {
		r, err := a.s.Rooms.Room(a.ctx, id)
		if err != nil {
			return err
		}
		b := []byte(`{"events":[`)
		start := len(b)
		for _, e := range list {
			if slices.Contains(shown[id], e.ID()) {
				continue
			}
			if len(b) > start {
				b = append(b, ',')
			}
			if b, err = r.AppendClient(a.ctx, b, e, rooms.View{User: a.q.User, Device: a.q.Device, Now: a.now, Bare: true}); err != nil {
				return err
			}
		}
		if len(b) > start {
			g.Rooms = append(g.Rooms, RoomJSON{id, append(b, `]}`...)})
		}
	}
	if g.Rooms == nil && next == a.next.Pos {
		return nil // nothing, and nothing left
	}
	a.out.Sticky = g
	now.given = next
	a.something = true
	return nil
}
