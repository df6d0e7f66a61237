// SPDX-License-Identifier: Apache-2.0

package edus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

type object = map[string]any

// edu makes the JSON of one.
func edu(typ string, content any) json.RawMessage {
	raw, err := json.Marshal(object{"edu_type": typ, "content": content})
	if err != nil {
		panic(err) // strings, numbers and JSON that was read before
	}
	return raw
}

func (s *Service) local(user string) bool { return event.ServerOf(user) == s.server }

// Typed tells the servers of a room that a user of ours types, or has stopped. It is syncapi's hook.
func (s *Service) Typed(room *rooms.Room, user string, typing bool) {
	servers := room.Servers()
	if len(servers) == 0 || !s.local(user) {
		return
	}
	raw := edu("m.typing", object{"room_id": room.ID, "user_id": user, "typing": typing})
	for _, server := range servers {
		s.Sender.Moment(server, "typing "+room.ID+" "+user, raw)
	}
}

// Observe hears of commits: receipts go out, and changes of devices are worked on by Run.
func (s *Service) Observe(_ int64, notes []storage.Note) {
	for _, n := range notes {
		if n.Remote && n.Kind != storage.NoteReceipt {
			continue // the node that committed it queues what is told of it; receipts are sent by the node whose the other server is
		}
		switch n.Kind {
		case storage.NoteReceipt:
			if r, ok := n.Value.(*syncapi.RoomReceipt); ok && r.Type == "m.read" && s.local(r.User) {
				s.sendReceipt(r)
			}
		case storage.NoteDeviceList:
			if n.Value == nil && s.local(n.User) {
				s.poke()
			}
		case storage.NoteEvent:
			if c, ok := n.Value.(*rooms.Committed); ok && s.entered(c) {
				s.poke()
			}
		}
	}
}

// entered says whether an event brought a user of ours into a room with other servers.
func (s *Service) entered(c *rooms.Committed) bool {
	for _, x := range c.Changes {
		if x.Key.Type == "m.room.member" && s.local(x.Key.StateKey) && c.Head.Entered(c.Before, x.Key.StateKey) {
			return len(c.Room.Servers()) > 0
		}
	}
	return false
}

// poke has Run look what is to be told of devices.
func (s *Service) poke() {
	select {
	case s.devices <- struct{}{}:
	default:
	}
}

func (s *Service) sendReceipt(r *syncapi.RoomReceipt) {
	servers := r.Room.Servers()
	if len(servers) == 0 {
		return
	}
	data := object{"ts": r.TS}
	if r.ThreadID != "" {
		data["thread_id"] = r.ThreadID
	}
	raw := edu("m.receipt", object{r.Room.ID: object{"m.read": object{r.User: object{"data": data, "event_ids": []string{r.EventID}}}}})
	for _, server := range servers {
		s.Sender.Moment(server, "receipt "+r.Room.ID+" "+r.User+" "+r.ThreadID, raw)
	}
}

// Run tells other servers of devices and presence until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var changes <-chan struct{}
	seen := uint64(0)
	if s.Presence != nil {
		changes = s.Presence.Watch(ctx)
		seen = s.Presence.Version()
	}
	s.poke() // what was not told when the server stopped
	retry := make(chan struct{}, 1)
	stop := func() bool { return true }
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.devices:
		case <-retry:
		case server := <-s.returned:
			s.sendPresenceTo(ctx, server)
			continue
		case _, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			list, upto, complete := s.Presence.Changes(seen, 0)
			if !complete {
				list, upto, _ = s.Presence.Changes(0, 0)
			}
			seen = upto
			s.sendPresence(ctx, list)
			continue
		}
		if err := s.tellDevices(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("changes of devices could not be told to other servers", "err", err)
			stop()
			stop = s.Clock.AfterFunc(10*time.Second, func() {
				select {
				case retry <- struct{}{}:
				default:
				}
			})
		}
	}
}

func (s *Service) sendPresence(ctx context.Context, list []presence.Status) {
	now := s.Clock.Now()
	for _, p := range list {
		if !s.local(p.UserID) {
			continue
		}
		servers, err := s.sharing(ctx, p.UserID)
		if err != nil {
			s.Log.Debug("presence was not told", "user", p.UserID, "err", err)
			continue
		}
		raw := edu("m.presence", object{"push": []object{pushed(p, now)}})
		for _, server := range servers {
			s.Sender.Moment(server, "presence "+p.UserID, raw)
		}
	}
}

// pushed is what is told of a user's presence.
func pushed(p presence.Status, now time.Time) object {
	push := object{"user_id": p.UserID, "presence": p.State, "currently_active": p.State == presence.Online}
	if p.StatusMsg != "" {
		push["status_msg"] = p.StatusMsg
	}
	if !p.LastActive.IsZero() {
		push["last_active_ago"] = max(0, now.Sub(p.LastActive).Milliseconds())
	}
	return push
}

// Returned says that a server which was away is there again: it is told who of those whom it shares a room with is here. It returns at once.
func (s *Service) Returned(server string) {
	select {
	case s.returned <- server:
	default:
	}
}

// sendPresenceTo tells one server of all users whom it shares a room with and who are not offline, at most maxPresence.
func (s *Service) sendPresenceTo(ctx context.Context, server string) {
	const inOne = 100 // users in one EDU
	if s.Presence == nil {
		return
	}
	now := s.Clock.Now()
	list, _, _ := s.Presence.Changes(0, 0)
	var all []object
	for _, p := range list {
		if !s.local(p.UserID) || p.State == presence.Offline {
			continue
		}
		servers, err := s.sharing(ctx, p.UserID)
		if err != nil {
			s.Log.Debug("presence was not told", "user", p.UserID, "err", err)
			continue
		}
		if slices.Contains(servers, server) {
			if all = append(all, pushed(p, now)); len(all) == maxPresence {
				break
			}
		}
	}
	for part := range slices.Chunk(all, inOne) {
		s.Sender.Moment(server, "presence of all since "+fmt.Sprint(part[0]["user_id"]), edu("m.presence", object{"push": part}))
	}
}
