// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
)

// AccountData is one piece of account data. RoomID is "" for global account data.
type AccountData struct {
	UserID, RoomID, Type string
	Content              []byte // JSON object
	Pos                  int64  // stream position of the last change
}

// AccountData reads one piece; ErrNotFound.
func (s *Store) AccountData(ctx context.Context, userID, roomID, typ string) (AccountData, error) {
	d := AccountData{UserID: userID, RoomID: roomID, Type: typ}
	err := s.row(ctx, []any{&d.Content, &d.Pos}, `SELECT content, stream_pos FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`, userID, roomID, typ)
	return d, err
}

// AccountData reads one piece inside the transaction; ErrNotFound.
func (tx *Tx) AccountData(userID, roomID, typ string) (AccountData, error) {
	d := AccountData{UserID: userID, RoomID: roomID, Type: typ}
	err := tx.Row([]any{&d.Content, &d.Pos}, `SELECT content, stream_pos FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`, userID, roomID, typ)
	return d, err
}

// AccountDataSince lists what changed after position from and up to position to, global and of rooms, in the order of the changes.
// With from 0 it is everything there is.
func (s *Store) AccountDataSince(ctx context.Context, userID string, from, to int64) ([]AccountData, error) {
	var out []AccountData
	err := s.rows(ctx, func(r *sql.Rows) error {
		d := AccountData{UserID: userID}
		if err := r.Scan(&d.RoomID, &d.Type, &d.Content, &d.Pos); err != nil {
			return err
		}
		out = append(out, d)
		return nil
	}, `SELECT room_id, type, content, stream_pos FROM account_data WHERE user_id = $1 AND stream_pos > $2 AND stream_pos <= $3 ORDER BY stream_pos`, userID, from, to)
	return out, err
}

// DeleteAccountData removes a piece of account data.
func (tx *Tx) DeleteAccountData(userID, roomID, typ string) error {
	_, err := tx.Exec(`DELETE FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`, userID, roomID, typ)
	return err
}

// PutAccountData stores a piece of account data at d.Pos, which is a position just taken, and tells the observer; Note.Value is d.
// fresh says that there was none of that room and type. Whoever changes what is there takes the position before he reads it: that
// keeps other nodes from changing it in between.
func (tx *Tx) PutAccountData(d AccountData) (fresh bool, err error) {
	n, err := tx.Exec(`UPDATE account_data SET content = $4, stream_pos = $5 WHERE user_id = $1 AND room_id = $2 AND type = $3`, d.UserID, d.RoomID, d.Type, d.Content, d.Pos)
	if err != nil {
		return false, err
	}
	if n == 0 {
		fresh = true
		if _, err := tx.Exec(`INSERT INTO account_data (user_id, room_id, type, content, stream_pos) VALUES ($1, $2, $3, $4, $5)`, d.UserID, d.RoomID, d.Type, d.Content, d.Pos); err != nil {
			return false, err
		}
	}
	tx.Note(Note{Pos: d.Pos, Kind: NoteAccountData, User: d.UserID, Room: d.RoomID, Value: d})
	return fresh, nil
}

// CountAccountData is how many pieces a user has.
func (tx *Tx) CountAccountData(userID string) (int64, error) {
	var n int64
	err := tx.Row([]any{&n}, `SELECT COUNT(*) FROM account_data WHERE user_id = $1`, userID)
	return n, err
}

// Filter reads a stored filter; ErrNotFound.
func (s *Store) Filter(ctx context.Context, userID string, id int64) (hash, json []byte, err error) {
	err = s.row(ctx, []any{&hash, &json}, `SELECT hash, json FROM filters WHERE user_id = $1 AND filter_id = $2`, userID, id)
	return hash, json, err
}

// FilterID finds the filter of a user with this hash; ErrNotFound.
func (s *Store) FilterID(ctx context.Context, userID string, hash []byte) (id int64, err error) {
	err = s.row(ctx, []any{&id}, `SELECT filter_id FROM filters WHERE user_id = $1 AND hash = $2`, userID, hash)
	return id, err
}

// PutFilter stores a filter and gives its id, the same one for the same hash. A user may have at most most filters: ErrExists.
func (tx *Tx) PutFilter(userID string, hash, json []byte, most int64) (id int64, err error) {
	err = tx.Row([]any{&id}, `SELECT filter_id FROM filters WHERE user_id = $1 AND hash = $2`, userID, hash)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return id, err
	}
	if err := tx.Row([]any{&id}, `SELECT COALESCE(MAX(filter_id), 0) + 1 FROM filters WHERE user_id = $1`, userID); err != nil {
		return 0, err
	}
	if id > most {
		return 0, ErrExists
	}
	_, err = tx.Exec(`INSERT INTO filters (user_id, filter_id, hash, json) VALUES ($1, $2, $3, $4)`, userID, id, hash, json)
	return id, err
}
