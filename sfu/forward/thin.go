// SPDX-License-Identifier: Apache-2.0

package forward

import "github.com/trunkboard/trunkboard/sfu/packets"

// Temporal layers of simulcast streams: a frame's layer stands outside of what may be encrypted, in the dependency descriptor, or in VP8's
// payload descriptor (RFC 7741 section 4.2). Chromium writes the one or the other: with a dependency descriptor, VP8's has no more than
// its first byte. A subscriber without room or use for all layers gets the frames up to one; what is left out leaves no hole in the
// sequence numbers and picture IDs.

// MaxTemporal is the number of temporal layers that are told apart; those above count as the highest.
const MaxTemporal = 3

// thinned is how many packets a thinner remembers; a power of two.
const thinned = 512

// verdict is what becomes of a packet.
type verdict uint8

const (
	send verdict = iota
	drop         // it has no number of ours
	fill         // it has one: a hole was kept for it, so something without content goes in its place
)

// thinner leaves out upper temporal layers of one leg on one simulcast layer.
type thinner struct {
	from      uint64 // packets before this one pass
	last      uint64 // newest of the source's packets that was looked at
	timestamp uint32 // of the frame that is decided about
	decided   bool
	out       bool              // it is left out
	shown     int               // highest layer that is sent, by dependency descriptors …
	open      [MaxTemporal]bool // … and by VP8's: layers whose frames can be decoded
	skipped   uint64            // packets left out so far
	pictures  uint16            // pictures left out so far
	past      [thinned]thinnedPacket
}

type thinnedPacket struct {
	count    uint64
	skipped  uint32 // before this one
	pictures uint16
	out      bool // it was left out itself
}

// begin starts anew at the source's packet count: all that is to come can be decoded.
func (t *thinner) begin(count uint64) {
	*t = thinner{from: count, last: count - 1, shown: MaxTemporal - 1}
	for i := range t.open {
		t.open[i] = true
	}
}

// pass decides about p: how many packets and pictures were left out before it, and what becomes of it. limit is the highest layer that is
// to go on.
func (t *thinner) pass(p *Packet, limit int) (skipped uint64, pictures uint16, v verdict) {
	if p.Count <= t.last {
		return t.late(p, limit)
	}
	if p.Count-t.last > thinned {
		t.last = p.Count - thinned // nothing before will come late
	}
	for c := t.last + 1; c <= p.Count; c++ {
		t.past[c%thinned] = thinnedPacket{c, uint32(t.skipped), t.pictures, false}
	}
	t.last = p.Count
	if p.Header.End == p.Header.Payload {
		return t.skipped, t.pictures, send // padding: of no frame
	}
	begins := !t.decided || p.Header.Timestamp != t.timestamp
	if begins {
		t.timestamp, t.decided = p.Header.Timestamp, true
		t.out = t.leaveOut(p, limit)
	}
	if !t.out {
		return t.skipped, t.pictures, send
	}
	if begins {
		t.pictures++
	}
	t.skipped++
	t.past[p.Count%thinned].out = true
	return 0, 0, drop
}

// leaveOut decides about the frame that p belongs to. By VP8's descriptor, a layer is entered at a frame that needs the base layer only, and
// left at any.
func (t *thinner) leaveOut(p *Packet, limit int) bool {
	if d := &p.svc; d.known {
		if d.Start && limit != t.shown && d.enters(d.structure.Target(0, t.shown), d.structure.Target(0, limit)) {
			t.shown = limit
		}
		return t.absent(d)
	}
	layer := p.temporal()
	switch {
	case p.Key:
		for i := range t.open {
			t.open[i] = i <= limit
		}
		return false
	case layer <= limit && (layer == 0 || t.open[layer]):
		return false
	case layer <= limit && p.VP8.Sync:
		t.open[layer] = true
		return false
	}
	for i := layer; i < MaxTemporal; i++ { // they may depend on it
		t.open[i] = false
	}
	return true
}

// absent reports whether d's frame is of none of the layers that are sent.
func (t *thinner) absent(d *layered) bool {
	return d.For(d.structure.Target(0, t.shown)) == packets.NotPresent
}

// late decides about a packet that newer ones were sent before.
func (t *thinner) late(p *Packet, limit int) (skipped uint64, pictures uint16, v verdict) {
	if p.Count < t.from {
		return 0, 0, send
	}
	e := &t.past[p.Count%thinned]
	if e.count != p.Count || e.out {
		return 0, 0, drop
	}
	out := false
	switch layer := p.temporal(); {
	case p.Header.End == p.Header.Payload:
	case t.decided && p.Header.Timestamp == t.timestamp:
		out = t.out
	case p.svc.known:
		out = t.absent(&p.svc)
	case layer > 0:
		out = layer > limit || !t.open[layer]
	}
	if out {
		v = fill
	}
	return uint64(e.skipped), e.pictures, v
}

// temporal is the packet's temporal layer.
func (p *Packet) temporal() int { return min(int(p.VP8.TID), MaxTemporal-1) }

// limit is the highest temporal layer the leg is to send of the simulcast layer it is on. The caller holds mu.
func (g *Leg) limit(layer int) int {
	limit := MaxTemporal - 1
	switch top := g.allowed; {
	case layer == top:
		limit = g.smooth
	case layer > top: // a key frame of a lower layer is on its way
		limit = 0
	}
	if g.fps > 0 {
		limit = min(limit, g.source.temporalFor(layer, g.fps))
	}
	return limit
}

// thin leaves out p, or what was left out before it, where not all temporal layers are to go on. The caller holds mu.
func (g *Leg) thin(layer int, p *Packet) (skipped uint64, pictures uint16, v verdict) {
	limit := g.limit(layer)
	if g.thinner == nil {
		if limit == MaxTemporal-1 {
			return 0, 0, send
		}
		g.thinner = &thinner{}
		g.thinner.begin(g.lastCount - g.sequence + 1) // the next after what was sent
	}
	return g.thinner.pass(p, limit)
}
