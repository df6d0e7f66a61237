// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"slices"
	"sync"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// How far back counts reach when they are made from the store: nobody looks at the difference between 500 and more, and a first
// sync of a hundred rooms must not read them whole.
const (
	maxBack        = 500 // events after the newest receipt
	maxBackThreads = 100 // older ones, that may stand unread in a thread
	maxListed      = 64  // unread events of a user in a room whose positions are kept
)

// Tally is a number of unread events. An alias, so that sync need not know push.
type Tally = struct{ Notify, Highlight int64 }

type counterKey struct {
	user string
	room int64
}

// counter is what one user has not read in one room.
type counter struct {
	reads reads // guarded by itself: the store's writer adds to it and must not wait

	mu      sync.Mutex
	upto    int64 // every event up to this position is counted; 0: nothing is yet
	marks   map[string]int64
	unread  []unread         // what the tallies are made of, oldest first; nil when there were too many
	long    bool             // there were
	tallies map[string]Tally // by thread, "" for the main timeline
}

type unread struct {
	pos       int64
	thread    string
	highlight bool
}

// reads are receipts that no sync has taken into account yet: the newest for each thread. Of too many threads the counter forgets
// everything and is made anew.
type reads struct {
	mu   sync.Mutex
	upTo map[string]int64
	anew bool
}

const maxReads = 32

func (r *reads) add(thread string, pos int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.upTo[thread]; !known && len(r.upTo) >= maxReads {
		r.anew, r.upTo = true, nil
	}
	if r.upTo == nil {
		r.upTo = map[string]int64{}
	}
	r.upTo[thread] = max(r.upTo[thread], pos)
}

func (r *reads) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.anew, r.upTo = true, nil
}

func (r *reads) take() (upTo map[string]int64, anew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	upTo, anew = r.upTo, r.anew
	r.upTo, r.anew = nil, false
	return upTo, anew
}

// recent holds the newest events of a room.
type recent struct {
	mu    sync.Mutex
	since int64 // every event after this position is here
	items [128]seen
	n     int // events added ever
}

type seen struct {
	pos  int64
	view *View
}

func (r *recent) add(pos int64, v *View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := &r.items[r.n%len(r.items)]
	if r.n >= len(r.items) {
		r.since = slot.pos
	}
	*slot = seen{pos, v}
	r.n++
}

// after gives the events with from < position <= to, oldest first; ok is false when some of them are not here any more.
func (r *recent) after(from, to int64) (out []seen, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.since {
		return nil, false
	}
	for i := max(0, r.n-len(r.items)); i < r.n; i++ {
		if x := r.items[i%len(r.items)]; x.pos > from && x.pos <= to {
			out = append(out, x)
		}
	}
	return out, true
}

// Observe takes the notes of a commit (storage.Store.Observe): new events of rooms and receipts. It does no more than remember
// them. It must be told before syncs are, so that an event and the count with it go out together; on several nodes it must see the
// notes of all of them, in order.
func (s *Service) Observe(pos int64, notes []storage.Note) {
	defer s.observed.Store(pos)
	for i := range notes {
		switch n := &notes[i]; n.Kind {
		case storage.NoteEvent:
			if c, ok := n.Value.(*rooms.Committed); ok && c.Stored != nil && c.Stored.Status == storage.StatusOK && c.Stored.Pos > 0 {
				s.happened(c, n.Remote)
			}
		case storage.NoteAccountData:
			if n.Remote && n.Room == "" {
				s.sets.Remove(n.User) // it may be his rules
			}
		case storage.NoteLost:
			s.sets.Purge()
			s.counters.Purge()
			s.recent.Purge()
		case storage.NoteReceipt:
			if r, ok := n.Value.(interface {
				ReadUpTo() (user string, roomNID int64, thread string, pos int64)
			}); ok {
				s.Read(r.ReadUpTo())
			}
		}
	}
}

func (s *Service) happened(c *rooms.Committed, remote bool) {
	e, room := c.Stored, c.Room
	r, ok := s.recent.Get(room.NID)
	if !ok {
		r = &recent{since: e.Pos - 1}
		s.recent.Add(room.NID, r)
	}
	r.add(e.Pos, NewView(e.Type(), e.Sender(), room.ID, e.StateKey(), e.JSON()))
	if e.Type() == "m.room.member" && e.IsState() {
		u := *e.StateKey()
		was, is := c.Before != nil && c.Before.IsJoined(u), c.Head.IsJoined(u)
		if was != is {
			if x, ok := s.counters.Peek(counterKey{u, room.NID}); ok {
				x.reads.forget() // who comes back has not missed what he could not see
			}
		}
		if is && !was && !remote { // the node that committed it does what is to be done
			s.arrived(arrival{u, room, c.Head})
		}
	}
}

// Read says that a user has read a room up to a position: all of it with thread "", the main timeline with "main", or the thread
// of that root. Observe calls it for receipts.
func (s *Service) Read(user string, roomNID int64, thread string, pos int64) {
	if c, ok := s.counters.Peek(counterKey{user, roomNID}); ok {
		c.reads.add(thread, pos)
	}
}

// Unread counts what a user has not read in a room, as of the room's newest event: everything that his rules want him to be told
// of, and the part of it that is highlighted.
func (s *Service) Unread(ctx context.Context, user string, room *rooms.Room) (notify, highlight int64, err error) {
	byThread, err := s.UnreadByThread(ctx, user, room)
	for _, t := range byThread {
		notify += t.Notify
		highlight += t.Highlight
	}
	return notify, highlight, err
}

// UnreadByThread is Unread by thread root, the main timeline under "" (client-server API, "Threaded read receipts").
func (s *Service) UnreadByThread(ctx context.Context, user string, room *rooms.Room) (map[string]Tally, error) {
	key := counterKey{user, room.NID}
	c, ok := s.counters.Get(key)
	if !ok {
		c = &counter{}
		if old, loaded, _ := s.counters.PeekOrAdd(key, c); loaded {
			c = old
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	head := room.Head()
	reads, anew := c.reads.take()
	if anew || !c.read(reads) {
		c.upto = 0
	}
	view := &roomView{ctx: ctx, room: room, head: head}
	// A room's head is there a moment before its events were observed.
	if err := s.advance(ctx, user, room, c, view, min(head.Pos(), s.observed.Load())); err != nil {
		c.reads.forget() // what was taken is lost: start again
		return nil, err
	}
	if len(c.tallies) == 0 {
		return nil, nil
	}
	out := make(map[string]Tally, len(c.tallies))
	for k, v := range c.tallies {
		out[k] = v
	}
	return out, nil
}

// read moves the marks; false when the counts have to be made anew, because what is read is a part of what is not listed.
func (c *counter) read(upTo map[string]int64) bool {
	if len(upTo) == 0 || c.upto == 0 {
		return true
	}
	for thread, pos := range upTo {
		c.marks[thread] = max(c.marks[thread], pos)
		if c.long && pos < c.upto {
			return false
		}
	}
	if c.long {
		for thread := range c.tallies {
			if c.isRead(c.upto, thread) {
				delete(c.tallies, thread)
			}
		}
		c.long = len(c.tallies) > 0
		return true
	}
	c.unread = slices.DeleteFunc(c.unread, func(u unread) bool { return c.isRead(u.pos, u.thread) })
	c.tallies = nil
	for _, u := range c.unread {
		c.tally(u)
	}
	return true
}

// isRead says that an event of a thread, "" for the main timeline, is read.
func (c *counter) isRead(pos int64, thread string) bool {
	if thread == "" {
		thread = "main"
	}
	return pos <= c.marks[""] || pos <= c.marks[thread]
}

func (c *counter) tally(u unread) {
	if c.tallies == nil {
		c.tallies = map[string]Tally{}
	}
	t := c.tallies[u.thread]
	t.Notify++
	if u.highlight {
		t.Highlight++
	}
	c.tallies[u.thread] = t
}

// advance counts what came after c.upto, up to a position.
func (s *Service) advance(ctx context.Context, user string, room *rooms.Room, c *counter, view *roomView, to int64) error {
	if c.upto != 0 && c.upto >= to {
		return nil
	}
	set, err := s.Set(ctx, user)
	if err != nil {
		return err
	}
	if c.upto == 0 {
		return s.begin(ctx, user, room, c, set, view, to)
	}
	events, ok := s.newest(room.NID, c.upto, to)
	if !ok {
		if events, err = s.stored(ctx, room, c.upto, to, maxBack); err != nil {
			return err
		}
	}
	c.count(user, set, view, events)
	c.upto = to
	return nil
}

func (s *Service) newest(roomNID, from, to int64) ([]seen, bool) {
	r, ok := s.recent.Get(roomNID)
	if !ok {
		return nil, false
	}
	return r.after(from, to)
}

// begin makes a counter from the store.
func (s *Service) begin(ctx context.Context, user string, room *rooms.Room, c *counter, set *Set, view *roomView, to int64) error {
	receipts, err := s.store.ReceiptsOf(ctx, room.NID, user)
	if err != nil {
		return err
	}
	c.marks, c.unread, c.long, c.tallies = map[string]int64{}, nil, false, nil
	for _, r := range receipts { // m.read and m.read.private: whichever is ahead
		if r.Type == "m.read" || r.Type == "m.read.private" {
			c.marks[r.ThreadID] = max(c.marks[r.ThreadID], r.EventPos)
		}
	}
	if ref, ok := view.head.Ref("m.room.member", user); ok && len(c.marks) == 0 {
		// Who has never read anything has missed what came since he was there.
		e, err := room.ByRef(ctx, ref)
		if err != nil {
			return err
		}
		if e != nil {
			c.marks[""] = max(0, e.Pos)
		}
	}
	if to < 1 {
		return nil
	}
	all, main := c.marks[""], c.marks["main"]
	events, err := s.stored(ctx, room, max(all, main), to, maxBack)
	if err != nil {
		return err
	}
	if main > all {
		older, err := s.stored(ctx, room, all, main, maxBackThreads)
		if err != nil {
			return err
		}
		events = append(older, events...)
	}
	c.count(user, set, view, events)
	c.upto = to
	return nil
}

// stored reads the newest events with from < position <= to, oldest first.
func (s *Service) stored(ctx context.Context, room *rooms.Room, from, to int64, limit int) ([]seen, error) {
	if from >= to {
		return nil, nil
	}
	rows, err := s.store.Timeline(ctx, room.NID, max(0, from), to+1, limit, true)
	if err != nil {
		return nil, err
	}
	slices.Reverse(rows)
	out := make([]seen, len(rows))
	for i := range rows {
		out[i] = seen{rows[i].Pos, NewView(rows[i].Type, rows[i].Sender, room.ID, rows[i].StateKey, rows[i].JSON)}
	}
	return out, nil
}

func (c *counter) count(user string, set *Set, view RoomView, events []seen) {
	for _, x := range events {
		x.view.open()
		if c.isRead(x.pos, x.view.thread) {
			continue
		}
		o := set.Evaluate(user, x.view, view)
		if !o.Notify {
			continue
		}
		u := unread{x.pos, x.view.thread, o.Highlight}
		c.tally(u)
		if len(c.unread) >= maxListed {
			c.unread, c.long = nil, true
		}
		if !c.long {
			c.unread = append(c.unread, u)
		}
	}
}

// ViewOf shows a room as of a head to rules.
func ViewOf(ctx context.Context, room *rooms.Room, head *rooms.Head) RoomView {
	return &roomView{ctx: ctx, room: room, head: head}
}

// roomView is a room as of a head.
type roomView struct {
	ctx  context.Context
	room *rooms.Room
	head *rooms.Head
}

func (v *roomView) Members() int { return len(v.head.Joined()) }

func (v *roomView) DisplayName(user string) string {
	e, err := v.room.State(v.ctx, v.head, "m.room.member", user)
	if err != nil || e == nil {
		return ""
	}
	return gjson.GetBytes(e.Content(), "displayname").Str
}

func (v *roomView) MayNotify(sender, key string) bool {
	p, err := event.PowerOf(v.room.StateView(v.ctx, v.head))
	return err == nil && p.User(sender) >= p.Notification(key)
}
