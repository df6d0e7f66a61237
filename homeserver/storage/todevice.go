// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"encoding/json"
)

// ToDeviceMessage is a send-to-device message for one device.
type ToDeviceMessage struct {
	Pos          int64
	User, Device string
	Event        json.RawMessage // {"content":…,"sender":…,"type":…}
}

// ToDeviceTxn records a transaction of sendToDevice and says whether it is new.
func (tx *Tx) ToDeviceTxn(user, device, typ, txn string, ts int64) (bool, error) {
	n, err := tx.Exec(`INSERT INTO to_device_txns (user_id, device_id, type, txn_id, ts) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, device_id, txn_id, type) DO NOTHING`, user, device, typ, txn, ts)
	return n > 0, err
}

// DropToDeviceTxns forgets the transactions before ts, milliseconds since 1970.
func (tx *Tx) DropToDeviceTxns(ts int64) error {
	_, err := tx.Exec(`DELETE FROM to_device_txns WHERE ts < $1`, ts)
	return err
}

// CROSS JOIN: SQLite keeps the order of the tables, so it looks up each target instead of reading all devices.
var putToDevice = perRow(1, `INSERT INTO to_device (user_id, device_id, stream_pos, event)
	SELECT d.user_id, d.device_id, CAST($1 AS BIGINT), v.column3 FROM (VALUES `, `(CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))`, `, `, `) AS v
	CROSS JOIN devices d WHERE d.user_id = v.column1 AND d.device_id = v.column2 RETURNING user_id, device_id`)

// PutToDevice stores messages at pos, each for another device; those for devices that do not exist are dropped. It gives the devices
// that got theirs.
func (tx *Tx) PutToDevice(pos int64, messages []ToDeviceMessage) (stored [][2]string, err error) {
	err = putToDevice.each(len(messages), func(text string, lo, hi int) error {
		args := make([]any, 0, 1+3*(hi-lo))
		args = append(args, pos)
		for i := range messages[lo:hi] {
			m := &messages[lo+i]
			args = append(args, m.User, m.Device, string(m.Event))
		}
		return tx.Rows(func(r *sql.Rows) error {
			var d [2]string
			err := r.Scan(&d[0], &d[1])
			stored = append(stored, d)
			return err
		}, text, args...)
	})
	return stored, err
}

// PutToAllDevices stores event at pos for every device of user that has nothing at pos yet, and gives those devices.
func (tx *Tx) PutToAllDevices(pos int64, user string, event json.RawMessage) (devices []string, err error) {
	err = tx.Rows(func(r *sql.Rows) error {
		var d string
		err := r.Scan(&d)
		devices = append(devices, d)
		return err
	}, `INSERT INTO to_device (user_id, device_id, stream_pos, event)
		SELECT d.user_id, d.device_id, CAST($1 AS BIGINT), CAST($2 AS TEXT) FROM devices d WHERE d.user_id = $3
		AND NOT EXISTS (SELECT 1 FROM to_device t WHERE t.user_id = d.user_id AND t.device_id = d.device_id AND t.stream_pos = $1)
		RETURNING device_id`, pos, string(event), user)
	return devices, err
}

// ToDevice gives at most limit messages of a device after one position and not after another, oldest first.
func (s *Store) ToDevice(ctx context.Context, user, device string, after, upTo int64, limit int) ([]ToDeviceMessage, error) {
	var out []ToDeviceMessage
	err := s.rows(ctx, func(r *sql.Rows) error {
		m := ToDeviceMessage{User: user, Device: device}
		var event string
		err := r.Scan(&m.Pos, &event)
		m.Event = json.RawMessage(event)
		out = append(out, m)
		return err
	}, `SELECT stream_pos, event FROM to_device WHERE user_id = $1 AND device_id = $2 AND stream_pos > $3 AND stream_pos <= $4
		ORDER BY stream_pos LIMIT $5`, user, device, after, upTo, int64(limit))
	return out, err
}

// LastToDevice is the position of the newest message that waits for a device, 0 when none does.
func (s *Store) LastToDevice(ctx context.Context, user, device string) (int64, error) {
	var pos int64
	err := s.row(ctx, []any{&pos}, `SELECT COALESCE(MAX(stream_pos), 0) FROM to_device WHERE user_id = $1 AND device_id = $2`, user, device)
	return pos, err
}

// DropToDevice removes a device's messages up to a position.
func (tx *Tx) DropToDevice(user, device string, upTo int64) error {
	_, err := tx.Exec(`DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND stream_pos <= $3`, user, device, upTo)
	return err
}

// TrimToDevice removes all but the newest keep messages of a device and gives how many went.
func (tx *Tx) TrimToDevice(user, device string, keep int) (int64, error) {
	return tx.Exec(`DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND stream_pos <=
		(SELECT stream_pos FROM to_device WHERE user_id = $1 AND device_id = $2 ORDER BY stream_pos DESC LIMIT 1 OFFSET $3)`, user, device, int64(keep))
}
