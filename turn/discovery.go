// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"fmt"
	"net/netip"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// discovery is NAT behaviour discovery (RFC 5780): four UDP addresses, two hosts times two ports, each of which can answer for the
// others.
type discovery struct {
	at      [2][2]netip.AddrPort // by address and port
	sockets [2][2]relay.Socket   // one of each listener
}

// place is which of the four a listener is.
type place struct{ host, port int }

// places are the four addresses of Config.Discovery.
func (c Config) places() (out map[netip.AddrPort]place) {
	if len(c.Discovery) == 0 {
		return nil
	}
	out = make(map[netip.AddrPort]place, 4)
	for host, a := range c.Discovery {
		for port, b := range c.Discovery {
			out[netip.AddrPortFrom(a.Addr().Unmap(), b.Port())] = place{host, port}
		}
	}
	return out
}

func (c Config) checkDiscovery() error {
	if len(c.Discovery) == 0 {
		return nil
	}
	d := c.Discovery
	if len(d) != 2 || !d[0].IsValid() || !d[1].IsValid() || d[0].Addr().Unmap() == d[1].Addr().Unmap() || d[0].Port() == d[1].Port() ||
		d[0].Addr().Unmap().Is4() != d[1].Addr().Unmap().Is4() || d[0].Addr().IsUnspecified() || d[1].Addr().IsUnspecified() ||
		d[0].Port() == 0 || d[1].Port() == 0 {
		return fmt.Errorf("turn: NAT discovery on %v: want two addresses of one family, each with a port of its own", d)
	}
	return nil
}

// Flags of CHANGE-REQUEST (RFC 5780, section 7.2).
const (
	changeHost = 0x04
	changePort = 0x02
)

// maxPadding is the longest PADDING that is answered with as much.
const maxPadding = 1500

// answerDiscovery answers a Binding request on one of the four addresses (RFC 5780, section 6). The answer is about as long as a request with
// PADDING, and somewhat longer than one without; the limit on Binding answers holds for both.
func (h *handler) answerDiscovery(d *discovery, here place, p []byte, from netip.AddrPort) {
	if !h.s.bindings.allow(from.Addr(), h.s.cfg.Clock.Now()) {
		h.s.counts.refusals[refusedRate].Add(1)
		return
	}
	var ok bool
	if h.fingerprint, ok = stunmsg.Check(p); !ok {
		return
	}
	h.req.Raw = p[:len(p):len(p)]
	h.key = nil
	if h.req.Decode() != nil {
		return
	}
	sock := d.sockets[here.host][here.port]
	refuse := func(code int) {
		h.begin(stun.ClassErrorResponse)
		h.errorCode(code, "")
		h.seal()
		sock.Send(h.out.Raw, from, false)
	}
	there := here
	if v, err := h.req.Get(stun.AttrChangeRequest); err == nil {
		if len(v) != 4 {
			refuse(400)
			return
		}
		if v[3]&changeHost != 0 {
			there.host ^= 1
		}
		if v[3]&changePort != 0 {
			there.port ^= 1
		}
	}
	padding, padErr := h.req.Get(stun.AttrPadding)
	to := from
	if v, err := h.req.Get(stun.AttrResponsePort); err == nil {
		if len(v) < 2 || padErr == nil { // section 7.5
			refuse(400)
			return
		}
		to = netip.AddrPortFrom(from.Addr(), uint16(v[0])<<8|uint16(v[1]))
	}
	for _, a := range h.req.Attributes {
		switch a.Type {
		case stun.AttrChangeRequest, stun.AttrPadding, stun.AttrResponsePort, stun.AttrUsername, stun.AttrMessageIntegrity,
			stun.AttrMessageIntegritySHA256, stun.AttrRealm, stun.AttrNonce:
		default:
			if a.Type < 0x8000 {
				h.begin(stun.ClassErrorResponse)
				h.errorCode(420, "")
				_ = stun.UnknownAttributes{a.Type}.AddTo(&h.out)
				h.seal()
				sock.Send(h.out.Raw, from, false)
				return
			}
		}
	}
	h.begin(stun.ClassSuccessResponse)
	h.addAddress(stun.AttrXORMappedAddress, from)
	h.out.Add(stun.AttrResponseOrigin, stunmsg.AppendAddress(nil, 0, d.at[there.host][there.port])[4:])
	h.out.Add(stun.AttrOtherAddress, stunmsg.AppendAddress(nil, 0, d.at[here.host^1][here.port^1])[4:])
	if padErr == nil {
		h.out.Add(stun.AttrPadding, bytes.Repeat([]byte{0}, min(len(padding), maxPadding)))
	}
	h.seal()
	if d.sockets[there.host][there.port].Send(h.out.Raw, to, false) {
		h.s.counts.bindings.Add(1)
	}
}
