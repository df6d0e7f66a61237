// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const maxBackupBody = 8 << 20 // bytes of keys in one upload

// routesBackup: "Server-side key backups". All of it is the caller's own: no path names a user.
func (a *API) routesBackup() {
	if a.E2EE == nil {
		return
	}
	const base = "/_matrix/client/v3/room_keys"
	a.route("POST "+base+"/version", Token, "requests", func(r *Request) (any, error) {
		auth, err := decodeBody(r, MaxBody, e2ee.DecodeBackupAuth)
		if err != nil {
			return nil, err
		}
		version, err := a.E2EE.CreateBackup(r.Context(), r.UserID, auth)
		return map[string]string{"version": version}, err
	})
	a.route("GET "+base+"/version", Token, "requests", func(r *Request) (any, error) {
		return a.E2EE.BackupInfo(r.Context(), r.UserID, "")
	})
	a.route("GET "+base+"/version/{version}", Token, "requests", func(r *Request) (any, error) {
		return a.E2EE.BackupInfo(r.Context(), r.UserID, r.PathValue("version"))
	})
	a.route("PUT "+base+"/version/{version}", Token, "requests", func(r *Request) (any, error) {
		auth, err := decodeBody(r, MaxBody, e2ee.DecodeBackupAuth)
		if err != nil {
			return nil, err
		}
		return nil, a.E2EE.UpdateBackup(r.Context(), r.UserID, r.PathValue("version"), auth)
	})
	a.route("DELETE "+base+"/version/{version}", Token, "requests", func(r *Request) (any, error) {
		return nil, a.E2EE.DeleteBackup(r.Context(), r.UserID, r.PathValue("version"))
	})
	for _, path := range []string{"/keys", "/keys/{room}", "/keys/{room}/{session}"} {
		a.route("PUT "+base+path, Token, "requests", a.backupPut)
		a.route("GET "+base+path, Token, "requests", a.backupGet)
		a.route("DELETE "+base+path, Token, "requests", a.backupDelete)
	}
}

func backupVersion(r *Request) (string, error) {
	v := r.Param("version")
	if v == "" {
		return "", signalling.MissingParam("version is needed: the version of the backup")
	}
	return v, nil
}

func (a *API) backupPut(r *Request) (any, error) {
	version, err := backupVersion(r)
	if err != nil {
		return nil, err
	}
	keys, err := decodeBody(r, maxBackupBody, func(body []byte) ([]storage.BackupSession, error) {
		return e2ee.DecodeBackup(body, r.PathValue("room"), r.PathValue("session"))
	})
	if err != nil {
		return nil, err
	}
	return a.E2EE.PutBackupKeys(r.Context(), r.UserID, version, keys)
}

func (a *API) backupGet(r *Request) (any, error) {
	version, err := backupVersion(r)
	if err != nil {
		return nil, err
	}
	room, session := r.PathValue("room"), r.PathValue("session")
	if session != "" {
		return a.E2EE.BackupKey(r.Context(), r.UserID, version, room, session)
	}
	all, err := a.E2EE.BackupKeys(r.Context(), r.UserID, version, room)
	if err != nil || room == "" {
		return all, err
	}
	if one, ok := all.Rooms[room]; ok {
		return one, nil
	}
	return e2ee.RoomBackup{Sessions: map[string]e2ee.BackupKey{}}, nil
}

func (a *API) backupDelete(r *Request) (any, error) {
	version, err := backupVersion(r)
	if err != nil {
		return nil, err
	}
	return a.E2EE.DeleteBackupKeys(r.Context(), r.UserID, version, r.PathValue("room"), r.PathValue("session"))
}
