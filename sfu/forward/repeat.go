// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"encoding/binary"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// What a subscriber may ask to be sent again: a packet not more often than it could have learnt that it is still missing, after the first few
// times each time after twice the time, and in all not more than has been sent, so that requests for the same packets over and over do not
// multiply the traffic. Browsers ask ten times, as often as a round trip allows, and not more often than every 20 ms.
const (
	againSpacing = 10 * time.Millisecond
	againSteady  = 4 // times that need not be further apart
	againMost    = 80 * time.Millisecond
	againTries   = 10 // the last one 0.4 s after the first
	allowanceMax = 200
	allowanceMin = 64 // to begin with
)

// Resend answers a NACK: the packets with those sequence numbers are made again and sent, under the RTX stream if there is one.
func (g *Leg) Resend(sequences []uint16, out Out) {
	n, last, ok := g.resendable()
	if !ok {
		return
	}
	now := g.source.cfg.Now()
	for _, sn := range sequences {
		g.resend(last-uint64(uint16(last)-sn), n, now, out)
	}
}

// resendable gives what resend needs; false if nothing is to be sent again now.
func (g *Leg) resendable() (n Streams, last uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// What is paused begins anew with a key frame.
	return g.streams, g.lastCount, g.sent != nil && !g.still() && g.peer.Open()
}

// resend sends a packet again, if it may be.
func (g *Leg) resend(count uint64, n Streams, now time.Duration, out Out) {
	g.mu.Lock()
	if g.sent == nil { // it was bound anew
		g.mu.Unlock()
		return
	}
	at := &g.sent[count&uint64(len(g.sent)-1)]
	ok := at.count == count && count >= g.fresh && g.layer >= 0 && g.allowance > 0 && at.tries < againTries && (at.tries == 0 || now-at.again >= min(againSpacing<<max(0, int(at.tries)-againSteady), againMost))
	e := *at
	if at.count == count && count >= g.fresh {
		g.observe(at)
	}
	if ok {
		at.again = now
		at.tries++
		g.allowance--
	}
	g.mu.Unlock()
	if !ok {
		return
	}
	size, held := g.again(e, n, out, true)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sent == nil {
		return
	}
	switch at := &g.sent[count&uint64(len(g.sent)-1)]; {
	case at.count != count || at.again != now:
	case size == 0: // as if it had not been asked for
		at.again, at.tries = e.again, e.tries
		g.allowance++
	default:
		at.held = held
	}
}

// again sends what e remembers once more, to repair or as mere load. It gives the size, 0 if the packet is gone or there is no room for it, and
// whether it waits.
func (g *Leg) again(e sent, n Streams, out Out, repair bool) (size int, held bool) {
	l := &g.source.layers[e.layer]
	var p Packet
	b := out.Slot()
	transport := uint8(0)
	if n.Transport != 0 && n.RTXSSRC != 0 && g.peer.Numbered() {
		transport = n.Transport
	}
	l.mu.Lock()
	p.Raw = l.ring.Get(e.source)
	if p.Raw == nil || !p.Header.Parse(p.Raw) || !p.Header.StripPadding(p.Raw) || !p.parse(&g.source.cfg) {
		l.mu.Unlock()
		return 0, false
	}
	at, number := packets.PutElements(b, transport, n.Dependency, p.passed(&g.source.cfg))
	start := at
	if n.RTXSSRC != 0 {
		at += 2
	}
	p.Count = e.source
	size, payloadType, ok := g.source.body(b[at:packets.MaxSize], &p, e.form, &n)
	l.mu.Unlock()
	if !ok {
		return 0, false
	}
	size += at
	if p.VP8.Size > 0 && e.form != empty {
		p.VP8.Rewrite(b[at:], e.pictureID, e.tl0)
	}
	padded := e.form.padded(&p)
	g.mu.Lock()
	g.stats.Again++
	roc := uint32(e.count>>16) - 1
	if n.RTXSSRC != 0 {
		g.rtxSequence++
		roc = uint32(g.rtxSequence>>16) - 1
		packets.PutHeader(b, e.marker, padded, n.RTXType, uint16(g.rtxSequence), e.timestamp, n.RTXSSRC)
		binary.BigEndian.PutUint16(b[start:], uint16(e.count)) // the original number: RFC 4588 section 4
	} else {
		packets.PutHeader(b, e.marker, padded, payloadType, uint16(e.count), e.timestamp, n.SSRC)
	}
	if start > packets.HeaderSize {
		b[0] |= 0x10
	}
	g.mu.Unlock()
	if repair && transport != 0 && g.source.cfg.Video {
		switch held, full := g.peer.Hold(b[:size], roc, number, true); {
		case full:
			g.mu.Lock()
			g.stats.Again--
			g.mu.Unlock()
			return 0, false
		case held:
			return size, true
		}
	}
	out.Send(g.peer, size, roc, number)
	return size, false
}

// Pad sends about size bytes of what was sent already, on the RTX stream, where receivers know it for what it is: to find out whether
// there is room for more. It gives how many bytes it sent; none without an RTX stream.
func (g *Leg) Pad(size int, out Out) (done int) {
	g.mu.Lock()
	n, last := g.streams, g.lastCount
	ok := !g.still() && g.sent != nil && n.RTXSSRC != 0 && g.peer.Open()
	g.mu.Unlock()
	if !ok {
		return 0
	}
	for back := uint64(0); done < size && back < 64; back++ {
		g.mu.Lock()
		e := sent{}
		if g.sent != nil {
			e = g.sent[(last-back)&uint64(len(g.sent)-1)]
		}
		g.mu.Unlock()
		if e.count == last-back {
			size, _ := g.again(e, n, out, false)
			done += size
		}
	}
	return done
}
