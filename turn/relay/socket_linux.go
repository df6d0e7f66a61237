// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batched is a socket of the linux engine: recvmmsg, sendmmsg and UDP_SEGMENT on a descriptor that the runtime's poller does not know,
// served by a loop.
type batched struct {
	fd      int
	addr    netip.AddrPort
	six     bool        // the socket's family is AF_INET6
	segment atomic.Bool // UDP_SEGMENT works on this socket

	// users counts those that use the descriptor: its owner (until Close) and the calls in progress. The last one closes it.
	users  atomic.Int32
	closed atomic.Bool // set under mu

	loops  *loops
	slot   int // in loop.sockets, or one of the values below; the loop's
	handle func(*Batch)
	freed  func()
	heard  func(ICMP) // nil: errors are not asked for

	fragment sync.Mutex // held while the socket's Don't Fragment option is not as usual

	mu   sync.Mutex
	loop *loop // nil until Serve
}

// Values of batched.slot that are none.
const (
	coming = -1 // not yet in its loop's table
	gone   = -2 // no longer
)

// open opens a socket under Plane.Open's terms.
func (l *loops) open(addr netip.AddrPort, reuse bool, buffer int) (Socket, error) {
	ip := addr.Addr().Unmap()
	family := unix.AF_INET6
	if ip.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == unix.EAFNOSUPPORT && !ip.IsValid() { // a host without IPv6
		family = unix.AF_INET
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &batched{fd: fd, six: family == unix.AF_INET6, slot: coming, loops: l}
	if err := s.setUp(ip, addr, reuse, buffer); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s.users.Store(1)
	return s, nil
}

func (s *batched) setUp(ip netip.Addr, addr netip.AddrPort, reuse bool, buffer int) error {
	if s.six {
		only := 1
		if !ip.IsValid() || ip.IsUnspecified() {
			only = 0 // every address, of both families
		}
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if reuse {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if buffer > 0 {
		// Best effort: beyond the system's cap (net.core.rmem_max) only with the right to, and a smaller buffer still works.
		for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
			if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, buffer) != nil {
				_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, plain, buffer)
			}
		}
	}
	var local unix.Sockaddr = &unix.SockaddrInet4{Port: int(addr.Port())}
	if ip.Is4() {
		local.(*unix.SockaddrInet4).Addr = ip.As4()
	}
	if s.six {
		six := &unix.SockaddrInet6{Port: int(addr.Port())}
		if ip.IsValid() {
			six.Addr = ip.As16()
		}
		if z := ip.Zone(); z != "" {
			index, err := zoneIndex(z)
			if err != nil {
				return err
			}
			six.ZoneId = index
		}
		local = six
	}
	if err := unix.Bind(s.fd, local); err != nil {
		return os.NewSyscallError("bind", err)
	}
	at, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		s.addr = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	case *unix.SockaddrInet6:
		s.addr = netip.AddrPortFrom(netip.AddrFrom16(at.Addr).Unmap().WithZone(ip.Zone()), uint16(at.Port))
	}
	setWhole(s.fd, s.six, false)
	_, segErr := unix.GetsockoptInt(s.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.segment.Store(segErr == nil)
	return nil
}

// use takes the descriptor for a call; done gives it back.
func (s *batched) use() bool {
	for {
		n := s.users.Load()
		if n == 0 || s.closed.Load() {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *batched) done() {
	if s.users.Add(-1) == 0 {
		_ = unix.Close(s.fd)
		if s.freed != nil {
			s.freed()
		}
	}
}

// Addr implements Socket.
func (s *batched) Addr() netip.AddrPort { return s.addr }

// Serve implements Socket.
func (s *batched) Serve(handle func(*Batch), freed func(), near Socket) {
	s.handle, s.freed = handle, freed
	s.mu.Lock()
	closed := s.closed.Load()
	if !closed {
		s.loop = s.loops.pick(near)
	}
	s.mu.Unlock()
	if !closed {
		s.loop.post(s)
	} else if freed != nil {
		freed()
	}
}

// served tells which loop serves the socket; nil: none.
func (s *batched) served() *loop {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loop
}

// Close implements Socket.
func (s *batched) Close() {
	s.mu.Lock()
	was, x := s.closed.Swap(true), s.loop
	s.mu.Unlock()
	switch {
	case was:
	case x != nil:
		x.post(s)
	default:
		s.done()
	}
}

// Send implements Socket.
func (s *batched) Send(p []byte, to netip.AddrPort, whole bool) bool {
	if !s.use() {
		return false
	}
	defer s.done()
	if whole {
		s.fragment.Lock()
		defer s.fragment.Unlock()
		setWhole(s.fd, s.six, true)
		defer setWhole(s.fd, s.six, false)
	}
	var name unix.RawSockaddrInet6
	n := putAddress(&name, to, s.six)
	again := false
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&name)), uintptr(n))
		if delayed(e) && !again {
			again = true
			continue
		}
		if e != unix.EINTR {
			return e == 0
		}
	}
}

// SendRun implements Socket.
func (s *batched) SendRun(b *Batch, frames [][]byte, to netip.AddrPort) (sent int) {
	if !s.use() {
		return 0
	}
	defer s.done()
	x := &b.sys
	size := putAddress(&x.txName, to, s.six)
	again := false
	for len(frames) > 0 {
		k := x.fill(frames, size, s.segment.Load())
		e := x.transmit(s.fd)
		switch {
		case e == 0 && x.txSent == x.txN:
			sent += k
			frames = frames[k:]
		case e == 0: // some; the next call tells why not the others
			done := x.txFrom[x.txSent]
			sent += done
			frames = frames[done:]
		case x.tx[0].h.Control != nil && (e == unix.EIO || e == unix.EINVAL || e == unix.EMSGSIZE):
			// The route has no checksum offload (EIO), or the segments are longer than its MTU (EINVAL, EMSGSIZE): without from now on.
			s.segment.Store(false)
		case e == unix.EINTR:
		case delayed(e) && !again:
			again = true
		case e == unix.EAGAIN || e == unix.ENOBUFS:
			return sent // full: the rest is lost
		default: // this message cannot be sent (no route, refused by a firewall, too long); the others may
			skip := k
			if x.txN > 1 {
				skip = x.txFrom[1]
			}
			frames = frames[skip:]
		}
	}
	return sent
}

// zoneIndex is the number of an IPv6 zone.
func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// CanSendWhole tells whether this system can set the Don't Fragment bit of single packets.
const CanSendWhole = true

// setWhole makes the socket set the Don't Fragment bit, whatever it knows of the path (the client finds out about that itself), or lets
// packets be fragmented on their way as usual.
func setWhole(fd int, six, whole bool) {
	// Both fail only for a descriptor that is none.
	if six {
		value := unix.IPV6_PMTUDISC_DONT
		if whole {
			value = unix.IPV6_PMTUDISC_PROBE
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, value)
	}
	value := unix.IP_PMTUDISC_DONT
	if whole {
		value = unix.IP_PMTUDISC_PROBE
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, value)
}
