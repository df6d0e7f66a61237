// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

type headPointer struct{ atomic.Pointer[Head] }

// Extremity is an event that no other event builds on yet.
type Extremity struct {
	NID   int64
	ID    string
	Depth int64
}

// Head is where a room stands after an event. It never changes.
type Head struct {
	state   *stateMap
	group   *group
	ext     []Extremity
	members *members
	pos     int64 // stream position of the newest event; 0 until committed
	outside bool  // one of our users was invited, or knocks, from outside of the room
}

// Head is the room as of the newest commit.
func (r *Room) Head() *Head { return r.head.Load() }

// Pos is the stream position of the room's newest event.
func (h *Head) Pos() int64 { return h.pos }

// StateGroup names the current state.
func (h *Head) StateGroup() int64 {
	if h.group == nil {
		return 0
	}
	return h.group.id
}

// Size is the number of pieces of state.
func (h *Head) Size() int { return h.state.size }

// Ref names the event at a piece of state.
func (h *Head) Ref(typ, stateKey string) (Ref, bool) {
	return h.state.get(event.Key{Type: typ, StateKey: stateKey})
}

// Each calls f for every piece of state.
func (h *Head) Each(f func(event.Key, Ref)) { h.state.each(f) }

// Joined lists the users who are joined, in no useful order. Do not change it.
func (h *Head) Joined() []string { return h.members.joined }

// Invited lists the users who are invited. Do not change it.
func (h *Head) Invited() []string { return h.members.invited }

// IsJoined says whether a user is joined.
func (h *Head) IsJoined(user string) bool { return h.members.of(user) == "join" }

// Entered says whether a user is joined and was not in an earlier head, which may be nil.
func (h *Head) Entered(was *Head, user string) bool {
	return h.IsJoined(user) && (was == nil || !was.IsJoined(user))
}

// Membership is a user's membership, "" for a user who never had one.
func (h *Head) Membership(user string) string { return h.members.of(user) }

// Servers lists the servers with joined users, this one too. Do not change it.
func (h *Head) Servers() []string { return h.members.servers }

// Extremities lists the forward extremities.
func (h *Head) Extremities() []Extremity { return h.ext }

// State gives one piece of the room's state as of h; nil when there is none.
func (r *Room) State(ctx context.Context, h *Head, typ, stateKey string) (*Stored, error) {
	ref, ok := h.Ref(typ, stateKey)
	if !ok {
		return nil, nil
	}
	return r.ByRef(ctx, ref)
}

// ByRef loads the event that ref names.
func (r *Room) ByRef(ctx context.Context, ref Ref) (*Stored, error) {
	m, err := r.s.byNID(ctx, r.Version, ref.NID)
	if err != nil {
		return nil, err
	}
	return m[ref.NID], nil
}

// ByRefs loads many events at once; the order is kept.
func (r *Room) ByRefs(ctx context.Context, refs []Ref) ([]*Stored, error) {
	nids := make([]int64, len(refs))
	for i, ref := range refs {
		nids[i] = ref.NID
	}
	m, err := r.s.byNID(ctx, r.Version, nids...)
	if err != nil {
		return nil, err
	}
	out := make([]*Stored, 0, len(refs))
	for _, n := range nids {
		if e := m[n]; e != nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// headState shows a head to the auth rules.
type headState struct {
	ctx context.Context
	r   *Room
	h   *Head
}

// StateView is the room's state as of h, for power levels and auth rules.
func (r *Room) StateView(ctx context.Context, h *Head) event.State { return headState{ctx, r, h} }

func (v headState) Event(k event.Key) (*event.Event, error) {
	e, err := v.r.State(v.ctx, v.h, k.Type, k.StateKey)
	if e == nil {
		return nil, err
	}
	return e.Event, err
}

// members is who is in the room. It never changes; with makes the next one.
type members struct {
	by      map[string]string // user -> membership; the first memberOver changes lie in over
	over    map[string]string
	joined  []string // append-only storage may be shared: an older list just ends earlier
	invited []string
	servers []string // of those who are joined, each once
	counts  map[string]int
}

func newMembers(rows []storage.Membership) *members {
	m := &members{by: make(map[string]string, len(rows)), counts: map[string]int{}}
	for _, x := range rows {
		m.by[x.User] = x.Membership
		switch x.Membership {
		case "join":
			m.joined = append(m.joined, x.User)
			m.counts[event.ServerOf(x.User)]++
		case "invite":
			m.invited = append(m.invited, x.User)
		}
	}
	for s := range m.counts {
		m.servers = append(m.servers, s)
	}
	return m
}

func (m *members) of(user string) string {
	if v, ok := m.over[user]; ok {
		return v
	}
	return m.by[user]
}

func (m *members) with(user, membership string) *members {
	old := m.of(user)
	if old == membership {
		return m
	}
	n := *m
	n.over = make(map[string]string, len(m.over)+1)
	for k, v := range m.over {
		n.over[k] = v
	}
	n.over[user] = membership
	if len(n.over) > overMax {
		n.by = make(map[string]string, len(m.by)+len(n.over))
		for k, v := range m.by {
			n.by[k] = v
		}
		for k, v := range n.over {
			n.by[k] = v
		}
		n.over = nil
	}
	server := event.ServerOf(user)
	switch {
	case membership == "join":
		n.joined = append(m.joined, user)
		if m.counts[server] == 0 {
			n.servers = append(slices.Clone(m.servers), server)
		}
		n.counts = copyCounts(m.counts, server, 1)
	case old == "join":
		n.joined = slices.DeleteFunc(slices.Clone(m.joined), func(u string) bool { return u == user })
		n.counts = copyCounts(m.counts, server, -1)
		if n.counts[server] == 0 {
			n.servers = slices.DeleteFunc(slices.Clone(m.servers), func(x string) bool { return x == server })
		}
	}
	if old == "invite" {
		n.invited = slices.DeleteFunc(slices.Clone(m.invited), func(u string) bool { return u == user })
	} else if membership == "invite" {
		n.invited = append(slices.Clone(m.invited), user)
	}
	return &n
}

// withAll makes the list after many changes.
func (m *members) withAll(changes map[string]string) *members {
	if len(changes) <= overMax {
		for u, x := range changes {
			m = m.with(u, x)
		}
		return m
	}
	all := make(map[string]string, len(m.by)+len(changes))
	for _, list := range []map[string]string{m.by, m.over, changes} {
		for u, x := range list {
			all[u] = x
		}
	}
	rows := make([]storage.Membership, 0, len(all))
	for u, x := range all {
		rows = append(rows, storage.Membership{User: u, Membership: x})
	}
	return newMembers(rows)
}

func copyCounts(m map[string]int, key string, d int) map[string]int {
	n := make(map[string]int, len(m)+1)
	for k, v := range m {
		n[k] = v
	}
	n[key] += d
	return n
}
