// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
)

// OneTimeKey is a one-time or fallback key of a device.
type OneTimeKey struct {
	Algorithm, ID string
	JSON          string // canonical: a string, or an object with key and signatures
}

// OneTimeKeys gives the one-time keys of a device.
func (tx *Tx) OneTimeKeys(user, device string) ([]OneTimeKey, error) {
	var out []OneTimeKey
	err := tx.Rows(scanKeys(&out), `SELECT algorithm, key_id, json FROM one_time_keys WHERE user_id = $1 AND device_id = $2`, user, device)
	return out, err
}

// FallbackKeys gives the fallback keys of a device, and which of them were used.
func (tx *Tx) FallbackKeys(user, device string) (keys []OneTimeKey, used []bool, err error) {
	err = tx.Rows(func(r *sql.Rows) error {
		var k OneTimeKey
		var u int64
		err := r.Scan(&k.Algorithm, &k.ID, &k.JSON, &u)
		keys, used = append(keys, k), append(used, u != 0)
		return err
	}, `SELECT algorithm, key_id, json, used FROM fallback_keys WHERE user_id = $1 AND device_id = $2 ORDER BY algorithm`, user, device)
	return keys, used, err
}

func scanKeys(out *[]OneTimeKey) func(*sql.Rows) error {
	return func(r *sql.Rows) error {
		var k OneTimeKey
		err := r.Scan(&k.Algorithm, &k.ID, &k.JSON)
		*out = append(*out, k)
		return err
	}
}

var putOneTimeKeys = perRow(3, `INSERT INTO one_time_keys (user_id, device_id, stream_pos, algorithm, key_id, json) VALUES `, `($1, $2, $3, ?, ?, ?)`, `, `, ``)

// PutOneTimeKeys adds keys that the device does not have yet.
func (tx *Tx) PutOneTimeKeys(pos int64, user, device string, keys []OneTimeKey) error {
	return putOneTimeKeys.each(len(keys), func(text string, lo, hi int) error {
		args := make([]any, 0, 3+3*(hi-lo))
		args = append(args, user, device, pos)
		for _, k := range keys[lo:hi] {
			args = append(args, k.Algorithm, k.ID, k.JSON)
		}
		_, err := tx.Exec(text, args...)
		return err
	})
}

// PutFallbackKey stores k, unused, in the place of the device's fallback key of that algorithm.
func (tx *Tx) PutFallbackKey(user, device string, k OneTimeKey) error {
	_, err := tx.Exec(`INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, json, used) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (user_id, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id, json = excluded.json, used = 0`, user, device, k.Algorithm, k.ID, k.JSON)
	return err
}

// ClaimKey takes the oldest one-time key of a device out of the store, or, when there is none, gives its fallback key and marks it
// used. fallback says which of the two it was. ErrNotFound when the device has neither. Take a position first: on PostgreSQL its
// row lock keeps two nodes from one key.
func (tx *Tx) ClaimKey(user, device, algorithm string) (k OneTimeKey, fallback bool, err error) {
	k.Algorithm = algorithm
	err = tx.Row([]any{&k.ID, &k.JSON}, `DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND (stream_pos, key_id) =
		(SELECT stream_pos, key_id FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 ORDER BY stream_pos, key_id LIMIT 1)
		RETURNING key_id, json`, user, device, algorithm)
	if !errors.Is(err, ErrNotFound) {
		return k, false, err
	}
	err = tx.Row([]any{&k.ID, &k.JSON}, `UPDATE fallback_keys SET used = 1 WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 RETURNING key_id, json`, user, device, algorithm)
	return k, true, err
}

// KeyCounts counts the one-time keys of a device by algorithm, and lists the algorithms of its unused fallback keys.
func (s *Store) KeyCounts(ctx context.Context, user, device string) (counts map[string]int, unusedFallback []string, err error) {
	counts, unusedFallback = map[string]int{}, []string{}
	err = s.rows(ctx, func(r *sql.Rows) error {
		var algorithm string
		var n, fallback int64
		if err := r.Scan(&algorithm, &n, &fallback); err != nil {
			return err
		}
		if fallback != 0 {
			unusedFallback = append(unusedFallback, algorithm)
		} else {
			counts[algorithm] = int(n)
		}
		return nil
	}, `SELECT algorithm, COUNT(*), 0 FROM one_time_keys WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm
		UNION ALL SELECT algorithm, 0, 1 FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND used = 0`, user, device)
	return counts, unusedFallback, err
}
