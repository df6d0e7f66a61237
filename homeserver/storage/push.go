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
	Enabled          bool   // MSC3881
}

// Pushers lists a user's pushers, the oldest first.
func (s *Store) Pushers(ctx context.Context, user string) (out []Pusher, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		p, err := scanPusher(r)
		if err == nil {
			out = append(out, p.Pusher)
		}
		return err
	}, `SELECT `+pusherState+` FROM pushers WHERE user_id = $1 ORDER BY created_ts, app_id, pushkey`, user)
	return out, err
}

// pushersChanged tells the observer that a user's pushers are others now.
func (tx *Tx) pushersChanged(user string) error {
	pos, err := tx.NextPos()
	if err == nil {
		tx.Note(Note{Pos: pos, Kind: NotePushers, User: user})
	}
	return err
}

// SetPusher makes or changes a pusher and tells the observer; alone removes those of other users with the same app and key.
func (tx *Tx) SetPusher(p Pusher, alone bool) error {
	if alone {
		var others []string
		if err := tx.Rows(func(r *sql.Rows) error {
			var u string
			err := r.Scan(&u)
			others = append(others, u)
			return err
		}, `SELECT user_id FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_id <> $3`, p.AppID, p.Key, p.User); err != nil {
			return err
		}
		for _, u := range others {
			if err := tx.DeletePusher(u, p.AppID, p.Key); err != nil {
				return err
			}
		}
	}
	enabled := 0
	if p.Enabled {
		enabled = 1
	}
	if _, err := tx.Exec(`INSERT INTO pushers (user_id, app_id, pushkey, device_id, created_ts, json, enabled) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (user_id, app_id, pushkey) DO UPDATE SET device_id = excluded.device_id, json = excluded.json, enabled = excluded.enabled, failures = 0, retry_ts = 0`,
		p.User, p.AppID, p.Key, p.Device, p.CreatedTS, p.JSON, enabled); err != nil {
		return err
	}
	return tx.pushersChanged(p.User)
}

// CountPushers is how many pushers a user has.
func (tx *Tx) CountPushers(user string) (n int64, err error) {
	return n, tx.Row([]any{&n}, `SELECT COUNT(*) FROM pushers WHERE user_id = $1`, user)
}

// DeletePusher removes one pusher with what it has to deliver, and tells the observer; none is fine.
func (tx *Tx) DeletePusher(user, appID, key string) error {
	n, err := tx.Exec(`DELETE FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3`, user, appID, key)
	if err != nil || n == 0 {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM push_queue WHERE user_id = $1 AND app_id = $2 AND pushkey = $3`, user, appID, key); err != nil {
		return err
	}
	return tx.pushersChanged(user)
}

// DeleteDevicePushers removes the pushers that a device set: it has gone.
func (tx *Tx) DeleteDevicePushers(user, device string) error {
	var gone []PusherID
	if err := tx.Rows(func(r *sql.Rows) error {
		p := PusherID{User: user}
		err := r.Scan(&p.AppID, &p.Key)
		gone = append(gone, p)
		return err
	}, `SELECT app_id, pushkey FROM pushers WHERE user_id = $1 AND device_id = $2`, user, device); err != nil {
		return err
	}
	for _, p := range gone {
		if err := tx.DeletePusher(p.User, p.AppID, p.Key); err != nil {
			return err
		}
	}
	return nil
}
