// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/trunkboard/trunkboard/sfu"
)

// Limits of a token.
const (
	maxToken    = 16 << 10
	maxIdentity = 512
	leeway      = 10 * time.Second // clocks of the issuer and ours
)

// Grant is what a token allows: the "video" claim. Permissions that are absent are granted.
type Grant struct {
	RoomJoin          bool     `json:"roomJoin,omitempty"`
	RoomCreate        bool     `json:"roomCreate,omitempty"`
	RoomList          bool     `json:"roomList,omitempty"`
	RoomAdmin         bool     `json:"roomAdmin,omitempty"`
	Room              string   `json:"room,omitempty"`
	CanPublish        *bool    `json:"canPublish,omitempty"`
	CanSubscribe      *bool    `json:"canSubscribe,omitempty"`
	CanPublishData    *bool    `json:"canPublishData,omitempty"`
	CanPublishSources []string `json:"canPublishSources,omitempty"`
	CanUpdateMetadata *bool    `json:"canUpdateOwnMetadata,omitempty"`
	Hidden            bool     `json:"hidden,omitempty"`
	// KeepMetadata narrows CanUpdateMetadata to the name and the attributes: the metadata stay what this token says. Ours alone.
	KeepMetadata bool `json:"trunkboardKeepMetadata,omitempty"`
	// Held are sources that may be published muted only. Ours alone.
	Held []string `json:"trunkboardHeld,omitempty"`
}

// Claims is the content of an access token: an HS256 JWT whose issuer is an API key and whose subject is the participant's identity.
type Claims struct {
	jwt.RegisteredClaims
	Name       string            `json:"name,omitempty"`
	Metadata   string            `json:"metadata,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Video      *Grant            `json:"video,omitempty"`
	// Holder is what the issuer wants to find again when the token is used; nobody else reads it.
	Holder string `json:"holder,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of a webhook's body
}

var errToken = errors.New("livekit: invalid token")

// Keys maps API keys to their secrets.
type Keys map[string]string

// Sign makes a token that is valid from now on for validity.
func (k Keys) Sign(key string, c Claims, validity time.Duration) (string, error) {
	secret, ok := k[key]
	if !ok {
		return "", fmt.Errorf("livekit: no API key %q", key)
	}
	now := time.Now()
	c.Issuer = key
	c.NotBefore, c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(now.Add(-leeway)), jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(validity))
	return jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(secret))
}

// Verify checks a token. Only HS256 with the secret of the issuer counts, whatever the header says.
func (k Keys) Verify(token string) (*Claims, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("%w: too long", errToken)
	}
	c := &Claims{}
	_, err := jwt.ParseWithClaims(token, c, func(*jwt.Token) (any, error) {
		secret, ok := k[c.Issuer]
		if !ok || secret == "" {
			return nil, errors.New("unknown API key")
		}
		return []byte(secret), nil
	}, jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errToken, err)
	}
	return c, nil
}

// bearer checks the token of a request to the server's API.
func (k Keys) bearer(r *http.Request) (*Claims, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return nil, fmt.Errorf("%w: there is none", errToken)
	}
	return k.Verify(token)
}

// join checks a request's token for joining a room.
func (k Keys) join(r *http.Request) (*Claims, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = r.URL.Query().Get("access_token")
	}
	if token == "" {
		return nil, fmt.Errorf("%w: there is none", errToken)
	}
	c, err := k.Verify(token)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Video == nil || !c.Video.RoomJoin:
		return nil, fmt.Errorf("%w: it does not allow to join", errToken)
	case c.Video.Room == "" || len(c.Video.Room) > maxIdentity:
		return nil, fmt.Errorf("%w: it names no room", errToken)
	case c.Subject == "" || len(c.Subject) > maxIdentity:
		return nil, fmt.Errorf("%w: it names no identity", errToken)
	}
	return c, nil
}

// profile is what a token says about a participant.
func (c *Claims) profile() sfu.Profile {
	granted := func(b *bool) bool { return b == nil || *b }
	g := c.Video
	return sfu.Profile{
		Identity: c.Subject, Name: c.Name, Metadata: c.Metadata, Attributes: c.Attributes,
		Permissions: sfu.Permissions{
			Publish: granted(g.CanPublish), Subscribe: granted(g.CanSubscribe), Data: granted(g.CanPublishData),
			UpdateMetadata: g.CanUpdateMetadata != nil && *g.CanUpdateMetadata, KeepMetadata: g.KeepMetadata, Held: g.Held,
			Sources: g.CanPublishSources, Hidden: g.Hidden,
		},
	}
}
