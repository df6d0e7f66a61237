// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkAppend appends to rooms of 20 on SQLite: alone, and 16 senders to 16 rooms, whose events share commits.
func BenchmarkAppend(b *testing.B) {
	ctx := context.Background()
	for _, kind := range []string{"message", "state"} {
		for _, senders := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/senders=%d", kind, senders), func(b *testing.B) {
				s := open(b, storagetest.Open(b, storagetest.SQLiteURL(b)))
				ids := make([]string, senders)
				for i := range ids {
					ids[i] = create(b, s, event.DefaultVersion)
					var drafts []rooms.Draft
					for n := range 20 {
						drafts = append(drafts, join(fmt.Sprintf("@u%d:example.org", n)))
					}
					if _, err := s.Append(ctx, ids[i], drafts...); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				start := cpu()
				var n atomic.Int64
				var wg sync.WaitGroup
				for i := range senders {
					wg.Go(func() {
						for x := n.Add(1); x <= int64(b.N); x = n.Add(1) {
							u := fmt.Sprintf("@u%d:example.org", x%20)
							d := rooms.Draft{Sender: u, Type: "m.room.message", Content: content(map[string]any{"msgtype": "m.text", "body": fmt.Sprint("an ordinary message ", x)})}
							if kind == "state" {
								d = rooms.Draft{Sender: u, Type: "m.room.member", StateKey: &u, Content: content(map[string]any{"membership": "join", "displayname": fmt.Sprint(x)})}
							}
							if _, err := s.Append(ctx, ids[i], d); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(cpu()-start)/float64(b.N)/1000, "cpu-µs/op")
			})
		}
	}
}

// BenchmarkInbound is what a transaction of 50 events costs: read, signatures checked, inserted. An operation is one event.
func BenchmarkInbound(b *testing.B) {
	w := newTown(b, event.DefaultVersion, 200, 200)
	key := w.signer.Key.Public().(ed25519.PublicKey)
	ctx := context.Background()
	s := open(b, storagetest.Open(b, storagetest.SQLiteURL(b)))
	in := w.admit(s, "@bob:example.org", false)
	if err := s.Enter(ctx, in); err != nil {
		b.Fatal(err)
	}
	w.list = append(w.list, in.Event)
	w.state[in.Event.Key()] = in.Event
	raw := make([][]byte, b.N)
	for i := range raw {
		u := fmt.Sprintf("@user%d:a.org", i%200)
		d := message(u, fmt.Sprint("message ", i))
		if i%10 == 0 {
			d = state(u, "m.room.member", u, map[string]any{"membership": "join", "displayname": fmt.Sprint(i)})
		}
		raw[i] = w.add(d).JSON()
	}
	busy := cpu()
	b.ResetTimer()
	for len(raw) > 0 {
		n := min(50, len(raw))
		list := make([]*event.Event, n)
		for i, x := range raw[:n] {
			e, err := event.Parse(w.v, x)
			if err != nil {
				b.Fatal(err)
			}
			if err := e.VerifySignature("a.org", "ed25519:1", key); err != nil {
				b.Fatal(err)
			}
			list[i] = e
		}
		raw = raw[n:]
		status, err := s.Insert(ctx, w.id, list)
		if err != nil || slices.ContainsFunc(status, func(x storage.Status) bool { return x != storage.StatusOK }) {
			b.Fatal(status, err)
		}
	}
	b.ReportMetric(float64(cpu()-busy)/1e3/float64(b.N), "cpu-µs/op")
}
