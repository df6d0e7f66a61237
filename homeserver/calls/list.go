// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// Call is a call as one user sees it. Times are in milliseconds since 1970.
type Call struct {
	CallID    string `json:"call_id"`
	RoomID    string `json:"room_id"`
	Caller    string `json:"caller"`
	Callee    string `json:"callee,omitempty"` // who took it, else who declined it, else whom the invite names
	Direction string `json:"direction"`        // outgoing: the user is the caller; else incoming
	Kind      string `json:"kind"`             // audio, video
	// Outcome is that of the record (callflow.Outcome), but for an incoming call that stopped ringing before anybody took or declined
	// it: that is "missed", whatever the caller's reason. For a call in progress it is "ringing" or "active".
	Outcome    string `json:"outcome"`
	Reason     string `json:"reason,omitempty"`
	Started    int64  `json:"started_ts"`
	Answered   int64  `json:"answered_ts,omitempty"`
	Ended      int64  `json:"ended_ts,omitempty"`
	DurationMS int64  `json:"duration_ms"` // from the answer to the end, or until now
	// Group says that it is a group call: anybody in the room may join. Participants are those who were in it, or are in it now; Answered
	// is when a second one came.
	Group        bool     `json:"group,omitempty"`
	Participants []string `json:"participants,omitempty"`
}

const (
	outgoing  = "outgoing"
	incoming  = "incoming"
	lookLimit = 500 // records read for one page, past those that the user may not see
)

// Query asks for the calls of a user.
type Query struct {
	User      string
	RoomID    string // "" for all rooms
	Outcome   string // "" for all
	From      string // where the page before ended
	Ascending bool   // oldest first; otherwise newest first
	Limit     int    // calls in the answer, 1 or more
}

// Outcomes are the values that Query.Outcome may have.
func Outcomes() []string {
	return []string{
		string(callflow.OutcomeAnswered), string(callflow.OutcomeMissed), string(callflow.OutcomeDeclined),
		string(callflow.OutcomeBusy), string(callflow.OutcomeFailed), string(callflow.OutcomeCancelled),
	}
}

// List gives the records that a user may read: of calls that the user made, took or declined, or was named in while in the room, and
// in rooms that the user is joined to now, those of calls to nobody by name whose invite the user may see (client-server API, "Room
// History Visibility"). next is empty when there are no more. Errors: M_FORBIDDEN for a room that the user has never been in,
// M_INVALID_PARAM for a From or an Outcome that cannot be.
func (s *Service) List(ctx context.Context, q Query) (calls []Call, next string, err error) {
	if q.Outcome != "" && !slices.Contains(Outcomes(), q.Outcome) {
		return nil, "", signalling.InvalidParam("outcome must be one of %s", strings.Join(Outcomes(), ", "))
	}
	at, err := parseCursor(q.From, q.Ascending)
	if err != nil {
		return nil, "", err
	}
	sq := storage.CallQuery{User: q.User, Outcome: q.Outcome, Ascending: q.Ascending}
	if q.RoomID != "" {
		room, _, err := s.room(ctx, q.User, q.RoomID)
		if err != nil {
			return nil, "", err
		}
		sq.RoomNID = room.NID
	}
	calls = []Call{}
	for looked := 0; ; {
		sq.FromTS, sq.FromID, sq.Limit = at.ts, at.id, q.Limit-len(calls)+1
		rows, err := s.Store.Calls(ctx, sq)
		if err != nil {
			return nil, "", err
		}
		for i := range rows {
			if len(calls) == q.Limit || looked >= lookLimit {
				return calls, at.String(), nil
			}
			looked++
			c := &rows[i]
			at = cursor{c.Started, c.ID}
			ok, err := s.visible(ctx, q.User, c)
			if err != nil {
				return nil, "", err
			}
			if ok {
				calls = append(calls, seen(q.User, c))
			}
		}
		if len(rows) < sq.Limit {
			return calls, "", nil
		}
	}
}

// room finds a room that a user is or was in.
func (s *Service) room(ctx context.Context, user, id string) (*rooms.Room, string, error) {
	room, err := s.Rooms.Room(ctx, id)
	if err == rooms.ErrNoRoom {
		return nil, "", signalling.Forbidden("you are not in this room")
	}
	if err != nil {
		return nil, "", err
	}
	all, err := s.Rooms.UserRooms(ctx, user)
	if err != nil {
		return nil, "", err
	}
	switch m := all[room.ID]; {
	case m.Membership == "join", (m.Membership == "leave" || m.Membership == "ban") && !m.Forgotten:
		return room, m.Membership, nil
	}
	return nil, "", signalling.Forbidden("you are not in this room")
}

func (s *Service) visible(ctx context.Context, user string, c *storage.CallRow) (bool, error) {
	if c.Own {
		return true, nil
	}
	if c.InviteID == "" {
		return false, nil // only the SFU saw it: it is of those who took part
	}
	room, err := s.Rooms.Room(ctx, c.RoomID)
	if err != nil {
		return false, err
	}
	invite, err := room.Event(ctx, c.InviteID)
	if err != nil || invite == nil {
		return false, err
	}
	return room.Visible(ctx, invite, user)
}

func seen(user string, c *storage.CallRow) Call {
	out := Call{
		CallID: c.CallID, RoomID: c.RoomID, Caller: c.Caller, Callee: c.Callee, Direction: outgoing, Kind: c.Kind, Outcome: c.Outcome,
		Reason: c.Reason, Started: c.Started, Answered: c.Answered, Ended: c.Ended, Group: c.CallRecord.Group(), Participants: c.People,
	}
	if out.Callee == "" {
		out.Callee = c.Invitee
	}
	if c.Caller != user {
		out.Direction = incoming
		if c.Missed {
			out.Outcome = string(callflow.OutcomeMissed)
		}
	}
	if c.Answered > 0 {
		out.DurationMS = c.Ended - c.Answered
	}
	return out
}

// InProgress gives the calls that ring or are talked in now and that the user may know of, newest first: those the user is a party
// of, and in rooms that the user is joined to those to nobody by name. Errors: M_FORBIDDEN as List.
func (s *Service) InProgress(ctx context.Context, user, roomID string) ([]Call, error) {
	now := s.Clock.Now()
	all, err := s.Rooms.UserRooms(ctx, user)
	if err != nil {
		return nil, err
	}
	if roomID != "" {
		if _, _, err := s.room(ctx, user, roomID); err != nil {
			return nil, err
		}
	}
	out := []Call{}
	if s.Groups != nil {
		out = append(out, s.Groups.inProgress(user, func(room string) bool { return (roomID == "" || room == roomID) && all[room].Membership == "join" }, now)...)
	}
	s.live.mu.RLock()
	defer s.live.mu.RUnlock()
	in := func(room string) {
		for _, p := range s.live.rooms[room] {
			if p.state == StateDeclined || !p.concerns(user, all[room].Membership == "join") {
				continue
			}
			c := Call{
				CallID: p.id, RoomID: p.room, Caller: p.caller, Callee: p.callee, Direction: outgoing, Kind: string(p.kind), Outcome: string(p.state),
				Started: p.started.UnixMilli(),
			}
			if c.Callee == "" {
				c.Callee = p.invitee
			}
			if p.caller != user {
				c.Direction = incoming
			}
			if !p.answered.IsZero() {
				c.Answered = p.answered.UnixMilli()
				c.DurationMS = max(0, now.Sub(p.answered).Milliseconds())
			}
			out = append(out, c)
		}
	}
	switch {
	case roomID != "":
		in(roomID)
	case len(all) < len(s.live.rooms):
		for room := range all {
			in(room)
		}
	default:
		for room := range s.live.rooms {
			in(room)
		}
	}
	slices.SortFunc(out, func(a, b Call) int {
		if a.Started != b.Started {
			return int(max(-1, min(1, b.Started-a.Started)))
		}
		return strings.Compare(a.RoomID+a.CallID, b.RoomID+b.CallID)
	})
	return out, nil
}

// concerns says whether a user may know of the call.
func (p *progress) concerns(user string, joined bool) bool {
	return p.caller == user || p.callee == user || (p.invitee == user && p.named) || (p.invitee == "" && joined)
}

// cursor is a place in a list: behind one call.
type cursor struct{ ts, id int64 }

func (c cursor) String() string {
	return strconv.FormatInt(c.ts, 10) + "_" + strconv.FormatInt(c.id, 10)
}

func parseCursor(text string, ascending bool) (cursor, error) {
	if text == "" {
		if ascending {
			return cursor{math.MinInt64, 0}, nil
		}
		return cursor{math.MaxInt64, 0}, nil
	}
	ts, id, _ := strings.Cut(text, "_")
	var c cursor
	var err error
	if c.ts, err = strconv.ParseInt(ts, 10, 64); err == nil {
		c.id, err = strconv.ParseInt(id, 10, 64)
	}
	if err != nil {
		return c, signalling.InvalidParam("from must be the next of an earlier answer")
	}
	return c, nil
}
