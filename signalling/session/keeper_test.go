// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/signalling/redistest"
	"github.com/trunkboard/trunkboard/signalling/session"
)

const patience = 10 * time.Second

// kept is a node with a running Keeper.
type kept struct {
	*session.Keeper
	store *session.Redis
	lost  chan session.Lease
	stop  func()
}

func keep(t *testing.T, server *redistest.Server, node session.Node, ttl time.Duration) *kept {
	t.Helper()
	k := &kept{store: dial(t, server, "p:", 500*time.Millisecond), lost: make(chan session.Lease, 10)}
	k.Keeper = session.NewKeeper(k.store, node, session.KeeperConfig{TTL: ttl, Every: 20 * time.Millisecond},
		slog.New(slog.DiscardHandler), func(l session.Lease) { k.lost <- l })
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.Run(ctx) })
	k.stop = func() { cancel(); done.Wait() }
	t.Cleanup(k.stop)
	return k
}

func (k *kept) hold(t *testing.T, key string) session.Lease {
	t.Helper()
	l, err := k.Hold(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// holder waits until who holds key according to Redis.
func holder(t *testing.T, s *session.Redis, key, who string) session.Lease {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		l, held, err := s.Holder(t.Context(), key)
		if err == nil && ((held && l.Node.ID == who) || (!held && who == "")) {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is held by %+v (%v, %v), want %q", key, l, held, err, who)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestKeeperRenewsUntilReleased(t *testing.T) {
	server := redistest.Start(t)
	a, b := keep(t, server, nodeA, 300*time.Millisecond), keep(t, server, nodeB, 300*time.Millisecond)
	first := a.hold(t, "room")
	a.Put(t.Context(), session.Session{ID: "s", Room: "!r", User: "@u", Started: noon})
	<-time.After(600 * time.Millisecond)
	if l := b.hold(t, "room"); l.Node != nodeA || l.Token != first.Token {
		t.Errorf("after twice the time to live: %+v, first %+v", l, first)
	}
	if got := list(t, b.store.ByRoom, "!r"); len(got) != 1 || got[0].Node != "A" {
		t.Errorf("sessions: %+v", got)
	}
	a.Drop(t.Context(), "s")
	a.Release(t.Context(), "room")
	if l := b.hold(t, "room"); l.Node != nodeB {
		t.Errorf("after the release: %+v", l)
	}
	want(t, "after the drop", list(t, b.store.ByRoom, "!r"))
}

func TestKeeperGivesEverythingUpWhenItStops(t *testing.T) {
	server := redistest.Start(t)
	a := keep(t, server, nodeA, time.Hour)
	b := dial(t, server, "p:", time.Millisecond)
	a.hold(t, "room")
	a.Put(t.Context(), session.Session{ID: "s", User: "@u"})
	a.stop()
	holder(t, b, "room", "")
	want(t, "sessions", list(t, b.ByUser, "@u"))
}

func TestKeepersFillAnEmptiedRedisAndKeepTheirRooms(t *testing.T) {
	server := redistest.Start(t)
	a, b := keep(t, server, nodeA, time.Hour), keep(t, server, nodeB, time.Hour)
	old := a.hold(t, "room")
	a.Put(t.Context(), session.Session{ID: "s", Room: "!r", User: "@u", Started: noon})
	server.Do("FLUSHALL")
	if l := b.hold(t, "room"); l.Node != nodeA || l.Token <= old.Token {
		t.Errorf("b got %+v, a had %+v", l, old)
	}
	for deadline := time.Now().Add(patience); len(list(t, b.store.ByRoom, "!r")) != 1; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session did not come back")
		}
	}
}

func TestCallsGoOnAndBeginWhileRedisIsAwayAndOneNodeYieldsAfterwards(t *testing.T) {
	server := redistest.Start(t)
	a, b := keep(t, server, nodeA, time.Hour), keep(t, server, nodeB, time.Hour)
	a.hold(t, "old room")
	server.Kill()
	if l := a.hold(t, "old room"); l.Node != nodeA || l.Token == 0 {
		t.Errorf("the room in progress: %+v", l)
	}
	for _, k := range []*kept{a, b} {
		if l := k.hold(t, "new room"); l.Token != 0 {
			t.Errorf("a room begun without Redis: %+v", l)
		}
	}
	if l := b.hold(t, "b's room"); l.Node != nodeB || l.Token != 0 {
		t.Errorf("a room begun without Redis: %+v", l)
	}
	a.Put(t.Context(), session.Session{ID: "s", Room: "!r", User: "@u"})
	server.Restart()
	back := time.Now()
	probe := dial(t, server, "p:", time.Millisecond)
	holder(t, probe, "old room", "A")
	holder(t, probe, "b's room", "B")
	var loser session.Lease
	select {
	case loser = <-a.lost:
		holder(t, probe, "new room", "B")
	case loser = <-b.lost:
		holder(t, probe, "new room", "A")
	case <-time.After(patience):
		t.Fatal("both nodes keep the same room")
	}
	if loser.Key != "new room" {
		t.Errorf("lost %+v", loser)
	}
	for len(list(t, probe.ByRoom, "!r")) != 1 {
		if time.Since(back) > patience {
			t.Fatal("the session did not come back")
		}
		<-time.After(5 * time.Millisecond)
	}
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("recovery took %v", took)
	} else {
		t.Logf("recovered %v after Redis' return", took.Round(time.Millisecond))
	}
	if len(a.lost)+len(b.lost) != 0 {
		t.Error("more was lost than the one room")
	}
}

func TestAFrozenRedisDelaysCallersOnceAndNoMore(t *testing.T) {
	server := redistest.Start(t)
	a := keep(t, server, nodeA, time.Hour)
	a.hold(t, "warm")
	server.Freeze()
	defer server.Thaw()
	start := time.Now()
	for i := range 50 {
		a.hold(t, string(rune('a'+i)))
	}
	// A time-out of 2 s for this caller, and one that Run may be in.
	if took := time.Since(start); took > 7*time.Second {
		t.Errorf("50 rooms took %v", took)
	}
}

func BenchmarkAcquireAndReleaseOverRedis(b *testing.B) {
	server := redistest.Start(b)
	s := dial(b, server, "p:", time.Millisecond)
	for b.Loop() {
		l := acquire(b, s, "room", nodeA, long)
		if err := s.Release(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}
