// SPDX-License-Identifier: Apache-2.0

package push

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Outcome is what a user's rules say of an event. The zero Outcome tells nobody.
type Outcome struct {
	Notify    bool
	Highlight bool
	Sound     string            // "" for none
	Rule      string            // id of the rule that matched
	Actions   []json.RawMessage // of that rule, as they were written
}

// RoomView is what rules ask of a room. Each is asked for only when a rule needs it.
type RoomView interface {
	// Members is the number of joined members.
	Members() int
	// DisplayName is a user's display name in the room, "" when there is none.
	DisplayName(user string) string
	// MayNotify says whether sender has the power to notify by key, e.g. "room" (m.room.power_levels, "notifications").
	MayNotify(sender, key string) bool
}

// Set is a user's rules, compiled. It never changes.
type Set struct {
	before  []compiled // override and content rules
	rooms   map[string]*compiled
	senders map[string]*compiled
	after   []compiled // underride rules
}

type compiled struct {
	conditions []test
	outcome    Outcome
	unsaid     bool // counts only for events that do not say whom they mention
}

// test is one condition.
type test struct {
	kind    uint8
	path    path
	glob    glob
	literal string // of a glob without * and ?, in lower case; with plain
	plain   bool
	own     bool // the value is the user's own id
	value   gjson.Result
	count   count
	key     string
}

const (
	testNever uint8 = iota // a condition that this server does not know
	testMatch
	testBody // event_match on content.body
	testIs
	testContains
	testDisplayName
	testOwnName // the name in the user id, as a word of content.body
	testMembers
	testPower
)

// ownID stands for the user's id in the rules that all users share.
const ownID = "$USER"

// newSet compiles the rules of somebody who changed what c says. Disabled rules are left out.
func newSet(c *changes) *Set {
	s := &Set{rooms: map[string]*compiled{}, senders: map[string]*compiled{}}
	rules := c.rules(ownID)
	for _, k := range kinds {
		for i := range rules.Of(k) {
			r := &rules.Of(k)[i]
			if !r.Enabled {
				continue
			}
			x := compiled{outcome: outcome(r), unsaid: r.Default && legacyMention(r.ID)}
			switch k {
			case Room:
				s.rooms[r.ID] = &x
				continue
			case Sender:
				s.senders[r.ID] = &x
				continue
			case Content:
				if r.Default {
					x.conditions = []test{{kind: testOwnName}}
				} else {
					x.conditions = []test{matchTest(compilePath("content.body"), *r.Pattern)}
				}
			default:
				for _, raw := range r.Conditions {
					x.conditions = append(x.conditions, compileTest(raw, r.Default))
				}
			}
			if k == Underride {
				s.after = append(s.after, x)
			} else {
				s.before = append(s.before, x)
			}
		}
	}
	return s
}

// legacyMention names the predefined rules that guess who is meant, where the sender does not say it.
func legacyMention(id string) bool {
	return id == ".m.rule.contains_display_name" || id == ".m.rule.contains_user_name" || id == ".m.rule.roomnotif"
}

func outcome(r *Rule) Outcome {
	o := Outcome{Rule: r.ID, Actions: r.Actions}
	for _, raw := range r.Actions {
		a := gjson.ParseBytes(raw)
		if a.Type == gjson.String {
			o.Notify = o.Notify || a.Str == "notify" // dont_notify and coalesce are to be ignored
			continue
		}
		value := child(a, "value")
		switch child(a, "set_tweak").Str {
		case "highlight":
			o.Highlight = value.Type != gjson.False // no value means true
		case "sound":
			o.Sound = value.Str
		}
	}
	return o
}

func compileTest(raw json.RawMessage, predefined bool) test {
	var c condition
	if json.Unmarshal(raw, &c) != nil {
		return test{}
	}
	switch {
	case c.Kind == "event_match" && c.Key != nil && c.Pattern != nil:
		t := matchTest(compilePath(*c.Key), *c.Pattern)
		t.own = predefined && *c.Pattern == ownID
		return t
	case (c.Kind == "event_property_is" || c.Kind == "event_property_contains") && c.Key != nil:
		t := test{kind: testIs, path: compilePath(*c.Key), value: gjson.ParseBytes(c.Value)}
		if c.Kind == "event_property_contains" {
			t.kind = testContains
		}
		t.own = predefined && t.value.Str == ownID
		return t
	case c.Kind == "contains_display_name":
		return test{kind: testDisplayName}
	case c.Kind == "room_member_count" && c.Is != nil:
		if n, ok := parseCount(*c.Is); ok {
			return test{kind: testMembers, count: n}
		}
	case c.Kind == "sender_notification_permission" && c.Key != nil:
		return test{kind: testPower, key: *c.Key}
	}
	return test{}
}

func matchTest(p path, pattern string) test {
	t := test{kind: testMatch, path: p, glob: compileGlob(pattern)}
	if p.is("content", "body") {
		t.kind = testBody
	} else if !strings.ContainsAny(pattern, "*?") {
		t.plain, t.literal = true, strings.ToLower(pattern)
	}
	return t
}

// count is a room_member_count.
type count struct {
	low, high int // both included
}

func parseCount(is string) (c count, ok bool) {
	digits := strings.TrimLeft(is, "=<>")
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || digits[0] == '+' {
		return c, false
	}
	v := int(n)
	switch is[:len(is)-len(digits)] {
	case "", "==":
		return count{v, v}, true
	case "<":
		return count{0, v - 1}, true
	case "<=":
		return count{0, v}, true
	case ">":
		return count{v + 1, math.MaxInt}, true
	case ">=":
		return count{v, math.MaxInt}, true
	}
	return c, false
}

// maxWork bounds what the patterns of one user may cost for one event, in steps of a few nanoseconds.
const maxWork = 200_000

// Evaluate says what the rules of user make of an event in a room. Nobody is told of what he sent himself.
func (s *Set) Evaluate(user string, v *View, room RoomView) Outcome {
	if v.sender == user {
		return Outcome{}
	}
	v.open()
	work := maxWork
	for i := range s.before {
		if s.before[i].fits(user, v, room, &work) {
			return s.before[i].outcome
		}
	}
	if c := s.rooms[v.room]; c != nil {
		return c.outcome
	}
	if c := s.senders[v.sender]; c != nil {
		return c.outcome
	}
	for i := range s.after {
		if s.after[i].fits(user, v, room, &work) {
			return s.after[i].outcome
		}
	}
	return Outcome{}
}

func (c *compiled) fits(user string, v *View, room RoomView, work *int) bool {
	if c.unsaid && v.hasMentions {
		return false
	}
	for i := range c.conditions {
		if !c.conditions[i].holds(user, v, room, work) {
			return false
		}
	}
	return true
}

func (t *test) holds(user string, v *View, room RoomView, work *int) bool {
	switch t.kind {
	case testMatch:
		s, ok := v.text(t.path)
		switch {
		case !ok:
			return false
		case t.own:
			return s == user
		case t.plain:
			return len(s) == len(t.literal) && s == t.literal || sameFolded(s, t.literal)
		}
		return t.glob.matches(strings.ToLower(s), work)
	case testBody:
		return v.hasBody && t.glob.within(v.body, work)
	case testIs:
		if t.own {
			s, ok := v.text(t.path)
			return ok && s == user
		}
		if s, ok := v.text(t.path); ok {
			return t.value.Type == gjson.String && s == t.value.Str
		}
		return same(v.value(t.path), t.value)
	case testContains:
		if t.path.slot == slotMentioned && t.value.Type == gjson.String {
			want := t.value.Str
			if t.own {
				want = user
			}
			for _, m := range v.mentions {
				if m == want {
					return true
				}
			}
			return false
		}
		return contains(v.value(t.path), t.value)
	case testDisplayName:
		if !v.hasBody {
			return false
		}
		name := strings.ToLower(room.DisplayName(user))
		return name != "" && glob{[]string{name}}.words(v.body, work)
	case testOwnName:
		if !v.hasBody {
			return false
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
		return name != "" && glob{[]string{strings.ToLower(name)}}.words(v.body, work)
	case testMembers:
		n := room.Members()
		return t.count.low <= n && n <= t.count.high
	case testPower:
		return room.MayNotify(v.sender, t.key)
	}
	return false
}

// sameFolded compares s without regard to case with lower, which is in lower case.
func sameFolded(s, lower string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return strings.ToLower(s) == lower
		}
	}
	return false // plain lower case, and not the same
}

// same compares two values that are neither arrays nor objects, without turning one type into another.
func same(a, b gjson.Result) bool {
	if a.Type != b.Type {
		return false
	}
	switch a.Type {
	case gjson.String:
		return a.Str == b.Str
	case gjson.Number:
		x, errX := strconv.ParseInt(a.Raw, 10, 64)
		y, errY := strconv.ParseInt(b.Raw, 10, 64)
		return errX == nil && errY == nil && x == y // integers only
	case gjson.True, gjson.False:
		return true
	case gjson.Null:
		return a.Raw != "" && b.Raw != "" // both there
	}
	return false
}

func contains(list, want gjson.Result) (found bool) {
	if !list.IsArray() {
		return false
	}
	list.ForEach(func(_, x gjson.Result) bool {
		found = same(x, want)
		return !found
	})
	return found
}
