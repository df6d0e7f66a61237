// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Relation is a row of relations: an event that relates to another (m.relates_to of its content).
type Relation struct {
	RelatesTo     string // event id
	RelType       string
	EventNID      int64
	RoomNID       int64
	Sender, Type  string // of the event
	Pos, OriginTS int64  // of the event
}

// InsertRelation records that an event relates to another.
func (tx *Tx) InsertRelation(r Relation) error {
	_, err := tx.Exec(`INSERT INTO relations (relates_to, event_nid, room_nid, rel_type, sender, type, stream_pos, origin_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`, r.RelatesTo, r.EventNID, r.RoomNID, r.RelType, r.Sender, r.Type, r.Pos, r.OriginTS)
	return err
}

// DeleteRelation forgets what an event related to: it was redacted.
func (tx *Tx) DeleteRelation(eventNID int64) error {
	_, err := tx.Exec(`DELETE FROM relations WHERE event_nid = $1`, eventNID)
	return err
}

// Relations lists what relates to an event, with from < position < to, newest first when backwards; relType and typ "" are any.
func (s *Store) Relations(ctx context.Context, roomNID int64, relatesTo, relType, typ string, from, to int64, limit int, backwards bool) (out []Relation, err error) {
	query := `SELECT event_nid, rel_type, sender, type, stream_pos FROM relations
		WHERE relates_to = $1 AND room_nid = $2 AND ($3 = '' OR rel_type = $3) AND ($4 = '' OR type = $4) AND stream_pos > $5 AND stream_pos < $6
		ORDER BY stream_pos LIMIT $7`
	if backwards {
		query = `SELECT event_nid, rel_type, sender, type, stream_pos FROM relations
			WHERE relates_to = $1 AND room_nid = $2 AND ($3 = '' OR rel_type = $3) AND ($4 = '' OR type = $4) AND stream_pos > $5 AND stream_pos < $6
			ORDER BY stream_pos DESC LIMIT $7`
	}
	err = s.rows(ctx, func(r *sql.Rows) error {
		x := Relation{RelatesTo: relatesTo, RoomNID: roomNID}
		err := r.Scan(&x.EventNID, &x.RelType, &x.Sender, &x.Type, &x.Pos)
		out = append(out, x)
		return err
	}, query, relatesTo, roomNID, relType, typ, from, to, limit)
	return out, err
}

// RelatedKind counts what relates to an event in one way.
type RelatedKind struct {
	RelatesTo, RelType string
	Count              int64
}

// RelatedKinds counts what relates to each of some events of a room, by the way it relates.
func (s *Store) RelatedKinds(ctx context.Context, roomNID int64, ids []string) (out []RelatedKind, err error) {
	for len(ids) > 0 {
		n := min(len(ids), chunk)
		args := make([]any, chunk+1)
		for i := range chunk {
			args[i] = ""
			if i < n {
				args[i] = ids[i]
			}
		}
		args[chunk] = roomNID
		if err := s.rows(ctx, func(r *sql.Rows) error {
			var k RelatedKind
			err := r.Scan(&k.RelatesTo, &k.RelType, &k.Count)
			out = append(out, k)
			return err
		}, `SELECT relates_to, rel_type, COUNT(*) FROM relations WHERE relates_to IN `+inList+` AND room_nid = $65 GROUP BY relates_to, rel_type`, args...); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return out, nil
}

// RelatedBy says whether anything by a user relates to an event in a way.
func (s *Store) RelatedBy(ctx context.Context, relatesTo, relType, sender string) (bool, error) {
	var one int64
	err := s.row(ctx, []any{&one}, `SELECT 1 FROM relations WHERE relates_to = $1 AND ($2 = '' OR rel_type = $2) AND ($3 = '' OR sender = $3) LIMIT 1`, relatesTo, relType, sender)
	if err == ErrNotFound {
		return false, nil
	}
	return err == nil, err
}

// RelatedCountBy counts what relates to an event in a way and was sent by a user.
func (s *Store) RelatedCountBy(ctx context.Context, relatesTo, relType, sender string) (n int64, err error) {
	err = s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM relations WHERE relates_to = $1 AND rel_type = $2 AND sender = $3`, relatesTo, relType, sender)
	return n, err
}

// Edits lists the newest replacements of an event by its sender, of its type: the latest time first, then the greatest event id.
func (s *Store) Edits(ctx context.Context, relatesTo, sender, typ string, limit int) (nids []int64, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var n int64
		err := r.Scan(&n)
		nids = append(nids, n)
		return err
	}, `SELECT r.event_nid FROM relations r JOIN events e ON e.event_nid = r.event_nid
		WHERE r.relates_to = $1 AND r.rel_type = 'm.replace' AND r.sender = $2 AND r.type = $3 ORDER BY r.origin_ts DESC, e.event_id DESC LIMIT $4`,
		relatesTo, sender, typ, limit)
	return nids, err
}

// Thread is a thread of a room.
type Thread struct {
	Root string // event id
	Pos  int64  // of its newest event
}

// Threads lists the threads of a room whose newest event is before a position, the liveliest first. With participant, only threads
// that the user began or wrote in.
func (s *Store) Threads(ctx context.Context, roomNID, before int64, participant string, limit int) (out []Thread, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var t Thread
		err := r.Scan(&t.Root, &t.Pos)
		out = append(out, t)
		return err
	}, `SELECT r.relates_to, MAX(r.stream_pos) FROM relations r WHERE r.room_nid = $1 AND r.rel_type = 'm.thread' AND ($2 = ''
			OR EXISTS (SELECT 1 FROM relations p WHERE p.relates_to = r.relates_to AND p.rel_type = 'm.thread' AND p.sender = $2)
			OR EXISTS (SELECT 1 FROM events o WHERE o.event_id = r.relates_to AND o.sender = $2))
		GROUP BY r.relates_to HAVING MAX(r.stream_pos) < $3 ORDER BY 2 DESC LIMIT $4`, roomNID, participant, before, limit)
	return out, err
}
