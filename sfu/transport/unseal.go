// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"slices"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Windows of replay protection (RFC 3711 section 3.3.2), in packets.
const (
	rtpWindow  = 1024
	rtcpWindow = 64
)

// Sizes of what AES-GCM adds (RFC 7714 sections 8 and 9).
const (
	gcmTag      = 16
	rtcpHeader  = 8 // of it, that is not encrypted
	rtcpIndex   = 4
	rtcpSealed  = 1 << 31 // the bit of the index that says that the packet is encrypted
	mostIndex   = 1<<48 - 1
	mostSending = 1<<31 - 1 // packets of RTCP under one key (RFC 3711 section 9.2)
)

// gcm is AES-GCM for one direction and one protocol.
type gcm struct {
	aead  cipher.AEAD
	salt  [12]byte
	nonce [12]byte
	extra [rtcpHeader + rtcpIndex]byte
}

// set derives the keys. label is that of the encryption key; that of the salt is two above.
func (g *gcm) set(master cipher.Block, size int, salt []byte, label byte) error {
	block, err := aes.NewCipher(derive(master, salt, label, size))
	if err != nil {
		return err
	}
	copy(g.salt[:], derive(master, salt, label+2, len(salt)))
	g.aead, err = cipher.NewGCM(block)
	return err
}

// number makes the nonce of RFC 7714 sections 8.1 and 9.1: two zero bytes, the SSRC, and six bytes of the index, xored with the salt.
func (g *gcm) number(ssrc uint32, index uint64) {
	binary.BigEndian.PutUint16(g.nonce[:], binary.BigEndian.Uint16(g.salt[:]))
	binary.BigEndian.PutUint32(g.nonce[2:], binary.BigEndian.Uint32(g.salt[2:])^ssrc)
	binary.BigEndian.PutUint16(g.nonce[6:], binary.BigEndian.Uint16(g.salt[6:])^uint16(index>>32))
	binary.BigEndian.PutUint32(g.nonce[8:], binary.BigEndian.Uint32(g.salt[8:])^uint32(index))
}

// Labels of the key derivation for RTCP (RFC 3711 section 4.3.2).
const labelRTCPKey = 3

// unsealer opens what a client sends: AES-GCM itself, in place; AES-CM through pion. It belongs to one goroutine at a time. The zero value
// opens nothing.
type unsealer struct {
	rtp, rtcp gcm
	ssrcs     []uint32 // of streams, at most maxStreams
	streams   []*incoming
	reporters []reporter // at most maxStreams

	// AES-CM.
	context *srtp.Context
	header  rtp.Header
	buffer  []byte
}

// incoming is what is known of one stream of RTP.
type incoming struct {
	started bool
	latest  uint64                 // highest index seen: rollover counter and sequence number
	seen    [rtpWindow / 64]uint64 // bit i % rtpWindow: index i, if it is in the window
}

// reporter is what is known of one source of RTCP.
type reporter struct {
	ssrc, latest uint32
	seen         uint64 // bit i: latest-i
}

// newUnsealer makes the unsealer for a profile from the master key and salt that DTLS gave.
func newUnsealer(profile dtls.SRTPProtectionProfile, key, salt []byte) (*unsealer, error) {
	u := &unsealer{}
	if profile == dtls.SRTP_AES128_CM_HMAC_SHA1_80 {
		var err error
		u.context, err = srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile), srtp.SRTPReplayProtection(rtpWindow), srtp.SRTCPReplayProtection(rtcpWindow))
		return u, err
	}
	master, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if err := u.rtp.set(master, len(key), salt, labelKey); err != nil {
		return nil, err
	}
	return u, u.rtcp.set(master, len(key), salt, labelRTCPKey)
}

// known gives the place of ssrc, -1 if it is new. The newest are the likeliest: what has ended stays in the list, or its packets could be
// played again.
func known(ssrcs []uint32, ssrc uint32) int {
	for i := len(ssrcs) - 1; i >= 0; i-- {
		if ssrcs[i] == ssrc {
			return i
		}
	}
	return -1
}

// RTP opens the packet b in place; nil if it is broken, forged, a repetition, or of one stream too many.
func (u *unsealer) RTP(b []byte) []byte {
	var h packets.Header
	if !h.Parse(b) {
		return nil
	}
	ssrc, at := h.SSRC, h.Payload
	i := known(u.ssrcs, ssrc)
	if i < 0 && len(u.ssrcs) >= maxStreams {
		return nil
	}
	if u.context != nil {
		clear, err := u.context.DecryptRTP(b, b, &u.header)
		if err != nil {
			return nil
		}
		if i < 0 {
			u.ssrcs = append(u.ssrcs, ssrc)
		}
		return clear
	}
	var s *incoming
	if i >= 0 {
		s = u.streams[i]
	}
	index, ok := s.index(h.Sequence)
	if !ok || at+gcmTag > len(b) {
		return nil
	}
	u.rtp.number(ssrc, index)
	if _, err := u.rtp.aead.Open(b[at:at], u.rtp.nonce[:], b[at:], b[:at]); err != nil {
		return nil
	}
	if s == nil { // a stream begins with its first true packet, so that forged ones take no room
		s = &incoming{}
		u.ssrcs, u.streams = append(u.ssrcs, ssrc), append(u.streams, s)
	}
	s.note(index)
	return b[:len(b)-gcmTag]
}

// index guesses the index of the packet with that sequence number: the one nearest to the latest (RFC 3711 section 3.3.1), but in the first
// half turn of a stream, where there is no turn before and may be gaps, one of the first turn. It is false if the packet was seen or is too
// old to tell. A nil s has seen nothing.
func (s *incoming) index(sequence uint16) (uint64, bool) {
	if s == nil || !s.started {
		return uint64(sequence), true
	}
	index := s.latest&^0xFFFF | uint64(sequence)
	if s.latest > 1<<15 {
		switch last := uint16(s.latest); {
		case last < 1<<15 && int(sequence)-int(last) > 1<<15:
			index -= 1 << 16
		case last >= 1<<15 && int(last)-int(sequence) > 1<<15:
			index += 1 << 16
		}
	}
	switch {
	case index > mostIndex:
		return 0, false
	case index > s.latest:
		return index, true
	case s.latest-index >= rtpWindow:
		return 0, false
	}
	return index, s.seen[index/64%uint64(len(s.seen))]&(1<<(index%64)) == 0
}

// note marks an index, which index gave, as seen.
func (s *incoming) note(index uint64) {
	if !s.started {
		s.started, s.latest = true, index
	}
	if index > s.latest {
		for i := s.latest + 1; i < index && i <= s.latest+rtpWindow; i++ {
			s.seen[i/64%uint64(len(s.seen))] &^= 1 << (i % 64)
		}
		s.latest = index
	}
	s.seen[index/64%uint64(len(s.seen))] |= 1 << (index % 64)
}

// RTCP opens the compound packet b in place; nil if it is broken, forged, a repetition, or of one source too many.
func (u *unsealer) RTCP(b []byte) []byte {
	if u.context != nil {
		clear, err := u.context.DecryptRTCP(u.buffer[:0], b, nil)
		if err != nil {
			return nil
		}
		u.buffer = clear
		return clear
	}
	end := len(b) - rtcpIndex
	if end < rtcpHeader+gcmTag || b[0]>>6 != 2 {
		return nil
	}
	index := binary.BigEndian.Uint32(b[end:])
	if index&rtcpSealed == 0 {
		return nil // not encrypted, which nobody has agreed to
	}
	index &^= rtcpSealed
	ssrc := binary.BigEndian.Uint32(b[4:])
	i := slices.IndexFunc(u.reporters, func(r reporter) bool { return r.ssrc == ssrc })
	switch {
	case i < 0 && len(u.reporters) >= maxStreams, i >= 0 && !u.reporters[i].fresh(index):
		return nil
	}
	u.rtcp.number(ssrc, uint64(index))
	copy(u.rtcp.extra[:], b[:rtcpHeader])
	copy(u.rtcp.extra[rtcpHeader:], b[end:])
	if _, err := u.rtcp.aead.Open(b[rtcpHeader:rtcpHeader], u.rtcp.nonce[:], b[rtcpHeader:end], u.rtcp.extra[:]); err != nil {
		return nil
	}
	if i < 0 {
		u.reporters = append(u.reporters, reporter{ssrc: ssrc, latest: index})
		i = len(u.reporters) - 1
	}
	u.reporters[i].note(index)
	return b[:end-gcmTag]
}

// fresh reports whether a packet with that index may still come.
func (r *reporter) fresh(index uint32) bool {
	return index > r.latest || r.latest-index < rtcpWindow && r.seen&(1<<(r.latest-index)) == 0
}

func (r *reporter) note(index uint32) {
	if index > r.latest {
		r.seen <<= index - r.latest // 0 if that is the window or more
		r.latest = index
	}
	r.seen |= 1 << (r.latest - index)
}

// reports seals RTCP that goes out. It belongs to one goroutine at a time. The zero value seals nothing.
type reports struct {
	gcm     gcm
	index   uint32
	context *srtp.Context // AES-CM
}

func newReports(profile dtls.SRTPProtectionProfile, key, salt []byte) (*reports, error) {
	r := &reports{}
	if profile == dtls.SRTP_AES128_CM_HMAC_SHA1_80 {
		var err error
		r.context, err = srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile))
		return r, err
	}
	master, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return r, r.gcm.set(master, len(key), salt, labelRTCPKey)
}

// seal puts the sealed compound packet b into to, which has room for it, and gives its size; 0 if it must not be sent.
func (r *reports) seal(to, b []byte) int {
	if r.context != nil {
		sealed, err := r.context.EncryptRTCP(to[:0], b, nil)
		if err != nil {
			return 0
		}
		return copy(to, sealed)
	}
	if len(b) < rtcpHeader || r.index >= mostSending || len(b)+gcmTag+rtcpIndex > len(to) {
		return 0
	}
	// One count for all sources that are named as senders: an index must be new for its SSRC, no more.
	r.index++
	r.gcm.number(binary.BigEndian.Uint32(b[4:]), uint64(r.index))
	end := copy(to, b[:rtcpHeader])
	copy(r.gcm.extra[:], b[:rtcpHeader])
	binary.BigEndian.PutUint32(r.gcm.extra[rtcpHeader:], r.index|rtcpSealed)
	end += len(r.gcm.aead.Seal(to[end:end], r.gcm.nonce[:], b[rtcpHeader:], r.gcm.extra[:]))
	return end + copy(to[end:], r.gcm.extra[rtcpHeader:])
}
