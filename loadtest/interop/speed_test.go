// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/load"
	"github.com/trunkboard/trunkboard/loadtest/matrix"
)

// The drills of this file measure federation between two servers of this tree, each a process of its own. Small ones run with every test and
// hold nothing against the clock; with TRUNKBOARD_TEST_LONG they have the sizes of loadtest/README.md, whose figures they print.

// size is how much a drill does.
func size(small, long int) int {
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		return long
	}
	return small
}

// used is what a server has used so far.
func (s *server) used() figures.Usage { return figures.Used([]int{s.cmd.Process.Pid}) }

// client opens a server for load clients.
func (s *server) client(t *testing.T) *matrix.Server {
	t.Helper()
	c, err := matrix.Open(s.base, secret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// each runs f for 0 to n-1, eight at a time.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	failed := make(chan error, 8)
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if err := f(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// One server has a large room, a user of the other joins it: when he can use it, when it is whole, what it takes.
func TestDrillALargeRoomIsJoined(t *testing.T) {
	members, pieces := size(40, 5000), size(120, 20_000)
	ca := newAuthority(t)
	a, b := newTrunkboard(t, ca, "127.77.0.13"), newTrunkboard(t, ca, "127.77.0.14")
	ann, bob := a.newUser(t, "ann"), b.newUser(t, "bob")
	id := ann.createRoom("12", object{"preset": "public_chat"})
	here := a.client(t)
	ctx := t.Context()
	each(t, members-1, func(int) error {
		u, err := here.Register(ctx, "member")
		if err != nil {
			return err
		}
		return u.Do(ctx, "POST", "/_matrix/client/v3/join/"+url.PathEscape(id), u.Token, object{}, nil)
	})
	each(t, max(0, pieces-members-8), func(i int) error { // the room began with about eight pieces
		return here.Do(ctx, "PUT", room(id, "state", "org.example.state", fmt.Sprint(i)), ann.token, object{"n": i}, nil)
	})
	bob.await("nothing", func(*syncAnswer) bool { return true }) // his first sync is behind him
	before, beforeA := b.used(), a.used()
	start := time.Now()
	bob.join(id, ann)
	joined := time.Since(start)
	bob.await("the room with its state", func(s *syncAnswer) bool {
		return len(s.Rooms.Join[id].State.Events)+len(s.Rooms.Join[id].Timeline.Events) > 0
	})
	usable, then, thenA := time.Since(start), b.used(), a.used()
	var all struct{ Joined map[string]any }
	bob.must("GET", room(id, "joined_members"), nil, &all)
	whole, after, afterA := time.Since(start), b.used(), a.used()
	if len(all.Joined) != members+1 {
		t.Errorf("%d members, there are %d", len(all.Joined), members+1)
	}
	bob.awaitID(id, ann.say(id, "welcome"))
	sameState(t, ann, bob, id)
	t.Logf("drill large room: members=%d pieces=%d: joined after %v, first usable sync after %v (%v of processor time here, %v there), whole after %v (%v, %v), memory %+d MB",
		members, pieces, joined.Round(time.Millisecond), usable.Round(time.Millisecond), then.CPU-before.CPU, thenA.CPU-beforeA.CPU,
		whole.Round(time.Millisecond), after.CPU-before.CPU, afterA.CPU-beforeA.CPU, (after.RSS-before.RSS)>>20)
}

// A server has many events for another one, which takes them on one processor, 50 a transaction.
func TestDrillManyEventsComeIn(t *testing.T) {
	events := size(400, 30_000)
	ca := newAuthority(t)
	a, b := newTrunkboard(t, ca, "127.77.0.15"), newTrunkboard(t, ca, "127.77.0.16", "taskset", "-c", "0", "env", "GOMAXPROCS=1")
	ann, bob, id := together(t, a, b, "12", object{"preset": "public_chat"})
	bob.awaitID(id, ann.say(id, "before"))
	b.freeze(t)
	here := a.client(t)
	senders := 8
	each(t, senders, func(i int) error { // who share a room one after the other: each event stands on the one before
		for n := range events / senders {
			if err := here.Do(t.Context(), "PUT", room(id, "send", "m.room.message", fmt.Sprintf("m%d.%d", i, n)), ann.token, object{"msgtype": "m.text", "body": fmt.Sprint("message ", n)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	last := ann.say(id, "last")
	before, start := b.used(), time.Now()
	b.thaw(t)
	for deadline := time.Now().Add(5 * time.Minute); ; {
		if status, _ := bob.try("GET", room(id, "event", url.PathEscape(last)), nil); status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the last event has not arrived after five minutes")
		}
		time.Sleep(20 * time.Millisecond)
	}
	took, cpu := time.Since(start), b.used().CPU-before.CPU
	sameState(t, ann, bob, id)
	t.Logf("drill many events: %d events in %v, %.0f/s by the clock; %v of processor time, %.0f/s of it", events, took.Round(time.Millisecond), float64(events)/took.Seconds(), cpu, float64(events)/cpu.Seconds())
}

// People of two servers call each other, a number of calls each second.
func TestDrillCallsRingAcrossServers(t *testing.T) {
	ca := newAuthority(t)
	a, b := newTrunkboard(t, ca, "127.77.0.17"), newTrunkboard(t, ca, "127.77.0.18")
	c := load.Calls{Pairs: size(4, 40), Peer: b.client(t)}
	c.Config = load.Config{Label: "two Trunkboards", Rate: float64(size(4, 20)), Duration: time.Duration(size(2, 20)) * time.Second, PIDs: []int{a.cmd.Process.Pid, b.cmd.Process.Pid}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := c.Run(ctx, a.client(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("drill calls across servers:\n%s%s%s", figures.Head, r.Rows, strings.Join(r.Notes, "\n"))
	if r.Done == 0 || len(r.Errors) > 0 {
		t.Errorf("%d calls went all the way; %v", r.Done, r.Errors)
	}
}
