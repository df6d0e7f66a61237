// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// PushRules gives what a user changed about the push rules, as homeserver/push wrote it, and the position of the last change;
// ErrNotFound when nothing was ever changed.
func (s *Store) PushRules(ctx context.Context, user string) (rules []byte, pos int64, err error) {
	err = s.row(ctx, []any{&rules, &pos}, `SELECT rules, stream_pos FROM push_rules WHERE user_id = $1`, user)
	return rules, pos, err
}

// PushRules is Store.PushRules as this transaction sees it.
func (tx *Tx) PushRules(user string) (rules []byte, err error) {
	err = tx.Row([]any{&rules}, `SELECT rules FROM push_rules WHERE user_id = $1`, user)
	return rules, err
}

// SetPushRules stores a user's changes at the next position of the stream and tells the observer.
func (tx *Tx) SetPushRules(user string, rules []byte) (pos int64, err error) {
	if pos, err = tx.NextPos(); err != nil {
		return 0, err
	}
	_, err = tx.Exec(`INSERT INTO push_rules (user_id, rules, stream_pos) VALUES ($1, $2, $3)
		ON CONFLICT (user_id) DO UPDATE SET rules = excluded.rules, stream_pos = excluded.stream_pos`, user, rules, pos)
	if err != nil {
		return 0, err
	}
	tx.Note(Note{Pos: pos, Kind: NoteAccountData, User: user})
	return pos, nil
}

// ReadUpTo is what a receipt says: who has read a room, or one thread of it, up to which position.
func (r Receipt) ReadUpTo() (user string, roomNID int64, thread string, pos int64) {
	return r.User, r.RoomNID, r.ThreadID, r.EventPos
}

// Pusher is a row of pushers.
type Pusher struct {
	User, AppID, Key string
	Device           string // whose access token set it
	CreatedTS        int64  // ms since 1970
	JSON             []byte // as the client wrote it
}

// Pushers lists a user's pushers, the oldest first.
func (s *Store) Pushers(ctx context.Context, user string) (out []Pusher, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		p := Pusher{User: user}
		if err := r.Scan(&p.AppID, &p.Key, &p.Device, &p.CreatedTS, &p.JSON); err != nil {
			return err
		}
		out = append(out, p)
		return nil
	}, `SELECT app_id, pushkey, device_id, created_ts, json FROM pushers WHERE user_id = $1 ORDER BY created_ts, app_id, pushkey`, user)
	return out, err
}

// SetPusher makes or changes a pusher; alone removes those of other users with the same app and key.
func (tx *Tx) SetPusher(p Pusher, alone bool) error {
	if alone {
		if _, err := tx.Exec(`DELETE FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_id <> $3`, p.AppID, p.Key, p.User); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`INSERT INTO pushers (user_id, app_id, pushkey, device_id, created_ts, json) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (user_id, app_id, pushkey) DO UPDATE SET device_id = excluded.device_id, json = excluded.json`, p.User, p.AppID, p.Key, p.Device, p.CreatedTS, p.JSON)
	return err
}

// CountPushers is how many pushers a user has.
func (tx *Tx) CountPushers(user string) (n int64, err error) {
	return n, tx.Row([]any{&n}, `SELECT COUNT(*) FROM pushers WHERE user_id = $1`, user)
}

// DeletePusher removes one pusher; none is fine.
func (tx *Tx) DeletePusher(user, appID, key string) error {
	_, err := tx.Exec(`DELETE FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3`, user, appID, key)
	return err
}

// DeleteDevicePushers removes the pushers that a device set: it has gone.
func (tx *Tx) DeleteDevicePushers(user, device string) error {
	_, err := tx.Exec(`DELETE FROM pushers WHERE user_id = $1 AND device_id = $2`, user, device)
	return err
}
