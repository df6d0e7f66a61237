// SPDX-License-Identifier: Apache-2.0

package push

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const me = "@me:test"

// hall is a RoomView made by hand.
type hall struct {
	members int
	names   map[string]string
	power   map[string]bool // sender -> may notify the room
}

func (h hall) Members() int                      { return h.members }
func (h hall) DisplayName(user string) string    { return h.names[user] }
func (h hall) MayNotify(sender, key string) bool { return key == "room" && h.power[sender] }

var big = hall{members: 50, names: map[string]string{me: "Max"}, power: map[string]bool{"@admin:test": true}}

func see(typ, sender string, stateKey *string, content string) *View {
	raw, _ := json.Marshal(map[string]any{"type": typ, "sender": sender, "room_id": "!r:test", "content": json.RawMessage(content), "depth": 7, "state_key": stateKey})
	return NewView(typ, sender, "!r:test", stateKey, raw)
}

func str(s string) *string { return &s }

func say(o Outcome) string {
	s := o.Rule
	if o.Notify {
		s += " notify"
	}
	if o.Highlight {
		s += " highlight"
	}
	if o.Sound != "" {
		s += " " + o.Sound
	}
	return strings.TrimSpace(s)
}

func TestPredefinedRules(t *testing.T) {
	set := newSet(&changes{})
	pair := hall{members: 2}
	for _, c := range []struct {
		name string
		view *View
		room hall
		want string
	}{
		{"message", see("m.room.message", "@a:test", nil, `{"msgtype":"m.text","body":"hi"}`), big, ".m.rule.message notify"},
		{"message in a pair", see("m.room.message", "@a:test", nil, `{"msgtype":"m.text","body":"hi"}`), pair, ".m.rule.room_one_to_one notify default"},
		{"encrypted", see("m.room.encrypted", "@a:test", nil, `{}`), big, ".m.rule.encrypted notify"},
		{"encrypted in a pair", see("m.room.encrypted", "@a:test", nil, `{}`), pair, ".m.rule.encrypted_room_one_to_one notify default"},
		{"call", see("m.call.invite", "@a:test", nil, `{"call_id":"1"}`), big, ".m.rule.call notify ring"},
		{"call in a pair", see("m.call.invite", "@a:test", nil, `{"call_id":"1"}`), pair, ".m.rule.call notify ring"},
		{"candidates", see("m.call.candidates", "@a:test", nil, `{}`), pair, ""},
		{"own message", see("m.room.message", me, nil, `{"body":"hi"}`), pair, ""},
		{"notice", see("m.room.message", "@a:test", nil, `{"msgtype":"m.notice","body":"Max"}`), pair, ".m.rule.suppress_notices"},
		{"invitation", see("m.room.member", "@a:test", str(me), `{"membership":"invite"}`), big, ".m.rule.invite_for_me notify default"},
		{"invitation of another", see("m.room.member", "@a:test", str("@b:test"), `{"membership":"invite"}`), big, ".m.rule.member_event"},
		{"join", see("m.room.member", "@a:test", str("@a:test"), `{"membership":"join"}`), pair, ".m.rule.member_event"},
		{"mention", see("m.room.message", "@a:test", nil, `{"body":"x","m.mentions":{"user_ids":["@b:test","@me:test"]}}`), big, ".m.rule.is_user_mention notify highlight default"},
		{"mention of another", see("m.room.message", "@a:test", nil, `{"body":"Max","m.mentions":{"user_ids":["@mee:test"]}}`), big, ".m.rule.message notify"},
		{"mentions of the wrong type", see("m.room.message", "@a:test", nil, `{"body":"x","m.mentions":{"user_ids":"@me:test","room":"true"}}`), big, ".m.rule.message notify"},
		{"room mention", see("m.room.message", "@admin:test", nil, `{"m.mentions":{"room":true}}`), big, ".m.rule.is_room_mention notify highlight"},
		{"room mention without power", see("m.room.message", "@a:test", nil, `{"m.mentions":{"room":true}}`), big, ".m.rule.message notify"},
		{"display name, nobody said to be meant", see("m.room.message", "@a:test", nil, `{"body":"hi max!"}`), big, ".m.rule.contains_display_name notify highlight default"},
		{"display name within a word", see("m.room.message", "@a:test", nil, `{"body":"maximum"}`), big, ".m.rule.message notify"},
		{"user name, nobody said to be meant", see("m.room.message", "@a:test", nil, `{"body":"ask @me:test"}`), big, ".m.rule.contains_user_name notify highlight default"},
		{"user name, another is meant", see("m.room.message", "@a:test", nil, `{"body":"ask @me:test","m.mentions":{"user_ids":["@b:test"]}}`), big, ".m.rule.message notify"},
		{"the room by its old name", see("m.room.message", "@admin:test", nil, `{"body":"@room: lunch"}`), big, ".m.rule.roomnotif notify highlight"},
		{"the room by its old name, without power", see("m.room.message", "@a:test", nil, `{"body":"@room: lunch"}`), big, ".m.rule.message notify"},
		{"answer to a poll", see("org.matrix.msc3381.poll.response", "@a:test", nil, `{}`), pair, ".org.matrix.msc3930.rule.poll_response"},
		{"poll in a pair", see("org.matrix.msc3381.poll.start", "@a:test", nil, `{}`), pair, ".org.matrix.msc3930.rule.poll_start_one_to_one notify default"},
		{"end of a poll", see("org.matrix.msc3381.poll.end", "@a:test", nil, `{}`), big, ".org.matrix.msc3930.rule.poll_end notify"},
		{"tombstone", see("m.room.tombstone", "@a:test", str(""), `{}`), big, ".m.rule.tombstone notify highlight"},
		{"tombstone that is no state", see("m.room.tombstone", "@a:test", nil, `{}`), big, ""},
		{"tombstone of something", see("m.room.tombstone", "@a:test", str("x"), `{}`), big, ""},
		{"reaction", see("m.reaction", "@a:test", nil, `{}`), big, ".m.rule.reaction"},
		{"server acl", see("m.room.server_acl", "@a:test", str(""), `{}`), big, ".m.rule.room.server_acl"},
		{"edit", see("m.room.message", "@a:test", nil, `{"body":"x","m.relates_to":{"rel_type":"m.replace","event_id":"$1"}}`), big, ".m.rule.suppress_edits"},
		{"edit that mentions", see("m.room.message", "@a:test", nil, `{"m.relates_to":{"rel_type":"m.replace"},"m.mentions":{"user_ids":["@me:test"]}}`), big, ".m.rule.is_user_mention notify highlight default"},
		{"thread", see("m.room.message", "@a:test", nil, `{"m.relates_to":{"rel_type":"m.thread","event_id":"$1"}}`), big, ".m.rule.message notify"},
		{"topic", see("m.room.topic", "@a:test", str(""), `{}`), big, ""},
		{"the types' case does not matter", see("M.Room.Message", "@a:test", nil, `{}`), big, ".m.rule.message notify"},
	} {
		if got := say(set.Evaluate(me, c.view, c.room)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPredefinedRulesStandInTheOrderOfTheSpec(t *testing.T) {
	rules := (&changes{Own: map[Kind][]Rule{Override: {{ID: "mine"}}, Underride: {{ID: "last"}}}}).rules(me)
	var got []string
	for _, k := range kinds {
		for _, r := range rules.Of(k) {
			got = append(got, string(k)+" "+r.ID)
		}
	}
	want := []string{
		"override .m.rule.master", "override mine", "override .m.rule.suppress_notices", "override .m.rule.invite_for_me", "override .m.rule.member_event",
		"override .m.rule.is_user_mention", "override .m.rule.contains_display_name", "override .m.rule.is_room_mention", "override .m.rule.roomnotif", "override .m.rule.tombstone", "override .m.rule.reaction",
		"override .m.rule.room.server_acl", "override .m.rule.suppress_edits", "override .org.matrix.msc3930.rule.poll_response", "content .m.rule.contains_user_name",
		"underride last", "underride .m.rule.call", "underride .m.rule.encrypted_room_one_to_one", "underride .m.rule.room_one_to_one",
		"underride .org.matrix.msc3930.rule.poll_start_one_to_one", "underride .org.matrix.msc3930.rule.poll_end_one_to_one",
		"underride .m.rule.message", "underride .m.rule.encrypted", "underride .org.matrix.msc3930.rule.poll_start", "underride .org.matrix.msc3930.rule.poll_end",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	b, err := json.Marshal(rules.Override[0])
	if err != nil || string(b) != `{"rule_id":".m.rule.master","default":true,"enabled":false,"conditions":[],"actions":[]}` {
		t.Errorf("master: %s %v", b, err)
	}
	if s := string(rules.Find(Override, ".m.rule.invite_for_me").Conditions[2]); !strings.Contains(s, `"pattern":"@me:test"`) {
		t.Errorf("the user's id is missing: %s", s)
	}
}

func TestConditions(t *testing.T) {
	v := see("m.room.message", "@a:test", nil, `{"body":"Max, shall we?","n":5,"f":1.5,"ok":true,"no":null,"a.b":{"c\\d":"deep"},"list":[1,"two",null,{"x":1}],"obj":{}}`)
	for raw, want := range map[string]bool{
		`{"kind":"event_match","key":"content.body","pattern":"shall"}`:                    true,
		`{"kind":"event_match","key":"content.body","pattern":"hall"}`:                     false,
		`{"kind":"event_match","key":"content.n","pattern":"*"}`:                           false, // not a string
		`{"kind":"event_match","key":"content.missing","pattern":"*"}`:                     false,
		`{"kind":"event_match","key":"content.a\\.b.c\\\\d","pattern":"DEEP"}`:             true,
		`{"kind":"event_match","key":"content.a.b.c\\\\d","pattern":"*"}`:                  false,
		`{"kind":"event_match","key":"sender","pattern":"@?:test"}`:                        true,
		`{"kind":"event_match","key":"room_id","pattern":"!R:test"}`:                       true,
		`{"kind":"event_match","key":"state_key","pattern":"*"}`:                           false,
		`{"kind":"event_match","key":"","pattern":"*"}`:                                    false,
		`{"kind":"event_property_is","key":"content.n","value":5}`:                         true,
		`{"kind":"event_property_is","key":"content.n","value":"5"}`:                       false,
		`{"kind":"event_property_is","key":"content.n","value":6}`:                         false,
		`{"kind":"event_property_is","key":"content.f","value":1.5}`:                       false, // integers only
		`{"kind":"event_property_is","key":"content.ok","value":true}`:                     true,
		`{"kind":"event_property_is","key":"content.ok","value":1}`:                        false,
		`{"kind":"event_property_is","key":"content.no","value":null}`:                     true,
		`{"kind":"event_property_is","key":"content.missing","value":null}`:                false,
		`{"kind":"event_property_is","key":"content.obj","value":{}}`:                      false,
		`{"kind":"event_property_is","key":"type","value":"m.room.message"}`:               true,
		`{"kind":"event_property_is","key":"type","value":"M.ROOM.MESSAGE"}`:               false,
		`{"kind":"event_property_is","key":"depth","value":7}`:                             true,
		`{"kind":"event_property_contains","key":"content.list","value":"two"}`:            true,
		`{"kind":"event_property_contains","key":"content.list","value":1}`:                true,
		`{"kind":"event_property_contains","key":"content.list","value":null}`:             true,
		`{"kind":"event_property_contains","key":"content.list","value":"tw"}`:             false,
		`{"kind":"event_property_contains","key":"content.body","value":"Max, shall we?"}`: false,
		`{"kind":"contains_display_name"}`:                                                 true,
		`{"kind":"room_member_count","is":"50"}`:                                           true,
		`{"kind":"room_member_count","is":"==50"}`:                                         true,
		`{"kind":"room_member_count","is":">49"}`:                                          true,
		`{"kind":"room_member_count","is":">=51"}`:                                         false,
		`{"kind":"room_member_count","is":"<50"}`:                                          false,
		`{"kind":"room_member_count","is":"<=50"}`:                                         true,
		`{"kind":"room_member_count","is":"=>50"}`:                                         false,
		`{"kind":"sender_notification_permission","key":"room"}`:                           false,
		`{"kind":"made_up"}`: false,
	} {
		set := newSet(&changes{Own: map[Kind][]Rule{Override: {{ID: "x", Enabled: true, Conditions: []json.RawMessage{json.RawMessage(raw)}, Actions: rawList(`["notify",{"set_tweak":"sound","value":"x"}]`)}}}})
		if got := set.Evaluate(me, v, big).Rule == "x"; got != want {
			t.Errorf("%s: %v", raw, got)
		}
	}
	if name := (hall{names: map[string]string{me: "Ma"}}); newSet(&changes{Own: map[Kind][]Rule{Override: {{ID: "x", Enabled: true, Conditions: rawList(`[{"kind":"contains_display_name"}]`), Actions: rawList(notify)}}}}).Evaluate(me, v, name).Rule == "x" {
		t.Error("half a name was found")
	}
}

func TestKindsAreLookedAtInOrder(t *testing.T) {
	sound := func(s string) []json.RawMessage {
		return rawList(`["notify",{"set_tweak":"sound","value":"` + s + `"}]`)
	}
	c := &changes{Own: map[Kind][]Rule{
		Override:  {{ID: "o", Enabled: true, Conditions: rawList(`[{"kind":"event_match","key":"content.body","pattern":"one"}]`), Actions: sound("o")}},
		Content:   {{ID: "c", Enabled: true, Pattern: str("two"), Actions: sound("c")}, {ID: "off", Enabled: false, Pattern: str("*"), Actions: sound("off")}},
		Room:      {{ID: "!r:test", Enabled: true, Actions: sound("r")}},
		Sender:    {{ID: "@s:test", Enabled: true, Actions: rawList(`["dont_notify"]`)}},
		Underride: {{ID: "u", Enabled: true, Conditions: []json.RawMessage{}, Actions: sound("u")}},
	}}
	set := newSet(c)
	text := func(sender, room, body string) string {
		v := see("m.room.message", sender, nil, `{"body":"`+body+`"}`)
		v.room = room
		return say(set.Evaluate(me, v, big))
	}
	for _, x := range [][4]string{
		{"@s:test", "!r:test", "one two", "o notify o"}, {"@s:test", "!r:test", "two", "c notify c"},
		{"@s:test", "!r:test", "three", "!r:test notify r"}, {"@s:test", "!other", "three", "@s:test"},
		{"@x:test", "!other", "three", "u notify u"},
	} {
		if got := text(x[0], x[1], x[2]); got != x[3] {
			t.Errorf("%q: %q", x, got)
		}
	}
	on := true
	c.Default = map[string]change{".m.rule.master": {Enabled: &on}}
	set = newSet(c)
	if got := text("@s:test", "!r:test", "one"); got != ".m.rule.master" {
		t.Errorf("with everything switched off: %q", got)
	}
}

func TestManyHostileRulesTakeBoundedTime(t *testing.T) {
	c := &changes{Own: map[Kind][]Rule{}}
	for i := range MaxRules {
		c.Own[Content] = append(c.Own[Content], Rule{ID: fmt.Sprint(i), Enabled: true, Pattern: str(strings.Repeat("a?", 250) + "b"), Actions: rawList(notify)})
	}
	set := newSet(c)
	v := see("m.room.message", "@a:test", nil, `{"body":"`+strings.Repeat("a", 60_000)+`"}`)
	started := time.Now()
	if o := set.Evaluate(me, v, big); o.Rule != ".m.rule.message" {
		t.Errorf("outcome %+v", o)
	}
	if took := time.Since(started); took > 200*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestPlainRulesAllocateNothing(t *testing.T) {
	set := newSet(&changes{})
	v := see("m.room.message", "@a:test", nil, `{"msgtype":"m.text","body":"hello there","m.mentions":{"user_ids":["@b:test"]}}`)
	var room RoomView = big
	if n := testing.AllocsPerRun(100, func() { set.Evaluate(me, v, room) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkEvaluate is one message before the rules of 500 members.
func BenchmarkEvaluate(b *testing.B) {
	set := newSet(&changes{})
	users := make([]string, 500)
	for i := range users {
		users[i] = fmt.Sprintf("@user%d:test", i)
	}
	var room RoomView = big
	b.ReportAllocs()
	for b.Loop() {
		v := see("m.room.message", "@a:test", nil, `{"msgtype":"m.text","body":"hello there","m.mentions":{"user_ids":["@b:test"]}}`)
		for _, u := range users {
			set.Evaluate(u, v, room)
		}
	}
}
