// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"math"
	"time"
)

// Constants of the test of a path that loses packets.
const (
	doubtQueue  = 50 * time.Millisecond  // with a longer one, the path is too narrow, and that is that
	doubtTimes  = 3                      // what is sent is so many times what was sent when losses were seen
	doubtEnough = 1.7                    // times that must have been sent to tell
	doubtLess   = 0.7                    // of that then, at least, is sent at the time of a test
	doubtSure   = 3.0                    // log likelihood
	doubtPause  = 2 * time.Second        // from one test to the next,
	doubtAgain  = 200 * time.Millisecond // if nothing was learnt,
	doubtClear  = time.Second            // after a probe, which may have emptied a policer's bucket, losses are not its doing any more
	doubtTries  = 3                      // so many times in a row
	doubtMost   = 20 * time.Second       // doubled each time the path turned out to be narrow, up to this
)

// doubt is a limit that losses have set while nothing queued. A path that is bad and one that is policed look the same at one rate, and where
// nothing smaller can be sent than is sent, nothing is learnt by waiting, while the limit leaves no room for the repairs that a bad path needs. So
// much more is sent for a moment: a narrow path then loses most of it, a bad one the same share as before.
type doubt struct {
	open    bool
	tried   time.Duration // when the last test was asked for
	pause   time.Duration
	unknown int         // tests in a row that told nothing
	seen    observation // what was lost before it
	raised  time.Duration
	asked   time.Duration // for a test, last
	probed  time.Duration // end of the last probe
	limited bool          // before it
	rate    float64
}

// raise notes a limit that losses set.
func (d *doubt) raise(limited bool, rate float64, now time.Duration) {
	if !d.open {
		d.limited, d.rate, d.raised = limited, rate, now
	}
	d.open = true
}

// Doubt gives the rate that a test should reach now, in bit/s, because a limit is in doubt and nothing smaller can be sent than is sent; 0 for none.
func (e *Estimator) Doubt(now time.Duration) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := &e.doubt
	if !e.limited || e.stands.queue() > doubtQueue {
		d.open = false
	}
	if !d.open || e.loss.n == 0 {
		return 0
	}
	o := e.loss.newest()
	if o.at < d.raised || o.loss > lossMost || d.probed > 0 && o.at-d.probed < doubtClear {
		return 0
	}
	if o.loss < lossUsual {
		d.open = false
		return 0
	}
	d.asked = now
	if d.tried > 0 && now-d.tried < max(d.pause, doubtPause) {
		return 0
	}
	target := doubtTimes * max(e.rate, e.told.offered(now))
	if target < doubtTimes*o.sent*doubtLess {
		return 0 // much less is sent than was when that was lost
	}
	d.seen, d.tried = *o, now
	return int(target)
}

// again allows for another test soon, when one told nothing, if that is not so all the time.
func (d *doubt) again(now time.Duration) {
	if d.unknown++; d.unknown < doubtTries {
		d.tried = now - max(d.pause, doubtPause) + doubtAgain
		return
	}
	d.later()
}

// later makes tests more seldom.
func (d *doubt) later() {
	d.open, d.unknown, d.pause = false, 0, min(2*max(d.pause, doubtPause), doubtMost)
}

// tested ends a test: so many packets were told about, that share was lost, when rate was sent. It reports whether the path is bad, not narrow,
// and whether that is known.
func (d *doubt) tested(rate, lost float64, told int) (bad, known bool) {
	if rate < doubtEnough*d.seen.sent {
		return false, false
	}
	o, n := d.seen, float64(told)
	same := (o.n*o.loss + n*lost) / (o.n + n)
	random := likelihood(o.loss, o.n, same) + likelihood(lost, n, same)
	narrow := math.Inf(-1)
	for c := 0.2; c <= 1.2; c += 0.05 {
		c := c * o.sent * (1 - o.loss)
		narrow = math.Max(narrow, likelihood(o.loss, o.n, 1-c/o.sent)+likelihood(lost, n, 1-c/rate))
	}
	return random-narrow > doubtSure, math.Abs(random-narrow) > doubtSure
}
