// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

const judge = "@judge:policy.test"

// policyScene is a scene whose room has a policy server; asked counts the requests to it.
type policyScene struct {
	*scene
	ps    *server
	asked atomic.Int64
}

const sign = "POST /_matrix/policy/v1/sign"

func newPolicyScene(t *testing.T, v event.Version) *policyScene {
	t.Helper()
	p := &policyScene{scene: newScene(t, v)}
	p.ps = p.w.server("policy.test")
	p.ps.join(judge, p.room, p.here)
	p.setPolicy(p.ps)
	catchUp(t, p.here, p.evil, p.room)
	catchUp(t, p.here, p.third, p.room)
	catchUp(t, p.here, p.ps, p.room)
	p.honest()
	return p
}

// setPolicy has the room name a server.
func (p *policyScene) setPolicy(s *server) {
	p.t.Helper()
	key, err := s.rooms.PolicyKey(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	raw, _ := json.Marshal(map[string]any{"via": s.name, "public_keys": map[string]string{"ed25519": base64.RawURLEncoding.EncodeToString(key)}})
	p.append(rooms.Draft{Sender: alice, Type: "m.room.policy", StateKey: new(string), Content: raw})
}

// honest has the policy server answer as it does, and counts.
func (p *policyScene) honest() {
	p.ps.answer(sign, func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		p.ps.api.ServeHTTP(w, r)
	})
}

func (p *policyScene) says(status int, body string) {
	p.ps.answer(sign, func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

func (p *policyScene) signedBy(e *event.Event, s *server) bool {
	p.t.Helper()
	key, err := s.rooms.PolicyKey(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return e.VerifySignature(s.name, "ed25519:policy_server", key) == nil
}

func (p *policyScene) get(s *server, id string) *event.Event {
	p.t.Helper()
	e, err := s.room(p.room).Event(p.t.Context(), id)
	if err != nil || e == nil {
		p.t.Fatalf("%s: %v, %v", id, e, err)
	}
	return e.Event
}

func TestEveryEventOfARoomWithAPolicyServerIsShownToItFirst(t *testing.T) {
	for _, v := range []event.Version{"6", "11", "12"} {
		t.Run(string(v), func(t *testing.T) {
			p := newPolicyScene(t, v)
			e := p.text("hello")
			if !p.signedBy(e, p.ps) || p.asked.Load() != 1 {
				t.Errorf("asked %d times: %s", p.asked.Load(), e.JSON())
			}
			// The next server needs not ask.
			if out := p.here.send(p.third, e.JSON()); out[e.ID()].Get("error").Str != "" || !p.third.has(p.room, e.ID()) || !p.signedBy(p.get(p.third, e.ID()), p.ps) || p.asked.Load() != 1 {
				t.Errorf("asked %d times: %v", p.asked.Load(), out)
			}
			// Of the policy server's own users: signed by it twice, with two keys.
			catchUp(t, p.here, p.ps, p.room)
			ids, err := p.ps.rooms.Append(t.Context(), p.room, rooms.Draft{Sender: judge, Type: "m.room.message", Content: json.RawMessage(`{"body":"order!"}`)})
			if err != nil {
				t.Fatal(err)
			}
			theirs := p.get(p.ps, ids[0])
			if n := len(theirs.Signatures()["policy.test"]); n != 2 {
				t.Errorf("%d signatures", n)
			}
			for _, to := range []*server{p.here, p.third} {
				if out := p.ps.send(to, theirs.JSON()); out[ids[0]].Get("error").Str != "" || !to.has(p.room, ids[0]) || p.asked.Load() != 1 {
					t.Errorf("%s: asked %d times, %v", to.name, p.asked.Load(), out)
				}
			}
			// State, a redaction, a transaction id, an event that is there already.
			d := rooms.Draft{Sender: alice, Type: "m.room.topic", StateKey: new(string), Content: json.RawMessage(`{"topic":"x"}`)}
			topic := p.append(d)
			if again := p.append(d); again.ID() != topic.ID() || !p.signedBy(topic, p.ps) || p.here.stateID(p.room, "m.room.topic", "") != topic.ID() {
				t.Errorf("%s, then %s", topic.ID(), again.ID())
			}
			once := rooms.Draft{Sender: alice, Device: "D", TxnID: "1", Type: "m.room.message", Content: json.RawMessage(`{"body":"once"}`)}
			if one, two := p.append(once), p.append(once); one.ID() != two.ID() {
				t.Errorf("sent twice: %s, %s", one.ID(), two.ID())
			}
			p.append(rooms.Draft{Sender: alice, Type: "m.room.redaction", Redacts: e.ID(), Content: json.RawMessage(`{}`)})
			if x := p.get(p.here, e.ID()); !x.Redacted() {
				t.Error("a redaction does nothing")
			}
			// An invite of another server's user, and a join from there.
			if err := p.here.fed.Invite(t.Context(), p.room, alice, "@dora:third.test", "", nil); err != nil {
				t.Errorf("an invite: %v", err)
			}
			p.third.join("@dora:third.test", p.room, p.here)
			for _, s := range []*server{p.here, p.third} {
				if id := s.stateID(p.room, "m.room.member", "@dora:third.test"); id == "" || !s.room(p.room).Head().IsJoined("@dora:third.test") || !p.signedBy(p.get(s, id), p.ps) {
					t.Errorf("dora's join on %s: %s", s.name, id)
				}
			}
		})
	}
}

func TestWhatThePolicyServerRefusesIsNotSent(t *testing.T) {
	p := newPolicyScene(t, "11")
	before := p.here.room(p.room).Head().Extremities()[0].ID
	other, _, _ := ed25519.GenerateKey(nil)
	forged := base64.RawStdEncoding.EncodeToString(append(other, other...))
	for what, x := range map[string]struct {
		status int
		body   string
		code   string
	}{
		"spam":              {400, `{"errcode":"M_FORBIDDEN","error":"this is spam"}`, "M_FORBIDDEN"},
		"too fast":          {429, `{"errcode":"M_LIMIT_EXCEEDED","error":"slowly","retry_after_ms":1000}`, "M_LIMIT_EXCEEDED"},
		"no policy server":  {404, `{"errcode":"M_UNRECOGNIZED","error":"what?"}`, "M_FORBIDDEN"},
		"ends the session":  {401, `{"errcode":"M_UNKNOWN_TOKEN","error":"log out","soft_logout":false}`, "M_FORBIDDEN"},
		"nothing":           {200, `{}`, "M_FORBIDDEN"},
		"no signature":      {200, `{"policy.test":{"ed25519:policy_server":"%%"}}`, "M_FORBIDDEN"},
		"another signature": {200, `{"policy.test":{"ed25519:policy_server":"` + forged + `"}}`, "M_FORBIDDEN"},
		"another server's":  {200, `{"evil.test":{"ed25519:policy_server":"` + forged + `"}}`, "M_FORBIDDEN"},
		"rubbish":           {200, `[`, "M_UNKNOWN"},
		"down":              {502, `gone`, "M_UNKNOWN"},
	} {
		p.says(x.status, x.body)
		_, err := p.here.rooms.Append(t.Context(), p.room, rooms.Draft{Sender: alice, Type: "m.room.message", Content: json.RawMessage(`{}`)})
		if e := signalling.AsError(err); err == nil || e.Code != x.code || what == "spam" && !strings.Contains(e.Message, "this is spam") {
			t.Errorf("%s: %v", what, err)
		}
		if err := p.here.fed.Invite(t.Context(), p.room, alice, "@dora:third.test", "", nil); err == nil {
			t.Errorf("%s: an invite was sent", what)
		}
	}
	if now := p.here.room(p.room).Head().Extremities()[0].ID; now != before {
		t.Errorf("the room stands on %s", now)
	}
	// It can be sent away without its leave, and then nobody asks it.
	n := p.asked.Load()
	p.append(rooms.Draft{Sender: alice, Type: "m.room.policy", StateKey: new(string), Content: json.RawMessage(`{}`)})
	if e := p.text("free"); len(e.Signatures()) != 1 || p.asked.Load() != n {
		t.Errorf("asked %d times more: %v", p.asked.Load()-n, e.Signatures())
	}
}

func TestAPolicyServerThatIsNotInTheRoomIsNone(t *testing.T) {
	p := newPolicyScene(t, "11")
	if _, err := p.here.rooms.Append(t.Context(), p.room, rooms.Draft{Sender: alice, Type: "m.room.member", StateKey: ptr(judge), Content: json.RawMessage(`{"membership":"leave"}`)}); err != nil {
		t.Fatal(err)
	}
	n := p.asked.Load()
	if e := p.text("free"); len(e.Signatures()) != 1 || p.asked.Load() != n {
		t.Errorf("asked %d times more: %v", p.asked.Load()-n, e.Signatures())
	}
}

func ptr(s string) *string { return &s }

func TestEventsFromOutsideThatThePolicyServerRefusesAreNotShown(t *testing.T) {
	p := newPolicyScene(t, "11")
	p.says(400, `{"errcode":"M_FORBIDDEN","error":"this is spam"}`)
	spam := p.evil.say(p.room, mallory, "buy!")
	p.evil.send(p.here, spam.JSON())
	if p.here.has(p.room, spam.ID()) || p.asked.Load() != 1 {
		t.Errorf("spam is shown; asked %d times", p.asked.Load())
	}
	p.evil.send(p.here, spam.JSON()) // again: what is known is not asked about
	if p.asked.Load() != 1 {
		t.Errorf("asked %d times", p.asked.Load())
	}
	p.honest()
	good := p.evil.say(p.room, mallory, "hello")
	p.evil.send(p.here, good.JSON())
	if !p.here.has(p.room, good.ID()) || !p.signedBy(p.get(p.here, good.ID()), p.ps) {
		t.Error("a good event is not shown, or without the signature that it was given")
	}
	// A signature that was right for another event.
	copied, err := p.evil.say(p.room, mallory, "copied").WithSignature("policy.test", "ed25519:policy_server", make([]byte, ed25519.SignatureSize))
	if err != nil {
		t.Fatal(err)
	}
	p.says(400, `{"errcode":"M_FORBIDDEN","error":"this is spam"}`)
	p.evil.send(p.here, copied.JSON())
	if p.here.has(p.room, copied.ID()) {
		t.Error("an event with a false signature is shown")
	}
	// When it does not answer, it is left alone for a while.
	p.says(502, `gone`)
	n := p.asked.Load()
	for _, text := range []string{"a", "b", "c"} {
		e := p.evil.say(p.room, mallory, text)
		p.evil.send(p.here, e.JSON())
		if p.here.has(p.room, e.ID()) {
			t.Errorf("%s is shown", text)
		}
	}
	if p.asked.Load() != n+1 {
		t.Errorf("asked %d times", p.asked.Load()-n)
	}
	p.honest()
	p.end()
}

// TestThisServerIsAPolicyServer is the other side: whose events it signs, and for which rooms.
func TestThisServerIsAPolicyServer(t *testing.T) {
	p := newPolicyScene(t, "11")
	p.setPolicy(p.here)
	catchUp(t, p.here, p.third, p.room)
	catchUp(t, p.here, p.evil, p.room)
	if e := p.text("ours"); !p.signedBy(e, p.here) {
		t.Error("our own events are not signed")
	}
	catchUp(t, p.here, p.third, p.room)
	catchUp(t, p.here, p.evil, p.room)
	ids, err := p.third.rooms.Append(t.Context(), p.room, rooms.Draft{Sender: witness, Type: "m.room.message", Content: json.RawMessage(`{"body":"theirs"}`)})
	if err != nil || !p.signedBy(p.get(p.third, ids[0]), p.here) {
		t.Fatalf("an event of another server's: %v", err)
	}
	if out := p.third.send(p.here, p.get(p.third, ids[0]).JSON()); out[ids[0]].Get("error").Str != "" || !p.here.has(p.room, ids[0]) {
		t.Errorf("%v", out)
	}
	const path = "/_matrix/policy/v1/sign"
	ask := func(e *event.Event) json.RawMessage { return e.JSON() }
	good := p.third.say(p.room, witness, "good")
	out, err := p.third.ask(p.here, "POST", path, ask(good))
	if err != nil || !out.Get(`here\.test.ed25519:policy_server`).Exists() || len(out.Map()) != 1 {
		t.Errorf("%s, %v", out.Raw, err)
	}
	// By another than its sender's server: who has received it may ask too.
	if _, err := p.evil.ask(p.here, "POST", path, ask(good)); err != nil {
		t.Errorf("asked by another: %v", err)
	}
	refuse := func(what string, status int, code string, body json.RawMessage) {
		t.Helper()
		_, err := p.evil.ask(p.here, "POST", path, body)
		if e := signalling.AsError(err); err == nil || e.Status != status || e.Code != code {
			t.Errorf("%s: %v", what, err)
		}
	}
	refuse("as somebody else", 400, "M_FORBIDDEN", ask(p.evil.say(p.room, witness, "x")))
	refuse("without power", 400, "M_FORBIDDEN", ask(p.evil.build(p.room, stateOf(mallory, "m.room.power_levels", "", `{"users":{}}`))))
	refuse("unsigned", 400, "M_FORBIDDEN", unsigned(t, p.evil.say(p.room, mallory, "x")))
	refuse("the event that names it", 400, "M_FORBIDDEN", ask(p.third.build(p.room, stateOf(witness, "m.room.policy", "", `{}`))))
	refuse("changed on the way", 400, "M_BAD_JSON", json.RawMessage(strings.Replace(string(p.evil.say(p.room, mallory, "before").JSON()), "before", "behind", 1)))
	refuse("no event", 400, "M_BAD_JSON", json.RawMessage(`{"room_id":"`+p.room+`"}`))
	refuse("another room", 404, "M_NOT_FOUND", json.RawMessage(`{"room_id":"!x:here.test"}`))
	refuse("no room", 404, "M_NOT_FOUND", json.RawMessage(`{}`))
	free := p.here.create("11", alice)
	refuse("a room without one", 404, "M_NOT_FOUND", json.RawMessage(`{"room_id":"`+free+`"}`))
	p.append(rooms.Draft{Sender: alice, Type: "m.room.member", StateKey: ptr(mallory), Content: json.RawMessage(`{"membership":"ban"}`)})
	refuse("who was thrown out", 400, "M_FORBIDDEN", ask(p.evil.say(p.room, mallory, "from before")))
	p.append(rooms.Draft{Sender: alice, Type: "m.room.server_acl", StateKey: new(string), Content: json.RawMessage(`{"allow":["*"],"deny":["evil.test"]}`)})
	refuse("a server that is shut out", 403, "M_FORBIDDEN", ask(good))
	p.setPolicy(p.ps)
	refuse("a room that has another one", 404, "M_NOT_FOUND", ask(good))
}
