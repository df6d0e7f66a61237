// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Upload is what a device publishes with /keys/upload, checked as far as that goes without the database.
type Upload struct {
	device   *deviceKeys
	oneTime  []storage.OneTimeKey
	fallback []storage.OneTimeKey
}

type deviceKeys struct {
	user, device string
	keys         map[string]string // "ed25519:DEVICE" -> base64
	base         string
	sigs         signatures
}

// DecodeUpload reads the body of /keys/upload. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func DecodeUpload(body []byte) (*Upload, error) {
	var raw struct {
		DeviceKeys   json.RawMessage            `json:"device_keys"`
		OneTimeKeys  map[string]json.RawMessage `json:"one_time_keys"`
		FallbackKeys map[string]json.RawMessage `json:"fallback_keys"`
	}
	if err := decode(body, &raw, "device_keys, one_time_keys and fallback_keys must be objects"); err != nil {
		return nil, err
	}
	u := &Upload{}
	var err error
	if len(raw.DeviceKeys) > 0 && string(raw.DeviceKeys) != "null" {
		if u.device, err = decodeDeviceKeys(raw.DeviceKeys); err != nil {
			return nil, err
		}
	}
	if len(raw.OneTimeKeys) > MaxOneTimeKeys {
		return nil, signalling.TooLarge("a device may have %d one-time keys", MaxOneTimeKeys)
	}
	if len(raw.FallbackKeys) > MaxFallbackKeys {
		return nil, signalling.TooLarge("a device may have %d fallback keys", MaxFallbackKeys)
	}
	if u.oneTime, err = decodeOneTimeKeys(raw.OneTimeKeys); err != nil {
		return nil, err
	}
	if u.fallback, err = decodeOneTimeKeys(raw.FallbackKeys); err != nil {
		return nil, err
	}
	for i := 1; i < len(u.fallback); i++ {
		if u.fallback[i].Algorithm == u.fallback[i-1].Algorithm {
			return nil, signalling.InvalidParam("there can be one fallback key for each algorithm")
		}
	}
	return u, nil
}

func decodeDeviceKeys(raw json.RawMessage) (*deviceKeys, error) {
	if len(raw) > MaxDeviceKeys {
		return nil, signalling.TooLarge("device_keys may have %d bytes", MaxDeviceKeys)
	}
	var k struct {
		UserID     *string           `json:"user_id"`
		DeviceID   *string           `json:"device_id"`
		Algorithms *[]string         `json:"algorithms"`
		Keys       map[string]string `json:"keys"`
		Signatures json.RawMessage   `json:"signatures"`
	}
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, signalling.BadJSON("device_keys has the wrong shape").Because(err)
	}
	if k.UserID == nil || k.DeviceID == nil || k.Algorithms == nil || k.Keys == nil || len(k.Signatures) == 0 {
		return nil, signalling.BadJSON("device_keys needs user_id, device_id, algorithms, keys and signatures")
	}
	for id, key := range k.Keys {
		algorithm, name, ok := strings.Cut(id, ":")
		if !ok || name != *k.DeviceID {
			return nil, signalling.BadJSON("the names of keys must look like algorithm:device_id")
		}
		if algorithm == "ed25519" || algorithm == "curve25519" {
			if b, ok := decode64(key); !ok || len(b) != 32 {
				return nil, signalling.BadJSON("an %s key is 32 bytes in unpadded base64", algorithm)
			}
		}
	}
	base, sigs, err := unsigned(raw)
	if err != nil {
		return nil, err
	}
	return &deviceKeys{user: *k.UserID, device: *k.DeviceID, keys: k.Keys, base: base, sigs: sigs}, nil
}

// decodeOneTimeKeys reads one_time_keys and fallback_keys and sorts them by algorithm and id.
func decodeOneTimeKeys(raw map[string]json.RawMessage) ([]storage.OneTimeKey, error) {
	keys := make([]storage.OneTimeKey, 0, len(raw))
	for name, value := range raw {
		algorithm, id, ok := strings.Cut(name, ":")
		if !ok || checkID("", algorithm) != nil || checkID("", id) != nil {
			return nil, signalling.BadJSON("the names of one-time and fallback keys must look like algorithm:key_id")
		}
		if len(value) > MaxKey {
			return nil, signalling.TooLarge("a one-time or fallback key may have %d bytes", MaxKey)
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			var object struct {
				Key        *string                      `json:"key"`
				Signatures map[string]map[string]string `json:"signatures"`
				Fallback   *bool                        `json:"fallback"`
			}
			if err := json.Unmarshal(value, &object); err != nil || object.Key == nil {
				return nil, signalling.BadJSON("a one-time or fallback key is a string, or an object with key and signatures").Because(err)
			}
			text = *object.Key
		} else if string(value) == "null" {
			return nil, signalling.BadJSON("a one-time or fallback key is a string, or an object with key and signatures")
		}
		if strings.HasSuffix(algorithm, "curve25519") {
			if b, ok := decode64(text); !ok || len(b) != 32 {
				return nil, signalling.BadJSON("a %s key is 32 bytes in unpadded base64", algorithm)
			}
		}
		canonical, err := event.Canonical(value)
		if err != nil {
			return nil, err
		}
		keys = append(keys, storage.OneTimeKey{Algorithm: algorithm, ID: id, JSON: string(canonical)})
	}
	slices.SortFunc(keys, func(a, b storage.OneTimeKey) int {
		if c := strings.Compare(a.Algorithm, b.Algorithm); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return keys, nil
}

// Upload publishes keys of a device and gives how many one-time keys of each algorithm it has after that.
//
// Device keys must name the user and the device of the session. A signature of the device's own ed25519 key, or of the user's
// self-signing key, must be right where there is one; keys without are stored, for clients refuse them by themselves. Other keys than
// before replace the device's identity: what others signed, and the one-time keys made for the old one, go with it.
//
// A one-time key id that is in use must come with the same key.
//
// Errors: M_INVALID_PARAM, M_INVALID_SIGNATURE, M_FORBIDDEN (the device id is the public key of a cross-signing key), M_TOO_LARGE,
// M_UNKNOWN_TOKEN (the device is gone).
func (s *Service) Upload(ctx context.Context, user, deviceID string, u *Upload) (map[string]int, error) {
	if err := u.check(user, deviceID); err != nil {
		return nil, err
	}
	d := device{user, deviceID}
	s.counts.begin(d)
	var counts *keyCounts
	err := s.write(ctx, func(tx *storage.Tx) (refused, err error) {
		counts, refused, err = u.store(tx, d)
		return refused, err
	}, func(ok bool) {
		s.counts.end(func(_ device, before *keyCounts) *keyCounts {
			if ok {
				return counts
			}
			return before
		}, d)
	})
	if err != nil {
		return nil, err
	}
	return counts.oneTime, nil
}

// UploadInto is Upload for a device that another's transaction makes; ForgetDevice comes after the commit.
func (s *Service) UploadInto(tx *storage.Tx, user, deviceID string, u *Upload) error {
	if err := u.check(user, deviceID); err != nil {
		return err
	}
	_, refused, err := u.store(tx, device{user, deviceID})
	return errors.Join(refused, err)
}

// check says whether the device keys are those of the device, and signed by it where they are signed.
func (u *Upload) check(user, deviceID string) error {
	k := u.device
	if k == nil {
		return nil
	}
	if k.user != user || k.device != deviceID {
		return signalling.InvalidParam("device_keys must be those of the user and the device that upload them")
	}
	if sig, ok := k.sigs[user]["ed25519:"+deviceID]; ok && !verifies(k.keys["ed25519:"+deviceID], k.base, sig) {
		return invalidSignature("device_keys are not signed by the device's own key")
	}
	return nil
}

func (u *Upload) store(tx *storage.Tx, d device) (counts *keyCounts, refused, err error) {
	if ok, err := tx.HasDevice(d.user, d.id); err != nil || !ok {
		return nil, signalling.UnknownToken(false), err
	}
	// The position comes first: on PostgreSQL its lock keeps other nodes from what is read here.
	pos, err := tx.NextPos()
	if err != nil {
		return nil, nil, err
	}
	var old string
	var wanted []storage.KeySignature
	if u.device != nil {
		if old, err = tx.DeviceKeyJSON(d.user, d.id); err != nil {
			return nil, nil, err
		}
		crossSigning, err := tx.CrossSigningKeys(d.user)
		if err != nil {
			return nil, nil, err
		}
		if wanted, err = u.device.signatures(crossSigning); err != nil {
			return nil, err, nil
		}
	}
	otherIdentity := old != "" && u.device != nil && !sameIdentity(old, u.device)
	have, err := tx.OneTimeKeys(d.user, d.id)
	if err != nil {
		return nil, nil, err
	}
	fallback, used, err := tx.FallbackKeys(d.user, d.id)
	if err != nil {
		return nil, nil, err
	}
	if otherIdentity {
		have, fallback, used = nil, nil, nil
	}
	type name struct{ algorithm, id string }
	known := make(map[name]string, len(have))
	for _, k := range have {
		known[name{k.Algorithm, k.ID}] = k.JSON
	}
	var fresh []storage.OneTimeKey
	for _, k := range u.oneTime {
		json, ok := known[name{k.Algorithm, k.ID}]
		switch {
		case !ok:
			fresh = append(fresh, k)
		case !sameKey(json, k.JSON):
			return nil, signalling.InvalidParam("one-time key %s:%s exists already and is another key", k.Algorithm, k.ID), nil
		}
	}
	if len(have)+len(fresh) > MaxOneTimeKeys {
		return nil, signalling.TooLarge("a device may have %d one-time keys", MaxOneTimeKeys), nil
	}
	unused := map[string]bool{}
	for i, k := range fallback {
		unused[k.Algorithm] = !used[i]
	}
	var freshFallback []storage.OneTimeKey
	for _, k := range u.fallback {
		if !slices.Contains(fallback, k) {
			freshFallback = append(freshFallback, k)
			unused[k.Algorithm] = true
		}
	}
	if len(unused) > MaxFallbackKeys {
		return nil, signalling.TooLarge("a device may have %d fallback keys", MaxFallbackKeys), nil
	}

	// Nothing is refused from here on.
	if u.device != nil {
		changed := old != u.device.base
		if changed {
			if err := tx.PutDeviceKeys(pos, d.user, d.id, u.device.base, otherIdentity); err != nil {
				return nil, nil, err
			}
		}
		for _, sig := range wanted {
			isNew, err := tx.PutKeySignature(sig)
			if err != nil {
				return nil, nil, err
			}
			changed = changed || isNew
		}
		if changed {
			if err := tx.DeviceListChangedFor(pos, d.user, ""); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := tx.PutOneTimeKeys(pos, d.user, d.id, fresh); err != nil {
		return nil, nil, err
	}
	for _, k := range freshFallback {
		if err := tx.PutFallbackKey(d.user, d.id, k); err != nil {
			return nil, nil, err
		}
	}
	oneTime, algorithms := map[string]int{}, []string{}
	for _, k := range append(have, fresh...) {
		oneTime[k.Algorithm]++
	}
	for a, ok := range unused {
		if ok {
			algorithms = append(algorithms, a)
		}
	}
	if len(fresh) > 0 || len(freshFallback) > 0 || otherIdentity {
		tx.Note(storage.Note{Pos: pos, Kind: storage.NoteKeyCounts, User: d.user, Device: d.id})
	}
	return newCounts(oneTime, algorithms), nil, nil
}

// signatures are those in the upload that are worth keeping: the device's own, checked before, and that of the self-signing key.
func (k *deviceKeys) signatures(crossSigning map[string]storage.CrossSigningKey) ([]storage.KeySignature, error) {
	var out []storage.KeySignature
	for _, c := range crossSigning {
		if c.Public == k.device {
			return nil, signalling.Forbidden("this device id is the public key of a cross-signing key; log in again under another one")
		}
	}
	selfSigning := crossSigning["self_signing"].Public
	for id, sig := range k.sigs[k.user] {
		switch {
		case id == "ed25519:"+k.device:
		case selfSigning != "" && id == "ed25519:"+selfSigning:
			if !verifies(selfSigning, k.base, sig) {
				return nil, invalidSignature("device_keys carry a wrong signature of the self-signing key")
			}
		default:
			continue
		}
		out = append(out, storage.KeySignature{TargetUser: k.user, TargetKey: k.device, SignerUser: k.user, SignerKey: id, Signature: sig})
	}
	slices.SortFunc(out, func(a, b storage.KeySignature) int { return strings.Compare(a.SignerKey, b.SignerKey) })
	return out, nil
}

// sameIdentity says whether stored device keys hold the same keys as k.
func sameIdentity(stored string, k *deviceKeys) bool {
	var old struct {
		Keys map[string]string `json:"keys"`
	}
	if json.Unmarshal([]byte(stored), &old) != nil || len(old.Keys) != len(k.keys) {
		return false
	}
	for id, key := range old.Keys {
		if k.keys[id] != key {
			return false
		}
	}
	return true
}

// sameKey compares two one-time keys without their signatures.
func sameKey(a, b string) bool {
	if a == b {
		return true
	}
	x, _, errX := unsigned(json.RawMessage(a))
	y, _, errY := unsigned(json.RawMessage(b))
	return errors.Join(errX, errY) == nil && x == y
}
