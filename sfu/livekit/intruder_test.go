// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// S11: a hidden participant is told to nobody, and sees.
func TestAHiddenParticipantIsToldToNobody(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	sid := a.publish("audio")
	m, join := enter(t, h, options{identity: "moderator", room: "r", single: true, claims: func(c *Claims) { c.Video.Hidden = true }})
	if len(join.GetOtherParticipants()) != 1 {
		t.Errorf("the hidden one sees %v", join.GetOtherParticipants())
	}
	m.receive(map[string]string{sid: "alice-audio"})
	_, join = enter(t, h, options{identity: "bob", room: "r", single: true})
	if o := join.GetOtherParticipants(); len(o) != 1 || o[0].GetIdentity() != "alice" {
		t.Errorf("bob sees %v", o)
	}
	seen := false
	a.until("bob", func(r *wire.SignalResponse) bool { // who came after the hidden one
		bob := false
		for _, p := range r.GetUpdate().GetParticipants() {
			seen = seen || p.GetIdentity() == "moderator"
			bob = bob || p.GetIdentity() == "bob"
		}
		return bob
	})
	if seen {
		t.Error("alice was told of the hidden one")
	}
}

// S13: SSRCs are names within one connection: a stranger that sends with another's takes nothing from it, nor gives it anything.
func TestAnothersSSRCBelongsToWhoeverSendsIt(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	m, _ := enter(t, h, options{identity: "mallory", room: "r", single: true})
	a.ssrc, m.ssrc = 0xABCD, 0xABCD
	want := map[string]string{a.publish("audio"): "alice-audio", m.publish("audio"): "mallory-audio"}
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	b.receive(want)
}

// S21: consent runs out when the client's checks do not come.
func TestAClientThatFallsSilentIsRemoved(t *testing.T) {
	h := newHouse(t, func(c *sfu.Config, _ *Config) { c.SilentFor = time.Millisecond }) // checks come every two seconds
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	l := a.until("the end", func(m *wire.SignalResponse) bool { return m.GetLeave() != nil })
	if l.GetLeave().GetReason() != wire.DisconnectReason_CONNECTION_TIMEOUT {
		t.Errorf("leave %v", l)
	}
}

// S41: a webhook's receiver cannot send us, and the token, elsewhere.
func TestAWebhookFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the hook went where it was sent") }))
	defer elsewhere.Close()
	asked := make(chan struct{}, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		asked <- struct{}{}
	}))
	defer receiver.Close()
	hooks := NewHooks([]string{receiver.URL}, testKeys, testKey, slog.New(slog.DiscardHandler))
	hooks.Note(sfu.Entry{What: sfu.RoomStarted})
	wait(t, asked, "the hook")
	wait(t, asked, "the second try: the first one counts as failed")
	hooks.Close()
}

// S45 to S48: names are names, however they look; rooms that nobody is in do not pile up.
func TestOddNamesAreOnlyNamesAndEmptyRoomsAreForgotten(t *testing.T) {
	h := newHouse(t, func(c *sfu.Config, _ *Config) {
		c.MaxRooms, c.EmptyFor, c.DepartedFor = 50, time.Millisecond, time.Millisecond
	})
	for _, name := range []string{"../../etc/passwd", "a\x00b", "раураl", "\u202Egnp.exe", "'; DROP TABLE rooms; --", "%s%n", "<script>"} {
		a, join := enter(t, h, options{identity: name, room: name, single: true})
		if join.GetRoom().GetName() != name || join.GetParticipant().GetIdentity() != name {
			t.Errorf("%q became %q in %q", name, join.GetParticipant().GetIdentity(), join.GetRoom().GetName())
		}
		a.say(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{}}})
	}
	full := false
	for i := range 200 {
		status, b := h.ask(t, admin(""), "CreateRoom", map[string]any{"name": fmt.Sprint("room ", i)})
		var f failure
		full = full || status != http.StatusOK && json.Unmarshal(b, &f) == nil && f.Code == "resource_exhausted"
		if status != http.StatusOK && !full {
			t.Fatalf("CreateRoom: %d %s", status, b)
		}
	}
	if n := h.engine.Totals().Rooms; n > 50 {
		t.Errorf("%d rooms", n)
	}
	if !full { // two hundred within a second: the limit must have been met
		t.Log("the machine is so slow that rooms end before the limit is met")
	}
	for end := time.Now().Add(patience); h.engine.Totals().Rooms > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d rooms are left", h.engine.Totals().Rooms)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
