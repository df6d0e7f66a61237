// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"sort"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// MaxTyping is the longest that a typing notice stands.
const MaxTyping = 2 * time.Minute

// typing knows who types where. It is not stored: a restart ends it.
type typing struct {
	s     *Service
	mu    sync.Mutex
	rooms map[string]*typingRoom
	tell  func(room, user string, d time.Duration) // other nodes; nil on a node that is alone
}

type typingRoom struct {
	users map[string]func() bool // user -> stop of the timer
	eph   int64                  // count of the last change
}

func newTyping(s *Service) *typing { return &typing{s: s, rooms: map[string]*typingRoom{}} }

// SetTyping notes that a user types in a room for d, or with 0 has stopped.
func (s *Service) SetTyping(room *rooms.Room, user string, d time.Duration) {
	if s.typing.tell != nil {
		s.typing.tell(room.ID, user, d)
	}
	s.setTyping(room, user, d)
}

func (s *Service) setTyping(room *rooms.Room, user string, d time.Duration) {
	t := s.typing
	t.mu.Lock()
	r := t.rooms[room.ID]
	if r == nil {
		if d <= 0 {
			t.mu.Unlock()
			return
		}
		r = &typingRoom{users: map[string]func() bool{}}
		t.rooms[room.ID] = r
	}
	stop, was := r.users[user]
	if was {
		stop()
		delete(r.users, user)
	}
	if d > 0 {
		r.users[user] = s.Clock.AfterFunc(min(d, MaxTyping), func() { s.setTyping(room, user, 0) })
	}
	changed := was != (d > 0)
	t.mu.Unlock()
	if s.Typed != nil && (changed || d > 0) {
		s.Typed(room, user, d > 0)
	}
	if changed {
		eph := s.ephemeral(room.Head().Joined(), &item{kind: ephTyping, room: room})
		t.mu.Lock()
		r.eph = max(r.eph, eph)
		t.mu.Unlock()
	}
}

// in lists who types in a room, and when that last changed.
func (t *typing) in(room string) (users []string, eph int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	if r == nil {
		return nil, 0
	}
	for u := range r.users {
		users = append(users, u)
	}
	sort.Strings(users)
	return users, r.eph
}

func appendTyping(b []byte, users []string) []byte {
	b = append(b, `{"content":{"user_ids":[`...)
	for i, u := range users {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, u)
	}
	return append(b, `]},"type":"m.typing"}`...)
}
