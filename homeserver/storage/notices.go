// SPDX-License-Identifier: Apache-2.0

package storage

import "context"

// NoticeRoom is the room in which the server tells a user something; ErrNotFound.
func (s *Store) NoticeRoom(ctx context.Context, user string) (room string, err error) {
	err = s.row(ctx, []any{&room}, `SELECT room_id FROM notice_rooms WHERE user_id = $1`, user)
	return room, err
}

// SetNoticeRoom keeps that room, unless there is one already.
func (tx *Tx) SetNoticeRoom(user, room string) error {
	_, err := tx.Exec(`INSERT INTO notice_rooms (user_id, room_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, user, room)
	return err
}
