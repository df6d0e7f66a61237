// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"math/rand/v2"
	"net/netip"

	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// ICMP is an error that a packet to a peer has met with on its way.
type ICMP struct {
	To   netip.AddrPort // where the packet was going
	Type uint8
	Code uint8
	Data uint32 // the MTU of the next hop where the packet was too long
}

// icmpRate is how many errors a second a client is told of.
const icmpRate = 10

// passed tells whether clients are told of it (RFC 8656, section 11.5): unreachable and time exceeded; in IPv6 too big as well.
func (i ICMP) passed() bool {
	if i.To.Addr().Is4() {
		return i.Type == 3 || i.Type == 11
	}
	return i.Type >= 1 && i.Type <= 3
}

// icmp tells the client of an error, if the peer is permitted and there were not too many within the second.
func (r *Relay) icmp(i ICMP) {
	s := r.session
	now := s.plane.now().UnixNano()
	p := s.view.Load().perms[i.To.Addr()]
	if second := now / 1e9; second != r.second {
		r.second, r.told = second, 0
	}
	if !i.passed() || p == nil || p.until.Load() <= now || r.told >= icmpRate {
		s.plane.Counts.drop(DropICMP, 1)
		return
	}
	r.told++
	var id [12]byte
	for k := range id {
		id[k] = byte(rand.Uint32())
	}
	b := s.plane.Lease()
	defer s.plane.Return(b)
	m := stunmsg.AppendICMPIndication(nil, netip.AddrPortFrom(p.shown, i.To.Port()), i.Type, i.Code, i.Data, &id)
	(*s.sink.Load()).SendRun(b, [][]byte{m})
}
