// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// carried is the state that a room's successor takes over ("Server behaviour" of "Room Upgrades"), besides power levels, the main
// alias, bans and what a space holds.
var carried = []string{
	"m.room.server_acl", "m.room.encryption", "m.room.name", "m.room.avatar", "m.room.topic", "m.room.guest_access", "m.room.history_visibility", "m.room.join_rules",
}

// Upgrade replaces a room by one of another version and gives its id. The new room takes over what it is about, its rules, bans and
// aliases; its members follow by themselves. Errors: M_FORBIDDEN for who may not end the room, M_UNSUPPORTED_ROOM_VERSION.
func (s *Service) Upgrade(ctx context.Context, roomID, user string, version event.Version, creators []string) (string, error) {
	if !version.Known() {
		return "", signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", string(version))
	}
	if len(creators) > maxInvites {
		return "", signalling.InvalidParam("a room may have %d additional creators", maxInvites)
	}
	for _, u := range creators {
		if _, _, err := event.UserID(u); err != nil {
			return "", err
		}
	}
	old, err := s.Room(ctx, roomID)
	if err != nil {
		return "", err
	}
	head := old.Head()
	power, err := event.PowerOf(headState{ctx, old, head})
	if err != nil {
		return "", err
	}
	if !head.IsJoined(user) || power.User(user) < power.Event("m.room.tombstone", true) {
		return "", signalling.Forbidden("you may not replace this room")
	}
	aliases, err := s.store.RoomAliases(ctx, old.NID)
	if err != nil {
		return "", err
	}
	row, err := s.store.Room(ctx, roomID)
	if err != nil {
		return "", err
	}
	u := upgrade{s: s, ctx: ctx, old: old, head: head, user: user, version: version, creators: creators}
	if err := u.collect(); err != nil {
		return "", err
	}
	id, err := s.Create(ctx, NewRoom{Version: version, Creator: user, Create: u.create, Drafts: u.drafts, Public: row.Public})
	if err != nil {
		return "", err
	}
	stone, err := json.Marshal(map[string]string{"body": "This room has been replaced", "replacement_room": id})
	if err != nil {
		return "", err
	}
	if _, err := s.Append(ctx, roomID, Draft{Sender: user, Type: "m.room.tombstone", StateKey: new(string), Content: stone}); err != nil {
		return "", err
	}
	next, err := s.Room(ctx, id)
	if err != nil {
		return "", err
	}
	if err := s.store.Write(ctx, func(tx *storage.Tx) error {
		for _, a := range aliases {
			if err := tx.MoveAlias(a, old.NID, next.NID); err != nil {
				return err
			}
		}
		return tx.SetRoomPublic(old.NID, false)
	}); err != nil {
		return "", err
	}
	u.quieten()
	return id, nil
}

// upgrade collects what a new room begins with.
type upgrade struct {
	s        *Service
	ctx      context.Context
	old      *Room
	head     *Head
	user     string
	version  event.Version
	creators []string

	create json.RawMessage
	drafts []Draft
}

func (u *upgrade) add(typ, key string, content json.RawMessage) {
	u.drafts = append(u.drafts, Draft{Sender: u.user, Type: typ, StateKey: &key, Content: content})
}

func (u *upgrade) collect() error {
	first, err := u.old.State(u.ctx, u.head, "m.room.create", "")
	if err != nil {
		return err
	}
	create := map[string]any{}
	if first != nil {
		for k, path := range map[string]string{"type": "type", "m.federate": `m\.federate`} {
			if v := gjson.GetBytes(first.Content(), path); v.Exists() {
				create[k] = v.Value()
			}
		}
	}
	before := map[string]string{"room_id": u.old.ID}
	if ext := u.head.ext; !u.version.CreatorsRule() && len(ext) > 0 {
		before["event_id"] = ext[len(ext)-1].ID
	}
	create["predecessor"] = before
	if u.version.CreatorsRule() && len(u.creators) > 0 {
		create["additional_creators"] = u.creators
	}
	if u.create, err = json.Marshal(create); err != nil {
		return err
	}
	own, err := u.s.MemberContent(u.ctx, u.user, "join", "", nil)
	if err != nil {
		return err
	}
	u.add("m.room.member", u.user, own)
	for _, typ := range append(slices.Clone(carried), "m.room.canonical_alias") {
		e, err := u.old.State(u.ctx, u.head, typ, "")
		if err != nil {
			return err
		}
		if e != nil {
			u.add(typ, "", e.Content())
		}
	}
	var refs []Ref
	u.head.Each(func(k event.Key, r Ref) {
		if k.Type == "m.space.child" || k.Type == "m.room.member" && u.head.Membership(k.StateKey) == "ban" {
			refs = append(refs, r)
		}
	})
	slices.SortFunc(refs, func(a, b Ref) int { return int(a.NID - b.NID) })
	events, err := u.old.ByRefs(u.ctx, refs)
	if err != nil {
		return err
	}
	for _, e := range events {
		content := e.Content()
		if e.Type() == "m.room.member" {
			if content, err = json.Marshal(map[string]string{"membership": "ban", "reason": gjson.GetBytes(e.Content(), "reason").Str}); err != nil {
				return err
			}
		}
		u.add(e.Type(), *e.StateKey(), content)
	}
	return u.power()
}

// power carries the power levels over. They come last: until then the creator may do everything.
func (u *upgrade) power() error {
	e, err := u.old.State(u.ctx, u.head, "m.room.power_levels", "")
	if err != nil {
		return err
	}
	c := map[string]any{}
	if e != nil {
		if err := json.Unmarshal(e.Content(), &c); err != nil {
			return err
		}
	}
	users, _ := c["users"].(map[string]any)
	if users == nil {
		users = map[string]any{}
	}
	if u.version.CreatorsRule() {
		for _, x := range append([]string{u.user}, u.creators...) {
			delete(users, x)
		}
	} else if u.old.Version.CreatorsRule() {
		users[u.user] = 100 // his power was nowhere written
	}
	c["users"] = users
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	u.add("m.room.power_levels", "", b)
	return nil
}

// quieten keeps people from going on in the old room by mistake. Who may not change that leaves it as it is.
func (u *upgrade) quieten() {
	try := func(typ string, content any) {
		b, err := json.Marshal(content)
		if err == nil {
			_, err = u.s.Append(u.ctx, u.old.ID, Draft{Sender: u.user, Type: typ, StateKey: new(string), Content: b})
		}
		if err != nil && signalling.AsError(err).Code != "M_FORBIDDEN" {
			u.s.log.Warn("a room that was replaced could not be made quiet", "room", u.old.ID, "type", typ, "err", err)
		}
	}
	if _, named := u.head.Ref("m.room.canonical_alias", ""); named {
		try("m.room.canonical_alias", map[string]any{})
	}
	e, err := u.old.State(u.ctx, u.head, "m.room.power_levels", "")
	if err != nil || e == nil {
		return
	}
	c := map[string]any{}
	if json.Unmarshal(e.Content(), &c) != nil {
		return
	}
	level := func(k string, missing float64) float64 {
		if v, ok := c[k].(float64); ok {
			return v
		}
		return missing
	}
	quiet := max(50, level("users_default", 0)+1)
	if level("events_default", 0) >= quiet && level("invite", 0) >= quiet {
		return
	}
	c["events_default"], c["invite"] = max(quiet, level("events_default", 0)), max(quiet, level("invite", 0))
	try("m.room.power_levels", c)
}
