// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// ClientHead is e as clients see it, without room_id, unsigned and the closing brace: whoever serves it appends
// `,"room_id":…`, `,"unsigned":{…}` and `}`. It is made once and shared; do not change it.
func (e *Event) ClientHead() []byte {
	if p := e.head.Load(); p != nil {
		return *p
	}
	b := make([]byte, 0, len(e.Content())+len(e.id)+len(e.sender)+len(e.typ)+128)
	b = append(b, `{"content":`...)
	b = append(b, compact(e.Content())...)
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
	e.head.Store(&b)
	return b
}

func compact(raw []byte) []byte {
	if len(raw) == 0 {
		return []byte("{}")
	}
	if bytes.IndexByte(raw, '\n') < 0 {
		return raw
	}
	var buf bytes.Buffer
	if json.Compact(&buf, raw) != nil {
		return raw
	}
	return buf.Bytes()
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		start = i + 1
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
