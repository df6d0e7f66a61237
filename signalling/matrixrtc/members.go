// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import (
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// Types of membership events, with their unstable names.
const (
	TypeState        = "org.matrix.msc3401.call.member" // state event, one for each device
	TypeStateStable  = "m.call.member"
	TypeSticky       = "org.matrix.msc4143.rtc.member" // sticky event (MSC4354) in the timeline
	TypeStickyStable = "m.rtc.member"
)

const (
	stateLife  = 4 * time.Hour // of a state membership that does not say
	stickyLife = time.Hour     // the longest that an event sticks
)

// IsMember says whether an event type is a membership of a call.
func IsMember(typ string) bool {
	return typ == TypeState || typ == TypeSticky || typ == TypeStateStable || typ == TypeStickyStable
}

// Sign is a sign that somebody is in a call: a membership event, or a session in the SFU.
type Sign struct {
	RoomID, SlotID string
	Source         string // which sign it is, unique in the slot; a newer one of the same source stands for the older
	UserID         string
	EventID        string    // "" for a session
	Audio          bool      // the member means to speak only
	Until          time.Time // it counts no longer than that; zero for as long as nothing else is heard
	At             time.Time
}

// MemberEvent is a membership event as a room has it.
type MemberEvent struct {
	RoomID, EventID, Type, Sender string
	StateKey                      *string
	Content                       []byte
	Sent, Received                time.Time
	Sticky                        time.Duration // of a sticky event; 0 for others
}

// ReadMember gives the sign that a membership event is. gone: it says that the member has left. ok is false for events that are no
// membership of a call (m.call), or that cannot be read.
func ReadMember(e MemberEvent) (s Sign, gone, ok bool) {
	c := gjson.ParseBytes(e.Content)
	if !c.IsObject() {
		return s, false, false
	}
	s = Sign{RoomID: e.RoomID, UserID: e.Sender, EventID: e.EventID, At: e.Sent}
	if s.At.IsZero() || s.At.After(e.Received) {
		s.At = e.Received
	}
	switch e.Type {
	case TypeState, TypeStateStable:
		if e.StateKey == nil {
			return s, false, false
		}
		s.Source, s.SlotID = "state "+*e.StateKey, RoomSlot
		if id := c.Get("call_id").Str; id != "" && id != "ROOM" {
			s.SlotID = "m.call#" + id
		}
		app := c.Get("application")
		if !app.Exists() {
			return s, true, true // {} is a leave; so is everything else that is no membership
		}
		s.Audio = c.Get("m\\.call\\.intent").Str == "audio"
		life := stateLife
		if ms := c.Get("expires").Int(); ms > 0 {
			life = time.Duration(min(ms, (7*24*time.Hour).Milliseconds())) * time.Millisecond
		}
		began := s.At
		if ms := c.Get("created_ts").Int(); ms > 0 && ms < e.Received.UnixMilli() {
			began = time.UnixMilli(ms)
		}
		s.Until = began.Add(life)
		return s, false, app.Str == "m.call"
	case TypeSticky, TypeStickyStable:
		key := c.Get("msc4354_sticky_key").Str
		if key == "" {
			key = c.Get("sticky_key").Str
		}
		s.SlotID, s.Source = c.Get("slot_id").Str, "sticky "+e.Sender+" "+key
		if !strings.HasPrefix(s.SlotID, "m.call#") || key == "" || len(s.SlotID) > 255 {
			return s, false, false
		}
		app, member := c.Get("application"), c.Get("member")
		if !app.Exists() || !member.Exists() || member.Get("membership").Str == "leave" {
			return s, true, true
		}
		s.Audio = app.Get("m\\.call\\.intent").Str == "audio"
		life := e.Sticky
		if life <= 0 || life > stickyLife {
			life = stickyLife
		}
		s.Until = s.At.Add(life)
		return s, false, true
	}
	return s, false, false
}
