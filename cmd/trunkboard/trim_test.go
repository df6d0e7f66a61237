// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestMemoryIsGivenBackOnceAfterEachBurst(t *testing.T) {
	const mb = 1 << 20
	var tr trimmer
	for i, x := range []struct {
		allocated uint64
		want      bool
		why       string
	}{
		{100 * mb, false, "at work"}, {300 * mb, false, "at work"}, {300*mb + 500, true, "quiet after a burst"}, {300*mb + 900, false, "given back already"},
		{301*mb + 800, false, "a little work"}, {307 * mb, false, "at work"}, {307 * mb, false, "not worth it"}, {330 * mb, false, "at work"}, {330 * mb, true, "quiet again"},
	} {
		if got := tr.look(x.allocated); got != x.want {
			t.Errorf("look %d (%s): %v", i, x.why, got)
		}
	}
}
