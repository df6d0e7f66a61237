// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Sizes of what is kept in memory.
const (
	setCache     = 20_000  // users' compiled rules; those who changed nothing cost a pointer
	counterCache = 200_000 // counts of a user in a room, about 200 bytes each
	roomCache    = 4_096   // rooms whose newest events are at hand
	// On PostgreSQL another node may change rules: compiled rules are looked up again after this time. SQLite has one node.
	setLife = time.Minute
)

// Service keeps rules, counts and pushers.
type Service struct {
	store *storage.Store
	clock signalling.Clock
	log   *slog.Logger

	gateways *gateway.Client

	plain    *Set // of users who changed nothing
	sets     *lru.Cache[string, cachedSet]
	counters *lru.Cache[counterKey, *counter]
	recent   *lru.Cache[int64, *recent] // by room
	arrivals chan arrival
	observed atomic.Int64 // every event up to this position was observed, or was there before
}

type cachedSet struct {
	set    *Set
	pos    int64 // of the change it comes from
	loaded time.Time
}

// UseGateways has pushers checked by the client that will talk to their gateways; without it, they must be public and speak HTTPS. Call
// it before the first request.
func (s *Service) UseGateways(c *gateway.Client) { s.gateways = c }

// New makes the service.
func New(store *storage.Store, clock signalling.Clock, log *slog.Logger) *Service {
	s := &Service{store: store, clock: clock, log: log, gateways: gateway.New(nil), plain: newSet(&changes{}), arrivals: make(chan arrival, maxArrivals)}
	s.observed.Store(store.Pos())
	s.sets, _ = lru.New[string, cachedSet](setCache) // fails for a size below 1 only
	s.counters, _ = lru.New[counterKey, *counter](counterCache)
	s.recent, _ = lru.New[int64, *recent](roomCache)
	return s
}

func (s *Service) load(ctx context.Context, user string) (*changes, int64, error) {
	raw, pos, err := s.store.PushRules(ctx, user)
	if errors.Is(err, storage.ErrNotFound) {
		return &changes{}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	c := &changes{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, 0, fmt.Errorf("push rules of %s: %w", user, err)
	}
	return c, pos, nil
}

// Set is a user's compiled rules.
func (s *Service) Set(ctx context.Context, user string) (*Set, error) {
	now := s.clock.Now()
	if c, ok := s.sets.Get(user); ok && (!s.store.Postgres() || now.Sub(c.loaded) < setLife) {
		return c.set, nil
	}
	c, pos, err := s.load(ctx, user)
	if err != nil {
		return nil, err
	}
	set := s.plain
	if pos != 0 {
		set = newSet(c)
	}
	// A change that was made meanwhile has put a newer one there.
	if old, ok := s.sets.Peek(user); ok && old.pos > pos {
		return old.set, nil
	}
	s.sets.Add(user, cachedSet{set, pos, now})
	return set, nil
}

// Rules are the rules of a user, as clients see them.
func (s *Service) Rules(ctx context.Context, user string) (*Rules, error) {
	c, _, err := s.load(ctx, user)
	if err != nil {
		return nil, err
	}
	return c.rules(user), nil
}

// RulesJSON is the content of a user's m.push_rules account data, and the position of its last change: 0 when it never changed.
func (s *Service) RulesJSON(ctx context.Context, user string) (content json.RawMessage, pos int64, err error) {
	c, pos, err := s.load(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	content, err = json.Marshal(map[string]*Rules{"global": c.rules(user)})
	return content, pos, err
}

// RulesSince is RulesJSON for a sync from a position to another: nil when the client has the newest rules. A first sync, from 0,
// always gets them.
func (s *Service) RulesSince(ctx context.Context, user string, from, to int64) (json.RawMessage, error) {
	content, pos, err := s.RulesJSON(ctx, user)
	if err != nil || (from > 0 && (pos <= from || pos > to)) {
		return nil, err
	}
	return content, nil
}

// change lets f change a user's rules and stores them. What f refuses changes nothing.
func (s *Service) change(ctx context.Context, user string, f func(*changes) error) error {
	var c *changes
	var pos int64
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		c = &changes{}
		raw, err := tx.PushRules(user)
		if err == nil {
			err = json.Unmarshal(raw, c)
		} else if errors.Is(err, storage.ErrNotFound) {
			err = nil
		}
		if err != nil {
			return err
		}
		if err := f(c); err != nil {
			return err
		}
		n := 0
		for _, l := range c.Own {
			n += len(l)
		}
		if raw, err = json.Marshal(c); err != nil {
			return err
		}
		if n > MaxRules || len(raw) > MaxRulesBytes {
			return signalling.Refuse(http.StatusBadRequest, "M_RESOURCE_LIMIT_EXCEEDED", "a user may have %d push rules, of %d bytes in all", MaxRules, MaxRulesBytes)
		}
		pos, err = tx.SetPushRules(user, raw)
		return err
	})
	if err != nil {
		return err
	}
	s.sets.Add(user, cachedSet{newSet(c), pos, s.clock.Now()})
	return nil
}

func noRule() error { return signalling.NotFound("there is no such push rule") }

// Put makes a rule, or changes one that is there and keeps it switched on or off. It stands right before the user's own rule
// named before, else right after the one named after, else where it was, else first. Errors: M_INVALID_PARAM, M_MISSING_PARAM,
// 400 M_UNKNOWN (before or after is not there), M_RESOURCE_LIMIT_EXCEEDED.
func (s *Service) Put(ctx context.Context, user string, k Kind, r Rule, before, after string) error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	if err := r.check(k); err != nil {
		return err
	}
	r.Default, r.Enabled = false, true
	return s.change(ctx, user, func(c *changes) error {
		l := c.Own[k]
		index := func(id string) int { return slices.IndexFunc(l, func(o Rule) bool { return o.ID == id }) }
		at := max(0, index(r.ID))
		if i := index(r.ID); i >= 0 {
			r.Enabled = l[i].Enabled
			l = slices.Delete(slices.Clone(l), i, i+1)
		}
		beside := before
		if beside == "" {
			beside = after
		}
		if beside != "" {
			if at = index(beside); at < 0 {
				return signalling.Refuse(http.StatusBadRequest, "M_UNKNOWN", "before/after rule not found: %s", beside)
			}
			if before == "" {
				at++
			}
		}
		if c.Own == nil {
			c.Own = map[Kind][]Rule{}
		}
		c.Own[k] = slices.Insert(slices.Clone(l), at, r)
		return nil
	})
}

// Delete removes one of the user's own rules. Errors: M_NOT_FOUND, M_INVALID_PARAM (a predefined rule).
func (s *Service) Delete(ctx context.Context, user string, k Kind, id string) error {
	if strings.HasPrefix(id, ".") {
		return signalling.InvalidParam("predefined rules cannot be deleted; switch them off")
	}
	return s.change(ctx, user, func(c *changes) error {
		i := slices.IndexFunc(c.Own[k], func(o Rule) bool { return o.ID == id })
		if i < 0 {
			return noRule()
		}
		c.Own[k] = slices.Delete(c.Own[k], i, i+1)
		return nil
	})
}

// Enable switches a rule on or off. Errors: M_NOT_FOUND.
func (s *Service) Enable(ctx context.Context, user string, k Kind, id string, on bool) error {
	return s.alter(ctx, user, k, id, func(r *Rule) { r.Enabled = on }, func(ch *change) { ch.Enabled = &on })
}

// SetActions changes what a rule does. Errors: M_NOT_FOUND, M_INVALID_PARAM, M_MISSING_PARAM.
func (s *Service) SetActions(ctx context.Context, user string, k Kind, id string, actions []json.RawMessage) error {
	if err := checkActions(actions); err != nil {
		return err
	}
	return s.alter(ctx, user, k, id, func(r *Rule) { r.Actions = actions }, func(ch *change) { ch.Actions, ch.Silent = actions, len(actions) == 0 })
}

func (s *Service) alter(ctx context.Context, user string, k Kind, id string, own func(*Rule), default_ func(*change)) error {
	return s.change(ctx, user, func(c *changes) error {
		if i := slices.IndexFunc(c.Own[k], func(o Rule) bool { return o.ID == id }); i >= 0 {
			own(&c.Own[k][i])
			return nil
		}
		if !slices.ContainsFunc(predefinedOf(k), func(p predefined) bool { return p.id == id }) {
			return noRule()
		}
		if c.Default == nil {
			c.Default = map[string]change{}
		}
		ch := c.Default[id]
		default_(&ch)
		c.Default[id] = ch
		return nil
	})
}
