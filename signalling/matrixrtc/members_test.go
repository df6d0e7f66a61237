// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func stateMember(content string) MemberEvent {
	key := "_@alice:test_DEV_m.call"
	return MemberEvent{RoomID: "!r:test", EventID: "$e", Type: TypeState, Sender: "@alice:test", StateKey: &key, Content: []byte(content), Sent: noon, Received: noon}
}

func stickyMember(content string) MemberEvent {
	return MemberEvent{RoomID: "!r:test", EventID: "$e", Type: TypeSticky, Sender: "@alice:test", Content: []byte(content), Sent: noon, Received: noon}
}

func TestMembershipsAreReadInBothForms(t *testing.T) {
	state := Sign{RoomID: "!r:test", SlotID: RoomSlot, Source: "state _@alice:test_DEV_m.call", UserID: "@alice:test", EventID: "$e", At: noon}
	sticky := state
	sticky.Source = "sticky @alice:test k"
	with := func(s Sign, change func(*Sign)) Sign { change(&s); return s }
	for _, c := range []struct {
		name     string
		e        MemberEvent
		want     Sign
		gone, ok bool
	}{
		{"Element Call, state", stateMember(`{"application":"m.call","call_id":"","scope":"m.room","device_id":"DEV","expires":14400000,"m.call.intent":"video"}`), with(state, func(s *Sign) { s.Until = noon.Add(4 * time.Hour) }), false, true},
		{"a voice call in a slot of its own", stateMember(`{"application":"m.call","call_id":"x","m.call.intent":"audio"}`), with(state, func(s *Sign) { s.SlotID, s.Audio, s.Until = "m.call#x", true, noon.Add(4*time.Hour) }), false, true},
		{"renewed", stateMember(`{"application":"m.call","created_ts":` + "1767265200000" + `,"expires":7200000}`), with(state, func(s *Sign) { s.Until = noon.Add(time.Hour) }), false, true},
		{"left", stateMember(`{}`), state, true, true},
		{"another application", stateMember(`{"application":"m.game"}`), Sign{}, false, false},
		{"Element Call, sticky", stickyMember(`{"slot_id":"m.call#ROOM","application":{"type":"m.call"},"member":{"id":"m","user_id":"@alice:test","device_id":"DEV"},"msc4354_sticky_key":"k"}`), with(sticky, func(s *Sign) { s.Until = noon.Add(time.Hour) }), false, true},
		{"sticky, left", stickyMember(`{"slot_id":"m.call#ROOM","msc4354_sticky_key":"k"}`), sticky, true, true},
		{"sticky without a key", stickyMember(`{"slot_id":"m.call#ROOM","application":{"type":"m.call"},"member":{"id":"m"}}`), Sign{}, false, false},
		{"another slot", stickyMember(`{"slot_id":"m.game#1","application":{},"member":{},"msc4354_sticky_key":"k"}`), Sign{}, false, false},
		{"no object", stateMember(`[]`), Sign{}, false, false},
	} {
		got, gone, ok := ReadMember(c.e)
		if ok != c.ok || gone != c.gone {
			t.Errorf("%s: gone %v ok %v", c.name, gone, ok)
		}
		if diff := cmp.Diff(c.want, got); ok && diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestACallLastsFromTheFirstSignUntilAWhileAfterTheLast(t *testing.T) {
	c := NewCalls()
	sign := func(user, source string) Sign {
		return Sign{RoomID: "!r:test", SlotID: RoomSlot, UserID: user, Source: source, At: noon}
	}
	if !c.Here(sign("@a:test", "1"), noon) || c.Here(sign("@a:test", "2"), noon) || !c.Here(sign("@b:test", "3"), noon) {
		t.Error("what is new")
	}
	if c.Gone("!r:test", RoomSlot, "1", noon) || c.Gone("!r:test", RoomSlot, "none", noon) || c.Gone("!s:test", RoomSlot, "1", noon) {
		t.Error("somebody is in it still")
	}
	c.Left("!r:test", "@a:test", noon)
	c.Gone("!r:test", RoomSlot, "3", noon)
	if over, next := c.Expire(noon); len(over) != 0 || !next.Equal(noon.Add(linger)) {
		t.Errorf("%v %s", over, next)
	}
	c.Here(sign("@b:test", "4"), noon.Add(time.Second)) // comes back
	c.Gone("!r:test", RoomSlot, "4", noon.Add(2*time.Second))
	over, next := c.Expire(noon.Add(time.Minute))
	if len(over) != 1 || !next.IsZero() || c.Len() != 0 || len(c.Rooms()) != 0 {
		t.Fatalf("%v %s", over, next)
	}
	if diff := cmp.Diff([]string{"@a:test", "@b:test"}, over[0].People); diff != "" || !over[0].Ended.Equal(noon.Add(2*time.Second)) {
		t.Error(diff, over[0].Ended)
	}
}

func FuzzReadMember(f *testing.F) {
	f.Add(`{"application":"m.call","call_id":"","expires":14400000,"created_ts":1}`)
	f.Add(`{"slot_id":"m.call#ROOM","application":{"type":"m.call"},"member":{"id":"m"},"msc4354_sticky_key":"k"}`)
	f.Fuzz(func(t *testing.T, content string) {
		for _, e := range []MemberEvent{stateMember(content), stickyMember(content)} {
			s, gone, ok := ReadMember(e)
			if !ok {
				continue
			}
			if s.Source == "" || s.SlotID == "" || !gone && (s.Until.IsZero() || s.Until.After(noon.Add(8*24*time.Hour))) {
				t.Errorf("%q: %+v", content, s)
			}
			if gone {
				continue
			}
			c := NewCalls()
			c.Here(s, noon)
			c.Expire(noon.Add(30 * 24 * time.Hour))
			if c.Len() != 0 {
				t.Errorf("%q is in a call for ever", content)
			}
		}
	})
}
