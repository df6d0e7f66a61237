// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"strings"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// State is what a call in progress does.
type State string

// The states of a call in progress.
const (
	StateRinging  State = "ringing"
	StateActive   State = "active"   // answered
	StateDeclined State = "declined" // for the few seconds in which the caller may still choose another answer
)

// progress is a call in progress. Its fields are written by Run alone, under the lock of live.
type progress struct {
	key
	origin
	state    State
	caller   string
	callee   string
	invitee  string
	kind     callflow.Media
	started  time.Time
	answered time.Time
	glare    bool
	noted    bool // in calls_in_progress
}

// origin is where a call came from: its invite.
type origin struct {
	roomNID int64
	eventID string
	pos     int64
	sent    time.Time // not later than it was received
	named   bool      // the invitee is in the room, or invited to it
}

// live is the calls in progress, by room.
type live struct {
	mu    sync.RWMutex
	rooms map[string]map[string]*progress
}

func (l *live) init() { l.rooms = map[string]map[string]*progress{} }

func (l *live) find(room, id string) *progress { return l.rooms[room][id] }

func (l *live) add(p *progress) {
	if l.rooms[p.room] == nil {
		l.rooms[p.room] = map[string]*progress{}
	}
	l.rooms[p.room][p.id] = p
}

func (l *live) remove(p *progress) {
	if delete(l.rooms[p.room], p.id); len(l.rooms[p.room]) == 0 {
		delete(l.rooms, p.room)
	}
}

// observe puts an event into the tracker. head is the room after the event, or now; nil when it is not known.
func (s *Service) observe(e callflow.Event, roomNID, pos int64, head *rooms.Head) {
	facts := s.tracker.Observe(e)
	if len(facts) == 0 {
		return
	}
	o := &origin{roomNID: roomNID, eventID: e.EventID, pos: pos, sent: e.Sent}
	if e.Sent.IsZero() || e.Sent.After(e.Received) {
		o.sent = e.Received
	}
	if e.Type == callflow.TypeInvite {
		if invitee := facts[0].Other.UserID; invitee != "" && head != nil {
			m := head.Membership(invitee)
			o.named = m == "join" || m == "invite"
		}
	}
	s.take(facts, o)
}

// take writes down what has come to be true. o is the event behind it, nil when there is none.
func (s *Service) take(facts []callflow.Fact, o *origin) {
	if len(facts) == 0 {
		return
	}
	var stopped []key
	defer func() { // after the lock is given back
		for _, k := range stopped {
			s.stopped(k.room, k.id)
		}
	}()
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	missed := map[string]bool(nil)
	for i := range facts {
		f := &facts[i]
		p := s.live.find(f.RoomID, f.CallID)
		switch f.Kind {
		case callflow.Ringing:
			if o == nil {
				continue
			}
			s.live.add(&progress{key: key{f.RoomID, f.CallID}, origin: *o, state: StateRinging, caller: f.By.UserID, invitee: f.Other.UserID, kind: f.Media, started: o.sent})
			continue
		case callflow.Missed:
			if missed == nil {
				missed = map[string]bool{}
			}
			missed[f.RoomID+"\x00"+f.CallID] = true
			continue
		case callflow.Ended:
			if p == nil && o != nil {
				// The invite had lapsed on its way: it never rang.
				p = &progress{key: key{f.RoomID, f.CallID}, origin: *o}
			}
			if p != nil {
				s.finish(p, f.Record, missed[f.RoomID+"\x00"+f.CallID])
			}
			stopped = append(stopped, key{f.RoomID, f.CallID})
			continue
		}
		if p == nil {
			continue
		}
		if f.Media == callflow.Video {
			p.kind = callflow.Video
		}
		switch f.Kind {
		case callflow.Glare:
			p.glare = true
		case callflow.Answered:
			p.state, p.callee, p.answered = StateActive, f.By.UserID, f.At
			stopped = append(stopped, p.key)
		case callflow.Active:
			p.state, p.callee = StateActive, f.By.UserID
		case callflow.Declined:
			p.state, p.callee = StateDeclined, f.By.UserID
			stopped = append(stopped, p.key)
		}
	}
}

// finish makes the record of a call that has ended.
func (s *Service) finish(p *progress, r *callflow.Record, missed bool) {
	s.live.remove(p)
	s.ended.Add(p.key, struct{}{})
	row := storage.CallRecord{
		RoomNID: p.roomNID, CallID: clean(r.CallID), Caller: r.Caller.UserID, Callee: r.Answerer.UserID, Invitee: clean(r.Invitee), InviteID: p.eventID,
		Kind: string(r.Kind), Outcome: string(r.Outcome), Missed: missed, Reason: clean(r.Reason), Started: r.Started, Answered: r.Answered, Ended: r.Ended,
	}
	rec := record{row: row, glare: p.glare, noted: p.noted}
	for _, u := range []string{row.Caller, row.Callee, row.Invitee} {
		// Whoever is only named by a stranger does not find the call in his history.
		if u != "" && event.ServerOf(u) == s.Rooms.Server() && (u != row.Invitee || u == row.Callee || p.named) {
			rec.users = append(rec.users, u)
		}
	}
	s.facts = append(s.facts, rec)
}

// clean takes NUL out of what clients of other servers may send: PostgreSQL cannot store it.
func clean(text string) string { return strings.ReplaceAll(text, "\x00", "\uFFFD") }

// Ringing says whether a call waits for its first answer, for whoever is about to send a push. It is false for a call that was
// answered, declined or hung up, or that was never seen; but true for an unknown call while there are events that Run has not come
// to, so that the push of an invite is not lost to the race between the two.
func (s *Service) Ringing(roomID, callID string) bool {
	s.mu.Lock()
	unsure := s.behind || s.queued != s.taken.Load()
	s.mu.Unlock()
	s.live.mu.RLock()
	p := s.live.find(roomID, callID)
	ringing := p != nil && p.state == StateRinging
	s.live.mu.RUnlock()
	if p != nil {
		return ringing
	}
	return unsure && !s.ended.Contains(key{roomID, callID})
}

// Live says whether a call rings or is talked in, as far as is known.
func (s *Service) Live(roomID, callID string) bool {
	s.live.mu.RLock()
	defer s.live.mu.RUnlock()
	p := s.live.find(roomID, callID)
	return p != nil && p.state != StateDeclined
}

// noteLong notes the calls that have lasted so long that a restart would not find their invites.
func (s *Service) noteLong(now time.Time) {
	var long []storage.CallInProgress
	s.live.mu.Lock()
	for _, calls := range s.live.rooms {
		for _, p := range calls {
			if !p.noted && now.Sub(p.started) >= longCall {
				// Marked before the write is known to have succeeded: at worst one row is deleted that is not there.
				p.noted = true
				long = append(long, storage.CallInProgress{RoomNID: p.roomNID, CallID: clean(p.id), StartPos: p.pos})
			}
		}
	}
	s.live.mu.Unlock()
	if len(long) == 0 {
		return
	}
	if err := s.Store.Enqueue(func(tx *storage.Tx) error {
		for _, c := range long {
			if err := tx.NoteCallInProgress(c); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) {
		if err != nil {
			s.Log.Error("long calls could not be noted; after a restart they would have no record", "calls", len(long), "err", err)
		}
	}); err != nil {
		s.Log.Error("long calls could not be noted", "err", err)
	}
}
