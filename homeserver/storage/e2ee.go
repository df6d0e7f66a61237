// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
)

// DeviceKeys are the identity keys of one device.
type DeviceKeys struct {
	User, Device string
	JSON         string // canonical, without signatures and unsigned
	Name         string // display name of the device, "" when it has none
}

// CrossSigningKey is one cross-signing key of a user.
type CrossSigningKey struct {
	User, Usage string // usage: master, self_signing, user_signing
	Public      string // unpadded base64
	JSON        string // canonical, without signatures and unsigned
}

// KeySignature is a signature on a device or on a cross-signing key.
type KeySignature struct {
	TargetUser, TargetKey string // TargetKey: a device id, or the public key of a cross-signing key
	SignerUser, SignerKey string // SignerKey: "ed25519:DEVICE" or "ed25519:PUBLIC_KEY"
	Signature             string
}

// OnlyFor is the Value of a NoteDeviceList that one user alone can see: his own signature on another user's key.
type OnlyFor string

var deviceKeysOf = perRow(0, `SELECT k.user_id, k.device_id, k.json, COALESCE(d.display_name, '') FROM device_keys k
	LEFT JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id WHERE k.user_id IN (`, `?`, `, `, `)`)

// DeviceKeysOf gives the keys of all devices of users, in no order.
func (s *Store) DeviceKeysOf(ctx context.Context, users []string) ([]DeviceKeys, error) {
	var out []DeviceKeys
	err := deviceKeysOf.each(len(users), func(text string, lo, hi int) error {
		return s.rows(ctx, func(r *sql.Rows) error {
			var k DeviceKeys
			err := r.Scan(&k.User, &k.Device, &k.JSON, &k.Name)
			out = append(out, k)
			return err
		}, text, anys(users[lo:hi])...)
	})
	return out, err
}

var crossSigningKeysOf = perRow(0, `SELECT user_id, usage, public_key, json FROM cross_signing_keys WHERE user_id IN (`, `?`, `, `, `)`)

// CrossSigningKeysOf gives the cross-signing keys of users, in no order.
func (s *Store) CrossSigningKeysOf(ctx context.Context, users []string) ([]CrossSigningKey, error) {
	var out []CrossSigningKey
	err := crossSigningKeysOf.each(len(users), func(text string, lo, hi int) error {
		return s.rows(ctx, func(r *sql.Rows) error {
			var k CrossSigningKey
			err := r.Scan(&k.User, &k.Usage, &k.Public, &k.JSON)
			out = append(out, k)
			return err
		}, text, anys(users[lo:hi])...)
	})
	return out, err
}

var keySignaturesOn = perRow(1, `SELECT target_user, target_key, signer_user, signer_key, signature FROM key_signatures
	WHERE (signer_user = target_user OR signer_user = $1) AND target_user IN (`, `?`, `, `, `)`)

// KeySignaturesOn gives the signatures on the keys of users that viewer may see: those the users made themselves, and viewer's own
// (client-server API, "Key and signature security"). viewer "" sees only the former.
func (s *Store) KeySignaturesOn(ctx context.Context, users []string, viewer string) ([]KeySignature, error) {
	var out []KeySignature
	err := keySignaturesOn.each(len(users), func(text string, lo, hi int) error {
		return s.rows(ctx, func(r *sql.Rows) error {
			var k KeySignature
			err := r.Scan(&k.TargetUser, &k.TargetKey, &k.SignerUser, &k.SignerKey, &k.Signature)
			out = append(out, k)
			return err
		}, text, append([]any{viewer}, anys(users[lo:hi])...)...)
	})
	return out, err
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// HasDevice says whether a user has a device.
func (tx *Tx) HasDevice(user, device string) (bool, error) {
	return tx.has(`SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2`, user, device)
}

func (tx *Tx) has(query string, args ...any) (bool, error) {
	var one int
	err := tx.Row([]any{&one}, query, args...)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// DeviceKeyJSON gives the stored keys of a device, "" when there are none.
func (tx *Tx) DeviceKeyJSON(user, device string) (string, error) {
	return tx.text(`SELECT json FROM device_keys WHERE user_id = $1 AND device_id = $2`, user, device)
}

// CrossSigningKeyJSON gives the stored cross-signing key of a user with that public key, "" when there is none.
func (tx *Tx) CrossSigningKeyJSON(user, public string) (string, error) {
	return tx.text(`SELECT json FROM cross_signing_keys WHERE user_id = $1 AND public_key = $2`, user, public)
}

func (tx *Tx) text(query string, args ...any) (string, error) {
	var s string
	err := tx.Row([]any{&s}, query, args...)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return s, err
}

// PutDeviceKeys stores the keys of a device. fresh says that they are other keys than before: then all signatures on the old ones,
// and the one-time and fallback keys that belong to the old identity, go.
func (tx *Tx) PutDeviceKeys(pos int64, user, device, json string, fresh bool) error {
	if fresh {
		if err := tx.dropDeviceKeys(user, device); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`INSERT INTO device_keys (user_id, device_id, stream_pos, json) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, device_id) DO UPDATE SET stream_pos = excluded.stream_pos, json = excluded.json`, user, device, pos, json)
	return err
}

func (tx *Tx) dropDeviceKeys(user, device string) error {
	for _, q := range []string{
		`DELETE FROM device_keys WHERE user_id = $1 AND device_id = $2`,
		`DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2`,
		`DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = $2`,
		`DELETE FROM key_signatures WHERE target_user = $1 AND target_key = $2`,
	} {
		if _, err := tx.Exec(q, user, device); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM key_signatures WHERE signer_user = $1 AND signer_key = $2`, user, "ed25519:"+device)
	return err
}

// PutKeySignature stores a signature and says whether it is new.
func (tx *Tx) PutKeySignature(k KeySignature) (bool, error) {
	n, err := tx.Exec(`INSERT INTO key_signatures (target_user, target_key, signer_user, signer_key, signature) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (target_user, target_key, signer_user, signer_key) DO UPDATE SET signature = excluded.signature
		WHERE key_signatures.signature <> excluded.signature`, k.TargetUser, k.TargetKey, k.SignerUser, k.SignerKey, k.Signature)
	return n > 0, err
}

// CrossSigningKeys gives the cross-signing keys of a user by usage.
func (tx *Tx) CrossSigningKeys(user string) (map[string]CrossSigningKey, error) {
	out := map[string]CrossSigningKey{}
	err := tx.Rows(func(r *sql.Rows) error {
		k := CrossSigningKey{User: user}
		err := r.Scan(&k.Usage, &k.Public, &k.JSON)
		out[k.Usage] = k
		return err
	}, `SELECT usage, public_key, json FROM cross_signing_keys WHERE user_id = $1`, user)
	return out, err
}

// PutCrossSigningKey stores k in the place of the user's key of that usage.
func (tx *Tx) PutCrossSigningKey(pos int64, k CrossSigningKey) error {
	_, err := tx.Exec(`INSERT INTO cross_signing_keys (user_id, usage, public_key, stream_pos, json) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key, stream_pos = excluded.stream_pos, json = excluded.json`,
		k.User, k.Usage, k.Public, pos, k.JSON)
	return err
}

// DropCrossSigningKey removes a key with the signatures on it and by it.
func (tx *Tx) DropCrossSigningKey(k CrossSigningKey) error {
	if _, err := tx.Exec(`DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage = $2 AND public_key = $3`, k.User, k.Usage, k.Public); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM key_signatures WHERE target_user = $1 AND target_key = $2`, k.User, k.Public); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM key_signatures WHERE signer_user = $1 AND signer_key = $2`, k.User, "ed25519:"+k.Public)
	return err
}

// DeviceListChanged records that the devices or keys of a user are not what they were (a new key, another display name, a device
// gone): everybody who shares a room with him hears of it in the next sync.
func (tx *Tx) DeviceListChanged(user string) error {
	pos, err := tx.NextPos()
	if err != nil {
		return err
	}
	return tx.deviceListChanged(pos, user, "")
}

// DeviceListChangedFor records a change of user's keys at pos that viewer alone can see; viewer "" means everybody.
func (tx *Tx) DeviceListChangedFor(pos int64, user, viewer string) error {
	return tx.deviceListChanged(pos, user, viewer)
}

func (tx *Tx) deviceListChanged(pos int64, user, viewer string) error {
	_, err := tx.Exec(`INSERT INTO device_list_changes (user_id, viewer, stream_pos) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, viewer) DO UPDATE SET stream_pos = excluded.stream_pos`, user, viewer, pos)
	if err != nil {
		return err
	}
	n := Note{Pos: pos, Kind: NoteDeviceList, User: user}
	if viewer != "" {
		n.Value = OnlyFor(viewer)
	}
	tx.Note(n)
	return nil
}

// DeviceListChanges gives the users whose devices or keys changed after from and not after to, as far as viewer can see them. Only
// the newest change of a user is kept, so a user who changed again after to is not among them.
func (s *Store) DeviceListChanges(ctx context.Context, viewer string, from, to int64) ([]string, error) {
	var out []string
	err := s.rows(ctx, func(r *sql.Rows) error {
		var u string
		err := r.Scan(&u)
		out = append(out, u)
		return err
	}, `SELECT DISTINCT user_id FROM device_list_changes WHERE stream_pos > $1 AND stream_pos <= $2 AND (viewer = '' OR viewer = $3) ORDER BY user_id`, from, to, viewer)
	return out, err
}

// ForgetDevice removes what a device left here: its keys, the signatures on and by it, the messages that wait for it. It belongs
// into the transaction that deletes the device.
func (tx *Tx) ForgetDevice(user, device string) error {
	had, err := tx.DeviceKeyJSON(user, device)
	if err != nil {
		return err
	}
	if err := tx.dropDeviceKeys(user, device); err != nil {
		return err
	}
	for _, q := range []string{
		`DELETE FROM to_device WHERE user_id = $1 AND device_id = $2`,
		`DELETE FROM to_device_txns WHERE user_id = $1 AND device_id = $2`,
	} {
		if _, err := tx.Exec(q, user, device); err != nil {
			return err
		}
	}
	pos, err := tx.NextPos()
	if err != nil {
		return err
	}
	tx.Note(Note{Pos: pos, Kind: NoteKeyCounts, User: user, Device: device})
	if had == "" {
		return nil // nobody could know of it
	}
	return tx.deviceListChanged(pos, user, "")
}

// ForgetUserKeys removes the cross-signing keys and the key backups of a user, for good. His devices are ForgetDevice's.
func (tx *Tx) ForgetUserKeys(user string) error {
	for _, q := range []string{
		`DELETE FROM cross_signing_keys WHERE user_id = $1`,
		`DELETE FROM key_signatures WHERE target_user = $1`,
		`DELETE FROM key_signatures WHERE signer_user = $1`,
		`DELETE FROM backup_sessions WHERE user_id = $1`,
		`DELETE FROM backup_versions WHERE user_id = $1`,
	} {
		if _, err := tx.Exec(q, user); err != nil {
			return err
		}
	}
	return tx.DeviceListChanged(user)
}

// DeviceListPos is the position of the newest change of a user's devices that everybody may know of; 0 when there was none.
func (s *Store) DeviceListPos(ctx context.Context, user string) (pos int64, err error) {
	err = s.row(ctx, []any{&pos}, `SELECT COALESCE(MAX(stream_pos), 0) FROM device_list_changes WHERE user_id = $1 AND viewer = ''`, user)
	return pos, err
}
