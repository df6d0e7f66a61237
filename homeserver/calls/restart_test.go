// SPDX-License-Identifier: Apache-2.0

package calls_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/callflow"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

func TestARestartInTheMiddleOfACallKeepsItsRecordAndMakesNoSecondOne(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob, carol)
		n.call(room, alice, "invite", "over", nil)
		n.call(room, alice, "hangup", "over", nil)
		n.clock.Advance(time.Second)
		n.call(room, alice, "invite", "talking", nil)
		n.clock.Advance(time.Second)
		n.call(room, bob, "answer", "talking", nil)
		n.clock.Advance(time.Second)
		n.call(room, carol, "invite", "ringing", with{"invitee": alice})
		n.clock.Advance(30 * time.Second)
		n = n.restart()
		if !n.calls.Live(room, "talking") || !n.calls.Ringing(room, "ringing") || n.calls.Live(room, "over") {
			t.Error("after the restart: wrong calls are live")
		}
		n.is(0, "trunkboard_calls_total", "audio", "cancelled") // counted before
		n.clock.Advance(20 * time.Second)

		// The answer to the ringing call and the end of the other one are committed, and then the process dies.
		n.deaf()
		n.call(room, alice, "answer", "ringing", nil)
		n.clock.Advance(time.Second)
		n.call(room, bob, "hangup", "talking", nil)
		n.clock.Advance(10 * time.Minute)
		n.call(room, alice, "invite", "nobody home", nil)
		n.clock.Advance(2 * time.Minute)
		n = n.restart()
		n.call(room, carol, "hangup", "ringing", nil)
		for range 2 {
			wantList(t, n, calls.Query{User: alice},
				"nobody home outgoing missed invite_timeout", "ringing incoming answered user_hangup 721s > "+alice,
				"talking outgoing answered user_hangup 52s > "+bob, "over outgoing cancelled user_hangup")
			n = n.restart()
		}
	})
}

func TestALongCallOutlivesARestart(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room, other := n.room(bob), n.room()
		n.call(room, alice, "invite", "long", nil)
		n.clock.Advance(4 * time.Second)
		n.call(room, bob, "answer", "long", nil)
		n.wait(3 * time.Minute)
		n.wait(3 * time.Minute)
		// So much happens that the invite is out of what a start reads.
		n.chatter(other, 2000)
		n.wait(2 * time.Hour)
		n.chatter(other, 1800)
		if noted, err := n.store.CallsInProgress(context.Background()); err != nil || len(noted) != 1 {
			t.Fatalf("noted calls: %v, %v", noted, err)
		} else if from, err := n.store.PosAtTime(context.Background(), n.store.Pos(), n.clock.Now().Add(-15*time.Minute).UnixMilli(), 1<<40); err != nil || from <= noted[0].StartPos {
			t.Fatalf("a start would read from %d, the invite is at %d: %v", from, noted[0].StartPos, err)
		}
		n = n.restart()
		if !n.calls.Live(room, "long") {
			t.Error("the long call is not live after the restart")
		}
		n.clock.Advance(time.Minute)
		n.call(room, bob, "hangup", "long", nil)
		wantList(t, n, calls.Query{User: bob}, "long incoming answered user_hangup 7620s > "+bob)
		if noted, err := n.store.CallsInProgress(context.Background()); err != nil || len(noted) != 0 {
			t.Errorf("still noted: %v, %v", noted, err)
		}
	})
}

// chatter is messages that have nothing to do with calls.
func (n *node) chatter(room string, count int) {
	n.t.Helper()
	for i := 0; i < count; i += 200 {
		batch := make([]rooms.Draft, 200)
		for j := range batch {
			batch[j] = rooms.Draft{Sender: alice, Type: "m.room.message", Content: raw(with{"body": fmt.Sprint(i + j)})}
		}
		n.append(room, batch...)
	}
}

func TestAFullQueueIsReadAgainFromTheStore(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		n := start(t, st, clocktest.New(), calls.Config{Queue: 2})
		room := n.room(bob, carol)
		n.flush()
		if n.calls.Behind() {
			t.Fatal("behind before anything happened")
		}
		release := n.calls.Hold()
		var want []string
		for i := range 40 {
			id := fmt.Sprint("c", i)
			n.call(room, alice, "invite", id, nil)
			n.call(room, bob, "answer", id, nil)
			n.clock.Advance(time.Second)
			reason, after := "user_hangup", 1
			if i%4 == 1 {
				reason, after = "user_left", 40-i
			} else {
				n.call(room, bob, "hangup", id, nil)
			}
			want = append([]string{fmt.Sprintf("%s incoming answered %s %ds > %s", id, reason, after, bob)}, want...)
		}
		n.append(room, member(bob, bob, "leave"))
		release()
		n.flush()
		n.is(1, "trunkboard_calls_queue_full_total")
		if n.metric("trunkboard_calls_resyncs_total") < 1 || n.calls.Behind() {
			t.Error("the store was not read, or reading has no end")
		}
		wantList(t, n, calls.Query{User: bob}, want...)
		// And the queue is in use again.
		n.call(room, carol, "invite", "next", nil)
		n.call(room, carol, "hangup", "next", nil)
		n.flush()
		n.is(1, "trunkboard_calls_queue_full_total")
		wantList(t, n, calls.Query{User: carol, Limit: 1}, append([]string{"next outgoing cancelled user_hangup"}, n.list(calls.Query{User: carol})[1:]...)...)
	})
}

func TestNodesThatShareAStoreRecordACallOnceWhereverItsEventsCome(t *testing.T) {
	url := storagetest.PostgresURL(t)
	clock := clocktest.New()
	a, b := start(t, storagetest.Open(t, url), clock, calls.Config{}), start(t, storagetest.Open(t, url), clock, calls.Config{})
	room := a.room(bob)
	a.call(room, alice, "invite", "c", nil)
	clock.Advance(2 * time.Second)
	b.call(room, bob, "answer", "c", nil)
	a.calls.Wake()
	a.flush()
	if a.calls.Ringing(room, "c") {
		t.Error("the call rings on where it was not answered")
	}
	clock.Advance(70 * time.Second)
	a.flush()
	b.flush()
	for _, n := range []*node{a, b} {
		if !n.calls.Live(room, "c") {
			t.Error("a call that was answered on one node was missed on the other")
		}
	}
	a.call(room, alice, "hangup", "c", nil)
	b.call(room, bob, "invite", "d", nil) // a gap for a, before the next
	a.call(room, alice, "reject", "d", nil)
	clock.Advance(11 * time.Second)
	for _, n := range []*node{a, b} {
		wantList(t, n, calls.Query{User: alice}, "d incoming declined rejected > "+alice, "c outgoing answered user_hangup 70s > "+bob)
	}
	if got := a.metric("trunkboard_calls_total", "audio", "answered") + b.metric("trunkboard_calls_total", "audio", "answered"); got != 1 {
		t.Errorf("the nodes counted %v answered calls, want 1", got)
	}
}

func TestTheStoreReadsEveryTypeThatTheTrackerKnows(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room()
		types := []string{
			callflow.TypeInvite, callflow.TypeAnswer, callflow.TypeSelectAnswer, callflow.TypeReject, callflow.TypeHangup, callflow.TypeNegotiate,
			callflow.TypeMetadataChanged, callflow.TypeMetadataChangedOld, callflow.TypeReplaces, callflow.TypeAssertedIdentity, callflow.TypeAssertedIdentityOld,
		}
		before := n.store.Pos()
		for _, typ := range append(types, callflow.TypeCandidates, "m.call.unheard_of") {
			n.append(room, rooms.Draft{Sender: alice, Type: typ, Content: raw(with{"call_id": "c"})})
		}
		events, err := n.store.CallEvents(context.Background(), before, n.store.Pos(), 100)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]string, len(events))
		for i, e := range events {
			got[i] = e.Type
		}
		if fmt.Sprint(got) != fmt.Sprint(types) {
			t.Errorf("read %v, want %v", got, types)
		}
	})
}

func TestTextThatTheStoreCannotHoldDoesNotStopTheRecords(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		nul := "nul\x00"
		n.call(room, alice, "invite", nul, with{"invitee": "@x\x00:example.org"})
		n.call(room, alice, "hangup", nul, with{"reason": "odd\x00"})
		n.clock.Advance(time.Second)
		n.call(room, alice, "invite", "c", nil)
		n.call(room, alice, "hangup", "c", nil)
		wantList(t, n, calls.Query{User: alice}, "c outgoing cancelled user_hangup", "nul\uFFFD outgoing failed odd\uFFFD > @x\uFFFD:example.org")
	})
}

func TestRunEndsWithWhatWaitsWritten(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.flush()
		for i := range 300 {
			n.call(room, alice, "invite", fmt.Sprint(i), nil)
			n.call(room, alice, "hangup", fmt.Sprint(i), nil)
		}
		n.stop()
		if err := n.calls.Flush(context.Background()); err == nil {
			t.Error("a flush after the end succeeds")
		}
		page, _, err := n.calls.List(context.Background(), calls.Query{User: alice, Limit: 1000})
		if err != nil || len(page) != 300 {
			t.Errorf("%d records after the end, want 300: %v", len(page), err)
		}
	})
}

// BenchmarkObserve is what the store's writer pays for a call, which is five commits.
func BenchmarkObserve(b *testing.B) {
	st := storagetest.Open(b, storagetest.SQLiteURL(b))
	n := start(b, st, clocktest.New(), calls.Config{Queue: 1 << 20})
	room := n.room(bob)
	n.flush()
	var notes [][]storage.Note
	st.Observe(func(_ int64, got []storage.Note) { notes = append(notes, got) })
	for _, step := range [][2]string{{alice, "invite"}, {alice, "candidates"}, {bob, "answer"}, {alice, "select_answer"}, {bob, "hangup"}} {
		n.call(room, step[0], step[1], "c", nil)
	}
	b.ReportAllocs()
	pos := st.Pos()
	for b.Loop() {
		for i := range notes {
			n.calls.Observe(pos, notes[i])
		}
	}
	b.ReportMetric(n.metric("trunkboard_calls_queue_full_total"), "overflows")
}
