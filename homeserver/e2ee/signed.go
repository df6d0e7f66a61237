// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// signatures is the member of that name: user -> key id -> unpadded base64.
type signatures map[string]map[string]string

// unsigned splits a signed object into the canonical JSON that is signed and its signatures (appendices, "Signing JSON").
func unsigned(raw json.RawMessage) (base string, sigs signatures, err error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		return "", nil, signalling.BadJSON("a key must be a JSON object")
	}
	if s, ok := m["signatures"]; ok {
		if err := json.Unmarshal(s, &sigs); err != nil {
			return "", nil, signalling.BadJSON("signatures must map user ids to key ids to signatures")
		}
		for user, keys := range sigs {
			if checkID("", user) != nil {
				return "", nil, signalling.BadJSON("signatures holds what is not a user id")
			}
			for id, sig := range keys {
				if checkID("", id) != nil || checkID("", sig) != nil {
					return "", nil, signalling.BadJSON("signatures holds what is not a signature")
				}
			}
		}
	}
	delete(m, "signatures")
	delete(m, "unsigned")
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return "", nil, signalling.BadJSON("a key must be a JSON object").Because(err)
	}
	canonical, err := event.Canonical(buf.Bytes())
	if err != nil {
		return "", nil, err
	}
	return string(canonical), sigs, nil
}

// withSignatures puts signatures, and the display name where there is one, back into a key without them.
func withSignatures(base string, sigs signatures, name string) json.RawMessage {
	out := make([]byte, 0, len(base)+256)
	out = append(out, strings.TrimSuffix(base, "}")...)
	add := func(member string, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			return // maps of strings always encode
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, member...)
		out = append(out, `":`...)
		out = append(out, b...)
	}
	if sigs == nil {
		sigs = signatures{}
	}
	add("signatures", sigs)
	if name != "" {
		add("unsigned", map[string]string{"device_display_name": name})
	}
	return append(out, '}')
}

// publicKey reads an ed25519 key in base64, padded or not.
func publicKey(s string) (ed25519.PublicKey, bool) {
	b, ok := decode64(s)
	if !ok || len(b) != ed25519.PublicKeySize {
		return nil, false
	}
	return b, true
}

func decode64(s string) ([]byte, bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	return b, err == nil
}

// verifies says whether sig is key's signature of base.
func verifies(key, base, sig string) bool {
	k, ok := publicKey(key)
	if !ok {
		return false
	}
	b, ok := decode64(sig)
	return ok && len(b) == ed25519.SignatureSize && ed25519.Verify(k, []byte(base), b)
}

func invalidSignature(format string, args ...any) *signalling.Error {
	return signalling.Refuse(http.StatusBadRequest, "M_INVALID_SIGNATURE", format, args...)
}
