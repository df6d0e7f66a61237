// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"testing"
	"time"
)

func TestLatenessFollowsTheLastSyncsAndIsForgotten(t *testing.T) {
	var l lag
	at := time.Unix(1000, 0)
	for range 40 {
		l.add(200*time.Millisecond, at)
		at = at.Add(time.Millisecond)
	}
	if d := l.now(at); d < 180*time.Millisecond || d > 200*time.Millisecond {
		t.Errorf("after forty late syncs: %v", d)
	}
	for range 40 {
		l.add(time.Millisecond, at)
		at = at.Add(time.Millisecond)
	}
	if d := l.now(at); d >= paceFrom {
		t.Errorf("after forty quick ones: %v", d)
	}
	l.add(time.Second, at)
	if d := l.now(at.Add(paceOld + time.Millisecond)); d != 0 {
		t.Errorf("long after: %v", d)
	}
}
