// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// OutboxRow is something that waits to be sent to another server: an event, or the payload of an EDU.
type OutboxRow struct {
	Seq      int64
	Kind     string // pdu, edu
	EventNID int64
	Payload  []byte
}

// Outbox lists what waits for a destination, the oldest first.
func (s *Store) Outbox(ctx context.Context, destination string, limit int) (out []OutboxRow, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var x OutboxRow
		if err := r.Scan(&x.Seq, &x.Kind, &x.EventNID, &x.Payload); err != nil {
			return err
		}
		out = append(out, x)
		return nil
	}, `SELECT seq, kind, event_nid, payload FROM outbox WHERE destination = $1 ORDER BY seq LIMIT $2`, destination, limit)
	return out, err
}

// OutboxDestinations lists the servers that something waits for.
func (s *Store) OutboxDestinations(ctx context.Context) (out []string, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var d string
		err := r.Scan(&d)
		out = append(out, d)
		return err
	}, `SELECT DISTINCT destination FROM outbox`)
	return out, err
}

// DeleteOutbox removes what was sent: the rows of a destination up to one.
func (tx *Tx) DeleteOutbox(destination string, upTo int64) error {
	_, err := tx.Exec(`DELETE FROM outbox WHERE destination = $1 AND seq <= $2`, destination, upTo)
	return err
}

// OnOutbox has f called with each destination that something was queued for, after the commit, on the writer's goroutine: it must be
// quick. Call it before the first write.
func (s *Store) OnOutbox(f func(destination string)) { s.writer.outbox.Store(&f) }
