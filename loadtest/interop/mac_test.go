// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"strings"
)

// registrationMAC is the proof of Synapse's admin registration that the caller knows the shared secret.
func registrationMAC(nonce, name, password string, admin bool) string {
	role := "notadmin"
	if admin {
		role = "admin"
	}
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(strings.Join([]string{nonce, name, password, role}, "\x00")))
	return hex.EncodeToString(h.Sum(nil))
}
