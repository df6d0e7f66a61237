// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

const (
	connsEach      = 2048 // HTTP connections that one address may hold open; an office behind one address has fewer
	handshakesEach = 64   // TLS handshakes that one address may have under way
)

// crowd counts what strangers hold open by address (IPv6: by /64, which is one customer's). Above most, they get no more. A nil
// *crowd counts nothing.
type crowd struct {
	most   int
	exempt []netip.Prefix // reverse proxies: all the world comes from their addresses

	mu sync.Mutex
	n  map[netip.Addr]int
}

// newCrowd counts up to most; nil where limits are off.
func (a *App) newCrowd(most int) *crowd {
	if !a.cfg.Limits.Enabled {
		return nil
	}
	return &crowd{most: most, exempt: a.cfg.Listen.TrustedProxies, n: map[netip.Addr]int{}}
}

// enter counts one from an address, to be taken off by leave; false when there are too many.
func (c *crowd) enter(remote net.Addr) (leave func(), ok bool) {
	tcp, isTCP := remote.(*net.TCPAddr)
	if c == nil || !isTCP {
		return func() {}, true
	}
	at := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range c.exempt {
		if p.Contains(at) {
			return func() {}, true
		}
	}
	if at.Is6() {
		if p, err := at.Prefix(64); err == nil {
			at = p.Addr()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[at] >= c.most {
		return nil, false
	}
	c.n[at]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n[at]--; c.n[at] <= 0 {
			delete(c.n, at)
		}
	}, true
}

// connState is an http.Server's hook that closes connections of addresses which hold too many. One that becomes a WebSocket is not counted
// any more: who serves it has limits of its own.
func (c *crowd) connState() func(net.Conn, http.ConnState) {
	var open sync.Map // net.Conn -> func()
	return func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if leave, ok := c.enter(conn.RemoteAddr()); ok {
				open.Store(conn, leave)
			} else {
				conn.Close()
			}
		case http.StateClosed, http.StateHijacked:
			if leave, ok := open.LoadAndDelete(conn); ok {
				leave.(func())()
			}
		}
	}
}
