// SPDX-License-Identifier: Apache-2.0

package rooms_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
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
