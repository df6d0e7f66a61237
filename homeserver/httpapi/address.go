// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Address is the address of a request's client, without a port. X-Forwarded-For is believed only as far as trusted proxies wrote it:
// from its right end, over proxies of ours, to the first address that is not one.
func Address(r *http.Request, trusted []netip.Prefix) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	peer = peer.Unmap().WithZone("")
	if len(trusted) == 0 || !within(trusted, peer) {
		return peer.String()
	}
	hops := r.Header.Values("X-Forwarded-For")
	for i := len(hops) - 1; i >= 0; i-- {
		for rest := hops[i]; ; {
			last := rest
			cut := strings.LastIndexByte(rest, ',')
			if cut >= 0 {
				rest, last = rest[:cut], rest[cut+1:]
			}
			hop, err := netip.ParseAddr(strings.TrimSpace(last))
			if err != nil {
				return peer.String() // whoever wrote this is not to be believed further
			}
			peer = hop.Unmap().WithZone("")
			if !within(trusted, peer) {
				return peer.String()
			}
			if cut < 0 {
				break
			}
		}
	}
	return peer.String()
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
