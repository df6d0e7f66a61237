// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// States of a delayed event.
const (
	DelayedWaits int64 = iota
	DelayedSent
	DelayedCancelled
	DelayedRefused
)

// DelayedEvent is a row of delayed_events.
type DelayedEvent struct {
	ID, UserID, DeviceID, RoomID, TxnID string
	Type                                string
	StateKey                            *string
	Content                             []byte
	DelayMS, SinceTS, DueTS, LeaseTS    int64
	State, DoneTS                       int64
	EventID                             string
	StickyMS                            int64 // how long the event is to stick (MSC4354)
}

const delayedColumns = `delay_id, user_id, device_id, room_id, txn_id, type, state_key, content, delay_ms, since_ts, due_ts, lease_ts, state, done_ts, event_id, sticky_ms`

func scanDelayed(r interface{ Scan(...any) error }) (d DelayedEvent, err error) {
	var key sql.NullString
	err = r.Scan(&d.ID, &d.UserID, &d.DeviceID, &d.RoomID, &d.TxnID, &d.Type, &key, &d.Content, &d.DelayMS, &d.SinceTS, &d.DueTS, &d.LeaseTS, &d.State, &d.DoneTS, &d.EventID, &d.StickyMS)
	if key.Valid {
		d.StateKey = &key.String
	}
	return d, err
}

func (s *Store) delayed(ctx context.Context, query string, args ...any) (out []DelayedEvent, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		d, err := scanDelayed(r)
		out = append(out, d)
		return err
	}, query, args...)
	return out, err
}

func oneDelayed(list []DelayedEvent, err error) (DelayedEvent, error) {
	if err != nil {
		return DelayedEvent{}, err
	}
	if len(list) == 0 {
		return DelayedEvent{}, ErrNotFound
	}
	return list[0], nil
}

// DelayedEvent loads a delayed event; ErrNotFound.
func (s *Store) DelayedEvent(ctx context.Context, id string) (DelayedEvent, error) {
	return oneDelayed(s.delayed(ctx, `SELECT `+delayedColumns+` FROM delayed_events WHERE delay_id = $1`, id))
}

// DelayedByTxn loads the delayed event that a device made with a transaction id; ErrNotFound.
func (s *Store) DelayedByTxn(ctx context.Context, user, device, room, txn string) (DelayedEvent, error) {
	return oneDelayed(s.delayed(ctx, `SELECT `+delayedColumns+` FROM delayed_events WHERE user_id = $1 AND device_id = $2 AND room_id = $3 AND txn_id = $4 AND txn_id <> ''`, user, device, room, txn))
}

// DelayedOf lists the delayed events of a user that wait, in the order in which their delays began.
func (s *Store) DelayedOf(ctx context.Context, user string, limit int) ([]DelayedEvent, error) {
	return s.delayed(ctx, `SELECT `+delayedColumns+` FROM delayed_events WHERE user_id = $1 AND state = 0 ORDER BY since_ts, delay_id LIMIT $2`, user, limit)
}

// DelayedDue lists what is to be sent by now and that no node is sending, in the order it was to be sent.
func (s *Store) DelayedDue(ctx context.Context, now int64, limit int) ([]DelayedEvent, error) {
	return s.delayed(ctx, `SELECT `+delayedColumns+` FROM delayed_events WHERE state = 0 AND due_ts <= $1 AND lease_ts <= $1 ORDER BY due_ts, delay_id LIMIT $2`, now, limit)
}

// DelayedNext is when the next delayed event is to be sent, or may be tried again; ErrNotFound when none waits.
func (s *Store) DelayedNext(ctx context.Context) (at int64, err error) {
	var due sql.NullInt64
	err = s.row(ctx, []any{&due}, `SELECT MIN(CASE WHEN lease_ts > due_ts THEN lease_ts ELSE due_ts END) FROM delayed_events WHERE state = 0`)
	if err == nil && !due.Valid {
		err = ErrNotFound
	}
	return due.Int64, err
}

// InsertDelayed adds a delayed event and gives how many of the user's wait, this one included.
func (tx *Tx) InsertDelayed(d DelayedEvent) (waiting int64, err error) {
	var key any
	if d.StateKey != nil {
		key = *d.StateKey
	}
	if _, err := tx.Exec(`INSERT INTO delayed_events (`+delayedColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		d.ID, d.UserID, d.DeviceID, d.RoomID, d.TxnID, d.Type, key, d.Content, d.DelayMS, d.SinceTS, d.DueTS, d.LeaseTS, d.State, d.DoneTS, d.EventID, d.StickyMS); err != nil {
		return 0, err
	}
	err = tx.Row([]any{&waiting}, `SELECT COUNT(*) FROM delayed_events WHERE user_id = $1 AND state = 0`, d.UserID)
	return waiting, err
}

// RestartDelayed puts off an event that waits by its whole delay; false when it does not wait, or is being sent.
func (tx *Tx) RestartDelayed(id string, now int64) (bool, error) {
	n, err := tx.Exec(`UPDATE delayed_events SET since_ts = $1, due_ts = $1 + delay_ms WHERE delay_id = $2 AND state = 0 AND lease_ts <= $1`, now, id)
	return n > 0, err
}

// LeaseDelayed takes an event that waits for sending; false when another node has it, or it does not wait any more.
func (tx *Tx) LeaseDelayed(id string, now, until int64) (bool, error) {
	n, err := tx.Exec(`UPDATE delayed_events SET lease_ts = $1 WHERE delay_id = $2 AND state = 0 AND lease_ts <= $3`, until, id, now)
	return n > 0, err
}

// FinishDelayed ends the wait of an event; false when it did not wait.
func (tx *Tx) FinishDelayed(id string, state, now int64, eventID string) (bool, error) {
	n, err := tx.Exec(`UPDATE delayed_events SET state = $1, done_ts = $2, event_id = $3 WHERE delay_id = $4 AND state = 0`, state, now, eventID, id)
	return n > 0, err
}

// CancelDelayed takes back an event that waits; false when it does not wait, or is being sent.
func (tx *Tx) CancelDelayed(id string, now int64) (bool, error) {
	n, err := tx.Exec(`UPDATE delayed_events SET state = 2, done_ts = $1 WHERE delay_id = $2 AND state = 0 AND lease_ts <= $1`, now, id)
	return n > 0, err
}

// PruneDelayed forgets events that ended their wait before a time.
func (tx *Tx) PruneDelayed(before int64) error {
	_, err := tx.Exec(`DELETE FROM delayed_events WHERE state <> 0 AND done_ts < $1`, before)
	return err
}
