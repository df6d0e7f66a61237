// SPDX-License-Identifier: Apache-2.0

package meeting

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxJWT = 16 << 10
	leeway = 30 * time.Second // clocks of the issuer and ours
)

// Key checks the tokens (JWT) of one issuer, as Jitsi's token authentication has them.
type Key struct {
	AppID     string           // the token's issuer
	Secret    []byte           // for HS256; nil where there is Public
	Public    crypto.PublicKey // RSA: RS256, ECDSA: ES256 or as its curve wants, Ed25519: EdDSA
	Audiences []string         // one of them must be the token's; empty: any
}

// Keys are the issuers that are believed.
type Keys []Key

// methods are the only algorithms that a key is used with, whatever a token says.
func (k *Key) methods() []string {
	switch p := k.Public.(type) {
	case *rsa.PublicKey:
		return []string{"RS256"}
	case *ecdsa.PublicKey:
		return []string{map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[p.Curve.Params().BitSize]}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	if len(k.Secret) > 0 {
		return []string{"HS256"}
	}
	return nil
}

// ParsePublic reads a PEM file with a public key or a certificate.
func ParsePublic(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("there is no PEM block in it")
	}
	var key any
	var err error
	switch block.Type {
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = c.PublicKey
		}
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		return nil, err
	}
	if m := (&Key{Public: key}).methods(); len(m) == 0 || m[0] == "" {
		return nil, fmt.Errorf("a key of type %T cannot be used", key)
	}
	return key, nil
}

// Claims are what a good token says.
type Claims struct {
	Room, Subject string
	User          User
	Moderator     *bool // nil: the token does not say
	LobbyBypass   bool
}

// User is who a token is for, as its issuer knows him.
type User struct{ ID, Name, Email, Avatar string }

// Moderates says that the token makes its holder a host.
func (c *Claims) Moderates() bool { return c.Moderator != nil && *c.Moderator }

// Bypasses says that its holder need not wait in a lobby.
func (c *Claims) Bypasses() bool { return c.LobbyBypass }

// For says whether the token is good for a meeting of that (normalised) name: its room is "*", or that name, or the room in it behind a
// tenant. A subject that is a tenant must be the meeting's; Jitsi's issuers write their domain or "*" there otherwise.
func (c *Claims) For(name string) bool {
	tenant, room, has := strings.Cut(name, "/")
	if !has {
		return c.Room == "*" || sameName(c.Room, name)
	}
	if s := c.Subject; s != "" && s != "*" && !strings.Contains(s, ".") && !sameName(s, tenant) {
		return false
	}
	return c.Room == "*" || sameName(c.Room, name) || c.Subject != "" && sameName(c.Room, room)
}

func sameName(a, name string) bool {
	n, err := Name(a)
	return err == nil && n == name
}

// flag is a bool that some issuers write as a text.
type flag bool

// UnmarshalJSON takes true, false, "true" and "false"; everything else is false.
func (f *flag) UnmarshalJSON(b []byte) error {
	*f = string(b) == "true" || string(b) == `"true"`
	return nil
}

// text is a string; what is none counts as empty: issuers put numbers into ids.
type text string

// UnmarshalJSON never fails.
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// wireClaims is a token's content. Claims of the wrong shape in "context" are as if they were not there.
type wireClaims struct {
	jwt.RegisteredClaims
	Room    text    `json:"room"`
	Context context `json:"context"`
}

type context struct {
	User struct {
		ID          text  `json:"id"`
		Name        text  `json:"name"`
		Avatar      text  `json:"avatar"`
		AvatarURL   text  `json:"avatarURL"`
		Email       text  `json:"email"`
		Affiliation text  `json:"affiliation"`
		Moderator   *flag `json:"moderator"`
		LobbyBypass flag  `json:"lobby_bypass"`
	} `json:"user"`
	Matrix struct {
		Token      text `json:"token"`
		RoomID     text `json:"room_id"`
		ServerName text `json:"server_name"`
	} `json:"matrix"`
}

// Verify checks a token and gives what it says. The issuer names the key, and the key the algorithm.
func (k Keys) Verify(token string, now time.Time) (*Claims, error) {
	if len(token) > maxJWT {
		return nil, errors.New("the token is too long")
	}
	issuer, err := issuerOf(token)
	if err != nil {
		return nil, err
	}
	err = errors.New("nobody here knows the token's issuer")
	for i := range k {
		if k[i].AppID != issuer {
			continue
		}
		var c *Claims
		if c, err = k[i].verify(token, now); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (k *Key) verify(token string, now time.Time) (*Claims, error) {
	w := &wireClaims{}
	_, err := jwt.ParseWithClaims(token, w, func(*jwt.Token) (any, error) {
		if k.Public != nil {
			return k.Public, nil
		}
		return k.Secret, nil
	}, jwt.WithValidMethods(k.methods()), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(func() time.Time { return now }))
	if err != nil {
		return nil, err
	}
	if len(k.Audiences) > 0 && !slices.ContainsFunc(w.Audience, func(a string) bool { return slices.Contains(k.Audiences, a) }) {
		return nil, errors.New("the token is for somebody else (aud)")
	}
	if w.Room == "" {
		return nil, errors.New("the token names no room")
	}
	u := w.Context.User
	c := &Claims{
		Room: string(w.Room), Subject: w.Subject, LobbyBypass: bool(u.LobbyBypass),
		User: User{ID: string(u.ID), Name: string(u.Name), Email: string(u.Email), Avatar: string(u.Avatar)},
	}
	if c.User.Avatar == "" {
		c.User.Avatar = string(u.AvatarURL)
	}
	switch {
	case u.Moderator != nil:
		m := bool(*u.Moderator)
		c.Moderator = &m
	case u.Affiliation != "":
		m := u.Affiliation == "owner" || u.Affiliation == "moderator"
		c.Moderator = &m
	}
	return c, nil
}

// issuerOf reads a token's issuer without believing anything.
func issuerOf(token string) (string, error) {
	var c struct {
		Issuer text `json:"iss"`
	}
	if err := payload(token, &c); err != nil {
		return "", err
	}
	return string(c.Issuer), nil
}

func payload(token string, v any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxJWT {
		return errors.New("this is no JWT")
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return errors.New("this is no JWT")
	}
	return json.Unmarshal(b, v)
}

// Element is what Element's clients put into the token that they make for a Jitsi which authenticates by Matrix ("openidtoken-jwt").
type Element struct {
	Token      string // OpenID token
	ServerName string // that gave it
	RoomID     string
	Name       string
	Avatar     string
}

// ElementToken reads such a token. Its signature is made with a secret that everybody knows: what it says is a claim, and the OpenID
// token in it has to be checked.
func ElementToken(token string) (Element, bool) {
	var c struct {
		Context context `json:"context"`
	}
	if payload(token, &c) != nil {
		return Element{}, false
	}
	x, u := c.Context.Matrix, c.Context.User
	e := Element{Token: string(x.Token), ServerName: string(x.ServerName), RoomID: string(x.RoomID), Name: string(u.Name), Avatar: string(u.Avatar)}
	return e, e.Token != "" && e.RoomID != "" && e.ServerName != ""
}
