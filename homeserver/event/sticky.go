// SPDX-License-Identifier: Apache-2.0

package event

import "time"

// MaxSticky is the longest time for which an event may stick (MSC4354).
const MaxSticky = time.Hour

// stickyKey is the top-level key of an event that sticks, until MSC4354 is stable. The content hash covers it; redaction takes it away.
const stickyKey = "msc4354_sticky"

// stickyFor reads the object under stickyKey: how long the event sticks, 0 for what says nothing valid. A longer time than an event
// may stick counts as the longest.
func stickyFor(v []byte) time.Duration {
	if len(v) == 0 || v[0] != '{' {
		return 0
	}
	ms, ok := integer(field(v, "duration_ms"))
	if !ok || ms < 0 {
		return 0
	}
	return time.Duration(min(ms, MaxSticky.Milliseconds())) * time.Millisecond
}

// Sticky is for how long e sticks from its start (MSC4354); 0 for an event that does not.
func (e *Event) Sticky() time.Duration { return e.sticky }

// StickyUntil is when e ceases to stick, having come here at received: a start in the future counts as that moment. Zero for an event
// that does not stick.
func (e *Event) StickyUntil(received time.Time) time.Time {
	if e.sticky == 0 {
		return time.Time{}
	}
	return time.UnixMilli(min(e.ts, received.UnixMilli())).Add(e.sticky)
}
