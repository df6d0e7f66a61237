// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"errors"
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
	if d.StateKey != nil && r.Version.OwnedState() {
		if _, err := event.StateOwner(*d.StateKey); err != nil {
			return nil, "", err
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
