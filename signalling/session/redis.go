// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const redisTimeout = 2 * time.Second // dial, read and write: a Redis that takes longer counts as away

// RedisConfig says where the nodes of one Trunkboard meet. Zero fields take the defaults named beside them.
type RedisConfig struct {
	URL    string        // redis://, rediss:// or unix://, as go-redis reads it
	Prefix string        // "trunkboard:session:", of every key
	Settle time.Duration // 3 s: how long an empty Redis waits for the nodes that held leases before
}

// Redis is the Store of many nodes. Keys, each beginning with Prefix:
//
//	epoch         when this Redis was first used, in ms; missing = it has lost everything
//	fence         the greatest token given so far
//	lease:<key>   hash of node, url, token; expires with the lease
//	session:<id>  hash of room, user, json; expires with the session
//	room:<room>   sorted set: session id, scored by its expiry in ms
//	user:<user>   the same
//
// All is done in scripts, which Redis runs one at a time, and all by Redis' clock.
type Redis struct {
	client *redis.Client
	cfg    RedisConfig
}

var _ Store = (*Redis)(nil)

// NewRedis makes a Store; it does not wait for Redis, and reconnects by itself for ever. The error is about the URL.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	opt, err := redis.ParseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = redisTimeout, redisTimeout, redisTimeout
	opt.Protocol = 2 // nothing of RESP3 is used
	opt.MaxRetries, opt.DialerRetries = -1, 1
	opt.DisableIdentity = true
	redis.SetLogger(quiet{})
	if cfg.Prefix == "" {
		cfg.Prefix = "trunkboard:session:"
	}
	if cfg.Settle <= 0 {
		cfg.Settle = 3 * time.Second
	}
	return &Redis{client: redis.NewClient(opt), cfg: cfg}, nil
}

// quiet keeps go-redis from writing to standard error: what it would say there reaches us as errors.
type quiet struct{}

// Printf is for go-redis.
func (quiet) Printf(context.Context, string, ...any) {}

// Ping says whether Redis answers.
func (r *Redis) Ping(ctx context.Context) error { return r.client.Ping(ctx).Err() }

// Close implements Store.
func (r *Redis) Close() error {
	if err := r.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return err
	}
	return nil
}

// scripts. An operand that is not a key in the sense of Redis Cluster is passed as prefix; a cluster is not supported.
const (
	// take: KEYS lease, fence, epoch; ARGV node, url, ttl ms, settle ms, again ("1": held before).
	// Answers {node, url, token, pttl}, or {wait ms} while only former holders may take the key.
	take = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('SET', KEYS[3], now, 'NX')
local l = redis.call('HMGET', KEYS[1], 'node', 'url', 'token')
if not l[1] then
  local age = now - tonumber(redis.call('GET', KEYS[3]))
  if ARGV[5] ~= '1' and age >= 0 and age < tonumber(ARGV[4]) then
    return {ARGV[4] - age}
  end
  local token = t[1] * 1000000 + t[2]
  token = math.max(token, (tonumber(redis.call('GET', KEYS[2])) or 0) + 1)
  l = {ARGV[1], ARGV[2], string.format('%.0f', token)}
  redis.call('SET', KEYS[2], l[3])
  redis.call('HSET', KEYS[1], 'node', l[1], 'url', l[2], 'token', l[3])
end
if l[1] == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return {l[1], l[2], l[3], redis.call('PTTL', KEYS[1])}`

	// release: KEYS lease; ARGV node, token.
	release = `
local l = redis.call('HMGET', KEYS[1], 'node', 'token')
if l[1] == ARGV[1] and l[2] == ARGV[2] then redis.call('DEL', KEYS[1]) end
return 1`

	// put: KEYS session; ARGV prefix, id, room, user, json, ttl ms.
	put = `
local t = redis.call('TIME')
local expires = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[6]
local was = redis.call('HMGET', KEYS[1], 'room', 'user')
for i, kind in ipairs({'room:', 'user:'}) do
  local name = ARGV[2 + i]
  if was[i] and was[i] ~= name then redis.call('ZREM', ARGV[1] .. kind .. was[i], ARGV[2]) end
  if name ~= '' then
    local list = ARGV[1] .. kind .. name
    redis.call('ZADD', list, string.format('%.0f', expires), ARGV[2])
    if redis.call('PTTL', list) < tonumber(ARGV[6]) then redis.call('PEXPIRE', list, ARGV[6]) end
  end
end
redis.call('HSET', KEYS[1], 'room', ARGV[3], 'user', ARGV[4], 'json', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1`

	// drop: KEYS session; ARGV prefix, id.
	drop = `
local was = redis.call('HMGET', KEYS[1], 'room', 'user')
if was[1] then redis.call('ZREM', ARGV[1] .. 'room:' .. was[1], ARGV[2]) end
if was[2] then redis.call('ZREM', ARGV[1] .. 'user:' .. was[2], ARGV[2]) end
redis.call('DEL', KEYS[1])
return 1`

	// list: KEYS room or user; ARGV prefix.
	list = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local s = redis.call('HGET', ARGV[1] .. 'session:' .. id, 'json')
  if s then found[#found + 1] = s end
end
return found`
)

func (r *Redis) key(kind, name string) string { return r.cfg.Prefix + kind + name }

// eval runs a script by its text; Redis keeps the compiled form.
func (r *Redis) eval(ctx context.Context, script string, keys []string, args ...any) ([]any, error) {
	answer, err := redis.NewScript(script).Run(ctx, r.client, keys, args...).Result()
	if err != nil {
		return nil, err
	}
	parts, _ := answer.([]any)
	return parts, nil
}

// Acquire implements Leases. In an empty Redis it waits until former holders had their chance.
func (r *Redis) Acquire(ctx context.Context, key string, by Node, ttl time.Duration) (Lease, error) {
	for {
		l, wait, err := r.take(ctx, key, by, ttl, false)
		if err != nil || wait == 0 {
			return l, err
		}
		select {
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// Renew implements Leases.
func (r *Redis) Renew(ctx context.Context, l Lease, ttl time.Duration) (Lease, error) {
	now, _, err := r.take(ctx, l.Key, l.Node, ttl, true)
	if err == nil && now.Node.ID != l.Node.ID {
		err = ErrLost
	}
	return now, err
}

func (r *Redis) take(ctx context.Context, key string, by Node, ttl time.Duration, again bool) (Lease, time.Duration, error) {
	former := "0"
	if again {
		former = "1"
	}
	parts, err := r.eval(ctx, take, []string{r.key("lease:", key), r.key("fence", ""), r.key("epoch", "")},
		by.ID, by.URL, millis(ttl), millis(r.cfg.Settle), former)
	if err != nil {
		return Lease{}, 0, err
	}
	if len(parts) == 1 {
		wait, _ := parts[0].(int64)
		return Lease{}, max(1, time.Duration(wait)) * time.Millisecond, nil
	}
	if len(parts) != 4 {
		return Lease{}, 0, fmt.Errorf("session: redis answers %v", parts)
	}
	left, _ := parts[3].(int64)
	l := Lease{Key: key, Expires: time.Now().Add(time.Duration(left) * time.Millisecond)}
	return fill(l, parts)
}

// fill reads node, url and token.
func fill(l Lease, parts []any) (Lease, time.Duration, error) {
	l.Node.ID, _ = parts[0].(string)
	l.Node.URL, _ = parts[1].(string)
	token, _ := parts[2].(string)
	var err error
	l.Token, err = strconv.ParseUint(token, 10, 64)
	return l, 0, err
}

// Release implements Leases.
func (r *Redis) Release(ctx context.Context, l Lease) error {
	_, err := r.eval(ctx, release, []string{r.key("lease:", l.Key)}, l.Node.ID, strconv.FormatUint(l.Token, 10))
	return err
}

// Holder implements Leases.
func (r *Redis) Holder(ctx context.Context, key string) (Lease, bool, error) {
	name := r.key("lease:", key)
	var got *redis.SliceCmd
	var left *redis.DurationCmd
	_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		got = p.HMGet(ctx, name, "node", "url", "token")
		left = p.PTTL(ctx, name)
		return nil
	})
	if err != nil || len(got.Val()) != 3 || got.Val()[0] == nil {
		return Lease{}, false, err
	}
	l, _, err := fill(Lease{Key: key, Expires: time.Now().Add(left.Val())}, got.Val())
	return l, err == nil, err
}

// Put implements Sessions.
func (r *Redis) Put(ctx context.Context, ttl time.Duration, sessions ...Session) error {
	return r.each(ctx, put, len(sessions), func(i int) ([]string, []any, error) {
		s := sessions[i]
		raw, err := json.Marshal(s)
		return []string{r.key("session:", s.ID)}, []any{r.cfg.Prefix, s.ID, s.Room, s.User, raw, millis(ttl)}, err
	})
}

// Drop implements Sessions.
func (r *Redis) Drop(ctx context.Context, ids ...string) error {
	return r.each(ctx, drop, len(ids), func(i int) ([]string, []any, error) {
		return []string{r.key("session:", ids[i])}, []any{r.cfg.Prefix, ids[i]}, nil
	})
}

// each runs a script n times in few round trips.
func (r *Redis) each(ctx context.Context, text string, n int, operands func(i int) ([]string, []any, error)) error {
	const batch = 500
	script := redis.NewScript(text)
	for first := 0; first < n; first += batch {
		run := func() error {
			_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := first; i < min(n, first+batch); i++ {
					keys, args, err := operands(i)
					if err != nil {
						return err
					}
					script.EvalSha(ctx, p, keys, args...)
				}
				return nil
			})
			return err
		}
		err := run()
		if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
			// A Redis that was restarted does not know the script. Running one twice does no harm.
			if err = script.Load(ctx, r.client).Err(); err == nil {
				err = run()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ByRoom implements Sessions.
func (r *Redis) ByRoom(ctx context.Context, room string) ([]Session, error) {
	return r.list(ctx, r.key("room:", room))
}

// ByUser implements Sessions.
func (r *Redis) ByUser(ctx context.Context, user string) ([]Session, error) {
	return r.list(ctx, r.key("user:", user))
}

func (r *Redis) list(ctx context.Context, key string) ([]Session, error) {
	parts, err := r.eval(ctx, list, []string{key}, r.cfg.Prefix)
	if err != nil {
		return nil, err
	}
	var found []Session
	for _, p := range parts {
		raw, _ := p.(string)
		var s Session
		if err := json.Unmarshal([]byte(raw), &s); err != nil {
			return nil, fmt.Errorf("session: %w", err)
		}
		found = append(found, s)
	}
	slices.SortFunc(found, inOrder)
	return found, nil
}

// millis is a whole number of milliseconds, at least one: Redis would delete a key that lasts for none.
func millis(d time.Duration) int64 { return max(1, d.Milliseconds()) }
