// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
)

// DTLS serves clients that speak DTLS (RFC 7350) on UDP sockets that are read by somebody else: packets come through Packet, in the
// reader's goroutine, and leave through the send function.
//
// The library keeps state for a client before that has shown by its cookie that it is where it claims to be. So the number of
// handshakes at a time is bounded, from one source and in all; when a new one finds no room the oldest makes way, which a flood of
// forged hellos can use against other newcomers, but never against clients that are connected, and not for memory.
type DTLS struct {
	config *tls.Config
	within time.Duration
	serve  func(conn net.Conn, remote netip.AddrPort)

	mu      sync.Mutex
	closed  bool
	conns   map[dtlsKey]*inbox
	sources map[netip.Addr]int // handshakes in progress
	oldest  []*inbox           // handshakes in progress, oldest first
	wg      sync.WaitGroup
}

// dtlsKey is a client on one of our addresses.
type dtlsKey struct {
	local, remote netip.AddrPort
}

// Bounds of DTLS: handshakes in progress in all and from one source, packets that wait for one connection's reader.
const (
	maxHandshakes          = 128
	maxHandshakesPerSource = 32
	inboxSize              = 64
	maxDTLSPacket          = 8 << 10
)

// NewDTLS makes it with the certificate of config. serve is called in a goroutine of its own for every client whose handshake was made
// within the given time; it owns the connection, each of whose reads and writes is one datagram.
func NewDTLS(config *tls.Config, within time.Duration, serve func(conn net.Conn, remote netip.AddrPort)) *DTLS {
	return &DTLS{config: config, within: within, serve: serve, conns: make(map[dtlsKey]*inbox), sources: make(map[netip.Addr]int)}
}

// IsDTLS tells whether a packet's first byte is one of DTLS (RFC 7983).
func IsDTLS(p []byte) bool { return len(p) > 0 && p[0] >= 20 && p[0] <= 63 }

// isClientHello tells whether the packet starts with a handshake record of epoch 0 that holds a ClientHello.
func isClientHello(p []byte) bool {
	const recordHeader, handshake, clientHello = 13, 22, 1
	return len(p) > recordHeader && p[0] == handshake && p[1] == 0xfe && p[3] == 0 && p[4] == 0 && p[recordHeader] == clientHello
}

// Packet takes a packet that came from remote to our socket on local, and never waits: what finds a full inbox is lost. p is copied.
// send answers from that socket.
func (d *DTLS) Packet(p []byte, local, remote netip.AddrPort, send func(p []byte)) {
	if len(p) > maxDTLSPacket {
		return
	}
	key := dtlsKey{local, remote}
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.conns[key]
	if in == nil {
		if d.closed || !isClientHello(p) || d.sources[Source(remote.Addr())] >= maxHandshakesPerSource {
			return
		}
		if len(d.oldest) >= maxHandshakes {
			first := d.oldest[0]
			d.shookLocked(first)
			first.Close()
		}
		in = newInbox(local, remote, send)
		in.key = key
		d.conns[key] = in
		d.sources[Source(remote.Addr())]++
		d.oldest = append(d.oldest, in)
		d.wg.Go(func() { d.run(in) })
	}
	in.put(p)
}

// run makes the handshake and has the connection served.
func (d *DTLS) run(in *inbox) {
	defer func() {
		d.mu.Lock()
		d.shookLocked(in)
		delete(d.conns, in.key)
		d.mu.Unlock()
		in.Close()
	}()
	conn, err := dtls.ServerWithOptions(in, in.RemoteAddr(), dtls.WithGetCertificate(d.certificate), dtls.WithExtendedMasterSecret(dtls.RequestExtendedMasterSecret))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.within)
	err = conn.HandshakeContext(ctx)
	cancel()
	d.mu.Lock()
	d.shookLocked(in)
	d.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		return
	}
	d.serve(conn, in.key.remote)
}

// certificate asks the certificate of the TLS listeners.
func (d *DTLS) certificate(hello *dtls.ClientHelloInfo) (*tls.Certificate, error) {
	if d.config.GetCertificate != nil {
		return d.config.GetCertificate(&tls.ClientHelloInfo{ServerName: hello.ServerName, SupportedVersions: []uint16{tls.VersionTLS12}})
	}
	return &d.config.Certificates[0], nil
}

// shookLocked counts a handshake as over, once.
func (d *DTLS) shookLocked(in *inbox) {
	if in.shook {
		return
	}
	in.shook = true
	for i, o := range d.oldest {
		if o == in {
			d.oldest = append(d.oldest[:i], d.oldest[i+1:]...)
			break
		}
	}
	from := Source(in.key.remote.Addr())
	if d.sources[from]--; d.sources[from] == 0 {
		delete(d.sources, from)
	}
}

// Close ends all connections and waits for them.
func (d *DTLS) Close() {
	d.mu.Lock()
	d.closed = true
	for _, in := range d.conns {
		in.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// inbox is a client's side of a UDP socket as the library wants it.
type inbox struct {
	key   dtlsKey
	shook bool // under DTLS.mu: no longer counted as a handshake
	send  func([]byte)
	in    chan []byte

	once  sync.Once
	ended chan struct{}

	mu       sync.Mutex
	timer    *time.Timer
	deadline chan struct{} // closed when it has passed
}

func newInbox(local, remote netip.AddrPort, send func([]byte)) *inbox {
	return &inbox{key: dtlsKey{local, remote}, send: send, in: make(chan []byte, inboxSize), ended: make(chan struct{}), deadline: make(chan struct{})}
}

// put gives the reader a copy of p, if it keeps up.
func (i *inbox) put(p []byte) {
	if len(i.in) < cap(i.in) { // only one goroutine at a time puts
		i.in <- append([]byte(nil), p...)
	}
}

// ReadFrom implements net.PacketConn.
func (i *inbox) ReadFrom(b []byte) (int, net.Addr, error) {
	i.mu.Lock()
	deadline := i.deadline
	i.mu.Unlock()
	select {
	case <-i.ended:
		return 0, nil, net.ErrClosed
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case p := <-i.in:
		return copy(b, p), i.RemoteAddr(), nil
	case <-i.ended:
		return 0, nil, net.ErrClosed
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo implements net.PacketConn.
func (i *inbox) WriteTo(p []byte, _ net.Addr) (int, error) {
	select {
	case <-i.ended:
		return 0, net.ErrClosed
	default:
	}
	i.send(p)
	return len(p), nil
}

// Close implements net.PacketConn.
func (i *inbox) Close() error {
	i.once.Do(func() { close(i.ended) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (i *inbox) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(i.key.local) }

// RemoteAddr is the client's address.
func (i *inbox) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(i.key.remote) }

// SetReadDeadline implements net.PacketConn.
func (i *inbox) SetReadDeadline(t time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.timer != nil {
		i.timer.Stop()
		i.timer = nil
	}
	select {
	case <-i.deadline:
		i.deadline = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	passed := i.deadline
	if left := time.Until(t); left > 0 {
		i.timer = time.AfterFunc(left, func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.deadline == passed {
				i.pass()
			}
		})
		return nil
	}
	i.pass()
	return nil
}

// pass marks the deadline as passed, with mu held.
func (i *inbox) pass() {
	select {
	case <-i.deadline:
	default:
		close(i.deadline)
	}
}

// SetDeadline implements net.PacketConn; writing never waits.
func (i *inbox) SetDeadline(t time.Time) error { return i.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (i *inbox) SetWriteDeadline(time.Time) error { return nil }
