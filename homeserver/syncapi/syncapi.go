// SPDX-License-Identifier: Apache-2.0

// Package syncapi tells clients what happened: /sync of the client-server API.
//
// Two ways lead to an answer. The live way: the store's observer puts every commit into the inbox of each user whom it concerns, and
// a waiting sync is answered from its inbox, from bytes that were serialised once, with no SQL. The long way, for a first sync or a
// client that was away: the store is read from the client's token to the newest position.
//
//	store ─ Observe ─> inbox(alice) ─> sync waits here ─> live answer
//	                   inbox(bob)
//	token too old ──────────────────> store ─────────────> full answer
//
// Both give the same sections; a token from one is good for the other, on every node and after a restart.
package syncapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// Keys is what sync needs to know of end-to-end encryption.
type Keys interface {
	// ToDevice gives messages for a device with after < position <= upTo, oldest first, and the position of the last one given.
	ToDevice(ctx context.Context, user, device string, after, upTo int64, limit int) (messages []json.RawMessage, last int64, err error)
	// DeleteToDevice forgets messages up to a position: the client has them.
	DeleteToDevice(ctx context.Context, user, device string, upTo int64) error
	// DeviceListsChanged gives the users who share a room with viewer and whose devices or keys changed with from < position <= to.
	DeviceListsChanged(ctx context.Context, viewer string, from, to int64) ([]string, error)
	// KeyCounts gives the one-time keys left by algorithm, and the algorithms with an unused fallback key.
	KeyCounts(ctx context.Context, user, device string) (counts map[string]int, fallback []string, err error)
}

// AccountEvent is one piece of account data.
type AccountEvent struct {
	Room    string // "" for global account data
	Type    string
	Content json.RawMessage
}

// AccountData gives a user's account data that changed with from < position <= to.
type AccountData interface {
	AccountData(ctx context.Context, user string, from, to int64) ([]AccountEvent, error)
}

// Tally is a number of unread events. An alias, so that whoever counts need not know sync.
type Tally = struct{ Notify, Highlight int64 }

// Unread counts what a user has not read in a room, by thread root; the main timeline stands under "".
type Unread interface {
	UnreadByThread(ctx context.Context, user string, room *rooms.Room) (map[string]Tally, error)
}

// Ignores gives the users whom a user ignores (m.ignored_user_list). The set is shared: do not change it.
type Ignores interface {
	Ignored(ctx context.Context, user string) (map[string]struct{}, error)
}

// Invites says whose invites a user is not to see, nil for nobody's (m.invite_permission_config).
type Invites interface {
	HidesInvites(ctx context.Context, user string) (func(sender string) bool, error)
}

// Deps are the services that sync reads from. Keys, Account, Ignores, Invites, Unread and Presence may be nil.
type Deps struct {
	Store    *storage.Store
	Rooms    *rooms.Service
	Keys     Keys
	Account  AccountData
	Ignores  Ignores
	Invites  Invites
	Unread   Unread
	Presence presence.Store
	Clock    signalling.Clock
	Log      *slog.Logger
	// CatchUp reads what other nodes have committed; nil on a node that is alone.
	CatchUp func(context.Context) error

	// Typed hears of each notice that a user types in a room, or has stopped; may be nil. It must be quick.
	Typed func(room *rooms.Room, user string, typing bool)
}

// Service answers syncs.
type Service struct {
	Deps
	mu      sync.Mutex
	pos     int64 // newest position that was put into the inboxes
	eph     int64 // newest ephemeral count
	inboxes map[string]*inbox
	watched map[string]chan struct{} // by room: closed when something happens in it
	lag     lag
	typing  *typing
	lazy    *lru.Cache[string, *sentMembers]

	facts   *factsCache // sliding sync
	sliding *connections
}

// New makes the service. Connect Observe to the store before the first write.
func New(d Deps) *Service {
	s := &Service{Deps: d, pos: d.Store.Pos(), inboxes: map[string]*inbox{}, watched: map[string]chan struct{}{}}
	s.eph = d.Clock.Now().UnixMicro() // later than any count given out before a restart
	s.lazy, _ = lru.New[string, *sentMembers](20000)
	s.typing = newTyping(s)
	s.facts = newFactsCache()
	s.sliding = newConnections()
	return s
}

// Request is one /sync.
type Request struct {
	User, Device string
	Since        string
	Timeout      time.Duration // how long to wait when there is nothing
	Filter       *filter.Filter
	FullState    bool
	StateAfter   bool // use_state_after (MSC4222, stable since v1.16)
	StateDraft   bool // with StateAfter: asked in the words of the draft, so it is answered in them
}

// stateKey is the name of the section with a room's state.
func (q *Request) stateKey() string {
	switch {
	case q.StateDraft:
		return "org.matrix.msc4222.state_after"
	case q.StateAfter:
		return "state_after"
	}
	return "state"
}

// Observe takes the notes of a commit; it is the store's observer.
func (s *Service) Observe(pos int64, notes []storage.Note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range notes {
		n := &notes[i]
		switch n.Kind {
		case storage.NoteEvent:
			if c, ok := n.Value.(*rooms.Committed); ok {
				s.facts.committed(c)
				s.putCommitted(n, c)
			}
		case storage.NoteSticky:
			if x, ok := n.Value.(*rooms.Sticky); ok {
				it := &item{note: *n}
				for _, u := range x.Room.Head().Joined() {
					s.put(u, it)
				}
			}
		case storage.NoteReceipt:
			if r, ok := n.Value.(*RoomReceipt); ok {
				if r.Type == "m.read.private" {
					s.put(n.User, &item{note: *n})
					continue
				}
				it := &item{note: *n}
				for _, u := range r.Room.Head().Joined() {
					s.put(u, it)
				}
			}
		case storage.NoteDeviceList:
			s.putDeviceList(n)
		case storage.NoteLost:
			s.lost(pos)
		case storage.NotePushers: // no part of a sync
		default:
			s.put(n.User, &item{note: *n})
		}
	}
	s.pos = max(s.pos, pos)
}

func (s *Service) put(user string, it *item) {
	if b := s.inboxes[user]; b != nil {
		b.put(it, s.Clock.Now())
	}
}

func (s *Service) putCommitted(n *storage.Note, c *rooms.Committed) {
	if c.Stored.Status != storage.StatusOK && len(c.Changes) == 0 {
		return // soft-failed or rejected: nobody hears of it
	}
	if w := s.watched[c.Room.ID]; w != nil {
		close(w)
		delete(s.watched, c.Room.ID)
	}
	it := &item{note: *n}
	for _, u := range c.Head.Joined() {
		s.put(u, it)
	}
	for _, ch := range c.Changes {
		if ch.Key.Type == "m.room.member" && !c.Head.IsJoined(ch.Key.StateKey) {
			s.put(ch.Key.StateKey, it)
		}
	}
}

// putDeviceList tells everybody who shares a room with the user. Where that cannot be known without a read, everybody who syncs is
// told, and asks when answering.
func (s *Service) putDeviceList(n *storage.Note) {
	it := &item{note: *n, users: []string{n.User}}
	if viewer, ok := n.Value.(storage.OnlyFor); ok {
		s.put(string(viewer), it)
		return
	}
	if others, ok := s.Rooms.KnownSharers(n.User); ok {
		for u := range others {
			s.put(u, it)
		}
		return
	}
	for _, b := range s.inboxes {
		b.put(it, s.Clock.Now())
	}
}

// ephemeral puts something that is not stored into the inboxes of users.
func (s *Service) ephemeral(users []string, it *item) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eph++
	it.eph = s.eph
	for _, u := range users {
		s.put(u, it)
	}
	return s.eph
}

// news is what an inbox had at one moment.
type news struct {
	items []*item
	ok    bool // the inbox reaches back to the token
	upTo  Token
	wake  chan struct{}
}

func (s *Service) collect(user string, t Token) (n news) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.inboxes[user]
	if b == nil {
		b = &inbox{from: s.pos, handed: map[string]int64{}}
		s.inboxes[user] = b
	}
	b.used = s.Clock.Now()
	if !b.woken.IsZero() {
		s.lag.add(b.used.Sub(b.woken), b.used)
		b.woken = time.Time{}
	}
	n.items, n.ok = b.since(t)
	n.upTo = Token{Pos: s.pos, Eph: s.eph}
	if b.wake == nil {
		b.wake = make(chan struct{})
	}
	n.wake = b.wake
	return n
}

// Sweep drops the inboxes of users who have gone; call it now and then.
func (s *Service) Sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.Clock.Now().Add(-inboxIdle)
	for u, b := range s.inboxes {
		if b.used.Before(old) && b.waiting == 0 {
			delete(s.inboxes, u)
		}
	}
}

// acknowledge forgets the to-device messages that the client has, when there are any.
func (s *Service) acknowledge(ctx context.Context, q *Request, t Token) error {
	if s.Keys == nil || t.ToDevice == 0 {
		return nil
	}
	s.mu.Lock()
	b := s.inboxes[q.User]
	if b != nil {
		if handed, known := b.handed[q.Device]; known && handed == 0 {
			s.mu.Unlock()
			return nil
		}
	}
	s.mu.Unlock()
	if err := s.Keys.DeleteToDevice(ctx, q.User, q.Device, t.ToDevice); err != nil {
		return err
	}
	s.mu.Lock()
	if b := s.inboxes[q.User]; b != nil && b.handed[q.Device] <= t.ToDevice {
		b.handed[q.Device] = 0
	}
	s.mu.Unlock()
	return nil
}

// handed notes that messages up to a position are on their way to the device.
func (s *Service) handed(user, device string, pos int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.inboxes[user]; b != nil {
		b.handed[device] = max(pos, b.handed[device])
	}
}

func (s *Service) wait(user string, d int) {
	s.mu.Lock()
	if b := s.inboxes[user]; b != nil {
		b.waiting += d
		b.used = s.Clock.Now()
	}
	s.mu.Unlock()
}

// Sync answers one /sync: the JSON body. Errors: M_INVALID_PARAM for a token that is not ours.
func (s *Service) Sync(ctx context.Context, q *Request) ([]byte, error) {
	since, err := ParseToken(q.Since)
	if err != nil {
		return nil, err
	}
	if q.Filter == nil {
		q.Filter = filter.Default()
	}
	if err := s.reach(ctx, since); err != nil {
		return nil, err
	}
	if err := s.acknowledge(ctx, q, since); err != nil {
		return nil, err
	}
	first := q.Since == "" || q.FullState
	var timeout <-chan struct{}
	if q.Timeout > 0 && !first {
		c := make(chan struct{})
		stop := s.Clock.AfterFunc(q.Timeout, func() { close(c) })
		defer stop()
		timeout = c
	}
	for {
		n := s.collect(q.User, since)
		since.Pos = min(since.Pos, n.upTo.Pos) // a token from a database that is no more
		since.Eph = min(since.Eph, n.upTo.Eph)
		if since.Sticky >= since.Pos {
			since.Sticky = 0
		}
		a := &answer{s: s, ctx: ctx, q: q, since: since, next: n.upTo, now: s.Clock.Now(), first: q.Since == ""}
		a.next.ToDevice = max(since.ToDevice, 0)
		if s.Ignores != nil {
			if a.ignored, err = s.Ignores.Ignored(ctx, q.User); err != nil {
				return nil, err
			}
		}
		if n.ok && !first {
			if len(n.items) > 0 || since.Sticky > 0 {
				err = a.live(n.items)
			}
		} else {
			err = a.full()
		}
		if err != nil {
			return nil, err
		}
		if first || a.something || timeout == nil {
			return a.body()
		}
		since = a.next // nothing up to here: no need to look again
		s.wait(q.User, 1)
		select {
		case <-n.wake:
			s.wait(q.User, -1)
		case <-timeout:
			s.wait(q.User, -1)
			timeout = nil
		case <-ctx.Done():
			s.wait(q.User, -1)
			return nil, ctx.Err()
		}
	}
}

// Watch gives a channel that is closed when the next event comes into a room, for those who look in without being in it. Look at
// the room after calling it, not before.
func (s *Service) Watch(room string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watched[room]
	if w == nil {
		w = make(chan struct{})
		s.watched[room] = w
	}
	return w
}

// Pos is the newest stream position that clients can have heard of.
func (s *Service) Pos() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos
}
