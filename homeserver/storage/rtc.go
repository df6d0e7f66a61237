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

// GroupCall is a row of group_calls: a group call that goes on. Times are in milliseconds since 1970.
type GroupCall struct {
	RoomNID                 int64
	RoomID                  string // filled by reads
	SlotID, CallID          string
	EventID, Starter        string
	Audio                   bool
	Started, Answered, Seen int64
	People                  []string
}

// GroupCalls lists the group calls that were going on when they were last noted.
func (s *Store) GroupCalls(ctx context.Context) (out []GroupCall, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var c GroupCall
		var audio int64
		var people string
		err := r.Scan(&c.RoomNID, &c.RoomID, &c.SlotID, &c.CallID, &c.EventID, &c.Starter, &audio, &c.Started, &c.Answered, &c.Seen, &people)
		if err == nil {
			c.Audio = audio != 0
			c.People, err = unlist(people)
		}
		out = append(out, c)
		return err
	}, `SELECT g.room_nid, r.room_id, g.slot_id, g.call_id, g.event_id, g.starter, g.audio, g.started_ts, g.answered_ts, g.seen_ts, g.people
		FROM group_calls g JOIN rooms r ON r.room_nid = g.room_nid ORDER BY g.room_nid, g.slot_id`)
	return out, err
}

// PutGroupCall notes a group call as it is now.
func (tx *Tx) PutGroupCall(c GroupCall) error {
	audio := 0
	if c.Audio {
		audio = 1
	}
	_, err := tx.Exec(`INSERT INTO group_calls (room_nid, slot_id, call_id, event_id, starter, audio, started_ts, answered_ts, seen_ts, people)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (room_nid, slot_id)
		DO UPDATE SET call_id = $3, event_id = $4, starter = $5, audio = $6, started_ts = $7, answered_ts = $8, seen_ts = $9, people = $10`,
		c.RoomNID, c.SlotID, c.CallID, c.EventID, c.Starter, audio, c.Started, c.Answered, c.Seen, list(c.People))
	return err
}

// DropGroupCall forgets a group call that is over.
func (tx *Tx) DropGroupCall(roomNID int64, slotID, callID string) error {
	_, err := tx.Exec(`DELETE FROM group_calls WHERE room_nid = $1 AND slot_id = $2 AND call_id = $3`, roomNID, slotID, callID)
	return err
}
