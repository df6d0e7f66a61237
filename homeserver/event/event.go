// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/signalling"
)

// Limits of the spec ("Size limits"), and of our own where the spec is silent.
const (
	MaxSize     = 65536     // bytes of canonical JSON, whole event
	MaxIDLength = 255       // bytes of type, state_key, sender, room_id, event_id
	MaxDepthVal = 1<<53 - 1 // the largest integer canonical JSON can hold
	MaxNesting  = 100       // levels of arrays and objects in an event
	MaxPrev     = 20        // prev_events of one event
	MaxAuth     = 10        // auth_events of one event
)

// Event is one PDU. It never changes after it is made (but for a cache inside), so it may be shared between goroutines.
type Event struct {
	pdu      gmsl.PDU
	id       string
	roomID   string
	sender   string
	typ      string
	stateKey *string
	redacted bool
	version  Version
	head     atomic.Pointer[[]byte] // ClientHead, made once
}

// Key names a piece of room state.
type Key struct{ Type, StateKey string }

func wrap(v Version, pdu gmsl.PDU) (e *Event, err error) {
	// The library panics on a few malformed ids that its parser lets through.
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, signalling.BadJSON("the event is malformed").Because(fmt.Errorf("%v", r))
		}
	}()
	room := pdu.RoomID()
	return &Event{
		pdu: pdu, id: pdu.EventID(), roomID: room.String(), sender: string(pdu.SenderID()), typ: pdu.Type(),
		stateKey: pdu.StateKey(), redacted: pdu.Redacted(), version: v,
	}, nil
}

// Parse reads an event that a stranger composed: canonical JSON, sizes, depth and content hash are checked; an event whose hash
// does not match comes back redacted, as the spec asks (server-server API, "Checks performed on receipt of a PDU").
// Signatures are not checked here. Errors: M_BAD_JSON, M_NOT_JSON, M_TOO_LARGE, M_UNSUPPORTED_ROOM_VERSION.
func Parse(v Version, raw []byte) (*Event, error) {
	impl, err := v.impl()
	if err != nil {
		return nil, err
	}
	if len(raw) > 2*MaxSize {
		return nil, signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	if err := CheckJSON(raw); err != nil {
		return nil, err
	}
	top := gjson.ParseBytes(raw)
	if !top.IsObject() {
		return nil, signalling.BadJSON("an event is a JSON object")
	}
	if err := checkShape(v, top); err != nil {
		return nil, err
	}
	var pdu gmsl.PDU
	if err := noPanic(func() (err error) { pdu, err = impl.NewEventFromUntrustedJSON(raw); return }); err != nil {
		var tooLong gmsl.EventValidationError
		if errors.As(err, &tooLong) && tooLong.Code == gmsl.EventValidationTooLarge {
			return nil, signalling.TooLarge("the event is too large").Because(err)
		}
		return nil, signalling.BadJSON("the event is malformed").Because(err)
	}
	e, err := wrap(v, pdu)
	if err != nil {
		return nil, err
	}
	return e, e.checkBounds()
}

// Load reads an event from our own store, where it was put after Parse or Build.
func Load(v Version, id string, raw []byte, redacted bool) (*Event, error) {
	impl, err := v.impl()
	if err != nil {
		return nil, err
	}
	pdu, err := impl.NewEventFromTrustedJSONWithEventID(id, raw, redacted)
	if err != nil {
		return nil, fmt.Errorf("stored event %s: %w", id, err)
	}
	return wrap(v, pdu)
}

func noPanic(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return f()
}

func checkShape(v Version, top gjson.Result) error {
	for _, f := range []string{"type", "sender"} {
		if top.Get(f).Type != gjson.String {
			return signalling.BadJSON("%s must be a string", f)
		}
	}
	if !top.Get("content").IsObject() {
		return signalling.BadJSON("content must be an object")
	}
	if sk := top.Get("state_key"); sk.Exists() && sk.Type != gjson.String {
		return signalling.BadJSON("state_key must be a string")
	}
	if d := top.Get("depth"); d.Type != gjson.Number || d.Num < 0 || d.Num > MaxDepthVal {
		return signalling.BadJSON("depth must be an integer between 0 and 2^53-1")
	}
	for _, f := range []struct {
		name string
		max  int
	}{{"prev_events", MaxPrev}, {"auth_events", MaxAuth}} {
		l := top.Get(f.name)
		if !l.IsArray() {
			return signalling.BadJSON("%s must be an array", f.name)
		}
		if n := int(l.Get("#").Int()); n > f.max {
			return signalling.BadJSON("%s may have %d entries", f.name, f.max)
		}
	}
	return nil
}

func (e *Event) checkBounds() error {
	if len(e.pdu.JSON()) > MaxSize {
		return signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	if len(e.typ) > MaxIDLength || len(e.sender) > MaxIDLength || len(e.roomID) > MaxIDLength || (e.stateKey != nil && len(*e.stateKey) > MaxIDLength) {
		return signalling.TooLarge("type, state_key, sender and room_id may have %d bytes", MaxIDLength)
	}
	return nil
}

// CheckJSON refuses what would mean different things to different parsers: invalid UTF-8, duplicate keys, NUL or lone surrogates
// are left to the canonical form; depth beyond MaxNesting is refused before anything decodes the value.
func CheckJSON(raw []byte) error {
	if !utf8.Valid(raw) {
		return signalling.NotJSON("not valid UTF-8")
	}
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			if depth++; depth > MaxNesting {
				return signalling.BadJSON("nested deeper than %d levels", MaxNesting)
			}
		case '}', ']':
			depth--
		}
	}
	if !json.Valid(raw) {
		return signalling.NotJSON("not valid JSON")
	}
	return nil
}

// ID is the event id, with its sigil.
func (e *Event) ID() string { return e.id }

// RoomID is the room id; for a v12 create event the one it creates.
func (e *Event) RoomID() string { return e.roomID }

// Sender is the user id of the sender.
func (e *Event) Sender() string { return e.sender }

// Type is the event type.
func (e *Event) Type() string { return e.typ }

// StateKey is nil for a message event.
func (e *Event) StateKey() *string { return e.stateKey }

// IsState says that e has a state key.
func (e *Event) IsState() bool { return e.stateKey != nil }

// Key is the piece of state that e sets; the zero Key for a message event.
func (e *Event) Key() Key {
	if e.stateKey == nil {
		return Key{}
	}
	return Key{e.typ, *e.stateKey}
}

// Is says that e is state of this type and key.
func (e *Event) Is(typ, stateKey string) bool {
	return e.typ == typ && e.stateKey != nil && *e.stateKey == stateKey
}

// Content is the raw content object.
func (e *Event) Content() []byte { return e.pdu.Content() }

// JSON is the canonical JSON, as sent to other servers.
func (e *Event) JSON() []byte { return e.pdu.JSON() }

// Version is the room version the event was made for.
func (e *Event) Version() Version { return e.version }

// Redacted says that the content was removed by the redaction algorithm.
func (e *Event) Redacted() bool { return e.redacted }

// PrevIDs are the ids in prev_events.
func (e *Event) PrevIDs() []string { return e.pdu.PrevEventIDs() }

// AuthIDs are the ids in auth_events; in v12 the create event is always among them.
func (e *Event) AuthIDs() []string { return e.pdu.AuthEventIDs() }

// Depth is the event's depth in the graph.
func (e *Event) Depth() int64 { return e.pdu.Depth() }

// OriginTS is origin_server_ts, in milliseconds since 1970.
func (e *Event) OriginTS() int64 { return int64(e.pdu.OriginServerTS()) }

// Membership is content.membership of an m.room.member event, "" for anything else.
func (e *Event) Membership() string {
	if e.typ != "m.room.member" || e.stateKey == nil {
		return ""
	}
	return gjson.GetBytes(e.pdu.Content(), "membership").Str
}

// Redacts is the id of the event that e, a redaction, takes the content from.
func (e *Event) Redacts() string {
	if e.version.RedactsInContent() {
		return gjson.GetBytes(e.pdu.Content(), "redacts").Str
	}
	return e.pdu.Redacts()
}

// Redact gives e as the redaction algorithm of its room version leaves it.
func (e *Event) Redact() (*Event, error) {
	if e.redacted {
		return e, nil
	}
	impl, err := e.version.impl()
	if err != nil {
		return nil, err
	}
	raw, err := impl.RedactEventJSON(e.pdu.JSON())
	if err != nil {
		return nil, err
	}
	canonical, err := gmsl.CanonicalJSON(raw)
	if err != nil {
		return nil, err
	}
	return Load(e.version, e.id, canonical, true)
}

// ServerOf is the domain part of a user id, room id or event id; "" where there is none.
func ServerOf(id string) string {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		return id[i+1:]
	}
	return ""
}

// UserID checks that s is a user id as the spec wants it (appendices, "User Identifiers"; the historical grammar of localparts is
// accepted) and gives its parts.
func UserID(s string) (localpart, server string, err error) {
	if len(s) > MaxIDLength {
		return "", "", signalling.InvalidParam("a user id may have %d bytes", MaxIDLength)
	}
	id, perr := spec.NewUserID(s, true)
	if perr != nil {
		return "", "", signalling.InvalidParam("%q is not a user id; one looks like @name:server", s).Because(perr)
	}
	return id.Local(), string(id.Domain()), nil
}

// Canonical is the canonical JSON of raw (appendices, "Canonical JSON").
func Canonical(raw []byte) ([]byte, error) {
	if err := CheckJSON(raw); err != nil {
		return nil, err
	}
	out, err := gmsl.CanonicalJSON(raw)
	if err != nil {
		return nil, signalling.BadJSON("cannot be written as canonical JSON").Because(err)
	}
	return bytes.Clone(out), nil
}
