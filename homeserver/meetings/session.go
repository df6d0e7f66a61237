// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

func newSession(roomID string, who *somebody, now time.Time) (x storage.MeetingSession, secret string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret = "mts_" + base64.RawURLEncoding.EncodeToString(b[:])
	x = storage.MeetingSession{
		Hash: hash(secret), RoomID: roomID, MemberID: rand.Text()[:16], UserID: who.user, DeviceID: who.device, Kind: who.kind, Name: who.name,
		AvatarURL: who.avatar, UsedTS: now.UnixMilli(),
	}
	return x, secret
}

func hash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// session finds a session and its meeting. typed names the meeting that the caller means. Errors: ErrSession, M_INVALID_PARAM.
func (s *Service) session(ctx context.Context, typed, secret string) (storage.MeetingSession, storage.Meeting, error) {
	name, err := meeting.Name(typed)
	if err != nil {
		return storage.MeetingSession{}, storage.Meeting{}, err
	}
	if secret == "" {
		return storage.MeetingSession{}, storage.Meeting{}, meeting.ErrSession
	}
	x, err := s.Store.MeetingSession(ctx, hash(secret))
	if errors.Is(err, storage.ErrNotFound) || err == nil && x.UsedTS < s.Clock.Now().Add(-sessionLife).UnixMilli() {
		return x, storage.Meeting{}, meeting.ErrSession
	}
	if err != nil {
		return x, storage.Meeting{}, err
	}
	m, err := s.Store.MeetingOf(ctx, x.RoomID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !bound(m) && m.Name != name && x.Kind == storage.MeetingGuest {
		return x, m, meeting.ErrSession
	}
	return x, m, err
}

// comeBack lets in who was there before, as who he was: after a reload, a broken network, a restart of the server. Errors: ErrSession
// when he is to come anew.
func (s *Service) comeBack(ctx context.Context, name string, q meeting.Join, c meeting.Caller) (meeting.Entry, error) {
	x, m, err := s.session(ctx, name, q.Session)
	if err != nil {
		return meeting.Entry{}, err
	}
	if x.Waits {
		s.waits(m, x)
		return meeting.Entry{Waiting: true, Session: q.Session, RoomID: m.RoomID}, nil
	}
	var tokens *accounts.Tokens
	if x.Kind == storage.MeetingGuest {
		if tokens, err = s.tokens(ctx, x); err != nil {
			return meeting.Entry{}, err
		}
	}
	who := &somebody{kind: x.Kind, user: x.UserID, device: x.DeviceID, name: x.Name, avatar: x.AvatarURL, tokens: tokens, address: c.Address}
	door := s.door(m.RoomID)
	door.Lock()
	defer door.Unlock()
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return meeting.Entry{}, err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return meeting.Entry{}, err
	}
	if way, err := s.way(ctx, room, v, m, who, q.Password); err != nil {
		return meeting.Entry{}, err
	} else if way == knocks {
		return meeting.Entry{}, meeting.ErrSession // he left, and has to knock like everybody
	}
	if err := s.enter(ctx, room, v, m, who); err != nil {
		return meeting.Entry{}, err
	}
	return s.entry(ctx, room, m, x, q.Session, tokens, c)
}

// entry tells somebody who is let in how he gets at everything.
func (s *Service) entry(ctx context.Context, room *rooms.Room, m storage.Meeting, x storage.MeetingSession, secret string, tokens *accounts.Tokens, c meeting.Caller) (meeting.Entry, error) {
	v, err := s.view(ctx, room, m)
	if err != nil {
		return meeting.Entry{}, err
	}
	now := s.Clock.Now()
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.UseMeetingSession(x.Hash, false, now.UnixMilli()) }); err != nil {
		return meeting.Entry{}, err
	}
	e := meeting.Entry{
		Session: secret, RoomID: m.RoomID, UserID: x.UserID, DisplayName: x.Name, Identity: member(x).Identity(), Host: v.power.User(x.UserID) >= HostPower,
		Subject: v.subject, E2EE: m.E2EE,
	}
	if x.Kind != storage.MeetingOpenID {
		e.Matrix = &meeting.Matrix{UserID: x.UserID, DeviceID: x.DeviceID}
		if tokens != nil {
			e.Matrix.AccessToken = tokens.AccessToken
		}
	}
	e.Media, err = s.media(ctx, m, x, v, c)
	return e, err
}

// media makes a token for the SFU, and has the SFU's room described before its holder comes.
func (s *Service) media(ctx context.Context, m storage.Meeting, x storage.MeetingSession, v *view, c meeting.Caller) (*meeting.Media, error) {
	who := member(x)
	s.expect(m, x)
	if err := s.describe(ctx, m.RoomID); err != nil {
		return nil, err
	}
	said, err := json.Marshal(map[string]string{"user_id": x.UserID, "avatar_url": x.AvatarURL})
	if x.AvatarURL == "" {
		said, err = json.Marshal(map[string]string{"user_id": x.UserID})
	}
	if err != nil {
		return nil, err
	}
	p := focus.Profile{Name: x.Name, Metadata: string(said), Attributes: true}
	if v.power.User(x.UserID) < HostPower {
		p.Held = held(m.Hushed)
	}
	token, err := s.Focus.GrantAs(ctx, who, true, p)
	if err != nil {
		return nil, err
	}
	return &meeting.Media{URL: c.MediaAt, Token: token}, nil
}

func member(x storage.MeetingSession) focus.Member {
	return focus.Member{RoomID: x.RoomID, SlotID: meeting.Slot, UserID: x.UserID, DeviceID: x.DeviceID, MemberID: x.MemberID}
}

// Token makes a new token for the SFU. Errors: M_FORBIDDEN.
func (s *Service) Token(ctx context.Context, typed, secret string, c meeting.Caller) (*meeting.Media, error) {
	x, m, err := s.session(ctx, typed, secret)
	if err != nil {
		return nil, err
	}
	if x.Waits {
		return nil, signalling.Forbidden("nobody has let you in yet")
	}
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return nil, err
	}
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.UseMeetingSession(x.Hash, false, s.Clock.Now().UnixMilli()) }); err != nil {
		return nil, err
	}
	return s.media(ctx, m, x, v, c)
}

// Leave takes somebody out of the media at once; he may come back with his session. A guest leaves the room a little later. Errors:
// M_FORBIDDEN.
func (s *Service) Leave(ctx context.Context, typed, secret string) error {
	x, m, err := s.session(ctx, typed, secret)
	if err != nil {
		return err
	}
	if x.Waits {
		return s.takeBack(ctx, m.RoomID, x)
	}
	who := member(x)
	s.unexpect(m.RoomID, who.Identity())
	s.Media.Remove(who.MediaRoom(), who.Identity())
	return nil
}

// takeBack ends a knock.
func (s *Service) takeBack(ctx context.Context, roomID string, x storage.MeetingSession) error {
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.EndMeetingSession(x.Hash) }); err != nil {
		return err
	}
	s.waitsNoMore(roomID, x.UserID)
	room, err := s.Rooms.Room(ctx, roomID)
	if err != nil {
		return err
	}
	if room.Head().Membership(x.UserID) != "knock" {
		return nil
	}
	return s.Rooms.SetMembership(ctx, roomID, x.UserID, "", x.UserID, "leave", "", nil)
}

// tokens logs a guest in anew: of his old access token only the hash is known. Errors: ErrSession for one whose account has ended.
func (s *Service) tokens(ctx context.Context, x storage.MeetingSession) (*accounts.Tokens, error) {
	t, err := s.Accounts.LoginTrusted(ctx, x.UserID, accounts.Login{DeviceID: x.DeviceID, DisplayName: "Meeting"})
	if err == nil {
		return &t, nil
	}
	if e := signalling.AsError(err); e.Status == 404 || e.Code == "M_USER_DEACTIVATED" {
		return nil, meeting.ErrSession.Because(err)
	}
	return nil, err
}
