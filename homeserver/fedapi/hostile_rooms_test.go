// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"crypto/sha256"
	"encoding/base64"
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
)

const witness = "@witness:third.test"

// scene is a room of three servers: ours, one that is no friend, and a witness's. end holds ours and the witness's to one room that goes
// on, whatever the other did.
type scene struct {
	t                 *testing.T
	w                 *world
	here, evil, third *server
	room              string
}

func newScene(t *testing.T, v event.Version, more ...func(*Deps)) *scene {
	t.Helper()
	w := newWorld(t)
	s := &scene{t: t, w: w, here: w.server("here.test", more...), evil: w.server("evil.test"), third: w.server("third.test")}
	s.room = s.here.create(v, alice)
	s.evil.join(mallory, s.room, s.here)
	s.third.join(witness, s.room, s.here)
	return s
}

func (s *scene) append(d rooms.Draft) *event.Event {
	s.t.Helper()
	ids, err := s.here.rooms.Append(s.t.Context(), s.room, d)
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := s.here.room(s.room).Event(s.t.Context(), ids[0])
	if err != nil || e == nil {
		s.t.Fatalf("%v, %v", e, err)
	}
	return e.Event
}

func (s *scene) text(body string) *event.Event {
	return s.append(rooms.Draft{Sender: alice, Type: "m.room.message", Content: json.RawMessage(`{"body":"` + body + `"}`)})
}

// keep puts an event into a server's own room, as if it had sent it.
func (s *scene) keep(at *server, e *event.Event) {
	s.t.Helper()
	if _, err := at.rooms.Insert(s.t.Context(), s.room, []*event.Event{e}); err != nil {
		s.t.Fatal(err)
	}
}

// end: ours says something, and the witness follows, to the same state.
func (s *scene) end() {
	s.t.Helper()
	s.evil.honest()
	e := s.text("the end")
	if out := s.here.send(s.third, e.JSON()); out[e.ID()].Get("error").Str != "" || !s.third.has(s.room, e.ID()) {
		s.t.Fatalf("the witness does not follow: %v", out)
	}
	a, b := s.here.room(s.room).Head(), s.third.room(s.room).Head()
	for _, u := range []string{alice, witness} {
		if !a.IsJoined(u) || !b.IsJoined(u) {
			s.t.Errorf("%s is not in the room any more", u)
		}
	}
	for _, k := range [][2]string{{"m.room.create", ""}, {"m.room.power_levels", ""}, {"m.room.join_rules", ""}, {"m.room.member", alice}, {"m.room.member", witness}, {"m.room.member", mallory}} {
		if x, y := s.here.stateID(s.room, k[0], k[1]), s.third.stateID(s.room, k[0], k[1]); x != y {
			s.t.Errorf("%s %s is %s here and %s there", k[0], k[1], x, y)
		}
	}
	if a.Size() != b.Size() {
		s.t.Errorf("%d pieces of state here, %d there", a.Size(), b.Size())
	}
}

// nowhere: our server holds nothing under these ids, in whatever role.
func (s *scene) nowhere(ids ...string) {
	s.t.Helper()
	unknown, err := s.here.rooms.Unknown(s.t.Context(), ids)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, id := range ids {
		if !slices.Contains(unknown, id) {
			s.t.Errorf("%s is there", id)
		}
	}
}

func message(sender string) event.Proto {
	return event.Proto{Sender: sender, Type: "m.room.message", Content: json.RawMessage(`{"body":"x"}`)}
}

func stateOf(sender, typ, key, content string) event.Proto {
	return event.Proto{Sender: sender, Type: typ, StateKey: &key, Content: json.RawMessage(content)}
}

// unsigned is an event whose signatures are not there.
func unsigned(t *testing.T, e *event.Event) json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(e.JSON(), &m); err != nil {
		t.Fatal(err)
	}
	m["signatures"] = json.RawMessage(`{}`)
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestHostileIngress is F02: an event that nobody signed is refused on every way that an event can come: missing, one, as state, as auth
// chain, as history.
func TestHostileIngress(t *testing.T) {
	s := newScene(t, "11")
	forged := s.evil.say(s.room, mallory, "nobody signed this")
	forgedState := s.evil.build(s.room, stateOf(mallory, "m.room.topic", "", `{"topic":"x"}`))
	list := []json.RawMessage{unsigned(t, forged), unsigned(t, forgedState)}
	child := s.evil.buildOn(s.room, message(mallory), []string{forged.ID()}, forged.AuthIDs(), forged.Depth()+1)
	byAuth := s.evil.buildOn(s.room, message(mallory), forged.PrevIDs(), append(slices.Clone(forged.AuthIDs()), forgedState.ID()), forged.Depth())
	ways := []string{
		"POST /_matrix/federation/v1/get_missing_events/{room}", "GET /_matrix/federation/v1/event/{event}", "GET /_matrix/federation/v1/state_ids/{room}", "GET /_matrix/federation/v1/state/{room}",
		"GET /_matrix/federation/v1/event_auth/{room}/{event}", "GET /_matrix/federation/v1/backfill/{room}",
	}
	ids := []string{forged.ID(), forgedState.ID()}
	for _, way := range ways {
		s.evil.lie(way, map[string]any{"events": list, "pdus": list, "auth_chain": list, "pdu_ids": ids, "auth_chain_ids": ids})
	}
	s.evil.answer(ways[1], func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"pdus": list[slices.Index(ids, r.PathValue("event")):][:1]})
	})
	for _, e := range []*event.Event{child, byAuth} {
		s.evil.send(s.here, e.JSON()) // it is not refused: it waits for what it builds on, which never comes
		s.nowhere(e.ID(), forged.ID(), forgedState.ID())
	}
	if _, err := s.here.fed.Backfill(t.Context(), s.here.room(s.room), []string{forged.ID()}); err == nil {
		s.nowhere(ids...)
	}
	s.nowhere(ids...)
	// A fork at an old event, where the state is asked for.
	s.evil.lie(ways[0], map[string]any{"events": []any{}})
	s.evil.send(s.here, child.JSON())
	s.nowhere(append(ids, child.ID())...)
	s.end()
}

// TestHostilePower is F12, F13, F14, F19 in rooms of several versions: who has no power changes nothing, neither at once nor by what builds
// on a rejected event, nor by a fork from the time when he had it.
func TestHostilePower(t *testing.T) {
	for _, v := range []event.Version{"1", "2", "6", "9", "10", "11", "12"} {
		t.Run("version "+string(v), func(t *testing.T) {
			s := newScene(t, v)
			said := s.text("mine")
			catchUp(t, s.here, s.evil, s.room)
			levels := s.here.stateID(s.room, "m.room.power_levels", "")
			self := mallory
			// F12: without power.
			var refused []*event.Event
			for _, p := range []event.Proto{
				stateOf(mallory, "m.room.power_levels", "", `{"users":{"`+mallory+`":100}}`),
				stateOf(mallory, "m.room.join_rules", "", `{"join_rule":"invite"}`),
				stateOf(mallory, "m.room.member", alice, `{"membership":"ban"}`),
				stateOf(mallory, "m.room.member", witness, `{"membership":"leave"}`),
				stateOf(mallory, "m.room.member", "@carol:evil.test", `{"membership":"join"}`), // as somebody else
				stateOf(mallory, "@x:y", alice, `{}`),
			} {
				e := s.evil.build(s.room, p)
				s.evil.send(s.here, e.JSON())
				refused = append(refused, e)
			}
			// A second create event, with nothing before it.
			if v != "12" {
				create := s.evil.buildOn(s.room, stateOf(mallory, "m.room.create", "", `{"creator":"`+mallory+`"}`), nil, nil, 1)
				s.evil.send(s.here, create.JSON())
				s.nowhere(create.ID())
			}
			check := func(when string) {
				t.Helper()
				if s.here.level(s.room, mallory) != 0 || s.here.level(s.room, alice) < 100 || s.here.stateID(s.room, "m.room.power_levels", "") != levels {
					t.Errorf("%s: mallory has %d, alice %d", when, s.here.level(s.room, mallory), s.here.level(s.room, alice))
				}
				for _, u := range []string{alice, witness} {
					if !s.here.room(s.room).Head().IsJoined(u) {
						t.Errorf("%s: %s is out", when, u)
					}
				}
			}
			check("F12")
			// F13: events that stand on the rejected ones, and name them as their authority.
			behind := s.evil.buildOn(s.room, message(mallory), []string{refused[0].ID()}, s.evil.say(s.room, mallory, "").AuthIDs(), refused[0].Depth()+1)
			byIt := s.evil.buildOn(s.room, stateOf(mallory, "m.room.name", "", `{"name":"mallory's"}`), refused[0].PrevIDs(), append(slices.Clone(refused[0].AuthIDs()), refused[0].ID()), refused[0].Depth()+1)
			both := s.evil.buildOn(s.room, stateOf(mallory, "m.room.topic", "", `{"topic":"mallory's"}`), append([]string{refused[0].ID()}, refused[0].PrevIDs()...), refused[0].AuthIDs(), refused[0].Depth()+2)
			for _, e := range []*event.Event{behind, byIt, both} {
				s.evil.send(s.here, e.JSON())
			}
			check("F13")
			if id := s.here.stateID(s.room, "m.room.name", "") + s.here.stateID(s.room, "m.room.topic", ""); id != "" {
				t.Errorf("F13: %s is state", id)
			}
			// F14: mallory had power, and lost it; a fork from before comes later.
			grant := `{"users":{"` + alice + `":100,"` + mallory + `":50},"state_default":50}`
			take := `{"users":{"` + alice + `":100},"state_default":50}`
			if v == "12" {
				grant, take = `{"users":{"`+mallory+`":50},"state_default":50}`, `{"state_default":50}`
			}
			s.append(rooms.Draft{Sender: alice, Type: "m.room.power_levels", StateKey: new(string), Content: json.RawMessage(grant)})
			catchUp(t, s.here, s.evil, s.room)
			catchUp(t, s.here, s.third, s.room)
			fork := []*event.Event{
				s.evil.build(s.room, stateOf(mallory, "m.room.power_levels", "", strings.Replace(grant, `:50}`, `:50,"@m2:evil.test":50}`, 1))),
				s.evil.build(s.room, stateOf(mallory, "m.room.member", witness, `{"membership":"ban"}`)),
				s.evil.build(s.room, stateOf(mallory, "m.room.join_rules", "", `{"join_rule":"invite"}`)),
			}
			levels = s.append(rooms.Draft{Sender: alice, Type: "m.room.power_levels", StateKey: new(string), Content: json.RawMessage(take)}).ID()
			out := s.append(rooms.Draft{Sender: alice, Type: "m.room.member", StateKey: &self, Content: json.RawMessage(`{"membership":"ban"}`)})
			catchUp(t, s.here, s.third, s.room)
			for _, e := range fork {
				s.evil.send(s.here, e.JSON())
				s.evil.send(s.third, e.JSON())
			}
			if v != "1" { // its resolution takes the deeper of two, which is alice's, but is known not to withstand more
				check("F14")
			}
			if s.here.room(s.room).Head().Membership(mallory) != "ban" {
				t.Errorf("F14: mallory is not banned any more: %s", out.ID())
			}
			// F19: redactions without power, of another server's message and of the create event.
			for _, target := range []string{said.ID(), s.here.stateID(s.room, "m.room.create", "")} {
				p := event.Proto{Sender: mallory, Type: "m.room.redaction", Content: json.RawMessage(`{}`), Redacts: target}
				s.evil.send(s.here, s.evil.build(s.room, p).JSON())
				if e, err := s.here.room(s.room).Event(t.Context(), target); err != nil || e == nil || e.Redacted() || len(e.Content()) < 3 {
					t.Errorf("F19: %s was redacted: %v, %v", target, e, err)
				}
			}
			s.end()
		})
	}
}

// TestHostileRedactionsInACircle is F18; only the ids of versions 1 and 2 can be chosen.
func TestHostileRedactionsInACircle(t *testing.T) {
	s := newScene(t, "1")
	craft := func(id, redacts string) *event.Event {
		base := s.evil.build(s.room, event.Proto{Sender: mallory, Type: "m.room.redaction", Content: json.RawMessage(`{}`), Redacts: redacts})
		var m map[string]json.RawMessage
		if err := json.Unmarshal(base.JSON(), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, "signatures")
		delete(m, "hashes")
		delete(m, "unsigned")
		m["event_id"], _ = json.Marshal(id)
		canonical := func() []byte {
			raw, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			c, err := event.Canonical(raw)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		sum := sha256.Sum256(canonical())
		m["hashes"], _ = json.Marshal(map[string]string{"sha256": base64.RawStdEncoding.EncodeToString(sum[:])})
		m["signatures"] = json.RawMessage(`{}`)
		e, err := event.Load("1", id, canonical(), false)
		if err != nil {
			t.Fatal(err)
		}
		if e, err = e.Sign(s.evil.rooms.Signer()); err != nil {
			t.Fatal(err)
		}
		return e
	}
	circle := []*event.Event{craft("$one:evil.test", "$two:evil.test"), craft("$two:evil.test", "$three:evil.test"), craft("$three:evil.test", "$one:evil.test"), craft("$self:evil.test", "$self:evil.test")}
	for _, e := range circle {
		if out := s.evil.send(s.here, e.JSON()); out[e.ID()].Get("error").Str != "" {
			t.Errorf("%v", out)
		}
	}
	for _, e := range circle {
		if _, err := s.evil.ask(s.here, "GET", "/_matrix/federation/v1/event/"+esc(e.ID()), nil); err != nil {
			t.Errorf("%s: %v", e.ID(), err)
		}
	}
	for _, e := range circle { // ours hands them on, and the witness lives
		s.evil.send(s.third, e.JSON())
	}
	s.end()
}

// TestHostileChains is F15 and F16: what an event needs goes on and on, or leads back to itself.
func TestHostileChains(t *testing.T) {
	s := newScene(t, "11")
	var asked atomic.Int64
	base := s.evil.say(s.room, mallory, "")
	made := map[string]*event.Event{}
	var mu sync.Mutex
	// next makes one more event that nobody has asked for yet, and that needs another one.
	next := func() *event.Event {
		mu.Lock()
		defer mu.Unlock()
		id := fmt.Sprintf("$%043d", len(made))
		p := message(mallory)
		p.Content = json.RawMessage(fmt.Sprintf(`{"n":%d}`, len(made)))
		e := s.evil.buildOn(s.room, p, []string{id}, append(slices.Clone(base.AuthIDs()), id), base.Depth()+1)
		made[e.ID()] = e
		return e
	}
	one := func(key string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) > 3000 {
				panic(http.ErrAbortHandler)
			}
			e := next()
			_ = json.NewEncoder(w).Encode(map[string]any{key: []json.RawMessage{e.JSON()}, "pdu_ids": []string{e.ID()}, "auth_chain_ids": []string{e.ID()}})
		}
	}
	s.evil.answer("POST /_matrix/federation/v1/get_missing_events/{room}", one("events"))
	s.evil.answer("GET /_matrix/federation/v1/event/{event}", one("pdus"))
	s.evil.answer("GET /_matrix/federation/v1/event_auth/{room}/{event}", one("auth_chain"))
	s.evil.answer("GET /_matrix/federation/v1/state_ids/{room}", one("pdus"))
	s.evil.answer("GET /_matrix/federation/v1/state/{room}", one("pdus"))
	e := next()
	s.evil.send(s.here, e.JSON())
	s.nowhere(e.ID())
	if n := asked.Load(); n > 500 {
		t.Errorf("one event led to %d requests", n)
	}
	// A chain of many events that are all well signed, and of which none may be: a message is no authority.
	var chain []json.RawMessage
	auth := base.AuthIDs()
	for i := range 3000 {
		p := message(mallory)
		p.Content = json.RawMessage(fmt.Sprintf(`{"i":%d}`, i))
		x := s.evil.buildOn(s.room, p, base.PrevIDs(), auth, base.Depth())
		chain = append(chain, x.JSON())
		auth = append(slices.Clone(base.AuthIDs()), x.ID())
	}
	s.evil.lie("GET /_matrix/federation/v1/event_auth/{room}/{event}", map[string]any{"auth_chain": chain})
	last := s.evil.buildOn(s.room, message(mallory), base.PrevIDs(), auth, base.Depth())
	s.evil.send(s.here, last.JSON())
	if s.here.has(s.room, last.ID()) {
		t.Error("an event on a chain of messages is in the room")
	}
	s.end()
}

// TestHostileTimes is F25: when an event says it was made moves nothing. From a time for which its server's key was not promised no event
// is taken (room version 5 and later).
func TestHostileTimes(t *testing.T) {
	for _, v := range []event.Version{"4", "11"} {
		t.Run("version "+string(v), func(t *testing.T) { hostileTimes(t, newScene(t, v)) })
	}
}

func hostileTimes(t *testing.T, s *scene) {
	catchUp(t, s.here, s.evil, s.room)
	var last *event.Event
	v := s.here.room(s.room).Version
	for _, ms := range []int64{0, 1, 1<<53 - 1, time.Now().Add(100 * 365 * 24 * time.Hour).UnixMilli()} {
		r := s.evil.room(s.room)
		head := r.Head()
		x := head.Extremities()[0]
		e, err := event.Build(v, event.Proto{RoomID: s.room, Sender: mallory, Type: "m.room.message", Content: json.RawMessage(`{"body":"t"}`)}, []string{x.ID}, x.Depth+1, r.StateView(t.Context(), head), s.evil.rooms.Signer(), time.UnixMilli(ms))
		if err != nil {
			t.Fatal(err)
		}
		out := s.evil.send(s.here, e.JSON())
		if v.StrictKeys() && ms > time.Now().UnixMilli() {
			if out[e.ID()].Get("error").Str == "" || s.here.has(s.room, e.ID()) {
				t.Errorf("%d: %v", ms, out)
			}
			continue
		}
		if out[e.ID()].Get("error").Str != "" || !s.here.has(s.room, e.ID()) {
			t.Fatalf("%d: %v", ms, out)
		}
		s.keep(s.evil, e)
		if ext := s.here.room(s.room).Head().Extremities(); len(ext) != 1 || ext[0].ID != e.ID() {
			t.Errorf("%d: the room stands on %v", ms, ext)
		}
		last = e
	}
	if e := s.text("now"); !slices.Equal(e.PrevIDs(), []string{last.ID()}) || time.Since(time.UnixMilli(e.OriginTS())).Abs() > time.Hour {
		t.Errorf("ours stands on %v at %d", e.PrevIDs(), e.OriginTS())
	}
	catchUp(t, s.here, s.third, s.room)
	s.end()
}
