// SPDX-License-Identifier: Apache-2.0

package storage

import "context"

// Dehydrated is a user's dehydrated device.
type Dehydrated struct {
	DeviceID string
	Data     string // JSON object
}

const dehydratedOf = `SELECT device_id, data FROM dehydrated_devices WHERE user_id = $1`

// Dehydrated reads a user's dehydrated device; ErrNotFound.
func (s *Store) Dehydrated(ctx context.Context, userID string) (d Dehydrated, err error) {
	err = s.row(ctx, []any{&d.DeviceID, &d.Data}, dehydratedOf, userID)
	return d, err
}

// Dehydrated reads a user's dehydrated device inside the transaction; ErrNotFound.
func (tx *Tx) Dehydrated(userID string) (d Dehydrated, err error) {
	err = tx.Row([]any{&d.DeviceID, &d.Data}, dehydratedOf, userID)
	return d, err
}

// PutDehydrated makes a device, which is in devices already, the dehydrated one of its user.
func (tx *Tx) PutDehydrated(userID string, d Dehydrated) error {
	_, err := tx.Exec(`INSERT INTO dehydrated_devices (user_id, device_id, data) VALUES ($1, $2, $3)
		ON CONFLICT (user_id) DO UPDATE SET device_id = excluded.device_id, data = excluded.data`, userID, d.DeviceID, d.Data)
	return err
}
