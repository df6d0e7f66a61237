// SPDX-License-Identifier: Apache-2.0

package callflow_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

var start = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)

const (
	audioSDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=sendrecv\r\n"
	videoSDP = audioSDP + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendrecv\r\n"
)

// line is one thing that happens: at is the time since the start of the story; who is "user" or "user/party" or
// "user/party/device" (version 0 without a party); what is an event type without "m.call.", or leave, logout or expire.
type line struct {
	at   string
	who  string
	what string
	with map[string]any
}

type call = map[string]any

// tell plays a story in room !r and returns the facts, one line each.
func tell(t *testing.T, tracker *callflow.Tracker, lines ...line) (facts []string, records []callflow.Record) {
	t.Helper()
	for _, l := range lines {
		d, err := time.ParseDuration(l.at)
		if err != nil {
			t.Fatal(err)
		}
		now := start.Add(d)
		who := strings.SplitN(l.who, "/", 3)
		var got []callflow.Fact
		switch l.what {
		case "expire":
			got = tracker.Expire(now)
		case "leave":
			got = tracker.Leave("!r", who[0], now)
		case "logout":
			got = tracker.Logout(who[0], who[1], now)
		default:
			got = tracker.Observe(event(t, now, who, l))
		}
		for _, f := range got {
			facts = append(facts, describe(f))
			if f.Record != nil {
				records = append(records, *f.Record)
			}
		}
	}
	return facts, records
}

func event(t *testing.T, now time.Time, who []string, l line) callflow.Event {
	t.Helper()
	content := call{"call_id": "c", "version": "1"}
	e := callflow.Event{RoomID: "!r", EventID: "$" + l.at, Sender: who[0], Type: "m.call." + l.what, Sent: now, Received: now}
	if len(who) == 1 || who[1] == "" {
		content["version"] = 0
	} else {
		content["party_id"] = who[1]
	}
	if len(who) == 3 {
		e.DeviceID = who[2]
	}
	switch l.what {
	case "invite":
		content["lifetime"] = 60_000
		content["offer"] = call{"type": "offer", "sdp": audioSDP}
	case "answer":
		content["answer"] = call{"type": "answer", "sdp": audioSDP}
	}
	for k, v := range l.with {
		switch k {
		case "type":
			e.Type = v.(string)
		case "sent":
			e.Sent = now.Add(-v.(time.Duration))
		default:
			content[k] = v
		}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	e.Content = raw
	return e
}

func describe(f callflow.Fact) string {
	var b strings.Builder
	b.WriteString(string(f.Kind))
	if f.CallID != "c" {
		b.WriteString("[" + f.CallID + "]")
	}
	party := func(p signalling.Party) string {
		if p.PartyID == "" {
			return p.UserID
		}
		return p.UserID + "/" + p.PartyID
	}
	if f.By.UserID != "" {
		b.WriteString(" " + party(f.By))
	}
	if f.Other.UserID != "" {
		b.WriteString(" > " + party(f.Other))
	}
	if f.Media == callflow.Video {
		b.WriteString(" video")
	}
	if f.Target != "" {
		b.WriteString(" =" + f.Target)
	}
	if f.Record != nil {
		fmt.Fprintf(&b, ": %s, %s", f.Record.Outcome, f.Record.Reason)
		if f.Record.EndedBy == "" {
			// Time ran out: when, by the deadline and not by when somebody looked.
			fmt.Fprintf(&b, " after %v", time.UnixMilli(f.Record.Ended).Sub(start))
		}
	}
	return b.String()
}

func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []line
		facts []string
	}{
		{
			"a call that is answered, selected and hung up",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"1s", "@a/A1", "candidates", call{"candidates": []any{}}},
				{"5s", "@b/B1", "answer", nil},
				{"5.1s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"65s", "@b/B1", "hangup", call{"reason": "user_hangup"}},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "selected @b/B1", "active @b/B1", "ended @b: answered, user_hangup"},
		},
		{
			"a hangup without a reason is a user's hangup",
			[]line{{"0s", "@a/A1", "invite", nil}, {"5s", "@b/B1", "answer", nil}, {"6s", "@a/A1", "hangup", nil}},
			[]string{"ringing @a/A1", "answered @b/B1", "ended @a: answered, user_hangup"},
		},
		{
			"a version 0 call is active with its first answer, and its parties are the users",
			[]line{
				{"0s", "@a", "invite", nil},
				{"5s", "@b", "answer", nil},
				{"9s", "@c", "hangup", nil},
				{"65s", "@b", "hangup", nil},
			},
			[]string{"ringing @a", "answered @b", "active @b", "ended @b: answered, user_hangup"},
		},
		{
			"a version 0 answer to a version 1 call needs no select_answer",
			[]line{{"0s", "@a/A1", "invite", nil}, {"5s", "@b", "answer", nil}, {"6s", "@a/A1", "hangup", nil}},
			[]string{"ringing @a/A1", "answered @b", "active @b", "ended @a: answered, user_hangup"},
		},
		{
			"in version 0 a callee declines with a hangup",
			[]line{{"0s", "@a", "invite", nil}, {"5s", "@b", "hangup", nil}, {"6s", "@a", "hangup", nil}},
			[]string{"ringing @a", "declined @b", "ended @a: declined, rejected"},
		},
		{
			"in version 0 one may still answer after another has declined",
			[]line{{"0s", "@a", "invite", nil}, {"5s", "@b", "hangup", nil}, {"6s", "@c", "answer", nil}, {"7s", "@a", "hangup", nil}},
			[]string{"ringing @a", "declined @b", "answered @c", "active @c", "ended @a: answered, user_hangup"},
		},
		{
			"versions that nobody knows are read as version 1",
			[]line{
				{"0s", "@a/A1", "invite", call{"version": "org.example.9"}},
				{"5s", "@b/B1", "answer", call{"version": 1}},
				{"6s", "@a/A1", "select_answer", call{"version": "2", "selected_party_id": "B1"}},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "selected @b/B1", "active @b/B1"},
		},
		{
			"the callee's other devices are told that the call was answered elsewhere",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"5s", "@b/B2", "answer", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B2"}},
				{"7s", "@b/B3", "answer", nil},
				{"8s", "@b/B1", "hangup", nil},
				{"9s", "@b/B2", "hangup", nil},
			},
			[]string{
				"ringing @a/A1", "answered @b/B1", "selected @b/B2", "active @b/B2", "answered_elsewhere @b/B1 > @b/B2",
				"answered_elsewhere @b/B3 > @b/B2", "ended @b: answered, user_hangup",
			},
		},
		{
			"only the caller selects",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"5s", "@b/B2", "answer", nil},
				{"6s", "@b/B2", "select_answer", call{"selected_party_id": "B2"}},
				{"6s", "@a/A2", "select_answer", call{"selected_party_id": "B2"}},
				{"7s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"8s", "@a/A1", "select_answer", call{"selected_party_id": "B2"}},
			},
			[]string{
				"ringing @a/A1", "answered @b/B1", "selected @b/B1", "active @b/B1", "answered_elsewhere @b/B2 > @b/B1",
			},
		},
		{
			"an invite into a room with a call in progress is no glare",
			[]line{
				{"0s", "@a/A1", "invite", call{"call_id": "1"}},
				{"5s", "@b/B1", "answer", call{"call_id": "1"}},
				{"6s", "@c/C1", "invite", call{"call_id": "2"}},
			},
			[]string{"ringing[1] @a/A1", "answered[1] @b/B1", "ringing[2] @c/C1"},
		},
		{
			"a reject that the caller selects ends the call",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "reject", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"7s", "@a/A1", "hangup", nil},
			},
			[]string{"ringing @a/A1", "declined @b/B1", "ended @b: declined, rejected"},
		},
		{
			"a reject that the caller takes silently ends the call after a moment",
			[]line{{"0s", "@a/A1", "invite", nil}, {"5s", "@b/B1", "reject", nil}, {"14s", "", "expire", nil}, {"15s", "", "expire", nil}},
			[]string{"ringing @a/A1", "declined @b/B1", "ended @b: declined, rejected"},
		},
		{
			"an answer that crossed a reject counts when the caller selects it",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "reject", nil},
				{"5s", "@b/B2", "answer", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B2"}},
				{"9s", "@a/A1", "hangup", nil},
			},
			[]string{
				"ringing @a/A1", "declined @b/B1", "answered @b/B2", "selected @b/B2", "active @b/B2", "ended @a: answered, user_hangup",
			},
		},
		{
			"a reject that crossed an answer counts when the caller selects it",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B2", "answer", nil},
				{"5s", "@b/B1", "reject", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
			},
			[]string{"ringing @a/A1", "answered @b/B2", "ended @b: declined, rejected"},
		},
		{
			"a bridge that says busy declines as busy",
			[]line{{"0s", "@a/A1", "invite", nil}, {"5s", "@b/B1", "hangup", call{"reason": "user_busy"}}, {"6s", "@a/A1", "hangup", nil}},
			[]string{"ringing @a/A1", "declined @b/B1", "ended @a: busy, user_busy"},
		},
		{
			"an invite expires when nobody answers, and later events change nothing",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"59.999s", "", "expire", nil},
				{"60s", "", "expire", nil},
				{"61s", "@b/B1", "answer", nil},
				{"62s", "@a/A1", "hangup", call{"reason": "invite_timeout"}},
			},
			[]string{"ringing @a/A1", "missed @a/A1", "ended: missed, invite_timeout after 1m0s"},
		},
		{
			"an answer that comes after the lifetime finds the call over, even before anybody looked at the clock",
			[]line{{"0s", "@a/A1", "invite", nil}, {"60s", "@b/B1", "answer", nil}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended: missed, invite_timeout after 1m0s"},
		},
		{
			"a caller's hangup for want of an answer is a missed call",
			[]line{{"0s", "@a/A1", "invite", nil}, {"58s", "@a/A1", "hangup", call{"reason": "invite_timeout"}}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended @a: missed, invite_timeout"},
		},
		{
			"a caller who gives up leaves a missed call behind",
			[]line{{"0s", "@a/A1", "invite", call{"invitee": "@b"}}, {"8s", "@a/A1", "hangup", nil}},
			[]string{"ringing @a/A1 > @b", "missed @a/A1 > @b", "ended @a: cancelled, user_hangup"},
		},
		{
			"a caller whose client fails before the answer leaves a failed call",
			[]line{{"0s", "@a/A1", "invite", nil}, {"8s", "@a/A1", "hangup", call{"reason": "no_user_media"}}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended @a: failed, no_user_media"},
		},
		{
			"a call whose media never flowed has failed",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"36s", "@a/A1", "hangup", call{"reason": "ice_failed"}},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "selected @b/B1", "active @b/B1", "ended @a: failed, ice_failed"},
		},
		{
			"a call whose media broke off was a call",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"99s", "@a/A1", "hangup", call{"reason": "ice_timeout"}},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "selected @b/B1", "active @b/B1", "ended @a: answered, ice_timeout"},
		},
		{
			"strangers, wrong parties, wrong devices and replays change nothing",
			[]line{
				{"0s", "@a/A1/DEVA", "invite", call{"invitee": "@b"}},
				{"1s", "@c/C1", "answer", nil},
				{"1s", "@c/C1", "reject", nil},
				{"1s", "@c/C1", "hangup", call{"reason": "user_busy"}},
				{"1s", "@c", "hangup", nil},
				{"1s", "@a/A2", "hangup", nil},
				{"1s", "@a/A1/DEVX", "hangup", nil},
				{"1s", "@a/A2", "answer", nil},
				{"1s", "@a/A1", "answer", nil},
				{"1s", "@b/B1", "hangup", nil},
				{"2s", "@c/C1", "invite", nil},
				{"2s", "@a/A1/DEVA", "invite", nil},
				{"3s", "@b/B1/DEVB", "answer", nil},
				{"4s", "@b/B1/DEVB", "select_answer", call{"selected_party_id": "B1"}},
				{"4s", "@c/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"4s", "@a/A1/DEVA", "select_answer", call{"selected_party_id": "B9"}},
				{"5s", "@a/A1/DEVA", "select_answer", call{"selected_party_id": "B1"}},
				{"6s", "@c/B1", "hangup", nil},
				{"6s", "@b/B2", "hangup", nil},
				{"6s", "@b/B1/DEVX", "hangup", nil},
				{"6s", "@c/C1", "negotiate", nil},
				{"7s", "@b/B1/DEVB", "hangup", nil},
				{"8s", "@a/A1/DEVA", "invite", nil},
				{"8s", "@b/B1/DEVB", "hangup", nil},
			},
			[]string{
				"ringing @a/A1 > @b", "answered @b/B1", "selected @b/B1", "active @b/B1", "ended @b: answered, user_hangup",
			},
		},
		{
			"users may call themselves when the invite says so",
			[]line{
				{"0s", "@a/A1", "invite", call{"invitee": "@a"}},
				{"1s", "@a/A1", "answer", nil},
				{"2s", "@a/A2", "answer", nil},
				{"3s", "@a/A1", "select_answer", call{"selected_party_id": "A2"}},
			},
			[]string{"ringing @a/A1 > @a", "answered @a/A2", "selected @a/A2", "active @a/A2"},
		},
		{
			"two invites that cross are glare, and the lesser call id goes on",
			[]line{
				{"0s", "@b/B1", "invite", call{"call_id": "x"}},
				{"0.1s", "@a/A1", "invite", call{"call_id": "g"}},
				{"0.2s", "@b/B1", "hangup", call{"call_id": "x", "reason": "replaced"}},
				{"0.3s", "@b/B1", "answer", call{"call_id": "g"}},
				{"9s", "@b/B1", "hangup", call{"call_id": "g"}},
			},
			[]string{
				"ringing[x] @b/B1", "ringing[g] @a/A1", "glare[g] @a/A1 > @b/B1 =x", "ended[x] @b: cancelled, replaced",
				"answered[g] @b/B1", "ended[g] @b: answered, user_hangup",
			},
		},
		{
			"the loser of a glare is no missed call when the other one was answered",
			[]line{
				{"0s", "@b/B1", "invite", call{"call_id": "x"}},
				{"0.1s", "@a/A1", "invite", call{"call_id": "g"}},
				{"0.3s", "@b/B1", "answer", call{"call_id": "g"}},
				{"9s", "@b/B1", "hangup", call{"call_id": "g"}},
				{"60s", "", "expire", nil},
			},
			[]string{
				"ringing[x] @b/B1", "ringing[g] @a/A1", "glare[g] @a/A1 > @b/B1 =x",
				"answered[g] @b/B1", "ended[g] @b: answered, user_hangup", "ended[x]: cancelled, replaced after 1m0s",
			},
		},
		{
			"both calls of a glare are missed when nobody answers",
			[]line{
				{"0s", "@a/A1", "invite", call{"call_id": "g"}},
				{"1s", "@b/B1", "invite", call{"call_id": "x"}},
				{"99s", "", "expire", nil},
			},
			[]string{
				"ringing[g] @a/A1", "ringing[x] @b/B1", "glare[g] @a/A1 > @b/B1 =x",
				"missed[g] @a/A1", "ended[g]: missed, invite_timeout after 1m0s", "missed[x] @b/B1", "ended[x]: missed, invite_timeout after 1m1s",
			},
		},
		{
			"two invites to different people in one room are no glare, nor are two of one caller",
			[]line{
				{"0s", "@a/A1", "invite", call{"call_id": "1", "invitee": "@c"}},
				{"0s", "@b/B1", "invite", call{"call_id": "2"}},
				{"0s", "@b/B1", "invite", call{"call_id": "3", "invitee": "@d"}},
			},
			[]string{"ringing[1] @a/A1 > @c", "ringing[2] @b/B1", "ringing[3] @b/B1 > @d"},
		},
		{
			"a negotiation in mid-call may turn sound into picture",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"1s", "@b/B1", "negotiate", nil},
				{"5s", "@b/B1", "answer", nil},
				{"6s", "@a/A1", "select_answer", call{"selected_party_id": "B1"}},
				{"8s", "@b/B1", "negotiate", call{"description": call{"type": "offer", "sdp": videoSDP}, "lifetime": 60000}},
				{"9s", "@a/A1", "negotiate", call{"description": call{"type": "answer", "sdp": videoSDP}, "lifetime": 60000}},
				{"10s", "@b/B9", "negotiate", call{"description": call{"type": "offer", "sdp": audioSDP}}},
				{"20s", "@a/A1", "hangup", nil},
			},
			[]string{
				"ringing @a/A1", "answered @b/B1", "selected @b/B1", "active @b/B1",
				"renegotiated @b/B1 video", "renegotiated @a/A1 video", "ended @a video: answered, user_hangup",
			},
		},
		{
			"stream metadata under either name may turn sound into picture",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", call{"sdp_stream_metadata": call{"s": call{"purpose": "m.usermedia", "video_muted": true}}}},
				{"6s", "@b/B1", "", call{
					"type":                                   "org.matrix.call.sdp_stream_metadata_changed",
					"org.matrix.msc3077.sdp_stream_metadata": call{"s": call{"purpose": "m.usermedia", "video_muted": false}},
				}},
				{"7s", "@b/B1", "sdp_stream_metadata_changed", call{"sdp_stream_metadata": call{"s": call{"purpose": "m.screenshare"}}}},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "renegotiated @b/B1 video"},
		},
		{
			"a transfer and an asserted identity are passed on",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"6s", "@b/B1", "asserted_identity", call{"asserted_identity": call{"id": "@pstn_1:x", "display_name": "One"}}},
				{"7s", "@b/B1", "replaces", call{"target_user": call{"id": "@c"}, "create_call": "c2", "replacement_id": "r"}},
				{"8s", "@a/A1", "hangup", call{"reason": "transferred"}},
			},
			[]string{
				"ringing @a/A1", "answered @b/B1", "identified @b/B1 =@pstn_1:x", "transferring @b/B1 > @c =c2",
				"ended @a: answered, transferred",
			},
		},
		{
			"a party that leaves the room hangs up",
			[]line{{"0s", "@a/A1", "invite", nil}, {"5s", "@b/B1", "answer", nil}, {"6s", "@c", "leave", nil}, {"7s", "@b", "leave", nil}},
			[]string{"ringing @a/A1", "answered @b/B1", "ended @b: answered, user_left"},
		},
		{
			"a caller who leaves before the answer leaves a missed call",
			[]line{{"0s", "@a/A1", "invite", nil}, {"7s", "@a", "leave", nil}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended @a: cancelled, user_left"},
		},
		{
			"an invitee who leaves has declined, others who leave have not",
			[]line{{"0s", "@a/A1", "invite", call{"invitee": "@b"}}, {"6s", "@c", "leave", nil}, {"7s", "@b", "leave", nil}},
			[]string{"ringing @a/A1 > @b", "ended @b: declined, user_left"},
		},
		{
			"a device that is logged out hangs up its own calls only",
			[]line{
				{"0s", "@a/A1/DEVA", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"6s", "@a/OTHER", "logout", nil},
				{"6s", "@b/DEVA", "logout", nil},
				{"7s", "@b/B1", "logout", nil},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "ended @b: answered, device_logged_out"},
		},
		{
			"a device that answered besides others may be logged out without harm",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"5s", "@b/B2", "answer", nil},
				{"7s", "@b/B1", "logout", nil},
				{"8s", "@a/A1", "select_answer", call{"selected_party_id": "B2"}},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "selected @b/B2", "active @b/B2"},
		},
		{
			"an answered call of which nothing more is heard is over after a day, one that is heard of is not",
			[]line{
				{"0s", "@a/A1", "invite", nil},
				{"5s", "@b/B1", "answer", nil},
				{"20h", "@b/B1", "candidates", nil},
				{"24h6s", "", "expire", nil},
				{"43h59m", "", "expire", nil},
				{"44h", "", "expire", nil},
			},
			[]string{"ringing @a/A1", "answered @b/B1", "ended: answered, no_hangup after 44h0m0s"},
		},
		{
			"a lifetime is cut to ten minutes",
			[]line{{"0s", "@a/A1", "invite", call{"lifetime": 1e9}}, {"9m59s", "", "expire", nil}, {"10m", "", "expire", nil}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended: missed, invite_timeout after 10m0s"},
		},
		{
			"a lifetime that says nothing is a minute",
			[]line{{"0s", "@a/A1", "invite", call{"lifetime": "soon"}}, {"59s", "", "expire", nil}, {"60s", "", "expire", nil}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended: missed, invite_timeout after 1m0s"},
		},
		{
			"an invite that was long on its way rings for the rest of its lifetime",
			[]line{{"0s", "@a/A1", "invite", call{"sent": 40 * time.Second}}, {"19s", "", "expire", nil}, {"20s", "", "expire", nil}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended: missed, invite_timeout after 20s"},
		},
		{
			"an invite that arrives too late never rings but is a missed call",
			[]line{{"0s", "@a/A1", "invite", call{"sent": time.Hour}}, {"1s", "@b/B1", "answer", nil}},
			[]string{"missed @a/A1", "ended: missed, invite_timeout after 0s"},
		},
		{
			"an invite from a clock that runs ahead rings as long as any other",
			[]line{{"0s", "@a/A1", "invite", call{"sent": -time.Hour}}, {"59s", "", "expire", nil}, {"60s", "", "expire", nil}},
			[]string{"ringing @a/A1", "missed @a/A1", "ended: missed, invite_timeout after 1m0s"},
		},
		{
			"events of calls that nobody began mean nothing",
			[]line{{"0s", "@b/B1", "answer", nil}, {"1s", "@a/A1", "hangup", nil}, {"2s", "@a/A1", "select_answer", nil}},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tracker := callflow.NewTracker(callflow.Config{})
			facts, _ := tell(t, tracker, c.lines...)
			if diff := cmp.Diff(c.facts, facts); diff != "" {
				t.Error(diff)
			}
		})
	}
}
