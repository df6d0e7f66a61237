// SPDX-License-Identifier: Apache-2.0

package presence

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trunkboard/trunkboard/signalling"
)

const (
	redisTimeout = 2 * time.Second // dial, read and write: a Redis that takes longer counts as away
	redisBatch   = 500             // users in one round trip
)

// RedisConfig says where the nodes of one Trunkboard meet. Zero fields take the defaults named beside them.
type RedisConfig struct {
	URL     string        // redis://, rediss:// or unix://, as go-redis reads it
	Prefix  string        // "trunkboard:presence:", of every key
	Tick    time.Duration // 500 ms: how often a node looks at what the others say
	NodeTTL time.Duration // 15 s: how long a silent node's word counts
}

// Redis is the Store of one node among many. Keys, each beginning with Prefix:
//
//	nodes         set of node names
//	alive:<node>  expires after NodeTTL, renewed at each tick
//	data:<node>   hash: user -> share as JSON
//	log:<node>    sorted set: user, scored by the node's own count of changes
type Redis struct {
	*Mem
	client *redis.Client
	cfg    RedisConfig
	node   string
	log    *slog.Logger
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex        // taken after Mem's lock, never before it
	dirty map[string]*share // what Redis has not been told yet; nil = forgotten
	kick  chan struct{}

	// The rest belongs to the goroutine of run.
	count int64            // of changes told
	read  map[string]int64 // by peer: score of the last change read
	seen  map[string]time.Time
	away  bool
}

var _ Store = (*Redis)(nil)

// NewRedis makes a Store and starts to connect; it does not wait for Redis, and reconnects by itself for ever. The error is about
// the URL.
func NewRedis(cfg Config, rc RedisConfig, clock signalling.Clock, log *slog.Logger) (*Redis, error) {
	opt, err := redis.ParseURL(rc.URL)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = redisTimeout, redisTimeout, redisTimeout
	opt.Protocol = 2 // nothing of RESP3 is used
	opt.MaxRetries = -1
	opt.DisableIdentity = true
	opt.DialerRetries = 1
	redis.SetLogger(quiet{})
	if rc.Prefix == "" {
		rc.Prefix = "trunkboard:presence:"
	}
	if rc.Tick <= 0 {
		rc.Tick = 500 * time.Millisecond
	}
	if rc.NodeTTL <= 0 {
		rc.NodeTTL = 15 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Redis{
		Mem: NewMem(cfg, clock), client: redis.NewClient(opt), cfg: rc, node: rand.Text(), log: log, cancel: cancel,
		dirty: make(map[string]*share), kick: make(chan struct{}, 1),
		read: make(map[string]int64), seen: make(map[string]time.Time),
	}
	r.Mem.tell = r.tell
	r.done.Go(func() { r.run(ctx) })
	return r, nil
}

// quiet keeps go-redis from writing to standard error: what it would say there reaches us as errors.
type quiet struct{}

// Printf is for go-redis.
func (quiet) Printf(context.Context, string, ...any) {}

// Ping says whether Redis answers.
func (r *Redis) Ping(ctx context.Context) error { return r.client.Ping(ctx).Err() }

// Close implements Store. Other nodes keep this node's word for NodeTTL, in which its users may turn up elsewhere.
func (r *Redis) Close() error {
	r.cancel()
	r.done.Wait()
	err := r.Mem.Close()
	if e := r.client.Close(); !errors.Is(e, redis.ErrClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// tell notes a change of this node's share of a user. Several become one; there are never more than users.
func (r *Redis) tell(id string, s *share) {
	r.mu.Lock()
	r.dirty[id] = s
	r.mu.Unlock()
	poke(r.kick)
}

func (r *Redis) run(ctx context.Context) {
	tick := time.NewTicker(r.cfg.Tick)
	defer tick.Stop()
	do := r.exchange
	for {
		err := do(ctx)
		switch {
		case ctx.Err() != nil:
			r.leave()
			return
		case err != nil && !r.away:
			r.away = true
			r.log.Warn("redis is away; presence of other nodes stands still", "part", "presence", "err", err)
		case err == nil && r.away:
			r.away = false
			r.log.Info("redis is back", "part", "presence")
		}
		kick := r.kick
		if r.away {
			kick = nil // the next tick tries again
		}
		select {
		case <-ctx.Done():
			r.leave()
			return
		case <-tick.C:
			do = r.exchange
		case <-kick:
			do = r.push
		}
	}
}

// leave removes this node's keys, if Redis answers in a moment.
func (r *Redis) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if r.away {
		return
	}
	_, _ = r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.SRem(ctx, r.key("nodes"), r.node)
		p.Del(ctx, r.key("alive:"+r.node), r.key("data:"+r.node), r.key("log:"+r.node))
		return nil
	})
}

// dataTTL outlives alive, so that what a node said is there as long as the node seems to be.
func (r *Redis) dataTTL() time.Duration { return 2 * r.cfg.NodeTTL }

func (r *Redis) key(name string) string { return r.cfg.Prefix + name }

// exchange tells Redis what is new here and reads what is new elsewhere.
func (r *Redis) exchange(ctx context.Context) error {
	var before *redis.StatusCmd
	_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.SAdd(ctx, r.key("nodes"), r.node)
		before = p.SetArgs(ctx, r.key("alive:"+r.node), 1, redis.SetArgs{Get: true, TTL: r.cfg.NodeTTL})
		p.PExpire(ctx, r.key("data:"+r.node), r.dataTTL())
		p.PExpire(ctx, r.key("log:"+r.node), r.dataTTL())
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	if errors.Is(before.Err(), redis.Nil) {
		// New, or Redis has lost what it was told.
		all := r.shares()
		r.mu.Lock()
		maps.Copy(all, r.dirty)
		r.dirty = all
		r.mu.Unlock()
	}
	if err := r.push(ctx); err != nil {
		return err
	}
	return r.pull(ctx)
}

// push tells Redis what is dirty; what it could not tell stays dirty.
func (r *Redis) push(ctx context.Context) error {
	for {
		batch := make(map[string]*share)
		r.mu.Lock()
		for id, s := range r.dirty {
			if len(batch) == redisBatch {
				break
			}
			batch[id] = s
			delete(r.dirty, id)
		}
		r.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		data, log := r.key("data:"+r.node), r.key("log:"+r.node)
		_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for id, s := range batch {
				if s == nil {
					p.HDel(ctx, data, id)
					p.ZRem(ctx, log, id)
					continue
				}
				raw, err := json.Marshal(s)
				if err != nil {
					return err
				}
				r.count++
				p.HSet(ctx, data, id, raw)
				p.ZAdd(ctx, log, redis.Z{Score: float64(r.count), Member: id})
			}
			p.PExpire(ctx, data, r.dataTTL())
			p.PExpire(ctx, log, r.dataTTL())
			return nil
		})
		if err != nil {
			r.mu.Lock()
			maps.Copy(batch, r.dirty) // what changed meanwhile is newer
			r.dirty = batch
			r.mu.Unlock()
			return err
		}
	}
}

// pull reads what the other nodes say.
func (r *Redis) pull(ctx context.Context) error {
	nodes, err := r.client.SMembers(ctx, r.key("nodes")).Result()
	if err != nil {
		return err
	}
	now := time.Now()
	if r.away {
		// Nobody could be heard: all get their time to speak again.
		for node := range r.seen {
			r.seen[node] = now
		}
	}
	for _, node := range nodes {
		if node == r.node {
			continue
		}
		alive, err := r.client.Exists(ctx, r.key("alive:"+node)).Result()
		if err != nil {
			return err
		}
		if alive == 0 {
			if _, known := r.seen[node]; !known {
				r.client.SRem(ctx, r.key("nodes"), node)
			}
			continue
		}
		r.seen[node] = now
		if err := r.readPeer(ctx, node); err != nil {
			return err
		}
	}
	for node, last := range r.seen {
		if now.Sub(last) >= r.cfg.NodeTTL {
			delete(r.seen, node)
			delete(r.read, node)
			r.dropPeer(node)
		}
	}
	return nil
}

func (r *Redis) readPeer(ctx context.Context, node string) error {
	for {
		news, err := r.client.ZRangeByScoreWithScores(ctx, r.key("log:"+node), &redis.ZRangeBy{
			Min: "(" + strconv.FormatInt(r.read[node], 10), Max: "+inf", Count: redisBatch,
		}).Result()
		if err != nil || len(news) == 0 {
			return err
		}
		users := make([]string, len(news))
		for i, z := range news {
			users[i], _ = z.Member.(string)
		}
		said, err := r.client.HMGet(ctx, r.key("data:"+node), users...).Result()
		if err != nil {
			return err
		}
		for i, v := range said {
			var s share
			if raw, ok := v.(string); ok && json.Unmarshal([]byte(raw), &s) == nil {
				r.setPeer(node, users[i], s)
			}
		}
		r.read[node] = int64(news[len(news)-1].Score)
		if len(news) < redisBatch {
			return nil
		}
	}
}
