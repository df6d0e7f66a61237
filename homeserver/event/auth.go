// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/trunkboard/trunkboard/signalling"
)

// Authorise says whether e is allowed by the auth rules of its room version in this state ("Authorization rules"). A refusal is
// 403 M_FORBIDDEN; any other error means that the state could not be read.
func Authorise(e *Event, state State) error {
	p := &provider{state: state}
	err := noPanic(func() error { return gmsl.Allowed(e.pdu, p, userIDForSender) })
	if p.err != nil {
		return p.err
	}
	if err == nil {
		return nil
	}
	var not *gmsl.NotAllowed
	if errors.As(err, &not) {
		return signalling.Forbidden("you are not allowed to do this in this room").Because(err)
	}
	return signalling.Forbidden("the event does not pass this room's rules").Because(err)
}

func userIDForSender(_ spec.RoomID, sender spec.SenderID) (*spec.UserID, error) {
	return spec.NewUserID(string(sender), true)
}

// provider shows a State to the library, and keeps the first read error that the library would swallow.
type provider struct {
	state State
	err   error
}

func (p *provider) get(typ, key string) (gmsl.PDU, error) {
	e, err := p.state.Event(Key{typ, key})
	if err != nil {
		if p.err == nil {
			p.err = err
		}
		return nil, err
	}
	if e == nil {
		return nil, nil
	}
	return e.pdu, nil
}

func (p *provider) Create() (gmsl.PDU, error)      { return p.get("m.room.create", "") }
func (p *provider) JoinRules() (gmsl.PDU, error)   { return p.get("m.room.join_rules", "") }
func (p *provider) PowerLevels() (gmsl.PDU, error) { return p.get("m.room.power_levels", "") }
func (p *provider) Valid() bool                    { return true }
func (p *provider) Member(s spec.SenderID) (gmsl.PDU, error) {
	return p.get("m.room.member", string(s))
}
func (p *provider) ThirdPartyInvite(key string) (gmsl.PDU, error) {
	return p.get("m.room.third_party_invite", key)
}

// EventsState is a State made of a few events, such as an event's own auth events.
type EventsState map[Key]*Event

// StateOf collects state events; a later one wins.
func StateOf(events ...*Event) EventsState {
	s := make(EventsState, len(events))
	for _, e := range events {
		if e.IsState() {
			s[e.Key()] = e
		}
	}
	return s
}

// Event gives the event at key or nil.
func (s EventsState) Event(key Key) (*Event, error) { return s[key], nil }
