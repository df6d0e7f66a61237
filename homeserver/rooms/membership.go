// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Profile gives what a member event of a local user carries; nil for what is not set.
type Profile func(ctx context.Context, user string) (displayname, avatarURL *string, err error)

// UseProfiles says where profiles of local users come from. Call it before the first request.
func (s *Service) UseProfiles(p Profile) { s.profile = p }

// InvitePolicy refuses an invite of a local user that he does not want.
type InvitePolicy func(ctx context.Context, user, sender string) error

// UseInvitePolicy says who may invite local users. Call it before the first request.
func (s *Service) UseInvitePolicy(p InvitePolicy) { s.invitable = p }

// MayInvite checks whether user, when he is of this server, lets sender invite him. Append asks it; whoever takes invites from other
// servers must.
func (s *Service) MayInvite(ctx context.Context, user, sender string) error {
	if s.invitable == nil || user == sender || event.ServerOf(user) != s.signer.Server {
		return nil
	}
	return s.invitable(ctx, user, sender)
}

// MemberContent makes the content of a member event of a local user, with the profile filled in. extra is added to it; its
// "membership" does not count.
func (s *Service) MemberContent(ctx context.Context, user, membership, reason string, extra json.RawMessage) (json.RawMessage, error) {
	c := map[string]any{}
	if len(extra) > 0 {
		if err := json.Unmarshal(extra, &c); err != nil {
			return nil, signalling.BadJSON("the content must be an object").Because(err)
		}
	}
	c["membership"] = membership
	if reason != "" {
		c["reason"] = reason
	}
	if s.profile != nil && event.ServerOf(user) == s.signer.Server && (membership == "join" || membership == "invite" || membership == "knock") {
		name, avatar, err := s.profile(ctx, user)
		if err != nil {
			return nil, err
		}
		if _, given := c["displayname"]; name != nil && !given {
			c["displayname"] = *name
		}
		if _, given := c["avatar_url"]; avatar != nil && !given {
			c["avatar_url"] = *avatar
		}
	}
	return json.Marshal(c)
}

// SetMembership changes target's membership of a room on behalf of sender: join, invite, knock, leave (which rejects an invite,
// leaves, kicks or unbans) or ban. What is not allowed is refused with M_FORBIDDEN and changes nothing.
func (s *Service) SetMembership(ctx context.Context, roomID, sender, device, target, membership, reason string, extra json.RawMessage) error {
	if _, _, err := event.UserID(target); err != nil {
		return err
	}
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return err
	}
	if extra, err = withoutAuthoriser(extra); err != nil {
		return err
	}
	head := r.Head()
	now := head.Membership(target)
	switch {
	case membership == "join" && now == "join" && len(extra) == 0:
		return nil
	case membership == "leave" && now == "leave", membership == "leave" && now == "":
		if sender == target {
			if now == "leave" {
				return nil
			}
			return signalling.Forbidden("you are not in this room")
		}
		return signalling.Forbidden("%s is not in this room", target)
	case membership == "invite" && now == "join":
		return signalling.Forbidden("%s is in this room already", target)
	}
	if membership == "join" && now != "join" && now != "invite" {
		if extra, err = r.restricted(ctx, head, target, extra); err != nil {
			return err
		}
	}
	content, err := s.MemberContent(ctx, target, membership, reason, extra)
	if err != nil {
		return err
	}
	_, err = s.Append(ctx, roomID, Draft{Sender: sender, Device: device, Type: "m.room.member", StateKey: &target, Content: content})
	return err
}

// withoutAuthoriser takes join_authorised_via_users_server out of what a client wants in its member event: it is the server's to say,
// and other servers refuse an event that the server named there has not signed.
func withoutAuthoriser(extra json.RawMessage) (json.RawMessage, error) {
	const key = "join_authorised_via_users_server"
	if !bytes.Contains(extra, []byte(key)) {
		return extra, nil
	}
	var c map[string]json.RawMessage
	if err := json.Unmarshal(extra, &c); err != nil {
		return nil, signalling.BadJSON("the content must be an object").Because(err)
	}
	delete(c, key)
	return json.Marshal(c)
}

// restricted adds join_authorised_via_users_server to a join of a restricted room that the user may enter because of another room
// (room versions 8 and later, "restricted join rules").
func (r *Room) restricted(ctx context.Context, head *Head, user string, extra json.RawMessage) (json.RawMessage, error) {
	by, err := r.admits(ctx, head, user)
	var e *signalling.Error
	if errors.As(err, &e) && e.Status == 400 {
		return nil, signalling.Forbidden("%s", e.Message).Because(e)
	}
	if err != nil || by == "" {
		return extra, err
	}
	c := map[string]any{}
	if len(extra) > 0 {
		if err := json.Unmarshal(extra, &c); err != nil {
			return nil, signalling.BadJSON("the content must be an object").Because(err)
		}
	}
	c["join_authorised_via_users_server"] = by
	return json.Marshal(c)
}

// Forget hides a room that the user has left from /sync and the room lists. Errors: M_UNKNOWN while the user is still in it.
func (s *Service) Forget(ctx context.Context, roomID, user string) error {
	all, err := s.UserRooms(ctx, user)
	if err != nil {
		return err
	}
	m, ok := all[roomID]
	if !ok {
		return ErrNoRoom
	}
	if m.Membership != "leave" && m.Membership != "ban" {
		return signalling.Refuse(400, "M_UNKNOWN", "leave the room before you forget it")
	}
	m.Forgotten, m.User = true, user
	return s.store.Write(ctx, func(tx *storage.Tx) error {
		tx.After(func() { s.users.moved(m) })
		tx.Announce(storage.Announcement{Kind: storage.NoteForgotten, User: user, Room: roomID})
		return tx.Forget(user, m.RoomNID)
	})
}

// ProfileChanged writes a local user's new profile into the member event of every room that the user is joined to.
func (s *Service) ProfileChanged(ctx context.Context, user string) error {
	all, err := s.UserRooms(ctx, user)
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(all))
	for id, m := range all {
		if m.Membership == "join" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		r, err := s.Room(ctx, id)
		if err != nil {
			return err
		}
		own, err := r.State(ctx, r.Head(), "m.room.member", user)
		if err != nil || own == nil {
			return err
		}
		var c map[string]any
		if err := json.Unmarshal(own.Content(), &c); err != nil {
			continue
		}
		delete(c, "displayname")
		delete(c, "avatar_url")
		kept, err := json.Marshal(c)
		if err != nil {
			return err
		}
		content, err := s.MemberContent(ctx, user, "join", "", kept)
		if err != nil {
			return err
		}
		if _, err := s.Append(ctx, id, Draft{Sender: user, Type: "m.room.member", StateKey: &user, Content: content}); err != nil {
			s.log.Warn("a profile could not be written into a room", "room", id, "user", user, "err", err)
		}
	}
	return nil
}

// LeaveAll takes a local user out of every room, and out of every invite and knock.
func (s *Service) LeaveAll(ctx context.Context, user string) error {
	all, err := s.UserRooms(ctx, user)
	if err != nil {
		return err
	}
	for id, m := range all {
		if m.Membership != "join" && m.Membership != "invite" && m.Membership != "knock" {
			continue
		}
		if err := s.SetMembership(ctx, id, user, "", user, "leave", "", nil); err != nil {
			return err
		}
	}
	return nil
}
