// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// lastWord is how long somebody who is thrown out has to hear why.
const lastWord = 250 * time.Millisecond

// stage is what a host acts on.
type stage struct {
	m     storage.Meeting
	x     storage.MeetingSession // the host's
	room  *rooms.Room
	view  *view
	media string // the room in the SFU
	by    string // the host's identity
}

// host finds out that a session is a host's. Errors: M_FORBIDDEN.
func (s *Service) host(ctx context.Context, typed, secret string) (*stage, error) {
	x, m, err := s.session(ctx, typed, secret)
	if err != nil {
		return nil, err
	}
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return nil, err
	}
	if x.Waits || v.power.User(x.UserID) < HostPower || !room.Head().IsJoined(x.UserID) {
		return nil, meeting.ErrHost
	}
	return &stage{m: m, x: x, room: room, view: v, media: matrixrtc.MediaRoom(m.RoomID, meeting.Slot), by: member(x).Identity()}, nil
}

// hosted finds a meeting for one of its hosts: by his session, or by his access token. Errors: M_FORBIDDEN, M_UNKNOWN_TOKEN.
func (s *Service) hosted(ctx context.Context, typed, secret string, c meeting.Caller) (storage.Meeting, error) {
	if c.Bearer == "" {
		g, err := s.host(ctx, typed, secret)
		if err != nil {
			return storage.Meeting{}, err
		}
		return g.m, nil
	}
	x, err := s.Accounts.Authenticate(ctx, c.Bearer)
	if err != nil {
		return storage.Meeting{}, err
	}
	name, err := meeting.Name(typed)
	if err != nil {
		return storage.Meeting{}, err
	}
	m, err := s.find(ctx, name)
	if errors.Is(err, storage.ErrNotFound) {
		return m, meeting.ErrHost // who is none need not learn which meetings there are
	}
	if err != nil {
		return m, err
	}
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return m, err
	}
	v, err := s.view(ctx, room, m)
	if err == nil && (v.power.User(x.UserID) < HostPower || !room.Head().IsJoined(x.UserID)) {
		err = meeting.ErrHost
	}
	return m, err
}

// Act does what a host wants. Errors: M_FORBIDDEN, M_NOT_FOUND for somebody who is not there, M_INVALID_PARAM, M_UNRECOGNIZED for an
// action that there is not.
func (s *Service) Act(ctx context.Context, typed string, q meeting.Action) error {
	for _, t := range []string{q.Identity, q.UserID, q.Reason, q.Subject, q.Password} {
		if !utf8.ValidString(t) || strings.ContainsRune(t, 0) || len(t) > 4*maxReason {
			return signalling.BadJSON("texts must be UTF-8 without NUL, and short")
		}
	}
	g, err := s.host(ctx, typed, q.Session)
	if err != nil {
		return err
	}
	switch q.Action {
	case "mute":
		return s.mute(g, q)
	case "mute_all":
		return s.muteAll(g, q)
	case "ask_unmute":
		if err := meeting.KnownKind(q.Kind, meeting.Audio, meeting.Video); err != nil {
			return err
		}
		if _, err := s.there(g, q.Identity); err != nil {
			return err
		}
		s.say(g.media, meeting.Control{Type: "ask_unmute", Kind: q.Kind, By: g.by}, q.Identity)
		return nil
	case "may_unmute":
		return s.hush(ctx, g, q)
	case "kick":
		return s.kick(ctx, g, q)
	case "end":
		return s.end(ctx, g)
	}
	if bound(g.m) && slices.Contains([]string{"promote", "demote", "admit", "deny", "admit_all", "lobby", "password", "subject"}, q.Action) {
		return signalling.Forbidden("this meeting is a room's: change that in the room")
	}
	switch q.Action {
	case "promote", "demote":
		return s.promote(ctx, g, q)
	case "admit", "deny":
		return s.answer(ctx, g, q.UserID, q.Action == "admit")
	case "admit_all":
		for _, user := range knocking(g.room) {
			if err := s.answer(ctx, g, user, true); err != nil {
				return err
			}
		}
		return nil
	case "lobby":
		return s.setAccess(ctx, g.m, q.On, g.m.Password)
	case "password":
		return s.setPassword(ctx, g, q.Password)
	case "subject":
		return s.setSubject(ctx, g, q.Subject)
	}
	return signalling.Refuse(400, "M_UNRECOGNIZED", "there is no such action")
}

// there finds a member in the media. Errors: M_NOT_FOUND.
func (s *Service) there(g *stage, identity string) (*person, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[g.m.RoomID]; l != nil {
		if p := l.present[identity]; p != nil {
			return p, nil
		}
	}
	return nil, signalling.NotFound("nobody of that name is in the meeting")
}

// say sends a message of the server's.
func (s *Service) say(media string, c meeting.Control, identities ...string) {
	b, _ := json.Marshal(c) // strings
	s.Media.Say(media, b, identities...)
}

func (s *Service) mute(g *stage, q meeting.Action) error {
	if err := meeting.KnownKind(q.Kind, meeting.Audio, meeting.Video, meeting.Screen); err != nil {
		return err
	}
	if _, err := s.there(g, q.Identity); err != nil {
		return err
	}
	if s.Media.Silence(g.media, q.Identity, q.Kind) {
		s.say(g.media, meeting.Control{Type: "muted", Kind: q.Kind, By: g.by}, q.Identity)
	}
	return nil
}

// muteAll mutes everybody but the host who wants it.
func (s *Service) muteAll(g *stage, q meeting.Action) error {
	if err := meeting.KnownKind(q.Kind, meeting.Audio, meeting.Video, meeting.Screen); err != nil {
		return err
	}
	var silenced []string
	for _, id := range s.identities(g.m.RoomID, func(*person) bool { return true }) {
		if id != g.by && s.Media.Silence(g.media, id, q.Kind) {
			silenced = append(silenced, id)
		}
	}
	if len(silenced) > 0 {
		s.say(g.media, meeting.Control{Type: "muted", Kind: q.Kind, By: g.by}, silenced...)
	}
	return nil
}

// identities are those in the media whom which picks.
func (s *Service) identities(roomID string, which func(*person) bool) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[roomID]; l != nil {
		for id, p := range l.present {
			if which(p) {
				out = append(out, id)
			}
		}
	}
	return out
}

// hush says whether those who are no hosts may switch something on.
func (s *Service) hush(ctx context.Context, g *stage, q meeting.Action) error {
	if err := meeting.KnownKind(q.Kind, meeting.Audio, meeting.Video); err != nil {
		return err
	}
	var kinds []string
	for _, k := range []string{meeting.Audio, meeting.Video} {
		if k == q.Kind && !q.Allowed || k != q.Kind && hushes(g.m.Hushed, k) {
			kinds = append(kinds, k)
		}
	}
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.SetMeetingHushed(g.m.RoomID, strings.Join(kinds, ",")) }); err != nil {
		return err
	}
	return s.describe(ctx, g.m.RoomID)
}

// kick takes somebody out of the meeting and out of its room; ban keeps him out. In the room of others he only leaves the meeting.
func (s *Service) kick(ctx context.Context, g *stage, q meeting.Action) error {
	if len(q.Reason) > maxReason {
		return signalling.InvalidParam("a reason may have %d bytes", maxReason)
	}
	p, err := s.there(g, q.Identity)
	if err != nil {
		return err
	}
	if p.UserID == g.x.UserID {
		return signalling.InvalidParam("to go yourself, leave")
	}
	theirs := s.identities(g.m.RoomID, func(o *person) bool { return o.UserID == p.UserID })
	s.say(g.media, meeting.Control{Type: "kicked", By: g.by, Reason: q.Reason}, theirs...)
	pause(ctx, lastWord)
	// What follows is done even if the host's page goes away now.
	ctx = context.WithoutCancel(ctx)
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.EndMeetingSessions(g.m.RoomID, p.UserID) }); err != nil {
		return err
	}
	if !bound(g.m) {
		to := "leave"
		if q.Ban {
			to = "ban"
		}
		err := s.Rooms.SetMembership(ctx, g.m.RoomID, s.self, "", p.UserID, to, q.Reason, nil)
		if err != nil && signalling.AsError(err).Code != "M_FORBIDDEN" { // he may have left meanwhile
			return err
		}
	}
	for _, id := range theirs {
		s.Media.Remove(g.media, id)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// promote makes somebody a host, or takes it from him.
func (s *Service) promote(ctx context.Context, g *stage, q meeting.Action) error {
	p, err := s.there(g, q.Identity)
	if err != nil {
		return err
	}
	door := s.door(g.m.RoomID)
	door.Lock()
	defer door.Unlock()
	room, err := s.Rooms.Room(ctx, g.m.RoomID)
	if err != nil {
		return err
	}
	v, err := s.view(ctx, room, g.m)
	if err != nil {
		return err
	}
	is := v.power.User(p.UserID) >= HostPower
	if is == (q.Action == "promote") {
		return nil
	}
	level := int64(0)
	if q.Action == "promote" {
		level = HostPower
	}
	d, err := s.powerDraft(ctx, room, p.UserID, level)
	if err != nil {
		return err
	}
	if _, err := s.Rooms.Append(ctx, g.m.RoomID, d); err != nil {
		return err
	}
	return s.describe(ctx, g.m.RoomID)
}

// answer lets somebody in who knocked, or sends him away. Errors: M_NOT_FOUND.
func (s *Service) answer(ctx context.Context, g *stage, user string, admit bool) error {
	room, err := s.Rooms.Room(ctx, g.m.RoomID)
	if err != nil {
		return err
	}
	if room.Head().Membership(user) != "knock" {
		return signalling.NotFound("nobody of that name waits to be let in")
	}
	to := "leave"
	if admit {
		to = "invite"
	}
	return s.Rooms.SetMembership(ctx, g.m.RoomID, s.self, "", user, to, "", nil)
}

// setAccess sets the room's join rule after lobby and password.
func (s *Service) setAccess(ctx context.Context, m storage.Meeting, lobby bool, password string) error {
	rule := "public"
	switch {
	case lobby:
		rule = "knock"
	case password != "": // in Matrix nobody would be asked for it
		rule = "invite"
	}
	content, _ := json.Marshal(map[string]string{"join_rule": rule})
	if _, err := s.Rooms.Append(ctx, m.RoomID, rooms.Draft{Sender: s.self, Type: "m.room.join_rules", StateKey: new(string), Content: content}); err != nil {
		return err
	}
	return s.describe(ctx, m.RoomID)
}

// setPassword changes the password of a meeting; "" takes it away.
func (s *Service) setPassword(ctx context.Context, g *stage, password string) error {
	stored := ""
	if password != "" {
		var err error
		if stored, err = s.Accounts.HashSecret(ctx, password); err != nil {
			return err
		}
	}
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.SetMeetingPassword(g.m.RoomID, stored) }); err != nil {
		return err
	}
	return s.setAccess(ctx, g.m, g.view.access() == meeting.Lobby, stored)
}

// setSubject says what the meeting is about: the room's name.
func (s *Service) setSubject(ctx context.Context, g *stage, subject string) error {
	if len(subject) > maxSubject {
		return signalling.InvalidParam("a subject may have %d bytes", maxSubject)
	}
	if subject = strings.TrimSpace(subject); subject == "" {
		subject = g.m.Name
	}
	content, err := json.Marshal(map[string]string{"name": subject})
	if err != nil {
		return err
	}
	if _, err := s.Rooms.Append(ctx, g.m.RoomID, rooms.Draft{Sender: s.self, Type: "m.room.name", StateKey: new(string), Content: content}); err != nil {
		return err
	}
	return s.describe(ctx, g.m.RoomID)
}

// end ends the meeting for everybody. Who was there may come again: then it is another.
func (s *Service) end(ctx context.Context, g *stage) error {
	s.say(g.media, meeting.Control{Type: "ended", By: g.by})
	pause(ctx, lastWord)
	ctx = context.WithoutCancel(ctx)
	s.mu.Lock()
	if l := s.lives[g.m.RoomID]; l != nil {
		l.finished = l.record != 0 || len(l.visits) > 0
		now := s.Clock.Now()
		for id, p := range l.expected {
			delete(l.expected, id)
			p.since = now
			l.gone[id] = p
		}
	}
	s.mu.Unlock()
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.EndMeetingSessions(g.m.RoomID, "") }); err != nil {
		return err
	}
	s.Media.Close(g.media)
	s.nudge()
	return nil
}

// reset opens a meeting again that no host with an account stands for, once all its guests are gone: nobody could.
func (s *Service) reset(ctx context.Context, roomID string) error {
	m, err := s.Store.MeetingOf(ctx, roomID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && bound(m) {
		return nil
	}
	if err != nil {
		return err
	}
	door := s.door(roomID)
	door.Lock()
	defer door.Unlock()
	room, err := s.Rooms.Room(ctx, roomID)
	if err != nil {
		return err
	}
	for _, user := range room.Head().Joined() {
		if user == s.self {
			continue
		}
		return nil // somebody with an account keeps it as it is; a guest is not gone yet
	}
	if call, err := s.isCall(ctx, room); err != nil || call {
		if err == nil {
			err = s.over(ctx, m)
		}
		return err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return err
	}
	if v.access() == meeting.Open && m.Hushed == "" && v.subject == "" {
		return nil
	}
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.SetMeetingPassword(roomID, ""); err != nil {
			return err
		}
		return tx.SetMeetingHushed(roomID, "")
	}); err != nil {
		return err
	}
	if v.subject != "" {
		if err := s.setSubject(ctx, &stage{m: m}, ""); err != nil {
			return err
		}
	}
	return s.setAccess(ctx, m, false, "")
}

// isCall says whether a room was made for a call, by us: anybody can say so of a room of his own.
func (s *Service) isCall(ctx context.Context, room *rooms.Room) (bool, error) {
	e, err := room.State(ctx, room.Head(), "m.room.create", "")
	return err == nil && e != nil && e.Sender() == s.self && textOf(e.Content(), "type") == meeting.CallRoom, err
}

// over ends a call for good. Sessions stay until they are old, for the accounts of guests end with them.
func (s *Service) over(ctx context.Context, m storage.Meeting) error {
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.EndMeeting(m.RoomID) }); err != nil {
		return err
	}
	return s.Rooms.SetMembership(ctx, m.RoomID, s.self, "", s.self, "leave", "", nil)
}

// forget removes meetings that only guests ever came to, and nobody for long.
func (s *Service) forget(ctx context.Context, now time.Time) error {
	list, err := s.Store.MeetingsUnused(ctx, now.Add(-unusedFor).UnixMilli(), pruneBatch)
	if err != nil {
		return err
	}
	for _, m := range list {
		if !bound(m) {
			room, err := s.Rooms.Room(ctx, m.RoomID)
			if err != nil {
				return err
			}
			others := slices.ContainsFunc(room.Head().Joined(), func(u string) bool { return u != s.self })
			if others {
				continue
			}
			if err := s.Rooms.RemoveAlias(ctx, alias(m.Name, s.Rooms.Server()), s.self); err != nil && signalling.AsError(err).Status != 404 {
				return err
			}
			if err := s.Rooms.SetMembership(ctx, m.RoomID, s.self, "", s.self, "leave", "", nil); err != nil {
				return err
			}
		}
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.DropMeeting(m.RoomID) }); err != nil {
			return err
		}
	}
	return nil
}
