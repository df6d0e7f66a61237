// SPDX-License-Identifier: Apache-2.0

package callflow

import (
	"encoding/json"
	"math"

	"github.com/trunkboard/trunkboard/signalling"
)

// Validate says what is wrong with the content of an m.call.* event that a local client wants to send in plain text: M_BAD_JSON
// with the field's name, or nil. It asks only for what a receiver cannot do without, lets unknown fields and values through, and
// has nothing to say about other event types. It must not be applied to events from other servers: refusing those would split the
// room.
func Validate(eventType string, content json.RawMessage) error {
	if !IsCall(eventType) {
		return nil
	}
	f, ok := object(content)
	if !ok {
		return signalling.BadJSON("the content of %s must be an object", eventType)
	}
	id, ok := f.text("call_id")
	if !ok || id == "" || len(id) > maxID {
		return signalling.BadJSON("call_id must be a string of 1 to %d bytes", maxID)
	}
	if err := f.checkVersion(); err != nil {
		return err
	}
	if err := f.optionalText("party_id", "invitee", "reason"); err != nil {
		return err
	}
	if err := f.optionalObject(metadataField, metadataFieldOld, "capabilities"); err != nil {
		return err
	}
	switch eventType {
	case TypeInvite:
		if _, ok := f.number("lifetime"); !ok {
			return signalling.BadJSON("lifetime must be a number of milliseconds")
		}
		return f.description("offer")
	case TypeAnswer:
		return f.description("answer")
	case TypeNegotiate:
		if f.has("lifetime") {
			if _, ok := f.number("lifetime"); !ok {
				return signalling.BadJSON("lifetime must be a number of milliseconds")
			}
		}
		// The specification's text and all clients say "description"; its schema said "offer" for years.
		if !f.has("description") && f.has("offer") {
			return f.description("offer")
		}
		return f.description("description")
	case TypeCandidates:
		return f.candidates()
	case TypeSelectAnswer:
		if _, ok := f.text("selected_party_id"); !ok {
			return signalling.BadJSON("selected_party_id must be a string")
		}
	}
	return nil
}

func (f fields) checkVersion() error {
	if _, ok := f.text("version"); ok {
		return nil
	}
	// Integers other than 0 were sent by early clients; the specification has them read as "1".
	if n, ok := f.number("version"); ok && n == math.Trunc(n) && !math.IsInf(n, 0) {
		return nil
	}
	return signalling.BadJSON("version must be a string, or the integer 0")
}

func (f fields) optionalText(names ...string) error {
	for _, name := range names {
		if _, ok := f.text(name); !ok && f.has(name) {
			return signalling.BadJSON("%s must be a string", name)
		}
	}
	return nil
}

func (f fields) optionalObject(names ...string) error {
	for _, name := range names {
		if _, ok := f.object(name); !ok && f.has(name) {
			return signalling.BadJSON("%s must be an object", name)
		}
	}
	return nil
}

// description checks an RTCSessionDescriptionInit. Its type is not looked at: receivers hand it to WebRTC as it is.
func (f fields) description(name string) error {
	d, ok := f.object(name)
	if !ok {
		return signalling.BadJSON("%s must be an object with type and sdp", name)
	}
	if _, ok := d.text("sdp"); !ok {
		return signalling.BadJSON("%s.sdp must be a string", name)
	}
	if err := d.optionalText("type"); err != nil {
		return signalling.BadJSON("%s.type must be a string", name)
	}
	return nil
}

// candidates checks an array of RTCIceCandidateInit; sdpMid and sdpMLineIndex are null in the end marker that browsers make.
func (f fields) candidates() error {
	var list []json.RawMessage
	if !f.has("candidates") || json.Unmarshal(f["candidates"], &list) != nil {
		return signalling.BadJSON("candidates must be an array")
	}
	for i, raw := range list {
		c, ok := object(raw)
		if !ok {
			return signalling.BadJSON("candidates[%d] must be an object", i)
		}
		if _, ok := c.text("candidate"); !ok {
			return signalling.BadJSON("candidates[%d].candidate must be a string", i)
		}
		if err := c.optionalText("sdpMid"); err != nil {
			return signalling.BadJSON("candidates[%d].sdpMid must be a string", i)
		}
		if _, ok := c.number("sdpMLineIndex"); !ok && c.has("sdpMLineIndex") {
			return signalling.BadJSON("candidates[%d].sdpMLineIndex must be a number", i)
		}
	}
	return nil
}
