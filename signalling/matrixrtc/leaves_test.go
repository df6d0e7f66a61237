// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// register is Events and Book: it writes down what is asked of it.
type register struct {
	asked chan string
	mu    sync.Mutex
	fails map[string]error // by "restart id" …
	kept  map[string]Leave
}

func newRegister() *register {
	return &register{asked: make(chan string, 64), fails: map[string]error{}, kept: map[string]Leave{}}
}

func (r *register) ask(what, id string) error {
	r.mu.Lock()
	err := r.fails[what+" "+id]
	r.mu.Unlock()
	r.asked <- what + " " + id
	return err
}

func (r *register) Restart(_ context.Context, id string) error { return r.ask("restart", id) }
func (r *register) Send(_ context.Context, id string) error    { return r.ask("send", id) }
func (r *register) Cancel(_ context.Context, id string) error  { return r.ask("cancel", id) }

func (r *register) SaveLeave(_ context.Context, l Leave) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, old := range r.kept {
		if old.Room == l.Room && old.Identity == l.Identity {
			delete(r.kept, id)
		}
	}
	r.kept[l.DelayID] = l
	return nil
}

func (r *register) DropLeave(_ context.Context, id string) error {
	r.mu.Lock()
	delete(r.kept, id)
	r.mu.Unlock()
	r.asked <- "drop " + id
	return nil
}

func (r *register) Leaves(context.Context) (out []Leave, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.kept {
		out = append(out, l)
	}
	return out, nil
}

func (r *register) set(what string, err error) {
	r.mu.Lock()
	r.fails[what] = err
	r.mu.Unlock()
}

type leavesTest struct {
	*Leaves
	*register
	t     *testing.T
	clock *clocktest.Clock
}

func newLeavesTest(t *testing.T, r *register) *leavesTest {
	t.Helper()
	clock := clocktest.New()
	l := &leavesTest{NewLeaves(r, r, clock, slog.New(slog.DiscardHandler)), r, t, clock}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// hears waits for what is asked of the register next.
func (l *leavesTest) hears(want string) {
	l.t.Helper()
	select {
	case got := <-l.asked:
		if got != want {
			l.t.Fatalf("heard %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		l.t.Fatalf("waited too long for %q", want)
	}
}

// until moves the clock in small steps until something is asked, which must be want; it gives how far the clock went.
func (l *leavesTest) until(want string) (after time.Duration) {
	l.t.Helper()
	for after < 3*time.Hour {
		select {
		case got := <-l.asked:
			if got != want {
				l.t.Fatalf("heard %q after %s, want %q", got, after, want)
			}
			return after
		case <-time.After(2 * time.Millisecond):
			l.clock.Advance(500 * time.Millisecond)
			after += 500 * time.Millisecond
		}
	}
	l.t.Fatalf("never heard %q", want)
	return after
}

func (l *leavesTest) delegate(id string, delay time.Duration, here bool) {
	l.t.Helper()
	if err := l.Delegate(l.t.Context(), Leave{DelayID: id, Room: "r", Identity: "alice", Delay: delay}, here); err != nil {
		l.t.Fatal(err)
	}
}

func TestALeaveIsPutOffWhileItsMemberIsInTheSFUAndSentWhenItHasGone(t *testing.T) {
	l := newLeavesTest(t, newRegister())
	l.delegate("one", time.Minute, false)
	l.hears("restart one")
	l.Came("r", "alice")
	l.hears("restart one")
	if after := l.until("restart one"); after < 20*time.Second || after > 40*time.Second {
		t.Errorf("put off again after %s", after)
	}
	l.Went("r", "bob", false)
	l.Went("r", "alice", false)
	l.hears("send one")
	l.hears("drop one")
	if l.Count() != 0 {
		t.Error("the leave is still looked after")
	}
}

func TestALeaveOfAMemberWhoNeverComesIsSent(t *testing.T) {
	l := newLeavesTest(t, newRegister())
	l.delegate("one", time.Hour, false)
	l.hears("restart one")
	if after := l.until("send one"); after < connectWithin-time.Second || after > connectWithin+10*time.Second {
		t.Errorf("sent after %s", after)
	}
}

func TestAClientThatSaysGoodbyeMayComeBackAtOnce(t *testing.T) {
	l := newLeavesTest(t, newRegister())
	l.delegate("one", time.Hour, true)
	l.hears("restart one")
	l.Went("r", "alice", true)
	l.Came("r", "alice")
	l.hears("restart one")
	l.Went("r", "alice", true)
	if after := l.until("send one"); after > farewell+2*time.Second {
		t.Errorf("sent after %s", after)
	}
}

func TestANewerLeaveOfAMemberStandsForTheOlder(t *testing.T) {
	l := newLeavesTest(t, newRegister())
	l.delegate("one", time.Hour, true)
	l.hears("restart one")
	l.delegate("one", time.Hour, true) // said twice
	l.delegate("two", time.Hour, true)
	l.hears("cancel one")
	l.hears("restart two")
	l.Went("r", "alice", false)
	l.hears("send two")
}

func TestAFailedAttemptIsRepeatedAndARefusedOneIsNot(t *testing.T) {
	r := newRegister()
	r.set("send one", errors.New("the store is away"))
	l := newLeavesTest(t, r)
	l.delegate("one", time.Hour, true)
	l.hears("restart one")
	l.Went("r", "alice", false)
	l.hears("send one")
	if after := l.until("send one"); after < time.Second/2 {
		t.Errorf("tried again after %s", after)
	}
	r.set("send one", signalling.NotFound("sent already"))
	l.until("send one")
	l.hears("drop one")
	if l.Count() != 0 {
		t.Error("a refused leave is still looked after")
	}
}

func TestLeavesOutliveARestartAndWaitAMinuteForTheirMembers(t *testing.T) {
	r := newRegister()
	for _, who := range []string{"alice", "bob"} {
		_ = r.SaveLeave(t.Context(), Leave{DelayID: who, Room: "r", Identity: who, Delay: time.Hour})
	}
	l := newLeavesTest(t, r)
	got := map[string]bool{<-l.asked: true, <-l.asked: true}
	if diff := cmp.Diff(map[string]bool{"restart alice": true, "restart bob": true}, got); diff != "" {
		t.Error(diff)
	}
	l.Came("r", "alice")
	l.hears("restart alice")
	if after := l.until("send bob"); after < returnWithin-time.Second || after > returnWithin+5*time.Second {
		t.Errorf("sent after %s", after)
	}
	l.hears("drop bob")
	if l.Count() != 1 {
		t.Errorf("%d leaves", l.Count())
	}
}
