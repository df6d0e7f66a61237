// SPDX-License-Identifier: Apache-2.0

package forward

import "github.com/trunkboard/trunkboard/sfu/packets"

// Redundant sound (RFC 2198). A publisher that sends it is relayed on as it is to subscribers who take it; the others get the packet's own
// sound, and its older sounds in the place of packets that were lost. A publisher of plain sound is made redundant for those who take it
// and lose packets. A packet that is sent again must be the same byte for byte, so what it was made of is remembered in its form.

// form says how a packet was made of the publisher's.
type form uint8

const (
	asItCame form = iota
	primary              // a redundant packet's own sound
	empty                // nothing, in the place of something that is not wanted
	relayed              // redundant, as it came but for the blocks' payload type
	older    form = 0x20 // | n: a redundant packet's sound of n packets before
	wrapped  form = 0x40 // | n: made redundant with the n packets before
	counted  form = 0x1F
)

// maxWrapped is how many older sounds are put into a packet that is made redundant here: two, so that two losses in a row are made good.
const maxWrapped = 2

// form chooses how p is sent. The caller holds mu.
func (g *Leg) form(p *Packet) form {
	switch {
	case p.redundant && g.streams.RedType != 0:
		return relayed
	case p.redundant:
		return primary
	case g.lossy && g.streams.RedType != 0 && g.source.cfg.MayWrap && p.Header.End > p.Header.Payload:
		if n := g.source.wrappable(p); n > 0 {
			return wrapped | form(n)
		}
	}
	return asItCame
}

// wrappable counts the packets before p that it can carry. The ring must not be written meanwhile.
func (s *Source) wrappable(p *Packet) (n int) {
	room := packets.MaxSize - (len(p.Raw) - p.Header.Payload) - packets.HeaderSize - packets.RedundantHead(maxWrapped)
	for n < maxWrapped {
		size, _, age := s.before(p, n+1)
		if room -= size; size == 0 || room < 0 || !packets.Fits(size, age) {
			break
		}
		n++
	}
	return n
}

// before finds the sound n packets before p in the ring: its size (0 if it is gone), its bytes and how much older it is.
func (s *Source) before(p *Packet, n int) (size int, sound []byte, age uint32) {
	var h packets.Header
	b := s.layers[0].ring.Get(p.Count - uint64(n))
	if b == nil || !h.Parse(b) || !h.StripPadding(b) {
		return 0, nil, 0
	}
	return h.End - h.Payload, b[h.Payload:h.End], p.Header.Timestamp - h.Timestamp
}

// body writes the payload of p to b as f says. It gives the size and the payload type, and false if what f needs is gone or does not fit.
// The ring must not be written meanwhile.
func (s *Source) body(b []byte, p *Packet, f form, n *Streams) (size int, payloadType uint8, ok bool) {
	payload := p.Raw[p.Header.Payload:p.Header.End]
	payloadType = n.PayloadType
	switch {
	case f&wrapped != 0:
		k := int(f & counted)
		at := packets.RedundantHead(k)
		for i := k; i > 0; i-- {
			length, sound, age := s.before(p, i)
			if length == 0 || at+length > len(b) || !packets.Fits(length, age) {
				return 0, 0, false
			}
			packets.PutOlder(b, k-i, n.PayloadType, age, length)
			at += copy(b[at:], sound)
		}
		packets.PutOwn(b, k, n.PayloadType)
		payloadType = n.RedType
		if at+len(payload) > len(b) {
			return 0, 0, false
		}
		return at + copy(b[at:], payload), payloadType, true
	case f == empty:
		payload = nil
	case f == relayed:
		payloadType = n.RedType
	case f == primary:
		payload = payload[p.red.Primary:]
	case f&older != 0:
		o, ok := p.red.Older(int(f & counted))
		if !ok {
			return 0, 0, false
		}
		payload = payload[o.At : o.At+o.Size]
	default:
		payload = p.Raw[p.Header.Payload:] // with its padding
	}
	if len(payload) > len(b) {
		return 0, 0, false
	}
	size = copy(b, payload)
	if f == relayed {
		p.red.Retype(b, n.PayloadType)
	}
	return size, payloadType, true
}

// padded reports whether p in the form f ends with padding.
func (f form) padded(p *Packet) bool { return f == asItCame && p.Header.End != len(p.Raw) }

// repair sends the older sounds in p that were not sent yet: their packets were lost on the way here. The caller holds mu.
func (g *Leg) repair(p *Packet, out Out, transport uint8) {
	for n := p.red.N; n > 0; n-- {
		o, ok := p.red.Older(n)
		count := p.Count - uint64(n)
		if !ok || p.Count < g.start+uint64(n) || g.used(count+g.sequence) {
			continue
		}
		at := p.Header.Timestamp - o.Age + g.timestamp
		if late := count+g.sequence <= g.lastCount; late == packets.NewerTimestamp(at, g.lastTime) {
			continue // numbers and timestamps contradict each other
		}
		g.put(p, &sent{form: older | form(n), count: count + g.sequence, source: p.Count, timestamp: at}, out, transport)
	}
}

// Losing says whether the subscriber loses so many packets that sound for it should be redundant where it can be.
func (g *Leg) Losing(much bool) {
	g.mu.Lock()
	g.lossy = much
	g.mu.Unlock()
}
