// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// wants says whether an extension is wanted for a room.
func (w *RoomsWanted) wants(m *match) bool {
	if w == nil {
		return false
	}
	if m.subscribed && (w.Rooms == nil || slices.Contains(w.Rooms, "*") || slices.Contains(w.Rooms, m.m.RoomID)) {
		return true
	}
	return len(m.lists) > 0 && (w.Lists == nil || slices.ContainsFunc(w.Lists, func(l string) bool { return l == "*" || slices.Contains(m.lists, l) }))
}

// roomExtensions tells the receipts, the typing and the account data of a room in the window. n says how far they were told. out is
// what is told of the room besides, or nil.
func (a *slide) roomExtensions(m *match, n *sent, t *touch, out *SlidingRoom) error {
	id := m.m.RoomID
	back := func(upTo *int64, news bool) {
		if *upTo == live && news {
			*upTo = a.since.Pos
		}
	}
	if a.q.AccountData.wants(m) {
		events := t.account
		if n.account != live {
			byRoom, err := a.accountAfter(n.account)
			if err != nil {
				return err
			}
			events = byRoom[id]
		}
		n.account = live
		if raw := appendAccount(nil, events); raw != nil {
			a.out.AccountOf = append(a.out.AccountOf, RoomJSON{id, raw})
			a.something = true
		}
	} else {
		back(&n.account, len(t.account) > 0)
	}
	if m.m.Membership != "join" {
		n.receipts, n.typing = 0, 0
		return nil
	}
	if a.q.Receipts.wants(m) {
		if err := a.receipts(m, n, t, out); err != nil {
			return err
		}
	} else {
		back(&n.receipts, len(t.receipts) > 0)
	}
	if a.q.Typings.wants(m) {
		users, eph := a.s.typing.in(id)
		tell := t.typing && n.typing == live // a change
		switch n.typing {
		case 0:
			tell = len(users) > 0
		case live:
		default:
			tell = eph > a.since.Eph || len(users) > 0 || t.typing
		}
		n.typing = live
		if tell {
			a.out.TypingOf = append(a.out.TypingOf, RoomJSON{id, appendTyping(nil, users)})
			a.something = true
		}
	} else {
		back(&n.typing, t.typing)
	}
	return nil
}

// receipts tells the receipts of a room. Of a room that the client just got they are those of the events that it got, and its own.
func (a *slide) receipts(m *match, n *sent, t *touch, out *SlidingRoom) error {
	rows := t.receipts
	whole := n.receipts == 0 || (out != nil && (out.Initial || out.Expanded))
	if whole || n.receipts != live {
		from := n.receipts
		if whole {
			from = 0
		}
		var err error
		if rows, err = a.s.Store.Receipts(a.ctx, m.m.RoomNID, from, a.next.Pos); err != nil {
			return err
		}
		if whole && out != nil && out.Timeline != nil {
			rows = slices.DeleteFunc(rows, func(r storage.Receipt) bool { return r.User != a.q.User && !slices.Contains(out.shown, r.EventID) })
		}
	}
	n.receipts = live
	if raw, ok := appendReceipts(nil, rows, a.q.User); ok {
		a.out.ReceiptsOf = append(a.out.ReceiptsOf, RoomJSON{m.m.RoomID, raw})
		a.something = true
	}
	return nil
}

// accountAfter reads the user's account data after a position, by room; global data stands under "".
func (a *slide) accountAfter(from int64) (map[string][]AccountEvent, error) {
	if by, ok := a.stored[from]; ok {
		return by, nil
	}
	by := map[string][]AccountEvent{}
	if a.s.Account != nil {
		events, err := a.s.Account.AccountData(a.ctx, a.q.User, from, a.next.Pos)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			by[e.Room] = append(by[e.Room], e)
		}
	}
	if a.stored == nil {
		a.stored = map[int64]map[string][]AccountEvent{}
	}
	a.stored[from] = by
	return by, nil
}

// appendAccount writes account data; of several changes of one type the last.
func appendAccount(b []byte, events []AccountEvent) []byte {
	for i, e := range events {
		if slices.ContainsFunc(events[i+1:], func(x AccountEvent) bool { return x.Type == e.Type }) {
			continue
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"content":`...), e.Content...), `,"type":`...)
		b = append(event.AppendString(b, e.Type), '}')
	}
	return b
}

// extensions answers what is not of one room.
func (a *slide) extensions(since int64) error {
	if a.q.AccountData != nil {
		events := a.account
		if a.c.account != a.since.Pos || a.first || !a.news.ok || a.unknownData {
			byRoom, err := a.accountAfter(a.c.account)
			if err != nil {
				return err
			}
			events = byRoom[""]
		}
		a.step.account = a.next.Pos
		if a.out.Account = appendAccount(nil, events); a.out.Account != nil {
			a.something = true
		}
	}
	if err := a.threadSubscriptions(); err != nil {
		return err
	}
	if err := a.stickyEvents(); err != nil {
		return err
	}
	if a.q.Keys {
		if err := a.keys(); err != nil {
			return err
		}
	}
	if a.q.ToDevice != nil {
		return a.toDevice(since)
	}
	return nil
}

// keys answers the e2ee extension. A new connection is told of no device lists: its client asks for those it needs.
func (a *slide) keys() error {
	v := a.v2
	switch {
	case a.s.Keys == nil:
		return nil
	case a.c.devices == 0:
	case a.c.devices == a.since.Pos && a.news.ok:
		for _, u := range a.deviceNotes {
			if err := v.maybeDeviceChanged(u); err != nil {
				return err
			}
		}
		for _, t := range a.touched {
			if err := a.membersMoved(t); err != nil {
				return err
			}
		}
	default:
		if err := a.devicesAfter(a.c.devices); err != nil {
			return err
		}
	}
	a.step.devices = max(a.next.Pos, 1)
	g := &KeysGiven{Changed: names(v.changed), Left: names(v.left)}
	if a.q.Device != "" {
		var err error
		if g.Counts, g.Fallback, err = a.s.Keys.KeyCounts(a.ctx, a.q.User, a.q.Device); err != nil {
			return err
		}
	}
	a.out.Keys = g
	a.something = a.something || v.something || a.keyCounts
	return nil
}

// membersMoved tells whose devices matter now, or do not any more, after commits of a room.
func (a *slide) membersMoved(t *touch) error {
	v, me := a.v2, a.q.User
	for _, c := range t.commits {
		was, is := c.Before != nil && c.Before.IsJoined(me), c.Head.IsJoined(me)
		switch {
		case is && was:
			for _, ch := range c.Changes {
				if ch.Key.Type != "m.room.member" {
					continue
				}
				u := ch.Key.StateKey
				switch then, now := c.Before.IsJoined(u), c.Head.IsJoined(u); {
				case now && !then:
					v.deviceChanged(u)
				case then && !now:
					if err := v.deviceLeft(u); err != nil {
						return err
					}
				}
			}
		case is:
			for _, u := range c.Head.Joined() {
				v.deviceChanged(u)
			}
		case was:
			for _, u := range c.Before.Joined() {
				if err := v.deviceLeft(u); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// devicesAfter tells whose devices changed after a position, from the store.
func (a *slide) devicesAfter(from int64) error {
	v := a.v2
	v.since = Token{Pos: from}
	if err := v.deviceListsSince(); err != nil {
		return err
	}
	all, err := a.s.Rooms.UserRooms(a.ctx, a.q.User)
	if err != nil {
		return err
	}
	for id, m := range all {
		if m.Membership != "join" && (m.Pos <= from || m.Membership == "invite" || m.Membership == "knock") {
			continue
		}
		r, err := a.s.Rooms.Room(a.ctx, id)
		if err != nil {
			return err
		}
		head := r.Head()
		if m.Membership != "join" {
			for _, u := range head.Joined() {
				if err := v.deviceLeft(u); err != nil {
					return err
				}
			}
			continue
		}
		if head.Pos() <= from {
			continue
		}
		fresh, err := v.newlyJoined(r, m)
		if err != nil {
			return err
		}
		if fresh {
			for _, u := range head.Joined() {
				v.deviceChanged(u)
			}
			continue
		}
		changes, err := r.Changes(a.ctx, from, a.next.Pos)
		if err != nil {
			return err
		}
		j := &joinedRoom{a: v, room: r, head: head}
		if err := j.deviceLists(changes); err != nil {
			return err
		}
	}
	return nil
}

// toDevice answers the to-device extension: what the device does not have, a page at a time.
func (a *slide) toDevice(since int64) error {
	g := &ToDeviceGiven{Next: a.next.Pos}
	a.out.ToDevice = g
	if a.s.Keys == nil || a.q.Device == "" {
		return nil
	}
	msgs, last := a.messages, a.lastMessage
	full := false
	if a.readMessages || a.first || !a.news.ok || since < a.since.Pos {
		var err error
		if msgs, last, err = a.s.Keys.ToDevice(a.ctx, a.q.User, a.q.Device, since, a.next.Pos, a.q.ToDevice.Limit); err != nil {
			return err
		}
		full = len(msgs) >= a.q.ToDevice.Limit
	}
	for _, m := range msgs {
		g.Events = list(g.Events, m)
	}
	if full {
		g.Next = last
	}
	if len(msgs) > 0 {
		a.something = true
		a.s.handed(a.q.User, a.q.Device, last)
	}
	return nil
}
