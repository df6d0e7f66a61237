// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const maxDehydrated = 64 << 10 // bytes of the sealed device

var errNoDehydrated = signalling.NotFound("you have no dehydrated device")

// Dehydrate stores a user's dehydrated device (MSC3814) in place of the one before, which is deleted with what waits for it. keys
// publishes its keys in the same transaction. Errors: M_INVALID_PARAM, M_TOO_LARGE, and those of keys.
func (s *Service) Dehydrate(ctx context.Context, userID, deviceID, name string, data json.RawMessage, keys func(*storage.Tx) error) error {
	l := Login{DeviceID: deviceID, DisplayName: name}
	if err := l.check(); err != nil {
		return err
	}
	if deviceID == "" {
		return signalling.InvalidParam("device_id is empty")
	}
	if len(data) > maxDehydrated {
		return signalling.TooLarge("device_data may have %d bytes", maxDehydrated)
	}
	var shape struct {
		Algorithm string `json:"algorithm"`
	}
	if err := json.Unmarshal(data, &shape); err != nil || shape.Algorithm == "" {
		return signalling.InvalidParam("device_data must be an object with an algorithm")
	}
	now := s.clock.Now().UnixMilli()
	var old string
	return s.deleteDevices(ctx, userID, func(*storage.Tx) ([]string, error) {
		if old == "" || old == deviceID {
			return nil, nil
		}
		return []string{old}, nil
	}, func(tx *storage.Tx) error {
		before, err := tx.Dehydrated(userID)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if old = before.DeviceID; old != deviceID {
			if used, err := tx.HasDevice(userID, deviceID); err != nil {
				return err
			} else if used {
				return signalling.InvalidParam("you are logged in with a device of that id")
			}
		}
		if err := tx.EnsureDevice(storage.Device{UserID: userID, ID: deviceID, DisplayName: name, CreatedTS: now}); err != nil {
			return err
		}
		if err := tx.PutDehydrated(userID, storage.Dehydrated{DeviceID: deviceID, Data: string(data)}); err != nil {
			return err
		}
		return keys(tx)
	})
}

// Dehydrated reads a user's dehydrated device. Errors: M_NOT_FOUND.
func (s *Service) Dehydrated(ctx context.Context, userID string) (deviceID string, data json.RawMessage, err error) {
	d, err := s.store.Dehydrated(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil, errNoDehydrated
	}
	return d.DeviceID, json.RawMessage(d.Data), err
}

// DeleteDehydrated removes a user's dehydrated device with all that belongs to it, and gives its id. Errors: M_NOT_FOUND.
func (s *Service) DeleteDehydrated(ctx context.Context, userID string) (deviceID string, err error) {
	id, _, err := s.Dehydrated(ctx, userID)
	if err != nil {
		return "", err
	}
	return id, s.DeleteDevices(ctx, userID, id)
}
