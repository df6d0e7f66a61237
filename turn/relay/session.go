// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// ClientSink is where packets for a client go: back over the UDP socket it sends to, or into its connection.
type ClientSink interface {
	// SendRun sends ready frames, as Socket.SendRun does, and tells how many were taken. It must not wait.
	SendRun(b *Batch, frames [][]byte) int
	// Stream tells whether ChannelData must be padded to a multiple of 4 (RFC 8656, section 12.5).
	Stream() bool
}

// UDPSink sends to a client that speaks UDP.
type UDPSink struct {
	Socket Socket
	To     netip.AddrPort
}

// SendRun implements ClientSink.
func (s *UDPSink) SendRun(b *Batch, frames [][]byte) int { return s.Socket.SendRun(b, frames, s.To) }

// Stream implements ClientSink.
func (s *UDPSink) Stream() bool { return false }

// NoSink is for a client that cannot be reached at present.
type NoSink struct{}

// SendRun implements ClientSink: everything is lost.
func (NoSink) SendRun(*Batch, [][]byte) int { return 0 }

// Stream implements ClientSink.
func (NoSink) Stream() bool { return false }

// Peer is an address of a peer in its two forms. They differ only where this host stands behind a NAT: then clients know our relay
// addresses by their external form, and packets carry the local one.
type Peer struct {
	Actual netip.AddrPort // on our sockets
	Shown  netip.AddrPort // in messages to and from the client
	// Own tells that the address is this host's own, so that every packet's port must pass Session.Gate.
	Own bool
}

// permission lets one address exchange packets with the client (RFC 8656, section 9).
type permission struct {
	until atomic.Int64 // unix nanoseconds
	shown netip.Addr
	own   bool
}

// Flow is a bound channel (RFC 8656, section 12).
type Flow struct {
	channel uint16
	peer    Peer
	session *Session
	relay   *Relay
	until   atomic.Int64 // unix nanoseconds
	perm    *permission
}

func (f *Flow) live(now int64) bool { return f.until.Load() > now && f.perm.until.Load() > now }

// view is what readers see of a session. It is never changed after it is published.
type view struct {
	channels map[uint16]*Flow
	peers    map[netip.AddrPort]*Flow // by actual address
	perms    map[netip.Addr]*permission
}

// Relay is one relayed transport address of a session: a socket towards peers.
type Relay struct {
	Socket  Socket
	session *Session

	second int64 // of the latest ICMP error, and how many of it the client was told of; the loop's
	told   int
}

// Session is the data plane's side of an allocation. Limits bound its tables.
type Session struct {
	// Owner is the control plane's side, set before the session is entered in a table.
	Owner any

	plane  *Plane
	gate   func(netip.AddrPort) bool
	limit  int
	bounds []*Bandwidth
	sink   atomic.Pointer[ClientSink]
	view   atomic.Pointer[view]

	mu       sync.Mutex               // held by writers of view and relays
	relays   [2]atomic.Pointer[Relay] // IPv4, IPv6
	families [2]atomic.Bool           // that peers may be of without a relay here

	ToPeer, ToClient Traffic
}

// Errors of Session's methods.
var (
	ErrFull         = errors.New("relay: the session has as many permissions or channels as it may have")
	ErrChannelBound = errors.New("relay: the channel is bound to another peer, or the peer to another channel")
	ErrFamily       = errors.New("relay: the session has no relayed address of this family")
)

// NewSession makes a session whose packets go to sink. gate tells whether packets may go to (and come from) an address of this
// host itself; limit bounds the number of permissions and that of channels.
func (p *Plane) NewSession(sink ClientSink, gate func(netip.AddrPort) bool, limit int) *Session {
	s := &Session{plane: p, gate: gate, limit: limit}
	s.sink.Store(&sink)
	s.view.Store(&view{})
	return s
}

// AddRelay gives the session a relayed address; the caller calls Serve. At most one of each family.
func (s *Session) AddRelay(sock Socket) *Relay {
	r := &Relay{Socket: sock, session: s}
	s.relays[family(sock.Addr().Addr())].Store(r)
	return r
}

// RemoveRelay closes the relayed address of the family of a, if there is one; the other family's goes on.
func (s *Session) RemoveRelay(a netip.Addr) {
	if r := s.relays[family(a)].Swap(nil); r != nil {
		r.Socket.Close()
	}
}

// Redirect makes packets for the client go to another sink from now on.
func (s *Session) Redirect(sink ClientSink) { s.sink.Store(&sink) }

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// AddFamily lets peers of the family of a be permitted although packets do not go through this session: it is for relays of TCP.
func (s *Session) AddFamily(a netip.Addr) { s.families[family(a)].Store(true) }

// Permits tells whether the address may exchange packets with the client at present.
func (s *Session) Permits(a netip.Addr) bool {
	p := s.view.Load().perms[a]
	return p != nil && p.until.Load() > s.plane.now().UnixNano()
}

// HasFamily tells whether the session can reach addresses of the family of a.
func (s *Session) HasFamily(a netip.Addr) bool {
	return s.relays[family(a)].Load() != nil || s.families[family(a)].Load()
}

// Close closes the relay sockets; their Serve returns.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.relays {
		if r := s.relays[i].Load(); r != nil {
			r.Socket.Close()
		}
	}
	s.view.Store(&view{})
}

// Permit lets the peers' addresses exchange packets with the client until the given time, or prolongs it: all of them or, with an
// error, none.
func (s *Session) Permit(until time.Time, peers ...Peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.permit(until, peers...)
}

func (s *Session) permit(until time.Time, peers ...Peer) error {
	old := s.view.Load()
	missing := false
	for _, p := range peers {
		if !s.HasFamily(p.Actual.Addr()) {
			return ErrFamily
		}
		missing = missing || old.perms[p.Actual.Addr()] == nil
	}
	next := old
	if missing {
		next = old.prune(s.plane.now().UnixNano())
		for _, p := range peers {
			if next.perms[p.Actual.Addr()] == nil {
				next.perms[p.Actual.Addr()] = &permission{shown: p.Shown.Addr(), own: p.Own}
			}
		}
		if len(next.perms) > s.limit {
			return ErrFull
		}
	}
	for _, p := range peers {
		next.perms[p.Actual.Addr()].until.Store(until.UnixNano())
	}
	if missing {
		s.view.Store(next)
	}
	return nil
}

// Bind binds the channel to the peer and permits the peer, or prolongs both (RFC 8656, section 12.2).
func (s *Session) Bind(channel uint16, peer Peer, until, permitUntil time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.plane.now().UnixNano()
	old := s.view.Load()
	if f := old.channels[channel]; f != nil && f.until.Load() > now && f.peer.Actual != peer.Actual {
		return ErrChannelBound
	}
	if f := old.peers[peer.Actual]; f != nil && f.until.Load() > now && f.channel != channel {
		return ErrChannelBound
	}
	if f := old.channels[channel]; f == nil || f.until.Load() <= now {
		if len(old.prune(now).channels) >= s.limit {
			return ErrFull
		}
	}
	if err := s.permit(permitUntil, peer); err != nil {
		return err
	}
	p := s.view.Load().perms[peer.Actual.Addr()]
	if f := old.channels[channel]; f != nil && f.until.Load() > now && f.perm == p {
		f.until.Store(until.UnixNano())
		return nil
	}
	next := s.view.Load().prune(now)
	f := &Flow{channel: channel, peer: peer, session: s, relay: s.relays[family(peer.Actual.Addr())].Load(), perm: p}
	f.until.Store(until.UnixNano())
	next.channels[channel] = f
	next.peers[peer.Actual] = f
	s.view.Store(next)
	return nil
}

// prune copies v without what has expired.
func (v *view) prune(now int64) *view {
	next := &view{channels: maps.Clone(v.channels), peers: maps.Clone(v.peers), perms: maps.Clone(v.perms)}
	if next.channels == nil {
		next.channels = make(map[uint16]*Flow, 1)
		next.peers = make(map[netip.AddrPort]*Flow, 1)
	}
	if next.perms == nil {
		next.perms = make(map[netip.Addr]*permission, 1)
	}
	maps.DeleteFunc(next.channels, func(_ uint16, f *Flow) bool { return f.until.Load() <= now })
	maps.DeleteFunc(next.peers, func(_ netip.AddrPort, f *Flow) bool { return f.until.Load() <= now })
	maps.DeleteFunc(next.perms, func(_ netip.Addr, p *permission) bool { return p.until.Load() <= now })
	return next
}

// Channel finds the flow of a channel that is bound and permitted at the time now (unix nanoseconds); otherwise it counts n
// dropped packets and returns nil.
func (s *Session) Channel(channel uint16, now int64, n int) *Flow {
	f := s.view.Load().channels[channel]
	switch {
	case f == nil || f.until.Load() <= now:
		s.plane.Counts.drop(DropNoChannel, n)
		return nil
	case f.perm.until.Load() <= now: // RFC 8656, section 12.6
		s.plane.Counts.drop(DropNoPermission, n)
		return nil
	case f.peer.Own && !s.gate(f.peer.Actual):
		s.plane.Counts.drop(DropOwnPort, n)
		return nil
	}
	return f
}

// Send sends payloads of the client to the flow's peer.
func (f *Flow) Send(b *Batch, payloads [][]byte) {
	f.session.send(f.relay, b, payloads, f.peer.Actual)
}

func (s *Session) send(r *Relay, b *Batch, payloads [][]byte, to netip.AddrPort) {
	if payloads = s.within(payloads); len(payloads) == 0 {
		return
	}
	sent := r.Socket.SendRun(b, payloads, to)
	bytes := 0
	for _, p := range payloads {
		bytes += len(p)
	}
	if lost := len(payloads) - sent; lost > 0 {
		s.plane.Counts.drop(DropFull, lost)
		bytes = bytes * sent / len(payloads)
	}
	s.ToPeer.add(sent, bytes)
	s.plane.Counts.ToPeer.add(sent, bytes)
}

// SendTo sends the payload of a Send indication (RFC 8656, section 11.2) if the peer is permitted. whole forbids fragmenting it
// (DONT-FRAGMENT, RFC 8656, section 18.12).
func (s *Session) SendTo(payload []byte, peer Peer, whole bool) {
	now := s.plane.now().UnixNano()
	p := s.view.Load().perms[peer.Actual.Addr()]
	switch {
	case p == nil || p.until.Load() <= now:
		s.plane.Counts.drop(DropNoPermission, 1)
		return
	case (p.own || peer.Own) && !s.gate(peer.Actual):
		s.plane.Counts.drop(DropOwnPort, 1)
		return
	}
	if !s.May(len(payload), now) {
		s.plane.Counts.drop(DropBandwidth, 1)
		return
	}
	r := s.relays[family(peer.Actual.Addr())].Load()
	if r == nil || !r.Socket.Send(payload, peer.Actual, whole) {
		s.plane.Counts.drop(DropFull, 1)
		return
	}
	s.ToPeer.add(1, len(payload))
	s.plane.Counts.ToPeer.add(1, len(payload))
}

// FromStream relays ChannelData frames that a client has sent over a connection, runs of one channel in one go. b is working
// memory (Plane.Lease).
func (s *Session) FromStream(b *Batch, frames [][]byte) {
	now := s.plane.now().UnixNano()
	var flow *Flow
	var channel uint16
	run := b.run[:0]
	for _, p := range frames {
		c, payload, ok := stunmsg.ChannelData(p)
		if !ok {
			s.plane.Counts.drop(DropUnknown, 1)
			continue
		}
		if flow == nil || c != channel || len(run) == batchSize {
			if len(run) > 0 {
				flow.Send(b, run)
				run = run[:0]
			}
			channel = c
			if flow = s.Channel(c, now, 1); flow == nil {
				continue
			}
		}
		run = append(run, payload)
	}
	if len(run) > 0 {
		flow.Send(b, run)
	}
}

// Serve relays what peers send until the session is closed; it returns at once, and calls freed when the socket has been freed. near
// is the socket that the client sends to, if that is one of ours.
func (r *Relay) Serve(freed func(), near Socket) {
	if w, ok := r.Socket.(interface{ watchErrors(func(ICMP)) }); ok {
		w.watchErrors(r.icmp)
	}
	r.Socket.Serve(r.fromPeers, freed, near)
}

// fromPeers puts the header of ChannelData or of a Data indication in front of each packet, where it lies, and hands all of
// them to the client's sink.
func (r *Relay) fromPeers(b *Batch) {
	s := r.session
	now := s.plane.now().UnixNano()
	v := s.view.Load()
	sink := *s.sink.Load()
	pad := sink.Stream()
	run := b.run[:0]
	bytes := 0
	for i := range b.Len() {
		from, n, slot := b.From(i), b.size[i], b.slot(i)
		own := false
		if f := v.peers[from]; f != nil && f.live(now) {
			own = f.peer.Own
			start, end := headroom-stunmsg.ChannelHeaderSize, headroom+n
			stunmsg.PutChannelHeader(slot[start:], f.channel, n)
			if pad {
				end = headroom + (n+3)&^3
				clear(slot[headroom+n : end])
			}
			run = append(run, slot[start:end])
		} else if p := v.perms[from.Addr()]; p != nil && p.until.Load() > now {
			own = p.own
			var id [12]byte
			x, y := rand.Uint64(), rand.Uint32()
			for k := range 8 {
				id[k] = byte(x >> (8 * k))
			}
			for k := range 4 {
				id[8+k] = byte(y >> (8 * k))
			}
			start, end := stunmsg.PutDataIndication(slot, headroom, n, netip.AddrPortFrom(p.shown, from.Port()), &id)
			run = append(run, slot[start:end])
		} else {
			s.plane.Counts.drop(DropNoPermission, 1)
			continue
		}
		if own && !s.gate(from) {
			s.plane.Counts.drop(DropOwnPort, 1)
			run = run[:len(run)-1]
			continue
		}
		bytes += n
	}
	whole := len(run)
	if run = s.within(run); len(run) == 0 {
		return
	}
	bytes = bytes * len(run) / whole
	sent := sink.SendRun(b, run)
	if lost := len(run) - sent; lost > 0 {
		s.plane.Counts.drop(DropFull, lost)
		bytes = bytes * sent / len(run)
	}
	s.ToClient.add(sent, bytes)
	s.plane.Counts.ToClient.add(sent, bytes)
}
