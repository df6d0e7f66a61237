// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// LoginTokenTime is the life of a log-in token; the spec recommends two minutes.
const LoginTokenTime = 2 * time.Minute

// LoginToken makes a token with which another device of the user can log in once, within LoginTokenTime (client-server API,
// "POST /login/get_token"). A new password and the end of the account take it back.
func (s *Service) LoginToken(ctx context.Context, userID string) (string, error) {
	token := newSecret("tbl_")
	hash, expires := hashToken(token), s.clock.Now().Add(LoginTokenTime).UnixMilli()
	err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertLoginToken(hash[:], userID, expires) })
	return token, err
}

// LoginByToken logs somebody in with a token of LoginToken, and uses it up. Errors: M_FORBIDDEN, M_USER_DEACTIVATED, M_USER_LOCKED,
// M_INVALID_PARAM, M_TOO_LARGE.
func (s *Service) LoginByToken(ctx context.Context, token string, l Login) (Tokens, error) {
	if err := l.check(); err != nil {
		return Tokens{}, err
	}
	hash, now := hashToken(token), s.clock.Now().UnixMilli()
	var g *grant
	var gone [][]byte
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		id, err := tx.SpendLoginToken(hash[:], now)
		if err != nil {
			return err
		}
		u, err := tx.User(id)
		switch {
		case err != nil:
			return err
		case u.Deactivated:
			return signalling.Refuse(http.StatusForbidden, "M_USER_DEACTIVATED", "this account has been deactivated")
		case u.Locked:
			return ErrLocked
		}
		g = s.newGrant(id, l)
		gone, err = g.write(tx)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return Tokens{}, signalling.Forbidden("that log-in token is unknown, used or too old; ask for a new one")
	}
	if err != nil {
		return Tokens{}, err
	}
	s.forget(gone)
	return g.Tokens, nil
}
