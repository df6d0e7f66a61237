// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"errors"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// IsGuest says whether a user is a guest of this server.
func (s *Service) IsGuest(ctx context.Context, userID string) (bool, error) {
	if event.ServerOf(userID) != s.cfg.Server {
		return false, nil
	}
	u, err := s.store.User(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return u.Guest, err
}

// Guests lists the guests of this server in the order of their ids, after an id, at most limit.
func (s *Service) Guests(ctx context.Context, after string, limit int) ([]string, error) {
	return s.store.Guests(ctx, after, limit)
}

// UpgradeGuest checks that a new account may be made of the guest whom an access token belongs to, and gives his id: n.Localpart must
// name him (client-server API, "Guest Access"). Errors: M_UNKNOWN_TOKEN, M_FORBIDDEN when it is no guest's, M_INVALID_USERNAME.
func (s *Service) UpgradeGuest(ctx context.Context, token, localpart string) (string, error) {
	x, err := s.Authenticate(ctx, token)
	switch {
	case err != nil:
		return "", err
	case !x.Guest:
		return "", signalling.Forbidden("that access token is not a guest's")
	case x.Locked:
		return "", ErrLocked
	}
	name, err := s.CheckLocalpart(localpart)
	if err == nil && "@"+name+":"+s.cfg.Server != x.UserID {
		err = signalling.Refuse(400, "M_INVALID_USERNAME", "username must be the guest's own: the part of the user id before the colon")
	}
	return x.UserID, err
}
