// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/ed25519"
	"slices"

	"github.com/trunkboard/trunkboard/signalling"
)

// State is one state of a room, as far as authorisation needs it.
type State interface {
	// Event gives the event at key, or nil if there is none.
	Event(key Key) (*Event, error)
}

// EventsState is a State made of a few events, such as an event's own auth events.
type EventsState map[Key]*Event

// StateOf collects state events; a later one wins.
func StateOf(events ...*Event) EventsState {
	s := make(EventsState, len(events))
	for _, e := range events {
		if e.IsState() {
			s[e.Key()] = e
		}
	}
	return s
}

// Event gives the event at key or nil.
func (s EventsState) Event(key Key) (*Event, error) { return s[key], nil }

var (
	createKey    = Key{"m.room.create", ""}
	powerKey     = Key{"m.room.power_levels", ""}
	joinRulesKey = Key{"m.room.join_rules", ""}
)

// authKeys lists the pieces of state that decide whether an event is allowed (server-server API, "Auth events selection"), the create
// event first.
func authKeys(n int, typ, sender string, stateKey *string, m *member) []Key {
	if typ == "m.room.create" {
		return nil
	}
	keys := append(make([]Key, 0, 6), createKey, powerKey)
	users := []string{sender}
	if typ == "m.room.member" && stateKey != nil {
		users = append(users, *stateKey)
		switch m.membership {
		case "join", "invite", "knock":
			keys = append(keys, joinRulesKey)
		}
		if m.membership == "join" && n >= 8 && m.authorised != "" {
			users = append(users, m.authorised)
		}
	}
	for i, u := range users {
		if !slices.Contains(users[:i], u) {
			keys = append(keys, Key{"m.room.member", u})
		}
	}
	if m != nil && m.membership == "invite" && m.token != "" {
		keys = append(keys, Key{"m.room.third_party_invite", m.token})
	}
	return keys
}

func (e *Event) authKeys() []Key {
	var m *member
	if e.typ == "m.room.member" {
		m = &e.facts().member
	}
	return authKeys(e.version.n(), e.typ, e.sender, e.stateKey, m)
}

// CheckAuthEvents says whether e names the right auth events: those that the selection algorithm asks for, each once, of its own room
// (auth rules, "Considering the event's auth_events"). auth are the events that e.AuthIDs() names, in any order. That none of them
// was rejected is the caller's to check. A refusal is 403 M_FORBIDDEN.
func CheckAuthEvents(e *Event, auth []*Event) error {
	if e.isCreate() {
		return nil
	}
	keys := e.authKeys()
	seen := map[Key]bool{}
	for _, a := range auth {
		k := a.Key()
		switch {
		case !a.IsState() || !slices.Contains(keys, k):
			return refuse("auth event %s is not one that decides about this event", a.id)
		case seen[k]:
			return refuse("two auth events for %s %q", k.Type, k.StateKey)
		case a.roomID != e.roomID:
			return refuse("auth event %s is of another room", a.id)
		}
		seen[k] = true
	}
	if !seen[createKey] {
		return refuse("the create event is not among the auth events")
	}
	return nil
}

func refuse(format string, args ...any) error { return signalling.Forbidden(format, args...) }

// Authorise says whether e is allowed by the auth rules of its room version in this state ("Authorization rules"), rule by rule in
// the order of the spec. A refusal is 403 M_FORBIDDEN; any other error means that the state could not be read.
func Authorise(e *Event, state State) error {
	n := e.version.n()
	if n == 0 {
		_, err := e.version.number()
		return err
	}
	if e.typ == "m.room.create" {
		return authoriseCreate(e, n)
	}
	a := authoriser{e: e, n: n, state: state}
	create, err := state.Event(createKey)
	if err != nil {
		return err
	}
	if create == nil || create.roomID != e.roomID {
		return refuse("this room has no create event")
	}
	if !create.facts().federate && ServerOf(e.sender) != ServerOf(create.sender) {
		return refuse("this room is for users of %s only", ServerOf(create.sender))
	}
	if e.typ == "m.room.aliases" && n <= 5 {
		if e.stateKey == nil || *e.stateKey != ServerOf(e.sender) {
			return refuse("m.room.aliases belongs to the server in its state_key")
		}
		return nil
	}
	a.create = create
	if a.levels, err = state.Event(powerKey); err != nil {
		return err
	}
	a.power = powerOf(create, a.levels)
	if e.typ == "m.room.member" {
		return a.member()
	}
	sender, err := a.membership(e.sender)
	if err != nil {
		return err
	}
	if sender != "join" {
		return refuse("you are not in this room")
	}
	level := a.power.User(e.sender)
	if need := a.power.Event(e.typ, e.IsState()); level < need {
		return refuse("you need power level %d in this room to send %s", need, e.typ)
	}
	if e.typ == "m.room.third_party_invite" {
		return nil
	}
	if e.stateKey != nil && len(*e.stateKey) > 0 && (*e.stateKey)[0] == '@' && *e.stateKey != e.sender {
		if !e.version.OwnedState() {
			return refuse("this piece of state belongs to %s", *e.stateKey)
		}
		owner, err := StateOwner(*e.stateKey)
		if err != nil {
			return refuse("this piece of state belongs to nobody")
		}
		if owner != e.sender && level <= a.power.User(owner) {
			return refuse("this piece of state belongs to %s", owner)
		}
	}
	if e.typ == "m.room.power_levels" {
		return a.powerLevels(level)
	}
	if e.typ == "m.room.redaction" && n <= 2 && level < a.power.Redact() && ServerOf(e.redacts) != ServerOf(e.id) {
		return refuse("you may not redact events of other servers")
	}
	return nil
}

func authoriseCreate(e *Event, n int) error {
	if e.stateKey == nil || *e.stateKey != "" || len(e.prev) > 0 {
		return refuse("a create event is the first event of a room")
	}
	if n < 12 && ServerOf(e.roomID) != ServerOf(e.sender) {
		return refuse("the room id is of another server than the creator")
	}
	if v := field(e.content, "room_version"); v != nil {
		if s, ok := text(v); !ok || !Version(s).Known() {
			return refuse("room version %s is not known", v)
		}
	}
	if n <= 10 && field(e.content, "creator") == nil {
		return refuse("the create event names no creator")
	}
	if v := field(e.content, "additional_creators"); v != nil && n >= 12 {
		good := true
		if !elements(v, func(x []byte) bool {
			s, ok := text(x)
			if ok {
				_, _, err := UserID(s)
				ok = err == nil
			}
			good = ok
			return ok
		}) || !good {
			return refuse("additional_creators must be an array of user ids")
		}
	}
	return nil
}

// authoriser holds what the rules of one event look at.
type authoriser struct {
	e              *Event
	n              int
	state          State
	create, levels *Event
	power          Power
}

// membership is a user's membership in the state, "leave" when there is none.
func (a *authoriser) membership(user string) (string, error) {
	m, err := a.state.Event(Key{"m.room.member", user})
	if err != nil {
		return "", err
	}
	if m == nil {
		return "leave", nil
	}
	return m.facts().member.membership, nil
}

func (a *authoriser) joinRule() (string, error) {
	j, err := a.state.Event(joinRulesKey)
	if err != nil || j == nil {
		return "invite", err
	}
	return j.facts().joinRule, nil
}

// member is rule "If type is m.room.member".
func (a *authoriser) member() error {
	e, m := a.e, &a.e.facts().member
	if e.stateKey == nil || m.membership == "" {
		return refuse("a membership needs a state_key and content.membership")
	}
	target := *e.stateKey
	if m.membership == "join" && len(e.prev) == 1 && e.prev[0] == a.create.id && target == a.create.facts().creators[0] {
		return nil
	}
	was, err := a.membership(target)
	if err != nil {
		return err
	}
	sender := was
	if target != e.sender {
		if sender, err = a.membership(e.sender); err != nil {
			return err
		}
	}
	level := a.power.User(e.sender)
	switch m.membership {
	case "join":
		return a.join(m, target, was)
	case "invite":
		if m.thirdParty != nil {
			return a.thirdPartyInvite(m, target, was)
		}
		switch {
		case sender != "join":
			return refuse("you are not in this room")
		case was == "join" || was == "ban":
			return refuse("%s cannot be invited: their membership is %s", target, was)
		case level < a.power.Invite():
			return refuse("you need power level %d in this room to invite", a.power.Invite())
		}
		return nil
	case "leave":
		if e.sender == target {
			if was == "join" || was == "invite" || was == "knock" && a.n >= 7 {
				return nil
			}
			return refuse("you cannot leave: your membership is %s", was)
		}
		switch {
		case sender != "join":
			return refuse("you are not in this room")
		case was == "ban" && level < a.power.Ban():
			return refuse("you need power level %d in this room to lift a ban", a.power.Ban())
		case level < a.power.Kick() || level <= a.power.User(target):
			return refuse("you may not kick %s", target)
		}
		return nil
	case "ban":
		switch {
		case sender != "join":
			return refuse("you are not in this room")
		case level < a.power.Ban() || level <= a.power.User(target):
			return refuse("you may not ban %s", target)
		}
		return nil
	case "knock":
		if a.n < 7 {
			break
		}
		rule, err := a.joinRule()
		if err != nil {
			return err
		}
		switch {
		case rule != "knock" && (rule != "knock_restricted" || a.n < 10):
			return refuse("this room takes no knocks")
		case e.sender != target:
			return refuse("nobody can knock for somebody else")
		case was == "ban" || was == "invite" || was == "join":
			return refuse("you cannot knock: your membership is %s", was)
		}
		return nil
	}
	return refuse("membership %q does not exist", m.membership)
}

func (a *authoriser) join(m *member, target, was string) error {
	switch {
	case a.e.sender != target:
		return refuse("nobody can join for somebody else")
	case was == "ban":
		return refuse("you are banned from this room")
	}
	rule, err := a.joinRule()
	if err != nil {
		return err
	}
	restricted := rule == "restricted" && a.n >= 8 || rule == "knock_restricted" && a.n >= 10
	switch {
	case rule == "public":
		return nil
	case restricted, rule == "invite", rule == "knock" && a.n >= 7:
		if was == "join" || was == "invite" {
			return nil
		}
	}
	if restricted && m.authorised != "" {
		by, err := a.membership(m.authorised)
		if err != nil {
			return err
		}
		if by != "join" || a.power.User(m.authorised) < a.power.Invite() {
			return refuse("%s may not let you in", m.authorised)
		}
		return nil
	}
	return refuse("you need an invite to join this room")
}

// thirdPartyInvite checks an invite that follows up one by e-mail: the identity server that was named then must have signed that this
// user is who was meant.
func (a *authoriser) thirdPartyInvite(m *member, target, was string) error {
	if was == "ban" {
		return refuse("%s is banned from this room", target)
	}
	signed := field(m.thirdParty, "signed")
	if m.token == "" || textField(signed, "mxid") != target {
		return refuse("the third party invite is not for %s", target)
	}
	inv, err := a.state.Event(Key{"m.room.third_party_invite", m.token})
	if err != nil {
		return err
	}
	if inv == nil || inv.sender != a.e.sender {
		return refuse("there is no such third party invite of yours")
	}
	keys := []string{textField(inv.content, "public_key")}
	elements(field(inv.content, "public_keys"), func(v []byte) bool {
		keys = append(keys, textField(v, "public_key"))
		return len(keys) < 100
	})
	bare, _ := signedPart(signed)
	found, tries := false, 0
	eachSignature(signed, func(name, id, _ string) {
		for _, k := range keys {
			if tries++; found || tries > 100 {
				return
			}
			if key, err := decodeBase64(k); err == nil && len(id) > 8 && id[:8] == "ed25519:" {
				found = verify(name, id, ed25519.PublicKey(key), signed, bare) == nil
			}
		}
	})
	if !found {
		return refuse("the third party invite is not signed by its identity server")
	}
	return nil
}

// powerLevels is rule "If type is m.room.power_levels": nobody gives or takes what they do not have.
func (a *authoriser) powerLevels(level int64) error {
	f := a.e.facts()
	if f.powerErr != nil {
		return refuse("the power levels are malformed").(*signalling.Error).Because(f.powerErr)
	}
	now := f.power
	for _, c := range a.power.creators {
		if _, ok := now.users[c]; ok {
			return refuse("a creator has every power already")
		}
	}
	if a.levels == nil {
		return nil
	}
	was := a.power.levels
	// change checks one level: equal is no change; otherwise neither the old nor the new one may be above the sender's.
	change := func(what string, was, now map[string]int64, name string, strict bool) error {
		old, had := was[name]
		v, has := now[name]
		switch {
		case had == has && old == v:
			return nil
		case had && (old > level || strict && name != a.e.sender && old >= level):
			return refuse("you may not change %s %s from %d", what, name, old)
		case has && v > level:
			return refuse("you may not set %s %s to %d", what, name, v)
		}
		return nil
	}
	both := func(what string, was, now map[string]int64, strict bool) error {
		for name := range was {
			if err := change(what, was, now, name, strict); err != nil {
				return err
			}
		}
		for name := range now {
			if err := change(what, was, now, name, strict); err != nil {
				return err
			}
		}
		return nil
	}
	if err := both("the level of", was.named, now.named, false); err != nil {
		return err
	}
	if err := both("the level of", was.events, now.events, false); err != nil {
		return err
	}
	if a.n >= 6 {
		if err := both("the notification level of", was.notifications, now.notifications, false); err != nil {
			return err
		}
	}
	return both("the power of", was.users, now.users, true)
}
