// SPDX-License-Identifier: Apache-2.0

package callflow_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// witness checks the facts of one tracker against what holds for every story.
type witness struct {
	ringing map[string]bool // by call id: has begun
	ended   map[string]bool
}

func (w *witness) see(t interface{ Fatalf(string, ...any) }, facts []callflow.Fact) {
	for _, f := range facts {
		if w.ended[f.CallID] && f.Kind != callflow.Glare {
			t.Fatalf("%s of %q after its end", f.Kind, f.CallID)
		}
		switch f.Kind {
		case callflow.Ringing:
			if w.ringing[f.CallID] {
				t.Fatalf("%q rings twice", f.CallID)
			}
			w.ringing[f.CallID] = true
		case callflow.Missed: // an invite that came too late never rings
		case callflow.Ended:
			r := f.Record
			if r == nil || r.CallID != f.CallID || r.Reason == "" || r.Caller.UserID == "" {
				t.Fatalf("incomplete record %+v", r)
			}
			if r.Ended < r.Started || r.DurationMS < 0 || (r.Answered != 0 && (r.Answered < r.Started || r.Ended < r.Answered)) {
				t.Fatalf("times run backwards: %+v", r)
			}
			if (r.Outcome == callflow.OutcomeAnswered) != (r.Answered != 0) && r.Outcome != callflow.OutcomeFailed {
				t.Fatalf("outcome and times disagree: %+v", r)
			}
			w.ended[f.CallID] = true
		default:
			if f.Kind != callflow.Glare && !w.ringing[f.CallID] {
				t.Fatalf("%s of %q, which never rang", f.Kind, f.CallID)
			}
		}
		if f.Kind != callflow.Ended && f.Record != nil {
			t.Fatalf("%s carries a record", f.Kind)
		}
	}
}

var eventTypes = []string{
	"m.call.invite", "m.call.candidates", "m.call.answer", "m.call.select_answer", "m.call.reject", "m.call.hangup",
	"m.call.negotiate", "m.call.replaces", "m.call.asserted_identity", "m.call.sdp_stream_metadata_changed",
}

// TestAnyOrderOfEventsEndsEachCallOnce plays arbitrary events of few users, parties and calls, with clocks that jump, leaves and
// logouts among them: nothing panics, no call rings twice, nothing follows an end, each call that began has one record once all
// deadlines have passed, and nothing stays in memory.
func TestAnyOrderOfEventsEndsEachCallOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tracker := callflow.NewTracker(callflow.Config{})
		w := witness{ringing: map[string]bool{}, ended: map[string]bool{}}
		users := rapid.SampledFrom([]string{"@a", "@b", "@c"})
		parties := rapid.SampledFrom([]string{"", "P1", "P2"})
		reasons := rapid.SampledFrom([]string{"", "user_hangup", "user_busy", "ice_failed", "ice_timeout", "replaced", "invite_timeout", "odd"})
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(20*time.Second)).Draw(t, "gap")))
			switch rapid.IntRange(0, 12).Draw(t, "what") {
			case 0:
				w.see(t, tracker.Expire(now))
			case 1:
				w.see(t, tracker.Leave("!r", users.Draw(t, "leaver"), now))
			case 2:
				w.see(t, tracker.Logout(users.Draw(t, "user"), parties.Draw(t, "device"), now))
			default:
				content := map[string]any{
					"call_id": rapid.SampledFrom([]string{"c1", "c2"}).Draw(t, "call"), "lifetime": rapid.IntRange(-1, 90_000).Draw(t, "life"),
					"selected_party_id": parties.Draw(t, "selected"),
				}
				if p := parties.Draw(t, "party"); p == "" {
					content["version"] = 0
				} else {
					content["version"], content["party_id"] = "1", p
				}
				if r := reasons.Draw(t, "reason"); r != "" {
					content["reason"] = r
				}
				if u := rapid.SampledFrom([]string{"", "@a", "@b"}).Draw(t, "invitee"); u != "" {
					content["invitee"] = u
				}
				raw, err := json.Marshal(content)
				if err != nil {
					t.Fatal(err)
				}
				w.see(t, tracker.Observe(callflow.Event{
					RoomID: "!r", Sender: users.Draw(t, "sender"), DeviceID: rapid.SampledFrom([]string{"", "", "D"}).Draw(t, "device"),
					Type: rapid.SampledFrom(eventTypes).Draw(t, "type"), Content: raw, Received: now,
					Sent: now.Add(-time.Duration(rapid.Int64Range(-int64(time.Minute), int64(2*time.Minute)).Draw(t, "age"))),
				}))
			}
			s := tracker.Stats()
			if live := len(w.ringing) - len(w.ended); s.Ringing < 0 || s.Answered < 0 || s.Ringing+s.Answered < live {
				t.Fatalf("%+v with %d calls begun and %d ended", s, len(w.ringing), len(w.ended))
			}
		}
		w.see(t, tracker.Expire(now.Add(48*time.Hour)))
		for id := range w.ringing {
			if !w.ended[id] {
				t.Fatalf("%s never ended", id)
			}
		}
		if s := tracker.Stats(); s.Ringing+s.Answered != 0 {
			t.Fatalf("%+v after all deadlines", s)
		}
		if _, ok := tracker.NextDeadline(); ok {
			t.Fatal("a deadline remains")
		}
	})
}

// FuzzObserve feeds arbitrary JSON as each event type into a call in each state.
func FuzzObserve(f *testing.F) {
	f.Add(uint8(0), `{"call_id":"c","version":"1","party_id":"A1","lifetime":60000,"offer":{"type":"offer","sdp":"v=0\nm=video 9 x\n"}}`)
	f.Add(uint8(3), `{"call_id":"c","version":"1","party_id":"A1","selected_party_id":"B1"}`)
	f.Add(uint8(5), `{"call_id":"c","version":0,"reason":"user_busy"}`)
	f.Add(uint8(7), `{"call_id":"c","version":"1","party_id":"B1","target_user":{"id":5},"create_call":{}}`)
	f.Add(uint8(9), `{"call_id":"c","sdp_stream_metadata":{"a":null,"b":{"video_muted":false}}}`)
	f.Add(uint8(1), `[[[[`)
	f.Fuzz(func(t *testing.T, kind uint8, content string) {
		eventType := eventTypes[int(kind)%len(eventTypes)]
		_ = callflow.Validate(eventType, json.RawMessage(content))
		if callflow.InviteLive(json.RawMessage(content), 10*time.Minute) {
			t.Fatal("an invite rings for more than ten minutes")
		}
		tracker := callflow.NewTracker(callflow.Config{})
		w := witness{ringing: map[string]bool{}, ended: map[string]bool{}}
		now := start
		say := func(who, eventType, content string) {
			now = now.Add(time.Second)
			w.see(t, tracker.Observe(callflow.Event{
				RoomID: "!r", Sender: who, Type: eventType, Content: json.RawMessage(content), Sent: now, Received: now,
			}))
		}
		arbitrary := func() {
			for _, who := range []string{"@a", "@b", "@c"} {
				say(who, eventType, content)
			}
		}
		step := func(who, party, eventType, more string) {
			say(who, "m.call."+eventType, fmt.Sprintf(`{"call_id":"c","version":"1","party_id":%q%s}`, party, more))
			arbitrary()
		}
		step("@a", "A1", "invite", `,"lifetime":60000`)
		step("@b", "B1", "answer", "")
		step("@b", "B2", "answer", "")
		step("@a", "A1", "select_answer", `,"selected_party_id":"B1"`)
		step("@a", "A1", "hangup", "")
		w.see(t, tracker.Expire(now.Add(100*time.Hour)))
		if s := tracker.Stats(); s.Ringing+s.Answered != 0 {
			t.Fatalf("%+v after all deadlines", s)
		}
	})
}

func BenchmarkACallFromInviteToHangup(b *testing.B) {
	tracker := callflow.NewTracker(callflow.Config{})
	sdp, err := json.Marshal(strings.Repeat(videoSDP, 10))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for _, s := range [...]struct{ who, party, what, more string }{
			{"@a", "A1", "invite", `"lifetime":60000,"offer":{"type":"offer","sdp":` + string(sdp) + `}`},
			{"@a", "A1", "candidates", `"candidates":[]`},
			{"@b", "B1", "answer", `"answer":{"type":"answer","sdp":` + string(sdp) + `}`},
			{"@a", "A1", "select_answer", `"selected_party_id":"B1"`},
			{"@b", "B1", "hangup", `"reason":"user_hangup"`},
		} {
			tracker.Observe(callflow.Event{
				RoomID: "!r", Sender: s.who, Type: "m.call." + s.what, Received: start, Sent: start,
				Content: fmt.Appendf(nil, `{"call_id":"c%d","version":"1","party_id":"%s",%s}`, i, s.party, s.more),
			})
		}
	}
}
