// SPDX-License-Identifier: Apache-2.0

package calls_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// hall is rooms and group calls over a real store.
type hall struct {
	*node
	groups *calls.Groups
	end    func()
}

func openHall(t *testing.T, st *storage.Store, clock *clocktest.Clock) *hall {
	t.Helper()
	h := &hall{node: &node{t: t, store: st, clock: clock}}
	log := slog.New(slog.DiscardHandler)
	var err error
	if h.rooms, err = rooms.New(context.Background(), st, "example.org", clock, log); err != nil {
		t.Fatal(err)
	}
	h.groups = calls.NewGroups(st, h.rooms, clock, log, nil)
	h.calls = calls.New(calls.Deps{Store: st, Rooms: h.rooms, Clock: clock, Groups: h.groups})
	st.Observe(h.groups.Observe)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.groups.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	h.end = func() { cancel(); <-done }
	t.Cleanup(h.end)
	return h
}

// joins sets the membership of a device; nil content leaves.
func (h *hall) joins(room, user string, content any) {
	h.t.Helper()
	key := "_" + user + "_DEV_m.call"
	if content == nil {
		content = with{}
	}
	h.append(room, rooms.Draft{Sender: user, Type: "org.matrix.msc3401.call.member", StateKey: &key, Content: raw(content)})
}

var inCall = with{"application": "m.call", "call_id": "", "m.call.intent": "audio"}

// history waits for n records of a user and gives them.
func (h *hall) history(user string, n int) []calls.Call {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		list, _, err := h.calls.List(context.Background(), calls.Query{User: user, Limit: 10})
		if err != nil {
			h.t.Fatal(err)
		}
		if len(list) == n {
			return list
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s has %d records, want %d: %+v", user, len(list), n, list)
		}
		h.clock.Advance(time.Second)
		time.Sleep(2 * time.Millisecond) // the writer is a goroutine that this test does not hold
	}
}

func (h *hall) live(user string) []calls.Call {
	h.t.Helper()
	list, err := h.calls.InProgress(context.Background(), user, "")
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

func TestAGroupCallIsSeenWhileItLastsAndRecordedAfter(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := openHall(t, st, clocktest.New())
		room := h.room(bob, carol)
		started := h.clock.Now()
		h.joins(room, alice, inCall)
		h.clock.Advance(5 * time.Second)
		h.joins(room, bob, inCall)
		h.groups.Arrived(room, "m.call#ROOM", alice, "PA_1", h.clock.Now())
		h.clock.Advance(time.Minute)
		for user, want := range map[string]string{alice: "outgoing", carol: "incoming"} {
			live := h.live(user)
			if len(live) != 1 || live[0].Direction != want || !live[0].Group || live[0].Outcome != "active" || live[0].DurationMS != 60_000 {
				t.Fatalf("%s: %+v", user, live)
			}
			if diff := cmp.Diff([]string{alice, bob}, live[0].Participants); diff != "" {
				t.Error(diff)
			}
		}
		if live := h.live(mallory); len(live) != 0 {
			t.Errorf("a stranger knows: %+v", live)
		}
		h.joins(room, alice, nil)
		h.groups.Departed(room, "m.call#ROOM", "PA_1", h.clock.Now())
		h.append(room, member(bob, bob, "leave")) // without a word
		ended := h.clock.Now()
		got := h.history(alice, 1)[0]
		want := calls.Call{
			CallID: got.CallID, RoomID: room, Caller: alice, Direction: "outgoing", Kind: "audio", Outcome: "answered", Started: started.UnixMilli(),
			Answered: started.Add(5 * time.Second).UnixMilli(), Ended: ended.UnixMilli(), DurationMS: ended.Sub(started).Milliseconds() - 5000, Group: true, Participants: []string{alice, bob},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if n := len(h.history(carol, 1)); n != 1 {
			t.Errorf("carol, who was in the room, has %d records", n)
		}
		if list, _, _ := h.calls.List(context.Background(), calls.Query{User: mallory, Limit: 10}); len(list) != 0 {
			t.Errorf("a stranger reads %+v", list)
		}
		if len(h.live(alice)) != 0 {
			t.Error("the call goes on")
		}
	})
}

func TestAGroupCallThatOnlyTheSFUSeesIsRecordedForWhoTookPart(t *testing.T) {
	h := openHall(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New())
	room := h.room(bob, carol)
	h.groups.Arrived(room, "m.call#ROOM", alice, "PA_1", h.clock.Now())
	h.groups.Arrived(room, "another kind of session", carol, "PA_9", h.clock.Now())
	h.clock.Advance(time.Second)
	h.groups.Departed(room, "m.call#ROOM", "PA_1", h.clock.Now()) // reloads the page
	h.clock.Advance(5 * time.Second)
	h.groups.Arrived(room, "m.call#ROOM", alice, "PA_2", h.clock.Now())
	h.groups.Arrived(room, "m.call#ROOM", bob, "PA_3", h.clock.Now())
	h.groups.Departed(room, "m.call#ROOM", "PA_2", h.clock.Now())
	h.groups.Departed(room, "m.call#ROOM", "PA_3", h.clock.Now())
	if got := h.history(bob, 1)[0]; got.Outcome != "answered" || got.Kind != "video" || len(got.Participants) != 2 {
		t.Errorf("%+v", got)
	}
	if list, _, _ := h.calls.List(context.Background(), calls.Query{User: carol, Limit: 10}); len(list) != 0 {
		t.Errorf("who did not take part reads %+v", list)
	}
}

func TestACallThatNobodyJoinedWasMissedAndAMembershipThatIsNotRenewedRunsOut(t *testing.T) {
	h := openHall(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New())
	room := h.room(bob)
	h.joins(room, alice, with{"application": "m.call", "call_id": "", "expires": 60_000})
	if got := h.history(bob, 1)[0]; got.Outcome != "missed" || got.Direction != "incoming" || got.Ended-got.Started != 60_000 {
		t.Errorf("%+v", got)
	}
}

func TestARestartEndsNoGroupCallAndBeginsNoneTwice(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := openHall(t, st, clocktest.New())
		goes, ends := h.room(bob), h.room(carol)
		h.joins(goes, alice, inCall)
		h.joins(goes, bob, inCall)
		h.groups.Arrived(ends, "m.call#ROOM", carol, "PA_1", h.clock.Now())
		h.end() // writes what is due
		h = openHall(t, st, h.clock)
		if got := h.history(carol, 1)[0]; got.Outcome != "missed" { // its session died with the server
			t.Errorf("%+v", got)
		}
		live := h.live(alice)
		if len(live) != 1 || len(live[0].Participants) != 2 {
			t.Fatalf("%+v", live)
		}
		h.joins(goes, alice, nil)
		h.joins(goes, bob, nil)
		if got := h.history(alice, 1)[0]; got.CallID != live[0].CallID || got.Outcome != "answered" {
			t.Errorf("%+v", got)
		}
		if rows, err := st.GroupCalls(context.Background()); err != nil || len(rows) != 0 {
			t.Errorf("%+v %v", rows, err)
		}
	})
}
