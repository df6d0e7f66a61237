// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// UserRooms is every room that a user has or had to do with, by room id. It never changes.
type UserRooms map[string]storage.Membership

// userIndex keeps the room lists of users who asked for theirs, and moves them along with each commit.
type userIndex struct {
	store   *storage.Store
	mu      sync.Mutex
	known   *lru.Cache[string, UserRooms]
	loading map[string]*loadingUser
}

// loadingUser collects the changes that are committed while a list is read from the store.
type loadingUser struct {
	waiters int
	changes []storage.Membership
}

func newUserIndex(store *storage.Store) *userIndex {
	c, _ := lru.New[string, UserRooms](userCache)
	return &userIndex{store: store, known: c, loading: map[string]*loadingUser{}}
}

// UserRooms lists the rooms of a user.
func (s *Service) UserRooms(ctx context.Context, user string) (UserRooms, error) {
	return s.users.get(ctx, user)
}

func (x *userIndex) get(ctx context.Context, user string) (UserRooms, error) {
	x.mu.Lock()
	if u, ok := x.known.Get(user); ok {
		x.mu.Unlock()
		return u, nil
	}
	l := x.loading[user]
	if l == nil {
		l = &loadingUser{}
		x.loading[user] = l
	}
	l.waiters++
	x.mu.Unlock()
	rows, err := x.store.UserMemberships(ctx, user)
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.waiters--; l.waiters == 0 {
		delete(x.loading, user)
	}
	if err != nil {
		return nil, err
	}
	if u, ok := x.known.Get(user); ok { // another reader was quicker, and its list has moved on since
		return u, nil
	}
	u := make(UserRooms, len(rows))
	for _, m := range rows {
		u[m.RoomID] = m
	}
	for _, m := range l.changes {
		if m.Pos >= u[m.RoomID].Pos {
			u[m.RoomID] = m
		}
	}
	x.known.Add(user, u)
	return u, nil
}

// moved tells the index of a committed change.
func (x *userIndex) moved(m storage.Membership) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l := x.loading[m.User]; l != nil {
		l.changes = append(l.changes, m)
	}
	old, ok := x.known.Get(m.User)
	if !ok {
		return
	}
	u := make(UserRooms, len(old)+1)
	for k, v := range old {
		u[k] = v
	}
	u[m.RoomID] = m
	x.known.Add(m.User, u)
}

// renumber tells the index that a member event has another internal id.
func (x *userIndex) renumber(user, roomID string, old, now int64) {
	x.mu.Lock()
	m, ok := UserRooms(nil), false
	if m, ok = x.known.Get(user); ok {
		ok = m[roomID].EventNID == old
	}
	x.mu.Unlock()
	if ok {
		n := m[roomID]
		n.User, n.EventNID = user, now
		x.moved(n)
	}
}

// SharedUsers lists the users who share a room with user, user included.
func (s *Service) SharedUsers(ctx context.Context, user string) (map[string]struct{}, error) {
	rooms, err := s.UserRooms(ctx, user)
	if err != nil {
		return nil, err
	}
	out := map[string]struct{}{user: {}}
	for id, m := range rooms {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, u := range r.Head().Joined() {
			out[u] = struct{}{}
		}
	}
	return out, nil
}

// ShareRoom says whether two users are joined to the same room.
func (s *Service) ShareRoom(ctx context.Context, a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	ra, err := s.UserRooms(ctx, a)
	if err != nil {
		return false, err
	}
	for id, m := range ra {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Room(ctx, id)
		if err != nil {
			return false, err
		}
		if r.Head().IsJoined(b) {
			return true, nil
		}
	}
	return false, nil
}

// KnownSharers lists the users who share a room with user, user included, from memory alone; ok is false when that is not known
// without a read.
func (s *Service) KnownSharers(user string) (map[string]struct{}, bool) {
	s.users.mu.Lock()
	u, ok := s.users.known.Peek(user)
	s.users.mu.Unlock()
	if !ok {
		return nil, false
	}
	out := map[string]struct{}{user: {}}
	for id, m := range u {
		if m.Membership != "join" {
			continue
		}
		s.mu.Lock()
		r := s.rooms[id]
		s.mu.Unlock()
		if r == nil {
			return nil, false
		}
		for _, j := range r.Head().Joined() {
			out[j] = struct{}{}
		}
	}
	return out, true
}

// InPublic says whether a user is joined to a room that anybody may enter, or read.
func (s *Service) InPublic(ctx context.Context, user string) (bool, error) {
	all, err := s.UserRooms(ctx, user)
	if err != nil {
		return false, err
	}
	for id, m := range all {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Room(ctx, id)
		if err != nil {
			return false, err
		}
		for _, x := range []struct{ typ, field, open string }{
			{"m.room.join_rules", "join_rule", "public"}, {"m.room.history_visibility", "history_visibility", "world_readable"},
		} {
			e, err := r.State(ctx, r.Head(), x.typ, "")
			if err != nil {
				return false, err
			}
			if e != nil && gjson.GetBytes(e.Content(), x.field).Str == x.open {
				return true, nil
			}
		}
	}
	return false, nil
}

// Mutual lists the rooms that two users are both joined to, sorted.
func (s *Service) Mutual(ctx context.Context, a, b string) ([]string, error) {
	all, err := s.UserRooms(ctx, a)
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for id, m := range all {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		if r.Head().IsJoined(b) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}
