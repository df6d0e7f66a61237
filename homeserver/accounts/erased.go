// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"maps"
	"sync"
)

// erasures knows whose messages are hidden from those who come later. They are few, and asked for with every event that is shown.
type erasures struct {
	mu  sync.RWMutex
	pos map[string]int64
}

// Erased gives where the stream was when a user asked at the end of his account that his messages be hidden, 0 when he did not.
func (s *Service) Erased(userID string) int64 {
	s.erased.mu.RLock()
	defer s.erased.mu.RUnlock()
	return s.erased.pos[userID]
}

// readErased reads the list again: another node may have added to it.
func (s *Service) readErased(ctx context.Context) error {
	all, err := s.store.Erased(ctx)
	if err != nil {
		return err
	}
	s.erased.mu.Lock()
	defer s.erased.mu.Unlock()
	maps.Copy(all, s.erased.pos) // what was erased while we read
	s.erased.pos = all
	return nil
}

func (s *Service) noteErased(userID string, pos int64) {
	s.erased.mu.Lock()
	defer s.erased.mu.Unlock()
	next := maps.Clone(s.erased.pos)
	next[userID] = pos
	s.erased.pos = next
}
