// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
)

// portable moves one packet per system call with package net.
type portable struct {
	*base
}

// Receive implements Socket. It keeps one slot's worth of buffer while it waits, for package net wants it beforehand.
func (s *portable) Receive(handle func(*Batch)) {
	if !s.begin() {
		return
	}
	defer s.end()
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

// SendRun implements Socket.
func (s *portable) SendRun(_ *Batch, frames [][]byte, to netip.AddrPort) (sent int) {
	for _, f := range frames {
		if s.Send(f, to) {
			sent++
		}
	}
	return sent
}

// Send implements Socket.
func (s *portable) Send(p []byte, to netip.AddrPort) bool {
	_, err := s.conn.WriteToUDPAddrPort(p, to)
	return err == nil
}
