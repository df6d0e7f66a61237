// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/bus"
	"github.com/trunkboard/trunkboard/signalling/redistest"
)

const patience = 10 * time.Second

// The conformance suite: every Bus must pass each of these. nodes gives two nodes of one Trunkboard, which may be the same Bus.
var suite = []struct {
	name string
	run  func(t *testing.T, a, b bus.Bus)
}{
	{"a hint reaches subscribers on every node", func(t *testing.T, a, b bus.Bus) {
		onA, onB := subscribe(t, a, "room/1"), subscribe(t, b, "room/1")
		publish(t, a, "room/1", "from a")
		publish(t, b, "room/1", "from b")
		for _, s := range []*bus.Subscription{onA, onB} {
			got := map[string]bool{}
			for range 2 {
				m := next(t, s)
				if m.Topic != "room/1" || m.Missed {
					t.Errorf("got %+v", m)
				}
				got[string(m.Payload)] = true
			}
			if diff := cmp.Diff(map[string]bool{"from a": true, "from b": true}, got); diff != "" {
				t.Error(diff)
			}
		}
	}},
	{"hints of one sender on one topic keep their order", func(t *testing.T, a, b bus.Bus) {
		s := subscribe(t, b, "seq")
		for i := range 200 {
			publish(t, a, "seq", fmt.Sprint(i))
		}
		for i := range 200 {
			if m := next(t, s); string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, m.Payload)
			}
		}
	}},
	{"a prefix covers its topics and nothing else, whatever characters it has", func(t *testing.T, a, b bus.Bus) {
		for _, prefix := range []string{"room/", "we[i]rd?\\", "ünï/"} {
			s := subscribe(t, b, prefix+"*")
			publish(t, a, "other/1", "no")
			publish(t, a, "weird", "no")
			publish(t, a, prefix+"1", "1")
			publish(t, a, prefix, "2")
			for _, want := range []string{"1", "2"} {
				if m := next(t, s); string(m.Payload) != want {
					t.Errorf("prefix %q: got %+v, want %s", prefix, m, want)
				}
			}
			s.Close()
		}
	}},
	{"overlapping topics of one subscription deliver once", func(t *testing.T, a, b bus.Bus) {
		for _, at := range []bus.Bus{a, b} {
			s := subscribe(t, at, "x/*", "x/y", "*", "x/y")
			publish(t, a, "x/y", "1")
			publish(t, a, "z", "2")
			publish(t, a, "x/z", "3")
			for _, want := range []string{"1", "2", "3"} {
				if m := next(t, s); string(m.Payload) != want {
					t.Fatalf("got %+v, want %s", m, want)
				}
			}
			s.Close()
		}
	}},
	{"a slow reader loses the oldest and is told", func(t *testing.T, a, b bus.Bus) {
		slow, witness := subscribe(t, b, "flood"), subscribe(t, b, "flood")
		const sent = queue * 3
		for i := range sent {
			publish(t, a, "flood", fmt.Sprint(i))
			next(t, witness)
		}
		// The witness may be one message ahead of the slow reader.
		read, missed := 0, false
		for newest := fmt.Sprint(sent - 1); ; {
			m := next(t, slow)
			read, missed = read+1, missed || m.Missed
			if string(m.Payload) == newest {
				break
			}
		}
		if !missed || read > queue+1 {
			t.Errorf("read %d messages from a queue of %d, told of the loss: %v", read, queue, missed)
		}
	}},
	{"a closed subscription ends its channel and hears nothing more", func(t *testing.T, a, b bus.Bus) {
		s, other := subscribe(t, b, "t"), subscribe(t, b, "t")
		s.Close()
		s.Close()
		publish(t, a, "t", "x")
		next(t, other)
		if m, open := <-s.C(); open {
			t.Errorf("got %+v after Close", m)
		}
		other.Close()
		again := subscribe(t, b, "t")
		publish(t, a, "t", "y")
		if m := next(t, again); string(m.Payload) != "y" {
			t.Errorf("got %+v", m)
		}
	}},
	{"bad topics and oversize payloads are refused", func(t *testing.T, a, _ bus.Bus) {
		s := subscribe(t, a, "*")
		long := string(bytes.Repeat([]byte("x"), bus.MaxTopic+1))
		for _, topic := range []string{"", "a*", "*", long} {
			wantCode(t, a.Publish(topic, nil), "M_INVALID_PARAM")
		}
		wantCode(t, a.Publish("ok", make([]byte, bus.MaxPayload+1)), "M_TOO_LARGE")
		for _, topic := range []string{"", "a*b*", long, long + "*"} {
			_, err := a.Subscribe(t.Context(), topic)
			wantCode(t, err, "M_INVALID_PARAM")
		}
		publish(t, a, "ok", string(make([]byte, bus.MaxPayload)))
		if m := next(t, s); m.Topic != "ok" || len(m.Payload) != bus.MaxPayload {
			t.Errorf("first message to arrive: %s with %d bytes", m.Topic, len(m.Payload))
		}
	}},
	{"the payload belongs to the publisher again after Publish", func(t *testing.T, a, b bus.Bus) {
		s := subscribe(t, b, "t")
		p := []byte("before")
		if err := a.Publish("t", p); err != nil {
			t.Fatal(err)
		}
		copy(p, "after!")
		if m := next(t, s); string(m.Payload) != "before" {
			t.Errorf("got %q", m.Payload)
		}
	}},
	{"close ends all subscriptions and refuses new work", func(t *testing.T, a, _ bus.Bus) {
		s := subscribe(t, a, "t")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if _, open := <-s.C(); open {
			t.Error("the channel is open after Close")
		}
		if err := a.Publish("t", nil); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Publish: %v", err)
		}
		if _, err := a.Subscribe(t.Context(), "t"); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Subscribe: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	}},
	{"many may publish, subscribe and close at once", func(t *testing.T, a, b bus.Bus) {
		steady := subscribe(t, b, "t/*")
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 20 {
					s, err := b.Subscribe(t.Context(), fmt.Sprintf("t/%d", i%3), "t/*")
					if err != nil {
						t.Error(err)
						return
					}
					if err := a.Publish(fmt.Sprintf("t/%d", g), []byte("x")); err != nil {
						t.Error(err)
					}
					s.Close()
				}
			})
		}
		wg.Wait()
		publish(t, a, "t/end", "end")
		for m := next(t, steady); m.Topic != "t/end"; m = next(t, steady) {
		}
	}},
}

const queue = 256

func TestMemConforms(t *testing.T) {
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			b := bus.NewMem(queue)
			defer b.Close()
			c.run(t, b, b)
		})
	}
}

func TestRedisConforms(t *testing.T) {
	server := redistest.Start(t)
	for i, c := range suite {
		t.Run(c.name, func(t *testing.T) {
			prefix := fmt.Sprintf("test%d[x]*:", i)
			a, b := dial(t, server, prefix), dial(t, server, prefix)
			c.run(t, a, b)
		})
	}
}

func TestTrunkboardsWithDifferentPrefixesDoNotHearEachOther(t *testing.T) {
	server := redistest.Start(t)
	a, b := dial(t, server, "one:"), dial(t, server, "two:")
	s := subscribe(t, b, "*")
	publish(t, a, "t", "foreign")
	publish(t, b, "t", "own")
	if m := next(t, s); string(m.Payload) != "own" {
		t.Errorf("got %+v", m)
	}
}

func TestAfterRedisReturnsHintsFlowAgainAndSubscribersAreTold(t *testing.T) {
	server := redistest.Start(t)
	a, b := dial(t, server, "p:"), dial(t, server, "p:")
	sub := subscribe(t, b, "t", "p/*")
	server.Kill()
	// While Redis is away a node still hears itself, at once, and may subscribe.
	publish(t, b, "t", "local")
	if m := next(t, sub); string(m.Payload) != "local" {
		t.Fatalf("got %+v", m)
	}
	for i := range 10_000 {
		publish(t, a, "t", fmt.Sprint("lost", i))
	}
	server.Restart()
	back := time.Now()
	for m := next(t, sub); !m.Missed; m = next(t, sub) {
	}
	t.Logf("told of the gap %v after Redis' return", time.Since(back).Round(time.Millisecond))
	// Until a's sender has found Redis again its hints may be lost too, but then b is told.
	got := make(chan struct{})
	go func() {
		defer close(got)
		for m := range sub.C() {
			if m.Topic == "p/new" {
				return
			}
		}
	}()
	for deadline := time.After(patience); ; {
		publish(t, a, "p/new", "x")
		select {
		case <-got:
			t.Logf("hints flow again %v after Redis' return", time.Since(back).Round(time.Millisecond))
			if time.Since(back) > 5*time.Second {
				t.Error("that is more than 5 s")
			}
			return
		case <-deadline:
			t.Fatal("no hint arrives")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestASubscriptionMadeWhileRedisIsAwayWorksAfterItsReturn(t *testing.T) {
	server := redistest.Start(t)
	a, b := dial(t, server, "p:"), dial(t, server, "p:")
	subscribe(t, b, "x")
	server.Kill()
	sub := subscribe(t, b, "t")
	server.Restart()
	if m := next(t, sub); !m.Missed {
		t.Fatalf("got %+v", m)
	}
	for deadline := time.After(patience); ; {
		publish(t, a, "t", "x")
		select {
		case m := <-sub.C():
			if m.Topic == "t" {
				return
			}
		case <-deadline:
			t.Fatal("no hint arrives")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestAFrozenRedisBlocksNeitherPublishNorClose(t *testing.T) {
	server := redistest.Start(t)
	a := dial(t, server, "p:")
	subscribe(t, a, "t")
	server.Freeze()
	defer server.Thaw()
	start := time.Now()
	for range 10_000 {
		publish(t, a, "t", "x")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestABadAddressIsAnError(t *testing.T) {
	if _, err := bus.NewRedis(bus.RedisConfig{URL: "http://nonsense"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("accepted")
	}
}

func dial(t testing.TB, server *redistest.Server, prefix string) *bus.Redis {
	t.Helper()
	b, err := bus.NewRedis(bus.RedisConfig{URL: server.URL(), Prefix: prefix, Queue: queue}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func subscribe(t testing.TB, b bus.Bus, topics ...string) *bus.Subscription {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := b.Subscribe(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func publish(t testing.TB, b bus.Bus, topic, payload string) {
	t.Helper()
	if err := b.Publish(topic, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func next(t testing.TB, s *bus.Subscription) bus.Message {
	t.Helper()
	select {
	case m, open := <-s.C():
		if !open {
			t.Fatal("subscription closed")
		}
		return m
	case <-time.After(patience):
		t.Fatal("no message")
	}
	return bus.Message{}
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var e *signalling.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func BenchmarkHintFromNodeToNodeOverRedis(b *testing.B) {
	server := redistest.Start(b)
	from, to := dial(b, server, "p:"), dial(b, server, "p:")
	s := subscribe(b, to, "t")
	b.ReportAllocs()
	for b.Loop() {
		publish(b, from, "t", "x")
		next(b, s)
	}
}

func BenchmarkHintWithinANode(b *testing.B) {
	m := bus.NewMem(0)
	s := subscribe(b, m, "room/*")
	b.ReportAllocs()
	for b.Loop() {
		publish(b, m, "room/1", "x")
		<-s.C()
	}
}
