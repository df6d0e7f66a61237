// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"time"
)

// nonces makes and checks nonces without remembering them: 16 bits of time and 32 bits of a MAC over the time, the client's
// address and its transport, in base64. That is short on purpose, for the nonce is most of what makes a 401 longer than the
// request. A forged nonce gains nothing: it is covered by MESSAGE-INTEGRITY, which takes the password; the MAC keeps a client from
// choosing one, and a captured request from being replayed from another address or later.
type nonces struct {
	key  [32]byte
	life time.Duration
}

const (
	nonceLen     = 8
	nonceTick    = 8 * time.Second             // a unit of the 16 bits of time
	maxNonceLife = nonceTick * (1<<16 - 1) / 2 // so that the clock's wrap-around is no question
	nonceLeeway  = 1                           // ticks that may lie in the future, for a clock that was set back
	nonceRaw     = nonceLen * 3 / 4            // bytes before base64
)

func newNonces(life time.Duration) *nonces {
	n := &nonces{life: life}
	_, _ = rand.Read(n.key[:]) // never fails
	return n
}

func (n *nonces) make(now time.Time, client netip.AddrPort, transport string) [nonceLen]byte {
	return n.at(uint16(now.Unix()/int64(nonceTick/time.Second)), client, transport)
}

func (n *nonces) at(tick uint16, client netip.AddrPort, transport string) (out [nonceLen]byte) {
	var in [2 + 16 + 2]byte
	binary.BigEndian.PutUint16(in[:], tick)
	ip := client.Addr().As16()
	copy(in[2:], ip[:])
	binary.BigEndian.PutUint16(in[18:], client.Port())
	mac := hmac.New(sha256.New, n.key[:])
	mac.Write(in[:])
	mac.Write([]byte(transport))
	var sum [sha256.Size]byte
	var raw [nonceRaw]byte
	binary.BigEndian.PutUint16(raw[:], tick)
	copy(raw[2:], mac.Sum(sum[:0]))
	base64.RawURLEncoding.Encode(out[:], raw[:])
	return out
}

// valid tells whether the nonce was made here, for this client, and not too long ago.
func (n *nonces) valid(nonce []byte, now time.Time, client netip.AddrPort, transport string) bool {
	var raw [nonceRaw]byte
	if len(nonce) != nonceLen {
		return false
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(raw[:], nonce); err != nil {
		return false
	}
	tick := binary.BigEndian.Uint16(raw[:])
	want := n.at(tick, client, transport)
	if !hmac.Equal(want[:], nonce) {
		return false
	}
	age := uint16(now.Unix()/int64(nonceTick/time.Second)) - tick + nonceLeeway
	return time.Duration(age)*nonceTick <= n.life+nonceLeeway*nonceTick
}
