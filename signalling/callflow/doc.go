// SPDX-License-Identifier: Apache-2.0

// Package callflow understands 1:1 calls made of m.call.* events (Matrix client-server API, "Voice over IP"; version 0, version 1
// and what calls itself newer, which the specification reads as 1).
//
// It is pure: an Event goes in, Facts come out. It reads no clock (time comes with the event), starts no goroutine, stores nothing
// and forbids nothing. Its facts are derived data for call history, push and metrics; no event is ever accepted or refused because
// of them. In an encrypted room the server sees m.room.encrypted only, so nothing may depend on a fact being there.
//
//	                invite                     (deadline: lifetime, at most Config.MaxLifetime)
//	                  │  Ringing, perhaps Glare
//	                  ▼
//	  hangup ◄── ┌─────────┐ ── deadline ──────────────────────────────► Missed, Ended(missed)
//	 of caller   │ ringing │
//	    │        └─────────┘ ── reject, v0 hangup of callee,
//	    ▼          │   │        hangup user_busy ──► Declined ──► ┌──────────┐
//	 Missed,       │   └────────────────────────────────────────► │ declined │ ── select_answer of the rejecter,
//	 Ended         │ answer                                       └──────────┘    hangup of caller, deadline
//	(cancelled)    │  Answered                 select_answer of an   │              (Config.DeclineWait)
//	               ▼                           answer after all      │                 ──► Ended(declined | busy)
//	         ┌──────────┐                                            │
//	         │ answered │ ── hangup, leave ──► Ended                 │
//	         └──────────┘                                            │
//	               │ select_answer (or at once, when one side        │
//	               │ speaks version 0)                               │
//	               │  Selected, Active, AnsweredElsewhere            │
//	               ▼                                                 │
//	           ┌────────┐ ◄──────────────────────────────────────────┘
//	           │ active │ ── hangup, leave, logout, Config.MaxDuration of silence ──► Ended(answered | failed)
//	           └────────┘
//	               └── negotiate ──► Renegotiated,  replaces ──► Transferring,  asserted_identity ──► Identified
//
// Who may do what: a call belongs to its parties, each a user and a party_id (in version 0 the user alone). Before an answer any
// user in the room may answer or decline, unless the invite names its invitee; only the caller may select or cancel. Later only
// the caller and the chosen party count. Everything else (a stranger's hangup, a wrong party_id, a second invite with the same
// call_id) changes nothing.
//
// Each call ends once, with one Record. Then it is forgotten but for its call_id, which is remembered for a while so that a replay
// does not start it again. All memory is bounded by Config.
package callflow
