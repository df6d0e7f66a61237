// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"log/slog"
	"testing"
)

// Redis is told in the background that nobody listens any more. Close may come before that, and met an entry without a subscription.
func TestCloseBeforeRedisHasHeardThatNobodyListens(t *testing.T) {
	r, err := NewRedis(RedisConfig{URL: "redis://127.0.0.1:1/0"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.cancel()
	r.done.Wait() // nobody is left to tell Redis
	r.mu.Lock()
	r.wanted["t"] = nil // as want leaves it when the last subscription ends
	r.mu.Unlock()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
