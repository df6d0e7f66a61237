// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Draft is an event that a local user wants to send.
type Draft struct {
	Sender   string
	Device   string // "" for the server's own doing
	TxnID    string // "" for none; with Device it makes a send idempotent
	Type     string
	StateKey *string
	Content  json.RawMessage
	Redacts  string
	TS       time.Time     // zero: now
	Sticky   time.Duration // how long the event sticks (MSC4354); 0: it does not
}

// DelayedTxn begins the transaction id of an event that was delayed (MSC4140); the delay id follows. Such an event names no device,
// so that no client can take its transaction.
const DelayedTxn = "delayed/"

// Change is one change of a room's current state.
type Change struct {
	Key      event.Key
	New, Old Ref // NID 0: none
}

// Committed tells observers of an event that is now durable. It is the Value of a storage.NoteEvent.
type Committed struct {
	Room    *Room
	Stored  *Stored
	Head    *Head // the room right after it
	Changes []Change
	Before  *Head    // the room right before it; nil for the first event of a room
	Outbox  []string // servers that the event was queued for
	Gap     bool     // history has a hole right before the event: see Room.Holes
}

const maxExtremities = 10 // prev_events of an event we build

// Append adds events to a room, all or none (one by one where the room has a policy server), in order. It returns their ids after the commit. A state event that changes nothing
// gives the id of the one that is there. Errors: ErrNoRoom, M_FORBIDDEN, M_BAD_JSON, M_TOO_LARGE.
func (s *Service) Append(ctx context.Context, roomID string, drafts ...Draft) ([]string, error) {
	if len(drafts) != 1 || drafts[0].TxnID == "" {
		return s.append(ctx, roomID, drafts)
	}
	// The same transaction id twice at the same moment is one send.
	d := drafts[0]
	v, err, _ := s.sends.Do(strings.Join([]string{roomID, d.Sender, d.Device, d.TxnID}, "\x00"), func() (any, error) {
		return s.append(context.WithoutCancel(ctx), roomID, drafts)
	})
	if err != nil {
		return nil, err
	}
	return v.([]string), nil
}

func (s *Service) append(ctx context.Context, roomID string, drafts []Draft) ([]string, error) {
	for try := 0; ; try++ {
		r, err := s.Room(ctx, roomID)
		if err != nil {
			return nil, err
		}
		if len(drafts) == 1 && drafts[0].TxnID != "" {
			id, err := s.store.EventByTxn(ctx, r.NID, drafts[0].Sender, drafts[0].Device, drafts[0].TxnID)
			if err == nil {
				return []string{id}, nil
			}
			if !errors.Is(err, storage.ErrNotFound) {
				return nil, err
			}
		}
		p, err := r.policyAt(ctx, r.Head())
		if err != nil {
			return nil, err
		}
		if p != nil && slices.ContainsFunc(drafts, func(d Draft) bool { return d.Type != policyType || d.StateKey == nil || *d.StateKey != "" }) {
			return s.appendRecommended(ctx, r, p, drafts)
		}
		ids, err := r.append(ctx, drafts)
		if (errors.Is(err, errStale) || errors.Is(err, storage.ErrConflict)) && s.again(ctx, try) {
			continue
		}
		return ids, err
	}
}

// planned is one event on its way to the store.
type planned struct {
	stored  *Stored
	after   *Head
	changes []Change
	groups  []*group // made on the way, to be stored
	redact  *redaction
	foreign bool     // inserted, not appended
	relay   bool     // foreign, and the other servers hear of it from us
	place   bool     // it was an outlier until now
	stays   bool     // it is there, and stays what it is: only what it changes is new
	missing []string // prev_events that are not there
	early   string   // what it redacts, which is not there
	// It is one of the events that others named, or redacted, before it came.
	fillsGap, fillsEarly bool

	skip   int64     // positions left free before it
	outbox []string  // filled in by write
	letIn  []*Sticky // that were soft-failed before; known when the event is written
}

// redaction is what a redaction event does to its target.
type redaction struct {
	target *Stored
	done   *event.Event
}

func (r *Room) append(ctx context.Context, drafts []Draft) ([]string, error) {
	done := make(chan error, 1)
	ids, queued, err := r.build(ctx, drafts, done)
	if err != nil {
		return nil, err
	}
	if !queued { // the same state again: its event may still be on its way to the disk
		for _, id := range ids {
			if r.s.pending.byID(id) != nil {
				if err := r.barrier(ctx); err != nil {
					return nil, err
				}
				break
			}
		}
		return ids, nil
	}
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return ids, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// build makes the events under the room's lock and queues them.
func (r *Room) build(ctx context.Context, drafts []Draft, done chan error) (ids []string, queued bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return nil, false, errStale
	}
	r.used = r.s.clock.Now()
	head := r.next
	if !head.here(r.s.signer.Server) {
		return nil, false, errNotHere
	}
	var plan []planned
	defer func() {
		if !queued {
			r.s.pending.drop(plan)
		}
	}()
	for _, d := range drafts {
		p, same, err := r.plan(ctx, head, d)
		if err != nil {
			return nil, false, err
		}
		if same != "" {
			ids = append(ids, same)
			continue
		}
		plan = append(plan, p)
		ids = append(ids, p.stored.ID())
		head = p.after
	}
	if len(plan) == 0 {
		return ids, false, nil
	}
	if err := r.enqueue(plan, nil, head, func(err error) { done <- err }); err != nil {
		return ids, true, err
	}
	return ids, true, nil
}

// plan builds one event on head and works out what it does.
func (r *Room) plan(ctx context.Context, head *Head, d Draft) (p planned, same string, err error) {
	e, same, err := r.drafted(ctx, head, d, &p)
	if err != nil || same != "" {
		return p, same, err
	}
	ext := head.ext
	if len(ext) > maxExtremities {
		ext = ext[len(ext)-maxExtremities:]
	}
	nid, err := r.nid(ctx, 0)
	if err != nil {
		return p, "", err
	}
	status := storage.StatusOK
	if d.Type == DummyType && d.StateKey == nil {
		status = storage.StatusHidden
	}
	p.stored = &Stored{Event: e, NID: nid, Status: status, StateBefore: head.StateGroup(), StateAfter: head.StateGroup(), Device: d.Device, TxnID: d.TxnID, StickyUntil: stickyUntil(e, r.s.clock.Now())}
	err = r.advance(ctx, &p, head, []Extremity{{NID: nid, ID: e.ID(), Depth: e.Depth()}}, ext)
	return p, "", err
}

// draft builds an event on head that the room allows; same is the id of the event that says it already.
func (r *Room) draft(ctx context.Context, head *Head, d Draft) (e *event.Event, same string, err error) {
	p := planned{} // what its redaction does is worked out when it goes into the room
	return r.drafted(ctx, head, d, &p)
}

// drafted is draft, and notes in p what a redaction does.
func (r *Room) drafted(ctx context.Context, head *Head, d Draft, p *planned) (e *event.Event, same string, err error) {
	if d.StateKey != nil && d.Sticky == 0 { // what sticks anew is not the same again
		if cur, err := r.State(ctx, head, d.Type, *d.StateKey); err != nil {
			return nil, "", err
		} else if cur != nil && cur.Sender() == d.Sender && sameJSON(cur.Content(), d.Content) {
			return nil, cur.ID(), nil
		}
	}
	prev, depth := tips(head)
	ts := d.TS
	if ts.IsZero() {
		ts = r.s.clock.Now()
	}
	state := headState{ctx, r, head}
	if d.Type == "m.room.power_levels" && r.Version.CreatorsRule() {
		if err := r.spares(ctx, head, d.Content); err != nil {
			return nil, "", err
		}
	}
	e, err = event.Build(r.Version, event.Proto{RoomID: r.ID, Sender: d.Sender, Type: d.Type, StateKey: d.StateKey, Content: d.Content, Redacts: d.Redacts, Sticky: d.Sticky}, prev, depth+1, state, r.s.signer, ts)
	if err != nil {
		return nil, "", err
	}
	if err := event.Authorise(e, state); err != nil {
		return nil, "", err
	}
	if d.Type == "m.room.member" && e.Membership() == "join" {
		if err := r.guestMayJoin(ctx, head, d.Sender); err != nil {
			return nil, "", err
		}
	}
	if d.Type == "m.room.member" && e.Membership() == "invite" {
		if err := r.s.MayInvite(ctx, *d.StateKey, d.Sender); err != nil {
			return nil, "", err
		}
	}
	if d.Type == "m.room.redaction" {
		known := false
		if p.redact, known, err = r.redaction(ctx, e, state, true); !known && fits(e.Redacts()) && e.Redacts() != "" && (len(head.members.servers) > 1 || r.holes.Load() > 0) {
			err, p.early = nil, e.Redacts() // another server may have it; it is redacted when it comes
		}
		if err != nil {
			return nil, "", err
		}
	}
	return e, "", nil
}

// spares checks that power levels leave out the creators, who stand above them (room version 12): the rules would refuse the event, but
// it is not for want of power.
func (r *Room) spares(ctx context.Context, head *Head, content []byte) error {
	create, err := r.State(ctx, head, "m.room.create", "")
	if err != nil || create == nil {
		return err
	}
	users := gjson.GetBytes(content, "users").Map()
	for _, u := range event.Creators(create.Event) {
		if _, named := users[u]; named {
			return signalling.BadJSON("%s is a creator of the room, who has every power and no level", u)
		}
	}
	return nil
}

// advance works out the head after p, which replaces the extremities gone by ext.
func (r *Room) advance(ctx context.Context, p *planned, head *Head, ext, gone []Extremity) error {
	after := *head
	after.pos = 0
	after.ext = ext
	for _, x := range head.ext {
		if !slices.ContainsFunc(gone, func(g Extremity) bool { return g.NID == x.NID }) {
			after.ext = append(after.ext, x)
		}
	}
	e := p.stored
	if e.IsState() {
		old, _ := head.state.get(e.Key())
		change := map[event.Key]Ref{e.Key(): {e.NID, e.ID()}}
		after.state = head.state.with(change)
		g, err := r.s.newGroup(ctx, head.group, change, after.state)
		if err != nil {
			return err
		}
		after.group, p.groups = g, []*group{g}
		p.changes = []Change{{Key: e.Key(), New: Ref{e.NID, e.ID()}, Old: old}}
		if m := e.Membership(); m != "" {
			after.members = head.members.with(*e.StateKey(), m)
		}
		st := *e
		st.StateAfter = g.id
		p.stored = &st
	}
	r.s.pending.addEvent(p.stored)
	p.after = &after
	return nil
}

// enqueue queues the plan as one op. The room's lock is held. extra runs first in the same transaction (a new room's row).
func (r *Room) enqueue(plan []planned, extra func(*storage.Tx) error, head *Head, done func(error)) error {
	from := r.next
	r.next = head
	commit := func(tx *storage.Tx) error {
		if r.poisoned.Load() {
			return errStale
		}
		if extra != nil {
			if err := extra(tx); err != nil {
				return err
			}
		}
		heads := make([]*Head, len(plan))
		was := from
		for i := range plan {
			pos, err := r.write(tx, &plan[i], was)
			if err != nil {
				return err
			}
			was = plan[i].after
			h := *plan[i].after
			h.pos = pos
			heads[i] = &h
			if err := r.announce(tx, &plan[i], pos, &h); err != nil {
				return err
			}
		}
		last := heads[len(heads)-1]
		if err := tx.MoveHead(r.NID, extNIDs(from), extNIDs(last), last.StateGroup(), last.pos); err != nil {
			return err
		}
		tx.After(func() {
			before := r.head.Load()
			for i, p := range plan {
				st := *p.stored
				st.Pos = heads[i].pos
				if !p.stays {
					r.s.keep(&st)
				}
				for _, g := range p.groups {
					r.s.groups.Add(g.id, g)
					if g.resolves != "" {
						r.s.resolved.Add(g.resolves, g.id)
					}
				}
				r.keepRedacted(p.redact, st.ID())
				for _, c := range p.changes {
					if c.Key.Type == "m.room.member" {
						r.s.users.moved(storage.Membership{User: c.Key.StateKey, RoomNID: r.NID, RoomID: r.ID, Membership: heads[i].members.of(c.Key.StateKey), EventNID: c.New.NID, Pos: st.Pos})
					}
				}
				c := &Committed{Room: r, Stored: &st, Head: heads[i], Changes: p.changes, Before: before, Outbox: p.outbox, Gap: len(p.missing) > 0}
				before = heads[i]
				plan[i].stored = &st
				tx.Note(storage.Note{Pos: st.Pos, Kind: storage.NoteEvent, User: st.Sender(), Device: st.Device, Room: r.ID, Value: c})
				for _, x := range p.letIn {
					tx.Note(storage.Note{Pos: x.Pos, Kind: storage.NoteSticky, User: x.Stored.Sender(), Room: r.ID, Value: x})
				}
			}
			r.head.Store(last)
			r.s.pending.drop(plan)
		})
		return nil
	}
	r.noteHoles(plan) // now: once it is queued, the plan is the writer's
	if err := r.s.store.Enqueue(commit, func(err error) {
		if err != nil {
			r.abandon(plan)
		}
		done(err)
	}); err != nil {
		r.next = from
		r.s.pending.drop(plan)
		return err
	}
	return nil
}

// keepRedacted puts a redacted event in the place of the one it was.
func (r *Room) keepRedacted(red *redaction, by string) {
	if red == nil {
		return
	}
	st := *red.target
	if cur, ok := r.s.events.Get(st.NID); ok {
		st = *cur // the target may have been committed since
	}
	st.Event, st.RedactedBy, st.StickyUntil = red.done, by, 0
	r.s.keep(&st)
}

func extNIDs(h *Head) []int64 {
	out := make([]int64, len(h.ext))
	for i, x := range h.ext {
		out[i] = x.NID
	}
	return out
}

// abandon gives the room up after a failed commit. It runs on the writer's goroutine, so whatever is queued behind sees it.
func (r *Room) abandon(plan []planned) {
	r.poisoned.Store(true)
	r.s.giveUp(r)
	r.s.pending.drop(plan)
}

// write puts one event into the transaction; was is the head that it found.
func (r *Room) write(tx *storage.Tx, p *planned, was *Head) (int64, error) {
	if p.skip > 0 {
		if err := tx.SkipPos(p.skip); err != nil {
			return 0, err
		}
	}
	pos, err := tx.NextPos()
	if err != nil {
		return 0, err
	}
	e := p.stored
	put := tx.InsertEvent
	if p.place {
		put = tx.PlaceEvent
	}
	if !p.stays {
		if err := put(r.row(e, pos), e.PrevIDs()); err != nil {
			return 0, err
		}
	}
	for _, g := range p.groups {
		if err := tx.InsertStateGroup(g.row(r.NID)); err != nil {
			return 0, err
		}
	}
	if err := r.writeChanges(tx, p, was, pos); err != nil {
		return 0, err
	}
	if err := r.writeSticky(tx, p, was, pos); err != nil {
		return 0, err
	}
	if err := r.writeHoles(tx, p); err != nil {
		return 0, err
	}
	if !e.Status.Accepted() {
		return pos, nil
	}
	if err := r.writeOutbox(tx, p, was, pos); err != nil {
		return 0, err
	}
	return pos, r.writeMeaning(tx, p, pos)
}

func (r *Room) row(e *Stored, pos int64) storage.EventRow {
	return storage.EventRow{NID: e.NID, RoomNID: r.NID, ID: e.ID(), Type: e.Type(), Sender: e.Sender(), StateKey: e.StateKey(), Depth: e.Depth(), OriginTS: e.OriginTS(), Pos: pos,
		Status: e.Status, StateBefore: e.StateBefore, StateAfter: e.StateAfter, RedactedBy: e.RedactedBy, SenderDevice: e.Device, TxnID: e.TxnID, JSON: e.JSON()}
}

// writeChanges records what an event does to the room's current state, and which users of ours come into a room with other servers: those
// are told of their devices.
func (r *Room) writeChanges(tx *storage.Tx, p *planned, was *Head, pos int64) error {
	if len(p.changes) == 0 {
		return nil
	}
	moves := make([]storage.StateMove, len(p.changes))
	var members []storage.Membership
	for i, c := range p.changes {
		moves[i] = storage.StateMove{Type: c.Key.Type, StateKey: c.Key.StateKey, EventNID: c.New.NID, PrevNID: c.Old.NID}
		if c.Key.Type == "m.room.member" {
			user := c.Key.StateKey
			members = append(members, storage.Membership{User: user, RoomNID: r.NID, Membership: p.after.members.of(user), EventNID: c.New.NID, Pos: pos})
			if p.after.Entered(was, user) && event.ServerOf(user) == r.s.signer.Server && r.among(p) {
				if err := tx.InsertDeviceListJoin(user, r.NID); err != nil {
					return err
				}
			}
		}
	}
	if err := tx.SetStates(r.NID, pos, moves); err != nil {
		return err
	}
	return tx.SetMemberships(members)
}

// among says whether other servers are in the room after an event.
func (r *Room) among(p *planned) bool {
	return p.foreign || len(p.after.members.servers) > 1 || r.partial.Load() != nil
}

// writeHoles records what is missing before an event, and that it is missing no more itself.
func (r *Room) writeHoles(tx *storage.Tx, p *planned) error {
	for _, id := range p.missing {
		if err := tx.InsertGap(r.NID, id, p.stored.NID); err != nil {
			return err
		}
	}
	if p.fillsGap {
		if err := tx.DeleteGap(r.NID, p.stored.ID()); err != nil {
			return err
		}
	}
	if p.fillsEarly {
		if err := tx.DeleteEarlyRedactions(r.NID, p.stored.ID()); err != nil {
			return err
		}
	}
	if p.early != "" {
		return tx.InsertEarlyRedaction(r.NID, p.early, p.stored.NID)
	}
	return nil
}

// writeMeaning records what an event relates to and what it redacts.
func (r *Room) writeMeaning(tx *storage.Tx, p *planned, pos int64) error {
	e := p.stored
	if rel := gjson.GetBytes(e.Content(), "m\\.relates_to"); rel.IsObject() {
		// What does not fit into the columns relates to nothing.
		target, kind := rel.Get("event_id"), rel.Get("rel_type")
		if target.Type == gjson.String && fits(target.Str) && fits(kind.Str) {
			if err := tx.InsertRelation(storage.Relation{
				RelatesTo: target.Str, RelType: kind.Str, EventNID: e.NID, RoomNID: r.NID, Sender: e.Sender(), Type: e.Type(), Pos: pos, OriginTS: e.OriginTS(),
			}); err != nil {
				return err
			}
		}
	}
	if p.redact != nil {
		if err := tx.RedactEvent(p.redact.target.NID, p.redact.done.JSON(), e.ID()); err != nil {
			return err
		}
	}
	return nil
}

// hurries says whether an event is one that people wait for with a telephone in their hand.
func hurries(typ string) bool {
	switch typ {
	case "m.rtc.member", "org.matrix.msc4143.rtc.member", "org.matrix.msc3401.call.member", "m.rtc.notification", "org.matrix.msc4075.rtc.notification",
		"org.matrix.msc4075.call.notify", "m.rtc.decline", "org.matrix.msc4310.rtc.decline", "org.matrix.msc4143.rtc.slot", "m.rtc.slot":
		return true
	}
	return strings.HasPrefix(typ, "m.call.")
}

// writeOutbox queues an event for the servers that hear of it from us: those in the room before or after it, and the server of a user
// who was invited, or knocked, and hears now that nothing comes of it.
func (r *Room) writeOutbox(tx *storage.Tx, p *planned, was *Head, pos int64) error {
	e := p.stored
	own, origin := r.s.signer.Server, event.ServerOf(e.Sender())
	if p.foreign && !p.relay || !p.foreign && origin != own {
		return nil
	}
	p.outbox = p.outbox[:0]
	add := func(server string) {
		if server != own && server != origin && server != "" && !slices.Contains(p.outbox, server) {
			p.outbox = append(p.outbox, server)
		}
	}
	if len(p.after.members.servers) > 8 { // the common case without the square
		p.outbox = slices.DeleteFunc(slices.Clone(p.after.members.servers), func(s string) bool { return s == own || s == origin || s == "" })
	} else {
		for _, s := range p.after.members.servers {
			add(s)
		}
	}
	if m := e.Membership(); m != "" && was != nil {
		for _, s := range was.members.servers {
			if p.after.members.counts[s] == 0 {
				add(s)
			}
		}
		if _, had := was.state.get(e.Key()); had && (m == "leave" || m == "ban") {
			add(event.ServerOf(*e.StateKey()))
		}
	}
	if part := r.partial.Load(); part != nil {
		for _, s := range part.Servers {
			add(s)
		}
	}
	urgent := hurries(e.Type())
	for _, server := range p.outbox {
		// The outbox id is the stream position, so that the order to each server is the order of commits.
		if err := tx.InsertOutbox(storage.Queued{Destination: server, Seq: pos, EventNID: e.NID, Urgent: urgent}); err != nil {
			return err
		}
	}
	return nil
}

func fits(s string) bool { return len(s) <= event.MaxIDLength && strings.IndexByte(s, 0) < 0 }

// redaction works out what a redaction does: whoever may redact in the room, or sent the target, takes its content away. strict says
// that a redaction which may not do so is refused (ours); otherwise it just does nothing (another server's, which answers for all of
// its users: room version 3, "Handling redactions").
//
// known is false when the target is not there.
func (r *Room) redaction(ctx context.Context, e *event.Event, state event.State, strict bool) (red *redaction, known bool, err error) {
	m, err := r.s.byEventID(ctx, r, e.Redacts())
	if err != nil {
		return nil, false, err
	}
	target := m[e.Redacts()]
	if target == nil {
		if strict {
			err = signalling.NotFound("there is no such event to redact")
		}
		return nil, false, err
	}
	red, err = r.redacts(e, target, state, strict)
	return red, true, err
}

// redacts works out what a redaction does to its target.
func (r *Room) redacts(e *event.Event, target *Stored, state event.State, strict bool) (*redaction, error) {
	power, err := event.PowerOf(state)
	if err != nil {
		return nil, err
	}
	own := target.Sender() == e.Sender() || !strict && event.ServerOf(target.Sender()) == event.ServerOf(e.Sender())
	if target.Is("m.room.create", "") || !own && power.User(e.Sender()) < power.Redact() {
		if strict {
			return nil, signalling.Forbidden("you may not redact this event")
		}
		return nil, nil
	}
	if target.Redacted() {
		return nil, nil
	}
	done, err := target.Redact()
	if err != nil {
		return nil, fmt.Errorf("redact %s: %w", target.ID(), err)
	}
	return &redaction{target: target, done: done}, nil
}

// sameJSON compares two contents by their canonical form.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	ca, err := event.Canonical(a)
	if err != nil {
		return false
	}
	cb, err := event.Canonical(b)
	return err == nil && bytes.Equal(ca, cb)
}
