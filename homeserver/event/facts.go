// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/signalling"
)

// facts are what the auth rules read in the content of an event. They are parsed once and kept with it: a room's create, power levels
// and join rules are read for every event that is sent.
type facts struct {
	member   member
	power    *levels
	powerErr error
	creators []string // of a create event
	federate bool
	joinRule string
}

// member is the content of m.room.member.
type member struct {
	membership string
	authorised string // join_authorised_via_users_server
	thirdParty []byte // third_party_invite, nil when there is none
	token      string // its signed.token
}

// levels is the content of m.room.power_levels. Absent means not in the map.
type levels struct {
	named                        map[string]int64
	users, events, notifications map[string]int64
}

func (e *Event) facts() *facts {
	if f := e.parsed.Load(); f != nil {
		return f
	}
	f := &facts{}
	switch e.typ {
	case "m.room.member":
		members(e.content, func(k, v []byte) bool {
			switch string(k) {
			case "membership":
				f.member.membership, _ = text(v)
			case "join_authorised_via_users_server":
				f.member.authorised, _ = text(v)
			case "third_party_invite":
				f.member.thirdParty = v
				f.member.token = textField(field(v, "signed"), "token")
			}
			return true
		})
	case "m.room.power_levels":
		f.power, f.powerErr = readLevels(e.content, e.version.n())
	case "m.room.join_rules":
		f.joinRule = textField(e.content, "join_rule")
	case "m.room.create":
		f.federate = string(field(e.content, "m.federate")) != "false"
		f.creators = Creators(e)
	}
	e.parsed.Store(f)
	return f
}

// namedLevels are the levels that stand at the top of m.room.power_levels.
var namedLevels = [...]string{"ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"}

// readLevels reads power levels; from v10 on they are integers, before they may be written as strings (auth rules, "If type is
// m.room.power_levels").
func readLevels(content []byte, n int) (*levels, error) {
	l := &levels{named: make(map[string]int64, len(namedLevels))}
	var err error
	level := func(key string, v []byte) (x int64) {
		x, ok := integer(v)
		if !ok && n < 10 {
			x, ok = looseInteger(v)
		}
		if !ok {
			err = signalling.BadJSON("power level %s must be an integer", key)
		}
		return x
	}
	table := func(key string, v []byte) map[string]int64 {
		m := map[string]int64{}
		if !members(v, func(k, v []byte) bool {
			name := unescape(k)
			m[name] = level(name, v)
			return err == nil
		}) {
			err = signalling.BadJSON("power levels: %s must be an object", key)
		}
		return m
	}
	members(content, func(k, v []byte) bool {
		switch key := string(k); key {
		case "ban", "events_default", "invite", "kick", "redact", "state_default", "users_default":
			l.named[key] = level(key, v)
		case "users":
			l.users = table(key, v)
		case "events":
			l.events = table(key, v)
		case "notifications":
			l.notifications = table(key, v)
		}
		return err == nil
	})
	for user := range l.users {
		if err == nil {
			_, _, err = UserID(user)
		}
	}
	return l, err
}

// looseInteger reads a level the way old servers did: a number is cut to an integer, a string is read as one.
func looseInteger(v []byte) (int64, bool) {
	if s, ok := text(v); ok {
		x, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		return x, err == nil
	}
	if len(v) == 0 || v[0] != '-' && (v[0] < '0' || v[0] > '9') || bytes.ContainsAny(v, "xXpP_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return int64(f), err == nil && f > -MaxDepthVal && f < MaxDepthVal
}

// get is a named level, or what it is when it is not set.
func (l *levels) get(name string) int64 {
	if l != nil {
		if v, ok := l.named[name]; ok {
			return v
		}
	}
	switch name {
	case "ban", "kick", "redact", "state_default":
		return 50
	}
	return 0
}

func (l *levels) user(id string) int64 {
	if v, ok := l.users[id]; ok {
		return v
	}
	return l.get("users_default")
}

func (l *levels) event(typ string, state bool) int64 {
	if typ == "m.room.third_party_invite" {
		return l.get("invite")
	}
	if l != nil {
		if v, ok := l.events[typ]; ok {
			return v
		}
	}
	if state {
		return l.get("state_default")
	}
	return l.get("events_default")
}
