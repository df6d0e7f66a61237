// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/listen"
	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// allocation is the control plane's side of an allocation (RFC 8656, section 3.2).
type allocation struct {
	who         identity
	username    string
	key         []byte
	client      netip.AddrPort
	table       *relay.Table   // UDP
	stream      *listen.Stream // TCP and TLS
	session     *relay.Session
	ports       *relay.Ports
	port        uint16
	transaction [stun.TransactionIDSize]byte // of the Allocate that made it
	answer      []byte                       // to that one, for its retransmissions

	ended atomic.Bool // set under Server.mu

	mu      sync.Mutex
	expires time.Time
	stop    func() bool // the timer
}

// reservationToken is the value of RESERVATION-TOKEN (RFC 8656, section 18.9).
type reservationToken [8]byte

// reservation is a relay socket that waits for the Allocate that takes it.
type reservation struct {
	user  string
	sock  relay.Socket
	ports *relay.Ports
	stop  func() bool
}

func (r *reservation) drop() {
	r.stop()
	r.sock.Close()
	r.ports.Release(r.sock.Addr().Port())
}

// reservationTime is how long a reserved port waits (RFC 8656, section 7.2, recommends 30 s).
const reservationTime = 30 * time.Second

// Values of REQUESTED-TRANSPORT and of the address families (RFC 8656, sections 18.7 and 18.8).
const (
	protocolUDP = 17
	familyIPv4  = 1
	familyIPv6  = 2
)

// errQuota and errCapacity are why an allocation is not made.
var (
	errQuota    = errors.New("the user has as many allocations as one may have")
	errCapacity = errors.New("the server has as many allocations as it may have")
)

// allocate answers an Allocate request (RFC 8656, section 7.2).
func (h *handler) allocate(c *client, a *allocation, who caller) {
	s := h.s
	if a != nil {
		if a.transaction == h.req.TransactionID && a.username == who.username {
			c.send(a.answer) // the answer was lost
			return
		}
		h.refuse(c, 437, "Allocation Mismatch")
		return
	}
	transport, err := h.req.Get(stun.AttrRequestedTransport)
	if err != nil || len(transport) != 4 {
		h.refuse(c, 400, "Bad Request")
		return
	}
	if transport[0] != protocolUDP {
		h.refuse(c, 442, "Unsupported Transport Protocol")
		return
	}
	even, evenErr := h.req.Get(stun.AttrEvenPort)
	token, tokenErr := h.req.Get(stun.AttrReservationToken)
	fam, famErr := h.req.Get(stun.AttrRequestedAddressFamily)
	if evenErr == nil && (len(even) != 1 || tokenErr == nil) || tokenErr == nil && (len(token) != 8 || famErr == nil) || famErr == nil && len(fam) != 4 {
		h.refuse(c, 400, "Bad Request")
		return
	}
	index := 0
	if famErr == nil {
		switch fam[0] {
		case familyIPv4:
		case familyIPv6:
			index = 1
		default:
			h.refuse(c, 440, "Address Family not Supported")
			return
		}
	}
	ports := s.ports[index]
	if ports == nil {
		h.refuse(c, 440, "Address Family not Supported")
		return
	}
	lifetime, ok := h.lifetime()
	if !ok {
		h.refuse(c, 400, "Bad Request")
		return
	}
	if s.draining.Load() {
		h.refuse(c, 508, "Insufficient Capacity")
		return
	}
	if err := s.room(who.user); err != nil {
		h.refuseQuota(c, err)
		return
	}

	var sock, above relay.Socket
	switch {
	case tokenErr == nil:
		r := s.takeReservation(reservationToken(token), who.user)
		if r == nil {
			h.refuse(c, 508, "Insufficient Capacity")
			return
		}
		sock, ports = r.sock, r.ports
	case evenErr == nil:
		sock, above, err = ports.OpenEven(even[0]&0x80 != 0)
	default:
		sock, err = ports.Open()
	}
	if err != nil {
		if !errors.Is(err, relay.ErrNoPort) {
			s.log.Warn("turn: cannot open a relay socket", "error", err)
		}
		h.refuse(c, 508, "Insufficient Capacity")
		return
	}
	a = &allocation{
		who: who.identity, username: who.username, key: bytes.Clone(who.key), client: c.remote, table: c.table, stream: c.stream,
		session: s.plane.NewSession(c.sink(), s.peers.open, s.cfg.MaxPeers), ports: ports, port: sock.Addr().Port(),
		transaction: h.req.TransactionID, expires: s.cfg.Clock.Now().Add(lifetime),
	}
	a.session.Owner = a
	link := a.session.AddRelay(sock)

	h.begin(stun.ClassSuccessResponse)
	shown := netip.AddrPortFrom(s.peers.shown[ports.Addr()], a.port)
	h.addAddress(stun.AttrXORRelayedAddress, shown)
	h.out.Add(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(lifetime/time.Second)))
	h.addAddress(stun.AttrXORMappedAddress, c.remote)
	if above != nil {
		if t, ok := s.reserve(above, ports, who.user); ok {
			h.out.Add(stun.AttrReservationToken, t[:])
		}
	}
	h.seal()
	a.answer = bytes.Clone(h.out.Raw)
	if err := s.begin(a, link, c.socket); err != nil {
		sock.Close()
		ports.Release(a.port)
		h.refuseQuota(c, err)
		return
	}
	if s.creds.isRevoked(who.identity) { // in the moment between the check and the entry
		s.end(a, "revoked")
		h.refuse(c, 401, "Unauthenticated")
		return
	}
	if c.stream != nil {
		c.alloc = a
		c.stream.Patient(true)
	}
	c.send(a.answer)
	s.log.Debug("turn: allocated", "client", c.remote, "transport", c.transport, "relay", shown, "user", who.user, "lifetime", lifetime)
}

func (h *handler) refuseQuota(c *client, err error) {
	if errors.Is(err, errQuota) {
		h.refuse(c, 486, "Allocation Quota Reached")
	} else {
		h.refuse(c, 508, "Insufficient Capacity")
	}
}

func (h *handler) addAddress(t stun.AttrType, a netip.AddrPort) {
	v := stunmsg.AppendXORAddress(nil, uint16(t), a, h.out.TransactionID[:])
	h.out.Add(t, v[4:])
}

// lifetime reads LIFETIME and brings it between the default and the longest one (RFC 8656, section 7.2).
func (h *handler) lifetime() (time.Duration, bool) {
	v, err := h.req.Get(stun.AttrLifetime)
	if err != nil {
		return h.s.cfg.DefaultLifetime, true
	}
	if len(v) != 4 {
		return 0, false
	}
	asked := time.Duration(binary.BigEndian.Uint32(v)) * time.Second
	return min(max(asked, h.s.cfg.DefaultLifetime), h.s.cfg.MaxLifetime), true
}

// refresh answers a Refresh request (RFC 8656, section 8.2).
func (h *handler) refresh(c *client, a *allocation, _ caller) {
	lifetime, ok := h.lifetime()
	if !ok {
		h.refuse(c, 400, "Bad Request")
		return
	}
	if fam, err := h.req.Get(stun.AttrRequestedAddressFamily); err == nil {
		if len(fam) != 4 || fam[0] != familyIPv4 && fam[0] != familyIPv6 {
			h.refuse(c, 400, "Bad Request")
			return
		}
		if int(fam[0]) != familyIndex(a.ports.Addr())+familyIPv4 {
			h.refuse(c, 443, "Peer Address Family Mismatch")
			return
		}
	}
	if v, err := h.req.Get(stun.AttrLifetime); err == nil && binary.BigEndian.Uint32(v) == 0 {
		lifetime = 0
		h.s.end(a, "released")
	} else {
		a.mu.Lock()
		a.expires = h.s.cfg.Clock.Now().Add(lifetime)
		a.mu.Unlock()
	}
	h.begin(stun.ClassSuccessResponse)
	h.out.Add(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(lifetime/time.Second)))
	h.finish(c)
}

// createPermission answers a CreatePermission request (RFC 8656, section 10.2): all of its peers are permitted, or none.
func (h *handler) createPermission(c *client, a *allocation, _ caller) {
	var peers []relay.Peer
	for _, attr := range h.req.Attributes {
		if attr.Type != stun.AttrXORPeerAddress {
			continue
		}
		addr, ok := stunmsg.XORAddress(attr.Value, h.req.TransactionID[:])
		if !ok {
			h.refuse(c, 400, "Bad Request")
			return
		}
		peer, ok := h.s.peers.check(addr)
		if !ok {
			h.refuse(c, 403, "Forbidden")
			return
		}
		peers = append(peers, peer)
	}
	if len(peers) == 0 {
		h.refuse(c, 400, "Bad Request")
		return
	}
	h.bound(c, a.session.Permit(h.s.cfg.Clock.Now().Add(h.s.cfg.PermissionLifetime), peers...))
}

// channelBind answers a ChannelBind request (RFC 8656, section 12.2).
func (h *handler) channelBind(c *client, a *allocation, _ caller) {
	number, err := h.req.Get(stun.AttrChannelNumber)
	value, err2 := h.req.Get(stun.AttrXORPeerAddress)
	addr, ok := stunmsg.XORAddress(value, h.req.TransactionID[:])
	if err != nil || err2 != nil || !ok || len(number) != 4 {
		h.refuse(c, 400, "Bad Request")
		return
	}
	channel := binary.BigEndian.Uint16(number)
	highest := uint16(stunmsg.MaxChannel)
	if h.s.cfg.LegacyChannels {
		highest = stunmsg.MaxLegacyChannel
	}
	if channel < stunmsg.MinChannel || channel > highest {
		h.refuse(c, 400, "Bad Request")
		return
	}
	peer, ok := h.s.peers.check(addr)
	if !ok || peer.Own && !h.s.peers.open(peer.Actual) {
		h.refuse(c, 403, "Forbidden")
		return
	}
	now := h.s.cfg.Clock.Now()
	h.bound(c, a.session.Bind(channel, peer, now.Add(h.s.cfg.ChannelLifetime), now.Add(h.s.cfg.PermissionLifetime)))
}

// bound answers a CreatePermission or ChannelBind after the session has said what became of it.
func (h *handler) bound(c *client, err error) {
	switch {
	case err == nil:
		h.begin(stun.ClassSuccessResponse)
		h.finish(c)
	case errors.Is(err, relay.ErrFamily):
		h.refuse(c, 443, "Peer Address Family Mismatch")
	case errors.Is(err, relay.ErrFull):
		h.refuse(c, 508, "Insufficient Capacity")
	default:
		h.refuse(c, 400, "Bad Request")
	}
}

// room tells whether the user may have one more allocation.
func (s *Server) room(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomLocked(user)
}

func (s *Server) roomLocked(user string) error {
	switch {
	case s.closed || s.cfg.TotalQuota >= 0 && s.total >= s.cfg.TotalQuota:
		return errCapacity
	case s.cfg.UserQuota >= 0 && len(s.users[user])+s.reservedBy[user] >= s.cfg.UserQuota:
		return errQuota
	}
	return nil
}

// begin enters an allocation and starts its relay. near is the socket that the client sends to, nil for a connection.
func (s *Server) begin(a *allocation, link *relay.Relay, near relay.Socket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomLocked(a.who.user); err != nil {
		return err
	}
	if a.table != nil && a.table.Get(a.client) != nil {
		return errCapacity // another socket of the same port has just made one for this 5-tuple; the client's retransmission meets it
	}
	u := s.users[a.who.user]
	if u == nil {
		u = make(map[*allocation]struct{}, 1)
		s.users[a.who.user] = u
	}
	u[a] = struct{}{}
	s.total++
	s.counts.allocated.Add(1)
	if a.table != nil {
		a.table.Put(a.client, a.session)
	}
	a.ports.Enlist(a.port)
	s.tracked.Add(1)
	link.Serve(func() {
		a.ports.Release(a.port)
		s.tracked.Done()
	}, near)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stop = s.cfg.Clock.AfterFunc(a.expires.Sub(s.cfg.Clock.Now()), func() { s.expire(a) })
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

// end frees an allocation. Its port becomes free when the relay socket has closed.
func (s *Server) end(a *allocation, why string) {
	s.mu.Lock()
	if a.ended.Load() {
		s.mu.Unlock()
		return
	}
	a.ended.Store(true)
	u := s.users[a.who.user]
	if delete(u, a); len(u) == 0 {
		delete(s.users, a.who.user)
	}
	s.total--
	if a.table != nil {
		a.table.Delete(a.client)
	}
	s.mu.Unlock()

	a.mu.Lock()
	a.stop()
	a.mu.Unlock()
	a.ports.Retire(a.port)
	a.session.Close()
	if a.stream != nil {
		if why == "released" {
			a.stream.Patient(false)
		} else {
			a.stream.Close()
		}
	}
	s.log.Debug("turn: allocation ended", "client", a.client, "user", a.who.user, "why", why,
		"bytes_to_peer", a.session.ToPeer.Bytes.Load(), "bytes_to_client", a.session.ToClient.Bytes.Load())
}

// revoked ends the allocations that were made with credentials which have just been revoked.
func (s *Server) revoked(p party, until int64) {
	s.mu.Lock()
	var dead []*allocation
	for a := range s.users[p.user] {
		if (p.device == "" || a.who.device == p.device) && a.who.issued <= until {
			dead = append(dead, a)
		}
	}
	s.mu.Unlock()
	for _, a := range dead {
		s.end(a, "revoked")
	}
}

// reserve keeps a socket for the Allocate that brings the token. While it waits it counts as one of the user's allocations.
func (s *Server) reserve(sock relay.Socket, ports *relay.Ports, user string) (t reservationToken, ok bool) {
	_, _ = rand.Read(t[:]) // never fails
	r := &reservation{user: user, sock: sock, ports: ports}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.stop = s.cfg.Clock.AfterFunc(reservationTime, func() {
		if r := s.takeReservation(t, user); r != nil {
			r.drop()
		}
	})
	if s.closed {
		r.drop()
		return t, false
	}
	s.reserved[t] = r
	s.reservedBy[user]++
	return t, true
}

// takeReservation finds the socket of a token that the same user was given, once.
func (s *Server) takeReservation(t reservationToken, user string) *reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reserved[t]
	if r == nil || r.user != user {
		return nil
	}
	delete(s.reserved, t)
	if s.reservedBy[user]--; s.reservedBy[user] == 0 {
		delete(s.reservedBy, user)
	}
	r.stop()
	return r
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
