// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	testKey    = "key"
	testSecret = "a secret of thirty-two characters"
)

var testKeys = Keys{testKey: testSecret}

func grantFor(room string) *Grant { return &Grant{RoomJoin: true, Room: room} }

func claimsFor(identity, room string) Claims {
	return Claims{RegisteredClaims: jwt.RegisteredClaims{Subject: identity}, Video: grantFor(room)}
}

func TestATokenOfOursIsAccepted(t *testing.T) {
	c := claimsFor("@alice:example.org:DEVICE", "room")
	c.Name = "Alice"
	token, err := testKeys.Sign(testKey, c, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []bool{true, false} {
		r := httptest.NewRequest("GET", "/rtc", nil)
		if header {
			r.Header.Set("Authorization", "Bearer "+token)
		} else {
			r = httptest.NewRequest("GET", "/rtc?access_token="+token, nil)
		}
		got, err := testKeys.join(r)
		if err != nil {
			t.Fatal(err)
		}
		p := got.profile()
		if p.Identity != c.Subject || p.Name != "Alice" || !p.Permissions.Publish || !p.Permissions.Subscribe || !p.Permissions.Data {
			t.Errorf("profile %+v", p)
		}
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	now := time.Now()
	valid := func() jwt.MapClaims {
		return jwt.MapClaims{
			"iss": testKey, "sub": "alice", "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			"video": map[string]any{"roomJoin": true, "room": "room"},
		}
	}
	with := func(k string, v any) jwt.MapClaims {
		c := valid()
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
		return c
	}
	sign := func(m jwt.SigningMethod, c jwt.Claims, key any) string {
		s, err := jwt.NewWithClaims(m, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	hs := func(c jwt.Claims) string { return sign(jwt.SigningMethodHS256, c, []byte(testSecret)) }
	good := hs(valid())
	if _, err := testKeys.join(httptest.NewRequest("GET", "/rtc?access_token="+good, nil)); err != nil {
		t.Fatalf("the token that the others are variants of: %v", err)
	}
	parts := strings.Split(good, ".")
	kid := jwt.NewWithClaims(jwt.SigningMethodHS256, valid())
	kid.Header["kid"] = "../../etc/passwd"
	stranger, err := kid.SignedString([]byte("another secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"none":              sign(jwt.SigningMethodNone, valid(), jwt.UnsafeAllowNoneSignatureType),
		"no signature":      parts[0] + "." + parts[1] + ".",
		"RS256":             sign(jwt.SigningMethodRS256, valid(), pair),
		"HS512":             sign(jwt.SigningMethodHS512, valid(), []byte(testSecret)),
		"wrong secret":      sign(jwt.SigningMethodHS256, valid(), []byte("wrong")),
		"empty secret":      sign(jwt.SigningMethodHS256, with("iss", "nobody"), []byte("")),
		"kid path":          stranger,
		"unknown issuer":    hs(with("iss", "someone")),
		"expired":           hs(with("exp", now.Add(-time.Hour).Unix())),
		"no expiry":         hs(with("exp", nil)),
		"not yet":           hs(with("nbf", now.Add(time.Hour).Unix())),
		"no grant":          hs(with("video", nil)),
		"grant of no join":  hs(with("video", map[string]any{"room": "room"})),
		"grant of no room":  hs(with("video", map[string]any{"roomJoin": true})),
		"grant as a string": hs(with("video", "yes")),
		"no identity":       hs(with("sub", nil)),
		"long identity":     hs(with("sub", strings.Repeat("x", maxIdentity+1))),
		"a megabyte":        hs(with("metadata", strings.Repeat("x", 1<<20))),
		"dots":              strings.Repeat(".", 10_000),
		"nothing":           "",
	} {
		r := httptest.NewRequest("GET", "/rtc", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		if c, err := testKeys.join(r); err == nil {
			t.Errorf("%s: accepted as %q", name, c.Subject)
		}
	}
}

func FuzzVerify(f *testing.F) {
	token, err := testKeys.Sign(testKey, claimsFor("a", "b"), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := testKeys.Verify(text); err == nil && c.Issuer != testKey {
			t.Fatal("a token of a stranger")
		}
	})
}

func FuzzReadJoinRequest(f *testing.F) {
	f.Add("CAESAA==")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = readJoinRequest(text) })
}
