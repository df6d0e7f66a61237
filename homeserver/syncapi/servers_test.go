// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// far is another server with a room of its own.
type far struct {
	t     *testing.T
	rooms *rooms.Service
	id    string
}

const fay = "@fay:far.org"

func newFar(t *testing.T) *far {
	t.Helper()
	s, err := rooms.New(context.Background(), storagetest.Open(t, storagetest.SQLiteURL(t)), "far.org", signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Create(context.Background(), rooms.NewRoom{Version: event.DefaultVersion, Creator: fay, Drafts: []rooms.Draft{
		member(fay, fay, "join"), state(fay, "m.room.join_rules", map[string]any{"join_rule": "public"}), state(fay, "m.room.name", map[string]any{"name": "Far"}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &far{t, s, id}
}

func (f *far) send(d rooms.Draft) *event.Event {
	f.t.Helper()
	ids, err := f.rooms.Append(context.Background(), f.id, d)
	if err != nil {
		f.t.Fatal(err)
	}
	r, _ := f.rooms.Room(context.Background(), f.id)
	e, err := r.Event(context.Background(), ids[0])
	if err != nil {
		f.t.Fatal(err)
	}
	return e.Event
}

// invite invites a user of w.
func (f *far) invite(w *world, user string) {
	f.t.Helper()
	ctx := context.Background()
	inv, err := f.rooms.MakeInvite(ctx, f.id, fay, user, "", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	signed, err := w.rooms.TakeInvite(ctx, inv.Event, inv.Stripped)
	if err == nil {
		err = f.rooms.SendSigned(ctx, signed)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// admit lets a user of w in.
func (f *far) admit(w *world, user string) {
	f.t.Helper()
	ctx := context.Background()
	tmpl, err := f.rooms.MakeMember(ctx, f.id, user, "join", []string{string(event.DefaultVersion)})
	if err != nil {
		f.t.Fatal(err)
	}
	e, err := w.rooms.FromTemplate(ctx, *tmpl, rooms.Wanted{RoomID: f.id, User: user, Membership: "join"})
	if err != nil {
		f.t.Fatal(err)
	}
	in, err := f.rooms.AcceptMember(ctx, f.id, e, "join", false)
	if err == nil {
		err = w.rooms.Enter(ctx, rooms.Entry{Event: in.Event, State: in.State, Auth: in.AuthChain, Via: "far.org"})
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func types(list []ev) (out []string) {
	for _, e := range list {
		out = append(out, e.Type)
	}
	slices.Sort(out)
	return out
}

func TestInvitesOfOtherServersAreSyncedWithTheirStrippedState(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w, f := start(t, st), newFar(t)
		first := w.get(syncapi.Request{User: bob})
		f.invite(w, bob)
		want := []string{"m.room.create", "m.room.join_rules", "m.room.member", "m.room.member", "m.room.name"}
		for name, r := range map[string]result{
			"live": w.get(syncapi.Request{User: bob, Since: first.Next, Timeout: time.Second}), "stored": start(t, st).get(syncapi.Request{User: bob, Since: first.Next}), "first": w.get(syncapi.Request{User: bob}),
		} {
			if got := types(r.Rooms.Invite[f.id]["invite_state"].Events); !slices.Equal(got, want) {
				t.Errorf("%s: stripped state %v", name, got)
			}
		}
		w = start(t, st)
		now := w.get(syncapi.Request{User: bob})
		if err := w.rooms.DropInvite(context.Background(), f.id, bob, ""); err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]result{"live": w.get(syncapi.Request{User: bob, Since: now.Next, Timeout: time.Second}), "stored": start(t, st).get(syncapi.Request{User: bob, Since: now.Next})} {
			left, ok := r.Rooms.Leave[f.id]
			if !ok || len(left.Timeline.Events) != 1 || left.Timeline.Events[0].Content["membership"] != "leave" || len(left.State.Events) != 0 {
				t.Errorf("%s: the end of the invite is %+v", name, left)
			}
		}
	})
}

func TestARoomOfAnotherServerIsSyncedWithItsState(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w, f := start(t, st), newFar(t)
		f.send(text(fay, "before"))
		first := w.get(syncapi.Request{User: bob})
		f.invite(w, bob)
		f.admit(w, bob)
		want := []string{"m.room.create", "m.room.join_rules", "m.room.member", "m.room.member", "m.room.member", "m.room.name"} // bob's are an invite and the join
		for name, r := range map[string]result{
			"live": w.get(syncapi.Request{User: bob, Since: first.Next, Timeout: time.Second}), "stored": start(t, st).get(syncapi.Request{User: bob, Since: first.Next}), "first": w.get(syncapi.Request{User: bob}),
		} {
			j := r.Rooms.Join[f.id]
			if got := types(append(j.State.Events, j.Timeline.Events...)); len(j.Timeline.Events) != 1 || !slices.Equal(got, want) {
				t.Errorf("%s: timeline of %d, %v", name, len(j.Timeline.Events), got)
			}
			if !j.Timeline.Limited || j.Timeline.Prev == "" {
				t.Errorf("%s: nothing says that there is more", name)
			}
			if name != "first" && len(r.DeviceLists.Changed) == 0 {
				t.Errorf("%s: nobody's devices are new", name)
			}
		}
	})
}

func TestATimelineBeginsAnewAfterAHole(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		ctx := context.Background()
		w, f := start(t, st), newFar(t)
		f.admit(w, bob)
		now := w.get(syncapi.Request{User: bob})
		take := func(states map[string][]string, list ...*event.Event) {
			t.Helper()
			if _, err := w.rooms.InsertWith(ctx, f.id, list, states); err != nil {
				t.Fatal(err)
			}
		}
		take(nil, f.send(text(fay, "one")))
		f.send(text(fay, "lost"))
		named := f.send(state(fay, "m.room.name", map[string]any{"name": "Lost"}))
		if err := w.rooms.InsertOutliers(ctx, f.id, []*event.Event{named}); err != nil {
			t.Fatal(err)
		}
		two := f.send(text(fay, "two"))
		ids, _, err := f.rooms.StateIDsFor(ctx, "example.org", f.id, two.ID())
		if err != nil {
			t.Fatal(err)
		}
		take(map[string][]string{two.ID(): ids}, two)
		take(nil, f.send(text(fay, "three")))
		for name, r := range map[string]result{"live": w.get(syncapi.Request{User: bob, Since: now.Next, Timeout: time.Second}), "stored": start(t, st).get(syncapi.Request{User: bob, Since: now.Next})} {
			j := r.Rooms.Join[f.id]
			if got := bodies(j.Timeline.Events); !slices.Equal(got, []string{"two", "three"}) || !j.Timeline.Limited {
				t.Errorf("%s: %v, limited: %v", name, got, j.Timeline.Limited)
			}
			if got := types(j.State.Events); !slices.Equal(got, []string{"m.room.name"}) {
				t.Errorf("%s: state %v", name, got)
			}
		}
		r := w.get(syncapi.Request{User: bob, Filter: filter.Default()})
		if got := bodies(r.Rooms.Join[f.id].Timeline.Events); !slices.Equal(got, []string{"two", "three"}) {
			t.Errorf("first: %v", got)
		}
	})
}
