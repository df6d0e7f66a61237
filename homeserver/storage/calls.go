// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"encoding/json"
)

// CallRecord is a row of call_records. Times are in milliseconds since 1970.
type CallRecord struct {
	ID       int64
	RoomNID  int64
	RoomID   string // filled by reads
	CallID   string
	Caller   string
	Callee   string // who took it, else who declined it; "" for nobody
	Invitee  string // "" for whoever is in the room
	InviteID string // event id
	Kind     string
	Outcome  string
	Missed   bool // it rang, and nobody took or declined it
	Reason   string
	Started  int64
	Answered int64 // 0: never
	Ended    int64
	People   []string // everybody who was in a group call; nil for a call of two
}

// Group says that the record is of a group call.
func (c *CallRecord) Group() bool { return len(c.People) > 0 }

// list writes names as a JSON list, none as "".
func list(names []string) string {
	if len(names) == 0 {
		return ""
	}
	b, _ := json.Marshal(names) // strings
	return string(b)
}

func unlist(text string) (names []string, err error) {
	if text != "" {
		err = json.Unmarshal([]byte(text), &names)
	}
	return names, err
}

// InsertCall records a call for the history of users. new is false when the call has a record already, which is then left as it is.
func (tx *Tx) InsertCall(c CallRecord, users []string) (new bool, err error) {
	missed := 0
	if c.Missed {
		missed = 1
	}
	n, err := tx.Exec(`INSERT INTO call_records (id, room_nid, call_id, caller, callee, invitee, invite_id, kind, outcome, missed, reason, started_ts, answered_ts, ended_ts, participants)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (room_nid, call_id, caller) DO NOTHING`,
		c.ID, c.RoomNID, c.CallID, c.Caller, c.Callee, c.Invitee, c.InviteID, c.Kind, c.Outcome, missed, c.Reason, c.Started, c.Answered, c.Ended, list(c.People))
	if err != nil || n == 0 {
		return false, err
	}
	for _, u := range users {
		if _, err := tx.Exec(`INSERT INTO call_parties (user_id, started_ts, id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, u, c.Started, c.ID); err != nil {
			return false, err
		}
	}
	return true, nil
}

// CallQuery asks for the calls that a user may know of.
type CallQuery struct {
	User      string
	RoomNID   int64  // 0: any room
	Outcome   string // as the user sees it: a missed call of somebody else's is "missed" however it ended; "" for all
	FromTS    int64  // calls beyond this start, and among those that started then beyond FromID
	FromID    int64
	Ascending bool // oldest first; otherwise newest first
	Limit     int
}

// CallRow is a record, and how the user comes to it.
type CallRow struct {
	CallRecord
	Own bool // the user is a party of it; otherwise the user is in the room, in which nobody was called by name
}

const (
	callColumns = `c.id, c.room_nid, c.call_id, c.caller, c.callee, c.invitee, c.invite_id, c.kind, c.outcome, c.missed, c.reason, c.started_ts, c.answered_ts, c.ended_ts, c.participants`
	callWanted  = ` AND (CAST($2 AS BIGINT) = 0 OR c.room_nid = CAST($2 AS BIGINT)) AND (CAST($3 AS TEXT) = '' OR (CASE WHEN c.missed = 1 AND c.caller <> $1 THEN 'missed' ELSE c.outcome END) = CAST($3 AS TEXT)) `
	callsOwn    = `SELECT ` + callColumns + `, 1 AS own FROM call_parties p JOIN call_records c ON c.id = p.id WHERE p.user_id = $1` + callWanted
	callsRoom   = `SELECT ` + callColumns + `, 0 AS own FROM memberships m JOIN call_records c ON c.room_nid = m.room_nid WHERE m.user_id = $1 AND m.membership = 'join' AND c.invitee = ''` + callWanted
	callsPick   = `SELECT c.id, c.room_nid, r.room_id, c.call_id, c.caller, c.callee, c.invitee, c.invite_id, c.kind, c.outcome, c.missed, c.reason, c.started_ts, c.answered_ts, c.ended_ts, c.participants, c.own FROM (`
	callsDown   = callsPick +
		`SELECT * FROM (` + callsOwn + `AND (p.started_ts, p.id) < ($4, $5) ORDER BY p.started_ts DESC, p.id DESC LIMIT $6) a UNION ALL ` +
		`SELECT * FROM (` + callsRoom + `AND (c.started_ts, c.id) < ($4, $5) ORDER BY c.started_ts DESC, c.id DESC LIMIT $6) b` +
		`) c JOIN rooms r ON r.room_nid = c.room_nid ORDER BY c.started_ts DESC, c.id DESC, c.own DESC`
	callsUp = callsPick +
		`SELECT * FROM (` + callsOwn + `AND (p.started_ts, p.id) > ($4, $5) ORDER BY p.started_ts, p.id LIMIT $6) a UNION ALL ` +
		`SELECT * FROM (` + callsRoom + `AND (c.started_ts, c.id) > ($4, $5) ORDER BY c.started_ts, c.id LIMIT $6) b` +
		`) c JOIN rooms r ON r.room_nid = c.room_nid ORDER BY c.started_ts, c.id, c.own DESC`
)

// Calls lists records by the time at which the calls began.
func (s *Store) Calls(ctx context.Context, q CallQuery) (out []CallRow, err error) {
	text := callsDown
	if q.Ascending {
		text = callsUp
	}
	err = s.rows(ctx, func(r *sql.Rows) error {
		var c CallRow
		var missed, own int64
		var people string
		if err := r.Scan(&c.ID, &c.RoomNID, &c.RoomID, &c.CallID, &c.Caller, &c.Callee, &c.Invitee, &c.InviteID, &c.Kind, &c.Outcome, &missed, &c.Reason, &c.Started, &c.Answered, &c.Ended, &people, &own); err != nil {
			return err
		}
		var err error
		if c.People, err = unlist(people); err != nil {
			return err
		}
		c.Missed, c.Own = missed != 0, own != 0
		// A user's own call in a room that the user is in comes in both ways.
		if n := len(out); n < q.Limit && (n == 0 || out[n-1].ID != c.ID) {
			out = append(out, c)
		}
		return nil
	}, text, q.User, q.RoomNID, q.Outcome, q.FromTS, q.FromID, q.Limit)
	return out, err
}

// PruneCalls deletes records of calls that began before ts, at most limit, and gives their number.
func (tx *Tx) PruneCalls(ts int64, limit int) (int64, error) {
	n, err := tx.Exec(`DELETE FROM call_records WHERE id IN (SELECT id FROM call_records WHERE started_ts < $1 ORDER BY started_ts LIMIT $2)`, ts, limit)
	if err != nil {
		return 0, err
	}
	parties, err := tx.Exec(`DELETE FROM call_parties WHERE (user_id, started_ts, id) IN (SELECT user_id, started_ts, id FROM call_parties WHERE started_ts < $1 ORDER BY started_ts LIMIT $2)`, ts, limit)
	return max(n, parties), err
}

// CallInProgress is a row of calls_in_progress.
type CallInProgress struct {
	RoomNID  int64
	CallID   string
	StartPos int64
}

// CallsInProgress lists the long calls that were noted and not ended.
func (s *Store) CallsInProgress(ctx context.Context) (out []CallInProgress, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var c CallInProgress
		if err := r.Scan(&c.RoomNID, &c.CallID, &c.StartPos); err != nil {
			return err
		}
		out = append(out, c)
		return nil
	}, `SELECT room_nid, call_id, start_pos FROM calls_in_progress ORDER BY start_pos`)
	return out, err
}

// NoteCallInProgress notes a long call.
func (tx *Tx) NoteCallInProgress(c CallInProgress) error {
	_, err := tx.Exec(`INSERT INTO calls_in_progress (room_nid, call_id, start_pos) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, c.RoomNID, c.CallID, c.StartPos)
	return err
}

// ForgetCallInProgress is for a long call that has ended.
func (tx *Tx) ForgetCallInProgress(roomNID int64, callID string) error {
	_, err := tx.Exec(`DELETE FROM calls_in_progress WHERE room_nid = $1 AND call_id = $2`, roomNID, callID)
	return err
}

// CallEvent is an event as the calls service reads it again: one of m.call.*, or a membership.
type CallEvent struct {
	RoomNID          int64
	RoomID           string
	ID, Type, Sender string
	StateKey         string
	Device           string
	OriginTS, Pos    int64
	JSON             []byte
}

const (
	// Without m.call.candidates, the most frequent kind: it neither begins, changes nor ends a call.
	callTypes = `('m.call.invite', 'm.call.answer', 'm.call.select_answer', 'm.call.reject', 'm.call.hangup', 'm.call.negotiate', 'm.call.replaces', 'm.call.asserted_identity',
		'm.call.sdp_stream_metadata_changed', 'org.matrix.call.sdp_stream_metadata_changed', 'org.matrix.call.asserted_identity', 'm.room.member')`
	callEvents = `SELECT e.room_nid, r.room_id, e.event_id, e.type, e.sender, COALESCE(e.state_key, ''), e.sender_device, e.origin_ts, e.stream_pos, e.json FROM events e JOIN rooms r ON r.room_nid = e.room_nid `
	callOrder  = ` AND e.status = 0 AND e.type IN ` + callTypes + ` ORDER BY e.stream_pos LIMIT `
)

// CallEvents reads the events of calls and memberships of all rooms with from < position <= to, oldest first.
func (s *Store) CallEvents(ctx context.Context, from, to int64, limit int) ([]CallEvent, error) {
	return s.callEvents(ctx, callEvents+`WHERE e.stream_pos > 0 AND e.stream_pos > $1 AND e.stream_pos <= $2`+callOrder+`$3`, max(0, from), to, limit)
}

// RoomCallEvents is CallEvents for one room.
func (s *Store) RoomCallEvents(ctx context.Context, roomNID, from, to int64, limit int) ([]CallEvent, error) {
	return s.callEvents(ctx, callEvents+`WHERE e.room_nid = $1 AND e.stream_pos > $2 AND e.stream_pos <= $3`+callOrder+`$4`, roomNID, max(0, from), to, limit)
}

func (s *Store) callEvents(ctx context.Context, query string, args ...any) (out []CallEvent, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var e CallEvent
		if err := r.Scan(&e.RoomNID, &e.RoomID, &e.ID, &e.Type, &e.Sender, &e.StateKey, &e.Device, &e.OriginTS, &e.Pos, &e.JSON); err != nil {
			return err
		}
		out = append(out, e)
		return nil
	}, query, args...)
	return out, err
}

// StreamEnd reads the newest stream position that any node has committed.
func (s *Store) StreamEnd(ctx context.Context) (pos int64, err error) {
	err = s.row(ctx, []any{&pos}, `SELECT value FROM counters WHERE name = 'stream'`)
	return pos, err
}

const probeSize = 32 // events looked at to tell the time at a position

// PosAtTime finds a stream position that is not later than the time ts (ms since 1970), by looking at the origin_ts of events in
// steps that double, at most most positions back from end. It looks at several events a step and believes the newest, so that one
// server whose clock is late does not mislead it.
func (s *Store) PosAtTime(ctx context.Context, end, ts, most int64) (int64, error) {
	for step := int64(1024); ; step *= 2 {
		pos := end - min(step, most)
		if pos <= 0 {
			return 0, nil
		}
		if step >= most {
			return pos, nil
		}
		newest := int64(-1)
		if err := s.rows(ctx, func(r *sql.Rows) error {
			var t int64
			err := r.Scan(&t)
			newest = max(newest, t)
			return err
		}, `SELECT origin_ts FROM events WHERE stream_pos > 0 AND stream_pos <= $1 ORDER BY stream_pos DESC LIMIT $2`, pos, probeSize); err != nil {
			return 0, err
		}
		if newest < ts { // none there counts too: nothing happened before
			return pos, nil
		}
	}
}
