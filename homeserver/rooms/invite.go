// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// strippedTypes is the state that somebody is shown of a room before he is in it (client-server API, "Stripped state").
var strippedTypes = [...]string{"m.room.create", "m.room.join_rules", "m.room.canonical_alias", "m.room.name", "m.room.avatar", "m.room.topic", "m.room.encryption", "m.room.history_visibility"}

const (
	maxStripped     = 64       // events of stripped state that are kept of an invite
	maxStrippedSize = 64 << 10 // bytes of one of them
)

// Invite is an invite for a user of another server before that server has signed it.
type Invite struct {
	Event    *event.Event
	Version  event.Version
	Stripped []json.RawMessage // invite_room_state: whole events, as MSC4311 wants them
}

// MakeInvite builds an invite without sending it: the invited server signs it first (PUT /invite), then SendSigned puts it into the room.
// third is m.third_party_invite content, nil for none. Errors: M_NOT_FOUND, M_FORBIDDEN, M_BAD_JSON.
func (s *Service) MakeInvite(ctx context.Context, roomID, sender, target, reason string, extra json.RawMessage) (*Invite, error) {
	if _, _, err := event.UserID(target); err != nil {
		return nil, err
	}
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	if !r.Here() {
		return nil, errNotHere
	}
	head := r.Head()
	if head.IsJoined(target) {
		return nil, signalling.Forbidden("%s is in this room already", target)
	}
	content, err := s.MemberContent(ctx, target, "invite", reason, extra)
	if err != nil {
		return nil, err
	}
	state := headState{ctx, r, head}
	prev, depth := tips(head)
	e, err := event.Build(r.Version, event.Proto{RoomID: r.ID, Sender: sender, Type: "m.room.member", StateKey: &target, Content: content}, prev, depth+1, state, s.signer, s.clock.Now())
	if err != nil {
		return nil, err
	}
	if err := event.Authorise(e, state); err != nil {
		return nil, err
	}
	p, err := r.policyAt(ctx, head)
	if err != nil {
		return nil, err
	}
	if p != nil {
		if e, err = s.recommended(ctx, r, p, e); err != nil {
			return nil, err
		}
	}
	out := &Invite{Event: e, Version: r.Version}
	out.Stripped, err = r.Stripped(ctx, sender)
	return out, err
}

// Stripped gives the stripped state of the room as events in the format between servers, with the member event of inviter where he has one.
func (r *Room) Stripped(ctx context.Context, inviter string) (out []json.RawMessage, err error) {
	head := r.Head()
	add := func(typ, key string) {
		if err != nil {
			return
		}
		var e *Stored
		if e, err = r.State(ctx, head, typ, key); e != nil {
			out = append(out, e.JSON())
		}
	}
	for _, typ := range strippedTypes {
		add(typ, "")
	}
	if inviter != "" {
		add("m.room.member", inviter)
	}
	return out, err
}

// SendSigned puts an event that we built, and another server signed too, into its room, and sends it to the other servers there.
// Errors: M_FORBIDDEN when the room does not allow it any more.
func (s *Service) SendSigned(ctx context.Context, e *event.Event) error {
	status, err := s.insertAll(ctx, e.RoomID(), []*event.Event{e}, entry{relay: true})
	if err == nil && status[0] != storage.StatusOK {
		err = signalling.Forbidden("the room does not allow this")
	}
	return err
}

// TakeInvite accepts an invite that another server sent for one of our users (PUT /invite) and gives it with our signature. Where this
// server is in the room, the invite comes into it with the other events; otherwise the user is told now, with the stripped state.
// The caller has checked the signatures, and that the target has an account. Errors: M_INVALID_PARAM, M_FORBIDDEN, M_INVITE_BLOCKED.
func (s *Service) TakeInvite(ctx context.Context, e *event.Event, stripped []json.RawMessage) (*event.Event, error) {
	if e.Type() != "m.room.member" || e.Membership() != "invite" || e.StateKey() == nil || event.ServerOf(*e.StateKey()) != s.signer.Server {
		return nil, signalling.InvalidParam("this is no invite of one of our users")
	}
	if event.ServerOf(e.Sender()) == s.signer.Server {
		return nil, signalling.InvalidParam("our own users do not need another server to invite")
	}
	if err := s.MayInvite(ctx, *e.StateKey(), e.Sender()); err != nil {
		return nil, err
	}
	signed, err := e.Sign(s.signer)
	if err != nil {
		return nil, err
	}
	r, err := s.known(ctx, e.RoomID(), e.Version())
	if err != nil {
		return nil, err
	}
	if r.Head().resident(s.signer.Server) {
		if r.Head().IsJoined(*e.StateKey()) {
			return nil, signalling.Forbidden("%s is in this room already", *e.StateKey())
		}
		return signed, nil
	}
	return signed, s.outside(ctx, signed, cleanStripped(e.Version(), stripped))
}

// TakeKnock notes that another server has taken a knock of one of our users; stripped is its knock_room_state.
func (s *Service) TakeKnock(ctx context.Context, e *event.Event, stripped []json.RawMessage) error {
	if e.Membership() != "knock" || e.StateKey() == nil || *e.StateKey() != e.Sender() || event.ServerOf(e.Sender()) != s.signer.Server {
		return signalling.InvalidParam("this is no knock of one of our users")
	}
	return s.outside(ctx, e, cleanStripped(e.Version(), stripped))
}

// TakeLeave notes that an invite or a knock of one of our users, to a room that this server is not in, has come to an end: by an event of
// the user that another server has taken (send_leave), or by one of whoever takes the invite back or refuses the knock (a PDU). The
// caller has checked the signatures. Errors: M_NOT_FOUND when there was nothing to end, M_FORBIDDEN when it was not the sender's to end.
func (s *Service) TakeLeave(ctx context.Context, e *event.Event) error {
	if m := e.Membership(); m != "leave" && m != "ban" || e.StateKey() == nil || event.ServerOf(*e.StateKey()) != s.signer.Server {
		return signalling.InvalidParam("this does not end a membership of one of our users")
	}
	r, err := s.Room(ctx, e.RoomID())
	if err != nil {
		return err
	}
	own, err := r.State(ctx, r.Head(), "m.room.member", *e.StateKey())
	if err != nil {
		return err
	}
	if own == nil || own.Membership() != "invite" && own.Membership() != "knock" || r.Head().resident(s.signer.Server) {
		return signalling.NotFound("there is no invite and no knock of %s outside of a room", *e.StateKey())
	}
	if e.Sender() != *e.StateKey() && own.Membership() == "invite" && e.Sender() != own.Sender() {
		return signalling.Forbidden("only who invited may take the invite back: nothing else is known of the room")
	}
	if e.Sender() != *e.StateKey() && e.Depth() < own.Depth() {
		return signalling.NotFound("event %s came before the invite or knock that stands: it ended an earlier one", e.ID())
	}
	if e.Version() != r.Version {
		return signalling.InvalidParam("event %s is not of room %s", e.ID(), r.ID)
	}
	return s.outside(ctx, e, nil)
}

// DropInvite ends an invite or a knock of a local user to a room that this server is not in, without asking anybody: for when no other
// server can be reached. Errors: M_NOT_FOUND when there is none.
func (s *Service) DropInvite(ctx context.Context, roomID, user, reason string) error {
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return err
	}
	own, err := r.State(ctx, r.Head(), "m.room.member", user)
	if err != nil {
		return err
	}
	if own == nil || own.Membership() != "invite" && own.Membership() != "knock" || r.Head().resident(s.signer.Server) {
		return signalling.NotFound("there is no invite and no knock of %s outside of a room", user)
	}
	content, err := s.MemberContent(ctx, user, "leave", reason, nil)
	if err != nil {
		return err
	}
	e, err := event.BuildOn(r.Version, event.Proto{RoomID: r.ID, Sender: user, Type: "m.room.member", StateKey: &user, Content: content}, []string{own.ID()}, []string{own.ID()}, own.Depth()+1, s.signer, s.clock.Now())
	if err != nil {
		return err
	}
	return s.outside(ctx, e, nil)
}

// outside makes a member event of a local user the newest word on a room that this server is not in.
func (s *Service) outside(ctx context.Context, e *event.Event, stripped []json.RawMessage) error {
	for try := 0; ; try++ {
		r, err := s.known(ctx, e.RoomID(), e.Version())
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		if err = r.outside(ctx, e, stripped, done); err == nil {
			select {
			case err = <-done:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if (errors.Is(err, errStale) || errors.Is(err, storage.ErrConflict)) && s.again(ctx, try) {
			continue
		}
		return err
	}
}

func (r *Room) outside(ctx context.Context, e *event.Event, stripped []json.RawMessage, done chan error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.poisoned.Load() {
		return errStale
	}
	r.used = r.s.clock.Now()
	if r.next.resident(r.s.signer.Server) { // somebody has joined meanwhile: the room itself tells
		done <- nil
		return nil
	}
	there, err := r.s.byEventID(ctx, r, e.ID())
	if err != nil {
		return err
	}
	k := e.Key()
	old, _ := r.next.state.get(k)
	p := planned{foreign: true}
	switch x := there[e.ID()]; {
	case x != nil && old.NID == x.NID:
		done <- nil // the same once more
		return nil
	case x != nil: // known of old: only the word on it is new
		p.stays = true
		st := *x
		st.Status = storage.StatusOutlier // nobody is shown it again
		p.stored = &st
	default:
		nid, err := r.nid(ctx, 0)
		if err != nil {
			return err
		}
		p.stored = &Stored{Event: e, NID: nid, Status: storage.StatusOutlier}
	}
	head := *r.next
	head.pos = 0
	if head.outside = e.Membership() == "invite" || e.Membership() == "knock"; !head.outside {
		if head.outside, err = r.s.store.AnyInvite(ctx, r.NID, k.StateKey); err != nil {
			return err
		}
	}
	ref := Ref{p.stored.NID, e.ID()}
	head.state = head.state.with(map[event.Key]Ref{k: ref})
	head.members = head.members.with(k.StateKey, e.Membership())
	p.after = &head
	p.changes = []Change{{Key: k, New: ref, Old: old}}
	r.s.pending.addEvent(p.stored)
	raw, err := json.Marshal(stripped)
	if err != nil {
		return err
	}
	if stripped == nil {
		raw = []byte(`[]`)
	}
	err = r.enqueue([]planned{p}, func(tx *storage.Tx) error {
		if m := e.Membership(); m != "invite" && m != "knock" {
			return tx.DeleteInvite(k.StateKey, r.NID)
		}
		return tx.PutInvite(k.StateKey, r.NID, e.JSON(), raw)
	}, &head, func(err error) { done <- err })
	if err != nil {
		r.s.pending.drop([]planned{p})
	}
	return err
}

// StrippedFor gives the stripped state that came with the invite, or the answer to the knock, of a user to a room that this server is not
// in: events with type, state_key, sender and content. ok is false where the room itself is to be asked.
func (r *Room) StrippedFor(ctx context.Context, user string) (events []json.RawMessage, ok bool, err error) {
	if r.Here() {
		return nil, false, nil
	}
	raw, err := r.s.store.Invite(ctx, user, r.NID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return events, true, json.Unmarshal(raw, &events)
}

// cleanStripped keeps of another server's stripped state what a client can read: objects with type, state_key, sender and content, and
// in whole events the rest that clients are shown.
func cleanStripped(v event.Version, in []json.RawMessage) []json.RawMessage {
	out := []json.RawMessage{}
	for _, raw := range in {
		if len(out) == maxStripped {
			break
		}
		if len(raw) > maxStrippedSize || event.CheckJSON(raw) != nil {
			continue
		}
		x := gjson.ParseBytes(raw)
		e := map[string]json.RawMessage{}
		for _, f := range []struct {
			name string
			kind gjson.Type
		}{{"type", gjson.String}, {"state_key", gjson.String}, {"sender", gjson.String}, {"content", gjson.JSON}} {
			if val := x.Get(f.name); val.Type == f.kind && (f.kind != gjson.JSON || val.IsObject()) {
				e[f.name] = json.RawMessage(val.Raw)
			}
		}
		if len(e) != 4 {
			continue
		}
		if ts := x.Get("origin_server_ts"); ts.Type == gjson.Number {
			e["origin_server_ts"] = json.RawMessage(ts.Raw)
		}
		if full, err := event.Parse(v, raw); err == nil {
			e["event_id"], _ = json.Marshal(full.ID())
		}
		b, err := json.Marshal(e)
		if err == nil {
			out = append(out, b)
		}
	}
	return out
}
