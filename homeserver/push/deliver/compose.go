// SPDX-License-Identifier: Apache-2.0

package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	maxContent  = 16 << 10            // bytes of content that are passed on; telephones take less
	missedSince = 30 * 24 * time.Hour // older missed calls are not counted
	stale       = time.Second / 2     // a push that waited for longer may have been read meanwhile
)

// compose makes the notification for a row; nil when nobody wants to hear of it any more.
func (s *Service) compose(ctx context.Context, p *pusher, row *storage.PushRow) (*gateway.Notification, error) {
	now := s.Clock.Now()
	if now.UnixMilli() >= row.ExpiresTS || !p.enabled {
		return nil, nil
	}
	d := gateway.Device{AppID: p.id.AppID, PushKey: p.id.Key, PushKeyTS: p.createdTS / 1000, Data: p.data}
	n := &gateway.Notification{Devices: []gateway.Device{d}, Prio: "low"}
	var err error
	switch row.Kind {
	case storage.PushEvent, storage.PushRing:
		var still bool
		if still, err = s.composeEvent(ctx, p, row, n, now); err != nil || !still {
			return nil, err
		}
	case storage.PushOver:
		n.Prio = "high" // a telephone rings
		n.Withdrawn = &gateway.Withdrawn{RoomID: row.RoomID, EventID: row.EventID}
	}
	if !p.noCounts {
		if n.Counts, err = s.counts(ctx, p.id.User); err != nil {
			return nil, err
		}
	}
	if row.Kind == storage.PushCounts && (n.Counts == nil || n.Counts.Unread == p.unread && n.Counts.MissedCalls == p.missed) {
		return nil, nil
	}
	return n, nil
}

func (s *Service) composeEvent(ctx context.Context, p *pusher, row *storage.PushRow, n *gateway.Notification, now time.Time) (bool, error) {
	if row.Kind == storage.PushRing && row.Ring != row.EventID && s.Calls != nil && !s.Calls.Ringing(row.RoomID, row.Ring) {
		return false, nil
	}
	room, err := s.Rooms.Room(ctx, row.RoomID)
	if errors.Is(err, error(rooms.ErrNoRoom)) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e, err := room.ByRef(ctx, rooms.Ref{NID: row.EventNID})
	if err != nil || e == nil || e.RedactedBy != "" {
		return false, err
	}
	head := room.Head()
	if m := head.Membership(p.id.User); m != "join" && m != "invite" {
		return false, nil
	}
	if row.Kind == storage.PushEvent && now.Sub(time.UnixMilli(row.CreatedTS)) > stale {
		read, err := s.Rules.HasRead(ctx, p.id.User, room.NID, e.Content(), row.Pos)
		if err != nil || read {
			return false, err
		}
	}
	n.EventID, n.RoomID = e.ID(), room.ID
	if row.High {
		n.Prio = "high"
	}
	if err := json.Unmarshal(row.Tweaks, &n.Devices[0].Tweaks); err != nil {
		return false, err
	}
	if p.idOnly {
		return true, nil
	}
	n.Type, n.Sender = e.Type(), e.Sender()
	n.UserIsTarget = e.IsState() && *e.StateKey() == p.id.User && n.Type == "m.room.member"
	if len(e.Content()) <= maxContent {
		n.Content = e.Content()
	}
	text := func(typ, key, field string) string {
		if err != nil {
			return ""
		}
		var x *rooms.Stored
		if x, err = room.State(ctx, head, typ, key); err != nil || x == nil {
			return ""
		}
		return gjson.GetBytes(x.Content(), field).Str
	}
	n.SenderDisplayName = text("m.room.member", e.Sender(), "displayname")
	n.RoomName = text("m.room.name", "", "name")
	n.RoomAlias = text("m.room.canonical_alias", "", "alias")
	return true, err
}

// counts are what a user has not read in the rooms that he is in, and the calls that he has missed there.
func (s *Service) counts(ctx context.Context, user string) (*gateway.Counts, error) {
	all, err := s.Rooms.UserRooms(ctx, user)
	if err != nil {
		return nil, err
	}
	c := &gateway.Counts{}
	for id, m := range all {
		if m.Membership != "join" {
			continue
		}
		room, err := s.Rooms.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		notify, _, err := s.Rules.Unread(ctx, user, room)
		if err != nil {
			return nil, err
		}
		c.Unread += notify
	}
	c.MissedCalls, err = s.Store.MissedCalls(ctx, user, s.Clock.Now().Add(-missedSince).UnixMilli())
	return c, err
}
