// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"errors"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// DummyType is the type of events that do nothing but merge forks; clients are not shown them.
const DummyType = "org.matrix.dummy_event"

func (r *Room) loadHoles(ctx context.Context) error {
	gaps, err := r.s.store.Gaps(ctx, r.NID)
	if err != nil {
		return err
	}
	r.gaps = make(map[string][]int64, len(gaps))
	for _, g := range gaps {
		r.gaps[g.Missing] = append(r.gaps[g.Missing], g.EventNID)
	}
	r.holes.Store(int64(len(r.gaps)))
	if r.early, err = r.s.store.EarlyRedactions(ctx, r.NID); err != nil {
		return err
	}
	p, err := r.s.store.PartialRoom(ctx, r.NID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.partial.Store(&p)
	return nil
}

// redactEarly redacts an event whose redaction came first.
func (b *batch) redactEarly(p *planned) error {
	for _, nid := range b.r.early[p.stored.ID()] {
		m, err := b.r.s.byNID(b.ctx, b.r.Version, nid)
		if err != nil {
			return err
		}
		by := m[nid]
		if by == nil || by.StateBefore == 0 {
			continue
		}
		red, err := b.r.redacts(by.Event, p.stored, groupView{b.ctx, b.r, by.StateBefore}, false)
		if err != nil {
			return err
		}
		if red != nil {
			done := *p.stored
			done.Event, done.RedactedBy = red.done, by.ID()
			p.stored = &done
			return nil
		}
	}
	return nil
}

// groupOf is the state group with this whole state, made as a change of near, or near itself where nothing differs. Rejected events stay
// out of it. *Missing names what is not there.
func (r *Room) groupOf(ctx context.Context, near *group, of string, ids []string) (*group, error) {
	places, err := r.s.places(ctx, ids)
	if err != nil {
		return nil, err
	}
	refs := make(map[event.Key]Ref, len(ids))
	var missing []string
	for _, id := range ids {
		p, ok := places[id]
		if !ok {
			missing = append(missing, id)
			continue
		}
		if p.RoomNID != r.NID || p.StateKey == nil {
			return nil, signalling.BadJSON("event %s is no state of this room", id)
		}
		k := event.Key{Type: p.Type, StateKey: *p.StateKey}
		if old, two := refs[k]; two && old.NID != p.NID {
			return nil, signalling.BadJSON("the state has two events for %s %q", k.Type, k.StateKey)
		}
		if p.Status != storage.StatusRejected {
			refs[k] = Ref{p.NID, id}
		}
	}
	if len(missing) > 0 {
		return nil, &Missing{Event: of, IDs: missing}
	}
	if _, ok := refs[event.Key{Type: "m.room.create"}]; !ok {
		return nil, signalling.BadJSON("the state before %s has no create event", of)
	}
	return r.groupOfRefs(ctx, near, refs)
}

func (r *Room) groupOfRefs(ctx context.Context, near *group, refs map[event.Key]Ref) (*group, error) {
	whole := &stateMap{base: refs, size: len(refs)}
	if near == nil {
		return r.s.newGroup(ctx, nil, nil, whole)
	}
	have, err := r.s.groupState(ctx, near.id)
	if err != nil {
		return nil, err
	}
	changes := map[event.Key]Ref{}
	for k, ref := range refs {
		if old, _ := have.get(k); old.NID != ref.NID {
			changes[k] = ref
		}
	}
	have.each(func(k event.Key, _ Ref) {
		if _, ok := refs[k]; !ok {
			changes[k] = Ref{}
		}
	})
	switch {
	case len(changes) == 0:
		return near, nil
	case len(changes) > len(refs)/2:
		return r.s.newGroup(ctx, nil, nil, whole)
	}
	return r.s.newGroup(ctx, near, changes, nil)
}

// places finds where events stand, those on their way to the store too.
func (s *Service) places(ctx context.Context, ids []string) (map[string]storage.EventPlace, error) {
	out := map[string]storage.EventPlace{}
	var rest []string
	for _, id := range ids {
		if e := s.pending.byID(id); e != nil {
			r, err := s.Room(ctx, e.RoomID())
			if err != nil {
				return nil, err
			}
			out[id] = storage.EventPlace{NID: e.NID, RoomNID: r.NID, Pos: e.Pos, ID: id, Type: e.Type(), StateKey: e.StateKey(), Status: e.Status, StateAfter: e.StateAfter}
		} else {
			rest = append(rest, id)
		}
	}
	found, err := s.store.EventPlaces(ctx, rest)
	for id, p := range found {
		out[id] = p
	}
	return out, err
}

// learn adds to a state before an event the members whom its auth events name, where the room's state is not whole yet: their member
// events are the reason why the sender's server let the event pass.
func (b *batch) learn(before *resolution, byAuth event.EventsState, p *planned) (*resolution, error) {
	changes := map[event.Key]Ref{}
	for k, e := range byAuth {
		if k.Type != "m.room.member" {
			continue
		}
		if _, ok, err := b.r.s.groupGet(b.ctx, before.id, k); err != nil {
			return nil, err
		} else if !ok {
			m, err := b.r.s.byEventID(b.ctx, b.r, e.ID())
			if err != nil {
				return nil, err
			}
			if x := m[e.ID()]; x != nil && x.Status != storage.StatusRejected {
				changes[k] = Ref{x.NID, x.ID()}
			}
		}
	}
	if len(changes) == 0 {
		return before, nil
	}
	parent, err := b.r.s.group(b.ctx, before.id)
	if err != nil {
		return nil, err
	}
	g, err := b.r.s.newGroup(b.ctx, parent, changes, nil)
	if err != nil {
		return nil, err
	}
	p.groups = append(p.groups, g)
	return &resolution{id: g.id, base: g.id}, nil
}

// eitherState is a state, and where it has nothing of a member, what another one has.
type eitherState struct {
	event.State
	members event.EventsState
}

// Event gives the event at k.
func (s eitherState) Event(k event.Key) (*event.Event, error) {
	e, err := s.State.Event(k)
	if e == nil && err == nil && k.Type == "m.room.member" {
		return s.members.Event(k)
	}
	return e, err
}

// merge ties forward extremities together with events of a local user who may send them. That it cannot be done is no error: the room
// goes on with more of them.
func (s *Service) merge(ctx context.Context, r *Room) {
	for range 5 {
		head := r.Head()
		before := len(head.ext)
		if before <= maxExtremities {
			return
		}
		power, err := event.PowerOf(headState{ctx, r, head})
		if err != nil {
			s.log.Warn("forks of a room cannot be merged", "room", r.ID, "err", err)
			return
		}
		i := slices.IndexFunc(head.Joined(), func(u string) bool {
			return event.ServerOf(u) == s.signer.Server && power.User(u) >= power.Event(DummyType, false)
		})
		if i < 0 {
			return
		}
		if _, err := s.Append(ctx, r.ID, Draft{Sender: head.Joined()[i], Type: DummyType, Content: []byte(`{}`)}); err != nil {
			s.log.Warn("forks of a room cannot be merged", "room", r.ID, "err", err)
			return
		}
		if len(r.Head().ext) >= before {
			return
		}
	}
}
