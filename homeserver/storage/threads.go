// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// States of a thread subscription.
const (
	ThreadUnsubscribed int64 = iota
	ThreadSubscribed
	ThreadSubscribedAutomatically
)

// ThreadSubscription is a row of thread_subscriptions.
type ThreadSubscription struct {
	UserID, RoomID, Root string
	State, Pos           int64
}

// ThreadSubscription loads a user's subscription to a thread, ended ones too; ErrNotFound.
func (s *Store) ThreadSubscription(ctx context.Context, user, room, root string) (t ThreadSubscription, err error) {
	t = ThreadSubscription{UserID: user, RoomID: room, Root: root}
	err = s.row(ctx, []any{&t.State, &t.Pos}, `SELECT state, stream_pos FROM thread_subscriptions WHERE user_id = $1 AND room_id = $2 AND root_id = $3`, user, room, root)
	return t, err
}

// ThreadSubscription loads it inside the transaction; ErrNotFound.
func (tx *Tx) ThreadSubscription(user, room, root string) (t ThreadSubscription, err error) {
	t = ThreadSubscription{UserID: user, RoomID: room, Root: root}
	err = tx.Row([]any{&t.State, &t.Pos}, `SELECT state, stream_pos FROM thread_subscriptions WHERE user_id = $1 AND room_id = $2 AND root_id = $3`, user, room, root)
	return t, err
}

// SetThreadSubscription changes a subscription at t.Pos, which is a position just taken, and tells the observer.
func (tx *Tx) SetThreadSubscription(t ThreadSubscription) error {
	_, err := tx.Exec(`INSERT INTO thread_subscriptions (user_id, room_id, root_id, state, stream_pos) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, room_id, root_id) DO UPDATE SET state = excluded.state, stream_pos = excluded.stream_pos`, t.UserID, t.RoomID, t.Root, t.State, t.Pos)
	tx.Note(Note{Pos: t.Pos, Kind: NoteThread, User: t.UserID, Room: t.RoomID})
	return err
}

// ThreadSubscriptions lists changes of a user's subscriptions with from < position <= to, newest first. Without ended, those that
// ended are left out.
func (s *Store) ThreadSubscriptions(ctx context.Context, user string, from, to int64, ended bool, limit int) (out []ThreadSubscription, err error) {
	least := ThreadSubscribed
	if ended {
		least = ThreadUnsubscribed
	}
	err = s.rows(ctx, func(r *sql.Rows) error {
		t := ThreadSubscription{UserID: user}
		err := r.Scan(&t.RoomID, &t.Root, &t.State, &t.Pos)
		out = append(out, t)
		return err
	}, `SELECT room_id, root_id, state, stream_pos FROM thread_subscriptions WHERE user_id = $1 AND stream_pos > $2 AND stream_pos <= $3 AND state >= $4
		ORDER BY stream_pos DESC LIMIT $5`, user, from, to, least, limit)
	return out, err
}
