// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// attempt builds a random event on the tip of w that the auth rules may allow or refuse.
func (w *world) attempt(rnd *rand.Rand, tip string) (*Event, map[Key]string) {
	users := []string{"@alice:a.org", "@bob:b.org", "@mod:b.org", "@carol:c.org", "@dave:d.org", "@erin:e.org"}
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	sender, target := pick(users...), pick(users...)
	if rnd.IntN(2) == 0 {
		target = sender
	}
	level := func() string { return pick("0", "10", "49", "50", "51", "100", "101") }
	typ, key, content := "m.room.message", (*string)(nil), `{"body":"x"}`
	switch rnd.IntN(10) {
	case 0, 1, 2, 3:
		typ, key = "m.room.member", &target
		content = `{"membership":"` + pick("join", "join", "leave", "invite", "ban", "knock", "nonsense") + `"`
		if rnd.IntN(3) == 0 {
			content += `,"join_authorised_via_users_server":"` + pick(users...) + `"`
		}
		content += `}`
	case 4:
		typ, key = "m.room.join_rules", str("")
		content = `{"join_rule":"` + pick("public", "invite", "knock", "restricted", "knock_restricted", "private") + `"}`
	case 5, 6:
		typ, key = "m.room.power_levels", str("")
		var parts, us []string
		for _, n := range namedLevels {
			if rnd.IntN(3) == 0 {
				parts = append(parts, fmt.Sprintf(`"%s":%s`, n, level()))
			}
		}
		for i, u := range users {
			if rnd.IntN(2) == 0 && (i > 0 || !w.v.CreatorsRule() || rnd.IntN(10) == 0) {
				us = append(us, fmt.Sprintf(`"%s":%s`, u, level()))
			}
		}
		parts = append(parts, `"users":{`+strings.Join(us, ",")+`}`)
		if rnd.IntN(2) == 0 {
			parts = append(parts, `"events":{"m.room.name":`+level()+`,"m.room.message":`+pick("0", "0", "10")+`}`)
		}
		if rnd.IntN(2) == 0 {
			parts = append(parts, `"notifications":{"room":`+level()+`}`)
		}
		if rnd.IntN(10) == 0 {
			parts = append(parts, pick(`"ban":"50"`, `"events":[]`, `"users_default":true`))
			parts = parts[len(parts)-1:]
		}
		content = `{` + strings.Join(parts, ",") + `}`
	case 7:
		typ, key, content = "m.room.name", str(""), `{"name":"x"}`
	case 8:
		typ, key, content = pick("org.example.own", "m.room.third_party_invite"), str(pick(target, "", "other")), `{}`
	}
	e, before, err := w.try([]string{tip}, sender, typ, key, content)
	if err != nil {
		w.t.Fatalf("%s %s: %v", typ, content, err)
	}
	return e, before
}

// outcome is one case of a rule: who does what, on what, and whether the versions from first to last allow it.
type outcome struct {
	first, last int
	allowed     bool
}

func TestAuthRulesByVersion(t *testing.T) {
	all, none := []outcome{{1, 12, true}}, []outcome(nil)
	from := func(n int) []outcome { return []outcome{{n, 12, true}} }
	type step struct{ sender, typ, key, content string }
	member := func(sender, target, membership string) step {
		return step{sender, "m.room.member", target, `{"membership":"` + membership + `"}`}
	}
	rules := func(rule string) step {
		return step{"@alice:a.org", "m.room.join_rules", "", `{"join_rule":"` + rule + `"}`}
	}
	const alice, bob, mod, carol, erin = "@alice:a.org", "@bob:b.org", "@mod:b.org", "@carol:c.org", "@erin:e.org"
	// alice 100 or creator, bob and mod 50, carol 0: joined; erin is not there.
	for name, c := range map[string]struct {
		before []step
		do     step
		want   []outcome
	}{
		"a stranger joins a public room":           {nil, member(erin, erin, "join"), all},
		"a stranger joins a closed room":           {[]step{rules("invite")}, member(erin, erin, "join"), none},
		"an invited user joins a closed room":      {[]step{rules("invite"), member(bob, erin, "invite")}, member(erin, erin, "join"), all},
		"a banned user joins":                      {[]step{member(bob, carol, "ban")}, member(carol, carol, "join"), none},
		"a join for somebody else":                 {nil, member(bob, erin, "join"), none},
		"a private room lets nobody in":            {[]step{rules("private")}, member(erin, erin, "join"), none},
		"a knock on a knocking room":               {[]step{rules("knock")}, member(erin, erin, "knock"), from(7)},
		"a knock on a public room":                 {nil, member(erin, erin, "knock"), none},
		"a knock by a member":                      {[]step{rules("knock")}, member(carol, carol, "knock"), none},
		"a knock on a knock_restricted room":       {[]step{rules("knock_restricted")}, member(erin, erin, "knock"), from(10)},
		"a restricted join that a member allows":   {[]step{rules("restricted")}, step{erin, "m.room.member", erin, `{"membership":"join","join_authorised_via_users_server":"@bob:b.org"}`}, from(8)},
		"a restricted join that nobody allows":     {[]step{rules("restricted")}, member(erin, erin, "join"), none},
		"a restricted join by a stranger's leave":  {[]step{rules("restricted")}, step{erin, "m.room.member", erin, `{"membership":"join","join_authorised_via_users_server":"@nobody:b.org"}`}, none},
		"a knock_restricted join":                  {[]step{rules("knock_restricted")}, step{erin, "m.room.member", erin, `{"membership":"join","join_authorised_via_users_server":"@bob:b.org"}`}, from(10)},
		"a kick of a lower user":                   {nil, member(bob, carol, "leave"), all},
		"a kick of an equal":                       {nil, member(bob, mod, "leave"), none},
		"a kick by a lower user":                   {nil, member(carol, bob, "leave"), none},
		"a ban of an equal":                        {nil, member(bob, mod, "ban"), none},
		"a ban of a stranger":                      {nil, member(bob, erin, "ban"), all},
		"an unban by one who may kick":             {[]step{member(bob, erin, "ban")}, member(mod, erin, "leave"), all},
		"an unban of an equal":                     {[]step{member(alice, mod, "ban")}, member(bob, mod, "leave"), none},
		"leaving twice":                            {[]step{member(carol, carol, "leave")}, member(carol, carol, "leave"), none},
		"an invite refused by its target":          {[]step{member(bob, erin, "invite")}, member(erin, erin, "leave"), all},
		"a ban of oneself":                         {nil, member(alice, alice, "ban"), none},
		"an unknown membership":                    {nil, member(carol, carol, "nonsense"), none},
		"a message by a stranger":                  {nil, step{erin, "m.room.message", "-", `{}`}, none},
		"state of somebody else":                   {nil, step{alice, "org.example.own", carol, `{}`}, none},
		"state by a plain member":                  {nil, step{carol, "org.example.own", "", `{}`}, none},
		"aliases of one's server":                  {nil, step{erin, "m.room.aliases", "e.org", `{}`}, []outcome{{1, 5, true}}},
		"aliases of another server":                {nil, step{erin, "m.room.aliases", "b.org", `{}`}, none},
		"levels written as strings":                {nil, step{alice, "m.room.power_levels", "", `{"users":{"@bob:b.org":"50","@mod:b.org":50},"ban":" 60 "}`}, []outcome{{1, 9, true}}},
		"levels that are not numbers":              {nil, step{alice, "m.room.power_levels", "", `{"users":{"@bob:b.org":true}}`}, none},
		"levels for what is no user":               {nil, step{alice, "m.room.power_levels", "", `{"users":{"bob":50}}`}, none},
		"a creator in the levels":                  {nil, step{alice, "m.room.power_levels", "", `{"users":{"@alice:a.org":100,"@bob:b.org":50,"@mod:b.org":50},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0}}`}, []outcome{{1, 11, true}}},
		"notification levels above one's own":      {nil, step{bob, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":50,"@mod:b.org":50},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0},"notifications":{"room":90}}`}, []outcome{{1, 5, true}}},
		"notification levels up to one's own":      {nil, step{bob, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":50,"@mod:b.org":50},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0},"notifications":{"room":50}}`}, all},
		"notification levels set by the creator":   {nil, step{alice, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":50,"@mod:b.org":50},"notifications":{"room":100}}`}, all},
		"a moderator makes another one of oneself": {nil, step{bob, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":50,"@mod:b.org":50,"@carol:c.org":50},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0}}`}, all},
		"a moderator takes an equal down":          {nil, step{bob, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":50,"@mod:b.org":0},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0}}`}, none},
		"a moderator steps down":                   {nil, step{bob, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":0,"@mod:b.org":50},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0}}`}, all},
		"a moderator raises themselves":            {nil, step{bob, "m.room.power_levels", "", `{"users":{ALICE"@bob:b.org":51,"@mod:b.org":50},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0}}`}, none},
		"a second create event":                    {nil, step{alice, "m.room.create", "", `{"creator":"@alice:a.org"}`}, none},
		"a third party invite by anybody":          {nil, step{carol, "m.room.third_party_invite", "token", `{}`}, all},
	} {
		for _, v := range Versions() {
			w := newWorld(t, v)
			tip := w.tip()
			fill := func(s string) string {
				if v.CreatorsRule() {
					return strings.ReplaceAll(s, "ALICE", "")
				}
				return strings.ReplaceAll(s, "ALICE", `"@alice:a.org":100,`)
			}
			for _, b := range c.before {
				e, err := w.send([]string{tip}, b.sender, b.typ, &b.key, fill(b.content))
				if err != nil {
					t.Fatalf("v%s %s: before: %v", v, name, err)
				}
				tip = e.ID()
			}
			want := false
			for _, o := range c.want {
				want = want || v.n() >= o.first && v.n() <= o.last
			}
			key := &c.do.key
			if c.do.key == "-" {
				key = nil
			}
			_, err := w.send([]string{tip}, c.do.sender, c.do.typ, key, fill(c.do.content))
			if (err == nil) != want {
				t.Errorf("v%s %s: %v, want allowed = %v", v, name, err, want)
			}
			if err != nil && code(err) != "M_FORBIDDEN" {
				t.Errorf("v%s %s: %v", v, name, err)
			}
		}
	}
}

func TestAuthEventsMustBeThoseOfTheSelection(t *testing.T) {
	for _, v := range []Version{"1", "6", "11", "12"} {
		w := newWorld(t, v)
		tip := w.tip()
		st := w.after[tip]
		at := func(typ, key string) *Event { return w.events[st[Key{typ, key}]] }
		e := w.must([]string{tip}, "@bob:b.org", "m.room.message", nil, `{}`)
		create, power, bob := at("m.room.create", ""), at("m.room.power_levels", ""), at("m.room.member", "@bob:b.org")
		foreign, err := Build(v, Proto{RoomID: "!" + strings.Repeat("x", 43) + ":a.org", Sender: "@alice:a.org", Type: "m.room.power_levels", StateKey: str(""), Content: power.Content()}, nil, 1, EventsState{}, signer("a.org"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			auth []*Event
			ok   bool
		}{
			"as selected":         {[]*Event{create, power, bob}, true},
			"no power levels":     {[]*Event{create, bob}, true}, // the auth rules then see none
			"no create event":     {[]*Event{power, bob}, false},
			"one too many":        {[]*Event{create, power, bob, at("m.room.join_rules", "")}, false},
			"somebody else":       {[]*Event{create, power, bob, at("m.room.member", "@carol:c.org")}, false},
			"the same twice":      {[]*Event{create, power, bob, bob}, false},
			"a message":           {[]*Event{create, power, bob, e}, false},
			"one of another room": {[]*Event{create, foreign, bob}, false},
		} {
			if err := CheckAuthEvents(e, c.auth); (err == nil) != c.ok {
				t.Errorf("v%s: %s: %v", v, name, err)
			}
		}
	}
}
