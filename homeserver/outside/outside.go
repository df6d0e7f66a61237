// SPDX-License-Identifier: Apache-2.0

// Package outside says which addresses of the network this server may connect to where a stranger chose the destination: link
// previews, push gateways, other homeservers. What is not the public Internet is closed unless the operator opens it.
package outside

import (
	"fmt"
	"net/netip"
	"syscall"
)

// special is every range that is not the public Internet: what stands there is nobody's business who only knows a name.
var special = func() (out []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// Guard refuses addresses that are not public, but for those in Allow.
type Guard struct {
	Allow []netip.Prefix
	Only  bool // nothing but what stands in Allow
}

// Permits says whether a may be connected to.
func (g Guard) Permits(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range g.Allow {
		if p.Contains(a) {
			return true
		}
	}
	if g.Only {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

// Control is for net.Dialer. It is called with the address that a connection goes to, after names were looked up: no answer of a name
// server leads past it.
func (g Guard) Control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !g.Permits(ap.Addr()) {
		return fmt.Errorf("%s is not a public address", ap.Addr())
	}
	return nil
}
