// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/trunkboard/trunkboard/homeserver/event"
)

const (
	lanesBusy  = 32        // rooms worked on at the same time
	lanesBytes = 128 << 20 // of events waiting; beyond it, transactions wait
	laneLength = 256       // jobs waiting for one room; beyond it, they are refused
	jobTime    = 3 * time.Minute
)

// job is events of one transaction for one room.
type job struct {
	origin, room string
	events       []*event.Event
	size         int64

	done    chan struct{}
	results map[string]error // by event id
	failed  error            // of ours
}

// lanes work on rooms side by side, and on what comes for one room in the order in which it came: a slow room holds up nobody else.
type lanes struct {
	work  func(ctx context.Context, j *job)
	bytes *semaphore.Weighted
	busy  chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool
	queue  map[string][]*job // by room; there while a goroutine works on it
}

func newLanes(work func(context.Context, *job)) *lanes {
	l := &lanes{work: work, bytes: semaphore.NewWeighted(lanesBytes), busy: make(chan struct{}, lanesBusy), queue: map[string][]*job{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

var (
	errFull    = errors.New("too much waits for this room")
	errStopped = errors.New("this server is stopping")
)

// put queues a job, waiting while too much is queued already.
func (l *lanes) put(ctx context.Context, j *job) error {
	j.size = min(j.size, lanesBytes)
	if err := l.bytes.Acquire(ctx, j.size); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	q, running := l.queue[j.room]
	if l.closed || len(q) >= laneLength {
		l.bytes.Release(j.size)
		if l.closed {
			return errStopped
		}
		return errFull
	}
	l.queue[j.room] = append(q, j)
	if !running {
		l.wg.Go(func() { l.run(j.room) })
	}
	return nil
}

// run works until nothing waits for the room.
func (l *lanes) run(room string) {
	for {
		l.mu.Lock()
		q := l.queue[room]
		if len(q) == 0 {
			delete(l.queue, room)
			l.mu.Unlock()
			return
		}
		j := q[0]
		l.queue[room] = q[1:]
		l.mu.Unlock()
		select {
		case l.busy <- struct{}{}:
			ctx, cancel := context.WithTimeout(l.ctx, jobTime)
			l.work(ctx, j)
			cancel()
			<-l.busy
		case <-l.ctx.Done():
			j.failed = errStopped
		}
		l.bytes.Release(j.size)
		close(j.done)
	}
}

// close ends what is under way and waits for it.
func (l *lanes) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}
