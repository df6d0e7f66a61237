// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// KeeperConfig sets a Keeper's times. Zero fields take the defaults named beside them.
type KeeperConfig struct {
	TTL   time.Duration // 10 s: how long leases and sessions outlive a node that died
	Every time.Duration // 2 s: how often they are renewed; also about how soon an emptied Redis is filled again
}

// Keeper renews the leases and sessions of one node for as long as Run runs. What it was given stays its own while the store is
// away, so calls in progress do not depend on the store. It is safe for concurrent use.
type Keeper struct {
	store Store
	node  Node
	cfg   KeeperConfig
	log   *slog.Logger
	lost  func(Lease)

	// turn is held through each dealing with the store, so that a renewal cannot revive what was just released. A store that does
	// not answer holds it for one timeout, then away is set and nobody but Run asks the store.
	turn sync.Mutex

	mu       sync.Mutex
	leases   map[string]Lease
	sessions map[string]Session
	away     bool
}

// NewKeeper makes a Keeper for a node. lost is called from Run, without any lock, when another node has taken a lease.
func NewKeeper(store Store, node Node, cfg KeeperConfig, log *slog.Logger, lost func(Lease)) *Keeper {
	if cfg.TTL <= 0 {
		cfg.TTL = 10 * time.Second
	}
	if cfg.Every <= 0 {
		cfg.Every = 2 * time.Second
	}
	return &Keeper{
		store: store, node: node, cfg: cfg, log: log, lost: lost,
		leases: make(map[string]Lease), sessions: make(map[string]Session),
	}
}

// Hold takes key for this node, or says which node holds it: compare Lease.Node.ID. While the store is away, this node gets a
// provisional lease (Token 0), which Run makes good later, or reports as lost. The error is ctx's only.
func (k *Keeper) Hold(ctx context.Context, key string) (Lease, error) {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	l, held := k.leases[key]
	away := k.away
	k.mu.Unlock()
	if held {
		return l, nil
	}
	l = Lease{Key: key, Node: k.node}
	if !away {
		got, err := k.store.Acquire(ctx, key, k.node, k.cfg.TTL)
		switch {
		case ctx.Err() != nil:
			return Lease{}, ctx.Err()
		case err != nil:
			k.noteAway(err)
		case got.Node.ID != k.node.ID:
			return got, nil
		default:
			l = got
		}
	}
	k.mu.Lock()
	k.leases[key] = l
	k.mu.Unlock()
	return l, nil
}

// Release gives key up. When the store is away, the lease runs out by itself.
func (k *Keeper) Release(ctx context.Context, key string) {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	l, held := k.leases[key]
	delete(k.leases, key)
	away := k.away
	k.mu.Unlock()
	if held && !away {
		if err := k.store.Release(ctx, l); err != nil && ctx.Err() == nil {
			k.noteAway(err)
		}
	}
}

// Put lists a session of this node from now on until Drop; when the store is away, from its return on.
func (k *Keeper) Put(ctx context.Context, s Session) {
	s.Node = k.node.ID
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	k.sessions[s.ID] = s
	away := k.away
	k.mu.Unlock()
	if !away {
		if err := k.store.Put(ctx, k.cfg.TTL, s); err != nil && ctx.Err() == nil {
			k.noteAway(err)
		}
	}
}

// Drop ends a session. When the store is away, it runs out by itself.
func (k *Keeper) Drop(ctx context.Context, id string) {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	delete(k.sessions, id)
	away := k.away
	k.mu.Unlock()
	if !away {
		if err := k.store.Drop(ctx, id); err != nil && ctx.Err() == nil {
			k.noteAway(err)
		}
	}
}

// Run renews until ctx ends, then gives everything up.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(k.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.leave()
			return
		case <-tick.C:
		}
		if err := k.renew(ctx); err == nil {
			k.noteBack()
		} else if ctx.Err() == nil {
			k.noteAway(err)
		}
	}
}

// renew keeps each lease and session once. It stops at the first sign that the store is away.
func (k *Keeper) renew(ctx context.Context) error {
	k.mu.Lock()
	keys := slices.Collect(maps.Keys(k.leases))
	ids := slices.Collect(maps.Keys(k.sessions))
	k.mu.Unlock()
	for _, key := range keys {
		if err := k.renewLease(ctx, key); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(ids, 500) {
		if err := k.renewSessions(ctx, batch); err != nil {
			return err
		}
	}
	if len(keys)+len(ids) == 0 {
		// Nothing to renew, but whether the store answers is worth knowing.
		_, _, err := k.store.Holder(ctx, "")
		return err
	}
	return nil
}

func (k *Keeper) renewLease(ctx context.Context, key string) error {
	k.turn.Lock()
	k.mu.Lock()
	l, held := k.leases[key]
	k.mu.Unlock()
	if !held {
		k.turn.Unlock()
		return nil
	}
	now, err := k.store.Renew(ctx, l, k.cfg.TTL)
	k.mu.Lock()
	if errors.Is(err, ErrLost) {
		delete(k.leases, key)
	} else if err == nil {
		k.leases[key] = now
	}
	k.mu.Unlock()
	k.turn.Unlock()
	if errors.Is(err, ErrLost) {
		k.log.Warn("another node has taken over", "part", "session", "key", key, "node", now.Node.ID)
		k.lost(l)
		return nil
	}
	return err
}

func (k *Keeper) renewSessions(ctx context.Context, ids []string) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	batch := make([]Session, 0, len(ids))
	k.mu.Lock()
	for _, id := range ids {
		if s, live := k.sessions[id]; live {
			batch = append(batch, s)
		}
	}
	k.mu.Unlock()
	return k.store.Put(ctx, k.cfg.TTL, batch...)
}

// leave gives everything up, if the store answers in a moment.
func (k *Keeper) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	leases, ids, away := k.leases, slices.Collect(maps.Keys(k.sessions)), k.away
	k.leases, k.sessions = make(map[string]Lease), make(map[string]Session)
	k.mu.Unlock()
	if away || k.store.Drop(ctx, ids...) != nil {
		return
	}
	for _, l := range leases {
		if k.store.Release(ctx, l) != nil {
			return
		}
	}
}

func (k *Keeper) noteAway(err error) {
	k.mu.Lock()
	first := !k.away
	k.away = true
	k.mu.Unlock()
	if first {
		k.log.Warn("the session store is away; this node goes on by itself", "part", "session", "err", err)
	}
}

func (k *Keeper) noteBack() {
	k.mu.Lock()
	back := k.away
	k.away = false
	k.mu.Unlock()
	if back {
		k.log.Info("the session store is back", "part", "session")
	}
}
