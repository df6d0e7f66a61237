// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// room tells what is new of one room of the window.
func (a *slide) room(m *match) error {
	id := m.m.RoomID
	p, t := a.c.rooms[id], a.touched[id]
	if t == nil && p != nil && a.news.ok && a.unchanged(m, p) {
		return nil
	}
	n := &sent{}
	if p != nil {
		*n = *p
		if !a.news.ok && !a.first {
			// The inbox does not reach back: what was told stands where the connection stands.
			for _, upTo := range []*int64{&n.receipts, &n.account, &n.typing} {
				if *upTo == live {
					*upTo = a.since.Pos
				}
			}
			if n.events == live && m.pos > a.since.Pos {
				n.events = a.since.Pos
			}
		}
	}
	if t == nil {
		t = &touch{}
	}
	var out *SlidingRoom
	var err error
	switch m.m.Membership {
	case "join":
		out, err = a.joinedRoom(m, p, n, t)
	case "invite", "knock":
		out, err = a.invited(m, p, n)
	default:
		out, err = a.left(m, p, n, t)
	}
	if err != nil {
		return err
	}
	if out != nil {
		out.ID, out.Lists, out.Membership = id, m.lists, m.m.Membership
		a.out.Rooms = append(a.out.Rooms, out)
		a.something = true
	}
	n.told, n.membership = m.m.EventNID, m.m.Membership
	if err := a.roomExtensions(m, n, t, out); err != nil {
		return err
	}
	if p == nil || out != nil || !p.same(n) {
		a.step.rooms[id] = n
	}
	return nil
}

// unchanged says that a room of which the inbox has nothing was told as it is now.
func (a *slide) unchanged(m *match, p *sent) bool {
	if p.membership != m.m.Membership || p.told != m.m.EventNID || (p.account != live && a.q.AccountData.wants(m)) {
		return false
	}
	if p.membership != "join" {
		return true
	}
	return p.events == live && p.dm == a.c.own.direct[m.m.RoomID] && m.cfg.limit <= p.limit && p.cfg.id == m.cfg.id &&
		(p.receipts == live || !a.q.Receipts.wants(m)) && (p.typing == live || !a.q.Typings.wants(m))
}

// same says that nothing has moved.
func (p *sent) same(n *sent) bool {
	return p.membership == n.membership && p.told == n.told && p.events == n.events && p.receipts == n.receipts && p.account == n.account &&
		p.typing == n.typing && p.cfg == n.cfg && p.limit == n.limit && p.bump == n.bump && p.notify == n.notify &&
		p.highlight == n.highlight && p.joined == n.joined && p.invited == n.invited && p.dm == n.dm
}

// joinedRoom tells of a room that the user is in.
func (a *slide) joinedRoom(m *match, p, n *sent, t *touch) (*SlidingRoom, error) {
	cfg := m.cfg
	dm := a.c.own.direct[m.m.RoomID]
	fresh := p == nil || p.membership != "join" || n.events == 0
	if !fresh && n.events == live && len(t.commits) == 0 && len(t.receipts) == 0 && p.dm == dm && p.cfg.id == cfg.id && cfg.limit <= p.limit {
		return nil, nil
	}
	r, err := a.s.Rooms.Room(a.ctx, m.m.RoomID)
	if err != nil {
		return nil, err
	}
	head := r.Head()
	if !fresh && n.events == live {
		for _, c := range t.commits {
			fresh = fresh || c.Before == nil || !c.Before.IsJoined(a.q.User) || !c.Head.IsJoined(a.q.User)
		}
	} else if !fresh {
		v := *a.v2
		v.since = Token{Pos: n.events}
		if fresh, err = v.newlyJoined(r, m.m); err != nil {
			return nil, err
		}
	}
	if fresh {
		*n = sent{receipts: n.receipts, account: n.account, typing: n.typing}
		if p == nil || p.membership != "join" {
			n.receipts, n.typing = 0, 0
		}
	}
	b := &roomBuilder{a: a, r: r, head: head, cfg: cfg, fresh: fresh, p: p, n: n, from: n.events, out: &SlidingRoom{Initial: fresh, Inside: true, Joined: -1, Invited: -1}}
	switch {
	case fresh:
		b.from = 0
		err = b.fromStore(0, a.next.Pos, cfg.limit)
	case n.events == live:
		b.from = a.since.Pos
		if len(t.commits) > 0 {
			b.head = t.commits[len(t.commits)-1].Head
		}
		err = b.fromCommits(t.commits)
	default:
		if err = b.fromStore(n.events, a.next.Pos, cfg.limit); err == nil {
			b.changes, err = r.Changes(a.ctx, n.events, a.next.Pos)
		}
	}
	if err != nil {
		return nil, err
	}
	if !fresh && cfg.limit > p.limit {
		// The client wants to see further back than it was shown: the newest events again, and older ones before them.
		b.timeline, b.limited = nil, false
		if err := b.fromStore(0, a.next.Pos, cfg.limit); err != nil {
			return nil, err
		}
		b.out.Expanded = len(b.timeline) > 0 && b.timeline[0].Pos <= b.from
		n.limit = cfg.limit
	}
	if err := b.finish(m, dm); err != nil {
		return nil, err
	}
	n.events, n.cfg, n.dm = live, cfg, dm
	switch {
	case fresh || b.limited:
		n.limit = cfg.limit
	default:
		n.limit = max(n.limit, cfg.limit)
	}
	if !b.something {
		return nil, nil
	}
	return b.out, nil
}

// roomBuilder collects what to tell of a room that the user is or was in.
type roomBuilder struct {
	a         *slide
	r         *rooms.Room
	head      *rooms.Head
	cfg       *roomConfig
	fresh     bool
	p, n      *sent
	from      int64 // told up to here
	timeline  []*rooms.Stored
	limited   bool
	changes   []rooms.Change
	out       *SlidingRoom
	something bool
}

// fromStore reads the newest events with from < position <= to that the user may see.
func (b *roomBuilder) fromStore(from, to int64, limit int) error {
	at, seen := to+1, 0
	for !b.limited {
		want := limit + 1 - len(b.timeline)
		page, err := b.r.Timeline(b.a.ctx, from, at, want, true)
		if err != nil {
			return err
		}
		for _, e := range page {
			seen++
			at = e.Pos
			if b.a.v2.ignores(e) {
				continue
			}
			if ok, err := b.r.Visible(b.a.ctx, e, b.a.q.User); err != nil {
				return err
			} else if !ok {
				continue
			}
			if len(b.timeline) == limit {
				b.limited = true
				break
			}
			b.timeline = append(b.timeline, e)
			if b.r.HasHole(e) {
				b.limited = true
				break
			}
		}
		if len(page) < want {
			break
		}
		if seen >= maxLook {
			b.limited = true
		}
	}
	slices.Reverse(b.timeline)
	return nil
}

// fromCommits takes the timeline and the changes from what the inbox has: nothing is read.
func (b *roomBuilder) fromCommits(commits []*rooms.Committed) error {
	for _, c := range commits {
		if c.Gap {
			b.timeline, b.limited = nil, true
		}
		if c.Stored.Status == storage.StatusOK && !b.a.v2.ignores(c.Stored) {
			b.timeline = append(b.timeline, c.Stored)
		}
		b.changes = append(b.changes, c.Changes...)
	}
	if n := len(b.timeline) - b.cfg.limit; n > 0 {
		b.timeline = b.timeline[n:]
		b.limited = true
	}
	return nil
}

// finish fills the answer for a room that the user is in.
func (b *roomBuilder) finish(m *match, dm bool) error {
	a, out, n, p := b.a, b.out, b.n, b.p
	if err := b.state(); err != nil {
		return err
	}
	if err := b.writeTimeline(); err != nil {
		return err
	}
	moved := b.fresh
	name, avatar := b.fresh, b.fresh
	for _, c := range b.changes {
		switch {
		case c.Key.Type == "m.room.member":
			moved = true
		case c.Key == event.Key{Type: "m.room.name"}:
			name = true
		case c.Key == event.Key{Type: "m.room.avatar"}:
			avatar = true
		}
	}
	text, err := b.text("m.room.name", "name")
	if err != nil {
		return err
	}
	if name {
		out.Name = Told{Is: !b.fresh || text != "", Text: text}
	}
	if avatar {
		url, err := b.text("m.room.avatar", "url")
		if err != nil {
			return err
		}
		out.Avatar = Told{Is: !b.fresh || url != "", Text: url}
	}
	if text == "" && (moved || name) {
		if err := b.heroes(); err != nil {
			return err
		}
	}
	n.joined, n.invited = len(b.head.Joined()), len(b.head.Invited())
	if b.fresh || n.joined != p.joined {
		out.Joined = n.joined
	}
	if b.fresh || n.invited != p.invited {
		out.Invited = n.invited
	}
	n.bump = m.bump
	if b.fresh || n.bump != p.bump {
		out.Bump = n.bump
	}
	if b.fresh && dm || !b.fresh && dm != p.dm {
		out.DM = &dm
	}
	if a.s.Unread != nil {
		byThread, err := a.s.Unread.UnreadByThread(a.ctx, a.q.User, b.r)
		if err != nil {
			return err
		}
		var all Tally
		for _, t := range byThread {
			all.Notify += t.Notify
			all.Highlight += t.Highlight
		}
		n.notify, n.highlight = all.Notify, all.Highlight
		if b.fresh || all.Notify != p.notify || all.Highlight != p.highlight {
			out.Unread = &all
		}
	}
	b.something = b.fresh || out.Timeline != nil || out.State != nil || out.Deleted != nil || out.Name.Is || out.Avatar.Is || out.HeroesTold ||
		out.Joined >= 0 || out.Invited >= 0 || out.Bump != 0 || out.DM != nil || out.Unread != nil || b.limited
	return nil
}

// text gives a text of a piece of state, "" when there is none.
func (b *roomBuilder) text(typ, field string) (string, error) {
	e, err := b.r.State(b.a.ctx, b.head, typ, "")
	if err != nil || e == nil {
		return "", err
	}
	return gjson.GetBytes(e.Content(), field).Str, nil
}

// state collects the required state: all of it for a fresh room, else what changed, and what the client did not want before.
func (b *roomBuilder) state() error {
	get := func(k event.Key) (rooms.Ref, bool) { return b.head.Ref(k.Type, k.StateKey) }
	var refs []rooms.Ref
	if b.fresh {
		refs = b.cfg.collect(b.head.Each, get, nil)
	} else {
		last := map[event.Key]rooms.Ref{}
		for _, c := range b.changes {
			last[c.Key] = c.New
		}
		for k, ref := range last {
			member := k.Type == "m.room.member" && b.cfg.lazy && !b.limited
			switch {
			case !member && !b.cfg.matches(k):
			case ref.NID == 0:
				b.out.Deleted = append(b.out.Deleted, k)
			default:
				refs = append(refs, ref)
			}
		}
		if b.p.cfg != nil && b.p.cfg.id != b.cfg.id {
			refs = append(refs, b.cfg.collect(b.head.Each, get, b.p.cfg)...)
		}
		slices.SortFunc(b.out.Deleted, func(x, y event.Key) int {
			return strings.Compare(x.Type+"\x00"+x.StateKey, y.Type+"\x00"+y.StateKey)
		})
	}
	if b.cfg.lazy {
		refs = append(refs, b.lazyMembers()...)
	}
	return b.writeState(sortRefs(refs))
}

// lazyMembers picks the memberships that the timeline needs and the client does not have yet.
func (b *roomBuilder) lazyMembers() (refs []rooms.Ref) {
	have := b.n.members
	copied := false
	need := func(u string) {
		ref, ok := b.head.Ref("m.room.member", u)
		if !ok || have[u] == ref.NID {
			return
		}
		if !copied {
			next := map[string]int64{}
			if len(have) < maxMembersPerRoom {
				for k, v := range have {
					next[k] = v
				}
			}
			have, copied = next, true
		}
		have[u] = ref.NID
		refs = append(refs, ref)
	}
	for _, e := range b.timeline {
		need(e.Sender())
		if e.Type() == "m.room.member" && e.IsState() {
			need(*e.StateKey())
		}
	}
	b.n.members = have
	return refs
}

func (b *roomBuilder) writeState(refs []rooms.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	events, err := b.r.ByRefs(b.a.ctx, refs)
	if err != nil {
		return err
	}
	view := rooms.View{User: b.a.q.User, Device: b.a.q.Device, Now: b.a.now, Bare: true}
	if b.head.IsJoined(b.a.q.User) {
		view.Membership = "join"
	}
	buf := make([]byte, 0, 512*len(events))
	for _, e := range events {
		if len(buf) > 0 {
			buf = append(buf, ',')
		}
		if buf, err = b.r.AppendClient(b.a.ctx, buf, e, view); err != nil {
			return err
		}
	}
	b.out.State = buf
	return nil
}

func (b *roomBuilder) writeTimeline() error {
	a, out := b.a, b.out
	out.Limited = b.limited
	if len(b.timeline) == 0 {
		if b.fresh || b.limited {
			out.Prev = Token{Pos: a.next.Pos}.String()
		}
		return nil
	}
	if first := b.timeline[0]; first.Is("m.room.create", "") && !b.limited {
		out.Prev = Token{}.String()
	} else {
		out.Prev = Token{Pos: first.Pos - 1}.String()
	}
	buf := make([]byte, 0, 1024*len(b.timeline))
	for _, e := range b.timeline {
		out.shown = append(out.shown, e.ID())
		if len(buf) > 0 {
			buf = append(buf, ',')
		}
		v := rooms.View{User: a.q.User, Device: a.q.Device, Now: a.now, Membership: "join"}
		var err error
		if b.fresh || e.Pos <= b.from || !b.head.IsJoined(a.q.User) || e.Is("m.room.member", a.q.User) {
			if v.Membership, err = b.r.MembershipAt(a.ctx, e, a.q.User); err != nil {
				return err
			}
		}
		if buf, err = b.r.AppendClient(a.ctx, buf, e, v); err != nil {
			return err
		}
		if !a.first && e.Pos > a.since.Pos {
			out.Live++
		}
	}
	out.Timeline = buf
	return nil
}

const maxHeroes = 5

// heroes names up to five others: who is joined, then who is invited; when nobody is, who left.
func (b *roomBuilder) heroes() error {
	users := heroes(b.head, b.a.q.User)
	if len(users) == 0 {
		b.head.Each(func(k event.Key, _ rooms.Ref) {
			if k.Type == "m.room.member" && k.StateKey != b.a.q.User {
				users = append(users, k.StateKey)
			}
		})
		slices.Sort(users)
		users = users[:min(len(users), maxHeroes)]
	}
	b.out.HeroesTold = true
	for _, u := range users {
		e, err := b.r.State(b.a.ctx, b.head, "m.room.member", u)
		if err != nil {
			return err
		}
		h := Hero{User: u}
		if e != nil {
			h.Name, h.Avatar = gjson.GetBytes(e.Content(), "displayname").Str, gjson.GetBytes(e.Content(), "avatar_url").Str
		}
		b.out.Heroes = append(b.out.Heroes, h)
	}
	return nil
}
