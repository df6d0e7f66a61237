// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net/netip"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/listen"
	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// client is where a message came from: one side of a 5-tuple.
type client struct {
	remote    netip.AddrPort
	transport string // "udp", "tcp", "tls"

	table  *relay.Table // UDP
	socket relay.Socket

	stream *listen.Stream // TCP and TLS
	alloc  *allocation    // the connection's; used in its goroutine only
	data   *dataConn      // what the connection has become a part of (RFC 6062)
}

// allocation finds the live allocation of the 5-tuple.
func (c *client) allocation() *allocation {
	if c.stream != nil {
		if c.alloc != nil && (c.alloc.ended.Load() || c.alloc.stream.Load() != c.stream) {
			c.alloc = nil // ended, or moved to another address
		}
		return c.alloc
	}
	if s := c.table.Get(c.remote); s != nil {
		return s.Owner.(*allocation)
	}
	return nil
}

func (c *client) send(p []byte) {
	if c.stream != nil {
		c.stream.Reply(p)
		return
	}
	c.socket.Send(p, c.remote, false)
}

// near is our end.
func (c *client) near() netip.AddrPort {
	if c.stream != nil {
		return c.stream.Near()
	}
	return c.socket.Addr()
}

// sink is where relayed packets for the client go.
func (c *client) sink() relay.ClientSink {
	if c.stream != nil {
		return c.stream
	}
	return &relay.UDPSink{Socket: c.socket, To: c.remote}
}

// handler answers STUN messages. Each goroutine that reads from clients has its own, for the memory it decodes into.
type handler struct {
	s   *Server
	req stun.Message
	out stun.Message

	fingerprint bool // the request had one
	key         []byte
	realm       *realm    // that it is about
	until       time.Time // the end of the token that it brings; else zero
	moved       []byte    // the new MOBILITY-TICKET of an allocation that the request has moved
}

func newHandler(s *Server) *handler { return &handler{s: s} }

// binding appends the answer to a Binding request, if its source may have one.
func (h *handler) binding(dst, p []byte, from netip.AddrPort) []byte {
	if !h.s.bindings.allow(from.Addr(), h.s.cfg.Clock.Now()) {
		h.s.counts.refusals[refusedRate].Add(1)
		return dst
	}
	n := len(dst)
	if dst = stunmsg.AppendBindingReply(dst, p, from); len(dst) > n {
		h.s.counts.bindings.Add(1)
	}
	return dst
}

// handle answers one message. What is not a request or indication of TURN is dropped (RFC 8489, section 6.3).
func (h *handler) handle(p []byte, c *client) {
	if stunmsg.IsBindingRequest(p) {
		if reply := h.binding(nil, p, c.remote); len(reply) > 0 {
			c.send(reply)
		}
		return
	}
	var ok bool
	if h.fingerprint, ok = stunmsg.Check(p); !ok {
		h.s.plane.Counts.Dropped[relay.DropUnknown].Add(1)
		return
	}
	h.req.Raw = p[:len(p):len(p)] // the integrity check appends to it, and behind p lies the next frame
	h.key, h.moved, h.realm, h.until = nil, nil, h.s.own, time.Time{}
	if h.req.Decode() != nil {
		return
	}
	if h.req.Type == stun.NewType(stun.MethodSend, stun.ClassIndication) {
		h.sendIndication(c)
		return
	}
	if h.req.Type.Class != stun.ClassRequest {
		return
	}
	answer := h.allocate
	switch h.req.Type.Method {
	case stun.MethodAllocate:
	case stun.MethodRefresh:
		answer = h.refresh
	case stun.MethodCreatePermission:
		answer = h.createPermission
	case stun.MethodChannelBind:
		answer = h.channelBind
	case stun.MethodConnect:
		answer = h.connect
	case stun.MethodConnectionBind:
		answer = h.connectionBind
	default:
		return
	}
	a := c.allocation()
	moving := a == nil && h.req.Type.Method == stun.MethodRefresh && h.req.Contains(attrMobilityTicket)
	if moving {
		a = h.movedBy()
	}
	who, ok := h.authenticate(c, a)
	if !ok {
		return
	}
	h.dropUnsealed()
	if unknown := h.unknownAttributes(); len(unknown) > 0 {
		h.begin(stun.ClassErrorResponse)
		h.errorCode(420, "Unknown Attribute")
		_ = unknown.AddTo(&h.out)
		h.finish(c)
		h.s.counts.refusals[refusedUnknownAttribute].Add(1)
		return
	}
	if m := h.req.Type.Method; m != stun.MethodAllocate && m != stun.MethodConnectionBind {
		switch {
		case a == nil && moving:
			h.refuse(c, 400, "Bad Request") // RFC 8016, section 3.2.2: not a ticket of ours
			return
		case a == nil:
			h.refuse(c, 437, "Allocation Mismatch")
			return
		case who.username != a.login.Load().username || who.realm != a.realm:
			h.refuse(c, 441, "Wrong Credentials")
			return
		case moving && !h.move(a, c):
			h.refuse(c, 437, "Allocation Mismatch")
			return
		}
	}
	answer(c, a, who)
}

// dropUnsealed forgets attributes that stand behind MESSAGE-INTEGRITY, which anybody on the way may have appended (RFC 8489, section
// 14.5).
func (h *handler) dropUnsealed() {
	for i, a := range h.req.Attributes {
		if a.Type == stun.AttrMessageIntegrity {
			h.req.Attributes = h.req.Attributes[:i+1]
			return
		}
	}
}

// caller is who has sent an authenticated request.
type caller struct {
	identity
	realm    *realm
	username string
	key      []byte
}

// maxText is the longest REALM and NONCE (RFC 8489, sections 14.9 and 14.10: fewer than 764 bytes).
const maxText = 763

// authenticate makes the checks of RFC 8489, section 9.2.4, in its order, and answers where one fails.
func (h *handler) authenticate(c *client, a *allocation) (caller, bool) {
	s := h.s
	h.realm = h.asked()
	if !h.req.Contains(stun.AttrMessageIntegrity) {
		if len(h.req.Attributes) == 0 {
			// No client begins like this: a bare header is what a reflector would be fed with. The challenge would be longer than half
			// as much again.
			h.refuseStranger(c, 400, false)
		} else {
			h.refuseStranger(c, 401, true)
		}
		return caller{}, false
	}
	username, e1 := h.req.Get(stun.AttrUsername)
	name, e2 := h.req.Get(stun.AttrRealm)
	nonce, e3 := h.req.Get(stun.AttrNonce)
	if e1 != nil || e2 != nil || e3 != nil || len(username) > maxUsername || len(name) > maxText || len(nonce) > maxText {
		h.refuseStranger(c, 400, false)
		return caller{}, false
	}
	if !s.nonces.valid(nonce, s.cfg.Clock.Now(), c.remote, c.transport) {
		h.refuseStranger(c, 438, true)
		return caller{}, false
	}
	who := caller{username: string(username), realm: h.named(string(name))}
	if who.realm == nil {
		h.refuseStranger(c, 401, true)
		return caller{}, false
	}
	h.realm = who.realm
	if s.oauth != nil && h.req.Contains(attrAccessToken) {
		id, key, ok := h.byToken(who.username)
		if !ok {
			h.refuseStranger(c, 401, true)
			return caller{}, false
		}
		who.identity, who.key = id, key
		if a != nil && who.realm == a.realm && h.req.Type.Method != stun.MethodAllocate {
			a.renew(who, h.until)
		}
		return who, true
	}
	if a != nil && who.realm == a.realm {
		if l := a.login.Load(); who.username == l.username {
			// A live allocation outlives its credential: calls do not end when the time to begin one does. Revoking ends both. Only a token
			// has to be followed by another one.
			if l.holds(s.cfg.Clock.Now()) && h.checks(l.key) {
				who.identity, who.key, h.until = a.who, l.key, l.until
				return who, true
			}
			h.refuseStranger(c, 401, true)
			return caller{}, false
		}
	}
	id, err := s.creds.parse(who.username)
	if err == nil {
		for key := range s.creds.keys(who.username, who.realm.Name) {
			if h.checks(key) {
				who.identity, who.key = id, key
				return who, true
			}
		}
	}
	h.refuseStranger(c, 401, true)
	return caller{}, false
}

// checks tells whether the request was made with the key, which then seals the answer.
func (h *handler) checks(key []byte) bool {
	if stun.MessageIntegrity(key).Check(&h.req) != nil {
		return false
	}
	h.key = key
	return true
}

// refuseStranger answers a request whose sender is not known, as long as its source does not ask too often. The answer has no
// reason phrase and no integrity: its size is what a reflector would gain.
func (h *handler) refuseStranger(c *client, code int, challenge bool) {
	now := h.s.cfg.Clock.Now()
	h.s.counts.refusals[refusalCodes[code]].Add(1)
	if !h.s.unauthorized.allow(c.remote.Addr(), now) {
		h.s.counts.refusals[refusedRate].Add(1)
		return
	}
	h.begin(stun.ClassErrorResponse)
	h.errorCode(code, "")
	if challenge {
		h.out.Add(stun.AttrRealm, []byte(h.realm.Name))
		nonce := h.s.nonces.make(now, c.remote, c.transport)
		h.out.Add(stun.AttrNonce, nonce[:])
		if h.s.oauth != nil {
			h.out.Add(attrThirdParty, []byte(h.s.oauth.server))
		}
	}
	c.send(h.out.Raw)
}

// refuse answers an authenticated request with an error.
func (h *handler) refuse(c *client, code int, reason string) {
	h.s.counts.refusals[refusalCodes[code]].Add(1)
	h.begin(stun.ClassErrorResponse)
	h.errorCode(code, reason)
	h.finish(c)
}

// begin starts an answer to the request.
func (h *handler) begin(class stun.MessageClass) {
	h.out.Reset()
	h.out.Type = stun.NewType(h.req.Type.Method, class)
	h.out.TransactionID = h.req.TransactionID
	h.out.WriteHeader()
}

func (h *handler) errorCode(code int, reason string) {
	h.out.Add(stun.AttrErrorCode, append([]byte{0, 0, byte(code / 100), byte(code % 100)}, reason...))
}

// redirect sends the client to another server, if there are some for its address family (RFC 8489, section 10).
func (h *handler) redirect(c *client) bool {
	all := h.s.cfg.Alternates
	for range all {
		to := all[int(h.s.alternate.Add(1))%len(all)]
		if _, ok := h.s.peers.check(to); !ok || to.Addr().Unmap().Is4() != c.remote.Addr().Is4() {
			continue // not for this client, or an address that nobody shall be sent to
		}
		h.begin(stun.ClassErrorResponse)
		h.errorCode(300, "Try Alternate")
		plain := stunmsg.AppendAddress(nil, uint16(stun.AttrAlternateServer), to)
		h.out.Add(stun.AttrAlternateServer, plain[4:])
		h.finish(c)
		return true
	}
	return false
}

// finish seals the answer and sends it.
func (h *handler) finish(c *client) {
	h.seal()
	c.send(h.out.Raw)
}

func (h *handler) seal() {
	if h.key != nil {
		_ = stun.MessageIntegrity(h.key).AddTo(&h.out) // fails only behind a FINGERPRINT, which comes next
	}
	if h.fingerprint {
		_ = stun.Fingerprint.AddTo(&h.out)
	}
}

// maxUnknown bounds the list in a 420 answer.
const maxUnknown = 16

// unknownAttributes lists those that must be understood (RFC 8489, section 14: types below 0x8000) and are not. DONT-FRAGMENT is
// among them where the system cannot do it (RFC 8656, section 7.2).
func (h *handler) unknownAttributes() (out stun.UnknownAttributes) {
	for _, a := range h.req.Attributes {
		if a.Type >= 0x8000 || len(out) == maxUnknown {
			continue
		}
		switch a.Type {
		case stun.AttrUsername, stun.AttrMessageIntegrity, stun.AttrMessageIntegritySHA256, stun.AttrRealm, stun.AttrNonce,
			stun.AttrChannelNumber, stun.AttrLifetime, stun.AttrXORPeerAddress, stun.AttrData, stun.AttrRequestedAddressFamily,
			stun.AttrEvenPort, stun.AttrRequestedTransport, stun.AttrReservationToken, stun.AttrConnectionID:
		case attrAccessToken:
			if h.s.oauth == nil {
				out = append(out, a.Type)
			}
		case stun.AttrDontFragment:
			if !relay.CanSendWhole {
				out = append(out, a.Type)
			}
		default:
			out = append(out, a.Type)
		}
	}
	return out
}

// sendIndication relays a Send indication (RFC 8656, section 11.2). Indications are never answered.
func (h *handler) sendIndication(c *client) {
	a := c.allocation()
	if a == nil || len(h.unknownAttributes()) > 0 {
		h.s.plane.Counts.Dropped[relay.DropNoPermission].Add(1)
		return
	}
	value, err := h.req.Get(stun.AttrXORPeerAddress)
	data, err2 := h.req.Get(stun.AttrData)
	addr, ok := stunmsg.XORAddress(value, h.req.TransactionID[:])
	if err != nil || err2 != nil || !ok {
		h.s.plane.Counts.Dropped[relay.DropUnknown].Add(1)
		return
	}
	peer, ok := h.s.peers.check(addr)
	if !ok {
		h.s.plane.Counts.Dropped[relay.DropNoPermission].Add(1)
		return
	}
	a.session.SendTo(data, peer, h.req.Contains(stun.AttrDontFragment))
}
