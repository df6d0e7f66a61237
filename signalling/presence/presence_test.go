// SPDX-License-Identifier: Apache-2.0

package presence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
	"github.com/trunkboard/trunkboard/signalling/presence"
	"github.com/trunkboard/trunkboard/signalling/redistest"
)

const patience = 10 * time.Second

var config = presence.Config{Hold: time.Minute, Idle: 5 * time.Minute, Retain: time.Hour, MaxUsers: 200}

// The conformance suite: every Store must pass each of these. a and b are two nodes of one Trunkboard, which may be the same Store;
// both go by clock.
var suite = []struct {
	name string
	run  func(t *testing.T, a, b presence.Store, clock *clocktest.Clock)
}{
	{"a user nobody knows is offline", func(t *testing.T, a, _ presence.Store, _ *clocktest.Clock) {
		want := []presence.Status{{UserID: "@x", State: presence.Offline}, {UserID: "@y", State: presence.Offline}}
		if diff := cmp.Diff(want, a.Get("@x", "@y")); diff != "" {
			t.Error(diff)
		}
		set(t, a, presence.Update{UserID: "@x", DeviceID: "D", State: presence.Offline})
		set(t, a, presence.Update{UserID: "@x", DeviceID: "D", LastActive: clock0})
		if got, _, _ := a.Changes(0, 0); len(got) != 0 {
			t.Errorf("changes: %v", got)
		}
	}},
	{"what a device says is seen at once on its node and soon on every other", func(t *testing.T, a, b presence.Store, clock *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online, StatusMsg: text("hello")})
		if s := a.Get("@u")[0]; s.State != presence.Online || s.StatusMsg != "hello" || !s.LastActive.Equal(clock.Now()) {
			t.Errorf("own node sees %+v", s)
		}
		await(t, b, "@u", presence.Online, "hello")
	}},
	{"of several devices the most present wins, wherever they are", func(t *testing.T, a, b presence.Store, _ *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "phone", State: presence.Unavailable})
		await(t, b, "@u", presence.Unavailable, "")
		set(t, b, presence.Update{UserID: "@u", DeviceID: "laptop", State: presence.Online})
		await(t, a, "@u", presence.Online, "")
		set(t, b, presence.Update{UserID: "@u", DeviceID: "laptop", State: presence.Offline})
		await(t, a, "@u", presence.Unavailable, "")
		set(t, a, presence.Update{UserID: "@u", DeviceID: "phone", State: presence.Offline})
		await(t, b, "@u", presence.Offline, "")
	}},
	{"a device that says nothing more is offline after its hold", func(t *testing.T, a, b presence.Store, clock *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online})
		await(t, b, "@u", presence.Online, "")
		clock.Advance(config.Hold - time.Second)
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D"})
		clock.Advance(config.Hold - time.Second)
		if s := a.Get("@u")[0]; s.State != presence.Online {
			t.Errorf("%+v although it was heard of", s)
		}
		clock.Advance(time.Second)
		await(t, a, "@u", presence.Offline, "")
		await(t, b, "@u", presence.Offline, "")
	}},
	{"an online user who does nothing becomes unavailable, and online again by doing something", func(t *testing.T, a, b presence.Store, clock *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online})
		begin := clock.Now()
		for clock.Now().Sub(begin) < config.Idle-time.Second {
			clock.Advance(config.Hold - time.Second)
			set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online})
		}
		clock.Advance(begin.Add(config.Idle).Sub(clock.Now()))
		await(t, a, "@u", presence.Unavailable, "")
		await(t, b, "@u", presence.Unavailable, "")
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Unavailable})
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", LastActive: clock.Now()})
		await(t, a, "@u", presence.Online, "")
		await(t, b, "@u", presence.Online, "")
	}},
	{"activity does not bring a device online that is not there", func(t *testing.T, a, _ presence.Store, clock *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Offline, StatusMsg: text("gone")})
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", LastActive: clock.Now()})
		if s := a.Get("@u")[0]; s.State != presence.Offline || s.StatusMsg != "gone" {
			t.Errorf("%+v", s)
		}
	}},
	{"the latest status message wins and stays until it is replaced", func(t *testing.T, a, b presence.Store, clock *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online, StatusMsg: text("one")})
		await(t, b, "@u", presence.Online, "one")
		set(t, b, presence.Update{UserID: "@u", DeviceID: "E", State: presence.Online, StatusMsg: text("two")})
		await(t, a, "@u", presence.Online, "two")
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online})
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Offline})
		await(t, a, "@u", presence.Online, "two")
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online, StatusMsg: text("")})
		await(t, b, "@u", presence.Online, "")
	}},
	{"changes are listed once each, oldest first, from a version on", func(t *testing.T, a, _ presence.Store, clock *clocktest.Clock) {
		begin := a.Version()
		for _, u := range []string{"@1", "@2", "@3", "@1"} {
			state := presence.Online
			if a.Get(u)[0].State == presence.Online {
				state = presence.Unavailable
			}
			set(t, a, presence.Update{UserID: u, DeviceID: "D", State: state})
		}
		all, upto, complete := a.Changes(begin, 0)
		if diff := cmp.Diff([]string{"@2", "@3", "@1"}, names(all)); diff != "" || !complete || upto != a.Version() {
			t.Errorf("%s complete %v, upto %d of %d", diff, complete, upto, a.Version())
		}
		first, upto, complete := a.Changes(begin, 2)
		if diff := cmp.Diff([]string{"@2", "@3"}, names(first)); diff != "" || !complete {
			t.Error(diff)
		}
		rest, upto, _ := a.Changes(upto, 2)
		if diff := cmp.Diff([]string{"@1"}, names(rest)); diff != "" || upto != a.Version() {
			t.Error(diff)
		}
		if none, _, complete := a.Changes(upto, 0); len(none) != 0 || !complete {
			t.Errorf("%v changed after the last change", names(none))
		}
		// A sign of life that changes nothing that is seen is no change.
		clock.Advance(time.Second)
		set(t, a, presence.Update{UserID: "@2", DeviceID: "D", State: presence.Online, LastActive: clock.Now()})
		if v := a.Version(); v != upto {
			t.Errorf("version went from %d to %d", upto, v)
		}
		if s := a.Get("@2")[0]; !s.LastActive.Equal(clock.Now()) {
			t.Errorf("last active %v, want %v", s.LastActive, clock.Now())
		}
	}},
	{"versions that cannot be answered exactly say so", func(t *testing.T, a, _ presence.Store, clock *clocktest.Clock) {
		old := a.Version()
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online})
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Offline})
		for _, since := range []uint64{1, old - 1, a.Version() + 1} {
			if _, upto, complete := a.Changes(since, 0); complete || upto != a.Version() {
				t.Errorf("since %d: complete %v upto %d", since, complete, upto)
			}
		}
		if _, _, complete := a.Changes(old, 0); !complete {
			t.Error("not complete although all is known")
		}
		clock.Advance(config.Retain)
		if got, _, complete := a.Changes(old, 0); complete || len(got) != 0 {
			t.Errorf("complete %v with %v, although the user was forgotten", complete, got)
		}
		if got, _, complete := a.Changes(0, 0); !complete || len(got) != 0 {
			t.Errorf("from 0: complete %v, %v", complete, got)
		}
	}},
	{"watchers are poked until their context ends", func(t *testing.T, a, b presence.Store, _ *clocktest.Clock) {
		ctx, cancel := context.WithCancel(t.Context())
		c := b.Watch(ctx)
		set(t, a, presence.Update{UserID: "@u", DeviceID: "D", State: presence.Online})
		select {
		case <-c:
		case <-time.After(patience):
			t.Fatal("not poked")
		}
		cancel()
	}},
	{"bad updates are refused and change nothing", func(t *testing.T, a, _ presence.Store, _ *clocktest.Clock) {
		wantCode(t, a.Set(t.Context(), presence.Update{DeviceID: "D", State: presence.Online}), "M_INVALID_PARAM")
		wantCode(t, a.Set(t.Context(), presence.Update{UserID: "@u", State: "away"}), "M_INVALID_PARAM")
		wantCode(t, a.Set(t.Context(), presence.Update{
			UserID: "@u", State: presence.Online, StatusMsg: text(strings.Repeat("x", presence.MaxStatusMsg+1)),
		}), "M_TOO_LARGE")
		if got, _, _ := a.Changes(0, 0); len(got) != 0 {
			t.Errorf("changes: %v", got)
		}
	}},
	{"when all places are taken the longest offline makes room, and nobody who is present does", func(t *testing.T, a, _ presence.Store, clock *clocktest.Clock) {
		for i := range config.MaxUsers {
			set(t, a, presence.Update{UserID: fmt.Sprint("@", i), DeviceID: "D", State: presence.Online})
		}
		wantCode(t, a.Set(t.Context(), presence.Update{UserID: "@new", DeviceID: "D", State: presence.Online}), "M_LIMIT_EXCEEDED")
		begin := a.Version()
		clock.Advance(config.Hold)
		set(t, a, presence.Update{UserID: "@new", DeviceID: "D", State: presence.Online})
		if s := a.Get("@new")[0]; s.State != presence.Online {
			t.Errorf("got %+v", s)
		}
		if _, _, complete := a.Changes(begin, 0); complete {
			t.Error("complete although a change was forgotten")
		}
		if all, _, _ := a.Changes(0, 0); len(all) != config.MaxUsers {
			t.Errorf("%d users kept, want %d", len(all), config.MaxUsers)
		}
	}},
	{"a user has no endless number of devices", func(t *testing.T, a, _ presence.Store, clock *clocktest.Clock) {
		set(t, a, presence.Update{UserID: "@u", DeviceID: "first", State: presence.Online})
		for i := range 1000 {
			clock.Advance(time.Millisecond)
			set(t, a, presence.Update{UserID: "@u", DeviceID: fmt.Sprint(i), State: presence.Unavailable})
		}
		if s := a.Get("@u")[0]; s.State != presence.Unavailable {
			t.Errorf("the first of 1001 devices still counts: %+v", s)
		}
	}},
	{"many may set and read at once", func(t *testing.T, a, b presence.Store, clock *clocktest.Clock) {
		var wg sync.WaitGroup
		for g, s := range []presence.Store{a, b, a, b} {
			wg.Go(func() {
				for i := range 100 {
					state := []presence.State{presence.Online, presence.Unavailable, presence.Offline}[i%3]
					if err := s.Set(t.Context(), presence.Update{UserID: "@u", DeviceID: fmt.Sprint(g), State: state}); err != nil {
						t.Error(err)
					}
					s.Get("@u")
					s.Changes(0, 0)
				}
			})
		}
		wg.Go(func() {
			for range 100 {
				clock.Advance(time.Second / 10)
			}
		})
		wg.Wait()
		set(t, a, presence.Update{UserID: "@end", DeviceID: "D", State: presence.Online})
		await(t, b, "@end", presence.Online, "")
	}},
}

func TestMemConforms(t *testing.T) {
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			clock := clocktest.New()
			m := presence.NewMem(config, clock)
			c.run(t, m, m, clock)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if n := clock.Waiting(); n != 0 {
				t.Errorf("%d timers wait after Close", n)
			}
		})
	}
}

func TestRedisConforms(t *testing.T) {
	server := redistest.Start(t)
	for i, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			clock := clocktest.New()
			prefix := fmt.Sprint(i, ":")
			c.run(t, dial(t, server, prefix, clock, 0), dial(t, server, prefix, clock, 0), clock)
		})
	}
}

func TestADeadNodesUsersGoOffline(t *testing.T) {
	server := redistest.Start(t)
	clock := clocktest.New()
	a := dial(t, server, "p:", clock, 500*time.Millisecond)
	b := dial(t, server, "p:", clock, 500*time.Millisecond)
	set(t, a, presence.Update{UserID: "@a", DeviceID: "D", State: presence.Online})
	set(t, b, presence.Update{UserID: "@b", DeviceID: "D", State: presence.Online})
	await(t, b, "@a", presence.Online, "")
	await(t, a, "@b", presence.Online, "")
	a.Close()
	await(t, b, "@a", presence.Offline, "")
	if s := b.Get("@b")[0]; s.State != presence.Online {
		t.Errorf("the living node's user is %s", s.State)
	}
}

func TestANodeThatJoinsLearnsWhatIsKnown(t *testing.T) {
	server := redistest.Start(t)
	clock := clocktest.New()
	a := dial(t, server, "p:", clock, 0)
	for i := range 150 {
		set(t, a, presence.Update{UserID: fmt.Sprint("@", i), DeviceID: "D", State: presence.Online, StatusMsg: text(fmt.Sprint(i))})
	}
	b := dial(t, server, "p:", clock, 0)
	for i := range 150 {
		await(t, b, fmt.Sprint("@", i), presence.Online, fmt.Sprint(i))
	}
}

func TestAnEmptiedRedisIsFilledAgainByTheNodes(t *testing.T) {
	server := redistest.Start(t)
	clock := clocktest.New()
	a, b := dial(t, server, "p:", clock, 0), dial(t, server, "p:", clock, 0)
	set(t, a, presence.Update{UserID: "@a", DeviceID: "D", State: presence.Online, StatusMsg: text("kept")})
	await(t, b, "@a", presence.Online, "kept")
	server.Do("FLUSHALL")
	c := dial(t, server, "p:", clock, 0)
	await(t, c, "@a", presence.Online, "kept")
	if s := b.Get("@a")[0]; s.State != presence.Online {
		t.Errorf("@a flickered to %s", s.State)
	}
}

func TestWhileRedisIsAwayOwnUsersGoOnAndAllIsToldAfterItsReturn(t *testing.T) {
	server := redistest.Start(t)
	clock := clocktest.New()
	a, b := dial(t, server, "p:", clock, time.Second), dial(t, server, "p:", clock, time.Second)
	set(t, a, presence.Update{UserID: "@a", DeviceID: "D", State: presence.Online})
	await(t, b, "@a", presence.Online, "")
	server.Kill()
	set(t, a, presence.Update{UserID: "@a", DeviceID: "D", State: presence.Unavailable, StatusMsg: text("away")})
	set(t, a, presence.Update{UserID: "@new", DeviceID: "D", State: presence.Online})
	if s := a.Get("@a", "@new"); s[0].State != presence.Unavailable || s[1].State != presence.Online {
		t.Errorf("own node sees %+v", s)
	}
	// Longer than NodeTTL, so that a node which mistook Redis' silence for its peer's would drop the peer.
	outage := time.NewTimer(1500 * time.Millisecond)
	<-outage.C
	if s := b.Get("@a")[0]; s.State != presence.Online {
		t.Errorf("the other node forgot @a during the outage: %+v", s)
	}
	server.Restart()
	back := time.Now()
	await(t, b, "@a", presence.Unavailable, "away")
	await(t, b, "@new", presence.Online, "")
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("recovery took %v", took)
	} else {
		t.Logf("recovered %v after Redis' return", took.Round(time.Millisecond))
	}
}

var clock0 = clocktest.New().Now()

func dial(t testing.TB, server *redistest.Server, prefix string, clock signalling.Clock, nodeTTL time.Duration) *presence.Redis {
	t.Helper()
	s, err := presence.NewRedis(config, presence.RedisConfig{
		URL: server.URL(), Prefix: prefix, Tick: 20 * time.Millisecond, NodeTTL: nodeTTL,
	}, clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func text(s string) *string { return &s }

func set(t testing.TB, s presence.Store, u presence.Update) {
	t.Helper()
	if err := s.Set(context.Background(), u); err != nil {
		t.Fatal(err)
	}
}

// await waits until s sees user in this state with this message.
func await(t testing.TB, s presence.Store, user string, state presence.State, msg string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	news := s.Watch(ctx)
	for deadline := time.After(patience); ; {
		got := s.Get(user)[0]
		if got.State == state && got.StatusMsg == msg {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("%s is %+v, want %s %q", user, got, state, msg)
		}
	}
}

func names(list []presence.Status) []string {
	var ids []string
	for _, s := range list {
		ids = append(ids, s.UserID)
	}
	return ids
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var e *signalling.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func BenchmarkSetAmongManyUsers(b *testing.B) {
	for _, users := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			m := presence.NewMem(presence.Config{}, signalling.SystemClock{})
			defer m.Close()
			ids := make([]string, users)
			for i := range ids {
				ids[i] = fmt.Sprintf("@user%d:example.org", i)
				set(b, m, presence.Update{UserID: ids[i], DeviceID: "D", State: presence.Online})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				set(b, m, presence.Update{UserID: ids[i%users], DeviceID: "D", State: presence.Online})
			}
		})
	}
}
