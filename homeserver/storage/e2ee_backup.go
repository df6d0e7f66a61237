// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// BackupVersion is one room key backup of a user.
type BackupVersion struct {
	Version   int64
	Algorithm string
	AuthData  string // JSON object
	ETag      int64  // rises with every change of the sessions
	Sessions  int64  // how many keys it holds
	Deleted   bool
}

// BackupSession is the key of one megolm session in a backup.
type BackupSession struct {
	Room, Session string
	FirstIndex    int64
	Forwarded     int64
	Verified      bool
	Data          string // JSON object
}

// A version of 0 asks for the newest that is not deleted.
const backupVersion = `SELECT version, algorithm, auth_data, etag, sessions, deleted FROM backup_versions
	WHERE user_id = $1 AND (version = $2 OR ($2 = 0 AND deleted = 0)) ORDER BY version DESC LIMIT 1`

func (b *BackupVersion) dest(deleted *int64) []any {
	return []any{&b.Version, &b.Algorithm, &b.AuthData, &b.ETag, &b.Sessions, deleted}
}

// BackupVersion gives a backup of a user, deleted or not; version 0 is the newest that is not deleted. ErrNotFound.
func (s *Store) BackupVersion(ctx context.Context, user string, version int64) (BackupVersion, error) {
	var b BackupVersion
	var deleted int64
	err := s.row(ctx, b.dest(&deleted), backupVersion, user, version)
	b.Deleted = deleted != 0
	return b, err
}

// BackupVersion is Store.BackupVersion inside a transaction, and holds the backup's row for it.
func (tx *Tx) BackupVersion(user string, version int64) (BackupVersion, error) {
	var b BackupVersion
	var deleted int64
	query := backupVersion
	if tx.w.engine == postgres {
		query += ` FOR UPDATE`
	}
	err := tx.Row(b.dest(&deleted), query, user, version)
	b.Deleted = deleted != 0
	return b, err
}

// NewBackupVersion makes an empty backup with the next number.
func (tx *Tx) NewBackupVersion(user, algorithm, authData string) (int64, error) {
	var version int64
	err := tx.Row([]any{&version}, `INSERT INTO backup_versions (user_id, version, algorithm, auth_data, etag, sessions)
		SELECT CAST($1 AS TEXT), COALESCE(MAX(version), 0) + 1, CAST($2 AS TEXT), CAST($3 AS TEXT), 0, 0 FROM backup_versions WHERE user_id = $1
		RETURNING version`, user, algorithm, authData)
	return version, err
}

// SetBackupAuthData replaces the auth_data of a backup.
func (tx *Tx) SetBackupAuthData(user string, version int64, authData string) error {
	_, err := tx.Exec(`UPDATE backup_versions SET auth_data = $1 WHERE user_id = $2 AND version = $3`, authData, user, version)
	return err
}

// DropBackupVersion deletes a backup with its keys; its number stays taken.
func (tx *Tx) DropBackupVersion(user string, version int64) error {
	if _, err := tx.Exec(`DELETE FROM backup_sessions WHERE user_id = $1 AND version = $2`, user, version); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE backup_versions SET deleted = 1, sessions = 0, auth_data = '{}', etag = etag + 1 WHERE user_id = $1 AND version = $2`, user, version)
	return err
}

var countBackupSessions = perRow(2, `SELECT COUNT(*) FROM (VALUES `, `(CAST(? AS TEXT), CAST(? AS TEXT))`, `, `, `) AS v CROSS JOIN backup_sessions b
	WHERE b.user_id = $1 AND b.version = $2 AND b.room_id = v.column1 AND b.session_id = v.column2`)

// A key replaces another when it is verified and the other is not; else when it starts earlier; else when it was forwarded less often
// (client-server API, "Server-side key backups").
var putBackupSessions = perRow(2, `INSERT INTO backup_sessions (user_id, version, room_id, session_id, first_index, forwarded, verified, session_data) VALUES `,
	`($1, $2, ?, ?, ?, ?, ?, ?)`, `, `, ` ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET
	first_index = excluded.first_index, forwarded = excluded.forwarded, verified = excluded.verified, session_data = excluded.session_data
	WHERE excluded.verified > backup_sessions.verified OR (excluded.verified = backup_sessions.verified AND (excluded.first_index < backup_sessions.first_index
		OR (excluded.first_index = backup_sessions.first_index AND excluded.forwarded < backup_sessions.forwarded)))`)

// PutBackupSessions stores keys, each session once, where they are better than what is there. It gives how many sessions are new and
// how many rows changed.
func (tx *Tx) PutBackupSessions(user string, version int64, sessions []BackupSession) (added, changed int64, err error) {
	var known int64
	err = countBackupSessions.each(len(sessions), func(text string, lo, hi int) error {
		args := make([]any, 0, 2+2*(hi-lo))
		args = append(args, user, version)
		for _, k := range sessions[lo:hi] {
			args = append(args, k.Room, k.Session)
		}
		var n int64
		err := tx.Row([]any{&n}, text, args...)
		known += n
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	err = putBackupSessions.each(len(sessions), func(text string, lo, hi int) error {
		args := make([]any, 0, 2+6*(hi-lo))
		args = append(args, user, version)
		for _, k := range sessions[lo:hi] {
			var verified int64
			if k.Verified {
				verified = 1
			}
			args = append(args, k.Room, k.Session, k.FirstIndex, k.Forwarded, verified, k.Data)
		}
		n, err := tx.Exec(text, args...)
		changed += n
		return err
	})
	return int64(len(sessions)) - known, changed, err
}

// DropBackupSessions removes the keys of a backup: all of them, those of a room, or that of a session; "" means all. It gives how
// many there were.
func (tx *Tx) DropBackupSessions(user string, version int64, room, session string) (int64, error) {
	switch {
	case room == "":
		return tx.Exec(`DELETE FROM backup_sessions WHERE user_id = $1 AND version = $2`, user, version)
	case session == "":
		return tx.Exec(`DELETE FROM backup_sessions WHERE user_id = $1 AND version = $2 AND room_id = $3`, user, version, room)
	}
	return tx.Exec(`DELETE FROM backup_sessions WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4`, user, version, room, session)
}

// CountBackupChange adds to the number of sessions of a backup and raises its etag.
func (tx *Tx) CountBackupChange(user string, version, sessions int64) (BackupVersion, error) {
	var b BackupVersion
	var deleted int64
	err := tx.Row(b.dest(&deleted), `UPDATE backup_versions SET sessions = sessions + $1, etag = etag + 1 WHERE user_id = $2 AND version = $3
		RETURNING version, algorithm, auth_data, etag, sessions, deleted`, sessions, user, version)
	b.Deleted = deleted != 0
	return b, err
}

// BackupSessions calls f with the keys of a backup: all, those of a room, or that of a session; "" means all. Ordered by room.
func (s *Store) BackupSessions(ctx context.Context, user string, version int64, room, session string, f func(BackupSession)) error {
	scan := func(r *sql.Rows) error {
		var k BackupSession
		var verified int64
		if err := r.Scan(&k.Room, &k.Session, &k.FirstIndex, &k.Forwarded, &verified, &k.Data); err != nil {
			return err
		}
		k.Verified = verified != 0
		f(k)
		return nil
	}
	const columns = `SELECT room_id, session_id, first_index, forwarded, verified, session_data FROM backup_sessions WHERE user_id = $1 AND version = $2`
	switch {
	case room == "":
		return s.rows(ctx, scan, columns+` ORDER BY room_id, session_id`, user, version)
	case session == "":
		return s.rows(ctx, scan, columns+` AND room_id = $3 ORDER BY session_id`, user, version, room)
	}
	return s.rows(ctx, scan, columns+` AND room_id = $3 AND session_id = $4`, user, version, room, session)
}
