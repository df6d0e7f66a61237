// SPDX-License-Identifier: Apache-2.0

// Package calls keeps the history of the calls that the server can read: m.call.* events in rooms that are not encrypted. In an
// encrypted room the server sees m.room.encrypted only, and nothing is asked for or expected there.
//
//	store ─ Observe ─> queue ─> Run: callflow.Tracker ─> facts ─> calls in progress (memory)
//	                     │                                  └───> records (SQL, many in one commit)
//	                     └ full, or another node wrote: read again from the store
//
// Observe runs on the store's writer and only puts pointers into a bounded queue. When the queue is full nothing is lost: the queue
// is then left alone, and Run, once it has emptied it, reads the events from the store from the first one that found no place until
// it has caught up. Other nodes' commits show as gaps in the stream's positions and are read in the same way, and so are the events of
// the last quarter of an hour when the server starts; calls that last longer are noted in the store. A record is written once, however
// often and by however many nodes a call is read, because (room, call_id, caller) is its key: whoever uses a call_id again for
// another call in the same room goes without a second record.
//
// Calls of many are recorded too, encrypted or not, from memberships and from the sessions in the SFU: see group.go.
//
// Records are derived data: no event is refused or changed because of them.
package calls

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// Config bounds a Service. Zero fields take the defaults named beside them.
type Config struct {
	RetentionDays int             // 90: records of calls that began earlier are deleted; negative keeps them for ever
	Queue         int             // 4,096 events between Observe and Run
	Tracker       callflow.Config // bounds of the calls in progress
}

// Deps are what a Service works with. Metrics may be nil.
type Deps struct {
	Config  Config
	Store   *storage.Store
	Rooms   *rooms.Service
	Clock   signalling.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Groups  *Groups // group calls, which InProgress lists too; may be nil
}

const (
	replayTime = 15 * time.Minute // how far a start looks back; longer than an invite can ring
	longCall   = 5 * time.Minute  // calls older than this are noted in the store; much less than replayTime
	noteEvery  = time.Minute      // how often it is looked for such calls
	pollEvery  = time.Second      // how often other nodes' events are looked for while calls are in progress
	pruneEvery = time.Hour
	retryAfter = time.Second // when the store does not answer
	logouts    = 4096        // devices that wait to be logged out of their calls
	endedCalls = 8192        // ended calls that Ringing remembers
	lastWrites = 5 * time.Second
	maxFacts   = 8192 // records that wait to be written before Run takes nothing more
)

// Service follows calls and keeps their records. Connect Observe to the store before the first write, and run Run.
type Service struct {
	Deps
	tracker  *callflow.Tracker
	metrics  *meters
	several  bool // other nodes may write to the same store
	queue    chan item
	taken    atomic.Uint64 // items that were taken from queue and applied
	wake     chan struct{}
	flushes  chan chan struct{}
	finished chan struct{}

	mu      sync.Mutex // held for a few instructions only: the store's writer waits for it
	queued  uint64     // items that were put into queue
	seen    int64      // newest position that Observe was told of
	behind  bool       // the store must be read from from; nothing is queued
	from    int64
	leaving map[[2]string]struct{} // (user, device) of logouts

	live    live
	stopped func(roomID, callID string)
	ended   *lru.Cache[key, struct{}]

	// What follows belongs to the goroutine of Run.
	at       int64 // everything up to here has been applied
	look     bool  // read the store up to its end
	facts    []record
	writing  chan error // not nil while a write is under way
	inFlight int        // the first of facts, that are being written
	added    []bool
	waiting  []chan struct{} // flushes
	armed    time.Time
	disarm   func() bool
	nextNote time.Time
	nextPoll time.Time
	nextRead time.Time // not before this after the store has failed
	nextTry  time.Time
	prune    time.Time
	unpruned atomic.Bool // the last pruning left some
}

type key struct{ room, id string }

// item is a commit that may matter to a call.
type item struct {
	c  *rooms.Committed
	at time.Time
}

// New makes the service; its memory is filled by Run.
func New(d Deps) *Service {
	if d.Config.RetentionDays == 0 {
		d.Config.RetentionDays = 90
	}
	if d.Config.Queue <= 0 {
		d.Config.Queue = 4096
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		Deps: d, tracker: callflow.NewTracker(d.Config.Tracker), several: d.Store.Postgres(),
		queue: make(chan item, d.Config.Queue), wake: make(chan struct{}, 1), flushes: make(chan chan struct{}), finished: make(chan struct{}),
		behind: true, from: -1, seen: d.Store.Pos(), leaving: map[[2]string]struct{}{}, stopped: func(string, string) {},
	}
	s.ended, _ = lru.New[key, struct{}](endedCalls)
	s.live.init()
	s.metrics = newMeters(d.Metrics, s.tracker)
	return s
}

// OnStopped registers who is told of each call that is answered, declined or ends: it does not ring any more. f may be told twice, and must
// be quick. Call it before Run.
func (s *Service) OnStopped(f func(roomID, callID string)) { s.stopped = f }

// Observe takes the notes of a commit. It never waits.
func (s *Service) Observe(pos int64, notes []storage.Note) {
	if len(notes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.several && !s.behind {
		first := int64(math.MaxInt64)
		for i := range notes {
			first = min(first, notes[i].Pos)
		}
		if first > s.seen+1 {
			// Positions in between are another node's, or of writes without notes.
			s.fallBehind(s.seen)
		}
	}
	was := s.seen
	s.seen = max(s.seen, pos)
	if s.behind {
		s.nudge()
		return
	}
	var now time.Time
	for i := range notes {
		if notes[i].Kind == storage.NoteLost {
			s.fallBehind(was)
			return
		}
		c, ok := notes[i].Value.(*rooms.Committed)
		if !ok || !matters(c) {
			continue
		}
		if now.IsZero() {
			now = s.Clock.Now()
		}
		select {
		case s.queue <- item{c, now}:
			s.queued++
		default:
			s.metrics.overflows.Inc()
			s.fallBehind(c.Stored.Pos - 1)
			return
		}
	}
}

func (s *Service) fallBehind(from int64) {
	s.behind, s.from = true, from
	s.nudge()
}

// matters says whether a commit can begin, change or end a call.
func matters(c *rooms.Committed) bool {
	if c.Stored.Status == storage.StatusOK && c.Stored.Type() != callflow.TypeCandidates && callflow.IsCall(c.Stored.Type()) {
		return true
	}
	return slices.ContainsFunc(c.Changes, func(ch rooms.Change) bool { return left(c, ch) })
}

func left(c *rooms.Committed, ch rooms.Change) bool {
	return ch.Key.Type == "m.room.member" && !c.Head.IsJoined(ch.Key.StateKey)
}

// Logout ends what a device takes part in: call it when its access token is revoked. It never waits. When too many devices wait to be
// logged out, further ones are left to hang up by themselves, or to the tracker's longest silence.
func (s *Service) Logout(user, device string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leaving) < logouts {
		s.leaving[[2]string{user, device}] = struct{}{}
	}
	s.nudge()
}

// Wake says that another node has committed something. Without it this node looks every second while it knows of calls.
func (s *Service) Wake() {
	if !s.several {
		return
	}
	s.mu.Lock()
	if !s.behind {
		s.fallBehind(s.seen)
	}
	s.mu.Unlock()
}

func (s *Service) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush waits until everything that was observed, or fell due, before the call is recorded. It needs Run.
func (s *Service) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case s.flushes <- done:
	case <-s.finished:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-s.finished:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run follows calls until ctx ends; then it writes the records that wait. The store must stay open until it returns. Run it once.
func (s *Service) Run(ctx context.Context) error {
	defer close(s.finished)
	defer func() {
		if s.disarm != nil {
			s.disarm()
		}
	}()
	now := s.Clock.Now()
	s.nextNote, s.nextPoll, s.prune = now.Add(noteEvery), now.Add(pollEvery), now
	for {
		s.step(ctx)
		queue := s.queue
		if len(s.facts) > maxFacts {
			queue = nil // the store is slow; what finds no place in the queue is read from it later
		}
		select {
		case <-ctx.Done():
			return s.close()
		case it := <-queue:
			s.apply(it)
		case <-s.wake:
		case done := <-s.flushes:
			s.waiting = append(s.waiting, done)
			s.look = s.several
		case err := <-s.writing:
			s.wrote(err)
		}
	}
}

// step does all that can be done now.
func (s *Service) step(ctx context.Context) {
	s.drain()
	now := s.Clock.Now()
	deadline, some := s.tracker.NextDeadline()
	due := some && !now.Before(deadline)
	if s.several && (due || (some && !now.Before(s.nextPoll))) {
		// Before a call is held to be missed, what it heard on other nodes counts.
		s.look = true
	}
	current := !s.stale() || (!now.Before(s.nextRead) && s.catchUp(ctx, now))
	if current {
		s.logOut(now)
		if due {
			s.take(s.tracker.Expire(now), nil)
		}
	}
	if !now.Before(s.nextNote) {
		s.nextNote = now.Add(noteEvery)
		s.noteLong(now)
	}
	if s.Config.RetentionDays > 0 && (!now.Before(s.prune) || s.unpruned.Swap(false)) {
		s.prune = now.Add(pruneEvery)
		s.pruneOld(now)
	}
	if !now.Before(s.nextTry) {
		s.write(ctx)
	}
	if len(s.waiting) > 0 && current && !s.stale() && len(s.facts) == 0 && s.writing == nil && len(s.queue) == 0 {
		for _, done := range s.waiting {
			close(done)
		}
		s.waiting = nil
	}
	s.arm(now, current)
}

// drain applies what is queued now.
func (s *Service) drain() {
	for range cap(s.queue) {
		if len(s.facts) > maxFacts {
			return
		}
		select {
		case it := <-s.queue:
			s.apply(it)
		default:
			s.mu.Lock()
			if !s.behind && s.queued == s.taken.Load() {
				s.at = max(s.at, s.seen) // what was not queued does not matter
			}
			s.mu.Unlock()
			return
		}
	}
}

func (s *Service) stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behind || s.look
}

func (s *Service) logOut(now time.Time) {
	s.mu.Lock()
	gone := map[[2]string]struct{}(nil) // not the map that Logout writes to
	if len(s.leaving) > 0 {
		gone, s.leaving = s.leaving, map[[2]string]struct{}{}
	}
	s.mu.Unlock()
	for d := range gone {
		s.take(s.tracker.Logout(d[0], d[1], now), nil)
	}
}

// arm sets the clock for whatever falls due next.
func (s *Service) arm(now time.Time, current bool) {
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if s.Config.RetentionDays > 0 {
		sooner(s.prune)
	}
	if deadline, some := s.tracker.NextDeadline(); some {
		sooner(s.nextNote)
		if current {
			sooner(deadline)
		}
		if s.several {
			sooner(s.nextPoll)
		}
	}
	if !current {
		sooner(s.nextRead)
	}
	if len(s.facts) > 0 && s.writing == nil {
		sooner(s.nextTry)
	}
	if s.disarm != nil {
		if s.armed.Equal(next) && s.armed.After(now) {
			return
		}
		s.disarm()
		s.disarm = nil
	}
	if s.armed = next; !next.IsZero() {
		s.disarm = s.Clock.AfterFunc(max(next.Sub(now), time.Millisecond), s.nudge)
	}
}

// apply puts one commit into the tracker.
func (s *Service) apply(it item) {
	defer s.taken.Add(1)
	c := it.c
	if c.Stored.Pos <= s.at {
		return // read from the store already
	}
	s.at = c.Stored.Pos
	if c.Stored.Status == storage.StatusOK && callflow.IsCall(c.Stored.Type()) {
		s.observe(callflow.Event{
			RoomID: c.Room.ID, EventID: c.Stored.ID(), Sender: c.Stored.Sender(), DeviceID: c.Stored.Device, Type: c.Stored.Type(),
			Content: c.Stored.Content(), Sent: time.UnixMilli(c.Stored.OriginTS()), Received: it.at,
		}, c.Room.NID, c.Stored.Pos, c.Head)
	}
	for _, ch := range c.Changes {
		if left(c, ch) {
			s.take(s.tracker.Leave(c.Room.ID, ch.Key.StateKey, it.at), nil)
		}
	}
}

// close writes what waits.
func (s *Service) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastWrites)
	defer cancel()
	s.drain()
	for {
		if s.writing == nil && len(s.facts) == 0 {
			return nil
		}
		s.write(ctx)
		select {
		case err := <-s.writing:
			s.wrote(err)
			if err != nil {
				// The events are in the store: the next start reads them again.
				s.Log.Error("records of calls could not be written before the end", "records", len(s.facts), "err", err)
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}
