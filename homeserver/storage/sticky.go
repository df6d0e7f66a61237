// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// StickyRow is a row of sticky_events: an event that sticks until UntilTS (MSC4354). Soft says that it is soft-failed, so that clients
// are not told of it.
type StickyRow struct {
	EventNID, RoomNID int64
	Sender            string
	Pos, UntilTS      int64
	Soft              bool
}

const stickyColumns = `event_nid, room_nid, sender, stream_pos, until_ts, soft`

func scanSticky(out *[]StickyRow) func(*sql.Rows) error {
	return func(r *sql.Rows) error {
		var x StickyRow
		var soft int64
		err := r.Scan(&x.EventNID, &x.RoomNID, &x.Sender, &x.Pos, &x.UntilTS, &soft)
		x.Soft = soft != 0
		*out = append(*out, x)
		return err
	}
}

// StickyOfUser lists what sticks now in the rooms that a user is joined to, with from < position <= to, oldest first.
func (s *Store) StickyOfUser(ctx context.Context, user string, from, to, now int64, limit int) (out []StickyRow, err error) {
	err = s.rows(ctx, scanSticky(&out), `SELECT s.event_nid, s.room_nid, s.sender, s.stream_pos, s.until_ts, s.soft
		FROM sticky_events s JOIN memberships m ON m.room_nid = s.room_nid AND m.user_id = $1 AND m.membership = 'join'
		WHERE s.stream_pos > $2 AND s.stream_pos <= $3 AND s.until_ts > $4 AND s.soft = 0 ORDER BY s.stream_pos LIMIT $5`, user, from, to, now, limit)
	return out, err
}

// StickyOfRoom lists what sticks now in a room, with from < position <= to, oldest first.
func (s *Store) StickyOfRoom(ctx context.Context, roomNID, from, to, now int64, limit int) (out []StickyRow, err error) {
	err = s.rows(ctx, scanSticky(&out), `SELECT `+stickyColumns+` FROM sticky_events
		WHERE room_nid = $1 AND stream_pos > $2 AND stream_pos <= $3 AND until_ts > $4 AND soft = 0 ORDER BY stream_pos LIMIT $5`, roomNID, from, to, now, limit)
	return out, err
}

// StickyExpired says whether there is something for PruneSticky.
func (s *Store) StickyExpired(ctx context.Context, now int64) (some bool, err error) {
	var n int64
	err = s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM (SELECT event_nid FROM sticky_events WHERE until_ts <= $1 LIMIT 1) AS x`, now)
	return n > 0, err
}

// InsertSticky notes that an event sticks.
func (tx *Tx) InsertSticky(x StickyRow) error {
	soft := 0
	if x.Soft {
		soft = 1
	}
	_, err := tx.Exec(`INSERT INTO sticky_events (`+stickyColumns+`) VALUES ($1, $2, $3, $4, $5, $6)`, x.EventNID, x.RoomNID, x.Sender, x.Pos, x.UntilTS, soft)
	return err
}

// Sticky lists what sticks in a room now, in order; soft picks what is soft-failed instead of what is not.
func (tx *Tx) Sticky(roomNID, now int64, soft bool) (out []StickyRow, err error) {
	n := 0
	if soft {
		n = 1
	}
	err = tx.Rows(scanSticky(&out), `SELECT `+stickyColumns+` FROM sticky_events WHERE room_nid = $1 AND until_ts > $2 AND soft = $3 ORDER BY stream_pos`, roomNID, now, n)
	return out, err
}

// LetInSticky makes clients hear, at pos, of a sticky event that was soft-failed.
func (tx *Tx) LetInSticky(eventNID, pos int64) error {
	_, err := tx.Exec(`UPDATE sticky_events SET soft = 0, stream_pos = $1 WHERE event_nid = $2`, pos, eventNID)
	return err
}

// Unstick makes an event stick no more.
func (tx *Tx) Unstick(eventNID int64) error {
	_, err := tx.Exec(`DELETE FROM sticky_events WHERE event_nid = $1`, eventNID)
	return err
}

// PruneSticky forgets what has ceased to stick.
func (tx *Tx) PruneSticky(now int64) error {
	_, err := tx.Exec(`DELETE FROM sticky_events WHERE until_ts <= $1`, now)
	return err
}
