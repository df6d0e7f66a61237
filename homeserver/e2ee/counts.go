// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Every /sync of every device carries the counts of its keys, and they change rarely: so they are kept. While a write that may
// change a device's keys is on its way, the counts are read from the database and not kept; when it is done, the kept counts are
// changed by what it did. Where several nodes share a database, another node may change them too: then they are kept for a moment
// only, and a count that is late costs a client nothing but a late upload.

const (
	maxKeptCounts = 1 << 16
	sharedCounts  = 10 * time.Second // how long counts are kept where other nodes write too
)

// keyCounts is what /sync says about the one-time and fallback keys of a device. It is shared: nobody changes it.
type keyCounts struct {
	oneTime        map[string]int // by algorithm; signed_curve25519 is always there
	unusedFallback []string       // algorithms, never nil
}

type countsCache struct {
	mu    sync.Mutex
	clock signalling.Clock
	keep  time.Duration // 0: until they change
	kept  map[device]*countsEntry
}

type countsEntry struct {
	pending int    // writes on their way
	gen     uint64 // writes begun or ended
	counts  *keyCounts
	read    time.Time
}

func (c *countsCache) init(clock signalling.Clock, shared bool) {
	c.clock, c.kept = clock, map[device]*countsEntry{}
	if shared {
		c.keep = sharedCounts
	}
}

func (c *countsCache) entry(d device) *countsEntry {
	e := c.kept[d]
	if e == nil {
		if len(c.kept) >= maxKeptCounts {
			for k, old := range c.kept { // an arbitrary sixteenth goes
				if old.pending == 0 {
					delete(c.kept, k)
				}
				if len(c.kept) < maxKeptCounts-maxKeptCounts/16 {
					break
				}
			}
		}
		e = &countsEntry{}
		c.kept[d] = e
	}
	return e
}

// begin says that a write which may change the keys of devices is on its way.
func (c *countsCache) begin(devices ...device) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range devices {
		e := c.entry(d)
		e.pending++
		e.gen++
	}
}

// end says that the write is done; change turns the counts before it into those after it (nil: they are not known).
func (c *countsCache) end(change func(device, *keyCounts) *keyCounts, devices ...device) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range devices {
		e := c.entry(d)
		e.pending = max(e.pending-1, 0)
		e.gen++
		if change != nil {
			if e.counts == nil {
				e.read = c.clock.Now()
			}
			e.counts = change(d, e.counts)
		}
	}
}

func (c *countsCache) forget(d device) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.kept[d]; e != nil {
		e.gen++
		e.counts = nil
		if e.pending == 0 {
			delete(c.kept, d)
		}
	}
}

// KeyCounts gives the number of one-time keys by algorithm (signed_curve25519 is always there) and the algorithms of the unused
// fallback keys (never nil), from memory where they are known. Both are shared: nobody changes them.
func (s *Service) KeyCounts(ctx context.Context, user, deviceID string) (oneTime map[string]int, unusedFallback []string, err error) {
	c, d := &s.counts, device{user, deviceID}
	c.mu.Lock()
	e := c.entry(d)
	if k := e.counts; e.pending == 0 && k != nil && (c.keep == 0 || c.clock.Now().Sub(e.read) < c.keep) {
		c.mu.Unlock()
		return k.oneTime, k.unusedFallback, nil
	}
	gen := e.gen
	c.mu.Unlock()
	oneTime, unusedFallback, err = s.store.KeyCounts(ctx, user, deviceID)
	if err != nil {
		return nil, nil, err
	}
	k := newCounts(oneTime, unusedFallback)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept[d] == e && e.gen == gen && e.pending == 0 {
		e.counts, e.read = k, c.clock.Now()
	}
	return k.oneTime, k.unusedFallback, nil
}

func newCounts(oneTime map[string]int, unusedFallback []string) *keyCounts {
	// Without it, clients cannot tell "none left" from "not said".
	if _, ok := oneTime["signed_curve25519"]; !ok {
		oneTime["signed_curve25519"] = 0
	}
	slices.Sort(unusedFallback)
	return &keyCounts{oneTime, unusedFallback}
}

// taken is k after keys of an algorithm were handed out.
func (k *keyCounts) taken(algorithm string, fallback bool) *keyCounts {
	if fallback {
		unused := slices.DeleteFunc(slices.Clone(k.unusedFallback), func(a string) bool { return a == algorithm })
		return &keyCounts{k.oneTime, unused}
	}
	oneTime := maps.Clone(k.oneTime)
	if oneTime[algorithm]--; oneTime[algorithm] <= 0 {
		delete(oneTime, algorithm)
	}
	return newCounts(oneTime, slices.Clone(k.unusedFallback))
}

// ForgetDevice drops what is remembered of a device. Call it after a device was deleted, and when another node says that its keys
// changed.
func (s *Service) ForgetDevice(user, deviceID string) {
	s.counts.forget(device{user, deviceID})
}

// DeviceDeleted removes what a device left here, in the transaction that deletes it; ForgetDevice comes after the commit.
func (s *Service) DeviceDeleted(tx *storage.Tx, user, deviceID string) error {
	return tx.ForgetDevice(user, deviceID)
}

// DeviceRenamed tells of a device's new display name, in the transaction that changes it.
func (s *Service) DeviceRenamed(tx *storage.Tx, user, deviceID string) error {
	keys, err := tx.DeviceKeyJSON(user, deviceID)
	if err != nil || keys == "" {
		return err
	}
	return tx.DeviceListChanged(user)
}

// Deactivate removes the cross-signing keys and key backups of a user whose account has ended.
func (s *Service) Deactivate(ctx context.Context, user string, _ bool) error {
	return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.ForgetUserKeys(user) })
}
