// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Limits of connections over TCP (RFC 6544, passive candidates only).
const (
	streamFirst   = 10 * time.Second // until the first good check
	streamSilence = 45 * time.Second // without a frame; clients check every few seconds
	streamWrite   = 5 * time.Second  // for what is queued
	streamQueue   = 256 << 10        // bytes that wait to be written; what comes then is dropped, as a full link would
	streamsOfOne  = 32               // connections of one address that have not passed a check
	streamRead    = 16 << 10
)

// stream is a TCP connection of a client: frames with their length before them (RFC 4571).
type stream struct {
	conn    net.Conn
	from    netip.AddrPort
	session atomic.Pointer[Session]

	mu      sync.Mutex
	pending []byte
	closed  bool
	wake    chan struct{}
}

// listenTCP opens a passive TCP listener on each address.
func (t *Transport) listenTCP() error {
	if len(t.cfg.ListenTCP) == 0 {
		return nil
	}
	addrs, err := expand(t.cfg.ListenTCP)
	if err != nil {
		return err
	}
	port := uint16(0)
	for _, a := range addrs {
		if port != 0 && a.Port() == 0 {
			a = netip.AddrPortFrom(a.Addr(), port)
		}
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		if err != nil {
			return fmt.Errorf("transport: listening on %s (TCP): %w", a, err)
		}
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		t.listeners = append(t.listeners, l)
		t.tcp = append(t.tcp, netip.AddrPortFrom(a.Addr(), port))
	}
	for _, a := range t.cfg.Advertise {
		t.tcp = append([]netip.AddrPort{netip.AddrPortFrom(a, port)}, t.tcp...)
	}
	for _, l := range t.listeners {
		t.wait.Go(func() { t.accept(l) })
	}
	return nil
}

// CandidatesTCP are the addresses that clients are told for TCP.
func (t *Transport) CandidatesTCP() []netip.AddrPort { return t.tcp }

func (t *Transport) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if t.closed.Load() {
				return
			}
			select { // out of descriptors, most likely
			case <-t.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		c := &stream{conn: conn, from: from, wake: make(chan struct{}, 1)}
		if !t.admit(c) {
			_ = conn.Close()
			continue
		}
		t.wait.Go(func() { t.serveStream(c) })
		t.wait.Go(c.write)
	}
}

// admit counts a new connection; false if there are too many.
func (t *Transport) admit(c *stream) bool {
	t.streamMu.Lock()
	defer t.streamMu.Unlock()
	if t.closed.Load() || len(t.streams) >= 2*t.cfg.MaxSessions || t.strangers[c.from.Addr()] >= streamsOfOne {
		return false
	}
	t.streams[c] = struct{}{}
	t.strangers[c.from.Addr()]++
	return true
}

// known takes a connection out of the count of those that have not passed a check.
func (t *Transport) known(a netip.Addr) {
	t.streamMu.Lock()
	defer t.streamMu.Unlock()
	if t.strangers[a]--; t.strangers[a] <= 0 {
		delete(t.strangers, a)
	}
}

// serveStream reads a connection until it ends.
func (t *Transport) serveStream(c *stream) {
	defer func() {
		c.close()
		if c.session.Load() == nil {
			t.known(c.from.Addr())
		}
		t.streamMu.Lock()
		delete(t.streams, c)
		t.streamMu.Unlock()
	}()
	buf, n := make([]byte, streamRead), 0
	_ = c.conn.SetReadDeadline(time.Now().Add(streamFirst))
	for {
		m, err := c.conn.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		good := true
		t.Do(func(out *Batch) {
			var run run
			for good && n >= 2 {
				size := int(binary.BigEndian.Uint16(buf))
				if size == 0 || size > packets.MaxSize {
					good = false
					break
				}
				if n < 2+size {
					break
				}
				// A copy, for packets are unsealed in place.
				b := out.frame(buf[2 : 2+size])
				t.packet(b, c.from, way{stream: c}, &run, out)
				run.deliver(out) // the next frame may use the same memory
				n = copy(buf, buf[2+size:n])
			}
		})
		s := c.session.Load()
		if !good || s != nil && s.ctx.Err() != nil {
			return
		}
		if s != nil {
			_ = c.conn.SetReadDeadline(time.Now().Add(streamSilence))
		}
	}
}

// put queues a frame, or drops it.
func (c *stream) put(b []byte) bool {
	c.mu.Lock()
	if c.closed || len(c.pending)+len(b)+2 > streamQueue {
		c.mu.Unlock()
		return false
	}
	c.pending = binary.BigEndian.AppendUint16(c.pending, uint16(len(b)))
	c.pending = append(c.pending, b...)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// write sends what is queued until the connection is closed. A client that does not take it in time is cut off.
func (c *stream) write() {
	var b []byte
	for range c.wake {
		c.mu.Lock()
		b, c.pending = c.pending, b[:0]
		closed := c.closed
		c.mu.Unlock()
		if closed {
			return
		}
		if len(b) == 0 {
			continue
		}
		_ = c.conn.SetWriteDeadline(time.Now().Add(streamWrite))
		if _, err := c.conn.Write(b); err != nil {
			c.close()
			return
		}
		if cap(b) > streamQueue/4 {
			b = nil // a burst's memory is not kept
		}
	}
}

func (c *stream) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.pending = true, nil
	_ = c.conn.Close()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// hangUp closes the connections of a session.
func (t *Transport) hangUp(s *Session) {
	t.streamMu.Lock()
	defer t.streamMu.Unlock()
	for c := range t.streams {
		if c.session.Load() == s {
			c.close()
		}
	}
}

// closeStreams ends the listeners and all connections.
func (t *Transport) closeStreams() {
	for _, l := range t.listeners {
		_ = l.Close()
	}
	t.streamMu.Lock()
	defer t.streamMu.Unlock()
	for c := range t.streams {
		c.close()
	}
}
