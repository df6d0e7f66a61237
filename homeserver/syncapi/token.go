// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/signalling"
)

// Token is a place in everything a client hears of: `s<stream>_<ephemeral>_<to-device>`.
//
//   - Pos is the position in the store's one stream; everything up to it has been seen.
//   - Eph counts what is not stored (typing, presence); it rises over restarts, so that an old count never hides something new.
//   - ToDevice is the position up to which to-device messages have been handed out: they are given in pages, so it can stay behind.
//   - Sticky is the same for sticky events (MSC4354); it is written, `_<sticky>` at the end, only when it is behind Pos. 0: it is not.
type Token struct{ Pos, Eph, ToDevice, Sticky int64 }

// String writes the token as clients carry it.
func (t Token) String() string { return string(t.append(nil)) }

func (t Token) append(b []byte) []byte {
	b = append(b, 's')
	b = strconv.AppendInt(b, t.Pos, 10)
	b = append(b, '_')
	b = strconv.AppendInt(b, t.Eph, 10)
	b = append(b, '_')
	b = strconv.AppendInt(b, t.ToDevice, 10)
	if t.Sticky > 0 {
		b = strconv.AppendInt(append(b, '_'), t.Sticky, 10)
	}
	return b
}

// ParseToken reads what String wrote; "" is the beginning. The pos of sliding sync is a token too: what names its connection is
// looked over. Errors: M_INVALID_PARAM.
func ParseToken(s string) (Token, error) { return parseToken(s, false) }

// ParseHistoryToken is ParseToken for places in the history of a room: events that came in from other servers may stand below 0.
func ParseHistoryToken(s string) (Token, error) { return parseToken(s, true) }

func parseToken(s string, below bool) (Token, error) {
	var t Token
	if s == "" {
		return t, nil
	}
	s, _, _ = strings.Cut(s, placeMark)
	bad := signalling.InvalidParam("this is not a token that this server gave out")
	rest, ok := strings.CutPrefix(s, "s")
	if !ok || len(s) > 96 {
		return t, bad
	}
	for i, p := range strings.Split(rest, "_") {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n < 0 && (i > 0 || !below) || p[0] == '+' {
			return t, bad
		}
		switch i {
		case 0:
			t.Pos = n
		case 1:
			t.Eph = n
		case 2:
			t.ToDevice = n
		case 3:
			t.Sticky = n
		default:
			return t, bad
		}
	}
	return t, nil
}
