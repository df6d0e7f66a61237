// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
)

// uploadKeys publishes device keys and a one-time key, signed as clients sign them.
func (u *user) uploadKeys() {
	u.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		u.t.Fatal(err)
	}
	curve := make([]byte, 32)
	rand.Read(curve)
	b64 := base64.RawStdEncoding.EncodeToString
	sign := func(o object) object {
		text, err := json.Marshal(o) // sorted keys, nothing that JSON escapes: the canonical form
		if err != nil {
			u.t.Fatal(err)
		}
		o["signatures"] = object{u.id: object{"ed25519:" + u.device: b64(ed25519.Sign(private, text))}}
		return o
	}
	u.must("POST", "/_matrix/client/v3/keys/upload", object{
		"device_keys": sign(object{
			"user_id": u.id, "device_id": u.device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
			"keys": object{"curve25519:" + u.device: b64(curve), "ed25519:" + u.device: b64(public)},
		}),
		"one_time_keys": object{"signed_curve25519:AAAAAQ": sign(object{"key": b64(curve)})},
	}, nil)
}
