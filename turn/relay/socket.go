// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Engine names a way of moving packets.
type Engine string

// Engines.
const (
	Auto     Engine = "auto"     // the best one of this system
	Portable Engine = "portable" // one packet per system call, everywhere
	Linux    Engine = "linux"    // batches and segmentation offload, Linux only
)

// Resolve turns Auto into the engine of this system and refuses one that does not exist here.
func (e Engine) Resolve() (Engine, error) {
	if e == "" || e == Auto {
		return best, nil
	}
	if e == Portable || e == best {
		return e, nil
	}
	return "", fmt.Errorf("relay: engine %q does not exist on this system (auto, portable, linux)", e)
}

// Socket is a UDP socket that moves packets in batches. Its methods may be called from several goroutines, Receive from one.
type Socket interface {
	// Receive reads packets and gives them to handle until the socket is closed, and frees the socket before it returns. The batch
	// belongs to the callee only during the call.
	Receive(handle func(*Batch))
	// SendRun sends frames to one address in order and tells how many the system took. What finds no room in the socket's buffer is
	// lost, as packets are (the portable engine waits for room instead). b lends its working memory; the frames may lie in it.
	SendRun(b *Batch, frames [][]byte, to netip.AddrPort) int
	// Send sends one packet under the same terms.
	Send(p []byte, to netip.AddrPort) bool
	// Addr is the local address.
	Addr() netip.AddrPort
	// Close makes Receive return. Without a running Receive it frees the socket itself.
	Close()
}

// Plane is one data plane: an engine, the buffers its sockets share, and what it has counted.
type Plane struct {
	engine Engine
	pool   batches
	now    func() time.Time
	Counts Counts
}

// NewPlane makes a data plane. now tells the time; it is called once per batch.
func NewPlane(engine Engine, now func() time.Time) (*Plane, error) {
	engine, err := engine.Resolve()
	if err != nil {
		return nil, err
	}
	return &Plane{engine: engine, now: now}, nil
}

// Lease lends a batch as working memory for Session.FromStream; Return takes it back.
func (p *Plane) Lease() *Batch { return p.pool.get() }

// Return takes back what Lease has lent.
func (p *Plane) Return(b *Batch) { p.pool.put(b) }

// Engine is the engine in use, never Auto.
func (p *Plane) Engine() Engine { return p.engine }

// Open opens a UDP socket on addr; an invalid address part means every address of the host. reuse lets several sockets share the
// port (SO_REUSEPORT) where the system can; buffer is the size wished for the kernel's buffers in bytes, 0 for its default.
func (p *Plane) Open(addr netip.AddrPort, reuse bool, buffer int) (Socket, error) {
	network, host := "udp", ""
	if addr.Addr().IsValid() && !(addr.Addr().Is6() && addr.Addr().IsUnspecified()) {
		network, host = "udp6", addr.Addr().String()
		if addr.Addr().Unmap().Is4() {
			network, host = "udp4", addr.Addr().Unmap().String()
		}
	}
	var lc net.ListenConfig
	if reuse {
		lc.Control = reusePort
	}
	pc, err := lc.ListenPacket(context.Background(), network, net.JoinHostPort(host, strconv.Itoa(int(addr.Port()))))
	if err != nil {
		return nil, err
	}
	c := pc.(*net.UDPConn)
	if buffer > 0 {
		// Best effort: the system caps it (net.core.rmem_max), and a smaller buffer still works.
		_ = c.SetReadBuffer(buffer)
		_ = c.SetWriteBuffer(buffer)
	}
	base := base{conn: c, addr: unmapPort(c.LocalAddr().(*net.UDPAddr).AddrPort())}
	if p.engine == Portable {
		return &portable{base: &base}, nil
	}
	return newBatched(&base, &p.pool)
}

// base is what the engines share: the life of the socket.
type base struct {
	conn *net.UDPConn
	addr netip.AddrPort

	mu        sync.Mutex
	closed    bool
	receiving bool
}

func (s *base) Addr() netip.AddrPort { return s.addr }

func (s *base) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if s.receiving {
		// Closing would wait for a Receive in progress; a deadline in the past sends it away, and it closes.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		return
	}
	_ = s.conn.Close()
}

// begin is called by Receive first; end last.
func (s *base) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.receiving {
		return false
	}
	s.receiving = true
	return true
}

func (s *base) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.conn.Close()
}

func (s *base) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func unmapPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
