// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// AddAlias gives a room another alias. Errors: 409 M_UNKNOWN when it is taken.
func (s *Service) AddAlias(ctx context.Context, alias string, room *Room, creator string) error {
	return s.store.Write(ctx, func(tx *storage.Tx) error {
		taken, err := tx.InsertAlias(alias, room.NID, creator)
		if err == nil && taken {
			return signalling.Refuse(409, "M_UNKNOWN", "the alias %s is taken", alias)
		}
		return err
	})
}

// RemoveAlias deletes an alias, and takes it out of the room's m.room.canonical_alias where user may do that.
func (s *Service) RemoveAlias(ctx context.Context, alias, user string) error {
	id, _, err := s.ResolveAlias(ctx, alias)
	if err != nil {
		return err
	}
	if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.DeleteAlias(alias) }); err != nil {
		return err
	}
	r, err := s.Room(ctx, id)
	if err != nil {
		return err
	}
	main, err := r.State(ctx, r.Head(), "m.room.canonical_alias", "")
	if err != nil || main == nil {
		return err
	}
	c := map[string]any{}
	if v, ok := gjson.ParseBytes(main.Content()).Value().(map[string]any); ok {
		c = v
	}
	changed := false
	if c["alias"] == alias {
		delete(c, "alias")
		changed = true
	}
	if alts, ok := c["alt_aliases"].([]any); ok {
		kept := slices.DeleteFunc(slices.Clone(alts), func(x any) bool { return x == alias })
		if len(kept) != len(alts) {
			changed = true
			c["alt_aliases"] = kept
			if len(kept) == 0 {
				delete(c, "alt_aliases")
			}
		}
	}
	if !changed {
		return nil
	}
	content, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = s.Append(ctx, id, Draft{Sender: user, Type: "m.room.canonical_alias", StateKey: new(string), Content: content})
	if err != nil && signalling.AsError(err).Code == "M_FORBIDDEN" {
		return nil // the alias is gone all the same
	}
	return err
}

// Aliases lists a room's local aliases.
func (s *Service) Aliases(ctx context.Context, room *Room) ([]string, error) {
	return s.store.RoomAliases(ctx, room.NID)
}

// Listed says whether a room is in the room directory.
func (s *Service) Listed(ctx context.Context, id string) (bool, error) {
	row, err := s.store.Room(ctx, id)
	if err == storage.ErrNotFound {
		return false, ErrNoRoom
	}
	return row.Public, err
}

// List puts a room into the room directory or takes it out.
func (s *Service) List(ctx context.Context, room *Room, public bool) error {
	return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetRoomPublic(room.NID, public) })
}

// DirectoryPage is one page of the room directory ("PublicRoomsChunk").
type DirectoryPage struct {
	Chunk []DirectoryRoom `json:"chunk"`
	Next  string          `json:"next_batch,omitempty"`
	Prev  string          `json:"prev_batch,omitempty"`
	Total int             `json:"total_room_count_estimate"`
}

// DirectoryRoom is one room in the directory.
type DirectoryRoom struct {
	ID            string  `json:"room_id"`
	Name          string  `json:"name,omitempty"`
	Topic         string  `json:"topic,omitempty"`
	Alias         string  `json:"canonical_alias,omitempty"`
	Avatar        string  `json:"avatar_url,omitempty"`
	Joined        int     `json:"num_joined_members"`
	WorldReadable bool    `json:"world_readable"`
	GuestsMayJoin bool    `json:"guest_can_join"`
	JoinRule      string  `json:"join_rule,omitempty"`
	Type          *string `json:"room_type,omitempty"`
}

// Describe gives what the room directory says of a room.
func (r *Room) Describe(ctx context.Context) (DirectoryRoom, error) {
	head := r.Head()
	d := DirectoryRoom{ID: r.ID, Joined: len(head.Joined()), JoinRule: "invite"}
	for _, x := range []struct {
		typ, field string
		set        func(string)
	}{
		{"m.room.name", "name", func(v string) { d.Name = v }},
		{"m.room.topic", "topic", func(v string) { d.Topic = v }},
		{"m.room.canonical_alias", "alias", func(v string) { d.Alias = v }},
		{"m.room.avatar", "url", func(v string) { d.Avatar = v }},
		{"m.room.history_visibility", "history_visibility", func(v string) { d.WorldReadable = v == "world_readable" }},
		{"m.room.guest_access", "guest_access", func(v string) { d.GuestsMayJoin = v == "can_join" }},
		{"m.room.join_rules", "join_rule", func(v string) { d.JoinRule = v }},
		{"m.room.create", "type", func(v string) { d.Type = &v }},
	} {
		e, err := r.State(ctx, head, x.typ, "")
		if err != nil {
			return d, err
		}
		if e != nil {
			if v := gjson.GetBytes(e.Content(), x.field); v.Type == gjson.String {
				x.set(v.Str)
			}
		}
	}
	return d, nil
}

// Directory lists the rooms of the room directory, the largest first, that match a search term and one of types (a nil entry is a
// room without a type; no types: all).
func (s *Service) Directory(ctx context.Context, term string, types []*string, since string, limit int) (*DirectoryPage, error) {
	start := 0
	if since != "" {
		n, err := strconv.Atoi(since)
		if err != nil || n < 0 {
			return nil, signalling.InvalidParam("since is not a token that this server gave out")
		}
		start = n
	}
	ids, err := s.store.PublicRooms(ctx)
	if err != nil {
		return nil, err
	}
	term = strings.ToLower(term)
	all := []DirectoryRoom{}
	for _, id := range ids {
		r, err := s.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		d, err := r.Describe(ctx)
		if err != nil {
			return nil, err
		}
		if term != "" && !strings.Contains(strings.ToLower(d.Name+"\n"+d.Topic+"\n"+d.Alias), term) {
			continue
		}
		if len(types) > 0 && !slices.ContainsFunc(types, func(t *string) bool {
			if t == nil || d.Type == nil {
				return t == nil && d.Type == nil
			}
			return *t == *d.Type
		}) {
			continue
		}
		all = append(all, d)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Joined > all[j].Joined })
	p := &DirectoryPage{Total: len(all), Chunk: []DirectoryRoom{}}
	if start < len(all) {
		end := min(len(all), start+limit)
		p.Chunk = all[start:end]
		if end < len(all) {
			p.Next = strconv.Itoa(end)
		}
	}
	if start > 0 {
		p.Prev = strconv.Itoa(max(0, start-limit))
	}
	return p, nil
}
