// SPDX-License-Identifier: Apache-2.0

package sfu

import "testing"

func TestSenderReportsOfSoundBecomeSeldomOnceTheReceiverHasSome(t *testing.T) {
	count := func(video bool, before, looks int) (sent int) {
		r := reporting{}
		for i := range before + looks {
			if r.due(video) && i >= before { // before: the publisher has not told its time yet
				r.sent++
				sent++
			}
		}
		return sent
	}
	for _, c := range []struct {
		video               bool
		before, looks, want int
	}{
		{true, 0, 100, 100}, {false, 0, 3, 3}, {false, 0, 100, 3 + 20}, {false, 40, 3, 3}, {false, 40, 100, 3 + 20},
	} {
		if got := count(c.video, c.before, c.looks); got != c.want {
			t.Errorf("video %v: %d reports in %d seconds after %d, want %d", c.video, got, c.looks, c.before, c.want)
		}
	}
}
