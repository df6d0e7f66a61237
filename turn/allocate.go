// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// Attributes that the codec does not name.
const (
	attrAdditionalFamily = stun.AttrType(0x8000) // RFC 8656, section 18.11
	attrAddressError     = stun.AttrType(0x8001) // RFC 8656, section 18.12
	attrDraftFamily      = stun.AttrType(0x8032) // ADDITIONAL-ADDRESS-FAMILY before it had a number; coturn and its clients
	attrDraftError       = stun.AttrType(0x8033) // ADDRESS-ERROR-CODE likewise
	attrMobilityTicket   = stun.AttrType(0x8030) // RFC 8016, section 4
)

// wish is what an Allocate request asks for.
type wish struct {
	tcp      bool
	families []int // indexes; the first must be had, the second (ADDITIONAL-ADDRESS-FAMILY) may be missing
	even     []byte
	token    []byte
	mobile   bool
	lifetime time.Duration
}

// wish reads an Allocate request (RFC 8656, section 7.2; RFC 6062, section 5.1; RFC 8016, section 3.1) and gives the error to answer
// if it makes no sense.
func (h *handler) wish(c *client) (w wish, code int, reason string) {
	bad := func() (wish, int, string) { return wish{}, 400, "Bad Request" }
	transport, err := h.req.Get(stun.AttrRequestedTransport)
	if err != nil || len(transport) != 4 {
		return bad()
	}
	switch transport[0] {
	case protocolUDP:
	case protocolTCP:
		w.tcp = h.s.cfg.TCPRelays
	}
	if transport[0] != protocolUDP && !w.tcp {
		return w, 442, "Unsupported Transport Protocol"
	}
	get := func(t stun.AttrType, size int) (v []byte, ok, wrong bool) {
		v, err := h.req.Get(t)
		return v, err == nil, err == nil && len(v) != size
	}
	even, isEven, wrongEven := get(stun.AttrEvenPort, 1)
	token, isToken, wrongToken := get(stun.AttrReservationToken, 8)
	fam, isFamily, wrongFamily := get(stun.AttrRequestedAddressFamily, 4)
	more, isMore, wrongMore := get(attrAdditionalFamily, 4)
	if !isMore {
		more, isMore, wrongMore = get(attrDraftFamily, 4)
	}
	switch {
	case wrongEven || wrongToken || wrongFamily || wrongMore,
		isToken && (isEven || isFamily || isMore),
		isFamily && isMore,
		isMore && more[0] != familyIPv6,
		isMore && isEven && even[0]&0x80 != 0,
		w.tcp && (isEven || isToken || isMore || h.req.Contains(stun.AttrDontFragment) || c.transport == "udp" || c.transport == "dtls"):
		return bad()
	}
	w.families = []int{0}
	switch {
	case isMore:
		w.families = []int{0, 1}
	case isFamily && fam[0] == familyIPv6:
		w.families = []int{1}
	case isFamily && fam[0] != familyIPv4:
		return w, 440, "Address Family not Supported"
	}
	if isEven {
		w.even = even
	}
	if isToken {
		w.token = token
	}
	if ticket, err := h.req.Get(attrMobilityTicket); err == nil {
		if len(ticket) != 0 {
			return bad()
		}
		if !h.s.cfg.Mobility {
			return w, 405, "Mobility Forbidden"
		}
		w.mobile = true
	}
	lifetime, ok := h.lifetime()
	if !ok {
		return bad()
	}
	w.lifetime = lifetime
	return w, 0, ""
}

// allocate answers an Allocate request.
func (h *handler) allocate(c *client, a *allocation, who caller) {
	s := h.s
	if a != nil {
		if a.transaction == h.req.TransactionID && a.login.Load().username == who.username && a.realm == who.realm {
			c.send(a.answer) // the answer was lost
			return
		}
		h.refuse(c, 437, "Allocation Mismatch")
		return
	}
	w, code, reason := h.wish(c)
	if code != 0 {
		h.refuse(c, code, reason)
		return
	}
	if h.redirect(c) {
		return
	}
	if s.draining.Load() {
		h.refuse(c, 508, "Insufficient Capacity")
		return
	}
	if err := s.room(who.realm, who.user); err != nil {
		h.refuseQuota(c, err)
		return
	}
	a = &allocation{
		who: who.identity, realm: who.realm, client: c.remote, transport: c.transport, near: c.near(), table: c.table,
		session: s.plane.NewSession(c.sink(), s.peers.open, s.cfg.MaxPeers), transaction: h.req.TransactionID,
		expires: s.cfg.Clock.Now().Add(w.lifetime),
	}
	a.login.Store(&login{username: who.username, key: bytes.Clone(who.key), until: h.until})
	a.stream.Store(c.stream)
	a.session.Owner = a
	if w.mobile {
		a.ticket = newTicket()
	}
	var opened opened
	if w.tcp {
		opened.code, opened.reason = h.openTCP(a, c, w.families[0])
	} else {
		opened = h.open(a, w, who)
	}
	if len(opened.links) == 0 && a.tcp == nil {
		h.refuse(c, opened.code, opened.reason)
		return
	}

	h.begin(stun.ClassSuccessResponse)
	for _, r := range a.relays {
		if r.ports != nil {
			h.addAddress(stun.AttrXORRelayedAddress, netip.AddrPortFrom(s.peers.shown[r.ports.Addr()], r.port))
		}
	}
	if opened.code != 0 {
		missing := attrAddressError
		if h.req.Contains(attrDraftFamily) {
			missing = attrDraftError
		}
		h.out.Add(missing, []byte{opened.family, 0, byte(opened.code / 100), byte(opened.code % 100)})
	}
	h.out.Add(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(w.lifetime/time.Second)))
	h.addAddress(stun.AttrXORMappedAddress, c.remote)
	if opened.above != nil {
		if t, ok := s.reserve(opened.above, a.relays[familyIndex(opened.above.Addr().Addr())].ports, who); ok {
			h.out.Add(stun.AttrReservationToken, t[:])
		}
	}
	if w.mobile {
		h.out.Add(attrMobilityTicket, []byte(a.ticket))
	}
	h.seal()
	a.answer = bytes.Clone(h.out.Raw)
	if err := s.begin(a, opened.links, c.socket); err != nil {
		a.session.Close()
		if a.tcp != nil {
			a.tcp.close()
		}
		for _, link := range opened.links {
			r := a.relays[familyIndex(link.Socket.Addr().Addr())]
			r.ports.Release(r.port)
		}
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
	s.log.Debug("turn: allocated", "client", c.remote, "transport", c.transport, "relays", a.relays, "user", who.user, "lifetime", w.lifetime)
}

// opened are the relay sockets of a new allocation, or the error to answer.
type opened struct {
	links  []*relay.Relay
	above  relay.Socket // EVEN-PORT with its neighbour
	code   int          // of the family that could not be had
	family byte
	reason string
}

// open opens the UDP relay sockets of a. With one of two families missing there is still an allocation.
func (h *handler) open(a *allocation, w wish, who caller) (out opened) {
	for _, index := range w.families {
		sock, above, ports, code := h.openRelay(index, w, who)
		if code != 0 {
			if out.code == 0 {
				out.code, out.family = code, byte(index)+familyIPv4
				out.reason = map[int]string{440: "Address Family not Supported", 508: "Insufficient Capacity"}[code]
			}
			continue
		}
		a.relays[familyIndex(sock.Addr().Addr())] = relayed{ports: ports, port: sock.Addr().Port()}
		out.links = append(out.links, a.session.AddRelay(sock))
		out.above = above
	}
	return out
}

// openRelay opens a relay socket of the family: the reserved one, an even one, or any.
func (h *handler) openRelay(index int, w wish, who caller) (sock, above relay.Socket, ports *relay.Ports, code int) {
	s := h.s
	if w.token != nil {
		r := s.takeReservation(reservationToken(w.token), who)
		if r == nil {
			return nil, nil, nil, 508
		}
		return r.sock, nil, r.ports, 0
	}
	all := s.ports[index]
	if len(all) == 0 {
		return nil, nil, nil, 440
	}
	first := rand.IntN(len(all))
	for i := range all {
		ports = all[(first+i)%len(all)]
		var err error
		if w.even != nil {
			sock, above, err = ports.OpenEven(w.even[0]&0x80 != 0)
		} else {
			sock, err = ports.Open()
		}
		if err == nil {
			return sock, above, ports, 0
		}
		if !errors.Is(err, relay.ErrNoPort) {
			s.log.Warn("turn: cannot open a relay socket", "address", ports.Addr(), "err", err)
		}
	}
	return nil, nil, nil, 508
}
