// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	maxServed  = 100  // events of one answer to /backfill
	maxMissing = 20   // events of one answer to /get_missing_events
	maxWalked  = 1000 // events looked at for one answer
	maxFormer  = 50   // users of a server that is not in the room any more that are looked at
	maxBack    = 16   // memberships of one of them, the newest
)

// RoomFor finds a room that a server may ask about: it and this server are in it. What is refused looks the same as a room that is not
// there, and the room's access list is asked too. Errors: M_FORBIDDEN.
func (s *Service) RoomFor(ctx context.Context, server, roomID string) (*Room, error) {
	r, err := s.Room(ctx, roomID)
	if err != nil && !errors.Is(err, ErrNoRoom) {
		return nil, err
	}
	if err != nil || !r.Here() || !r.HasServer(server) {
		return nil, signalling.Forbidden("your server is not in that room")
	}
	return r, r.Allows(ctx, server)
}

// roomAt finds a room for a question about one of its events: the server is in the room now, or was told of the room as it was at that
// event, since its users were in it then or it was handed to them with their join. So whoever is thrown out can still put together what he
// was in (a server that joined with members left out asks for them afterwards), and learns nothing of what came later. The event is nil
// when it is not there. Errors: M_FORBIDDEN.
func (s *Service) roomAt(ctx context.Context, server, roomID, eventID string) (*Room, *Stored, error) {
	r, refused := s.RoomFor(ctx, server, roomID)
	if r == nil && signalling.AsError(refused).Status == http.StatusForbidden {
		var err error
		if r, err = s.Room(ctx, roomID); err != nil || !r.Here() {
			return nil, nil, refused
		}
		past := r.membersOf(server)
		if len(past) == 0 || r.Allows(ctx, server) != nil {
			return nil, nil, refused
		}
		m, err := s.byEventID(ctx, r, eventID)
		if err != nil {
			return nil, nil, err
		}
		e := m[eventID]
		if e == nil {
			return nil, nil, refused
		}
		told, err := r.wasTold(ctx, server, past, e)
		if err == nil && !told {
			err = refused
		}
		return r, e, err
	}
	if refused != nil {
		return nil, nil, refused
	}
	m, err := s.byEventID(ctx, r, eventID)
	return r, m[eventID], err
}

// membersOf lists the membership events that the users of a server have in the room now, leave and ban too; at most maxFormer.
func (r *Room) membersOf(server string) (nids []int64) {
	r.Head().Each(func(k event.Key, ref Ref) {
		if k.Type == "m.room.member" && event.ServerOf(k.StateKey) == server && len(nids) < maxFormer {
			nids = append(nids, ref.NID)
		}
	})
	return nids
}

// wasTold says whether a server, whose users have the membership events past now, was told of the room as it was at e.
func (r *Room) wasTold(ctx context.Context, server string, past []int64, e *Stored) (bool, error) {
	for _, g := range []int64{e.StateBefore, e.StateAfter} {
		if g == 0 {
			continue
		}
		if m, err := r.membershipOf(ctx, g, server); err != nil || m == "join" {
			return m == "join", err
		}
	}
	shared := false
	if e.StateAfter != 0 {
		vis, err := r.visibilityAt(ctx, e, true)
		if err != nil {
			return false, err
		}
		shared = vis == "shared" || vis == "world_readable"
	}
	now, err := r.s.byNID(ctx, r.Version, past...)
	if err != nil {
		return false, err
	}
	for _, at := range now {
		for step := 0; at != nil && at.StateKey() != nil && step < maxBack; step++ {
			if at.Membership() == "join" && at.Status == storage.StatusOK {
				if slices.Contains(at.PrevIDs(), e.ID()) || shared && e.Pos < at.Pos {
					return true, nil // what was before the join was handed over with it
				}
				if e.IsState() {
					x, err := r.StateAt(ctx, at, false, e.Type(), *e.StateKey())
					if err != nil {
						return false, err
					}
					if x != nil && x.NID == e.NID {
						return true, nil
					}
				}
			}
			if at, err = r.StateAt(ctx, at, false, "m.room.member", *at.StateKey()); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// errNoEvent says that an event is not there, or not for whoever asks.
var errNoEvent = signalling.NotFound("there is no such event in that room")

// StateIDsFor answers GET /state_ids: the state right before an event, and its auth chain. Errors: M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) StateIDsFor(ctx context.Context, server, roomID, eventID string) (state, chain []string, err error) {
	a, b, err := s.StateFor(ctx, server, roomID, eventID)
	for _, e := range a {
		state = append(state, e.ID())
	}
	for _, e := range b {
		chain = append(chain, e.ID())
	}
	return state, chain, err
}

// StateFor answers GET /state: the state right before an event, and its auth chain. Errors: M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) StateFor(ctx context.Context, server, roomID, eventID string) (state, chain []*event.Event, err error) {
	r, e, err := s.roomAt(ctx, server, roomID, eventID)
	if err != nil {
		return nil, nil, err
	}
	if r.Partial() {
		return nil, nil, errPartial
	}
	if e == nil || e.StateBefore == 0 && !e.Is("m.room.create", "") || e.Status == storage.StatusRejected {
		return nil, nil, errNoEvent
	}
	if e.StateBefore == 0 {
		return nil, nil, nil
	}
	return r.stateFor(ctx, e, false)
}

// AuthChainFor answers GET /event_auth: the auth chain of an event. Errors: M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) AuthChainFor(ctx context.Context, server, roomID, eventID string) ([]*event.Event, error) {
	r, e, err := s.roomAt(ctx, server, roomID, eventID)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, errNoEvent
	}
	return r.authChain(ctx, []*event.Event{e.Event})
}

// EventFor answers GET /event: an event of any room, redacted where the server may not see it. Errors: M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) EventFor(ctx context.Context, server, eventID string) (*event.Event, error) {
	p, err := s.store.EventPlaces(ctx, []string{eventID})
	if err != nil {
		return nil, err
	}
	place, ok := p[eventID]
	if !ok {
		return nil, errNoEvent
	}
	row, err := s.store.RoomByNID(ctx, place.RoomNID)
	if err != nil {
		return nil, err
	}
	r, e, err := s.roomAt(ctx, server, row.ID, eventID)
	if err != nil {
		return nil, err
	}
	if e == nil || e.Status == storage.StatusRejected {
		return nil, errNoEvent
	}
	out, err := r.filtered(ctx, server, []*Stored{e})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// BackfillFor answers GET /backfill: events and what came before them, the newest first, redacted where the server may not see them.
// Errors: M_FORBIDDEN.
func (s *Service) BackfillFor(ctx context.Context, server, roomID string, from []string, limit int) ([]*event.Event, error) {
	r, err := s.RoomFor(ctx, server, roomID)
	if err != nil {
		return nil, err
	}
	list, err := r.walk(ctx, from, nil, 0, min(max(limit, 1), maxServed))
	if err != nil {
		return nil, err
	}
	return r.filtered(ctx, server, list)
}

// MissingFor answers POST /get_missing_events: what lies between events that the server has and events that it has not understood yet,
// the oldest first, redacted where the server may not see it. Errors: M_FORBIDDEN.
func (s *Service) MissingFor(ctx context.Context, server, roomID string, earliest, latest []string, limit int, minDepth int64) ([]*event.Event, error) {
	r, err := s.RoomFor(ctx, server, roomID)
	if err != nil {
		return nil, err
	}
	m, err := s.byEventID(ctx, r, latest[:min(len(latest), maxMissing)]...)
	if err != nil {
		return nil, err
	}
	stop := make(map[string]bool, len(earliest))
	for _, id := range earliest {
		stop[id] = true
	}
	var from []string
	for id, e := range m {
		stop[id] = true
		from = append(from, e.PrevIDs()...)
	}
	list, err := r.walk(ctx, from, stop, minDepth, min(max(limit, 1), maxMissing))
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	return r.filtered(ctx, server, list)
}

// walk collects events and their ancestors, the deepest first, without those that stop names and what is only to be reached through
// them.
func (r *Room) walk(ctx context.Context, from []string, stop map[string]bool, minDepth int64, limit int) (out []*Stored, err error) {
	seen := map[string]bool{}
	var front []*Stored // in order of depth, the deepest last
	look := func(ids []string) error {
		var want []string
		for _, id := range ids {
			if !seen[id] && !stop[id] {
				seen[id] = true
				want = append(want, id)
			}
		}
		m, err := r.s.byEventID(ctx, r, want...)
		for _, e := range m {
			if e.Depth() >= minDepth && e.StateAfter != 0 {
				front = append(front, e)
			}
		}
		slices.SortFunc(front, func(a, b *Stored) int {
			return cmp.Or(cmp.Compare(a.Depth(), b.Depth()), cmp.Compare(a.NID, b.NID))
		})
		return err
	}
	if err := look(from); err != nil {
		return nil, err
	}
	for walked := 0; len(front) > 0 && len(out) < limit && walked < maxWalked; walked++ {
		e := front[len(front)-1]
		front = front[:len(front)-1]
		if e.Status != storage.StatusRejected {
			out = append(out, e)
		}
		if err := look(e.PrevIDs()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// filtered gives events as a server may see them: those that it may not are redacted.
func (r *Room) filtered(ctx context.Context, server string, list []*Stored) ([]*event.Event, error) {
	out := make([]*event.Event, len(list))
	was := map[int64]string{} // by state group: what the server's users were
	for i, e := range list {
		ok, err := r.visibleTo(ctx, e, server, was)
		if err != nil {
			return nil, err
		}
		if out[i] = e.Event; !ok {
			if out[i], err = e.Redact(); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// visibleTo says whether a server that is in the room may see an event: its users may, by the history visibility then.
func (r *Room) visibleTo(ctx context.Context, e *Stored, server string, was map[int64]string) (bool, error) {
	if e.StateAfter == 0 || event.ServerOf(e.Sender()) == server || e.StateKey() != nil && event.ServerOf(*e.StateKey()) == server {
		return true, nil // of an outlier nothing is known; it is state that the server was told of
	}
	vis, err := r.visibilityAt(ctx, e, true)
	if err != nil {
		return false, err
	}
	if vis == "shared" || vis == "world_readable" {
		return true, nil
	}
	if e.Is("m.room.history_visibility", "") {
		before, err := r.visibilityAt(ctx, e, false)
		if err != nil {
			return false, err
		}
		if before == "shared" || before == "world_readable" {
			return true, nil
		}
	}
	best, ok := was[e.StateAfter]
	if !ok {
		if best, err = r.membershipOf(ctx, e.StateAfter, server); err != nil {
			return false, err
		}
		was[e.StateAfter] = best
	}
	return best == "join" || vis == "invited" && best == "invite", nil
}

// membershipOf is the best membership that a user of a server has in a state: join, invite or "".
func (r *Room) membershipOf(ctx context.Context, group int64, server string) (best string, err error) {
	m, err := r.s.groupState(ctx, group)
	if err != nil {
		return "", err
	}
	var nids []int64
	m.each(func(k event.Key, ref Ref) {
		if k.Type == "m.room.member" && event.ServerOf(k.StateKey) == server {
			nids = append(nids, ref.NID)
		}
	})
	for len(nids) > 0 {
		n := min(len(nids), 64)
		found, err := r.s.byNID(ctx, r.Version, nids[:n]...)
		if err != nil {
			return "", err
		}
		nids = nids[n:]
		for _, e := range found {
			switch e.Membership() {
			case "join":
				return "join", nil
			case "invite":
				best = "invite"
			}
		}
	}
	return best, nil
}

// EventAtFor answers GET /timestamp_to_event. Errors: M_FORBIDDEN, M_NOT_FOUND.
func (s *Service) EventAtFor(ctx context.Context, server, roomID string, ts int64, backwards bool) (*event.Event, error) {
	r, err := s.RoomFor(ctx, server, roomID)
	if err != nil {
		return nil, err
	}
	e, err := r.EventAt(ctx, ts, backwards)
	if err != nil {
		return nil, err
	}
	ok, err := r.visibleTo(ctx, e, server, map[int64]string{})
	if err == nil && !ok {
		err = errNoEvent
	}
	if err != nil {
		return nil, err
	}
	return e.Event, nil
}

// Servers lists the servers in the room but this one: those with joined users, and while the room's state is not whole yet those that
// we were told of.
func (r *Room) Servers() []string {
	h := r.head.Load()
	out := make([]string, 0, len(h.members.servers))
	for _, s := range h.members.servers {
		if s != r.s.signer.Server && s != "" {
			out = append(out, s)
		}
	}
	if p := r.partial.Load(); p != nil {
		for _, s := range p.Servers {
			if s != r.s.signer.Server && h.members.counts[s] == 0 {
				out = append(out, s)
			}
		}
	}
	return out
}

// HasServer says whether a server is in the room.
func (r *Room) HasServer(server string) bool {
	if r.head.Load().resident(server) {
		return true
	}
	p := r.partial.Load()
	return p != nil && slices.Contains(p.Servers, server)
}

// Partial says that the room was joined with members left out, and that they are not there yet.
func (r *Room) Partial() bool { return r.partial.Load() != nil }
