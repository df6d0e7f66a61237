// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"crypto/hmac"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// OpenIDLife is how long an OpenID token is good.
const OpenIDLife = time.Hour

const openIDPurpose = "openid"

// OpenIDToken gives a token that tells other services who a user is, and nothing else ("OpenID"). It is sealed, not stored: every
// node knows it. Our own services find in it the device too, which may be "".
func (s *Service) OpenIDToken(userID, deviceID string) string {
	text := userID + "\n" + url.QueryEscape(deviceID) + "\n" + strconv.FormatInt(s.clock.Now().Add(OpenIDLife).UnixMilli(), 10)
	mac := s.sealMAC(openIDPurpose, []byte(text))
	return base64.RawURLEncoding.EncodeToString(append([]byte(text+"\n"), mac...))
}

// OpenIDUser gives the user whom a token names. Errors: M_UNKNOWN_TOKEN.
func (s *Service) OpenIDUser(token string) (string, error) {
	user, _, err := s.OpenIDHolder(token)
	return user, err
}

// OpenIDHolder gives the user whom a token names, and the device that asked for it. Errors: M_UNKNOWN_TOKEN.
func (s *Service) OpenIDHolder(token string) (userID, deviceID string, err error) {
	refuse := signalling.Refuse(401, "M_UNKNOWN_TOKEN", "that OpenID token is not known, or has expired")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) > 2048 {
		return "", "", refuse
	}
	user, rest, ok := strings.Cut(string(raw), "\n")
	device, rest, ok2 := strings.Cut(rest, "\n")
	until, mac, ok3 := strings.Cut(rest, "\n")
	if !ok || !ok2 || !ok3 || !hmac.Equal([]byte(mac), s.sealMAC(openIDPurpose, []byte(user+"\n"+device+"\n"+until))) {
		return "", "", refuse
	}
	ms, err := strconv.ParseInt(until, 10, 64)
	if err != nil || !s.clock.Now().Before(time.UnixMilli(ms)) {
		return "", "", refuse
	}
	if device, err = url.QueryUnescape(device); err != nil {
		return "", "", refuse
	}
	return user, device, nil
}
