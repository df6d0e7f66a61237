// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"net/http"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// LoginTrusted logs a user in without asking who it is: for the operator at the server's own command line. Errors: M_NOT_FOUND,
// M_USER_DEACTIVATED, M_INVALID_PARAM, M_TOO_LARGE.
func (s *Service) LoginTrusted(ctx context.Context, userID string, l Login) (Tokens, error) {
	if err := l.check(); err != nil {
		return Tokens{}, err
	}
	g := s.newGrant(userID, l)
	var gone [][]byte
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		u, err := tx.User(userID)
		if err != nil {
			return err
		}
		if u.Deactivated {
			return signalling.Refuse(http.StatusForbidden, "M_USER_DEACTIVATED", "this account has been deactivated")
		}
		gone, err = g.write(tx)
		return err
	})
	if err != nil {
		return Tokens{}, noUser(err)
	}
	s.forget(gone)
	return g.Tokens, nil
}
