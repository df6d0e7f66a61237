// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Options are the choices of POST /createRoom.
type Options struct {
	Creator       string
	Version       event.Version // "" is the default
	Preset        string        // private_chat, trusted_private_chat, public_chat, or "" for what Public suggests
	Public        bool          // listed in the room directory
	Alias         string        // full alias, "" for none
	Name, Topic   string
	Invite        []string
	LocalInvites  bool // users of other servers in Invite are not invited yet: their servers sign first
	Direct        bool
	Create        json.RawMessage // creation_content
	PowerOverride json.RawMessage // power_level_content_override
	Initial       []InitialState
	Member        json.RawMessage // of the creator's member event, besides the profile; nil for nothing
}

// InitialState is one entry of initial_state.
type InitialState struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

const (
	maxInvites = 500
	maxInitial = 500
)

// CreateRoom makes a room as POST /createRoom describes it, all or nothing. Errors: M_INVALID_ROOM_STATE for state that the rules
// do not allow, and those of Create.
func (s *Service) CreateRoom(ctx context.Context, o Options) (string, error) {
	if o.Version == "" {
		o.Version = s.DefaultVersion()
	}
	if !o.Version.Known() {
		return "", signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", string(o.Version))
	}
	if len(o.Invite) > maxInvites || len(o.Initial) > maxInitial {
		return "", signalling.InvalidParam("a new room may have %d invites and %d pieces of initial state", maxInvites, maxInitial)
	}
	if o.Preset == "" {
		o.Preset = "private_chat"
		if o.Public {
			o.Preset = "public_chat"
		}
	}
	joinRule, guests := "invite", "can_join"
	switch o.Preset {
	case "private_chat", "trusted_private_chat":
	case "public_chat":
		joinRule, guests = "public", "" // forbidden is what it means to say nothing
	default:
		return "", signalling.InvalidParam("preset %q is not known: private_chat, trusted_private_chat or public_chat", o.Preset)
	}
	for _, u := range o.Invite {
		if _, _, err := event.UserID(u); err != nil {
			return "", err
		}
	}
	trusted := o.Preset == "trusted_private_chat"
	if trusted && o.Version.CreatorsRule() && len(o.Invite) > 0 {
		c := map[string]json.RawMessage{}
		if len(o.Create) > 0 {
			if err := json.Unmarshal(o.Create, &c); err != nil {
				return "", signalling.BadJSON("creation_content must be an object").Because(err)
			}
		}
		var more []string
		_ = json.Unmarshal(c["additional_creators"], &more)
		for _, u := range o.Invite {
			if !slices.Contains(more, u) && u != o.Creator {
				more = append(more, u)
			}
		}
		c["additional_creators"], _ = json.Marshal(more)
		o.Create, _ = json.Marshal(c)
	}
	power, err := powerLevels(o, trusted)
	if err != nil {
		return "", err
	}
	own, err := s.MemberContent(ctx, o.Creator, "join", "", o.Member)
	if err != nil {
		return "", err
	}
	var drafts []Draft
	add := func(typ, key string, content json.RawMessage) {
		drafts = append(drafts, Draft{Sender: o.Creator, Type: typ, StateKey: &key, Content: content})
	}
	add("m.room.member", o.Creator, own)
	add("m.room.power_levels", "", power)
	if o.Alias != "" {
		add("m.room.canonical_alias", "", object("alias", o.Alias))
	}
	given := map[event.Key]bool{}
	for _, i := range o.Initial {
		given[event.Key{Type: i.Type, StateKey: i.StateKey}] = true
	}
	for _, d := range []struct{ typ, key, value string }{
		{"m.room.join_rules", "join_rule", joinRule}, {"m.room.history_visibility", "history_visibility", "shared"}, {"m.room.guest_access", "guest_access", guests},
	} {
		if d.value != "" && !given[event.Key{Type: d.typ}] {
			add(d.typ, "", object(d.key, d.value))
		}
	}
	for _, i := range o.Initial {
		if i.Type == "" || len(i.Content) == 0 {
			return "", signalling.BadJSON("initial_state needs a type and a content")
		}
		if i.Type == "m.room.create" || i.Type == "m.room.member" {
			return "", signalling.Refuse(400, "M_INVALID_ROOM_STATE", "initial_state may not set %s", i.Type)
		}
		add(i.Type, i.StateKey, i.Content)
	}
	if o.Name != "" {
		add("m.room.name", "", object("name", o.Name))
	}
	if o.Topic != "" {
		topic, _ := json.Marshal(map[string]any{"topic": o.Topic, "m.topic": map[string]any{"m.text": []map[string]string{{"body": o.Topic}}}})
		add("m.room.topic", "", topic)
	}
	for _, u := range o.Invite {
		if u == o.Creator || o.LocalInvites && event.ServerOf(u) != s.signer.Server {
			continue
		}
		var extra json.RawMessage
		if o.Direct {
			extra = json.RawMessage(`{"is_direct":true}`)
		}
		c, err := s.MemberContent(ctx, u, "invite", "", extra)
		if err != nil {
			return "", err
		}
		add("m.room.member", u, c)
	}
	id, err := s.Create(ctx, NewRoom{Version: o.Version, Creator: o.Creator, Create: o.Create, Drafts: drafts, Alias: o.Alias, Public: o.Public})
	if e := signalling.AsError(err); err != nil && e.Code == "M_FORBIDDEN" {
		return "", signalling.Refuse(400, "M_INVALID_ROOM_STATE", "the room's rules do not allow the state that was asked for").Because(err)
	}
	return id, err
}

func object(key, value string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{key: value})
	return b
}

// powerLevels are the defaults of the spec, with what calls need: everybody in the room may send call membership events (MSC3401),
// so that a group call does not need an administrator.
func powerLevels(o Options, trusted bool) (json.RawMessage, error) {
	users := map[string]int64{}
	if !o.Version.CreatorsRule() {
		users[o.Creator] = 100
		if trusted {
			for _, u := range o.Invite {
				users[u] = 100
			}
		}
	}
	tombstone := int64(100)
	if o.Version.CreatorsRule() {
		tombstone = 150
	}
	invite := int64(50)
	if o.Preset != "public_chat" {
		invite = 0
	}
	levels := map[string]any{
		"users": users, "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": invite,
		"notifications": map[string]int64{"room": 50}, "historical": 100,
		"events": map[string]int64{
			"m.room.name": 50, "m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.canonical_alias": 50, "m.room.avatar": 50,
			"m.room.tombstone": tombstone, "m.room.server_acl": 100, "m.room.encryption": 100, "org.matrix.msc3401.call.member": 0,
		},
	}
	if len(o.PowerOverride) > 0 {
		var over map[string]any
		if err := json.Unmarshal(o.PowerOverride, &over); err != nil {
			return nil, signalling.BadJSON("power_level_content_override must be an object").Because(err)
		}
		maps.Copy(levels, over)
	}
	return json.Marshal(levels)
}
