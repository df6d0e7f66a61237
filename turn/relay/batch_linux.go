// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const best = Linux

// Limits of UDP segmentation offload: segments per call (UDP_MAX_SEGMENTS) and bytes (an IP packet's 16-bit length, less headers).
const (
	maxSegments     = 64
	maxSegmentBytes = 65000
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	h unix.Msghdr
	n uint32
	_ [4]byte
}

// segmentControl is the control message that asks for UDP_SEGMENT with a 16-bit size.
type segmentControl struct {
	h    unix.Cmsghdr
	size uint16
	_    [6]byte
}

// batchSys is the memory that recvmmsg and sendmmsg work on. It is reached by the kernel through raw pointers, all of which point
// into the Batch itself or into frames that the caller keeps alive.
type batchSys struct {
	rx     [batchSize]mmsghdr
	rxVec  [batchSize]unix.Iovec
	rxName [batchSize]unix.RawSockaddrInet6

	tx     [batchSize]mmsghdr
	txVec  [batchSize]unix.Iovec
	txCtl  [batchSize]segmentControl
	txFrom [batchSize]int // index of the first frame of each message
	txName unix.RawSockaddrInet6

	txN    int // messages of the call in progress
	txSent int
}

func (s *batchSys) init(b *Batch) {
	for i := range s.rx {
		s.rxVec[i].Base = &b.slots[i*slotSize+headroom]
		s.rxVec[i].SetLen(slotSize - headroom - 64)
		h := &s.rx[i].h
		h.Name = (*byte)(unsafe.Pointer(&s.rxName[i]))
		h.Iov = &s.rxVec[i]
		h.SetIovlen(1)
	}
}

// transmit sends the messages that fill has made, from txSent on, without waiting.
func (s *batchSys) transmit(fd int) syscall.Errno {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.tx[s.txSent])), uintptr(s.txN-s.txSent), unix.MSG_DONTWAIT, 0, 0)
	if e == 0 {
		s.txSent += int(n)
	}
	return e
}

// receive fills b without waiting.
func (s *batchSys) receive(b *Batch, fd int) syscall.Errno {
	for i := range s.rx {
		s.rx[i].h.Namelen = unix.SizeofSockaddrInet6
	}
	// A raw call: it does not wait, so the scheduler need not hear of it.
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.rx[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		b.n = 0
		return e
	}
	b.n = int(n)
	for i := range b.n {
		b.size[i] = int(s.rx[i].n)
		b.from[i] = goAddr(&s.rxName[i])
	}
	return 0
}

// fill makes messages of as many frames as fit, runs of one size as one segmented message, and tells how many frames it took.
func (x *batchSys) fill(frames [][]byte, nameLen uint32, segment bool) int {
	m, i := 0, 0
	for i < len(frames) && i < batchSize {
		first := i
		size, total := len(frames[i]), 0
		for ; i < len(frames) && i < batchSize; i++ {
			n := len(frames[i])
			if i > first && (!segment || n > size || n == 0 || size == 0 || total+n > maxSegmentBytes || i-first == maxSegments) {
				break
			}
			x.txVec[i].Base = unsafe.SliceData(frames[i])
			x.txVec[i].SetLen(n)
			total += n
			if n < size { // only the last segment may be shorter
				i++
				break
			}
		}
		h := &x.tx[m].h
		h.Name = (*byte)(unsafe.Pointer(&x.txName))
		h.Namelen = nameLen
		h.Iov = &x.txVec[first]
		h.SetIovlen(i - first)
		h.Control = nil
		h.SetControllen(0)
		if i-first > 1 {
			c := &x.txCtl[m]
			c.h.Level, c.h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
			c.h.SetLen(unix.CmsgLen(2))
			c.size = uint16(size)
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(unix.CmsgSpace(2))
		}
		x.txFrom[m] = first
		m++
	}
	x.txN, x.txSent = m, 0
	return i
}

// putAddress writes to as the kernel's socket address and tells its length.
func putAddress(name *unix.RawSockaddrInet6, to netip.AddrPort, six bool) uint32 {
	port := to.Port()<<8 | to.Port()>>8 // network order
	if !six {
		n := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*n = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().Unmap().As4()}
		return unix.SizeofSockaddrInet4
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
	if z := to.Addr().Zone(); z != "" {
		if id, err := strconv.ParseUint(z, 10, 32); err == nil {
			name.Scope_id = uint32(id)
		}
	}
	return unix.SizeofSockaddrInet6
}

func goAddr(n *unix.RawSockaddrInet6) netip.AddrPort {
	port := n.Port<<8 | n.Port>>8
	if n.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(n)).Addr), port)
	}
	a := netip.AddrFrom16(n.Addr).Unmap()
	if n.Scope_id != 0 && a.IsLinkLocalUnicast() {
		a = a.WithZone(strconv.Itoa(int(n.Scope_id)))
	}
	return netip.AddrPortFrom(a, port)
}

// SharePort is a net.ListenConfig's or net.Dialer's Control that lets several sockets be bound to one port.
func SharePort(network, address string, c syscall.RawConn) error {
	return reusePort(network, address, c)
}

func reusePort(_, _ string, c syscall.RawConn) error {
	var optErr error
	err := c.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return optErr
}
