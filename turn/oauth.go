// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/pion/stun/v4"
)

// OAuth lets clients in with tokens of an authorisation server that shares keys with us (RFC 7635). The zero value turns it off.
type OAuth struct {
	// Server is the name that clients are told to ask for tokens for (THIRD-PARTY-AUTHORIZATION); tokens for another one are refused.
	Server string
	// Keys by their kid, which clients bring as USERNAME. 16 bytes: AES-128-GCM, 32 bytes: AES-256-GCM.
	Keys map[string][]byte
}

// Attributes of RFC 7635 (section 6).
const (
	attrAccessToken = stun.AttrType(0x001B)
	attrThirdParty  = stun.AttrType(0x802E)
)

// tokenLeeway is how far the authorisation server's clock may be apart (RFC 7635, section 4.1.1: 5 seconds).
const tokenLeeway = 5 * time.Second

// oauth are the keys at work.
type oauth struct {
	server string
	keys   map[string]cipher.AEAD
}

func newOAuth(c OAuth) (*oauth, error) {
	if len(c.Keys) == 0 {
		return nil, nil
	}
	if len(c.Server) > 255 {
		return nil, errors.New("turn: the OAuth server's name is longer than 255 bytes")
	}
	o := &oauth{server: c.Server, keys: make(map[string]cipher.AEAD, len(c.Keys))}
	for kid, key := range c.Keys {
		if len(key) != 16 && len(key) != 32 || kid == "" || len(kid) > maxUsername {
			return nil, fmt.Errorf("turn: OAuth key %q: want 16 or 32 bytes and a name", kid)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if o.keys[kid], err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// token is what an ACCESS-TOKEN says.
type token struct {
	mac     []byte // the key of MESSAGE-INTEGRITY
	expires time.Time
}

var errToken = errors.New("turn: not a token of ours")

// open decrypts a token (RFC 7635, section 6.2):
//
//	nonce length 16 bits, nonce, AES-GCM of (key length 16 bits, key, time of issue 48.16 bits, lifetime 32 bits)
//
// with the server's name as additional data.
func (o *oauth) open(kid string, v []byte, now time.Time) (token, error) {
	aead := o.keys[kid]
	if aead == nil || len(v) < 2 {
		return token{}, errToken
	}
	n := int(binary.BigEndian.Uint16(v))
	if n != aead.NonceSize() || len(v) < 2+n+aead.Overhead() {
		return token{}, errToken
	}
	plain, err := aead.Open(nil, v[2:2+n], v[2+n:], []byte(o.server))
	if err != nil || len(plain) < 2 {
		return token{}, errToken
	}
	k := int(binary.BigEndian.Uint16(plain))
	if k < shortKey || len(plain) != 2+k+8+4 {
		return token{}, errToken
	}
	issued := time.Unix(int64(binary.BigEndian.Uint64(plain[2+k:])>>16), 0)
	t := token{mac: plain[2 : 2+k], expires: issued.Add(time.Duration(binary.BigEndian.Uint32(plain[2+k+8:])) * time.Second)}
	if issued.After(now.Add(tokenLeeway)) || !t.expires.Add(tokenLeeway).After(now) {
		return token{}, errToken
	}
	return t, nil
}

// byToken authenticates a request that brings a token. Each token is a user of its own for quotas: who stands behind it only the
// authorisation server knows.
func (h *handler) byToken(username string) (id identity, key []byte, ok bool) {
	v, err := h.req.Get(attrAccessToken)
	if err != nil {
		return id, nil, false
	}
	t, err := h.s.oauth.open(username, v, h.s.cfg.Clock.Now())
	if err != nil {
		return id, nil, false
	}
	if key = t.mac; !h.checks(key) {
		// coturn, server and client, seals with the first 16 bytes of the key, as many as a password's has, and not with all 20.
		if key = key[:shortKey]; !h.checks(key) {
			return id, nil, false
		}
	}
	sum := sha256.Sum256(v)
	h.until = t.expires
	h.s.counts.tokens.Add(1)
	return identity{party: party{user: "oauth:" + username + ":" + hex.EncodeToString(sum[:8])}, expires: t.expires, token: true}, key, true
}

// shortKey is the least length of a token's key, and as much as coturn uses of it.
const shortKey = 16

// renew lets an allocation that was made with a token go on under a fresh one. For others nothing changes, and the request meets 441.
func (a *allocation) renew(who caller, until time.Time) {
	if !a.login.Load().until.IsZero() {
		a.login.Store(&login{username: who.username, key: bytes.Clone(who.key), until: until})
	}
}

// holds tells whether requests may still be sealed with it.
func (l *login) holds(now time.Time) bool {
	return l.until.IsZero() || l.until.Add(tokenLeeway).After(now)
}
