// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	gmsl "github.com/matrix-org/gomatrixserverlib"
)

func TestAStickyEventIsHashedWithItsStickinessAndRedactedWithout(t *testing.T) {
	for _, v := range Versions() {
		room := "!room:example.org"
		if v.CreateIsRoomID() {
			room = "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"
		}
		p := Proto{RoomID: room, Sender: "@alice:example.org", Type: "m.rtc.member", Content: json.RawMessage(`{"msc4354_sticky_key":"k"}`), Sticky: 5 * time.Minute}
		e := build(t, v, p, ids(v, "a"), 3, EventsState{})
		if e.Sticky() != 5*time.Minute || !bytes.Contains(e.JSON(), []byte(`,"msc4354_sticky":{"duration_ms":300000},`)) || !bytes.Contains(e.ClientHead(), []byte(`"msc4354_sticky":{"duration_ms":300000}`)) {
			t.Fatalf("v%s: %v %s", v, e.Sticky(), e.JSON())
		}
		// What came over the wire is the same event, and so it is for the library; changed on the way, it is not.
		got, err := Parse(v, e.JSON())
		if err != nil || got.ID() != e.ID() || got.Redacted() || got.Sticky() != e.Sticky() || !bytes.Equal(got.JSON(), e.JSON()) {
			t.Errorf("v%s: read again: %v", v, err)
		}
		lib, err := gmsl.MustGetRoomVersion(gmsl.RoomVersion(v)).NewEventFromUntrustedJSON(e.JSON())
		if err != nil || lib.Redacted() || lib.EventID() != e.ID() || !lib.StickyEndTime(time.UnixMilli(e.OriginTS())).Equal(e.StickyUntil(time.UnixMilli(e.OriginTS()))) {
			t.Errorf("v%s: the library: %v", v, err)
		}
		longer, err := Parse(v, []byte(strings.Replace(string(e.JSON()), "300000", "300001", 1)))
		if err != nil || !longer.Redacted() || longer.Sticky() != 0 || longer.ID() != e.ID() {
			t.Errorf("v%s: made longer on the way: %v %v", v, longer.Sticky(), err)
		}
		red, err := e.Redact()
		if err != nil || red.Sticky() != 0 || bytes.Contains(red.JSON(), []byte("sticky")) || bytes.Contains(red.ClientHead(), []byte("sticky")) {
			t.Errorf("v%s: redacted: %s", v, red.JSON())
		}
	}
}

func TestOnlyAValidDurationSticks(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`{"duration_ms":0}`: 0, `{"duration_ms":1}`: time.Millisecond, `{"duration_ms":3600000}`: time.Hour, `{"duration_ms":3600001}`: time.Hour,
		`{"duration_ms":9007199254740991,"x":1}`: time.Hour, `{"duration_ms":-1}`: 0, `{"duration_ms":"1000"}`: 0, `{"duration_ms":true}`: 0, `{"duration_ms":null}`: 0,
		`{}`: 0, `[]`: 0, `3600000`: 0, `null`: 0, `"x"`: 0, `{"duration_ms":[1000]}`: 0,
	} {
		raw := fmt.Sprintf(`{"auth_events":[],"content":{},"depth":1,"hashes":{},"msc4354_sticky":%s,"origin_server_ts":1000,"prev_events":[],"room_id":"!a:b","sender":"@a:b","type":"x"}`, text)
		e, err := Load("10", "$x", []byte(raw), false)
		if err != nil || e.Sticky() != want {
			t.Errorf("%s sticks for %v, want %v (%v)", text, e.Sticky(), want, err)
		}
	}
	// A start in the future counts as the moment of arrival; one in the past stands.
	e, _ := Load("10", "$x", []byte(`{"auth_events":[],"content":{},"depth":1,"msc4354_sticky":{"duration_ms":1000},"origin_server_ts":5000,"prev_events":[],"room_id":"!a:b","sender":"@a:b","type":"x"}`), false)
	if got := e.StickyUntil(time.UnixMilli(2000)).UnixMilli(); got != 3000 {
		t.Errorf("from the future: %d", got)
	}
	if got := e.StickyUntil(time.UnixMilli(9000)).UnixMilli(); got != 6000 {
		t.Errorf("from the past: %d", got)
	}
}
