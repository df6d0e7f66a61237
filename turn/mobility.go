// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/rand"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// newTicket makes a MOBILITY-TICKET (RFC 8016, section 4): a name that cannot be guessed, for the table of this server.
func newTicket() string { return rand.Text() }

// movedBy finds the allocation whose ticket a Refresh from another address brings.
func (h *handler) movedBy() *allocation {
	ticket, err := h.req.Get(attrMobilityTicket)
	if err != nil || h.req.Type.Method != stun.MethodRefresh {
		return nil
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.s.tickets[string(ticket)]
}

// move gives the allocation to the client's new address (RFC 8016, section 3.2.2), with a new ticket; the old one and the old address
// are good for nothing any more. It counts for its user's quota throughout. It fails if the allocation has just ended or the address has
// just got another one.
func (h *handler) move(a *allocation, c *client) bool {
	s := h.s
	ticket := newTicket()
	s.mu.Lock()
	if a.ended.Load() || c.table != nil && c.table.Get(c.remote) != nil {
		s.mu.Unlock()
		return false
	}
	delete(s.tickets, a.ticket)
	if a.table != nil {
		a.table.Delete(a.client)
	}
	old := a.stream.Load()
	a.ticket, a.client, a.transport, a.near, a.table = ticket, c.remote, c.transport, c.near(), c.table
	a.stream.Store(c.stream)
	s.tickets[ticket] = a
	a.session.Redirect(c.sink())
	if a.table != nil {
		a.table.Put(a.client, a.session)
	}
	s.mu.Unlock()
	if old != nil {
		old.Patient(false)
	}
	if c.stream != nil {
		c.alloc = a
		c.stream.Patient(true)
	}
	h.moved = []byte(ticket)
	s.counts.moved.Add(1)
	return true
}

// leave is called when a client's connection has ended: its allocation ends with it (RFC 8656, section 3), or waits until it expires
// for a client that may come back from elsewhere (RFC 8016, section 3.2.2).
func (s *Server) leave(a *allocation, c *client) {
	if a.tcp == nil && s.detach(a, c) {
		return
	}
	s.end(a, "connection closed")
}

func (s *Server) detach(a *allocation, c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.ticket == "" || a.ended.Load() || a.stream.Load() != c.stream {
		return false
	}
	a.stream.Store(nil)
	a.session.Redirect(relay.NoSink{})
	return true
}
