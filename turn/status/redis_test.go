// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trunkboard/trunkboard/signalling/redistest"
	"github.com/trunkboard/trunkboard/turn"
)

func event(what string, id uint64) turn.SessionEvent {
	return turn.SessionEvent{What: what, Session: turn.Session{
		ID: id, User: "ann", Realm: "a/b%", Transport: "tls", Client: netip.MustParseAddrPort("192.0.2.7:5000"), Server: netip.MustParseAddrPort("[2001:db8::1]:5349"),
		Expires: time.Now().Add(10 * time.Minute), ToPeer: turn.Amount{Packets: 2, Bytes: 320}, ToClient: turn.Amount{Packets: 1, Bytes: 160},
	}}
}

func TestSessionsAreToldInCoturnsWordsAlsoAfterRedisWasAway(t *testing.T) {
	server := redistest.Start(t)
	r, err := NewRedis(server.URL(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	opt, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	watcher := redis.NewClient(opt)
	defer watcher.Close()
	heard := watcher.PSubscribe(context.Background(), "turn/realm/*")
	defer heard.Close()
	if _, err := heard.Receive(context.Background()); err != nil { // the subscription's own answer
		t.Fatal(err)
	}
	next := func() (channel, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		m, err := heard.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return m.Channel, m.Payload
	}
	const key = "turn/realm/a%2Fb%25/user//allocation/000000000000000007"
	for _, what := range []string{turn.SessionNew, turn.SessionRefreshed} {
		r.Notify(event(what, 7))
		channel, text := next()
		if channel != key+"/status" || !strings.HasPrefix(text, what+" lifetime=") || !strings.HasSuffix(text, ", type=TLS/TCP, local=[2001:db8::1]:5349, remote=192.0.2.7:5000, ssl=TLS, cipher=NONE") {
			t.Errorf("%s: %s", channel, text)
		}
		if kept, err := watcher.Get(context.Background(), key+"/status").Result(); err != nil || kept != text {
			t.Errorf("Redis keeps %q, told was %q, %v", kept, text, err)
		}
	}
	if left, err := watcher.TTL(context.Background(), key+"/status").Result(); err != nil || left < 9*time.Minute || left > 12*time.Minute {
		t.Errorf("the key lives %v, %v", left, err)
	}
	r.Notify(event(turn.SessionDeleted, 7))
	for _, want := range [][2]string{
		{"/status", "deleted"}, {"/total_traffic", "rcvp=2, rcvb=320, sentp=1, sentb=160"}, {"/total_traffic/peer", "rcvp=1, rcvb=160, sentp=2, sentb=320"},
	} {
		if channel, text := next(); channel != key+want[0] || text != want[1] {
			t.Errorf("%s: %s, want %v", channel, text, want)
		}
	}
	there := func(id string) bool {
		n, err := watcher.Exists(context.Background(), strings.Replace(key, "007", id, 1)+"/status").Result()
		return err == nil && n == 1
	}
	if there("007") {
		t.Error("the key of a session that is over is still there")
	}
	server.Kill()
	for id := range uint64(20) {
		r.Notify(event(turn.SessionNew, 100+id))
	}
	server.Restart()
	for deadline := time.Now().Add(time.Minute); !there("119"); time.Sleep(10 * time.Millisecond) { // another program's memory
		if time.Now().After(deadline) {
			t.Fatal("what was told while Redis was away is not there afterwards")
		}
	}
	r.Notify(event(turn.SessionNew, 500))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.Notify(event(turn.SessionNew, 501)) // what waits is told still
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if !there("500") || !there("501") {
		t.Error("the last ones are not told")
	}
}

func TestARedisThatIsAwayForLongCostsABoundedQueue(t *testing.T) {
	r, err := NewRedis("redis://127.0.0.1:1/0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(waiting + 5) {
		r.Notify(event(turn.SessionNew, id))
	}
	if len(r.queue) != waiting || r.lost != 5 {
		t.Errorf("%d wait, %d are lost", len(r.queue), r.lost)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil { // and its end does not hang
		t.Error(err)
	}
	if _, err := NewRedis("http://x", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("any URL will do")
	}
}
