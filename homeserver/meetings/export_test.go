// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"time"
)

// Step does what Run does between two waits, and says when there is more to do.
func (s *Service) Step(ctx context.Context) time.Time { return s.step(ctx) }

// Prune does what Run does every ten minutes.
func (s *Service) Prune(ctx context.Context) error { return s.prune(ctx, s.Clock.Now()) }

// Restore does what Run does first.
func (s *Service) Restore(ctx context.Context) error { return s.restore(ctx) }

// Live counts the meetings that are remembered.
func (s *Service) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lives)
}
