// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// SignedKeys are keys that somebody signed: user -> device id or public key -> signed object.
type SignedKeys map[string]map[string]json.RawMessage

// DecodeSignedKeys reads the body of /keys/signatures/upload. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func DecodeSignedKeys(body []byte) (SignedKeys, error) {
	var keys SignedKeys
	if err := decode(body, &keys, "the body maps user ids to key ids to signed keys"); err != nil {
		return nil, err
	}
	n := 0
	for user, byID := range keys {
		if err := checkUser(user); err != nil {
			return nil, err
		}
		for id, raw := range byID {
			if err := checkID("a key id", id); err != nil {
				return nil, err
			}
			if len(raw) > MaxDeviceKeys {
				return nil, signalling.TooLarge("a signed key may have %d bytes", MaxDeviceKeys)
			}
		}
		n += len(byID)
	}
	if n > MaxSignatures {
		return nil, signalling.TooLarge("%d keys may be signed at once", MaxSignatures)
	}
	return keys, nil
}

// signedKey is one entry of SignedKeys that passed every check.
type signedKey struct {
	user, id string
	base     string // the key as it was when the signatures were checked
	sigs     []storage.KeySignature
	failure  error
}

// UploadSignatures stores the signatures that user made: with his self-signing key on his devices, with his devices on his master
// key, with his user-signing key on the master keys of others. The signed object must be the key as the server has it. The answer
// says, user -> key -> error, what was not stored: M_NOT_FOUND (no such key), M_INVALID_PARAM (another key than the server's),
// M_INVALID_SIGNATURE (none of user's keys made it, or it is wrong). One failure does not hold up the others.
func (s *Service) UploadSignatures(ctx context.Context, user string, signed SignedKeys) (map[string]map[string]Failure, error) {
	failures := map[string]map[string]Failure{}
	fail := func(owner, id string, err error) error {
		e := signalling.AsError(err)
		if e.Status >= http.StatusInternalServerError {
			return err
		}
		if failures[owner] == nil {
			failures[owner] = map[string]Failure{}
		}
		failures[owner][id] = Failure{e.Status, e.Code, e.Message}
		return nil
	}
	users := []string{user}
	for owner := range signed {
		if owner != user && s.local(owner) {
			users = append(users, owner)
		}
	}
	slices.Sort(users)
	stored, err := s.storedKeys(ctx, user, users)
	if err != nil {
		return nil, err
	}
	var good []*signedKey
	for owner, byID := range signed {
		for id, raw := range byID {
			k, err := stored.check(user, owner, id, raw)
			if err == nil {
				good = append(good, k)
			} else if err := fail(owner, id, err); err != nil {
				return nil, err
			}
		}
	}
	if len(good) == 0 {
		return failures, nil
	}
	slices.SortFunc(good, func(a, b *signedKey) int { return strings.Compare(a.user+"\x00"+a.id, b.user+"\x00"+b.id) })
	err = s.write(ctx, func(tx *storage.Tx) (refused, err error) { return nil, storeSignatures(tx, user, good) }, nil)
	if err != nil {
		return nil, err
	}
	for _, k := range good {
		if k.failure != nil {
			if err := fail(k.user, k.id, k.failure); err != nil {
				return nil, err
			}
		}
	}
	return failures, nil
}

func storeSignatures(tx *storage.Tx, user string, keys []*signedKey) error {
	pos, err := tx.NextPos()
	if err != nil {
		return err
	}
	changed := map[string]bool{}
	for _, k := range keys {
		k.failure = nil
		// The key may have been replaced since its signatures were checked.
		device, err := tx.DeviceKeyJSON(k.user, k.id)
		if err != nil {
			return err
		}
		cross, err := tx.CrossSigningKeyJSON(k.user, k.id)
		if err != nil {
			return err
		}
		if k.base != device && k.base != cross {
			k.failure = errOtherKey
			continue
		}
		for _, sig := range k.sigs {
			isNew, err := tx.PutKeySignature(sig)
			if err != nil {
				return err
			}
			changed[k.user] = changed[k.user] || isNew
		}
	}
	for _, k := range keys {
		if !changed[k.user] {
			continue
		}
		delete(changed, k.user)
		viewer := ""
		if k.user != user {
			viewer = user // nobody else sees it, the one who was signed neither
		}
		if err := tx.DeviceListChangedFor(pos, k.user, viewer); err != nil {
			return err
		}
	}
	return nil
}

var (
	errOtherKey = signalling.InvalidParam("the signed key is not the key that the server has")
	errNoKey    = signalling.NotFound("there is no such key")
)

// keyring is what the server has of some users' keys.
type keyring struct {
	devices map[device]string                             // -> JSON
	cross   map[string]map[string]storage.CrossSigningKey // user -> usage
}

func (s *Service) storedKeys(ctx context.Context, user string, users []string) (*keyring, error) {
	r := &keyring{map[device]string{}, map[string]map[string]storage.CrossSigningKey{}}
	devices, err := s.store.DeviceKeysOf(ctx, []string{user}) // others' devices are nothing that one may sign
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		r.devices[device{d.User, d.Device}] = d.JSON
	}
	cross, err := s.store.CrossSigningKeysOf(ctx, users)
	if err != nil {
		return nil, err
	}
	for _, k := range cross {
		if r.cross[k.User] == nil {
			r.cross[k.User] = map[string]storage.CrossSigningKey{}
		}
		r.cross[k.User][k.Usage] = k
	}
	return r, nil
}

// check finds the signatures of user on the key id of owner that are worth keeping.
func (r *keyring) check(user, owner, id string, raw json.RawMessage) (*signedKey, error) {
	base, sigs, err := unsigned(raw)
	if err != nil {
		return nil, err
	}
	k := &signedKey{user: owner, id: id, base: base}
	master := r.cross[owner]["master"]
	stored, isDevice := r.devices[device{owner, id}]
	switch {
	case isDevice:
	case id != "" && id == master.Public:
		stored = master.JSON
	default:
		return nil, errNoKey
	}
	if base != stored {
		return nil, errOtherKey
	}
	mine := r.cross[user]
	for keyID, sig := range sigs[user] {
		signer, ok := strings.CutPrefix(keyID, "ed25519:")
		if !ok {
			continue
		}
		var public string
		switch {
		case isDevice && signer == id:
			continue // the device's own; it came with the device's keys
		case isDevice:
			if signer == mine["self_signing"].Public {
				public = signer
			}
		case owner == user && signer == master.Public:
			public = signer
		case owner == user:
			if d, ok := r.devices[device{user, signer}]; ok {
				public = ed25519Of(d, signer)
			}
		case signer == mine["user_signing"].Public:
			public = signer
		}
		if public == "" {
			return nil, invalidSignature("%s is no key of yours that may sign this", keyID)
		}
		if !verifies(public, base, sig) {
			return nil, invalidSignature("the signature of %s is wrong", keyID)
		}
		k.sigs = append(k.sigs, storage.KeySignature{TargetUser: owner, TargetKey: id, SignerUser: user, SignerKey: keyID, Signature: sig})
	}
	if len(k.sigs) == 0 {
		return nil, invalidSignature("there is no signature of yours")
	}
	return k, nil
}
