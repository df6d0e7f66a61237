// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of a profile, in bytes (client-server API, "Profiles").
const (
	maxDisplayName = 256
	maxAvatarURL   = 1000
	maxFieldName   = 255
	maxProfile     = 65536
)

// Profile is what a user tells about himself: JSON values by field name. displayname and avatar_url are missing when not set.
type Profile map[string]json.RawMessage

// Profile reads the profile of a user of this server. Errors: M_NOT_FOUND.
func (s *Service) Profile(ctx context.Context, userID string) (Profile, error) {
	u, err := s.store.User(ctx, userID)
	if err == nil && u.Deactivated {
		err = storage.ErrNotFound
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil, signalling.NotFound("there is no profile of that user")
	}
	if err != nil {
		return nil, err
	}
	return profileOf(u)
}

func profileOf(u storage.User) (Profile, error) {
	p := Profile{}
	if len(u.Profile) > 0 {
		if err := json.Unmarshal(u.Profile, &p); err != nil {
			return nil, err
		}
	}
	for field, text := range map[string]string{"displayname": u.DisplayName, "avatar_url": u.AvatarURL} {
		if text == "" {
			continue
		}
		b, err := json.Marshal(text)
		if err != nil {
			return nil, err
		}
		p[field] = b
	}
	return p, nil
}

// NameAndAvatar is what a membership event carries of the profile (rooms.Profile): nil for what is not set, or for a user who is not
// there.
func (s *Service) NameAndAvatar(ctx context.Context, userID string) (name, avatar *string, err error) {
	u, err := s.store.User(ctx, userID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, nil
	}
	if u.DisplayName != "" {
		name = &u.DisplayName
	}
	if u.AvatarURL != "" {
		avatar = &u.AvatarURL
	}
	return name, avatar, err
}

// SetProfileField changes one field; a nil value, or null, removes it. displayname and avatar_url are strings, others any JSON.
// Errors: M_BAD_JSON, M_TOO_LARGE, M_KEY_TOO_LARGE, M_PROFILE_TOO_LARGE, M_INVALID_PARAM, M_NOT_FOUND.
func (s *Service) SetProfileField(ctx context.Context, userID, field string, value json.RawMessage) error {
	if field == "" {
		return signalling.InvalidParam("a profile field has a name")
	}
	if len(field) > maxFieldName {
		return signalling.Refuse(http.StatusBadRequest, "M_KEY_TOO_LARGE", "the name of a profile field may have %d bytes", maxFieldName)
	}
	if string(value) == "null" {
		value = nil
	}
	if field != "displayname" && field != "avatar_url" {
		return noUser(s.store.Write(ctx, func(tx *storage.Tx) error { return setField(tx, userID, field, value) }))
	}
	var text string
	if value != nil {
		if err := json.Unmarshal(value, &text); err != nil {
			return signalling.BadJSON("%s must be a string", field)
		}
	}
	set, most := (*storage.Tx).SetDisplayName, maxDisplayName
	if field == "avatar_url" {
		set, most = (*storage.Tx).SetAvatarURL, maxAvatarURL
	}
	if len(text) > most {
		return signalling.TooLarge("%s may have %d bytes", field, most)
	}
	if err := noUser(s.store.Write(ctx, func(tx *storage.Tx) error { return set(tx, userID, text) })); err != nil {
		return err
	}
	for _, h := range s.hooks {
		if h.ProfileChange != nil {
			h.ProfileChange(ctx, userID)
		}
	}
	return nil
}

func setField(tx *storage.Tx, userID, field string, value json.RawMessage) error {
	u, err := tx.User(userID)
	if err != nil {
		return err
	}
	fields := Profile{}
	if len(u.Profile) > 0 {
		if err := json.Unmarshal(u.Profile, &fields); err != nil {
			return err
		}
	}
	if value == nil {
		delete(fields, field)
	} else {
		fields[field] = value
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if len(b)+len(u.DisplayName)+len(u.AvatarURL) > maxProfile {
		return signalling.Refuse(http.StatusBadRequest, "M_PROFILE_TOO_LARGE", "a profile may have %d bytes", maxProfile)
	}
	return tx.SetProfile(userID, b)
}
