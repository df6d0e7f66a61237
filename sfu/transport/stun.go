// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // STUN's MESSAGE-INTEGRITY is HMAC-SHA1: RFC 8489 section 14.5
	"encoding/binary"
	"hash"
	"hash/crc32"
	"net/netip"
	"sync"
)

// STUN as ICE uses it (RFC 8489, RFC 8445 section 7).
const (
	stunHeader     = 20
	stunCookie     = 0x2112A442
	stunMaxSize    = 1024
	bindRequest    = 0x0001
	bindSuccess    = 0x0101
	attrUsername   = 0x0006
	attrMAC        = 0x0008
	attrXORAddr    = 0x0020
	attrPriority   = 0x0024
	attrUse        = 0x0025 // USE-CANDIDATE
	attrCRC        = 0x8028 // FINGERPRINT
	attrControlled = 0x8029
	crcMask        = 0x5354554E
)

// check is a connectivity check: a Binding request with the attributes that matter to a lite agent.
type check struct {
	id       [12]byte
	username []byte // "ours:theirs"
	nominate bool
	signed   []byte // what the MAC covers, the length field not yet adjusted
	mac      []byte
}

// isSTUN tells STUN from the other protocols on the port (RFC 7983).
func isSTUN(b []byte) bool {
	return len(b) >= stunHeader && b[0] < 4 && binary.BigEndian.Uint32(b[4:]) == stunCookie
}

// parseCheck reads a Binding request; false for anything else. It changes b's length field for checking the MAC.
func parseCheck(b []byte) (c check, ok bool) {
	if len(b) > stunMaxSize || binary.BigEndian.Uint16(b) != bindRequest || int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeader {
		return c, false
	}
	copy(c.id[:], b[8:])
	for at := stunHeader; at < len(b); {
		if at+4 > len(b) {
			return c, false
		}
		kind, size := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		next := at + 4 + (size+3)&^3
		if next > len(b) {
			return c, false
		}
		value := b[at+4 : at+4+size]
		switch {
		case c.mac != nil: // only the fingerprint may follow, and the MAC is stronger
		case kind == attrUsername:
			c.username = value
		case kind == attrUse:
			c.nominate = true
		case kind == attrMAC:
			if size != sha1.Size {
				return c, false
			}
			c.mac, c.signed = value, b[:at]
		}
		at = next
	}
	return c, c.mac != nil && c.username != nil
}

// valid reports whether the check was made with k's password.
func (c *check) valid(k *signer) bool {
	// The MAC covers the header with the length as if the message ended with the MAC.
	binary.BigEndian.PutUint16(c.signed[2:], uint16(len(c.signed)-stunHeader+4+sha1.Size))
	var mac [sha1.Size]byte
	return hmac.Equal(c.mac, k.sign(c.signed, mac[:0]))
}

// signer makes MESSAGE-INTEGRITY with one password. A client checks every few seconds that it may still send; making the keys of the MAC
// anew each time was most of the work of answering.
type signer struct {
	mu  sync.Mutex
	mac hash.Hash
}

func newSigner(password string) *signer { return &signer{mac: hmac.New(sha1.New, []byte(password))} }

// sign appends the MAC of signed to b.
func (k *signer) sign(signed, b []byte) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mac.Reset()
	k.mac.Write(signed)
	return k.mac.Sum(b)
}

// ours gives the part of the user name before the colon: the user fragment of the session that is meant.
func (c *check) ours() []byte {
	name, _, _ := bytes.Cut(c.username, []byte{':'})
	return name
}

// theirs gives the part after the colon.
func (c *check) theirs() []byte {
	_, name, _ := bytes.Cut(c.username, []byte{':'})
	return name
}

// answer makes the success response to a check that came from from, at the start of b, which has room for it. It gives its length.
func (c *check) answer(b []byte, from netip.AddrPort, k *signer) int {
	b = b[:stunHeader]
	binary.BigEndian.PutUint16(b, bindSuccess)
	binary.BigEndian.PutUint32(b[4:], stunCookie)
	copy(b[8:], c.id[:])

	ip := from.Addr().Unmap().AsSlice()
	family := byte(1)
	if len(ip) == 16 {
		family = 2
	}
	for i := range ip {
		ip[i] ^= b[4+i] // the cookie, and for IPv6 the transaction ID after it
	}
	b = binary.BigEndian.AppendUint16(b, attrXORAddr)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(ip)))
	b = append(b, 0, family)
	b = binary.BigEndian.AppendUint16(b, from.Port()^(stunCookie>>16))
	b = append(b, ip...)

	return len(finish(b, k))
}

// probe makes a check of our own, in the controlled role. A lite agent need not send any, but a client that hears one right after our
// answer nominates the pair at once instead of at its next round of checks.
func probe(username string, k *signer) []byte {
	b := make([]byte, stunHeader, 128)
	binary.BigEndian.PutUint16(b, bindRequest)
	binary.BigEndian.PutUint32(b[4:], stunCookie)
	_, _ = rand.Read(b[8:stunHeader])
	b = binary.BigEndian.AppendUint16(b, attrUsername)
	b = binary.BigEndian.AppendUint16(b, uint16(len(username)))
	b = append(b, username...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b = append(b, 0, attrPriority, 0, 4, 126, 0xFF, 0xFF, 0xFF)
	b = binary.BigEndian.AppendUint16(b, attrControlled)
	b = append(b, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1) // the tie-breaker: we never want to win
	return finish(b, k)
}

// finish signs a message and adds the fingerprint.
func finish(b []byte, k *signer) []byte {
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeader+4+sha1.Size))
	signed := b
	b = binary.BigEndian.AppendUint16(b, attrMAC)
	b = binary.BigEndian.AppendUint16(b, sha1.Size)
	b = k.sign(signed, b)

	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeader+8))
	crc := crc32.ChecksumIEEE(b) ^ crcMask
	b = binary.BigEndian.AppendUint16(b, attrCRC)
	b = binary.BigEndian.AppendUint16(b, 4)
	return binary.BigEndian.AppendUint32(b, crc)
}
