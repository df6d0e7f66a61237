// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// TestHostileACL is F26: a list of thousands of patterns, each as bad as can be, is gone through, and holds.
func TestHostileACL(t *testing.T) {
	s := newScene(t, "11")
	var deny []string
	for range 900 {
		deny = append(deny, strings.Repeat("*e", 25)+"x")
	}
	raw, err := json.Marshal(map[string]any{"allow": []string{"*"}, "deny": append(deny, "EVIL.*")})
	if err != nil {
		t.Fatal(err)
	}
	s.append(rooms.Draft{Sender: alice, Type: "m.room.server_acl", StateKey: new(string), Content: raw})
	catchUp(t, s.here, s.third, s.room)
	long := strings.Repeat("e", 200) + ".test"
	if err := s.here.room(s.room).Allows(t.Context(), long); err != nil {
		t.Errorf("%v", err)
	}
	e := s.evil.say(s.room, mallory, "x")
	if out := s.evil.send(s.here, e.JSON()); out[e.ID()].Get("error").Str == "" || s.here.has(s.room, e.ID()) {
		t.Errorf("%v", out)
	}
	s.end()
}

// TestHostileInvites is F29 and F30: what comes with an invite is not handed on as it is, and a flood of them is stopped.
func TestHostileInvites(t *testing.T) {
	left := atomic.Int64{}
	left.Store(1 << 30)
	s := newScene(t, "11", func(d *Deps) { d.Limiter = few{&left} })
	bob := "@bob:here.test"
	other := s.evil.create("11", mallory)
	put := func(stripped any) error {
		e := s.evil.build(other, event.Proto{Sender: mallory, Type: "m.room.member", StateKey: &bob, Content: json.RawMessage(`{"membership":"invite"}`)})
		_, err := s.evil.ask(s.here, "PUT", "/_matrix/federation/v2/invite/"+esc(other)+"/"+esc(e.ID()), map[string]any{"event": e.JSON(), "room_version": "11", "invite_room_state": stripped})
		return err
	}
	const good = `{"type":"m.room.name","state_key":"","sender":"@mallory:evil.test","content":{"name":"a room"}}`
	for what, stripped := range map[string]string{
		"numbers": `[1,2,null,"x",[]]`, "no content": `[{"type":"m.room.name","state_key":"","sender":"@m:evil.test"}]`, "content a list": `[{"type":"m.room.name","state_key":"","sender":"@m:evil.test","content":[]}]`,
		"a type that is none": `[{"type":5,"state_key":"","sender":"@m:evil.test","content":{}}]`, "a key that is none": `[{"type":"m.room.name","state_key":{},"sender":"@m:evil.test","content":{}}]`,
		"a sender that is none": `[{"type":"m.room.name","state_key":"","sender":[],"content":{}}]`, "huge": `[{"type":"m.room.name","state_key":"","sender":"@m:evil.test","content":{"name":"` + strings.Repeat("x", 70_000) + `"}}]`,
		"many": `[` + strings.Repeat(good+",", 2000) + good + `]`, "good and bad": `[7,` + good + `]`, "none": `null`,
	} {
		if err := put(json.RawMessage(stripped)); err != nil && signalling.AsError(err).Status >= 500 {
			t.Errorf("%s: %v", what, err)
		}
		r, err := s.here.rooms.Room(t.Context(), other)
		if err != nil {
			continue // the invite was refused
		}
		list, _, err := r.StrippedFor(t.Context(), bob)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if len(list) > 300 {
			t.Errorf("%s: bob is shown %d events", what, len(list))
		}
		for _, raw := range list {
			var x struct {
				Type     *string         `json:"type"`
				StateKey *string         `json:"state_key"`
				Sender   *string         `json:"sender"`
				Content  *map[string]any `json:"content"`
			}
			if err := json.Unmarshal(raw, &x); err != nil || x.Type == nil || x.StateKey == nil || x.Sender == nil || x.Content == nil || len(raw) > event.MaxSize {
				t.Errorf("%s: bob is shown %.200s: %v", what, raw, err)
			}
		}
	}
	left.Store(3)
	var refused error
	for range 5 {
		if err := put([]any{}); err != nil {
			refused = err
		}
	}
	if e := signalling.AsError(refused); refused == nil || e.Status != 429 || e.Code != "M_LIMIT_EXCEEDED" {
		t.Errorf("the fifth invite: %v", refused)
	}
	left.Store(1 << 30)
	s.end()
}

// few lets a number of invites pass.
type few struct{ left *atomic.Int64 }

func (f few) Allow(op, _ string) (bool, time.Duration) {
	return op != "invites" || f.left.Add(-1) >= 0, time.Minute
}

// TestHostileHistory is F41: history with pages full of rejected events goes on behind them.
func TestHostileHistory(t *testing.T) {
	s := newScene(t, "11")
	old := s.text("old")
	catchUp(t, s.here, s.evil, s.room)
	catchUp(t, s.here, s.third, s.room)
	base := s.evil.build(s.room, stateOf(mallory, "m.room.name", "", `{}`))
	prev, depth := base.PrevIDs(), base.Depth()
	for i := range 120 {
		e := s.evil.buildOn(s.room, stateOf(mallory, "m.room.name", "", fmt.Sprintf(`{"name":"%d"}`, i)), prev, base.AuthIDs(), depth)
		s.evil.send(s.here, e.JSON())
		prev, depth = []string{e.ID()}, depth+1
	}
	behind := s.evil.buildOn(s.room, message(mallory), prev, s.evil.say(s.room, mallory, "").AuthIDs(), depth)
	if out := s.evil.send(s.here, behind.JSON()); out[behind.ID()].Get("error").Str != "" || !s.here.has(s.room, behind.ID()) {
		t.Fatalf("%v", out)
	}
	out, err := s.third.ask(s.here, "GET", "/_matrix/federation/v1/backfill/"+esc(s.room)+"?limit=5&v="+esc(behind.ID()), nil)
	if err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for _, x := range out.Get("pdus").Array() {
		if x.Get("type").Str == "m.room.name" {
			t.Errorf("a rejected event is history: %s", x.Raw)
		}
		bodies = append(bodies, x.Get("content.body").Str)
	}
	if len(bodies) != 5 || !slices.Contains(bodies, "old") {
		t.Errorf("history is %q, without %s", bodies, old.ID())
	}
	if missing, err := s.third.ask(s.here, "POST", "/_matrix/federation/v1/get_missing_events/"+esc(s.room), map[string]any{"latest_events": []string{behind.ID()}, "earliest_events": []string{}, "limit": 20}); err != nil || len(missing.Get("events").Array()) < 5 {
		t.Errorf("%s, %v", missing.Raw, err)
	}
	catchUp(t, s.here, s.third, s.room)
	s.end()
}

// TestHostileSilence is F42 and F43: while one server does not answer what we ask it, others are served in that room, and reading, writing
// and receiving at once get in nobody's way.
func TestHostileSilence(t *testing.T) {
	s := newScene(t, "11")
	silence := make(chan struct{})
	free := sync.OnceFunc(func() { close(silence) })
	defer free()
	asked := make(chan struct{}, 64)
	hang := func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		select {
		case <-silence:
		case <-r.Context().Done():
		}
	}
	for _, p := range []string{"POST /_matrix/federation/v1/get_missing_events/{room}", "GET /_matrix/federation/v1/event/{event}", "GET /_matrix/federation/v1/event_auth/{room}/{event}"} {
		s.evil.answer(p, hang)
	}
	base := s.evil.say(s.room, mallory, "")
	var evils, work sync.WaitGroup
	for i := range 12 {
		e := s.evil.buildOn(s.room, message(mallory), []string{fmt.Sprintf("$%043d", i)}, base.AuthIDs(), base.Depth()+1)
		evils.Go(func() {
			_, _ = s.evil.ask(s.here, "PUT", fmt.Sprintf("/_matrix/federation/v1/send/hang%d", i), map[string]any{"pdus": []json.RawMessage{e.JSON()}})
		})
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for i := range 20 {
		work.Go(func() {
			if _, err := s.here.rooms.Append(ctx, s.room, rooms.Draft{Sender: alice, Type: "m.room.message", Content: json.RawMessage(`{}`)}); err != nil {
				t.Errorf("alice: %v", err)
			}
		})
		e := s.third.say(s.room, witness, fmt.Sprint(i))
		work.Go(func() {
			if out := s.third.send(s.here, e.JSON()); out[e.ID()].Get("error").Str != "" || !s.here.has(s.room, e.ID()) {
				t.Errorf("the witness is not heard: %v", out)
			}
		})
		work.Go(func() {
			head := s.here.room(s.room).Head().Extremities()[0].ID
			for _, path := range []string{"state_ids/" + esc(s.room) + "?event_id=" + esc(head), "backfill/" + esc(s.room) + "?limit=5&v=" + esc(head), "make_leave/" + esc(s.room) + "/" + esc(witness)} {
				if _, err := s.third.ask(s.here, "GET", "/_matrix/federation/v1/"+path, nil); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
	ended(t, "the others", &work)
	free()
	ended(t, "the server that was silent", &evils)
	s.evil.honest()
	catchUp(t, s.here, s.third, s.room)
	s.end()
}

// ended waits for a group.
func ended(t *testing.T, who string, group *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(120 * time.Second):
		t.Fatalf("%s: not served", who)
	}
}

// TestHostileDoors is F48, and F46 for an answer with a part of its auth chain missing: into a restricted room only those come whom somebody
// with the power has let in, and a room is not entered on half of what it stands on.
func TestHostileDoors(t *testing.T) {
	s := newScene(t, "11")
	club := s.here.create("11", alice)
	s.append(rooms.Draft{Sender: alice, Type: "m.room.power_levels", StateKey: new(string), Content: json.RawMessage(`{"users":{"` + alice + `":100},"invite":50,"state_default":50}`)})
	s.append(rooms.Draft{Sender: alice, Type: "m.room.join_rules", StateKey: new(string), Content: json.RawMessage(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"` + club + `"}]}`)})
	catchUp(t, s.here, s.evil, s.room)
	catchUp(t, s.here, s.third, s.room)
	carol := "@carol:evil.test"
	for what, content := range map[string]string{
		"nobody let him in": `{"membership":"join"}`, "one without power did": `{"membership":"join","join_authorised_via_users_server":"` + mallory + `"}`,
		"alice did, he says": `{"membership":"join","join_authorised_via_users_server":"` + alice + `"}`, "somebody who is not there": `{"membership":"join","join_authorised_via_users_server":"@nobody:here.test"}`,
		"a third server": `{"membership":"join","join_authorised_via_users_server":"` + witness + `"}`, "rubbish": `{"membership":"join","join_authorised_via_users_server":{}}`,
	} {
		join := s.evil.build(s.room, event.Proto{Sender: carol, Type: "m.room.member", StateKey: &carol, Content: json.RawMessage(content)})
		out, err := s.evil.ask(s.here, "PUT", "/_matrix/federation/v2/send_join/"+esc(s.room)+"/"+esc(join.ID()), json.RawMessage(join.JSON()))
		if err == nil || out.Get("event.signatures.here\\.test").Exists() {
			t.Errorf("%s: %s", what, out.Raw)
		}
		s.evil.send(s.here, join.JSON()) // and by the other door
		if s.here.room(s.room).Head().IsJoined(carol) {
			t.Fatalf("%s: carol is in", what)
		}
	}
	s.evil.refused(s.here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/make_join/"+esc(s.room)+"/"+esc(carol)+"?ver=11", nil)

	theirs := s.evil.create("11", mallory)
	bob := "@bob:here.test"
	for _, lost := range []string{"m.room.create", "m.room.power_levels", "m.room.join_rules"} {
		s.evil.answer("PUT /_matrix/federation/v2/send_join/{room}/{event}", func(w http.ResponseWriter, r *http.Request) {
			rec := &recorder{header: http.Header{}}
			s.evil.api.ServeHTTP(rec, r)
			var a map[string]json.RawMessage
			if err := json.Unmarshal(rec.body, &a); err != nil {
				t.Errorf("%v in %s", err, rec.body)
			}
			for _, k := range []string{"state", "auth_chain"} {
				var list []json.RawMessage
				_ = json.Unmarshal(a[k], &list)
				list = slices.DeleteFunc(list, func(e json.RawMessage) bool { return strings.Contains(string(e), `"type":"`+lost+`"`) })
				a[k], _ = json.Marshal(list)
			}
			_ = json.NewEncoder(w).Encode(a)
		})
		if err := s.here.fed.Join(t.Context(), entrance(bob, theirs, s.evil)); err == nil {
			t.Errorf("without %s: joined", lost)
		}
		if r, err := s.here.rooms.Room(t.Context(), theirs); err == nil && r.Head().IsJoined(bob) {
			t.Errorf("without %s: bob is in", lost)
		}
	}
	s.evil.honest()
	s.end()
}

// recorder takes an answer.
type recorder struct {
	header http.Header
	body   []byte
	status int
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(b []byte) (int, error) {
	r.body = append(r.body, b...)
	return len(b), nil
}
