// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"encoding/json"
)

// AccessToken is what the hash of an access token leads to, with what matters about its user.
type AccessToken struct {
	Hash             []byte
	UserID, DeviceID string
	ExpiresTS        int64  // 0 for never
	Parent           []byte // refresh token that it was given for; nil once it has been used
	Guest, Admin     bool
	Locked           bool
	Suspended        bool
	SeenTS           int64 // of the device
}

// AccessToken finds a token by its SHA-256; ErrNotFound.
func (s *Store) AccessToken(ctx context.Context, hash []byte) (AccessToken, error) {
	t := AccessToken{Hash: hash}
	var guest, admin, locked, suspended int64
	err := s.row(ctx, []any{&t.UserID, &t.DeviceID, &t.ExpiresTS, &t.Parent, &guest, &admin, &locked, &suspended, &t.SeenTS},
		`SELECT t.user_id, t.device_id, t.expires_ts, t.parent, u.is_guest, u.is_admin, u.locked, u.suspended, d.seen_ts
		FROM access_tokens t JOIN users u ON u.user_id = t.user_id JOIN devices d ON d.user_id = t.user_id AND d.device_id = t.device_id
		WHERE t.token_hash = $1 AND u.deactivated = 0`, hash)
	t.Guest, t.Admin, t.Locked, t.Suspended = guest != 0, admin != 0, locked != 0, suspended != 0
	return t, err
}

// InsertAccessToken stores a token.
func (tx *Tx) InsertAccessToken(t AccessToken) error {
	_, err := tx.Exec(`INSERT INTO access_tokens (token_hash, user_id, device_id, expires_ts, parent) VALUES ($1, $2, $3, $4, $5)`,
		t.Hash, t.UserID, t.DeviceID, t.ExpiresTS, t.Parent)
	return err
}

// RefreshToken is one link of a device's chain of refresh tokens.
type RefreshToken struct {
	Hash             []byte
	UserID, DeviceID string
	CreatedTS        int64
	Parent           []byte
	Spent            bool
}

// RefreshToken finds a refresh token by its SHA-256; ErrNotFound.
func (tx *Tx) RefreshToken(hash []byte) (RefreshToken, error) {
	t := RefreshToken{Hash: hash}
	var spent int64
	err := tx.Row([]any{&t.UserID, &t.DeviceID, &t.CreatedTS, &t.Parent, &spent},
		`SELECT user_id, device_id, created_ts, parent, spent FROM refresh_tokens WHERE token_hash = $1`, hash)
	t.Spent = spent != 0
	return t, err
}

// InsertRefreshToken stores a refresh token.
func (tx *Tx) InsertRefreshToken(t RefreshToken) error {
	_, err := tx.Exec(`INSERT INTO refresh_tokens (token_hash, user_id, device_id, created_ts, parent) VALUES ($1, $2, $3, $4, $5)`,
		t.Hash, t.UserID, t.DeviceID, t.CreatedTS, t.Parent)
	return err
}

// SpendRefreshToken notes that a successor of the token has arrived at the client: the access tokens from before it end, and their
// hashes are returned. Spent tokens of the device from before old are forgotten.
func (tx *Tx) SpendRefreshToken(t RefreshToken, old int64) ([][]byte, error) {
	if _, err := tx.Exec(`UPDATE refresh_tokens SET spent = 1 WHERE token_hash = $1`, t.Hash); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(`DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2 AND spent = 1 AND created_ts < $3`, t.UserID, t.DeviceID, old); err != nil {
		return nil, err
	}
	gone, err := tx.hashes(`DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2 AND (parent IS NULL OR parent <> $3) RETURNING token_hash`, t.UserID, t.DeviceID, t.Hash)
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(`UPDATE access_tokens SET parent = NULL WHERE parent = $1`, t.Hash)
	return gone, err
}

// DropSuccessors takes back the tokens that were given for a refresh token and never used. It returns the hashes of the access tokens.
func (tx *Tx) DropSuccessors(hash []byte) ([][]byte, error) {
	if _, err := tx.Exec(`DELETE FROM refresh_tokens WHERE parent = $1 AND spent = 0`, hash); err != nil {
		return nil, err
	}
	return tx.hashes(`DELETE FROM access_tokens WHERE parent = $1 RETURNING token_hash`, hash)
}

// InsertLoginToken stores the hash of a token that logs its user in once.
func (tx *Tx) InsertLoginToken(hash []byte, userID string, expires int64) error {
	_, err := tx.Exec(`INSERT INTO login_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)`, hash, userID, expires)
	return err
}

// SpendLoginToken uses a log-in token up and gives its user; ErrNotFound when it is not there, used or expired.
func (tx *Tx) SpendLoginToken(hash []byte, now int64) (userID string, err error) {
	err = tx.Row([]any{&userID}, `DELETE FROM login_tokens WHERE token_hash = $1 AND expires_ts > $2 RETURNING user_id`, hash, now)
	return userID, err
}

// DropLoginTokens takes back the log-in tokens of a user.
func (tx *Tx) DropLoginTokens(userID string) error {
	_, err := tx.Exec(`DELETE FROM login_tokens WHERE user_id = $1`, userID)
	return err
}

// DropTokens ends every token of a device, or with "" of all devices of the user but one (except, which may be ""). It returns the
// hashes of the access tokens.
func (tx *Tx) DropTokens(userID, deviceID, except string) ([][]byte, error) {
	if deviceID != "" {
		if _, err := tx.Exec(`DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2`, userID, deviceID); err != nil {
			return nil, err
		}
		return tx.hashes(`DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2 RETURNING token_hash`, userID, deviceID)
	}
	if _, err := tx.Exec(`DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id <> $2`, userID, except); err != nil {
		return nil, err
	}
	return tx.hashes(`DELETE FROM access_tokens WHERE user_id = $1 AND device_id <> $2 RETURNING token_hash`, userID, except)
}

func (tx *Tx) hashes(query string, args ...any) ([][]byte, error) {
	var out [][]byte
	err := tx.Rows(func(r *sql.Rows) error {
		var h []byte
		if err := r.Scan(&h); err != nil {
			return err
		}
		out = append(out, h)
		return nil
	}, query, args...)
	if err == nil && len(out) > 0 && tx.Shared() {
		data, err := json.Marshal(out)
		if err != nil {
			return nil, err
		}
		tx.Announce(Announcement{Kind: NoteTokens, Data: data})
	}
	return out, err
}

// Devices lists the devices of a user in the order of their ids.
func (s *Store) Devices(ctx context.Context, userID string) ([]Device, error) {
	var out []Device
	err := s.rows(ctx, func(r *sql.Rows) error {
		d := Device{UserID: userID}
		if err := r.Scan(&d.ID, &d.DisplayName, &d.CreatedTS, &d.SeenTS, &d.SeenIP); err != nil {
			return err
		}
		out = append(out, d)
		return nil
	}, `SELECT device_id, display_name, created_ts, seen_ts, seen_ip FROM devices WHERE user_id = $1 ORDER BY device_id`, userID)
	return out, err
}

// Device reads a device; ErrNotFound.
func (s *Store) Device(ctx context.Context, userID, deviceID string) (Device, error) {
	d := Device{UserID: userID, ID: deviceID}
	err := s.row(ctx, []any{&d.DisplayName, &d.CreatedTS, &d.SeenTS, &d.SeenIP},
		`SELECT display_name, created_ts, seen_ts, seen_ip FROM devices WHERE user_id = $1 AND device_id = $2`, userID, deviceID)
	return d, err
}

// DeviceIDs lists the ids of a user's devices inside the transaction.
func (tx *Tx) DeviceIDs(userID string) ([]string, error) {
	var out []string
	err := tx.Rows(func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&id); err != nil {
			return err
		}
		out = append(out, id)
		return nil
	}, `SELECT device_id FROM devices WHERE user_id = $1 ORDER BY device_id`, userID)
	return out, err
}

// EnsureDevice makes a device, or leaves the one that is there as it is.
func (tx *Tx) EnsureDevice(d Device) error {
	_, err := tx.Exec(`INSERT INTO devices (user_id, device_id, display_name, created_ts, seen_ts) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		d.UserID, d.ID, d.DisplayName, d.CreatedTS, d.SeenTS)
	return err
}

// RenameDevice changes a device's display name; ErrNotFound.
func (tx *Tx) RenameDevice(userID, deviceID, name string) error {
	return touched(tx.Exec(`UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2`, userID, deviceID, name))
}

// DeleteDevice removes a device and says whether it was there. Its tokens are dropped separately.
func (tx *Tx) DeleteDevice(userID, deviceID string) (bool, error) {
	if _, err := tx.Exec(`DELETE FROM dehydrated_devices WHERE user_id = $1 AND device_id = $2`, userID, deviceID); err != nil {
		return false, err
	}
	n, err := tx.Exec(`DELETE FROM devices WHERE user_id = $1 AND device_id = $2`, userID, deviceID)
	if err == nil && n > 0 {
		tx.Announce(Announcement{Kind: NoteDeviceGone, User: userID, Device: deviceID})
	}
	return n > 0, err
}

// SawDevice notes when and from where a device last asked for something.
func (tx *Tx) SawDevice(userID, deviceID string, ts int64, ip string) error {
	_, err := tx.Exec(`UPDATE devices SET seen_ts = $3, seen_ip = $4 WHERE user_id = $1 AND device_id = $2 AND seen_ts < $3`, userID, deviceID, ts, ip)
	return err
}
