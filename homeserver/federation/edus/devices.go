// SPDX-License-Identifier: Apache-2.0

package edus

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// joinBatch is how many joins are worked on in one go.
const joinBatch = 500

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

// parcel is what one server is told.
type parcel struct {
	server string
	edus   []json.RawMessage
}

// tellDevices queues an m.device_list_update, and an m.signing_key_update for the keys, for the users of ours whose devices changed since
// the last time, and for those who joined a room with servers that share no other room with them ("Device Management": such a server
// hears of the user's devices for the first time). What was worked on is crossed out in the transaction that queues, so nothing is
// forgotten, and of several nodes one tells.
func (s *Service) tellDevices(ctx context.Context) error {
	from, err := s.Store.DeviceListsTold(ctx)
	if err != nil {
		return err
	}
	if to := s.Store.Pos(); to > from {
		if err := s.tellChanges(ctx, from, to); err != nil {
			return err
		}
	}
	joins, err := s.Store.DeviceListJoins(ctx, joinBatch)
	if err != nil {
		return err
	}
	if len(joins) == joinBatch {
		s.poke()
	}
	if len(joins) == 0 {
		return nil
	}
	var news []parcel
	for of := joins; len(of) > 0; {
		n := 1
		for n < len(of) && of[n].User == of[0].User {
			n++
		}
		if news, err = s.packJoins(ctx, news, of[:n]); err != nil {
			return err
		}
		of = of[n:]
	}
	return s.queue(ctx, news, func(tx *storage.Tx) (bool, error) {
		for _, j := range joins {
			if mine, err := tx.DeleteDeviceListJoin(j); err != nil || !mine {
				return false, err
			}
		}
		return true, nil
	})
}

// tellChanges tells of the users whose devices changed after from and not after to.
func (s *Service) tellChanges(ctx context.Context, from, to int64) error {
	changed, err := s.Store.DeviceListsBetween(ctx, from, to)
	if err != nil {
		return err
	}
	var news []parcel
	for user := range changed {
		if !s.local(user) {
			continue
		}
		servers, err := s.sharing(ctx, user)
		if err != nil {
			return err
		}
		if news, err = s.pack(ctx, news, user, servers, false); err != nil {
			return err
		}
	}
	return s.queue(ctx, news, func(tx *storage.Tx) (bool, error) { return tx.DeviceListsTold(from, to) })
}

// packJoins adds what the servers of rooms are told that one user of ours has joined.
func (s *Service) packJoins(ctx context.Context, to []parcel, joins []storage.DeviceListJoin) ([]parcel, error) {
	user := joins[0].User
	in, err := s.Rooms.UserRooms(ctx, user)
	if err != nil {
		return nil, err
	}
	fresh, known := map[string]bool{}, map[string]bool{}
	for id, m := range in {
		if m.Membership != "join" {
			continue
		}
		r, err := s.Rooms.Room(ctx, id)
		if errors.Is(err, rooms.ErrNoRoom) {
			continue
		} else if err != nil {
			return nil, err
		}
		into := known
		if slices.ContainsFunc(joins, func(j storage.DeviceListJoin) bool { return j.RoomID == id }) {
			into = fresh
		}
		for _, server := range r.Servers() {
			into[server] = true
		}
	}
	var servers []string
	for server := range fresh {
		if !known[server] {
			servers = append(servers, server)
		}
	}
	slices.Sort(servers)
	return s.pack(ctx, to, user, servers, true)
}

// pack adds what servers are told of a user's devices as they are now. joined: they hear of the user for the first time.
func (s *Service) pack(ctx context.Context, to []parcel, user string, servers []string, joined bool) ([]parcel, error) {
	if len(servers) == 0 {
		return to, nil
	}
	list, err := s.Keys.DeviceList(ctx, user)
	if err != nil {
		return nil, err
	}
	if joined && len(list.Devices) == 0 {
		devices, err := s.Store.Devices(ctx, user)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			list.Devices = append(list.Devices, e2ee.ListedDevice{ID: d.ID, Name: d.DisplayName})
		}
		if len(devices) == 0 && list.Master == nil && list.SelfSigning == nil {
			return to, nil // nobody could write to such a user
		}
	}
	edus := updates(list)
	for _, server := range servers {
		to = append(to, parcel{server, edus})
	}
	return to, nil
}

// errTaken says that another node has been faster.
var errTaken = errors.New("told by another node")

// queue puts parcels into the outbox if done, which crosses out what they came of, says that nobody else has done so.
func (s *Service) queue(ctx context.Context, news []parcel, done func(tx *storage.Tx) (bool, error)) error {
	err := s.Store.Write(ctx, func(tx *storage.Tx) error {
		if mine, err := done(tx); err != nil {
			return err
		} else if !mine {
			return errTaken // and what was crossed out stays
		}
		for _, p := range news {
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
		return nil
	})
	if errors.Is(err, errTaken) {
		s.poke()
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range news {
		s.Sender.Wake(p.server)
	}
	return nil
}

// updates makes the EDUs that bring another server's copy of a device list up to date. One device stands for all of them: its
// predecessor is a change that nobody knows, so the other server asks for the whole list, whatever it missed.
func updates(list *e2ee.DeviceList) []json.RawMessage {
	content := object{"user_id": list.User, "device_id": "none", "stream_id": list.Stream, "deleted": true}
	if list.Stream > 0 {
		content["prev_id"] = []int64{list.Stream - 1}
	}
	if len(list.Devices) > 0 {
		d := list.Devices[0]
		content["device_id"] = d.ID
		delete(content, "deleted")
		if len(d.Keys) > 0 {
			content["keys"] = d.Keys
		}
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
