// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// roomFacts is what lists are sorted and filtered by. It never changes.
type roomFacts struct {
	pos       int64 // the newest event
	bump      int64 // the newest event that counts as activity
	encrypted bool
	typ       string // the room type; "" for none
}

// factsCache keeps the facts of rooms and moves them along with each commit, so that lists are made without a read.
type factsCache struct {
	known    *lru.Cache[int64, *roomFacts]
	departed *lru.Cache[int64, *departure] // by the event that says so
	spaces   *lru.Cache[int64, map[string]struct{}]

	mu      sync.Mutex
	loading map[int64]*loadingFacts
}

type loadingFacts struct {
	waiters int
	moved   bool // something was committed meanwhile
}

const (
	factsKept    = 50_000
	departedKept = 20_000
	spacesKept   = 1_000
)

func newFactsCache() *factsCache {
	f := &factsCache{loading: map[int64]*loadingFacts{}}
	f.known, _ = lru.New[int64, *roomFacts](factsKept)
	f.departed, _ = lru.New[int64, *departure](departedKept)
	f.spaces, _ = lru.New[int64, map[string]struct{}](spacesKept)
	return f
}

// committed takes note of a commit.
func (f *factsCache) committed(c *rooms.Committed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Stored.Type() == "m.room.redaction" {
		f.spaces.Remove(c.Head.StateGroup()) // it may have taken a child out
	}
	if l := f.loading[c.Room.NID]; l != nil {
		l.moved = true
	}
	old, ok := f.known.Peek(c.Room.NID)
	if !ok {
		return
	}
	n := *old
	if e := c.Stored; e.Status == storage.StatusOK && e.Pos > n.pos {
		n.pos = e.Pos
		if storage.IsActivity(e.Type()) {
			n.bump = e.Pos
		}
	}
	_, n.encrypted = c.Head.Ref("m.room.encryption", "")
	f.known.Add(c.Room.NID, &n)
}

// roomFacts gives the facts of a room, from memory where they are known.
func (s *Service) roomFacts(ctx context.Context, nid int64, id string) (*roomFacts, error) {
	f := s.facts
	if k, ok := f.known.Get(nid); ok {
		return k, nil
	}
	f.mu.Lock()
	l := f.loading[nid]
	if l == nil {
		l = &loadingFacts{}
		f.loading[nid] = l
	}
	l.waiters++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		if l.waiters--; l.waiters == 0 {
			delete(f.loading, nid)
		}
		f.mu.Unlock()
	}()
	for try := 0; ; try++ {
		r, err := s.Rooms.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		head := r.Head()
		k := &roomFacts{pos: head.Pos()}
		if k.bump, err = s.Store.LastActivity(ctx, nid); err != nil {
			return nil, err
		}
		_, k.encrypted = head.Ref("m.room.encryption", "")
		create, err := r.State(ctx, head, "m.room.create", "")
		if err != nil {
			return nil, err
		}
		if create != nil {
			k.typ = gjson.GetBytes(create.Content(), "type").Str
		}
		f.mu.Lock()
		if now, ok := f.known.Peek(nid); ok { // another reader was quicker
			f.mu.Unlock()
			return now, nil
		}
		if !l.moved {
			f.known.Add(nid, k)
			f.mu.Unlock()
			return k, nil
		}
		l.moved = false
		f.mu.Unlock()
		if try == 3 {
			return k, nil // a busy room: the next reader tries again
		}
	}
}

// departure is how a user's time in a room ended. It never changes once whole.
type departure struct {
	byOther bool // kicked or banned
	whole   bool // what follows was read
	// last is the event that ended it; nil when the user never was in the room. Nothing after it is told, but for the user's own
	// membership.
	last      *rooms.Stored
	encrypted bool // as of last
	typ       string
}

// departedBy says whether somebody else ended a membership.
func (s *Service) departedBy(ctx context.Context, m storage.Membership, user string) (*departure, error) {
	if d, ok := s.facts.departed.Get(m.EventNID); ok {
		return d, nil
	}
	all, err := s.Store.Leavers(ctx, user)
	if err != nil {
		return nil, err
	}
	for nid, sender := range all {
		s.facts.departed.ContainsOrAdd(nid, &departure{byOther: sender != user})
	}
	if d, ok := s.facts.departed.Get(m.EventNID); ok {
		return d, nil
	}
	return &departure{}, nil
}

// departureOf reads how a user's time in a room ended.
func (s *Service) departureOf(ctx context.Context, m storage.Membership, user string) (*departure, error) {
	d, err := s.departedBy(ctx, m, user)
	if err != nil || d.whole {
		return d, err
	}
	r, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return nil, err
	}
	n := departure{byOther: d.byOther, whole: true}
	e, err := r.ByRef(ctx, rooms.Ref{NID: m.EventNID})
	for steps := 0; err == nil && e != nil && steps < 64; steps++ { // a ban after a kick, a new reason …
		var before *rooms.Stored
		if before, err = r.StateAt(ctx, e, false, "m.room.member", user); err != nil || before == nil {
			break
		}
		if before.Membership() == "join" {
			n.last = e
			break
		}
		e = before
	}
	if err != nil {
		return nil, err
	}
	if n.last != nil {
		state, err := r.AllStateAt(ctx, n.last)
		if err != nil {
			return nil, err
		}
		_, n.encrypted = state[event.Key{Type: "m.room.encryption"}]
		create, err := r.ByRef(ctx, state[event.Key{Type: "m.room.create"}])
		if err != nil {
			return nil, err
		}
		if create != nil {
			n.typ = gjson.GetBytes(create.Content(), "type").Str
		}
	}
	s.facts.departed.Add(m.EventNID, &n)
	return &n, nil
}

// childrenOf lists the rooms that a space names.
func (s *Service) childrenOf(ctx context.Context, id string) (map[string]struct{}, error) {
	r, err := s.Rooms.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	head := r.Head()
	if c, ok := s.facts.spaces.Get(head.StateGroup()); ok {
		return c, nil
	}
	var refs []rooms.Ref
	head.Each(func(k event.Key, ref rooms.Ref) {
		if k.Type == "m.space.child" {
			refs = append(refs, ref)
		}
	})
	events, err := r.ByRefs(ctx, refs)
	if err != nil {
		return nil, err
	}
	out := make(map[string]struct{}, len(events))
	for _, e := range events {
		if gjson.GetBytes(e.Content(), "via").IsArray() { // without it the child was taken out
			out[*e.StateKey()] = struct{}{}
		}
	}
	s.facts.spaces.Add(head.StateGroup(), out)
	return out, nil
}
