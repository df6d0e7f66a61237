// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// TURNUser is a user of the relay with a password of its own. Key is MD5(name ":" realm ":" password).
type TURNUser struct {
	Realm, Name string
	Key         []byte
}

// PutTURNUsers adds users of the relay, or gives those that are there new keys.
func (s *Store) PutTURNUsers(ctx context.Context, users ...TURNUser) error {
	return s.Write(ctx, func(tx *Tx) error {
		for _, u := range users {
			if _, err := tx.Exec(`INSERT INTO turn_users (realm, name, key) VALUES ($1, $2, $3) ON CONFLICT (realm, name) DO UPDATE SET key = excluded.key`, u.Realm, u.Name, u.Key); err != nil {
				return err
			}
		}
		return tx.turnUsersChanged()
	})
}

// RemoveTURNUser takes a user of the relay away; ErrNotFound.
func (s *Store) RemoveTURNUser(ctx context.Context, realm, name string) error {
	return s.Write(ctx, func(tx *Tx) error {
		n, err := tx.Exec(`DELETE FROM turn_users WHERE realm = $1 AND name = $2`, realm, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return tx.turnUsersChanged()
	})
}

func (tx *Tx) turnUsersChanged() error {
	_, err := tx.Exec(`UPDATE counters SET value = value + 1 WHERE name = 'turn_users'`)
	return err
}

// TURNUsersRevision changes with every change of the relay's users, whichever process makes it.
func (s *Store) TURNUsersRevision(ctx context.Context) (n int64, err error) {
	err = s.row(ctx, []any{&n}, `SELECT value FROM counters WHERE name = 'turn_users'`)
	return n, err
}

// TURNUsers lists all users of the relay by realm and name.
func (s *Store) TURNUsers(ctx context.Context) (out []TURNUser, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var u TURNUser
		err := r.Scan(&u.Realm, &u.Name, &u.Key)
		out = append(out, u)
		return err
	}, `SELECT realm, name, key FROM turn_users ORDER BY realm, name`)
	return out, err
}
