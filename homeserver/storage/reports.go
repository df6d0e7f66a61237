// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Report is a row of reports.
type Report struct {
	NID, CreatedTS                            int64
	Reporter, RoomID, EventID, UserID, Reason string
}

// InsertReport adds a report.
func (tx *Tx) InsertReport(r Report) error {
	_, err := tx.Exec(`INSERT INTO reports (report_nid, created_ts, reporter, room_id, event_id, user_id, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		r.NID, r.CreatedTS, r.Reporter, r.RoomID, r.EventID, r.UserID, r.Reason)
	return err
}

// Reports lists reports before one, the newest first; before 0 begins with the newest.
func (s *Store) Reports(ctx context.Context, before int64, limit int) (out []Report, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var x Report
		err := r.Scan(&x.NID, &x.CreatedTS, &x.Reporter, &x.RoomID, &x.EventID, &x.UserID, &x.Reason)
		out = append(out, x)
		return err
	}, `SELECT report_nid, created_ts, reporter, room_id, event_id, user_id, reason FROM reports WHERE $1 = 0 OR report_nid < $1 ORDER BY report_nid DESC LIMIT $2`, before, limit)
	return out, err
}

// EventAt finds the event of a room's timeline that is nearest to a time: the first at or after it, or backwards the last at or
// before it; ErrNotFound.
func (s *Store) EventAt(ctx context.Context, roomNID, ts int64, backwards bool) (nid int64, err error) {
	query := `SELECT event_nid FROM events WHERE room_nid = $1 AND stream_pos <> 0 AND status = 0 AND origin_ts >= $2 ORDER BY origin_ts, stream_pos LIMIT 1`
	if backwards {
		query = `SELECT event_nid FROM events WHERE room_nid = $1 AND stream_pos <> 0 AND status = 0 AND origin_ts <= $2 ORDER BY origin_ts DESC, stream_pos DESC LIMIT 1`
	}
	err = s.row(ctx, []any{&nid}, query, roomNID, ts)
	return nid, err
}
