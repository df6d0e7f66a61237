// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ErrExists says that a row is there already.
var ErrExists = errors.New("storage: exists already")

// User is an account of this server.
type User struct {
	ID           string
	PasswordHash string
	CreatedTS    int64
	Guest        bool
	Admin        bool
	Deactivated  bool
	Locked       bool
	Suspended    bool
	Type         string // "", "bot", "support"
	DisplayName  string
	AvatarURL    string
	Profile      []byte // JSON object: the other fields of the profile; nil for none
}

// Device is one log-in of a user.
type Device struct {
	UserID, ID  string
	DisplayName string
	CreatedTS   int64
	SeenTS      int64
	SeenIP      string
}

const userColumns = `user_id, password_hash, created_ts, is_guest, is_admin, deactivated, locked, suspended, user_type, display_name, avatar_url, profile`

func (u *User) dest() ([]any, func()) {
	var guest, admin, deactivated, locked, suspended int64
	return []any{&u.ID, &u.PasswordHash, &u.CreatedTS, &guest, &admin, &deactivated, &locked, &suspended, &u.Type, &u.DisplayName, &u.AvatarURL, &u.Profile}, func() {
		u.Guest, u.Admin, u.Deactivated, u.Locked, u.Suspended = guest != 0, admin != 0, deactivated != 0, locked != 0, suspended != 0
	}
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// User reads an account; ErrNotFound.
func (s *Store) User(ctx context.Context, id string) (User, error) {
	var u User
	dest, fill := u.dest()
	err := s.row(ctx, dest, `SELECT `+userColumns+` FROM users WHERE user_id = $1`, id)
	fill()
	return u, err
}

// User reads an account inside the transaction; ErrNotFound.
func (tx *Tx) User(id string) (User, error) {
	var u User
	dest, fill := u.dest()
	err := tx.Row(dest, `SELECT `+userColumns+` FROM users WHERE user_id = $1`, id)
	fill()
	return u, err
}

// users reads accounts; the query selects userColumns.
func (s *Store) users(ctx context.Context, query string, args ...any) ([]User, error) {
	var out []User
	err := s.rows(ctx, func(r *sql.Rows) error {
		var u User
		dest, fill := u.dest()
		if err := r.Scan(dest...); err != nil {
			return err
		}
		fill()
		out = append(out, u)
		return nil
	}, query, args...)
	return out, err
}

// Users lists accounts in the order of their ids, after an id, at most limit.
func (s *Store) Users(ctx context.Context, after string, limit int) ([]User, error) {
	return s.users(ctx, `SELECT `+userColumns+` FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2`, after, int64(limit))
}

// InsertUser makes an account; ErrExists.
func (tx *Tx) InsertUser(u User) error {
	n, err := tx.Exec(`INSERT INTO users (user_id, password_hash, created_ts, is_guest, is_admin, user_type, display_name)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		u.ID, u.PasswordHash, u.CreatedTS, flag(u.Guest), flag(u.Admin), u.Type, u.DisplayName)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// Guests lists the guests in the order of their ids, after an id, at most limit.
func (s *Store) Guests(ctx context.Context, after string, limit int) ([]string, error) {
	var out []string
	err := s.rows(ctx, func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&id); err != nil {
			return err
		}
		out = append(out, id)
		return nil
	}, `SELECT user_id FROM users WHERE is_guest = 1 AND deactivated = 0 AND user_id > $1 ORDER BY user_id LIMIT $2`, after, int64(limit))
	return out, err
}

// UpgradeGuest makes a guest's account a full one; ErrNotFound when it is none.
func (tx *Tx) UpgradeGuest(userID, passwordHash string) error {
	return touched(tx.Exec(`UPDATE users SET is_guest = 0, password_hash = $2 WHERE user_id = $1 AND is_guest = 1 AND deactivated = 0`, userID, passwordHash))
}

// touched is ErrNotFound where a statement that must meet a row met none.
func touched(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// SetPasswordHash changes how a user logs in; ErrNotFound.
func (tx *Tx) SetPasswordHash(userID, hash string) error {
	return touched(tx.Exec(`UPDATE users SET password_hash = $2 WHERE user_id = $1 AND deactivated = 0`, userID, hash))
}

// SwapPasswordHash replaces a hash if it is still the old one.
func (tx *Tx) SwapPasswordHash(userID, old, hash string) error {
	_, err := tx.Exec(`UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2`, userID, old, hash)
	return err
}

// SetAdmin makes a user a server administrator, or not; ErrNotFound.
func (tx *Tx) SetAdmin(userID string, admin bool) error {
	tx.Announce(Announcement{Kind: NoteUser, User: userID})
	return touched(tx.Exec(`UPDATE users SET is_admin = $2 WHERE user_id = $1 AND deactivated = 0`, userID, flag(admin)))
}

// SetLocked locks an account, or opens it again; ErrNotFound.
func (tx *Tx) SetLocked(userID string, locked bool) error {
	tx.Announce(Announcement{Kind: NoteUser, User: userID})
	return touched(tx.Exec(`UPDATE users SET locked = $2 WHERE user_id = $1 AND deactivated = 0`, userID, flag(locked)))
}

// SetSuspended suspends an account, or lifts that; ErrNotFound.
func (tx *Tx) SetSuspended(userID string, suspended bool) error {
	tx.Announce(Announcement{Kind: NoteUser, User: userID})
	return touched(tx.Exec(`UPDATE users SET suspended = $2 WHERE user_id = $1 AND deactivated = 0`, userID, flag(suspended)))
}

// Deactivate ends an account for good: nobody can log in to it, and it says nothing about anybody; ErrNotFound.
func (tx *Tx) Deactivate(userID string) error {
	tx.Announce(Announcement{Kind: NoteUser, User: userID})
	err := touched(tx.Exec(`UPDATE users SET deactivated = 1, password_hash = '', is_admin = 0, display_name = '', avatar_url = '', profile = NULL WHERE user_id = $1`, userID))
	if err != nil {
		return err
	}
	for _, q := range []string{`DELETE FROM filters WHERE user_id = $1`, `DELETE FROM account_data WHERE user_id = $1`, `DELETE FROM login_tokens WHERE user_id = $1`, `DELETE FROM emails WHERE user_id = $1`} {
		if _, err := tx.Exec(q, userID); err != nil {
			return err
		}
	}
	return nil
}

// Erase notes that the messages of an account are to be hidden from whoever comes after a position.
func (tx *Tx) Erase(userID string, pos int64) error {
	return touched(tx.Exec(`UPDATE users SET erased_pos = $2 WHERE user_id = $1`, userID, pos))
}

// Erased lists the accounts whose messages are hidden, with the position of each.
func (s *Store) Erased(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	err := s.rows(ctx, func(r *sql.Rows) error {
		var id string
		var pos int64
		if err := r.Scan(&id, &pos); err != nil {
			return err
		}
		out[id] = pos
		return nil
	}, `SELECT user_id, erased_pos FROM users WHERE erased_pos > 0`)
	return out, err
}

// SetDisplayName changes a profile; ErrNotFound.
func (tx *Tx) SetDisplayName(userID, name string) error {
	return touched(tx.Exec(`UPDATE users SET display_name = $2 WHERE user_id = $1 AND deactivated = 0`, userID, name))
}

// SetAvatarURL changes a profile; ErrNotFound.
func (tx *Tx) SetAvatarURL(userID, url string) error {
	return touched(tx.Exec(`UPDATE users SET avatar_url = $2 WHERE user_id = $1 AND deactivated = 0`, userID, url))
}

// SetProfile changes the other fields of a profile; ErrNotFound.
func (tx *Tx) SetProfile(userID string, json []byte) error {
	return touched(tx.Exec(`UPDATE users SET profile = $2 WHERE user_id = $1 AND deactivated = 0`, userID, json))
}

// Secret gives the random value of a name, made from fresh when there is none yet.
func (s *Store) Secret(ctx context.Context, name string, fresh []byte) ([]byte, error) {
	var value []byte
	err := s.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, fresh); err != nil {
			return err
		}
		return tx.Row([]any{&value}, `SELECT value FROM secrets WHERE name = $1`, name)
	})
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return value, nil
}

// UseNonce marks a nonce as used until it expires; ErrExists when it was used before.
func (tx *Tx) UseNonce(nonce string, expires int64) error {
	n, err := tx.Exec(`INSERT INTO used_nonces (nonce, expires_ts) VALUES ($1, $2) ON CONFLICT DO NOTHING`, nonce, expires)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// RegistrationToken lets somebody make an account where registration is not open.
type RegistrationToken struct {
	Token     string
	Uses      int64 // left; -1 for any number
	ExpiresTS int64 // 0 for never
	CreatedTS int64
}

// InsertRegistrationToken adds a token; ErrExists.
func (tx *Tx) InsertRegistrationToken(t RegistrationToken) error {
	n, err := tx.Exec(`INSERT INTO registration_tokens (token, uses, expires_ts, created_ts) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		t.Token, t.Uses, t.ExpiresTS, t.CreatedTS)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// DeleteRegistrationToken takes a token back; ErrNotFound.
func (tx *Tx) DeleteRegistrationToken(token string) error {
	return touched(tx.Exec(`DELETE FROM registration_tokens WHERE token = $1`, token))
}

// SpendRegistrationToken uses a token once; ErrNotFound when it is not there, used up or expired.
func (tx *Tx) SpendRegistrationToken(token string, now int64) error {
	return touched(tx.Exec(`UPDATE registration_tokens SET uses = CASE WHEN uses > 0 THEN uses - 1 ELSE uses END
		WHERE token = $1 AND uses <> 0 AND (expires_ts = 0 OR expires_ts > $2)`, token, now))
}

// RegistrationTokens lists all tokens, used up and expired ones too.
func (s *Store) RegistrationTokens(ctx context.Context) ([]RegistrationToken, error) {
	var out []RegistrationToken
	err := s.rows(ctx, func(r *sql.Rows) error {
		var t RegistrationToken
		if err := r.Scan(&t.Token, &t.Uses, &t.ExpiresTS, &t.CreatedTS); err != nil {
			return err
		}
		out = append(out, t)
		return nil
	}, `SELECT token, uses, expires_ts, created_ts FROM registration_tokens ORDER BY created_ts, token`)
	return out, err
}

// RegistrationTokenValid says whether a token could be used now; with "" whether any could.
func (s *Store) RegistrationTokenValid(ctx context.Context, token string, now int64) (bool, error) {
	var n int64
	err := s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM registration_tokens WHERE ($1 = '' OR token = $1) AND uses <> 0 AND (expires_ts = 0 OR expires_ts > $2)`, token, now)
	return n > 0, err
}

// AddStage notes that a stage of an interactive authentication is done, and what it has proven.
func (tx *Tx) AddStage(session, stage, detail string, expires int64) error {
	_, err := tx.Exec(`INSERT INTO uia_stages (session, stage, detail, expires_ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (session, stage) DO UPDATE SET detail = excluded.detail`, session, stage, detail, expires)
	return err
}

// Stages gives the stages that are done, with what each has proven.
func (s *Store) Stages(ctx context.Context, session string) (map[string]string, error) {
	out := map[string]string{}
	err := s.rows(ctx, func(r *sql.Rows) error {
		var stage, detail string
		if err := r.Scan(&stage, &detail); err != nil {
			return err
		}
		out[stage] = detail
		return nil
	}, `SELECT stage, detail FROM uia_stages WHERE session = $1`, session)
	return out, err
}

// EndStages forgets an interactive authentication that is finished.
func (tx *Tx) EndStages(session string) error {
	_, err := tx.Exec(`DELETE FROM uia_stages WHERE session = $1`, session)
	return err
}

// PruneAccounts removes what expired before now: nonces, interactive authentications, registration tokens, and access tokens that
// expired before tokens.
func (tx *Tx) PruneAccounts(now, tokens int64) error {
	for _, q := range []string{
		`DELETE FROM used_nonces WHERE expires_ts < $1`,
		`DELETE FROM uia_stages WHERE expires_ts < $1`,
		`DELETE FROM login_tokens WHERE expires_ts < $1`,
		`DELETE FROM email_sessions WHERE expires_ts < $1`,
		`DELETE FROM registration_tokens WHERE expires_ts > 0 AND expires_ts < $1`,
	} {
		if _, err := tx.Exec(q, now); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM access_tokens WHERE expires_ts > 0 AND expires_ts < $1`, tokens)
	return err
}

// SearchUsers lists accounts whose name or id holds a text, in the order of their ids after one; guests and ended accounts are left
// out. pattern is for LIKE with \ as escape, in lower case, and ASCII: what else is folded is up to the engine.
func (s *Store) SearchUsers(ctx context.Context, pattern, after string, limit int) ([]User, error) {
	return s.users(ctx, `SELECT `+userColumns+` FROM users WHERE user_id > $2 AND deactivated = 0 AND is_guest = 0
		AND (LOWER(display_name) LIKE $1 ESCAPE '\' OR LOWER(user_id) LIKE $1 ESCAPE '\') ORDER BY user_id LIMIT $3`, pattern, after, int64(limit))
}
