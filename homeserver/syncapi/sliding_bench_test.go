// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// BenchmarkSliding measures an answer for accounts of several sizes whose whole room list is in the window: the first one, and one
// that delivers an event.
func BenchmarkSliding(b *testing.B) {
	for _, n := range []int{100, 1000} {
		w := start(b, storagetest.Open(b, storagetest.SQLiteURL(b)))
		var last string
		for range n {
			last = den(w)
			w.send(last, member(bob, bob, "join"), text(alice, "hello"))
		}
		q := one(1, -1, [2]string{"m.room.name", ""}, [2]string{"m.room.member", "$LAZY"}, [2]string{"m.room.member", "$ME"})
		b.Run(fmt.Sprintf("first/rooms=%d", n), func(b *testing.B) {
			for b.Loop() {
				u := &slider{w: w, user: bob, device: "F", conn: "f"}
				if r := u.sync(q); len(r.Get("rooms").Map()) != n {
					b.Fatal(len(r.Get("rooms").Map()))
				}
			}
		})
		b.Run(fmt.Sprintf("live/rooms=%d", n), func(b *testing.B) {
			u := &slider{w: w, user: bob, device: "L", conn: "l"}
			u.sync(q)
			for b.Loop() {
				b.StopTimer()
				w.send(last, text(alice, rand.Text()))
				b.StartTimer()
				if r := u.sync(q); len(r.Get("rooms").Map()) != 1 {
					b.Fatal(r)
				}
			}
		})
	}
}
