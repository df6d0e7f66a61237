// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const keysPerWrite = 256 // so that a large backup lets others in between

// BackupInfo describes a key backup; it is the answer of GET /room_keys/version.
type BackupInfo struct {
	Algorithm string          `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
	Count     int64           `json:"count"`
	ETag      string          `json:"etag"`
	Version   string          `json:"version"`
}

// BackupState is what remains of a backup after a change of its keys.
type BackupState struct {
	Count int64  `json:"count"`
	ETag  string `json:"etag"`
}

// BackupKey is one key of a backup. What is in SessionData only clients can read.
type BackupKey struct {
	FirstMessageIndex int64           `json:"first_message_index"`
	ForwardedCount    int64           `json:"forwarded_count"`
	IsVerified        bool            `json:"is_verified"`
	SessionData       json.RawMessage `json:"session_data"`
}

// RoomBackup are the keys of one room by megolm session.
type RoomBackup struct {
	Sessions map[string]BackupKey `json:"sessions"`
}

// Backup are keys by room.
type Backup struct {
	Rooms map[string]RoomBackup `json:"rooms"`
}

// BackupAuth is what a client says of a backup when it makes or changes one.
type BackupAuth struct {
	Algorithm string
	AuthData  string
	Version   string // "" when the body did not name one
}

// DecodeBackupAuth reads the body of POST and PUT /room_keys/version. Errors: M_NOT_JSON, M_BAD_JSON, M_MISSING_PARAM, M_TOO_LARGE.
func DecodeBackupAuth(body []byte) (*BackupAuth, error) {
	var raw struct {
		Algorithm *string         `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
		Version   *string         `json:"version"`
	}
	if err := decode(body, &raw, "algorithm and version are strings"); err != nil {
		return nil, err
	}
	if raw.Algorithm == nil || len(raw.AuthData) == 0 {
		return nil, signalling.MissingParam("algorithm and auth_data are needed")
	}
	if err := checkID("algorithm", *raw.Algorithm); err != nil {
		return nil, err
	}
	if raw.AuthData[0] != '{' {
		return nil, signalling.BadJSON("auth_data must be an object")
	}
	if len(raw.AuthData) > MaxAuthData {
		return nil, signalling.TooLarge("auth_data may have %d bytes", MaxAuthData)
	}
	a := &BackupAuth{Algorithm: *raw.Algorithm, AuthData: string(raw.AuthData)}
	if raw.Version != nil {
		a.Version = *raw.Version
	}
	return a, nil
}

// DecodeBackup reads the body of PUT /room_keys/keys with what room and session leave to it: both empty, a room, or a room and a
// session. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func DecodeBackup(body []byte, room, session string) ([]storage.BackupSession, error) {
	const shape = "the keys of a backup have the wrong shape"
	rooms := map[string]map[string]json.RawMessage{}
	switch {
	case room == "":
		var raw struct {
			Rooms map[string]struct {
				Sessions map[string]json.RawMessage `json:"sessions"`
			} `json:"rooms"`
		}
		if err := decode(body, &raw, shape); err != nil {
			return nil, err
		}
		if raw.Rooms == nil {
			return nil, signalling.BadJSON("rooms is missing")
		}
		for id, r := range raw.Rooms {
			rooms[id] = r.Sessions
		}
	case session == "":
		var raw struct {
			Sessions map[string]json.RawMessage `json:"sessions"`
		}
		if err := decode(body, &raw, shape); err != nil {
			return nil, err
		}
		if raw.Sessions == nil {
			return nil, signalling.BadJSON("sessions is missing")
		}
		rooms[room] = raw.Sessions
	default:
		var raw json.RawMessage
		if err := decode(body, &raw, shape); err != nil {
			return nil, err
		}
		rooms[room] = map[string]json.RawMessage{session: raw}
	}
	var out []storage.BackupSession
	for roomID, sessions := range rooms {
		if err := checkID("a room id", roomID); err != nil {
			return nil, err
		}
		for id, raw := range sessions {
			if err := checkID("a session id", id); err != nil {
				return nil, err
			}
			k, err := decodeBackupKey(raw)
			if err != nil {
				return nil, err
			}
			k.Room, k.Session = roomID, id
			if out = append(out, k); len(out) > MaxBackupPut {
				return nil, signalling.TooLarge("%d keys may be backed up at once", MaxBackupPut)
			}
		}
	}
	slices.SortFunc(out, func(a, b storage.BackupSession) int {
		if c := strings.Compare(a.Room, b.Room); c != 0 {
			return c
		}
		return strings.Compare(a.Session, b.Session)
	})
	return out, nil
}

func decodeBackupKey(raw json.RawMessage) (k storage.BackupSession, err error) {
	var v struct {
		FirstMessageIndex *int64          `json:"first_message_index"`
		ForwardedCount    *int64          `json:"forwarded_count"`
		IsVerified        *bool           `json:"is_verified"`
		SessionData       json.RawMessage `json:"session_data"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return k, signalling.BadJSON("first_message_index and forwarded_count are whole numbers, is_verified is true or false").Because(err)
	}
	if v.FirstMessageIndex == nil || v.ForwardedCount == nil || v.IsVerified == nil || len(v.SessionData) == 0 {
		return k, signalling.BadJSON("a key needs first_message_index, forwarded_count, is_verified and session_data")
	}
	if *v.FirstMessageIndex < 0 || *v.ForwardedCount < 0 || *v.FirstMessageIndex > event.MaxDepthVal || *v.ForwardedCount > event.MaxDepthVal {
		return k, signalling.BadJSON("first_message_index and forwarded_count must be between 0 and 2^53-1")
	}
	if v.SessionData[0] != '{' {
		return k, signalling.BadJSON("session_data must be an object")
	}
	if len(v.SessionData) > MaxSessionData {
		return k, signalling.TooLarge("session_data may have %d bytes", MaxSessionData)
	}
	return storage.BackupSession{FirstIndex: *v.FirstMessageIndex, Forwarded: *v.ForwardedCount, Verified: *v.IsVerified, Data: string(v.SessionData)}, nil
}

var (
	errNoBackup  = signalling.NotFound("there is no such backup")
	errNoCurrent = signalling.NotFound("there is no backup")
)

// versionNumber reads a version; what is no number is a backup that does not exist.
func versionNumber(version string) (int64, error) {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n <= 0 || n == math.MaxInt64 || strconv.FormatInt(n, 10) != version {
		return 0, errNoBackup
	}
	return n, nil
}

func (s *Service) backup(ctx context.Context, user, version string) (storage.BackupVersion, error) {
	n, err := versionNumber(version)
	if err != nil {
		return storage.BackupVersion{}, err
	}
	b, err := s.store.BackupVersion(ctx, user, n)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && b.Deleted) {
		return b, errNoBackup
	}
	return b, err
}

// CreateBackup makes a new, empty backup, which is the current one from now on, and gives its version.
func (s *Service) CreateBackup(ctx context.Context, user string, a *BackupAuth) (string, error) {
	var version int64
	err := s.write(ctx, func(tx *storage.Tx) (refused, err error) {
		if _, err := tx.NextPos(); err != nil { // its lock keeps another node from the same number
			return nil, err
		}
		version, err = tx.NewBackupVersion(user, a.Algorithm, a.AuthData)
		return nil, err
	}, nil)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(version, 10), nil
}

// BackupInfo describes a backup; version "" is the current one. Errors: M_NOT_FOUND.
func (s *Service) BackupInfo(ctx context.Context, user, version string) (*BackupInfo, error) {
	var b storage.BackupVersion
	var err error
	if version == "" {
		if b, err = s.store.BackupVersion(ctx, user, 0); errors.Is(err, storage.ErrNotFound) {
			return nil, errNoCurrent
		}
	} else {
		b, err = s.backup(ctx, user, version)
	}
	if err != nil {
		return nil, err
	}
	state := stateOf(b)
	return &BackupInfo{Algorithm: b.Algorithm, AuthData: json.RawMessage(b.AuthData), Count: state.Count, ETag: state.ETag, Version: strconv.FormatInt(b.Version, 10)}, nil
}

func stateOf(b storage.BackupVersion) *BackupState {
	return &BackupState{Count: b.Sessions, ETag: strconv.FormatInt(b.ETag, 10)}
}

// UpdateBackup replaces the auth_data of a backup. Errors: M_NOT_FOUND, M_INVALID_PARAM (another algorithm, another version).
func (s *Service) UpdateBackup(ctx context.Context, user, version string, a *BackupAuth) error {
	if a.Version != "" && a.Version != version {
		return signalling.InvalidParam("the version in the body is not the version in the path")
	}
	return s.changeBackup(ctx, user, version, func(tx *storage.Tx, b storage.BackupVersion) (refused, err error) {
		if b.Algorithm != a.Algorithm {
			return signalling.InvalidParam("the algorithm of a backup cannot be changed"), nil
		}
		return nil, tx.SetBackupAuthData(user, b.Version, a.AuthData)
	})
}

// changeBackup runs change on a backup that is there.
func (s *Service) changeBackup(ctx context.Context, user, version string, change func(*storage.Tx, storage.BackupVersion) (refused, err error)) error {
	n, err := versionNumber(version)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) (refused, err error) {
		b, err := tx.BackupVersion(user, n)
		if errors.Is(err, storage.ErrNotFound) || (err == nil && b.Deleted) {
			return errNoBackup, nil
		}
		if err != nil {
			return nil, err
		}
		return change(tx, b)
	}, nil)
}

// DeleteBackup deletes a backup with its keys; doing it again is no error. Errors: M_NOT_FOUND (there never was one).
func (s *Service) DeleteBackup(ctx context.Context, user, version string) error {
	n, err := versionNumber(version)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) (refused, err error) {
		b, err := tx.BackupVersion(user, n)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return errNoBackup, nil
		case err != nil || b.Deleted:
			return nil, err
		}
		return nil, tx.DropBackupVersion(user, n)
	}, nil)
}

// PutBackupKeys stores keys in the current backup, each where it is better than the one there: verified before not, then with the lower
// first_message_index, then with the lower forwarded_count. Errors: M_NOT_FOUND, M_WRONG_ROOM_KEYS_VERSION with current_version
// (not the current backup), M_TOO_LARGE.
func (s *Service) PutBackupKeys(ctx context.Context, user, version string, keys []storage.BackupSession) (state *BackupState, err error) {
	n, err := versionNumber(version)
	if err != nil {
		return nil, err
	}
	for {
		part := keys[:min(len(keys), keysPerWrite)]
		keys = keys[len(part):]
		if state, err = s.putBackupKeys(ctx, user, n, part); err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			return state, nil
		}
	}
}

func (s *Service) putBackupKeys(ctx context.Context, user string, n int64, keys []storage.BackupSession) (*BackupState, error) {
	var state *BackupState
	err := s.write(ctx, func(tx *storage.Tx) (refused, err error) {
		current, err := tx.BackupVersion(user, 0)
		if errors.Is(err, storage.ErrNotFound) {
			return errNoCurrent, nil
		}
		if err != nil {
			return nil, err
		}
		if current.Version != n {
			other, err := tx.BackupVersion(user, n)
			if errors.Is(err, storage.ErrNotFound) || (err == nil && other.Deleted) {
				return errNoBackup, nil
			}
			if err != nil {
				return nil, err
			}
			return signalling.Refuse(http.StatusForbidden, "M_WRONG_ROOM_KEYS_VERSION", "this is not the current backup").
				With("current_version", strconv.FormatInt(current.Version, 10)), nil
		}
		if current.Sessions+int64(len(keys)) > MaxBackupSessions {
			return signalling.TooLarge("a backup may hold %d keys", MaxBackupSessions), nil
		}
		added, changed, err := tx.PutBackupSessions(user, n, keys)
		if err != nil {
			return nil, err
		}
		if changed > 0 {
			if current, err = tx.CountBackupChange(user, n, added); err != nil {
				return nil, err
			}
		}
		state = stateOf(current)
		return nil, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return state, nil
}

// DeleteBackupKeys removes the keys of a backup: of all rooms, of a room, of a session; "" means all. Errors: M_NOT_FOUND (no backup).
func (s *Service) DeleteBackupKeys(ctx context.Context, user, version, room, session string) (*BackupState, error) {
	var state *BackupState
	err := s.changeBackup(ctx, user, version, func(tx *storage.Tx, b storage.BackupVersion) (refused, err error) {
		gone, err := tx.DropBackupSessions(user, b.Version, room, session)
		if err != nil {
			return nil, err
		}
		if gone > 0 {
			if b, err = tx.CountBackupChange(user, b.Version, -gone); err != nil {
				return nil, err
			}
		}
		state = stateOf(b)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return state, nil
}

// BackupKeys gives the keys of a backup by room; room "" means all rooms. Errors: M_NOT_FOUND (no backup).
func (s *Service) BackupKeys(ctx context.Context, user, version, room string) (*Backup, error) {
	b, err := s.backup(ctx, user, version)
	if err != nil {
		return nil, err
	}
	out := &Backup{Rooms: map[string]RoomBackup{}}
	err = s.store.BackupSessions(ctx, user, b.Version, room, "", func(k storage.BackupSession) {
		r, ok := out.Rooms[k.Room]
		if !ok {
			r = RoomBackup{Sessions: map[string]BackupKey{}}
			out.Rooms[k.Room] = r
		}
		r.Sessions[k.Session] = backupKey(k)
	})
	return out, err
}

// BackupKey gives the key of one session. Errors: M_NOT_FOUND.
func (s *Service) BackupKey(ctx context.Context, user, version, room, session string) (*BackupKey, error) {
	b, err := s.backup(ctx, user, version)
	if err != nil {
		return nil, err
	}
	var found *BackupKey
	err = s.store.BackupSessions(ctx, user, b.Version, room, session, func(k storage.BackupSession) {
		v := backupKey(k)
		found = &v
	})
	if err == nil && found == nil {
		return nil, signalling.NotFound("the backup does not hold that key")
	}
	return found, err
}

func backupKey(k storage.BackupSession) BackupKey {
	return BackupKey{FirstMessageIndex: k.FirstIndex, ForwardedCount: k.Forwarded, IsVerified: k.Verified, SessionData: json.RawMessage(k.Data)}
}
