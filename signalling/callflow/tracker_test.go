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

func TestRecordHoldsWhatHistoryNeeds(t *testing.T) {
	_, records := tell(t, callflow.NewTracker(callflow.Config{}),
		line{"0s", "@a/A1/DEVA", "invite", call{"invitee": "@b", "offer": call{"sdp": videoSDP}, "sent": 2 * time.Second}},
		line{"5s", "@b/B1", "answer", nil},
		line{"5.5s", "@a/A1/DEVA", "select_answer", call{"selected_party_id": "B1"}},
		line{"65s", "@b/B1", "hangup", nil},
	)
	at := func(d time.Duration) int64 { return start.Add(d).UnixMilli() }
	want := []callflow.Record{{
		CallID: "c", RoomID: "!r",
		Caller:   signalling.Party{UserID: "@a", PartyID: "A1", DeviceID: "DEVA"},
		Answerer: signalling.Party{UserID: "@b", PartyID: "B1"},
		Invitee:  "@b", Kind: callflow.Video,
		Started: at(-2 * time.Second), Answered: at(5 * time.Second), Ended: at(65 * time.Second), DurationMS: 60_000,
		Outcome: callflow.OutcomeAnswered, Reason: "user_hangup", EndedBy: "@b",
	}}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Error(diff)
	}
}

func TestRingingStopsWithTheFirstAnswerRejectOrHangup(t *testing.T) {
	for _, stop := range []line{
		{"1s", "@b/B1", "answer", nil},
		{"1s", "@b/B1", "reject", nil},
		{"1s", "@a/A1", "hangup", nil},
		{"60s", "", "expire", nil},
	} {
		tracker := callflow.NewTracker(callflow.Config{})
		if tracker.Ringing("!r", "c") {
			t.Error("a call nobody began rings")
		}
		tell(t, tracker, line{"0s", "@a/A1", "invite", nil})
		if !tracker.Ringing("!r", "c") || tracker.Ringing("!other", "c") {
			t.Error("the call does not ring in its room, or rings in another")
		}
		tell(t, tracker, stop)
		if tracker.Ringing("!r", "c") {
			t.Errorf("still ringing after %s", stop.what)
		}
	}
}

func TestNextDeadlineIsTheEarliestOfAll(t *testing.T) {
	tracker := callflow.NewTracker(callflow.Config{})
	check := func(want time.Duration) {
		t.Helper()
		if got, ok := tracker.NextDeadline(); !ok || !got.Equal(start.Add(want)) {
			t.Errorf("got %v %v, want %v", got.Sub(start), ok, want)
		}
	}
	if _, ok := tracker.NextDeadline(); ok {
		t.Error("a deadline without a call")
	}
	tell(t, tracker, line{"0s", "@a/A1", "invite", call{"call_id": "1", "lifetime": 90_000}})
	check(90 * time.Second)
	tell(t, tracker, line{"0s", "@a/A1", "invite", call{"call_id": "2", "lifetime": 30_000}})
	check(30 * time.Second)
	tell(t, tracker, line{"1s", "@b/B1", "answer", call{"call_id": "2"}})
	check(90 * time.Second)
	tell(t, tracker, line{"2s", "@b/B1", "reject", call{"call_id": "1"}})
	check(12 * time.Second)
	tell(t, tracker, line{"3s", "@a/A1", "hangup", call{"call_id": "1"}})
	check(24*time.Hour + time.Second)
}

func TestInvitesBeyondTheBoundsAreCountedNotTracked(t *testing.T) {
	tracker := callflow.NewTracker(callflow.Config{MaxCalls: 6, MaxPerRoom: 5, MaxPerCaller: 2})
	invite := func(room, user string, n int) bool {
		content := fmt.Sprintf(`{"call_id":"%s-%d","version":"1","party_id":"P","lifetime":60000}`, user, n)
		return len(tracker.Observe(callflow.Event{
			RoomID: room, Sender: user, Type: callflow.TypeInvite, Content: json.RawMessage(content), Received: start,
		})) > 0
	}
	if !invite("!1", "@a", 1) || !invite("!1", "@a", 2) || invite("!2", "@a", 3) {
		t.Error("the bound of one caller does not hold")
	}
	if !invite("!1", "@b", 1) || !invite("!1", "@b", 2) || !invite("!1", "@c", 1) || invite("!1", "@c", 2) {
		t.Error("the bound of one room does not hold")
	}
	if !invite("!2", "@c", 3) || invite("!3", "@d", 1) {
		t.Error("the bound of all calls does not hold")
	}
	if s := tracker.Stats(); s != (callflow.Stats{Ringing: 6, Refused: 3}) {
		t.Errorf("got %+v", s)
	}
	tracker.Expire(start.Add(time.Hour))
	if s := tracker.Stats(); s != (callflow.Stats{Refused: 3}) {
		t.Errorf("after all have expired: %+v", s)
	}
	if !invite("!1", "@a", 9) {
		t.Error("room that became free is not used")
	}
}

func TestEndedCallIDsAreRememberedUpToABound(t *testing.T) {
	tracker := callflow.NewTracker(callflow.Config{MaxEnded: 2})
	whole := func(id string) int {
		facts, _ := tell(t, tracker,
			line{"0s", "@a/A1", "invite", call{"call_id": id}}, line{"1s", "@a/A1", "hangup", call{"call_id": id}})
		return len(facts)
	}
	if whole("1") == 0 || whole("1") != 0 {
		t.Error("a replay starts the call again")
	}
	whole("2")
	whole("3")
	if whole("3") != 0 || whole("2") != 0 {
		t.Error("forgotten within the bound")
	}
	if whole("1") == 0 {
		t.Error("remembered beyond the bound")
	}
}

func TestInviteLiveLooksAtAgeAndLifetime(t *testing.T) {
	for _, c := range []struct {
		content string
		age     time.Duration
		want    bool
	}{
		{`{"lifetime":60000}`, 59 * time.Second, true},
		{`{"lifetime":60000}`, 60 * time.Second, false},
		{`{"lifetime":1e99}`, 9 * time.Minute, true},
		{`{"lifetime":1e999}`, 10 * time.Minute, false},
		{`{"lifetime":-5}`, 59 * time.Second, true},
		{`{"lifetime":"x"}`, 60 * time.Second, false},
		{`{}`, 59 * time.Second, true},
		{`[]`, 0, false},
		{`nonsense`, 0, false},
		{`null`, 0, false},
	} {
		if got := callflow.InviteLive(json.RawMessage(c.content), c.age); got != c.want {
			t.Errorf("%s at %v: %v", c.content, c.age, got)
		}
	}
}

func TestMediaIsJudgedFromWhatIsSent(t *testing.T) {
	for _, c := range []struct {
		name    string
		content call
		want    callflow.Media
	}{
		{"audio only", call{}, callflow.Audio},
		{"video", call{"offer": call{"sdp": videoSDP}}, callflow.Video},
		{"video with bare newlines", call{"offer": call{"sdp": strings.ReplaceAll(videoSDP, "\r\n", "\n")}}, callflow.Video},
		{"video that is only received", call{"offer": call{"sdp": strings.ReplaceAll(videoSDP, "sendrecv", "recvonly")}}, callflow.Audio},
		{"rejected video", call{"offer": call{"sdp": strings.ReplaceAll(videoSDP, "m=video 9 ", "m=video 0 ")}}, callflow.Audio},
		{"two videos, the first received only", call{"offer": call{"sdp": strings.ReplaceAll(videoSDP, "sendrecv", "recvonly") +
			"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"}}, callflow.Video},
		{"metadata with camera", call{"sdp_stream_metadata": call{"s": call{"video_muted": false}}}, callflow.Video},
		{"metadata without camera", call{"sdp_stream_metadata": call{"s": call{"video_muted": true}}}, callflow.Audio},
		{"metadata of a wrong shape", call{"sdp_stream_metadata": call{"s": 5}}, callflow.Audio},
		{"an offer of a wrong shape", call{"offer": []int{1}}, callflow.Audio},
	} {
		_, records := tell(t, callflow.NewTracker(callflow.Config{}),
			line{"0s", "@a/A1", "invite", c.content}, line{"60s", "", "expire", nil})
		if len(records) != 1 || records[0].Kind != c.want {
			t.Errorf("%s: got %+v", c.name, records)
		}
	}
}
