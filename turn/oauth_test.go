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
	clock := newClock()
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
		"sealed as coturn's": {"kid", good, mac[:16], 0},
		"a part of the key":  {"kid", good, mac[:15], 401},
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

// withToken builds a request that brings a token, or only its kid if the token is nil.
func withToken(c *rawClient, method stun.Method, kid string, token, mac []byte, attrs ...stun.Setter) *stun.Message {
	setters := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
	if token != nil {
		setters = append(setters, attr(attrAccessToken, token...))
	}
	return stun.MustBuild(append(setters, stun.NewUsername(kid), stun.NewRealm(c.realm), stun.Nonce(c.nonce), stun.MessageIntegrity(mac), stun.Fingerprint)...)
}

func TestAnAllocationLivesOnUnderAFreshToken(t *testing.T) {
	clock := newClock()
	cfg := testConfig()
	cfg.Clock, cfg.OAuth = clock, OAuth{Server: "turn.example", Keys: map[string][]byte{"kid": oauthKey, "next": oauthKey}}
	s := start(t, cfg)
	first, second := []byte("a key of twenty byte"), []byte("another key of 20 by")
	c := s.raw(t, "udp")
	c.askOnce(stun.MethodAllocate, wantUDP)
	c.challenged() // realm and nonce
	expect := func(what string, m *stun.Message, want int) {
		t.Helper()
		if code := c.exchange(m); code != want {
			t.Errorf("%s: %d, want %d", what, code, want)
		}
	}
	expect("Allocate", withToken(c, stun.MethodAllocate, "kid", makeToken(t, "turn.example", first, clock.Now(), 60), first, wantUDP), 0)
	expect("Refresh without the token", withToken(c, stun.MethodRefresh, "kid", nil, first), 0)
	expect("Refresh with another key", withToken(c, stun.MethodRefresh, "kid", nil, second), 401)
	clock.Advance(50 * time.Second)
	expect("Refresh with a fresh token of another kid", withToken(c, stun.MethodRefresh, "next", makeToken(t, "turn.example", second, clock.Now(), 600), second), 0)
	clock.Advance(50 * time.Second)
	expect("Refresh with the first one's key", withToken(c, stun.MethodRefresh, "kid", nil, first), 401)
	expect("Refresh with the second one's", withToken(c, stun.MethodRefresh, "next", nil, second), 0)
	if v, _ := c.last.Get(stun.AttrLifetime); len(v) != 4 || binary.BigEndian.Uint32(v) != 550 {
		t.Errorf("lifetime %x, want what is left of the token, 550 s", v)
	}
	clock.Advance(540 * time.Second)
	expect("Refresh at the end", withToken(c, stun.MethodRefresh, "next", nil, second), 0)
	clock.Advance(9 * time.Second)
	expect("nobody else's password", c.build(stun.MethodRefresh), 441)
	clock.Advance(time.Minute)
	expect("after the token", withToken(c, stun.MethodRefresh, "next", nil, second), 401)
	if n := s.AllocationCount(); n != 0 {
		t.Errorf("%d allocations outlive their token", n)
	}
}

func TestAPasswordsAllocationIsNotTakenOverWithAToken(t *testing.T) {
	cfg := testConfig()
	cfg.OAuth = OAuth{Server: "turn.example", Keys: map[string][]byte{"kid": oauthKey}}
	s := start(t, cfg)
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	mac := []byte("a key of twenty byte")
	if code := c.exchange(withToken(c, stun.MethodRefresh, "kid", makeToken(t, "turn.example", mac, time.Now(), 60), mac)); code != 441 {
		t.Errorf("%d, want 441", code)
	}
	if code := c.ask(stun.MethodRefresh); code != 0 {
		t.Errorf("its own client: %d", code)
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
