// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Several nodes on one database each hold rooms in memory. A node that commits an event announces what it did to the room
// (storage.Announcement); the others move their room along by that, without reading more than the event. When the change is not a
// plain one (a fork, a join from outside), or appends of their own are under way, which will fail, they read the room anew.

// announced is what other nodes need to know of a committed event: the Data of a storage.NoteEvent's Announcement.
type announced struct {
	NID     int64        `json:"n"`
	Ext     []int64      `json:"x,omitempty"` // forward extremities after it
	Group   int64        `json:"g,omitempty"` // state group after it
	Changes []movedState `json:"c,omitempty"`
	Redacts int64        `json:"r,omitempty"` // internal id of what it redacted
	Anew    bool         `json:"w,omitempty"` // the room is to be read anew
	Stays   bool         `json:"s,omitempty"` // the event was there: what it changes is new, also the state at other events
}

// movedState is a Change on its way.
type movedState struct {
	Type, Key string
	New, Old  int64
	NewID     string
}

// mostAnnounced is how many changes of state are announced; with more the room's readers are told to read anew.
const mostAnnounced = 200

// announce tells other nodes of an event of a plan, in the transaction that commits it.
func (r *Room) announce(tx *storage.Tx, p *planned, pos int64, after *Head) error {
	if !tx.Shared() {
		return nil
	}
	a := announced{NID: p.stored.NID, Ext: extNIDs(after), Group: after.StateGroup(), Anew: p.foreign || len(after.ext) != 1 || len(p.changes) > 1, Stays: p.stays}
	if p.redact != nil {
		a.Redacts = p.redact.target.NID
	}
	if len(p.changes) <= mostAnnounced {
		for _, c := range p.changes {
			a.Changes = append(a.Changes, movedState{c.Key.Type, c.Key.StateKey, c.New.NID, c.Old.NID, c.New.ID})
		}
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	tx.Announce(storage.Announcement{Pos: pos, Kind: storage.NoteEvent, User: p.stored.Sender(), Device: p.stored.Device, Room: r.ID, Data: data})
	for _, x := range p.letIn {
		if data, err = json.Marshal(announced{NID: x.Stored.NID}); err != nil {
			return err
		}
		tx.Announce(storage.Announcement{Pos: x.Pos, Kind: storage.NoteSticky, User: x.Stored.Sender(), Room: r.ID, Data: data})
	}
	return nil
}

// Hear takes in what another node has committed and makes the note for this node's observers; ok is false for what rooms have nothing to
// do with. It must be called in the order of the commits, on the store's writer.
func (s *Service) Hear(ctx context.Context, a storage.Announcement) (n storage.Note, ok bool, err error) {
	n = storage.Note{Pos: a.Pos, Kind: a.Kind, User: a.User, Device: a.Device, Room: a.Room, Remote: true}
	switch a.Kind {
	case storage.NoteEvent:
		n.Value, err = s.hearEvent(ctx, a)
		return n, err == nil, err
	case storage.NoteSticky:
		var x announced
		if err := json.Unmarshal(a.Data, &x); err != nil {
			return n, false, err
		}
		r, err := s.Room(ctx, a.Room)
		if err != nil {
			return n, false, err
		}
		s.events.Remove(x.NID)
		e, err := r.ByRef(ctx, Ref{NID: x.NID})
		if err != nil || e == nil {
			return n, false, err
		}
		n.Value = &Sticky{Room: r, Stored: e, Pos: a.Pos}
		return n, true, nil
	case storage.NoteForgotten:
		s.users.drop(a.User)
	case storage.NoteLost:
		s.forgetAll()
	}
	return n, false, nil
}

// Prefetch reads the events that announcements speak of in one go, so that Hear need not read them one by one.
func (s *Service) Prefetch(ctx context.Context, list []storage.Announcement) error {
	byRoom := map[string][]int64{}
	for _, a := range list {
		var x announced
		if a.Kind == storage.NoteEvent && json.Unmarshal(a.Data, &x) == nil {
			byRoom[a.Room] = append(byRoom[a.Room], x.NID)
		}
	}
	for id, nids := range byRoom {
		r := s.Loaded(id)
		if r == nil || len(nids) < 2 {
			continue
		}
		if _, err := s.byNID(ctx, r.Version, nids...); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) hearEvent(ctx context.Context, a storage.Announcement) (*Committed, error) {
	var x announced
	if err := json.Unmarshal(a.Data, &x); err != nil {
		return nil, fmt.Errorf("rooms: announcement: %w", err)
	}
	if x.Redacts != 0 {
		s.events.Remove(x.Redacts)
	}
	if x.Stays {
		s.events.Purge()
	}
	r := s.Loaded(a.Room)
	var before *Head
	if r != nil {
		if before = r.Head(); x.Anew && before.pos < a.Pos {
			s.events.Remove(x.NID) // it may have been an outlier
			r.abandon(nil)
			r = nil
		}
	}
	var e *Stored
	var head *Head
	for try := 0; ; try++ {
		var err error
		if r == nil {
			if r, err = s.Room(ctx, a.Room); err != nil {
				return nil, err
			}
		}
		if e == nil {
			m, err := s.byNID(ctx, r.Version, x.NID)
			if err != nil {
				return nil, err
			}
			if e = m[x.NID]; e == nil {
				return nil, fmt.Errorf("rooms: event %d of %s is not there", x.NID, a.Room)
			}
		}
		if head = r.Head(); head.pos >= a.Pos {
			break // it was read with the room
		}
		moved, err := r.follow(ctx, head, e, &x, a.Pos)
		if err != nil {
			return nil, err
		}
		if moved != nil {
			head = moved
			break
		}
		if try >= 5 {
			return nil, fmt.Errorf("rooms: %s does not come to rest", a.Room)
		}
		r = nil // given up
	}
	if before == nil || before.pos > a.Pos {
		before = head
	}
	if x.Stays {
		st := *e
		st.Status = storage.StatusOutlier // as observers of the other node heard of it
		e = &st
	}
	c := &Committed{Room: r, Stored: e, Head: head, Before: before}
	for _, m := range x.Changes {
		c.Changes = append(c.Changes, Change{Key: event.Key{Type: m.Type, StateKey: m.Key}, New: Ref{m.New, m.NewID}, Old: Ref{NID: m.Old}})
		if m.Type == "m.room.member" {
			s.users.moved(storage.Membership{User: m.Key, RoomNID: r.NID, RoomID: r.ID, Membership: head.members.of(m.Key), EventNID: m.New, Pos: a.Pos})
		}
	}
	return c, nil
}

// follow moves the room behind another node's event; nil when it had to be given up, because appends of this node are under way.
func (r *Room) follow(ctx context.Context, h *Head, e *Stored, x *announced, pos int64) (*Head, error) {
	n := *h
	n.pos = pos
	n.ext = make([]Extremity, 0, len(x.Ext))
	for _, nid := range x.Ext {
		if i := slices.IndexFunc(h.ext, func(y Extremity) bool { return y.NID == nid }); i >= 0 {
			n.ext = append(n.ext, h.ext[i])
			continue
		}
		m, err := r.s.byNID(ctx, r.Version, nid)
		if err != nil {
			return nil, err
		}
		y := m[nid]
		if y == nil {
			return nil, fmt.Errorf("rooms: extremity %d of %s is not there", nid, r.ID)
		}
		n.ext = append(n.ext, Extremity{NID: nid, ID: y.ID(), Depth: y.Depth()})
	}
	if x.Group != h.StateGroup() && x.Group != 0 {
		g, err := r.s.group(ctx, x.Group)
		if err != nil {
			return nil, err
		}
		n.group = g
	}
	if len(x.Changes) > 0 {
		changes := make(map[event.Key]Ref, len(x.Changes))
		for _, c := range x.Changes {
			changes[event.Key{Type: c.Type, StateKey: c.Key}] = Ref{c.New, c.NewID}
		}
		n.state = h.state.with(changes)
		if m := e.Membership(); m != "" && e.IsState() {
			n.members = h.members.with(*e.StateKey(), m)
		}
	}
	// The writer's goroutine must not wait for the lock: who holds it may wait for the writer.
	if !r.mu.TryLock() {
		r.abandon(nil)
		return nil, nil
	}
	defer r.mu.Unlock()
	if r.poisoned.Load() || !slices.Equal(extNIDs(r.next), extNIDs(h)) {
		r.abandon(nil)
		return nil, nil
	}
	r.next = &n
	r.floor = max(r.floor, e.NID)
	r.head.Store(&n)
	return &n, nil
}

// Loaded is the room of an id when it is in memory, nil otherwise.
func (s *Service) Loaded(id string) *Room {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms[id]
}

// forgetAll gives up everything that another node may have changed.
func (s *Service) forgetAll() {
	s.mu.Lock()
	all := make([]*Room, 0, len(s.rooms))
	for _, r := range s.rooms {
		all = append(all, r)
	}
	s.mu.Unlock()
	for _, r := range all {
		r.abandon(nil)
	}
	s.events.Purge()
	s.users.mu.Lock()
	s.users.known.Purge()
	s.users.mu.Unlock()
}

// drop forgets the room list of a user.
func (x *userIndex) drop(user string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.known.Remove(user)
}

// How often an append is tried again. On one node it fails only after a commit failed; with several, as often as another node was
// quicker.
const (
	triesAlone  = 5
	triesShared = 30
	turnTime    = 5 * time.Millisecond
)

// again waits a little, by chance, before the next try, so that two nodes do not keep on outrunning each other; false when there were
// enough.
func (s *Service) again(ctx context.Context, try int) bool {
	if !s.store.Postgres() {
		return try < triesAlone
	}
	if try >= triesShared {
		return false
	}
	t := time.NewTimer(rand.N(turnTime * time.Duration(min(try+1, 8))))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
