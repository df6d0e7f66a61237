// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	size   uint32
	_      [4]byte
}

// segmentControl is the control message UDP_SEGMENT: packets of that size.
type segmentControl struct {
	header unix.Cmsghdr
	size   uint16
	_      [6]byte
}

// batchSys is the memory that the kernel reads a batch from.
type batchSys struct {
	headers [batchMessages]mmsghdr
	vectors [batchMessages]unix.Iovec
	control [batchMessages]segmentControl
}

func (s *batchSys) init() {}

// peerName is a socket address as the kernel wants it.
type peerName struct {
	raw  unix.RawSockaddrInet6
	size uint32
}

func newPeerName(to netip.AddrPort, six bool) (p peerName) {
	port := to.Port()<<8 | to.Port()>>8
	if six {
		p.raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
		p.size = unix.SizeofSockaddrInet6
		return p
	}
	four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.raw))
	*four = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().Unmap().As4()}
	p.size = unix.SizeofSockaddrInet4
	return p
}

// fetch reads from the path: see Session.Fetch.
func (p *path) fetch() int { return int(p.name.size) }

func (b *Batch) write(to *socket, messages []message) {
	if !to.enter() {
		return
	}
	defer to.leave()
	s := &b.sys
	for i := range messages {
		m := &messages[i]
		s.vectors[i].Base = &b.arena[m.from]
		s.vectors[i].SetLen(m.size)
		h := &s.headers[i].header
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&m.path.name.raw)), Namelen: m.path.name.size, Iov: &s.vectors[i]}
		h.SetIovlen(1)
		if m.count > 1 {
			c := &s.control[i]
			c.header.Level, c.header.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
			c.header.SetLen(unix.CmsgLen(2))
			c.size = uint16(m.segment)
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(unix.CmsgSpace(2))
		}
		b.packets += uint64(m.count)
	}
	for done := 0; done < len(messages); {
		b.calls++
		// Raw: the call does not block, and telling the scheduler of it costs more than the call when the process is else idle.
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(to.sys.out), uintptr(unsafe.Pointer(&s.headers[done])), uintptr(len(messages)-done), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			done += int(n)
		case unix.EINTR:
		default: // this message cannot go: no room, no route, too long for the route; the next may
			b.dropped += uint64(messages[done].count)
			done++
		}
	}
}

// receiver is the memory that recvmmsg fills.
type receiver struct {
	headers [receiveBatch]mmsghdr
	vectors [receiveBatch]unix.Iovec
	names   [receiveBatch]unix.RawSockaddrInet6
	slots   [receiveBatch][slotSize]byte
	n, used int
}

func newReceiver() *receiver {
	r := &receiver{used: receiveBatch}
	for i := range r.headers {
		r.vectors[i].Base = &r.slots[i][0]
		r.vectors[i].SetLen(slotSize)
		h := &r.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
	}
	return r
}

// read fills the receiver with what has come to the socket; 0 if nothing has.
func (r *receiver) read(fd int) int {
	for i := range r.used {
		r.headers[i].header.Namelen = unix.SizeofSockaddrInet6
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.headers[0])), receiveBatch, unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			r.n, r.used = int(n), int(n)
			return r.n
		case unix.EAGAIN:
			r.n, r.used = 0, 0
			return 0
		default: // EINTR, and e.g. ECONNREFUSED of an earlier send: nothing to do about it
			r.used = receiveBatch
		}
	}
}

// packet gives the i-th packet received and where it came from.
func (r *receiver) packet(i int) ([]byte, netip.AddrPort) {
	name := &r.names[i]
	b := r.slots[i][:r.headers[i].size]
	if name.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return b, netip.AddrPortFrom(netip.AddrFrom4(four.Addr), four.Port<<8|four.Port>>8)
	}
	return b, netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), name.Port<<8|name.Port>>8)
}

// socketBuffer is asked for on both sides: a key frame to fifty subscribers is some megabytes at once.
const socketBuffer = 4 << 20

// tune sets what a media socket needs, and reports whether UDP_SEGMENT works and whether addresses are IPv6.
func tune(raw syscall.RawConn) (segments, six bool) {
	_ = raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], socketBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], socketBuffer)
			}
		}
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		segments = err == nil
		family, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		six = family == unix.AF_INET6
	})
	return segments, six
}

// sharePort lets several sockets listen on one port; the kernel spreads peers over them.
func sharePort(_, _ string, raw syscall.RawConn) error {
	var err error
	ctl := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	if ctl != nil {
		return ctl
	}
	return err
}
