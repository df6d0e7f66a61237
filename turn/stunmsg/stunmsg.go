// SPDX-License-Identifier: Apache-2.0

// Package stunmsg looks at STUN and ChannelData on the wire without allocating: enough to tell packets apart, to answer a STUN
// Binding request, and to put the headers of ChannelData and of a Data indication in front of a payload that is already in place.
// Everything that needs authentication is decoded by package turn.
//
// The first two bits tell the two formats apart (RFC 8656, section 12.4; RFC 8489, section 5):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|0 0|     STUN message type     |   length, a multiple of 4     |
//	|               magic cookie 0x2112A442                         |
//	|                    transaction id, 96 bits                    |
//	|                              …                                |
//
//	|0 1|  channel number           |   length of the payload       |
//	|   payload, over TCP and TLS padded to a multiple of 4         |
package stunmsg

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Sizes and constants of the wire formats.
const (
	HeaderSize        = 20         // STUN header
	ChannelHeaderSize = 4          // ChannelData header
	MagicCookie       = 0x2112A442 // RFC 8489, section 5
	MinChannel        = 0x4000     // RFC 8656, section 12
	MaxChannel        = 0x4FFF     // RFC 8656, section 12
	MaxLegacyChannel  = 0x7FFF     // RFC 5766, section 11; what is above MaxChannel is reserved since
	// MaxFrame is the longest frame of either kind: a 16-bit length, the longer header, and padding.
	MaxFrame = 65535 + HeaderSize + 3
	// DataIndicationHead is the room that PutDataIndication needs in front of the payload with an IPv6 peer.
	DataIndicationHead = HeaderSize + 4 + 20 + 4
)

// Kind is what a packet is.
type Kind uint8

// Kinds of packets.
const (
	Unknown Kind = iota // neither; to be dropped
	STUN                // a STUN header with the right cookie and a length that is a multiple of 4
	Channel             // a ChannelData header; which channel numbers are bound is not looked at here
)

// Classify tells what the packet claims to be. It looks at the header only.
func Classify(p []byte) Kind {
	if len(p) < ChannelHeaderSize {
		return Unknown
	}
	switch p[0] >> 6 {
	case 0:
		if len(p) >= HeaderSize && p[3]&3 == 0 && binary.BigEndian.Uint32(p[4:]) == MagicCookie {
			return STUN
		}
	case 1:
		return Channel
	}
	return Unknown
}

// ChannelData takes a ChannelData packet apart. The payload aliases p; bytes behind it (padding, RFC 8656, section 12.5) are
// left out. ok is false if p is no ChannelData or is shorter than it claims.
func ChannelData(p []byte) (channel uint16, payload []byte, ok bool) {
	if len(p) < ChannelHeaderSize || p[0]>>6 != 1 {
		return 0, nil, false
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	if len(p)-ChannelHeaderSize < n {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(p), p[ChannelHeaderSize : ChannelHeaderSize+n], true
}

// PutChannelHeader writes the ChannelData header of n payload bytes into the first 4 bytes of p.
func PutChannelHeader(p []byte, channel uint16, n int) {
	binary.BigEndian.PutUint16(p, channel)
	binary.BigEndian.PutUint16(p[2:], uint16(n))
}

// FrameLen tells how long the frame that starts with p is on a stream, padding included, from its first 4 bytes. ok is false
// if no frame can start like this (RFC 8656, section 12.5: the first two bits are 00 or 01).
func FrameLen(p []byte) (n int, ok bool) {
	if len(p) < 4 {
		return 0, false
	}
	length := int(binary.BigEndian.Uint16(p[2:]))
	switch p[0] >> 6 {
	case 0:
		if length&3 != 0 {
			return 0, false
		}
		return HeaderSize + length, true
	case 1:
		return ChannelHeaderSize + (length+3)&^3, true
	}
	return 0, false
}

// Attribute types that this package looks at itself (RFC 8489, section 18.3).
const (
	attrXORMapped   = 0x0020
	attrXORPeer     = 0x0012
	attrData        = 0x0013
	attrFingerprint = 0x8028
	attrICMP        = 0x8004 // RFC 8656, section 18.13
	attrErrorCode   = 0x0009
	attrUnknown     = 0x000A

	typeBindingRequest = 0x0001
	typeBindingSuccess = 0x0101
	typeBindingError   = 0x0111
	typeDataIndication = 0x0017

	fingerprintXOR = 0x5354554e
)

// next reads the attribute at p and returns the rest; ok is false at the end and on malformed input (then bad is true).
func next(p []byte) (typ uint16, value, rest []byte, ok, bad bool) {
	if len(p) == 0 {
		return 0, nil, nil, false, false
	}
	if len(p) < 4 {
		return 0, nil, nil, false, true
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	padded := (n + 3) &^ 3
	if len(p)-4 < padded {
		return 0, nil, nil, false, true
	}
	return binary.BigEndian.Uint16(p), p[4 : 4+n], p[4+padded:], true, false
}

// Check walks over the attributes of a STUN message: their lengths must fill the message exactly, and a FINGERPRINT, if there is
// one, must be the last and right (RFC 8489, section 14.7). Messages that fail are to be dropped without an answer.
func Check(p []byte) (fingerprint, ok bool) {
	if Classify(p) != STUN || len(p) != HeaderSize+int(binary.BigEndian.Uint16(p[2:])) {
		return false, false
	}
	rest := p[HeaderSize:]
	for {
		at := len(p) - len(rest)
		typ, value, r, more, bad := next(rest)
		if bad {
			return false, false
		}
		if !more {
			return fingerprint, true
		}
		if typ == attrFingerprint {
			if len(r) != 0 || len(value) != 4 || binary.BigEndian.Uint32(value) != crc32.ChecksumIEEE(p[:at])^fingerprintXOR {
				return false, false
			}
			fingerprint = true
		}
		rest = r
	}
}

// IsBindingRequest tells whether p starts like a STUN Binding request.
func IsBindingRequest(p []byte) bool {
	return len(p) >= HeaderSize && p[0] == 0 && p[1] == typeBindingRequest
}

// maxUnknown bounds the list in a 420 answer, which keeps it shorter than the request that caused it.
const maxUnknown = 8

// AppendBindingReply appends the answer to a Binding request that has passed Check: the success with XOR-MAPPED-ADDRESS, or 420
// if the request holds an attribute that must be understood and is not (RFC 8489, section 6.3.1). FINGERPRINT is added if the
// request had one. dst is returned as it was if p deserves no answer.
func AppendBindingReply(dst, p []byte, from netip.AddrPort) []byte {
	fingerprint, ok := Check(p)
	if !ok || !IsBindingRequest(p) {
		return dst
	}
	var unknown [maxUnknown]uint16
	n := 0
	for rest := p[HeaderSize:]; ; {
		typ, _, r, more, _ := next(rest)
		if !more {
			break
		}
		rest = r
		if typ >= 0x8000 || n == maxUnknown {
			continue
		}
		switch typ {
		case 0x0006, 0x0008, 0x0014, 0x0015, 0x001C, 0x001E: // USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, …-SHA256, USERHASH: not needed here
		default:
			unknown[n] = typ
			n++
		}
	}
	start := len(dst)
	if n > 0 {
		dst = appendHeader(dst, typeBindingError, p[8:20])
		dst = append(dst, 0, attrErrorCode, 0, 4, 0, 0, 4, 20)
		dst = append(dst, 0, attrUnknown, 0, byte(2*n))
		for _, u := range unknown[:n] {
			dst = binary.BigEndian.AppendUint16(dst, u)
		}
		if n&1 == 1 {
			dst = append(dst, 0, 0)
		}
	} else {
		dst = appendHeader(dst, typeBindingSuccess, p[8:20])
		dst = AppendXORAddress(dst, attrXORMapped, from, p[8:20])
	}
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start-HeaderSize))
	if fingerprint {
		dst = AppendFingerprint(dst, start)
	}
	return dst
}

func appendHeader(dst []byte, typ uint16, transaction []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, typ)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, MagicCookie)
	return append(dst, transaction[:12]...)
}

// AppendFingerprint ends the message that starts at dst[start] with FINGERPRINT and corrects its length.
func AppendFingerprint(dst []byte, start int) []byte {
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start-HeaderSize+8))
	sum := crc32.ChecksumIEEE(dst[start:]) ^ fingerprintXOR
	dst = append(dst, attrFingerprint>>8, attrFingerprint&0xff, 0, 4)
	return binary.BigEndian.AppendUint32(dst, sum)
}

// AppendXORAddress appends an attribute in the format of XOR-MAPPED-ADDRESS (RFC 8489, section 14.2). IPv4-mapped addresses are
// written as IPv4.
func AppendXORAddress(dst []byte, typ uint16, a netip.AddrPort, transaction []byte) []byte {
	ip := a.Addr().Unmap()
	dst = binary.BigEndian.AppendUint16(dst, typ)
	if ip.Is4() {
		dst = append(dst, 0, 8, 0, 1)
	} else {
		dst = append(dst, 0, 20, 0, 2)
	}
	dst = binary.BigEndian.AppendUint16(dst, a.Port()^(MagicCookie>>16))
	if ip.Is4() {
		b := ip.As4()
		return binary.BigEndian.AppendUint32(dst, binary.BigEndian.Uint32(b[:])^MagicCookie)
	}
	b := ip.As16()
	xor16(&b, transaction)
	return append(dst, b[:]...)
}

// AppendAddress appends an attribute in the format of MAPPED-ADDRESS (RFC 8489, section 14.1). IPv4-mapped addresses are written as IPv4.
func AppendAddress(dst []byte, typ uint16, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	dst = binary.BigEndian.AppendUint16(dst, typ)
	if ip.Is4() {
		dst = append(dst, 0, 8, 0, 1)
	} else {
		dst = append(dst, 0, 20, 0, 2)
	}
	dst = binary.BigEndian.AppendUint16(dst, a.Port())
	return append(dst, ip.AsSlice()...)
}

func xor16(b *[16]byte, transaction []byte) {
	var mask [16]byte
	binary.BigEndian.PutUint32(mask[:], MagicCookie)
	copy(mask[4:], transaction)
	for i := range b {
		b[i] ^= mask[i]
	}
}

// XORAddress decodes the value of an attribute in the format of XOR-MAPPED-ADDRESS. The family of the result is the family on
// the wire: an IPv4-mapped IPv6 address stays one, for whoever sends that wants something.
func XORAddress(value, transaction []byte) (netip.AddrPort, bool) {
	if len(value) < 8 || len(transaction) < 12 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(value[2:]) ^ (MagicCookie >> 16)
	switch {
	case value[1] == 1 && len(value) == 8:
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(value[4:])^MagicCookie)
		return netip.AddrPortFrom(netip.AddrFrom4(b), port), true
	case value[1] == 2 && len(value) == 20:
		b := [16]byte(value[4:])
		xor16(&b, transaction)
		return netip.AddrPortFrom(netip.AddrFrom16(b), port), true
	}
	return netip.AddrPort{}, false
}

// PutDataIndication makes a Data indication (RFC 8656, section 11.6) around the n payload bytes that start at buf[at]: the
// header is written in front of them and the padding behind. It returns where the message starts and ends in buf. buf needs
// DataIndicationHead bytes before at and 3 bytes behind the payload.
func PutDataIndication(buf []byte, at, n int, peer netip.AddrPort, transaction *[12]byte) (start, end int) {
	ip := peer.Addr().Unmap()
	start = at - (HeaderSize + 4 + 8 + 4)
	if !ip.Is4() {
		start -= 12
	}
	end = at + (n+3)&^3
	clear(buf[at+n : end])
	head := appendHeader(buf[start:start], typeDataIndication, transaction[:])
	binary.BigEndian.PutUint16(head[2:], uint16(end-start-HeaderSize))
	head = AppendXORAddress(head, attrXORPeer, peer, transaction[:])
	head = append(head, 0, attrData)
	_ = binary.BigEndian.AppendUint16(head, uint16(n))
	return start, end
}

// AppendICMPIndication appends a Data indication that tells of an ICMP error instead of bringing data (RFC 8656, sections 11.6 and 18.13).
func AppendICMPIndication(dst []byte, peer netip.AddrPort, typ, code uint8, data uint32, transaction *[12]byte) []byte {
	start := len(dst)
	dst = appendHeader(dst, typeDataIndication, transaction[:])
	dst = AppendXORAddress(dst, attrXORPeer, peer, transaction[:])
	dst = append(dst, attrICMP>>8, attrICMP&0xff, 0, 8, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(typ)<<9|uint16(code))
	dst = binary.BigEndian.AppendUint32(dst, data)
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start-HeaderSize))
	return dst
}
