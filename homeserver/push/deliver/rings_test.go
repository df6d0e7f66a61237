// SPDX-License-Identifier: Apache-2.0

package deliver_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// heard is the next thing the gateway is told, but for counts, which come when they come.
func (g *gatewayServer) heard() told {
	g.t.Helper()
	for {
		if n := g.next(); n.EventID != "" || n.Withdrawn != nil {
			return n
		}
	}
}

// over checks that a ring is withdrawn.
func (g *gatewayServer) over(what, room, id string) {
	g.t.Helper()
	n := g.heard()
	if n.Withdrawn == nil || n.Withdrawn.EventID != id || n.Withdrawn.RoomID != room || n.EventID != "" || n.Prio != "high" || n.Counts == nil {
		g.t.Errorf("%s: %s", what, n.raw)
	}
}

func (g *gatewayServer) rings(what, id string) {
	g.t.Helper()
	n := g.heard()
	if n.EventID != id || n.Prio != "high" {
		g.t.Errorf("%s: %s", what, n.raw)
	}
}

// rung waits until a ring was taken by the gateway and that is on record.
func (w *world) rung(room, ring string) {
	w.t.Helper()
	w.until("the ring is on record", nil, func() bool {
		rows, err := w.store.NextPushes(w.t.Context(), storage.PusherID{User: bob, AppID: "app", Key: "k"}, 10)
		return err == nil && len(rows) == 0
	})
}

func TestACallRingsAndIsWithdrawnWhenItRingsNoMore(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		for what, end := range map[string]func(call string){
			"answered on another device": func(call string) { w.call(room, bob, "answer", call, nil) },
			"declined on another device": func(call string) { w.call(room, bob, "reject", call, nil) },
			"hung up by the caller":      func(call string) { w.call(room, alice, "hangup", call, nil) },
			"lapsed":                     func(string) { w.clock.Advance(61 * time.Second) },
		} {
			call := "c-" + what
			id := w.call(room, alice, "invite", call, nil)
			n := g.heard()
			if n.EventID != id || n.Prio != "high" || n.Type != "m.call.invite" || n.Devices[0].Tweaks["sound"] != "ring" {
				t.Errorf("%s: %s", what, n.raw)
			}
			w.rung(room, call)
			end(call)
			g.over(what, room, id)
		}
	})
}

func TestAMissedCallIsCountedOnceItIsOnRecord(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		id := w.call(room, alice, "invite", "c", nil)
		g.rings("the call", id)
		w.rung(room, "c")
		w.call(room, alice, "hangup", "c", nil)
		over := false
		w.until("the missed call is counted", func() { w.clock.Advance(time.Second) }, func() bool {
			for len(g.got) > 0 {
				n := g.next()
				over = over || n.Withdrawn != nil
				if n.Counts != nil && n.Counts.MissedCalls == 1 {
					return over
				}
			}
			return false
		})
		w.read(room, bob, w.say(room, bob, "I saw it"))
		w.until("it is not counted any more", func() { w.clock.Advance(time.Second) }, func() bool {
			return len(g.got) > 0 && g.next().Counts.MissedCalls == 0
		})
	})
}

func TestACallThatEndedBeforeItsPushWentOutIsNotHeardOf(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		g.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		id := w.call(room, alice, "invite", "c", nil)
		g.rings("the first try", id)
		w.call(room, alice, "hangup", "c", nil)
		if err := w.calls.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.answers(nil)
		last := w.say(room, alice, "sorry")
		w.until("the message", func() { w.clock.Advance(time.Second) }, func() bool { return len(g.got) > 0 })
		if n := g.heard(); n.EventID != last {
			t.Errorf("%s", n.raw)
		}
	})
}

func TestARingThatEndsWhileItIsToldIsWithdrawn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		room := w.room("invite", bob)
		w.pusher(bob, "k", g.url, nil)
		told, goOn := make(chan struct{}), make(chan struct{})
		g.answers(func(http.ResponseWriter, *http.Request) {
			close(told)
			<-goOn
		})
		id := w.call(room, alice, "invite", "c", nil)
		<-told
		w.call(room, bob, "answer", "c", nil)
		w.until("the ring is taken back", nil, func() bool {
			rows, err := w.store.NextPushes(t.Context(), storage.PusherID{User: bob, AppID: "app", Key: "k"}, 10)
			return err == nil && len(rows) == 0
		})
		g.answers(nil)
		close(goOn)
		g.rings("the ring", id)
		g.over("afterwards", room, id)
	})
}

func TestARingIsWithdrawnAfterARestart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob)
		answered := w.call(room, alice, "invite", "answered", nil)
		g.rings("the first", answered)
		w.rung(room, "answered")
		w.deaf()
		w.call(room, bob, "answer", "answered", nil)
		newWorld(t, w.store, w.clock)
		g.over("answered while nobody looked", room, answered)
	})
}

func TestCallsThatConcernNobodyDoNotRing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		open, closed := w.room("public", bob, carol), w.room("invite", bob, carol)
		w.call(open, alice, "invite", "in-public", nil)
		w.call(closed, alice, "invite", "for-carol", with{"invitee": carol})
		w.call(closed, bob, "invite", "his-own", nil)
		w.send(closed, rooms.Draft{Sender: alice, Device: "Da", TS: w.clock.Now().Add(-2 * time.Minute), Type: "m.call.invite", Content: raw(with{
			"call_id": "late", "version": "1", "party_id": "P", "lifetime": 60_000, "offer": with{"type": "offer", "sdp": "v=0\r\n"},
		})})
		mine := w.call(closed, alice, "invite", "for-bob", with{"invitee": bob})
		g.rings("the call for bob", mine)
		g.nothing("other calls")
	})
}

// notify sends the notification of a MatrixRTC call.
func (w *world) notify(room, sender string, extra with) string {
	w.t.Helper()
	c := with{"notification_type": "ring", "lifetime": 30_000, "sender_ts": w.clock.Now().UnixMilli(), "m.mentions": with{"user_ids": []string{bob}}}
	for k, v := range extra {
		c[k] = v
	}
	return w.send(room, rooms.Draft{Sender: sender, Type: "org.matrix.msc4075.rtc.notification", Content: raw(c)})
}

// joins and leaves a MatrixRTC call.
func (w *world) inCall(room, user string, there bool) {
	w.t.Helper()
	key, content := "_"+user+"_D_m.call", with{}
	if there {
		content = with{"application": "m.call", "call_id": "", "device_id": "D"}
	}
	w.send(room, rooms.Draft{Sender: user, Type: "org.matrix.msc3401.call.member", StateKey: &key, Content: raw(content)})
}

func TestAGroupCallRingsAndIsWithdrawn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		room := w.room("invite", bob, carol)
		for what, end := range map[string]func(id string){
			"declined": func(id string) {
				w.send(room, rooms.Draft{Sender: bob, Type: "org.matrix.msc4310.rtc.decline", Content: raw(with{"m.relates_to": with{"rel_type": "m.reference", "event_id": id}})})
			},
			"joined by another device": func(string) { w.inCall(room, bob, true) },
			"the caller left":          func(string) { w.inCall(room, alice, false) },
			"lapsed":                   func(string) { w.clock.Advance(31 * time.Second) },
			"redacted": func(id string) {
				w.send(room, rooms.Draft{Sender: alice, Type: "m.room.redaction", Redacts: id, Content: raw(with{"redacts": id})})
			},
		} {
			w.inCall(room, bob, false)
			w.inCall(room, alice, true)
			id := w.notify(room, alice, nil)
			g.rings(what, id)
			w.rung(room, id)
			// Somebody else's no is not bob's.
			w.send(room, rooms.Draft{Sender: carol, Type: "org.matrix.msc4310.rtc.decline", Content: raw(with{"m.relates_to": with{"rel_type": "m.reference", "event_id": id}})})
			end(id)
			g.over(what, room, id)
		}
	})
}

func TestAGroupCallThatRingsForNobodyIsSilent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		g := newGateway(t)
		w.pusher(bob, "k", g.url, nil)
		w.notify(w.room("public", bob), alice, nil)
		room := w.room("invite", bob)
		w.notify(room, alice, with{"lifetime": 1, "sender_ts": w.clock.Now().Add(-10 * time.Second).UnixMilli()})
		w.inCall(room, bob, true)
		w.notify(room, alice, nil)
		// Who is in the call is looked up when the push is made, so this one has to have been made before bob leaves: the next one tells.
		next := w.notify(w.room("invite", bob), alice, with{"notification_type": "notification"})
		if n := g.heard(); n.EventID != next {
			t.Errorf("%s", n.raw)
		}
		w.inCall(room, bob, false)
		quiet := w.notify(room, alice, with{"notification_type": "notification"})
		if n := g.heard(); n.EventID != quiet {
			t.Errorf("%s", n.raw)
		}
		// A sender whose clock is wrong is not believed.
		id := w.notify(room, alice, with{"sender_ts": 5})
		g.rings("a wrong clock", id)
	})
}
