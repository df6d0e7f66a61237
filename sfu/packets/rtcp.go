// SPDX-License-Identifier: Apache-2.0

package packets

import "encoding/binary"

// RTCP packet types (RFC 3550 section 12.1, RFC 4585 section 6.1).
const (
	SenderReport    = 200
	ReceiverReport  = 201
	SourceItems     = 202 // SDES
	Goodbye         = 203
	TransportFB     = 205
	PayloadFB       = 206
	fbNACK          = 1  // TransportFB: RFC 4585 section 6.2.1
	fbTransportCC   = 15 // TransportFB: draft-holmer-rmcat-transport-wide-cc-extensions-01
	fbPictureLoss   = 1  // PayloadFB: RFC 4585 section 6.3.1
	fbFullIntra     = 4  // PayloadFB: RFC 5104 section 4.3.1
	fbApplication   = 15 // PayloadFB: REMB
	reportBlockSize = 24
)

// IsRTCP tells RTCP from RTP by the second byte (RFC 5761 section 4).
func IsRTCP(b []byte) bool { return len(b) >= 2 && b[1] >= 192 && b[1] <= 223 }

// RTCP is one packet of a compound packet.
type RTCP struct {
	Type  uint8
	Count uint8  // report count or feedback message type
	Body  []byte // after the first four bytes, padding taken off
}

// NextRTCP takes the first packet off the compound packet b; false if b is empty or broken.
func NextRTCP(b []byte) (p RTCP, rest []byte, ok bool) {
	if len(b) < 4 || b[0]>>6 != 2 {
		return p, nil, false
	}
	size := 4 * (1 + int(binary.BigEndian.Uint16(b[2:])))
	if size > len(b) {
		return p, nil, false
	}
	end := size
	if b[0]&0x20 != 0 {
		pad := int(b[size-1])
		if pad == 0 || pad > size-4 {
			return p, nil, false
		}
		end -= pad
	}
	return RTCP{Type: b[1], Count: b[0] & 0x1F, Body: b[4:end]}, b[size:], true
}

// Report is a sender report's own part.
type Report struct {
	SSRC    uint32
	NTP     uint64 // 32.32 fixed point seconds since 1900
	RTP     uint32
	Packets uint32
	Octets  uint32
}

// Sender reads a sender report.
func (p RTCP) Sender() (r Report, ok bool) {
	if p.Type != SenderReport || len(p.Body) < 24 {
		return r, false
	}
	b := p.Body
	return Report{
		SSRC: binary.BigEndian.Uint32(b), NTP: binary.BigEndian.Uint64(b[4:]), RTP: binary.BigEndian.Uint32(b[12:]),
		Packets: binary.BigEndian.Uint32(b[16:]), Octets: binary.BigEndian.Uint32(b[20:]),
	}, true
}

// Reception is one report block: how a receiver hears a stream.
type Reception struct {
	SSRC         uint32
	FractionLost uint8  // of 256 since the last report
	Lost         uint32 // 24 bits
	Highest      uint32
	Jitter       uint32 // timestamp units
	LastSR       uint32 // middle 32 bits of the NTP time of the last sender report
	Delay        uint32 // since then, 1/65536 s
}

// Receptions calls each for the report blocks of a sender or receiver report.
func (p RTCP) Receptions(each func(Reception)) {
	b := p.Body
	switch p.Type {
	case SenderReport:
		if len(b) < 24 {
			return
		}
		b = b[24:]
	case ReceiverReport:
		if len(b) < 4 {
			return
		}
		b = b[4:]
	default:
		return
	}
	for range p.Count {
		if len(b) < reportBlockSize {
			return
		}
		each(Reception{
			SSRC: binary.BigEndian.Uint32(b), FractionLost: b[4], Lost: binary.BigEndian.Uint32(b[4:]) & 0xFFFFFF,
			Highest: binary.BigEndian.Uint32(b[8:]), Jitter: binary.BigEndian.Uint32(b[12:]),
			LastSR: binary.BigEndian.Uint32(b[16:]), Delay: binary.BigEndian.Uint32(b[20:]),
		})
		b = b[reportBlockSize:]
	}
}

// NACK reads a generic NACK: the stream and the sequence numbers asked for, appended to to.
func (p RTCP) NACK(to []uint16) (ssrc uint32, sequences []uint16, ok bool) {
	if p.Type != TransportFB || p.Count != fbNACK || len(p.Body) < 12 {
		return 0, to, false
	}
	ssrc = binary.BigEndian.Uint32(p.Body[4:])
	for b := p.Body[8:]; len(b) >= 4; b = b[4:] {
		first, mask := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		to = append(to, first)
		for i := range uint16(16) {
			if mask&(1<<i) != 0 {
				to = append(to, first+i+1)
			}
		}
	}
	return ssrc, to, true
}

// TransportFeedback gives the body of a transport-wide feedback message.
func (p RTCP) TransportFeedback() (body []byte, ok bool) {
	return p.Body, p.Type == TransportFB && p.Count == fbTransportCC
}

// WantsKeyFrame calls each for the streams that a picture loss indication or full intra request names.
func (p RTCP) WantsKeyFrame(each func(ssrc uint32)) {
	switch {
	case p.Type != PayloadFB || len(p.Body) < 8:
	case p.Count == fbPictureLoss:
		each(binary.BigEndian.Uint32(p.Body[4:]))
	case p.Count == fbFullIntra:
		for b := p.Body[8:]; len(b) >= 8; b = b[8:] {
			each(binary.BigEndian.Uint32(b))
		}
	}
}

// head appends the first four bytes of an RTCP packet of size bytes in all.
func head(to []byte, count, kind uint8, size int) []byte {
	to = append(to, 0x80|count, kind)
	return binary.BigEndian.AppendUint16(to, uint16(size/4-1))
}

// AppendPLI appends a picture loss indication for the stream media.
func AppendPLI(to []byte, sender, media uint32) []byte {
	to = head(to, fbPictureLoss, PayloadFB, 12)
	to = binary.BigEndian.AppendUint32(to, sender)
	return binary.BigEndian.AppendUint32(to, media)
}

// AppendNACK appends a generic NACK for sequences, which are in rising order.
func AppendNACK(to []byte, sender, media uint32, sequences []uint16) []byte {
	at := len(to)
	to = head(to, fbNACK, TransportFB, 12)
	to = binary.BigEndian.AppendUint32(to, sender)
	to = binary.BigEndian.AppendUint32(to, media)
	for i := 0; i < len(sequences); {
		first, mask := sequences[i], uint16(0)
		for i++; i < len(sequences); i++ {
			d := sequences[i] - first
			if d == 0 || d > 16 {
				break
			}
			mask |= 1 << (d - 1)
		}
		to = binary.BigEndian.AppendUint16(to, first)
		to = binary.BigEndian.AppendUint16(to, mask)
	}
	binary.BigEndian.PutUint16(to[at+2:], uint16((len(to)-at)/4-1))
	return to
}

// AppendSenderReport appends a sender report without report blocks.
func AppendSenderReport(to []byte, r Report) []byte {
	to = head(to, 0, SenderReport, 28)
	to = binary.BigEndian.AppendUint32(to, r.SSRC)
	to = binary.BigEndian.AppendUint64(to, r.NTP)
	to = binary.BigEndian.AppendUint32(to, r.RTP)
	to = binary.BigEndian.AppendUint32(to, r.Packets)
	return binary.BigEndian.AppendUint32(to, r.Octets)
}

// AppendReceiverReport appends a receiver report with up to 31 blocks.
func AppendReceiverReport(to []byte, sender uint32, blocks []Reception) []byte {
	if len(blocks) > 31 {
		blocks = blocks[:31]
	}
	to = head(to, uint8(len(blocks)), ReceiverReport, 8+reportBlockSize*len(blocks))
	to = binary.BigEndian.AppendUint32(to, sender)
	for _, r := range blocks {
		to = binary.BigEndian.AppendUint32(to, r.SSRC)
		to = binary.BigEndian.AppendUint32(to, uint32(r.FractionLost)<<24|r.Lost&0xFFFFFF)
		to = binary.BigEndian.AppendUint32(to, r.Highest)
		to = binary.BigEndian.AppendUint32(to, r.Jitter)
		to = binary.BigEndian.AppendUint32(to, r.LastSR)
		to = binary.BigEndian.AppendUint32(to, r.Delay)
	}
	return to
}
