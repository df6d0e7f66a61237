// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Codec says how much of a payload the forwarder understands.
type Codec uint8

// The codecs. Opaque payloads have no key frames: a leg may start anywhere.
const (
	Opaque Codec = iota
	VP8
	H264
	SVC // VP9 or AV1 with a dependency descriptor
)

// Packet is one packet of a publisher, unsealed and parsed.
type Packet struct {
	Raw    []byte // the whole packet; the caller's, valid during the call
	Header packets.Header
	VP8    packets.VP8
	Key    bool // begins a key frame
	Count  uint64
	svc    layered

	redundant bool // red holds
	red       packets.Redundancy
}

// parse reads the payload as far as the track's codec needs it; Raw and Header are set. It reports false if the payload is broken.
func (p *Packet) parse(cfg *Config) bool {
	p.VP8, p.Key, p.redundant = packets.VP8{}, false, false
	if p.svc.descriptor != nil { // the memory was another track's packet before
		p.svc = layered{}
	}
	payload := p.Raw[p.Header.Payload:p.Header.End]
	if len(payload) == 0 {
		return true // padding only: keeps its place in the sequence
	}
	switch cfg.Codec {
	case Opaque:
		if p.redundant = cfg.Red != 0 && p.Header.PayloadType == cfg.Red; p.redundant {
			return p.red.Parse(payload, cfg.Plain)
		}
	case VP8:
		if !p.VP8.Parse(payload) {
			return false
		}
		p.Key = p.VP8.KeyFrame
	case H264:
		p.Key = h264Key(payload)
	}
	return true
}

// H264 NAL unit types (RFC 6184 section 5.2).
const (
	nalSPS   = 7
	nalSTAPA = 24
	nalFUA   = 28
	nalFUB   = 29
	nalIDR   = 5
)

// h264Key reports whether a packet begins a key frame: it holds a sequence parameter set, or the start of an IDR slice.
func h264Key(b []byte) bool {
	switch b[0] & 0x1F {
	case nalSPS, nalIDR:
		return true
	case nalSTAPA:
		for b = b[1:]; len(b) > 2; {
			size := int(b[0])<<8 | int(b[1])
			if kind := b[2] & 0x1F; kind == nalSPS || kind == nalIDR {
				return true
			}
			if 2+size > len(b) {
				return false
			}
			b = b[2+size:]
		}
	case nalFUA, nalFUB:
		return len(b) > 1 && b[1]&0x80 != 0 && b[1]&0x1F == nalIDR
	}
	return false
}

// Peer is a subscriber's end of the wire; the Out that is given it knows what it is.
type Peer interface {
	// Open reports whether packets can be sent: the keys are agreed upon.
	Open() bool
	// Numbered reports whether packets should carry a transport-wide number now.
	Numbered() bool
	// Hold takes a video packet with a transport-wide number that is ready to be sent: the path may be too narrow for it to go at once. It
	// is held, or dropped because too much is held already; if neither, the caller sends it. The arguments are those of Out.Send; repair
	// says that the packet was sent before.
	Hold(b []byte, roc uint32, number int, repair bool) (held, full bool)
	// Room reports whether there is room again for a key frame after a packet was dropped.
	Room() bool
	// Drop forgets what is held of a stream and its repairs.
	Drop(ssrc, rtx uint32)
	// Fetch reads from what sealing a packet will need, which brings it into the cache; see Source.fetch. The value means nothing.
	Fetch() int
}

// Out takes packets that are ready but for sealing. It belongs to one goroutine and keeps packets until it is flushed by its owner.
type Out interface {
	// Slot is room for one packet, valid until the next call of Slot or Send.
	Slot() []byte
	// Send seals the first n bytes of the slot for to and queues them. roc is the SRTP rollover counter of the packet's stream:
	// how often its sequence number wrapped (RFC 3711 section 3.3.1). number is where the transport-wide number is to be written, 0
	// if the packet has none.
	Send(to Peer, n int, roc uint32, number int)
}

// Clock is the time since some fixed start.
type Clock func() time.Duration
