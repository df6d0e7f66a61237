// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Several nodes: what is stored comes through Observe, in the order of the commits of all nodes; typing, which is not stored, through
// HearTyping.

// Announced is the receipt as other nodes need it.
func (r *RoomReceipt) Announced() (json.RawMessage, error) { return json.Marshal(r.Receipt) }

// HearReceipt makes the note of a receipt that another node has stored.
func (s *Service) HearReceipt(ctx context.Context, a storage.Announcement) (storage.Note, error) {
	n := storage.Note{Pos: a.Pos, Kind: a.Kind, User: a.User, Room: a.Room, Remote: true}
	r := &RoomReceipt{}
	if err := json.Unmarshal(a.Data, &r.Receipt); err != nil {
		return n, err
	}
	var err error
	if r.Room, err = s.Rooms.Room(ctx, a.Room); err != nil {
		return n, err
	}
	n.Value = r
	return n, nil
}

// OnTyping registers who passes on to other nodes that a user of this node types for d, or with 0 has stopped. Call it before the first
// request; f must not wait.
func (s *Service) OnTyping(f func(room, user string, d time.Duration)) { s.typing.tell = f }

// HearTyping takes in what another node's OnTyping was told. A room that nobody of this node has looked at is passed over.
func (s *Service) HearTyping(room, user string, d time.Duration) {
	if r := s.Rooms.Loaded(room); r != nil && r.Head().IsJoined(user) {
		s.setTyping(r, user, min(max(d, 0), MaxTyping))
	}
}

// lost has everybody read the store: what is in the inboxes may not be all that happened. The lock is held.
func (s *Service) lost(pos int64) {
	now := s.Clock.Now()
	for _, b := range s.inboxes {
		b.items, b.from = nil, max(b.from, pos)
		b.knock(now)
	}
	s.facts.forget()
}

// forget drops everything.
func (f *factsCache) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known.Purge()
	f.departed.Purge()
	f.spaces.Purge()
	for _, l := range f.loading {
		l.moved = true
	}
}

// reach reads what other nodes committed when a client comes with a token that this node has not come to yet.
func (s *Service) reach(ctx context.Context, t Token) error {
	if s.CatchUp == nil || t.Pos <= s.Pos() {
		return nil
	}
	return s.CatchUp(ctx)
}

var _ storage.Announcer = (*RoomReceipt)(nil)
