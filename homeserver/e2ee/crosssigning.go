// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// ErrNeedsAuth says that the keys in a CrossSigning replace others, which needs user-interactive authentication first.
var ErrNeedsAuth = errors.New("e2ee: replacing cross-signing keys needs authentication")

var usages = []string{"master", "self_signing", "user_signing"}

// CrossSigning is what a user publishes with /keys/device_signing/upload.
type CrossSigning struct {
	keys map[string]*crossKey // by usage
}

type crossKey struct {
	user   string
	public string
	base   string
	sigs   signatures
}

// DecodeCrossSigning reads the body of /keys/device_signing/upload; its auth is for others. Errors: M_NOT_JSON, M_BAD_JSON,
// M_INVALID_PARAM, M_TOO_LARGE.
func DecodeCrossSigning(body []byte) (*CrossSigning, error) {
	var raw map[string]json.RawMessage
	if err := decode(body, &raw, "the body must be a JSON object"); err != nil {
		return nil, err
	}
	c := &CrossSigning{keys: map[string]*crossKey{}}
	seen := map[string]bool{}
	for _, usage := range usages {
		value := raw[usage+"_key"]
		if len(value) == 0 || string(value) == "null" {
			continue
		}
		k, err := decodeCrossKey(usage, value)
		if err != nil {
			return nil, err
		}
		if seen[k.public] {
			return nil, signalling.InvalidParam("the cross-signing keys must be different keys")
		}
		seen[k.public] = true
		c.keys[usage] = k
	}
	return c, nil
}

func decodeCrossKey(usage string, raw json.RawMessage) (*crossKey, error) {
	if len(raw) > MaxDeviceKeys {
		return nil, signalling.TooLarge("%s_key may have %d bytes", usage, MaxDeviceKeys)
	}
	var k struct {
		UserID string            `json:"user_id"`
		Usage  []string          `json:"usage"`
		Keys   map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, signalling.BadJSON("%s_key has the wrong shape", usage).Because(err)
	}
	if !slices.Contains(k.Usage, usage) {
		return nil, signalling.InvalidParam("the usage of %s_key must be %s", usage, usage)
	}
	if len(k.Keys) != 1 {
		return nil, signalling.InvalidParam("%s_key must hold one key", usage)
	}
	out := &crossKey{user: k.UserID}
	for id, public := range k.Keys {
		if _, ok := publicKey(public); !ok || id != "ed25519:"+public {
			return nil, signalling.InvalidParam("%s_key must hold an ed25519 key in unpadded base64 under the name ed25519:KEY", usage)
		}
		out.public = public
	}
	var err error
	out.base, out.sigs, err = unsigned(raw)
	return out, err
}

// UploadCrossSigning publishes cross-signing keys of user. authenticated says that he proved who he is for this very request;
// without it, keys may only be added where there are none, or be the same as those there (client-server API v1.11, MSC3967), and
// anything else is ErrNeedsAuth with nothing changed.
//
// A new master key takes the old self-signing and user-signing keys with it, and a key that goes takes its signatures.
//
// Errors: ErrNeedsAuth, M_INVALID_PARAM, M_INVALID_SIGNATURE, M_MISSING_PARAM (no master key), M_FORBIDDEN (the key is the id of a
// device of the user).
func (s *Service) UploadCrossSigning(ctx context.Context, user string, c *CrossSigning, authenticated bool) error {
	for usage, k := range c.keys {
		if k.user != user {
			return signalling.InvalidParam("the user_id of %s_key must be yours", usage)
		}
	}
	return s.write(ctx, func(tx *storage.Tx) (refused, err error) { return c.store(tx, user, authenticated) }, nil)
}

func (c *CrossSigning) store(tx *storage.Tx, user string, authenticated bool) (refused, err error) {
	pos, err := tx.NextPos() // its lock comes before what is read
	if err != nil {
		return nil, err
	}
	old, err := tx.CrossSigningKeys(user)
	if err != nil {
		return nil, err
	}
	_, hasMaster := old["master"]
	var replaced []storage.CrossSigningKey
	var added []string
	for _, usage := range usages {
		k := c.keys[usage]
		if k == nil || old[usage].Public == k.public {
			continue
		}
		for _, o := range old {
			if o.Public == k.public {
				return signalling.InvalidParam("the cross-signing keys must be different keys"), nil
			}
		}
		added = append(added, usage)
		if _, ok := old[usage]; ok {
			replaced = append(replaced, old[usage])
		}
	}
	if len(added) > 0 && hasMaster && !authenticated {
		return ErrNeedsAuth, nil
	}
	master := old["master"].Public
	if k := c.keys["master"]; k != nil {
		if hasMaster && k.public != master {
			// What the old master key vouched for has nobody who vouches for it any more.
			for _, usage := range usages[1:] {
				if o, ok := old[usage]; ok && !slices.Contains(replaced, o) && (c.keys[usage] == nil || c.keys[usage].public != o.Public) {
					replaced = append(replaced, o)
				}
			}
		}
		master = k.public
	}
	var sigs []storage.KeySignature
	for _, usage := range usages {
		k := c.keys[usage]
		if k == nil {
			continue
		}
		if usage != "master" {
			if master == "" {
				return signalling.MissingParam("there is no master key that could have signed %s_key; send master_key too", usage), nil
			}
			if !verifies(master, k.base, k.sigs[user]["ed25519:"+master]) {
				return invalidSignature("%s_key is not signed by the master key", usage), nil
			}
		}
		if device, err := tx.HasDevice(user, k.public); err != nil {
			return nil, err
		} else if device {
			return signalling.Forbidden("%s_key is the id of one of your devices", usage), nil
		}
		for id, sig := range k.sigs[user] {
			signer, ok := strings.CutPrefix(id, "ed25519:")
			if !ok {
				continue
			}
			public := signer
			if signer != master {
				if usage != "master" {
					continue
				}
				// Devices sign the master key; those whose keys are here can be checked, the others' signatures are not kept.
				if public, err = deviceKey(tx, user, signer); err != nil {
					return nil, err
				}
				if public == "" {
					continue
				}
			}
			if !verifies(public, k.base, sig) {
				return invalidSignature("%s_key carries a wrong signature of %s", usage, id), nil
			}
			sigs = append(sigs, storage.KeySignature{TargetUser: user, TargetKey: k.public, SignerUser: user, SignerKey: id, Signature: sig})
		}
	}
	if len(added) == 0 {
		return nil, nil
	}

	for _, o := range replaced {
		if err := tx.DropCrossSigningKey(o); err != nil {
			return nil, err
		}
	}
	for _, usage := range usages {
		if k := c.keys[usage]; k != nil {
			if err := tx.PutCrossSigningKey(pos, storage.CrossSigningKey{User: user, Usage: usage, Public: k.public, JSON: k.base}); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(sigs, func(a, b storage.KeySignature) int {
		return strings.Compare(a.TargetKey+a.SignerKey, b.TargetKey+b.SignerKey)
	})
	for _, sig := range sigs {
		if _, err := tx.PutKeySignature(sig); err != nil {
			return nil, err
		}
	}
	return nil, tx.DeviceListChangedFor(pos, user, "")
}

// deviceKey is the ed25519 key of a device, "" when it has none here.
func deviceKey(tx *storage.Tx, user, id string) (string, error) {
	stored, err := tx.DeviceKeyJSON(user, id)
	if err != nil || stored == "" {
		return "", err
	}
	return ed25519Of(stored, id), nil
}

func ed25519Of(stored, id string) string {
	var k struct {
		Keys map[string]string `json:"keys"`
	}
	if json.Unmarshal([]byte(stored), &k) != nil {
		return ""
	}
	return k.Keys["ed25519:"+id]
}
