// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// receiveBatch is how many packets are read at a time.
const receiveBatch = 64

// Config of a Transport. The zero value of a field means its default.
type Config struct {
	// Listen are the addresses to listen on, all with the same port; port 0 picks one. An unspecified address stands for every
	// address of the host: replies must come from the address that was asked.
	Listen []netip.AddrPort
	// ListenTCP are addresses to take ICE over TCP on, for clients whose network lets no UDP through; none by default.
	ListenTCP []netip.AddrPort
	// Advertise are addresses under which clients reach the host besides, e.g. the public one before a NAT.
	Advertise []netip.Addr
	// Loops is the number of goroutines and sockets per address; default: one per processor, at most 4.
	Loops int
	// MaxSessions bounds the sessions at one time; default 10,000.
	MaxSessions int
	Log         *slog.Logger
}

// Transport is one UDP port shared by all sessions.
type Transport struct {
	cfg         Config
	log         *slog.Logger
	sockets     []*socket
	candidates  []netip.AddrPort
	listeners   []*net.TCPListener
	tcp         []netip.AddrPort // candidates
	certificate tls.Certificate
	fingerprint string
	start       time.Time

	mu     sync.RWMutex
	byAddr map[netip.AddrPort]*Session
	byName map[string]*Session // by our user fragment

	streamMu  sync.Mutex
	streams   map[*stream]struct{}
	strangers map[netip.Addr]int // streams that have not passed a check

	wait    sync.WaitGroup
	closed  atomic.Bool
	haste   haste
	awake   nudge
	ctx     context.Context
	cancel  context.CancelFunc
	batches sync.Pool
	pacing  pacing
}

// socket is one of the sockets on the port.
type socket struct {
	conn     *net.UDPConn
	raw      syscall.RawConn
	local    netip.AddrPort
	segments bool // UDP_SEGMENT works
	six      bool
	haste    *haste
	awake    *nudge
	sys      socketSys
}

// ErrFull is returned when MaxSessions are open.
var ErrFull = errors.New("transport: no room for another session")

// Listen opens the port and serves it until Close.
func Listen(cfg Config) (*Transport, error) {
	if cfg.Loops == 0 {
		cfg.Loops = min(runtime.GOMAXPROCS(0), 4)
	}
	if runtime.GOOS != "linux" {
		cfg.Loops = 1
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 10_000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Transport{cfg: cfg, log: cfg.Log, start: time.Now(), byAddr: map[netip.AddrPort]*Session{}, byName: map[string]*Session{}}
	t.streams, t.strangers = map[*stream]struct{}{}, map[netip.Addr]int{}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.pacing.wake = make(chan struct{}, 1)
	t.batches.New = func() any { return NewBatch() }
	var err error
	if t.certificate, t.fingerprint, err = newCertificate(t.start); err != nil {
		return nil, err
	}
	if err := t.open(); err != nil {
		t.Close()
		return nil, err
	}
	if err := t.listenTCP(); err != nil {
		t.Close()
		return nil, err
	}
	for _, s := range t.sockets {
		t.wait.Go(func() { t.serve(s) })
	}
	t.wait.Go(t.pace)
	return t, nil
}

// open binds the sockets and lists the candidates.
func (t *Transport) open() error {
	addrs, err := expand(t.cfg.Listen)
	if err != nil {
		return err
	}
	port := uint16(0)
	for _, a := range addrs {
		if port != 0 && a.Port() == 0 {
			a = netip.AddrPortFrom(a.Addr(), port)
		}
		// The sockets below share their port, and would share it with another program that does so: ask first whether it is free.
		first, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		if err != nil {
			return fmt.Errorf("transport: listening on %s: %w", a, err)
		}
		_ = first.Close()
		for range t.cfg.Loops {
			lc := net.ListenConfig{Control: sharePort}
			c, err := lc.ListenPacket(t.ctx, "udp", a.String())
			if err != nil {
				return fmt.Errorf("transport: listening on %s: %w", a, err)
			}
			conn := c.(*net.UDPConn)
			a = netip.AddrPortFrom(a.Addr(), conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			port = a.Port()
			raw, err := conn.SyscallConn()
			if err != nil {
				_ = conn.Close()
				return err
			}
			s := &socket{conn: conn, raw: raw, local: a, haste: &t.haste, awake: &t.awake}
			s.segments, s.six = tune(raw)
			if err := s.open(); err != nil {
				_ = conn.Close()
				return fmt.Errorf("transport: listening on %s: %w", a, err)
			}
			t.sockets = append(t.sockets, s)
		}
		if err := openLate(t.ctx, t.sockets[len(t.sockets)-t.cfg.Loops:]); err != nil {
			t.log.Warn("sfu: receiver reports wake the server one by one", "address", a, "error", err)
		}
		t.candidates = append(t.candidates, a)
	}
	for _, a := range t.cfg.Advertise {
		t.candidates = append([]netip.AddrPort{netip.AddrPortFrom(a, port)}, t.candidates...)
	}
	return nil
}

// expand replaces unspecified addresses by those of the host: global ones, or loopback if there are no others.
func expand(listen []netip.AddrPort) (out []netip.AddrPort, err error) {
	for _, l := range listen {
		if !l.Addr().IsUnspecified() {
			out = append(out, l)
			continue
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("transport: listing the host's addresses: %w", err)
		}
		var global, loopback []netip.AddrPort
		for _, a := range all {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, _ := netip.AddrFromSlice(n.IP)
			ip = ip.Unmap()
			switch {
			case l.Addr().Is4() && !ip.Is4():
			case ip.IsLoopback():
				loopback = append(loopback, netip.AddrPortFrom(ip, l.Port()))
			case ip.IsGlobalUnicast() && !ip.IsLinkLocalUnicast():
				global = append(global, netip.AddrPortFrom(ip, l.Port()))
			}
		}
		if len(global) == 0 {
			global = loopback
		}
		out = append(out, global...)
	}
	if len(out) == 0 {
		return nil, errors.New("transport: no address to listen on")
	}
	return out, nil
}

// Candidates are the addresses that clients are told.
func (t *Transport) Candidates() []netip.AddrPort { return t.candidates }

// Now is the time since the transport was opened; it serves as forward.Clock.
func (t *Transport) Now() time.Duration { return time.Since(t.start) }

// Do lends a batch to f and flushes it.
func (t *Transport) Do(f func(*Batch)) {
	b := t.batches.Get().(*Batch)
	f(b)
	b.Flush()
	t.batches.Put(b)
}

// Close ends all sessions and waits for what runs.
func (t *Transport) Close() {
	if t.closed.Swap(true) {
		return
	}
	t.mu.RLock()
	sessions := make([]*Session, 0, len(t.byName))
	for _, s := range t.byName {
		sessions = append(sessions, s)
	}
	t.mu.RUnlock()
	for _, s := range sessions {
		s.Close()
	}
	t.cancel()
	for _, s := range t.sockets {
		s.close()
	}
	t.closeStreams()
	t.wait.Wait()
}

// Sessions is the number of open sessions.
func (t *Transport) Sessions() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byName)
}

// serve reads one socket.
func (t *Transport) serve(s *socket) {
	r, out := newReceiver(), NewBatch()
	var run run
	r.receive(s, func() {
		for i := range r.n {
			b, from := r.packet(i)
			t.packet(b, from, way{socket: s}, &run, out)
		}
		run.deliver(out)
		out.Flush()
	})
}

// packet handles one datagram or frame.
func (t *Transport) packet(b []byte, from netip.AddrPort, in way, run *run, out *Batch) {
	// Packets of one session that arrived one after the other are handed on together: a frame's packets go out as one.
	if len(b) >= packets.HeaderSize && b[0]>>6 == 2 && len(b) <= packets.MaxSize {
		p := t.whose(from, in)
		if p == nil {
			return
		}
		if p != run.session || run.n == len(run.packets) || packets.IsRTCP(b) {
			run.deliver(out)
		}
		run.session = p
		if packets.IsRTCP(b) {
			p.rtcp(b, out)
			return
		}
		run.packets[run.n] = b
		run.n++
		return
	}
	run.deliver(out)
	switch {
	case isSTUN(b):
		t.check(b, from, in, out)
	case len(b) > 0 && b[0] >= 20 && b[0] < 64:
		if p := t.whose(from, in); p != nil {
			p.handshake.put(b)
		}
	}
}

// way is how a packet came: a socket of the UDP port, or a TCP connection.
type way struct {
	socket *socket
	stream *stream
}

// whose finds the session of what came from an address.
func (t *Transport) whose(from netip.AddrPort, in way) *Session {
	if in.stream != nil {
		return in.stream.session.Load()
	}
	return t.at(from)
}

// run is a sequence of sealed RTP packets of one session.
type run struct {
	session *Session
	packets [receiveBatch][]byte
	n       int
}

func (r *run) deliver(out *Batch) {
	if r.n > 0 {
		r.session.rtp(r.packets[:r.n], out)
	}
	r.n, r.session = 0, nil
}

// at finds the session of an address.
func (t *Transport) at(from netip.AddrPort) *Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byAddr[from]
}

// check answers a connectivity check and notes the address it came from. Checks of strangers get no answer.
func (t *Transport) check(b []byte, from netip.AddrPort, in way, out *Batch) {
	c, ok := parseCheck(b)
	if !ok {
		return
	}
	t.mu.RLock()
	s := t.byName[string(c.ours())]
	known := t.byAddr[from]
	var k *signer
	if s != nil {
		k = s.signer
	}
	t.mu.RUnlock()
	if s == nil || !c.valid(k) || !s.expects(string(c.theirs())) {
		return
	}
	switch {
	case in.stream != nil:
		if before := in.stream.session.Swap(s); before == nil {
			t.known(from.Addr())
		}
	case known != s:
		t.Hasten()
		t.mu.Lock()
		if t.byName[s.name] == s { // not closed meanwhile
			t.byAddr[from] = s
			s.learn(from)
		}
		t.mu.Unlock()
	}
	s.seen.Store(int64(t.Now()))
	here := s.path.Load()
	if here == nil || here.to != from || here.way != in {
		here = &s.first
		if s.came.Swap(true) {
			here = &path{}
		}
		here.to, here.way = from, in
		if in.socket != nil {
			here.name = newPeerName(from, in.socket.six)
		}
		if c.nominate || s.path.Load() == nil {
			s.path.Store(here)
		}
	}
	out.clear(here, c.answer(out.Slot(), from, k))
	if c.nominate {
		s.nominated.Store(true)
	}
	s.probe(here, out)
}

// add registers s; remove forgets it.
func (t *Transport) add(s *Session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byName) >= t.cfg.MaxSessions || t.closed.Load() {
		return ErrFull
	}
	t.byName[s.name] = s
	return nil
}

func (t *Transport) remove(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byName, s.name)
	for _, a := range s.addrs {
		if t.byAddr[a] == s {
			delete(t.byAddr, a)
		}
	}
}

// token gives n random characters for ICE (RFC 8839 section 5.4).
func token(n int) string { return rand.Text()[:n] }
