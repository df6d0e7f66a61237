// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// diary is a Watcher that writes down what it hears.
type diary struct{ lines chan string }

func (d diary) Came(room, identity, _ string) {
	d.lines <- fmt.Sprintf("%s comes to %s", identity, room)
}
func (d diary) Went(room, identity, _ string, reason sfu.Reason) {
	d.lines <- fmt.Sprintf("%s goes from %s: %d", identity, room, reason)
}

func TestWhoeverIssuedATokenIsAskedWhenItIsUsedAndHearsWhatBecomesOfIt(t *testing.T) {
	d := diary{make(chan string, 16)}
	h := newHouse(t, func(e *sfu.Config, c *Config) {
		e.Watcher = d
		c.AutoCreate = false
		c.Admit = func(_ context.Context, c *Claims) (bool, error) {
			if c.Holder != "a friend" {
				return false, errors.New("not a friend")
			}
			return true, nil
		}
	})
	if _, status, err := dial(t, h, options{identity: "mallory", room: "r", single: true}, nil); err == nil || status != 403 {
		t.Errorf("a stranger: %d %v", status, err)
	}
	friend := func(c *Claims) { c.Holder = "a friend" }
	next := func(want string) {
		t.Helper()
		if got := wait(t, d.lines, want); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	first, _ := enter(t, h, options{identity: "alice", room: "r", single: true, claims: friend})
	next("alice comes to r")
	second, _ := enter(t, h, options{identity: "alice", room: "r", single: true, claims: friend})
	next(fmt.Sprintf("alice goes from r: %d", sfu.Duplicate))
	next("alice comes to r")
	wait(t, first.closed, "the end of the first connection")
	if h.engine.Remove("r", "bob") || h.engine.Remove("s", "alice") {
		t.Error("somebody was removed who is not there")
	}
	if !h.engine.Remove("r", "alice") {
		t.Error("alice was not removed")
	}
	next(fmt.Sprintf("alice goes from r: %d", sfu.Removed))
	if m := second.until("the end", func(m *wire.SignalResponse) bool { return m.GetLeave() != nil }); m.GetLeave().GetReason() != wire.DisconnectReason_PARTICIPANT_REMOVED {
		t.Errorf("leave %v", m.GetLeave())
	}
	wait(t, second.closed, "the end of the second connection")
}
