// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of what a user may store.
const (
	MaxAccountData   = 256 << 10 // bytes of one piece
	maxAccountPieces = 10_000
	maxFilters       = 1000
	maxTags          = 100
)

// SetAccountData stores a piece of account data, a JSON object; roomID "" is global. Errors: M_TOO_LARGE, M_INVALID_PARAM,
// M_RESOURCE_LIMIT_EXCEEDED.
func (s *Service) SetAccountData(ctx context.Context, userID, roomID, typ string, content json.RawMessage) error {
	return s.changeAccountData(ctx, userID, roomID, typ, func([]byte) ([]byte, error) { return content, nil })
}

// changeAccountData stores what change makes of a piece of account data, which is nil where there is none. change may run twice.
func (s *Service) changeAccountData(ctx context.Context, userID, roomID, typ string, change func(old []byte) ([]byte, error)) error {
	if typ == "" || len(typ) > event.MaxIDLength || len(roomID) > event.MaxIDLength {
		return signalling.InvalidParam("the type of account data has 1 to %d bytes", event.MaxIDLength)
	}
	if roomID != "" && roomID[0] != '!' {
		return signalling.InvalidParam("%q is not a room id", roomID)
	}
	return s.store.Write(ctx, func(tx *storage.Tx) error {
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		old, err := tx.AccountData(userID, roomID, typ)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		content, err := change(old.Content)
		if err != nil {
			return err
		}
		if len(content) > MaxAccountData {
			return signalling.TooLarge("a piece of account data may have %d bytes", MaxAccountData)
		}
		switch typ {
		case ignoreType:
			tx.After(func() { s.ignore.changed(userID) })
		case inviteType, inviteType4380, inviteFilterType:
			tx.After(func() { s.invites.changed(userID) })
		}
		fresh, err := tx.PutAccountData(storage.AccountData{UserID: userID, RoomID: roomID, Type: typ, Content: content, Pos: pos})
		if err != nil || !fresh {
			return err
		}
		n, err := tx.CountAccountData(userID)
		if err == nil && n > maxAccountPieces {
			err = signalling.Refuse(http.StatusForbidden, "M_RESOURCE_LIMIT_EXCEEDED", "a user may have %d pieces of account data", maxAccountPieces)
		}
		return err
	})
}

// AccountData reads a piece of account data. Errors: M_NOT_FOUND.
func (s *Service) AccountData(ctx context.Context, userID, roomID, typ string) (json.RawMessage, error) {
	d, err := s.store.AccountData(ctx, userID, roomID, typ)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, signalling.NotFound("there is no account data of that type")
	}
	return d.Content, err
}

// SetFullyRead stores how far a user has read a room (m.fully_read).
func (s *Service) SetFullyRead(ctx context.Context, userID, roomID, eventID string) error {
	content, err := json.Marshal(map[string]string{"event_id": eventID})
	if err != nil {
		return err
	}
	return s.SetAccountData(ctx, userID, roomID, "m.fully_read", content)
}

// Tags reads the tags that a user gave a room.
func (s *Service) Tags(ctx context.Context, userID, roomID string) (map[string]json.RawMessage, error) {
	d, err := s.store.AccountData(ctx, userID, roomID, "m.tag")
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	return tagsOf(d.Content), nil
}

// tagsOf reads the content of m.tag, which clients may also have written themselves.
func tagsOf(content []byte) map[string]json.RawMessage {
	var c struct {
		Tags map[string]json.RawMessage `json:"tags"`
	}
	if json.Unmarshal(content, &c) != nil || c.Tags == nil {
		return map[string]json.RawMessage{}
	}
	return c.Tags
}

// SetTag gives a room a tag, or with a nil content takes it away. Errors: M_TOO_LARGE, M_INVALID_PARAM.
func (s *Service) SetTag(ctx context.Context, userID, roomID, tag string, content json.RawMessage) error {
	if tag == "" || len(tag) > 255 {
		return signalling.InvalidParam("a tag has 1 to 255 bytes")
	}
	return s.changeAccountData(ctx, userID, roomID, "m.tag", func(old []byte) ([]byte, error) {
		tags := tagsOf(old)
		if content == nil {
			delete(tags, tag)
		} else {
			tags[tag] = content
		}
		if len(tags) > maxTags {
			return nil, signalling.TooLarge("a room may have %d tags", maxTags)
		}
		return json.Marshal(map[string]any{"tags": tags})
	})
}

type filterKey struct{ userID, id string }

// AddFilter stores a filter for a user and gives its id; the same filter has the same id. Errors: as filter.Parse, and
// M_RESOURCE_LIMIT_EXCEEDED.
func (s *Service) AddFilter(ctx context.Context, userID string, raw json.RawMessage) (string, error) {
	f, err := filter.Parse(raw)
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(raw)
	n, err := s.store.FilterID(ctx, userID, hash[:])
	if errors.Is(err, storage.ErrNotFound) {
		err = s.store.Write(ctx, func(tx *storage.Tx) (err error) {
			n, err = tx.PutFilter(userID, hash[:], raw, maxFilters)
			return err
		})
	}
	if errors.Is(err, storage.ErrExists) {
		return "", signalling.Refuse(http.StatusForbidden, "M_RESOURCE_LIMIT_EXCEEDED", "a user may have %d filters", maxFilters)
	}
	if err != nil {
		return "", err
	}
	id := strconv.FormatInt(n, 10)
	s.filters.Add(hash, f)
	s.filterIDs.Add(filterKey{userID, id}, hash)
	return id, nil
}

// FilterJSON reads a filter as it was stored. Errors: M_NOT_FOUND.
func (s *Service) FilterJSON(ctx context.Context, userID, id string) (json.RawMessage, error) {
	_, raw, err := s.readFilter(ctx, userID, id)
	return raw, err
}

func (s *Service) readFilter(ctx context.Context, userID, id string) (hash [32]byte, raw []byte, err error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt32 || strconv.FormatInt(n, 10) != id {
		return hash, nil, errNoFilter
	}
	h, raw, err := s.store.Filter(ctx, userID, n)
	if errors.Is(err, storage.ErrNotFound) {
		return hash, nil, errNoFilter
	}
	copy(hash[:], h)
	return hash, raw, err
}

var errNoFilter = signalling.NotFound("there is no filter of that id")

// Filter gives a stored filter, ready for use, from memory where it was used lately. It is shared: do not change it. Errors:
// M_NOT_FOUND.
func (s *Service) Filter(ctx context.Context, userID, id string) (*filter.Filter, error) {
	key := filterKey{userID, id}
	if hash, ok := s.filterIDs.Get(key); ok {
		if f, ok := s.filters.Get(hash); ok {
			return f, nil
		}
	}
	hash, raw, err := s.readFilter(ctx, userID, id)
	if err != nil {
		return nil, err
	}
	f, err := filter.Parse(raw)
	if err != nil {
		return nil, err
	}
	s.filters.Add(hash, f)
	s.filterIDs.Add(key, hash)
	return f, nil
}
