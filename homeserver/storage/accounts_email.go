// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Email is an address of an account.
type Email struct {
	Address     string // in small letters
	UserID      string
	ValidatedTS int64
	AddedTS     int64
}

// EmailSession is an address that somebody is proving to be his.
type EmailSession struct {
	SID         string
	Address     string
	Purpose     string
	SecretHash  []byte
	Salt        []byte
	Attempt     int64
	NextLink    string
	ValidatedTS int64 // 0: not yet
	ExpiresTS   int64
}

const emailSessionColumns = `sid, address, purpose, secret_hash, salt, attempt, next_link, validated_ts, expires_ts`

func (e *EmailSession) dest() []any {
	return []any{&e.SID, &e.Address, &e.Purpose, &e.SecretHash, &e.Salt, &e.Attempt, &e.NextLink, &e.ValidatedTS, &e.ExpiresTS}
}

// EmailSession reads a session that has not expired; ErrNotFound.
func (s *Store) EmailSession(ctx context.Context, sid string, now int64) (EmailSession, error) {
	var e EmailSession
	err := s.row(ctx, e.dest(), `SELECT `+emailSessionColumns+` FROM email_sessions WHERE sid = $1 AND expires_ts > $2`, sid, now)
	return e, err
}

// RequestEmail begins a session, or goes on with the one of the same address, purpose and secret: then that one is returned with the
// attempt as it was before, and keeps its sid, its salt and what was validated. An expired one is begun anew.
func (tx *Tx) RequestEmail(e EmailSession, now int64) (EmailSession, error) {
	if _, err := tx.Exec(`DELETE FROM email_sessions WHERE address = $1 AND purpose = $2 AND secret_hash = $3 AND expires_ts <= $4`, e.Address, e.Purpose, e.SecretHash, now); err != nil {
		return e, err
	}
	wanted := e.Attempt
	if _, err := tx.Exec(`INSERT INTO email_sessions (`+emailSessionColumns+`) VALUES ($1, $2, $3, $4, $5, 0, $6, 0, $7) ON CONFLICT DO NOTHING`,
		e.SID, e.Address, e.Purpose, e.SecretHash, e.Salt, e.NextLink, e.ExpiresTS); err != nil {
		return e, err
	}
	var is EmailSession
	err := tx.Row(is.dest(), `SELECT `+emailSessionColumns+` FROM email_sessions WHERE address = $1 AND purpose = $2 AND secret_hash = $3`, e.Address, e.Purpose, e.SecretHash)
	if err != nil || wanted <= is.Attempt {
		return is, err
	}
	_, err = tx.Exec(`UPDATE email_sessions SET attempt = $2, next_link = $3, expires_ts = $4 WHERE sid = $1`, is.SID, wanted, e.NextLink, e.ExpiresTS)
	is.NextLink = e.NextLink
	return is, err
}

// EmailNotSent takes an attempt back whose mail could not be sent.
func (tx *Tx) EmailNotSent(sid string, attempt, before int64) error {
	_, err := tx.Exec(`UPDATE email_sessions SET attempt = $3 WHERE sid = $1 AND attempt = $2`, sid, attempt, before)
	return err
}

// ValidateEmail notes that the address of a session was proven; ErrNotFound.
func (tx *Tx) ValidateEmail(sid string, now, expires int64) error {
	return touched(tx.Exec(`UPDATE email_sessions SET validated_ts = CASE WHEN validated_ts = 0 THEN $2 ELSE validated_ts END, expires_ts = $3
		WHERE sid = $1 AND expires_ts > $2`, sid, now, expires))
}

// TakeEmailSession uses a validated session up; ErrNotFound when it is not there, expired, or not validated.
func (tx *Tx) TakeEmailSession(sid string, now int64) (EmailSession, error) {
	var e EmailSession
	err := tx.Row(e.dest(), `DELETE FROM email_sessions WHERE sid = $1 AND validated_ts > 0 AND expires_ts > $2 RETURNING `+emailSessionColumns, sid, now)
	return e, err
}

// InsertEmail gives an account an address; ErrExists when an account has it.
func (tx *Tx) InsertEmail(e Email) error {
	n, err := tx.Exec(`INSERT INTO emails (address, user_id, validated_ts, added_ts) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, e.Address, e.UserID, e.ValidatedTS, e.AddedTS)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// CountEmails counts the addresses of an account.
func (tx *Tx) CountEmails(userID string) (int64, error) {
	var n int64
	err := tx.Row([]any{&n}, `SELECT COUNT(*) FROM emails WHERE user_id = $1`, userID)
	return n, err
}

// DeleteEmail takes an address from an account; ErrNotFound.
func (tx *Tx) DeleteEmail(userID, address string) error {
	return touched(tx.Exec(`DELETE FROM emails WHERE user_id = $1 AND address = $2`, userID, address))
}

// EmailOwner finds the account that has an address; ErrNotFound.
func (s *Store) EmailOwner(ctx context.Context, address string) (string, error) {
	var id string
	err := s.row(ctx, []any{&id}, `SELECT user_id FROM emails WHERE address = $1`, address)
	return id, err
}

// Emails lists the addresses of an account.
func (s *Store) Emails(ctx context.Context, userID string) ([]Email, error) {
	var out []Email
	err := s.rows(ctx, func(r *sql.Rows) error {
		e := Email{UserID: userID}
		if err := r.Scan(&e.Address, &e.ValidatedTS, &e.AddedTS); err != nil {
			return err
		}
		out = append(out, e)
		return nil
	}, `SELECT address, validated_ts, added_ts FROM emails WHERE user_id = $1 ORDER BY added_ts, address`, userID)
	return out, err
}
