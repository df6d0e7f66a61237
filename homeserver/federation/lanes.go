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
	lanesBusy  = 32              // lanes at work at the same time
	serverBusy = lanesBusy / 4   // of one server
	lanesBytes = 128 << 20       // of events waiting; beyond it, transactions wait
	serverByte = lanesBytes / 4  // of one server
	laneLength = 256             // jobs waiting in one lane; beyond it, they are refused
	jobTime    = 3 * time.Minute // for one job
)

// job is events of one transaction for one room.
type job struct {
	origin, room string
	events       []*event.Event
	size         int64
	own          *share

	done    chan struct{}
	results map[string]error // by event id
	failed  error            // of ours
}

// lanes work on what servers send for rooms: one lane for each server and room, in the order in which it came. Working on an event may mean
// to wait for the server that sent it (what it builds on is asked for there), so a server that does not answer holds up nobody but itself,
// not in that room either, and has a share of the workers and of the memory only.
type lanes struct {
	work  func(ctx context.Context, j *job)
	bytes *semaphore.Weighted
	busy  chan struct{}

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	closed  bool
	queue   map[laneOf][]*job // there while a goroutine works on it
	servers map[string]*share // there while something is in hand for the server
}

type laneOf struct{ origin, room string }

// share is what one server may take up.
type share struct {
	users int // jobs that wait for it or hold it
	bytes *semaphore.Weighted
	busy  chan struct{}
}

func newLanes(work func(context.Context, *job)) *lanes {
	l := &lanes{work: work, bytes: semaphore.NewWeighted(lanesBytes), busy: make(chan struct{}, lanesBusy), queue: map[laneOf][]*job{}, servers: map[string]*share{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

var (
	errFull    = errors.New("too much waits for this room")
	errStopped = errors.New("this server is stopping")
)

// put queues a job, waiting while too much is queued already.
func (l *lanes) put(ctx context.Context, j *job) error {
	j.size = min(j.size, serverByte)
	j.own = l.share(j.origin)
	if err := j.own.bytes.Acquire(ctx, j.size); err != nil {
		l.leave(j.origin)
		return err
	}
	if err := l.bytes.Acquire(ctx, j.size); err != nil {
		j.own.bytes.Release(j.size)
		l.leave(j.origin)
		return err
	}
	l.mu.Lock()
	k := laneOf{j.origin, j.room}
	q, running := l.queue[k]
	if l.closed || len(q) >= laneLength {
		err := errFull
		if l.closed {
			err = errStopped
		}
		l.mu.Unlock()
		l.release(j)
		return err
	}
	l.queue[k] = append(q, j)
	if !running {
		l.wg.Go(func() { l.run(k) })
	}
	l.mu.Unlock()
	return nil
}

// share is the share of a server; leave gives it back.
func (l *lanes) share(origin string) *share {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.servers[origin]
	if s == nil {
		s = &share{bytes: semaphore.NewWeighted(serverByte), busy: make(chan struct{}, serverBusy)}
		l.servers[origin] = s
	}
	s.users++
	return s
}

func (l *lanes) leave(origin string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.servers[origin]; s.users > 1 {
		s.users--
	} else {
		delete(l.servers, origin)
	}
}

func (l *lanes) release(j *job) {
	l.bytes.Release(j.size)
	j.own.bytes.Release(j.size)
	l.leave(j.origin)
}

// run works until nothing waits in a lane.
func (l *lanes) run(k laneOf) {
	for {
		l.mu.Lock()
		q := l.queue[k]
		if len(q) == 0 {
			delete(l.queue, k)
			l.mu.Unlock()
			return
		}
		j := q[0]
		l.queue[k] = q[1:]
		l.mu.Unlock()
		if !l.turn(j) {
			j.failed = errStopped
		}
		l.release(j)
		close(j.done)
	}
}

// turn works on a job when it is its turn; false: the server stops.
func (l *lanes) turn(j *job) bool {
	for _, slots := range []chan struct{}{j.own.busy, l.busy} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-l.ctx.Done():
			return false
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, jobTime)
	defer cancel()
	l.work(ctx, j)
	return true
}

// close ends what is under way and waits for it.
func (l *lanes) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}
