// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Session is who makes a request: what an access token stands for.
type Session struct {
	UserID    string // "@alice:example.org"
	DeviceID  string
	Guest     bool          // an account without a password, allowed to look and little else
	Admin     bool          // may use the admin API
	Locked    bool          // may do nothing but log out
	Suspended bool          // may look, but not act
	seen      *atomic.Int64 // when the device was last noted as seen, in milliseconds
}

// seenEvery is how often a device's last-seen time moves, at most.
const seenEvery = time.Minute

// cachedSession is a session in memory. until bounds how long a log-out on another node can go unnoticed.
type cachedSession struct {
	Session
	until   time.Time
	expires int64 // milliseconds; 0 for never
}

type tokenHash [sha256.Size]byte

func hashToken(token string) tokenHash { return sha256.Sum256([]byte(token)) }

// Authenticate finds the session of an access token. For a token seen lately it asks no database. Errors: M_UNKNOWN_TOKEN, with
// soft_logout true for a token that expired and can be refreshed.
func (s *Service) Authenticate(ctx context.Context, token string) (Session, error) {
	hash := hashToken(token)
	now := s.clock.Now()
	c, ok := s.sessions.Get(hash)
	if !ok || now.After(c.until) {
		var err error
		if c, err = s.loadSession(ctx, hash, now); err != nil {
			return Session{}, err
		}
	}
	if c.expires != 0 && c.expires <= now.UnixMilli() {
		return Session{}, signalling.UnknownToken(true)
	}
	return c.Session, nil
}

func (s *Service) loadSession(ctx context.Context, hash tokenHash, now time.Time) (*cachedSession, error) {
	epoch := s.epoch.Load()
	t, err := s.store.AccessToken(ctx, hash[:])
	if errors.Is(err, storage.ErrNotFound) {
		s.sessions.Remove(hash)
		return nil, signalling.UnknownToken(false)
	}
	if err != nil {
		return nil, err
	}
	if t.Parent != nil && (t.ExpiresTS == 0 || t.ExpiresTS > now.UnixMilli()) {
		// The first use of a refreshed token shows that it arrived: what came before it ends now.
		if err := s.arrived(ctx, t.Parent); err != nil {
			return nil, err
		}
	}
	c := &cachedSession{
		Session: Session{UserID: t.UserID, DeviceID: t.DeviceID, Guest: t.Guest, Admin: t.Admin, Locked: t.Locked, Suspended: t.Suspended, seen: new(atomic.Int64)},
		until:   now.Add(s.cfg.CacheTime), expires: t.ExpiresTS,
	}
	c.seen.Store(t.SeenTS)
	if old, ok := s.sessions.Peek(hash); ok {
		c.seen = old.seen
	}
	s.keep(hash, c, epoch)
	return c, nil
}

// keep puts a session into the cache, unless tokens ended since epoch was read: then it may be one of those.
func (s *Service) keep(hash tokenHash, c *cachedSession, epoch int64) {
	s.cacheMu.Lock()
	defer s.cacheMu.Unlock()
	if s.epoch.Load() == epoch {
		s.sessions.Add(hash, c)
	}
}

// forget takes sessions out of the cache whose tokens ended.
func (s *Service) forget(hashes [][]byte) {
	s.cacheMu.Lock()
	defer s.cacheMu.Unlock()
	s.epoch.Add(1)
	for _, h := range hashes {
		if len(h) == sha256.Size {
			s.sessions.Remove(tokenHash(h))
		}
	}
}

// Forget takes every session of a user out of the cache, so that the next request reads the database. Call it when another node
// says that something changed about the user.
func (s *Service) Forget(userID string) {
	s.cacheMu.Lock()
	defer s.cacheMu.Unlock()
	s.epoch.Add(1)
	for _, h := range s.sessions.Keys() {
		if c, ok := s.sessions.Peek(h); ok && c.UserID == userID {
			s.sessions.Remove(h)
		}
	}
}

// SeenDue says that a minute has passed since the device was noted as seen.
func (s *Service) SeenDue(x Session) bool {
	return x.seen != nil && s.clock.Now().UnixMilli()-x.seen.Load() >= seenEvery.Milliseconds()
}

// seenDevice is a device that asked for something, not written yet.
type seenDevice struct{ userID, deviceID string }

type sighting struct {
	ts int64
	ip string
}

// maxSightings bounds what waits for the next Flush; beyond it, devices are noted later.
const maxSightings = 100_000

// Seen notes that a device asked for something from an address. It writes nothing: Flush does, for all devices at once.
func (s *Service) Seen(x Session, ip string) {
	now := s.clock.Now().UnixMilli()
	last := x.seen.Load()
	if now-last < seenEvery.Milliseconds() || !x.seen.CompareAndSwap(last, now) {
		return
	}
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if len(s.sightings) < maxSightings {
		s.sightings[seenDevice{x.UserID, x.DeviceID}] = sighting{now, ip}
	}
}

// Flush writes when and where devices were last seen.
func (s *Service) Flush(ctx context.Context) error {
	s.seenMu.Lock()
	all := s.sightings
	s.sightings = map[seenDevice]sighting{}
	s.seenMu.Unlock()
	const perWrite = 500 // keeps other writers from waiting long
	for len(all) > 0 {
		part := make(map[seenDevice]sighting, perWrite)
		for d, at := range all {
			if len(part) == perWrite {
				break
			}
			part[d] = at
			delete(all, d)
		}
		if err := s.store.Write(ctx, func(tx *storage.Tx) error {
			for d, at := range part {
				if err := tx.SawDevice(d.userID, d.deviceID, at.ts, at.ip); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// ErrLocked is 401 M_USER_LOCKED (client-server API, "Account locking").
var ErrLocked = signalling.Refuse(http.StatusUnauthorized, "M_USER_LOCKED", "this account has been locked; ask the server's administrator").With("soft_logout", true)
