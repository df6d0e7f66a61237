// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// stickyParam says for how many milliseconds an event is to stick (MSC4354).
const stickyParam = "org.matrix.msc4354.sticky_duration_ms"

// sticky is how long the event of a request is to stick; 0 for one that is not.
func (a *API) sticky(r *Request) (time.Duration, error) {
	ms, err := r.IntParam(stickyParam, 0, 0, math.MaxInt64)
	if err == nil && ms > event.MaxSticky.Milliseconds() {
		err = signalling.InvalidParam("an event may stick for %d milliseconds", event.MaxSticky.Milliseconds())
	}
	return time.Duration(ms) * time.Millisecond, err
}

// routesEvents: "Sending events to a room", "Getting events for a room", "Redactions".
func (a *API) routesEvents() {
	if a.Rooms == nil {
		return
	}
	const base = "/_matrix/client/v3/rooms/{room}"
	a.route("PUT "+base+"/send/{type}/{txn}", AnyUser, "", a.send)
	a.route("PUT "+base+"/redact/{event}/{txn}", Token, "messages", a.redact)
	a.route("GET "+base+"/state", AnyUser, "requests", a.allState)
	for _, path := range []string{"/state/{type}", "/state/{type}/{$}", "/state/{type}/{key}"} {
		a.route("GET "+base+path, AnyUser, "requests", a.oneState)
		a.route("PUT "+base+path, AnyUser, "messages", a.sendState)
	}
	a.route("GET "+base+"/event/{event}", AnyUser, "requests", a.oneEvent)
	a.route("GET "+base+"/members", AnyUser, "requests", a.members)
	a.route("GET "+base+"/joined_members", AnyUser, "requests", a.joinedMembers)
	a.advertise("org.matrix.msc4354")
}

// member gives the room and the caller's membership in it. Whoever never was in the room hears that it is closed to him, whether it
// exists or not.
func (a *API) member(r *Request) (*rooms.Room, string, error) {
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err == rooms.ErrNoRoom {
		return nil, "", signalling.Forbidden("you are not in this room")
	}
	if err != nil {
		return nil, "", err
	}
	all, err := a.Rooms.UserRooms(r.Context(), r.UserID)
	if err != nil {
		return nil, "", err
	}
	m := all[room.ID].Membership
	if all[room.ID].Forgotten {
		m = ""
	}
	return room, m, nil
}

// inside is member for what only those who are joined may do.
func (a *API) inside(r *Request) (*rooms.Room, error) {
	room, m, err := a.member(r)
	if err == nil && m != "join" {
		err = signalling.Forbidden("you are not in this room")
	}
	return room, err
}

// sends maps the classes of events to the rate limit that counts them: the candidates of one call must not use up what a person may
// write, and an invite rings somebody's telephone.
func (a *API) limitSend(r *Request, typ string) error {
	switch {
	case typ == "m.call.candidates" || typ == "m.call.negotiate" || typ == "m.call.select_answer":
		return r.Limit("signalling")
	case typ == "m.call.hangup" || typ == "m.call.reject" || typ == "m.call.answer":
		return nil // whoever rings or talks can always end it
	case typ == "m.call.invite":
		return r.Limit("calls")
	}
	return r.Limit("messages")
}

func (a *API) send(r *Request) (any, error) {
	typ := r.PathValue("type")
	if d, later, err := a.delay(r); err != nil {
		return nil, err
	} else if later {
		return a.sendLater(r, d, typ, r.PathValue("txn"), nil)
	}
	if err := a.limitSend(r, typ); err != nil {
		return nil, err
	}
	content, err := r.Object(MaxEventBody)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(typ, "m.call.") {
		if err := callflow.Validate(typ, content); err != nil {
			return nil, err
		}
	}
	sticky, err := a.sticky(r)
	if err != nil {
		return nil, err
	}
	d := rooms.Draft{Sender: r.UserID, Device: r.DeviceID, TxnID: r.PathValue("txn"), Type: typ, Content: content, Sticky: sticky}
	if typ == "m.room.redaction" {
		d.Redacts = gjson.GetBytes(content, "redacts").Str
	}
	return a.append(r, d)
}

func (a *API) append(r *Request, d rooms.Draft) (any, error) {
	if len(d.TxnID) > event.MaxIDLength {
		return nil, signalling.InvalidParam("a transaction id may have %d bytes", event.MaxIDLength)
	}
	if hasNUL(d.Content) {
		return nil, signalling.BadJSON("strings in an event must not hold the character NUL")
	}
	ids, err := a.Rooms.Append(r.Context(), r.PathValue("room"), d)
	if err == rooms.ErrNoRoom {
		err = signalling.Forbidden("you are not in this room")
	}
	if err != nil {
		return nil, err
	}
	if a.Sync != nil && !callflow.IsCall(d.Type) {
		a.Sync.Pace(r.Context()) // whoever calls or hangs up is never held up
	}
	b := append(make([]byte, 0, 64), `{"event_id":`...)
	return Raw(append(event.AppendString(b, ids[0]), '}')), nil
}

func (a *API) redact(r *Request) (any, error) {
	var in struct {
		Reason string `json:"reason,omitempty"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	content, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if r.Suspended && !a.wrote(r, r.PathValue("room"), r.PathValue("event")) {
		return nil, errSuspended
	}
	return a.append(r, rooms.Draft{Sender: r.UserID, Device: r.DeviceID, TxnID: r.PathValue("txn"), Type: "m.room.redaction", Content: content, Redacts: r.PathValue("event")})
}

// wrote says that the caller is the sender of an event.
func (a *API) wrote(r *Request, roomID, eventID string) bool {
	room, err := a.Rooms.Room(r.Context(), roomID)
	if err != nil {
		return false
	}
	e, err := room.Event(r.Context(), eventID)
	return err == nil && e.Sender() == r.UserID
}

func (a *API) sendState(r *Request) (any, error) {
	if d, later, err := a.delay(r); err != nil {
		return nil, err
	} else if later {
		key := r.PathValue("key")
		return a.sendLater(r, d, r.PathValue("type"), "", &key)
	}
	content, err := r.Object(MaxEventBody)
	if err != nil {
		return nil, err
	}
	typ, key := r.PathValue("type"), r.PathValue("key")
	sticky, err := a.sticky(r)
	if err != nil {
		return nil, err
	}
	switch typ {
	case "m.room.create":
		return nil, signalling.Refuse(400, "M_BAD_STATE", "a room is created once")
	case "m.room.member":
		if sticky > 0 {
			return nil, signalling.InvalidParam("a membership does not stick")
		}
		return a.sendMember(r, key, content)
	case "m.room.canonical_alias":
		if err := a.checkAliases(r, content); err != nil {
			return nil, err
		}
	}
	return a.append(r, rooms.Draft{Sender: r.UserID, Device: r.DeviceID, Type: typ, StateKey: &key, Content: content, Sticky: sticky})
}

// sendMember makes a membership sent as plain state go the way of /join, /invite and the others.
func (a *API) sendMember(r *Request, target string, content json.RawMessage) (any, error) {
	m := gjson.GetBytes(content, "membership").Str
	switch m {
	case "join", "invite", "knock", "leave", "ban":
	default:
		return nil, signalling.BadJSON("membership must be join, invite, knock, leave or ban")
	}
	if r.Guest && target != r.UserID {
		return nil, errGuest
	}
	if m == "leave" && target == r.UserID {
		if err := a.mayLeave(r, r.PathValue("room")); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case m == "invite":
		err = a.inviteUser(r, r.PathValue("room"), target, "", content)
	case target == r.UserID && m != "ban":
		err = a.changeMembership(r, r.PathValue("room"), nil, m, "", content)
	default:
		err = a.Rooms.SetMembership(r.Context(), r.PathValue("room"), r.UserID, r.DeviceID, target, m, "", content)
	}
	if err != nil {
		return nil, err
	}
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err != nil {
		return nil, err
	}
	ref, _ := room.Head().Ref("m.room.member", target)
	return map[string]string{"event_id": ref.ID}, nil
}

// checkAliases makes sure that the aliases a room claims point to it.
func (a *API) checkAliases(r *Request, content json.RawMessage) error {
	var c struct {
		Alias *string  `json:"alias"`
		Alts  []string `json:"alt_aliases"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return signalling.BadJSON("alias must be a string, alt_aliases a list of strings").Because(err)
	}
	room, err := a.inside(r)
	if err != nil {
		return err
	}
	claimed := map[string]bool{}
	if old, err := room.State(r.Context(), room.Head(), "m.room.canonical_alias", ""); err != nil {
		return err
	} else if old != nil {
		claimed[gjson.GetBytes(old.Content(), "alias").Str] = true
		for _, x := range gjson.GetBytes(old.Content(), "alt_aliases").Array() {
			claimed[x.Str] = true
		}
	}
	if c.Alias != nil && *c.Alias != "" {
		c.Alts = append(c.Alts, *c.Alias)
	}
	for _, alias := range c.Alts {
		if claimed[alias] {
			continue
		}
		if !strings.HasPrefix(alias, "#") || !strings.Contains(alias, ":") {
			return signalling.InvalidParam("%q is not a room alias; one looks like #name:server", alias)
		}
		id, _, err := a.Rooms.ResolveAlias(r.Context(), alias)
		if err != nil && signalling.AsError(err).Code != "M_NOT_FOUND" {
			return err
		}
		if id != room.ID {
			return signalling.Refuse(400, "M_BAD_ALIAS", "%s does not point to this room", alias)
		}
	}
	return nil
}

// maxTypingParam bounds the timeout of a typing notice.
const maxTypingParam = int64(2 * time.Minute / time.Millisecond)
