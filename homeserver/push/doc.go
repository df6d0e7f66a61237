// SPDX-License-Identifier: Apache-2.0

// Package push decides which events a user is told of, and how: push rules, unread counts, pushers (client-server API, "Push
// notifications").
//
// A user's rules are the predefined ones with what the user changed about them, and the user's own. Only the changes are stored, as
// one row. For use they are compiled into a Set, kept in memory; users who changed nothing share one.
//
//	override: .m.rule.master, own …, predefined …  >  content  >  room  >  sender  >  underride: own …, predefined …
//
// Nothing is evaluated when an event is sent. A room's newest events are kept at hand, and a user's counts are brought up to date
// when a sync asks for them: only for users who are there, and only over what came since they were last asked for.
package push
