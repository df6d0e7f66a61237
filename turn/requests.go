// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// lifetime reads LIFETIME and brings it between the default and the longest one (RFC 8656, section 7.2).
func (h *handler) lifetime() (time.Duration, bool) {
	lifetime := h.s.cfg.DefaultLifetime
	if v, err := h.req.Get(stun.AttrLifetime); err == nil {
		if len(v) != 4 {
			return 0, false
		}
		asked := time.Duration(binary.BigEndian.Uint32(v)) * time.Second
		lifetime = min(max(asked, lifetime), h.s.cfg.MaxLifetime)
	}
	if !h.until.IsZero() { // not longer than the token (RFC 7635, section 4.1.1)
		lifetime = max(min(lifetime, h.until.Sub(h.s.cfg.Clock.Now()).Truncate(time.Second)), time.Second)
	}
	return lifetime, true
}

// refresh answers a Refresh request (RFC 8656, section 8.2; RFC 8016, section 3.2). With REQUESTED-ADDRESS-FAMILY it is about one of the
// relayed addresses of a dual allocation: that one can be given back, and the other lives on.
func (h *handler) refresh(c *client, a *allocation, _ caller) {
	lifetime, ok := h.lifetime()
	if !ok {
		h.refuse(c, 400, "Bad Request")
		return
	}
	index := -1
	if fam, err := h.req.Get(stun.AttrRequestedAddressFamily); err == nil {
		if len(fam) != 4 || fam[0] != familyIPv4 && fam[0] != familyIPv6 {
			h.refuse(c, 400, "Bad Request")
			return
		}
		if index = int(fam[0]) - familyIPv4; !a.has(index) {
			h.refuse(c, 443, "Peer Address Family Mismatch")
			return
		}
	}
	if v, err := h.req.Get(stun.AttrLifetime); err == nil && binary.BigEndian.Uint32(v) == 0 {
		lifetime = 0
		if index < 0 || !a.dropRelay(index) {
			h.s.end(a, "released")
		}
	} else {
		a.mu.Lock()
		a.expires = h.s.cfg.Clock.Now().Add(lifetime)
		if !a.ended.Load() { // who ends it tells of that after us, under the same lock
			h.s.tell(SessionRefreshed, h.s.describeAs(a, c.remote, c.near(), c.transport))
		}
		a.mu.Unlock()
	}
	h.begin(stun.ClassSuccessResponse)
	h.out.Add(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(lifetime/time.Second)))
	if h.moved != nil { // RFC 8016, section 3.2.2
		h.out.Add(attrMobilityTicket, h.moved)
	}
	h.finish(c)
}

// createPermission answers a CreatePermission request (RFC 8656, section 10.2): all of its peers are permitted, or none.
func (h *handler) createPermission(c *client, a *allocation, _ caller) {
	var peers []relay.Peer
	for _, attr := range h.req.Attributes {
		if attr.Type != stun.AttrXORPeerAddress {
			continue
		}
		addr, ok := stunmsg.XORAddress(attr.Value, h.req.TransactionID[:])
		if !ok {
			h.refuse(c, 400, "Bad Request")
			return
		}
		peer, ok := h.s.peers.check(addr)
		if !ok {
			h.refuse(c, 403, "Forbidden")
			return
		}
		peers = append(peers, peer)
	}
	if len(peers) == 0 {
		h.refuse(c, 400, "Bad Request")
		return
	}
	h.bound(c, a.session.Permit(h.s.cfg.Clock.Now().Add(h.s.cfg.PermissionLifetime), peers...))
}

// channelBind answers a ChannelBind request (RFC 8656, section 12.2).
func (h *handler) channelBind(c *client, a *allocation, _ caller) {
	number, err := h.req.Get(stun.AttrChannelNumber)
	value, err2 := h.req.Get(stun.AttrXORPeerAddress)
	addr, ok := stunmsg.XORAddress(value, h.req.TransactionID[:])
	if err != nil || err2 != nil || !ok || len(number) != 4 || a.tcp != nil {
		h.refuse(c, 400, "Bad Request")
		return
	}
	channel := binary.BigEndian.Uint16(number)
	highest := uint16(stunmsg.MaxChannel)
	if h.s.cfg.LegacyChannels {
		highest = stunmsg.MaxLegacyChannel
	}
	if channel < stunmsg.MinChannel || channel > highest {
		h.refuse(c, 400, "Bad Request")
		return
	}
	peer, ok := h.s.peers.check(addr)
	if !ok || peer.Own && !h.s.peers.open(peer.Actual) {
		h.refuse(c, 403, "Forbidden")
		return
	}
	now := h.s.cfg.Clock.Now()
	h.bound(c, a.session.Bind(channel, peer, now.Add(h.s.cfg.ChannelLifetime), now.Add(h.s.cfg.PermissionLifetime)))
}

// bound answers a CreatePermission or ChannelBind after the session has said what became of it.
func (h *handler) bound(c *client, err error) {
	switch {
	case err == nil:
		h.begin(stun.ClassSuccessResponse)
		h.finish(c)
	case errors.Is(err, relay.ErrFamily):
		h.refuse(c, 443, "Peer Address Family Mismatch")
	case errors.Is(err, relay.ErrFull):
		h.refuse(c, 508, "Insufficient Capacity")
	default:
		h.refuse(c, 400, "Bad Request")
	}
}

func (h *handler) refuseQuota(c *client, err error) {
	if errors.Is(err, errQuota) {
		h.refuse(c, 486, "Allocation Quota Reached")
	} else {
		h.refuse(c, 508, "Insufficient Capacity")
	}
}

func (h *handler) addAddress(t stun.AttrType, a netip.AddrPort) {
	v := stunmsg.AppendXORAddress(nil, uint16(t), a, h.out.TransactionID[:])
	h.out.Add(t, v[4:])
}
