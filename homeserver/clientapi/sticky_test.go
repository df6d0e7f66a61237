// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/url"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// stuck lists the keys of what a sync says sticks in a room, and how long it will.
func (a answer) stuck(room string) (keys []string, left map[string]float64) {
	left = map[string]float64{}
	rooms, _ := a.m["rooms"].(map[string]any)
	join, _ := rooms["join"].(map[string]any)
	j, _ := join[room].(map[string]any)
	section, _ := j["msc4354_sticky"].(map[string]any)
	events, _ := section["events"].([]any)
	for _, e := range events {
		m := e.(map[string]any)
		key := m["content"].(map[string]any)["msc4354_sticky_key"].(string)
		keys = append(keys, key)
		left[key], _ = m["unsigned"].(map[string]any)["msc4354_sticky_duration_ttl_ms"].(float64)
	}
	return keys, left
}

func TestStickyEventsAreSentNowOrLaterAndOutliveARestart(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		const q = "?org.matrix.msc4354.sticky_duration_ms="
		sync := func(token string) answer {
			return h.do("GET", "/v3/sync?timeout=0"+"&filter="+url.QueryEscape(`{"room":{"timeline":{"limit":1}}}`), token, nil).ok()
		}
		if f := h.do("GET", "/_matrix/client/versions", "", nil).ok().m["unstable_features"].(map[string]any); f["org.matrix.msc4354"] != true {
			t.Error("sticky events are not advertised")
		}

		for _, bad := range []string{"-1", "x", "1.5", "3600001", "99999999999999999999999"} {
			h.do("PUT", path+"/send/m.rtc.member/bad"+q+bad, alice, `{}`).refused(400, "M_INVALID_PARAM")
			h.do("PUT", path+"/state/x.y/k"+q+bad, alice, `{}`).refused(400, "M_INVALID_PARAM")
			h.do("PUT", path+"/send/m.rtc.member/later"+q+bad+"&org.matrix.msc4140.delay=1000", alice, `{}`).refused(400, "M_INVALID_PARAM")
		}
		h.do("PUT", path+"/state/m.room.member/@alice:test"+q+"1000", alice, `{"membership":"join"}`).refused(400, "M_INVALID_PARAM")
		if n := h.waiting(alice); n != 0 {
			t.Fatalf("%d delayed events wait after bad requests", n)
		}

		id := h.do("PUT", path+"/send/m.rtc.member/1"+q+"600000", alice, `{"msc4354_sticky_key":"now"}`).ok().str("event_id")
		if again := h.do("PUT", path+"/send/m.rtc.member/1"+q+"600000", alice, `{"msc4354_sticky_key":"now"}`).ok().str("event_id"); again != id {
			t.Errorf("a transaction twice is %s and %s", id, again)
		}
		e := h.do("GET", path+"/event/"+url.PathEscape(id), bob, nil).ok().m
		if s, _ := e["msc4354_sticky"].(map[string]any); s["duration_ms"] != float64(600000) || e["unsigned"].(map[string]any)["msc4354_sticky_duration_ttl_ms"] != float64(600000) {
			t.Errorf("the event is %v", e)
		}
		h.do("PUT", path+"/send/m.rtc.member/2"+q+"0", alice, `{"msc4354_sticky_key":"never"}`).ok()
		// The same state again sticks anew; without stickiness it is the event that is there.
		s1 := h.do("PUT", path+"/state/x.y/k"+q+"1000", alice, `{"msc4354_sticky_key":"state"}`).ok().str("event_id")
		s2 := h.do("PUT", path+"/state/x.y/k"+q+"900000", alice, `{"msc4354_sticky_key":"state"}`).ok().str("event_id")
		if s3 := h.do("PUT", path+"/state/x.y/k", alice, `{"msc4354_sticky_key":"state"}`).ok().str("event_id"); s1 == s2 || s3 != s2 {
			t.Errorf("the same state is %s, %s, %s", s1, s2, s3)
		}
		// A delayed event begins to stick when it is sent.
		h.do("PUT", path+"/send/m.rtc.member/3"+q+"60000&org.matrix.msc4140.delay=120000", alice, `{"msc4354_sticky_key":"later"}`).ok()
		h.do("PUT", delayedBase+"/rooms/"+url.PathEscape(room)+"/delayed_event/m.rtc.member/4"+q+"60000", alice, `{"delay_ms":120000,"content":{"msc4354_sticky_key":"later too"}}`).ok()
		h.elapse(2*time.Minute, alice, 0)
		h.do("PUT", path+"/send/m.room.message/5", alice, `{"body":"last"}`).ok()

		check := func(what, token string) {
			t.Helper()
			keys, left := sync(token).stuck(room)
			want := map[string]float64{"now": 480000, "state": 780000, "later": 60000, "later too": 60000}
			if len(keys) != len(want) {
				t.Errorf("%s: %q", what, keys)
			}
			for k, ms := range want {
				if left[k] != ms {
					t.Errorf("%s: %s sticks for %v, want %v", what, k, left[k], ms)
				}
			}
		}
		check("bob", bob)
		h.stop()
		h2 := newWhole(t, st)
		h2.clock.Advance(2 * time.Minute)
		h = h2
		check("after a restart", bob)
	})
}
