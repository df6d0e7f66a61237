// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package transport

import (
	"context"
	"net/netip"
	"syscall"
	"time"
)

// Systems without sendmmsg and recvmmsg move one packet per call.

type batchSys struct{}

func (*batchSys) init() {}

type peerName struct{ to netip.AddrPort }

func newPeerName(to netip.AddrPort, _ bool) peerName { return peerName{to} }

// fetch reads from the path: see Session.Fetch.
func (p *path) fetch() int { return p.to.Compare(p.to) }

func (b *Batch) write(to *socket, messages []message) {
	for i := range messages {
		m := &messages[i]
		b.packets++
		b.calls++
		if _, err := to.conn.WriteToUDPAddrPort(b.arena[m.from:m.from+m.size], m.path.name.to); err != nil {
			b.dropped++
		}
	}
}

type receiver struct {
	slot [slotSize]byte
	n    int
	size int
	from netip.AddrPort
}

type socketSys struct{}

func (s *socket) open() error { return nil }

func openLate(context.Context, []*socket) error { return nil }

func (s *socket) close() { _ = s.conn.Close() }

func newReceiver() *receiver { return &receiver{} }

func (r *receiver) receive(s *socket, handle func()) {
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(r.slot[:])
		if err != nil {
			return
		}
		r.n, r.size, r.from = 1, n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		handle()
		s.awake.give(time.Now(), s.haste.calm.Load())
	}
}

func (r *receiver) packet(int) ([]byte, netip.AddrPort) { return r.slot[:r.size], r.from }

func tune(syscall.RawConn) (segments, six bool) { return false, false }

func sharePort(_, _ string, _ syscall.RawConn) error { return nil }
