// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
)

// PushKind says what a row of push_queue is about.
type PushKind int64

// The kinds of pushes.
const (
	PushEvent  PushKind = iota // an event
	PushRing                   // an event that makes the device ring
	PushCounts                 // new counts
	PushOver                   // a ring that is over
)

// PushRow is a row of push_queue: something that a pusher has to deliver.
type PushRow struct {
	ID               int64
	User, AppID, Key string
	Kind             PushKind
	RoomID, EventID  string
	EventNID, Pos    int64
	Ring, Sender     string
	Tweaks           []byte // JSON object
	High             bool
	CreatedTS        int64
	ExpiresTS        int64
}

// PusherID names a pusher.
type PusherID struct{ User, AppID, Key string }

// PusherState is a pusher with what delivery keeps about it.
type PusherState struct {
	Pusher
	Unread, Missed int64 // counts that were pushed last
	Failures       int64
	RetryTS        int64
}

const pusherState = `user_id, app_id, pushkey, device_id, created_ts, json, enabled, unread, missed, failures, retry_ts`

func scanPusher(r *sql.Rows) (p PusherState, err error) {
	var enabled int64
	err = r.Scan(&p.User, &p.AppID, &p.Key, &p.Device, &p.CreatedTS, &p.JSON, &enabled, &p.Unread, &p.Missed, &p.Failures, &p.RetryTS)
	p.Enabled = enabled != 0
	return p, err
}

// AllPushers hands f every pusher.
func (s *Store) AllPushers(ctx context.Context, f func(PusherState)) error {
	return s.rows(ctx, func(r *sql.Rows) error {
		p, err := scanPusher(r)
		if err == nil {
			f(p)
		}
		return err
	}, `SELECT `+pusherState+` FROM pushers`)
}

// PushersOf lists the pushers of a user.
func (s *Store) PushersOf(ctx context.Context, user string) (out []PusherState, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		p, err := scanPusher(r)
		if err == nil {
			out = append(out, p)
		}
		return err
	}, `SELECT `+pusherState+` FROM pushers WHERE user_id = $1`, user)
	return out, err
}

// PushPos is the position up to which events were looked at for pushes; -1 before the first time.
func (s *Store) PushPos(ctx context.Context) (pos int64, err error) {
	return pos, s.row(ctx, []any{&pos}, `SELECT value FROM counters WHERE name = 'push'`)
}

// MovePush says that events after from, up to and including to, have been looked at; false when another node did so.
func (tx *Tx) MovePush(from, to int64) (bool, error) {
	n, err := tx.Exec(`UPDATE counters SET value = $1 WHERE name = 'push' AND value = $2`, to, from)
	return n > 0, err
}

// PushSource names the events with from < position <= to that are in timelines, in order: room id and event_nid.
func (s *Store) PushSource(ctx context.Context, from, to int64, limit int) (out []PushRow, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var x PushRow
		if err := r.Scan(&x.EventNID, &x.Pos, &x.RoomID); err != nil {
			return err
		}
		out = append(out, x)
		return nil
	}, `SELECT e.event_nid, e.stream_pos, r.room_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid
		WHERE e.stream_pos > $1 AND e.stream_pos <= $2 AND e.stream_pos > 0 AND e.status = 0 ORDER BY e.stream_pos LIMIT $3`, from, to, limit)
	return out, err
}

// QueuePush adds a push; one that waits already for the same event is enough. One for new counts takes the place, and a new id, of
// another, so that whoever is about to cross the other one out, with older counts, does not cross this one out.
func (tx *Tx) QueuePush(p PushRow) error {
	high := 0
	if p.High {
		high = 1
	}
	if p.Tweaks == nil {
		p.Tweaks = []byte("{}")
	}
	_, err := tx.Exec(`INSERT INTO push_queue (id, user_id, app_id, pushkey, kind, room_id, event_id, event_nid, stream_pos, ring, sender, tweaks, high, created_ts, expires_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (user_id, app_id, pushkey, event_id, kind)
		DO UPDATE SET id = excluded.id, stream_pos = excluded.stream_pos WHERE push_queue.kind = 2`,
		p.ID, p.User, p.AppID, p.Key, int64(p.Kind), p.RoomID, p.EventID, p.EventNID, p.Pos, p.Ring, p.Sender, p.Tweaks, high, p.CreatedTS, p.ExpiresTS)
	return err
}

// NextPushes lists what a pusher has to deliver, the oldest first.
func (s *Store) NextPushes(ctx context.Context, id PusherID, limit int) (out []PushRow, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		p := PushRow{User: id.User, AppID: id.AppID, Key: id.Key}
		var high int64
		if err := r.Scan(&p.ID, &p.Kind, &p.RoomID, &p.EventID, &p.EventNID, &p.Pos, &p.Ring, &p.Sender, &p.Tweaks, &high, &p.CreatedTS, &p.ExpiresTS); err != nil {
			return err
		}
		p.High = high != 0
		out = append(out, p)
		return nil
	}, `SELECT id, kind, room_id, event_id, event_nid, stream_pos, ring, sender, tweaks, high, created_ts, expires_ts FROM push_queue
		WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 AND state = 0 ORDER BY stream_pos, id LIMIT $4`, id.User, id.AppID, id.Key, limit)
	return out, err
}

// PushersWaiting lists the pushers that have something to deliver and are neither put off nor at work at ts, at most limit.
func (s *Store) PushersWaiting(ctx context.Context, ts int64, limit int) (out []PusherID, err error) {
	return s.pusherIDs(ctx, `SELECT DISTINCT q.user_id, q.app_id, q.pushkey FROM push_queue q
		JOIN pushers p ON p.user_id = q.user_id AND p.app_id = q.app_id AND p.pushkey = q.pushkey
		WHERE q.state = 0 AND p.lease_ts <= $1 AND p.retry_ts <= $1 LIMIT $2`, ts, limit)
}

// PushersWithWork lists every pusher that has something to deliver.
func (s *Store) PushersWithWork(ctx context.Context) (out []PusherID, err error) {
	return s.pusherIDs(ctx, `SELECT DISTINCT user_id, app_id, pushkey FROM push_queue WHERE state = 0`)
}

func (s *Store) pusherIDs(ctx context.Context, query string, args ...any) (out []PusherID, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var p PusherID
		if err := r.Scan(&p.User, &p.AppID, &p.Key); err != nil {
			return err
		}
		out = append(out, p)
		return nil
	}, query, args...)
	return out, err
}

// LeasePusher takes a pusher for delivery until a time; false when another node has it, or it is not there.
func (tx *Tx) LeasePusher(id PusherID, now, until int64) (bool, error) {
	n, err := tx.Exec(`UPDATE pushers SET lease_ts = $1 WHERE user_id = $2 AND app_id = $3 AND pushkey = $4 AND lease_ts <= $5`, until, id.User, id.AppID, id.Key, now)
	return n > 0, err
}

// RestPusher ends a lease and notes how delivery went.
func (tx *Tx) RestPusher(id PusherID, failures, retry int64) error {
	_, err := tx.Exec(`UPDATE pushers SET lease_ts = 0, failures = $1, retry_ts = $2 WHERE user_id = $3 AND app_id = $4 AND pushkey = $5`, failures, retry, id.User, id.AppID, id.Key)
	return err
}

// SetPushedCounts notes the counts that a pusher's application knows.
func (tx *Tx) SetPushedCounts(id PusherID, unread, missed int64) error {
	_, err := tx.Exec(`UPDATE pushers SET unread = $1, missed = $2 WHERE user_id = $3 AND app_id = $4 AND pushkey = $5`, unread, missed, id.User, id.AppID, id.Key)
	return err
}

// DropPush removes a push: it was delivered, or is of no use any more. was is false when it had gone.
func (tx *Tx) DropPush(id int64) (was bool, err error) {
	n, err := tx.Exec(`DELETE FROM push_queue WHERE id = $1`, id)
	return n > 0, err
}

// RingPushed keeps a delivered ring, to be withdrawn when it is over. was is false when it is over already: then its row has gone.
func (tx *Tx) RingPushed(id int64) (was bool, err error) {
	n, err := tx.Exec(`UPDATE push_queue SET state = 1 WHERE id = $1 AND state = 0`, id)
	return n > 0, err
}

// TrimPushes drops the oldest of what a pusher has to deliver beyond keep.
func (tx *Tx) TrimPushes(id PusherID, keep int) error {
	_, err := tx.Exec(`DELETE FROM push_queue WHERE id IN (SELECT id FROM push_queue WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 AND state = 0
		ORDER BY stream_pos DESC, id DESC LIMIT 1000 OFFSET $4)`, id.User, id.AppID, id.Key, keep)
	return err
}

// EndRings ends rings: of a call (ring "" for every one of the room that does not carry a call_id), of one user or with "" of all, by
// one sender or with "" by any. Those that wait go, those that were delivered wait to be withdrawn until expires. It gives the
// pushers that have something to withdraw.
func (tx *Tx) EndRings(roomID, ring, user, sender string, expires int64) (out []PusherID, err error) {
	const which = ` WHERE room_id = $1 AND ring <> '' AND kind = 1 AND (ring = $2 OR (CAST($2 AS TEXT) = '' AND ring = event_id))
		AND (CAST($3 AS TEXT) = '' OR user_id = $3) AND (CAST($4 AS TEXT) = '' OR sender = $4)`
	if _, err := tx.Exec(`DELETE FROM push_queue`+which+` AND state = 0`, roomID, ring, user, sender); err != nil {
		return nil, err
	}
	if err := tx.Rows(func(r *sql.Rows) error {
		var p PusherID
		err := r.Scan(&p.User, &p.AppID, &p.Key)
		out = append(out, p)
		return err
	}, `SELECT DISTINCT user_id, app_id, pushkey FROM push_queue`+which+` AND state = 1`, roomID, ring, user, sender); err != nil || len(out) == 0 {
		return nil, err
	}
	_, err = tx.Exec(`UPDATE push_queue SET kind = 3, state = 0, expires_ts = $5`+which+` AND state = 1`, roomID, ring, user, sender, expires)
	return out, err
}

// OpenRing is a call that rings on some device.
type OpenRing struct {
	RoomID, Ring string
	EventID      string // the same as Ring where the event has no call_id
	ExpiresTS    int64
}

// OpenRings lists the calls that ring on devices that were, or are to be, told of them.
func (s *Store) OpenRings(ctx context.Context) (out []OpenRing, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var x OpenRing
		if err := r.Scan(&x.RoomID, &x.Ring, &x.EventID, &x.ExpiresTS); err != nil {
			return err
		}
		out = append(out, x)
		return nil
	}, `SELECT room_id, ring, event_id, MAX(expires_ts) FROM push_queue WHERE ring <> '' AND kind = 1 GROUP BY room_id, ring, event_id`)
	return out, err
}

// DropOrphanPushes removes what waits for pushers that are gone.
func (tx *Tx) DropOrphanPushes() error {
	_, err := tx.Exec(`DELETE FROM push_queue WHERE NOT EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = push_queue.user_id AND p.app_id = push_queue.app_id AND p.pushkey = push_queue.pushkey)`)
	return err
}

// DropPusherIf removes a pusher that its gateway rejected, unless the client has set it anew since: json is what it was.
func (tx *Tx) DropPusherIf(id PusherID, json []byte) error {
	var now []byte
	err := tx.Row([]any{&now}, `SELECT json FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3`, id.User, id.AppID, id.Key)
	if errors.Is(err, ErrNotFound) || err == nil && !bytes.Equal(now, json) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.DeletePusher(id.User, id.AppID, id.Key)
}

// MissedCalls counts the calls since ts that nobody took and that a user was meant by, in rooms in which he has read nothing since.
func (s *Store) MissedCalls(ctx context.Context, user string, since int64) (n int64, err error) {
	err = s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM memberships m JOIN call_records c ON c.room_nid = m.room_nid JOIN events e ON e.event_id = c.invite_id
		WHERE m.user_id = $1 AND m.membership = 'join' AND c.started_ts > $2 AND c.missed = 1 AND c.caller <> $1 AND (c.invitee = '' OR c.invitee = $1)
		AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.room_nid = c.room_nid AND r.user_id = $1 AND r.thread_id IN ('', 'main') AND r.event_pos >= e.stream_pos)`, user, since)
	return n, err
}
