// SPDX-License-Identifier: Apache-2.0

package rooms

import "sync"

// pending holds events and state groups from the moment they are planned until their commit is through or has failed: until then they
// are nowhere else, and the caches, which hold only what is stored, may push out anything.
type pending struct {
	mu     sync.RWMutex
	events map[int64]*Stored
	ids    map[string]*Stored
	groups map[int64]*group
}

func newPending() *pending {
	return &pending{events: map[int64]*Stored{}, ids: map[string]*Stored{}, groups: map[int64]*group{}}
}

func (p *pending) addEvent(e *Stored) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[e.NID], p.ids[e.ID()] = e, e
}

func (p *pending) addGroup(g *group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groups[g.id] = g
}

func (p *pending) event(nid int64) *Stored {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.events[nid]
}

func (p *pending) byID(id string) *Stored {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.ids[id]
}

func (p *pending) group(id int64) *group {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.groups[id]
}

// drop forgets what a plan made. Two nodes, or a retry, may plan the same event twice: the id goes only with its own nid.
func (p *pending) drop(plan []planned) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range plan {
		if x.stored != nil {
			delete(p.events, x.stored.NID)
			if e := p.ids[x.stored.ID()]; e != nil && e.NID == x.stored.NID {
				delete(p.ids, x.stored.ID())
			}
		}
		for _, g := range x.groups {
			delete(p.groups, g.id)
		}
	}
}
