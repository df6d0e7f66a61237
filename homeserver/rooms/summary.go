// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Summary is what somebody may know of a room before he enters it ("Room summary", "Spaces").
type Summary struct {
	DirectoryRoom
	Version    string   `json:"room_version,omitempty"`
	Encryption string   `json:"encryption,omitempty"`
	Allowed    []string `json:"allowed_room_ids,omitempty"`
	Membership string   `json:"membership,omitempty"`
}

// Summarise gives the summary of a room for a user, "" for somebody who is not logged in; ErrNoRoom also for a room of which he may
// not know, and for one that only other servers are in.
func (s *Service) Summarise(ctx context.Context, id, user string) (*Summary, error) {
	r, err := s.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	head := r.Head()
	if !r.Here() {
		return nil, ErrNoRoom
	}
	out, err := r.summary(ctx, head)
	if err != nil {
		return nil, err
	}
	open := out.open()
	if user != "" {
		if out.Membership = head.Membership(user); out.Membership == "" {
			out.Membership = "leave"
		}
		open = open || out.Membership == "join" || out.Membership == "invite"
		for _, id := range out.Allowed {
			if open {
				break
			}
			if other, err := s.Room(ctx, id); err == nil {
				open = other.Head().IsJoined(user)
			}
		}
	}
	if !open {
		return nil, ErrNoRoom
	}
	return out, nil
}

// summary says of a room what may be said to whoever may know of it.
func (r *Room) summary(ctx context.Context, head *Head) (*Summary, error) {
	d, err := r.Describe(ctx)
	if err != nil {
		return nil, err
	}
	out := &Summary{DirectoryRoom: d, Version: string(r.Version)}
	if e, err := r.State(ctx, head, "m.room.encryption", ""); err != nil {
		return nil, err
	} else if e != nil {
		out.Encryption = gjson.GetBytes(e.Content(), "algorithm").Str
	}
	if d.JoinRule == "restricted" || d.JoinRule == "knock_restricted" {
		e, err := r.State(ctx, head, "m.room.join_rules", "")
		if err != nil {
			return nil, err
		}
		if e != nil {
			for _, a := range gjson.GetBytes(e.Content(), "allow").Array() {
				if a.Get("type").Str == "m.room_membership" && a.Get("room_id").Type == gjson.String {
					out.Allowed = append(out.Allowed, a.Get("room_id").Str)
				}
			}
		}
	}
	return out, nil
}

// open says that anybody may know of the room.
func (s *Summary) open() bool {
	return s.WorldReadable || s.JoinRule == "public" || s.JoinRule == "knock" || s.JoinRule == "knock_restricted"
}

// SpaceChild is a room of a space.
type SpaceChild struct {
	ID        string
	Suggested bool
	Event     *Stored
}

// SpaceChildren lists the rooms of a space in their order ("Ordering of children within a space").
func (r *Room) SpaceChildren(ctx context.Context) ([]SpaceChild, error) {
	var refs []Ref
	r.Head().Each(func(k event.Key, ref Ref) {
		if k.Type == "m.space.child" {
			refs = append(refs, ref)
		}
	})
	events, err := r.ByRefs(ctx, refs)
	if err != nil {
		return nil, err
	}
	out := make([]SpaceChild, 0, len(events))
	for _, e := range events {
		if !gjson.GetBytes(e.Content(), "via").IsArray() {
			continue // was taken out
		}
		out = append(out, SpaceChild{ID: *e.StateKey(), Suggested: gjson.GetBytes(e.Content(), "suggested").Bool(), Event: e})
	}
	order := func(c SpaceChild) (string, bool) {
		o := gjson.GetBytes(c.Event.Content(), "order")
		if o.Type != gjson.String || o.Str == "" || len(o.Str) > 50 {
			return "", false
		}
		for _, b := range []byte(o.Str) {
			if b < 0x20 || b > 0x7e {
				return "", false
			}
		}
		return o.Str, true
	}
	slices.SortFunc(out, func(a, b SpaceChild) int {
		x, hasX := order(a)
		y, hasY := order(b)
		switch {
		case hasX && !hasY:
			return -1
		case hasY && !hasX:
			return 1
		}
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a.Event.OriginTS(), b.Event.OriginTS()), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// EventAt finds the event nearest to a time (milliseconds since 1970), forwards from it or back. Errors: M_NOT_FOUND.
func (r *Room) EventAt(ctx context.Context, ts int64, backwards bool) (*Stored, error) {
	none := signalling.NotFound("there is no event in that direction")
	nid, err := r.s.store.EventAt(ctx, r.NID, ts, backwards)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	e, err := r.ByRef(ctx, Ref{NID: nid})
	if err == nil && e == nil {
		err = none
	}
	return e, err
}

// Report keeps what a user reports to the administrators.
func (s *Service) Report(ctx context.Context, reporter, room, eventID, user, reason string) error {
	nid, err := s.store.NID(ctx)
	if err != nil {
		return err
	}
	row := storage.Report{NID: nid, CreatedTS: s.clock.Now().UnixMilli(), Reporter: reporter, RoomID: room, EventID: eventID, UserID: user, Reason: reason}
	return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertReport(row) })
}
