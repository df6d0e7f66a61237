// SPDX-License-Identifier: Apache-2.0

package sender

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Several nodes on one database: each other server belongs to one of them, which alone sends to it. The first that has something for it
// takes it, and keeps it until it is gone; then whoever notices first takes over all that it had.
//
//	node A: queues for x ─> x is nobody's: taken ─> sends
//	node B: queues for x ─> x is A's: A hears of it with the commit (NoteSending) ─> A sends
//	A killed ─> A's beat is missing for leaseTTL ─> B's next beat takes what was A's ─> B reads the outbox and goes on with it
//
// A node that could not beat in time sends nothing more, and what it is sending is cut off, before another may begin. These times are the
// database's and this machine's own, whatever clock the server is given.

const leaseTTL = 6 * time.Second

// errElsewhere says that another node sends to this server, or that this one may not at the moment.
var errElsewhere = errors.New("another node sends to this server")

// leases is what this node knows of whose the other servers are.
type leases struct {
	store *storage.Store
	node  string
	ttl   time.Duration
	log   *slog.Logger

	mu    sync.Mutex
	mine  map[string]bool     // no entry: not known, perhaps nobody's
	away  map[string]struct{} // servers of other nodes that do not answer them
	until time.Time           // may send before this
	epoch int                 // counts how often mine began anew
	life  context.Context     // ends when until has passed; nil then
	end   context.CancelFunc
	timer *time.Timer
}

func newLeases(store *storage.Store, ttl time.Duration, log *slog.Logger) *leases {
	if ttl <= 0 {
		ttl = leaseTTL
	}
	return &leases{store: store, node: rand.Text(), ttl: ttl, log: log, mine: map[string]bool{}, away: map[string]struct{}{}}
}

// run beats until ctx ends. look is called, with what this node has now, when any server may have become its own.
func (l *leases) run(ctx context.Context, look func()) {
	tick := time.NewTicker(l.ttl / 4)
	defer tick.Stop()
	for {
		again, err := l.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.log.Warn("other nodes could not be told that this one sends to other servers", "err", err)
		case again:
			look()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// beat says that this node lives, and whether it may have got something to send.
func (l *leases) beat(ctx context.Context) (again bool, err error) {
	wait, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	began := time.Now()
	var b storage.Beat
	if err := l.store.Write(wait, func(tx *storage.Tx) (err error) {
		b, err = tx.BeatSending(l.node, l.ttl)
		return err
	}); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	again = b.Lapsed || b.Gone || l.life == nil
	if b.Lapsed || b.Gone {
		l.epoch++
		clear(l.mine)
		clear(l.away)
		for _, x := range b.Leases {
			l.mine[x.Destination] = x.Node == l.node
			if x.Away && x.Node != l.node {
				l.away[x.Destination] = struct{}{}
			}
		}
		if b.Gone {
			l.log.Info("a node is gone; what it sent to other servers is sent by this one now")
		}
	}
	l.until = began.Add(l.ttl - l.ttl/6) // the database counts from later on; the rest is for cutting off
	left := time.Until(l.until)
	if left <= 0 {
		return false, errors.New("the database took too long")
	}
	if l.life == nil {
		l.life, l.end = context.WithCancel(context.Background())
		l.timer = time.AfterFunc(left, l.lapse)
	} else {
		l.timer.Reset(left)
	}
	return again, nil
}

// lapse stops what is under way when this node could not beat in time.
func (l *leases) lapse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life == nil || time.Now().Before(l.until) {
		return // a beat has come since
	}
	l.end()
	l.life = nil
	l.log.Warn("the database does not answer in time; another node may send to other servers now")
}

// leave gives everything up: another node takes over with its next beat.
func (l *leases) leave() {
	l.mu.Lock()
	if l.life != nil {
		l.timer.Stop()
		l.end()
		l.life, l.until = nil, time.Time{}
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), l.ttl)
	defer cancel()
	if err := l.store.Write(ctx, func(tx *storage.Tx) error { return tx.LeaveSending(l.node) }); err != nil {
		l.log.Debug("other nodes could not be told that this one is gone", "err", err)
	}
}

// hold takes a server for this node unless it is another's, and gives a context for sending to it: it ends with ctx and when this node may
// not send any more. The error is errElsewhere, or the database's. A nil *leases is that of a node that is alone.
func (l *leases) hold(ctx context.Context, server string) (context.Context, context.CancelFunc, error) {
	if l == nil {
		return ctx, func() {}, nil
	}
	l.mu.Lock()
	mine, known := l.mine[server]
	life, epoch := l.life, l.epoch
	l.mu.Unlock()
	if life == nil {
		return nil, nil, errElsewhere // after the next beat everything is looked at
	}
	if !known {
		var owner string
		if err := l.store.Write(ctx, func(tx *storage.Tx) (err error) {
			owner, err = tx.ClaimSending(server, l.node)
			return err
		}); err != nil {
			return nil, nil, err
		}
		mine = owner == l.node
		l.mu.Lock()
		if l.epoch == epoch {
			l.mine[server] = mine
		} else {
			mine = false // whose it is has been read anew meanwhile, and everything is looked at
		}
		l.mu.Unlock()
	}
	if !mine {
		return nil, nil, errElsewhere
	}
	both, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(life, cancel)
	return both, func() { stop(); cancel() }, nil
}

// others says that a server is known to be another node's.
func (l *leases) others(server string) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, known := l.mine[server]
	return known && !mine
}

// mark tells the other nodes that a server of this node's does not answer, or does again.
func (l *leases) mark(ctx context.Context, server string, away bool) {
	if l == nil {
		return
	}
	if err := l.store.Write(ctx, func(tx *storage.Tx) error { return tx.MarkSending(server, l.node, away) }); err != nil && ctx.Err() == nil {
		l.log.Debug("other nodes could not be told of another server", "server", server, "err", err)
	}
}

// waited says, once, that another node waits for a server.
func (l *leases) waited(server string) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.away[server]
	delete(l.away, server)
	return ok
}

// hear takes in what another node has announced and gives the servers that this one has to look at, those that are back among them apart;
// all: it was too much to say.
func (l *leases) hear(a storage.Announcement) (queued, back []string, all bool) {
	var x storage.Sending
	if a.Kind == storage.NoteLost || a.Data == nil || json.Unmarshal(a.Data, &x) != nil {
		return nil, nil, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, server := range x.Queued {
		if l.mine[server] {
			queued = append(queued, server)
		}
	}
	for _, server := range x.Away {
		if !l.mine[server] {
			l.away[server] = struct{}{}
		}
	}
	for _, server := range x.Back {
		delete(l.away, server)
		if l.mine[server] {
			back = append(back, server)
		}
	}
	return queued, back, false
}
