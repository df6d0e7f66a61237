// SPDX-License-Identifier: Apache-2.0

// Package focus lets Matrix users into the SFU. It finds out who asks (an OpenID token, or the homeserver's own access token), whether
// that user is in the room, and makes the token with which LiveKit's clients join; it takes over the scheduled ends of memberships
// (MSC4195), and ends the media of whoever leaves the room or logs out.
//
//	client ─ /sfu/get, /get_token ─> Handler ─┐                      ┌─> Media: a token that names its holder
//	client ─ MSC4195 ─> the homeserver's API ─┴─> Grant: is it joined? ┘
//	client ─ WebSocket with the token ─> SFU ─ Admit: is it joined still? ─ Came, Went ─> leaves, records of calls
//	homeserver ─ UserLeft, LoggedOut ─> SFU: the media session ends
//	Watch: a homeserver that does not tell that is asked every few seconds
//
// Nothing is kept of a token that was made: it carries whom it was made for, sealed by its signature, so that it can be judged again
// when it is used, also after a restart and for as long as it is good.
package focus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// Media is the SFU.
type Media interface {
	// Sign makes a token for joining a room.
	Sign(t Token) (jwt string, err error)
	// Remove ends a participant's session; false when there is none.
	Remove(room, identity string) bool
	// Open makes a room if there is place for one, and keeps it for some minutes in which nobody comes.
	Open(room string)
}

// Token is what a token for the SFU says.
type Token struct {
	Room, Identity string
	Holder         string // given back to Admit
	Publish        bool
	Life           time.Duration
	Profile
}

// Profile is how others see a member in the SFU. The zero Profile says nothing of him.
type Profile struct {
	Name, Metadata string
	// Attributes lets the member change his name and his attributes, never the metadata: those are what the server says of him.
	Attributes bool
	Held       []string // sources that he may publish muted only: "camera", "microphone"
}

// Homeserver knows users and rooms.
type Homeserver interface {
	// OpenIDUser gives the user whom an OpenID token of a server names, and the device that it was made for if that is known. The user is
	// of that server. Errors: M_UNAUTHORIZED.
	OpenIDUser(ctx context.Context, server, token string) (userID, deviceID string, err error)
	// Present says whether a user is joined to a room; and for users of this server, whether the device, if one is named, is logged in.
	// Errors: M_FORBIDDEN when not.
	Present(ctx context.Context, roomID, userID, deviceID string) error
	// Delay gives the delay of a delayed event of a user in a room, and the name under which matrixrtc.Events knows it. Errors:
	// M_INVALID_PARAM when there is none.
	Delay(ctx context.Context, userID, roomID, delayID string, claimed time.Duration) (name string, delay time.Duration, err error)
}

// Remote asks other homeservers for tokens of their SFUs: MSC4195, POST /_matrix/federation/v1/rtc/livekit/get_token. Errors of the
// other server are passed on: M_FORBIDDEN, M_INVALID_PARAM.
type Remote interface {
	GetToken(ctx context.Context, server string, q RemoteRequest) (jwt string, err error)
}

// RemoteRequest is the body of that request.
type RemoteRequest struct {
	UserID   string `json:"user_id"`
	URL      string `json:"url"`
	RoomID   string `json:"room_id"`
	SlotID   string `json:"slot_id"`
	MemberID string `json:"member_id"`
}

// Attendance hears who is in the SFU, for the records of calls. It must not block.
type Attendance interface {
	Arrived(m Member, session string, at time.Time)
	Departed(m Member, session string, at time.Time)
}

// Config of a Service.
type Config struct {
	ServerName string
	// PublicURL is where clients reach this server, without a slash at the end.
	PublicURL string
	// FollowHost: a server on trial, without a name of its own, tells clients to come to the host at which they asked.
	FollowHost bool
	Life       time.Duration // of tokens; default one hour
	// FullAccess says whose users are treated as ours, besides those of ServerName; may be nil.
	FullAccess func(server string) bool
	// Watch is looked at for whoever left a room or logged out; nil where the homeserver tells it (UserLeft, LoggedOut), or nobody does.
	Watch Watch
	// Restricted lets nobody else open a room of the SFU: where it is not known who is in a room of Matrix.
	Restricted bool
}

// Paths below the public URL.
const (
	ServicePath = "/livekit/jwt"
	MediaPath   = "/livekit/sfu"
)

// Deps are what a Service works with. Remote, Attendance and Limit may be nil.
type Deps struct {
	Config
	Media      Media
	Homeserver Homeserver
	Remote     Remote
	Attendance Attendance
	Leaves     *matrixrtc.Leaves
	// Limit counts a request to Handler, by the client's address. Errors: M_LIMIT_EXCEEDED.
	Limit func(r *http.Request) error
	Clock signalling.Clock
	Log   *slog.Logger
}

// Form is how a member's identity in the SFU is made.
type Form int

// The forms: see matrixrtc.
const (
	Hashed       Form = iota // of user and member id
	DeviceHashed             // of user, device and member id
	Plain                    // user and device
)

// Member is a user in a slot of a room.
type Member struct {
	RoomID, SlotID   string
	UserID, DeviceID string
	MemberID         string
	Form             Form
}

// MediaRoom is the name of the slot in the SFU.
func (m Member) MediaRoom() string { return matrixrtc.MediaRoom(m.RoomID, m.SlotID) }

// Identity is the member's name in the SFU.
func (m Member) Identity() string {
	switch m.Form {
	case Plain:
		return matrixrtc.PlainIdentity(m.UserID, m.DeviceID)
	case DeviceHashed:
		return matrixrtc.DeviceIdentity(m.UserID, m.DeviceID, m.MemberID)
	}
	return matrixrtc.Identity(m.UserID, m.MemberID)
}

const maxID = 255 // bytes of an id: Matrix spec, "Size limits"

// check looks at what a client may have made up.
func (m Member) check() error {
	for _, s := range []string{m.RoomID, m.SlotID, m.UserID, m.DeviceID, m.MemberID} {
		if len(s) > maxID || strings.ContainsRune(s, 0) {
			return signalling.InvalidParam("ids may have %d bytes, and no NUL", maxID)
		}
	}
	if m.RoomID == "" || m.SlotID == "" || m.UserID == "" || m.Form == Plain && m.DeviceID == "" || m.Form != Plain && m.MemberID == "" {
		return signalling.BadJSON("the room, the slot and the member must be named")
	}
	// "@a:b" with the device "443:X" would have the name in the SFU that "@a:b:443" has with "X".
	if port, _, found := strings.Cut(m.DeviceID, ":"); m.Form == Plain && found && strings.Trim(port, "0123456789") == "" {
		return signalling.InvalidParam("a device that begins like the port of a server cannot be told from one of that server")
	}
	return nil
}

// holder is Member as a token carries it: text that every base64 decoder of a client survives.
func (m Member) holder() string {
	b, _ := json.Marshal(m) // strings and a number
	return base64.RawStdEncoding.EncodeToString(b)
}

func readHolder(s string) (m Member, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(s)
	return m, err == nil && len(b) > 0 && json.Unmarshal(b, &m) == nil && m.check() == nil
}

const (
	remembered = 16_384 // tokens in use at the same time, whose sessions are not in the SFU yet
	questions  = 256    // to other servers at the same time, about who somebody is: strangers name the servers, and how long they take
)

// Service issues tokens and follows their holders.
type Service struct {
	Deps

	mu      sync.Mutex
	holders *lru.Cache[place, *holder] // by place: admitted, not come yet
	present map[place]*holder
	byUser  map[string]map[*holder]struct{}
	closed  bool
	work    sync.WaitGroup

	asking chan struct{} // a place for each question to another server
}

// place is a name in the SFU.
type place struct{ room, identity string }

// holder is who used a token. Guarded by Service.mu.
type holder struct {
	Member
	session string // of the SFU
	revoked bool
	seen    time.Time // when the device was last known to be logged in; of watcher, once the holder is in the SFU
}

// New makes the service.
func New(d Deps) *Service {
	if d.Life <= 0 {
		d.Life = time.Hour
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Deps: d, present: map[place]*holder{}, byUser: map[string]map[*holder]struct{}{}, asking: make(chan struct{}, questions)}
	s.holders, _ = lru.NewWithEvict(remembered, func(_ place, h *holder) { s.unlist(h) })
	return s
}

// Run works until ctx ends, and waits for what it began.
func (s *Service) Run(ctx context.Context) error {
	if s.Watch != nil {
		s.work.Go(func() { s.watch(ctx) })
	}
	err := s.Leaves.Run(ctx)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
	return err
}

// Base is the public URL as the client of r knows it; r may be nil.
func (s *Service) Base(r *http.Request) string {
	if !s.FollowHost || r == nil || r.Host == "" {
		return s.PublicURL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// MediaURL is the SFU's WebSocket URL below a public URL.
func MediaURL(base string) string { return "ws" + strings.TrimPrefix(base, "http") + MediaPath }

// ServiceURL is the URL of the token service below a public URL.
func ServiceURL(base string) string { return base + ServicePath }

// Ours says whether a WebSocket URL is of this server's SFU.
func (s *Service) Ours(url string, r *http.Request) bool {
	return url == MediaURL(s.Base(r)) || url == MediaURL(s.PublicURL)
}

// Grant makes a token for a member whose user is known to be the one who asks. Users of other servers may listen only; publish lets
// them send too, for clients that know no other way. Errors: M_FORBIDDEN for who is not in the room, M_BAD_JSON, M_INVALID_PARAM.
func (s *Service) Grant(ctx context.Context, m Member, publish bool) (jwt string, err error) {
	return s.GrantAs(ctx, m, publish, Profile{})
}

// GrantAs is Grant with what the others are told of the member.
func (s *Service) GrantAs(ctx context.Context, m Member, publish bool, p Profile) (jwt string, err error) {
	if err := m.check(); err != nil {
		return "", err
	}
	if err := s.Homeserver.Present(ctx, m.RoomID, m.UserID, m.DeviceID); err != nil {
		return "", err
	}
	own := s.own(m.UserID)
	if s.Restricted && own { // now, for others may be there before this one
		s.Media.Open(m.MediaRoom())
	}
	return s.Media.Sign(Token{
		Room: m.MediaRoom(), Identity: m.Identity(), Holder: m.holder(), Publish: publish || own, Life: s.Life, Profile: p,
	})
}

// GrantRemote is Grant for another server that asks for a user of its own: the federation side of MSC4195. Errors: M_FORBIDDEN,
// M_INVALID_PARAM.
func (s *Service) GrantRemote(ctx context.Context, origin string, q RemoteRequest) (jwt string, err error) {
	if serverOf(q.UserID) != origin {
		return "", signalling.Forbidden("that user is of another server")
	}
	if !s.Ours(q.URL, nil) {
		return "", signalling.InvalidParam("url is of no SFU of this server")
	}
	return s.Grant(ctx, Member{RoomID: q.RoomID, SlotID: q.SlotID, UserID: q.UserID, MemberID: q.MemberID}, false)
}

// Delegate takes over the scheduled leave of a member. claimed is its delay as the client says. Errors: M_FORBIDDEN, M_INVALID_PARAM,
// M_BAD_JSON, M_LIMIT_EXCEEDED.
func (s *Service) Delegate(ctx context.Context, m Member, delayID string, claimed time.Duration) error {
	if err := m.check(); err != nil {
		return err
	}
	if !s.own(m.UserID) {
		return signalling.Forbidden("only users of this server may hand over their leaves")
	}
	if delayID == "" || len(delayID) > maxID {
		return signalling.BadJSON("delay_id must name a delayed event")
	}
	if err := s.Homeserver.Present(ctx, m.RoomID, m.UserID, m.DeviceID); err != nil {
		return err
	}
	delayID, delay, err := s.Homeserver.Delay(ctx, m.UserID, m.RoomID, delayID, claimed)
	if err != nil {
		return err
	}
	at := place{m.MediaRoom(), m.Identity()}
	s.mu.Lock()
	here := s.present[at] != nil
	s.mu.Unlock()
	return s.Leaves.Delegate(ctx, matrixrtc.Leave{DelayID: delayID, Room: at.room, Identity: at.identity, Delay: delay}, here)
}

func (s *Service) own(userID string) bool {
	server := serverOf(userID)
	return server == s.ServerName || s.FullAccess != nil && s.FullAccess(server)
}

func serverOf(userID string) string {
	_, server, _ := strings.Cut(userID, ":")
	return server
}
