// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Leave is the scheduled end of a membership that its client has handed over: it is put off while the member is in the SFU and sent
// when it has gone (MSC4195, "Optional delegated delayed leave events").
type Leave struct {
	DelayID  string        // of the delayed event
	Room     string        // of the SFU
	Identity string        // in the SFU
	Delay    time.Duration // of the event
}

// Events puts off, sends and takes back delayed events (MSC4140). Errors: M_NOT_FOUND for an event that does not wait any more.
type Events interface {
	Restart(ctx context.Context, delayID string) error
	Send(ctx context.Context, delayID string) error
	Cancel(ctx context.Context, delayID string) error
}

// Book keeps leaves over restarts of this server.
type Book interface {
	SaveLeave(ctx context.Context, l Leave) error // in place of an older one of the same member
	DropLeave(ctx context.Context, delayID string) error
	Leaves(ctx context.Context) ([]Leave, error)
}

// Times of leaves.
const (
	connectWithin = 2 * time.Minute // a member that does not come in this time is held to be gone
	returnWithin  = time.Minute     // the same after a restart of this server
	farewell      = 3 * time.Second // a client that says goodbye may be one that comes back at once
	retryFirst    = time.Second
	retryMost     = time.Minute
	mostLeaves    = 20_000
)

// Leaves looks after handed-over leaves. It is told who is in the SFU by Came and Went, which never wait; Run does the work.
type Leaves struct {
	events Events
	book   Book // may be nil
	clock  signalling.Clock
	log    *slog.Logger

	mu   sync.Mutex
	jobs map[seat]*job
	due  chan struct{} // something is to be done now
}

// seat is a place in the SFU.
type seat struct{ room, identity string }

// job is one leave. Its fields are guarded by Leaves.mu.
type job struct {
	Leave
	here  bool      // the member is in the SFU
	gone  time.Time // when not here: it is sent from then on
	next  time.Time // when it is to be put off again, or a failed attempt repeated
	retry time.Duration
	busy  bool // an attempt is under way
	again bool // something changed meanwhile
	saved bool
}

// NewLeaves makes the service. book may be nil.
func NewLeaves(events Events, book Book, clock signalling.Clock, log *slog.Logger) *Leaves {
	return &Leaves{events: events, book: book, clock: clock, log: log, jobs: map[seat]*job{}, due: make(chan struct{}, 1)}
}

// Delegate takes over a leave. here says that its member is in the SFU already. An older leave of the same member is taken back: the
// new one stands for it. Errors: M_LIMIT_EXCEEDED.
func (l *Leaves) Delegate(ctx context.Context, leave Leave, here bool) error {
	now := l.clock.Now()
	k := seat{leave.Room, leave.Identity}
	l.mu.Lock()
	old := l.jobs[k]
	switch {
	case old != nil && old.DelayID == leave.DelayID:
		old.Delay = leave.Delay
		l.mu.Unlock()
		return nil
	case old == nil && len(l.jobs) >= mostLeaves:
		l.mu.Unlock()
		return signalling.LimitExceeded(retryMost)
	}
	j := &job{Leave: leave, here: here, gone: now.Add(connectWithin), next: now, saved: l.book != nil}
	l.jobs[k] = j
	l.mu.Unlock()
	if l.book != nil {
		if err := l.book.SaveLeave(ctx, leave); err != nil {
			l.mu.Lock()
			if l.jobs[k] == j {
				delete(l.jobs, k)
				if old != nil {
					l.jobs[k] = old
				}
			}
			l.mu.Unlock()
			return err
		}
	}
	if old != nil {
		if err := l.events.Cancel(ctx, old.DelayID); err != nil && !over(err) {
			l.log.Warn("the older leave of a call's member was not taken back", "err", err)
		}
	}
	l.poke()
	return nil
}

// Came says that a member is in the SFU.
func (l *Leaves) Came(room, identity string) {
	l.mu.Lock()
	if j := l.jobs[seat{room, identity}]; j != nil {
		j.here, j.next, j.retry, j.again = true, time.Time{}, 0, true
	}
	l.mu.Unlock()
	l.poke()
}

// Went says that a member has left the SFU. saidSo: the client itself did, so it may be about to come back.
func (l *Leaves) Went(room, identity string, saidSo bool) {
	now := l.clock.Now()
	l.mu.Lock()
	if j := l.jobs[seat{room, identity}]; j != nil {
		j.here, j.gone, j.next, j.retry, j.again = false, now, time.Time{}, 0, true
		if saidSo {
			j.gone = now.Add(farewell)
		}
	}
	l.mu.Unlock()
	l.poke()
}

// Count is the number of leaves that are looked after.
func (l *Leaves) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.jobs)
}

func (l *Leaves) poke() {
	select {
	case l.due <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, and waits for what it began. Leaves that were taken over before a restart of this server wait a minute for
// their members to come back.
func (l *Leaves) Run(ctx context.Context) error {
	l.restore(ctx)
	var attempts sync.WaitGroup
	defer attempts.Wait()
	slots := make(chan struct{}, 16)
	for {
		ready, next := l.ready()
		for _, j := range ready {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			attempts.Go(func() {
				defer func() { <-slots }()
				l.attempt(ctx, j)
				l.poke()
			})
		}
		stop := func() bool { return true }
		if !next.IsZero() {
			stop = l.clock.AfterFunc(max(0, next.Sub(l.clock.Now())), l.poke)
		}
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-l.due:
		}
		stop()
	}
}

func (l *Leaves) restore(ctx context.Context) {
	if l.book == nil {
		return
	}
	all, err := l.book.Leaves(ctx)
	if err != nil {
		l.log.Error("the leaves of calls that clients handed over could not be read; their delayed events will end them", "err", err)
		return
	}
	now := l.clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, leave := range all {
		k := seat{leave.Room, leave.Identity}
		if l.jobs[k] == nil {
			l.jobs[k] = &job{Leave: leave, gone: now.Add(returnWithin), next: now, saved: true}
		}
	}
}

// ready takes the jobs with something to do, and says when the next of the others will have.
func (l *Leaves) ready() (out []*job, next time.Time) {
	now := l.clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range l.jobs {
		if j.busy {
			continue
		}
		at := j.next
		if !j.here && j.retry == 0 && (at.IsZero() || j.gone.Before(at)) {
			at = j.gone
		}
		if !now.Before(at) {
			j.busy, j.again = true, false
			out = append(out, j)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return out, next
}

// attempt does what a job needs now.
func (l *Leaves) attempt(ctx context.Context, j *job) {
	l.mu.Lock()
	here := j.here || l.clock.Now().Before(j.gone) // who is waited for is put off too
	id := j.DelayID
	l.mu.Unlock()
	var err error
	if here {
		err = l.events.Restart(ctx, id)
	} else {
		err = l.events.Send(ctx, id)
	}
	now := l.clock.Now()
	l.mu.Lock()
	j.busy = false
	done := over(err) || err == nil && !here
	switch {
	case done:
		k := seat{j.Room, j.Identity}
		if l.jobs[k] == j {
			delete(l.jobs, k)
		}
	case err == nil:
		j.retry, j.next = 0, now.Add(max(j.Delay/2, time.Second))
	default:
		j.retry = min(max(retryFirst, j.retry*3/2), retryMost)
		j.next = now.Add(j.retry)
	}
	if j.again && !done { // it came or went meanwhile
		j.next, j.retry, j.again = time.Time{}, 0, false
	}
	l.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		l.log.Log(ctx, level(err), "the delayed leave of a call's member", "sent", !here, "err", err)
	}
	if done && j.saved {
		if err := l.book.DropLeave(context.WithoutCancel(ctx), id); err != nil {
			l.log.Warn("a leave that is over was not forgotten", "err", err)
		}
	}
}

// over says that trying again is of no use: the event was sent, taken back, or is refused.
func over(err error) bool {
	var e *signalling.Error
	return errors.As(err, &e) && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
}

func level(err error) slog.Level {
	if over(err) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
