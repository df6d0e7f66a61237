// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

func TestAFilterThatSaysNothingLetsEverythingIn(t *testing.T) {
	f := Default()
	for _, e := range []*Events{&f.Presence, &f.AccountData, &f.Room.State, &f.Room.Timeline, &f.Room.Ephemeral, &f.Room.AccountData} {
		if !e.Allows("!r:test", "m.room.message", "@a:test", false) || !e.AllowsRoom("!r:test") || e.Empty() || e.Filtered() {
			t.Errorf("%+v keeps something out", e)
		}
	}
	if f.Room.Timeline.Limit != DefaultTimeline || !f.Room.Allows("!r:test") {
		t.Errorf("%+v", f.Room)
	}
}

func TestListsLetInAndKeepOut(t *testing.T) {
	type ask struct {
		room, typ, sender string
		url, want         bool
	}
	for filter, asks := range map[string][]ask{
		`{"types":[]}`:                                   {{"!r:t", "m.x", "@a:t", false, false}},
		`{"types":null}`:                                 {{"!r:t", "m.x", "@a:t", false, true}},
		`{"types":["m.room.*","m.x"]}`:                   {{"!r:t", "m.x", "@a:t", false, true}, {"!r:t", "m.xx", "@a:t", false, false}, {"!r:t", "m.room.", "@a:t", false, true}, {"!r:t", "m.room", "@a:t", false, false}},
		`{"types":["m.*"],"not_types":["m.r*m.*"]}`:      {{"!r:t", "m.room.x", "@a:t", false, false}, {"!r:t", "m.typing", "@a:t", false, true}},
		`{"not_types":["*"]}`:                            {{"!r:t", "m.x", "@a:t", false, false}},
		`{"senders":["@a:t"],"not_senders":["@b:t"]}`:    {{"!r:t", "m.x", "@a:t", false, true}, {"!r:t", "m.x", "@b:t", false, false}, {"!r:t", "m.x", "@c:t", false, false}},
		`{"not_senders":["@b:t"]}`:                       {{"!r:t", "m.x", "@b:t", false, false}, {"!r:t", "m.x", "@c:t", false, true}},
		`{"rooms":["!r:t","!s:t"],"not_rooms":["!s:t"]}`: {{"!r:t", "m.x", "@a:t", false, true}, {"!s:t", "m.x", "@a:t", false, false}, {"!q:t", "m.x", "@a:t", false, false}, {"", "m.x", "@a:t", false, true}},
		`{"contains_url":true}`:                          {{"!r:t", "m.x", "@a:t", true, true}, {"!r:t", "m.x", "@a:t", false, false}},
		`{"contains_url":false}`:                         {{"!r:t", "m.x", "@a:t", true, false}, {"!r:t", "m.x", "@a:t", false, true}},
	} {
		f, err := ParseEvents([]byte(filter))
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		for _, a := range asks {
			if got := f.Allows(a.room, a.typ, a.sender, a.url); got != a.want {
				t.Errorf("%s: %+v is %v", filter, a, got)
			}
		}
	}
}

func TestLimitsAreClamped(t *testing.T) {
	for filter, want := range map[string]int{`{}`: DefaultMessages, `{"limit":0}`: 0, `{"limit":7}`: 7, `{"limit":1000000}`: MaxLimit, `{"limit":9007199254740993}`: MaxLimit} {
		f, err := ParseEvents([]byte(filter))
		if err != nil || f.Limit != want {
			t.Errorf("%s: %+v %v", filter, f, err)
		}
	}
}

func TestFiltersOfTheWrongShapeAreRefused(t *testing.T) {
	long := strings.Repeat("x", MaxEntryLength+1)
	many := `["` + strings.Repeat(`a","`, MaxEntries) + `a"]`
	for filter, code := range map[string]string{
		``: "M_NOT_JSON", `{`: "M_NOT_JSON", `[]`: "M_BAD_JSON", `null`: "M_BAD_JSON", `3`: "M_BAD_JSON",
		`{"presence":"x"}`:                                          "M_BAD_JSON",
		`{"room":{"timeline":"x"}}`:                                 "M_BAD_JSON",
		`{"room":{"timeline":{"types":"x"}}}`:                       "M_BAD_JSON",
		`{"room":{"timeline":{"types":[1]}}}`:                       "M_BAD_JSON",
		`{"room":{"timeline":{"limit":"1"}}}`:                       "M_BAD_JSON",
		`{"room":{"timeline":{"limit":1.5}}}`:                       "M_BAD_JSON",
		`{"room":{"timeline":{"limit":-1}}}`:                        "M_INVALID_PARAM",
		`{"room":{"timeline":{"rooms":["room"]}}}`:                  "M_INVALID_PARAM",
		`{"room":{"rooms":["room"]}}`:                               "M_INVALID_PARAM",
		`{"room":{"state":{"senders":["alice"]}}}`:                  "M_INVALID_PARAM",
		`{"event_format":"xml"}`:                                    "M_INVALID_PARAM",
		`{"event_fields":"content"}`:                                "M_BAD_JSON",
		`{"room":{"timeline":{"types":["` + long + `"]}}}`:          "M_INVALID_PARAM",
		`{"room":{"timeline":{"not_types":` + many + `}}}`:          "M_INVALID_PARAM",
		`{"event_fields":` + many + `}`:                             "M_INVALID_PARAM",
		`{"event_fields":["` + strings.Repeat("x", MaxSize) + `"]}`: "M_TOO_LARGE",
		strings.Repeat(`{"room":`, 200) + strings.Repeat(`}`, 200):  "M_BAD_JSON",
	} {
		_, err := Parse([]byte(filter))
		if err == nil || signalling.AsError(err).Code != code {
			t.Errorf("%.60s: %v, want %s", filter, err, code)
		}
	}
}

func TestTheWorstPatternsAreMatchedInBoundedTime(t *testing.T) {
	var types []string
	for i := range 200 {
		types = append(types, fmt.Sprintf("%q", strings.Repeat("a*", 100)+"b"+fmt.Sprint(i)))
	}
	f, err := ParseEvents([]byte(`{"types":[` + strings.Join(types, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if f.Allows("", strings.Repeat("a", 255), "@a:t", false) {
		t.Error("matched")
	}
	if d := time.Since(started); d > 50*time.Millisecond {
		t.Errorf("took %v", d)
	}
}

func TestOneEventIsMatchedWithoutAllocation(t *testing.T) {
	f, err := ParseEvents([]byte(`{"types":["m.room.*","m.call.invite"],"not_senders":["@x:t"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { f.Allows("!r:t", "m.room.message", "@a:t", false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzGlobAgreesWithARegularExpression(f *testing.F) {
	f.Add("m.*.x", "m.room.x")
	f.Add("*a*a*", "banana")
	f.Add("ab*ba", "aba")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !strings.Contains(pattern, "*") || len(pattern) > 100 || len(text) > 100 {
			return
		}
		g := newGlob(pattern)
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		re, err := regexp.Compile(`(?s)\A` + strings.Join(parts, `.*`) + `\z`)
		if err != nil {
			return // not UTF-8
		}
		if got, want := g.match(text), re.MatchString(text); got != want {
			t.Errorf("%q against %q: %v, a regular expression says %v", pattern, text, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"event_format":"client","room":{"timeline":{"limit":10,"types":["m.*"]},"rooms":["!a:b"]},"presence":{"not_types":["*"]}}`))
	f.Add([]byte(`{"room":{"state":{"lazy_load_members":true,"senders":["@a:b"]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse(raw)
		if err != nil {
			if e := signalling.AsError(err); e.Status < 400 || e.Status >= 500 {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, e := range []Events{p.Presence, p.Room.Timeline, p.Room.State} {
			if e.Limit < 0 || e.Limit > MaxLimit {
				t.Fatalf("limit %d", e.Limit)
			}
			e.Allows("!a:b", "m.room.message", "@a:b", true)
		}
	})
}
