// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

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

// Event is one PDU. It never changes after it is made (but for caches inside), so it may be shared between goroutines.
type Event struct {
	raw       []byte // canonical JSON
	content   []byte // part of raw
	id        string
	roomID    string
	sender    string
	typ       string
	stateKey  *string
	redacts   string // the top-level field (up to v10)
	prev      []string
	auth      []string // as listed: in v12 without the create event
	depth, ts int64
	redacted  bool
	sticky    time.Duration
	version   Version
	head      atomic.Pointer[[]byte] // ClientHead, made once
	parsed    atomic.Pointer[facts]  // what the auth rules read in content
}

// Key names a piece of room state.
type Key struct{ Type, StateKey string }

// dropped are the top-level keys that are not part of an event between servers; some servers leave them in by accident.
func dropped(n int, key []byte) bool {
	switch string(key) {
	case "outlier", "destinations", "age_ts", "unsigned":
		return true
	case "event_id":
		return n > 2
	}
	return false
}

// Parse reads an event that a stranger composed: canonical JSON, sizes, depth and content hash are checked; an event whose hash
// does not match comes back redacted, as the spec asks (server-server API, "Checks performed on receipt of a PDU").
// Signatures are not checked here. Errors: M_BAD_JSON, M_NOT_JSON, M_TOO_LARGE, M_UNSUPPORTED_ROOM_VERSION.
func Parse(v Version, raw []byte) (*Event, error) {
	n, err := v.number()
	if err != nil {
		return nil, err
	}
	if len(raw) > 2*MaxSize {
		return nil, signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	whole, err := canonical(nil, raw, n >= 6)
	if err != nil {
		return nil, err
	}
	b, first, drop := make([]byte, 0, len(whole)), true, false
	b = append(b, '{')
	if !members(whole, func(k, val []byte) bool {
		if dropped(n, k) {
			drop = true
			return true
		}
		b = appendMember(b, &first, k, val)
		return true
	}) {
		return nil, signalling.BadJSON("an event is a JSON object")
	}
	if b = append(b, '}'); !drop {
		b = whole
	}
	if len(b) > MaxSize { // as it came: what redaction would leave of it does not count
		return nil, signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	e := &Event{raw: b, version: v}
	if err := e.read(n); err != nil {
		return nil, err
	}
	if hash := textField(field(b, "hashes"), "sha256"); !sameHash(hash, contentHash(b)) {
		e = &Event{raw: redactTo(nil, b, e.typ, n, true), version: v, redacted: true}
		if err := e.read(n); err != nil {
			return nil, err
		}
	}
	if err := e.name(n); err != nil {
		return nil, err
	}
	return e, e.checkBounds(false)
}

// Load reads an event from our own store, where it was put after Parse or Build.
func Load(v Version, id string, raw []byte, redacted bool) (*Event, error) {
	n, err := v.number()
	if err != nil {
		return nil, err
	}
	e := &Event{raw: raw, version: v, id: id, redacted: redacted}
	if err := e.read(n); err != nil {
		return nil, fmt.Errorf("stored event %s: %w", id, err)
	}
	return e, nil
}

func appendMember(b []byte, first *bool, key, value []byte) []byte {
	if !*first {
		b = append(b, ',')
	}
	*first = false
	b = append(b, '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return append(b, value...)
}

// read fills the fields from raw, of room version n, and checks the shape of what everybody relies on.
func (e *Event) read(n int) error {
	var missing [6]bool // of the fields that must be there
	need := [...]string{"type", "sender", "content", "depth", "prev_events", "auth_events"}
	for i := range missing {
		missing[i] = true
	}
	hasRoom := false
	var err error
	bad := func(format string, args ...any) bool {
		err = signalling.BadJSON(format, args...)
		return false
	}
	members(e.raw, func(k, v []byte) bool {
		ok := true
		switch string(k) {
		case "type":
			missing[0] = false
			if e.typ, ok = text(v); !ok || !plain(e.typ) {
				return bad("type must be a string")
			}
		case "sender":
			missing[1] = false
			if e.sender, ok = text(v); !ok || !plain(e.sender) {
				return bad("sender must be a string")
			}
		case "content":
			missing[2] = false
			if e.content = v; v[0] != '{' {
				return bad("content must be an object")
			}
		case "depth":
			missing[3] = false
			if e.depth, ok = integer(v); !ok || e.depth < 0 {
				return bad("depth must be an integer between 0 and 2^53-1")
			}
		case "prev_events":
			missing[4] = false
			if e.prev, ok = references(v, n); !ok {
				return bad("prev_events must be an array of event ids")
			}
			if len(e.prev) > MaxPrev {
				return bad("prev_events may have %d entries", MaxPrev)
			}
		case "auth_events":
			missing[5] = false
			if e.auth, ok = references(v, n); !ok {
				return bad("auth_events must be an array of event ids")
			}
			if len(e.auth) > MaxAuth {
				return bad("auth_events may have %d entries", MaxAuth)
			}
		case "room_id":
			hasRoom = true
			if e.roomID, ok = text(v); !ok || !validRoomID(e.roomID, n) {
				return bad("room_id must be a room id")
			}
		case "state_key":
			s, ok := text(v)
			if !ok || !plain(s) {
				return bad("state_key must be a string")
			}
			e.stateKey = &s
		case "origin_server_ts":
			if e.ts, ok = integer(v); !ok || e.ts < 0 {
				return bad("origin_server_ts must be an integer between 0 and 2^53-1")
			}
		case "redacts":
			e.redacts, _ = text(v)
		case stickyKey:
			e.sticky = stickyFor(v)
		case "event_id":
			if e.id == "" {
				if e.id, ok = text(v); !ok || !validEventID(e.id, n) {
					return bad("event_id must be an event id")
				}
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	for i, m := range missing {
		if m {
			return signalling.BadJSON("%s is missing", need[i])
		}
	}
	switch {
	case n >= 12 && e.isCreate():
		if hasRoom {
			return signalling.BadJSON("a create event of room version %s names no room_id", string(e.version))
		}
		if e.id != "" {
			e.roomID = "!" + e.id[1:]
		}
	case !hasRoom:
		return signalling.BadJSON("room_id is missing")
	}
	return nil
}

// name finds the id: the reference hash from v3 on, a field before.
func (e *Event) name(n int) error {
	if n <= 2 {
		if e.id == "" {
			return signalling.BadJSON("event_id is missing")
		}
		return nil
	}
	e.id = eventID(n, referenceHash(e.raw, e.typ, n))
	if n >= 12 && e.isCreate() {
		e.roomID = "!" + e.id[1:]
	}
	return nil
}

func (e *Event) isCreate() bool { return e.Is("m.room.create", "") }

// references reads prev_events or auth_events: ids, or up to v2 pairs of an id and its hashes.
func references(v []byte, n int) (ids []string, ok bool) {
	ids = []string{}
	good := true
	ok = elements(v, func(x []byte) bool {
		if n <= 2 {
			pair := x
			x = nil
			elements(pair, func(first []byte) bool { x = first; return false })
		}
		id, isText := text(x)
		if !isText || !validEventID(id, n) {
			good = false
			return false
		}
		ids = append(ids, id)
		return true
	})
	return ids, ok && good
}

// plain says that s can be stored and compared everywhere: PostgreSQL has no NUL in text.
func plain(s string) bool { return strings.IndexByte(s, 0) < 0 }

func validEventID(id string, n int) bool {
	return len(id) > 1 && len(id) <= MaxIDLength && id[0] == '$' && plain(id) && (n > 2 || strings.IndexByte(id, ':') > 0)
}

func validRoomID(id string, n int) bool {
	if len(id) < 2 || id[0] != '!' || !plain(id) {
		return false
	}
	if n < 12 {
		return strings.IndexByte(id, ':') > 0
	}
	return len(id) <= MaxIDLength
}

func (e *Event) checkBounds(strict bool) error {
	if len(e.raw) > MaxSize {
		return signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	// Servers of before room version 11 counted characters, and such events are in their rooms.
	long := func(s string) bool {
		return len(s) > MaxIDLength && (strict || e.version.n() >= 11 || utf8.RuneCountInString(s) > MaxIDLength)
	}
	if long(e.typ) || len(e.sender) > MaxIDLength || len(e.roomID) > MaxIDLength || e.stateKey != nil && long(*e.stateKey) {
		return signalling.TooLarge("type, state_key, sender and room_id may have %d bytes", MaxIDLength)
	}
	if _, _, err := UserID(e.sender); err != nil {
		return signalling.BadJSON("sender must be a user id").Because(err)
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

// Content is the raw content object. Do not change it.
func (e *Event) Content() []byte { return e.content }

// JSON is the canonical JSON, as sent to other servers. Do not change it.
func (e *Event) JSON() []byte { return e.raw }

// Version is the room version the event was made for.
func (e *Event) Version() Version { return e.version }

// Redacted says that the content was removed by the redaction algorithm.
func (e *Event) Redacted() bool { return e.redacted }

// PrevIDs are the ids in prev_events. Do not change them.
func (e *Event) PrevIDs() []string { return e.prev }

// AuthIDs are the ids in auth_events; in v12 the create event is always among them.
func (e *Event) AuthIDs() []string {
	if e.version.CreateIsRoomID() && !e.isCreate() {
		return append(append(make([]string, 0, len(e.auth)+1), "$"+e.roomID[1:]), e.auth...)
	}
	return e.auth
}

// Depth is the event's depth in the graph.
func (e *Event) Depth() int64 { return e.depth }

// OriginTS is origin_server_ts, in milliseconds since 1970.
func (e *Event) OriginTS() int64 { return e.ts }

// Membership is content.membership of an m.room.member event, "" for anything else.
func (e *Event) Membership() string {
	if e.typ != "m.room.member" || e.stateKey == nil {
		return ""
	}
	return e.facts().member.membership
}

// Redacts is the id of the event that e, a redaction, takes the content from.
func (e *Event) Redacts() string {
	if e.version.RedactsInContent() {
		return textField(e.content, "redacts")
	}
	return e.redacts
}

// Redact gives e as the redaction algorithm of its room version leaves it.
func (e *Event) Redact() (*Event, error) {
	if e.redacted {
		return e, nil
	}
	n, err := e.version.number()
	if err != nil {
		return nil, err
	}
	return Load(e.version, e.id, redactTo(nil, e.raw, e.typ, n, true), true)
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
	localpart, server, found := strings.Cut(s, ":")
	if !found || localpart == "" || localpart[0] != '@' || !plain(s) || !utf8.ValidString(s) || !validServer(server) {
		return "", "", signalling.InvalidParam("%q is not a user id; one looks like @name:server", s)
	}
	return localpart[1:], server, nil
}

// validServer checks a server name: a host name, an IPv4 address or an IPv6 address in brackets, and perhaps a port (appendices,
// "Server Name").
func validServer(s string) bool {
	host, port, hasPort := s, "", false
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port, hasPort = s[:i], s[i+1:], true
	}
	if hasPort {
		if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 || len(port) > 5 {
			return false
		}
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return strings.Trim(host[1:len(host)-1], "0123456789abcdefABCDEF:.") == ""
	}
	for i := 0; i < len(host); i++ {
		c := host[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '.' {
			return false
		}
	}
	return host != ""
}
