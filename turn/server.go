// SPDX-License-Identifier: Apache-2.0

// Package turn is a STUN and TURN server (RFC 8489, RFC 8656): it helps two people who stand behind NATs and firewalls to reach each
// other, by telling them how they look from outside, and by relaying their packets where nothing else works.
//
// A client asks for an allocation: a relayed transport address, a UDP port of ours from which and to which packets are passed on.
// It then names the peers that may use it. Who may ask is decided by Credentials; whom a relay may reach by the peer rule
// (Config.Allow): the public internet, and nothing of this host's own network unless it is opened.
//
//	client ──UDP, TCP, TLS──▶ listener ─▶ control plane (this package): authenticate, allocate, permit, bind
//	                             │                       │ fills
//	                             └────── ChannelData ──▶ data plane (turn/relay) ──UDP──▶ peer
//
// The allocation core is our own; the codec and the integrity check of STUN messages are pion/stun's.
package turn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/turn/listen"
	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// Server is a STUN and TURN server.
type Server struct {
	cfg      Config
	creds    *Credentials
	log      *slog.Logger
	plane    *relay.Plane
	ports    [2][]*relay.Ports // IPv4, IPv6: each relay address
	tcpPorts [2][]*relay.Ports // the same for TCP
	peers    *peerRule

	own       *realm            // Config.Realm
	realms    map[string]*realm // by name, own included
	byOrigin  map[string]*realm
	bandwidth *relay.Bandwidth // of all allocations

	oauth        *oauth // nil: none
	nonces       *nonces
	unauthorized *limiter
	bindings     *limiter
	gate         *listen.Gate
	limits       listen.Limits
	counts       counts
	unregister   func()
	unwatch      func()

	dtls *listen.DTLS // nil without a certificate or with DTLS off

	discovery *discovery // nil: none

	udp []udpListener
	tcp []streamListener

	draining  atomic.Bool
	alternate atomic.Uint32 // counts redirections

	mu         sync.Mutex
	closed     bool
	users      map[string]*userState  // by realm.user
	tickets    map[string]*allocation // RFC 8016
	data       map[uint32]*dataConn   // RFC 6062, by CONNECTION-ID
	reserved   map[reservationToken]*reservation
	reservedBy map[string]int // user -> reservations
	total      int
	sessions   uint64 // that there have been
	streams    map[*listen.Stream]struct{}
	pending    map[net.Conn]struct{} // connections that have not said yet what they speak
	tracked    sync.WaitGroup        // relay and connection goroutines; Add only under mu while not closed
}

type udpListener struct {
	addr      netip.AddrPort
	secure    bool  // one of ListenDTLS; all take both
	place     place // with discovery
	discovers bool
	table     *relay.Table
	sockets   []relay.Socket
}

type streamListener struct {
	net.Listener
	tls bool // TLS only; else plain, or TLS if there is a certificate
}

// Addrs are the addresses that a Server listens on.
type Addrs struct{ UDP, TCP, TLS, DTLS []netip.AddrPort }

// Buffers of the kernel on the sockets that clients send to.
const listenBuffer = 4 << 20

// New opens the listeners; Run serves them. log must not be nil; reg may be.
func New(cfg Config, creds *Credentials, log *slog.Logger, reg prometheus.Registerer) (_ *Server, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	plane, err := relay.NewPlane(relay.Engine(cfg.Engine), cfg.Clock.Now)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, creds: creds, log: log, plane: plane,
		nonces:       newNonces(cfg.StaleNonce),
		unauthorized: newLimiter(cfg.UnauthorizedRate, cfg.UnauthorizedBurst),
		bindings:     newLimiter(cfg.BindingRate, cfg.BindingBurst),
		gate:         listen.NewGate(cfg.MaxConnections, cfg.MaxConnectionsPerSource),
		limits:       listen.Limits{Frame: frameTime, Idle: idleTime, Queue: streamQueue},
		users:        make(map[string]*userState),
		bandwidth:    relay.NewBandwidth(cfg.Bandwidth),
		tickets:      make(map[string]*allocation),
		data:         make(map[uint32]*dataConn),
		reserved:     make(map[reservationToken]*reservation),
		reservedBy:   make(map[string]int),
		streams:      make(map[*listen.Stream]struct{}),
		pending:      make(map[net.Conn]struct{}),
		unregister:   func() {}, unwatch: func() {},
	}
	for _, r := range cfg.Relays {
		local := r.Local.Unmap()
		i := familyIndex(local)
		s.ports[i] = append(s.ports[i], relay.NewPorts(plane, local, cfg.MinPort, cfg.MaxPort))
		s.tcpPorts[i] = append(s.tcpPorts[i], relay.NewPorts(plane, local, cfg.MinPort, cfg.MaxPort))
	}
	if s.oauth, err = newOAuth(cfg.OAuth); err != nil {
		plane.Close()
		return nil, err
	}
	s.own, s.realms, s.byOrigin = newRealms(cfg)
	s.peers = newPeerRule(cfg, s.ports, hostAddrs())
	if cfg.TLS != nil && len(cfg.ListenDTLS) > 0 {
		s.dtls = listen.NewDTLS(cfg.TLS, frameTime, s.serveDTLS)
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.open(); err != nil {
		return nil, err
	}
	if reg != nil {
		c := &collector{s: s}
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("turn: metrics: %w", err)
		}
		s.unregister = func() { reg.Unregister(c) }
	}
	s.unwatch = creds.watch(s.revoked)
	return s, nil
}

// Times and sizes of connections. Ten seconds are long for a frame and short for someone who holds connections open.
const (
	frameTime   = 10 * time.Second
	idleTime    = time.Minute
	streamQueue = 256 << 10
)

func (s *Server) open() error {
	places := s.cfg.places()
	if places != nil {
		s.discovery = new(discovery)
	}
	udp := slices.Clone(s.cfg.ListenUDP)
	for a := range places {
		if !slices.Contains(udp, a.String()) {
			udp = append(udp, a.String())
		}
	}
	for i, a := range append(udp, s.cfg.ListenDTLS...) {
		addr, err := listenAddr(a)
		if err != nil {
			return err
		}
		l := udpListener{table: new(relay.Table), secure: i >= len(udp)}
		for i := range relay.Workers(s.plane.Engine()) {
			sock, err := s.plane.Open(addr, true, listenBuffer)
			if err != nil {
				if i > 0 {
					break // a system that does not share ports: one socket does
				}
				return fmt.Errorf("turn: listen udp %s: %w", a, err)
			}
			l.sockets = append(l.sockets, sock)
			l.addr = sock.Addr()
			addr = netip.AddrPortFrom(addr.Addr(), l.addr.Port())
		}
		if p, ok := places[l.addr]; ok {
			l.place, l.discovers = p, true
			s.discovery.at[p.host][p.port], s.discovery.sockets[p.host][p.port] = l.addr, l.sockets[0]
		}
		s.udp = append(s.udp, l)
	}
	for i, a := range append(append([]string(nil), s.cfg.ListenTCP...), s.cfg.ListenTLS...) {
		secure := i >= len(s.cfg.ListenTCP)
		ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", a)
		if err != nil {
			return fmt.Errorf("turn: listen tcp %s: %w", a, err)
		}
		s.tcp = append(s.tcp, streamListener{Listener: ln, tls: secure})
	}
	return nil
}

// Addrs tells the addresses in use, with the ports that port 0 was given.
func (s *Server) Addrs() Addrs {
	var a Addrs
	for _, l := range s.udp {
		if l.secure {
			a.DTLS = append(a.DTLS, l.addr)
		} else {
			a.UDP = append(a.UDP, l.addr)
		}
	}
	for _, l := range s.tcp {
		at := l.Addr().(*net.TCPAddr).AddrPort()
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if l.tls {
			a.TLS = append(a.TLS, at)
		} else {
			a.TCP = append(a.TCP, at)
		}
	}
	return a
}

// Run serves until ctx ends or Close is called, and returns when every goroutine has ended.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("turn: serving", "addrs", s.Addrs(), "engine", string(s.plane.Engine()), "relays", fmt.Sprint(s.cfg.Relays))
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	var wg sync.WaitGroup
	for _, l := range s.udp {
		for _, sock := range l.sockets {
			w := &udpWorker{handler: newHandler(s), table: l.table, socket: sock}
			if l.discovers {
				w.discovery, w.place = s.discovery, l.place
			}
			data := &relay.Listener{Plane: s.plane, Socket: sock, Table: l.table, Control: w.control}
			if s.dtls != nil {
				data.Other = w.other
			}
			wg.Add(1)
			data.Serve(wg.Done)
		}
	}
	errs := make([]error, len(s.tcp))
	for i, l := range s.tcp {
		wg.Go(func() {
			errs[i] = listen.Accept(l.Listener, func(c net.Conn) { s.serve(c, l.tls) })
		})
	}
	wg.Wait()
	s.Close()
	return errors.Join(errs...)
}

// Close ends all allocations and closes all sockets and connections. Run, if it was called, then returns.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.tracked.Wait()
		return
	}
	s.closed = true
	var all []*allocation
	for _, u := range s.users {
		for a := range u.allocations {
			all = append(all, a)
		}
	}
	for t, r := range s.reserved {
		delete(s.reserved, t)
		r.drop()
	}
	for st := range s.streams {
		st.Close()
	}
	for conn := range s.pending {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.unwatch()
	s.unregister()
	for _, l := range s.udp {
		for _, sock := range l.sockets {
			sock.Close()
		}
	}
	for _, l := range s.tcp {
		_ = l.Close()
	}
	for _, a := range all {
		s.end(a, "server closed")
	}
	if s.dtls != nil {
		s.dtls.Close()
	}
	s.tracked.Wait()
	s.plane.Close()
}

// Drain makes the server refuse new allocations with 508 (Insufficient Capacity) while those that live go on.
func (s *Server) Drain() { s.draining.Store(true) }

// AllocationCount is the number of live allocations.
func (s *Server) AllocationCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// ServeConn serves a connection that another listener has accepted and found to be TURN: plain or after TLS. The first bytes must still be
// there to read. It owns the connection and returns when it has ended.
func (s *Server) ServeConn(conn net.Conn) {
	transport := "tcp"
	if isTLS(conn) {
		transport = "tls"
	}
	if remote, ok := s.enter(conn); ok {
		defer s.gate.Leave(remote.Addr())
		s.serveStream(conn, remote, transport)
	}
}

// isTLS looks for a TLS connection under what a sniffing listener may have wrapped around it.
func isTLS(conn net.Conn) bool {
	for {
		switch c := conn.(type) {
		case interface{ ConnectionState() tls.ConnectionState }:
			return true
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return false
		}
	}
}

func (s *Server) enter(conn net.Conn) (netip.AddrPort, bool) {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		_ = conn.Close()
		return netip.AddrPort{}, false
	}
	remote := tcp.AddrPort()
	return s.enterAs(conn, netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()))
}

func (s *Server) enterAs(conn net.Conn, remote netip.AddrPort) (netip.AddrPort, bool) {
	if !s.gate.Enter(remote.Addr()) {
		s.counts.refusals[refusedConnection].Add(1)
		_ = conn.Close()
		return netip.AddrPort{}, false
	}
	return remote, true
}

// trusts tells whether the connection comes from a proxy whose word counts.
func (s *Server) trusts(conn net.Conn) bool {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	from := tcp.AddrPort().Addr().Unmap()
	return slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(from) })
}

// serve serves a connection of one of our own listeners.
func (s *Server) serve(conn net.Conn, mustTLS bool) {
	var remote netip.AddrPort
	var ok bool
	if s.trusts(conn) {
		stop := s.closeWithServer(conn)
		from, err := listen.ReadProxy(conn, frameTime)
		stop()
		if err != nil || !from.IsValid() {
			_ = conn.Close()
			return
		}
		remote, ok = s.enterAs(conn, from)
	} else {
		remote, ok = s.enter(conn)
	}
	if !ok {
		return
	}
	defer s.gate.Leave(remote.Addr())
	// A handshake ends with its deadline at the latest; the server's end does not wait for it.
	stop := s.closeWithServer(conn)
	c, secure, err := listen.Sniff(conn, s.cfg.TLS, frameTime)
	stop()
	if err != nil || mustTLS && !secure {
		_ = conn.Close()
		return
	}
	transport := "tcp"
	if secure {
		transport = "tls"
	}
	s.serveStream(c, remote, transport)
}

// AnswerBinding is the answer to a STUN Binding request from a client at from, as Server gives it; nil if p deserves none.
func AnswerBinding(p []byte, from netip.AddrPort) []byte {
	return stunmsg.AppendBindingReply(nil, p, from)
}
