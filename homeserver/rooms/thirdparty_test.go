// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestAThirdPartyInviteIsExchanged(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *server) {
		ctx := context.Background()
		for _, v := range []event.Version{"9", "12"} {
			id := create(t, a.Service, v)
			a.send(id, state("@alice:example.org", "m.room.join_rules", "", map[string]any{"join_rule": "invite"}))
			pub, key, _ := ed25519.GenerateKey(nil)
			identity := event.Signer{Server: "identity.org", KeyID: "ed25519:0", Key: key}
			public := base64.RawStdEncoding.EncodeToString(pub)
			a.send(id, state("@alice:example.org", "m.room.third_party_invite", "token", map[string]any{"display_name": "b…@b.org", "key_validity_url": "https://identity.org/valid", "public_key": public, "public_keys": []any{map[string]any{"public_key": public}}}))
			sign := func(s event.Signer, user, token string) json.RawMessage {
				raw, err := event.SignJSON(s, content(map[string]any{"mxid": user, "token": token}))
				if err != nil {
					t.Fatal(err)
				}
				return raw
			}
			_, other, _ := ed25519.GenerateKey(nil)
			forged := event.Signer{Server: "identity.org", KeyID: "ed25519:0", Key: other}
			for name, x := range map[string]struct {
				sender, target string
				signed         json.RawMessage
				code           string
			}{
				"token":  {"@alice:example.org", "@bob:b.org", sign(identity, "@bob:b.org", "other"), "M_FORBIDDEN"},
				"user":   {"@alice:example.org", "@bob:b.org", sign(identity, "@eve:e.org", "token"), "M_INVALID_PARAM"},
				"sender": {"@carol:example.org", "@bob:b.org", sign(identity, "@bob:b.org", "token"), "M_FORBIDDEN"},
				"remote": {"@bob:b.org", "@bob:b.org", sign(identity, "@bob:b.org", "token"), "M_FORBIDDEN"},
				"json":   {"@alice:example.org", "@bob:b.org", json.RawMessage(`[`), "M_NOT_JSON"},
				"array":  {"@alice:example.org", "@bob:b.org", json.RawMessage(`[]`), "M_INVALID_PARAM"},
			} {
				if _, err := a.ThirdPartyInvite(ctx, id, x.sender, x.target, x.signed); signalling.AsError(err).Code != x.code {
					t.Errorf("v%s: wrong %s: %v", v, name, err)
				}
			}
			extra, err := a.ThirdPartyInvite(ctx, id, "@alice:example.org", "@bob:b.org", sign(forged, "@bob:b.org", "token"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.MakeInvite(ctx, id, "@alice:example.org", "@bob:b.org", "", extra); signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Errorf("v%s: a forged signature: %v", v, err)
			}
			if extra, err = a.ThirdPartyInvite(ctx, id, "@alice:example.org", "@bob:b.org", sign(identity, "@bob:b.org", "token")); err != nil {
				t.Fatal(err)
			}
			inv, err := a.MakeInvite(ctx, id, "@alice:example.org", "@bob:b.org", "", extra)
			if err != nil {
				t.Fatalf("v%s: %v", v, err)
			}
			signed, err := b.TakeInvite(ctx, wire(t, inv.Event)[0], inv.Stripped)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.SendSigned(ctx, wire(t, signed)[0]); err != nil {
				t.Fatal(err)
			}
			b.mustJoin(a, id, "@bob:b.org")
			same(t, id, a, b)
		}
	})
}
