// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net/netip"
	"slices"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// denied are the ranges that no relay reaches unless Config.Allow opens them: what is not global unicast (IANA's special-purpose
// address registries), and the IPv6 forms that carry an IPv4 address, through which one could name a denied address a second
// way. Addresses are compared as they came: an IPv4-mapped one is not unmapped but denied.
var denied = func() (out []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8",       // this host, on Linux the same as loopback (RFC 791; CVE-2020-26262)
		"10.0.0.0/8",      // private (RFC 1918)
		"100.64.0.0/10",   // carrier-grade NAT (RFC 6598)
		"127.0.0.0/8",     // loopback
		"169.254.0.0/16",  // link-local, with the clouds' metadata services (RFC 3927)
		"172.16.0.0/12",   // private
		"192.0.0.0/24",    // IETF protocol assignments (RFC 6890)
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // 6to4 relay anycast
		"192.168.0.0/16",  // private
		"198.18.0.0/15",   // benchmarks (RFC 2544)
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/4",     // multicast
		"240.0.0.0/4",     // reserved, and broadcast
		"::/96",           // unspecified, loopback, IPv4-compatible
		"::ffff:0:0/96",   // IPv4-mapped (CVE-2026-27624)
		"::ffff:0:0:0/96", // IPv4-translated (RFC 2765)
		"64:ff9b::/96",    // NAT64 (RFC 6052)
		"64:ff9b:1::/48",  // NAT64, local use (RFC 8215)
		"100::/64",        // discard
		"2001::/23",       // IETF protocol assignments, with Teredo (RFC 4380)
		"2001:db8::/32",   // documentation
		"2002::/16",       // 6to4 (RFC 3056)
		"3fff::/20",       // documentation
		"5f00::/16",       // segment routing
		"fc00::/7",        // unique local
		"fe80::/10",       // link-local
		"fec0::/10",       // site-local
		"ff00::/8",        // multicast
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// peerRule says which peers a relay may reach.
type peerRule struct {
	allow []netip.Prefix
	// own are this host's addresses, as clients may name them. The value is the address to send to, or the zero Addr for one that
	// nothing may be sent to.
	own map[netip.Addr]netip.Addr
	// shown is the other way round, for relay addresses behind a NAT.
	shown map[netip.Addr]netip.Addr
	ports map[netip.Addr]*relay.Ports // by local address
	local map[netip.AddrPort]bool
}

func newPeerRule(c Config, ports [2][]*relay.Ports, host []netip.Addr) *peerRule {
	r := &peerRule{
		allow: c.Allow, own: make(map[netip.Addr]netip.Addr), shown: make(map[netip.Addr]netip.Addr),
		ports: make(map[netip.Addr]*relay.Ports), local: make(map[netip.AddrPort]bool),
	}
	for _, a := range host {
		r.own[a] = netip.Addr{}
	}
	for _, a := range c.LocalPeers {
		ip := a.Addr().Unmap()
		r.own[ip] = ip
		r.local[netip.AddrPortFrom(ip, a.Port())] = true
	}
	for _, p := range append(slices.Clone(ports[0]), ports[1]...) {
		r.own[p.Addr()] = p.Addr()
		r.ports[p.Addr()] = p
	}
	for _, x := range c.Relays {
		local := x.Local.Unmap()
		r.own[x.shown()] = local
		r.shown[local] = x.shown()
	}
	return r
}

// check tells whether the client may permit the peer at all, and the peer's forms. For our own addresses, which only ports in use
// by relays (or the SFU) make reachable, open must be asked as well where the port is known.
func (r *peerRule) check(a netip.AddrPort) (p relay.Peer, ok bool) {
	ip := a.Addr()
	p = relay.Peer{Actual: a, Shown: a}
	to, own := r.own[ip]
	if own && to.IsValid() {
		p.Actual = netip.AddrPortFrom(to, a.Port())
		if s, ok := r.shown[to]; ok {
			p.Shown = netip.AddrPortFrom(s, a.Port())
		}
	}
	for _, prefix := range r.allow {
		if prefix.Contains(ip) && (!own || prefix.IsSingleIP() || inLoopback(prefix)) {
			return p, true
		}
	}
	if own {
		p.Own = true
		return p, to.IsValid()
	}
	for _, prefix := range denied {
		if prefix.Contains(ip) {
			return p, false
		}
	}
	return p, ip.IsValid() && ip.Zone() == ""
}

// open tells whether packets may be exchanged with a port of this host: one that is a live relay's or a local peer's.
func (r *peerRule) open(actual netip.AddrPort) bool {
	if p := r.ports[actual.Addr()]; p != nil && p.Live(actual.Port()) {
		return true
	}
	return r.local[actual]
}

// inLoopback tells whether all of the prefix is loopback: who opens that means this host.
func inLoopback(p netip.Prefix) bool { return p.Addr().IsLoopback() && p.Addr().Is4() && p.Bits() >= 8 }
