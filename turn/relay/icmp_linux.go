// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchErrors makes the kernel keep ICMP errors about packets of this socket for readErrors.
func (s *batched) watchErrors(heard func(ICMP)) {
	s.heard = heard
	// A kernel that does not know the option keeps none; sockets of IPv6 hear of IPv4 if they carry both.
	if s.six {
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
}

// Origins of a sock_extended_err (linux/errqueue.h) that are messages of routers and hosts.
const (
	originICMP  = 2
	originICMP6 = 3
)

// maxErrors is how many errors are read at a time.
const maxErrors = 16

// readErrors hands over the ICMP errors that have come.
func (s *batched) readErrors() {
	for range maxErrors {
		var (
			name    unix.RawSockaddrInet6
			control [256]byte
			payload [1]byte
			vec     = unix.Iovec{Base: &payload[0]}
			msg     = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&name)), Namelen: unix.SizeofSockaddrInet6, Iov: &vec, Control: &control[0]}
		)
		vec.SetLen(len(payload))
		msg.SetIovlen(1)
		msg.SetControllen(len(control))
		_, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if e != 0 {
			return
		}
		if i, ok := icmpOf(control[:msg.Controllen]); ok {
			i.To = goAddr(&name)
			s.heard(i)
		}
	}
}

// icmpOf finds the ICMP message among the control messages of an error.
func icmpOf(control []byte) (out ICMP, ok bool) {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return out, false
	}
	for _, m := range list {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !v4 && !v6 || len(m.Data) < 16 {
			continue
		}
		// struct sock_extended_err: errno 32, origin 8, type 8, code 8, pad 8, info 32, data 32
		if origin := m.Data[4]; origin != originICMP && origin != originICMP6 {
			continue
		}
		out.Type, out.Code = m.Data[5], m.Data[6]
		if v4 && out.Type == 3 && out.Code == 4 || v6 && out.Type == 2 {
			out.Data = binary.NativeEndian.Uint32(m.Data[8:]) // the next hop's MTU
		}
		return out, true
	}
	return out, false
}

// delayed tells whether an error of sending may be one about an earlier packet, so that the same call may succeed now.
func delayed(e unix.Errno) bool {
	switch e {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EPROTO, unix.ENOPROTOOPT, unix.EMSGSIZE, unix.EACCES:
		return true
	}
	return false
}
