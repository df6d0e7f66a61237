// SPDX-License-Identifier: Apache-2.0

package meeting

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/trunkboard/trunkboard/signalling"
)

const (
	maxName  = 100 // characters of a meeting's name
	maxParts = 2   // a Jitsi tenant and a room
)

// Name makes the one form of a meeting's name from what somebody typed into an address, percent-decoded already: NFC, small letters,
// hyphens for blanks, no blanks around. A name has at most 100 characters, in one part or, as Jitsi's tenants have it, in two with a
// slash between. Errors: M_INVALID_PARAM.
func Name(typed string) (string, error) {
	refuse := func(format string, args ...any) (string, error) { return "", signalling.InvalidParam(format, args...) }
	if len(typed) > 8*maxName || !utf8.ValidString(typed) {
		return refuse("the name of a meeting may have %d characters, in UTF-8", maxName)
	}
	// Letters are made small before and after: some only decompose into capitals.
	name := norm.NFC.String(strings.ToLower(norm.NFC.String(strings.ToLower(strings.TrimSpace(typed)))))
	var b strings.Builder
	for _, r := range name {
		switch {
		case unicode.IsSpace(r):
			b.WriteByte('-')
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) || strings.ContainsRune(`:#!@\`, r):
			return refuse("the name of a meeting may not hold control characters, nor : # ! @ and backslashes")
		default:
			b.WriteRune(r)
		}
	}
	name = b.String()
	if n := utf8.RuneCountInString(name); n == 0 || n > maxName {
		return refuse("the name of a meeting has 1 to %d characters", maxName)
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxParts {
		return refuse("the name of a meeting may hold one slash")
	}
	for _, p := range parts {
		if strings.Trim(p, ".") == "" { // ".." means something else in a path
			return refuse("each part of a meeting's name must be more than dots")
		}
	}
	return name, nil
}
