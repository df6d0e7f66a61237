// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/sfu/transport"
)

// Message is a data message for the others in a room.
type Message struct {
	Label  string // of the data channel
	Body   []byte // not changed any more
	To     []string
	Number uint32 // of a message on the reliable channel, which its sender counts; 0 where he does not
}

// How long and how much of what was said on reliable channels is kept, for those who have none at the moment. What is older, and the oldest
// of what is too much, they miss.
const (
	recallFor  = 20 * time.Second // a connection is given up after less
	recallMost = 256 << 10        // bytes, in one room
	recallEach = 128              // bytes that a message costs besides its body
)

// kept is a numbered message that was said.
type kept struct {
	Message
	from string // SID
	at   time.Time
}

// recall is what was said lately in a room, the oldest first. Guarded by room.mu.
type recall struct {
	list  []kept
	bytes int
}

func (r *recall) add(k kept) {
	r.list = append(r.list, k)
	r.bytes += len(k.Body) + recallEach
	r.prune(k.at)
}

func (r *recall) prune(now time.Time) {
	n := 0
	for n < len(r.list) && (r.bytes > recallMost || now.Sub(r.list[n].at) > recallFor) {
		r.bytes -= len(r.list[n].Body) + recallEach
		n++
	}
	if n > 0 {
		r.list = slices.Delete(r.list, 0, n) // clears what is behind
	}
	if len(r.list) == 0 {
		r.list = nil
	}
}

// ear is what a participant has heard on reliable channels. Guarded by room.mu.
type ear struct {
	said   uint32            // the number of the last message from it
	open   bool              // it has a channel, and all that was said on it reaches it
	since  time.Time         // when not: since when
	told   map[string]uint32 // the last message that it has, by the SID of who said it: its own word
	toldAt time.Time
}

// misses says whether a message that was kept did not reach a participant that has a new channel.
func (e *ear) misses(k *kept, now time.Time) bool {
	if !e.open && !k.at.Before(e.since) {
		return true
	}
	return !e.toldAt.IsZero() && now.Sub(e.toldAt) < recallFor && k.Number > e.told[k.from]
}

func (m *Message) reaches(p *Participant) bool {
	return len(m.To) == 0 || slices.Contains(m.To, p.profile.Identity)
}

// Broadcast sends a data message to the others, or to those of them who are named. A numbered message that was heard before is left
// out: clients send again what they do not know to have arrived.
func (p *Participant) Broadcast(m Message) error {
	if len(m.Body) > transport.MaxMessage {
		return fmt.Errorf("%w: a message of %d bytes", ErrForbidden, len(m.Body))
	}
	r := p.room
	r.mu.Lock()
	if !p.profile.Permissions.Data || p.state == Disconnected {
		r.mu.Unlock()
		return ErrForbidden
	}
	numbered := m.Label == transport.Reliable && m.Number > 0
	if numbered {
		if m.Number <= p.ear.said {
			r.mu.Unlock()
			return nil
		}
		p.ear.said = m.Number
		r.recall.add(kept{m, p.sid, r.engine.now()})
	}
	var to []*Participant
	for _, o := range r.order {
		if o != p && m.reaches(o) && (!numbered || o.ear.open) {
			to = append(to, o)
		}
	}
	r.mu.Unlock()
	deliver(to, m.Label, m.Body)
	return nil
}

// Heard takes which numbered message of each of the others, by SID, reached the client last. It counts if the client gets a new channel.
func (p *Participant) Heard(last map[string]uint32) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.ear.told, p.ear.toldAt = last, p.room.engine.now()
}

// Channel implements transport.Handler: who has a new reliable channel gets what it has missed, before anything else.
func (c *connection) Channel(label string, open bool) {
	p := c.p
	if label != transport.Reliable {
		return
	}
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	now := p.room.engine.now()
	switch {
	case p.state == Disconnected || c != p.receiving:
	case !open:
		p.ear.open, p.ear.since = false, now
	default:
		p.room.recall.prune(now)
		for i := range p.room.recall.list {
			if k := &p.room.recall.list[i]; k.from != p.sid && k.reaches(p) && p.ear.misses(k, now) {
				_ = c.session.SendData(label, k.Body) // what there is fits into an empty channel
			}
		}
		p.ear.open = true
	}
}
