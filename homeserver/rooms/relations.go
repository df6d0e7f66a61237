// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	maxReferences = 50 // of one event in its aggregation
	tries         = 8  // newest children that are looked at for one that the reader may see
)

// RelType is how e relates to another event, "" when it does not.
func (e *Stored) RelType() string {
	rel := gjson.GetBytes(e.Content(), "m\\.relates_to")
	if t := rel.Get("rel_type"); t.Type == gjson.String && rel.Get("event_id").Type == gjson.String {
		return t.Str
	}
	return ""
}

// RelatesTo is the event that e relates to, "" when there is none.
func (e *Stored) RelatesTo() string {
	if id := gjson.GetBytes(e.Content(), "m\\.relates_to.event_id"); id.Type == gjson.String {
		return id.Str
	}
	return ""
}

// Aggregator writes what is known of an event's children into the event ("Aggregations of child events"): its newest edit, the
// summary of its thread, the events that refer to it.
type Aggregator struct {
	Room    *Room
	Reader  string
	Ignored map[string]struct{} // whose events the reader is not shown
}

// Aggregate gives m.relations for those of events that have any, by internal id.
func (a *Aggregator) Aggregate(ctx context.Context, v View, events ...*Stored) (map[int64][]byte, error) {
	ids := make([]string, 0, len(events))
	byID := make(map[string]*Stored, len(events))
	for _, e := range events {
		if !e.IsState() {
			ids = append(ids, e.ID())
			byID[e.ID()] = e
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	kinds, err := a.Room.s.store.RelatedKinds(ctx, a.Room.NID, ids)
	if err != nil || len(kinds) == 0 {
		return nil, err
	}
	v.RoomID = true // children are whole events
	out := map[int64][]byte{}
	for _, k := range kinds {
		e := byID[k.RelatesTo]
		var part []byte
		switch {
		case k.RelType == "m.replace" && !e.Redacted():
			part, err = a.edit(ctx, v, e)
		case k.RelType == "m.thread":
			part, err = a.thread(ctx, v, e, k.Count)
		case k.RelType == "m.reference":
			part, err = a.references(ctx, e)
		}
		if err != nil {
			return nil, err
		}
		if part == nil {
			continue
		}
		b := out[e.NID]
		if b == nil {
			b = []byte{'{'}
		} else {
			b = append(b[:len(b)-1], ',')
		}
		b = event.AppendString(b, k.RelType)
		out[e.NID] = append(append(append(b, ':'), part...), '}')
	}
	return out, nil
}

// shows says that the reader may see a child.
func (a *Aggregator) shows(ctx context.Context, e *Stored) (bool, error) {
	if _, ignored := a.Ignored[e.Sender()]; ignored || e.Redacted() || e.Status != storage.StatusOK {
		return false, nil
	}
	return a.Room.Visible(ctx, e, a.Reader)
}

// Edit is the newest valid replacement of e that the reader may see, nil when there is none ("Event replacements").
func (a *Aggregator) Edit(ctx context.Context, e *Stored) (*Stored, error) {
	if e.IsState() || e.RelType() == "m.replace" {
		return nil, nil
	}
	nids, err := a.Room.s.store.Edits(ctx, e.ID(), e.Sender(), e.Type(), tries)
	if err != nil {
		return nil, err
	}
	m, err := a.Room.s.byNID(ctx, a.Room.Version, nids...)
	if err != nil {
		return nil, err
	}
	for _, n := range nids {
		x := m[n]
		if x == nil || x.IsState() || (x.Type() != "m.room.encrypted" && !gjson.GetBytes(x.Content(), "m\\.new_content").IsObject()) {
			continue
		}
		if ok, err := a.shows(ctx, x); err != nil || ok {
			return x, err
		}
	}
	return nil, nil
}

func (a *Aggregator) edit(ctx context.Context, v View, e *Stored) ([]byte, error) {
	x, err := a.Edit(ctx, e)
	if err != nil || x == nil {
		return nil, err
	}
	return a.Room.AppendClient(ctx, nil, x, v)
}

func (a *Aggregator) thread(ctx context.Context, v View, root *Stored, count int64) ([]byte, error) {
	for u := range a.Ignored {
		n, err := a.Room.s.store.RelatedCountBy(ctx, root.ID(), "m.thread", u)
		if err != nil {
			return nil, err
		}
		count -= n
	}
	rows, err := a.Room.s.store.Relations(ctx, a.Room.NID, root.ID(), "m.thread", "", math.MinInt64, math.MaxInt64, tries, true)
	if err != nil {
		return nil, err
	}
	var latest *Stored
	for _, row := range rows {
		e, err := a.Room.ByRef(ctx, Ref{NID: row.EventNID})
		if err != nil {
			return nil, err
		}
		if e == nil {
			continue
		}
		if ok, err := a.shows(ctx, e); err != nil {
			return nil, err
		} else if ok {
			latest = e
			break
		}
	}
	if latest == nil || count <= 0 {
		return nil, nil
	}
	in := root.Sender() == a.Reader
	if !in {
		if in, err = a.Room.s.store.RelatedBy(ctx, root.ID(), "m.thread", a.Reader); err != nil {
			return nil, err
		}
	}
	edit, err := a.edit(ctx, v, latest)
	if err != nil {
		return nil, err
	}
	if edit != nil {
		v.Relations = append(append([]byte(`{"m.replace":`), edit...), '}')
	}
	if v.Membership, err = a.Room.MembershipAt(ctx, latest, a.Reader); err != nil {
		return nil, err
	}
	b, err := a.Room.AppendClient(ctx, []byte(`{"latest_event":`), latest, v)
	if err != nil {
		return nil, err
	}
	b = strconv.AppendInt(append(b, `,"count":`...), count, 10)
	b = strconv.AppendBool(append(b, `,"current_user_participated":`...), in)
	return append(b, '}'), nil
}

func (a *Aggregator) references(ctx context.Context, e *Stored) ([]byte, error) {
	rows, err := a.Room.s.store.Relations(ctx, a.Room.NID, e.ID(), "m.reference", "", math.MinInt64, math.MaxInt64, maxReferences, false)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, row := range rows {
		x, err := a.Room.ByRef(ctx, Ref{NID: row.EventNID})
		if err != nil {
			return nil, err
		}
		if x == nil {
			continue
		}
		ok, err := a.shows(ctx, x)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if b == nil {
			b = []byte(`{"chunk":[`)
		} else {
			b = append(b, ',')
		}
		b = append(event.AppendString(append(b, `{"event_id":`...), x.ID()), '}')
	}
	if b == nil {
		return nil, nil
	}
	return append(b, "]}"...), nil
}

// maxRecursion is how deep Children looks for children of children, maxChildren how many it takes in.
const (
	maxRecursion = 3
	maxChildren  = 1000
)

// Children lists what relates to an event, with from < position < to, newest first when backwards; relType and typ "" are any. With
// recurse it also lists what relates to those, three levels deep; depth tells how deep it looked.
func (r *Room) Children(ctx context.Context, parent, relType, typ string, recurse bool, from, to int64, limit int, backwards bool) (out []*Stored, depth int, err error) {
	if !recurse {
		rows, err := r.s.store.Relations(ctx, r.NID, parent, relType, typ, from, to, limit, backwards)
		if err != nil {
			return nil, 0, err
		}
		out, err = r.related(ctx, rows)
		return out, 1, err
	}
	var all []storage.Relation
	level := []string{parent}
	seen := map[string]bool{parent: true}
	for depth < maxRecursion && len(level) > 0 && len(all) < maxChildren {
		depth++
		var next []string
		for _, id := range level {
			rows, err := r.s.store.Relations(ctx, r.NID, id, "", "", math.MinInt64, math.MaxInt64, maxChildren-len(all), backwards)
			if err != nil {
				return nil, 0, err
			}
			events, err := r.related(ctx, rows)
			if err != nil {
				return nil, 0, err
			}
			for _, e := range events {
				if !seen[e.ID()] {
					seen[e.ID()] = true
					next = append(next, e.ID())
					all = append(all, storage.Relation{EventNID: e.NID, RelType: e.RelType(), Type: e.Type(), Pos: e.Pos})
				}
			}
		}
		level = next
	}
	kept := all[:0]
	for _, x := range all {
		if (relType == "" || x.RelType == relType) && (typ == "" || x.Type == typ) && x.Pos > from && x.Pos < to {
			kept = append(kept, x)
		}
	}
	slices.SortFunc(kept, func(x, y storage.Relation) int {
		if backwards {
			x, y = y, x
		}
		return cmp.Compare(x.Pos, y.Pos)
	})
	out, err = r.related(ctx, kept[:min(limit, len(kept))])
	return out, depth, err
}

func (r *Room) related(ctx context.Context, rows []storage.Relation) ([]*Stored, error) {
	refs := make([]Ref, len(rows))
	for i, x := range rows {
		refs[i] = Ref{NID: x.EventNID}
	}
	return r.ByRefs(ctx, refs)
}

// IsRelatedBy says whether anything that relates to e does so in one of some ways, and was sent by one of some users; none are any.
func (r *Room) IsRelatedBy(ctx context.Context, e *Stored, relTypes, senders []string) (bool, error) {
	if len(relTypes) == 0 {
		relTypes = []string{""}
	}
	if len(senders) == 0 {
		senders = []string{""}
	}
	for _, t := range relTypes {
		for _, u := range senders {
			if ok, err := r.s.store.RelatedBy(ctx, e.ID(), t, u); err != nil || ok {
				return ok, err
			}
		}
	}
	return false, nil
}

// Threads lists the roots of the room's threads whose newest event is before a position, the liveliest first, and the position of
// each. With participant, only threads that the user began or wrote in.
func (r *Room) Threads(ctx context.Context, before int64, participant string, limit int) (roots []*Stored, at []int64, err error) {
	rows, err := r.s.store.Threads(ctx, r.NID, before, participant, limit)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range rows {
		e, err := r.Event(ctx, t.Root)
		if err != nil {
			return nil, nil, err
		}
		roots, at = append(roots, e), append(at, t.Pos)
	}
	return roots, at, nil
}
