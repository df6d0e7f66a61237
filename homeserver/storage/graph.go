// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// SkipPos leaves n positions of the stream out: history that is found later takes them.
func (tx *Tx) SkipPos(n int64) error {
	if _, err := tx.NextPos(); err != nil {
		return err
	}
	tx.taken += n
	return nil
}

// InsertRoomOnce adds a room unless it is there.
func (tx *Tx) InsertRoomOnce(r RoomRow) error {
	_, err := tx.Exec(`INSERT INTO rooms (room_nid, room_id, version, extremities, state_group, last_pos) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		r.NID, r.ID, r.Version, encodeNIDs(r.Extremities), r.StateGroup, r.LastPos)
	return err
}

// SetRoomVersion names the version of a room that was known by hearsay only.
func (tx *Tx) SetRoomVersion(roomNID int64, version string) error {
	_, err := tx.Exec(`UPDATE rooms SET version = $1 WHERE room_nid = $2 AND state_group = 0`, version, roomNID)
	return err
}

var (
	putEvents = perRow(0, `INSERT INTO events (`+eventColumns+`) VALUES `, `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, `, `, ``)
	putEdges  = perRow(0, `INSERT INTO event_edges (prev_id, event_nid) VALUES `, `(?, ?)`, `, `, ` ON CONFLICT DO NOTHING`)
	putStream = perRow(0, `INSERT INTO state_stream (stream_pos, room_nid, type, state_key, event_nid, prev_nid) VALUES `, `(?, ?, ?, ?, ?, ?)`, `, `, ``)
	putState  = perRow(0, `INSERT INTO current_state (room_nid, type, state_key, event_nid) VALUES `, `(?, ?, ?, ?)`, `, `,
		` ON CONFLICT (room_nid, type, state_key) DO UPDATE SET event_nid = excluded.event_nid`)
	putMembers = perRow(0, `INSERT INTO memberships (user_id, room_nid, membership, event_nid, stream_pos, forgotten) VALUES `, `(?, ?, ?, ?, ?, 0)`, `, `,
		` ON CONFLICT (user_id, room_nid) DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid, stream_pos = excluded.stream_pos, forgotten = 0`)
)

// many runs a statement of several rows, per arguments each.
func (tx *Tx) many(q rowsQuery, n int, args func(i int) []any) error {
	return q.each(n, func(text string, lo, hi int) error {
		var all []any
		for i := lo; i < hi; i++ {
			all = append(all, args(i)...)
		}
		_, err := tx.Exec(text, all...)
		return err
	})
}

// InsertEvents adds many events, and their edges where prev has some for them.
func (tx *Tx) InsertEvents(rows []EventRow, prev [][]string) error {
	if err := tx.many(putEvents, len(rows), func(i int) []any {
		e := &rows[i]
		var sk any
		if e.StateKey != nil {
			sk = *e.StateKey
		}
		return []any{e.NID, e.RoomNID, e.ID, e.Type, sk, e.Sender, e.Depth, e.OriginTS, e.Pos, int64(e.Status), e.StateBefore, e.StateAfter, e.RedactedBy, e.SenderDevice, e.TxnID, e.JSON}
	}); err != nil {
		return err
	}
	type edge struct {
		prev string
		nid  int64
	}
	var edges []edge
	for i, list := range prev {
		for j, p := range list {
			if !contains(list[:j], p) {
				edges = append(edges, edge{p, rows[i].NID})
			}
		}
	}
	return tx.many(putEdges, len(edges), func(i int) []any { return []any{edges[i].prev, edges[i].nid} })
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// PlaceEvent gives an event that was an outlier its place: position, status and state.
func (tx *Tx) PlaceEvent(e EventRow, prev []string) error {
	if _, err := tx.Exec(`UPDATE events SET stream_pos = $1, status = $2, state_before = $3, state_after = $4 WHERE event_nid = $5`,
		e.Pos, int64(e.Status), e.StateBefore, e.StateAfter, e.NID); err != nil {
		return err
	}
	for _, p := range prev {
		if _, err := tx.Exec(`INSERT INTO event_edges (prev_id, event_nid) VALUES ($1, $2) ON CONFLICT DO NOTHING`, p, e.NID); err != nil {
			return err
		}
	}
	return nil
}

// SetEventState corrects the state before and after an event.
func (tx *Tx) SetEventState(nid, before, after int64) error {
	_, err := tx.Exec(`UPDATE events SET state_before = $1, state_after = $2 WHERE event_nid = $3`, before, after, nid)
	return err
}

// RenumberMember gives a member event that came before the rest of its room another internal id, wherever it is named: ids rise along
// the graph, and the events it builds on are new to us.
func (tx *Tx) RenumberMember(roomNID int64, user string, old, now int64) error {
	if _, err := tx.Exec(`UPDATE events SET event_nid = $1 WHERE event_nid = $2`, now, old); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE event_edges SET event_nid = $1 WHERE event_nid = $2`, now, old); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE current_state SET event_nid = $1 WHERE room_nid = $2 AND type = 'm.room.member' AND state_key = $3 AND event_nid = $4`, now, roomNID, user, old); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE memberships SET event_nid = $1 WHERE user_id = $2 AND room_nid = $3 AND event_nid = $4`, now, user, roomNID, old); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE state_stream SET event_nid = $1 WHERE room_nid = $2 AND event_nid = $3`, now, roomNID, old); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE state_stream SET prev_nid = $1 WHERE room_nid = $2 AND prev_nid = $3`, now, roomNID, old)
	return err
}

// StateMove is a change of a room's current state: EventNID 0 removes.
type StateMove struct {
	Type, StateKey    string
	EventNID, PrevNID int64
}

// SetStates records many changes of a room's current state at one stream position.
func (tx *Tx) SetStates(roomNID, pos int64, moves []StateMove) error {
	if err := tx.many(putStream, len(moves), func(i int) []any {
		m := &moves[i]
		return []any{pos, roomNID, m.Type, m.StateKey, m.EventNID, m.PrevNID}
	}); err != nil {
		return err
	}
	var set []StateMove
	for _, m := range moves {
		if m.EventNID != 0 {
			set = append(set, m)
			continue
		}
		if _, err := tx.Exec(`DELETE FROM current_state WHERE room_nid = $1 AND type = $2 AND state_key = $3`, roomNID, m.Type, m.StateKey); err != nil {
			return err
		}
	}
	return tx.many(putState, len(set), func(i int) []any { return []any{roomNID, set[i].Type, set[i].StateKey, set[i].EventNID} })
}

// SetMemberships records many memberships of a room, each user once.
func (tx *Tx) SetMemberships(list []Membership) error {
	return tx.many(putMembers, len(list), func(i int) []any {
		m := &list[i]
		return []any{m.User, m.RoomNID, m.Membership, m.EventNID, m.Pos}
	})
}

// EventPlace says where an event stands, without its JSON.
type EventPlace struct {
	NID, RoomNID, Pos int64
	ID, Type          string
	StateKey          *string
	Status            Status
	StateAfter        int64
}

// EventPlaces finds events by id, without reading their JSON; those that are not there are left out.
func (s *Store) EventPlaces(ctx context.Context, ids []string) (map[string]EventPlace, error) {
	out := make(map[string]EventPlace, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), chunk)
		args := make([]any, chunk)
		for i := range args {
			args[i] = ""
			if i < n {
				args[i] = ids[i]
			}
		}
		if err := s.rows(ctx, func(r *sql.Rows) error {
			var x EventPlace
			var sk sql.NullString
			if err := r.Scan(&x.ID, &x.NID, &x.RoomNID, &x.Type, &sk, &x.Pos, &x.Status, &x.StateAfter); err != nil {
				return err
			}
			if sk.Valid {
				x.StateKey = &sk.String
			}
			out[x.ID] = x
			return nil
		}, `SELECT event_id, event_nid, room_nid, type, state_key, stream_pos, status, state_after FROM events WHERE event_id IN `+inList, args...); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return out, nil
}

// PutInvite keeps what an invite to, or a knock at, a room that we do not have came with: the member event and the stripped state.
func (tx *Tx) PutInvite(user string, roomNID int64, event, stripped []byte) error {
	_, err := tx.Exec(`INSERT INTO invites (user_id, room_nid, event_json, state_json) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, room_nid) DO UPDATE SET event_json = excluded.event_json, state_json = excluded.state_json`, user, roomNID, event, stripped)
	return err
}

// DeleteInvite forgets what an invite came with.
func (tx *Tx) DeleteInvite(user string, roomNID int64) error {
	_, err := tx.Exec(`DELETE FROM invites WHERE user_id = $1 AND room_nid = $2`, user, roomNID)
	return err
}

// Invite gives the stripped state, a JSON array, that an invite or a knock came with; ErrNotFound.
func (s *Store) Invite(ctx context.Context, user string, roomNID int64) (stripped []byte, err error) {
	err = s.row(ctx, []any{&stripped}, `SELECT state_json FROM invites WHERE user_id = $1 AND room_nid = $2`, user, roomNID)
	return stripped, err
}

// AnyInvite says whether somebody but one user was invited to a room, or knocks at it, from outside.
func (s *Store) AnyInvite(ctx context.Context, roomNID int64, but string) (bool, error) {
	var n int64
	err := s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM invites WHERE room_nid = $1 AND user_id <> $2`, roomNID, but)
	return n > 0, err
}

// Gap is a row of gaps: an event that we have names one that we do not have.
type Gap struct {
	Missing  string
	EventNID int64
}

// Gaps lists the holes in a room's history.
func (s *Store) Gaps(ctx context.Context, roomNID int64) (out []Gap, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var g Gap
		if err := r.Scan(&g.Missing, &g.EventNID); err != nil {
			return err
		}
		out = append(out, g)
		return nil
	}, `SELECT missing_id, event_nid FROM gaps WHERE room_nid = $1`, roomNID)
	return out, err
}

// InsertGap notes that an event names one that we do not have.
func (tx *Tx) InsertGap(roomNID int64, missing string, eventNID int64) error {
	_, err := tx.Exec(`INSERT INTO gaps (room_nid, missing_id, event_nid) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, roomNID, missing, eventNID)
	return err
}

// DeleteGap notes that an event is there now, or that nobody has it.
func (tx *Tx) DeleteGap(roomNID int64, missing string) error {
	_, err := tx.Exec(`DELETE FROM gaps WHERE room_nid = $1 AND missing_id = $2`, roomNID, missing)
	return err
}

// LowestPos is the lowest position that an event of a room's timeline has; 0 when there is none.
func (s *Store) LowestPos(ctx context.Context, roomNID int64) (pos int64, err error) {
	err = s.row(ctx, []any{&pos}, `SELECT COALESCE(MIN(stream_pos), 0) FROM events WHERE room_nid = $1 AND stream_pos <> 0 AND status = 0`, roomNID)
	return pos, err
}

// PosBelow is the highest position below pos that an event of a room has; ErrNotFound.
func (s *Store) PosBelow(ctx context.Context, roomNID, pos int64) (below int64, err error) {
	err = s.row(ctx, []any{&below}, `SELECT stream_pos FROM events WHERE room_nid = $1 AND stream_pos < $2 AND stream_pos <> 0 ORDER BY stream_pos DESC LIMIT 1`, roomNID, pos)
	return below, err
}

// InsertEarlyRedaction keeps a redaction whose target is not there yet.
func (tx *Tx) InsertEarlyRedaction(roomNID int64, target string, eventNID int64) error {
	_, err := tx.Exec(`INSERT INTO early_redactions (room_nid, target_id, event_nid) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, roomNID, target, eventNID)
	return err
}

// DeleteEarlyRedactions forgets the redactions of a target that is there now.
func (tx *Tx) DeleteEarlyRedactions(roomNID int64, target string) error {
	_, err := tx.Exec(`DELETE FROM early_redactions WHERE room_nid = $1 AND target_id = $2`, roomNID, target)
	return err
}

// EarlyRedactions lists the redactions that wait for their targets.
func (s *Store) EarlyRedactions(ctx context.Context, roomNID int64) (map[string][]int64, error) {
	out := map[string][]int64{}
	err := s.rows(ctx, func(r *sql.Rows) error {
		var id string
		var nid int64
		if err := r.Scan(&id, &nid); err != nil {
			return err
		}
		out[id] = append(out[id], nid)
		return nil
	}, `SELECT target_id, event_nid FROM early_redactions WHERE room_nid = $1 ORDER BY event_nid`, roomNID)
	return out, err
}

// PartialRoom is a row of partial_rooms: a room joined without its whole state.
type PartialRoom struct {
	RoomNID, JoinNID int64
	RoomID, JoinID   string   // filled by reads
	Via              string   // the server that answered the join
	Servers          []string // those in the room when we joined
}

// InsertPartialRoom notes that a room's state is still to be fetched.
func (tx *Tx) InsertPartialRoom(p PartialRoom) error {
	b, err := json.Marshal(p.Servers)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO partial_rooms (room_nid, join_nid, via, servers) VALUES ($1, $2, $3, $4)
		ON CONFLICT (room_nid) DO UPDATE SET join_nid = excluded.join_nid, via = excluded.via, servers = excluded.servers`, p.RoomNID, p.JoinNID, p.Via, string(b))
	return err
}

// DeletePartialRoom notes that a room's state is whole.
func (tx *Tx) DeletePartialRoom(roomNID int64) error {
	_, err := tx.Exec(`DELETE FROM partial_rooms WHERE room_nid = $1`, roomNID)
	return err
}

// PartialRooms lists the rooms whose state is still to be fetched.
func (s *Store) PartialRooms(ctx context.Context) (out []PartialRoom, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var p PartialRoom
		var servers string
		if err := r.Scan(&p.RoomNID, &p.RoomID, &p.JoinNID, &p.JoinID, &p.Via, &servers); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(servers), &p.Servers); err != nil {
			return fmt.Errorf("room %s: servers: %w", p.RoomID, err)
		}
		out = append(out, p)
		return nil
	}, `SELECT p.room_nid, r.room_id, p.join_nid, e.event_id, p.via, p.servers FROM partial_rooms p JOIN rooms r ON r.room_nid = p.room_nid JOIN events e ON e.event_nid = p.join_nid ORDER BY p.join_nid`)
	return out, err
}

// PartialRoom loads what is known of a room joined without its whole state; ErrNotFound.
func (s *Store) PartialRoom(ctx context.Context, roomNID int64) (p PartialRoom, err error) {
	p.RoomNID = roomNID
	var servers string
	if err := s.row(ctx, []any{&p.JoinNID, &p.Via, &servers}, `SELECT join_nid, via, servers FROM partial_rooms WHERE room_nid = $1`, roomNID); err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(servers), &p.Servers)
}

// EventsSince loads the events of a room with a state that came in after an internal id, in the order of their ids.
func (s *Store) EventsSince(ctx context.Context, roomNID, nid int64) (out []EventRow, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		e, err := scanEvent(r)
		if err == nil {
			out = append(out, e)
		}
		return err
	}, `SELECT `+eventRead+` FROM events WHERE room_nid = $1 AND event_nid > $2 AND state_after <> 0 ORDER BY event_nid`, roomNID, nid)
	return out, err
}

// QueuedEvents lists the ids of the events that wait for a server, in order.
func (s *Store) QueuedEvents(ctx context.Context, destination string) (out []string, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&id); err != nil {
			return err
		}
		out = append(out, id)
		return nil
	}, `SELECT e.event_id FROM outbox o JOIN events e ON e.event_nid = o.event_nid WHERE o.destination = $1 AND o.kind = 'pdu' ORDER BY o.seq`, destination)
	return out, err
}
