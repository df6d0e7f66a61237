// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	redisTimeout  = 2 * time.Second         // dial, read and write: a Redis that takes longer counts as away
	redisPing     = 5 * time.Second         // silence after which the subscribing connection is tried
	redisBackoff  = 50 * time.Millisecond   // first wait after a failure, doubled up to …
	redisSlowest  = time.Second             // … this, so that hints flow again within a second of Redis' return
	redisOutgoing = 4096                    // hints waiting for Redis
	redisBatch    = 256                     // hints sent in one round trip
	redisMaxBytes = redisOutgoing * 4 << 10 // bytes waiting for Redis: 16 MiB
	originSize    = 8
)

// RedisConfig says where the nodes of one Trunkboard meet.
type RedisConfig struct {
	URL    string // redis://, rediss:// or unix://, as go-redis reads it
	Prefix string // of every channel; default "trunkboard:bus:"
	Queue  int    // messages held for each Subscription; default DefaultQueue
}

// Redis is a Bus of many nodes over Redis Pub/Sub.
//
// On the wire a hint is a PUBLISH to prefix+topic of
//
//	| origin: 8 random bytes of the sending Bus | payload |
//
// A node delivers its own hints itself and drops them when they come back. A sender that had to drop hints says so with a PUBLISH
// to prefix+"*", a name that no topic can have.
type Redis struct {
	client *redis.Client
	prefix string
	origin string
	log    *slog.Logger
	hub    *hub
	cancel context.CancelFunc
	done   sync.WaitGroup

	// mu is taken after the hub's lock, never before it.
	mu     sync.Mutex
	wanted map[string]*want // by pattern
	down   bool             // the last attempt to listen failed
	kick   chan struct{}    // wanted has changed

	out    sync.Mutex
	queue  []frame
	bytes  int
	lost   bool          // hints were dropped since the last one sent
	filled chan struct{} // queue has something
}

type frame struct{ channel, data string }

// want is a pattern that this node listens to.
type want struct {
	asked bool          // on the present connection
	sure  bool          // confirmed on the present connection
	ready chan struct{} // closed when confirmed, or when the connection is lost
}

var _ Bus = (*Redis)(nil)

// NewRedis makes a Bus and starts to connect; it does not wait for Redis, and reconnects by itself for ever. The error is about
// the URL.
func NewRedis(cfg RedisConfig, log *slog.Logger) (*Redis, error) {
	opt, err := redis.ParseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = redisTimeout, redisTimeout, redisTimeout
	opt.Protocol = 2    // nothing of RESP3 is used
	opt.MaxRetries = -1 // a retry would only delay the hints behind it
	opt.DisableIdentity = true
	opt.DialerRetries = 1
	redis.SetLogger(quiet{})
	if cfg.Prefix == "" {
		cfg.Prefix = "trunkboard:bus:"
	}
	var origin [originSize]byte
	rand.Read(origin[:])
	ctx, cancel := context.WithCancel(context.Background())
	r := &Redis{
		client: redis.NewClient(opt), prefix: cfg.Prefix, origin: string(origin[:]), log: log, cancel: cancel,
		wanted: make(map[string]*want), kick: make(chan struct{}, 1), filled: make(chan struct{}, 1),
	}
	r.hub = newHub(cfg.Queue, r.want)
	r.done.Go(func() { r.listen(ctx) })
	r.done.Go(func() { r.send(ctx) })
	return r, nil
}

// quiet keeps go-redis from writing to standard error: what it would say there reaches us as errors.
type quiet struct{}

// Printf is for go-redis.
func (quiet) Printf(context.Context, string, ...any) {}

// Publish implements Bus.
func (r *Redis) Publish(topic string, payload []byte) error {
	if err := checkPublish(topic, payload); err != nil {
		return err
	}
	if err := r.hub.publish(topic, payload); err != nil {
		return err
	}
	f := frame{r.prefix + topic, r.origin + string(payload)}
	r.out.Lock()
	r.queue = append(r.queue, f)
	r.bytes += len(f.data)
	for len(r.queue) > redisOutgoing || r.bytes > redisMaxBytes {
		r.bytes -= len(r.queue[0].data)
		r.queue[0] = frame{}
		r.queue = r.queue[1:]
		r.lost = true
	}
	r.out.Unlock()
	poke(r.filled)
	return nil
}

// Subscribe implements Bus. While Redis is away it returns at once; the subscription hears this node, and after Redis' return it
// is told that it missed something.
func (r *Redis) Subscribe(ctx context.Context, topics ...string) (*Subscription, error) {
	s, err := r.hub.add(topics)
	if err != nil {
		return nil, err
	}
	for _, p := range s.patterns {
		r.mu.Lock()
		w := r.wanted[p]
		wait := w != nil && !w.sure && !r.down
		r.mu.Unlock()
		if !wait {
			continue
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			s.Close()
			return nil, ctx.Err()
		}
	}
	return s, nil
}

// Ping says whether Redis answers.
func (r *Redis) Ping(ctx context.Context) error { return r.client.Ping(ctx).Err() }

// Close implements Bus. Hints that have not left yet are dropped.
func (r *Redis) Close() error {
	r.hub.close()
	r.cancel()
	r.done.Wait()
	r.mu.Lock()
	for _, w := range r.wanted {
		if w != nil && !w.sure { // nil: Redis was still to be told that nobody listens any more
			w.sure = true
			close(w.ready)
		}
	}
	r.mu.Unlock()
	if err := r.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return err
	}
	return nil
}

// want is called by the hub, under its lock, when a pattern is first or no longer wanted.
func (r *Redis) want(pattern string, wanted bool) {
	r.mu.Lock()
	if wanted {
		r.wanted[pattern] = &want{ready: make(chan struct{})}
	} else if w := r.wanted[pattern]; w != nil {
		// The entry goes when Redis has been told; see ask.
		r.wanted[pattern] = nil
		if !w.asked {
			delete(r.wanted, pattern)
		}
		if !w.sure {
			close(w.ready)
		}
	}
	r.mu.Unlock()
	poke(r.kick)
}

// listen keeps one subscribing connection to Redis open until ctx ends.
func (r *Redis) listen(ctx context.Context) {
	wait := redisBackoff
	for ctx.Err() == nil {
		ps := r.client.Subscribe(ctx)
		unhook := context.AfterFunc(ctx, func() { ps.Close() }) // a waiting receive does not look at ctx
		up, err := r.serve(ctx, ps)
		unhook()
		ps.Close()
		if ctx.Err() != nil {
			return
		}
		if up {
			wait = redisBackoff
		}
		r.mu.Lock()
		first := !r.down
		r.down = true
		for p, w := range r.wanted {
			if w == nil {
				delete(r.wanted, p)
				continue
			}
			if !w.sure {
				close(w.ready)
			}
			r.wanted[p] = &want{ready: make(chan struct{})}
		}
		r.mu.Unlock()
		if first {
			r.log.Warn("redis is away; hints reach this node only", "part", "bus", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, redisSlowest)
	}
}

// serve receives from one connection until it fails; up says whether Redis answered at all.
func (r *Redis) serve(ctx context.Context, ps *redis.PubSub) (up bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer stop()
	lost := r.prefix + "*"
	if err := ps.Subscribe(ctx, lost); err != nil {
		return false, err
	}
	silent := false
	for {
		m, err := ps.ReceiveTimeout(ctx, redisPing)
		if err != nil {
			var slow net.Error
			if silent || !up || !errors.As(err, &slow) || !slow.Timeout() {
				return up, err
			}
			silent = true
			if err := ps.Ping(ctx); err != nil {
				return up, err
			}
			continue
		}
		silent = false
		switch m := m.(type) {
		case *redis.Subscription:
			if !up && m.Channel == lost {
				up = true
				poke(r.kick)
				asking.Go(func() { r.ask(ctx, ps) })
				r.confirm("")
			} else if strings.HasSuffix(m.Kind, "subscribe") && !strings.Contains(m.Kind, "un") {
				r.confirm(r.pattern(m.Channel, m.Kind == "psubscribe"))
			}
		case *redis.Message:
			r.receive(m, lost)
		}
	}
}

// ask tells Redis what is wanted and what is not any more, whenever that changes. Being the only one who does, it keeps the order.
func (r *Redis) ask(ctx context.Context, ps *redis.PubSub) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		}
		var start, stop [2][]string // exact, prefix
		r.mu.Lock()
		for p, w := range r.wanted {
			channel, glob := r.channel(p)
			switch {
			case w == nil:
				delete(r.wanted, p)
				stop[glob] = append(stop[glob], channel)
			case !w.asked:
				w.asked = true
				start[glob] = append(start[glob], channel)
			}
		}
		r.mu.Unlock()
		// An error needs no answer here: the receiving side meets it too and starts again.
		for glob, do := range [2]func(context.Context, ...string) error{ps.Unsubscribe, ps.PUnsubscribe} {
			if len(stop[glob]) > 0 {
				_ = do(ctx, stop[glob]...)
			}
		}
		for glob, do := range [2]func(context.Context, ...string) error{ps.Subscribe, ps.PSubscribe} {
			if len(start[glob]) > 0 {
				_ = do(ctx, start[glob]...)
			}
		}
	}
}

// confirm notes that Redis listens for pattern, and tells of the gap when that was the last one after an outage.
func (r *Redis) confirm(pattern string) {
	r.mu.Lock()
	if w := r.wanted[pattern]; w != nil && !w.sure {
		w.sure = true
		close(w.ready)
	}
	back := r.down
	for _, w := range r.wanted {
		if w != nil && !w.sure {
			back = false
		}
	}
	if back {
		r.down = false
	}
	r.mu.Unlock()
	if back {
		r.log.Info("redis is back", "part", "bus")
		r.hub.missed()
	}
}

func (r *Redis) receive(m *redis.Message, lost string) {
	if len(m.Payload) < originSize || m.Payload[:originSize] == r.origin {
		return
	}
	if m.Channel == lost {
		r.hub.missed()
		return
	}
	topic := strings.TrimPrefix(m.Channel, r.prefix)
	pattern := topic
	if m.Pattern != "" {
		pattern = r.pattern(m.Pattern, true)
	}
	r.hub.arrived(pattern, Message{Topic: topic, Payload: []byte(m.Payload[originSize:])})
}

// send empties the queue of hints into Redis until ctx ends.
func (r *Redis) send(ctx context.Context) {
	wait := redisBackoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.filled:
		}
		for {
			batch, lost := r.take()
			if len(batch) == 0 && !lost {
				break
			}
			_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				if lost {
					p.Publish(ctx, r.prefix+"*", r.origin)
				}
				for _, f := range batch {
					p.Publish(ctx, f.channel, f.data)
				}
				return nil
			})
			if err == nil {
				wait = redisBackoff
				continue
			}
			r.out.Lock()
			r.lost = true
			r.out.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, redisSlowest)
		}
	}
}

func (r *Redis) take() (batch []frame, lost bool) {
	r.out.Lock()
	defer r.out.Unlock()
	n := min(len(r.queue), redisBatch)
	batch, lost = r.queue[:n:n], r.lost
	r.queue, r.lost = r.queue[n:], false
	for _, f := range batch {
		r.bytes -= len(f.data)
	}
	return batch, lost
}

// channel is the Redis channel (0) or glob (1) of a pattern.
func (r *Redis) channel(pattern string) (name string, glob int) {
	prefix, ok := strings.CutSuffix(pattern, "*")
	if !ok {
		return r.prefix + pattern, 0
	}
	return globEscape.Replace(r.prefix+prefix) + "*", 1
}

func (r *Redis) pattern(channel string, glob bool) string {
	if glob {
		channel = globUnescape.Replace(strings.TrimSuffix(channel, "*")) + "*"
	}
	return strings.TrimPrefix(channel, r.prefix)
}

var (
	globEscape   = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
	globUnescape = strings.NewReplacer(`\\`, `\`, `\*`, `*`, `\?`, `?`, `\[`, `[`, `\]`, `]`)
)

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
