// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// RemoteKey is a row of remote_keys: a signing key of another server.
type RemoteKey struct {
	ID         string
	Public     []byte
	ValidUntil int64 // milliseconds since 1970
	Expired    int64 // when the server stopped using it; 0 while it does
}

// KeyDocument is what a server said of its keys.
type KeyDocument struct {
	Server     string
	JSON       []byte
	FetchedTS  int64
	ValidUntil int64
}

// RemoteKeys lists the keys known of a server.
func (s *Store) RemoteKeys(ctx context.Context, server string) (out []RemoteKey, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var k RemoteKey
		if err := r.Scan(&k.ID, &k.Public, &k.ValidUntil, &k.Expired); err != nil {
			return err
		}
		out = append(out, k)
		return nil
	}, `SELECT key_id, public_key, valid_until_ts, expired_ts FROM remote_keys WHERE server = $1`, server)
	return out, err
}

// KeyDocument reads what a server said of its keys last; ErrNotFound.
func (s *Store) KeyDocument(ctx context.Context, server string) (KeyDocument, error) {
	d := KeyDocument{Server: server}
	err := s.row(ctx, []any{&d.JSON, &d.FetchedTS, &d.ValidUntil}, `SELECT json, fetched_ts, valid_until_ts FROM remote_key_documents WHERE server = $1`, server)
	return d, err
}

// SetRemoteKeys stores what a server said of its keys. Keys that it does not name any more stay as they were.
func (tx *Tx) SetRemoteKeys(d KeyDocument, keys []RemoteKey) error {
	for _, k := range keys {
		if _, err := tx.Exec(`INSERT INTO remote_keys (server, key_id, public_key, valid_until_ts, expired_ts) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (server, key_id) DO UPDATE SET public_key = excluded.public_key, valid_until_ts = excluded.valid_until_ts, expired_ts = excluded.expired_ts`,
			d.Server, k.ID, k.Public, k.ValidUntil, k.Expired); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`INSERT INTO remote_key_documents (server, json, fetched_ts, valid_until_ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server) DO UPDATE SET json = excluded.json, fetched_ts = excluded.fetched_ts, valid_until_ts = excluded.valid_until_ts`, d.Server, d.JSON, d.FetchedTS, d.ValidUntil)
	return err
}

// FederationTxn gives the answer that a transaction of another server got; ErrNotFound.
func (s *Store) FederationTxn(ctx context.Context, origin, txn string) (answer []byte, err error) {
	err = s.row(ctx, []any{&answer}, `SELECT answer FROM federation_txns WHERE origin = $1 AND txn_id = $2`, origin, txn)
	return answer, err
}

// InsertFederationTxn keeps the answer to a transaction; a second one changes nothing.
func (tx *Tx) InsertFederationTxn(origin, txn string, ts int64, answer []byte) error {
	_, err := tx.Exec(`INSERT INTO federation_txns (origin, txn_id, ts, answer) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, origin, txn, ts, answer)
	return err
}

// PruneFederationTxns forgets transactions from before a time.
func (tx *Tx) PruneFederationTxns(before int64) error {
	_, err := tx.Exec(`DELETE FROM federation_txns WHERE ts < $1`, before)
	return err
}
