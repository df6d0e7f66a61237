// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	"github.com/trunkboard/trunkboard/signalling"
)

// contentHash is the SHA-256 of an event without its hashes and signatures (server-server API, "Calculating the content hash for an
// event"); unsigned is gone already.
func contentHash(raw []byte) [32]byte {
	b, first := make([]byte, 0, len(raw)), true
	b = append(b, '{')
	members(raw, func(k, v []byte) bool {
		switch string(k) {
		case "hashes", "signatures", "unsigned":
		default:
			b = appendMember(b, &first, k, v)
		}
		return true
	})
	return sha256.Sum256(append(b, '}'))
}

// sameHash compares a hash in Base64, of either alphabet and with or without padding, to a sum.
func sameHash(encoded string, sum [32]byte) bool {
	b, err := decodeBase64(encoded)
	return err == nil && bytes.Equal(b, sum[:])
}

func decodeBase64(s string) ([]byte, error) {
	t := bytes.TrimRight([]byte(s), "=")
	for i, c := range t {
		switch c {
		case '-':
			t[i] = '+'
		case '_':
			t[i] = '/'
		}
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(t)))
	n, err := base64.RawStdEncoding.Decode(out, t)
	return out[:n], err
}

// referenceHash is the SHA-256 of the redacted event without signatures (server-server API, "Calculating the reference hash for an
// event"). Those are also the bytes that are signed.
func referenceHash(raw []byte, typ string, n int) [32]byte {
	return sha256.Sum256(redactTo(nil, raw, typ, n, false))
}

// eventID writes a reference hash as an id: v3 in the standard alphabet, later ones in the one that is safe in URLs.
func eventID(n int, sum [32]byte) string {
	enc := base64.RawURLEncoding
	if n == 3 {
		enc = base64.RawStdEncoding
	}
	b := make([]byte, 1, 48)
	b[0] = '$'
	return string(enc.AppendEncode(b, sum[:]))
}

// topLevel says whether redaction keeps a top-level key ("Redactions" of each room version).
func topLevel(n int, key []byte) bool {
	switch string(key) {
	case "event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth", "prev_events", "auth_events", "origin_server_ts":
		return true
	case "prev_state", "origin", "membership":
		return n <= 10
	}
	return false
}

// keptContent says whether redaction keeps a key of the content; all says that it keeps everything.
func keptContent(n int, typ string) (all bool, keep func(key []byte) bool) {
	only := func(keys ...string) func([]byte) bool {
		return func(k []byte) bool { return slices.Contains(keys, string(k)) }
	}
	switch typ {
	case "m.room.create":
		return n >= 11, only("creator")
	case "m.room.member":
		if n >= 9 {
			return false, only("membership", "join_authorised_via_users_server")
		}
		return false, only("membership")
	case "m.room.join_rules":
		if n >= 8 {
			return false, only("join_rule", "allow")
		}
		return false, only("join_rule")
	case "m.room.power_levels":
		return false, func(k []byte) bool {
			switch string(k) {
			case "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default":
				return true
			case "invite":
				return n >= 11
			}
			return false
		}
	case "m.room.aliases":
		if n <= 5 {
			return false, only("aliases")
		}
	case "m.room.history_visibility":
		return false, only("history_visibility")
	case "m.room.redaction":
		if n >= 11 {
			return false, only("redacts")
		}
	}
	return false, func([]byte) bool { return false }
}

// redactTo appends the redacted form of a canonical event, which is canonical too; signatures says whether to keep them.
func redactTo(dst, raw []byte, typ string, n int, signatures bool) []byte {
	if dst == nil {
		dst = make([]byte, 0, len(raw))
	}
	all, keep := keptContent(n, typ)
	first := true
	dst = append(dst, '{')
	members(raw, func(k, v []byte) bool {
		if !topLevel(n, k) || !signatures && string(k) == "signatures" {
			return true
		}
		if string(k) != "content" || all {
			dst = appendMember(dst, &first, k, v)
			return true
		}
		dst = appendMember(dst, &first, k, []byte{'{'})
		inner := true
		members(v, func(k, v []byte) bool {
			switch {
			case keep(k):
				dst = appendMember(dst, &inner, k, v)
			case n >= 11 && typ == "m.room.member" && string(k) == "third_party_invite" && v[0] == '{':
				dst = appendMember(dst, &inner, k, []byte{'{'}) // of which only signed is kept (MSC3821)
				if s := field(v, "signed"); s != nil {
					dst = append(dst, `"signed":`...)
					dst = append(dst, s...)
				}
				dst = append(dst, '}')
			}
			return true
		})
		dst = append(dst, '}')
		return true
	})
	return append(dst, '}')
}

// Sign gives e with one more signature (needed when an invite is accepted on behalf of the invited server).
func (e *Event) Sign(s Signer) (*Event, error) {
	n, err := e.version.number()
	if err != nil {
		return nil, err
	}
	sig := ed25519.Sign(s.Key, redactTo(nil, e.raw, e.typ, n, false))
	raw, err := addSignature(e.raw, s, sig)
	if err != nil {
		return nil, err
	}
	return Load(e.version, e.id, raw, e.redacted)
}

// WithSignature gives e with a signature that somebody else made; whether it is right is for VerifySignature. What is there under the same
// name is replaced.
func (e *Event) WithSignature(server, keyID string, sig []byte) (*Event, error) {
	raw, err := addSignature(e.raw, Signer{Server: server, KeyID: keyID}, sig)
	if err != nil {
		return nil, err
	}
	return Load(e.version, e.id, raw, e.redacted)
}

// SignJSON signs an object for key publication and X-Matrix requests (appendices, "Signing JSON"). The answer is canonical; unsigned
// is kept and not signed.
func SignJSON(s Signer, raw []byte) ([]byte, error) {
	whole, err := Canonical(raw)
	if err != nil {
		return nil, err
	}
	bare, ok := signedPart(whole)
	if !ok {
		return nil, signalling.BadJSON("only an object can be signed")
	}
	return addSignature(whole, s, ed25519.Sign(s.Key, bare))
}

// VerifyJSON checks one signature of an object that must be there.
func VerifyJSON(name, keyID string, key ed25519.PublicKey, raw []byte) error {
	whole, err := Canonical(raw)
	if err != nil {
		return err
	}
	bare, ok := signedPart(whole)
	if !ok {
		return signalling.BadJSON("only an object can be signed")
	}
	return verify(name, keyID, key, whole, bare)
}

// VerifySignature checks one signature of e that must be there.
func (e *Event) VerifySignature(name, keyID string, key ed25519.PublicKey) error {
	n, err := e.version.number()
	if err != nil {
		return err
	}
	return verify(name, keyID, key, e.raw, redactTo(nil, e.raw, e.typ, n, false))
}

func verify(name, keyID string, key ed25519.PublicKey, whole, signed []byte) error {
	var sig []byte
	eachSignature(whole, func(n, id, b64 string) {
		if n == name && id == keyID {
			sig, _ = decodeBase64(b64)
		}
	})
	if len(key) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize || !ed25519.Verify(key, signed, sig) {
		return signalling.Refuse(401, "M_UNAUTHORIZED", "the signature of %s with key %s is missing or wrong", name, keyID)
	}
	return nil
}

// signedPart is a canonical object without signatures and unsigned.
func signedPart(whole []byte) (b []byte, ok bool) {
	first := true
	b = append(make([]byte, 0, len(whole)), '{')
	ok = members(whole, func(k, v []byte) bool {
		if s := string(k); s != "signatures" && s != "unsigned" {
			b = appendMember(b, &first, k, v)
		}
		return true
	})
	return append(b, '}'), ok
}

// eachSignature calls f for every signature of a canonical object.
func eachSignature(whole []byte, f func(name, keyID, b64 string)) {
	members(field(whole, "signatures"), func(name, keys []byte) bool {
		members(keys, func(id, v []byte) bool {
			if s, ok := text(v); ok {
				f(unescape(name), unescape(id), s)
			}
			return true
		})
		return true
	})
}

// addSignature puts a signature into a canonical object, in the place of one by the same key.
func addSignature(whole []byte, s Signer, sig []byte) ([]byte, error) {
	all := map[string]map[string]string{s.Server: {}}
	eachSignature(whole, func(name, id, b64 string) {
		if all[name] == nil {
			all[name] = map[string]string{}
		}
		all[name][id] = b64
	})
	all[s.Server][s.KeyID] = base64.RawStdEncoding.EncodeToString(sig)
	b := make([]byte, 0, len(whole)+256)
	b = append(b, `{"signatures":{`...)
	outer := true
	for name, keys := range all {
		inner := true
		quoted := AppendString(nil, name)
		b = appendMember(b, &outer, quoted[1:len(quoted)-1], []byte{'{'})
		for id, v := range keys {
			quoted := AppendString(nil, id)
			b = appendMember(b, &inner, quoted[1:len(quoted)-1], AppendString(nil, v))
		}
		b = append(b, '}')
	}
	b = append(b, '}')
	first := false
	members(whole, func(k, v []byte) bool {
		if string(k) != "signatures" {
			b = appendMember(b, &first, k, v)
		}
		return true
	})
	return canonical(nil, append(b, '}'), false)
}
