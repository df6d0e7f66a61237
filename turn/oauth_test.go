// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

var oauthKey = []byte("01234567890123456789012345678901")

// makeToken makes an ACCESS-TOKEN as an authorisation server does.
func makeToken(t testing.TB, server string, mac []byte, issued time.Time, lifetime uint32) []byte {
	t.Helper()
	block, err := aes.NewCipher(oauthKey)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain := append(binary.BigEndian.AppendUint16(nil, uint16(len(mac))), mac...)
	plain = binary.BigEndian.AppendUint64(plain, uint64(issued.Unix())<<16)
	plain = binary.BigEndian.AppendUint32(plain, lifetime)
	nonce := []byte("123456789012")
	return aead.Seal(append([]byte{0, byte(len(nonce))}, nonce...), nonce, plain, []byte(server))
}

func TestTokensOfTheAuthorisationServerLetIn(t *testing.T) {
	clock := newFakeClock()
	cfg := testConfig()
	cfg.Clock, cfg.OAuth = clock, OAuth{Server: "turn.example", Keys: map[string][]byte{"kid": oauthKey}}
	s := start(t, cfg)
	mac := []byte("a key of twenty byte")
	now := clock.Now()
	good := makeToken(t, "turn.example", mac, now, 60)
	damaged := append([]byte(nil), good...)
	damaged[20] ^= 1
	for name, c := range map[string]struct {
		kid   string
		token []byte
		mac   []byte
		want  int
	}{
		"good":               {"kid", good, mac, 0},
		"another key":        {"kid", good, []byte("not that key at all."), 401},
		"an unknown kid":     {"dik", good, mac, 401},
		"for another server": {"kid", makeToken(t, "other.example", mac, now, 60), mac, 401},
		"expired":            {"kid", makeToken(t, "turn.example", mac, now.Add(-2*time.Minute), 60), mac, 401},
		"of the future":      {"kid", makeToken(t, "turn.example", mac, now.Add(time.Minute), 60), mac, 401},
		"damaged":            {"kid", damaged, mac, 401},
		"empty":              {"kid", nil, mac, 401},
		"a long nonce":       {"kid", []byte{0xff, 0xff, 1, 2, 3}, mac, 401},
		"a short key":        {"kid", makeToken(t, "turn.example", []byte("short"), now, 60), []byte("short"), 401},
	} {
		client := s.raw(t, "udp")
		client.allocate() // for realm and nonce
		client.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))
		client.username = c.kid
		m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP, attr(attrAccessToken, c.token...),
			stun.NewUsername(c.kid), stun.NewRealm(client.realm), stun.Nonce(client.nonce), stun.MessageIntegrity(c.mac), stun.Fingerprint)
		if code := client.exchange(m); code != c.want {
			t.Errorf("%s: %d, want %d", name, code, c.want)
			continue
		}
		if c.want == 401 {
			if v, err := client.last.Get(attrThirdParty); err != nil || string(v) != "turn.example" {
				t.Errorf("%s: THIRD-PARTY-AUTHORIZATION %q, %v", name, v, err)
			}
			continue
		}
		if v, _ := client.last.Get(stun.AttrLifetime); len(v) != 4 || binary.BigEndian.Uint32(v) != 60 {
			t.Errorf("lifetime %x, want that of the token, 60 s", v)
		}
		if stun.MessageIntegrity(c.mac).Check(client.last) != nil {
			t.Error("the answer is not sealed with the token's key")
		}
	}
	off := start(t, testConfig())
	if code := off.raw(t, "udp").ask(stun.MethodAllocate, wantUDP, attr(attrAccessToken, good...)); code != 420 {
		t.Errorf("a token where none are taken: %d, want 420", code)
	}
}

func FuzzToken(f *testing.F) {
	o, err := newOAuth(OAuth{Server: "s", Keys: map[string][]byte{"kid": oauthKey}})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1800000000, 0)
	f.Add(makeToken(f, "s", make([]byte, 20), now, 60))
	f.Add([]byte{0, 12})
	f.Fuzz(func(t *testing.T, p []byte) {
		if tok, err := o.open("kid", p, now); err == nil && (len(tok.mac) < 16 || !tok.expires.Add(tokenLeeway).After(now)) {
			t.Errorf("%+v", tok)
		}
	})
}
