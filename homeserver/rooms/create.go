// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// NewRoom is what a room is made of.
type NewRoom struct {
	Version event.Version
	Creator string
	Create  json.RawMessage // content of m.room.create; creator and room_version are filled in as the version wants them
	Drafts  []Draft         // everything after the create event, the creator's join first
	Alias   string          // full alias, "" for none
	Public  bool            // listed in the room directory
}

// Create makes a room with its first events, all or nothing, and gives its id. Errors: M_UNSUPPORTED_ROOM_VERSION, M_ROOM_IN_USE (the
// alias is taken), M_FORBIDDEN (a draft is not allowed), M_BAD_JSON.
func (s *Service) Create(ctx context.Context, n NewRoom) (string, error) {
	if !n.Version.Known() {
		return "", signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", string(n.Version))
	}
	content := map[string]json.RawMessage{}
	if len(n.Create) > 0 {
		if err := json.Unmarshal(n.Create, &content); err != nil {
			return "", signalling.BadJSON("creation_content must be an object").Because(err)
		}
	}
	content["room_version"], _ = json.Marshal(n.Version)
	delete(content, "creator")
	if n.Version.CreatorInContent() {
		content["creator"], _ = json.Marshal(n.Creator)
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	nid, err := s.store.NID(ctx)
	if err != nil {
		return "", err
	}
	r := &Room{NID: nid, head: &headPointer{}, Version: n.Version, s: s, used: s.clock.Now(), gaps: map[string][]int64{}, early: map[string][]int64{}}
	empty := &Head{state: &stateMap{}, members: newMembers(nil)}
	proto := event.Proto{Sender: n.Creator, Type: "m.room.create", StateKey: new(string), Content: raw}
	if !n.Version.CreateIsRoomID() {
		proto.RoomID = "!" + rand.Text()[:18] + ":" + s.signer.Server
	}
	e, err := event.Build(n.Version, proto, nil, 1, event.EventsState{}, s.signer, s.createTime())
	if err != nil {
		return "", err
	}
	if err := event.Authorise(e, event.EventsState{}); err != nil {
		return "", signalling.BadJSON("the room cannot be created like this").Because(err)
	}
	r.ID = e.RoomID()
	first := planned{}
	enid, err := s.store.NID(ctx)
	if err != nil {
		return "", err
	}
	first.stored = &Stored{Event: e, NID: enid}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floor = enid
	var plan []planned
	queued := false
	defer func() {
		if !queued {
			s.pending.drop(plan)
		}
	}()
	if err := r.advance(ctx, &first, empty, []Extremity{{NID: enid, ID: e.ID(), Depth: e.Depth()}}, nil); err != nil {
		return "", err
	}
	plan = []planned{first}
	for _, d := range n.Drafts {
		p, same, err := r.plan(ctx, plan[len(plan)-1].after, d)
		if err != nil {
			return "", err
		}
		if same == "" {
			plan = append(plan, p)
		}
	}
	r.next = empty
	r.head.Store(empty)
	done := make(chan error, 1)
	extra := func(tx *storage.Tx) error {
		if err := tx.InsertRoom(storage.RoomRow{NID: r.NID, ID: r.ID, Version: string(r.Version)}); err != nil {
			return err
		}
		if n.Alias != "" {
			taken, err := tx.InsertAlias(n.Alias, r.NID, n.Creator)
			if err != nil {
				return err
			}
			if taken {
				return signalling.Refuse(400, "M_ROOM_IN_USE", "the alias %s is taken", n.Alias)
			}
		}
		if n.Public {
			if err := tx.SetRoomPublic(r.NID, true); err != nil {
				return err
			}
		}
		tx.After(func() { // before anybody is told of the events
			s.mu.Lock()
			s.rooms[r.ID], s.heads[r.ID] = r, r.head
			s.mu.Unlock()
		})
		return nil
	}
	if err := r.enqueue(plan, extra, plan[len(plan)-1].after, func(err error) { done <- err }); err != nil {
		return "", err
	}
	queued = true
	select {
	case err := <-done:
		if err != nil {
			return "", err
		}
		return r.ID, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// createTime is the time of a new create event, never the same twice: from v12 on the room id is the hash of that event, and two rooms
// that somebody makes in the same millisecond must not be one.
func (s *Service) createTime() time.Time {
	now := s.clock.Now().UnixMilli()
	for {
		last := s.created.Load()
		next := max(now, last+1)
		if s.created.CompareAndSwap(last, next) {
			return time.UnixMilli(next)
		}
	}
}

// ResolveAlias finds the room behind a local alias; M_NOT_FOUND.
func (s *Service) ResolveAlias(ctx context.Context, alias string) (roomID, creator string, err error) {
	if !strings.HasPrefix(alias, "#") || len(alias) > event.MaxIDLength {
		return "", "", signalling.InvalidParam("%q is not a room alias; one looks like #name:server", alias)
	}
	roomID, creator, err = s.store.Alias(ctx, alias)
	if err == storage.ErrNotFound {
		err = signalling.NotFound("there is no room with the alias %s", alias)
	}
	return roomID, creator, err
}
