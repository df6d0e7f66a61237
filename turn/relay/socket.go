// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"net/netip"
	"time"
)

// Engine names a way of moving packets.
type Engine string

// Engines.
const (
	Auto     Engine = "auto"     // the best one of this system
	Portable Engine = "portable" // one packet per system call, everywhere
	Linux    Engine = "linux"    // batches, segmentation offload and coalesced wake-ups, Linux only
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

// Socket is a UDP socket that moves packets in batches. Its methods may be called from several goroutines.
type Socket interface {
	// Serve reads packets and gives them to handle, one batch after the other, until the socket is closed; it returns at once. The
	// batch belongs to the callee only during the call, which must not wait. freed is called once, after the last call of
	// handle, when the socket has been closed and its port is free. near, unless nil, is a served socket that this one exchanges packets
	// with: an engine may serve both in one place. Serve is called at most once.
	Serve(handle func(*Batch), freed func(), near Socket)
	// SendRun sends frames to one address in order and tells how many the system took. What finds no room in the socket's buffer is
	// lost, as packets are (the portable engine waits for room instead). b lends its working memory; the frames may lie in it.
	SendRun(b *Batch, frames [][]byte, to netip.AddrPort) int
	// Send sends one packet under the same terms. A whole one is sent with the Don't Fragment bit where the system can (CanSendWhole);
	// all others may be fragmented on their way.
	Send(p []byte, to netip.AddrPort, whole bool) bool
	// Addr is the local address.
	Addr() netip.AddrPort
	// Close ends Serve, and does not wait for it. A socket that is not served is freed before it returns.
	Close()
}

// Plane is one data plane: an engine, what serves its sockets, the buffers they share, and what it has counted.
type Plane struct {
	engine Engine
	pool   batches
	now    func() time.Time
	loops  loops
	Counts Counts
}

// NewPlane makes a data plane; Close ends it. now tells the time; it is called once per batch.
func NewPlane(engine Engine, now func() time.Time) (*Plane, error) {
	engine, err := engine.Resolve()
	if err != nil {
		return nil, err
	}
	p := &Plane{engine: engine, now: now}
	if engine != Portable {
		if err := p.loops.start(Workers(engine)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Close waits until what serves the sockets has ended. All sockets must have been closed before.
func (p *Plane) Close() { p.loops.stop() }

// Lease lends a batch as working memory for Session.FromStream; Return takes it back.
func (p *Plane) Lease() *Batch { return p.pool.get() }

// Return takes back what Lease has lent.
func (p *Plane) Return(b *Batch) { p.pool.put(b) }

// Engine is the engine in use, never Auto.
func (p *Plane) Engine() Engine { return p.engine }

// Open opens a UDP socket on addr; an invalid address part means every address of the host. reuse lets several sockets share the
// port (SO_REUSEPORT) where the system can; buffer is the size wished for the kernel's buffers in bytes, 0 for its default.
func (p *Plane) Open(addr netip.AddrPort, reuse bool, buffer int) (Socket, error) {
	if p.engine == Portable {
		return openPortable(addr, reuse, buffer)
	}
	return p.loops.open(addr, reuse, buffer)
}

func unmapPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
