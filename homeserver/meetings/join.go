// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// somebody is who comes.
type somebody struct {
	kind         string // as of a session
	user, device string // "" for a guest who has no account yet
	registered   bool   // a user of some server who is no guest
	name, avatar string
	claims       *meeting.Claims // of a good JWT; nil for none
	room         string          // room whose meeting is meant; "" for that of the name
	address      string
	tokens       *accounts.Tokens // of a guest, once there are some
}

// Join lets somebody into a meeting, which begins if he may begin it, or into its lobby. Errors: IO_TRUNKBOARD_PASSWORD,
// IO_TRUNKBOARD_SIGN_IN, IO_TRUNKBOARD_JWT, IO_TRUNKBOARD_FULL, M_FORBIDDEN, M_LIMIT_EXCEEDED, M_INVALID_PARAM, M_UNKNOWN_TOKEN, M_UNAUTHORIZED.
func (s *Service) Join(ctx context.Context, typed string, q meeting.Join, c meeting.Caller) (meeting.Entry, error) {
	name, err := meeting.Name(typed)
	if err != nil {
		return meeting.Entry{}, err
	}
	if err := s.Limit(limitJoins, c.Address); err != nil {
		return meeting.Entry{}, err
	}
	if err := checkText(&q); err != nil {
		return meeting.Entry{}, err
	}
	if q.Session != "" {
		e, err := s.comeBack(ctx, name, q, c)
		if !errors.Is(err, meeting.ErrSession) {
			return e, err
		}
		// Over, or another meeting's: he comes as if for the first time.
	}
	who, err := s.identify(ctx, name, q, c)
	if err != nil {
		return meeting.Entry{}, err
	}
	m, err := s.meeting(ctx, name, who, q)
	if err != nil {
		return meeting.Entry{}, err
	}
	return s.comeIn(ctx, m, who, q, c)
}

// checkText bounds what a stranger says of himself.
func checkText(q *meeting.Join) error {
	q.DisplayName, q.Subject = strings.TrimSpace(q.DisplayName), strings.TrimSpace(q.Subject)
	for _, t := range []string{q.DisplayName, q.AvatarURL, q.Password, q.JWT, q.RoomID, q.Subject, q.Session} {
		if !utf8.ValidString(t) || strings.ContainsRune(t, 0) {
			return signalling.BadJSON("texts must be UTF-8 without NUL")
		}
	}
	switch {
	case len(q.DisplayName) > maxDisplayName:
		return signalling.InvalidParam("a display name may have %d bytes", maxDisplayName)
	case len(q.AvatarURL) > maxAvatarURL || q.AvatarURL != "" && !goodAvatar(q.AvatarURL):
		return signalling.InvalidParam("avatar_url must be an mxc: or https: URL of at most %d bytes", maxAvatarURL)
	case len(q.Subject) > maxSubject:
		return signalling.InvalidParam("a subject may have %d bytes", maxSubject)
	case len(q.RoomID) > 255 || len(q.Session) > 255:
		return signalling.InvalidParam("room_id and session may have 255 bytes")
	}
	return nil
}

func goodAvatar(url string) bool {
	return strings.HasPrefix(url, "mxc://") || strings.HasPrefix(url, "https://")
}

// identify finds out who comes. Errors: M_UNKNOWN_TOKEN, M_UNAUTHORIZED, M_FORBIDDEN, IO_TRUNKBOARD_JWT, M_MISSING_PARAM.
func (s *Service) identify(ctx context.Context, name string, q meeting.Join, c meeting.Caller) (*somebody, error) {
	w := &somebody{kind: storage.MeetingGuest, name: q.DisplayName, avatar: q.AvatarURL, address: c.Address, room: q.RoomID}
	if q.JWT != "" {
		if e, ok := meeting.ElementToken(q.JWT); ok { // its signature says nothing: the OpenID token in it does
			q.OpenID, q.RoomID = &meeting.OpenID{AccessToken: e.Token, ServerName: e.ServerName}, e.RoomID
			w.room = e.RoomID
			if w.name == "" {
				w.name = clip(e.Name, maxDisplayName)
			}
			if w.avatar == "" && goodAvatar(e.Avatar) && len(e.Avatar) <= maxAvatarURL {
				w.avatar = e.Avatar
			}
		} else {
			claims, err := s.Keys.Verify(q.JWT, s.Clock.Now())
			if err != nil {
				return nil, meeting.ErrJWT.Because(err)
			}
			if !claims.For(name) {
				return nil, meeting.ErrJWT.Because(errors.New("the token is for another meeting"))
			}
			w.claims = claims
			if n := clip(claims.User.Name, maxDisplayName); n != "" { // the issuer knows him
				w.name = n
			}
			if a := claims.User.Avatar; goodAvatar(a) && len(a) <= maxAvatarURL {
				w.avatar = a
			}
		}
	}
	switch {
	case q.OpenID != nil:
		if q.RoomID == "" {
			return nil, signalling.MissingParam("who comes with an OpenID token must name a room that he is in")
		}
		user, device, err := s.Identity.OpenIDUser(ctx, q.OpenID.ServerName, q.OpenID.AccessToken)
		if err != nil {
			return nil, err
		}
		if serverOf(user) != q.OpenID.ServerName {
			return nil, signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "that server speaks for its own users only")
		}
		w.kind, w.user, w.device, w.registered = storage.MeetingOpenID, user, device, true
	case c.Bearer != "":
		x, err := s.Accounts.Authenticate(ctx, c.Bearer)
		switch {
		case err != nil:
			return nil, err
		case x.Locked:
			return nil, accounts.ErrLocked
		case x.Suspended:
			return nil, signalling.Refuse(http.StatusForbidden, "M_USER_SUSPENDED", "this account is suspended: it may look, but not act")
		}
		w.kind, w.user, w.device, w.registered = storage.MeetingUser, x.UserID, x.DeviceID, !x.Guest
	case w.claims == nil && s.jwtRequired():
		return nil, meeting.ErrJWT
	case w.room != "":
		return nil, signalling.Forbidden("only who shows who he is comes to the meeting of a room")
	}
	if w.user != "" && serverOf(w.user) == s.Rooms.Server() {
		name, avatar, err := s.Accounts.NameAndAvatar(ctx, w.user)
		if err != nil {
			return nil, err
		}
		if w.name == "" && name != nil {
			w.name = clip(*name, maxDisplayName)
		}
		if w.avatar == "" && avatar != nil {
			w.avatar = *avatar
		}
	}
	if w.name == "" {
		if w.name = "Guest"; w.user != "" {
			w.name, _, _ = strings.Cut(strings.TrimPrefix(w.user, "@"), ":")
		}
	}
	return w, nil
}

func serverOf(userID string) string {
	_, server, _ := strings.Cut(userID, ":")
	return server
}

// clip cuts a text of somebody else's to n bytes, at a character.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func textOf(content []byte, key string) string { return gjson.GetBytes(content, key).Str }

// comeIn lets somebody in, who has just shown who he is, or lets him knock.
func (s *Service) comeIn(ctx context.Context, m storage.Meeting, who *somebody, q meeting.Join, c meeting.Caller) (meeting.Entry, error) {
	door := s.door(m.RoomID)
	door.Lock()
	defer door.Unlock()
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return meeting.Entry{}, err
	}
	if !bound(m) && !room.Head().IsJoined(s.self) {
		return meeting.Entry{}, signalling.NotFound("this call has just ended")
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return meeting.Entry{}, err
	}
	way, err := s.way(ctx, room, v, m, who, q.Password)
	if err != nil {
		return meeting.Entry{}, err
	}
	if err := s.roomFor(ctx, m.RoomID, way == knocks); err != nil {
		return meeting.Entry{}, err
	}
	if way == knocks {
		if err := s.Limit(limitKnocks, who.address); err != nil {
			return meeting.Entry{}, err
		}
	}
	if err := s.account(ctx, who); err != nil {
		return meeting.Entry{}, err
	}
	if way == knocks {
		if err := s.Rooms.SetMembership(ctx, m.RoomID, who.user, who.device, who.user, "knock", "", nil); err != nil {
			return meeting.Entry{}, err
		}
	} else if err := s.enter(ctx, room, v, m, who); err != nil {
		return meeting.Entry{}, err
	}
	x, secret := newSession(m.RoomID, who, s.Clock.Now())
	x.Waits = way == knocks
	if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.MeetingUsed(m.RoomID, x.UsedTS); err != nil {
			return err
		}
		return tx.InsertMeetingSession(x)
	}); err != nil {
		return meeting.Entry{}, err
	}
	if way == knocks {
		s.waits(m, x)
		return meeting.Entry{Waiting: true, Session: secret, RoomID: m.RoomID}, nil
	}
	return s.entry(ctx, room, m, x, secret, who.tokens, c)
}

// The ways in.
type way int

const (
	enters way = iota
	knocks
)

// way says how somebody comes in. Errors: M_FORBIDDEN, IO_TRUNKBOARD_PASSWORD, M_LIMIT_EXCEEDED.
func (s *Service) way(ctx context.Context, room *rooms.Room, v *view, m storage.Meeting, who *somebody, password string) (way, error) {
	membership := ""
	if who.user != "" {
		membership = room.Head().Membership(who.user)
	}
	switch {
	case membership == "ban":
		return 0, signalling.Forbidden("you may not come to this meeting any more")
	case membership == "join":
		return enters, nil
	case bound(m):
		return 0, signalling.Forbidden("you are not in this room")
	case membership == "invite", who.user != "" && v.power.User(who.user) >= HostPower, who.claims != nil && (who.claims.Moderates() || who.claims.Bypasses()):
		return enters, nil
	case m.Password != "" && password != "":
		if err := s.Limit(limitPasswords, who.address+"\x00"+m.RoomID); err != nil {
			return 0, err
		}
		ok, err := s.Accounts.IsSecret(ctx, m.Password, password)
		if err == nil && !ok {
			err = meeting.ErrPassword
		}
		return enters, err
	}
	switch v.access() {
	case meeting.Open:
		return enters, nil
	case meeting.Lobby:
		return knocks, nil
	case meeting.Password:
		return 0, meeting.ErrPassword
	}
	return 0, signalling.Forbidden("this meeting is for those who are invited")
}

// roomFor refuses more people than a meeting, or its lobby, holds (IO_TRUNKBOARD_FULL).
func (s *Service) roomFor(ctx context.Context, roomID string, waiting bool) error {
	s.mu.Lock()
	people := 0
	if l := s.lives[roomID]; l != nil {
		people = len(l.present) + len(l.expected)
	}
	s.mu.Unlock()
	if people >= maxPeople {
		return meeting.ErrFull
	}
	n, err := s.Store.CountMeetingSessions(ctx, roomID, waiting)
	if err != nil {
		return err
	}
	if n >= maxSessions || waiting && n >= maxWaiting {
		return meeting.ErrFull
	}
	return nil
}

// account makes a guest's account.
func (s *Service) account(ctx context.Context, who *somebody) error {
	if who.user != "" {
		return nil
	}
	t, err := s.Accounts.Create(ctx, accounts.NewUser{Guest: true, Name: who.name, Login: &accounts.Login{DisplayName: "Meeting"}})
	if err != nil {
		return err
	}
	who.user, who.device, who.tokens = t.UserID, t.DeviceID, &t
	return nil
}

// enter makes somebody a member of the room, and a host where he is to be one. The room's door is locked.
func (s *Service) enter(ctx context.Context, room *rooms.Room, v *view, m storage.Meeting, who *somebody) error {
	if bound(m) {
		return nil // he is in
	}
	var drafts []rooms.Draft
	if now := room.Head().Membership(who.user); now != "join" {
		if v.joinRule != "public" && now != "invite" {
			content, err := s.Rooms.MemberContent(ctx, who.user, "invite", "", nil)
			if err != nil {
				return err
			}
			drafts = append(drafts, rooms.Draft{Sender: s.self, Type: "m.room.member", StateKey: &who.user, Content: content})
		}
		content, err := s.Rooms.MemberContent(ctx, who.user, "join", "", nil)
		if err != nil {
			return err
		}
		drafts = append(drafts, rooms.Draft{Sender: who.user, Type: "m.room.member", StateKey: &who.user, Content: content})
	}
	host, err := s.becomesHost(ctx, room, v, m.RoomID, who)
	if err != nil {
		return err
	}
	if host {
		d, err := s.powerDraft(ctx, room, who.user, HostPower)
		if err != nil {
			return err
		}
		drafts = append(drafts, d)
	}
	if len(drafts) == 0 {
		return nil
	}
	_, err = s.Rooms.Append(ctx, m.RoomID, drafts...)
	return err
}

// becomesHost: who says so with a good token; otherwise the first to come, unless a user with an account is the host.
func (s *Service) becomesHost(ctx context.Context, room *rooms.Room, v *view, roomID string, who *somebody) (bool, error) {
	if v.power.User(who.user) >= HostPower {
		return false, nil
	}
	if who.claims != nil && who.claims.Moderator != nil {
		return *who.claims.Moderator, nil
	}
	here := s.users(roomID)
	levels, err := room.State(ctx, room.Head(), "m.room.power_levels", "")
	if err != nil {
		return false, err
	}
	hosts := map[string]bool{}
	if levels != nil {
		gjson.GetBytes(levels.Content(), "users").ForEach(func(user, level gjson.Result) bool {
			if level.Int() >= HostPower && user.Str != s.self {
				hosts[user.Str] = true
			}
			return true
		})
	}
	for user := range hosts {
		if here[user] {
			return false, nil
		}
		guest, err := s.Accounts.IsGuest(ctx, user)
		if err != nil {
			return false, err
		}
		if m := room.Head().Membership(user); !guest && (m == "join" || m == "invite") {
			return false, nil
		}
	}
	return true, nil
}

// powerDraft is a change of somebody's power.
func (s *Service) powerDraft(ctx context.Context, room *rooms.Room, user string, level int64) (rooms.Draft, error) {
	e, err := room.State(ctx, room.Head(), "m.room.power_levels", "")
	if err != nil {
		return rooms.Draft{}, err
	}
	content := map[string]json.RawMessage{}
	if e != nil {
		if err := json.Unmarshal(e.Content(), &content); err != nil {
			return rooms.Draft{}, err
		}
	}
	users := map[string]json.RawMessage{}
	if raw := content["users"]; raw != nil {
		if err := json.Unmarshal(raw, &users); err != nil {
			return rooms.Draft{}, err
		}
	}
	if level == 0 {
		delete(users, user)
	} else {
		users[user], _ = json.Marshal(level)
	}
	if content["users"], err = json.Marshal(users); err != nil {
		return rooms.Draft{}, err
	}
	raw, err := json.Marshal(content)
	return rooms.Draft{Sender: s.self, Type: "m.room.power_levels", StateKey: new(string), Content: raw}, err
}
