// SPDX-License-Identifier: Apache-2.0

package outside

import (
	"net/netip"
	"testing"
)

func TestOnlyPublicAddressesAreConnectedTo(t *testing.T) {
	g := Guard{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for addr, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800::1": true, "10.1.2.3": true,
		"127.0.0.1": false, "10.2.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"224.0.0.1": false, "255.255.255.255": false, "::1": false, "::": false, "::ffff:127.0.0.1": false, "fe80::1%eth0": false, "fc00::1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "ff02::1": false,
	} {
		if got := g.Permits(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	g.Only = true
	for addr, want := range map[string]bool{"93.184.216.34": false, "10.1.2.3": true, "10.2.0.1": false} {
		if got := g.Permits(netip.MustParseAddr(addr)); got != want {
			t.Errorf("only what is allowed: %s: %v, want %v", addr, got, want)
		}
	}
}
