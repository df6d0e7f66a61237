// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

const delayedBase = "/unstable/org.matrix.msc4140"

// waiting counts a user's delayed events.
func (h *home) waiting(token string) int {
	h.t.Helper()
	return len(h.do("GET", delayedBase+"/delayed_events", token, nil).ok().m["delayed_events"].([]any))
}

// elapse lets time pass and waits until the user's delayed events are as many as wanted.
func (h *home) elapse(d time.Duration, token string, want int) {
	h.t.Helper()
	h.clock.Advance(d)
	end := time.Now().Add(10 * time.Second)
	for h.waiting(token) != want {
		if time.Now().After(end) {
			h.t.Fatalf("%d delayed events wait, want %d", h.waiting(token), want)
		}
	}
}

func TestDelayedEventsAreSentPutOffAndTakenBack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		state := func(key string) answer { return h.do("GET", path+"/state/x.call/"+key, alice, nil) }
		schedule := func(key, delay string) string {
			return h.do("PUT", path+"/state/x.call/"+key+"?org.matrix.msc4140.delay="+delay, alice, `{"left":true}`).ok().str("delay_id")
		}
		act := func(id, action string) answer {
			return h.do("POST", delayedBase+"/delayed_events/"+id+"/"+action, "", `{}`)
		}

		id := schedule("timeout", "1000")
		put := schedule("restarted", "1000")
		gone := schedule("cancelled", "1000")
		now := schedule("now", "86400000")
		if h.waiting(alice) != 4 || h.waiting(bob) != 0 {
			t.Fatalf("alice has %d delayed events, bob %d", h.waiting(alice), h.waiting(bob))
		}
		h.elapse(900*time.Millisecond, alice, 4)
		act(put, "restart").ok()
		act(gone, "cancel").ok()
		act(gone, "cancel").ok() // again does no harm
		act(now, "send").ok()
		act(now, "send").ok()
		state("now").ok()
		state("timeout").refused(404, "M_NOT_FOUND")
		h.elapse(100*time.Millisecond, alice, 1)
		state("timeout").ok()
		state("restarted").refused(404, "M_NOT_FOUND")
		h.elapse(900*time.Millisecond, alice, 0)
		state("restarted").ok()
		state("cancelled").refused(404, "M_NOT_FOUND")
		for _, dead := range []string{id, "nonsense"} {
			act(dead, "restart").refused(404, "M_NOT_FOUND")
			act(dead, "cancel").refused(404, "M_NOT_FOUND")
		}
		act(gone, "send").refused(404, "M_NOT_FOUND")
		act(id, "oops").refused(404, "M_UNRECOGNIZED")
		h.do("POST", delayedBase+"/delayed_events/"+id, "", `{}`).refused(400, "M_MISSING_PARAM")
		h.do("POST", delayedBase+"/delayed_events/"+id, "", `{"action":"oops"}`).refused(400, "M_INVALID_PARAM")
		h.do("GET", delayedBase+"/delayed_events", "", nil).refused(401, "M_MISSING_TOKEN")
		h.do("GET", delayedBase+"/delayed_events/"+id, bob, nil).refused(404, "M_NOT_FOUND")
	})
}

// Drafts of MSC4140 before 2026 had a newer state event, at first anybody's, then another user's, take a delayed one back. The MSC as
// it was accepted leaves that to clients: they cancel what they do not want any more.
func TestANewerStateEventDoesNotTakeADelayedOneBack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat","power_level_content_override":{"events":{"x.call":0}}}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		for _, newer := range []string{alice, bob} {
			h.do("PUT", path+"/state/x.call/k?org.matrix.msc4140.delay=1000", alice, `{"left":true}`).ok()
			h.do("PUT", path+"/state/x.call/k", newer, `{"here":true}`).ok()
			if n := h.waiting(alice); n != 1 {
				t.Fatalf("%d delayed events wait", n)
			}
			h.elapse(time.Second, alice, 0)
			if got := h.do("GET", path+"/state/x.call/k", alice, nil).ok().body; got != `{"left":true}` {
				t.Errorf("the state is %s", got)
			}
		}
	})
}

func TestADelayedMessageIsSentOnceAndInOrder(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		for i, ms := range []int{900, 700, 800} {
			at := fmt.Sprintf("%s/send/m.room.message/t%d?org.matrix.msc4140.delay=%d", path, i, ms)
			id := h.do("PUT", at, alice, fmt.Sprintf(`{"body":"%d"}`, ms)).ok().str("delay_id")
			if again := h.do("PUT", at, alice, nil).ok().str("delay_id"); again != id {
				t.Errorf("the same transaction gave %s and %s", id, again)
			}
		}
		// The endpoint of the newest draft, and what it answers.
		own := h.do("PUT", delayedBase+"/rooms/"+url.PathEscape(room)+"/delayed_event/m.room.message/own", alice, `{"delay_ms":1000,"content":{"body":"1000"}}`).ok().str("delay_id")
		if e := h.do("GET", delayedBase+"/delayed_events/"+own, alice, nil).ok().m; e["delay_ms"] != 1000.0 || dig(e, "content", "body") != "1000" || e["room_id"] != room || e["type"] != "m.room.message" {
			t.Errorf("delayed event: %v", e)
		}
		h.elapse(2*time.Second, alice, 0)
		chunk := h.do("GET", path+"/messages?dir=b&limit=4", alice, nil).ok().m["chunk"].([]any)
		for i, want := range []string{"1000", "900", "800", "700"} {
			if dig(chunk[i], "content", "body") != want {
				t.Errorf("event %d is %v, want %s", i, dig(chunk[i], "content"), want)
			}
		}
		if dig(chunk[0], "unsigned", "org.matrix.msc4140.delay_id") != own {
			t.Errorf("unsigned: %v", dig(chunk[0], "unsigned"))
		}
		for _, bad := range []string{"0", "-5", "soon", "1.5"} {
			h.do("PUT", path+"/send/m.room.message/bad?org.matrix.msc4140.delay="+url.QueryEscape(bad), alice, `{}`).refused(400, "M_INVALID_PARAM")
		}
		far := h.do("PUT", path+"/send/m.room.message/far?org.matrix.msc4140.delay=99999999999", alice, `{}`).refused(400, "M_UNKNOWN")
		if far.m["org.matrix.msc4140.errcode"] != "M_MAX_DELAY_EXCEEDED" || far.m["org.matrix.msc4140.max_delay"] != float64(delayed.MaxDelay.Milliseconds()) {
			t.Errorf("too far: %v", far.m)
		}
		h.do("PUT", path+"/send/m.room.message/x?org.matrix.msc4140.delay=1000", bob, `{}`).refused(403, "M_FORBIDDEN")
		for _, bad := range []string{`{"content":{}}`, `{"delay_ms":5}`} {
			h.do("PUT", delayedBase+"/rooms/"+url.PathEscape(room)+"/delayed_event/m.room.message/e", alice, bad).refused(400, "M_MISSING_PARAM")
		}
		h.do("PUT", delayedBase+"/rooms/"+url.PathEscape(room)+"/delayed_event/m.room.message/e", alice, `{"delay_ms":5,"content":[]}`).refused(400, "M_BAD_JSON")
		for i := range delayed.MaxScheduled {
			h.do("PUT", fmt.Sprintf("%s/send/m.room.message/m%d?org.matrix.msc4140.delay=86400000", path, i), alice, `{}`).ok()
		}
		full := h.do("PUT", path+"/send/m.room.message/full?org.matrix.msc4140.delay=86400000", alice, `{}`).refused(400, "M_UNKNOWN")
		if full.m["org.matrix.msc4140.errcode"] != "M_MAX_DELAYED_EVENTS_EXCEEDED" {
			t.Errorf("too many: %v", full.m)
		}
	})
}

func TestADelayedEventThatTheRoomRefusesEndsItsWait(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, `{"preset":"public_chat"}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.do("POST", "/v3/join/"+url.PathEscape(room), bob, `{}`).ok()
		h.do("PUT", path+"/send/m.room.message/t?org.matrix.msc4140.delay=1000", bob, `{"body":"late"}`).ok()
		leave := h.do("PUT", path+"/state/m.room.member/@bob:test?org.matrix.msc4140.delay=86400000", bob, `{"membership":"leave"}`).ok().str("delay_id")
		h.do("POST", path+"/ban", alice, `{"user_id":"@bob:test"}`).ok()
		h.elapse(2*time.Second, bob, 1)
		h.do("POST", delayedBase+"/delayed_events/"+leave+"/send", "", `{}`).refused(403, "M_FORBIDDEN")
		h.elapse(0, bob, 0)
		if last := h.do("GET", path+"/messages?dir=b&limit=1", alice, nil).ok().m["chunk"].([]any); dig(last[0], "content", "body") == "late" {
			t.Error("a banned user's delayed event was sent")
		}
	})
}

func TestDelayedEventsOutliveARestart(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newWhole(t, st)
		alice, _ := h.register("alice")
		room := h.do("POST", "/v3/createRoom", alice, `{}`).ok().str("room_id")
		path := "/v3/rooms/" + url.PathEscape(room)
		h.stop()
		h.do("PUT", path+"/state/x.call/a?org.matrix.msc4140.delay=1000", alice, `{"left":true}`).ok()
		h.do("PUT", path+"/state/x.call/b?org.matrix.msc4140.delay=60000", alice, `{"left":true}`).ok()
		h.clock.Advance(5 * time.Second)
		if n := h.waiting(alice); n != 2 {
			t.Fatalf("%d delayed events wait while nothing runs", n)
		}
		h2 := newWhole(t, st)
		h2.clock.Advance(5 * time.Second)
		h2.elapse(0, alice, 1)
		h2.do("GET", path+"/state/x.call/a", alice, nil).ok()
		h2.elapse(time.Minute, alice, 0)
		h2.do("GET", path+"/state/x.call/b", alice, nil).ok()
	})
}
