// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// tcpRelay is a relayed transport address for TCP (RFC 6062): a listener, and connections to and from peers. Each waits for the client
// to bring a connection of its own for it (ConnectionBind); then the two are one pipe.
type tcpRelay struct {
	s     *Server
	a     *allocation
	ports *relay.Ports
	addr  netip.AddrPort // local
	ln    net.Listener

	ctx    context.Context // of connections being made
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	conns  map[netip.AddrPort]*dataConn // by the peer's actual address
}

// dataConn is a connection to a peer.
type dataConn struct {
	id     uint32
	relay  *tcpRelay
	peer   netip.AddrPort
	conn   net.Conn    // nil while it is being made
	client net.Conn    // nil until it is bound
	stop   func() bool // the timer of one that waits for its ConnectionBind
}

// Times of RFC 6062: how long making a connection may take (section 5.2), and how long one waits for its ConnectionBind (5.2, 5.3).
const (
	connectTime = 30 * time.Second
	bindTime    = 30 * time.Second
)

// openTCP opens the listener of a TCP allocation.
func (h *handler) openTCP(a *allocation, c *client, index int) (code int, reason string) {
	s := h.s
	if len(s.tcpPorts[index]) == 0 {
		return 440, "Address Family not Supported"
	}
	for _, ports := range s.tcpPorts[index] {
		for range 16 {
			port, ok := ports.Take()
			if !ok {
				break
			}
			lc := net.ListenConfig{Control: relay.SharePort}
			ln, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(ports.Addr(), port).String())
			if err != nil {
				ports.Release(port)
				continue
			}
			t := &tcpRelay{s: s, a: a, ports: ports, addr: netip.AddrPortFrom(ports.Addr(), port), ln: ln, conns: make(map[netip.AddrPort]*dataConn)}
			t.ctx, t.cancel = context.WithCancel(context.Background())
			a.tcp = t
			a.relays[index] = relayed{ports: ports, port: port}
			a.session.AddFamily(ports.Addr())
			return 0, ""
		}
	}
	return 508, "Insufficient Capacity"
}

// serve accepts what peers bring; called with Server.mu held.
func (t *tcpRelay) serve() {
	t.ports.Enlist(t.addr.Port())
	t.s.tracked.Go(func() {
		for {
			conn, err := t.ln.Accept()
			if err != nil {
				t.close() // closed, or out of descriptors: then this relay takes no more
				return
			}
			t.accept(conn.(*net.TCPConn))
		}
	})
}

// accept announces a peer's connection to the client, if the peer is permitted (RFC 6062, section 5.3).
func (t *tcpRelay) accept(conn *net.TCPConn) {
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	control := t.a.stream.Load()
	if !t.a.session.Permits(from.Addr()) || control == nil {
		_ = conn.Close()
		return
	}
	d := &dataConn{relay: t, peer: from}
	if !t.enter(d) || !t.wait(d, conn) {
		_ = conn.Close()
		return
	}
	shown := from
	if a, ok := t.s.peers.shown[from.Addr()]; ok {
		shown = netip.AddrPortFrom(a, from.Port())
	}
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodConnectionAttempt, stun.ClassIndication))
	m.Add(stun.AttrConnectionID, binary.BigEndian.AppendUint32(nil, d.id))
	m.Add(stun.AttrXORPeerAddress, stunmsg.AppendXORAddress(nil, uint16(stun.AttrXORPeerAddress), shown, m.TransactionID[:])[4:])
	control.Reply(m.Raw)
}

// enter keeps a place for a connection: at most one for each peer, and at most MaxPeers.
func (t *tcpRelay) enter(d *dataConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.conns[d.peer] != nil || len(t.conns) >= t.s.cfg.MaxPeers {
		return false
	}
	t.conns[d.peer] = d
	return true
}

// wait gives the connection an id by which the client can bind to it, for a while.
func (t *tcpRelay) wait(d *dataConn, conn net.Conn) bool {
	s := t.s
	s.mu.Lock()
	t.mu.Lock()
	defer s.mu.Unlock()
	defer t.mu.Unlock()
	if t.closed || t.conns[d.peer] != d {
		return false
	}
	for d.id == 0 || s.data[d.id] != nil {
		var id [4]byte
		_, _ = rand.Read(id[:]) // never fails
		d.id = binary.BigEndian.Uint32(id[:])
	}
	d.conn = conn
	s.data[d.id] = d
	d.stop = s.cfg.Clock.AfterFunc(bindTime, func() {
		if s.takeData(d.id, "") == d {
			t.drop(d)
		}
	})
	return true
}

// takeData finds a waiting connection of the user, once; an empty username means anybody's.
func (s *Server) takeData(id uint32, username string) *dataConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.data[id]
	if d == nil || username != "" && d.relay.a.login.Load().username != username {
		return nil
	}
	delete(s.data, id)
	return d
}

// drop ends a connection.
func (t *tcpRelay) drop(d *dataConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[d.peer] == d {
		delete(t.conns, d.peer)
	}
	d.closeBoth()
}

// closeBoth is called with tcpRelay.mu held.
func (d *dataConn) closeBoth() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
	if d.client != nil {
		_ = d.client.Close()
	}
}

// close ends the relay and all of its connections.
func (t *tcpRelay) close() {
	t.cancel()
	_ = t.ln.Close()
	t.s.mu.Lock()
	t.mu.Lock()
	defer t.s.mu.Unlock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	for _, d := range t.conns {
		if d.stop != nil {
			d.stop()
		}
		if t.s.data[d.id] == d {
			delete(t.s.data, d.id)
		}
		d.closeBoth()
	}
	t.ports.Release(t.addr.Port())
}

// connect answers a Connect request (RFC 6062, section 5.2), when the connection is made or has failed.
func (h *handler) connect(c *client, a *allocation, _ caller) {
	value, err := h.req.Get(stun.AttrXORPeerAddress)
	addr, ok := stunmsg.XORAddress(value, h.req.TransactionID[:])
	if err != nil || !ok || a.tcp == nil {
		h.refuse(c, 400, "Bad Request")
		return
	}
	peer, ok := h.s.peers.check(addr)
	if !ok || addr.Port() == 0 || peer.Own && !h.s.tcpLive(peer.Actual) {
		h.refuse(c, 403, "Forbidden")
		return
	}
	t := a.tcp
	if t.addr.Addr().Is4() != peer.Actual.Addr().Is4() {
		h.refuse(c, 443, "Peer Address Family Mismatch")
		return
	}
	d := &dataConn{relay: t, peer: peer.Actual}
	if !t.enter(d) {
		t.mu.Lock()
		again := t.conns[d.peer] != nil
		t.mu.Unlock()
		if again {
			h.refuse(c, 446, "Connection Already Exists")
		} else {
			h.refuse(c, 508, "Insufficient Capacity")
		}
		return
	}
	later := h.later()
	if !h.s.track1(func() {
		dialer := net.Dialer{Timeout: connectTime, LocalAddr: net.TCPAddrFromAddrPort(t.addr), Control: relay.SharePort}
		conn, err := dialer.DialContext(t.ctx, "tcp", peer.Actual.String())
		if err == nil && !t.wait(d, conn) {
			_ = conn.Close()
			err = net.ErrClosed
		}
		if err != nil {
			t.drop(d)
			later.refuse(c, 447, "Connection Timeout or Failure")
			return
		}
		later.begin(stun.ClassSuccessResponse)
		later.out.Add(stun.AttrConnectionID, binary.BigEndian.AppendUint32(nil, d.id))
		later.finish(c)
	}) {
		t.drop(d)
	}
}

// later is a handler that can answer the request after h has gone on to the next one.
func (h *handler) later() *handler {
	l := &handler{s: h.s, fingerprint: h.fingerprint, key: bytes.Clone(h.key)}
	l.req.Type, l.req.TransactionID = h.req.Type, h.req.TransactionID
	return l
}

// track1 runs f in a goroutine that Close waits for, unless the server is closed.
func (s *Server) track1(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.tracked.Go(f)
	return true
}

// tcpLive tells whether the address is one of our TCP relays.
func (s *Server) tcpLive(a netip.AddrPort) bool {
	for _, p := range append(append([]*relay.Ports(nil), s.tcpPorts[0]...), s.tcpPorts[1]...) {
		if p.Addr() == a.Addr() && p.Live(a.Port()) {
			return true
		}
	}
	return false
}

// connectionBind answers a ConnectionBind request (RFC 6062, section 5.4): the connection that it came on carries the peer's bytes from
// now on.
func (h *handler) connectionBind(c *client, a *allocation, who caller) {
	value, err := h.req.Get(stun.AttrConnectionID)
	if err != nil || len(value) != 4 || c.stream == nil || c.transport == "dtls" || a != nil {
		h.refuse(c, 400, "Bad Request")
		return
	}
	d := h.s.takeData(binary.BigEndian.Uint32(value), who.username)
	if d == nil {
		h.refuse(c, 400, "Bad Request")
		return
	}
	d.stop()
	c.data = d
	h.begin(stun.ClassSuccessResponse)
	h.finish(c)
	c.stream.Detach()
}

// pipe joins the client's connection, whose first bytes may have been read, and the peer's until both have said their last.
func (d *dataConn) pipe(client net.Conn, first []byte) {
	t := d.relay
	defer t.drop(d)
	t.mu.Lock()
	if t.closed || t.conns[d.peer] != d {
		t.mu.Unlock()
		_ = client.Close()
		return
	}
	d.client = client
	t.s.counts.bound.Add(1)
	t.mu.Unlock()
	counts := &t.s.plane.Counts
	back := make(chan struct{})
	go func() {
		defer close(back)
		flow(client, d.conn, t, &counts.ToClient, &t.a.session.ToClient)
	}()
	if _, err := d.conn.Write(first); err == nil {
		flow(d.conn, client, t, &counts.ToPeer, &t.a.session.ToPeer)
	}
	<-back
}

// flow copies until the end of from and says so to to. When writing fails neither goes on.
func flow(to, from net.Conn, t *tcpRelay, counts ...*relay.Traffic) {
	_, err := io.Copy(&counted{to, t, counts}, onlyReader{from})
	if w, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = w.CloseWrite()
		return
	}
	_ = to.Close()
	_ = from.Close()
}

// onlyReader keeps io.Copy from handing the copying over, past the counters.
type onlyReader struct{ io.Reader }

type counted struct {
	net.Conn
	relay  *tcpRelay
	counts []*relay.Traffic
}

// Write waits for the bandwidth that there is, for bytes of TCP cannot be dropped.
func (c *counted) Write(p []byte) (int, error) {
	for !c.relay.a.session.May(len(p), c.relay.s.cfg.Clock.Now().UnixNano()) {
		select {
		case <-c.relay.ctx.Done():
			return 0, net.ErrClosed
		case <-time.After(20 * time.Millisecond):
		}
	}
	n, err := c.Conn.Write(p)
	for _, t := range c.counts {
		t.Add(1, n)
	}
	return n, err
}

// String is for logs.
func (r relayed) String() string {
	if r.ports == nil {
		return "-"
	}
	return net.JoinHostPort(r.ports.Addr().String(), strconv.Itoa(int(r.port)))
}
