// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

// Status of an event.
type Status int64

// The states an event can be in.
const (
	StatusOK Status = iota
	StatusSoftFailed
	StatusRejected
	StatusOutlier
	StatusHidden // accepted, and not shown to clients: it merges forks
)

// Accepted says that an event is part of the room's graph.
func (s Status) Accepted() bool { return s == StatusOK || s == StatusHidden }

// ErrConflict says that a room moved on under the writer's feet: another node wrote to it. Load it again and retry.
var ErrConflict = errors.New("storage: the room has changed")

// RoomRow is a row of rooms.
type RoomRow struct {
	NID         int64
	ID          string
	Version     string
	Extremities []int64
	StateGroup  int64
	LastPos     int64
	Public      bool
}

// EventRow is a row of events.
type EventRow struct {
	NID, RoomNID            int64
	ID, Type, Sender        string
	StateKey                *string
	Depth, OriginTS, Pos    int64
	Status                  Status
	StateBefore, StateAfter int64
	RedactedBy              string
	SenderDevice, TxnID     string
	StickyUntil             int64 // read only: when it ceases to stick (MSC4354); 0 for one that does not, or did so long ago
	JSON                    []byte
}

const eventColumns = `event_nid, room_nid, event_id, type, state_key, sender, depth, origin_ts, stream_pos, status, state_before, state_after, redacted_by, sender_device, txn_id, json`

// eventRead is what scanEvent reads.
const eventRead = eventColumns + `, COALESCE((SELECT until_ts FROM sticky_events WHERE sticky_events.event_nid = events.event_nid), 0)`

func scanEvent(r interface{ Scan(...any) error }) (e EventRow, err error) {
	var sk sql.NullString
	err = r.Scan(&e.NID, &e.RoomNID, &e.ID, &e.Type, &sk, &e.Sender, &e.Depth, &e.OriginTS, &e.Pos, &e.Status, &e.StateBefore, &e.StateAfter, &e.RedactedBy, &e.SenderDevice, &e.TxnID, &e.JSON, &e.StickyUntil)
	if sk.Valid {
		e.StateKey = &sk.String
	}
	return e, err
}

// Room loads a room by its id; ErrNotFound.
func (s *Store) Room(ctx context.Context, id string) (RoomRow, error) {
	return s.room(ctx, `SELECT room_nid, room_id, version, extremities, state_group, last_pos, is_public FROM rooms WHERE room_id = $1`, id)
}

// RoomByNID loads a room by its internal id; ErrNotFound.
func (s *Store) RoomByNID(ctx context.Context, nid int64) (RoomRow, error) {
	return s.room(ctx, `SELECT room_nid, room_id, version, extremities, state_group, last_pos, is_public FROM rooms WHERE room_nid = $1`, nid)
}

func (s *Store) room(ctx context.Context, query string, key any) (r RoomRow, err error) {
	var ext string
	var public int64
	if err := s.row(ctx, []any{&r.NID, &r.ID, &r.Version, &ext, &r.StateGroup, &r.LastPos, &public}, query, key); err != nil {
		return r, err
	}
	r.Public = public != 0
	if err := json.Unmarshal([]byte(ext), &r.Extremities); err != nil {
		return r, fmt.Errorf("room %s: extremities: %w", r.ID, err)
	}
	return r, nil
}

// PublicRooms lists the rooms in the room directory.
func (s *Store) PublicRooms(ctx context.Context) (ids []string, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	}, `SELECT room_id FROM rooms WHERE is_public = 1 ORDER BY room_nid`)
	return ids, err
}

// SetRoomPublic lists a room in the directory or takes it out.
func (tx *Tx) SetRoomPublic(roomNID int64, public bool) error {
	n := 0
	if public {
		n = 1
	}
	_, err := tx.Exec(`UPDATE rooms SET is_public = $1 WHERE room_nid = $2`, n, roomNID)
	return err
}

func encodeNIDs(nids []int64) string {
	if nids == nil {
		nids = []int64{}
	}
	b, _ := json.Marshal(nids)
	return string(b)
}

// InsertRoom adds a room; its head is set by MoveHead in the same transaction.
func (tx *Tx) InsertRoom(r RoomRow) error {
	_, err := tx.Exec(`INSERT INTO rooms (room_nid, room_id, version, extremities, state_group, last_pos) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.NID, r.ID, r.Version, encodeNIDs(r.Extremities), r.StateGroup, r.LastPos)
	return err
}

// MoveHead sets a room's extremities and current state; ErrConflict when the extremities are not from any more.
func (tx *Tx) MoveHead(roomNID int64, from, to []int64, group, pos int64) error {
	n, err := tx.Exec(`UPDATE rooms SET extremities = $1, state_group = $2, last_pos = $3 WHERE room_nid = $4 AND extremities = $5`,
		encodeNIDs(to), group, pos, roomNID, encodeNIDs(from))
	if err == nil && n == 0 {
		err = ErrConflict
	}
	return err
}

// InsertEvent adds an event and its edges.
func (tx *Tx) InsertEvent(e EventRow, prev []string) error {
	var sk any
	if e.StateKey != nil {
		sk = *e.StateKey
	}
	if _, err := tx.Exec(`INSERT INTO events (`+eventColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		e.NID, e.RoomNID, e.ID, e.Type, sk, e.Sender, e.Depth, e.OriginTS, e.Pos, int64(e.Status), e.StateBefore, e.StateAfter, e.RedactedBy, e.SenderDevice, e.TxnID, e.JSON); err != nil {
		return err
	}
	for _, p := range prev {
		if _, err := tx.Exec(`INSERT INTO event_edges (prev_id, event_nid) VALUES ($1, $2) ON CONFLICT DO NOTHING`, p, e.NID); err != nil {
			return err
		}
	}
	return nil
}

// RedactEvent replaces an event's JSON by its redacted form.
func (tx *Tx) RedactEvent(nid int64, redacted []byte, by string) error {
	if _, err := tx.Exec(`UPDATE events SET json = $1, redacted_by = $2 WHERE event_nid = $3`, redacted, by, nid); err != nil {
		return err
	}
	if err := tx.Unstick(nid); err != nil {
		return err
	}
	return tx.DeleteRelation(nid)
}

// SetMembership records a user's membership in a room.
func (tx *Tx) SetMembership(m Membership) error {
	_, err := tx.Exec(`INSERT INTO memberships (user_id, room_nid, membership, event_nid, stream_pos, forgotten) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (user_id, room_nid) DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid, stream_pos = excluded.stream_pos, forgotten = 0`,
		m.User, m.RoomNID, m.Membership, m.EventNID, m.Pos)
	return err
}

// Forget hides a room that the user has left.
func (tx *Tx) Forget(user string, roomNID int64) error {
	_, err := tx.Exec(`UPDATE memberships SET forgotten = 1 WHERE user_id = $1 AND room_nid = $2`, user, roomNID)
	return err
}

// InsertStateGroup adds a state group.
func (tx *Tx) InsertStateGroup(g StateGroup) error {
	_, err := tx.Exec(`INSERT INTO state_groups (group_id, room_nid, base, height, delta) VALUES ($1, $2, $3, $4, $5)`, g.ID, g.RoomNID, g.Base, g.Height, g.Delta)
	return err
}

// StateGroup is a row of state_groups.
type StateGroup struct {
	ID, RoomNID, Base, Height int64
	Delta                     []byte
}

// StateGroup loads a state group; ErrNotFound.
func (s *Store) StateGroup(ctx context.Context, id int64) (g StateGroup, err error) {
	g.ID = id
	err = s.row(ctx, []any{&g.RoomNID, &g.Base, &g.Height, &g.Delta}, `SELECT room_nid, base, height, delta FROM state_groups WHERE group_id = $1`, id)
	return g, err
}

// StateRef names the event at a piece of state.
type StateRef struct {
	Type, StateKey string
	EventNID       int64
	EventID        string
}

// CurrentState loads a room's current state.
func (s *Store) CurrentState(ctx context.Context, roomNID int64) (refs []StateRef, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var x StateRef
		if err := r.Scan(&x.Type, &x.StateKey, &x.EventNID, &x.EventID); err != nil {
			return err
		}
		refs = append(refs, x)
		return nil
	}, `SELECT c.type, c.state_key, c.event_nid, e.event_id FROM current_state c JOIN events e ON e.event_nid = c.event_nid WHERE c.room_nid = $1`, roomNID)
	return refs, err
}

// StateRefs names the state events behind internal ids.
func (s *Store) StateRefs(ctx context.Context, nids []int64) ([]StateRef, error) {
	out := make([]StateRef, 0, len(nids))
	for len(nids) > 0 {
		n := min(len(nids), chunk)
		args := make([]any, chunk)
		for i := range args {
			args[i] = int64(0)
			if i < n {
				args[i] = nids[i]
			}
		}
		if err := s.rows(ctx, func(r *sql.Rows) error {
			var x StateRef
			if err := r.Scan(&x.EventNID, &x.Type, &x.StateKey, &x.EventID); err != nil {
				return err
			}
			out = append(out, x)
			return nil
		}, `SELECT event_nid, type, state_key, event_id FROM events WHERE state_key IS NOT NULL AND event_nid IN `+inList, args...); err != nil {
			return nil, err
		}
		nids = nids[n:]
	}
	return out, nil
}

// StateChange is a row of state_stream.
type StateChange struct {
	Pos               int64
	Type, StateKey    string
	EventNID, PrevNID int64
	EventID           string // of EventNID; "" when the piece of state was removed
}

// StateChanges lists the changes of a room's current state after from, up to and including to, oldest first.
func (s *Store) StateChanges(ctx context.Context, roomNID, from, to int64) (out []StateChange, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var x StateChange
		var id sql.NullString
		if err := r.Scan(&x.Pos, &x.Type, &x.StateKey, &x.EventNID, &x.PrevNID, &id); err != nil {
			return err
		}
		x.EventID = id.String
		out = append(out, x)
		return nil
	}, `SELECT s.stream_pos, s.type, s.state_key, s.event_nid, s.prev_nid, e.event_id FROM state_stream s LEFT JOIN events e ON e.event_nid = s.event_nid
		WHERE s.room_nid = $1 AND s.stream_pos > $2 AND s.stream_pos <= $3 ORDER BY s.stream_pos`, roomNID, from, to)
	return out, err
}

// chunk is how many ids one IN list holds; short lists use the same text so that few statements are prepared.
const chunk = 64

var inList = func() string {
	b := []byte("(")
	for i := 1; i <= chunk; i++ {
		if i > 1 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "$%d", i)
	}
	return string(append(b, ')'))
}()

// EventsByNID loads events; those that are not there are left out. The order is not kept.
func (s *Store) EventsByNID(ctx context.Context, nids []int64) ([]EventRow, error) {
	return chunked(ctx, s, nids, int64(0), `SELECT `+eventRead+` FROM events WHERE event_nid IN `+inList, `SELECT `+eventRead+` FROM events WHERE event_nid = $1`)
}

// EventsByID loads events by their event id; those that are not there are left out. The order is not kept.
func (s *Store) EventsByID(ctx context.Context, ids []string) ([]EventRow, error) {
	return chunked(ctx, s, ids, "", `SELECT `+eventRead+` FROM events WHERE event_id IN `+inList, `SELECT `+eventRead+` FROM events WHERE event_id = $1`)
}

func chunked[T any](ctx context.Context, s *Store, keys []T, pad T, many, one string) ([]EventRow, error) {
	out := make([]EventRow, 0, len(keys))
	scan := func(r *sql.Rows) error {
		e, err := scanEvent(r)
		if err == nil {
			out = append(out, e)
		}
		return err
	}
	for len(keys) > 0 {
		if len(keys) <= 3 {
			for _, k := range keys {
				if err := s.rows(ctx, scan, one, k); err != nil {
					return nil, err
				}
			}
			break
		}
		n := min(len(keys), chunk)
		args := make([]any, chunk)
		for i := range args {
			if i < n {
				args[i] = keys[i]
			} else {
				args[i] = pad
			}
		}
		if err := s.rows(ctx, scan, many, args...); err != nil {
			return nil, err
		}
		keys = keys[n:]
	}
	return out, nil
}

// EventByTxn finds the event that a device sent with a transaction id; ErrNotFound.
func (s *Store) EventByTxn(ctx context.Context, roomNID int64, user, device, txn string) (id string, err error) {
	err = s.row(ctx, []any{&id}, `SELECT event_id FROM events WHERE sender = $1 AND sender_device = $2 AND txn_id = $3 AND room_nid = $4 AND txn_id <> ''`, user, device, txn, roomNID)
	return id, err
}

// Timeline loads events of a room's live and backfilled timeline with from < position < to; newest first when backwards. Rejected
// and soft-failed events are left out.
func (s *Store) Timeline(ctx context.Context, roomNID, from, to int64, limit int, backwards bool) (out []EventRow, err error) {
	query := `SELECT ` + eventRead + ` FROM events WHERE room_nid = $1 AND stream_pos > $2 AND stream_pos < $3 AND stream_pos <> 0 AND status = 0 ORDER BY stream_pos LIMIT $4`
	if backwards {
		query = `SELECT ` + eventRead + ` FROM events WHERE room_nid = $1 AND stream_pos > $2 AND stream_pos < $3 AND stream_pos <> 0 AND status = 0 ORDER BY stream_pos DESC LIMIT $4`
	}
	err = s.rows(ctx, func(r *sql.Rows) error {
		e, err := scanEvent(r)
		if err == nil {
			out = append(out, e)
		}
		return err
	}, query, roomNID, from, to, limit)
	return out, err
}

// Membership is a row of memberships.
type Membership struct {
	User       string
	RoomNID    int64
	RoomID     string // filled by reads
	Membership string
	EventNID   int64
	Pos        int64
	Forgotten  bool
}

// UserMemberships lists every room that a user has or had to do with.
func (s *Store) UserMemberships(ctx context.Context, user string) (out []Membership, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		m := Membership{User: user}
		var forgotten int64
		if err := r.Scan(&m.RoomNID, &m.RoomID, &m.Membership, &m.EventNID, &m.Pos, &forgotten); err != nil {
			return err
		}
		m.Forgotten = forgotten != 0
		out = append(out, m)
		return nil
	}, `SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.stream_pos, m.forgotten FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid WHERE m.user_id = $1`, user)
	return out, err
}

// RoomMembers lists the users of a room by membership.
func (s *Store) RoomMembers(ctx context.Context, roomNID int64) (out []Membership, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		m := Membership{RoomNID: roomNID}
		if err := r.Scan(&m.User, &m.Membership, &m.EventNID, &m.Pos); err != nil {
			return err
		}
		out = append(out, m)
		return nil
	}, `SELECT user_id, membership, event_nid, stream_pos FROM memberships WHERE room_nid = $1 ORDER BY stream_pos`, roomNID)
	return out, err
}
