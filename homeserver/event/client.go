// SPDX-License-Identifier: Apache-2.0

package event

import "strconv"

// ClientHead is e as clients see it, without room_id, unsigned and the closing brace: whoever serves it appends
// `,"room_id":…`, `,"unsigned":{…}` and `}`. It is made once and shared; do not change it.
func (e *Event) ClientHead() []byte {
	if p := e.head.Load(); p != nil {
		return *p
	}
	b := make([]byte, 0, len(e.content)+len(e.id)+len(e.sender)+len(e.typ)+128)
	b = append(b, `{"content":`...)
	b = append(b, e.content...)
	b = append(b, `,"event_id":`...)
	b = AppendString(b, e.id)
	b = append(b, `,"origin_server_ts":`...)
	b = strconv.AppendInt(b, e.OriginTS(), 10)
	b = append(b, `,"sender":`...)
	b = AppendString(b, e.sender)
	if e.stateKey != nil {
		b = append(b, `,"state_key":`...)
		b = AppendString(b, *e.stateKey)
	}
	b = append(b, `,"type":`...)
	b = AppendString(b, e.typ)
	if e.typ == "m.room.redaction" {
		// Clients of every age find the target: at the top as up to v10, and in the content as from v11 on.
		if r := e.Redacts(); r != "" {
			b = append(b, `,"redacts":`...)
			b = AppendString(b, r)
		}
	}
	if e.sticky > 0 {
		b = strconv.AppendInt(append(b, `,"`+stickyKey+`":{"duration_ms":`...), e.sticky.Milliseconds(), 10)
		b = append(b, '}')
	}
	e.head.Store(&b)
	return b
}
