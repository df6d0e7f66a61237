// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

const (
	alice   = "@alice:here.test"
	mallory = "@mallory:evil.test"
)

// TestHostile is what a server does that is no friend, in a room that it is in. The room goes on, and a witness of a third server is not
// impressed.
func TestHostile(t *testing.T) {
	w := newWorld(t)
	here, evil, third := w.server("here.test"), w.server("evil.test"), w.server("third.test")
	room := here.create("11", alice)
	evil.join(mallory, room, here)
	third.join("@witness:third.test", room, here)
	other := evil.create("11", mallory)

	refusedPDU := func(t *testing.T, e *event.Event) {
		t.Helper()
		out := evil.send(here, e.JSON())
		if here.has(room, e.ID()) {
			t.Errorf("it is in the room; the answer was %v", out)
		}
	}
	edited := func(e *event.Event, f func(m map[string]any)) json.RawMessage {
		var m map[string]any
		d := json.NewDecoder(bytes.NewReader(e.JSON()))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		f(m)
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}

	t.Run("F01 bad and absent signatures", func(t *testing.T) {
		good := evil.say(room, mallory, "hello")
		for what, f := range map[string]func(map[string]any){
			"none": func(m map[string]any) { m["signatures"] = map[string]any{} },
			"other's": func(m map[string]any) {
				m["signatures"] = map[string]any{"here.test": m["signatures"].(map[string]any)["evil.test"]}
			},
			"changed":  func(m map[string]any) { m["origin_server_ts"] = json.Number("1") },
			"no field": func(m map[string]any) { delete(m, "signatures") },
		} {
			raw := edited(good, f)
			e, err := event.Parse("11", raw)
			if err != nil {
				continue // not even an event
			}
			out := evil.send(here, raw)
			if x, told := out[e.ID()]; told && x.Get("error").Str == "" || here.has(room, e.ID()) {
				t.Errorf("%s: %v", what, out)
			}
		}
		if out := evil.send(here, good.JSON()); out[good.ID()].Get("error").Str != "" || !here.has(room, good.ID()) {
			t.Errorf("the good one: %v", out)
		}
		if _, err := evil.rooms.Insert(t.Context(), room, []*event.Event{good}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("F02 missing events are held to the same checks", func(t *testing.T) {
		forged := evil.say(room, mallory, "one that nobody signed")
		bare := edited(forged, func(m map[string]any) { m["signatures"] = map[string]any{} })
		child := evil.build(room, event.Proto{Sender: mallory, Type: "m.room.message", Content: json.RawMessage(`{}`)}, func(prev *[]string, depth *int64) {
			*prev, *depth = []string{forged.ID()}, forged.Depth()+1
		})
		evil.lie("POST /_matrix/federation/v1/get_missing_events/{room}", map[string]any{"events": []json.RawMessage{bare}})
		evil.lie("GET /_matrix/federation/v1/event/{event}", map[string]any{"pdus": []json.RawMessage{bare}})
		evil.lie("GET /_matrix/federation/v1/state_ids/{room}", map[string]any{"pdu_ids": []string{}, "auth_chain_ids": []string{}})
		defer evil.honest()
		out := evil.send(here, child.JSON())
		// The child itself is not refused, it waits for what it builds on: nothing of either is kept. See TestHostileIngress for the other ways in.
		unknown, err := here.rooms.Unknown(t.Context(), []string{forged.ID(), child.ID()})
		if err != nil || len(unknown) != 2 || here.has(room, forged.ID()) || here.has(room, child.ID()) {
			t.Errorf("%v; not there: %q, %v", out, unknown, err)
		}
	})
	t.Run("F03 nothing is signed but an invite of one of our users", func(t *testing.T) {
		bob := "@bob:here.test"
		invite := evil.build(other, event.Proto{Sender: mallory, Type: "m.room.member", StateKey: &bob, Content: json.RawMessage(`{"membership":"invite"}`)})
		put := func(e *event.Event, raw json.RawMessage, path string) (string, error) {
			out, err := evil.ask(here, "PUT", "/_matrix/federation/v2/invite/"+path, map[string]any{"event": raw, "room_version": "11", "invite_room_state": []any{}})
			return out.Get("event.signatures.here\\.test").Raw, err
		}
		where := esc(other) + "/" + esc(invite.ID())
		carol := "@carol:evil.test"
		name := "@nobody:here.test"
		for what, e := range map[string]*event.Event{
			"a message":      evil.say(other, mallory, "sign this"),
			"power levels":   evil.build(other, event.Proto{Sender: mallory, Type: "m.room.power_levels", StateKey: new(string), Content: json.RawMessage(`{"users":{}}`)}),
			"a join":         evil.build(other, event.Proto{Sender: bob, Type: "m.room.member", StateKey: &bob, Content: json.RawMessage(`{"membership":"join"}`)}),
			"a ban":          evil.build(other, event.Proto{Sender: mallory, Type: "m.room.member", StateKey: &bob, Content: json.RawMessage(`{"membership":"ban"}`)}),
			"other's user":   evil.build(other, event.Proto{Sender: mallory, Type: "m.room.member", StateKey: &carol, Content: json.RawMessage(`{"membership":"invite"}`)}),
			"by a third":     evil.build(other, event.Proto{Sender: "@witness:third.test", Type: "m.room.member", StateKey: &bob, Content: json.RawMessage(`{"membership":"invite"}`)}),
			"no such user":   evil.build(other, event.Proto{Sender: mallory, Type: "m.room.member", StateKey: &name, Content: json.RawMessage(`{"membership":"invite"}`)}),
			"by one of ours": evil.build(other, event.Proto{Sender: alice, Type: "m.room.member", StateKey: &bob, Content: json.RawMessage(`{"membership":"invite"}`)}),
		} {
			if sig, err := put(e, e.JSON(), esc(other)+"/"+esc(e.ID())); err == nil || sig != "" {
				t.Errorf("%s was signed: %s", what, sig)
			}
		}
		for what, path := range map[string]string{"another room": esc(room) + "/" + esc(invite.ID()), "another event": esc(other) + "/" + esc("$x")} {
			if sig, err := put(invite, invite.JSON(), path); err == nil || sig != "" {
				t.Errorf("%s: %s", what, sig)
			}
		}
		if sig, err := put(invite, edited(invite, func(m map[string]any) { m["signatures"] = map[string]any{} }), where); err == nil || sig != "" {
			t.Errorf("an invite that its server has not signed: %s", sig)
		}
		if sig, err := put(invite, invite.JSON(), where); err != nil || sig == "" {
			t.Errorf("the good one: %q, %v", sig, err)
		}
	})
	t.Run("F04 a template is not signed as it comes", func(t *testing.T) {
		target := here.create("11", alice) // only to have a foreign id below
		for _, proto := range []map[string]any{
			{"type": "m.room.power_levels", "state_key": "", "content": map[string]any{"users": map[string]int{mallory: 100}}, "sender": "@bob:here.test", "room_id": other},
			{"type": "m.room.member", "state_key": alice, "content": map[string]any{"membership": "join"}, "sender": alice, "room_id": other},
			{"type": "m.room.member", "state_key": "@bob:here.test", "content": map[string]any{"membership": "ban"}, "sender": "@bob:here.test", "room_id": other},
			{"type": "m.room.member", "state_key": "@bob:here.test", "content": map[string]any{"membership": "join"}, "sender": "@bob:here.test", "room_id": target},
		} {
			proto["prev_events"], proto["auth_events"], proto["depth"], proto["origin_server_ts"] = []string{"$a"}, []string{}, 5, 1
			evil.lie("GET /_matrix/federation/v1/make_join/{room}/{user}", map[string]any{"room_version": "11", "event": proto})
			got := false
			evil.answer("PUT /_matrix/federation/v2/send_join/{room}/{event}", func(http.ResponseWriter, *http.Request) { got = true })
			if err := here.fed.Join(t.Context(), entrance("@bob:here.test", other, evil)); err == nil || got {
				t.Errorf("%v was signed and sent (%v), error %v", proto, got, err)
			}
		}
		evil.honest()
	})
	t.Run("F05 impossible depths", func(t *testing.T) {
		for _, depth := range []int64{event.MaxDepthVal + 1, 1<<63 - 1, -1} {
			raw := edited(evil.say(room, mallory, "deep"), func(m map[string]any) { m["depth"] = json.Number(fmt.Sprint(depth)) })
			evil.send(here, raw)
		}
		deep := evil.build(room, event.Proto{Sender: mallory, Type: "m.room.message", Content: json.RawMessage(`{}`)}, func(_ *[]string, depth *int64) { *depth = event.MaxDepthVal })
		evil.send(here, deep.JSON())
		id, err := here.rooms.Append(t.Context(), room, rooms.Draft{Sender: alice, Type: "m.room.message", Content: json.RawMessage(`{"body":"still here"}`)})
		if err != nil {
			t.Fatalf("the room cannot go on: %v", err)
		}
		e, err := here.room(room).Event(t.Context(), id[0])
		if err != nil || e.Depth() > event.MaxDepthVal {
			t.Errorf("depth %d, %v", e.Depth(), err)
		}
		catchUp(t, here, evil, room)
	})
	t.Run("F06-F10 what no event may be", func(t *testing.T) {
		e := evil.say(room, mallory, "x")
		raw := string(e.JSON())
		for what, pdu := range map[string]string{
			"too large":      strings.Replace(raw, `"body":"x"`, `"body":"`+strings.Repeat("x", event.MaxSize)+`"`, 1),
			"long type":      strings.Replace(raw, `"m.room.message"`, `"`+strings.Repeat("ü", 128)+`"`, 1),
			"float":          strings.Replace(raw, `"body":"x"`, `"body":1.5`, 1),
			"exponent":       strings.Replace(raw, `"body":"x"`, `"body":1e3`, 1),
			"large number":   strings.Replace(raw, `"body":"x"`, `"body":9007199254740993`, 1),
			"duplicate key":  strings.Replace(raw, `"body":"x"`, `"body":"x","body":"y"`, 1),
			"surrogate":      strings.Replace(raw, `"body":"x"`, `"body":"\ud800"`, 1),
			"nested":         strings.Replace(raw, `"body":"x"`, `"body":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000), 1),
			"list":           `[]`,
			"two rooms":      strings.Replace(raw, `"room_id":"`+room+`"`, `"room_id":"`+room+`","room_id":"`+other+`"`, 1),
			"no prev_events": strings.Replace(raw, `"prev_events":[`, `"prev_evants":[`, 1),
		} {
			if pdu == raw {
				t.Fatalf("%s is as it was", what)
			}
			out, err := evil.ask(here, "PUT", "/_matrix/federation/v1/send/bad"+esc(what), json.RawMessage(`{"origin":"evil.test","origin_server_ts":1,"pdus":[`+pdu+`]}`))
			if err == nil {
				for id, x := range out.Get("pdus").Map() {
					if x.Get("error").Str == "" {
						t.Errorf("%s: %s was taken", what, id)
					}
				}
			}
		}
		deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
		evil.refused(here, 400, "M_BAD_JSON", "PUT", "/_matrix/federation/v1/send/deep", json.RawMessage(`{"pdus":[`+deep+`]}`))
	})
	t.Run("F16 F17 graphs that are none", func(t *testing.T) {
		many := make([]string, event.MaxPrev+1)
		for i := range many {
			many[i] = here.room(room).Head().Extremities()[0].ID
		}
		e := evil.say(room, mallory, "many")
		raw := edited(e, func(m map[string]any) { m["prev_events"] = many })
		evil.send(here, raw)
		raw = edited(e, func(m map[string]any) {
			m["auth_events"] = slices.Repeat([]string{m["auth_events"].([]any)[0].(string)}, 11)
		})
		evil.send(here, raw)
		raw = edited(e, func(m map[string]any) { m["prev_events"] = []string{} })
		evil.send(here, raw)
		if n := len(here.room(room).Head().Extremities()); n != 1 {
			t.Errorf("%d extremities", n)
		}
	})
	t.Run("F20 nobody speaks for users of other servers", func(t *testing.T) {
		for _, user := range []string{alice, "@witness:third.test"} {
			refusedPDU(t, evil.say(room, user, "I did not say this"))
			refusedPDU(t, evil.build(room, event.Proto{Sender: user, Type: "m.room.member", StateKey: &user, Content: json.RawMessage(`{"membership":"leave"}`)}))
		}
		evil.refused(here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/make_join/"+esc(room)+"/"+esc(alice)+"?ver=11", nil)
		evil.refused(here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/make_leave/"+esc(room)+"/"+esc("@witness:third.test"), nil)
		carol := "@carol:third.test"
		join := evil.build(room, event.Proto{Sender: carol, Type: "m.room.member", StateKey: &carol, Content: json.RawMessage(`{"membership":"join"}`)})
		evil.refused(here, 403, "M_FORBIDDEN", "PUT", "/_matrix/federation/v2/send_join/"+esc(room)+"/"+esc(join.ID()), json.RawMessage(join.JSON()))
	})
	t.Run("F22 too much in one transaction", func(t *testing.T) {
		before := here.room(room).Head().Extremities()[0].ID
		pdus := make([]json.RawMessage, 51)
		for i := range pdus {
			pdus[i] = evil.say(room, mallory, fmt.Sprint(i)).JSON()
		}
		evil.refused(here, 400, "M_INVALID_PARAM", "PUT", "/_matrix/federation/v1/send/51", map[string]any{"pdus": pdus})
		evil.refused(here, 400, "M_INVALID_PARAM", "PUT", "/_matrix/federation/v1/send/101", map[string]any{"pdus": []any{}, "edus": make([]struct{}, 101)})
		evil.refused(here, 413, "M_TOO_LARGE", "PUT", "/_matrix/federation/v1/send/huge", map[string]any{"x": strings.Repeat("x", 11<<20)})
		if here.room(room).Head().Extremities()[0].ID != before {
			t.Error("something of it was taken")
		}
	})
	t.Run("F23 a transaction that comes again", func(t *testing.T) {
		one, two := evil.say(room, mallory, "one"), evil.say(room, mallory, "two")
		path := "/_matrix/federation/v1/send/again"
		first, err := evil.ask(here, "PUT", path, map[string]any{"pdus": []json.RawMessage{one.JSON()}})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []any{map[string]any{"pdus": []json.RawMessage{one.JSON()}}, map[string]any{"pdus": []json.RawMessage{two.JSON()}}} {
			again, err := evil.ask(here, "PUT", path, body)
			if err != nil || again.Raw != first.Raw {
				t.Errorf("first %s, then %s, %v", first.Raw, again.Raw, err)
			}
		}
		if here.has(room, two.ID()) {
			t.Error("another body under the same id was taken")
		}
		if _, err := evil.rooms.Insert(t.Context(), room, []*event.Event{one}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("F24 content that does not fit its hash", func(t *testing.T) {
		e := evil.say(room, mallory, "as signed")
		raw := edited(e, func(m map[string]any) { m["content"] = map[string]string{"body": "changed on the way"} })
		out := evil.send(here, raw)
		got, err := here.room(room).Event(t.Context(), e.ID())
		if err != nil || got == nil || strings.Contains(string(got.JSON()), "changed") {
			t.Errorf("%v: %v, %v", out, got, err)
		}
		if _, err := evil.rooms.Insert(t.Context(), room, []*event.Event{got.Event}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("F31 F32 F49 other rooms, and rooms that one is not in", func(t *testing.T) {
		secret := here.create("11", alice)
		known := here.room(secret).Head().Extremities()[0].ID
		for _, id := range []string{known, "$missing"} {
			for _, path := range []string{"state/" + esc(secret) + "?event_id=" + esc(id), "state_ids/" + esc(secret) + "?event_id=" + esc(id), "event_auth/" + esc(secret) + "/" + esc(id), "backfill/" + esc(secret) + "?limit=10&v=" + esc(id), "timestamp_to_event/" + esc(secret) + "?ts=0&dir=f"} {
				evil.refused(here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/"+path, nil)
			}
			// an event of the secret room, asked for in a room that evil is in: as if it were not there
			for _, path := range []string{"state/" + esc(room) + "?event_id=" + esc(id), "state_ids/" + esc(room) + "?event_id=" + esc(id), "event_auth/" + esc(room) + "/" + esc(id)} {
				evil.refused(here, 404, "M_NOT_FOUND", "GET", "/_matrix/federation/v1/"+path, nil)
			}
			out, err := evil.ask(here, "GET", "/_matrix/federation/v1/backfill/"+esc(room)+"?limit=10&v="+esc(id), nil)
			if err != nil || len(out.Get("pdus").Array()) != 0 {
				t.Errorf("backfill from another room: %s, %v", out.Raw, err)
			}
		}
		evil.refused(here, 403, "M_FORBIDDEN", "POST", "/_matrix/federation/v1/get_missing_events/"+esc(secret), map[string]any{"latest_events": []string{known}})
		evil.refused(here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/event/"+esc(known), nil)
		evil.refused(here, 404, "M_NOT_FOUND", "GET", "/_matrix/federation/v1/event/"+esc("$missing"), nil)
		evil.refused(here, 404, "M_NOT_FOUND", "GET", "/_matrix/federation/v1/make_join/"+esc("!nowhere:here.test")+"/"+esc(mallory)+"?ver=11", nil)
	})
	t.Run("F27 a server that is shut out", func(t *testing.T) {
		shut := here.create("11", alice)
		evil.join(mallory, shut, here)
		if _, err := here.rooms.Append(t.Context(), shut, rooms.Draft{Sender: alice, Type: "m.room.server_acl", StateKey: new(string), Content: json.RawMessage(`{"allow":["*"],"deny":["EVIL.test"]}`)}); err != nil {
			t.Fatal(err)
		}
		e := evil.say(shut, mallory, "let me in")
		if out := evil.send(here, e.JSON()); out[e.ID()].Get("error").Str == "" || here.has(shut, e.ID()) {
			t.Errorf("%v", out)
		}
		evil.refused(here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/make_join/"+esc(shut)+"/"+esc(mallory)+"?ver=11", nil)
		evil.refused(here, 403, "M_FORBIDDEN", "GET", "/_matrix/federation/v1/backfill/"+esc(shut)+"?limit=1&v="+esc(e.ID()), nil)
	})
	t.Run("F46 a join that is answered with rubbish", func(t *testing.T) {
		for what, answer := range map[string]string{
			"nothing": `{}`, "no create event": `{"state":[],"auth_chain":[]}`, "no JSON": `{"state":[`, "strange lists": `{"state":{"a":1},"auth_chain":5}`, "null": `null`,
			"another event": `{"state":[],"auth_chain":[],"event":` + string(evil.say(other, mallory, "x").JSON()) + `}`,
			"unsigned":      `{"state":[` + string(edited(evil.say(other, mallory, "x"), func(m map[string]any) { delete(m, "signatures") })) + `],"auth_chain":[]}`,
		} {
			evil.answer("PUT /_matrix/federation/v2/send_join/{room}/{event}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
			if err := here.fed.Join(t.Context(), entrance("@bob:here.test", other, evil)); err == nil {
				t.Errorf("%s: joined", what)
			}
			if r, err := here.rooms.Room(t.Context(), other); err == nil && r.Head().IsJoined("@bob:here.test") {
				t.Errorf("%s: bob is in", what)
			}
		}
		evil.honest()
	})
	t.Run("the witness", func(t *testing.T) {
		e, err := here.rooms.Append(t.Context(), room, rooms.Draft{Sender: alice, Type: "m.room.message", Content: json.RawMessage(`{"body":"the end"}`)})
		if err != nil {
			t.Fatal(err)
		}
		last, err := here.room(room).Event(t.Context(), e[0])
		if err != nil {
			t.Fatal(err)
		}
		if out := here.send(third, last.JSON()); out[e[0]].Get("error").Str != "" || !third.has(room, e[0]) {
			t.Fatalf("the witness does not follow: %v", out)
		}
		for _, u := range []string{alice, mallory, "@witness:third.test"} {
			if !here.room(room).Head().IsJoined(u) || !third.room(room).Head().IsJoined(u) {
				t.Errorf("%s is not in the room any more", u)
			}
		}
		if a, b := here.room(room).Head().Size(), third.room(room).Head().Size(); a != b {
			t.Errorf("%d pieces of state here, %d there", a, b)
		}
	})
}
