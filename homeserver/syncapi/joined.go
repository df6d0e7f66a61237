// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"bytes"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// joinedRoom collects the parts of one room in rooms.join.
type joinedRoom struct {
	a         *answer
	room      *rooms.Room
	head      *rooms.Head
	fresh     bool // the client has nothing of the room
	moved     bool // memberships changed: the summary is new
	timeline  []*rooms.Stored
	limited   bool
	prev      Token
	state     []rooms.Ref // before the timeline, or with use_state_after after it
	ephemeral []byte
	account   []byte
	live      bool // the timeline is what was committed just now
	sticky    []*rooms.Stored
}

// fromCommits takes the timeline and the state from live commits.
func (j *joinedRoom) fromCommits(commits []*rooms.Committed) error {
	f := &j.a.q.Filter.Room
	pick := func(e *rooms.Stored) bool {
		return e.Status == storage.StatusOK && !j.a.ignores(e) && f.Timeline.Allows(j.room.ID, e.Type(), e.Sender(), f.Timeline.ContainsURL != nil && hasURL(e.Event))
	}
	for _, c := range commits {
		if c.Gap {
			j.timeline, j.limited = nil, true
		}
		if pick(c.Stored) {
			j.timeline = append(j.timeline, c.Stored)
		}
	}
	if n := len(j.timeline) - f.Timeline.Limit; n > 0 {
		j.timeline = j.timeline[n:]
		j.limited = true
	}
	if len(j.timeline) > 0 {
		j.prev = Token{Pos: j.timeline[0].Pos - 1}
	} else {
		j.prev = j.a.since
	}
	shown := make(map[int64]bool, len(j.timeline))
	for _, e := range j.timeline {
		shown[e.NID] = true
	}
	after := map[event.Key]rooms.Ref{}
	for _, c := range commits {
		for _, ch := range c.Changes {
			j.moved = j.moved || ch.Key.Type == "m.room.member"
			switch {
			case ch.New.NID == 0:
				delete(after, ch.Key)
			case j.a.q.StateAfter || !shown[ch.New.NID]:
				after[ch.Key] = ch.New
			}
		}
	}
	return j.takeState(after)
}

// takeState keeps what the state filter lets through, and adds the senders' member events when members are loaded lazily.
func (j *joinedRoom) takeState(changes map[event.Key]rooms.Ref) error {
	f := &j.a.q.Filter.Room.State
	lazy := f.LazyLoadMembers
	var senders []string
	own := map[string]bool{} // senders whose member event is in the timeline
	if lazy {
		for _, e := range j.timeline {
			// With use_state_after the timeline is no state: the member events are wanted beside it.
			if !j.a.q.StateAfter && e.Is("m.room.member", e.Sender()) {
				own[e.Sender()] = true
			}
			senders = append(senders, e.Sender())
		}
		if j.fresh {
			senders = append(senders, j.a.q.User)
			senders = append(senders, heroes(j.head, j.a.q.User)...)
		}
	}
	have := map[int64]bool{}
	for k, ref := range changes {
		// A changed membership is told even to a client that loads members lazily, unless the room is new to it.
		if lazy && j.fresh && k.Type == "m.room.member" {
			continue
		}
		if f.AllowsType(k.Type) {
			j.state = append(j.state, ref)
			have[ref.NID] = true
		}
	}
	if lazy && f.AllowsType("m.room.member") {
		kept := senders[:0]
		for _, u := range senders {
			if !own[u] {
				kept = append(kept, u)
			}
		}
		for _, ref := range j.a.lazyMembers(j.room, j.head, kept, j.fresh) {
			if !have[ref.NID] {
				j.state = append(j.state, ref)
			}
		}
	}
	return nil
}

// write adds the room to rooms.join, unless there is nothing to tell. counts says that the unread counts may have changed.
func (j *joinedRoom) write(counts bool) error {
	a := j.a
	if len(j.timeline) == 0 && len(j.state) == 0 && j.ephemeral == nil && j.account == nil && !j.fresh && !j.limited && !counts && !j.hasSticky() {
		return nil
	}
	b := make([]byte, 0, 512+1024*len(j.timeline)+512*len(j.state))
	b = append(b, `{"timeline":{"events":[`...)
	relations, err := j.relations()
	if err != nil {
		return err
	}
	comma := false
	for _, e := range j.timeline {
		if comma {
			b = append(b, ',')
		}
		comma = true
		if b, err = j.event(b, e, relations[e.NID]); err != nil {
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
	b = j.prev.append(b)
	b = append(b, `"},"`...)
	b = append(b, a.q.stateKey()...)
	b = append(b, `":{"events":[`...)
	if len(j.state) > 0 {
		events, err := j.room.ByRefs(a.ctx, j.state)
		if err != nil {
			return err
		}
		f := &a.q.Filter.Room.State
		comma = false
		for _, e := range events {
			if !f.Allows(j.room.ID, e.Type(), e.Sender(), f.ContainsURL != nil && hasURL(e.Event)) {
				continue
			}
			if comma {
				b = append(b, ',')
			}
			comma = true
			if b, err = j.room.AppendClient(a.ctx, b, e, rooms.View{User: a.q.User, Device: a.q.Device, Now: a.now, Membership: "join", Bare: true}); err != nil {
				return err
			}
		}
	}
	b = append(b, `]}`...)
	if j.fresh || j.moved {
		b = a.summary(b, j.room, j.head)
	}
	if j.fresh { // clients look for the sections of a room that they are told of for the first time
		if j.ephemeral == nil {
			j.ephemeral = []byte{}
		}
		if j.account == nil {
			j.account = []byte{}
		}
	}
	if j.ephemeral != nil {
		b = appendEvents(b, "ephemeral", j.ephemeral)
	}
	if j.account != nil {
		b = appendEvents(b, "account_data", j.account)
	}
	if b, err = j.appendSticky(b); err != nil {
		return err
	}
	if b, err = a.unread(b, j.room); err != nil {
		return err
	}
	a.room(&a.join, j.room.ID, append(b, '}'))
	return nil
}

// relations gives the aggregations of the timeline's events. What was just sent has children only among what was just sent.
func (j *joinedRoom) relations() (map[int64][]byte, error) {
	events := j.timeline
	if j.live {
		events = nil
		for i, e := range j.timeline {
			if i > 0 && bytes.Contains(e.Content(), []byte(`"m.relates_to"`)) {
				events = j.timeline
				break
			}
		}
	}
	if len(events) == 0 {
		return nil, nil
	}
	agg := rooms.Aggregator{Room: j.room, Reader: j.a.q.User, Ignored: j.a.ignored}
	return agg.Aggregate(j.a.ctx, rooms.View{User: j.a.q.User, Device: j.a.q.Device, Now: j.a.now}, events...)
}

func (j *joinedRoom) event(b []byte, e *rooms.Stored, relations []byte) ([]byte, error) {
	a := j.a
	if a.q.Filter.Federation {
		shown, err := j.room.ShownTo(a.ctx, e, a.q.User)
		if err != nil {
			return b, err
		}
		return append(b, shown.JSON()...), nil
	}
	v := rooms.View{User: a.q.User, Device: a.q.Device, Now: a.now, Membership: "join", Relations: relations}
	if j.fresh || e.Pos <= a.since.Pos || e.Is("m.room.member", a.q.User) {
		m, err := j.room.MembershipAt(a.ctx, e, a.q.User)
		if err != nil {
			return b, err
		}
		v.Membership = m
	}
	return j.room.AppendClient(a.ctx, b, e, v)
}
