// SPDX-License-Identifier: Apache-2.0

// Package status tells a Redis what becomes of the relay's sessions, in the words of coturn's redis-statsdb, for programs that bill or watch calls by
// them. In the key ID has 18 digits; names have / and % percent-encoded.
//
//	SET, PUBLISH  turn/realm/REALM/user/USER/allocation/ID/status   "new lifetime=600, type=UDP, local=…, remote=…, ssl=NONE, cipher=NONE"
//	SET, PUBLISH  …/status                                          "refreshed lifetime=600, …"
//	DEL, PUBLISH  …/status                                          "deleted"
//	PUBLISH       …/total_traffic                                   "rcvp=1, rcvb=160, sentp=1, sentb=160"   from and to the client
//	PUBLISH       …/total_traffic/peer                              the same from and to peers
//
// Unlike coturn's, a key lives no longer than its session, so a relay that was killed leaves none behind; and traffic is told once, at the end.
package status

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trunkboard/trunkboard/turn"
)

const (
	timeout  = 2 * time.Second // dial, read and write: a Redis that takes longer counts as away
	pause    = time.Second     // after a failure
	waiting  = 8192            // events; when there are more, new ones are lost
	batch    = 128             // events in one round trip
	keyGrace = time.Minute     // beyond the end of a session
)

// Redis tells one Redis.
type Redis struct {
	client *redis.Client
	log    *slog.Logger

	mu     sync.Mutex
	queue  []turn.SessionEvent
	lost   int
	filled chan struct{}
}

// quiet keeps go-redis from writing to standard error: what it would say there reaches us as errors.
type quiet struct{}

// Printf is for go-redis.
func (quiet) Printf(context.Context, string, ...any) {}

// NewRedis makes a Redis; Run connects. The error is about the URL (redis://, rediss:// or unix://).
func NewRedis(url string, log *slog.Logger) (*Redis, error) {
	opt, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = timeout, timeout, timeout
	opt.Protocol, opt.MaxRetries, opt.DialerRetries, opt.DisableIdentity = 2, -1, 1, true
	redis.SetLogger(quiet{})
	return &Redis{client: redis.NewClient(opt), log: log, filled: make(chan struct{}, 1)}, nil
}

// Notify takes an event; it is for turn.Config.Notify, and does not wait.
func (r *Redis) Notify(e turn.SessionEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= waiting {
		r.lost++
		return
	}
	r.queue = append(r.queue, e)
	select {
	case r.filled <- struct{}{}:
	default:
	}
}

// Run tells what Notify takes, in order, until ctx ends.
func (r *Redis) Run(ctx context.Context) error {
	away := false
	for ctx.Err() == nil {
		told, err := r.tell(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if !away {
				r.log.Warn("the Redis that is told of sessions does not answer", "err", err)
			}
			away = true
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		case err == nil && told == 0:
			select {
			case <-r.filled:
			case <-ctx.Done():
			}
		case err == nil && away:
			away = false
			r.mu.Lock()
			lost := r.lost
			r.lost = 0
			r.mu.Unlock()
			r.log.Info("the Redis that is told of sessions is back", "events_lost", lost)
		}
	}
	return nil
}

// Close tells what waits still, if Redis is there; to be called when Run has returned and nobody calls Notify any more.
func (r *Redis) Close() error {
	last, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		if told, err := r.tell(last); err != nil || told == 0 {
			return r.client.Close() // it is for watchers: a server's end does not hang on them
		}
	}
}

// tell sends the oldest events in one round trip, and says how many.
func (r *Redis) tell(ctx context.Context) (int, error) {
	r.mu.Lock()
	events := append([]turn.SessionEvent(nil), r.queue[:min(len(r.queue), batch)]...)
	r.mu.Unlock()
	if len(events) == 0 {
		return 0, nil
	}
	now := time.Now()
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, e := range events {
			key := Key(e.Session)
			if e.What == turn.SessionDeleted {
				p.Del(ctx, key+"/status")
				p.Publish(ctx, key+"/status", e.What)
				p.Publish(ctx, key+"/total_traffic", traffic(e.ToPeer, e.ToClient))
				p.Publish(ctx, key+"/total_traffic/peer", traffic(e.ToClient, e.ToPeer))
				continue
			}
			left := max(e.Expires.Sub(now), 0)
			p.Set(ctx, key+"/status", text(e, left), left+keyGrace)
			p.Publish(ctx, key+"/status", text(e, left))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.queue = r.queue[len(events):]
	r.mu.Unlock()
	return len(events), nil
}

// Key is what the names of a session's keys and channels begin with.
func Key(s turn.Session) string {
	escape := strings.NewReplacer("%", "%25", "/", "%2F").Replace
	return fmt.Sprintf("turn/realm/%s/user/%s/allocation/%018d", escape(s.Realm), escape(s.Username()), s.ID)
}

func text(e turn.SessionEvent, left time.Duration) string {
	kind, secure := "UDP", "NONE"
	switch e.Transport {
	case "tcp":
		kind = "TCP"
	case "tls":
		kind, secure = "TLS/TCP", "TLS"
	case "dtls":
		kind, secure = "DTLS", "DTLS"
	}
	return fmt.Sprintf("%s lifetime=%d, type=%s, local=%s, remote=%s, ssl=%s, cipher=NONE", e.What, int(left.Round(time.Second)/time.Second), kind, e.Server, e.Client, secure)
}

func traffic(received, sent turn.Amount) string {
	return fmt.Sprintf("rcvp=%d, rcvb=%d, sentp=%d, sentb=%d", received.Packets, received.Bytes, sent.Packets, sent.Bytes)
}
