// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// TestARoomJoinedWithoutItsMembersIsWholeSoonAfter joins lean: the room is there at once, and the state comes behind, from the second
// server asked when the first has none.
func TestARoomJoinedWithoutItsMembersIsWholeSoonAfter(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.server("a.test"), w.server("b.test"), w.server("c.test")
	room := a.create(event.DefaultVersion, "@alice:a.test")
	c.join("@cem:c.test", room, a)
	var drafts []rooms.Draft
	for i := range 20 {
		u := fmt.Sprintf("@user%d:a.test", i)
		drafts = append(drafts, rooms.Draft{Sender: u, Type: "m.room.member", StateKey: &u, Content: []byte(`{"membership":"join"}`)})
	}
	if _, err := a.rooms.Append(t.Context(), room, drafts...); err != nil {
		t.Fatal(err)
	}
	catchUp(t, a, c, room)
	asked := make(chan struct{}, 8)
	a.answer("GET /_matrix/federation/v1/state/{room}", func(rw http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		rw.WriteHeader(http.StatusNotFound)
		_, _ = rw.Write([]byte(`{"errcode":"M_NOT_FOUND","error":"lost"}`))
	})
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	c.answer("GET /_matrix/federation/v1/state/{room}", func(rw http.ResponseWriter, r *http.Request) {
		<-hold
		c.api.ServeHTTP(rw, r)
	})
	in := entrance("@bob:b.test", room, a)
	in.Lean = true
	if err := b.fed.Join(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	r := b.room(room)
	if !r.Partial() || r.Head().IsJoined("@user15:a.test") || !r.Head().IsJoined("@bob:b.test") {
		t.Fatal("the room is not there at once without its members")
	}
	if got := r.Servers(); !slices.Contains(got, "c.test") || !slices.Contains(got, "a.test") {
		t.Errorf("servers: %v", got)
	}
	<-asked
	catchUp(t, a, c, room) // c has the join
	release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.rooms.Whole(ctx, room); err != nil {
		t.Fatal(err)
	}
	if n, m := len(b.room(room).Head().Joined()), len(a.room(room).Head().Joined()); n != m {
		t.Errorf("%d members, not %d", n, m)
	}
}
