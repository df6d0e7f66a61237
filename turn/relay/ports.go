// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// Ports hands out the relay ports of one local address and knows which of them are in use.
type Ports struct {
	plane    *Plane
	addr     netip.Addr
	min, max int

	mu   sync.Mutex
	used [1024]uint64 // bitmap over all 65536 ports
	free int

	live [1024]atomic.Uint64 // the same for readers: ports whose socket is open
}

// ErrNoPort is what Open returns when every port of the range is in use.
var ErrNoPort = errors.New("relay: no free port in the relay range")

// NewPorts makes the range [low, high] on addr.
func NewPorts(p *Plane, addr netip.Addr, low, high uint16) *Ports {
	return &Ports{plane: p, addr: addr, min: int(low), max: int(high), free: int(high) - int(low) + 1}
}

// Addr is the local address.
func (r *Ports) Addr() netip.Addr { return r.addr }

// bindTries bounds how many ports that other programs hold are stepped over for one allocation.
const bindTries = 64

// Open opens a relay socket on a free port, chosen at random so that it cannot be guessed (RFC 8656, section 7.2). Nothing is sent to
// the port from other relays before Enlist.
func (r *Ports) Open() (Socket, error) {
	sock, _, err := r.open(1, 0)
	return sock, err
}

// Take takes a free port at random for a socket that the caller opens; Release gives it back.
func (r *Ports) Take() (uint16, bool) {
	port, ok := r.take(r.min+rand.IntN(r.max-r.min+1), 1, 0)
	return uint16(port), ok
}

// OpenEven opens a relay socket on an even port and, if asked, a second one on the port above it (EVEN-PORT, RFC 8656, section
// 18.6).
func (r *Ports) OpenEven(both bool) (sock, above Socket, err error) {
	if both {
		return r.open(2, 1)
	}
	return r.open(2, 0)
}

// open takes a port that is a multiple of step, and so many above it.
func (r *Ports) open(step, above int) (sock, second Socket, err error) {
	start := r.min + rand.IntN(r.max-r.min+1)
	for range bindTries {
		port, ok := r.take(start, step, above)
		if !ok {
			return nil, nil, ErrNoPort
		}
		sock, err = r.plane.Open(netip.AddrPortFrom(r.addr, uint16(port)), false, 0)
		if err == nil && above > 0 {
			if second, err = r.plane.Open(netip.AddrPortFrom(r.addr, uint16(port+1)), false, 0); err != nil {
				sock.Close()
			}
		}
		if err == nil {
			return sock, second, nil
		}
		for i := range above + 1 {
			r.Release(uint16(port + i))
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, err
		}
		if start = port + 1; start > r.max {
			start = r.min
		}
	}
	return nil, nil, ErrNoPort
}

// take marks the first free port from start on that is a multiple of step and has so many free ones above it, going round once.
func (r *Ports) take(start, step, above int) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.free == 0 {
		return 0, false
	}
	size := r.max - r.min + 1
	for seen := 0; seen < size; {
		port := r.min + (start-r.min+seen)%size
		if word := r.used[port>>6]; word == ^uint64(0) && port&63 == 0 && port+63 <= r.max {
			seen += 64 // a full word
			continue
		}
		seen++
		if port%step != 0 || port+above > r.max || r.isUsed(port) || above > 0 && r.isUsed(port+above) {
			continue
		}
		for i := range above + 1 {
			r.used[(port+i)>>6] |= 1 << ((port + i) & 63)
			r.free--
		}
		return port, true
	}
	return 0, false
}

func (r *Ports) isUsed(port int) bool { return r.used[port>>6]&(1<<(port&63)) != 0 }

// Enlist tells that the port belongs to an allocation from now on, so that other relays may send to it.
func (r *Ports) Enlist(port uint16) { r.live[port>>6].Or(1 << (port & 63)) }

// Retire tells that nothing may be sent to the port any more: its allocation has ended, its socket is about to close.
func (r *Ports) Retire(port uint16) { r.live[port>>6].And(^(1 << (port & 63))) }

// Release gives the port back after its socket has been closed.
func (r *Ports) Release(port uint16) {
	r.Retire(port)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[port>>6] &^= 1 << (port & 63)
	r.free++
}

// Live tells whether the port is one of an open relay socket.
func (r *Ports) Live(port uint16) bool { return r.live[port>>6].Load()&(1<<(port&63)) != 0 }

// Free is the number of free ports.
func (r *Ports) Free() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.free
}
