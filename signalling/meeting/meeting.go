// SPDX-License-Identifier: Apache-2.0

// Package meeting holds the words of meetings: what a meeting is called, what somebody says who comes to one, and what he is told.
// homeserver/meetings runs meetings with them, widgets/meetapi speaks them over HTTP, in the JSON forms that stand here.
package meeting

import (
	"net/http"
	"slices"

	"github.com/trunkboard/trunkboard/signalling"
)

// Slot is the slot of a Matrix room (MSC4143) in which its meeting takes place.
const Slot = "meet"

// CallRoom is the type of the Matrix room of a call (MSC1840): clients need not show it beside the room whose call it is.
const CallRoom = "io.trunkboard.call"

// ControlTopic is the topic of the server's own data messages; those of participants under that name mean nothing.
const ControlTopic = "tb.control"

// Access says how one gets into a meeting.
type Access string

// The ways.
const (
	Open     Access = "open"
	Password Access = "password" // who knows it
	Lobby    Access = "lobby"    // a host lets people in; who knows the password, if there is one, need not wait
	Closed   Access = "closed"   // for those who are invited in Matrix
)

// Kinds of media that a host can do something about.
const (
	Audio  = "audio"
	Video  = "video"
	Screen = "screen"
)

// Info is what anybody may know of a meeting.
type Info struct {
	Name           string `json:"name"`
	Exists         bool   `json:"exists"`
	Subject        string `json:"subject"`
	Access         Access `json:"access"`
	E2EE           bool   `json:"e2ee"`
	Participants   int    `json:"participants"`
	MayCreate      bool   `json:"may_create"`
	SignInRequired bool   `json:"sign_in_required"`
	JWTRequired    bool   `json:"jwt_required"`
}

// OpenID is an OpenID token, as a homeserver gives it to its users for telling others who they are.
type OpenID struct {
	AccessToken string `json:"access_token"`
	ServerName  string `json:"matrix_server_name"`
}

// Join is what somebody says who comes to a meeting.
type Join struct {
	DisplayName string  `json:"display_name"`
	AvatarURL   string  `json:"avatar_url"`
	Password    string  `json:"password"`
	JWT         string  `json:"jwt"`
	OpenID      *OpenID `json:"openid"`
	RoomID      string  `json:"room_id"`
	E2EE        bool    `json:"e2ee"`
	Call        bool    `json:"call"`    // what begins is the call of some room: nothing of it is left when all are gone
	Subject     string  `json:"subject"` // of the call that begins
	Session     string  `json:"session"`
}

// Caller is where a request comes from.
type Caller struct {
	Bearer  string // access token; "" for none
	Address string // of the network, for limits
	MediaAt string // the WebSocket URL of the SFU as the caller can reach it
}

// Entry lets somebody in. Waiting says that he is to wait instead: then only Session and RoomID are set.
type Entry struct {
	Waiting     bool    `json:"waiting,omitempty"`
	Session     string  `json:"session"`
	RoomID      string  `json:"room_id"`
	UserID      string  `json:"user_id,omitempty"`
	DisplayName string  `json:"display_name,omitempty"`
	Identity    string  `json:"identity,omitempty"`
	Host        bool    `json:"host"`
	Subject     string  `json:"subject"`
	E2EE        bool    `json:"e2ee"`
	Media       *Media  `json:"media,omitempty"`
	Matrix      *Matrix `json:"matrix,omitempty"`
}

// Media is how one gets into the SFU.
type Media struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// Matrix is how one gets at the room's messages. AccessToken is "" for who has one of his own.
type Matrix struct {
	BaseURL     string `json:"base_url"` // "" for the server that answers
	AccessToken string `json:"access_token,omitempty"`
	DeviceID    string `json:"device_id"`
	UserID      string `json:"user_id"`
}

// State is what everybody in a meeting sees: the metadata of its room in the SFU.
type State struct {
	V         int      `json:"v"`
	Name      string   `json:"name"`
	Subject   string   `json:"subject"`
	Hosts     []string `json:"hosts"` // identities
	Lobby     bool     `json:"lobby"`
	Password  bool     `json:"password"`
	Knocking  int      `json:"knocking"`
	E2EE      bool     `json:"e2ee"`
	Started   int64    `json:"started"` // milliseconds since 1970
	MayUnmute Unmute   `json:"may_unmute"`
}

// Unmute says what those who are no hosts may switch on.
type Unmute struct {
	Audio bool `json:"audio"`
	Video bool `json:"video"`
}

// Control is a message of the server's to participants.
type Control struct {
	Type   string `json:"type"` // muted, ask_unmute, kicked, ended
	Kind   string `json:"kind,omitempty"`
	By     string `json:"by,omitempty"` // identity
	Reason string `json:"reason,omitempty"`
}

// Knock is somebody who waits to be let in.
type Knock struct {
	UserID      string `json:"user_id"`
	DisplayName string `json:"display_name"`
	Since       int64  `json:"since"` // milliseconds since 1970
}

// Action is what a host does.
type Action struct {
	Session  string `json:"session"`
	Action   string `json:"action"`
	Identity string `json:"identity"`
	UserID   string `json:"user_id"`
	Kind     string `json:"kind"`
	Reason   string `json:"reason"`
	Subject  string `json:"subject"`
	Password string `json:"password"`
	Ban      bool   `json:"ban"`
	Allowed  bool   `json:"allowed"`
	On       bool   `json:"on"`
}

// Record is a meeting that took place. Ended is 0 while it goes on.
type Record struct {
	Name    string  `json:"name"`
	Subject string  `json:"subject"`
	Started int64   `json:"started"`
	Ended   int64   `json:"ended"`
	People  []Visit `json:"people"`
}

// Visit is one time that somebody was there. Went is 0 while he is.
type Visit struct {
	UserID      string `json:"user_id"`
	DisplayName string `json:"display_name"`
	Came        int64  `json:"came"`
	Went        int64  `json:"went"`
}

// Refusals that a page tells apart.
var (
	ErrPassword = signalling.Refuse(http.StatusUnauthorized, "IO_TRUNKBOARD_PASSWORD", "this meeting has a password, and that is not it")
	ErrSignIn   = signalling.Refuse(http.StatusForbidden, "IO_TRUNKBOARD_SIGN_IN", "sign in to begin this meeting; guests may come once it exists")
	ErrFull     = signalling.Refuse(http.StatusForbidden, "IO_TRUNKBOARD_FULL", "this meeting is full; try again later")
	ErrJWT      = signalling.Refuse(http.StatusForbidden, "IO_TRUNKBOARD_JWT", "this meeting wants a token (JWT) that is good for it")
	ErrSession  = signalling.Forbidden("this session is over; join again")
	ErrHost     = signalling.Forbidden("only hosts may do this")
)

// KnownKind says whether kind is one of those in among.
func KnownKind(kind string, among ...string) error {
	if !slices.Contains(among, kind) {
		return signalling.InvalidParam("kind must be one of %v", among)
	}
	return nil
}
