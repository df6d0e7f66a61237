// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"time"
)

// Flow control between those who send and those who wait for what is sent. To accept an event costs the server a fraction of what it
// costs to hand it to a hundred people, so senders in a hurry could leave the readers ever further behind, until they get gaps instead
// of events. Therefore a send is answered later while syncs are: by as much as they are late.
const (
	paceFrom = 40 * time.Millisecond  // lateness that nobody notices
	paceMost = 400 * time.Millisecond // the longest that a send is held up
	paceOld  = 500 * time.Millisecond // lateness that was measured so long ago says nothing any more
)

// lag is how late syncs are: from the moment at which something wakes one to the moment at which it looks, an average that follows
// the last dozen or so. It is guarded by the service's lock.
type lag struct {
	late time.Duration
	at   time.Time
}

func (l *lag) add(d time.Duration, now time.Time) {
	if now.Sub(l.at) > paceOld {
		l.late = 0
	}
	l.late += (d - l.late) / 8
	l.at = now
}

func (l *lag) now(now time.Time) time.Duration {
	if now.Sub(l.at) > paceOld {
		return 0
	}
	return l.late
}

// Pace holds a sender up while syncs are late, or until ctx ends. Call it after the event is stored and before it is acknowledged.
func (s *Service) Pace(ctx context.Context) {
	s.mu.Lock()
	d := s.lag.now(s.Clock.Now())
	s.mu.Unlock()
	if d < paceFrom {
		return
	}
	done := make(chan struct{})
	stop := s.Clock.AfterFunc(min(d, paceMost), func() { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
		stop()
	}
}
