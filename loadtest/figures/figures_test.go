// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"os"
	"testing"
	"time"
)

func TestQuantilesAreThoseOfTheSortedSeries(t *testing.T) {
	var s Series
	if q := s.Quantiles(0.5); q[0] != 0 {
		t.Errorf("of nothing: %v", q)
	}
	for i := 100; i > 0; i-- {
		s.Add(time.Duration(i) * time.Millisecond)
	}
	q := s.Quantiles(0, 0.5, 0.95, 0.99, 1)
	for i, want := range []time.Duration{1, 51, 96, 100, 100} {
		if q[i] != want*time.Millisecond {
			t.Errorf("quantile %d: %v, want %d ms", i, q[i], want)
		}
	}
	row := Row("calls", "here", "2/s", "ring", 100, 50*time.Second, &s)
	if want := "| calls | here | 2/s | ring | 100 | 2.0 | 51.0 | 96.0 | 100.0 | 100.0 |\n"; row != want {
		t.Errorf("%q", row)
	}
}

func TestOwnUsageIsSeen(t *testing.T) {
	before := Used([]int{os.Getpid()})
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
	}
	after := Used([]int{os.Getpid()})
	if after.CPU <= before.CPU || after.RSS < 1<<20 {
		t.Errorf("%+v, then %+v", before, after)
	}
	if u := Used([]int{-1}); u != (Usage{}) {
		t.Errorf("of nobody: %+v", u)
	}
}
