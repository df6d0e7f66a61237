// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"errors"
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

// stateFor gives the state of a room as the caller may see it: now for whoever is joined, or when the room is world-readable; as of
// his leaving for whoever has left.
func (a *API) stateFor(r *Request) (room *rooms.Room, get func(typ, key string) (*rooms.Stored, error), all func() ([]rooms.Ref, error), err error) {
	room, m, err := a.member(r)
	if err != nil {
		return nil, nil, nil, err
	}
	head := room.Head()
	world := false
	if m != "join" {
		v, err := room.State(r.Context(), head, "m.room.history_visibility", "")
		if err != nil {
			return nil, nil, nil, err
		}
		world = v != nil && gjson.GetBytes(v.Content(), "history_visibility").Str == "world_readable"
	}
	switch {
	case m == "join" || world:
		get = func(typ, key string) (*rooms.Stored, error) { return room.State(r.Context(), head, typ, key) }
		all = func() (refs []rooms.Ref, err error) {
			head.Each(func(_ event.Key, ref rooms.Ref) { refs = append(refs, ref) })
			return refs, nil
		}
		return room, get, all, nil
	case m == "leave" || m == "ban":
		list, err := a.Rooms.UserRooms(r.Context(), r.UserID)
		if err != nil {
			return nil, nil, nil, err
		}
		left, err := room.ByRef(r.Context(), rooms.Ref{NID: list[room.ID].EventNID})
		if err != nil {
			return nil, nil, nil, err
		}
		if left != nil {
			was, err := room.StateAt(r.Context(), left, false, "m.room.member", r.UserID)
			if err != nil {
				return nil, nil, nil, err
			}
			if was != nil && was.Membership() == "join" {
				get = func(typ, key string) (*rooms.Stored, error) { return room.StateAt(r.Context(), left, true, typ, key) }
				all = func() (refs []rooms.Ref, err error) {
					m, err := room.AllStateAt(r.Context(), left)
					for _, ref := range m {
						refs = append(refs, ref)
					}
					return refs, err
				}
				return room, get, all, nil
			}
		}
	}
	return nil, nil, nil, signalling.Forbidden("you are not in this room")
}

func (a *API) view(r *Request) rooms.View {
	return rooms.View{User: r.UserID, Device: r.DeviceID, Now: a.Clock.Now(), RoomID: true}
}

func (a *API) allState(r *Request) (any, error) {
	room, _, all, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	refs, err := all()
	if err != nil {
		return nil, err
	}
	events, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	return a.eventList(r, room, events, nil)
}

// eventList writes events as a JSON array; keep says which, nil keeps all.
func (a *API) eventList(r *Request, room *rooms.Room, events []*rooms.Stored, keep func(*rooms.Stored) bool) (Raw, error) {
	b := []byte{'['}
	var err error
	for _, e := range events {
		if keep != nil && !keep(e) {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		if b, err = room.AppendClient(r.Context(), b, e, a.view(r)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func (a *API) oneState(r *Request) (any, error) {
	room, get, _, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	e, err := get(r.PathValue("type"), r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, signalling.NotFound("this room has no such state")
	}
	if r.Param("format") == "event" {
		b, err := room.AppendClient(r.Context(), nil, e, a.view(r))
		return Raw(b), err
	}
	return Raw(e.Content()), nil
}

func (a *API) oneEvent(r *Request) (any, error) {
	room, e, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	b, err := a.appendWhole(r, nil, room, e)
	return Raw(b), err
}

// appendWhole appends an event with all that is told of it: what relates to it, and what the reader was when it was sent.
func (a *API) appendWhole(r *Request, b []byte, room *rooms.Room, e *rooms.Stored) ([]byte, error) {
	v := a.view(r)
	var err error
	if v.Membership, err = room.MembershipAt(r.Context(), e, r.UserID); err != nil {
		return nil, err
	}
	relations, err := a.aggregate(r, room, e)
	if err != nil {
		return nil, err
	}
	v.Relations = relations[e.NID]
	return room.AppendClient(r.Context(), b, e, v)
}

// visibleEvent is the event of the path, when the caller may see it; what he may not see does not exist for him.
func (a *API) visibleEvent(r *Request) (*rooms.Room, *rooms.Stored, error) {
	none := signalling.NotFound("there is no such event, or you may not see it")
	room, err := a.Rooms.Room(r.Context(), r.PathValue("room"))
	if err == rooms.ErrNoRoom {
		return nil, nil, none
	}
	if err != nil {
		return nil, nil, err
	}
	e, err := room.Event(r.Context(), r.PathValue("event"))
	if err != nil {
		return nil, nil, err
	}
	if e == nil {
		return nil, nil, none
	}
	ok, err := room.Visible(r.Context(), e, r.UserID)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, none
	}
	return room, e, nil
}

// wholeTime is how long whoever lists members waits for those of a room that was joined without them.
const wholeTime = 30 * time.Second

// whole waits until a room's members are known; what is known by then is better than nothing.
func (a *API) whole(r *Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), wholeTime)
	defer cancel()
	err := a.Rooms.Whole(ctx, r.PathValue("room"))
	if errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil {
		return nil
	}
	return err
}

func (a *API) members(r *Request) (any, error) {
	room, _, all, err := a.stateFor(r)
	if err != nil {
		return nil, err
	}
	if room.Partial() {
		if err := a.whole(r); err != nil {
			return nil, err
		}
		if room, _, all, err = a.stateFor(r); err != nil {
			return nil, err
		}
	}
	var refs []rooms.Ref
	if at := r.Param("at"); at != "" {
		refs, err = a.membersAtToken(r, room, at)
	} else {
		refs, err = all()
	}
	if err != nil {
		return nil, err
	}
	want, not := r.Param("membership"), r.Param("not_membership")
	events, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	b, err := a.eventList(r, room, events, func(e *rooms.Stored) bool {
		m := e.Membership()
		return m != "" && (want == "" || m == want) && (not == "" || m != not)
	})
	return Raw(append(append([]byte(`{"chunk":`), b...), '}')), err
}

func (a *API) joinedMembers(r *Request) (any, error) {
	room, err := a.inside(r)
	if err != nil {
		return nil, err
	}
	type profile struct {
		Name   *string `json:"display_name"`
		Avatar *string `json:"avatar_url"`
	}
	if room.Partial() {
		if err := a.whole(r); err != nil {
			return nil, err
		}
		if room, err = a.inside(r); err != nil {
			return nil, err
		}
	}
	out := map[string]profile{}
	head := room.Head()
	var refs []rooms.Ref
	for _, u := range head.Joined() {
		if ref, ok := head.Ref("m.room.member", u); ok {
			refs = append(refs, ref)
		}
	}
	events, err := room.ByRefs(r.Context(), refs)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		var p profile
		if n := gjson.GetBytes(e.Content(), "displayname"); n.Type == gjson.String {
			p.Name = &n.Str
		}
		if u := gjson.GetBytes(e.Content(), "avatar_url"); u.Type == gjson.String {
			p.Avatar = &u.Str
		}
		out[*e.StateKey()] = p
	}
	return map[string]any{"joined": out}, nil
}

// maxTypingParam bounds the timeout of a typing notice.
const maxTypingParam = int64(2 * time.Minute / time.Millisecond)
