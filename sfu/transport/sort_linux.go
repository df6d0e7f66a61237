// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What comes to a media port is of two kinds. Media and handshakes cannot wait. Receiver reports and a client's checks that it may still send
// (RFC 7675) can, a little, and in a call where one speaks and fifty listen they are nearly all that comes: each of them woke the
// process. So each loop has a second socket on the port for them, its late socket, and the kernel sorts (SO_ATTACH_REUSEPORT_CBPF,
// socket(7)). The late socket is read whenever the loop is awake, and wakes it itself only when nothing else does: see socketSys.rest.

// sorting is the program that gives the number of a packet's socket, in the order in which they were bound: first a prompt one for
// each loop, then a late one for each. All that comes from one port goes to one loop.
func sorting(loops int, six bool) []bpf.Instruction {
	const networkHeader = 0xFFF00000 // SKF_NET_OFF
	port := []bpf.Instruction{
		bpf.LoadConstant{Dst: bpf.RegX, Val: 40}, // of IPv6; the port of what has extension headers is nonsense, but always the same
	}
	if !six {
		// The length of the IPv4 header; bpf.LoadMemShift takes no offset like this one.
		port = []bpf.Instruction{
			bpf.RawInstruction{Op: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: networkHeader},
		}
	}
	loop := append(port,
		bpf.LoadIndirect{Off: networkHeader, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(loops)},
	)
	late := []bpf.Instruction{bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: uint32(loops)}, bpf.RetA{}}
	n := uint8(len(loop))
	// A packet too short for what is read goes to socket 0.
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 4, SkipTrue: 5},         // STUN (RFC 7983): late
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 6},              //
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 2, SkipTrue: 3 + n + 2}, // neither RTP nor RTCP: prompt
		bpf.LoadAbsolute{Off: 1, Size: 1},                               //
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xE0},                  //
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xC0, SkipTrue: n + 2},  // not of 192 to 223 (RFC 5761 section 4): RTP
	}
	program = append(append(program, loop...), late...)
	return append(append(program, loop...), bpf.RetA{})
}

// sortOn makes the kernel sort what comes to the port of fd.
func sortOn(fd, loops int, six bool) error {
	program, err := bpf.Assemble(sorting(loops, six))
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &fprog))
}

// openLate gives each of the sockets, which share one port, its late socket and one to send from. Where the kernel does not sort, there are
// none.
//
// A packet that is sent tells those who wait for its socket that there is room again: the kernel calls epoll for each. Nobody waits for a
// socket that only sends. It is bound after the others, and the program names none of its number, so nothing comes to it.
func openLate(ctx context.Context, sockets []*socket) error {
	for _, s := range sockets {
		var err error
		if s.sys.late, err = another(ctx, s); err != nil {
			return closeLate(sockets, err)
		}
		if err = unix.EpollCtl(s.sys.epoll, unix.EPOLL_CTL_ADD, s.sys.late, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
			return closeLate(sockets, os.NewSyscallError("epoll_ctl", err))
		}
	}
	if err := sortOn(sockets[0].sys.fd, len(sockets), sockets[0].six); err != nil {
		return closeLate(sockets, err)
	}
	for _, s := range sockets {
		if fd, err := another(ctx, s); err == nil {
			s.sys.out = fd
		}
	}
	return nil
}

// another opens another socket on the port of s, which must share it; -1 and an error if it cannot.
func another(ctx context.Context, s *socket) (int, error) {
	lc := net.ListenConfig{Control: sharePort}
	c, err := lc.ListenPacket(ctx, "udp", s.local.String())
	if err != nil {
		return -1, err
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return -1, err
	}
	tune(raw)
	return bare(raw)
}

// closeLate takes the late sockets away again.
func closeLate(sockets []*socket, err error) error {
	for _, s := range sockets {
		if s.sys.late >= 0 {
			_ = unix.Close(s.sys.late)
			s.sys.late = -1
		}
	}
	return err
}
