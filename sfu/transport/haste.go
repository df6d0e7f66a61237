// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync/atomic"
	"time"
)

// How often OnAwake's function is called at most: while all that is forwarded is sounds, and otherwise.
const (
	nudgeCalm     = 200 * time.Millisecond
	nudgeRestless = 100 * time.Millisecond
)

// hasteFor is how long checks and reports are read at once after something happened that makes the next ones matter.
const hasteFor = 3 * time.Second

// haste says whether reports and checks may wait for other packets. They may while all that is forwarded is sounds, and
// nobody is on his way in or to another network: then neither a repair nor a picture nor a join waits for one of them.
type haste struct {
	calm  atomic.Bool
	until atomic.Int64 // Unix time in ns
}

// allows reports whether they may wait.
func (h *haste) allows(now time.Time) bool {
	return h != nil && h.calm.Load() && now.UnixNano() > h.until.Load()
}

// Hasten makes reports and checks be read at once for the next three seconds. It may be called often.
func (t *Transport) Hasten() {
	until := time.Now().Add(hasteFor).UnixNano()
	if until-t.haste.until.Load() > int64(hasteFor/4) {
		t.haste.until.Store(until)
	}
}

// Calm says whether all that is forwarded is sounds.
func (t *Transport) Calm(calm bool) { t.haste.calm.Store(calm) }

// OnAwake has f called when packets have been handled, at most five times a second if Calm, else ten times: what is due at about that rate
// costs little then, while a timer of its own would wake the process. f must not block.
func (t *Transport) OnAwake(f func()) { t.awake.f.Store(&f) }

// nudge is who is told that the process is awake.
type nudge struct {
	f    atomic.Pointer[func()]
	last atomic.Int64 // Unix time in ns
}

func (n *nudge) give(now time.Time, calm bool) {
	last, every := n.last.Load(), nudgeRestless
	if calm {
		every = nudgeCalm
	}
	if f := n.f.Load(); f != nil && now.UnixNano()-last >= int64(every) && n.last.CompareAndSwap(last, now.UnixNano()) {
		(*f)()
	}
}
