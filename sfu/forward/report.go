// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// translate gives the timestamp of layer from that means the same moment as at of layer to; both need a sender report.
func (s *Source) translate(from, to int, at uint32) (uint32, bool) {
	if from < 0 || from == to {
		return 0, false
	}
	f, t := s.layers[from].report.Load(), s.layers[to].report.Load()
	if f == nil || t == nil {
		return 0, false
	}
	apart := int64(t.NTP-f.NTP) >> 16 // seconds in 48.16 fixed point
	return f.RTP + uint32(apart*int64(s.cfg.ClockRate)>>16) + (at - t.RTP), true
}

// SenderReport tells the subscriber how our timestamps relate to the publisher's clock; false until the publisher has told us.
func (g *Leg) SenderReport() (packets.Report, bool) {
	now := g.source.cfg.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.layer < 0 || g.stats.Packets == 0 {
		return packets.Report{}, false
	}
	r := g.source.layers[g.layer].report.Load()
	if r == nil {
		return packets.Report{}, false
	}
	since := now - r.at
	return packets.Report{
		SSRC: g.streams.SSRC,
		NTP:  r.ntp(now),
		RTP:  r.RTP + g.timestamp + uint32(since*time.Duration(g.source.cfg.ClockRate)/time.Second),
		// Both wrap, as the fields do.
		Packets: uint32(g.stats.Packets), Octets: uint32(g.stats.Octets),
	}, true
}

// ntp is the publisher's time now.
func (r *report) ntp(now time.Duration) uint64 {
	since := now - r.at
	return r.NTP + uint64(since/time.Second)<<32 + uint64(since%time.Second)<<32/uint64(time.Second)
}

// Times gives the jitter and the round trip that a report block about the leg tells; the round trip is 0 if it cannot be known.
func (g *Leg) Times(r packets.Reception) (jitter, trip time.Duration) {
	clock := g.source.cfg.ClockRate
	jitter = min(time.Duration(r.Jitter)*time.Second/time.Duration(clock), 10*time.Second)
	g.mu.Lock()
	layer := g.layer
	g.mu.Unlock()
	if layer < 0 || r.LastSR == 0 {
		return jitter, 0
	}
	sr := g.source.layers[layer].report.Load()
	if sr == nil {
		return jitter, 0
	}
	// RFC 3550 section 6.4.1: both are the middle 32 bits of an NTP time, in 1/65536 s.
	d := int32(uint32(sr.ntp(g.source.cfg.Now())>>16) - r.LastSR - r.Delay)
	if d <= 0 || d > 10<<16 {
		return jitter, 0
	}
	return jitter, time.Duration(d) * time.Second >> 16
}
