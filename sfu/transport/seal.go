// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // SRTP's AES_CM_128_HMAC_SHA1_80: RFC 3711 section 4.2.1
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"github.com/pion/dtls/v3"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// maxOverhead is what sealing adds to a packet at most.
const maxOverhead = 16

// scratch is working memory of sealing. It lives in the Batch: on the stack it would escape through the cipher's interface.
type scratch struct {
	nonce [16]byte
	block [16]byte
	mac   [sha1.Size]byte
}

// sealer encrypts the RTP packets of one session, in place: AES-GCM (RFC 7714) or AES-CM with HMAC-SHA1 (RFC 3711).
type sealer struct {
	aead cipher.AEAD // nil for AES-CM
	salt [16]byte    // the session salt: 12 bytes for GCM, 14 for CM

	block cipher.Block // AES-CM
	mu    sync.Mutex   // of mac
	mac   hash.Hash
}

// Labels of the key derivation for RTP (RFC 3711 section 4.3.2).
const (
	labelKey  = 0
	labelAuth = 1
	labelSalt = 2
)

// derive is the key derivation of RFC 3711 section 4.3.3 with a key derivation rate of zero.
func derive(master cipher.Block, salt []byte, label byte, n int) []byte {
	var in, out [aes.BlockSize]byte
	copy(in[:14], salt)
	in[7] ^= label
	var key []byte
	for i := 0; len(key) < n; i++ {
		binary.BigEndian.PutUint16(in[14:], uint16(i))
		master.Encrypt(out[:], in[:])
		key = append(key, out[:]...)
	}
	return key[:n]
}

// set makes s the sealer for a profile from the master key and salt that DTLS gave.
func (s *sealer) set(profile dtls.SRTPProtectionProfile, key, salt []byte) error {
	master, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	session, err := aes.NewCipher(derive(master, salt, labelKey, len(key)))
	if err != nil {
		return err
	}
	copy(s.salt[:], derive(master, salt, labelSalt, len(salt)))
	switch profile {
	case dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM:
		s.aead, err = cipher.NewGCM(session)
		return err
	case dtls.SRTP_AES128_CM_HMAC_SHA1_80:
		s.block = session
		s.mac = hmac.New(sha1.New, derive(master, salt, labelAuth, sha1.Size))
		return nil
	}
	return fmt.Errorf("transport: SRTP profile %v is not supported", profile)
}

// seal encrypts the packet of n bytes at the start of b, whose header is our own, without CSRCs, and gives its new length. b has room for
// maxOverhead bytes more.
func (s *sealer) seal(b []byte, n int, roc uint32, x *scratch) int {
	h := packets.HeaderLength(b)
	if s.aead != nil {
		// RFC 7714 section 8.1: two zero bytes, SSRC, ROC, SEQ, xored with the salt.
		x.nonce[0], x.nonce[1] = s.salt[0], s.salt[1]
		for i := range 4 {
			x.nonce[2+i] = b[8+i] ^ s.salt[2+i]
		}
		binary.BigEndian.PutUint32(x.nonce[6:], roc^binary.BigEndian.Uint32(s.salt[6:]))
		x.nonce[10], x.nonce[11] = b[2]^s.salt[10], b[3]^s.salt[11]
		return h + len(s.aead.Seal(b[h:h], x.nonce[:12], b[h:n], b[:h]))
	}
	// RFC 3711 section 4.1.1: salt * 2^16 xor SSRC * 2^64 xor index * 2^16, a counter in the last 16 bits.
	copy(x.nonce[:14], s.salt[:14])
	for i := range 4 {
		x.nonce[4+i] ^= b[8+i]
	}
	binary.BigEndian.PutUint32(x.nonce[8:], binary.BigEndian.Uint32(x.nonce[8:])^roc)
	x.nonce[12] ^= b[2]
	x.nonce[13] ^= b[3]
	for at, i := h, 0; at < n; at, i = at+aes.BlockSize, i+1 {
		binary.BigEndian.PutUint16(x.nonce[14:], uint16(i))
		s.block.Encrypt(x.block[:], x.nonce[:])
		for j := range min(aes.BlockSize, n-at) {
			b[at+j] ^= x.block[j]
		}
	}
	binary.BigEndian.PutUint32(x.block[:], roc)
	s.mu.Lock()
	s.mac.Reset()
	s.mac.Write(b[:n])
	s.mac.Write(x.block[:4])
	tag := s.mac.Sum(x.mac[:0])
	s.mu.Unlock()
	return n + copy(b[n:n+10], tag)
}
