// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// SpaceRoom is a room of a space with the rooms in it, as clients and servers are told of it.
type SpaceRoom struct {
	*Summary
	Children []json.RawMessage `json:"children_state"`
}

// SpaceAnswer is what a server is told of a space (server-server API, "Spaces").
type SpaceAnswer struct {
	Room         SpaceRoom  `json:"room"`
	Children     []*Summary `json:"children"`
	Inaccessible []string   `json:"inaccessible_children"`
}

// maxSpace bounds the rooms of a space that one answer tells of.
const maxSpace = 200

// Stripped gives the child as the stripped event that stands in children_state.
func (c SpaceChild) Stripped() (json.RawMessage, error) {
	return json.Marshal(map[string]any{
		"type": "m.space.child", "state_key": c.ID, "sender": c.Event.Sender(), "origin_server_ts": c.Event.OriginTS(), "content": json.RawMessage(c.Event.Content()),
	})
}

// SpaceFor tells another server of a space and of the rooms in it. Errors: M_NOT_FOUND, also for a room of which it may not know.
func (s *Service) SpaceFor(ctx context.Context, server, id string, suggested bool) (*SpaceAnswer, error) {
	none := signalling.NotFound("there is no such room, or your server may not know of it")
	r, root, err := s.summariseFor(ctx, server, id)
	if errors.Is(err, ErrNoRoom) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	out := &SpaceAnswer{Room: SpaceRoom{Summary: root, Children: []json.RawMessage{}}, Children: []*Summary{}, Inaccessible: []string{}}
	if root.Type == nil || *root.Type != "m.space" {
		return out, nil
	}
	children, err := r.SpaceChildren(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range children {
		if suggested && !c.Suggested {
			continue
		}
		if len(out.Room.Children) == maxSpace {
			break
		}
		e, err := c.Stripped()
		if err != nil {
			return nil, err
		}
		out.Room.Children = append(out.Room.Children, e)
		switch _, child, err := s.summariseFor(ctx, server, c.ID); {
		case err == nil:
			out.Children = append(out.Children, child)
		case !errors.Is(err, ErrNoRoom):
			return nil, err
		default:
			if r, err := s.Room(ctx, c.ID); err == nil && r.Here() { // others may know more of rooms that we are not in
				out.Inaccessible = append(out.Inaccessible, c.ID)
			}
		}
	}
	return out, nil
}

// summariseFor is Summarise for a server; ErrNoRoom also for a room of which it may not know, and for one that this server is not in.
func (s *Service) summariseFor(ctx context.Context, server, id string) (*Room, *Summary, error) {
	r, err := s.Room(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if !r.Here() {
		return nil, nil, ErrNoRoom
	}
	if r.Allows(ctx, server) != nil {
		return nil, nil, ErrNoRoom
	}
	head := r.Head()
	out, err := r.summary(ctx, head)
	if err != nil {
		return nil, nil, err
	}
	open := out.open() || r.HasServer(server) || invitedOf(head, server)
	for _, id := range out.Allowed {
		if open {
			break
		}
		if other, err := s.Room(ctx, id); err == nil {
			open = other.HasServer(server)
		}
	}
	if !open {
		return nil, nil, ErrNoRoom
	}
	return r, out, nil
}

// invitedOf says whether a user of a server is invited.
func invitedOf(h *Head, server string) bool {
	for _, u := range h.Invited() {
		if event.ServerOf(u) == server {
			return true
		}
	}
	return false
}
