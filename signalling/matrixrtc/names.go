// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import (
	"crypto/sha256"
	"encoding/base64"
	"unicode/utf8"
)

// MediaRoom is the name that a slot of a room has in the SFU: a hash, so that the SFU does not learn the room's id (MSC4195, "LiveKit
// room names").
func MediaRoom(roomID, slotID string) string { return hashed(roomID, slotID) }

// Identity is the name that a member has in the SFU (MSC4195, "LiveKit participant identities"). memberID is the member.id of the
// user's membership event.
func Identity(userID, memberID string) string { return hashed(userID, memberID) }

// DeviceIdentity is Identity as drafts of MSC4195 until July 2026 had it; Element Call 0.26 uses it with sticky memberships.
func DeviceIdentity(userID, deviceID, memberID string) string {
	return hashed(userID, deviceID, memberID)
}

// PlainIdentity is the name of members whose membership is a state event (MSC3401): user id, colon, device id.
func PlainIdentity(userID, deviceID string) string { return userID + ":" + deviceID }

// hashed is the unpadded base64 of the SHA-256 of a JSON array of strings in canonical form.
func hashed(words ...string) string {
	b := make([]byte, 0, 256)
	b = append(b, '[')
	for i, w := range words {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, w)
	}
	sum := sha256.Sum256(append(b, ']'))
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

// appendString appends a string as canonical JSON writes it (Matrix spec, appendices, "Canonical JSON"): only what must be escaped is,
// in its shortest form. Bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
