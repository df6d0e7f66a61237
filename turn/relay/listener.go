// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"
	"sync"

	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// Table finds the session of a client that speaks UDP by the client's address: one table for each address that we listen on, so
// that both together are the 5-tuple (RFC 8656, section 2.2).
type Table struct {
	shards [tableShards]struct {
		mu sync.RWMutex
		m  map[netip.AddrPort]*Session
		_  [32]byte // a cache line of its own
	}
}

const tableShards = 64

func (t *Table) shard(a netip.AddrPort) int {
	return int(a.Port()^a.Port()>>6) % tableShards
}

// Get finds the session of a client, nil if it has none.
func (t *Table) Get(client netip.AddrPort) *Session {
	s := &t.shards[t.shard(client)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[client]
}

// Put enters a session.
func (t *Table) Put(client netip.AddrPort, session *Session) {
	s := &t.shards[t.shard(client)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[netip.AddrPort]*Session)
	}
	s.m[client] = session
}

// Delete removes a session.
func (t *Table) Delete(client netip.AddrPort) {
	s := &t.shards[t.shard(client)]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, client)
}

// Listener reads what clients send over UDP: ChannelData is relayed at once, everything else goes to Control.
type Listener struct {
	Plane  *Plane
	Socket Socket
	Table  *Table
	// Control handles a STUN message in the listener's goroutine. The packet is lent for the time of the call.
	Control func(b *Batch, packet []byte, from netip.AddrPort)
	// Other, unless nil, is asked under the same terms whether it takes a packet that is neither STUN nor ChannelData.
	Other func(packet []byte, from netip.AddrPort) bool
}

// Serve serves clients until the socket is closed; it returns at once, and calls freed when the socket has been freed.
func (l *Listener) Serve(freed func()) { l.Socket.Serve(l.fromClients, freed, nil) }

// fromClients collects consecutive packets of one channel into a run, which the engine sends in one go.
func (l *Listener) fromClients(b *Batch) {
	now := l.Plane.now().UnixNano()
	var (
		flow    *Flow
		client  netip.AddrPort
		session *Session
		channel uint16
		run     = b.run[:0]
	)
	flush := func() {
		if len(run) > 0 {
			flow.Send(b, run)
			run = run[:0]
		}
	}
	for i := range b.Len() {
		p, from := b.Packet(i), b.From(i)
		switch stunmsg.Classify(p) {
		case stunmsg.Channel:
			c, payload, ok := stunmsg.ChannelData(p)
			if !ok {
				l.Plane.Counts.drop(DropUnknown, 1)
				continue
			}
			if flow == nil || from != client || c != channel {
				flush()
				if session == nil || from != client {
					session = l.Table.Get(from)
				}
				client, channel, flow = from, c, nil
				if session == nil {
					l.Plane.Counts.drop(DropNoChannel, 1)
					continue
				}
				if flow = session.Channel(c, now, 1); flow == nil {
					continue
				}
			}
			run = append(run, payload)
		case stunmsg.STUN:
			flush()
			l.Control(b, p, from)
			// It may have bound, freed or allocated: look up again.
			flow, session = nil, nil
		default:
			if l.Other == nil || !l.Other(p, from) {
				l.Plane.Counts.drop(DropUnknown, 1)
			}
		}
	}
	flush()
}
