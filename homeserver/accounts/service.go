// SPDX-License-Identifier: Apache-2.0

// Package accounts holds the users of a homeserver: how they register and log in, their devices and access tokens, their profiles,
// filters and account data.
//
// An access token is 256 random bits; the database holds its SHA-256 only. Authenticate answers from memory for a token that was
// used lately. What ends a token (log-out, a new password, deactivation) takes it out of memory too; on other nodes within
// Config.CacheTime, or at once where Forget is called.
//
// Whoever keeps something for a device or a user registers Hooks and is told when it ends.
package accounts

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// Config is what the operator chose. The zero value of a field is its default.
type Config struct {
	Server       string        // server name, the part after the colon in user ids
	Open         bool          // anybody may register; otherwise a registration token is needed
	Guests       bool          // accounts without a password may be made
	RequireEmail bool          // who registers must prove an e-mail address
	Cost         Cost          // of hashing a password; default CostStandard
	MinPassword  int           // characters of a password; default 8
	SharedSecret string        // for registration by tools; "" closes it
	Mailer       Mailer        // nil: accounts have no e-mail addresses
	TokenTime    time.Duration // life of access tokens that can be refreshed; default 15 minutes
	CacheTime    time.Duration // how long an access token is believed without asking the database; default 30 s
}

// Hooks is what others do when something happens to an account. Any of them may be nil.
type Hooks struct {
	// DeviceDeleted runs in the transaction that deletes a device: its keys and waiting messages go with it.
	DeviceDeleted func(tx *storage.Tx, userID, deviceID string) error
	// DeviceRenamed runs in the transaction that changes a device's display name.
	DeviceRenamed func(tx *storage.Tx, userID, deviceID string) error
	// Logout runs after a device's tokens ended: TURN credentials, pushers and open syncs end with them. It must be quick.
	Logout func(userID, deviceID string)
	// ProfileChange runs after a display name or avatar changed: the user's rooms have to hear of it.
	ProfileChange func(ctx context.Context, userID string)
	// Deactivate runs after an account ended: the user leaves his rooms; erase asks that his messages be hidden too.
	Deactivate func(ctx context.Context, userID string, erase bool) error
}

const sessionCache = 100_000

// Service is the accounts of one server.
type Service struct {
	cfg    Config
	store  *storage.Store
	clock  signalling.Clock
	log    *slog.Logger
	hasher *hasher
	key    []byte // signs UIA sessions and nonces; the same on every node

	hooks []Hooks

	ignore   *ignoreLists
	invites  *invitePolicies
	erased   erasures
	sessions *lru.Cache[tokenHash, *cachedSession]
	cacheMu  sync.Mutex   // orders additions to sessions and ends of tokens
	epoch    atomic.Int64 // counts ends of tokens

	seenMu    sync.Mutex
	sightings map[seenDevice]sighting

	filters   *lru.Cache[[32]byte, *filter.Filter] // by hash of the JSON
	filterIDs *lru.Cache[filterKey, [32]byte]
}

// New opens the accounts in store.
func New(ctx context.Context, store *storage.Store, cfg Config, clock signalling.Clock, log *slog.Logger) (*Service, error) {
	if cfg.TokenTime <= 0 {
		cfg.TokenTime = 15 * time.Minute
	}
	if cfg.CacheTime <= 0 {
		cfg.CacheTime = 30 * time.Second
	}
	fresh := make([]byte, 32)
	if _, err := rand.Read(fresh); err != nil {
		return nil, err
	}
	key, err := store.Secret(ctx, "accounts", fresh)
	if err != nil {
		return nil, err
	}
	h, err := newHasher(cfg.Cost)
	if err != nil {
		return nil, fmt.Errorf("password hashing: %w", err)
	}
	s := &Service{cfg: cfg, store: store, clock: clock, log: log, hasher: h, key: key, sightings: map[seenDevice]sighting{}, ignore: newIgnoreLists(), invites: newInvitePolicies()}
	s.sessions, _ = lru.New[tokenHash, *cachedSession](sessionCache)
	s.filters, _ = lru.New[[32]byte, *filter.Filter](1024)
	if err := s.readErased(ctx); err != nil {
		return nil, err
	}
	s.filterIDs, _ = lru.New[filterKey, [32]byte](sessionCache)
	return s, nil
}

// Hook adds to what happens with an account. Call it before the first request.
func (s *Service) Hook(h Hooks) { s.hooks = append(s.hooks, h) }

// Server is the server name.
func (s *Service) Server() string { return s.cfg.Server }

// Run writes what waits and removes what expired, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	flush := time.NewTicker(10 * time.Second)
	defer flush.Stop()
	prune := time.NewTicker(10 * time.Minute)
	defer prune.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return s.Flush(last)
		case <-flush.C:
			err = s.Flush(ctx)
		case <-prune.C:
			err = errors.Join(s.Prune(ctx), s.readErased(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("upkeep of accounts failed; it is tried again", "err", err)
		}
	}
}

// Prune removes what expired: used nonces, unfinished authentications, registration tokens, and access tokens a week after their end.
func (s *Service) Prune(ctx context.Context) error {
	now := s.clock.Now()
	return s.store.Write(ctx, func(tx *storage.Tx) error {
		return tx.PruneAccounts(now.UnixMilli(), now.Add(-7*24*time.Hour).UnixMilli())
	})
}

// newSecret gives 256 random bits behind a prefix that tells what it is when it is found somewhere.
func newSecret(prefix string) string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// randomLetters gives n random capital letters.
func randomLetters(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	for i := range b {
		b[i] = 'A' + b[i]%26 // not a secret: the slight bias does no harm
	}
	return string(b)
}
