// SPDX-License-Identifier: Apache-2.0

package push

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// reference is the spec's definition as a regular expression, on lower case.
func reference(pattern string, words bool) *regexp.Regexp {
	var b strings.Builder
	for _, r := range strings.ToLower(pattern) {
		switch r {
		case '*':
			b.WriteString(`[\s\S]*`)
		case '?':
			b.WriteString(`[\s\S]`)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	if words {
		return regexp.MustCompile(`(?:^|\b|[^a-z0-9_])(?:` + b.String() + `)(?:$|\b|[^a-z0-9_])`)
	}
	return regexp.MustCompile(`^(?:` + b.String() + `)$`)
}

func TestGlobsMatchWhatTheirDefinitionMatches(t *testing.T) {
	letters := []rune("aaabcD_1 -.é日")
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom(append([]rune("*??"), letters...)), 0, 8, -1).Draw(t, "pattern")
		text := strings.ToLower(rapid.StringOfN(rapid.SampledFrom(letters), 0, 16, -1).Draw(t, "text"))
		work := maxWork
		g := compileGlob(pattern)
		if got, want := g.matches(text, &work), reference(pattern, false).MatchString(text); got != want {
			t.Fatalf("%q fits %q: %v, want %v", pattern, text, got, want)
		}
		if pattern == "" {
			return // finds nothing: stated, and not what the expression says
		}
		if got, want := g.within(text, &work), wordsReference(pattern, text); got != want {
			t.Fatalf("%q stands in %q: %v, want %v", pattern, text, got, want)
		}
	})
}

// wordsReference tries every part of text that begins and ends at a boundary.
func wordsReference(pattern, text string) bool {
	whole := reference(pattern, false)
	for i := 0; i <= len(text); i++ {
		for j := i; j <= len(text); j++ {
			if i < len(text) && !utf8.RuneStart(text[i]) || j < len(text) && !utf8.RuneStart(text[j]) {
				continue // within a character
			}
			if boundary(text, i) && boundary(text, j) && whole.MatchString(text[i:j]) {
				return true
			}
		}
	}
	return false
}

func TestTheExamplesOfTheSpecMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		words, want   bool
	}{
		{"lunc?*", "Lunch plans", false, true},
		{"lunc?*", "LUNCH", false, true},
		{"lunc?*", " lunch", false, false},
		{"lunc?*", "lunc", false, false},
		{"ex*ple", "An example event.", true, true},
		{"ex*ple", "exple", true, true},
		{"ex*ple", "An exciting triple-whammy", true, true},
		{"cake", "cakes", true, false},
		{"cake", "a cake!", true, true},
		{"cake*lie", "the cake is a lie.", true, true},
		{"", "", false, true},
		{"", "x", false, false},
	} {
		work := maxWork
		g := compileGlob(c.pattern)
		got := g.matches(strings.ToLower(c.text), &work)
		if c.words {
			got = g.within(strings.ToLower(c.text), &work)
		}
		if got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.text, got)
		}
	}
}

func TestNoPatternTakesLong(t *testing.T) {
	text := strings.Repeat("a", 65_000)
	for _, pattern := range []string{
		strings.Repeat("a*", 255) + "b", strings.Repeat("a?", 255) + "b", "a" + strings.Repeat("?", 500) + "b", "*" + strings.Repeat("a", 500) + "?b*",
		strings.Repeat("*", 512), strings.Repeat("?*", 255) + "c", "a?a?a?*b?b?b",
	} {
		g, work := compileGlob(pattern), maxWork
		started := time.Now()
		for range 10 { // ten rules of one user share the work
			g.matches(text, &work)
			g.within(text, &work)
		}
		if took := time.Since(started); took > 200*time.Millisecond {
			t.Errorf("%.20q… took %v", pattern, took)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("??é*", "日本é")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 32 || len(text) > 64 {
			return
		}
		text = strings.ToLower(text)
		work := 1 << 30
		whole := compileGlob(pattern).matches(text, &work)
		if pattern == strings.ToLower(pattern) && !strings.ContainsAny(pattern, "*?") && whole != (pattern == text) {
			t.Fatalf("%q fits %q: %v", pattern, text, whole)
		}
		if part := compileGlob(pattern).within(text, &work); whole && !part && pattern != "" {
			t.Fatalf("%q fits all of %q and no part of it", pattern, text)
		}
		if work < 0 {
			t.Fatalf("%q on %q took all the work there is", pattern, text)
		}
	})
}
