// SPDX-License-Identifier: Apache-2.0

package push_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

const alice, bob, carol = "@alice:test", "@bob:test", "@carol:test"

func list(text string) (out []json.RawMessage) {
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	return out
}

func rule(id string) push.Rule { return push.Rule{ID: id, Actions: list(`["notify"]`)} }

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e *signalling.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func ids(rules []push.Rule) (out []string) {
	for _, r := range rules {
		if !r.Default {
			out = append(out, r.ID)
		}
	}
	return out
}

func TestRulesOfAUserKeepTheirOrder(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx := context.Background()
		p := push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
		put := func(id, before, after string) {
			t.Helper()
			if err := p.Put(ctx, alice, push.Override, rule(id), before, after); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
		}
		put("a", "", "")
		put("b", "", "")  // b a
		put("c", "", "b") // b c a
		put("d", "a", "") // b c d a
		put("e", "b", "a")
		put("f", "", "a") // last
		put("a", "", "")  // where it was
		put("c", "", "f") // moved to the end
		wantCode(t, "before what is not there", p.Put(ctx, alice, push.Override, rule("x"), "nobody", ""), "M_UNKNOWN")
		wantCode(t, "after itself", p.Put(ctx, alice, push.Override, rule("x"), "", "x"), "M_UNKNOWN")
		wantCode(t, "after a predefined rule", p.Put(ctx, alice, push.Override, rule("x"), "", ".m.rule.master"), "M_UNKNOWN")
		for _, s := range []*push.Service{p, push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))} {
			r, err := s.Rules(ctx, alice)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{"e", "b", "d", "a", "f", "c"}, ids(r.Override)); d != "" {
				t.Error(d)
			}
			if r, err = s.Rules(ctx, bob); err != nil || len(ids(r.Override)) != 0 {
				t.Errorf("bob's rules: %v %v", ids(r.Override), err)
			}
		}
		if err := p.Enable(ctx, alice, push.Override, "d", false); err != nil {
			t.Fatal(err)
		}
		put("d", "", "") // stays switched off
		if err := p.Delete(ctx, alice, push.Override, "b"); err != nil {
			t.Fatal(err)
		}
		r, err := p.Rules(ctx, alice)
		if err != nil || r.Find(push.Override, "d").Enabled || r.Find(push.Override, "b") != nil || !r.Find(push.Override, "a").Enabled {
			t.Errorf("rules %+v %v", r.Override, err)
		}
		wantCode(t, "deleted twice", p.Delete(ctx, alice, push.Override, "b"), "M_NOT_FOUND")
		wantCode(t, "another kind", p.Delete(ctx, alice, push.Content, "a"), "M_NOT_FOUND")
	})
}

func TestPredefinedRulesCanBeChangedAndNotRemoved(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx := context.Background()
		p := push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
		for _, err := range []error{
			p.Enable(ctx, alice, push.Underride, ".m.rule.call", false),
			p.SetActions(ctx, alice, push.Underride, ".m.rule.message", list(`[]`)),
			p.SetActions(ctx, alice, push.Override, ".m.rule.tombstone", list(`["notify","coalesce",{"set_tweak":"x","value":{"y":1}}]`)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		r, err := p.Rules(ctx, alice)
		if err != nil {
			t.Fatal(err)
		}
		if r.Find(push.Underride, ".m.rule.call").Enabled || len(r.Find(push.Underride, ".m.rule.message").Actions) != 0 {
			t.Errorf("underride: %+v", r.Underride)
		}
		if got := fmt.Sprintf("%s", r.Find(push.Override, ".m.rule.tombstone").Actions); got != `["notify" "coalesce" {"set_tweak":"x","value":{"y":1}}]` {
			t.Errorf("actions %s", got)
		}
		wantCode(t, "delete", p.Delete(ctx, alice, push.Underride, ".m.rule.call"), "M_INVALID_PARAM")
		wantCode(t, "unknown predefined rule", p.Enable(ctx, alice, push.Underride, ".m.rule.tea", false), "M_NOT_FOUND")
		wantCode(t, "of another kind", p.Enable(ctx, alice, push.Override, ".m.rule.call", true), "M_NOT_FOUND")
	})
}

func TestRulesThatCannotBeMeantAreRefused(t *testing.T) {
	ctx := context.Background()
	s := storagetest.Open(t, storagetest.SQLiteURL(t))
	p := push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	long := strings.Repeat("x", 513)
	with := func(conditions string) push.Rule {
		return push.Rule{ID: "x", Actions: list(`[]`), Conditions: list(conditions)}
	}
	for what, c := range map[string]struct {
		kind push.Kind
		rule push.Rule
		code string
	}{
		"no id":                  {push.Override, rule(""), "M_INVALID_PARAM"},
		"the server's id":        {push.Override, rule(".mine"), "M_INVALID_PARAM"},
		"slash":                  {push.Override, rule("a/b"), "M_INVALID_PARAM"},
		"backslash":              {push.Override, rule(`a\b`), "M_INVALID_PARAM"},
		"long id":                {push.Override, rule(strings.Repeat("x", 256)), "M_INVALID_PARAM"},
		"no actions":             {push.Room, push.Rule{ID: "!a:b"}, "M_MISSING_PARAM"},
		"number as action":       {push.Room, push.Rule{ID: "!a:b", Actions: list(`[1]`)}, "M_INVALID_PARAM"},
		"null as action":         {push.Room, push.Rule{ID: "!a:b", Actions: list(`[null]`)}, "M_INVALID_PARAM"},
		"tweak of nothing":       {push.Room, push.Rule{ID: "!a:b", Actions: list(`[{"value":1}]`)}, "M_INVALID_PARAM"},
		"content of nothing":     {push.Content, rule("x"), "M_MISSING_PARAM"},
		"long pattern":           {push.Content, push.Rule{ID: "x", Pattern: &long, Actions: list(`[]`)}, "M_INVALID_PARAM"},
		"condition of no kind":   {push.Override, with(`[{}]`), "M_INVALID_PARAM"},
		"condition as text":      {push.Override, with(`["x"]`), "M_INVALID_PARAM"},
		"match without pattern":  {push.Underride, with(`[{"kind":"event_match","key":"type"}]`), "M_MISSING_PARAM"},
		"is without value":       {push.Underride, with(`[{"kind":"event_property_is","key":"type"}]`), "M_MISSING_PARAM"},
		"count of apples":        {push.Underride, with(`[{"kind":"room_member_count","is":"apples"}]`), "M_INVALID_PARAM"},
		"too many conditions":    {push.Underride, with("[" + strings.Repeat(`{"kind":"x"},`, 30) + `{"kind":"x"}]`), "M_INVALID_PARAM"},
		"long key":               {push.Underride, with(`[{"kind":"event_match","pattern":"","key":"` + long + `"}]`), "M_INVALID_PARAM"},
		"number where text goes": {push.Underride, with(`[{"kind":"event_match","pattern":1,"key":"x"}]`), "M_INVALID_PARAM"},
	} {
		wantCode(t, what, p.Put(ctx, alice, c.kind, c.rule, "", ""), c.code)
	}
	if _, pos, err := p.RulesJSON(ctx, alice); err != nil || pos != 0 {
		t.Errorf("something was changed: %d %v", pos, err)
	}
	// One rule below the limit, as a user gets there in a thousand steps.
	var own []push.Rule
	for i := range push.MaxRules - 1 {
		own = append(own, push.Rule{ID: fmt.Sprintf("!%d", i), Actions: list(`[]`)})
	}
	raw, err := json.Marshal(map[string]any{"own": map[push.Kind][]push.Rule{push.Room: own}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, func(tx *storage.Tx) error { _, err := tx.SetPushRules(alice, raw); return err }); err != nil {
		t.Fatal(err)
	}
	if err := p.Put(ctx, alice, push.Sender, rule(bob), "", ""); err != nil {
		t.Errorf("the last that fits: %v", err)
	}
	wantCode(t, "one too many", p.Put(ctx, alice, push.Sender, rule(carol), "", ""), "M_RESOURCE_LIMIT_EXCEEDED")
	if err := p.Put(ctx, alice, push.Sender, rule(bob), "", ""); err != nil {
		t.Errorf("a change of one that is there: %v", err)
	}
}

func TestAChangeOfRulesReachesSync(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx := context.Background()
		p := push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
		var notes []storage.Note
		s.Observe(func(_ int64, n []storage.Note) { notes = append(notes, n...) })
		first, err := p.RulesSince(ctx, alice, 0, s.Pos())
		if err != nil || !strings.Contains(string(first), ".m.rule.call") {
			t.Fatalf("first sync: %.80s %v", first, err)
		}
		before := s.Pos()
		if again, err := p.RulesSince(ctx, alice, max(1, before), max(1, before)); err != nil || again != nil {
			t.Errorf("nothing has changed: %.80s %v", again, err)
		}
		if err := p.Enable(ctx, alice, push.Override, ".m.rule.master", true); err != nil {
			t.Fatal(err)
		}
		if len(notes) != 1 || notes[0].Kind != storage.NoteAccountData || notes[0].User != alice || notes[0].Pos != before+1 {
			t.Errorf("notes %+v", notes)
		}
		if since, err := p.RulesSince(ctx, alice, max(1, before), s.Pos()); before > 0 && (err != nil || since == nil) {
			t.Errorf("after the change: %.80s %v", since, err)
		}
	})
}

// hall is a homeserver's rooms, with push watching.
type hall struct {
	t *testing.T
	s *storage.Store
	r *rooms.Service
	p *push.Service
}

func newHall(t *testing.T, s *storage.Store) *hall {
	t.Helper()
	r, err := rooms.New(context.Background(), s, "test", signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{t: t, s: s, r: r, p: push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))}
	s.Observe(h.p.Observe)
	return h
}

func (h *hall) room(users ...string) *rooms.Room {
	h.t.Helper()
	state := func(typ, key, content string) rooms.Draft {
		return rooms.Draft{Sender: users[0], Type: typ, StateKey: &key, Content: json.RawMessage(content)}
	}
	id, err := h.r.Create(context.Background(), rooms.NewRoom{Version: "12", Creator: users[0], Drafts: []rooms.Draft{
		state("m.room.member", users[0], `{"membership":"join"}`), state("m.room.power_levels", "", `{}`), state("m.room.join_rules", "", `{"join_rule":"public"}`),
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, u := range users[1:] {
		h.send(id, u, "m.room.member", &u, `{"membership":"join"}`)
	}
	room, err := h.r.Room(context.Background(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return room
}

func (h *hall) send(room, sender, typ string, stateKey *string, content string) *rooms.Stored {
	h.t.Helper()
	ids, err := h.r.Append(context.Background(), room, rooms.Draft{Sender: sender, Type: typ, StateKey: stateKey, Content: json.RawMessage(content)})
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := h.r.Room(context.Background(), room)
	if err != nil {
		h.t.Fatal(err)
	}
	e, err := r.Event(context.Background(), ids[0])
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *hall) say(room *rooms.Room, sender, text string) *rooms.Stored {
	h.t.Helper()
	return h.send(room.ID, sender, "m.room.message", nil, `{"msgtype":"m.text","body":"`+text+`"}`)
}

// note is what sync's receipts look like to push.
type note struct{ storage.Receipt }

func (h *hall) read(room *rooms.Room, user, typ, thread string, e *rooms.Stored) {
	h.t.Helper()
	err := h.s.Write(context.Background(), func(tx *storage.Tx) error {
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		r := storage.Receipt{RoomNID: room.NID, User: user, Type: typ, ThreadID: thread, EventID: e.ID(), EventPos: e.Pos, Pos: pos}
		if _, err := tx.SetReceipt(r); err != nil {
			return err
		}
		tx.Note(storage.Note{Pos: pos, Kind: storage.NoteReceipt, User: user, Room: room.ID, Value: &note{r}})
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// want checks the counts of a user, as they are kept and as they are made anew from the store.
func (h *hall) want(what string, room *rooms.Room, user string, notify, highlight int64) {
	h.t.Helper()
	for kind, p := range map[string]*push.Service{"kept": h.p, "made anew": push.New(h.s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))} {
		n, hi, err := p.Unread(context.Background(), user, room)
		if err != nil || n != notify || hi != highlight {
			h.t.Errorf("%s: %s: %d unread, %d highlighted (%v), want %d, %d", what, kind, n, hi, err, notify, highlight)
		}
	}
}

func TestUnreadCountsFollowEventsAndReceipts(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		h := newHall(t, s)
		room := h.room(alice, bob, carol)
		h.say(room, bob, "before anybody looked")
		h.want("first look", room, alice, 1, 0)
		two := h.say(room, bob, "two")
		h.send(room.ID, bob, "m.room.message", nil, `{"msgtype":"m.text","body":"hey","m.mentions":{"user_ids":["@alice:test"]}}`)
		h.say(room, alice, "my own")
		last := h.send(room.ID, carol, "m.reaction", nil, `{}`)
		h.want("with a mention", room, alice, 3, 1)
		h.want("another's counts", room, carol, 4, 0)
		h.read(room, alice, "m.read", "", two)
		h.want("read up to the second", room, alice, 1, 1)
		h.read(room, alice, "m.read.private", "", last)
		h.want("read all, privately", room, alice, 0, 0)
		h.say(room, carol, "more")
		h.want("and one more", room, alice, 1, 0)
		h.want("nobody reads for others", room, carol, 4, 0)
	})
}

func TestThreadsAreReadByThemselves(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		h := newHall(t, s)
		room := h.room(alice, bob)
		root := h.say(room, bob, "root")
		in := func() *rooms.Stored {
			return h.send(room.ID, bob, "m.room.message", nil, `{"body":"in","m.relates_to":{"rel_type":"m.thread","event_id":"`+root.ID()+`"}}`)
		}
		in()
		last := in()
		main := h.say(room, bob, "main")
		h.want("all", room, alice, 4, 0)
		by, err := h.p.UnreadByThread(context.Background(), alice, room)
		if d := cmp.Diff(map[string]push.Tally{"": {Notify: 2}, root.ID(): {Notify: 2}}, by); err != nil || d != "" {
			t.Errorf("%v %s", err, d)
		}
		h.read(room, alice, "m.read", "main", main)
		h.want("the thread is left", room, alice, 2, 0)
		h.read(room, alice, "m.read", root.ID(), last)
		h.want("nothing is left", room, alice, 0, 0)
		in()
		h.want("one in the thread", room, alice, 1, 0)
		h.read(room, alice, "m.read", "", h.say(room, bob, "x"))
		h.want("unthreaded reads all", room, alice, 0, 0)
	})
}

func TestLongUnreadRoomsAreCountedAndRead(t *testing.T) {
	h := newHall(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	room := h.room(alice, bob)
	h.want("nothing yet", room, alice, 0, 0)
	var middle, last *rooms.Stored
	for i := range 200 { // more than are at hand, and more than are listed
		last = h.say(room, bob, "x")
		if i == 149 {
			middle = last
		}
		if i == 20 {
			h.want("on the way", room, alice, 21, 0)
		}
	}
	h.want("all", room, alice, 200, 0)
	h.read(room, alice, "m.read", "", middle)
	h.want("half", room, alice, 50, 0)
	h.read(room, alice, "m.read", "", last)
	h.want("none", room, alice, 0, 0)
}

func TestWhoComesBackHasMissedNothing(t *testing.T) {
	h := newHall(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	room := h.room(alice, bob)
	h.want("nothing yet", room, bob, 0, 0)
	b := bob
	h.send(room.ID, bob, "m.room.member", &b, `{"membership":"leave"}`)
	h.say(room, alice, "while he is away")
	h.send(room.ID, bob, "m.room.member", &b, `{"membership":"join"}`)
	h.say(room, alice, "welcome")
	h.want("since the return", room, bob, 1, 0)
}

func TestCountsLoseNothingWhileEventsArrive(t *testing.T) {
	h := newHall(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	room := h.room(alice, bob, carol)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, u := range []string{alice, carol} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, _, err := h.p.Unread(context.Background(), u, room); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 100 {
		h.say(room, bob, "x")
	}
	close(stop)
	wg.Wait()
	h.want("all of them", room, alice, 100, 0)
	h.want("all of them", room, carol, 100, 0)
}

func TestASilencedRoomStaysSilentAfterItsUpgrade(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		h := newHall(t, s)
		old := h.room(alice, bob, carol)
		ctx := context.Background()
		for _, err := range []error{
			h.p.Put(ctx, bob, push.Room, push.Rule{ID: old.ID, Actions: list(`["dont_notify"]`)}, "", ""),
			h.p.Enable(ctx, bob, push.Room, old.ID, false),
			h.p.Put(ctx, carol, push.Room, push.Rule{ID: "!other:test", Actions: list(`[]`)}, "", ""),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		changed := make(chan string, 100)
		s.Observe(func(pos int64, notes []storage.Note) {
			h.p.Observe(pos, notes)
			for _, n := range notes {
				if n.Kind == storage.NoteAccountData {
					changed <- n.User
				}
			}
		})
		ctx, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- h.p.Run(ctx) }()
		empty := ""
		id, err := h.r.Create(ctx, rooms.NewRoom{Version: "11", Creator: alice, Create: json.RawMessage(`{"predecessor":{"room_id":"` + old.ID + `","event_id":"$x"}}`), Drafts: []rooms.Draft{
			{Sender: alice, Type: "m.room.member", StateKey: &[]string{alice}[0], Content: json.RawMessage(`{"membership":"join"}`)},
			{Sender: alice, Type: "m.room.power_levels", StateKey: &empty, Content: json.RawMessage(`{"users":{"@alice:test":100}}`)},
			{Sender: alice, Type: "m.room.join_rules", StateKey: &empty, Content: json.RawMessage(`{"join_rule":"public"}`)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range []string{carol, bob} {
			h.send(id, u, "m.room.member", &u, `{"membership":"join"}`)
		}
		if u := <-changed; u != bob {
			t.Errorf("%s's rules changed", u)
		}
		r, err := h.p.Rules(ctx, bob)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{id, old.ID}, ids(r.Room)); d != "" || r.Room[0].Enabled {
			t.Errorf("%s %+v", d, r.Room)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if r, err = h.p.Rules(context.Background(), carol); err != nil || len(r.Room) != 1 {
			t.Errorf("carol's rules: %+v %v", r.Room, err)
		}
	})
}
