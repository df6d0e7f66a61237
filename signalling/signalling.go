// SPDX-License-Identifier: Apache-2.0

// Package signalling holds the words that every part of Trunkboard shares: who takes part in a call, with what they reach each
// other, what time it is, and how a refusal is said. It imports nothing of the project, so any package may import it.
//
// The stores behind these words live one level down: sessions in signalling/session, presence in signalling/presence, hints
// between nodes in signalling/bus, rate limits in signalling/limit, the 1:1 call state machine in signalling/callflow.
package signalling

import "time"

// Party is one end of a call: a device of a user (Matrix spec, Voice over IP, "party_id").
type Party struct {
	UserID   string `json:"user_id"`
	DeviceID string `json:"device_id,omitempty"`
	PartyID  string `json:"party_id,omitempty"`
}

// ICEServer is one entry of an RTCConfiguration's iceServers (WebRTC 1.0, section 4.2.2) as Trunkboard hands it out.
type ICEServer struct {
	URIs       []string
	Username   string
	Credential string
	TTL        time.Duration
}

// Clock tells the time. Everything that expires takes one, so that tests can move time without waiting.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in its own goroutine after d, unless stop is called first; stop reports whether it prevented the call.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now is time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc is time.AfterFunc.
func (SystemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}
