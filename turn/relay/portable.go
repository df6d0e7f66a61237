// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
)

// portable moves one packet per system call with package net. A goroutine for each socket waits in the runtime's poller.
type portable struct {
	conn *net.UDPConn
	addr netip.AddrPort

	fragment sync.Mutex // held while the socket's Don't Fragment option is not as usual

	mu      sync.Mutex
	closed  bool
	serving bool
}

func openPortable(addr netip.AddrPort, reuse bool, buffer int) (Socket, error) {
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
	return &portable{conn: c, addr: unmapPort(c.LocalAddr().(*net.UDPAddr).AddrPort())}, nil
}

// Addr implements Socket.
func (s *portable) Addr() netip.AddrPort { return s.addr }

// Serve implements Socket.
func (s *portable) Serve(handle func(*Batch), freed func(), _ Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = true
	go func() {
		if freed != nil {
			defer freed()
		}
		defer s.conn.Close()
		s.receive(handle)
	}()
}

// receive keeps one slot's worth of buffer while it waits, for package net wants it beforehand.
func (s *portable) receive(handle func(*Batch)) {
	b := newBatch(1)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b.slot(0)[headroom : slotSize-64])
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			continue // an ICMP error of an earlier packet, reported late by some systems
		}
		b.n, b.size[0], b.from[0] = 1, n, unmapPort(from)
		handle(b)
	}
}

// Close implements Socket.
func (s *portable) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if s.serving {
		_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // sends the reader away, and it closes
		return
	}
	_ = s.conn.Close()
}

// SendRun implements Socket.
func (s *portable) SendRun(_ *Batch, frames [][]byte, to netip.AddrPort) (sent int) {
	for _, f := range frames {
		if s.Send(f, to, false) {
			sent++
		}
	}
	return sent
}

// Send implements Socket.
func (s *portable) Send(p []byte, to netip.AddrPort, whole bool) bool {
	if whole && CanSendWhole {
		s.fragment.Lock()
		defer s.fragment.Unlock()
		raw, err := s.conn.SyscallConn()
		if err != nil {
			return false
		}
		six := s.addr.Addr().Is6()
		_ = raw.Control(func(fd uintptr) { setWhole(int(fd), six, true) })
		defer func() { _ = raw.Control(func(fd uintptr) { setWhole(int(fd), six, false) }) }()
	}
	_, err := s.conn.WriteToUDPAddrPort(p, to)
	return err == nil
}
