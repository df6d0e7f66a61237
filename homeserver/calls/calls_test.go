// SPDX-License-Identifier: Apache-2.0

package calls_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/signalling"
)

func wantList(t *testing.T, n *node, q calls.Query, want ...string) {
	t.Helper()
	if d := cmp.Diff(append([]string{}, want...), n.list(q)); d != "" {
		t.Errorf("calls of %s (%+v): -want +got\n%s", q.User, q, d)
	}
}

func TestACallThatIsAnsweredAndHungUpIsRecordedOnceWithItsDuration(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.call(room, alice, "invite", "c1", nil)
		n.call(room, alice, "candidates", "c1", nil)
		n.flush()
		n.is(1, "trunkboard_calls_ringing")
		if !n.calls.Ringing(room, "c1") || !n.calls.Live(room, "c1") {
			t.Error("the call does not ring")
		}
		n.clock.Advance(5 * time.Second)
		n.call(room, bob, "answer", "c1", nil)
		n.call(room, alice, "select_answer", "c1", with{"selected_party_id": "Db"})
		n.flush()
		n.is(0, "trunkboard_calls_ringing")
		n.is(1, "trunkboard_calls_active")
		if n.calls.Ringing(room, "c1") || !n.calls.Live(room, "c1") {
			t.Error("an answered call rings on, or is not live")
		}
		n.clock.Advance(90 * time.Second)
		n.call(room, bob, "hangup", "c1", with{"reason": "user_hangup"})
		n.call(room, alice, "hangup", "c1", with{"reason": "user_hangup"})
		wantList(t, n, calls.Query{User: alice}, "c1 outgoing answered user_hangup 90s > "+bob)
		wantList(t, n, calls.Query{User: bob}, "c1 incoming answered user_hangup 90s > "+bob)
		wantList(t, n, calls.Query{User: bob, RoomID: room}, "c1 incoming answered user_hangup 90s > "+bob)
		wantList(t, n, calls.Query{User: mallory})
		if n.calls.Ringing(room, "c1") || n.calls.Live(room, "c1") || n.calls.Ringing(room, "never seen") {
			t.Error("a call rings that is over, or never was")
		}
		n.is(0, "trunkboard_calls_active")
		n.is(1, "trunkboard_calls_total", "audio", "answered")
		n.is(1, "trunkboard_calls_setup_seconds")
	})
}

func TestThePushOfAnInviteIsNotLostToARace(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.call(room, alice, "invite", "old", nil)
		n.call(room, alice, "hangup", "old", nil)
		n.flush()
		release := n.calls.Hold()
		n.call(room, alice, "invite", "new", nil)
		asked := make(chan bool)
		go func() { asked <- n.calls.Ringing(room, "new") }()
		release()
		if !<-asked {
			t.Error("a call whose invite is on its way does not ring")
		}
		n.call(room, bob, "answer", "new", nil)
		n.flush()
		if n.calls.Ringing(room, "new") || n.calls.Ringing(room, "old") {
			t.Error("an answered call rings on, or an old one again")
		}
	})
}

func TestAMissedCallIsInTheHistoryOfBoth(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.call(room, alice, "invite", "timed out", with{"invitee": bob})
		n.wait(61 * time.Second)
		n.call(room, alice, "invite", "given up", nil)
		n.wait(20 * time.Second)
		n.call(room, alice, "hangup", "given up", nil)
		n.wait(time.Second)
		n.call(room, alice, "invite", "talked", nil)
		n.call(room, bob, "answer", "talked", nil)
		n.call(room, bob, "hangup", "talked", nil)
		wantList(t, n, calls.Query{User: bob},
			"talked incoming answered user_hangup 0s > "+bob, "given up incoming missed user_hangup", "timed out incoming missed invite_timeout > "+bob)
		wantList(t, n, calls.Query{User: alice},
			"talked outgoing answered user_hangup 0s > "+bob, "given up outgoing cancelled user_hangup", "timed out outgoing missed invite_timeout > "+bob)
		// A filter is on what the user sees.
		wantList(t, n, calls.Query{User: bob, Outcome: "missed"}, "given up incoming missed user_hangup", "timed out incoming missed invite_timeout > "+bob)
		wantList(t, n, calls.Query{User: bob, Outcome: "cancelled"})
		wantList(t, n, calls.Query{User: alice, Outcome: "missed"}, "timed out outgoing missed invite_timeout > "+bob)
		wantList(t, n, calls.Query{User: alice, Outcome: "cancelled"}, "given up outgoing cancelled user_hangup")
		n.is(1, "trunkboard_calls_total", "audio", "missed")
		n.is(1, "trunkboard_calls_total", "audio", "cancelled")
	})
}

func TestDeclinedBusyAndFailedCallsSaySo(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.call(room, alice, "invite", "declined", nil)
		n.call(room, bob, "reject", "declined", nil)
		n.flush()
		if n.calls.Ringing(room, "declined") || n.calls.Live(room, "declined") {
			t.Error("a declined call rings on")
		}
		n.call(room, alice, "select_answer", "declined", with{"selected_party_id": "Db"})
		n.wait(time.Second)
		n.call(room, alice, "invite", "busy", nil)
		n.call(room, bob, "hangup", "busy", with{"reason": "user_busy"})
		n.wait(time.Minute)
		n.call(room, alice, "invite", "failed", with{"offer": with{"type": "offer", "sdp": "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"}})
		n.call(room, bob, "answer", "failed", nil)
		n.call(room, alice, "hangup", "failed", with{"reason": "ice_failed"})
		wantList(t, n, calls.Query{User: bob}, "failed incoming failed video ice_failed 0s > "+bob, "busy incoming busy user_busy > "+bob, "declined incoming declined rejected > "+bob)
		n.is(1, "trunkboard_calls_total", "video", "failed")
	})
}

func TestVersion0CallsAreUnderstood(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		v0 := with{"version": 0, "party_id": nil}
		n.call(room, alice, "invite", "c0", v0)
		n.clock.Advance(2 * time.Second)
		n.call(room, bob, "answer", "c0", v0)
		n.clock.Advance(8 * time.Second)
		n.call(room, alice, "hangup", "c0", v0)
		n.wait(time.Second)
		n.call(room, alice, "invite", "d0", v0)
		n.call(room, bob, "hangup", "d0", v0)
		n.wait(time.Minute)
		wantList(t, n, calls.Query{User: bob}, "d0 incoming declined rejected > "+bob, "c0 incoming answered user_hangup 8s > "+bob)
	})
}

func TestGlareIsCountedOnceAndBothCallsAreRecorded(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.call(room, alice, "invite", "a", nil)
		n.clock.Advance(10 * time.Millisecond)
		n.call(room, bob, "invite", "b", nil)
		n.call(room, bob, "hangup", "b", with{"reason": "replaced"})
		n.call(room, bob, "answer", "a", nil)
		n.clock.Advance(7 * time.Second)
		n.call(room, alice, "hangup", "a", nil)
		wantList(t, n, calls.Query{User: alice}, "b incoming cancelled replaced", "a outgoing answered user_hangup 7s > "+bob)
		n.is(1, "trunkboard_calls_glare_total")
	})
}

func TestLeavingTheRoomOrLoggingOutEndsTheCall(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob, carol)
		n.call(room, alice, "invite", "left", nil)
		n.call(room, bob, "answer", "left", nil)
		n.clock.Advance(3 * time.Second)
		n.append(room, member(bob, bob, "leave"))
		n.wait(time.Second)
		n.call(room, alice, "invite", "banned", nil)
		n.call(room, carol, "answer", "banned", nil)
		n.clock.Advance(4 * time.Second)
		n.append(room, member(alice, carol, "ban"))
		n.append(room, member(bob, bob, "join"))
		n.wait(time.Second)
		n.call(room, bob, "invite", "logged out", nil)
		n.call(room, alice, "answer", "logged out", nil)
		n.flush()
		n.clock.Advance(5 * time.Second)
		n.calls.Logout(alice, "another device")
		n.flush()
		if !n.calls.Live(room, "logged out") {
			t.Error("the logout of another device ended the call")
		}
		n.calls.Logout(alice, "Da")
		wantList(t, n, calls.Query{User: alice},
			"logged out incoming answered device_logged_out 5s > "+alice, "banned outgoing answered user_left 4s > "+carol, "left outgoing answered user_left 3s > "+bob)
		// Whoever took part keeps the record, wherever he is now.
		wantList(t, n, calls.Query{User: carol}, "banned incoming answered user_left 4s > "+carol)
	})
}

func TestStrangersReadNothing(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		ctx := context.Background()
		room := n.room(bob)
		n.call(room, alice, "invite", "c", nil)
		n.flush()
		refused := func(user, room string) {
			t.Helper()
			if _, _, err := n.calls.List(ctx, calls.Query{User: user, RoomID: room, Limit: 10}); signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Errorf("%s lists the calls of %s: %v", user, room, err)
			}
			if _, err := n.calls.InProgress(ctx, user, room); signalling.AsError(err).Code != "M_FORBIDDEN" {
				t.Errorf("%s lists the live calls of %s: %v", user, room, err)
			}
		}
		refused(mallory, room)
		refused(mallory, "!nowhere")
		refused(mallory, "nonsense\x00")
		for user, want := range map[string]int{alice: 1, bob: 1, mallory: 0} {
			if live, err := n.calls.InProgress(ctx, user, ""); err != nil || len(live) != want {
				t.Errorf("%s sees %d live calls: %v", user, len(live), err)
			}
		}
		n.append(room, member(alice, mallory, "invite"))
		refused(mallory, room)
		n.wait(61 * time.Second)
		// History that is shared shows the call to whoever comes later, as it shows the invite.
		n.append(room, member(mallory, mallory, "join"))
		wantList(t, n, calls.Query{User: mallory}, "c incoming missed invite_timeout")
		n.append(room, member(alice, mallory, "leave"))
		wantList(t, n, calls.Query{User: mallory})
		wantList(t, n, calls.Query{User: mallory, RoomID: room})

		closed := n.roomWith("joined", bob)
		n.call(closed, alice, "invite", "before", nil)
		n.wait(61 * time.Second)
		n.append(closed, member(mallory, mallory, "join"))
		n.call(closed, alice, "invite", "after", nil)
		n.wait(61 * time.Second)
		wantList(t, n, calls.Query{User: mallory, RoomID: closed}, "after incoming missed invite_timeout")

		// Naming somebody who is not in the room does not reach him, and a call to one is not the others' business.
		n.call(room, alice, "invite", "named", with{"invitee": carol})
		n.call(room, alice, "invite", "private", with{"invitee": bob})
		n.flush()
		if live, err := n.calls.InProgress(ctx, carol, ""); err != nil || len(live) != 0 {
			t.Errorf("carol sees %v, %v", live, err)
		}
		n.wait(61 * time.Second)
		wantList(t, n, calls.Query{User: carol})
		if got := n.list(calls.Query{User: bob, RoomID: room}); slices.ContainsFunc(got, func(s string) bool { return s[:5] == "named" }) || len(got) != 2 {
			t.Errorf("bob sees %q", got)
		}
	})
}

func TestListsArePagedBothWays(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room, other := n.room(bob), n.room(carol)
		hidden := n.roomWith("joined", bob)
		var want []string
		for i := range 23 {
			in := room
			if i%3 == 0 {
				in = other
			}
			if i%2 == 0 {
				n.clock.Advance(time.Second) // pairs begin at the same moment
			}
			n.call(in, alice, "invite", fmt.Sprint("c", i), nil)
			n.call(in, alice, "hangup", fmt.Sprint("c", i), nil)
			n.call(hidden, bob, "invite", fmt.Sprint("h", i), nil)
			n.call(hidden, bob, "hangup", fmt.Sprint("h", i), nil)
			want = append(want, fmt.Sprintf("c%d outgoing cancelled user_hangup", i))
		}
		n.append(hidden, member(carol, carol, "join")) // sees none of the calls before
		n.append(hidden, member(alice, alice, "leave"))
		up := n.list(calls.Query{User: alice, Limit: 4, Ascending: true})
		slices.Reverse(up)
		down := n.list(calls.Query{User: alice, Limit: 5})
		if d := cmp.Diff(down, up); d != "" {
			t.Errorf("the two directions differ:\n%s", d)
		}
		slices.Sort(down)
		slices.Sort(want)
		if d := cmp.Diff(want, down); d != "" {
			t.Error(d)
		}
		if got := n.list(calls.Query{User: carol, Limit: 3}); len(got) != 8 {
			t.Errorf("carol sees %d calls, want 8: %q", len(got), got)
		}
		if got := n.list(calls.Query{User: alice, RoomID: other, Limit: 3}); len(got) != 8 {
			t.Errorf("%d calls in the other room, want 8: %q", len(got), got)
		}
		for _, from := range []string{"x", "1", "1_", "_1", "1_x", "9999999999999999999_1"} {
			if _, _, err := n.calls.List(context.Background(), calls.Query{User: alice, Limit: 1, From: from}); signalling.AsError(err).Code != "M_INVALID_PARAM" {
				t.Errorf("from %q: %v", from, err)
			}
		}
		if _, _, err := n.calls.List(context.Background(), calls.Query{User: alice, Limit: 1, Outcome: "odd"}); signalling.AsError(err).Code != "M_INVALID_PARAM" {
			t.Errorf("an odd outcome: %v", err)
		}
	})
}

func TestRecordsPastTheirTimeAreDeleted(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		room := n.room(bob)
		n.call(room, alice, "invite", "old", nil)
		n.call(room, alice, "hangup", "old", nil)
		n.wait(89 * 24 * time.Hour)
		n.call(room, alice, "invite", "new", nil)
		n.call(room, alice, "hangup", "new", nil)
		wantList(t, n, calls.Query{User: alice}, "new outgoing cancelled user_hangup", "old outgoing cancelled user_hangup")
		n.wait(25 * time.Hour)
		// The deletion is queued behind no acknowledgement of its own: any write that follows it tells that it is done.
		n.append(room, member(carol, carol, "join"))
		wantList(t, n, calls.Query{User: alice}, "new outgoing cancelled user_hangup")
	})
}
