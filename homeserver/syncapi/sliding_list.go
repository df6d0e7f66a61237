// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// SlidingList is a list of a request: the rooms that pass Filter, and of them those in Ranges.
type SlidingList struct {
	Name   string
	Config SlidingConfig
	Ranges [][2]int64 // first and last index; nil: all
	Filter SlidingFilter
}

// SlidingFilter says which rooms are in a list (SlidingRoomFilter of MSC4186). The room type "" stands for rooms without one. Lists
// that are nil let everything in.
type SlidingFilter struct {
	DM, Encrypted, Invited *bool
	Types, NotTypes        []string
	Spaces                 []string
	Tags, NotTags          []string
}

// listed is a room of the user's list.
type listed struct {
	m         storage.Membership
	pos       int64 // the last activity: rooms are sorted by it
	bump      int64
	encrypted bool
	typ       string
	departed  *departure // how the user left
}

// match is a room that a list or a subscription asks for.
type match struct {
	*listed
	cfg        *roomConfig
	lists      []string
	subscribed bool
}

// personal is what of a user's account data matters here.
type personal struct {
	direct map[string]bool            // rooms of m.direct
	tags   map[string]map[string]bool // room -> tags; nil until a list asks
}

// entries makes the user's room list, the newest activity first ("Lists" of MSC4186).
func (a *slide) entries() ([]*listed, error) {
	all, err := a.s.Rooms.UserRooms(a.ctx, a.q.User)
	if err != nil {
		return nil, err
	}
	slab := make([]listed, 0, len(all))
	out := make([]*listed, 0, len(all))
	var rest []string // rooms that are not in the list
	for _, id := range a.c.ids(all) {
		m := all[id]
		slab = append(slab, listed{m: m, pos: m.Pos, bump: m.Pos})
		l := &slab[len(slab)-1]
		rest = append(rest, id)
		switch m.Membership {
		case "join", "invite", "knock":
			if m.Membership == "invite" {
				if hidden, err := a.hidesInvite(m); err != nil {
					return nil, err
				} else if hidden {
					continue
				}
			}
			f, err := a.s.roomFacts(a.ctx, m.RoomNID, id)
			if errors.Is(err, rooms.ErrNoRoom) {
				continue
			}
			if err != nil {
				return nil, err
			}
			l.encrypted, l.typ = f.encrypted, f.typ
			if m.Membership == "join" {
				l.pos, l.bump = f.pos, f.bump
			}
		case "leave", "ban":
			p := a.c.rooms[id]
			if p == nil || p.told == m.EventNID {
				// The client knows, or never had the room: then it is told only when somebody else sent the user away.
				if m.Forgotten {
					continue
				}
				if d, err := a.s.departedBy(a.ctx, m, a.q.User); err != nil {
					return nil, err
				} else if !d.byOther {
					continue
				}
			}
			l.departed, err = a.s.departureOf(a.ctx, m, a.q.User)
			if errors.Is(err, rooms.ErrNoRoom) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if l.departed.last == nil && (p == nil || p.told == m.EventNID) {
				continue
			}
			l.encrypted, l.typ = l.departed.encrypted, l.departed.typ
		default:
			continue
		}
		out = append(out, l)
		rest = rest[:len(rest)-1]
	}
	slices.SortFunc(out, func(x, y *listed) int {
		switch {
		case x.pos > y.pos:
			return -1
		case x.pos < y.pos:
			return 1
		}
		return 0
	})
	a.c.order = a.c.order[:0]
	for _, l := range out {
		a.c.order = append(a.c.order, l.m.RoomID)
	}
	a.c.order = append(a.c.order, rest...)
	return out, nil
}

// ids lists the user's rooms in the order that they had last time, which is almost the one that they will have.
func (c *connection) ids(all rooms.UserRooms) []string {
	same := len(c.order) == len(all)
	for _, id := range c.order {
		if _, ok := all[id]; !ok {
			same = false
			break
		}
	}
	if same {
		return c.order
	}
	out := make([]string, 0, len(all))
	for id := range all {
		out = append(out, id)
	}
	return out
}

// window works out which rooms the request asks for, in order, and how long its lists are.
func (a *slide) window() error {
	entries, err := a.entries()
	if err != nil {
		return err
	}
	a.matches, a.byID = make([]*match, 0, a.c.width), make(map[string]*match, a.c.width)
	a.counts = a.counts[:0]
	if a.q.Sticky != nil {
		a.wide = make(map[string]*listed, len(entries))
	}
	asked := func(l *listed) {
		if a.wide != nil && l.m.Membership == "join" {
			a.wide[l.m.RoomID] = l
		}
	}
	slab := make([]match, 0, len(entries))
	add := func(l *listed, cfg *roomConfig) *match {
		m := a.byID[l.m.RoomID]
		if m == nil {
			slab = append(slab, match{listed: l})
			m = &slab[len(slab)-1]
			a.byID[l.m.RoomID] = m
		}
		m.cfg = m.cfg.with(cfg)
		return m
	}
	for i := range a.q.Lists {
		list := &a.q.Lists[i]
		cfg := newRoomConfig(list.Config)
		pass, err := a.filter(&list.Filter)
		if err != nil {
			return err
		}
		n, alone := int64(0), []string{list.Name}
		for _, l := range entries {
			if !pass(l) {
				continue
			}
			asked(l)
			in := list.Ranges == nil
			for _, r := range list.Ranges {
				in = in || r[0] <= n && n <= r[1]
			}
			n++
			if in {
				m := add(l, cfg)
				if m.lists == nil {
					m.lists = alone
				} else {
					m.lists = append(slices.Clip(m.lists), list.Name)
				}
			}
		}
		a.counts = append(a.counts, n)
	}
	for _, l := range entries {
		if cfg, ok := a.q.Subscriptions[l.m.RoomID]; ok {
			asked(l)
			add(l, newRoomConfig(cfg)).subscribed = true
		}
		if m := a.byID[l.m.RoomID]; m != nil {
			a.matches = append(a.matches, m)
		}
	}
	a.c.width = len(a.matches)
	return nil
}

func (a *slide) filter(f *SlidingFilter) (func(*listed) bool, error) {
	own := a.c.own
	if f.Tags != nil || f.NotTags != nil {
		if err := own.readTags(a.ctx, a.s, a.q.User, a.next.Pos); err != nil {
			return nil, err
		}
	}
	var inSpace map[string]struct{}
	if f.Spaces != nil {
		inSpace = map[string]struct{}{}
		all, err := a.s.Rooms.UserRooms(a.ctx, a.q.User)
		if err != nil {
			return nil, err
		}
		for _, id := range f.Spaces {
			if all[id].Membership != "join" {
				continue
			}
			children, err := a.s.childrenOf(a.ctx, id)
			if err != nil {
				return nil, err
			}
			for c := range children {
				inSpace[c] = struct{}{}
			}
		}
	}
	is := func(want *bool, have bool) bool { return want == nil || *want == have }
	tagged := func(id string, tags []string) bool {
		return slices.ContainsFunc(tags, func(t string) bool { return own.tags[id][t] })
	}
	return func(l *listed) bool {
		id := l.m.RoomID
		if !is(f.DM, own.direct[id]) || !is(f.Encrypted, l.encrypted) || !is(f.Invited, l.m.Membership == "invite") {
			return false
		}
		if f.Types != nil && !slices.Contains(f.Types, l.typ) || slices.Contains(f.NotTypes, l.typ) {
			return false
		}
		if inSpace != nil {
			if _, ok := inSpace[id]; !ok {
				return false
			}
		}
		return (f.Tags == nil || tagged(id, f.Tags)) && !tagged(id, f.NotTags)
	}, nil
}

// readPersonal reads which rooms are direct ones.
func (s *Service) readPersonal(ctx context.Context, user string) (*personal, error) {
	d, err := s.Store.AccountData(ctx, user, "", "m.direct")
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	p := &personal{}
	p.setDirect(d.Content)
	return p, nil
}

func (p *personal) setDirect(content []byte) {
	p.direct = map[string]bool{}
	var byUser map[string]json.RawMessage
	_ = json.Unmarshal(content, &byUser) // what a user wrote there may be anything
	for _, raw := range byUser {
		var list []string
		_ = json.Unmarshal(raw, &list)
		for _, id := range list {
			p.direct[id] = true
		}
	}
}

func (p *personal) readTags(ctx context.Context, s *Service, user string, to int64) error {
	if p.tags != nil {
		return nil
	}
	rows, err := s.Store.AccountDataSince(ctx, user, 0, to)
	if err != nil {
		return err
	}
	p.tags = map[string]map[string]bool{}
	for _, d := range rows {
		if d.Type == "m.tag" {
			p.setTags(d.RoomID, d.Content)
		}
	}
	return nil
}

func (p *personal) setTags(room string, content []byte) {
	var c struct {
		Tags map[string]json.RawMessage `json:"tags"`
	}
	_ = json.Unmarshal(content, &c)
	tags := make(map[string]bool, len(c.Tags))
	for t := range c.Tags {
		tags[t] = true
	}
	p.tags[room] = tags
}

// changed takes note of account data; true when lists may have changed by it.
func (p *personal) changed(d storage.AccountData) bool {
	switch {
	case d.RoomID == "" && d.Type == "m.direct":
		p.setDirect(d.Content)
	case d.RoomID != "" && d.Type == "m.tag":
		if p.tags != nil {
			p.setTags(d.RoomID, d.Content)
		}
	default:
		return false
	}
	return true
}
