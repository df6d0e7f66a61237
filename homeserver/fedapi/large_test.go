// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// TestDrillALargeRoomIsJoinedOverHTTP joins a room of 5,000 members and 20,000 pieces of state, with and without its members at first: make
// test-long. Processor time is that of both servers together.
func TestDrillALargeRoomIsJoinedOverHTTP(t *testing.T) {
	members, pieces := 200, 400
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		members, pieces = 5000, 20000
	}
	w := newWorld(t)
	a := w.server("a.test")
	room := a.create(event.DefaultVersion, "@alice:a.test")
	var drafts []rooms.Draft
	for i := range pieces {
		u := fmt.Sprintf("@user%d:a.test", i)
		d := rooms.Draft{Sender: u, Type: "m.room.member", StateKey: &u, Content: []byte(fmt.Sprintf(`{"membership":"join","displayname":"User %d","avatar_url":"mxc://a.test/%d"}`, i, i))}
		if i >= members {
			k := fmt.Sprint(i)
			d = rooms.Draft{Sender: "@alice:a.test", Type: "org.example.state", StateKey: &k, Content: []byte(`{"n":1}`)}
		}
		if drafts = append(drafts, d); len(drafts) == 500 || i == pieces-1 {
			if _, err := a.rooms.Append(t.Context(), room, drafts...); err != nil {
				t.Fatal(err)
			}
			drafts = drafts[:0]
		}
	}
	for i, lean := range []bool{false, true} { // a large room is joined without its members anyway
		b := w.server(fmt.Sprintf("b%d.test", i))
		in := entrance(fmt.Sprintf("@bob:b%d.test", i), room, a)
		in.Lean = lean
		before := heap()
		start, busy := time.Now(), cpu()
		if err := b.fed.Join(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		usable, usableCPU := time.Since(start), cpu()-busy
		if err := b.rooms.Whole(t.Context(), room); err != nil {
			t.Fatal(err)
		}
		took, used := time.Since(start), cpu()-busy
		if n := len(b.room(room).Head().Joined()); n != members+2+i {
			t.Errorf("%d members", n)
		}
		t.Logf("members left out: %v. Usable after %v (%v of processor time), whole after %v (%v); heap +%d MB", lean, usable, usableCPU, took, used, (heap()-before)>>20)
	}
}
