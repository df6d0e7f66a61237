// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling/clocktest"
	"github.com/trunkboard/trunkboard/signalling/redistest"
	"github.com/trunkboard/trunkboard/signalling/session"
)

var (
	nodeA = session.Node{ID: "A", URL: "http://a:1"}
	nodeB = session.Node{ID: "B", URL: "http://b:1"}
	noon  = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
)

// stage is where the conformance suite plays: two nodes' stores, which may be one, and a way to let time pass.
type stage struct {
	a, b  session.Store
	short time.Duration // a time to live that pass outlasts
	pass  func()
}

const long = time.Hour

var suite = []struct {
	name string
	run  func(t *testing.T, s stage)
}{
	{"one node holds a key and the other is told who", func(t *testing.T, s stage) {
		mine := acquire(t, s.a, "room", nodeA, long)
		if mine.Node != nodeA || mine.Token == 0 || mine.Key != "room" || mine.Expires.IsZero() {
			t.Errorf("got %+v", mine)
		}
		other := acquire(t, s.b, "room", nodeB, long)
		if other.Node != nodeA || other.Token != mine.Token {
			t.Errorf("the other node got %+v", other)
		}
		if again := acquire(t, s.a, "room", nodeA, long); again.Token != mine.Token {
			t.Errorf("the holder got another token: %d, then %d", mine.Token, again.Token)
		}
		l, held, err := s.b.Holder(t.Context(), "room")
		if err != nil || !held || l.Node != nodeA || l.Token != mine.Token {
			t.Errorf("Holder: %+v %v %v", l, held, err)
		}
		if _, held, err := s.b.Holder(t.Context(), "other room"); err != nil || held {
			t.Errorf("a key nobody took is held: %v %v", held, err)
		}
	}},
	{"a lease can be taken only after it has run out, and then with a greater token", func(t *testing.T, s stage) {
		first := acquire(t, s.a, "room", nodeA, s.short)
		s.pass()
		if _, held, err := s.a.Holder(t.Context(), "room"); err != nil || held {
			t.Errorf("held %v %v after its time", held, err)
		}
		second := acquire(t, s.b, "room", nodeB, long)
		if second.Node != nodeB || second.Token <= first.Token {
			t.Errorf("got %+v after %+v", second, first)
		}
		if now, err := s.a.Renew(t.Context(), first, long); !errors.Is(err, session.ErrLost) || now.Node != nodeB {
			t.Errorf("the former holder renews: %+v, %v", now, err)
		}
		if err := s.a.Release(t.Context(), first); err != nil {
			t.Error(err)
		}
		if l, held, _ := s.b.Holder(t.Context(), "room"); !held || l.Node != nodeB {
			t.Errorf("the former holder released what is not its own: %+v %v", l, held)
		}
	}},
	{"a renewed lease does not run out", func(t *testing.T, s stage) {
		l := acquire(t, s.a, "room", nodeA, s.short)
		renewed, err := s.a.Renew(t.Context(), l, long)
		if err != nil || renewed.Node != nodeA {
			t.Fatalf("%+v %v", renewed, err)
		}
		s.pass()
		if got := acquire(t, s.b, "room", nodeB, long); got.Node != nodeA || got.Token != renewed.Token {
			t.Errorf("got %+v", got)
		}
	}},
	{"a lease that ran out and was not taken can be renewed, with a new token", func(t *testing.T, s stage) {
		l := acquire(t, s.a, "room", nodeA, s.short)
		s.pass()
		again, err := s.a.Renew(t.Context(), l, long)
		if err != nil || again.Node != nodeA || again.Token <= l.Token {
			t.Errorf("%+v %v after %+v", again, err, l)
		}
	}},
	{"a released key is free at once", func(t *testing.T, s stage) {
		l := acquire(t, s.a, "room", nodeA, long)
		stale := l
		stale.Token--
		if err := s.a.Release(t.Context(), stale); err != nil {
			t.Fatal(err)
		}
		if got := acquire(t, s.b, "room", nodeB, long); got.Node != nodeA {
			t.Errorf("an old token released the key: %+v", got)
		}
		if err := s.a.Release(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if got := acquire(t, s.b, "room", nodeB, long); got.Node != nodeB || got.Token <= l.Token {
			t.Errorf("got %+v", got)
		}
	}},
	{"of many who want a key at once, one gets it", func(t *testing.T, s stage) {
		var winners atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			store := []session.Store{s.a, s.b}[i%2]
			wg.Go(func() {
				me := session.Node{ID: fmt.Sprint("node", i)}
				l, err := store.Acquire(t.Context(), "room", me, long)
				if err != nil {
					t.Error(err)
				}
				if l.Node == me {
					winners.Add(1)
				}
			})
		}
		wg.Wait()
		if winners.Load() != 1 {
			t.Errorf("%d nodes hold the key", winners.Load())
		}
	}},
	{"sessions are listed by room and by user, oldest first, on every node", func(t *testing.T, s stage) {
		one := session.Session{ID: "1", Kind: session.SFU, Room: "!r", User: "@u", Device: "D", Node: "A", Started: noon.Add(time.Second)}
		two := session.Session{ID: "2", Kind: session.TURN, User: "@u", Node: "B", Started: noon}
		three := session.Session{ID: "3", Kind: session.Call, Room: "!r", User: "@v", Call: "c", Node: "B", Started: noon.Add(time.Second)}
		put(t, s.a, long, one, three)
		put(t, s.b, long, two)
		for _, store := range []session.Store{s.a, s.b} {
			want(t, "by room", list(t, store.ByRoom, "!r"), one, three)
			want(t, "by user", list(t, store.ByUser, "@u"), two, one)
			want(t, "nobody's", list(t, store.ByUser, "@nobody"))
			want(t, "no room", list(t, store.ByRoom, ""))
		}
		if err := s.b.Drop(t.Context(), "1", "not there"); err != nil {
			t.Fatal(err)
		}
		want(t, "by room after a drop", list(t, s.a.ByRoom, "!r"), three)
		want(t, "by user after a drop", list(t, s.a.ByUser, "@u"), two)
	}},
	{"a session put again is not doubled, and lasts longer", func(t *testing.T, s stage) {
		one := session.Session{ID: "1", Room: "!r", User: "@u", Started: noon}
		put(t, s.a, s.short, one, session.Session{ID: "2", Room: "!r", User: "@u", Started: noon})
		put(t, s.a, long, one)
		want(t, "before", list(t, s.b.ByRoom, "!r")[:1], one)
		s.pass()
		want(t, "by room", list(t, s.b.ByRoom, "!r"), one)
		want(t, "by user", list(t, s.b.ByUser, "@u"), one)
	}},
	{"an id used for another room or user leaves the old one's list", func(t *testing.T, s stage) {
		put(t, s.a, long, session.Session{ID: "1", Room: "!r", User: "@u", Started: noon})
		moved := session.Session{ID: "1", Room: "!s", User: "@v", Started: noon}
		put(t, s.a, long, moved)
		want(t, "old room", list(t, s.b.ByRoom, "!r"))
		want(t, "old user", list(t, s.b.ByUser, "@u"))
		want(t, "new room", list(t, s.b.ByRoom, "!s"), moved)
	}},
	{"thousands of sessions may be put at once", func(t *testing.T, s stage) {
		var many []session.Session
		for i := range 2500 {
			many = append(many, session.Session{ID: fmt.Sprint(i), Room: "!r", User: fmt.Sprint("@", i%10), Started: noon})
		}
		put(t, s.a, long, many...)
		if n := len(list(t, s.b.ByRoom, "!r")); n != 2500 {
			t.Errorf("%d sessions in the room", n)
		}
		if n := len(list(t, s.b.ByUser, "@3")); n != 250 {
			t.Errorf("%d sessions of the user", n)
		}
	}},
}

func TestMemConforms(t *testing.T) {
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			clock := clocktest.New()
			m := session.NewMem(clock)
			defer m.Close()
			c.run(t, stage{a: m, b: m, short: time.Minute, pass: func() { clock.Advance(time.Minute) }})
		})
	}
}

func TestRedisConforms(t *testing.T) {
	server := redistest.Start(t)
	for i, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			prefix := fmt.Sprint(i, ":")
			const short = 300 * time.Millisecond
			c.run(t, stage{
				a: dial(t, server, prefix, time.Millisecond), b: dial(t, server, prefix, time.Millisecond), short: short,
				// Redis goes by its own clock, so here time must really pass.
				pass: func() { <-time.After(short + 50*time.Millisecond) },
			})
		})
	}
}

func TestTokensGrowWhenRedisHasLostEverything(t *testing.T) {
	server := redistest.Start(t)
	a := dial(t, server, "p:", time.Millisecond)
	before := acquire(t, a, "room", nodeA, long)
	server.Do("FLUSHALL")
	if after := acquire(t, a, "room", nodeB, long); after.Token <= before.Token || after.Node != nodeB {
		t.Errorf("%+v after %+v", after, before)
	}
}

func TestAnEmptiedRedisLetsFormerHoldersInFirst(t *testing.T) {
	server := redistest.Start(t)
	const settle = 500 * time.Millisecond
	a, b := dial(t, server, "p:", settle), dial(t, server, "p:", settle)
	l := acquire(t, a, "room", nodeA, long)
	server.Do("FLUSHALL")
	emptied := time.Now()
	got := make(chan session.Lease)
	go func() { got <- acquire(t, b, "room", nodeB, long) }()
	again, err := a.Renew(t.Context(), l, long)
	if err != nil || again.Node != nodeA || again.Token <= l.Token {
		t.Errorf("the former holder got %+v, %v", again, err)
	}
	if other := <-got; other.Node != nodeA {
		t.Errorf("a newcomer took the key: %+v", other)
	}
	free := acquire(t, b, "new room", nodeB, long)
	if waited := time.Since(emptied); free.Node != nodeB || waited < settle/2 {
		t.Errorf("a new key was given after %v", waited)
	}
	ctx, cancel := context.WithCancel(t.Context())
	server.Do("FLUSHALL")
	cancel()
	if _, err := b.Acquire(ctx, "room", nodeB, long); err == nil {
		t.Error("acquired with an ended context")
	}
}

func TestABadAddressIsAnError(t *testing.T) {
	if _, err := session.NewRedis(session.RedisConfig{URL: "http://nonsense"}); err == nil {
		t.Error("accepted")
	}
}

func TestNothingExpiredStaysInMemory(t *testing.T) {
	clock := clocktest.New()
	m := session.NewMem(clock)
	one := session.Session{ID: "same", Room: "!r", User: "@u"}
	for i := range 1000 {
		acquire(t, m, fmt.Sprint("room", i), nodeA, time.Second)
		put(t, m, time.Second, session.Session{ID: fmt.Sprint(i), Room: fmt.Sprint("!", i), User: fmt.Sprint("@", i)}, one)
	}
	clock.Advance(time.Second)
	if left := m.Len(); left != 2001 {
		t.Fatalf("%d entries before, want 2001", left)
	}
	want(t, "expired", list(t, m.ByRoom, "!r"))
	if left := m.Len(); left != 0 {
		t.Errorf("%d entries left", left)
	}
}

func dial(t testing.TB, server *redistest.Server, prefix string, settle time.Duration) *session.Redis {
	t.Helper()
	s, err := session.NewRedis(session.RedisConfig{URL: server.URL(), Prefix: prefix, Settle: settle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func acquire(t testing.TB, s session.Store, key string, by session.Node, ttl time.Duration) session.Lease {
	t.Helper()
	l, err := s.Acquire(context.Background(), key, by, ttl)
	if err != nil {
		t.Error(err)
	}
	return l
}

func put(t testing.TB, s session.Store, ttl time.Duration, sessions ...session.Session) {
	t.Helper()
	if err := s.Put(context.Background(), ttl, sessions...); err != nil {
		t.Fatal(err)
	}
}

func list(t testing.TB, by func(context.Context, string) ([]session.Session, error), name string) []session.Session {
	t.Helper()
	found, err := by(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func want(t testing.TB, what string, got []session.Session, want ...session.Session) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}
