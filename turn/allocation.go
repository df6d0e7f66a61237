// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/listen"
	"github.com/trunkboard/trunkboard/turn/relay"
)

// allocation is the control plane's side of an allocation (RFC 8656, section 3.2).
type allocation struct {
	who         identity
	realm       *realm
	login       atomic.Pointer[login]
	session     *relay.Session
	tcp         *tcpRelay                    // RFC 6062; nil for UDP relays
	transaction [stun.TransactionIDSize]byte // of the Allocate that made it
	answer      []byte                       // to that one, for its retransmissions

	id      uint64    // of the session for who operates this; set by Server.begin
	started time.Time // likewise

	ended  atomic.Bool                   // set under Server.mu
	stream atomic.Pointer[listen.Stream] // the client's connection: TCP, TLS and DTLS; set under Server.mu

	// Under Server.mu.
	client    netip.AddrPort
	transport string         // as in client
	near      netip.AddrPort // of ours, that the client sends to
	table     *relay.Table   // UDP
	ticket    string         // RFC 8016; empty: the client cannot move

	mu      sync.Mutex
	relays  [2]relayed // IPv4, IPv6
	expires time.Time
	stop    func() bool // the timer
}

// login is what the requests about an allocation are sealed with. A client that came with a token may bring a fresh one, and another kid
// with it (RFC 7635, section 4.2); all others keep theirs.
type login struct {
	username string
	key      []byte
	until    time.Time // the end of the token; zero for those that came with a password
}

// relayed is a relayed transport address.
type relayed struct {
	ports *relay.Ports // nil: none
	port  uint16
}

// Values of REQUESTED-TRANSPORT and of the address families (RFC 8656, sections 18.7 and 18.8).
const (
	protocolTCP = 6
	protocolUDP = 17
	familyIPv4  = 1
	familyIPv6  = 2
)

// errQuota and errCapacity are why an allocation is not made.
var (
	errQuota    = errors.New("the user has as many allocations as one may have")
	errCapacity = errors.New("the server has as many allocations as it may have")
)

// has tells whether there is a relayed address of the family.
func (a *allocation) has(index int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.relays[index].ports != nil
}

// dropRelay gives one relayed address back, unless it is the last.
func (a *allocation) dropRelay(index int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tcp != nil || a.relays[0].ports == nil || a.relays[1].ports == nil {
		return false
	}
	r := a.relays[index]
	a.relays[index] = relayed{}
	r.ports.Retire(r.port)
	a.session.RemoveRelay(r.ports.Addr())
	return true
}

// userState is what the server holds for a user who has allocations.
type userState struct {
	allocations map[*allocation]struct{}
	bandwidth   *relay.Bandwidth // of all of them together
}

// room tells whether the user may have one more allocation.
func (s *Server) room(r *realm, user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomLocked(r, user)
}

func (s *Server) roomLocked(r *realm, user string) error {
	key, have := r.user(user), 0
	if u := s.users[key]; u != nil {
		have = len(u.allocations)
	}
	switch {
	case s.closed || s.cfg.TotalQuota >= 0 && s.total >= s.cfg.TotalQuota || r.TotalQuota >= 0 && r.total >= r.TotalQuota:
		return errCapacity
	case r.UserQuota >= 0 && have+s.reservedBy[key] >= r.UserQuota:
		return errQuota
	}
	return nil
}

// begin enters an allocation and starts its relays. near is the socket that the client sends to, nil for a connection.
func (s *Server) begin(a *allocation, links []*relay.Relay, near relay.Socket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomLocked(a.realm, a.who.user); err != nil {
		return err
	}
	if a.table != nil && a.table.Get(a.client) != nil {
		return errCapacity // another socket of the same port has just made one for this 5-tuple; the client's retransmission meets it
	}
	key := a.realm.user(a.who.user)
	u := s.users[key]
	if u == nil {
		u = &userState{allocations: make(map[*allocation]struct{}, 1), bandwidth: relay.NewBandwidth(a.realm.UserBandwidth)}
		s.users[key] = u
	}
	u.allocations[a] = struct{}{}
	s.sessions++
	a.id, a.started = s.sessions, s.cfg.Clock.Now()
	s.total++
	a.realm.total++
	a.session.Limit(relay.NewBandwidth(a.realm.SessionBandwidth), u.bandwidth, a.realm.bandwidth, s.bandwidth)
	s.counts.allocated.Add(1)
	if a.table != nil {
		a.table.Put(a.client, a.session)
	}
	if a.ticket != "" {
		s.tickets[a.ticket] = a
	}
	for _, link := range links {
		r := a.relays[familyIndex(link.Socket.Addr().Addr())]
		r.ports.Enlist(r.port)
		s.tracked.Add(1)
		link.Serve(func() {
			r.ports.Release(r.port)
			s.tracked.Done()
		}, near)
	}
	if a.tcp != nil {
		a.tcp.serve()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stop = s.cfg.Clock.AfterFunc(a.expires.Sub(s.cfg.Clock.Now()), func() { s.expire(a) })
	s.tell(SessionNew, s.describe(a))
	return nil
}

// expire ends an allocation whose time has come, or waits for the time that a Refresh has set since.
func (s *Server) expire(a *allocation) {
	a.mu.Lock()
	left := a.expires.Sub(s.cfg.Clock.Now())
	if left > 0 && !a.ended.Load() {
		a.stop = s.cfg.Clock.AfterFunc(left, func() { s.expire(a) })
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	s.end(a, "expired")
}

// end frees an allocation. Its ports become free when the relay sockets have closed.
func (s *Server) end(a *allocation, why string) {
	s.mu.Lock()
	if a.ended.Load() {
		s.mu.Unlock()
		return
	}
	a.ended.Store(true)
	key := a.realm.user(a.who.user)
	u := s.users[key]
	if delete(u.allocations, a); len(u.allocations) == 0 {
		delete(s.users, key)
	}
	s.total--
	a.realm.total--
	if a.table != nil {
		a.table.Delete(a.client)
	}
	if a.ticket != "" {
		delete(s.tickets, a.ticket)
	}
	client := a.client
	a.mu.Lock()
	last := s.describe(a)
	a.mu.Unlock()
	s.mu.Unlock()

	a.mu.Lock()
	a.stop()
	for _, r := range a.relays {
		if r.ports != nil {
			r.ports.Retire(r.port)
		}
	}
	a.mu.Unlock()
	a.session.Close()
	if a.tcp != nil {
		a.tcp.close()
	}
	if st := a.stream.Load(); st != nil {
		if why == "released" {
			st.Patient(false)
		} else {
			st.Close()
		}
	}
	last.ToPeer, last.ToClient = amount(&a.session.ToPeer), amount(&a.session.ToClient)
	s.tell(SessionDeleted, last)
	s.log.Debug("turn: allocation ended", "client", client, "user", a.who.user, "why", why,
		"bytes_to_peer", a.session.ToPeer.Bytes.Load(), "bytes_to_client", a.session.ToClient.Bytes.Load())
}

// revoked ends the allocations that were made with credentials which have just been revoked.
func (s *Server) revoked(p party, until int64) {
	s.mu.Lock()
	var dead []*allocation
	for _, r := range s.realms {
		u := s.users[r.user(p.user)]
		if u == nil {
			continue
		}
		for a := range u.allocations {
			if (p.device == "" || a.who.device == p.device) && a.who.issued <= until {
				dead = append(dead, a)
			}
		}
	}
	s.mu.Unlock()
	for _, a := range dead {
		s.end(a, "revoked")
	}
}

// closeWithServer makes Close close a connection that is not yet a stream.
func (s *Server) closeWithServer(conn net.Conn) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return func() {}
	}
	s.pending[conn] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.pending, conn)
	}
}
