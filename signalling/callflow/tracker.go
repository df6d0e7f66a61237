// SPDX-License-Identifier: Apache-2.0

package callflow

import (
	"container/heap"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Config bounds a Tracker. Zero fields take the defaults named beside them.
type Config struct {
	MaxLifetime time.Duration // 10 min: an invite that asks for more is cut to this
	MaxDuration time.Duration // 24 h: an answered call of which nothing is heard for so long is over
	DeclineWait time.Duration // 10 s: how long a select_answer may still overrule a reject

	MaxCalls     int // 20,000 calls in progress
	MaxPerRoom   int // 32 calls in progress in one room
	MaxPerCaller int // 16 calls in progress begun by one user
	MaxEnded     int // 16,384 ended calls whose ids are remembered
}

func (c Config) withDefaults() Config {
	for d, def := range map[*time.Duration]time.Duration{
		&c.MaxLifetime: defaultMaxLifetime, &c.MaxDuration: 24 * time.Hour, &c.DeclineWait: 10 * time.Second,
	} {
		if *d <= 0 {
			*d = def
		}
	}
	for n, def := range map[*int]int{&c.MaxCalls: 20_000, &c.MaxPerRoom: 32, &c.MaxPerCaller: 16, &c.MaxEnded: 16_384} {
		if *n <= 0 {
			*n = def
		}
	}
	return c
}

// Stats counts the calls of a Tracker.
type Stats struct {
	Ringing  int    // not answered yet, or just declined
	Answered int    // answered or active
	Refused  uint64 // invites not tracked because a bound of Config was met, since New
}

// Tracker follows many calls. It is safe for concurrent use. Invites beyond the bounds of Config are not tracked (and counted in
// Stats.Refused); calls in progress are never thrown out for newer ones.
type Tracker struct {
	cfg Config

	mu      sync.Mutex
	calls   map[key]*call
	rooms   map[string]map[*call]struct{}
	callers map[string]int
	due     deadlines
	ended   map[key]struct{}
	ring    []key // the keys of ended, oldest at next
	next    int
	talking int
	refused uint64
}

// NewTracker makes a Tracker without calls.
func NewTracker(cfg Config) *Tracker {
	return &Tracker{
		cfg:     cfg.withDefaults(),
		calls:   make(map[key]*call),
		rooms:   make(map[string]map[*call]struct{}),
		callers: make(map[string]int),
		ended:   make(map[key]struct{}),
	}
}

// Observe takes an event that a room has accepted, and says what follows from it. Events of other types, events that make no sense
// and events of strangers yield nothing.
func (t *Tracker) Observe(ev Event) []Fact {
	if !IsCall(ev.Type) || ev.RoomID == "" || ev.Sender == "" {
		return nil
	}
	f, ok := object(ev.Content)
	if !ok {
		return nil
	}
	id, ok := f.text("call_id")
	if !ok || id == "" || len(id) > maxID {
		return nil
	}
	p := f.party(ev)
	if len(p.PartyID) > maxID {
		return nil
	}
	k := key{ev.RoomID, id}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.calls[k]
	if ev.Type == TypeInvite {
		if c != nil {
			return nil
		}
		if _, over := t.ended[k]; over {
			return nil
		}
		return t.invite(k, f, p, ev)
	}
	if c == nil {
		return nil
	}
	if !ev.Received.Before(c.deadline) {
		return t.end(c, c.timeout())
	}
	before := c.state
	facts, done := c.step(ev.Type, f, p, ev.Received, &t.cfg)
	if before < answered && c.state >= answered {
		t.talking++
	}
	if done != nil {
		return append(facts, t.end(c, done)...)
	}
	heap.Fix(&t.due, c.slot)
	return facts
}

func (t *Tracker) invite(k key, f fields, p signalling.Party, ev Event) []Fact {
	life := f.lifetime(t.cfg.MaxLifetime)
	var age time.Duration
	if !ev.Sent.IsZero() {
		age = min(max(0, ev.Received.Sub(ev.Sent)), life)
	}
	c := &call{key: k, old: f.old(), caller: p, video: f.video(), started: ev.Received.Add(-age)}
	if c.invitee, _ = f.text("invitee"); len(c.invitee) > maxID {
		return nil // no user has such a name, so nobody is called
	}
	c.deadline = c.started.Add(life)
	room := t.rooms[k.room]
	if len(t.calls) >= t.cfg.MaxCalls || len(room) >= t.cfg.MaxPerRoom || t.callers[ev.Sender] >= t.cfg.MaxPerCaller {
		t.refused++
		return nil
	}
	t.add(c)
	if age >= life {
		return t.end(c, c.timeout())
	}
	first := c.fact(Ringing, ev.Received, c.caller)
	first.Other.UserID = c.invitee
	facts := []Fact{first}
	for other := range room {
		if other != c && other.state == ringing && ev.Received.Before(other.deadline) && c.crosses(other) {
			facts = append(facts, glare(c, other, ev.Received))
		}
	}
	return facts
}

// crosses says whether two invites were meant for each other's senders.
func (c *call) crosses(o *call) bool {
	return c.caller.UserID != o.caller.UserID &&
		(c.invitee == "" || c.invitee == o.caller.UserID) && (o.invitee == "" || o.invitee == c.caller.UserID)
}

// glare reports two crossing invites. The lexicographically lesser call_id goes on (specification, "Glare").
func glare(a, b *call, at time.Time) Fact {
	winner, loser := a, b
	if b.key.id < a.key.id {
		winner, loser = b, a
	}
	loser.lostTo = winner
	fact := winner.fact(Glare, at, winner.caller)
	fact.Other, fact.Target = loser.caller, loser.key.id
	return fact
}

// Expire ends the calls whose deadline has come.
func (t *Tracker) Expire(now time.Time) []Fact {
	t.mu.Lock()
	defer t.mu.Unlock()
	var facts []Fact
	for len(t.due) > 0 && !now.Before(t.due[0].deadline) {
		c := t.due[0]
		facts = append(facts, t.end(c, c.timeout())...)
	}
	return facts
}

// NextDeadline is when Expire should be called next; false when no call is in progress.
func (t *Tracker) NextDeadline() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.due) == 0 {
		return time.Time{}, false
	}
	return t.due[0].deadline, true
}

// Leave tells that user is no longer in room, which the specification reads as a hangup. An invitee who leaves has declined.
func (t *Tracker) Leave(room, user string, now time.Time) []Fact {
	t.mu.Lock()
	defer t.mu.Unlock()
	var facts []Fact
	for c := range t.rooms[room] {
		facts = append(facts, t.drop(c, ReasonLeft, now, func(p signalling.Party) bool { return p.UserID == user })...)
		if t.calls[c.key] == c && c.state == ringing && c.invitee == user {
			c.reason = ReasonLeft
			facts = append(facts, t.end(c, c.refused(signalling.Party{UserID: user}, user, now))...)
		}
	}
	return facts
}

// Logout tells that a device of user is gone, and with it its calls. A party whose device is not known is taken to use its device
// id as party_id, as clients do.
func (t *Tracker) Logout(user, device string, now time.Time) []Fact {
	if device == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var facts []Fact
	for _, c := range t.calls {
		facts = append(facts, t.drop(c, ReasonLoggedOut, now, func(p signalling.Party) bool {
			return p.UserID == user && (p.DeviceID == device || (p.DeviceID == "" && p.PartyID == device))
		})...)
	}
	return facts
}

// drop ends the part of each party that is gone.
func (t *Tracker) drop(c *call, reason string, now time.Time, gone func(signalling.Party) bool) []Fact {
	if gone(c.caller) {
		return t.end(c, c.over(reason, c.caller.UserID, now))
	}
	for i := len(c.answers) - 1; i >= 0; i-- {
		if !gone(c.answers[i]) {
			continue
		}
		if c.state == declined {
			c.answers = append(c.answers[:i], c.answers[i+1:]...)
		} else if _, done := c.quit(c.answers[i], reason, now); done != nil {
			return t.end(c, done)
		}
	}
	return nil
}

// Ringing says whether the call waits for its first answer: false when it was answered, declined, hung up or never seen. Deadlines
// count once Expire has seen them.
func (t *Tracker) Ringing(room, callID string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.calls[key{room, callID}]
	return c != nil && c.state == ringing
}

// Stats counts the calls in progress.
func (t *Tracker) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{Ringing: len(t.calls) - t.talking, Answered: t.talking, Refused: t.refused}
}

func (t *Tracker) add(c *call) {
	t.calls[c.key] = c
	room := t.rooms[c.key.room]
	if room == nil {
		room = make(map[*call]struct{})
		t.rooms[c.key.room] = room
	}
	room[c] = struct{}{}
	t.callers[c.caller.UserID]++
	heap.Push(&t.due, c)
}

// end forgets the call but for its key, and writes its last facts.
func (t *Tracker) end(c *call, e *ending) []Fact {
	delete(t.calls, c.key)
	room := t.rooms[c.key.room]
	if delete(room, c); len(room) == 0 {
		delete(t.rooms, c.key.room)
	}
	if t.callers[c.caller.UserID]--; t.callers[c.caller.UserID] == 0 {
		delete(t.callers, c.caller.UserID)
	}
	heap.Remove(&t.due, c.slot)
	if c.state >= answered {
		t.talking--
	}
	if len(t.ring) < t.cfg.MaxEnded {
		t.ring = append(t.ring, c.key)
	} else {
		delete(t.ended, t.ring[t.next])
		t.ring[t.next] = c.key
		t.next = (t.next + 1) % len(t.ring)
	}
	t.ended[c.key] = struct{}{}
	c.lostTo = nil
	return c.finish(e)
}

// deadlines is a heap of calls, the next to expire first.
type deadlines []*call

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].slot, d[j].slot = i, j
}

// Push is for container/heap.
func (d *deadlines) Push(x any) {
	c := x.(*call)
	c.slot = len(*d)
	*d = append(*d, c)
}

// Pop is for container/heap.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	c := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return c
}
