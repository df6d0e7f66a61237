// SPDX-License-Identifier: Apache-2.0

// Package meetings runs meetings: Matrix rooms that people come to by a link, with or without an account, and whose media are in the
// SFU's slot "meet" of the room.
//
//	link ─ Join ─> who is it (access token, OpenID, Jitsi's JWT, nobody) ─> may he in ─> member of the room ─> session, token for the SFU
//	SFU ─ Arrived, Departed ─┐
//	commits of the room ─────┴─> Run: the state that everybody sees (metadata of the SFU's room), records, guests who are gone
//
// The rooms are made by a user of the server's own, who stands above everybody in them. A host is a member with power 50 or more, so
// hosts can be made and unmade, and people thrown out, in every Matrix client; what is changed in the room changes the meeting. A
// meeting can also be held in a room that is there anyway: then only its members come, and the room is not touched.
//
// Whoever was let in holds a session: a secret that is good for a day and brings him back as who he was. Its hash is kept.
package meetings

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// HostPower is the power level from which on a member is a host.
const HostPower = 50

// Who may begin a meeting that is not there yet.
const (
	CreateAnyone = "anyone"
	CreateUsers  = "users"
	CreateJWT    = "jwt"
	CreateNobody = "nobody"
)

const (
	sessionLife    = 24 * time.Hour
	expectFor      = time.Minute      // a token that is not used within this counts for nothing
	goneFor        = 2 * time.Minute  // a guest who is gone from the media for this leaves the room
	knockFor       = 90 * time.Second // a knock whose page does not ask any more is taken back
	pollTime       = 30 * time.Second
	unusedFor      = 30 * 24 * time.Hour // a meeting of guests alone is forgotten after this
	maxPeople      = 500                 // in a meeting at the same time
	maxWaiting     = 100                 // in a lobby
	maxSessions    = 5000                // of a meeting
	maxDisplayName = 128                 // bytes
	maxAvatarURL   = 1000
	maxSubject     = 255
	maxReason      = 500
)

// Names of rate limits.
const (
	limitJoins     = "meeting_joins"     // by address
	limitMeetings  = "meetings"          // begun, by address or user
	limitPasswords = "meeting_passwords" // tried, by address and meeting
	limitKnocks    = "meeting_knocks"    // by address
)

// Media is the SFU. Nothing of it waits for anybody.
type Media interface {
	// Describe sets what everybody in a room sees. With create the room is made if need be; without it, one that is not there is none
	// to tell. Errors: none that a stranger should see.
	Describe(room, metadata string, create bool) error
	// Say sends a message of the server's, to those who are named or to all.
	Say(room string, message []byte, identities ...string)
	// Silence mutes what a participant sends of a kind; false when there is nobody.
	Silence(room, identity, kind string) bool
	// Hold says which sources a participant may not unmute.
	Hold(room, identity string, sources []string)
	// Remove ends a participant's session; false when there is none.
	Remove(room, identity string) bool
	// Close ends everybody's.
	Close(room string)
}

// Config of a Service.
type Config struct {
	Create        string // who may begin a meeting: one of the constants
	Keys          meeting.Keys
	RetentionDays int // of records; negative: for ever
}

// Deps are what a Service works with.
type Deps struct {
	Config
	Store    *storage.Store
	Rooms    *rooms.Service
	Accounts *accounts.Service
	Focus    *focus.Service
	Identity focus.Homeserver // who OpenID tokens name
	Media    Media
	// Limit counts an operation by a key. Errors: M_LIMIT_EXCEEDED.
	Limit func(op, key string) error
	Clock signalling.Clock
	Log   *slog.Logger
}

// Service runs the meetings of a server. Connect Observe to the store, Arrived and Departed to the SFU, and run Run.
type Service struct {
	Deps
	self     string // user id
	creating singleflight.Group
	doors    [64]sync.Mutex // one comes in at a time; by room
	tellers  [64]sync.Mutex // one says at a time how a meeting stands; by room

	mu    sync.Mutex // held for a few instructions only: the store's writer and the SFU wait for it
	lives map[string]*live
	wake  chan struct{}
}

// New makes the service.
func New(d Deps) *Service {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Limit == nil {
		d.Limit = func(string, string) error { return nil }
	}
	return &Service{Deps: d, self: "@_meetings:" + d.Rooms.Server(), lives: map[string]*live{}, wake: make(chan struct{}, 1)}
}

// User is the server's user who makes the rooms. Nobody can register it: names of people do not begin with an underscore.
func (s *Service) User() string { return s.self }

// door is the lock under which somebody comes into a room.
func (s *Service) door(roomID string) *sync.Mutex { return &s.doors[stripe(roomID)] }

func stripe(roomID string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(roomID))
	return int(h.Sum32() % 64)
}

// bound says that a meeting is held in a room that is there anyway.
func bound(m storage.Meeting) bool { return m.Name == m.RoomID }

// find finds the meeting of a normalised name; storage.ErrNotFound.
func (s *Service) find(ctx context.Context, name string) (storage.Meeting, error) {
	return s.Store.MeetingByName(ctx, name)
}

// Info tells anybody about a meeting. Errors: M_INVALID_PARAM.
func (s *Service) Info(ctx context.Context, typed string, c meeting.Caller) (meeting.Info, error) {
	name, err := meeting.Name(typed)
	if err != nil {
		return meeting.Info{}, err
	}
	signedIn := false
	if c.Bearer != "" {
		x, err := s.Accounts.Authenticate(ctx, c.Bearer)
		if err != nil {
			return meeting.Info{}, err
		}
		signedIn = !x.Guest
	}
	out := meeting.Info{Name: name, Access: meeting.Open, MayCreate: s.mayCreate(signedIn, false), JWTRequired: s.jwtRequired() && !signedIn}
	m, err := s.find(ctx, name)
	if errors.Is(err, storage.ErrNotFound) {
		out.SignInRequired = !out.MayCreate && s.Create == CreateUsers
		if !out.MayCreate && s.Create == CreateNobody {
			out.Access = meeting.Closed
		}
		return out, nil
	}
	if err != nil {
		return meeting.Info{}, err
	}
	room, err := s.Rooms.Room(ctx, m.RoomID)
	if err != nil {
		return meeting.Info{}, err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return meeting.Info{}, err
	}
	out.Exists, out.E2EE, out.Access = true, m.E2EE, v.access()
	if out.Access == meeting.Open { // what it is about is for those who may in
		out.Subject = v.subject
	}
	s.mu.Lock()
	if l := s.lives[m.RoomID]; l != nil {
		out.Participants = len(l.present)
	}
	s.mu.Unlock()
	return out, nil
}

func (s *Service) jwtRequired() bool { return s.Create == CreateJWT && len(s.Keys) > 0 }

// mayCreate says whether somebody may begin a meeting.
func (s *Service) mayCreate(signedIn, token bool) bool {
	switch s.Create {
	case CreateAnyone:
		return true
	case CreateUsers:
		return signedIn || token
	case CreateJWT:
		return token || signedIn && len(s.Keys) == 0
	}
	return false
}

// view is what of a room matters for its meeting.
type view struct {
	joinRule string
	subject  string
	power    event.Power
	password bool
}

func (v *view) access() meeting.Access {
	switch {
	case v.joinRule == "knock" || v.joinRule == "knock_restricted":
		return meeting.Lobby
	case v.password:
		return meeting.Password
	case v.joinRule == "public":
		return meeting.Open
	}
	return meeting.Closed
}

func (s *Service) view(ctx context.Context, room *rooms.Room, m storage.Meeting) (*view, error) {
	head := room.Head()
	v := &view{joinRule: "invite", password: m.Password != ""}
	for _, x := range []struct {
		typ, key string
		to       *string
	}{{"m.room.join_rules", "join_rule", &v.joinRule}, {"m.room.name", "name", &v.subject}} {
		e, err := room.State(ctx, head, x.typ, "")
		if err != nil {
			return nil, err
		}
		if e != nil {
			*x.to = textOf(e.Content(), x.key)
		}
	}
	if v.subject == m.Name {
		v.subject = ""
	}
	var err error
	v.power, err = event.PowerOf(room.StateView(ctx, head))
	return v, err
}
