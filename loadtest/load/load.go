// SPDX-License-Identifier: Apache-2.0

// Package load is what the load clients do: scenarios against any Matrix homeserver on loopback, bounded in time, that give rows
// of a table. With a rate the load is offered (each duration counts from the moment at which the work was due, so a server that
// falls behind is seen to), without one it is as much as the server takes.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/matrix"
)

// MaxDuration bounds every run.
const MaxDuration = 2 * time.Minute

// patience is how long an event may take to arrive before it is counted as lost.
const patience = 10 * time.Second

// Config is what every scenario takes.
type Config struct {
	Label    string        // name of the server in the table
	Rate     float64       // per second; 0 = as much as the server takes
	Duration time.Duration // of the timed part; at most MaxDuration
	PIDs     []int         // of the server, for its use of CPU and memory; may be empty
}

func (c Config) text() string {
	if c.Rate > 0 {
		return fmt.Sprintf("%g/s offered", c.Rate)
	}
	return "as much as it takes"
}

// Result is what a scenario gives.
type Result struct {
	Rows    string // of the table that figures.Head begins
	Done    int    // calls or events that went all the way
	Elapsed time.Duration
	Errors  map[string]int
	Notes   []string // lines below the table
}

// faults counts what went wrong, by kind.
type faults struct {
	mu sync.Mutex
	n  map[string]int
}

func (f *faults) add(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == nil {
		f.n = map[string]int{}
	}
	f.n[what]++
}

func (f *faults) all() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// usage measures the server, and this process, over the timed part.
type usage struct {
	pids        []int
	server, own figures.Usage
	started     time.Time
	ownPID      int
}

func startUsage(pids []int, own int) *usage {
	return &usage{pids: pids, ownPID: own, server: figures.Used(pids), own: figures.Used([]int{own}), started: time.Now()}
}

func (u *usage) note(what string, n int) string {
	took := time.Since(u.started).Seconds()
	own := figures.Used([]int{u.ownPID}).CPU - u.own.CPU
	text := fmt.Sprintf("generator %.2f cores", own.Seconds()/took)
	if len(u.pids) > 0 {
		s := figures.Used(u.pids)
		cpu := s.CPU - u.server.CPU
		text = fmt.Sprintf("server %.2f cores, %.2f ms of CPU for each %s, RSS %d MB; ", cpu.Seconds()/took, cpu.Seconds()*1000/float64(max(1, n)), what, s.RSS>>20) + text
	}
	return text
}

// offer runs work(worker, due) on workers until the time is over: one after the other with rate 0, else at the rate, as far as
// workers are free.
func offer(ctx context.Context, d time.Duration, rate float64, workers int, work func(worker int, due time.Time)) {
	d = min(d, MaxDuration)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	defer wg.Wait()
	if rate <= 0 {
		for w := range workers {
			wg.Go(func() {
				for now := time.Now(); now.Before(end) && ctx.Err() == nil; now = time.Now() {
					work(w, now)
				}
			})
		}
		return
	}
	due := make(chan time.Time, workers)
	for w := range workers {
		wg.Go(func() {
			for at := range due {
				if time.Since(end) > patience {
					return // the server is far behind: what is left is not sent any more
				}
				work(w, at)
			}
		})
	}
	defer close(due)
	gap := time.Duration(float64(time.Second) / rate)
	for at := time.Now(); at.Before(end); at = at.Add(gap) {
		time.Sleep(time.Until(at))
		select {
		case due <- at:
		case <-ctx.Done():
			return
		case <-time.After(time.Until(end.Add(patience))):
			return
		}
	}
}

// each runs f for 0 to n-1, eight at a time, and gives the first error.
func each(n int, f func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// follow lets users poll until the returned stop; seen is called in each user's own goroutine.
func follow(ctx context.Context, users []*matrix.User, bad *faults, seen func(i int, mark string, at time.Time)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg, first sync.WaitGroup
	for i, u := range users {
		first.Add(1)
		wg.Go(func() {
			ready := sync.OnceFunc(first.Done)
			defer ready()
			limited, err := u.Follow(ctx, ready, func(m string, at time.Time) { seen(i, m, at) })
			if err != nil {
				bad.add("sync: " + err.Error())
			}
			for range limited {
				bad.add("a sync left events out")
			}
		})
	}
	first.Wait()
	return func() { cancel(); wg.Wait() }
}
