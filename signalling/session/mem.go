// SPDX-License-Identifier: Apache-2.0

package session

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Mem is the Store of a Trunkboard that is one process.
type Mem struct {
	clock signalling.Clock

	mu       sync.Mutex
	leases   map[string]*entry
	sessions map[string]*entry
	rooms    index
	users    index
	due      deadlines
	token    uint64
}

// entry is a lease or a session in the heap of what expires.
type entry struct {
	lease   Lease
	session Session
	isLease bool
	expires time.Time
	slot    int
}

type index map[string]map[string]*entry // room or user -> session ID

var _ Store = (*Mem)(nil)

// NewMem makes an empty Store.
func NewMem(clock signalling.Clock) *Mem {
	return &Mem{
		clock: clock, leases: make(map[string]*entry), sessions: make(map[string]*entry), rooms: make(index), users: make(index),
	}
}

// Acquire implements Leases.
func (m *Mem) Acquire(_ context.Context, key string, by Node, ttl time.Duration) (Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.sweep()
	e := m.leases[key]
	if e == nil {
		return m.grant(key, by, now.Add(ttl)), nil
	}
	if e.lease.Node.ID == by.ID {
		m.extend(e, now.Add(ttl))
	}
	return e.lease, nil
}

// Renew implements Leases.
func (m *Mem) Renew(_ context.Context, l Lease, ttl time.Duration) (Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.sweep()
	e := m.leases[l.Key]
	if e == nil {
		return m.grant(l.Key, l.Node, now.Add(ttl)), nil
	}
	if e.lease.Node.ID != l.Node.ID {
		return e.lease, ErrLost
	}
	m.extend(e, now.Add(ttl))
	return e.lease, nil
}

// Release implements Leases.
func (m *Mem) Release(_ context.Context, l Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	if e := m.leases[l.Key]; e != nil && e.lease.Node.ID == l.Node.ID && e.lease.Token == l.Token {
		m.remove(e)
	}
	return nil
}

// Holder implements Leases.
func (m *Mem) Holder(_ context.Context, key string) (Lease, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	if e := m.leases[key]; e != nil {
		return e.lease, true, nil
	}
	return Lease{}, false, nil
}

// Put implements Sessions.
func (m *Mem) Put(_ context.Context, ttl time.Duration, sessions ...Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.sweep()
	for _, s := range sessions {
		if old := m.sessions[s.ID]; old != nil {
			m.remove(old)
		}
		e := &entry{session: s, expires: now.Add(ttl)}
		m.sessions[s.ID] = e
		m.rooms.add(s.Room, e)
		m.users.add(s.User, e)
		heap.Push(&m.due, e)
	}
	return nil
}

// Drop implements Sessions.
func (m *Mem) Drop(_ context.Context, ids ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if e := m.sessions[id]; e != nil {
			m.remove(e)
		}
	}
	return nil
}

// ByRoom implements Sessions.
func (m *Mem) ByRoom(_ context.Context, room string) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	return m.rooms.list(room), nil
}

// ByUser implements Sessions.
func (m *Mem) ByUser(_ context.Context, user string) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	return m.users.list(user), nil
}

// Close implements Store.
func (m *Mem) Close() error { return nil }

// grant gives a free key away. Tokens follow the clock, so that they also grow across a restart.
func (m *Mem) grant(key string, to Node, expires time.Time) Lease {
	m.token = max(m.token+1, uint64(m.clock.Now().UnixMicro()))
	e := &entry{isLease: true, lease: Lease{Key: key, Node: to, Token: m.token, Expires: expires}, expires: expires}
	m.leases[key] = e
	heap.Push(&m.due, e)
	return e.lease
}

func (m *Mem) extend(e *entry, expires time.Time) {
	e.lease.Expires, e.expires = expires, expires
	heap.Fix(&m.due, e.slot)
}

// sweep removes what has expired. Every call but Drop does so first, so nothing expired is ever seen or kept for long.
func (m *Mem) sweep() time.Time {
	now := m.clock.Now()
	for len(m.due) > 0 && !now.Before(m.due[0].expires) {
		m.remove(m.due[0])
	}
	return now
}

func (m *Mem) remove(e *entry) {
	heap.Remove(&m.due, e.slot)
	if e.isLease {
		delete(m.leases, e.lease.Key)
		return
	}
	delete(m.sessions, e.session.ID)
	m.rooms.drop(e.session.Room, e.session.ID)
	m.users.drop(e.session.User, e.session.ID)
}

func (x index) add(name string, e *entry) {
	if name == "" {
		return
	}
	if x[name] == nil {
		x[name] = make(map[string]*entry)
	}
	x[name][e.session.ID] = e
}

func (x index) drop(name, id string) {
	if delete(x[name], id); len(x[name]) == 0 {
		delete(x, name)
	}
}

func (x index) list(name string) []Session {
	var list []Session
	for _, e := range x[name] {
		list = append(list, e.session)
	}
	slices.SortFunc(list, inOrder)
	return list
}

// deadlines is a heap of entries, the next to expire on top.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].expires.Before(d[j].expires) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].slot, d[j].slot = i, j
}

// Push is for container/heap.
func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.slot = len(*d)
	*d = append(*d, e)
}

// Pop is for container/heap.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return e
}
