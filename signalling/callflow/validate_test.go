// SPDX-License-Identifier: Apache-2.0

package callflow_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

func TestEventsThatClientsSendAreAccepted(t *testing.T) {
	for _, c := range []struct{ name, eventType, content string }{
		{"an invite of version 1", "m.call.invite", `{"call_id":"c","version":"1","party_id":"P","lifetime":60000,"invitee":"@b:x",
			"offer":{"type":"offer","sdp":"v=0"},"sdp_stream_metadata":{"s":{"purpose":"m.usermedia","audio_muted":false}},
			"org.matrix.msc3077.sdp_stream_metadata":{"s":{"purpose":"m.usermedia"}},
			"capabilities":{"m.call.transferee":true,"m.call.dtmf":false},"conf_id":"1","sender_session_id":"s","dest_session_id":"d",
			"device_id":"D","seq":0}`},
		{"an invite of version 0", "m.call.invite", `{"call_id":"c","version":0,"lifetime":60000,"offer":{"type":"offer","sdp":""}}`},
		{"a version as an early client wrote it", "m.call.hangup", `{"call_id":"c","version":1}`},
		{"a version of the future", "m.call.hangup", `{"call_id":"c","version":"org.example.2.5"}`},
		{"candidates with the end marker of a browser", "m.call.candidates", `{"call_id":"c","version":"1","party_id":"P","candidates":[
			{"candidate":"candidate:1 1 udp 1 192.0.2.1 1 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"u"},
			{"candidate":"","sdpMid":null,"sdpMLineIndex":null,"usernameFragment":null},{"candidate":""}]}`},
		{"no candidates", "m.call.candidates", `{"call_id":"c","version":0,"candidates":[]}`},
		{"an answer", "m.call.answer", `{"call_id":"c","version":"1","party_id":"P","answer":{"type":"answer","sdp":"v=0"}}`},
		{"an answer without type", "m.call.answer", `{"call_id":"c","version":0,"answer":{"sdp":"v=0"}}`},
		{"select_answer", "m.call.select_answer", `{"call_id":"c","version":"1","party_id":"P","selected_party_id":"Q"}`},
		{"reject with a reason", "m.call.reject", `{"call_id":"c","version":"1","party_id":"P","reason":"user_hangup"}`},
		{"hangup without reason", "m.call.hangup", `{"call_id":"c","version":0}`},
		{"hangup with a reason of js-sdk", "m.call.hangup", `{"call_id":"c","version":"1","party_id":"P","reason":"local_offer_failed"}`},
		{"negotiate", "m.call.negotiate", `{"call_id":"c","version":"1","party_id":"P","lifetime":60000,"description":{"type":"offer","sdp":""}}`},
		{"negotiate as the schema had it", "m.call.negotiate", `{"call_id":"c","version":"1","lifetime":1,"offer":{"type":"offer","sdp":""}}`},
		{"metadata", "m.call.sdp_stream_metadata_changed", `{"call_id":"c","version":"1","sdp_stream_metadata":{}}`},
		{"metadata, old name", "org.matrix.call.sdp_stream_metadata_changed", `{"call_id":"c","version":"1","org.matrix.msc3077.sdp_stream_metadata":{}}`},
		{"replaces", "m.call.replaces", `{"call_id":"c","version":"1","replacement_id":"r","target_user":{"id":"@c:x"},"create_call":"n"}`},
		{"asserted identity", "org.matrix.call.asserted_identity", `{"call_id":"c","version":"1","asserted_identity":{"id":"@x:y"}}`},
		{"a null where a field may be absent", "m.call.hangup", `{"call_id":"c","version":"1","party_id":null,"reason":null}`},
		{"another event type", "m.call.member", `{"memberships":[]}`},
		{"another event type that is no object", "m.room.message", `5`},
	} {
		if err := callflow.Validate(c.eventType, json.RawMessage(c.content)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestEventsThatNoReceiverCouldReadAreBadJSON(t *testing.T) {
	for _, c := range []struct{ names, eventType, content string }{
		{"content", "m.call.invite", `[]`},
		{"content", "m.call.invite", `null`},
		{"content", "m.call.invite", ``},
		{"call_id", "m.call.hangup", `{"version":"1"}`},
		{"call_id", "m.call.hangup", `{"call_id":5,"version":"1"}`},
		{"call_id", "m.call.hangup", `{"call_id":"","version":"1"}`},
		{"call_id", "m.call.hangup", `{"CALL_ID":"c","version":"1"}`},
		{"call_id", "m.call.hangup", `{"call_id":"` + strings.Repeat("x", 256) + `","version":"1"}`},
		{"version", "m.call.hangup", `{"call_id":"c"}`},
		{"version", "m.call.hangup", `{"call_id":"c","version":true}`},
		{"version", "m.call.hangup", `{"call_id":"c","version":0.5}`},
		{"version", "m.call.hangup", `{"call_id":"c","version":null}`},
		{"party_id", "m.call.hangup", `{"call_id":"c","version":"1","party_id":7}`},
		{"reason", "m.call.hangup", `{"call_id":"c","version":"1","reason":{}}`},
		{"lifetime", "m.call.invite", `{"call_id":"c","version":"1","offer":{"type":"offer","sdp":""}}`},
		{"lifetime", "m.call.invite", `{"call_id":"c","version":"1","lifetime":"60000","offer":{"type":"offer","sdp":""}}`},
		{"offer", "m.call.invite", `{"call_id":"c","version":"1","lifetime":1}`},
		{"offer", "m.call.invite", `{"call_id":"c","version":"1","lifetime":1,"offer":"v=0"}`},
		{"offer.sdp", "m.call.invite", `{"call_id":"c","version":"1","lifetime":1,"offer":{"type":"offer"}}`},
		{"offer.type", "m.call.invite", `{"call_id":"c","version":"1","lifetime":1,"offer":{"type":1,"sdp":""}}`},
		{"invitee", "m.call.invite", `{"call_id":"c","version":"1","lifetime":1,"invitee":1,"offer":{"sdp":""}}`},
		{"sdp_stream_metadata", "m.call.invite", `{"call_id":"c","version":"1","lifetime":1,"sdp_stream_metadata":[],"offer":{"sdp":""}}`},
		{"answer", "m.call.answer", `{"call_id":"c","version":"1","offer":{"type":"offer","sdp":""}}`},
		{"description", "m.call.negotiate", `{"call_id":"c","version":"1","lifetime":1}`},
		{"lifetime", "m.call.negotiate", `{"call_id":"c","version":"1","lifetime":[],"description":{"sdp":""}}`},
		{"selected_party_id", "m.call.select_answer", `{"call_id":"c","version":"1"}`},
		{"candidates", "m.call.candidates", `{"call_id":"c","version":"1"}`},
		{"candidates", "m.call.candidates", `{"call_id":"c","version":"1","candidates":{}}`},
		{"candidates[1]", "m.call.candidates", `{"call_id":"c","version":"1","candidates":[{"candidate":""},5]}`},
		{"candidates[0].candidate", "m.call.candidates", `{"call_id":"c","version":"1","candidates":[{}]}`},
		{"candidates[0].sdpMid", "m.call.candidates", `{"call_id":"c","version":"1","candidates":[{"candidate":"","sdpMid":0}]}`},
		{"candidates[0].sdpMLineIndex", "m.call.candidates", `{"call_id":"c","version":"1","candidates":[{"candidate":"","sdpMLineIndex":"0"}]}`},
	} {
		err := callflow.Validate(c.eventType, json.RawMessage(c.content))
		var e *signalling.Error
		if !errors.As(err, &e) || e.Code != "M_BAD_JSON" || e.Status != http.StatusBadRequest {
			t.Errorf("%s %.80s: got %v", c.eventType, c.content, err)
		} else if !strings.Contains(e.Message, c.names) {
			t.Errorf("%s %.80s: %q does not name %s", c.eventType, c.content, e.Message, c.names)
		}
	}
}
