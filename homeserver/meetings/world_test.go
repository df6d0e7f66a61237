// SPDX-License-Identifier: Apache-2.0

package meetings_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/meetings"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/rtc"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// world is a homeserver with meetings over a real store, under a clock that stands still. Its SFU is written down only: cmd/trunkboard
// tests meetings with the real one.
type world struct {
	t        *testing.T
	ctx      context.Context
	store    *storage.Store
	clock    *clocktest.Clock
	accounts *accounts.Service
	rooms    *rooms.Service
	focus    *focus.Service
	meetings *meetings.Service

	mu    sync.Mutex
	state map[string]meeting.State // by room of the SFU
	gone  []string                 // identities that were taken out
}

func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, st *storage.Store) { f(t, open(t, st, clocktest.New())) })
}

// open makes a world on a store; again on the same store it is the world after a restart.
func open(t *testing.T, st *storage.Store, clock *clocktest.Clock) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	w := &world{t: t, ctx: context.Background(), store: st, clock: clock, state: map[string]meeting.State{}}
	var err error
	if w.accounts, err = accounts.New(w.ctx, st, accounts.Config{Server: "example.org", Cost: accounts.CostMinimum}, clock, log); err != nil {
		t.Fatal(err)
	}
	if w.rooms, err = rooms.New(w.ctx, st, "example.org", clock, log); err != nil {
		t.Fatal(err)
	}
	w.rooms.UseProfiles(w.accounts.NameAndAvatar)
	w.rooms.UseGuests(w.accounts.IsGuest)
	w.accounts.Hook(accounts.Hooks{Deactivate: func(ctx context.Context, user string, _ bool) error { return w.rooms.LeaveAll(ctx, user) }})
	later := delayed.New(st, w.rooms, clock, log)
	home := rtc.Home{Accounts: w.accounts, Rooms: w.rooms, Later: later}
	w.focus = focus.New(focus.Deps{
		Config: focus.Config{ServerName: "example.org", PublicURL: "https://example.org"}, Media: w, Homeserver: home,
		Leaves: matrixrtc.NewLeaves(later, rtc.Book{Store: st}, clock, log), Clock: clock, Log: log,
	})
	w.meetings = meetings.New(meetings.Deps{
		Config: meetings.Config{Create: meetings.CreateAnyone, RetentionDays: 90}, Store: st, Rooms: w.rooms, Accounts: w.accounts, Focus: w.focus, Identity: home,
		Media: w, Clock: clock, Log: log,
	})
	st.Observe(w.meetings.Observe)
	return w
}

// Sign implements focus.Media.
func (w *world) Sign(t focus.Token) (string, error) { return t.Room + "/" + t.Identity, nil }

// Remove implements focus.Media and meetings.Media.
func (w *world) Open(string) {}

func (w *world) Remove(_, identity string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = append(w.gone, identity)
	return true
}

// Describe implements meetings.Media.
func (w *world) Describe(room, metadata string, _ bool) error {
	var s meeting.State
	if err := json.Unmarshal([]byte(metadata), &s); err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state[room] = s
	return nil
}

// Say implements meetings.Media.
func (w *world) Say(string, []byte, ...string) {}

// Silence implements meetings.Media.
func (w *world) Silence(string, string, string) bool { return false }

// Hold implements meetings.Media.
func (w *world) Hold(string, string, []string) {}

// Close implements meetings.Media.
func (w *world) Close(string) {}

// seen is what everybody in a meeting sees.
func (w *world) seen(e meeting.Entry) meeting.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state[matrixrtc.MediaRoom(e.RoomID, meeting.Slot)]
}

func (w *world) join(name string, q meeting.Join) meeting.Entry {
	w.t.Helper()
	e, err := w.meetings.Join(w.ctx, name, q, meeting.Caller{Address: "192.0.2.1", MediaAt: "wss://example.org/livekit/sfu"})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// member is how the SFU knows somebody.
func (w *world) member(e meeting.Entry) focus.Member {
	w.t.Helper()
	list, err := w.store.MeetingSessions(w.ctx, e.RoomID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, x := range list {
		m := focus.Member{RoomID: x.RoomID, SlotID: meeting.Slot, UserID: x.UserID, DeviceID: x.DeviceID, MemberID: x.MemberID}
		if m.Identity() == e.Identity {
			return m
		}
	}
	w.t.Fatalf("no session of %s", e.Identity)
	return focus.Member{}
}

// talks brings somebody into the SFU, and gives how to take him out.
func (w *world) talks(e meeting.Entry) (hangUp func()) {
	w.t.Helper()
	m := w.member(e)
	w.meetings.Arrived(m, "session of "+e.Identity, w.clock.Now())
	w.meetings.Step(w.ctx)
	return func() {
		w.meetings.Departed(m, "session of "+e.Identity, w.clock.Now())
		w.meetings.Step(w.ctx)
	}
}

func (w *world) act(name string, q meeting.Action) {
	w.t.Helper()
	if err := w.meetings.Act(w.ctx, name, q); err != nil {
		w.t.Fatalf("%s: %v", q.Action, err)
	}
}

// in says whether a user is in a meeting's Matrix room.
func (w *world) in(e meeting.Entry, user string) bool {
	w.t.Helper()
	r, err := w.rooms.Room(w.ctx, e.RoomID)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.Contains(r.Head().Joined(), user)
}
