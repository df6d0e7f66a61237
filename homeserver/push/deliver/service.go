// SPDX-License-Identifier: Apache-2.0

package deliver

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	maxFresh    = 4096             // events between Observe and Run; beyond it they are read from the store
	readBatch   = 500              // events read at once
	maxAge      = 24 * time.Hour   // older events are nobody's news
	countsDelay = time.Second / 2  // after something was read: people read several things at once
	missedDelay = 2 * time.Second  // after a call stopped ringing: its record is written meanwhile
	saveEvery   = 10 * time.Second // how far events were looked at, when nothing came of them
	graceTime   = time.Second      // in which the node that committed an event looks at it
	pollEvery   = time.Second      // how often other nodes' leavings are looked for
	tidyEvery   = time.Hour
	retryAfter  = time.Second // when the store does not answer
	overTime    = time.Hour   // how long a ring's end is worth telling
)

// Calls says whether a call waits for its first answer.
type Calls interface {
	Ringing(roomID, callID string) bool
}

// Ignores gives the users whom a user ignores.
type Ignores interface {
	Ignored(ctx context.Context, user string) (map[string]struct{}, error)
}

// Invites says whose invites a user is not to see, nil for nobody's.
type Invites interface {
	HidesInvites(ctx context.Context, user string) (func(sender string) bool, error)
}

// Deps are what a Service works with. Calls, Ignores, Invites and Metrics may be nil.
type Deps struct {
	Store    *storage.Store
	Rooms    *rooms.Service
	Rules    *push.Service
	Calls    Calls
	Ignores  Ignores
	Invites  Invites
	Gateways *gateway.Client
	Clock    signalling.Clock
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Service delivers pushes. Connect Observe to the store before the first write, after the push rules' own, and run Run.
type Service struct {
	Deps
	several bool
	began   int64 // the position at which this began
	meters  *meters
	wake    chan struct{}

	mu         sync.Mutex // held for moments only: the store's writer waits for it
	fresh      []happening
	refreshing bool      // pushers that changed are being read: an event meanwhile may be for one of them
	grace      time.Time // fresh holds nothing but other nodes' events, which they look at themselves if they live; zero otherwise
	behind     bool      // events after cursor must be read from the store
	// pushersLost says that changes of pushers may have been missed.
	pushersLost bool
	seen        int64
	changed     map[string]struct{}  // users whose pushers changed
	read        map[string]time.Time // users whose counts may have changed, and when to look
	stopped     map[ringID]struct{}  // calls that do not ring any more
	users       map[string][]*pusher // replaced, never changed
	ready       bool                 // users are those of the store
	rings       map[ringID]time.Time // what rings, and until when
	results     []result             // of lanes

	// What follows belongs to the goroutine of Run.
	cursor   int64 // every event up to here was looked at
	stored   int64 // the same as the store has it
	lanes    map[storage.PusherID]*lane
	hosts    map[string]*host
	running  int // lanes at work
	failing  int // of them, those with hosts that failed last time
	retries  retryHeap
	work     sync.WaitGroup
	disarm   func() bool
	nextLook time.Time // not before this after the store has failed, or for other nodes' events
	nextSave time.Time
	nextPoll time.Time
	nextTidy time.Time
	loaded   bool // pushers and rings were loaded
}

// happening is an event to be looked at.
type happening struct {
	room *rooms.Room
	e    *rooms.Stored
	head *rooms.Head // the room right after it
}

// ringID names a call: id is its call_id, or the event id of the notification that rings.
type ringID struct{ room, id string }

// New makes the service.
func New(d Deps) *Service {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{
		Deps: d, several: d.Store.Postgres(), began: d.Store.Pos(), meters: newMeters(d.Metrics), wake: make(chan struct{}, 1),
		seen: d.Store.Pos(), behind: true, changed: map[string]struct{}{}, read: map[string]time.Time{}, stopped: map[ringID]struct{}{},
		users: map[string][]*pusher{}, rings: map[ringID]time.Time{}, lanes: map[storage.PusherID]*lane{}, hosts: map[string]*host{},
	}
}

func (s *Service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Observe takes the notes of a commit. It never waits.
func (s *Service) Observe(pos int64, notes []storage.Note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := false
	for i := range notes {
		switch n := &notes[i]; n.Kind {
		case storage.NoteEvent:
			c, ok := n.Value.(*rooms.Committed)
			if !ok || c.Stored.Status != storage.StatusOK || c.Stored.Pos <= 0 {
				continue
			}
			if s.ready && len(s.users) == 0 && len(s.changed) == 0 && !s.refreshing {
				continue // nobody has a pusher: nothing to look at
			}
			news = true
			switch {
			case !n.Remote:
				s.grace = time.Time{}
			case len(s.fresh) == 0:
				s.grace = s.Clock.Now().Add(graceTime)
			}
			switch {
			case s.behind:
			case len(s.fresh) < maxFresh:
				s.fresh = append(s.fresh, happening{c.Room, c.Stored, c.Head})
			default:
				s.behind, s.fresh = true, nil
			}
		case storage.NoteLost:
			s.behind, s.fresh, s.grace, news = true, nil, time.Time{}, true
			s.pushersLost = true
		case storage.NotePushers:
			s.changed[n.User], news = struct{}{}, true
		case storage.NoteReceipt:
			if s.toldOfSome(n.User) {
				s.recount(n.User, countsDelay)
				news = true
			}
		}
	}
	s.seen = max(s.seen, pos)
	if news {
		s.poke()
	}
}

// toldOfSome says whether an application of the user shows that something is unread. The lock is held.
func (s *Service) toldOfSome(user string) bool {
	for _, p := range s.users[user] {
		if p.unread > 0 || p.missed > 0 {
			return true
		}
	}
	return false
}

// recount has the counts of a user looked at after a while. The lock is held.
func (s *Service) recount(user string, after time.Duration) {
	if _, soon := s.read[user]; !soon {
		s.read[user] = s.Clock.Now().Add(after)
	}
}

// Stopped says that a call has been answered, declined or has ended. It never waits.
func (s *Service) Stopped(roomID, callID string) {
	id := ringID{roomID, callID}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, rings := s.rings[id]; rings {
		s.stopped[id] = struct{}{}
		s.poke()
	}
}

// Run looks at events and delivers until ctx ends; then it waits for the exchanges under way. Run it once.
func (s *Service) Run(ctx context.Context) error {
	defer s.Gateways.Close()
	defer s.work.Wait()
	defer func() {
		if s.disarm != nil {
			s.disarm()
		}
	}()
	now := s.Clock.Now()
	s.nextSave, s.nextPoll, s.nextTidy = now.Add(saveEvery), now.Add(pollEvery), now.Add(tidyEvery)
	for {
		if err := s.step(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("pushes wait for the store", "err", err)
			s.nextLook = s.Clock.Now().Add(retryAfter)
		}
		s.start(ctx)
		s.arm()
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// step does all that can be done now.
func (s *Service) step(ctx context.Context) error {
	s.collect()
	now := s.Clock.Now()
	if now.Before(s.nextLook) {
		return nil
	}
	s.mu.Lock()
	if s.pushersLost {
		s.pushersLost, s.loaded = false, false
	}
	s.mu.Unlock()
	if !s.loaded {
		if err := s.load(ctx); err != nil {
			return err
		}
		s.loaded = true
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	if err := s.endRings(ctx, now); err != nil {
		return err
	}
	if err := s.queueCounts(ctx, now); err != nil {
		return err
	}
	if !now.Before(s.nextSave) {
		s.nextSave = now.Add(saveEvery)
		if err := s.save(ctx); err != nil {
			return err
		}
	}
	if s.several && !now.Before(s.nextPoll) {
		s.nextPoll = now.Add(pollEvery)
		if err := s.poll(ctx, now); err != nil {
			return err
		}
	}
	if !now.Before(s.nextTidy) {
		s.nextTidy = now.Add(tidyEvery)
		return s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.DropOrphanPushes() })
	}
	return nil
}

// load reads what the store has from before the start.
func (s *Service) load(ctx context.Context) error {
	users := map[string][]*pusher{}
	if err := s.Store.AllPushers(ctx, func(row storage.PusherState) {
		if p := s.pusher(row); p != nil {
			users[row.User] = append(users[row.User], p)
		}
	}); err != nil {
		return err
	}
	pos, err := s.Store.PushPos(ctx)
	if err != nil {
		return err
	}
	if pos < 0 { // the first start ever: nobody is told of the past
		pos = s.began
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
			_, err := tx.MovePush(-1, pos)
			return err
		}); err != nil {
			return err
		}
		if pos, err = s.Store.PushPos(ctx); err != nil {
			return err
		}
	}
	s.cursor, s.stored = pos, pos
	work, err := s.Store.PushersWithWork(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.users, s.ready = users, true
	s.mu.Unlock()
	for _, id := range work {
		s.queue(id)
	}
	return s.loadRings(ctx)
}

func (s *Service) loadRings(ctx context.Context) error {
	open, err := s.Store.OpenRings(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range open {
		id := ringID{r.RoomID, r.Ring}
		if _, known := s.rings[id]; known {
			continue
		}
		s.rings[id] = time.UnixMilli(r.ExpiresTS)
		if s.Calls != nil && r.Ring != r.EventID {
			s.stopped[id] = struct{}{} // whether it still rings is asked before it is ended
		}
	}
	return nil
}

// refresh reads the pushers of users who changed them.
func (s *Service) refresh(ctx context.Context) error {
	s.mu.Lock()
	changed := s.changed
	s.changed, s.refreshing = map[string]struct{}{}, true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.refreshing = false
		s.mu.Unlock()
	}()
	for user := range changed {
		rows, err := s.Store.PushersOf(ctx, user)
		if err != nil {
			s.mu.Lock()
			maps.Copy(s.changed, changed)
			s.mu.Unlock()
			return err
		}
		var list []*pusher
		for _, row := range rows {
			if p := s.pusher(row); p != nil {
				list = append(list, p)
				if l := s.lanes[p.id]; l != nil {
					l.retry = time.Time{} // it was set anew, perhaps mended
				}
				s.queue(p.id)
			}
		}
		s.mu.Lock()
		if list == nil {
			delete(s.users, user)
		} else {
			s.users[user] = list
		}
		s.mu.Unlock()
	}
	return nil
}

// save stores how far events were looked at.
func (s *Service) save(ctx context.Context) error {
	if s.cursor == s.stored {
		return nil
	}
	return s.commit(ctx, nil, s.cursor)
}

// poll finds what nodes that are gone have left behind.
func (s *Service) poll(ctx context.Context, now time.Time) error {
	ids, err := s.Store.PushersWaiting(ctx, now.UnixMilli(), 1000)
	if err != nil {
		return err
	}
	for _, id := range ids {
		s.queue(id)
	}
	return s.loadRings(ctx)
}

// arm sets the clock for whatever falls due next.
func (s *Service) arm() {
	now := s.Clock.Now()
	next := s.nextTidy
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	s.mu.Lock()
	waiting := len(s.fresh) > 0 || s.behind || len(s.changed) > 0 || len(s.stopped) > 0 || !s.loaded
	grace := s.grace
	if s.behind || len(s.changed) > 0 || len(s.stopped) > 0 {
		grace = time.Time{}
	}
	for _, at := range s.read {
		sooner(at)
	}
	for _, at := range s.rings {
		sooner(at)
	}
	s.mu.Unlock()
	if waiting {
		sooner(later(s.nextLook, grace))
	}
	if s.cursor != s.stored {
		sooner(s.nextSave)
	}
	if s.several {
		sooner(s.nextPoll)
	}
	if len(s.retries) > 0 {
		sooner(s.retries[0].at)
	}
	if next.Before(s.nextLook) {
		next = s.nextLook
	}
	if s.disarm != nil {
		s.disarm()
	}
	s.disarm = s.Clock.AfterFunc(max(next.Sub(now), time.Millisecond), s.poke)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
