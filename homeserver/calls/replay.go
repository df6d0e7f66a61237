// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"context"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

const (
	readBatch  = 500       // events in one read
	mostReplay = 1_000_000 // stream positions that a start looks back
)

// catchUp reads from the store what was not queued. False: it could not, or there is too much to write first; it is to be tried again.
func (s *Service) catchUp(ctx context.Context, now time.Time) bool {
	current, err := s.readOn(ctx, now)
	s.nextPoll = now.Add(pollEvery)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("events of calls could not be read; trying again", "err", err)
		}
		current = false
	}
	if !current {
		s.nextRead = now.Add(retryAfter) // or when something has been written
	}
	return current
}

func (s *Service) readOn(ctx context.Context, now time.Time) (current bool, err error) {
	for {
		s.mu.Lock()
		behind, from, to := s.behind, s.from, s.seen
		s.mu.Unlock()
		if behind && len(s.queue) > 0 {
			return false, nil // what is queued came first
		}
		if s.several {
			end, err := s.Store.StreamEnd(ctx)
			if err != nil {
				return false, err
			}
			to = max(to, end)
		}
		starting := behind && from < 0
		var long []storage.CallInProgress
		switch {
		case starting:
			if from, long, err = s.restore(ctx, to, now); err != nil {
				return false, err
			}
			s.at = from
		case behind:
			s.metrics.resyncs.Inc()
			from = max(from, s.at)
		default:
			from = s.at
		}
		// From here on a second try goes on where this one was interrupted.
		for from < to {
			if len(s.facts) > maxFacts {
				s.fellBehind(from)
				return false, nil
			}
			events, err := s.Store.CallEvents(ctx, from, to, readBatch)
			if err != nil {
				if !starting { // a start begins anew: the tracker does not mind what it has seen already
					s.fellBehind(from)
				}
				return false, err
			}
			s.replay(ctx, events)
			if len(events) < readBatch {
				break
			}
			from = events[len(events)-1].Pos
		}
		s.at = max(s.at, to)
		if starting {
			s.settle(long)
		}
		s.mu.Lock()
		s.look = false
		if !behind && !s.behind {
			s.mu.Unlock()
			return true, nil
		}
		if s.seen <= s.at {
			s.behind, s.from = false, 0
			s.mu.Unlock()
			return true, nil
		}
		s.from = s.at
		s.mu.Unlock()
	}
}

// fellBehind has the next try read from a position on.
func (s *Service) fellBehind(from int64) {
	s.at = max(s.at, from)
	s.mu.Lock()
	s.behind, s.from = true, from
	s.mu.Unlock()
}

// replay puts stored events into the tracker, each at the time that its server wrote on it, if that is
// not in the future: the store does not know when it came.
func (s *Service) replay(ctx context.Context, events []storage.CallEvent) {
	now := s.Clock.Now() // after the read: none of them is younger
	for i := range events {
		e := &events[i]
		at := time.UnixMilli(e.OriginTS)
		if at.After(now) {
			at = now
		}
		content := gjson.GetBytes(e.JSON, "content")
		if e.Type == "m.room.member" {
			switch content.Get("membership").Str {
			case "leave", "ban":
				s.take(s.tracker.Leave(e.RoomID, e.StateKey, at), nil)
			}
			continue
		}
		var head *rooms.Head
		if e.Type == callflow.TypeInvite {
			if r, err := s.Rooms.Room(ctx, e.RoomID); err == nil {
				head = r.Head()
			}
		}
		s.observe(callflow.Event{
			RoomID: e.RoomID, EventID: e.ID, Sender: e.Sender, DeviceID: e.Device, Type: e.Type, Content: []byte(content.Raw),
			Sent: time.UnixMilli(e.OriginTS), Received: at,
		}, e.RoomNID, e.Pos, head)
	}
}

// restore reads the calls that were in progress long before the start, and gives the position from which all rooms are to be read.
func (s *Service) restore(ctx context.Context, to int64, now time.Time) (from int64, long []storage.CallInProgress, err error) {
	if from, err = s.Store.PosAtTime(ctx, to, now.Add(-replayTime).UnixMilli(), mostReplay); err != nil {
		return 0, nil, err
	}
	if long, err = s.Store.CallsInProgress(ctx); err != nil {
		return 0, nil, err
	}
	first := map[int64]int64{}
	for _, c := range long {
		if old, ok := first[c.RoomNID]; !ok || c.StartPos < old {
			first[c.RoomNID] = c.StartPos
		}
	}
	for room, start := range first {
		for pos := start - 1; pos < from; {
			events, err := s.Store.RoomCallEvents(ctx, room, pos, from, readBatch)
			if err != nil {
				return 0, nil, err
			}
			s.replay(ctx, events)
			if len(events) < readBatch {
				break
			}
			pos = events[len(events)-1].Pos
		}
	}
	return from, long, nil
}

// settle ties the notes of long calls to the calls that were found again, so that each note goes with its call. Notes of calls that
// left no trace go now.
func (s *Service) settle(long []storage.CallInProgress) {
	if len(long) == 0 {
		return
	}
	type id struct {
		room int64
		call string
	}
	known := map[id]*bool{}
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	for _, calls := range s.live.rooms {
		for _, p := range calls {
			known[id{p.roomNID, clean(p.id)}] = &p.noted
		}
	}
	for i := range s.facts {
		known[id{s.facts[i].row.RoomNID, s.facts[i].row.CallID}] = &s.facts[i].noted
	}
	var lost []storage.CallInProgress
	for _, c := range long {
		if noted := known[id{c.RoomNID, c.CallID}]; noted != nil {
			*noted = true
		} else {
			lost = append(lost, c)
		}
	}
	if len(lost) == 0 {
		return
	}
	if err := s.Store.Enqueue(func(tx *storage.Tx) error {
		for _, c := range lost {
			if err := tx.ForgetCallInProgress(c.RoomNID, c.CallID); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) {
		if err != nil {
			s.Log.Warn("notes of long calls could not be deleted", "calls", len(lost), "err", err)
		}
	}); err != nil {
		s.Log.Warn("notes of long calls could not be deleted", "err", err)
	}
}
