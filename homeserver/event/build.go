// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/trunkboard/trunkboard/signalling"
)

// Signer is the server that events are made and signed for.
type Signer struct {
	Server string // server name, e.g. "example.org"
	KeyID  string // "ed25519:a_key"
	Key    ed25519.PrivateKey
}

// Proto is an event before it has a place in the graph.
type Proto struct {
	RoomID   string // empty for the create event of a v12 room
	Sender   string
	Type     string
	StateKey *string
	Content  json.RawMessage
	Redacts  string // event id, for m.room.redaction
}

// State is one state of a room, as far as authorisation needs it.
type State interface {
	// Event gives the event at key, or nil if there is none.
	Event(key Key) (*Event, error)
}

// AuthKeys lists the pieces of state that decide whether p is allowed ("Auth events selection").
func AuthKeys(v Version, p Proto) ([]Key, error) {
	impl, err := v.impl()
	if err != nil {
		return nil, err
	}
	need, err := gmsl.StateNeededForProtoEvent(&gmsl.ProtoEvent{SenderID: p.Sender, RoomID: p.RoomID, Type: p.Type, StateKey: p.StateKey, Content: spec.RawJSON(p.Content), Version: impl})
	if err != nil {
		return nil, signalling.BadJSON("the content does not fit the event type").Because(err)
	}
	tuples := need.Tuples()
	keys := make([]Key, len(tuples))
	for i, t := range tuples {
		keys[i] = Key{t.EventType, t.StateKey}
	}
	return keys, nil
}

// Build makes, hashes and signs an event on top of prev (at most MaxPrev ids), with its auth events chosen from state. depth is one
// more than the deepest of prev. Errors: M_TOO_LARGE, M_BAD_JSON.
func Build(v Version, p Proto, prev []string, depth int64, state State, s Signer, now time.Time) (*Event, error) {
	impl, err := v.impl()
	if err != nil {
		return nil, err
	}
	if len(p.Content) > MaxSize {
		return nil, signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	if len(p.Type) > MaxIDLength || (p.StateKey != nil && len(*p.StateKey) > MaxIDLength) {
		return nil, signalling.TooLarge("type and state_key may have %d bytes", MaxIDLength)
	}
	if depth > MaxDepthVal {
		depth = MaxDepthVal
	}
	content := p.Content
	b := impl.NewEventBuilder()
	if p.Redacts != "" {
		if v.RedactsInContent() {
			if content, err = setField(content, "redacts", p.Redacts); err != nil {
				return nil, err
			}
		} else {
			b.Redacts = p.Redacts
		}
	}
	keys, err := AuthKeys(v, Proto{RoomID: p.RoomID, Sender: p.Sender, Type: p.Type, StateKey: p.StateKey, Content: content})
	if err != nil {
		return nil, err
	}
	auth := make([]string, 0, len(keys))
	for _, k := range keys {
		if k.Type == "m.room.create" && v.CreateIsRoomID() {
			continue // implied by the room id (v12)
		}
		e, err := state.Event(k)
		if err != nil {
			return nil, err
		}
		if e != nil {
			auth = append(auth, e.ID())
		}
	}
	b.SenderID, b.RoomID, b.Type, b.StateKey = p.Sender, p.RoomID, p.Type, p.StateKey
	b.Content, b.Depth, b.PrevEvents, b.AuthEvents = spec.RawJSON(content), depth, prev, auth
	if prev == nil {
		b.PrevEvents = []string{}
	}
	var pdu gmsl.PDU
	if err := noPanic(func() (err error) {
		pdu, err = b.Build(now, spec.ServerName(s.Server), gmsl.KeyID(s.KeyID), s.Key)
		return
	}); err != nil {
		var tooLong gmsl.EventValidationError
		if errors.As(err, &tooLong) && tooLong.Code == gmsl.EventValidationTooLarge {
			return nil, signalling.TooLarge("the event is too large").Because(err)
		}
		return nil, signalling.BadJSON("the content cannot be sent as a Matrix event: integers only, within ±(2^53-1), and no lone surrogates").Because(err)
	}
	e, err := wrap(v, pdu)
	if err != nil {
		return nil, err
	}
	return e, e.checkBounds()
}

// Sign gives e with one more signature (needed when an invite is accepted on behalf of the invited server).
func (e *Event) Sign(s Signer) (*Event, error) {
	return wrap(e.version, e.pdu.Sign(s.Server, gmsl.KeyID(s.KeyID), s.Key))
}

func setField(content json.RawMessage, key string, value any) (json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, signalling.BadJSON("content must be an object").Because(err)
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("field %s: %w", key, err)
	}
	m[key] = b
	return json.Marshal(m)
}

// SignJSON signs an object for key publication and X-Matrix requests (appendices, "Signing JSON").
func SignJSON(s Signer, raw []byte) ([]byte, error) {
	return gmsl.SignJSON(s.Server, gmsl.KeyID(s.KeyID), s.Key, raw)
}

// VerifyJSON checks one signature of an object that must be there.
func VerifyJSON(name, keyID string, key ed25519.PublicKey, raw []byte) error {
	return gmsl.VerifyJSON(name, gmsl.KeyID(keyID), key, raw)
}
