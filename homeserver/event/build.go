// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

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
	Redacts  string        // event id, for m.room.redaction
	Sticky   time.Duration // how long the event sticks (MSC4354), at most MaxSticky; 0 for one that does not
}

// Build makes, hashes and signs an event on top of prev (at most MaxPrev ids), with its auth events chosen from state. depth is one
// more than the deepest of prev. Errors: M_TOO_LARGE, M_BAD_JSON, M_UNSUPPORTED_ROOM_VERSION.
func Build(v Version, p Proto, prev []string, depth int64, state State, s Signer, now time.Time) (*Event, error) {
	e, n, err := draft(v, p, prev, depth, s, now)
	if err != nil {
		return nil, err
	}
	for _, k := range e.authKeys() {
		if k == createKey && n >= 12 {
			continue // implied by the room id
		}
		a, err := state.Event(k)
		if err != nil {
			return nil, err
		}
		if a != nil {
			e.auth = append(e.auth, a.id)
		}
	}
	return e.finish(n, s)
}

// BuildOn makes, hashes and signs an event whose place in the graph another server chose: it names these prev and auth events (at most
// MaxPrev and MaxAuth ids; in v12 without the create event). Errors as for Build.
func BuildOn(v Version, p Proto, prev, auth []string, depth int64, s Signer, now time.Time) (*Event, error) {
	if len(prev) > MaxPrev || len(auth) > MaxAuth {
		return nil, signalling.BadJSON("an event may name %d previous events and %d auth events", MaxPrev, MaxAuth)
	}
	e, n, err := draft(v, p, prev, depth, s, now)
	if err != nil {
		return nil, err
	}
	for _, id := range append(append([]string{}, prev...), auth...) {
		if !validEventID(id, n) {
			return nil, signalling.BadJSON("%q is not an event id of room version %s", id, string(v))
		}
	}
	e.auth = append(e.auth, auth...)
	return e.finish(n, s)
}

// draft checks p and gives the event without its auth events, hashes and signature.
func draft(v Version, p Proto, prev []string, depth int64, s Signer, now time.Time) (*Event, int, error) {
	n, err := v.number()
	if err != nil {
		return nil, 0, err
	}
	if len(p.Content) > 2*MaxSize {
		return nil, 0, signalling.TooLarge("an event may have %d bytes", MaxSize)
	}
	for _, s := range []*string{&p.Type, &p.Sender, &p.RoomID, &p.Redacts, p.StateKey} {
		if s != nil && (!plain(*s) || !utf8.ValidString(*s)) {
			return nil, 0, signalling.BadJSON("an event type, id or state_key must be text without NUL")
		}
	}
	content, err := canonical(nil, p.Content, n >= 6)
	if err != nil {
		return nil, 0, err
	}
	if content[0] != '{' {
		return nil, 0, signalling.BadJSON("content must be an object")
	}
	if p.Redacts != "" && n >= 11 {
		if content, err = withRedacts(content, p.Redacts); err != nil {
			return nil, 0, err
		}
		p.Redacts = ""
	}
	e := &Event{content: content, roomID: p.RoomID, sender: p.Sender, typ: p.Type, stateKey: p.StateKey, redacts: p.Redacts, prev: prev, auth: []string{},
		depth: min(depth, MaxDepthVal), ts: now.UnixMilli(), version: v, sticky: min(p.Sticky, MaxSticky).Truncate(time.Millisecond)}
	if prev == nil {
		e.prev = []string{}
	}
	if n <= 2 {
		e.id = "$" + rand.Text()[:18] + ":" + s.Server
	}
	if p.Type == "m.room.member" && p.StateKey != nil && e.facts().member.membership == "" {
		return nil, 0, signalling.BadJSON("content.membership must be a string")
	}
	return e, n, nil
}

// finish seals e and checks its size.
func (e *Event) finish(n int, s Signer) (*Event, error) {
	e.seal(n, s)
	if err := e.checkBounds(true); err != nil {
		return nil, err
	}
	e.content = field(e.raw, "content")
	return e, nil
}

// seal hashes and signs e, and writes its canonical JSON.
func (e *Event) seal(n int, s Signer) {
	size := len(e.content) + 64*(len(e.prev)+len(e.auth)) + 768
	hash := contentHash(e.compose(make([]byte, 0, size), n, s, nil, nil))
	hashes := append(make([]byte, 0, 64), `{"sha256":"`...)
	hashes = append(base64.RawStdEncoding.AppendEncode(hashes, hash[:]), `"}`...)
	// What is signed is what the id is the hash of.
	signed := redactTo(nil, e.compose(make([]byte, 0, size), n, s, hashes, nil), e.typ, n, false)
	sig := ed25519.Sign(s.Key, signed)
	signatures := AppendString(append(make([]byte, 0, 192), '{'), s.Server)
	signatures = AppendString(append(signatures, ':', '{'), s.KeyID)
	signatures = append(signatures, ':', '"')
	signatures = append(base64.RawStdEncoding.AppendEncode(signatures, sig), `"}}`...)
	e.raw = e.compose(make([]byte, 0, size), n, s, hashes, signatures)
	if n >= 3 {
		e.id = eventID(n, sha256.Sum256(signed))
	}
	if n >= 12 && e.isCreate() {
		e.roomID = "!" + e.id[1:]
	}
}

// compose writes the event's canonical JSON, hashes and signatures where they are not nil.
func (e *Event) compose(b []byte, n int, s Signer, hashes, signatures []byte) []byte {
	b = appendIDs(append(b, `{"auth_events":`...), n, e.auth)
	b = append(b, `,"content":`...)
	b = append(b, e.content...)
	b = append(b, `,"depth":`...)
	b = strconv.AppendInt(b, e.depth, 10)
	if n <= 2 {
		b = AppendString(append(b, `,"event_id":`...), e.id)
	}
	if hashes != nil {
		b = append(append(b, `,"hashes":`...), hashes...)
	}
	if e.sticky > 0 {
		b = strconv.AppendInt(append(b, `,"`+stickyKey+`":{"duration_ms":`...), e.sticky.Milliseconds(), 10)
		b = append(b, '}')
	}
	b = AppendString(append(b, `,"origin":`...), s.Server)
	b = append(b, `,"origin_server_ts":`...)
	b = strconv.AppendInt(b, e.ts, 10)
	b = appendIDs(append(b, `,"prev_events":`...), n, e.prev)
	if e.stateKey != nil {
		b = append(b, `,"prev_state":[]`...) // expected by old servers
	}
	if e.redacts != "" {
		b = AppendString(append(b, `,"redacts":`...), e.redacts)
	}
	if e.roomID != "" {
		b = AppendString(append(b, `,"room_id":`...), e.roomID)
	}
	b = AppendString(append(b, `,"sender":`...), e.sender)
	if signatures != nil {
		b = append(append(b, `,"signatures":`...), signatures...)
	}
	if e.stateKey != nil {
		b = AppendString(append(b, `,"state_key":`...), *e.stateKey)
	}
	b = AppendString(append(b, `,"type":`...), e.typ)
	return append(b, '}')
}

// appendIDs writes references to events: ids, or up to v2 pairs of an id and its hashes, which nobody ever checked and we leave out.
func appendIDs(b []byte, n int, ids []string) []byte {
	b = append(b, '[')
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		if n <= 2 {
			b = append(AppendString(append(b, '['), id), `,{}]`...)
		} else {
			b = AppendString(b, id)
		}
	}
	return append(b, ']')
}

// withRedacts puts the target of a redaction into its content.
func withRedacts(content []byte, target string) ([]byte, error) {
	b, first := append(make([]byte, 0, len(content)+64), '{'), true
	members(content, func(k, v []byte) bool {
		if string(k) != "redacts" {
			b = appendMember(b, &first, k, v)
		}
		return true
	})
	b = appendMember(b, &first, []byte("redacts"), AppendString(nil, target))
	return canonical(nil, append(b, '}'), false)
}
