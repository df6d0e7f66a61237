// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"time"

	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/speakers"
)

// Observer is a participant's signalling connection.
type Observer interface {
	// Tell delivers an event. It is called with the room locked: it must neither block nor call back.
	Tell(Event)
	// Message takes what the participant sent over a data channel. It may call back; the bytes are the caller's.
	Message(label string, b []byte)
}

// Event is one of the types below.
type Event interface{ event() }

// Changed says that others joined, left or changed, or the participant itself did.
type Changed struct{ Participants []Info }

// Published says that the participant's track got its number.
type Published struct{ Track TrackInfo }

// Unpublished says that the participant's track has ended.
type Unpublished struct{ SID string }

// Offer is a description for the connection on which the participant receives; it asks for an answer. For participants that
// joined with two connections only.
type Offer struct{ Description Description }

// Sections asks the client for an offer with that many more sections to receive on. For participants with one connection only.
type Sections struct{ Audio, Video int }

// Speakers says whose loudness changed.
type Speakers struct{ Changed []speakers.Speaker }

// Wanted tells a publisher which layers of a video track somebody wants, in the codec of the track and in its second one, if it has one. What
// is wanted in a codec that is not published yet should be.
type Wanted struct {
	SID    string
	Codecs []WantedCodec
}

// WantedCodec says which layers are wanted in a codec: those up to Layer, none if it is -1.
type WantedCodec struct {
	MIME  string
	Layer int
}

// StreamState says that a track the participant receives stops, because there is no room for it, or goes on.
type StreamState struct {
	Publisher, SID string
	Paused         bool
}

// Quality is how good a participant's connection is, with a score from 1 to 5.
type Quality struct {
	SID     string
	Quality congest.Quality
	Score   float64
}

// Qualities says whose connection became better or worse.
type Qualities struct{ Changed []Quality }

// RoomChanged says how the room is described now.
type RoomChanged struct{ Room RoomInfo }

// Silenced says that the participant's track was muted by somebody else.
type Silenced struct{ SID string }

// Permitted says that the participant may receive a track now, or not any more.
type Permitted struct {
	Publisher, SID string
	Allowed        bool
}

// Subscribed says that somebody receives the participant's track, for the first time.
type Subscribed struct{ SID string }

// Refused says that a track cannot be sent to the participant: its client knows no codec that the track comes in.
type Refused struct{ SID string }

// Gone says that the participant is out of the room; it is the last event.
type Gone struct{ Reason Reason }

func (Changed) event()     {}
func (Published) event()   {}
func (Unpublished) event() {}
func (Offer) event()       {}
func (Sections) event()    {}
func (Speakers) event()    {}
func (Wanted) event()      {}
func (StreamState) event() {}
func (Qualities) event()   {}
func (RoomChanged) event() {}
func (Silenced) event()    {}
func (Permitted) event()   {}
func (Subscribed) event()  {}
func (Refused) event()     {}
func (Gone) event()        {}

// Reason is why a participant is gone.
type Reason int

// The reasons.
const (
	Left Reason = iota
	Duplicate
	Shutdown
	Removed
	RoomClosed
	Failed   // the connection broke
	TimedOut // it never came up, or the client fell silent
)

// Description is a session description on its way to a client.
type Description struct {
	SDP string
	ID  uint32
	// Tracks maps the mid of each section that sends to the client to the track's number.
	Tracks map[string]string
}

// State of a participant.
type State int

// The states.
const (
	Joining State = iota
	Joined
	Active
	Disconnected
)

// Permissions of a participant.
type Permissions struct {
	Publish, Subscribe, Data, UpdateMetadata bool
	KeepMetadata                             bool     // UpdateMetadata is for the name and the attributes only
	Sources                                  []string // that may be published; empty for all
	Held                                     []string // sources that the participant may not unmute
	Hidden                                   bool     // the others do not learn of it
}

// Profile is what a participant says of itself.
type Profile struct {
	Identity    string // unique in a room
	Name        string
	Metadata    string
	Attributes  map[string]string
	Permissions Permissions
}

// Info is a participant as the others see it.
type Info struct {
	Profile
	SID       string
	State     State
	Joined    time.Time
	Version   uint32
	Publisher bool
	Reason    Reason // when State is Disconnected
	Tracks    []TrackInfo
}

// Layer describes one encoding of a video track.
type Layer struct {
	Index         int // 0 to 2, small to large
	Width, Height uint32
}

// TrackInfo is a published track as the others see it.
type TrackInfo struct {
	SID, CID  string // CID is the publisher's name for it
	Video     bool
	MIME      string // "audio/opus"; empty until it is negotiated
	MID       string
	Source    string // "camera", "microphone", "screen_share" …
	Muted     bool
	Layers    []Layer
	Redundant bool   // sound that is not encrypted, and may be sent redundantly (RFC 2198) and be made so
	Format    string // further parameters of the codec, for the answer: "usedtx=1"
	Second    string // MIME of a codec in which the publisher sends a picture to those who do not take the first; "" for none
	Policy    Policy
	Backup    *Backup // nil while the second codec is not published
	Detail    any     // the signalling protocol's own description, carried along
}
