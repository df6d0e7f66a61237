// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"encoding/json"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"maunium.net/go/mautrix/crypto/goolm/account"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"
)

// Two devices with the Olm implementation that bots and bridges use: keys go up, are claimed, verified by the other side, and a
// message that was encrypted with them comes down and is read.
func TestTwoOlmDevicesTalk(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		type end struct {
			user, device string
			*account.Account
		}
		start := func(user, device string) end {
			h.login(user, device, "")
			acc, err := account.NewAccount()
			h.must(err)
			h.must(acc.GenOneTimeKeys(10))
			e := end{user, device, acc}
			ed, curve, err := acc.IdentityKeys()
			h.must(err)
			signed := func(o object) object {
				canonical, err := event.Canonical(encode(o))
				h.must(err)
				sig, err := acc.Sign(canonical)
				h.must(err)
				o["signatures"] = object{user: object{"ed25519:" + device: string(sig)}}
				return o
			}
			keys, err := acc.OneTimeKeys()
			h.must(err)
			oneTime := object{}
			for name, key := range keys {
				oneTime["signed_curve25519:"+name] = signed(object{"key": key})
			}
			u, err := e2ee.DecodeUpload(encode(object{"one_time_keys": oneTime, "device_keys": signed(object{
				"user_id": user, "device_id": device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
				"keys": object{"ed25519:" + device: ed, "curve25519:" + device: curve},
			})}))
			h.must(err)
			counts, err := h.Upload(ctx, user, device, u)
			h.must(err)
			if counts["signed_curve25519"] != 10 {
				t.Errorf("%v", counts)
			}
			return e
		}
		a, b := start(alice, "PHONE"), start(bob, "DESK")

		queried, err := h.Query(ctx, bob, e2ee.Query{alice: nil})
		h.must(err)
		raw := queried.DeviceKeys[alice]["PHONE"]
		var device struct {
			Keys map[string]string `json:"keys"`
		}
		h.must(json.Unmarshal(raw, &device))
		ed, curve := id.Ed25519(device.Keys["ed25519:PHONE"]), id.Curve25519(device.Keys["curve25519:PHONE"])
		if ok, err := signatures.VerifySignatureJSON(raw, alice, "PHONE", ed); !ok {
			t.Fatalf("bob does not believe alice's keys: %v", err)
		}
		_, claimed := h.claim(alice, "PHONE")
		if ok, err := signatures.VerifySignatureJSON(claimed, alice, "PHONE", ed); !ok {
			t.Fatalf("bob does not believe the one-time key: %v", err)
		}
		var oneTime struct {
			Key id.Curve25519 `json:"key"`
		}
		h.must(json.Unmarshal(claimed, &oneTime))
		out, err := b.NewOutboundSession(curve, oneTime.Key)
		h.must(err)
		typ, cipher, err := out.Encrypt([]byte("ring ring"))
		h.must(err)
		content := encode(object{"type": typ, "body": string(cipher)})
		h.must(h.SendToDevice(ctx, bob, "DESK", "m.room.encrypted", "1", e2ee.Messages{alice: {"PHONE": content}}))

		got, _, err := h.ToDevice(ctx, alice, "PHONE", 0, h.store.Pos(), 10)
		h.must(err)
		var ev struct {
			Content struct {
				Type id.OlmMsgType `json:"type"`
				Body string        `json:"body"`
			} `json:"content"`
		}
		if len(got) != 1 {
			t.Fatalf("%d messages", len(got))
		}
		h.must(json.Unmarshal(got[0], &ev))
		_, bobs, err := b.IdentityKeys()
		h.must(err)
		in, err := a.NewInboundSessionFrom(&bobs, ev.Content.Body)
		h.must(err)
		plain, err := in.Decrypt(ev.Content.Body, ev.Content.Type)
		h.must(err)
		if string(plain) != "ring ring" {
			t.Errorf("alice reads %q", plain)
		}
	})
}
