// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Login says on which device somebody logs in.
type Login struct {
	DeviceID    string // "" makes a new one
	DisplayName string // for a new device
	Refresh     bool   // the access token expires and can be refreshed
}

// Tokens is what a log-in gives. RefreshToken is "" and ExpiresIn 0 when the access token does not expire.
type Tokens struct {
	UserID, DeviceID string
	AccessToken      string
	RefreshToken     string
	ExpiresIn        time.Duration
}

const (
	maxDeviceID   = 255 // bytes
	maxDeviceName = 256
	spentTime     = 30 * 24 * time.Hour // how long the reuse of a refresh token is noticed
)

var errWrongPassword = signalling.Forbidden("wrong user name or password")

func (l *Login) check() error {
	if len(l.DeviceID) > maxDeviceID {
		return signalling.InvalidParam("a device_id may have %d bytes", maxDeviceID)
	}
	if len(l.DisplayName) > maxDeviceName {
		return signalling.TooLarge("a device's display name may have %d bytes", maxDeviceName)
	}
	return nil
}

// UserID makes a user id of this server from what somebody typed: a localpart or a whole id. It is "" for users of other servers and
// for what is no user id.
func (s *Service) UserID(typed string) string {
	id := strings.TrimSpace(typed)
	if !strings.HasPrefix(id, "@") {
		id = "@" + id + ":" + s.cfg.Server
	}
	if _, server, err := event.UserID(id); err != nil || server != s.cfg.Server {
		return ""
	}
	return id
}

// VerifyPassword checks a user's password and gives his account. It takes as long for users who are not there. Errors: M_FORBIDDEN,
// M_USER_DEACTIVATED.
func (s *Service) VerifyPassword(ctx context.Context, userID, password string) (storage.User, error) {
	u, err := s.findUser(ctx, userID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return u, err
	}
	ok, outdated, err := s.hasher.verify(ctx, u.PasswordHash, password)
	switch {
	case err != nil:
		return u, err
	case u.Deactivated:
		return u, signalling.Refuse(http.StatusForbidden, "M_USER_DEACTIVATED", "this account has been deactivated")
	case !ok:
		return u, errWrongPassword
	}
	if outdated {
		hash, err := s.hasher.hash(ctx, password)
		if err != nil {
			return u, err
		}
		if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SwapPasswordHash(u.ID, u.PasswordHash, hash) }); err != nil {
			return u, err
		}
		u.PasswordHash = hash
	}
	return u, nil
}

// findUser reads an account; capitals are folded where there is no account with them (ids made today have none, old ones may).
func (s *Service) findUser(ctx context.Context, userID string) (storage.User, error) {
	if userID == "" {
		return storage.User{}, storage.ErrNotFound
	}
	u, err := s.store.User(ctx, userID)
	if local, _, ok := strings.Cut(userID, ":"); ok && errors.Is(err, storage.ErrNotFound) && strings.ToLower(local) != local {
		return s.store.User(ctx, strings.ToLower(local)+":"+s.cfg.Server)
	}
	return u, err
}

// LoginPassword logs a user in by his id ("" takes as long, and says no). A device that he logs in on again loses its old tokens and keeps
// everything else. Errors: M_FORBIDDEN, M_USER_DEACTIVATED, M_USER_LOCKED, M_INVALID_PARAM, M_TOO_LARGE.
func (s *Service) LoginPassword(ctx context.Context, userID, password string, l Login) (Tokens, error) {
	if err := l.check(); err != nil {
		return Tokens{}, err
	}
	u, err := s.VerifyPassword(ctx, userID, password)
	if err != nil {
		return Tokens{}, err
	}
	if u.Locked {
		return Tokens{}, ErrLocked
	}
	grant := s.newGrant(u.ID, l)
	var gone [][]byte
	err = s.store.Write(ctx, func(tx *storage.Tx) (err error) {
		if now, err := tx.User(u.ID); err != nil || now.PasswordHash != u.PasswordHash {
			return errors.Join(err, errWrongPassword) // changed while we hashed
		}
		gone, err = grant.write(tx)
		return err
	})
	if err != nil {
		return Tokens{}, err
	}
	s.forget(gone)
	return grant.Tokens, nil
}

// grant is a log-in on its way to the database. It is made outside of the transaction, which may run twice.
type grant struct {
	Tokens
	device  storage.Device
	access  storage.AccessToken
	refresh *storage.RefreshToken
}

func (s *Service) newGrant(userID string, l Login) *grant {
	now := s.clock.Now()
	if l.DeviceID == "" {
		l.DeviceID = randomLetters(10)
	}
	g := &grant{
		Tokens: Tokens{UserID: userID, DeviceID: l.DeviceID},
		device: storage.Device{UserID: userID, ID: l.DeviceID, DisplayName: l.DisplayName, CreatedTS: now.UnixMilli()},
	}
	s.newTokens(g, l.Refresh, nil)
	return g
}

func (s *Service) newTokens(g *grant, refresh bool, parent []byte) {
	now := s.clock.Now()
	g.AccessToken = newSecret("tba_")
	hash := hashToken(g.AccessToken)
	g.access = storage.AccessToken{Hash: hash[:], UserID: g.UserID, DeviceID: g.DeviceID, Parent: parent}
	if !refresh {
		return
	}
	g.ExpiresIn = s.cfg.TokenTime
	g.access.ExpiresTS = now.Add(g.ExpiresIn).UnixMilli()
	g.RefreshToken = newSecret("tbr_")
	rhash := hashToken(g.RefreshToken)
	g.refresh = &storage.RefreshToken{Hash: rhash[:], UserID: g.UserID, DeviceID: g.DeviceID, CreatedTS: now.UnixMilli(), Parent: parent}
}

// write stores the log-in and gives the hashes of the tokens that it ends.
func (g *grant) write(tx *storage.Tx) ([][]byte, error) {
	gone, err := tx.DropTokens(g.UserID, g.DeviceID, "")
	if err != nil {
		return nil, err
	}
	if err := tx.EnsureDevice(g.device); err != nil {
		return nil, err
	}
	return gone, g.writeTokens(tx)
}

func (g *grant) writeTokens(tx *storage.Tx) error {
	if err := tx.InsertAccessToken(g.access); err != nil {
		return err
	}
	if g.refresh == nil {
		return nil
	}
	return tx.InsertRefreshToken(*g.refresh)
}

// errReused undoes nothing: it tells Refresh, after the commit, that a thief or his victim came too late.
var errReused = errors.New("accounts: refresh token reused")

// Refresh gives new tokens for a refresh token (client-server API, "Refreshing access tokens"). The old ones end when one of the new
// ones is used, so a client that lost the answer may ask again. A refresh token that comes back after that has been stolen, from or
// by whoever sends it: all tokens of the device end. Errors: M_UNKNOWN_TOKEN.
func (s *Service) Refresh(ctx context.Context, token string) (Tokens, error) {
	hash := hashToken(token)
	g := &grant{}
	var gone [][]byte
	var reused bool
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		reused, gone = false, nil
		t, err := tx.RefreshToken(hash[:])
		if err != nil {
			return err
		}
		u, err := tx.User(t.UserID)
		if err != nil {
			return err
		}
		if u.Deactivated {
			return storage.ErrNotFound
		}
		if u.Locked {
			return ErrLocked // nothing new for him until somebody opens it again
		}
		*g = grant{Tokens: Tokens{UserID: t.UserID, DeviceID: t.DeviceID}}
		if t.Spent {
			reused = true
			gone, err = tx.DropTokens(t.UserID, t.DeviceID, "")
			return err
		}
		if t.Parent != nil {
			// Using it shows that it arrived.
			parent, err := tx.RefreshToken(t.Parent)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if err == nil && !parent.Spent {
				if gone, err = tx.SpendRefreshToken(parent, s.clock.Now().Add(-spentTime).UnixMilli()); err != nil {
					return err
				}
			}
		}
		dropped, err := tx.DropSuccessors(t.Hash)
		if err != nil {
			return err
		}
		gone = append(gone, dropped...)
		s.newTokens(g, true, t.Hash)
		return g.writeTokens(tx)
	})
	if errors.Is(err, storage.ErrNotFound) {
		return Tokens{}, signalling.UnknownToken(false)
	}
	if err != nil {
		return Tokens{}, err
	}
	s.forget(gone)
	if reused {
		s.log.Warn("a refresh token was used twice; its device is logged out", "user", g.UserID, "device", g.DeviceID)
		s.ended(g.UserID, g.DeviceID)
		return Tokens{}, signalling.UnknownToken(true).Because(errReused)
	}
	return g.Tokens, nil
}

// arrived notes that a successor of a refresh token has been used.
func (s *Service) arrived(ctx context.Context, parent []byte) error {
	var gone [][]byte
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		gone = nil
		t, err := tx.RefreshToken(parent)
		if errors.Is(err, storage.ErrNotFound) || err == nil && t.Spent {
			return nil
		}
		if err != nil {
			return err
		}
		gone, err = tx.SpendRefreshToken(t, s.clock.Now().Add(-spentTime).UnixMilli())
		return err
	})
	if err == nil {
		s.forget(gone)
	}
	return err
}

// ended tells the others that a device's tokens ended.
func (s *Service) ended(userID, deviceID string) {
	for _, h := range s.hooks {
		if h.Logout != nil {
			h.Logout(userID, deviceID)
		}
	}
}
