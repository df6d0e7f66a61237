// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"testing"
	"time"
)

func TestWhatIsRecalledIsBoundedInTimeAndBytes(t *testing.T) {
	var r recall
	now := time.Now()
	for n := range uint32(10_000) {
		r.add(kept{Message{Number: n, Body: make([]byte, n%3000)}, "PA_1", now})
		if r.bytes > recallMost {
			t.Fatalf("%d bytes", r.bytes)
		}
		now = now.Add(time.Millisecond)
	}
	if last := r.list[len(r.list)-1]; last.Number != 9999 || len(r.list) < 50 {
		t.Errorf("the last of %d is %d", len(r.list), last.Number)
	}
	for range 10_000 { // many of nothing
		r.add(kept{Message{}, "PA_1", now})
	}
	if len(r.list) > recallMost/recallEach {
		t.Errorf("%d messages", len(r.list))
	}
	r.add(kept{Message{Number: 1, Body: make([]byte, recallMost)}, "PA_1", now})
	if len(r.list) != 0 || r.bytes != 0 {
		t.Errorf("%d messages, %d bytes", len(r.list), r.bytes)
	}
	r.add(kept{Message{Number: 1}, "PA_1", now})
	r.prune(now.Add(recallFor + 1))
	if r.list != nil || r.bytes != 0 {
		t.Errorf("%d messages, %d bytes", len(r.list), r.bytes)
	}
}
