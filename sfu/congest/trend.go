// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"math"
	"time"
)

// Constants of the delay-based detector (draft-ietf-rmcat-gcc-02 sections 5.3 to 5.5, with a line through the last delays instead of
// a Kalman filter). Frames go out in one burst, so a key frame alone must not count as congestion: the signal has to last longer
// than in a sender that paces.
const (
	burst        = 5 * time.Millisecond // packets sent within it are one group
	trendWindow  = 20                   // groups
	trendGain    = 4.0
	trendSmooth  = 0.9
	thresholdMin = 6.0 // ms
	thresholdMax = 600.0
	gainUp       = 0.0087
	gainDown     = 0.039
	overuseFor   = 60 * time.Millisecond
)

// trend watches how much longer each group of packets takes than the one before: a queue that grows. The zero value is ready.
type trend struct {
	current, before group
	groups          int
	sum, smooth     float64 // ms
	points          [trendWindow]point
	n, next         int
	start           time.Duration
	threshold       float64
	updated         time.Duration
	over            time.Duration // since when above the threshold
	last            float64
}

type group struct {
	first, sent, arrived time.Duration
	any                  bool
}

type point struct{ at, delay float64 }

// signal is what the detector says.
type signal int

const (
	normal signal = iota
	underuse
	overuse
)

// note takes a packet that was sent and has arrived, in order of sending. It gives a signal when a group is complete.
func (t *trend) note(sent, arrived time.Duration) (s signal, complete bool) {
	if t.current.any && sent-t.current.first <= burst {
		t.current.sent = sent
		t.current.arrived = max(t.current.arrived, arrived)
		return normal, false
	}
	done, before := t.current, t.before
	t.before, t.current = t.current, group{sent, sent, arrived, true}
	if !before.any || !done.any {
		return normal, false
	}
	delta := float64((done.arrived-before.arrived)-(done.sent-before.sent)) / float64(time.Millisecond)
	if math.Abs(delta) > 3000 { // the receiver's clock or network changed
		*t = trend{current: t.current}
		return normal, false
	}
	return t.line(delta, done.arrived), true
}

func (t *trend) line(delta float64, at time.Duration) signal {
	if t.groups == 0 {
		t.start, t.threshold = at, 12.5
	}
	t.groups++
	t.sum += delta
	t.smooth = trendSmooth*t.smooth + (1-trendSmooth)*t.sum
	t.points[t.next] = point{float64(at-t.start) / float64(time.Millisecond), t.smooth}
	t.next = (t.next + 1) % trendWindow
	t.n = min(t.n+1, trendWindow)
	if t.n < trendWindow/2 {
		return normal
	}
	slope := t.slope()
	value := float64(min(t.groups, 60)) * slope * trendGain
	s := normal
	switch {
	case value > t.threshold:
		if t.over == 0 {
			t.over = at
		}
		if at-t.over >= overuseFor && value >= t.last {
			s = overuse
		}
	case value < -t.threshold:
		t.over, s = 0, underuse
	default:
		t.over = 0
	}
	t.last = value
	t.adapt(math.Abs(value), at)
	return s
}

// slope is the least-squares slope of the points.
func (t *trend) slope() float64 {
	var x, y float64
	for i := range t.n {
		x += t.points[i].at
		y += t.points[i].delay
	}
	x, y = x/float64(t.n), y/float64(t.n)
	var num, den float64
	for i := range t.n {
		dx := t.points[i].at - x
		num += dx * (t.points[i].delay - y)
		den += dx * dx
	}
	if den == 0 {
		return 0
	}
	return num / den
}

// adapt moves the threshold towards the signal, so that other senders' queues are lived with.
func (t *trend) adapt(value float64, at time.Duration) {
	if t.updated == 0 {
		t.updated = at
	}
	if value > t.threshold+15 {
		t.updated = at
		return
	}
	gain := gainDown
	if value > t.threshold {
		gain = gainUp
	}
	dt := math.Min(100, float64(at-t.updated)/float64(time.Millisecond))
	t.threshold = math.Max(thresholdMin, math.Min(thresholdMax, t.threshold+gain*(value-t.threshold)*dt))
	t.updated = at
}
