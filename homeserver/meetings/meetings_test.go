// SPDX-License-Identifier: Apache-2.0

package meetings_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

func TestAGuestWhoIsGoneLeavesTheRoomAfterTwoMinutes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann, bob := w.join("m", meeting.Join{DisplayName: "Ann"}), w.join("m", meeting.Join{DisplayName: "Bob"})
		w.talks(ann)
		hangUp := w.talks(bob)
		hangUp()
		w.clock.Advance(time.Minute + 59*time.Second)
		w.meetings.Step(w.ctx)
		if !w.in(ann, bob.UserID) {
			t.Fatal("out of the room too early")
		}
		// He comes back, and goes again: the time begins anew.
		again := w.join("m", meeting.Join{Session: bob.Session})
		if again.Identity != bob.Identity || again.UserID != bob.UserID {
			t.Errorf("%+v, was %+v", again, bob)
		}
		hangUp = w.talks(again)
		w.clock.Advance(time.Hour)
		w.meetings.Step(w.ctx)
		hangUp()
		w.clock.Advance(time.Minute)
		w.meetings.Step(w.ctx)
		if !w.in(ann, bob.UserID) {
			t.Fatal("out of the room too early")
		}
		w.clock.Advance(time.Minute)
		w.meetings.Step(w.ctx)
		if w.in(ann, bob.UserID) || !w.in(ann, ann.UserID) {
			t.Error("bob is still in the room, or ann is not")
		}
		// Within a day he is who he was.
		w.clock.Advance(12 * time.Hour)
		w.meetings.Step(w.ctx)
		if back := w.join("m", meeting.Join{Session: bob.Session}); back.UserID != bob.UserID || !w.in(ann, bob.UserID) {
			t.Errorf("%+v", back)
		}
	})
}

func TestWhoGetsATokenAndNeverComesIsNotThere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann := w.join("m", meeting.Join{DisplayName: "Ann"})
		if hosts := w.seen(ann).Hosts; !cmp.Equal(hosts, []string{ann.Identity}) {
			t.Errorf("%v", hosts)
		}
		w.clock.Advance(time.Minute)
		w.meetings.Step(w.ctx)
		if hosts := w.seen(ann).Hosts; len(hosts) != 0 {
			t.Errorf("%v", hosts)
		}
		// Who comes next is the first: a guest who is not there keeps nobody from being host.
		if bob := w.join("m", meeting.Join{DisplayName: "Bob"}); !bob.Host {
			t.Errorf("%+v", bob)
		}
		w.clock.Advance(3 * time.Minute)
		w.meetings.Step(w.ctx)
		w.meetings.Step(w.ctx)
		if w.in(ann, ann.UserID) {
			t.Error("ann is in the room for ever")
		}
	})
}

func TestAnEmptyMeetingOfGuestsIsOpenAgain(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann := w.join("m", meeting.Join{DisplayName: "Ann"})
		hangUp := w.talks(ann)
		w.act("m", meeting.Action{Session: ann.Session, Action: "subject", Subject: "Secret plans"})
		w.act("m", meeting.Action{Session: ann.Session, Action: "password", Password: "open sesame"})
		w.act("m", meeting.Action{Session: ann.Session, Action: "lobby", On: true})
		w.act("m", meeting.Action{Session: ann.Session, Action: "may_unmute", Kind: "audio"})
		want := meeting.State{V: 1, Name: "m", Subject: "Secret plans", Hosts: []string{ann.Identity}, Lobby: true, Password: true, Started: w.clock.Now().UnixMilli(), MayUnmute: meeting.Unmute{Video: true}}
		if diff := cmp.Diff(want, w.seen(ann)); diff != "" {
			t.Error(diff)
		}
		hangUp()
		w.clock.Advance(2 * time.Minute)
		w.meetings.Step(w.ctx)
		w.meetings.Step(w.ctx)
		info, err := w.meetings.Info(w.ctx, "m", meeting.Caller{})
		if err != nil || info.Access != meeting.Open || info.Subject != "" {
			t.Errorf("%+v %v", info, err)
		}
		if n := w.meetings.Live(); n != 0 {
			t.Errorf("%d meetings are remembered that nobody is in", n)
		}
	})
}

func TestAMeetingOfAUserStaysAsItWasMade(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		owner, err := w.accounts.Create(w.ctx, accounts.NewUser{Localpart: "owner", Password: "a long password", Login: &accounts.Login{}})
		if err != nil {
			t.Fatal(err)
		}
		hers, err := w.meetings.Join(w.ctx, "m", meeting.Join{}, meeting.Caller{Bearer: owner.AccessToken})
		if err != nil || !hers.Host {
			t.Fatalf("%+v %v", hers, err)
		}
		hangUp := w.talks(hers)
		w.act("m", meeting.Action{Session: hers.Session, Action: "password", Password: "open sesame"})
		bob := w.join("m", meeting.Join{DisplayName: "Bob", Password: "open sesame"})
		away := w.talks(bob)
		hangUp()
		away()
		w.clock.Advance(time.Hour)
		w.meetings.Step(w.ctx)
		w.meetings.Step(w.ctx)
		if w.in(hers, bob.UserID) || !w.in(hers, hers.UserID) {
			t.Error("bob is still in the room, or the owner is not")
		}
		_, err = w.meetings.Join(w.ctx, "m", meeting.Join{DisplayName: "Eve"}, meeting.Caller{})
		if signalling.AsError(err).Code != "IO_TRUNKBOARD_PASSWORD" {
			t.Errorf("%v", err)
		}
	})
}

func TestAKnockIsTakenBackWhenItsPageIsGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann := w.join("m", meeting.Join{DisplayName: "Ann"})
		w.talks(ann)
		w.act("m", meeting.Action{Session: ann.Session, Action: "lobby", On: true})
		bob := w.join("m", meeting.Join{DisplayName: "Bob"})
		w.meetings.Step(w.ctx)
		if !bob.Waiting || w.seen(ann).Knocking != 1 {
			t.Fatalf("%+v %+v", bob, w.seen(ann))
		}
		w.clock.Advance(80 * time.Second)
		w.meetings.Step(w.ctx)
		if again := w.join("m", meeting.Join{Session: bob.Session}); !again.Waiting || again.Session != bob.Session {
			t.Errorf("%+v", again)
		}
		w.clock.Advance(80 * time.Second)
		w.meetings.Step(w.ctx)
		if w.seen(ann).Knocking != 1 {
			t.Error("the knock was taken back although the page is there")
		}
		w.clock.Advance(10 * time.Second)
		w.meetings.Step(w.ctx)
		w.meetings.Step(w.ctx)
		if w.seen(ann).Knocking != 0 {
			t.Error("the knock is still there")
		}
		if _, err := w.meetings.Wait(w.ctx, "m", bob.Session, meeting.Caller{}); signalling.AsError(err).Status != 403 {
			t.Errorf("%v", err)
		}
	})
}

func TestGuestsAreDeactivatedADayAfterTheirLastUse(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann, bob := w.join("m", meeting.Join{DisplayName: "Ann"}), w.join("m", meeting.Join{DisplayName: "Bob"})
		w.talks(ann)
		cid := w.join("m", meeting.Join{DisplayName: "Cid"})
		w.talks(cid)
		w.act("m", meeting.Action{Session: ann.Session, Action: "kick", Identity: cid.Identity})
		if _, err := w.meetings.Token(w.ctx, "m", cid.Session, meeting.Caller{}); signalling.AsError(err).Status != 403 {
			t.Errorf("%v", err)
		}
		deactivated := func(user string) bool {
			u, err := w.accounts.User(w.ctx, user)
			if err != nil {
				t.Fatal(err)
			}
			return u.Deactivated
		}
		for range 25 { // ann is there all the time
			w.clock.Advance(time.Hour)
			w.meetings.Step(w.ctx)
			if err := w.meetings.Prune(w.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if deactivated(ann.UserID) || !deactivated(bob.UserID) || !deactivated(cid.UserID) {
			t.Errorf("ann %v, bob %v, cid %v", deactivated(ann.UserID), deactivated(bob.UserID), deactivated(cid.UserID))
		}
		if again := w.join("m", meeting.Join{DisplayName: "Bob", Session: bob.Session}); again.UserID == bob.UserID {
			t.Error("a session of yesterday")
		}
		if m, err := w.meetings.Token(w.ctx, "m", ann.Session, meeting.Caller{}); err != nil || m.Token == "" {
			t.Errorf("%v %v", m, err)
		}
	})
}

func TestAMeetingIsOnRecordAndARestartDoesNotEndIt(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		began := w.clock.Now().UnixMilli()
		ann, bob := w.join("m", meeting.Join{DisplayName: "Ann"}), w.join("m", meeting.Join{DisplayName: "Bob"})
		w.talks(ann)
		w.clock.Advance(time.Minute)
		hangUp := w.talks(bob)
		w.clock.Advance(time.Minute)
		hangUp()

		w = open(t, w.store, w.clock) // what SFU there was is gone
		if err := w.meetings.Restore(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.meetings.Step(w.ctx)
		w.clock.Advance(time.Minute)
		back := w.join("m", meeting.Join{Session: ann.Session})
		if back.Identity != ann.Identity || !back.Host {
			t.Errorf("%+v", back)
		}
		hangUp = w.talks(back)
		if s := w.seen(back).Started; s != began {
			t.Errorf("started %d, was %d", s, began)
		}
		w.act("m", meeting.Action{Session: ann.Session, Action: "subject", Subject: "Plans"})
		w.meetings.Step(w.ctx)
		w.clock.Advance(7 * time.Minute)
		hangUp()
		w.clock.Advance(2 * time.Minute)
		w.meetings.Step(w.ctx)
		minute := func(n int64) int64 { return began + n*60_000 }
		want := []meeting.Record{{Name: "m", Subject: "Plans", Started: began, Ended: minute(10), People: []meeting.Visit{
			{UserID: ann.UserID, DisplayName: "Ann", Came: began, Went: minute(10)}, {UserID: bob.UserID, DisplayName: "Bob", Came: minute(1), Went: minute(2)},
		}}}
		rows, err := w.store.MeetingRecords(w.ctx, ann.RoomID, 10, 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []meeting.Record
		for _, r := range rows {
			one := meeting.Record{Name: r.Name, Subject: r.Subject, Started: r.StartedTS, Ended: r.EndedTS}
			for _, v := range r.Visits {
				one.People = append(one.People, meeting.Visit{UserID: v.UserID, DisplayName: v.Name, Came: v.CameTS, Went: v.WentTS})
			}
			got = append(got, one)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		w.clock.Advance(91 * 24 * time.Hour)
		if err := w.meetings.Prune(w.ctx); err != nil {
			t.Fatal(err)
		}
		if rows, err = w.store.MeetingRecords(w.ctx, ann.RoomID, 10, 10); err != nil || len(rows) != 0 {
			t.Errorf("%v %v", rows, err)
		}
		// The meeting itself, which only guests knew, is forgotten by now; the name is free.
		if _, _, err := w.rooms.ResolveAlias(w.ctx, "#meet_m:example.org"); signalling.AsError(err).Status != 404 {
			t.Errorf("%v", err)
		}
		if anew := w.join("m", meeting.Join{DisplayName: "Cid"}); anew.RoomID == ann.RoomID || !anew.Host {
			t.Errorf("%+v", anew)
		}
	})
}

func TestAnAliasThatIsTakenKeepsNoMeetingFromBeginning(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		squat, err := w.rooms.CreateRoom(w.ctx, rooms.Options{Creator: "@eve:example.org", Preset: "public_chat", Alias: "#meet_board:example.org"})
		if err != nil {
			t.Fatal(err)
		}
		e := w.join("board", meeting.Join{DisplayName: "Ann"})
		if e.RoomID == squat || !e.Host {
			t.Errorf("%+v", e)
		}
	})
}

func TestTenFirstComersMakeOneMeetingWithOneHost(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		out := make(chan meeting.Entry, 10)
		for range 10 {
			go func() {
				e, err := w.meetings.Join(w.ctx, "m", meeting.Join{DisplayName: "X"}, meeting.Caller{})
				if err != nil {
					t.Error(err)
				}
				out <- e
			}()
		}
		hosts, seen := 0, map[string]bool{}
		for range 10 {
			e := <-out
			if e.Host {
				hosts++
			}
			seen[e.RoomID] = true
		}
		if hosts != 1 || len(seen) != 1 {
			t.Errorf("%d hosts in %d rooms", hosts, len(seen))
		}
	})
}

func TestAMeetingEndToEndEncryptedSaysSo(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann := w.join("m", meeting.Join{DisplayName: "Ann", E2EE: true})
		bob := w.join("m", meeting.Join{DisplayName: "Bob"})
		info, err := w.meetings.Info(w.ctx, "m", meeting.Caller{})
		if !ann.E2EE || !bob.E2EE || !w.seen(ann).E2EE || err != nil || !info.E2EE {
			t.Errorf("%+v %+v %+v %v", ann, bob, info, err)
		}
		r, err := w.rooms.Room(w.ctx, ann.RoomID)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := r.State(w.ctx, r.Head(), "m.room.encryption", ""); e == nil || err != nil {
			t.Errorf("the room is not: %v %v", e, err)
		}
		if later := w.join("n", meeting.Join{}); later.E2EE {
			t.Error("another meeting is encrypted too")
		}
	})
}

func TestNothingIsLeftOfACallWhenAllAreGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		user := func(name string) meeting.Caller {
			tokens, err := w.accounts.Create(w.ctx, accounts.NewUser{Localpart: name, Password: "a long password", Login: &accounts.Login{}})
			if err != nil {
				t.Fatal(err)
			}
			return meeting.Caller{Bearer: tokens.AccessToken}
		}
		comes := func(c meeting.Caller, q meeting.Join) meeting.Entry {
			e, err := w.meetings.Join(w.ctx, "c", q, c)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		exists := func() bool {
			info, err := w.meetings.Info(w.ctx, "c", meeting.Caller{})
			if err != nil {
				t.Fatal(err)
			}
			return info.Exists
		}
		anns, bens := user("ann"), user("ben")
		ann := comes(anns, meeting.Join{Call: true, Subject: " The team ", E2EE: true})
		annLeaves := w.talks(ann)
		ben := comes(bens, meeting.Join{Call: true, Subject: "Something else"})
		if !ann.Host || ben.Host || ben.Subject != "The team" || ben.RoomID != ann.RoomID || !ben.E2EE {
			t.Errorf("%+v %+v", ann, ben)
		}
		guest := w.join("c", meeting.Join{DisplayName: "Gus"})
		if _, _, err := w.rooms.ResolveAlias(w.ctx, "#meet_c:example.org"); signalling.AsError(err).Status != 404 {
			t.Errorf("a call has an alias: %v", err)
		}
		benLeaves, guestLeaves := w.talks(ben), w.talks(guest)
		// Who began it leaves its room too, though she has an account; it goes on without her.
		annLeaves()
		w.clock.Advance(2 * time.Minute)
		w.meetings.Step(w.ctx)
		if w.in(ann, ann.UserID) || !w.in(ann, ben.UserID) || !exists() {
			t.Error("ann is in the room of the call, or ben is not, or it is over")
		}
		// A restart does not keep anybody in it either.
		benLeaves()
		w = open(t, w.store, w.clock)
		if err := w.meetings.Restore(w.ctx); err != nil {
			t.Fatal(err)
		}
		guestLeaves()
		for range 2 {
			w.clock.Advance(2 * time.Minute)
			w.meetings.Step(w.ctx)
		}
		if w.in(ann, ben.UserID) || w.in(ann, "@_meetings:example.org") || exists() {
			t.Error("the call is still there")
		}
		if rows, err := w.store.MeetingRecords(w.ctx, ann.RoomID, 10, 10); err != nil || len(rows) != 1 || rows[0].EndedTS == 0 || len(rows[0].Visits) != 3 {
			t.Errorf("its record: %+v %v", rows, err)
		}
		// Its link begins another; the guest of the first is not forgotten before his account is ended.
		if again := comes(anns, meeting.Join{Call: true, Session: ann.Session}); again.RoomID == ann.RoomID || !again.Host || again.Subject != "" {
			t.Errorf("%+v", again)
		}
		w.clock.Advance(25 * time.Hour)
		if err := w.meetings.Prune(w.ctx); err != nil {
			t.Fatal(err)
		}
		if u, err := w.accounts.User(w.ctx, guest.UserID); err != nil || !u.Deactivated {
			t.Errorf("%+v %v", u, err)
		}
	})
}

func TestAServerThatWasDownForADayTakesPeopleOutOfTheirCalls(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		tokens, err := w.accounts.Create(w.ctx, accounts.NewUser{Localpart: "ann", Password: "a long password", Login: &accounts.Login{}})
		if err != nil {
			t.Fatal(err)
		}
		ann, err := w.meetings.Join(w.ctx, "c", meeting.Join{Call: true}, meeting.Caller{Bearer: tokens.AccessToken})
		if err != nil {
			t.Fatal(err)
		}
		w.talks(ann)
		w.clock.Advance(25 * time.Hour)
		w = open(t, w.store, w.clock)
		if err := w.meetings.Restore(w.ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.meetings.Prune(w.ctx); err != nil {
			t.Fatal(err)
		}
		if w.in(ann, ann.UserID) {
			t.Error("ann is in it")
		}
		if info, err := w.meetings.Info(w.ctx, "c", meeting.Caller{}); err != nil || info.Exists {
			t.Errorf("%+v %v", info, err)
		}
	})
}

func TestARoomThatCallsItselfACallKeepsItsMembers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		tokens, err := w.accounts.Create(w.ctx, accounts.NewUser{Localpart: "ann", Password: "a long password", Login: &accounts.Login{}})
		if err != nil {
			t.Fatal(err)
		}
		room, err := w.rooms.CreateRoom(w.ctx, rooms.Options{Creator: tokens.UserID, Preset: "private_chat", Create: []byte(`{"type":"io.trunkboard.call"}`)})
		if err != nil {
			t.Fatal(err)
		}
		ann, err := w.meetings.Join(w.ctx, "x", meeting.Join{Call: true, RoomID: room}, meeting.Caller{Bearer: tokens.AccessToken})
		if err != nil || ann.RoomID != room {
			t.Fatalf("%+v %v", ann, err)
		}
		w.talks(ann)()
		w.clock.Advance(3 * time.Minute)
		w.meetings.Step(w.ctx)
		if !w.in(ann, ann.UserID) {
			t.Error("ann was taken out of her own room")
		}
	})
}
