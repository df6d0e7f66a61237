// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// RTCLeave is a row of rtc_leaves.
type RTCLeave struct {
	MediaRoom, Identity, DelayID string
	DelayMS                      int64
}

// RTCLeaves lists all handed-over leaves.
func (s *Store) RTCLeaves(ctx context.Context) (out []RTCLeave, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var l RTCLeave
		err := r.Scan(&l.MediaRoom, &l.Identity, &l.DelayID, &l.DelayMS)
		out = append(out, l)
		return err
	}, `SELECT media_room, identity, delay_id, delay_ms FROM rtc_leaves ORDER BY media_room, identity`)
	return out, err
}

// PutRTCLeave notes a leave in place of an older one of the same member.
func (tx *Tx) PutRTCLeave(l RTCLeave) error {
	_, err := tx.Exec(`INSERT INTO rtc_leaves (media_room, identity, delay_id, delay_ms) VALUES ($1, $2, $3, $4)
		ON CONFLICT (media_room, identity) DO UPDATE SET delay_id = $3, delay_ms = $4`, l.MediaRoom, l.Identity, l.DelayID, l.DelayMS)
	return err
}

// DropRTCLeave forgets a leave.
func (tx *Tx) DropRTCLeave(delayID string) error {
	_, err := tx.Exec(`DELETE FROM rtc_leaves WHERE delay_id = $1`, delayID)
	return err
}
