// SPDX-License-Identifier: Apache-2.0

package edus

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
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
		switch n.Kind {
		case storage.NoteReceipt:
			if r, ok := n.Value.(*syncapi.RoomReceipt); ok && r.Type == "m.read" && s.local(r.User) {
				s.sendReceipt(r)
			}
		case storage.NoteDeviceList:
			if n.Value == nil && s.local(n.User) {
				select {
				case s.devices <- struct{}{}:
				default:
				}
			}
		}
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
	s.devices <- struct{}{} // what was not told when the server stopped
	retry := make(chan struct{}, 1)
	stop := func() bool { return true }
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.devices:
		case <-retry:
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

// sharing lists the other servers that share a room with a user of ours.
func (s *Service) sharing(ctx context.Context, user string) ([]string, error) {
	users, err := s.Rooms.SharedUsers(ctx, user)
	if err != nil {
		return nil, err
	}
	var out []string
	for u := range users {
		if server := event.ServerOf(u); server != s.server && !slices.Contains(out, server) {
			out = append(out, server)
		}
	}
	slices.Sort(out)
	return out, nil
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
		push := object{"user_id": p.UserID, "presence": p.State, "currently_active": p.State == presence.Online}
		if p.StatusMsg != "" {
			push["status_msg"] = p.StatusMsg
		}
		if !p.LastActive.IsZero() {
			push["last_active_ago"] = max(0, now.Sub(p.LastActive).Milliseconds())
		}
		raw := edu("m.presence", object{"push": []object{push}})
		for _, server := range servers {
			s.Sender.Moment(server, "presence "+p.UserID, raw)
		}
	}
}

// tellDevices queues an m.device_list_update for the users of ours whose devices changed since the last time, and an
// m.signing_key_update for their keys. The position up to which that was done moves in the same transaction.
func (s *Service) tellDevices(ctx context.Context) error {
	from, err := s.Store.DeviceListsTold(ctx)
	if err != nil {
		return err
	}
	to := s.Store.Pos()
	changed, err := s.Store.DeviceListsBetween(ctx, from, to)
	if err != nil || to <= from {
		return err
	}
	type parcel struct {
		server string
		edus   []json.RawMessage
	}
	var parcels []parcel
	for user := range changed {
		if !s.local(user) {
			continue
		}
		servers, err := s.sharing(ctx, user)
		if err != nil {
			return err
		}
		if len(servers) == 0 {
			continue
		}
		list, err := s.Keys.DeviceList(ctx, user)
		if err != nil {
			return err
		}
		edus := updates(list)
		for _, server := range servers {
			parcels = append(parcels, parcel{server, edus})
		}
	}
	err = s.Store.Write(ctx, func(tx *storage.Tx) error {
		for _, p := range parcels {
			for _, raw := range p.edus {
				pos, err := tx.NextPos()
				if err != nil {
					return err
				}
				if err := tx.InsertOutbox(storage.Queued{Destination: p.server, Seq: pos, Payload: raw}); err != nil {
					return err
				}
			}
		}
		return tx.DeviceListsTold(to)
	})
	if err != nil {
		return err
	}
	for _, p := range parcels {
		s.Sender.Wake(p.server)
	}
	return nil
}

// updates makes the EDUs that bring another server's copy of a device list up to date. One device stands for all of them: its
// predecessor is a change that nobody knows, so the other server asks for the whole list, whatever it missed.
func updates(list *e2ee.DeviceList) []json.RawMessage {
	content := object{"user_id": list.User, "device_id": "none", "stream_id": list.Stream, "prev_id": []int64{list.Stream - 1}, "deleted": true}
	if len(list.Devices) > 0 {
		d := list.Devices[0]
		content["device_id"], content["keys"], content["deleted"] = d.ID, d.Keys, false
		if d.Name != "" {
			content["device_display_name"] = d.Name
		}
	}
	out := []json.RawMessage{edu("m.device_list_update", content)}
	if list.Master != nil || list.SelfSigning != nil {
		keys := object{"user_id": list.User}
		if list.Master != nil {
			keys["master_key"] = list.Master
		}
		if list.SelfSigning != nil {
			keys["self_signing_key"] = list.SelfSigning
		}
		out = append(out, edu("m.signing_key_update", keys))
	}
	return out
}
