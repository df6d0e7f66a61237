// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Receipt is a row of receipts.
type Receipt struct {
	RoomNID      int64
	User, Type   string
	ThreadID     string
	EventID      string
	EventPos, TS int64
	Pos          int64
}

// SetReceipt moves a receipt forward; moved is false when the stored one is as new or newer.
func (tx *Tx) SetReceipt(r Receipt) (moved bool, err error) {
	n, err := tx.Exec(`INSERT INTO receipts (room_nid, user_id, type, thread_id, event_id, event_pos, ts, stream_pos) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (room_nid, user_id, type, thread_id) DO UPDATE SET event_id = excluded.event_id, event_pos = excluded.event_pos, ts = excluded.ts, stream_pos = excluded.stream_pos
		WHERE receipts.event_pos < excluded.event_pos`, r.RoomNID, r.User, r.Type, r.ThreadID, r.EventID, r.EventPos, r.TS, r.Pos)
	return n > 0, err
}

// Receipts lists a room's receipts with a stream position after from, up to and including to.
func (s *Store) Receipts(ctx context.Context, roomNID, from, to int64) (out []Receipt, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		x := Receipt{RoomNID: roomNID}
		if err := r.Scan(&x.User, &x.Type, &x.ThreadID, &x.EventID, &x.EventPos, &x.TS, &x.Pos); err != nil {
			return err
		}
		out = append(out, x)
		return nil
	}, `SELECT user_id, type, thread_id, event_id, event_pos, ts, stream_pos FROM receipts WHERE room_nid = $1 AND stream_pos > $2 AND stream_pos <= $3`, roomNID, from, to)
	return out, err
}

// ReceiptsOf lists one user's receipts in a room.
func (s *Store) ReceiptsOf(ctx context.Context, roomNID int64, user string) (out []Receipt, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		x := Receipt{RoomNID: roomNID, User: user}
		if err := r.Scan(&x.Type, &x.ThreadID, &x.EventID, &x.EventPos, &x.TS, &x.Pos); err != nil {
			return err
		}
		out = append(out, x)
		return nil
	}, `SELECT type, thread_id, event_id, event_pos, ts, stream_pos FROM receipts WHERE room_nid = $1 AND user_id = $2`, roomNID, user)
	return out, err
}
