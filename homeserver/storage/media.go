// SPDX-License-Identifier: Apache-2.0

package storage

import "context"

// Media is one row of uploaded, or announced, content.
type Media struct {
	Origin      string // server name of the mxc:// URI
	ID          string
	Uploader    string // user id
	CreatedTS   int64  // ms since 1970
	ExpiresTS   int64  // ms since 1970; of an id without content, 0 otherwise
	SHA256      string // hex; empty as long as there is no content
	Size        int64  // bytes
	ContentType string // as the uploader said
	FileName    string // as the uploader said, may be empty
}

// Media gives one row, or ErrNotFound.
func (s *Store) Media(ctx context.Context, origin, id string) (Media, error) {
	m := Media{Origin: origin, ID: id}
	err := s.row(ctx, []any{&m.Uploader, &m.CreatedTS, &m.ExpiresTS, &m.SHA256, &m.Size, &m.ContentType, &m.FileName},
		`SELECT uploader, created_ts, expires_ts, sha256, size, content_type, file_name FROM media WHERE origin = $1 AND media_id = $2`, origin, id)
	return m, err
}

// MediaUsage gives the bytes that a user has uploaded and the number of ids that still wait for content at now (ms since 1970).
func (s *Store) MediaUsage(ctx context.Context, uploader string, now int64) (bytes, pending int64, err error) {
	if err = s.row(ctx, []any{&bytes}, mediaBytes, uploader); err != nil {
		return 0, 0, err
	}
	return bytes, pending, s.row(ctx, []any{&pending}, mediaPending, uploader, now)
}

const (
	mediaBytes   = `SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media WHERE uploader = $1`
	mediaPending = `SELECT COUNT(*) FROM media WHERE uploader = $1 AND sha256 = '' AND expires_ts > $2`
)

// MediaUsage is Store.MediaUsage as this transaction sees it.
func (tx *Tx) MediaUsage(uploader string, now int64) (bytes, pending int64, err error) {
	if err = tx.Row([]any{&bytes}, mediaBytes, uploader); err != nil {
		return 0, 0, err
	}
	return bytes, pending, tx.Row([]any{&pending}, mediaPending, uploader, now)
}

// AddMedia writes a new row.
func (tx *Tx) AddMedia(m Media) error {
	_, err := tx.Exec(`INSERT INTO media (origin, media_id, uploader, created_ts, expires_ts, sha256, size, content_type, file_name)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, m.Origin, m.ID, m.Uploader, m.CreatedTS, m.ExpiresTS, m.SHA256, m.Size, m.ContentType, m.FileName)
	return err
}

// FillMedia gives content to a row that waits for it; filled is false when the row has content, or is not there.
func (tx *Tx) FillMedia(m Media) (filled bool, err error) {
	n, err := tx.Exec(`UPDATE media SET expires_ts = 0, sha256 = $3, size = $4, content_type = $5, file_name = $6
		WHERE origin = $1 AND media_id = $2 AND sha256 = ''`, m.Origin, m.ID, m.SHA256, m.Size, m.ContentType, m.FileName)
	return n == 1, err
}

// DropLapsedMedia deletes the rows whose content never came, and gives their number.
func (tx *Tx) DropLapsedMedia(now int64) (int64, error) {
	return tx.Exec(`DELETE FROM media WHERE sha256 = '' AND expires_ts <= $1`, now)
}

// MediaHashUsed says whether a row names the content.
func (s *Store) MediaHashUsed(ctx context.Context, sha256 string) (bool, error) {
	var n int64
	err := s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM media WHERE sha256 = $1`, sha256)
	return n > 0, err
}

// AddRemoteMedia writes the row of content that was fetched from another server; one that is there stays.
func (tx *Tx) AddRemoteMedia(m Media) error {
	_, err := tx.Exec(`INSERT INTO media (origin, media_id, uploader, created_ts, expires_ts, sha256, size, content_type, file_name)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`, m.Origin, m.ID, m.Uploader, m.CreatedTS, m.ExpiresTS, m.SHA256, m.Size, m.ContentType, m.FileName)
	return err
}

// DropRemoteMedia forgets what was fetched from servers other than own before a time (ms since 1970).
func (tx *Tx) DropRemoteMedia(own string, before int64) error {
	_, err := tx.Exec(`DELETE FROM media WHERE origin <> $1 AND created_ts < $2`, own, before)
	return err
}
