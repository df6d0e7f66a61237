// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Rooms that the user is not in: what may be told of them is little, and nothing that came after he left.

// invited tells of an invite or a knock: stripped state and nothing else.
func (a *slide) invited(m *match, p, n *sent) (*SlidingRoom, error) {
	if p != nil && p.told == m.m.EventNID {
		return nil, nil
	}
	*n = sent{account: n.account, bump: m.bump}
	r, err := a.s.Rooms.Room(a.ctx, m.m.RoomID)
	if err != nil {
		return nil, err
	}
	events, err := a.v2.strippedEvents(r)
	if err != nil || events == nil {
		return nil, err
	}
	return &SlidingRoom{Initial: true, Stripped: events, Bump: m.bump, Joined: -1, Invited: -1}, nil
}

// hidesInvite says that the user is not to see an invite.
func (a *slide) hidesInvite(m storage.Membership) (bool, error) {
	r, err := a.s.Rooms.Room(a.ctx, m.RoomID)
	if errors.Is(err, rooms.ErrNoRoom) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	own, err := r.ByRef(a.ctx, rooms.Ref{NID: m.EventNID})
	if err != nil || own == nil {
		return false, err
	}
	return a.v2.hidesInvite(own.Sender())
}

// left tells of a room that the user left, was kicked or banned from: what happened up to that moment, and nothing after it.
func (a *slide) left(m *match, p, n *sent, _ *touch) (*SlidingRoom, error) {
	if p != nil && p.told == m.m.EventNID {
		return nil, nil
	}
	r, err := a.s.Rooms.Room(a.ctx, m.m.RoomID)
	if err != nil {
		return nil, err
	}
	own, err := r.ByRef(a.ctx, rooms.Ref{NID: m.m.EventNID})
	if err != nil || own == nil {
		return nil, err
	}
	from := n.events
	if from == live {
		from = a.since.Pos
	}
	fresh := p == nil || p.membership != "join" || n.events == 0
	*n = sent{account: n.account, events: live, bump: m.bump}
	out := &SlidingRoom{Initial: fresh, Bump: m.bump, Joined: -1, Invited: -1}
	b := &roomBuilder{a: a, r: r, head: r.Head(), cfg: m.cfg, fresh: fresh, p: p, n: n, from: from, out: out}
	last := m.departed.last
	if last == nil {
		// An invite or a knock that came to nothing: only the user's own membership is his to see.
		out.Stripped = append(append([]byte{}, own.ClientHead()...), '}')
		b.timeline, b.from = []*rooms.Stored{own}, a.since.Pos
		if err := b.writeTimeline(); err != nil {
			return nil, err
		}
		out.Prev = ""
		return out, b.writeState([]rooms.Ref{{NID: own.NID}})
	}
	out.Inside = true
	if fresh {
		from = 0
	}
	if err := b.fromStore(from, last.Pos, m.cfg.limit); err != nil {
		return nil, err
	}
	if own.NID != last.NID {
		b.timeline = append(b.timeline, own)
		if len(b.timeline) > max(m.cfg.limit, 1) {
			b.timeline, b.limited = b.timeline[1:], true
		}
	}
	state, err := r.AllStateAt(a.ctx, last)
	if err != nil {
		return nil, err
	}
	get := func(k event.Key) (rooms.Ref, bool) { ref, ok := state[k]; return ref, ok }
	var refs []rooms.Ref
	name, avatar := fresh, fresh
	if fresh {
		refs = m.cfg.collect(func(f func(event.Key, rooms.Ref)) {
			for k, ref := range state {
				f(k, ref)
			}
		}, get, nil)
	} else {
		changes, err := r.Changes(a.ctx, from, last.Pos)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			name = name || c.Key == event.Key{Type: "m.room.name"}
			avatar = avatar || c.Key == event.Key{Type: "m.room.avatar"}
			if ref, ok := state[c.Key]; ok && m.cfg.matches(c.Key) {
				refs = append(refs, ref)
			}
		}
	}
	if m.cfg.lazy {
		for _, e := range b.timeline {
			if ref, ok := state[event.Key{Type: "m.room.member", StateKey: e.Sender()}]; ok {
				refs = append(refs, ref)
			}
		}
	}
	refs = slices.DeleteFunc(refs, func(ref rooms.Ref) bool {
		return ref.NID == state[event.Key{Type: "m.room.member", StateKey: a.q.User}].NID
	})
	refs = append(refs, rooms.Ref{NID: own.NID, ID: own.ID()}) // that the user left is told whatever was asked for
	if err := b.writeState(sortRefs(refs)); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		told       bool
		typ, field string
		to         *Told
	}{{name, "m.room.name", "name", &out.Name}, {avatar, "m.room.avatar", "url", &out.Avatar}} {
		if ref, ok := state[event.Key{Type: x.typ}]; x.told && ok {
			e, err := r.ByRef(a.ctx, ref)
			if err != nil {
				return nil, err
			}
			if e != nil {
				x.to.Text = gjson.GetBytes(e.Content(), x.field).Str
				x.to.Is = !fresh || x.to.Text != ""
			}
		}
	}
	return out, b.writeTimeline()
}
