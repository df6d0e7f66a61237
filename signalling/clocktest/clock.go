// SPDX-License-Identifier: Apache-2.0

// Package clocktest holds a signalling.Clock that stands still until a test moves it.
package clocktest

import (
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Clock is a signalling.Clock moved by hand. Functions given to AfterFunc run one after the other inside Advance, in the order of
// their due times, so that a test knows when they are done.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*timer]struct{}
	order  uint64
}

type timer struct {
	at    time.Time
	order uint64
	f     func()
}

var _ signalling.Clock = (*Clock)(nil)

// At makes a clock that shows t.
func At(t time.Time) *Clock {
	return &Clock{now: t, timers: make(map[*timer]struct{})}
}

// New makes a clock that shows the first of January 2026, UTC.
func New() *Clock {
	return At(time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC))
}

// Now is what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc remembers f until Advance has moved the clock by d.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order++
	t := &timer{at: c.now.Add(d), order: c.order, f: f}
	c.timers[t] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waiting := c.timers[t]
		delete(c.timers, t)
		return waiting
	}
}

// Advance moves the clock by d and runs what falls due on the way, each function at its own time.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for {
		var next *timer
		for t := range c.timers {
			if t.at.After(end) {
				continue
			}
			if next == nil || t.at.Before(next.at) || (t.at.Equal(next.at) && t.order < next.order) {
				next = t
			}
		}
		if next == nil {
			break
		}
		delete(c.timers, next)
		if next.at.After(c.now) {
			c.now = next.at
		}
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// Waiting is the number of functions that have not fallen due.
func (c *Clock) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}
