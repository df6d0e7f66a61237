// SPDX-License-Identifier: Apache-2.0

package meeting

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
)

func TestNamesHaveOneForm(t *testing.T) {
	for typed, want := range map[string]string{
		"daily": "daily", "Daily Stand up ": "daily-stand-up", "Tenant/Room": "tenant/room", "Cafe\u0301": "café", "CAFÉ": "café", "ÄÖÜ": "äöü", "a\tb": "a-b",
		"会议": "会议", "👍": "👍", "a.b": "a.b", "x'<b>": "x'<b>", strings.Repeat("é", 100): strings.Repeat("é", 100), "a%20b": "a%20b", "İstanbul": "istanbul",
	} {
		if got, err := Name(typed); err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", typed, got, err, want)
		}
	}
	for _, typed := range []string{
		"", "  ", "a:b", "#a", "a!", "@a", `a\b`, "a\x00b", "a\x1bb", "a\x7fb", "a/b/c", "/a", "a/", "..", ".", "a/..", strings.Repeat("é", 101), "\xff", "a\u200bb", "a\u202eb",
	} {
		if got, err := Name(typed); signalling.AsError(err).Code != "M_INVALID_PARAM" {
			t.Errorf("%q: %q %v", typed, got, err)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"daily", "A b/C", "İ", "ﬃ", "\u1e9e", "e\u0301", "..", "%2e%2e", "\u3000x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		name, err := Name(typed)
		if err != nil {
			return
		}
		if again, err := Name(name); err != nil || again != name {
			t.Errorf("%q becomes %q, which becomes %q, %v", typed, name, again, err)
		}
		if n := utf8.RuneCountInString(name); n == 0 || n > maxName || strings.ContainsAny(name, ":#!@\\ \t\n\x00") || strings.Count(name, "/") > 1 {
			t.Errorf("%q becomes %q", typed, name)
		}
		if u, err := url.PathUnescape(url.PathEscape(name)); err != nil || u != name {
			t.Errorf("%q does not survive an address: %q %v", name, u, err)
		}
	})
}

const secret = "a secret of enough characters"

func signed(t testing.TB, method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func public(t *testing.T, key any) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
}

func TestAKeyIsUsedWithItsOwnAlgorithmOnly(t *testing.T) {
	now := time.Now()
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	es, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var keys Keys
	pems := map[string][]byte{}
	for name, key := range map[string]any{"rsa": &rs.PublicKey, "ecdsa": &es.PublicKey, "ed": ed.Public()} {
		pems[name] = public(t, key)
		k, err := ParsePublic(pems[name])
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, Key{AppID: name, Public: k})
	}
	keys = append(keys, Key{AppID: "hmac", Secret: []byte(secret)}, Key{AppID: "strict", Secret: []byte(secret), Audiences: []string{"jitsi"}})
	c := func(iss string) jwt.MapClaims {
		return jwt.MapClaims{"iss": iss, "room": "m", "exp": now.Add(time.Hour).Unix()}
	}
	for what, good := range map[string]string{
		"RS256": signed(t, jwt.SigningMethodRS256, rs, c("rsa")), "ES256": signed(t, jwt.SigningMethodES256, es, c("ecdsa")),
		"EdDSA": signed(t, jwt.SigningMethodEdDSA, ed, c("ed")), "HS256": signed(t, jwt.SigningMethodHS256, []byte(secret), c("hmac")),
	} {
		if got, err := keys.Verify(good, now); err != nil || got.Room != "m" || got.Moderator != nil {
			t.Errorf("%s: %+v %v", what, got, err)
		}
	}
	for what, bad := range map[string]string{
		"the public key as a secret": signed(t, jwt.SigningMethodHS256, pems["rsa"], c("rsa")),
		"none":                       signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, c("hmac")),
		"HS512":                      signed(t, jwt.SigningMethodHS512, []byte(secret), c("hmac")),
		"PS256":                      signed(t, jwt.SigningMethodPS256, rs, c("rsa")),
		"another's key":              signed(t, jwt.SigningMethodHS256, []byte(secret), c("rsa")),
		"no audience":                signed(t, jwt.SigningMethodHS256, []byte(secret), c("strict")),
		"no issuer":                  signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"room": "m", "exp": now.Add(time.Hour).Unix()}),
		"no room":                    signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"iss": "hmac", "exp": now.Add(time.Hour).Unix()}),
		"no end":                     signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"iss": "hmac", "room": "m"}),
		"rubbish":                    "a.b.c", "nothing": "", "too long": strings.Repeat("a", maxJWT+1),
	} {
		if got, err := keys.Verify(bad, now); err == nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if _, err := keys.Verify(signed(t, jwt.SigningMethodHS256, []byte(secret), c("hmac")), now.Add(2*time.Hour)); err == nil {
		t.Error("a token that has run out")
	}
	for _, text := range []string{"", "no PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		if k, err := ParsePublic([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, k)
		}
	}
}

func TestWhatATokenSaysOfItsHolder(t *testing.T) {
	now := time.Now()
	keys := Keys{{AppID: "app", Secret: []byte(secret)}}
	yes, no := true, false
	for _, c := range []struct {
		context string
		want    Claims
	}{
		{`{}`, Claims{}},
		{`{"user":{"name":"N","email":"e","avatar":"a","id":7}}`, Claims{User: User{Name: "N", Email: "e", Avatar: "a"}}},
		{`{"user":{"avatarURL":"u","moderator":true}}`, Claims{User: User{Avatar: "u"}, Moderator: &yes}},
		{`{"user":{"moderator":"true","affiliation":"member"}}`, Claims{Moderator: &yes}},
		{`{"user":{"moderator":"false"}}`, Claims{Moderator: &no}},
		{`{"user":{"moderator":{"x":1}}}`, Claims{Moderator: &no}},
		{`{"user":{"affiliation":"owner","lobby_bypass":true}}`, Claims{Moderator: &yes, LobbyBypass: true}},
		{`{"user":{"affiliation":"member"}}`, Claims{Moderator: &no}},
		{`{"features":{"recording":true,"livestreaming":"false","x":3}}`, Claims{}},
	} {
		var context any
		if err := json.Unmarshal([]byte(c.context), &context); err != nil {
			t.Fatal(err)
		}
		got, err := keys.Verify(signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"iss": "app", "room": "m", "sub": "s", "exp": now.Add(time.Hour).Unix(), "context": context}), now)
		if err != nil {
			t.Errorf("%s: %v", c.context, err)
			continue
		}
		c.want.Room, c.want.Subject = "m", "s"
		if diff := cmp.Diff(&c.want, got); diff != "" {
			t.Errorf("%s: %s", c.context, diff)
		}
	}
}

func TestATokenIsForItsRoom(t *testing.T) {
	for _, c := range []struct {
		room, subject, name string
		want                bool
	}{
		{"*", "", "m", true}, {"M", "", "m", true}, {"n", "", "m", false}, {"a b", "", "a-b", true}, {"*", "", "t/m", true},
		{"*", "meet.example.org", "t/m", true}, {"*", "t", "t/m", true}, {"*", "u", "t/m", false}, {"m", "t", "t/m", true}, {"m", "u", "t/m", false},
		{"m", "*", "t/m", true}, {"m", "", "t/m", false}, {"t/m", "", "t/m", true}, {"m", "t", "m", true}, {":", "", "m", false},
	} {
		if got := (&Claims{Room: c.room, Subject: c.subject}).For(c.name); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func FuzzTokens(f *testing.F) {
	keys := Keys{{AppID: "app", Secret: []byte(secret)}}
	now := time.Now()
	for _, payload := range []string{
		`{"iss":"app","room":"m","exp":99999999999,"context":{"user":{"moderator":"true"},"features":{"a":1}}}`,
		`{"iss":"app","sub":"app","room":"*","context":{"matrix":{"token":"t","room_id":"!r","server_name":"s"},"user":{"avatar":"a","name":"n"}}}`,
		`{"iss":7,"aud":[1],"exp":"x"}`, `[]`, `null`, `{"context":{"user":[]}}`,
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var c jwt.MapClaims
		if json.Unmarshal(payload, &c) != nil || c == nil {
			_, _ = keys.Verify(string(payload), now)
			ElementToken(string(payload))
			return
		}
		token := signed(t, jwt.SigningMethodHS256, []byte(secret), c)
		if got, err := keys.Verify(token, now); err == nil {
			if got.Room == "" {
				t.Errorf("%s: %+v", payload, got)
			}
			got.For("m")
		}
		if e, ok := ElementToken(token); ok && (e.Token == "" || e.RoomID == "" || e.ServerName == "") {
			t.Errorf("%s: %+v", payload, e)
		}
		if _, err := keys.Verify(token[:len(token)-2], now); err == nil {
			t.Errorf("a broken signature is good")
		}
	})
}
