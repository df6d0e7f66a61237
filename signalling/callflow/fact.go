// SPDX-License-Identifier: Apache-2.0

package callflow

import (
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// FactKind names what has come to be true.
type FactKind string

const (
	// Ringing: By calls, Other.UserID is the invitee if one is named.
	Ringing FactKind = "ringing"
	// Glare: two users called each other at once. CallID is the lesser id, which goes on by the specification's rule, Target the
	// other one. Nothing is done about it: the clients decide.
	Glare FactKind = "glare"
	// Answered: By took the call; other devices stop ringing.
	Answered FactKind = "answered"
	// Selected: the caller chose the answer of By.
	Selected FactKind = "selected"
	// AnsweredElsewhere: By answered too, but Other was chosen.
	AnsweredElsewhere FactKind = "answered_elsewhere"
	// Active: as far as signalling tells, the caller and By talk.
	Active FactKind = "active"
	// Declined: By does not want the call; it stops ringing.
	Declined FactKind = "declined"
	// Missed: the call stopped ringing without anybody having taken or declined it. Ended follows.
	Missed FactKind = "missed"
	// Renegotiated: By changed the media of a call in progress.
	Renegotiated FactKind = "renegotiated"
	// Transferring: By hands the call on, to Other.UserID if named; Target is the call_id that replaces it (MSC2747).
	Transferring FactKind = "transferring"
	// Identified: By says whom it speaks for: Target is the asserted id, Name the display name (MSC3086).
	Identified FactKind = "identified"
	// Ended: the last fact of a call; Record is set.
	Ended FactKind = "ended"
)

// Fact is one thing that an event, a deadline or a leave made true.
type Fact struct {
	Kind   FactKind
	RoomID string
	CallID string
	At     time.Time
	By     signalling.Party
	Other  signalling.Party
	Media  Media
	Reason string  // with Declined and Ended
	Target string  // see the kind
	Name   string  // with Identified
	Record *Record // with Ended
}

// Media is what a call carries.
type Media string

const (
	Audio Media = "audio"
	Video Media = "video" // at any time of the call
)

// Outcome is how a call went.
type Outcome string

const (
	OutcomeAnswered  Outcome = "answered"  // they talked
	OutcomeMissed    Outcome = "missed"    // nobody answered in time
	OutcomeDeclined  Outcome = "declined"  // the callee did not want it
	OutcomeBusy      Outcome = "busy"      // the callee was in another call
	OutcomeFailed    Outcome = "failed"    // a client could not go on, or media never flowed
	OutcomeCancelled Outcome = "cancelled" // the caller gave up first, or the call was replaced by another
)

// Reasons of a Record beside those that clients send.
const (
	ReasonHangup    = "user_hangup"
	ReasonTimeout   = "invite_timeout"
	ReasonBusy      = "user_busy"
	ReasonReplaced  = "replaced"
	ReasonRejected  = "rejected"
	ReasonLeft      = "user_left"         // a party left the room
	ReasonLoggedOut = "device_logged_out" // a party's device was logged out
	ReasonSilence   = "no_hangup"         // nothing was heard for Config.MaxDuration
)

// Record is what remains of a call: one row of its history. Times are in milliseconds since 1970.
type Record struct {
	CallID     string           `json:"call_id"`
	RoomID     string           `json:"room_id"`
	Caller     signalling.Party `json:"caller"`
	Answerer   signalling.Party `json:"answerer,omitzero"` // who took it, else who declined it
	Invitee    string           `json:"invitee,omitempty"`
	Kind       Media            `json:"kind"`
	Started    int64            `json:"started_ts"`
	Answered   int64            `json:"answered_ts,omitempty"`
	Ended      int64            `json:"ended_ts"`
	Outcome    Outcome          `json:"outcome"`
	Reason     string           `json:"reason"`
	EndedBy    string           `json:"ended_by,omitempty"` // user; empty when time ran out
	DurationMS int64            `json:"duration_ms"`        // from the answer to the end
}

// failure says whether a hangup reason tells of a fault rather than of a wish. Clients know many faults and few wishes.
func failure(reason string) bool {
	switch reason {
	case ReasonHangup, ReasonTimeout, ReasonBusy, ReasonReplaced, "answered_elsewhere", "transferred", "new_session":
		return false
	}
	return true
}
