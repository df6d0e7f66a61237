// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	ignoreCache = 20000       // users whose list is kept
	ignoreFresh = time.Minute // after that it is read again, for what another node wrote
)

// ignoreLists keeps whom users ignore, as every delivery to them asks for it.
type ignoreLists struct {
	mu    sync.Mutex
	kept  *lru.Cache[string, ignoreList]
	epoch int64 // counts changes, so that a list that was read before one is not kept after it
}

type ignoreList struct {
	users map[string]struct{}
	until time.Time
}

func newIgnoreLists() *ignoreLists {
	c, _ := lru.New[string, ignoreList](ignoreCache)
	return &ignoreLists{kept: c}
}

func (l *ignoreLists) get(userID string, now time.Time) (list ignoreList, ok bool, epoch int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok = l.kept.Get(userID)
	return list, ok && now.Before(list.until), l.epoch
}

func (l *ignoreLists) keep(userID string, list ignoreList, epoch int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == epoch {
		l.kept.Add(userID, list)
	}
}

func (l *ignoreLists) changed(userID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.kept.Remove(userID)
}

const ignoreType = "m.ignored_user_list"

// Ignored gives the users whom a user ignores (client-server API, "Ignoring Users"), nil for none. It is shared: do not change it.
func (s *Service) Ignored(ctx context.Context, userID string) (map[string]struct{}, error) {
	now := s.clock.Now()
	l, ok, epoch := s.ignore.get(userID, now)
	if ok {
		return l.users, nil
	}
	d, err := s.store.AccountData(ctx, userID, "", ignoreType)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	var c struct {
		Users map[string]json.RawMessage `json:"ignored_users"`
	}
	_ = json.Unmarshal(d.Content, &c) // clients write it: what has another shape ignores nobody
	var users map[string]struct{}
	for u := range c.Users {
		if u == userID {
			continue
		}
		if users == nil {
			users = make(map[string]struct{}, len(c.Users))
		}
		users[u] = struct{}{}
	}
	s.ignore.keep(userID, ignoreList{users, now.Add(ignoreFresh)}, epoch)
	return users, nil
}
