// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// Session is an allocation as who operates the server sees it.
type Session struct {
	ID        uint64           `json:"id"` // counted from 1 since the start
	User      string           `json:"user"`
	Device    string           `json:"device,omitempty"`
	Realm     string           `json:"realm"`
	Client    netip.AddrPort   `json:"client"`
	Server    netip.AddrPort   `json:"server"`    // our end
	Transport string           `json:"transport"` // "udp", "tcp", "tls" or "dtls": how the client speaks to us
	Relays    []netip.AddrPort `json:"relays"`    // as peers see them
	TCPRelay  bool             `json:"tcp_relay"` // peers are spoken to over TCP (RFC 6062)
	Started   time.Time        `json:"started"`
	Expires   time.Time        `json:"expires"`
	ToPeer    Amount           `json:"to_peer"`
	ToClient  Amount           `json:"to_client"`

	username string // as the client wrote it
}

// Username is the USERNAME that the client came with; the password that belongs to it is not known by it.
func (s Session) Username() string { return s.username }

// Amount is what was relayed in one direction; Bytes are payload.
type Amount struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// SessionEvent is something that became of a session.
type SessionEvent struct {
	What string // SessionNew, SessionRefreshed or SessionDeleted
	Session
}

// What becomes of sessions, in coturn's words.
const (
	SessionNew       = "new"
	SessionRefreshed = "refreshed"
	SessionDeleted   = "deleted"
)

func amount(t *relay.Traffic) Amount { return Amount{Packets: t.Packets.Load(), Bytes: t.Bytes.Load()} }

// describe is called with Server.mu and a.mu held.
func (s *Server) describe(a *allocation) Session {
	return s.describeAs(a, a.client, a.near, a.transport)
}

// describeAs is called with a.mu held.
func (s *Server) describeAs(a *allocation, client, near netip.AddrPort, transport string) Session {
	d := Session{
		ID: a.id, User: a.who.user, Device: a.who.device, Realm: a.realm.Name, Client: client, Server: near, Transport: transport,
		TCPRelay: a.tcp != nil, Started: a.started, Expires: a.expires, Relays: []netip.AddrPort{},
		ToPeer: amount(&a.session.ToPeer), ToClient: amount(&a.session.ToClient), username: a.login.Load().username,
	}
	for _, r := range a.relays {
		if r.ports != nil {
			d.Relays = append(d.Relays, netip.AddrPortFrom(s.peers.shown[r.ports.Addr()], r.port))
		}
	}
	return d
}

func (s *Server) tell(what string, d Session) {
	if s.cfg.Notify != nil {
		s.cfg.Notify(SessionEvent{What: what, Session: d})
	}
}

// Sessions lists the live sessions, the oldest first.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Session, 0, s.total)
	for _, u := range s.users {
		for a := range u.allocations {
			a.mu.Lock()
			out = append(out, s.describe(a))
			a.mu.Unlock()
		}
	}
	slices.SortFunc(out, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// EndSessions ends the live sessions that match says yes to, as an operator does, and tells how many. Their clients may come back: see
// Credentials.Revoke. match must not call the server.
func (s *Server) EndSessions(match func(Session) bool) int {
	s.mu.Lock()
	var all []*allocation
	for _, u := range s.users {
		for a := range u.allocations {
			a.mu.Lock()
			d := s.describe(a)
			a.mu.Unlock()
			if match(d) {
				all = append(all, a)
			}
		}
	}
	s.mu.Unlock()
	for _, a := range all {
		s.end(a, "ended by the operator")
	}
	return len(all)
}
