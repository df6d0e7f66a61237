// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/signalling"
)

// Config of an Engine. The zero value of a field means its default.
type Config struct {
	Transport       *transport.Transport
	MaxRooms        int           // default 1000
	MaxParticipants int           // in one room; default 500
	MaxTracks       int           // published by one participant; default 32
	EmptyFor        time.Duration // a room that nobody joins lives this long; default 5 minutes
	DepartedFor     time.Duration // a room lives this long after the last one left; default 20 s
	JoinWithin      time.Duration // a participant without a connection is removed after this; default 60 s
	SilentFor       time.Duration // a participant whose connection is silent is removed after this; default 15 s
	ReturnAfter     time.Duration // all take a picture's first codec again so long after nobody needs the second; default 10 s
	SecondWithin    time.Duration // who waits for a second codec for longer is told that there is none; default 20 s
	PublishWithin   time.Duration // an announced track that is not offered is forgotten after this, one that stays silent is not shown; default 30 s
	AnswerWithin    time.Duration // a client that does not answer an offer is to join anew after this; default 30 s
	Watcher         Watcher       // may be nil
	// Journal hears what happens in rooms, for webhooks; may be nil. It is called with the room locked: it must not block nor call back.
	Journal func(Entry)
	Clock   signalling.Clock // of all of the above; default the machine's
	Log     *slog.Logger
}

// Watcher hears of everybody who comes into a room and goes out of it, in order: of the hidden too. It is called with the room locked, so
// it must neither block nor call back. A participant that is replaced by another of its identity goes before the other comes.
type Watcher interface {
	Came(room, identity, sid string)
	Went(room, identity, sid string, reason Reason)
}

// Errors that callers tell apart.
var (
	ErrNoRoom    = errors.New("sfu: no such room")
	ErrFull      = errors.New("sfu: full")
	ErrForbidden = errors.New("sfu: not permitted")
	ErrNoTrack   = errors.New("sfu: no such track")
	ErrGone      = errors.New("sfu: the participant is gone")
	ErrSDP       = errors.New("sfu: a description that cannot be answered")
)

// Engine holds the rooms.
type Engine struct {
	cfg    Config
	log    *slog.Logger
	mu     sync.Mutex
	rooms  map[string]*Room
	closed bool
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
	gone   past

	repairs repairs

	draining atomic.Bool
	wait     sync.WaitGroup
}

// New makes an engine on an open transport, which it does not close.
func New(cfg Config) *Engine {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	num(&cfg.MaxRooms, 1000)
	num(&cfg.MaxParticipants, 500)
	num(&cfg.MaxTracks, 32)
	def(&cfg.EmptyFor, 5*time.Minute)
	def(&cfg.DepartedFor, 20*time.Second)
	def(&cfg.JoinWithin, time.Minute)
	def(&cfg.SilentFor, 15*time.Second)
	def(&cfg.ReturnAfter, 10*time.Second)
	def(&cfg.SecondWithin, 20*time.Second)
	def(&cfg.PublishWithin, 30*time.Second)
	def(&cfg.AnswerWithin, 30*time.Second)
	if cfg.Clock == nil {
		cfg.Clock = signalling.SystemClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{cfg: cfg, log: cfg.Log, rooms: map[string]*Room{}, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), repairs: repairs{wake: make(chan struct{}, 1)}}
	cfg.Transport.OnAwake(e.hurry)
	e.wait.Go(func() { e.run(ctx) })
	e.wait.Go(func() { e.repairs.run(ctx, cfg.Transport) })
	return e
}

// Close removes everybody and waits for what runs.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	rooms := make([]*Room, 0, len(e.rooms))
	for _, r := range e.rooms {
		rooms = append(rooms, r)
	}
	e.mu.Unlock()
	for _, r := range rooms {
		r.Close(Shutdown)
	}
	e.cancel()
	e.wait.Wait()
}

// Room gives the room of that name; with create it is made if need be.
func (e *Engine) Room(name string, create bool) (*Room, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.rooms[name]; r != nil {
		return r, nil
	}
	switch {
	case !create:
		return nil, ErrNoRoom
	case e.closed:
		return nil, ErrGone
	case len(e.rooms) >= e.cfg.MaxRooms:
		return nil, ErrFull
	}
	r := &Room{
		engine: e, name: name, sid: newSID("RM_"), created: e.now(), emptySince: e.now(),
		members: map[string]*Participant{}, tracks: map[string]*Track{},
	}
	e.rooms[name] = r
	r.note(RoomStarted, nil, nil)
	return r, nil
}

// Remove takes the participant of that identity out of a room; false if there is none.
func (e *Engine) Remove(room, identity string) bool {
	e.mu.Lock()
	r := e.rooms[room]
	e.mu.Unlock()
	if r == nil {
		return false
	}
	p := r.Find(identity)
	if p == nil {
		return false
	}
	p.Leave(Removed)
	return true
}

// Rooms lists the rooms.
func (e *Engine) Rooms() []*Room {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*Room, 0, len(e.rooms))
	for _, r := range e.rooms {
		out = append(out, r)
	}
	return out
}

func (e *Engine) now() time.Time { return e.cfg.Clock.Now() }

// forget drops an empty room.
func (e *Engine) forget(r *Room) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rooms[r.name] == r {
		delete(e.rooms, r.name)
	}
}

// Periods of the engine's work.
const (
	period        = 100 * time.Millisecond // a look while there are pictures
	fallback      = 4 * period             // the same while packets come, which are a better clock: see Transport.OnAwake
	calmPeriod    = time.Second            // while there are only sounds, if no packet comes: see Transport.OnAwake
	sourcePeriod  = 100 * time.Millisecond // layers, key frames, transport-wide feedback
	speakerPeriod = 400 * time.Millisecond
	qualityPeriod = 5 * time.Second
	reportPeriod  = time.Second // sender and receiver reports, liveness; a look while nobody publishes
)

// agenda is what is due at one look.
type agenda struct{ sources, speakers, quality, report bool }

// run does what is due by time rather than by packet. While nobody publishes, only liveness is looked at.
func (e *Engine) run(ctx context.Context) {
	every := reportPeriod
	t := time.NewTicker(every)
	defer t.Stop()
	var now, nudged, sources, speakers, quality, report time.Time
	due := func(last *time.Time, every time.Duration) bool {
		if now.Sub(*last) < every-period/4 { // looks do not come to the millisecond
			return false
		}
		*last = now
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			now = time.Now()
		case <-e.wake:
			now = time.Now()
			nudged = now
		}
		a := agenda{due(&sources, sourcePeriod), due(&speakers, speakerPeriod), due(&quality, qualityPeriod), due(&report, reportPeriod)}
		next := reportPeriod
		e.cfg.Transport.Do(func(out *transport.Batch) {
			for _, r := range e.Rooms() {
				next = min(next, r.tick(a, out))
			}
		})
		e.cfg.Transport.Calm(next >= calmPeriod)
		if next == period && now.Sub(nudged) < 2*period {
			next = fallback
		}
		if next != every { // not else: a timer that is put off wakes the process all the same
			every = next
			t.Reset(every)
		}
	}
}

// hurry makes run look at once: there is something to do more often than before.
func (e *Engine) hurry() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// newSID makes the number of a room, participant or track.
func newSID(prefix string) string { return prefix + rand.Text()[:12] }

// past counts what legs and sources forwarded that are gone.
type past struct {
	mu  sync.Mutex
	sum Totals
}

func (p *past) keep(f func(*Totals)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.sum)
}

func (p *past) add(to *Totals) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to.PacketsIn += p.sum.PacketsIn
	to.BytesIn += p.sum.BytesIn
	to.PacketsOut += p.sum.PacketsOut
	to.BytesOut += p.sum.BytesOut
	to.PacketsAgain += p.sum.PacketsAgain
}
