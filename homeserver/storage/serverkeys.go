// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// ServerKey is a signing key of this server.
type ServerKey struct {
	ID        string
	Seed      []byte
	CreatedTS int64
	ExpiredTS int64
}

// ServerKeys lists this server's signing keys, newest first.
func (s *Store) ServerKeys(ctx context.Context) (out []ServerKey, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var k ServerKey
		if err := r.Scan(&k.ID, &k.Seed, &k.CreatedTS, &k.ExpiredTS); err != nil {
			return err
		}
		out = append(out, k)
		return nil
	}, `SELECT key_id, seed, created_ts, expired_ts FROM server_keys ORDER BY created_ts DESC`)
	return out, err
}

// InsertServerKey adds a signing key unless one with its id is there.
func (tx *Tx) InsertServerKey(k ServerKey) error {
	_, err := tx.Exec(`INSERT INTO server_keys (key_id, seed, created_ts, expired_ts) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, k.ID, k.Seed, k.CreatedTS, k.ExpiredTS)
	return err
}
