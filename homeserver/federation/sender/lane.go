// SPDX-License-Identifier: Apache-2.0

package sender

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// lane is one destination.
type lane struct {
	s      *Sender
	server string

	mu       sync.Mutex
	busy     bool        // a goroutine works
	again    bool        // look once more before it ends
	wait     func() bool // stops the timer; nil: not waiting
	failures int
	order    []string // keys of moments, the oldest first
	moments  map[string]json.RawMessage
}

// wake starts the lane unless it works already or waits for a server that is away.
func (l *lane) wake() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	ctx := l.s.ctx
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx == nil || l.wait != nil {
		return // Run wakes all of them when it begins
	}
	if l.busy {
		l.again = true
		return
	}
	l.busy = true
	l.s.working.Go(func() { l.work(ctx) })
}

// work sends until nothing is left, or the other server is away.
func (l *lane) work(ctx context.Context) {
	limit := federation.MaxPDUs
	for {
		n, err := l.step(ctx, limit)
		var refused *refusal
		switch {
		case ctx.Err() != nil:
			l.mu.Lock()
			l.busy = false
			l.mu.Unlock()
			return
		case errors.As(err, &refused):
			// Something in there is more than the other server takes. It is found by halves, and left out.
			l.s.sent.WithLabelValues("refused").Inc()
			limit = max(1, n/2)
		case errors.Is(err, errElsewhere):
			l.mu.Lock()
			if !l.again {
				l.busy, l.failures, l.order, l.moments = false, 0, nil, nil
				l.mu.Unlock()
				return
			}
			l.again = false
			l.mu.Unlock()
		case err != nil:
			l.s.sent.WithLabelValues("failed").Inc()
			l.fail(ctx, err)
			return
		case n > 0:
			l.s.sent.WithLabelValues("sent").Inc()
			limit = min(federation.MaxPDUs, limit*2)
			l.mu.Lock()
			away := l.failures > 0
			l.failures = 0
			l.mu.Unlock()
			if away {
				l.s.leases.mark(ctx, l.server, false)
				l.s.returned(l.server)
			}
		default:
			l.mu.Lock()
			if !l.again && len(l.order) == 0 {
				l.busy = false
				l.mu.Unlock()
				return
			}
			l.again = false
			l.mu.Unlock()
		}
	}
}

// fail puts the lane to sleep.
func (l *lane) fail(ctx context.Context, err error) {
	l.mu.Lock()
	l.failures++
	n := l.failures
	wait := min(longestWait, firstWait<<min(n-1, 20))
	wait += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(wait)) // so that not all of them come back at once
	l.busy, l.again, l.order, l.moments = false, false, nil, nil
	l.s.behind.Inc()
	l.wait = l.s.Clock.AfterFunc(wait, func() {
		l.mu.Lock()
		waiting := l.wait != nil
		l.wait = nil
		l.mu.Unlock()
		if waiting {
			l.s.behind.Dec()
			l.wake()
		}
	})
	l.mu.Unlock()
	if n == 1 {
		l.s.leases.mark(ctx, l.server, true)
	}
	l.s.Log.Debug("a server does not take what is sent to it", "server", l.server, "failures", n, "next", wait.Round(time.Second), "err", err)
	if n%8 == 0 {
		if dropped, err := l.s.Store.TrimOutbox(ctx, l.server, maxWaiting); err == nil && dropped > 0 {
			l.s.Log.Warn("a server is away for long; the oldest of what waits for it was dropped", "server", l.server, "dropped", dropped)
		}
	}
}

// refusal is the answer of a server that will never take this transaction.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// step sends one transaction and gives how many rows and EDUs it held; 0: there was nothing.
func (l *lane) step(ctx context.Context, limit int) (n int, err error) {
	select {
	case l.s.slots <- struct{}{}:
		defer func() { <-l.s.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	may, release, err := l.s.leases.hold(ctx, l.server)
	if err != nil {
		return 0, err
	}
	defer release()
	rows, err := l.s.Store.Outbox(ctx, l.server, limit)
	if err != nil {
		return 0, err
	}
	txn, lost, err := l.compose(ctx, rows)
	if err != nil {
		return 0, err
	}
	keys := l.addMoments(txn)
	n = len(rows) + len(keys)
	if n == 0 {
		return 0, nil
	}
	if len(txn.PDUs)+len(txn.EDUs) > 0 {
		err := l.s.put(may, l.server, txn)
		var refused *refusal
		switch {
		case err != nil && may.Err() != nil && ctx.Err() == nil:
			return 0, errElsewhere // cut off
		case errors.As(err, &refused) && len(rows) <= 1:
			l.s.Log.Warn("a server refuses something for good; it is left out", "server", l.server, "err", err)
		case err != nil:
			return n, err
		}
	}
	if lost > 0 {
		l.s.Log.Error("events of the outbox are not in the database", "server", l.server, "events", lost)
	}
	if len(rows) == 0 {
		return n, nil
	}
	return n, l.s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.DeleteOutbox(rows) })
}
