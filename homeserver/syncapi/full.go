// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// full answers from the store: everything between the token and the newest position.
func (a *answer) full() error {
	all, err := a.s.Rooms.UserRooms(a.ctx, a.q.User)
	if err != nil {
		return err
	}
	byRoom, err := a.accountData()
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(all))
	for id := range all {
		if a.q.Filter.Room.Allows(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	from := a.since.Pos
	if a.since.Sticky > 0 {
		from = a.since.Sticky
	}
	if err := a.readSticky(from); err != nil {
		return err
	}
	for _, id := range ids {
		r, err := a.s.Rooms.Room(a.ctx, id)
		if err != nil {
			return err
		}
		if err := a.fullRoom(r, byRoom[id], a.since.Pos == 0 || r.Head().Pos() > a.since.Pos); err != nil {
			return err
		}
	}
	if err := a.takeToDevice(); err != nil {
		return err
	}
	if !a.first {
		if err := a.deviceListsSince(); err != nil {
			return err
		}
	}
	return a.presenceAll()
}

// deviceListsSince tells of the users whose devices changed while the client was away.
func (a *answer) deviceListsSince() error {
	if a.s.Keys == nil {
		return nil
	}
	users, err := a.s.Keys.DeviceListsChanged(a.ctx, a.q.User, a.since.Pos, a.next.Pos)
	for _, u := range users {
		a.deviceChanged(u)
	}
	return err
}

// fullRoom answers for one room from the store, whatever the reader's membership is. look says that the room may have news.
func (a *answer) fullRoom(r *rooms.Room, account []byte, look bool) error {
	all, err := a.s.Rooms.UserRooms(a.ctx, a.q.User)
	if err != nil {
		return err
	}
	m := all[r.ID]
	if m.Forgotten && (a.since.Pos == 0 || m.Pos <= a.since.Pos) {
		return nil // a device that still has the room hears that it was left, however quickly it was forgotten
	}
	whole := a.since.Pos == 0 || a.q.FullState
	switch m.Membership {
	case "join":
		return a.fullJoined(r, m, account, look)
	case "invite":
		if whole || m.Pos > a.since.Pos {
			return a.stripped(r, &a.invite, "invite_state")
		}
	case "knock":
		if whole || m.Pos > a.since.Pos {
			return a.stripped(r, &a.knock, "knock_state")
		}
	case "leave", "ban":
		tell := m.Pos > a.since.Pos && (a.since.Pos > 0 || a.q.Filter.Room.IncludeLeave)
		if !tell && a.since.Pos == 0 { // who was thrown out hears of it on a new device too, as other servers have it
			own, err := r.ByRef(a.ctx, rooms.Ref{NID: m.EventNID})
			if err != nil {
				return err
			}
			tell = own != nil && own.Sender() != a.q.User
		}
		if tell {
			return a.fullLeft(r, m)
		}
	}
	return nil
}

// newlyJoined says whether the reader's time in the room began after the token.
func (a *answer) newlyJoined(r *rooms.Room, m storage.Membership) (bool, error) {
	if a.since.Pos == 0 {
		return true, nil
	}
	if m.Pos <= a.since.Pos {
		return false, nil
	}
	e, err := r.ByRef(a.ctx, rooms.Ref{NID: m.EventNID})
	for err == nil && e != nil && e.Membership() == "join" {
		if e.Pos <= a.since.Pos {
			return false, nil
		}
		e, err = r.StateAt(a.ctx, e, false, "m.room.member", a.q.User)
	}
	return true, err
}

func (a *answer) fullJoined(r *rooms.Room, m storage.Membership, account []byte, look bool) error {
	fresh, err := a.newlyJoined(r, m)
	if err != nil {
		return err
	}
	from := a.since.Pos
	if fresh {
		from = 0
	}
	head := r.Head()
	j := &joinedRoom{a: a, room: r, head: head, fresh: fresh || a.q.FullState, account: account}
	if look {
		if err := j.fromStore(from, a.next.Pos); err != nil {
			return err
		}
	}
	if fresh && !a.first {
		for _, u := range head.Joined() {
			a.deviceChanged(u)
		}
		a.addPresence(head.Joined(), true)
	}
	if err := j.stickyFromStore(fresh && a.since.Pos > 0); err != nil {
		return err
	}
	f := &a.q.Filter.Room.Ephemeral
	receipts := false
	if f.Allows(r.ID, "m.receipt", "", false) {
		rows, err := a.s.Store.Receipts(a.ctx, r.NID, from, a.next.Pos)
		if err != nil {
			return err
		}
		if raw, ok := appendReceipts(nil, rows, a.q.User); ok {
			j.ephemeral = list(j.ephemeral, raw)
			receipts = true
		}
	}
	if users, eph := a.s.typing.in(r.ID); f.Allows(r.ID, "m.typing", "", false) && (len(users) > 0 || (eph > a.since.Eph && !a.first)) && (fresh || eph > a.since.Eph) {
		j.ephemeral = list(j.ephemeral, appendTyping(nil, users))
	}
	return j.write(receipts)
}

// maxLook bounds how many events are read to fill a timeline through a filter that lets little pass.
const maxLook = 1000

// fromStore takes the timeline and the state from the store, for from < position <= to.
func (j *joinedRoom) fromStore(from, to int64) error {
	a, f := j.a, &j.a.q.Filter.Room.Timeline
	at := to + 1
	seen := 0
	for !j.limited {
		page, err := j.room.Timeline(a.ctx, from, at, f.Limit+1-len(j.timeline), true)
		if err != nil {
			return err
		}
		full := len(page) == f.Limit+1-len(j.timeline)
		for _, e := range page {
			seen++
			at = e.Pos
			if a.ignores(e) || !f.Allows(j.room.ID, e.Type(), e.Sender(), f.ContainsURL != nil && hasURL(e.Event)) {
				continue
			}
			ok, err := j.room.Visible(a.ctx, e, a.q.User)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if len(j.timeline) == f.Limit {
				j.limited = true
				break
			}
			j.timeline = append(j.timeline, e)
			if j.room.HasHole(e) {
				j.limited = true // what came before it is fetched from other servers as the client pages back
				break
			}
		}
		if !full {
			break
		}
		if seen >= maxLook {
			j.limited = true
		}
	}
	slices.Reverse(j.timeline)
	if from == 0 && !a.first && (len(j.timeline) == 0 || !j.timeline[0].Is("m.room.create", "")) {
		j.limited = true // what went before is new to the client too: it pages back to it
	}
	first := to + 1 // the timeline begins here
	if len(j.timeline) > 0 {
		first = j.timeline[0].Pos
	}
	j.prev = Token{Pos: first - 1}
	if j.fresh && from == 0 && len(j.timeline) > 0 && !j.limited && j.timeline[0].Is("m.room.create", "") {
		j.prev = Token{}
	}
	state := map[event.Key]rooms.Ref{}
	shown := map[int64]bool{}
	for _, e := range j.timeline {
		shown[e.NID] = true
	}
	switch {
	case j.fresh && (a.q.StateAfter || len(j.timeline) == 0):
		j.head.Each(func(k event.Key, r rooms.Ref) { state[k] = r })
	case j.fresh:
		e := j.timeline[0]
		if e.StateBefore != 0 {
			before, err := j.room.AllStateBefore(a.ctx, e)
			if err != nil {
				return err
			}
			for k, r := range before {
				state[k] = r
			}
		}
		// What forks changed without an event in the timeline.
		last := j.timeline[len(j.timeline)-1]
		if last.StateAfter != j.head.StateGroup() {
			j.head.Each(func(k event.Key, r rooms.Ref) {
				if !shown[r.NID] {
					state[k] = r
				}
			})
		}
	default:
		changes, err := j.room.Changes(a.ctx, from, to)
		if err != nil {
			return err
		}
		for _, c := range changes {
			j.moved = j.moved || c.Key.Type == "m.room.member"
			switch {
			case c.New.NID == 0:
				delete(state, c.Key)
			case a.q.StateAfter || !shown[c.New.NID]:
				state[c.Key] = c.New
			}
		}
		if err := j.deviceLists(changes); err != nil {
			return err
		}
	}
	return j.takeState(state)
}

// deviceLists tells of users whose membership changed while the client was away.
func (j *joinedRoom) deviceLists(changes []rooms.Change) error {
	for _, c := range changes {
		if c.Key.Type != "m.room.member" {
			continue
		}
		if j.head.IsJoined(c.Key.StateKey) {
			j.a.deviceChanged(c.Key.StateKey)
			j.a.addPresence([]string{c.Key.StateKey}, true)
		} else if err := j.a.deviceLeft(c.Key.StateKey); err != nil {
			return err
		}
	}
	return nil
}

// fullLeft tells of a room that the reader left, was kicked or banned from, up to that moment.
func (a *answer) fullLeft(r *rooms.Room, m storage.Membership) error {
	left, err := r.ByRef(a.ctx, rooms.Ref{NID: m.EventNID})
	if err != nil || left == nil {
		return err
	}
	before, err := r.StateAt(a.ctx, left, false, "m.room.member", a.q.User)
	if err != nil {
		return err
	}
	j := &joinedRoom{a: a, room: r, head: r.Head()}
	if before != nil && before.Membership() == "join" {
		for _, u := range j.head.Joined() {
			if err := a.deviceLeft(u); err != nil {
				return err
			}
		}
	}
	f := &a.q.Filter.Room.Timeline
	page, err := r.Timeline(a.ctx, a.since.Pos, m.Pos+1, f.Limit+1, true)
	if err != nil {
		return err
	}
	for _, e := range page {
		if ok, err := r.Visible(a.ctx, e, a.q.User); err != nil {
			return err
		} else if !ok || a.ignores(e) || !f.Allows(r.ID, e.Type(), e.Sender(), f.ContainsURL != nil && hasURL(e.Event)) {
			continue
		}
		if len(j.timeline) == f.Limit {
			j.limited = true
			break
		}
		j.timeline = append(j.timeline, e)
	}
	slices.Reverse(j.timeline)
	if left.Status == storage.StatusOutlier && left.Pos > a.since.Pos {
		j.timeline = append(j.timeline, left) // the end of an invite to a room that only other servers are in: nothing else tells of it
	}
	first := m.Pos + 1
	if len(j.timeline) > 0 {
		first = j.timeline[0].Pos
	}
	b := []byte(`{"timeline":{"events":[`)
	for i, e := range j.timeline {
		if i > 0 {
			b = append(b, ',')
		}
		member, err := r.MembershipAt(a.ctx, e, a.q.User)
		if err != nil {
			return err
		}
		if b, err = r.AppendClient(a.ctx, b, e, rooms.View{User: a.q.User, Device: a.q.Device, Now: a.now, Membership: member}); err != nil {
			return err
		}
	}
	b = append(b, `],"limited":`...)
	if j.limited {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	b = append(b, `,"prev_batch":"`...)
	b = Token{Pos: first - 1}.append(b)
	b = append(b, `"},"`...)
	b = append(b, a.q.stateKey()...)
	b = append(b, `":{"events":[`...)
	// The state as the reader last saw it, never a later one.
	state, err := r.AllStateAt(a.ctx, left)
	if err != nil {
		return err
	}
	var refs []rooms.Ref
	if before == nil || before.Membership() != "join" {
		state = nil // never was in the room: nothing to tell of its state
	}
	changes := map[event.Key]rooms.Ref{}
	if a.since.Pos > 0 {
		list, err := r.Changes(a.ctx, a.since.Pos, m.Pos)
		if err != nil {
			return err
		}
		for _, c := range list {
			if _, ok := state[c.Key]; ok {
				changes[c.Key] = state[c.Key]
			}
		}
	} else {
		changes = state
	}
	shown := map[int64]bool{}
	for _, e := range j.timeline {
		shown[e.NID] = true
	}
	for k, ref := range changes {
		if !a.q.Filter.Room.State.AllowsType(k.Type) || (!a.q.StateAfter && shown[ref.NID]) {
			continue
		}
		refs = append(refs, ref)
	}
	events, err := r.ByRefs(a.ctx, refs)
	if err != nil {
		return err
	}
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = r.AppendClient(a.ctx, b, e, rooms.View{User: a.q.User, Now: a.now, Bare: true}); err != nil {
			return err
		}
	}
	b = append(b, `]}}`...)
	a.room(&a.leave, r.ID, b)
	return nil
}

// strippedTypes is the state that an invited or knocking user is shown (client-server API, "Stripped state").
var strippedTypes = [...]string{"m.room.create", "m.room.join_rules", "m.room.canonical_alias", "m.room.name", "m.room.avatar", "m.room.topic", "m.room.encryption", "m.room.history_visibility"}

func (a *answer) stripped(r *rooms.Room, section *[]byte, name string) error {
	events, err := a.strippedEvents(r)
	if err != nil || events == nil {
		return err
	}
	b := append([]byte(`{"`), name...)
	b = append(b, `":{"events":[`...)
	b = append(b, events...)
	a.room(section, r.ID, append(b, `]}}`...))
	return nil
}

// strippedEvents writes the stripped state of a room that the reader is invited to or knocks at; nil when he does not want to see who invites.
func (a *answer) strippedEvents(r *rooms.Room) ([]byte, error) {
	head := r.Head()
	b := make([]byte, 0, 2048)
	comma := func() {
		if len(b) > 0 {
			b = append(b, ',')
		}
	}
	add := func(e *rooms.Stored) {
		if e == nil {
			return
		}
		comma()
		b = append(b, e.ClientHead()...)
		b = append(b, '}')
	}
	given, outside, err := r.StrippedFor(a.ctx, a.q.User)
	if err != nil {
		return nil, err
	}
	for _, raw := range given {
		comma()
		b = append(b, raw...)
	}
	for _, typ := range strippedTypes {
		if outside { // what the room's own server told
			break
		}
		e, err := r.State(a.ctx, head, typ, "")
		if err != nil {
			return nil, err
		}
		add(e)
	}
	own, err := r.State(a.ctx, head, "m.room.member", a.q.User)
	if err != nil {
		return nil, err
	}
	if own != nil && own.Sender() != a.q.User {
		if hidden, err := a.hidesInvite(own.Sender()); err != nil || hidden && own.Membership() == "invite" {
			return nil, err
		}
		if !outside {
			inviter, err := r.State(a.ctx, head, "m.room.member", own.Sender())
			if err != nil {
				return nil, err
			}
			add(inviter)
		}
	}
	add(own)
	return b, nil
}
