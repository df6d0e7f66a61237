// SPDX-License-Identifier: Apache-2.0

// Package sender carries what waits in the outbox to other servers (server-server API, "Transactions").
//
// The outbox is rows in the database, written in the transaction of the event itself, so nothing that was acknowledged is forgotten.
// Each destination has a lane, which sends one transaction after the other and deletes their rows once they were answered:
//
//	commit -> Wake -> lane: up to 50 PDUs and 100 EDUs -> PUT /send/{txn} -> delete rows -> next
//	                    failed -> wait 1 s, 2 s, … 1 h, or until the server shows life -> the same again
//
// Calls do not wait behind a backlog: rows that are urgent go first. The id of a transaction is a hash of what is in it, so one that
// is sent again because its answer was lost does nothing twice. What is only of the moment, such as typing, is kept in memory
// alone, the newest of each kind, and forgotten when the other server is away. Of several nodes one sends to a server: see leases.go.
package sender

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	firstWait   = time.Second
	longestWait = time.Hour
	atOnce      = 64               // transactions under way, to all servers together
	sendTime    = 60 * time.Second // for one transaction
	maxMoments  = 200              // EDUs of the moment that a lane holds
	maxWaiting  = 100_000          // rows that wait for one server; what is older is dropped when it stays away
)

// Asker sends a signed request to another server; *federation.Client is one.
type Asker interface {
	Do(ctx context.Context, a federation.Ask) ([]byte, error)
}

// Deps are what the sender needs.
type Deps struct {
	Store   *storage.Store
	Client  Asker
	Server  string // the name of this server
	Clock   signalling.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil

	LeaseTTL time.Duration // of several nodes, how long what one sends to waits for it when it is gone; 0: 6 s

	// Returned hears of a server that was away and is there again: what was of the moment it has missed. It must not block; may be nil.
	Returned func(server string)
}

// Sender sends to other servers. Run has to work for it.
type Sender struct {
	Deps
	slots   chan struct{}
	working sync.WaitGroup
	leases  *leases       // nil on a node that is alone
	look    chan struct{} // poked when the outbox may hold something for any server

	mu    sync.Mutex
	ctx   context.Context // of Run; nil before
	lanes map[string]*lane

	sent   *prometheus.CounterVec
	behind prometheus.Gauge
}

// New makes a Sender.
func New(d Deps) *Sender {
	s := &Sender{Deps: d, slots: make(chan struct{}, atOnce), look: make(chan struct{}, 1), lanes: map[string]*lane{}}
	if d.Store.Postgres() {
		s.leases = newLeases(d.Store, d.LeaseTTL, d.Log)
	}
	s.sent = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trunkboard_federation_transactions_total", Help: "Transactions to other servers by result: sent, failed, refused."}, []string{"result"})
	s.behind = prometheus.NewGauge(prometheus.GaugeOpts{Name: "trunkboard_federation_waiting_servers", Help: "Other servers that do not answer and that something waits for."})
	if d.Metrics != nil {
		d.Metrics.MustRegister(s.sent, s.behind)
	}
	return s
}

// Run sends what the outbox holds, and what comes, until ctx ends; then it waits for what is under way.
func (s *Sender) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	early := slices.Collect(maps.Values(s.lanes))
	s.mu.Unlock()
	var beating sync.WaitGroup
	if s.leases != nil {
		beating.Go(func() { s.leases.run(ctx, s.lookAround) })
	} else {
		s.lookAround()
	}
	for _, l := range early {
		l.wake()
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.look:
			list, err := s.Store.OutboxDestinations(ctx)
			if err != nil && ctx.Err() == nil {
				s.Log.Warn("the outbox could not be read", "err", err)
				s.pause(ctx, firstWait)
				s.lookAround()
			}
			for _, server := range list {
				s.Wake(server)
			}
		}
	}
	s.mu.Lock()
	s.ctx = nil // no lane starts any more
	for _, l := range s.lanes {
		l.mu.Lock()
		if l.wait != nil {
			l.wait()
			l.wait = nil
		}
		l.mu.Unlock()
	}
	s.mu.Unlock()
	s.working.Wait()
	beating.Wait()
	if s.leases != nil {
		s.leases.leave()
	}
	return nil
}

// lookAround has Run wake every server that the outbox holds something for.
func (s *Sender) lookAround() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// spawn runs f on a goroutine that Run waits for; not before Run has begun, nor when it ends.
func (s *Sender) spawn(f func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx := s.ctx; ctx != nil {
		s.working.Go(func() { f(ctx) })
	}
}

// pause waits, and says false when ctx ended first.
func (s *Sender) pause(ctx context.Context, d time.Duration) bool {
	due := make(chan struct{})
	stop := s.Clock.AfterFunc(d, func() { close(due) })
	defer stop()
	select {
	case <-due:
		return true
	case <-ctx.Done():
		return false
	}
}

// Observe hears of commits: events that were queued for other servers are sent.
func (s *Sender) Observe(_ int64, notes []storage.Note) {
	for _, n := range notes {
		if c, ok := n.Value.(*rooms.Committed); ok && n.Kind == storage.NoteEvent {
			for _, server := range c.Outbox {
				s.Wake(server)
			}
		}
	}
}

// Wake says that the outbox holds something for a server. It returns at once. When the server is another node's, that node has heard of
// it with the commit.
func (s *Sender) Wake(server string) {
	if !s.leases.others(server) {
		s.lane(server).wake()
	}
}

// Hear takes in what another node has announced of other servers (storage.NoteSending, storage.NoteLost). It returns at once.
func (s *Sender) Hear(a storage.Announcement) {
	if s.leases == nil {
		return
	}
	queued, back, all := s.leases.hear(a)
	if all {
		s.lookAround()
	}
	for _, server := range queued {
		s.lane(server).wake()
	}
	for _, server := range back {
		s.alive(server)
	}
}

// Alive says that a server showed life: what waits for it is tried at once, by the node that sends to it.
func (s *Sender) Alive(server string) {
	s.alive(server)
	if s.leases.waited(server) {
		s.spawn(func(ctx context.Context) {
			err := s.Store.Write(ctx, func(tx *storage.Tx) error {
				tx.AnnounceSending(storage.Sending{Back: []string{server}})
				return nil
			})
			if err != nil && ctx.Err() == nil {
				s.Log.Debug("other nodes could not be told of another server", "server", server, "err", err)
			}
		})
	}
}

func (s *Sender) alive(server string) {
	s.mu.Lock()
	l := s.lanes[server]
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	waiting := l.wait != nil
	if waiting {
		l.wait()
		l.wait, l.failures = nil, 0
		s.behind.Dec()
	}
	l.mu.Unlock()
	if waiting {
		l.wake()
		if s.leases != nil {
			s.spawn(func(ctx context.Context) { s.leases.mark(ctx, server, false) })
		}
		s.returned(server)
	}
}

func (s *Sender) returned(server string) {
	if s.Returned != nil {
		s.Returned(server)
	}
}

// Moment sends an EDU that is only of the moment. A newer one with the same key takes the place of one that was not sent yet; when the
// server is away, the lane full, or the server another node's, it is dropped: every node hears of what is of the moment, and the one
// whose server it is sends it.
func (s *Sender) Moment(server, key string, edu json.RawMessage) {
	if s.leases.others(server) {
		return
	}
	l := s.lane(server)
	l.mu.Lock()
	if l.wait != nil {
		l.mu.Unlock()
		return
	}
	if _, ok := l.moments[key]; !ok {
		if len(l.order) >= maxMoments {
			l.mu.Unlock()
			return
		}
		l.order = append(l.order, key)
	}
	if l.moments == nil {
		l.moments = map[string]json.RawMessage{}
	}
	l.moments[key] = edu
	l.mu.Unlock()
	l.wake()
}

func (s *Sender) lane(server string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[server]
	if l == nil {
		l = &lane{s: s, server: server}
		s.lanes[server] = l
	}
	return l
}
