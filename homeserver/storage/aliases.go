// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Alias finds the room behind an alias; ErrNotFound.
func (s *Store) Alias(ctx context.Context, alias string) (roomID, creator string, err error) {
	err = s.row(ctx, []any{&roomID, &creator}, `SELECT r.room_id, a.creator FROM room_aliases a JOIN rooms r ON r.room_nid = a.room_nid WHERE a.alias = $1`, alias)
	return roomID, creator, err
}

// RoomAliases lists a room's local aliases.
func (s *Store) RoomAliases(ctx context.Context, roomNID int64) (out []string, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var a string
		if err := r.Scan(&a); err != nil {
			return err
		}
		out = append(out, a)
		return nil
	}, `SELECT alias FROM room_aliases WHERE room_nid = $1 ORDER BY alias`, roomNID)
	return out, err
}

// InsertAlias adds an alias; taken says that it was there already.
func (tx *Tx) InsertAlias(alias string, roomNID int64, creator string) (taken bool, err error) {
	n, err := tx.Exec(`INSERT INTO room_aliases (alias, room_nid, creator) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, alias, roomNID, creator)
	return n == 0, err
}

// MoveAlias makes an alias of one room one of another; an alias that names something else meanwhile stays.
func (tx *Tx) MoveAlias(alias string, from, to int64) error {
	_, err := tx.Exec(`UPDATE room_aliases SET room_nid = $1 WHERE alias = $2 AND room_nid = $3`, to, alias, from)
	return err
}

// DeleteAlias removes an alias.
func (tx *Tx) DeleteAlias(alias string) error {
	_, err := tx.Exec(`DELETE FROM room_aliases WHERE alias = $1`, alias)
	return err
}
