// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Queued is a row of outbox: what another server has to get. An event is named by its nid, an EDU carries its payload.
type Queued struct {
	Destination string
	Seq         int64 // a stream position: the queue of a destination is drained in its order, what is urgent first
	Urgent      bool
	EventNID    int64 // 0 for an EDU
	Payload     []byte
}

// InsertOutbox queues something for another server, and has the other nodes hear of it.
func (tx *Tx) InsertOutbox(q Queued) error {
	kind, payload, urgent := "pdu", q.Payload, 0
	if q.EventNID == 0 {
		kind = "edu"
	}
	if payload == nil {
		payload = []byte{}
	}
	if q.Urgent {
		urgent = 1
	}
	if tx.Shared() {
		if tx.queued == nil {
			tx.queued = map[string]struct{}{}
		}
		tx.queued[q.Destination] = struct{}{}
	}
	_, err := tx.Exec(`INSERT INTO outbox (destination, seq, kind, event_nid, payload, urgent) VALUES ($1, $2, $3, $4, $5, $6)`, q.Destination, q.Seq, kind, q.EventNID, payload, urgent)
	return err
}

// Outbox gives what is queued for a destination, at most limit rows: what is urgent, then the rest, each by age.
func (s *Store) Outbox(ctx context.Context, destination string, limit int) (out []Queued, err error) {
	for _, urgent := range []bool{true, false} {
		query := `SELECT seq, event_nid, payload FROM outbox WHERE destination = $1 AND urgent = 0 ORDER BY seq LIMIT $2`
		if urgent {
			query = `SELECT seq, event_nid, payload FROM outbox WHERE destination = $1 AND urgent = 1 ORDER BY seq LIMIT $2`
		}
		if limit -= len(out); limit <= 0 {
			break
		}
		err = s.rows(ctx, func(r *sql.Rows) error {
			q := Queued{Destination: destination, Urgent: urgent}
			err := r.Scan(&q.Seq, &q.EventNID, &q.Payload)
			out = append(out, q)
			return err
		}, query, destination, limit)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// OutboxDestinations lists the servers that something is queued for.
func (s *Store) OutboxDestinations(ctx context.Context) (out []string, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var d string
		err := r.Scan(&d)
		out = append(out, d)
		return err
	}, `SELECT DISTINCT destination FROM outbox`)
	return out, err
}

// DeleteOutbox takes rows, which Outbox gave, out of the queue. Positions only grow, so that nothing new can lie between them.
func (tx *Tx) DeleteOutbox(rows []Queued) error {
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Urgent == rows[0].Urgent {
			n++
		}
		urgent := 0
		if rows[0].Urgent {
			urgent = 1
		}
		if _, err := tx.Exec(`DELETE FROM outbox WHERE destination = $1 AND seq >= $2 AND seq <= $3 AND urgent = $4`, rows[0].Destination, rows[0].Seq, rows[n-1].Seq, urgent); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// TrimOutbox keeps the newest rows of a destination and gives how many it dropped. Events that are dropped are fetched by that server
// when it sees what was built on them.
func (s *Store) TrimOutbox(ctx context.Context, destination string, keep int) (dropped int64, err error) {
	err = s.Write(ctx, func(tx *Tx) (err error) {
		dropped, err = tx.Exec(`DELETE FROM outbox WHERE destination = $1 AND seq <= (SELECT COALESCE(MIN(seq), 0) FROM (SELECT seq FROM outbox WHERE destination = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2) AS newest)`, destination, keep)
		return err
	})
	return dropped, err
}

// DeviceListsBetween gives the users whose devices or keys changed, for everybody to see, after from and not after to, with the position
// of their newest change.
func (s *Store) DeviceListsBetween(ctx context.Context, from, to int64) (out map[string]int64, err error) {
	out = map[string]int64{}
	err = s.rows(ctx, func(r *sql.Rows) error {
		var user string
		var pos int64
		err := r.Scan(&user, &pos)
		out[user] = pos
		return err
	}, `SELECT user_id, stream_pos FROM device_list_changes WHERE stream_pos > $1 AND stream_pos <= $2 AND viewer = '' `, from, to)
	return out, err
}

// DeviceListsTold is the position up to which other servers were told of changes; tx.DeviceListsTold moves it.
func (s *Store) DeviceListsTold(ctx context.Context) (pos int64, err error) {
	err = s.row(ctx, []any{&pos}, `SELECT value FROM counters WHERE name = 'federation_devices'`)
	return pos, err
}

// DeviceListsTold moves the position of Store.DeviceListsTold on, and says whether it still was where the caller found it: of several
// nodes, one tells of a change.
func (tx *Tx) DeviceListsTold(from, to int64) (bool, error) {
	n, err := tx.Exec(`UPDATE counters SET value = $1 WHERE name = 'federation_devices' AND value = $2`, to, from)
	return n > 0, err
}

// DeviceListJoin is a user of this server who has come into a room, whose other servers are to be told of his devices.
type DeviceListJoin struct {
	User    string
	RoomNID int64
	RoomID  string
}

// InsertDeviceListJoin queues a join for DeviceListJoins. One that is queued already stays as it is.
func (tx *Tx) InsertDeviceListJoin(user string, roomNID int64) error {
	_, err := tx.Exec(`INSERT INTO device_list_joins (user_id, room_nid) VALUES ($1, $2) ON CONFLICT (user_id, room_nid) DO NOTHING`, user, roomNID)
	return err
}

// DeviceListJoins lists what was queued, at most limit rows, those of a user together.
func (s *Store) DeviceListJoins(ctx context.Context, limit int) (out []DeviceListJoin, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var j DeviceListJoin
		err := r.Scan(&j.User, &j.RoomNID, &j.RoomID)
		out = append(out, j)
		return err
	}, `SELECT j.user_id, j.room_nid, r.room_id FROM device_list_joins j JOIN rooms r ON r.room_nid = j.room_nid ORDER BY j.user_id, j.room_nid LIMIT $1`, limit)
	return out, err
}

// DeleteDeviceListJoin takes a join out of the queue and says whether it was there: of several nodes, one takes it.
func (tx *Tx) DeleteDeviceListJoin(j DeviceListJoin) (bool, error) {
	n, err := tx.Exec(`DELETE FROM device_list_joins WHERE user_id = $1 AND room_nid = $2`, j.User, j.RoomNID)
	return n > 0, err
}
