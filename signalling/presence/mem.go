// SPDX-License-Identifier: Apache-2.0

package presence

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Mem is the Store of a Trunkboard that is one process, and the memory of each node of a larger one.
type Mem struct {
	cfg   Config
	clock signalling.Clock
	// tell, when set, is called under the lock when this node's share of a user changes; nil means that the user is forgotten.
	tell func(userID string, s *share)

	mu       sync.Mutex
	closed   bool
	users    map[string]*user
	log      user // ring of the users that ever changed, by version; log.next is the oldest
	version  uint64
	floor    uint64 // changes up to here may have been forgotten
	due      deadlines
	armed    time.Time // when the timer will go off, zero if it will not
	stop     func() bool
	watchers map[chan struct{}]struct{}
}

var _ Store = (*Mem)(nil)

// NewMem makes an empty Store.
func NewMem(cfg Config, clock signalling.Clock) *Mem {
	m := &Mem{
		cfg: cfg.withDefaults(), clock: clock,
		users: make(map[string]*user), watchers: make(map[chan struct{}]struct{}), stop: func() bool { return true },
	}
	m.log.prev, m.log.next = &m.log, &m.log
	m.version = uint64(clock.Now().UnixMicro())
	m.floor = m.version
	return m
}

// Set implements Store.
func (m *Mem) Set(_ context.Context, up Update) error {
	switch {
	case up.UserID == "":
		return signalling.InvalidParam("presence needs a user")
	case up.State != "" && up.State != Online && up.State != Unavailable && up.State != Offline:
		return signalling.InvalidParam("presence must be online, unavailable or offline")
	case up.StatusMsg != nil && len(*up.StatusMsg) > MaxStatusMsg:
		return signalling.TooLarge("a status message has at most %d bytes", MaxStatusMsg)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	now := m.clock.Now()
	u := m.users[up.UserID]
	if u == nil {
		if up.StatusMsg == nil && (up.State == "" || up.State == Offline) {
			return nil // nothing that is not assumed of a stranger
		}
		if u = m.add(up.UserID, now); u == nil {
			return signalling.LimitExceeded(m.cfg.Hold)
		}
	}
	u.hear(up, now, m.cfg.Hold)
	m.refresh(u, now)
	return nil
}

// Get implements Store.
func (m *Mem) Get(users ...string) []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Status, len(users))
	for i, id := range users {
		if u := m.users[id]; u != nil {
			list[i] = u.shown
		} else {
			list[i] = Status{UserID: id, State: Offline}
		}
	}
	return list
}

// Changes implements Store.
func (m *Mem) Changes(since uint64, limit int) (changed []Status, upto uint64, complete bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for u := m.log.prev; u != &m.log && u.shown.Version > since; u = u.prev {
		changed = append(changed, u.shown)
	}
	slices.Reverse(changed)
	upto = m.version
	if limit > 0 && len(changed) > limit {
		changed = changed[:limit]
		upto = changed[limit-1].Version
	}
	return changed, upto, since == 0 || (since >= m.floor && since <= m.version)
}

// Version implements Store.
func (m *Mem) Version() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version
}

// Watch implements Store.
func (m *Mem) Watch(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	m.mu.Lock()
	m.watchers[c] = struct{}{}
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		delete(m.watchers, c)
		m.mu.Unlock()
	})
	return c
}

// Close implements Store.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.stop()
	return nil
}

// add makes a user, if need be in the place of one who is offline.
func (m *Mem) add(id string, now time.Time) *user {
	if len(m.users) >= m.cfg.MaxUsers {
		// The log is ordered by last change: whoever is offline for longest is near its beginning.
		u := m.log.next
		for tries := 0; u != &m.log && u.shown.State != Offline && tries < 64; tries++ {
			u = u.next
		}
		if u == &m.log || u.shown.State != Offline {
			return nil
		}
		m.forget(u)
	}
	u := &user{
		id: id, devices: make(map[string]device), shown: Status{UserID: id, State: Offline}, changed: now, due: now.Add(m.cfg.Retain),
	}
	m.users[id] = u
	heap.Push(&m.due, u)
	return u
}

func (m *Mem) forget(u *user) {
	delete(m.users, u.id)
	heap.Remove(&m.due, u.slot)
	if u.next != nil {
		u.prev.next, u.next.prev = u.next, u.prev
	}
	m.floor = max(m.floor, u.shown.Version)
	if m.tell != nil && u.told != (share{}) {
		m.tell(u.id, nil)
	}
}

// refresh brings what readers see up to date, tells them, and plans the next look.
func (m *Mem) refresh(u *user, now time.Time) {
	u.expire(now)
	if m.tell != nil && u.news() {
		u.told = u.own
		s := u.own
		m.tell(u.id, &s)
	}
	s, due := u.status(now, &m.cfg)
	if s.State != u.shown.State || s.StatusMsg != u.shown.StatusMsg {
		m.version = max(m.version+1, uint64(now.UnixMicro()))
		s.Version = m.version
		u.changed = now
		if u.next != nil {
			u.prev.next, u.next.prev = u.next, u.prev
		}
		u.prev, u.next = m.log.prev, &m.log
		u.prev.next, u.next.prev = u, u
		for c := range m.watchers {
			poke(c)
		}
	}
	u.shown = s
	if s.State == Offline {
		due = u.changed.Add(m.cfg.Retain)
		if !now.Before(due) {
			m.forget(u)
			return
		}
	}
	u.due = due
	heap.Fix(&m.due, u.slot)
	m.arm(now)
}

// news says whether other nodes should hear of this node's share: activity alone is worth a word only now and then.
func (u *user) news() bool {
	o, t := u.own, u.told
	return o.State != t.State || o.Msg != t.Msg || o.MsgAt != t.MsgAt || o.Active-t.Active >= (30*time.Second).Milliseconds()
}

// arm sets the timer for the user who is due first, unless it goes off early enough already.
func (m *Mem) arm(now time.Time) {
	if m.closed || len(m.due) == 0 {
		return
	}
	next := m.due[0].due
	if !m.armed.IsZero() && !m.armed.After(next) {
		return
	}
	m.stop()
	m.armed = next
	m.stop = m.clock.AfterFunc(max(0, next.Sub(now)), m.fire)
}

func (m *Mem) fire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.armed = time.Time{}
	now := m.clock.Now()
	for len(m.due) > 0 && !now.Before(m.due[0].due) {
		m.refresh(m.due[0], now)
	}
	m.arm(now)
}

// setPeer takes another node's word on a user.
func (m *Mem) setPeer(node, id string, s share) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	u := m.users[id]
	if u == nil {
		if s.State == "" && s.Msg == "" {
			return
		}
		if u = m.add(id, now); u == nil {
			return
		}
	}
	if u.peers == nil {
		u.peers = make(map[string]share)
	}
	u.peers[node] = s
	m.refresh(u, now)
}

// dropPeer forgets all that a node has said.
func (m *Mem) dropPeer(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	for _, u := range m.users {
		if _, there := u.peers[node]; there {
			delete(u.peers, node)
			m.refresh(u, now)
		}
	}
}

// shares is what this node says about everybody.
func (m *Mem) shares() map[string]*share {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]*share, len(m.users))
	for id, u := range m.users {
		if u.own != (share{}) {
			u.told = u.own
			s := u.own
			all[id] = &s
		}
	}
	return all
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// deadlines is a heap of users, who is due first on top.
type deadlines []*user

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].slot, d[j].slot = i, j
}

// Push is for container/heap.
func (d *deadlines) Push(x any) {
	u := x.(*user)
	u.slot = len(*d)
	*d = append(*d, u)
}

// Pop is for container/heap.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	u := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return u
}
