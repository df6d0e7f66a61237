// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/trunkboard/trunkboard/signalling"
)

// CheckJSON refuses what would mean different things to different parsers: invalid UTF-8, broken syntax (M_NOT_JSON), duplicate keys,
// lone surrogates and values nested deeper than MaxNesting (M_BAD_JSON).
func CheckJSON(raw []byte) error {
	_, err := canonical(nil, raw, false)
	return err
}

// Canonical is the canonical JSON of raw (appendices, "Canonical JSON"), but for numbers: those that are not integers stay as they
// are. Errors as for CheckJSON.
func Canonical(raw []byte) ([]byte, error) { return canonical(nil, raw, false) }

// canonical appends the canonical form of raw to dst. strict refuses every number that is not an integer within ±(2^53-1), as room
// versions 6 and later do.
func canonical(dst, raw []byte, strict bool) ([]byte, error) {
	if !utf8.Valid(raw) {
		return nil, signalling.NotJSON("not valid UTF-8")
	}
	if dst == nil {
		dst = make([]byte, 0, len(raw)+16)
	}
	c := canon{in: raw, out: dst, strict: strict}
	c.space()
	if err := c.value(); err != nil {
		return nil, err
	}
	c.space()
	if c.pos != len(c.in) {
		return nil, c.broken()
	}
	return c.out, nil
}

// canon reads JSON once and writes its canonical form as it goes; an object whose keys come out of order is put in order in place.
type canon struct {
	in, out []byte
	pos     int
	depth   int
	strict  bool
	members []span // of the objects being read, innermost last
	scratch []byte
}

// span is a member of an object within out: the quoted key, and all of it.
type span struct{ start, keyEnd, end int }

func (c *canon) broken() error { return signalling.NotJSON("not valid JSON at byte %d", c.pos) }

func (c *canon) space() {
	for c.pos < len(c.in) {
		switch c.in[c.pos] {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end (a NUL is nowhere valid outside of strings, and there only escaped).
func (c *canon) peek() byte {
	if c.pos < len(c.in) {
		return c.in[c.pos]
	}
	return 0
}

func (c *canon) value() error {
	switch b := c.peek(); b {
	case '{':
		return c.object()
	case '[':
		return c.array()
	case '"':
		return c.text()
	case 't':
		return c.word("true")
	case 'f':
		return c.word("false")
	case 'n':
		return c.word("null")
	default:
		if b == '-' || b >= '0' && b <= '9' {
			return c.number()
		}
		return c.broken()
	}
}

func (c *canon) word(w string) error {
	if !bytes.HasPrefix(c.in[c.pos:], []byte(w)) {
		return c.broken()
	}
	c.pos += len(w)
	c.out = append(c.out, w...)
	return nil
}

func (c *canon) deeper() error {
	if c.depth++; c.depth > MaxNesting {
		return signalling.BadJSON("nested deeper than %d levels", MaxNesting)
	}
	c.out = append(c.out, c.in[c.pos])
	c.pos++
	c.space()
	return nil
}

func (c *canon) array() error {
	if err := c.deeper(); err != nil {
		return err
	}
	for first := true; ; first = false {
		if first && c.peek() == ']' {
			break
		}
		if err := c.value(); err != nil {
			return err
		}
		c.space()
		if c.peek() == ']' {
			break
		}
		if c.peek() != ',' {
			return c.broken()
		}
		c.out = append(c.out, ',')
		c.pos++
		c.space()
	}
	c.out = append(c.out, ']')
	c.pos++
	c.depth--
	return nil
}

func (c *canon) object() error {
	if err := c.deeper(); err != nil {
		return err
	}
	first, mark, sorted := len(c.out), len(c.members), true
	for c.peek() != '}' || len(c.members) > mark {
		if c.peek() != '"' {
			return c.broken()
		}
		m := span{start: len(c.out)}
		if err := c.text(); err != nil {
			return err
		}
		m.keyEnd = len(c.out)
		c.space()
		if c.peek() != ':' {
			return c.broken()
		}
		c.pos++
		c.out = append(c.out, ':')
		c.space()
		if err := c.value(); err != nil {
			return err
		}
		m.end = len(c.out)
		c.members = append(c.members, m)
		if n := len(c.members); sorted && n > mark+1 {
			sorted = c.compare(c.members[n-2], m) < 0
		}
		c.space()
		if c.peek() == '}' {
			break
		}
		if c.peek() != ',' {
			return c.broken()
		}
		c.pos++
		c.out = append(c.out, ',')
		c.space()
	}
	if !sorted {
		if err := c.order(first, c.members[mark:]); err != nil {
			return err
		}
	}
	c.members = c.members[:mark]
	c.out = append(c.out, '}')
	c.pos++
	c.depth--
	return nil
}

// compare orders two members by the code points of their keys, which is the order of their UTF-8 bytes.
func (c *canon) compare(a, b span) int {
	ka, kb := c.out[a.start+1:a.keyEnd-1], c.out[b.start+1:b.keyEnd-1]
	if bytes.IndexByte(ka, '\\') < 0 && bytes.IndexByte(kb, '\\') < 0 {
		return bytes.Compare(ka, kb)
	}
	return strings.Compare(unescape(ka), unescape(kb))
}

// order rewrites the members of one object, which start at first, in the order of their keys.
func (c *canon) order(first int, members []span) error {
	slices.SortFunc(members, c.compare)
	for i := 1; i < len(members); i++ {
		if c.compare(members[i-1], members[i]) == 0 {
			return signalling.BadJSON("the key %s is there twice", c.out[members[i].start:members[i].keyEnd])
		}
	}
	c.scratch = append(c.scratch[:0], c.out[first:]...)
	c.out = c.out[:first]
	for i, m := range members {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, c.scratch[m.start-first:m.end-first]...)
	}
	return nil
}

// text reads a string and writes it with the fewest escapes that JSON allows.
func (c *canon) text() error {
	c.out = append(c.out, '"')
	c.pos++
	start := c.pos
	for c.pos < len(c.in) {
		switch b := c.in[c.pos]; {
		case b == '"':
			c.out = append(c.out, c.in[start:c.pos]...)
			c.out = append(c.out, '"')
			c.pos++
			return nil
		case b < 0x20:
			return c.broken()
		case b == '\\':
			c.out = append(c.out, c.in[start:c.pos]...)
			if err := c.escape(); err != nil {
				return err
			}
			start = c.pos
		default:
			c.pos++
		}
	}
	return c.broken()
}

func (c *canon) escape() error {
	if c.pos+1 >= len(c.in) {
		return c.broken()
	}
	switch b := c.in[c.pos+1]; b {
	case '"', '\\', 'b', 'f', 'n', 'r', 't':
		c.out = append(c.out, '\\', b)
		c.pos += 2
	case '/':
		c.out = append(c.out, '/')
		c.pos += 2
	case 'u':
		r, ok := c.hex(c.pos)
		if !ok {
			return c.broken()
		}
		c.pos += 6
		switch {
		case r >= 0xd800 && r < 0xdc00:
			low, ok := c.hex(c.pos)
			if !ok || low < 0xdc00 || low > 0xdfff {
				return signalling.BadJSON("a lone surrogate at byte %d", c.pos-6)
			}
			c.pos += 6
			c.out = utf8.AppendRune(c.out, (r-0xd800)<<10+(low-0xdc00)+0x10000)
		case r >= 0xdc00 && r < 0xe000:
			return signalling.BadJSON("a lone surrogate at byte %d", c.pos-6)
		case r < 0x80:
			c.out = appendEscaped(c.out, byte(r))
		default:
			c.out = utf8.AppendRune(c.out, r)
		}
	default:
		return c.broken()
	}
	return nil
}

// hex reads \uXXXX at i.
func (c *canon) hex(i int) (r rune, ok bool) {
	if i+6 > len(c.in) || c.in[i] != '\\' || c.in[i+1] != 'u' {
		return 0, false
	}
	for _, b := range c.in[i+2 : i+6] {
		r <<= 4
		switch {
		case b >= '0' && b <= '9':
			r |= rune(b - '0')
		case b >= 'a' && b <= 'f':
			r |= rune(b - 'a' + 10)
		case b >= 'A' && b <= 'F':
			r |= rune(b - 'A' + 10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (c *canon) number() error {
	start, fraction := c.pos, false
	if c.peek() == '-' {
		c.pos++
	}
	digits := c.pos
	c.digits()
	if n := c.pos - digits; n == 0 || n > 1 && c.in[digits] == '0' {
		return c.broken()
	}
	whole := c.in[digits:c.pos]
	if c.peek() == '.' {
		fraction = true
		c.pos++
		if c.digits() == 0 {
			return c.broken()
		}
	}
	if b := c.peek(); b == 'e' || b == 'E' {
		fraction = true
		c.pos++
		if b := c.peek(); b == '+' || b == '-' {
			c.pos++
		}
		if c.digits() == 0 {
			return c.broken()
		}
	}
	raw := c.in[start:c.pos]
	zero := string(raw) == "-0"
	if c.strict {
		const largest = "9007199254740991"
		if fraction || zero || len(whole) > len(largest) || len(whole) == len(largest) && string(whole) > largest {
			return signalling.BadJSON("%.40s is not an integer within ±(2^53-1)", raw)
		}
	}
	if zero {
		raw = raw[1:]
	}
	c.out = append(c.out, raw...)
	return nil
}

func (c *canon) digits() int {
	start := c.pos
	for c.pos < len(c.in) && c.in[c.pos] >= '0' && c.in[c.pos] <= '9' {
		c.pos++
	}
	return c.pos - start
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends one ASCII character of a string, escaped where JSON needs it.
func appendEscaped(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	if c < 0x20 {
		return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
	}
	return append(b, c)
}

// AppendString appends s as a JSON string in canonical form. s must be valid UTF-8.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			b = append(b, s[start:i]...)
			b = appendEscaped(b, c)
			start = i + 1
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// unescape gives the text of a canonical JSON string without its quotes.
func unescape(b []byte) string {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i >= 0 && i+1 < len(b) {
		out = append(out, b[:i]...)
		n := 2
		switch e := b[i+1]; e {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			c := canon{in: b}
			if r, ok := c.hex(i); ok {
				out = utf8.AppendRune(out, r)
				n = 6
			}
		default:
			out = append(out, e)
		}
		b = b[i+n:]
		i = bytes.IndexByte(b, '\\')
	}
	return string(append(out, b...))
}
