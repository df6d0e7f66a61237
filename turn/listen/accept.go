// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Gate counts the open connections and refuses those that are too many, in all or from one source (an IPv4 address or an IPv6 /64).
type Gate struct {
	total, perSource int

	mu      sync.Mutex
	open    int
	sources map[netip.Addr]int
}

// NewGate makes a gate with the two limits.
func NewGate(total, perSource int) *Gate {
	return &Gate{total: total, perSource: perSource, sources: make(map[netip.Addr]int)}
}

// Enter admits a connection. Who was admitted must Leave.
func (g *Gate) Enter(from netip.Addr) bool {
	from = Source(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= g.total || g.sources[from] >= g.perSource {
		return false
	}
	g.open++
	g.sources[from]++
	return true
}

// Leave gives back the place of a connection.
func (g *Gate) Leave(from netip.Addr) {
	from = Source(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.sources[from]--; g.sources[from] == 0 {
		delete(g.sources, from)
	}
}

// Open is the number of connections inside.
func (g *Gate) Open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Source is what counts as one source of traffic: an IPv4 address, or the /64 that one subscriber is given in IPv6.
func Source(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // cannot fail: 64 is in range and there is no zone
		return p.Addr()
	}
	return a
}

// Accept accepts connections until the listener is closed and runs serve for each in a goroutine of its own; it returns when all of
// them have ended. serve owns the connection.
func Accept(ln net.Listener, serve func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				time.Sleep(50 * time.Millisecond) // out of descriptors: let some connections end
				continue
			}
			return err
		}
		wg.Go(func() { serve(conn) })
	}
}

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446, section 5.1); no STUN message starts with it.
const recordTypeHandshake = 0x16

// Sniff reads the first byte of a new connection within the given time and, if it is that of TLS, makes the handshake with config.
// With a nil config every connection is taken as plain. secure tells what it was. On error the connection is closed.
func Sniff(conn net.Conn, config *tls.Config, within time.Duration) (_ net.Conn, secure bool, err error) {
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, false, err
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return nil, false, err
	}
	var c net.Conn = &prefixed{Conn: conn, prefix: first[:]}
	if config != nil && first[0] == recordTypeHandshake {
		t := tls.Server(c, config)
		if err := t.Handshake(); err != nil {
			return nil, true, err
		}
		c, secure = t, true
	}
	return c, secure, conn.SetDeadline(time.Time{})
}

// prefixed gives back what was read from a connection to look at it. Below TLS it also gathers records, so that a batch of frames,
// each in a record of its own, is written in one go.
type prefixed struct {
	net.Conn
	prefix []byte

	mu     sync.Mutex
	corked bool
	held   []byte
}

func (c *prefixed) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *prefixed) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// cork holds what is written until uncork.
func (c *prefixed) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *prefixed) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	_, err := c.Conn.Write(c.held)
	if c.held = c.held[:0]; cap(c.held) > keepBuffer {
		c.held = nil
	}
	return err
}
