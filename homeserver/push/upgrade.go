// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// maxArrivals bounds the joins that wait to be looked at; beyond it a join is passed over, with a line in the log.
const maxArrivals = 1024

// arrival is a user who has just joined a room.
type arrival struct {
	user string
	room *rooms.Room
	head *rooms.Head
}

func (s *Service) arrived(a arrival) {
	select {
	case s.arrivals <- a:
	default:
		s.log.Warn("too many joins at once: push rules of an upgraded room were not carried over", "user", a.user, "room", a.room.ID)
	}
}

// Run carries push rules over to rooms that replace others, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-s.arrivals:
			if err := s.carryOver(ctx, a); err != nil && ctx.Err() == nil {
				s.log.Warn("push rules of an upgraded room were not carried over", "user", a.user, "room", a.room.ID, "err", err)
			}
		}
	}
}

// carryOver gives a user who joins the successor of a room the rule that he has for that room: who silenced the old one wants
// the new one silent too ("Room upgrades" leaves this to servers; others do it).
func (s *Service) carryOver(ctx context.Context, a arrival) error {
	create, err := a.room.State(ctx, a.head, "m.room.create", "")
	if err != nil || create == nil {
		return err
	}
	old := gjson.GetBytes(create.Content(), "predecessor.room_id").Str
	if old == "" || old == a.room.ID {
		return nil
	}
	is := func(id string) func(Rule) bool { return func(r Rule) bool { return r.ID == id } }
	c, _, err := s.load(ctx, a.user)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(c.Own[Room], is(old))
	if i < 0 || slices.ContainsFunc(c.Own[Room], is(a.room.ID)) {
		return nil
	}
	return s.change(ctx, a.user, func(c *changes) error {
		l := c.Own[Room]
		i := slices.IndexFunc(l, is(old))
		if i < 0 || slices.ContainsFunc(l, is(a.room.ID)) {
			return noRule() // changed meanwhile: leave it
		}
		r := l[i]
		r.ID = a.room.ID
		c.Own[Room] = slices.Insert(slices.Clone(l), i, r)
		return nil
	})
}
