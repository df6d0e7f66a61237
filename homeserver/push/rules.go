// SPDX-License-Identifier: Apache-2.0

package push

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Kind is a kind of push rules.
type Kind string

// The kinds, in the order in which they are looked at.
const (
	Override  Kind = "override"
	Content   Kind = "content"
	Room      Kind = "room"
	Sender    Kind = "sender"
	Underride Kind = "underride"
)

var kinds = [...]Kind{Override, Content, Room, Sender, Underride}

// ParseKind finds a kind by name. Errors: M_INVALID_PARAM.
func ParseKind(s string) (Kind, error) {
	if k := Kind(s); slices.Contains(kinds[:], k) {
		return k, nil
	}
	return "", signalling.InvalidParam("%q is not a kind of push rules; choose from override, content, room, sender, underride", s)
}

// Rule is one push rule as clients see it. Conditions and actions are kept as they were written, also where this server does not
// know them.
type Rule struct {
	ID         string            `json:"rule_id"`
	Default    bool              `json:"default"`
	Enabled    bool              `json:"enabled"`
	Conditions []json.RawMessage `json:"conditions,omitzero"`
	Pattern    *string           `json:"pattern,omitzero"`
	Actions    []json.RawMessage `json:"actions"`
}

// Rules are the rules of a user.
type Rules struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// Of is the list of a kind, the most important first.
func (r *Rules) Of(k Kind) []Rule { return *r.list(k) }

func (r *Rules) list(k Kind) *[]Rule {
	switch k {
	case Override:
		return &r.Override
	case Content:
		return &r.Content
	case Room:
		return &r.Room
	case Sender:
		return &r.Sender
	default:
		return &r.Underride
	}
}

// Find is a rule, or nil.
func (r *Rules) Find(k Kind, id string) *Rule {
	l := *r.list(k)
	for i := range l {
		if l[i].ID == id {
			return &l[i]
		}
	}
	return nil
}

// changes is what is stored of a user's rules.
type changes struct {
	Own     map[Kind][]Rule   `json:"own,omitempty"`     // the most important first
	Default map[string]change `json:"default,omitempty"` // by id of the predefined rule
}

// change is what a user changed about a predefined rule; nil fields are as they were.
type change struct {
	Enabled *bool             `json:"enabled,omitempty"`
	Actions []json.RawMessage `json:"actions,omitempty"`
	Silent  bool              `json:"silent,omitempty"` // the actions were changed to none
}

// rules joins the predefined rules with the changes. They stand as the spec orders them: the user's own before the predefined, but
// .m.rule.master before everything.
func (c *changes) rules(user string) *Rules {
	out := &Rules{}
	for _, k := range kinds {
		l := out.list(k)
		*l = []Rule{}
		predefined := predefinedOf(k)
		if k == Override {
			*l = append(*l, c.apply(predefined[0].rule(user)))
			predefined = predefined[1:]
		}
		*l = append(*l, c.Own[k]...)
		for _, p := range predefined {
			*l = append(*l, c.apply(p.rule(user)))
		}
	}
	return out
}

func (c *changes) apply(r Rule) Rule {
	if ch, ok := c.Default[r.ID]; ok {
		if ch.Enabled != nil {
			r.Enabled = *ch.Enabled
		}
		if len(ch.Actions) > 0 || ch.Silent {
			r.Actions = slices.Concat([]json.RawMessage{}, ch.Actions)
		}
	}
	return r
}

// predefined is a rule that every user has.
type predefined struct {
	kind       Kind
	id         string
	enabled    bool
	conditions string // JSON; $USER stands for the user id
	actions    string // JSON
	own        bool   // a content rule whose pattern is the user's name
}

func (p predefined) rule(user string) Rule {
	r := Rule{ID: p.id, Default: true, Enabled: p.enabled, Actions: rawList(p.actions)}
	if p.own {
		name, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
		r.Pattern = &name
		return r
	}
	r.Conditions = rawList(strings.ReplaceAll(p.conditions, `"$USER"`, string(event.AppendString(nil, user))))
	return r
}

func rawList(text string) []json.RawMessage {
	out := []json.RawMessage{}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic("push: predefined rule: " + err.Error()) // a constant of the program
	}
	return out
}

const (
	notify          = `["notify"]`
	notifySound     = `["notify",{"set_tweak":"sound","value":"default"}]`
	notifyName      = `["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}]`
	notifyHighlight = `["notify",{"set_tweak":"highlight"}]`
	silent          = `[]`
)

// predefinedRules is the list of spec v1.19, "Predefined Rules", in its order, with two additions. The three rules that look for
// names in messages were part of it until v1.16, and count for messages of clients that do not say whom they mention (no m.mentions).
// The rules for polls are those of MSC3930.
func predefinedRules() []predefined {
	typeIs := func(t string) string { return `[{"kind":"event_match","key":"type","pattern":"` + t + `"}]` }
	stateIs := func(t string) string {
		return `[{"kind":"event_match","key":"type","pattern":"` + t + `"},{"kind":"event_match","key":"state_key","pattern":""}]`
	}
	inPair := func(t string) string {
		return `[{"kind":"room_member_count","is":"2"},{"kind":"event_match","key":"type","pattern":"` + t + `"}]`
	}
	return []predefined{
		{Override, ".m.rule.master", false, `[]`, silent, false},
		{Override, ".m.rule.suppress_notices", true, `[{"kind":"event_match","key":"content.msgtype","pattern":"m.notice"}]`, silent, false},
		{Override, ".m.rule.invite_for_me", true, `[{"kind":"event_match","key":"type","pattern":"m.room.member"},{"kind":"event_match","key":"content.membership","pattern":"invite"},{"kind":"event_match","key":"state_key","pattern":"$USER"}]`, notifySound, false},
		{Override, ".m.rule.member_event", true, typeIs("m.room.member"), silent, false},
		{Override, ".m.rule.is_user_mention", true, `[{"kind":"event_property_contains","key":"content.m\\.mentions.user_ids","value":"$USER"}]`, `["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}]`, false},
		{Override, ".m.rule.contains_display_name", true, `[{"kind":"contains_display_name"}]`, notifyName, false},
		{Override, ".m.rule.is_room_mention", true, `[{"kind":"event_property_is","key":"content.m\\.mentions.room","value":true},{"kind":"sender_notification_permission","key":"room"}]`, notifyHighlight, false},
		{Override, ".m.rule.roomnotif", true, `[{"kind":"event_match","key":"content.body","pattern":"@room"},{"kind":"sender_notification_permission","key":"room"}]`, notifyHighlight, false},
		{Override, ".m.rule.tombstone", true, stateIs("m.room.tombstone"), notifyHighlight, false},
		{Override, ".m.rule.reaction", true, typeIs("m.reaction"), silent, false},
		{Override, ".m.rule.room.server_acl", true, stateIs("m.room.server_acl"), silent, false},
		{Override, ".m.rule.suppress_edits", true, `[{"kind":"event_property_is","key":"content.m\\.relates_to.rel_type","value":"m.replace"}]`, silent, false},
		{Override, ".org.matrix.msc3930.rule.poll_response", true, typeIs("org.matrix.msc3381.poll.response"), silent, false},
		{Content, ".m.rule.contains_user_name", true, "", notifyName, true},
		{Underride, ".m.rule.call", true, typeIs("m.call.invite"), `["notify",{"set_tweak":"sound","value":"ring"}]`, false},
		{Underride, ".m.rule.encrypted_room_one_to_one", true, inPair("m.room.encrypted"), notifySound, false},
		{Underride, ".m.rule.room_one_to_one", true, inPair("m.room.message"), notifySound, false},
		{Underride, ".org.matrix.msc3930.rule.poll_start_one_to_one", true, inPair("org.matrix.msc3381.poll.start"), notifySound, false},
		{Underride, ".org.matrix.msc3930.rule.poll_end_one_to_one", true, inPair("org.matrix.msc3381.poll.end"), notifySound, false},
		{Underride, ".m.rule.message", true, typeIs("m.room.message"), notify, false},
		{Underride, ".m.rule.encrypted", true, typeIs("m.room.encrypted"), notify, false},
		{Underride, ".org.matrix.msc3930.rule.poll_start", true, typeIs("org.matrix.msc3381.poll.start"), notify, false},
		{Underride, ".org.matrix.msc3930.rule.poll_end", true, typeIs("org.matrix.msc3381.poll.end"), notify, false},
	}
}

func predefinedOf(k Kind) (out []predefined) {
	for _, p := range predefinedRules() {
		if p.kind == k {
			out = append(out, p)
		}
	}
	return out
}

// Limits on what one user may store.
const (
	MaxRules      = 1000     // own rules of all kinds together: one for each muted room comes to hundreds
	MaxRulesBytes = 64 << 10 // of JSON, all together
	maxID         = 255      // bytes of a rule id: room and user ids are never longer
	maxPattern    = 512      // bytes of a pattern
	maxList       = 30       // conditions or actions of a rule
)

// checkID refuses ids that a user may not give to a rule.
func checkID(id string) error {
	switch {
	case id == "" || len(id) > maxID:
		return signalling.InvalidParam("a rule id has 1 to %d bytes", maxID)
	case id[0] == '.':
		return signalling.InvalidParam("rule ids that begin with a dot are the server's")
	case strings.ContainsAny(id, `/\`):
		return signalling.InvalidParam("a rule id must not hold slashes")
	}
	return nil
}

// check refuses a rule that could not have been meant.
func (r *Rule) check(k Kind) error {
	if err := checkActions(r.Actions); err != nil {
		return err
	}
	switch k {
	case Content:
		if r.Pattern == nil {
			return signalling.MissingParam("a content rule needs a pattern")
		}
		if len(*r.Pattern) > maxPattern {
			return signalling.InvalidParam("a pattern may have %d bytes", maxPattern)
		}
		r.Conditions = nil
	case Override, Underride:
		r.Pattern = nil
		if r.Conditions == nil {
			r.Conditions = []json.RawMessage{}
		}
	default:
		r.Pattern, r.Conditions = nil, nil
	}
	if len(r.Conditions) > maxList {
		return signalling.InvalidParam("a rule may have %d conditions", maxList)
	}
	for _, raw := range r.Conditions {
		if err := checkCondition(raw); err != nil {
			return err
		}
	}
	return nil
}

func checkActions(actions []json.RawMessage) error {
	if actions == nil {
		return signalling.MissingParam("actions is missing")
	}
	if len(actions) > maxList {
		return signalling.InvalidParam("a rule may have %d actions", maxList)
	}
	for _, raw := range actions {
		var word string
		var tweak struct {
			Set *string `json:"set_tweak"`
		}
		if json.Unmarshal(raw, &word) == nil && !bytes.Equal(raw, []byte("null")) {
			continue
		}
		if err := json.Unmarshal(raw, &tweak); err != nil || tweak.Set == nil {
			return signalling.InvalidParam("an action is a string, or an object with set_tweak")
		}
	}
	return nil
}

// condition is one condition as clients write it.
type condition struct {
	Kind    string          `json:"kind"`
	Key     *string         `json:"key"`
	Pattern *string         `json:"pattern"`
	Value   json.RawMessage `json:"value"`
	Is      *string         `json:"is"`
}

// checkCondition refuses known kinds that lack what they need. Unknown kinds are kept: they never match.
func checkCondition(raw json.RawMessage) error {
	var c condition
	if err := json.Unmarshal(raw, &c); err != nil || c.Kind == "" {
		return signalling.InvalidParam("a condition is an object with a kind").Because(err)
	}
	missing := func(what string) error { return signalling.MissingParam("a condition %s needs %s", c.Kind, what) }
	switch c.Kind {
	case "event_match":
		if c.Key == nil || c.Pattern == nil {
			return missing("key and pattern")
		}
	case "event_property_is", "event_property_contains":
		if c.Key == nil || c.Value == nil {
			return missing("key and value")
		}
	case "room_member_count":
		if c.Is == nil {
			return missing("is")
		}
		if _, ok := parseCount(*c.Is); !ok {
			return signalling.InvalidParam("room_member_count is a number, with ==, <, >, <= or >= before it")
		}
	case "sender_notification_permission":
		if c.Key == nil {
			return missing("key")
		}
	}
	if c.Pattern != nil && len(*c.Pattern) > maxPattern || c.Key != nil && len(*c.Key) > maxPattern {
		return signalling.InvalidParam("key and pattern may have %d bytes", maxPattern)
	}
	return nil
}
