// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Users knows long-term users (RFC 8489, section 9.2): names with a password of their own, kept somewhere that may take its time.
type Users interface {
	// Key is the user's long-term key, LongTermKey of name, realm and password. ErrNoUser means that there is none of that name.
	Key(ctx context.Context, realm, name string) ([]byte, error)
}

// ErrNoUser is what Users answers for a name that it does not know.
var ErrNoUser = errors.New("turn: no such user")

// LongTermKey is the key that stands for a password in a realm (RFC 8489, section 9.2.2).
func LongTermKey(name, realm, password string) []byte {
	key := md5.Sum([]byte(name + ":" + realm + ":" + password))
	return key[:]
}

// Bounds of what is remembered of Users, and of asking them.
const (
	userCacheSize = 10000
	userCacheTime = 30 * time.Second // how long a user who was removed, or has another password, is still let in
	userLookups   = 64               // at a time
	userLookup    = 5 * time.Second
)

// userCache remembers what Users has answered, for the loops that read packets cannot wait for a database.
type userCache struct {
	users Users
	clock signalling.Clock

	mu      sync.Mutex
	entries map[userName]userEntry
	asking  int
}

type userName struct{ realm, name string }

type userEntry struct {
	key   []byte // nil: there is no such user
	until time.Time
}

func newUserCache(u Users, clock signalling.Clock) *userCache {
	return &userCache{users: u, clock: clock, entries: make(map[userName]userEntry)}
}

// get tells the user's key, nil if there is no such user; known is false if Users must be asked first.
func (c *userCache) get(n userName) (key []byte, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[n]
	if !ok || !e.until.After(c.clock.Now()) {
		return nil, false
	}
	return e.key, true
}

// begin tells whether Users may be asked now; who may calls fetch.
func (c *userCache) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking >= userLookups {
		return false
	}
	c.asking++
	return true
}

// fetch asks Users and remembers the answer. An error is remembered by nobody: the client asks again.
func (c *userCache) fetch(n userName) error {
	ctx, cancel := context.WithTimeout(context.Background(), userLookup)
	defer cancel()
	key, err := c.users.Key(ctx, n.realm, n.name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking--
	if errors.Is(err, ErrNoUser) {
		key, err = nil, nil
	}
	if err != nil {
		return err
	}
	now := c.clock.Now()
	if len(c.entries) >= userCacheSize {
		for k, e := range c.entries {
			if len(c.entries) >= userCacheSize*3/4 || !e.until.After(now) {
				delete(c.entries, k)
			}
		}
	}
	c.entries[n] = userEntry{key: bytes.Clone(key), until: now.Add(userCacheTime)}
	return nil
}

// fetchUser asks for the user in a goroutine of its own and then handles the request p once more. Too many at a time are dropped, as
// are requests that Users fails at: clients ask again.
func (h *handler) fetchUser(n userName, c *client) {
	s := h.s
	if !s.known.begin() {
		s.counts.refusals[refusedRate].Add(1)
		return
	}
	if c.stream != nil { // a goroutine of this client's own may wait
		if err := s.known.fetch(n); err != nil {
			s.log.Warn("turn: cannot look up a user", "error", err)
			return
		}
		h.handle(bytes.Clone(h.packet), c)
		return
	}
	p, from := bytes.Clone(h.packet), *c
	if !s.track1(func() {
		if err := s.known.fetch(n); err != nil {
			s.log.Warn("turn: cannot look up a user", "error", err)
			return
		}
		newHandler(s).handle(p, &from)
	}) {
		s.known.mu.Lock()
		s.known.asking--
		s.known.mu.Unlock()
	}
}
