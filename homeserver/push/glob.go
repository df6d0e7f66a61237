// SPDX-License-Identifier: Apache-2.0

package push

import (
	"strings"
	"unicode/utf8"
)

// glob is a pattern in which * stands for any number of characters and ? for one (appendices, "Glob-style matching"), without
// regard to case. Both pattern and text are compared in lower case; the text comes so.
//
// Between two stars the leftmost place that fits is as good as any other, so no place is tried twice: the work is the length of
// the text times the length of a part that holds a ?, and the length of the text otherwise.
type glob struct {
	parts []string // what stands between the stars; ? in them stands for one character
}

func compileGlob(pattern string) glob {
	return glob{strings.Split(strings.ToLower(pattern), "*")}
}

// matches says whether the whole text fits.
func (g glob) matches(text string, work *int) bool { return g.match(text, false, work) }

// within says whether a part of text that begins and ends at a word boundary fits (push rules on content.body).
func (g glob) within(text string, work *int) bool { return g.match(text, true, work) }

// words says whether the first part, taken to the letter, stands in text as whole words.
func (g glob) words(text string, work *int) bool {
	part := g.parts[0]
	for at := 0; *work >= 0; {
		*work -= 1 + len(text)/64
		i := strings.Index(text[at:], part)
		if i < 0 {
			return false
		}
		if at += i; boundary(text, at) && boundary(text, at+len(part)) {
			return true
		}
		at = next(text, at)
	}
	return false
}

// match takes what it does from work, and gives up when that is used up: a rule is a wish, not a right to the processor.
func (g glob) match(text string, words bool, work *int) bool {
	first, last := g.parts[0], g.parts[len(g.parts)-1]
	if len(g.parts) == 1 {
		if !words {
			return prefix(text, first, work) == len(text)
		}
		if first == "" {
			return false // nothing to look for is found nowhere
		}
		for at := 0; ; {
			from, to := find(text, first, at, work)
			if from < 0 {
				return false
			}
			if boundary(text, from) && boundary(text, to) {
				return true
			}
			at = next(text, from)
			if at > len(text) {
				return false
			}
		}
	}
	at := 0
	if !words {
		if at = prefix(text, first, work); at < 0 {
			return false
		}
	} else if first != "" {
		for from := 0; ; {
			var to int
			if from, to = find(text, first, from, work); from < 0 {
				return false
			}
			if boundary(text, from) {
				at = to
				break
			}
			if from = next(text, from); from > len(text) {
				return false
			}
		}
	}
	for _, p := range g.parts[1 : len(g.parts)-1] {
		_, to := find(text, p, at, work)
		if to < 0 {
			return false
		}
		at = to
	}
	if last == "" {
		return true
	}
	for {
		from, to := find(text, last, at, work)
		if from < 0 {
			return false
		}
		if to == len(text) || words && boundary(text, to) {
			return true
		}
		if at = next(text, from); at > len(text) {
			return false
		}
	}
}

// next is the place after the character at i.
func next(text string, i int) int {
	_, n := utf8.DecodeRuneInString(text[i:])
	return i + max(1, n)
}

// find gives the leftmost place at or after at where part stands, and its end; -1 when there is none.
func find(text, part string, at int, work *int) (from, to int) {
	q := strings.IndexByte(part, '?')
	if q < 0 {
		if *work -= 1 + len(part)/8; *work < 0 || at > len(text) {
			return -1, -1
		}
		i := strings.Index(text[at:], part)
		if i < 0 {
			*work -= (len(text) - at) / 8
			return -1, -1
		}
		*work -= i / 8
		return at + i, at + i + len(part)
	}
	for at <= len(text) && *work >= 0 {
		i := strings.Index(text[at:], part[:q])
		if i < 0 {
			break
		}
		*work -= i / 8
		at += i
		if n := prefix(text[at:], part, work); n >= 0 {
			return at, at + n
		}
		at = next(text, at)
	}
	return -1, -1
}

// prefix gives the length of what part takes at the beginning of text, -1 when it does not fit.
func prefix(text, part string, work *int) int {
	*work -= 1 + len(part)/8
	if *work < 0 {
		return -1
	}
	at := 0
	for i := 0; i < len(part); i++ {
		if at >= len(text) {
			return -1
		}
		if part[i] == '?' {
			at = next(text, at)
			continue
		}
		if part[i] != text[at] {
			*work -= i / 8
			return -1
		}
		at++
	}
	return at
}

// boundary says that a word begins or ends at i: at the ends of the text, and beside anything but A-Z, a-z, 0-9 and _.
func boundary(text string, i int) bool {
	return i == 0 || i == len(text) || !word(text[i-1]) || !word(text[i])
}

func word(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
