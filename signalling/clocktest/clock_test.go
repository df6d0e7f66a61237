// SPDX-License-Identifier: Apache-2.0

package clocktest_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

func TestFunctionsRunInTheOrderOfTheirTimesAndSeeThatTime(t *testing.T) {
	c := clocktest.New()
	start := c.Now()
	var got []time.Duration
	note := func() { got = append(got, c.Now().Sub(start)) }
	c.AfterFunc(3*time.Second, note)
	c.AfterFunc(time.Second, func() {
		note()
		c.AfterFunc(time.Second, note)
	})
	stop := c.AfterFunc(2500*time.Millisecond, note)
	if !stop() || stop() {
		t.Error("stop must report true once and false afterwards")
	}
	c.Advance(4 * time.Second)
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, got); diff != "" {
		t.Error(diff)
	}
	if c.Now().Sub(start) != 4*time.Second || c.Waiting() != 0 {
		t.Errorf("clock at %v with %d functions waiting", c.Now().Sub(start), c.Waiting())
	}
}
