// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Call is a group call of a room: from the first sign of somebody until the last one has been gone for a while.
type Call struct {
	ID             string // unique in the room: of its first event, else of its first session
	RoomID, SlotID string
	EventID        string // of the first membership event; "" for a call that only the SFU has seen
	Starter        string
	Audio          bool // everybody means to speak only
	Started        time.Time
	Answered       time.Time // when a second user came; zero for never
	Ended          time.Time // when the last sign went; zero while there are some
	People         []string  // everybody who has been in it, in order of coming
	Present        []string  // who is in it now, sorted
}

// Bounds of what Calls remembers.
const (
	linger     = 15 * time.Second // a call is over when nobody has been in it for so long: a reload is no new call
	mostCalls  = 10_000
	mostPeople = 1000 // of one call
)

type slot struct{ room, id string }

// group is a Call with the signs behind it.
type group struct {
	Call
	signs map[string]Sign // by source
	ever  map[string]bool
}

// Calls follows the group calls of rooms from the signs of their members. It is not safe for concurrent use.
type Calls struct {
	live map[slot]*group
	room map[string]map[*group]struct{}
}

// NewCalls makes an empty list.
func NewCalls() *Calls {
	return &Calls{live: map[slot]*group{}, room: map[string]map[*group]struct{}{}}
}

// Len is the number of calls.
func (c *Calls) Len() int { return len(c.live) }

// Here takes a sign. changed says that somebody new is in the call, or that the call is new. A sign that has expired is none.
func (c *Calls) Here(s Sign, now time.Time) (changed bool) {
	if !s.Until.IsZero() && !s.Until.After(now) {
		return c.Gone(s.RoomID, s.SlotID, s.Source, now)
	}
	k := slot{s.RoomID, s.SlotID}
	g := c.live[k]
	if g == nil {
		if len(c.live) >= mostCalls {
			return false
		}
		id := s.EventID
		if id == "" {
			id = s.Source
		}
		g = c.add(Call{ID: id, RoomID: s.RoomID, SlotID: s.SlotID, EventID: s.EventID, Starter: s.UserID, Audio: true, Started: s.At})
		changed = true
	}
	if _, known := g.signs[s.Source]; !known && len(g.signs) >= 4*mostPeople {
		return changed
	}
	if g.EventID == "" {
		g.EventID = s.EventID
	}
	g.signs[s.Source] = s
	g.Ended = time.Time{}
	g.Audio = g.Audio && s.Audio
	if !g.ever[s.UserID] && len(g.People) < mostPeople {
		g.ever[s.UserID], changed = true, true
		g.People = append(g.People, s.UserID)
		if len(g.People) == 2 {
			g.Answered = s.At
			if g.Answered.Before(g.Started) {
				g.Answered = g.Started
			}
		}
	}
	return changed
}

func (c *Calls) add(call Call) *group {
	g := &group{Call: call, signs: map[string]Sign{}, ever: map[string]bool{}}
	for _, u := range call.People {
		g.ever[u] = true
	}
	c.live[slot{call.RoomID, call.SlotID}] = g
	if c.room[call.RoomID] == nil {
		c.room[call.RoomID] = map[*group]struct{}{}
	}
	c.room[call.RoomID][g] = struct{}{}
	return g
}

// Restore takes back a call that was followed before a restart. Unless signs follow, it ended when it was last seen.
func (c *Calls) Restore(call Call, seen time.Time) {
	if c.live[slot{call.RoomID, call.SlotID}] == nil {
		c.add(call).Ended = seen
	}
}

// Gone says that a sign is none any more. changed: the call has nobody now.
func (c *Calls) Gone(roomID, slotID, source string, now time.Time) (changed bool) {
	g := c.live[slot{roomID, slotID}]
	if g == nil {
		return false
	}
	if _, ok := g.signs[source]; !ok {
		return false
	}
	delete(g.signs, source)
	return g.empty(now)
}

func (g *group) empty(now time.Time) bool {
	if len(g.signs) > 0 || !g.Ended.IsZero() {
		return false
	}
	g.Ended = now
	return true
}

// Left says that a user is not in a room any more.
func (c *Calls) Left(roomID, userID string, now time.Time) (changed bool) {
	for g := range c.room[roomID] {
		before := len(g.signs)
		maps.DeleteFunc(g.signs, func(_ string, s Sign) bool { return s.UserID == userID })
		changed = len(g.signs) < before && g.empty(now) || changed
	}
	return changed
}

// Expire drops signs whose time is up, and gives the calls that are over by now. next is when to ask again; zero when nothing is due.
func (c *Calls) Expire(now time.Time) (over []Call, next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for k, g := range c.live {
		for source, s := range g.signs {
			switch {
			case s.Until.IsZero():
			case s.Until.After(now):
				sooner(s.Until)
			default:
				delete(g.signs, source)
				g.empty(s.Until)
			}
		}
		if len(g.signs) > 0 {
			continue
		}
		if until := g.Ended.Add(linger); until.After(now) {
			sooner(until)
			continue
		}
		over = append(over, g.snapshot())
		delete(c.live, k)
		if delete(c.room[k.room], g); len(c.room[k.room]) == 0 {
			delete(c.room, k.room)
		}
	}
	slices.SortFunc(over, func(a, b Call) int { return cmp.Or(a.Ended.Compare(b.Ended), cmp.Compare(a.ID, b.ID)) })
	return over, next
}

// snapshot is the call for others.
func (g *group) snapshot() Call {
	call := g.Call
	call.People = slices.Clone(g.People)
	seen := map[string]bool{}
	for _, s := range g.signs {
		seen[s.UserID] = true
	}
	call.Present = slices.Sorted(maps.Keys(seen))
	return call
}

// In gives the calls of a room, the oldest first.
func (c *Calls) In(roomID string) (out []Call) {
	for g := range c.room[roomID] {
		out = append(out, g.snapshot())
	}
	slices.SortFunc(out, func(a, b Call) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Rooms lists the rooms with calls.
func (c *Calls) Rooms() []string { return slices.Collect(maps.Keys(c.room)) }

// Find gives the call of a slot.
func (c *Calls) Find(roomID, slotID string) (Call, bool) {
	if g := c.live[slot{roomID, slotID}]; g != nil {
		return g.snapshot(), true
	}
	return Call{}, false
}
