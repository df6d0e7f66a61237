// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
)

// IsActivity says whether an event of a type counts as proper activity of its room, by which clients sort rooms ("bump_stamp" of
// MSC4186). LastActivity looks for the same types.
func IsActivity(typ string) bool {
	switch typ {
	case "m.room.create", "m.room.message", "m.room.encrypted", "m.sticker", "m.call.invite", "m.poll.start", "m.beacon_info":
		return true
	}
	return false
}

// LastActivity is the position of a room's newest event that counts as activity, 0 when there is none.
func (s *Store) LastActivity(ctx context.Context, roomNID int64) (pos int64, err error) {
	err = s.row(ctx, []any{&pos}, `SELECT stream_pos FROM events WHERE room_nid = $1 AND stream_pos > 0 AND status = 0
		AND type IN ('m.room.create', 'm.room.message', 'm.room.encrypted', 'm.sticker', 'm.call.invite', 'm.poll.start', 'm.beacon_info')
		ORDER BY stream_pos DESC LIMIT 1`, roomNID)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return pos, err
}

// Leavers gives, for each room that a user has left or was banned from, by the id of the event that says so, who sent that event.
func (s *Store) Leavers(ctx context.Context, user string) (map[int64]string, error) {
	out := map[int64]string{}
	err := s.rows(ctx, func(r *sql.Rows) error {
		var nid int64
		var sender string
		err := r.Scan(&nid, &sender)
		out[nid] = sender
		return err
	}, `SELECT e.event_nid, e.sender FROM memberships m JOIN events e ON e.event_nid = m.event_nid
		WHERE m.user_id = $1 AND m.membership IN ('leave', 'ban')`, user)
	return out, err
}
