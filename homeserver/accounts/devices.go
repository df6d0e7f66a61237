// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"errors"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

var errNoDevice = signalling.NotFound("there is no such device")

// Devices lists a user's devices, with what was seen of them but is not written yet.
func (s *Service) Devices(ctx context.Context, userID string) ([]storage.Device, error) {
	all, err := s.store.Devices(ctx, userID)
	for i := range all {
		s.withSighting(&all[i])
	}
	return all, err
}

// Device reads a device. Errors: M_NOT_FOUND.
func (s *Service) Device(ctx context.Context, userID, deviceID string) (storage.Device, error) {
	d, err := s.store.Device(ctx, userID, deviceID)
	if errors.Is(err, storage.ErrNotFound) {
		return d, errNoDevice
	}
	s.withSighting(&d)
	return d, err
}

func (s *Service) withSighting(d *storage.Device) {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if at, ok := s.sightings[seenDevice{d.UserID, d.ID}]; ok && at.ts > d.SeenTS {
		d.SeenTS, d.SeenIP = at.ts, at.ip
	}
}

// RenameDevice changes a device's display name. Errors: M_NOT_FOUND, M_TOO_LARGE.
func (s *Service) RenameDevice(ctx context.Context, userID, deviceID, name string) error {
	if len(name) > maxDeviceName {
		return signalling.TooLarge("a device's display name may have %d bytes", maxDeviceName)
	}
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.RenameDevice(userID, deviceID, name); err != nil {
			return err
		}
		for _, h := range s.hooks {
			if h.DeviceRenamed == nil {
				continue
			}
			if err := h.DeviceRenamed(tx, userID, deviceID); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, storage.ErrNotFound) {
		return errNoDevice
	}
	return err
}

// DeleteDevices removes devices of a user with all that belongs to them, and logs them out. Devices that are not there are no error.
func (s *Service) DeleteDevices(ctx context.Context, userID string, deviceIDs ...string) error {
	return s.deleteDevices(ctx, userID, func(*storage.Tx) ([]string, error) { return deviceIDs, nil }, nil)
}

// DeleteAllDevices removes every device of a user but one, which may be "".
func (s *Service) DeleteAllDevices(ctx context.Context, userID, except string) error {
	return s.deleteDevices(ctx, userID, othersThan(userID, except), nil)
}

func othersThan(userID, except string) func(*storage.Tx) ([]string, error) {
	return func(tx *storage.Tx) ([]string, error) {
		all, err := tx.DeviceIDs(userID)
		var out []string
		for _, id := range all {
			if id != except {
				out = append(out, id)
			}
		}
		return out, err
	}
}

// deleteDevices removes the devices that which names, after before did its part of the transaction.
func (s *Service) deleteDevices(ctx context.Context, userID string, which func(*storage.Tx) ([]string, error), before func(*storage.Tx) error) error {
	var gone [][]byte
	var deleted []string
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		gone, deleted = nil, nil
		if before != nil {
			if err := before(tx); err != nil {
				return err
			}
		}
		ids, err := which(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			hashes, err := tx.DropTokens(userID, id, "")
			if err != nil {
				return err
			}
			gone = append(gone, hashes...)
			was, err := tx.DeleteDevice(userID, id)
			if err != nil {
				return err
			}
			if !was {
				continue
			}
			deleted = append(deleted, id)
			for _, typ := range []string{"m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."} {
				if err := tx.DeleteAccountData(userID, "", typ+id); err != nil {
					return err
				}
			}
			for _, h := range s.hooks {
				if h.DeviceDeleted == nil {
					continue
				}
				if err := h.DeviceDeleted(tx, userID, id); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.forget(gone)
	for _, id := range deleted {
		s.ended(userID, id)
	}
	return nil
}

// SetPassword gives a user a new password. others logs out every device but keep, which may be "". Errors: M_WEAK_PASSWORD,
// M_INVALID_PARAM, M_NOT_FOUND.
func (s *Service) SetPassword(ctx context.Context, userID, password string, others bool, keep string) error {
	return s.setPassword(ctx, userID, password, others, keep, func(*storage.Tx) error { return nil })
}

// setPassword is SetPassword, with before as the first part of the transaction.
func (s *Service) setPassword(ctx context.Context, userID, password string, others bool, keep string, before func(*storage.Tx) error) error {
	if err := s.CheckPassword(password); err != nil {
		return err
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	which := func(*storage.Tx) ([]string, error) { return nil, nil }
	if others {
		which = othersThan(userID, keep)
	}
	return noUser(s.deleteDevices(ctx, userID, which, func(tx *storage.Tx) error {
		if err := before(tx); err != nil {
			return err
		}
		if err := tx.DropLoginTokens(userID); err != nil {
			return err
		}
		return tx.SetPasswordHash(userID, hash)
	}))
}

// Deactivate ends an account for good: nobody logs in to it, its devices and data go, and its user leaves all rooms. erase asks that
// the user's messages be hidden too, from whoever was not in their room by then. Errors: M_NOT_FOUND.
func (s *Service) Deactivate(ctx context.Context, userID string, erase bool) error {
	err := noUser(s.deleteDevices(ctx, userID, othersThan(userID, ""), func(tx *storage.Tx) error {
		if erase {
			pos, err := tx.NextPos()
			if err != nil {
				return err
			}
			if err := tx.Erase(userID, pos); err != nil {
				return err
			}
			tx.After(func() { s.noteErased(userID, pos) })
		}
		return tx.Deactivate(userID)
	}))
	if err != nil {
		return err
	}
	s.Forget(userID)
	for _, h := range s.hooks {
		if h.Deactivate != nil {
			if err := h.Deactivate(ctx, userID, erase); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetLocked locks an account, which may then only log out, or opens it again. Errors: M_NOT_FOUND.
func (s *Service) SetLocked(ctx context.Context, userID string, locked bool) error {
	err := noUser(s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetLocked(userID, locked) }))
	s.Forget(userID)
	return err
}

// SetSuspended suspends an account, which may then look but not act, or lifts that. Errors: M_NOT_FOUND.
func (s *Service) SetSuspended(ctx context.Context, userID string, suspended bool) error {
	err := noUser(s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetSuspended(userID, suspended) }))
	s.Forget(userID)
	return err
}

// SetAdmin makes a user an administrator of the server, or not. Errors: M_NOT_FOUND.
func (s *Service) SetAdmin(ctx context.Context, userID string, admin bool) error {
	err := noUser(s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetAdmin(userID, admin) }))
	s.Forget(userID)
	return err
}

// User reads an account. Errors: M_NOT_FOUND.
func (s *Service) User(ctx context.Context, userID string) (storage.User, error) {
	u, err := s.store.User(ctx, userID)
	return u, noUser(err)
}

// Users lists accounts in the order of their ids, after an id.
func (s *Service) Users(ctx context.Context, after string, limit int) ([]storage.User, error) {
	return s.store.Users(ctx, after, limit)
}

func noUser(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return signalling.NotFound("there is no such user")
	}
	return err
}
