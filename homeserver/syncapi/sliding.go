// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
)

// Simplified sliding sync (MSC4186): a client names windows of its room list, and is told of the rooms in them.
//
// It stands on the same inboxes as /sync. What it adds is the connection: what each one was told of each room. A request is answered
// from the inbox where the connection was told everything so far, and from the store where a room was left behind.
//
//	wire ─ sliding_unstable.go ─┐                 ┌─ sliding_list.go   which rooms, from facts in memory
//	wire ─ sliding_stable.go ───┴─ SlidingRequest ┼─ sliding_room.go   what to tell of a room
//	                                              ├─ sliding_ext.go    the five extensions
//	                                              └─ sliding_conn.go   what was told already

// SlidingRequest is one request of sliding sync, of either wire form.
type SlidingRequest struct {
	User, Device  string
	Conn          string // tells the connections of a device apart
	Pos           string // "" begins a connection
	TxnID         string // given back in the answer
	Timeout       time.Duration
	Lists         []SlidingList // in order of their names
	Subscriptions map[string]SlidingConfig

	ToDevice                       *ToDeviceWanted // nil: not wanted, as with the others
	Keys                           bool            // device lists and key counts
	AccountData, Receipts, Typings *RoomsWanted
	Sticky                         *StickyWanted

	Threads int // how many thread subscriptions at most (MSC4308); 0: the extension is off
}

// ToDeviceWanted asks for to-device messages (MSC3885). The device has what is not after Since.
type ToDeviceWanted struct {
	Since int64
	Limit int
}

// RoomsWanted says for which rooms an extension is wanted: those of lists and of subscriptions. nil stands for all.
type RoomsWanted struct{ Lists, Rooms []string }

// SlidingAnswer is the answer, of either wire form. What is []byte is the inside of a JSON array.
type SlidingAnswer struct {
	Pos, TxnID string
	Lists      []SlidingList // those of the request
	Counts     []int64       // how many rooms pass the filter of each
	Rooms      []*SlidingRoom

	ToDevice   *ToDeviceGiven
	Keys       *KeysGiven
	Account    []byte // global account data
	AccountOf  []RoomJSON
	ReceiptsOf []RoomJSON // one m.receipt event each
	TypingOf   []RoomJSON // one m.typing event each
	Threads    *ThreadsGiven
	Sticky     *StickyGiven
}

// RoomJSON is a piece of JSON about a room.
type RoomJSON struct {
	Room string
	JSON []byte
}

// ToDeviceGiven is the answer of the to-device extension.
type ToDeviceGiven struct {
	Next   int64
	Events []byte
}

// KeysGiven is the answer of the e2ee extension (MSC3884).
type KeysGiven struct {
	Changed, Left []string
	Counts        map[string]int
	Fallback      []string
}

// SlidingRoom is what is told of a room. Fields that have not changed are empty.
type SlidingRoom struct {
	ID         string
	Membership string
	Lists      []string // those that the room is in
	Initial    bool     // replaces what the client has of the room
	Expanded   bool     // the timeline reaches further back than before
	Inside     bool     // the user is or was joined: what follows may be told
	Name       Told
	Avatar     Told
	Heroes     []Hero
	HeroesTold bool
	DM         *bool
	State      []byte
	Deleted    []event.Key // state that is no more
	Timeline   []byte
	Limited    bool
	Prev       string
	Live       int // how many events at the end of the timeline are new
	Joined     int // -1: as before
	Invited    int // -1: as before
	Unread     *Tally
	Bump       int64
	shown      []string // ids of the events of Timeline
	Stripped   []byte   // of an invite or a knock, or after one was turned down; nil elsewhere
}

// Told is a text that is told when Is is set; "" is told as null.
type Told struct {
	Is   bool
	Text string
}

// Hero is a member by whom a room without a name is called.
type Hero struct{ User, Name, Avatar string }

// slide answers one request, once: it looks at what an inbox has at one moment.
type slide struct {
	s     *Service
	ctx   context.Context
	q     *SlidingRequest
	c     *connection
	news  news
	first bool
	since Token
	next  Token
	now   time.Time
	v2    *answer // device lists, ignored users and stripped state are the same as in /sync
	step  *step
	out   *SlidingAnswer

	something bool

	matches []*match
	byID    map[string]*match
	counts  []int64
	wide    map[string]*listed // what the user is joined to of the rooms that the request is about, in the window or not; for sticky events
	touched map[string]*touch
	stored  map[int64]map[string][]AccountEvent // account data after a position, by room

	account      []AccountEvent // of the inbox, global
	unknownData  bool           // account data changed, but how is not known without a read
	messages     []json.RawMessage
	lastMessage  int64
	readMessages bool // messages must be read from the store
	keyCounts    bool
	threads      bool // thread subscriptions changed
	deviceNotes  []string
}

// touch is what an inbox has of one room.
type touch struct {
	commits  []*rooms.Committed
	receipts []storage.Receipt
	typing   bool
	account  []AccountEvent
	letIn    []*rooms.Sticky
}

// Sliding answers one request of sliding sync. Errors: M_UNKNOWN_POS.
func (s *Service) Sliding(ctx context.Context, q *SlidingRequest) (*SlidingAnswer, error) {
	c, gone, err := s.sliding.open(q) // c is locked
	if err != nil {
		return nil, err
	}
	locked := true
	defer func() {
		if locked {
			c.mu.Unlock()
		}
	}()
	since := int64(0)
	if q.ToDevice != nil {
		since = min(q.ToDevice.Since, s.Pos())
		if err := s.acknowledge(ctx, &Request{User: q.User, Device: q.Device}, Token{ToDevice: since}); err != nil {
			return nil, err
		}
	}
	first := q.Pos == ""
	var timeout <-chan struct{}
	if q.Timeout > 0 && !first {
		expired := make(chan struct{})
		stop := s.Clock.AfterFunc(q.Timeout, func() { close(expired) })
		defer stop()
		timeout = expired
	}
	var a *slide
	for {
		select {
		case <-gone:
			return nil, s.sliding.overtaken(q, c)
		default:
		}
		old := a
		a = &slide{s: s, ctx: ctx, q: q, c: c, first: first, since: c.at, now: s.Clock.Now()}
		a.news = s.collect(q.User, Token{Pos: c.at.Pos, Eph: c.at.Eph, ToDevice: max(since, c.at.Pos)})
		a.next = a.news.upTo
		if err := a.answer(since, old); err != nil {
			return nil, err
		}
		if first || a.something || timeout == nil {
			a.out.Pos = c.pos(c.n+1, a.next)
			c.next = a.step
			return a.out, nil
		}
		c.take(a.step) // nothing to tell up to here: no need to look again
		since = max(since, a.next.Pos)
		c.mu.Unlock()
		locked = false
		s.wait(q.User, 1)
		select {
		case <-a.news.wake:
		case <-timeout:
			timeout = nil
		case <-gone:
		case <-ctx.Done():
		}
		s.wait(q.User, -1)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.mu.Lock()
		locked = true
	}
}

// answer makes the answer and the step that it is for the connection. before is the last look of the same request, which found
// nothing to tell.
func (a *slide) answer(since int64, before *slide) (err error) {
	c := a.c
	a.step = &step{at: a.next, rooms: map[string]*sent{}, devices: c.devices, account: c.account, threads: c.threads, sticky: c.sticky}
	a.out = &SlidingAnswer{TxnID: a.q.TxnID, Lists: a.q.Lists}
	a.v2 = &answer{s: a.s, ctx: a.ctx, q: &Request{User: a.q.User, Device: a.q.Device, Filter: a.s.sliding.filter}, since: a.since, next: a.next, now: a.now}
	if a.s.Ignores != nil {
		if a.v2.ignored, err = a.s.Ignores.Ignored(a.ctx, a.q.User); err != nil {
			return err
		}
	}
	if c.own == nil || (!a.first && !a.news.ok) {
		if c.own, err = a.s.readPersonal(a.ctx, a.q.User); err != nil {
			return err
		}
	}
	moved := a.sort(since)
	if before != nil && a.news.ok && !moved {
		// Nothing that lists are made of has changed since the last look.
		a.matches, a.byID, a.counts, a.wide = before.matches, before.byID, before.counts, before.wide
	} else if err := a.window(); err != nil {
		return err
	}
	a.out.Counts = a.counts
	for _, m := range a.matches {
		if err := a.room(m); err != nil {
			return err
		}
	}
	a.leaveBehind()
	return a.extensions(since)
}

// sort puts the items of the inbox where they belong, and says whether lists may have changed by them.
func (a *slide) sort(since int64) (moved bool) {
	a.touched = map[string]*touch{}
	if a.first || !a.news.ok {
		return true
	}
	at := func(room string) *touch {
		t := a.touched[room]
		if t == nil {
			t = &touch{}
			a.touched[room] = t
		}
		return t
	}
	for i := range a.news.items {
		it := a.news.items[i]
		switch it.note.Kind {
		case storage.NoteEvent:
			c := it.note.Value.(*rooms.Committed)
			t := at(c.Room.ID)
			t.commits = append(t.commits, c)
			moved = true
		case storage.NoteSticky:
			t := at(it.note.Room)
			t.letIn = append(t.letIn, it.note.Value.(*rooms.Sticky))
		case storage.NoteReceipt:
			t := at(it.note.Room)
			t.receipts = append(t.receipts, it.note.Value.(*RoomReceipt).Receipt)
		case storage.NoteToDevice:
			if it.note.Device != a.q.Device || a.q.ToDevice == nil || it.note.Pos <= since {
				continue
			}
			m, ok := it.note.Value.(ToDeviceNote)
			if !ok || len(a.messages) == a.q.ToDevice.Limit {
				a.readMessages = true
				continue
			}
			a.messages = append(a.messages, m)
			a.lastMessage = it.note.Pos
		case storage.NoteDeviceList:
			a.deviceNotes = append(a.deviceNotes, it.note.User)
		case storage.NoteKeyCounts:
			a.keyCounts = a.keyCounts || it.note.Device == a.q.Device
		case storage.NoteThread:
			a.threads = true
		case storage.NoteAccountData:
			d, ok := it.note.Value.(storage.AccountData)
			if !ok {
				a.unknownData = true
				continue
			}
			moved = a.c.own.changed(d) || moved
			e := AccountEvent{Room: d.RoomID, Type: d.Type, Content: d.Content}
			if d.RoomID == "" {
				a.account = append(a.account, e)
			} else {
				t := at(d.RoomID)
				t.account = append(t.account, e)
			}
		case 0:
			if it.kind == ephTyping {
				at(it.room.ID).typing = true
			}
		}
	}
	return moved
}

// leaveBehind notes for the rooms outside of the window how far they were told.
func (a *slide) leaveBehind() {
	mark := func(id string, p *sent, t *touch) {
		n := *p
		back := func(upTo *int64, news bool) {
			if *upTo == live && news {
				*upTo = a.since.Pos
			}
		}
		back(&n.events, t == nil || len(t.commits) > 0)
		back(&n.receipts, t == nil || len(t.receipts) > 0)
		back(&n.account, t == nil || len(t.account) > 0)
		back(&n.typing, t == nil || t.typing)
		a.step.rooms[id] = &n
	}
	if a.first {
		return
	}
	if !a.news.ok {
		for id, p := range a.c.rooms {
			if a.byID[id] == nil {
				mark(id, p, nil)
			}
		}
		return
	}
	for id, t := range a.touched {
		if p := a.c.rooms[id]; p != nil && a.byID[id] == nil {
			mark(id, p, t)
		}
	}
}

// slidingFilter is the filter under which sliding sync borrows from /sync: no presence.
func slidingFilter() *filter.Filter {
	f, err := filter.Parse([]byte(`{"presence":{"types":[]}}`))
	if err != nil {
		panic(err) // it is a filter
	}
	return f
}
