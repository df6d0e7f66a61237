// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Accepted is what a server that joined is told of the room (send_join).
type Accepted struct {
	Event     *event.Event   // with our signature where a restricted join wants it
	State     []*event.Event // right before the event
	AuthChain []*event.Event // of State
	Servers   []string       // in the room before the join, this one too
	Partial   bool           // member events are left out of State
}

// AcceptMember takes a member event that a user of another server made from our template (send_join, send_leave, send_knock), and sends
// it to the other servers in the room. The caller has checked the signatures, and that the sender is of the server that asks. partial
// leaves member events out of the answer (MSC3706). Errors: M_NOT_FOUND, M_FORBIDDEN, M_INVALID_PARAM, and the refusals of MakeMember
// for a restricted join.
func (s *Service) AcceptMember(ctx context.Context, roomID string, e *event.Event, membership string, partial bool) (*Accepted, error) {
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	if !r.Here() {
		return nil, errNotHere
	}
	if r.Partial() && membership != "leave" {
		return nil, errPartial
	}
	if e.RoomID() != roomID || e.Version() != r.Version || e.Membership() != membership || e.StateKey() == nil || *e.StateKey() != e.Sender() {
		return nil, signalling.InvalidParam("this is not a member event of %s for its sender", membership)
	}
	head := r.Head()
	if by := gjson.GetBytes(e.Content(), "join_authorised_via_users_server"); membership == "join" && by.Type == gjson.String && event.ServerOf(by.Str) == s.signer.Server {
		// A template may have gone out a while ago: who is let in is decided now.
		if now := head.Membership(e.Sender()); now != "join" && now != "invite" {
			if _, err := r.admits(ctx, head, e.Sender()); err != nil {
				return nil, err
			}
		}
		if e, err = e.Sign(s.signer); err != nil {
			return nil, err
		}
	}
	status, err := s.insertAll(ctx, roomID, []*event.Event{e}, entry{relay: true})
	if missing := (*Missing)(nil); errors.As(err, &missing) {
		return nil, signalling.Forbidden("the event stands on events that are not in this room").Because(err)
	}
	if err != nil {
		return nil, err
	}
	if status[0] != storage.StatusOK {
		return nil, signalling.Forbidden("the room does not allow this")
	}
	if membership == "leave" {
		return &Accepted{Event: e}, nil
	}
	m, err := s.byEventID(ctx, r, e.ID())
	if err != nil {
		return nil, err
	}
	if m[e.ID()] == nil {
		return nil, ErrNoRoom
	}
	out := &Accepted{Event: m[e.ID()].Event, Partial: partial && membership == "join"}
	if membership == "knock" {
		return out, nil
	}
	out.Servers = slices.Clone(head.Servers())
	out.State, out.AuthChain, err = r.stateFor(ctx, m[e.ID()], out.Partial)
	return out, err
}

// stateFor gives the state right before e and its auth chain; lean leaves out the member events that nobody needs at first.
func (r *Room) stateFor(ctx context.Context, e *Stored, lean bool) (state, chain []*event.Event, err error) {
	m, err := r.s.groupState(ctx, e.StateBefore)
	if err != nil {
		return nil, nil, err
	}
	heroes := map[string]bool{e.Sender(): true}
	if lean {
		_, named := m.get(event.Key{Type: "m.room.name"})
		_, aliased := m.get(event.Key{Type: "m.room.canonical_alias"})
		if h := r.Head(); !named && !aliased {
			for _, list := range [][]string{h.Joined(), h.Invited()} {
				for _, u := range list[:min(6, len(list))] {
					heroes[u] = true
				}
			}
		}
	}
	var nids []int64
	m.each(func(k event.Key, ref Ref) {
		if !lean || k.Type != "m.room.member" || heroes[k.StateKey] {
			nids = append(nids, ref.NID)
		}
	})
	found, err := r.s.byNID(ctx, r.Version, nids...)
	if err != nil {
		return nil, nil, err
	}
	in := make(map[string]bool, len(found))
	for _, x := range found {
		state = append(state, x.Event)
		in[x.ID()] = true
	}
	all, err := r.authChain(ctx, state)
	if err != nil {
		return nil, nil, err
	}
	for _, x := range all {
		if !in[x.ID()] || !lean { // the lean answer says each event once
			chain = append(chain, x)
		}
	}
	return state, chain, nil
}

// maxChain bounds an auth chain: each event costs a read.
const maxChain = 200_000

// authChain collects the auth events of events, theirs, and so on to the create event; the events themselves are in it only where
// others name them.
func (r *Room) authChain(ctx context.Context, events []*event.Event) (out []*event.Event, err error) {
	known := make(map[string]*event.Event, len(events))
	for _, e := range events {
		known[e.ID()] = e
	}
	seen := map[string]bool{}
	for next := events; len(next) > 0; {
		var want []string
		var more []*event.Event
		for _, e := range next {
			for _, id := range e.AuthIDs() {
				if seen[id] {
					continue
				}
				seen[id] = true
				if x := known[id]; x != nil { // its own auth events were, or will be, looked at
					out = append(out, x)
				} else {
					want = append(want, id)
				}
			}
		}
		found, err := r.s.byEventID(ctx, r, want...)
		if err != nil {
			return nil, err
		}
		for _, x := range found {
			more = append(more, x.Event)
		}
		if out = append(out, more...); len(out) > maxChain {
			return nil, signalling.TooLarge("the auth chain of these events is too long")
		}
		next = more
	}
	return out, nil
}
