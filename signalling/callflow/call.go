// SPDX-License-Identifier: Apache-2.0

package callflow

import (
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

type state int

const (
	ringing state = iota
	declined
	answered
	active
)

// maxAnswers bounds the parties of one call that are remembered as having answered or declined.
const maxAnswers = 16

// call is one call in progress.
type call struct {
	key      key
	old      bool // the caller speaks version 0
	caller   signalling.Party
	invitee  string
	state    state
	video    bool
	started  time.Time
	answered time.Time // first answer, zero before
	deadline time.Time
	slot     int                // in the Tracker's heap
	answers  []signalling.Party // who answered; when active only the chosen one
	rejects  []signalling.Party
	reason   string // of the first reject
	lostTo   *call  // the call that goes on instead, after glare
}

type key struct{ room, id string }

// same says whether two parties are one. A device is compared when both sides know it.
func same(a, b signalling.Party) bool {
	return a.UserID == b.UserID && a.PartyID == b.PartyID && (a.DeviceID == b.DeviceID || a.DeviceID == "" || b.DeviceID == "")
}

func find(parties []signalling.Party, p signalling.Party) int {
	return slices.IndexFunc(parties, func(q signalling.Party) bool { return same(p, q) })
}

// callee says whether p may answer or decline. A user may call themselves, but then must be named as the invitee.
func (c *call) callee(p signalling.Party) bool {
	if p.UserID == c.caller.UserID {
		return c.invitee == p.UserID && p.PartyID != c.caller.PartyID
	}
	return c.invitee == "" || c.invitee == p.UserID
}

// talks says whether p is one of the two ends of an answered call.
func (c *call) talks(p signalling.Party) bool {
	return c.state >= answered && (same(p, c.caller) || find(c.answers, p) >= 0)
}

func (c *call) media() Media {
	if c.video {
		return Video
	}
	return Audio
}

func (c *call) fact(kind FactKind, at time.Time, by signalling.Party) Fact {
	return Fact{Kind: kind, RoomID: c.key.room, CallID: c.key.id, At: at, By: by, Media: c.media()}
}

// step applies an event of party p that is not an invite. done is not nil when the call is over.
func (c *call) step(eventType string, f fields, p signalling.Party, now time.Time, cfg *Config) (facts []Fact, done *ending) {
	switch eventType {
	case TypeAnswer:
		return c.answer(f, p, now, cfg), nil
	case TypeSelectAnswer:
		return c.choose(f, p, now, cfg)
	case TypeReject:
		return c.reject(p, f.reason(ReasonRejected), now, cfg), nil
	case TypeHangup:
		return c.hangup(f, p, now, cfg)
	}
	if !c.talks(p) {
		if same(p, c.caller) && f.video() {
			c.video = true
		}
		return nil, nil
	}
	c.alive(now, cfg)
	video := f.video() && !c.video
	c.video = c.video || video
	switch eventType {
	case TypeNegotiate:
		facts = append(facts, c.fact(Renegotiated, now, p))
	case TypeMetadataChanged, TypeMetadataChangedOld:
		if video {
			facts = append(facts, c.fact(Renegotiated, now, p))
		}
	case TypeReplaces:
		fact := c.fact(Transferring, now, p)
		for _, name := range []string{"create_call", "await_call", "replacement_id"} {
			if id, ok := f.text(name); ok {
				fact.Target = id
				break
			}
		}
		target, _ := f.object("target_user")
		fact.Other.UserID, _ = target.text("id")
		facts = append(facts, fact)
	case TypeAssertedIdentity, TypeAssertedIdentityOld:
		fact := c.fact(Identified, now, p)
		who, _ := f.object("asserted_identity")
		fact.Target, _ = who.text("id")
		fact.Name, _ = who.text("display_name")
		facts = append(facts, fact)
	}
	return facts, nil
}

// alive moves the deadline of an answered call, of which something was heard.
func (c *call) alive(now time.Time, cfg *Config) {
	if later := now.Add(cfg.MaxDuration); later.After(c.deadline) {
		c.deadline = later
	}
}

func (c *call) answer(f fields, p signalling.Party, now time.Time, cfg *Config) []Fact {
	if !c.callee(p) || find(c.answers, p) >= 0 {
		return nil
	}
	if c.state == active {
		late := c.fact(AnsweredElsewhere, now, p)
		late.Other = c.answers[0]
		return []Fact{late}
	}
	if len(c.answers) == maxAnswers {
		return nil
	}
	c.answers = append(c.answers, p)
	c.video = c.video || f.video()
	switch {
	case c.old || f.old():
		// Version 0 has no select_answer: the first answer is the one, also after somebody else has declined.
		return append(c.take(p, now, cfg), c.connect(p, now)...)
	case c.state == ringing:
		return c.take(p, now, cfg)
	}
	// The second of several devices, or one that crossed a reject: the caller's select_answer will tell which counts.
	return nil
}

// take notes the first answer that counts.
func (c *call) take(p signalling.Party, now time.Time, cfg *Config) []Fact {
	if c.state == answered {
		return nil
	}
	c.state, c.answered, c.deadline = answered, now, now.Add(cfg.MaxDuration)
	return []Fact{c.fact(Answered, now, p)}
}

// connect makes p the other end.
func (c *call) connect(p signalling.Party, now time.Time) []Fact {
	facts := []Fact{c.fact(Active, now, p)}
	for _, other := range c.answers {
		if !same(other, p) {
			late := c.fact(AnsweredElsewhere, now, other)
			late.Other = p
			facts = append(facts, late)
		}
	}
	c.state, c.answers = active, []signalling.Party{p}
	return facts
}

func (c *call) choose(f fields, p signalling.Party, now time.Time, cfg *Config) ([]Fact, *ending) {
	chosen, ok := f.text("selected_party_id")
	if !ok || !same(p, c.caller) || c.state == active || c.state == ringing {
		return nil, nil
	}
	byID := func(q signalling.Party) bool { return q.PartyID == chosen }
	if i := slices.IndexFunc(c.answers, byID); i >= 0 {
		winner := c.answers[i]
		var facts []Fact
		if c.state == declined {
			facts = c.take(winner, now, cfg)
		}
		facts = append(facts, c.fact(Selected, now, winner))
		c.alive(now, cfg)
		return append(facts, c.connect(winner, now)...), nil
	}
	if i := slices.IndexFunc(c.rejects, byID); i >= 0 {
		// An answer may have crossed the reject that the caller took; then nobody has talked.
		c.answered, c.answers = time.Time{}, nil
		return nil, c.refused(c.rejects[i], c.rejects[i].UserID, now)
	}
	return nil, nil
}

func (c *call) reject(p signalling.Party, reason string, now time.Time, cfg *Config) []Fact {
	if !c.callee(p) || c.state == active || find(c.answers, p) >= 0 || find(c.rejects, p) >= 0 || len(c.rejects) == maxAnswers {
		return nil
	}
	c.rejects = append(c.rejects, p)
	if c.state != ringing {
		return nil
	}
	c.state, c.reason = declined, reason
	if soon := now.Add(cfg.DeclineWait); soon.Before(c.deadline) {
		c.deadline = soon
	}
	fact := c.fact(Declined, now, p)
	fact.Reason = reason
	return []Fact{fact}
}

func (c *call) hangup(f fields, p signalling.Party, now time.Time, cfg *Config) ([]Fact, *ending) {
	reason := f.reason(ReasonHangup)
	if !same(p, c.caller) && c.state < answered {
		// Version 0 has no reject. In version 1 a party that has not answered has nothing to hang up, except a bridge to a
		// network that says "busy".
		if f.old() || reason == ReasonBusy {
			if reason == ReasonHangup {
				reason = ReasonRejected
			}
			return c.reject(p, reason, now, cfg), nil
		}
		return nil, nil
	}
	return c.quit(p, reason, now)
}

// quit ends p's part in the call.
func (c *call) quit(p signalling.Party, reason string, now time.Time) ([]Fact, *ending) {
	if same(p, c.caller) {
		return nil, c.over(reason, p.UserID, now)
	}
	i := find(c.answers, p)
	if i < 0 || c.state < answered {
		return nil, nil
	}
	if len(c.answers) > 1 {
		// One of several devices that answered withdraws before the caller has chosen.
		c.answers = slices.Delete(c.answers, i, i+1)
		return nil, nil
	}
	return nil, c.over(reason, p.UserID, now)
}

// ending is how a call came to its end.
type ending struct {
	outcome  Outcome
	reason   string
	by       string // user; empty when time ran out
	at       time.Time
	answerer signalling.Party
	missed   bool // somebody should be told that they were called
}

// over is the end by a party that was in the call, for a reason of its own.
func (c *call) over(reason, by string, at time.Time) *ending {
	e := &ending{reason: reason, by: by, at: at}
	switch c.state {
	case ringing:
		switch {
		case reason == ReasonTimeout:
			e.outcome, e.missed = OutcomeMissed, true
		case reason == ReasonReplaced:
			e.outcome = OutcomeCancelled
		case failure(reason) && reason != ReasonLeft && reason != ReasonLoggedOut:
			e.outcome, e.missed = OutcomeFailed, true
		default:
			e.outcome, e.missed = OutcomeCancelled, true
		}
	case declined:
		return c.refused(c.rejects[0], by, at)
	case answered, active:
		e.outcome, e.answerer = OutcomeAnswered, c.answers[0]
		// ice_failed means by definition that media never flowed; ice_timeout that it did. Other faults are told apart by whether
		// the call had been set up.
		faulty := failure(reason) && reason != ReasonLeft && reason != ReasonLoggedOut && reason != ReasonSilence
		if faulty && (c.state == answered || reason == "ice_failed" || reason == "user_media_failed") {
			e.outcome = OutcomeFailed
		}
	}
	return e
}

// refused is the end of a call that p did not want.
func (c *call) refused(p signalling.Party, by string, at time.Time) *ending {
	e := &ending{outcome: OutcomeDeclined, reason: c.reason, by: by, at: at, answerer: p}
	if e.reason == "" {
		e.reason = ReasonRejected
	}
	if e.reason == ReasonBusy {
		e.outcome = OutcomeBusy
	}
	return e
}

// timeout is the end of a call at its deadline.
func (c *call) timeout() *ending {
	switch c.state {
	case ringing:
		if c.lostTo != nil && !c.lostTo.answered.IsZero() {
			return &ending{outcome: OutcomeCancelled, reason: ReasonReplaced, at: c.deadline}
		}
		return c.over(ReasonTimeout, "", c.deadline)
	case declined:
		return c.refused(c.rejects[0], c.rejects[0].UserID, c.deadline)
	}
	return c.over(ReasonSilence, "", c.deadline)
}

// finish writes the last facts.
func (c *call) finish(e *ending) []Fact {
	var facts []Fact
	by := signalling.Party{UserID: e.by}
	if e.missed {
		missed := c.fact(Missed, e.at, c.caller)
		missed.Other.UserID = c.invitee
		facts = append(facts, missed)
	}
	r := &Record{
		CallID: c.key.id, RoomID: c.key.room, Caller: c.caller, Answerer: e.answerer, Invitee: c.invitee, Kind: c.media(),
		Started: c.started.UnixMilli(), Ended: max(e.at.UnixMilli(), c.started.UnixMilli()),
		Outcome: e.outcome, Reason: e.reason, EndedBy: e.by,
	}
	if !c.answered.IsZero() {
		r.Answered = max(c.answered.UnixMilli(), r.Started)
		r.Ended = max(r.Ended, r.Answered)
		r.DurationMS = r.Ended - r.Answered
	}
	last := c.fact(Ended, e.at, by)
	last.Reason, last.Record = e.reason, r
	return append(facts, last)
}
