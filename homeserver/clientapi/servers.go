// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

// Servers reaches rooms and users of other servers; *federation.Service is one.
type Servers interface {
	Join(ctx context.Context, in federation.Entrance) error
	Knock(ctx context.Context, in federation.Entrance) error
	Leave(ctx context.Context, in federation.Entrance) error
	Invite(ctx context.Context, roomID, sender, target, reason string, extra json.RawMessage) error
	Directory(ctx context.Context, alias string) (roomID string, servers []string, err error)
	Profile(ctx context.Context, user, field string) (map[string]json.RawMessage, error)
	PublicRooms(ctx context.Context, server string, body json.RawMessage) (*rooms.DirectoryPage, error)
	Backfill(ctx context.Context, r *rooms.Room, missing []string) (int, error)
	Space(ctx context.Context, roomID string, via []string, suggested bool) (*rooms.SpaceAnswer, error)
}

// elsewhere says that an id is of another server, and that others can be reached.
func (a *API) elsewhere(id string) bool {
	return a.Servers != nil && event.ServerOf(id) != a.Config.ServerName
}

// viaParams are the servers that a client says are in a room.
func (r *Request) viaParams() []string {
	return append(slices.Clone(r.Params("via")), r.Params("server_name")...)
}

// changeMembership makes a user join, knock at or leave a room, with the help of other servers where this one is not in it.
func (a *API) changeMembership(r *Request, roomID string, via []string, membership, reason string, extra json.RawMessage) error {
	ctx := r.Context()
	if a.Servers != nil {
		in := federation.Entrance{RoomID: roomID, User: r.UserID, Via: via, Reason: reason, Extra: extra}
		here, inviter, others, err := a.inRoom(ctx, roomID, r.UserID)
		if err != nil {
			return err
		}
		if here {
			in.Via = append(others, in.Via...)
		} else if len(in.Via) == 0 { // whom the client names goes before what is remembered of a room
			in.Via = others
		}
		if inviter != "" {
			in.Via = append([]string{inviter}, in.Via...)
		}
		switch {
		case membership == "join" && here:
			// Who may not be let in by us, because of what we do not know, may be by another server.
			if err := a.Rooms.CanJoin(ctx, roomID, r.UserID); err != nil && signalling.AsError(err).Status == 400 {
				err := a.Servers.Join(ctx, in)
				// While they were asked, the event may have come that was on its way to us: what they refuse is decided again.
				if err == nil || a.Rooms.CanJoin(ctx, roomID, r.UserID) != nil {
					return err
				}
			}
		case membership == "join":
			return a.Servers.Join(ctx, in)
		case membership == "knock" && !here:
			return a.Servers.Knock(ctx, in)
		case membership == "leave" && !here:
			room, err := a.Rooms.Room(ctx, roomID)
			if err != nil {
				return err
			}
			if m := room.Head().Membership(r.UserID); m == "invite" || m == "knock" {
				return a.Servers.Leave(ctx, in)
			}
		}
	}
	return a.Rooms.SetMembership(ctx, roomID, r.UserID, r.DeviceID, r.UserID, membership, reason, extra)
}

// inRoom says whether this server is in a room, which server the caller's invite is from, and which others are known to be in the room.
func (a *API) inRoom(ctx context.Context, roomID, user string) (here bool, inviter string, others []string, err error) {
	room, err := a.Rooms.Room(ctx, roomID)
	if err == rooms.ErrNoRoom {
		return false, "", nil, nil
	}
	if err != nil {
		return false, "", nil, err
	}
	own, err := room.State(ctx, room.Head(), "m.room.member", user)
	if err != nil {
		return false, "", nil, err
	}
	if own != nil && own.Membership() == "invite" {
		inviter = event.ServerOf(own.Sender())
	}
	return room.Here(), inviter, room.Servers(), nil
}

// inviteUser invites somebody: a user of another server by way of that server, which signs the invite.
func (a *API) inviteUser(r *Request, roomID, target, reason string, extra json.RawMessage) error {
	if _, _, err := event.UserID(target); err != nil {
		return err
	}
	if !a.elsewhere(target) {
		return a.Rooms.SetMembership(r.Context(), roomID, r.UserID, r.DeviceID, target, "invite", reason, extra)
	}
	return a.Servers.Invite(r.Context(), roomID, r.UserID, target, reason, extra)
}

// invitesAtOnce is how many servers are asked at the same time to sign invites to a new room.
const invitesAtOnce = 8

// inviteElsewhere invites users of other servers to a room that was just made. The room is there by now: who cannot be reached is not
// in it, and can be invited again.
func (a *API) inviteElsewhere(r *Request, roomID string, users []string, direct bool) {
	var extra json.RawMessage
	if direct {
		extra = json.RawMessage(`{"is_direct":true}`)
	}
	slots := make(chan struct{}, invitesAtOnce)
	var wg sync.WaitGroup
	for _, u := range users {
		if !a.elsewhere(u) || u == r.UserID {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := a.Servers.Invite(r.Context(), roomID, r.UserID, u, "", extra); err != nil {
				a.Log.Info("a user of another server could not be invited to a new room", "room", roomID, "user", u, "err", err)
			}
		})
	}
	wg.Wait()
}

// resolve finds the room of an id or alias, and servers that may be in it.
func (a *API) resolve(r *Request, id string) (roomID string, via []string, err error) {
	switch {
	case strings.HasPrefix(id, "!"):
		return id, r.viaParams(), nil
	case strings.HasPrefix(id, "#"):
		if !a.elsewhere(id) {
			roomID, _, err = a.Rooms.ResolveAlias(r.Context(), id)
			return roomID, nil, err
		}
		roomID, via, err = a.Servers.Directory(r.Context(), id)
		return roomID, append([]string{event.ServerOf(id)}, via...), err
	}
	return "", nil, signalling.InvalidParam("%q is neither a room id nor a room alias", id)
}

// maxBackfills is how often one page asks other servers for more history.
const maxBackfills = 3

// maxReach is how often a search for a time does.
const maxReach = 10

// recall cuts a chunk of history, the newest event first, where there is a hole in it, and has the hole filled. It says whether the
// rest of the chunk is to be read again.
func (a *API) recall(r *Request, room *rooms.Room, chunk []*rooms.Stored) (cut []*rooms.Stored, again bool) {
	at, missing := room.Holes(chunk...)
	if at == nil {
		return chunk, false
	}
	n, err := a.Servers.Backfill(r.Context(), room, missing)
	if err != nil {
		a.Log.Info("history could not be had from other servers", "room", room.ID, "err", err)
	}
	if n == 0 {
		return chunk, false
	}
	return chunk[:slices.Index(chunk, at)+1], true
}

// reach has the history around a time fetched from other servers where it is missing here: where the next event that is known has a hole
// before it ("GET /timestamp_to_event": a server that cannot find the event asks others, and brings it in). That is done a few times; what
// lies deeper is not found.
func (a *API) reach(r *Request, room *rooms.Room, ts int64) error {
	for range maxReach {
		if a.Servers == nil {
			return nil
		}
		next, err := room.EventAt(r.Context(), ts, false)
		if err != nil {
			if signalling.AsError(err).Code == "M_NOT_FOUND" {
				return nil // nothing came after it: the newest events are all here
			}
			return err
		}
		at, missing := room.Holes(next)
		if at == nil {
			return nil
		}
		n, err := a.Servers.Backfill(r.Context(), room, missing)
		if err != nil {
			a.Log.Info("history could not be had from other servers", "room", room.ID, "err", err)
		}
		if n == 0 {
			return nil
		}
	}
	return nil
}
