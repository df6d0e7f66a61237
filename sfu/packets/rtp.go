// SPDX-License-Identifier: Apache-2.0

package packets

import "encoding/binary"

// MaxSize is the largest datagram the SFU handles: an Ethernet frame's worth. Larger ones are dropped.
const MaxSize = 1500

// HeaderSize is the fixed part of an RTP header.
const HeaderSize = 12

// Header is the RTP header of a packet, with the places of what follows it.
type Header struct {
	Marker      bool
	PayloadType uint8
	Sequence    uint16
	Timestamp   uint32
	SSRC        uint32

	Payload int // offset of the payload
	End     int // end of the payload, padding taken off

	profile    uint16 // of the header extension, 0 without one
	ext, extTo int    // the extension's elements
}

// Profiles of a header extension: one-byte (RFC 8285 section 4.2) and two-byte elements (4.3).
const (
	oneByteProfile = 0xBEDE
	twoByteProfile = 0x1000
)

// Parse reads the header of the RTP packet b and reports whether b is one. It checks every length against b and reads nothing
// beyond it.
func (h *Header) Parse(b []byte) bool {
	if len(b) < HeaderSize || b[0]>>6 != 2 {
		return false
	}
	*h = Header{
		Marker:      b[1]&0x80 != 0,
		PayloadType: b[1] & 0x7F,
		Sequence:    binary.BigEndian.Uint16(b[2:]),
		Timestamp:   binary.BigEndian.Uint32(b[4:]),
		SSRC:        binary.BigEndian.Uint32(b[8:]),
		Payload:     HeaderSize + 4*int(b[0]&0x0F),
		End:         len(b),
	}
	if h.Payload > len(b) {
		return false
	}
	if b[0]&0x10 != 0 {
		if h.Payload+4 > len(b) {
			return false
		}
		h.profile = binary.BigEndian.Uint16(b[h.Payload:])
		h.ext = h.Payload + 4
		h.extTo = h.ext + 4*int(binary.BigEndian.Uint16(b[h.Payload+2:]))
		if h.extTo > len(b) {
			return false
		}
		h.Payload = h.extTo
	}
	return true
}

// StripPadding takes the padding off End; false if its length is impossible. It is a step of its own because the padding of a
// sealed packet is encrypted.
func (h *Header) StripPadding(b []byte) bool {
	if b[0]&0x20 == 0 {
		return true
	}
	pad := int(b[len(b)-1])
	if pad == 0 || h.Payload+pad > len(b) {
		return false
	}
	h.End = len(b) - pad
	return true
}

// Extension gives the value of the header extension element id in b, which h was read from; nil if there is none.
func (h *Header) Extension(b []byte, id uint8) []byte {
	e := b[h.ext:h.extTo]
	switch {
	case id == 0:
	case h.profile == oneByteProfile:
		for len(e) > 0 {
			got, n := e[0]>>4, int(e[0]&0x0F)+1
			if got == 0 { // padding
				e = e[1:]
				continue
			}
			if got == 15 || 1+n > len(e) { // 15: stop here
				return nil
			}
			if got == id {
				return e[1 : 1+n]
			}
			e = e[1+n:]
		}
	case h.profile&0xFFF0 == twoByteProfile:
		for len(e) > 0 {
			if e[0] == 0 {
				e = e[1:]
				continue
			}
			if len(e) < 2 || 2+int(e[1]) > len(e) {
				return nil
			}
			n := int(e[1])
			if e[0] == id {
				return e[2 : 2+n]
			}
			e = e[2+n:]
		}
	}
	return nil
}

// PutHeader writes a fixed RTP header without CSRCs and extension to b, which has room for HeaderSize bytes.
func PutHeader(b []byte, marker, padding bool, payloadType uint8, sequence uint16, timestamp, ssrc uint32) {
	_ = b[HeaderSize-1]
	b[0] = 0x80
	if padding {
		b[0] |= 0x20
	}
	b[1] = payloadType & 0x7F
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], sequence)
	binary.BigEndian.PutUint32(b[4:], timestamp)
	binary.BigEndian.PutUint32(b[8:], ssrc)
}

// PutElements writes a header extension after the fixed header at the start of b: the transport-wide number, to be filled in, under
// the number transport, and dependency's bytes under the number of the dependency descriptor; an element whose number is 0 is left
// out. It gives the size of the header and where the transport-wide number stands, 0 if nowhere. Two-byte elements are used only
// where one-byte ones cannot hold them (RFC 8285 section 4.2).
func PutElements(b []byte, transport, descriptor uint8, dependency []byte) (size, number int) {
	if len(dependency) == 0 {
		descriptor = 0
	}
	if transport == 0 && descriptor == 0 {
		return HeaderSize, 0
	}
	at, profile, two := HeaderSize+4, uint16(oneByteProfile), false
	if len(dependency) > 16 || transport > 14 || descriptor > 14 {
		profile, two = twoByteProfile, true
	}
	element := func(id uint8, n int) {
		if two {
			b[at], b[at+1] = id, byte(n)
			at += 2
		} else {
			b[at] = id<<4 | byte(n-1)
			at++
		}
	}
	if transport != 0 {
		element(transport, 2)
		number = at
		b[at], b[at+1] = 0, 0
		at += 2
	}
	if descriptor != 0 {
		element(descriptor, len(dependency))
		at += copy(b[at:], dependency)
	}
	for at%4 != 0 {
		b[at] = 0
		at++
	}
	b[0] |= 0x10
	binary.BigEndian.PutUint16(b[HeaderSize:], profile)
	binary.BigEndian.PutUint16(b[HeaderSize+2:], uint16((at-HeaderSize-4)/4))
	return at, number
}

// HeaderLength is the length of the header of a packet that we have written: the fixed part and the extension.
func HeaderLength(b []byte) int {
	if b[0]&0x10 == 0 {
		return HeaderSize
	}
	return HeaderSize + 4 + 4*int(binary.BigEndian.Uint16(b[HeaderSize+2:]))
}
