// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When a burst of work is over, its garbage would lie in memory until the next burst, and Go gives freed memory back to the system
// slowly. A server that has become quiet gives it back at once, so that small machines can hold something else meanwhile.
const (
	trimEvery = 2 * time.Second
	trimQuiet = 1 << 20 // bytes allocated in trimEvery: less is quiet
	trimWorth = 8 << 20 // bytes allocated since the last time: less is not worth a collection
)

// trimmer decides when a server has become quiet.
type trimmer struct {
	before, trimmed uint64 // bytes ever allocated: at the last look, and when memory was last given back
}

// look is told of the bytes ever allocated, once every trimEvery.
func (t *trimmer) look(allocated uint64) (now bool) {
	quiet := allocated-t.before < trimQuiet
	t.before = allocated
	if !quiet || allocated-t.trimmed < trimWorth {
		return false
	}
	t.trimmed = allocated
	return true
}

// trim gives memory back when the server has become quiet, until ctx ends.
func trim(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var t trimmer
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			metrics.Read(sample)
			if t.look(sample[0].Value.Uint64()) {
				debug.FreeOSMemory()
			}
		}
	}
}
