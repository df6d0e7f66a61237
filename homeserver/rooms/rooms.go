// SPDX-License-Identifier: Apache-2.0

// Package rooms is the heart of the homeserver: it appends events to rooms.
//
//	Append:  build on the room's head -> authorise -> hash, sign -> one op in the store's next commit -> tell observers
//	Insert:  events that others built -> state before each -> authorise thrice -> resolve forks -> the same op
//
// Each room has a head: its forward extremities and its current state, both immutable once published. Appends to one room are built
// one after another under the room's lock, on the head that the append before left behind, and queued; they are committed together
// with whatever else waits. No lock is held while the disk works. Readers see the head of the newest commit.
//
// When a commit fails, or another node has moved the room, the room in memory is given up with everything queued on top of it; those
// appends are tried again on the room as the store has it.
package rooms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	eventCache = 2048  // events kept parsed
	groupCache = 16384 // state groups kept
	userCache  = 20000 // users whose room list is kept
	roomIdle   = 30 * time.Minute
)

// Service holds the rooms of one server.
type Service struct {
	store  *storage.Store
	signer event.Signer
	clock  signalling.Clock
	log    *slog.Logger

	profile   Profile
	invitable InvitePolicy
	isGuest   func(ctx context.Context, user string) (bool, error) // nil: there are none
	erased    func(user string) int64                              // nil: nobody is
	created   atomic.Int64                                         // newest createTime, in milliseconds
	version   event.Version
	askPolicy AskPolicy // nil: nobody can be asked
	policyKey atomic.Pointer[ed25519.PrivateKey]

	mu      sync.Mutex
	rooms   map[string]*Room
	wholes  map[string]chan struct{} // closed when a room has its whole state
	heads   map[string]*headPointer  // of rooms, and of those that were given up
	load    singleflight.Group
	sends   singleflight.Group // sends under way, by transaction id
	events  *lru.Cache[int64, *Stored]
	byID    *lru.Cache[string, int64]
	groups  *lru.Cache[int64, *group]
	pending *pending
	users   *userIndex

	resolved *lru.Cache[string, int64] // state groups that resolve to one of themselves
}

// New opens the rooms of server, making its signing key when there is none.
func New(ctx context.Context, store *storage.Store, server string, clock signalling.Clock, log *slog.Logger) (*Service, error) {
	s := &Service{store: store, clock: clock, log: log, rooms: map[string]*Room{}, wholes: map[string]chan struct{}{}, heads: map[string]*headPointer{}, version: event.DefaultVersion, pending: newPending()}
	s.events, _ = lru.New[int64, *Stored](eventCache)
	s.byID, _ = lru.New[string, int64](eventCache)
	s.groups, _ = lru.New[int64, *group](groupCache)
	s.resolved, _ = lru.New[string, int64](groupCache)
	s.users = newUserIndex(store)
	keys, err := store.ServerKeys(ctx)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		var b [3]byte
		_, _ = rand.Read(b[:])
		k := storage.ServerKey{ID: "ed25519:a_" + hex.EncodeToString(b[:]), Seed: key.Seed(), CreatedTS: clock.Now().UnixMilli()}
		if err := store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertServerKey(k) }); err != nil {
			return nil, fmt.Errorf("signing key: %w", err)
		}
		if keys, err = store.ServerKeys(ctx); err != nil {
			return nil, err
		}
	}
	if len(keys[0].Seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("signing key %s is damaged", keys[0].ID)
	}
	s.signer = event.Signer{Server: server, KeyID: keys[0].ID, Key: ed25519.NewKeyFromSeed(keys[0].Seed)}
	return s, nil
}

// Server is the name of this server.
func (s *Service) Server() string { return s.signer.Server }

// DefaultVersion is the version of rooms that are made without naming one.
func (s *Service) DefaultVersion() event.Version { return s.version }

// UseVersion sets the version of rooms that are made without naming one; event.DefaultVersion otherwise. Call it before the first
// request.
func (s *Service) UseVersion(v event.Version) error {
	if !v.Known() {
		return fmt.Errorf("room version %q is not served here", string(v))
	}
	s.version = v
	return nil
}

// Signer signs for this server.
func (s *Service) Signer() event.Signer { return s.signer }

// Stored is an event as the store has it. It never changes; a redaction puts another in its place.
type Stored struct {
	*event.Event
	NID, Pos                int64
	Status                  storage.Status
	StateBefore, StateAfter int64
	RedactedBy              string
	Device, TxnID           string
	StickyUntil             int64 // when it ceases to stick (MSC4354), in milliseconds since 1970; 0: it does not stick
}

func (s *Service) stored(v event.Version, row storage.EventRow) (*Stored, error) {
	e, err := event.Load(v, row.ID, row.JSON, row.RedactedBy != "")
	if err != nil {
		return nil, err
	}
	st := &Stored{Event: e, NID: row.NID, Pos: row.Pos, Status: row.Status, StateBefore: row.StateBefore, StateAfter: row.StateAfter, RedactedBy: row.RedactedBy, Device: row.SenderDevice, TxnID: row.TxnID, StickyUntil: row.StickyUntil}
	s.keep(st)
	return st, nil
}

func (s *Service) keep(st *Stored) {
	s.events.Add(st.NID, st)
	s.byID.Add(st.ID(), st.NID)
}

// byNID loads events of a room; nids that are not there are left out.
func (s *Service) byNID(ctx context.Context, v event.Version, nids ...int64) (map[int64]*Stored, error) {
	out := make(map[int64]*Stored, len(nids))
	var miss []int64
	for _, n := range nids {
		if e := s.pending.event(n); e != nil { // first: it may be an outlier that gets its place just now
			out[n] = e
		} else if e, ok := s.events.Get(n); ok {
			out[n] = e
		} else {
			miss = append(miss, n)
		}
	}
	if len(miss) == 0 {
		return out, nil
	}
	rows, err := s.store.EventsByNID(ctx, miss)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		e, err := s.stored(v, row)
		if err != nil {
			return nil, err
		}
		out[e.NID] = e
	}
	return out, nil
}

// byEventID loads events of room r by id; ids that are not there, or are of another room, are left out.
func (s *Service) byEventID(ctx context.Context, r *Room, ids ...string) (map[string]*Stored, error) {
	out := make(map[string]*Stored, len(ids))
	var miss []string
	for _, id := range ids {
		e := s.pending.byID(id)
		if e == nil {
			if n, ok := s.byID.Get(id); ok {
				e, _ = s.events.Get(n)
			}
		}
		switch {
		case e == nil:
			miss = append(miss, id)
		case e.RoomID() == r.ID:
			out[id] = e
		}
	}
	if len(miss) == 0 {
		return out, nil
	}
	rows, err := s.store.EventsByID(ctx, miss)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.RoomNID != r.NID {
			continue
		}
		e, err := s.stored(r.Version, row)
		if err != nil {
			return nil, err
		}
		out[e.ID()] = e
	}
	return out, nil
}

// Room is a room in memory. Its head moves; everything else stays.
type Room struct {
	NID     int64
	ID      string
	Version event.Version
	s       *Service

	mu   sync.Mutex
	next *Head // the head that the next append builds on; ahead of head while commits are under way
	used time.Time
	// floor is the highest nid seen in the room: new ones are higher.
	floor int64
	// gaps are the events that others name and that are not there, with those that name them; early are the redactions of events that
	// are not there. mu guards both.
	gaps, early map[string][]int64
	holes       atomic.Int64                        // how many gaps there are
	partial     atomic.Pointer[storage.PartialRoom] // joined without its whole state

	acl          atomic.Pointer[acl]
	policy       atomic.Pointer[policy]
	policySilent atomic.Int64 // milliseconds since 1970 until which its policy server is not asked about events from outside
	poisoned     atomic.Bool  // given up: what is queued fails, whoever comes finds the room again

	head *headPointer // outlives the room: whoever holds one that was given up sees where its successor stands
}

// ErrNoRoom says that the room is not known here.
var ErrNoRoom = signalling.NotFound("that room is not known to this server")

// errStale says that the room was given up while an append waited.
var errStale = errors.New("rooms: the room has moved")

// Room finds a room; ErrNoRoom.
func (s *Service) Room(ctx context.Context, id string) (*Room, error) {
	s.mu.Lock()
	r := s.rooms[id]
	s.mu.Unlock()
	if r != nil {
		return r, nil
	}
	v, err, _ := s.load.Do(id, func() (any, error) { return s.loadRoom(ctx, id) })
	if err != nil {
		return nil, err
	}
	return v.(*Room), nil
}

func (s *Service) loadRoom(ctx context.Context, id string) (*Room, error) {
	if len(id) > event.MaxIDLength || len(id) == 0 || id[0] != '!' {
		return nil, ErrNoRoom
	}
	row, err := s.store.Room(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, ErrNoRoom
	}
	if err != nil {
		return nil, err
	}
	r := &Room{NID: row.NID, ID: row.ID, Version: event.Version(row.Version), s: s, used: s.clock.Now()}
	h := &Head{pos: row.LastPos}
	refs, err := s.store.CurrentState(ctx, row.NID)
	if err != nil {
		return nil, err
	}
	base := make(map[event.Key]Ref, len(refs))
	for _, x := range refs {
		base[event.Key{Type: x.Type, StateKey: x.StateKey}] = Ref{x.EventNID, x.EventID}
		r.floor = max(r.floor, x.EventNID)
	}
	h.state = &stateMap{base: base, size: len(base)}
	if row.StateGroup != 0 { // 0: known by an invite only
		if h.group, err = s.group(ctx, row.StateGroup); err != nil {
			return nil, err
		}
	}
	if err := r.loadHoles(ctx); err != nil {
		return nil, err
	}
	if h.outside, err = s.store.AnyInvite(ctx, row.NID, ""); err != nil {
		return nil, err
	}
	members, err := s.store.RoomMembers(ctx, row.NID)
	if err != nil {
		return nil, err
	}
	h.members = newMembers(members)
	ext, err := s.byNID(ctx, r.Version, row.Extremities...)
	if err != nil {
		return nil, err
	}
	for _, n := range row.Extremities {
		e := ext[n]
		if e == nil {
			return nil, fmt.Errorf("room %s: extremity %d is not there", id, n)
		}
		h.ext = append(h.ext, Extremity{NID: n, ID: e.ID(), Depth: e.Depth()})
		r.floor = max(r.floor, n)
	}
	r.next = h
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.rooms[id]; old != nil {
		return old, nil
	}
	if r.head = s.heads[id]; r.head == nil {
		r.head = &headPointer{}
		s.heads[id] = r.head
	}
	r.head.Store(h)
	s.rooms[id] = r
	return r, nil
}

// giveUp takes r out of memory: the next caller loads it as the store has it.
func (s *Service) giveUp(r *Room) {
	s.mu.Lock()
	if s.rooms[r.ID] == r {
		delete(s.rooms, r.ID)
	}
	s.mu.Unlock()
}

// Sweep drops rooms from memory that nobody used for a while; call it now and then.
func (s *Service) Sweep() {
	s.mu.Lock()
	all := make([]*Room, 0, len(s.rooms))
	for _, r := range s.rooms {
		all = append(all, r)
	}
	s.mu.Unlock()
	for _, r := range all {
		r.mu.Lock()
		// Nothing queued: the head that the next append would build on is the published one.
		if quiet := slices.Equal(extNIDs(r.next), extNIDs(r.head.Load())); quiet && s.clock.Now().Sub(r.used) > roomIdle {
			r.abandon(nil)
			s.mu.Lock()
			if s.rooms[r.ID] == nil {
				delete(s.heads, r.ID)
			}
			s.mu.Unlock()
		}
		r.mu.Unlock()
	}
}
