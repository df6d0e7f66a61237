// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of a transaction ("Transactions").
const (
	MaxPDUs        = 50
	MaxEDUs        = 100
	MaxTransaction = (MaxPDUs+MaxEDUs)*event.MaxSize + 1<<20 // bytes
	maxTxnID       = 512                                     // bytes
	txnWait        = 20 * time.Second                        // for the rooms; what takes longer goes on after the answer
)

// EDUHandler takes one EDU of a server. What it refuses is logged and forgotten: an EDU has no answer.
type EDUHandler func(ctx context.Context, origin string, content json.RawMessage) error

// HandleEDU says what is done with EDUs of a type. Call it before the first request.
func (s *Service) HandleEDU(typ string, h EDUHandler) { s.edus[typ] = h }

// outcome is what became of one PDU.
type outcome struct {
	Error string `json:"error,omitempty"`
}

// Transaction takes in what another server sends (PUT /send) and gives the answer, one outcome for each PDU. A transaction that comes
// again gets the answer that it got. Errors: M_INVALID_PARAM, M_BAD_JSON, M_LIMIT_EXCEEDED.
func (s *Service) Transaction(ctx context.Context, origin, txn string, body []byte) (json.RawMessage, error) {
	if len(txn) > maxTxnID {
		return nil, signalling.InvalidParam("a transaction id may have %d bytes", maxTxnID)
	}
	c := s.txns.DoChan(origin+"\n"+txn, func() (any, error) {
		return s.transaction(context.WithoutCancel(ctx), origin, txn, body)
	})
	select {
	case r := <-c:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(json.RawMessage), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Service) transaction(ctx context.Context, origin, txn string, body []byte) (json.RawMessage, error) {
	old, err := s.Store.FederationTxn(ctx, origin, txn)
	if err == nil {
		return old, nil
	}
	if !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	var in struct {
		PDUs []json.RawMessage `json:"pdus"`
		EDUs []json.RawMessage `json:"edus"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, signalling.BadJSON("a transaction holds lists of pdus and edus").Because(err)
	}
	if len(in.PDUs) > MaxPDUs || len(in.EDUs) > MaxEDUs {
		return nil, signalling.InvalidParam("a transaction may hold %d PDUs and %d EDUs", MaxPDUs, MaxEDUs)
	}
	s.Keys.Forgive(origin)
	if s.Alive != nil {
		s.Alive(origin)
	}
	results, err := s.pdus(ctx, origin, in.PDUs)
	if err != nil {
		return nil, err
	}
	for _, raw := range in.EDUs {
		s.edu(ctx, origin, raw)
	}
	answer, err := json.Marshal(map[string]any{"pdus": results})
	if err != nil {
		return nil, err
	}
	now := s.Clock.Now().UnixMilli()
	return answer, s.Store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertFederationTxn(origin, txn, now, answer) })
}

func (s *Service) edu(ctx context.Context, origin string, raw json.RawMessage) {
	var in struct {
		Type    string          `json:"edu_type"`
		Content json.RawMessage `json:"content"`
	}
	err := json.Unmarshal(raw, &in)
	h := s.edus[in.Type]
	if err == nil && h == nil {
		return // of a kind that we do not know
	}
	if err == nil && len(raw) > event.MaxSize {
		err = errors.New("larger than an event may be")
	}
	if err == nil {
		err = h(ctx, origin, in.Content)
	}
	if err != nil {
		s.Log.Debug("an EDU was dropped", "from", origin, "type", in.Type, "err", err)
	}
}

// pdus sorts PDUs by room and waits for the rooms.
func (s *Service) pdus(ctx context.Context, origin string, raw []json.RawMessage) (map[string]outcome, error) {
	results := map[string]outcome{}
	byRoom := map[string][]*event.Event{}
	size := map[string]int64{}
	for _, x := range raw {
		e, err := s.read(ctx, origin, x)
		if e == nil {
			s.Log.Debug("a PDU was dropped", "from", origin, "err", err)
			continue
		}
		if err != nil {
			results[e.ID()] = outcome{refusalText(err)}
			continue
		}
		byRoom[e.RoomID()] = append(byRoom[e.RoomID()], e)
		size[e.RoomID()] += int64(len(x))
	}
	waiting, cancel := context.WithTimeout(ctx, txnWait)
	defer cancel()
	var jobs []*job
	for room, events := range byRoom {
		j := &job{origin: origin, room: room, events: events, size: size[room], done: make(chan struct{})}
		if err := s.lanes.put(waiting, j); err != nil {
			return nil, signalling.LimitExceeded(10 * time.Second).Because(err)
		}
		jobs = append(jobs, j)
	}
	for _, j := range jobs {
		select {
		case <-j.done:
			if j.failed != nil {
				return nil, j.failed
			}
			for id, err := range j.results {
				results[id] = outcome{refusalText(err)}
			}
		case <-waiting.Done(): // the room goes on by itself
			for _, e := range j.events {
				results[e.ID()] = outcome{}
			}
		}
	}
	return results, nil
}

// refusalText is what the other server is told of an error.
func refusalText(err error) string {
	if err == nil {
		return ""
	}
	return signalling.AsError(err).Message
}

// read parses one PDU, finds its room and checks that the server may speak there. The event is nil where not even its id is known.
func (s *Service) read(ctx context.Context, origin string, raw json.RawMessage) (*event.Event, error) {
	if len(raw) > 2*event.MaxSize {
		return nil, signalling.TooLarge("an event may have %d bytes", event.MaxSize)
	}
	id := gjson.GetBytes(raw, "room_id").Str
	r, err := s.Rooms.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	e, err := event.Parse(r.Version, raw)
	if err != nil {
		return nil, err
	}
	if e.RoomID() != r.ID {
		return nil, signalling.BadJSON("an event of two rooms")
	}
	return e, r.Allows(ctx, origin)
}

// place brings events of one room into it, in an order in which each comes after those that it builds on. An error is one of ours; the
// results are by event.
func (s *Service) place(ctx context.Context, origin, roomID string, events []*event.Event) (map[string]error, error) {
	results := make(map[string]error, len(events))
	good := s.verified(ctx, origin, events)
	for _, e := range events {
		results[e.ID()] = unauthorised("the event is not signed as it should be")
	}
	for _, e := range good {
		results[e.ID()] = nil
	}
	r, err := s.Rooms.Room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	if !r.Here() {
		for _, e := range good {
			results[e.ID()] = s.outside(ctx, e)
		}
		return results, nil
	}
	todo := inOrder(good)
	tried := map[string]bool{}
	for len(todo) > 0 {
		_, err := s.Rooms.Insert(ctx, roomID, todo)
		if err == nil {
			return results, nil
		}
		var missing *rooms.Missing
		if !errors.As(err, &missing) {
			if refused := (*signalling.Error)(nil); !errors.As(err, &refused) || refused.Status >= 500 {
				return nil, err
			}
			if len(todo) == 1 {
				results[todo[0].ID()] = err
				return results, nil
			}
			return results, s.oneByOne(ctx, origin, roomID, todo, results)
		}
		i := indexOf(todo, missing.Event)
		if i < 0 {
			return nil, err
		}
		if i > 0 { // nothing of the batch went in; what stands before the gap does now
			if _, err := s.Rooms.Insert(ctx, roomID, todo[:i]); err != nil {
				return nil, err
			}
		}
		e := todo[i]
		todo = todo[i:]
		if tried[e.ID()] {
			results[e.ID()] = err
			todo = todo[1:]
			continue
		}
		tried[e.ID()] = true
		if err := s.fill(ctx, origin, r, e, missing.IDs); err != nil {
			s.Log.Info("what an event builds on could not be had", "from", origin, "room", roomID, "event", e.ID(), "err", err)
			results[e.ID()] = nil // it is not refused: should another event build on it, it is asked for again
			todo = todo[1:]
		}
	}
	return results, nil
}

// oneByOne finds out which events of a batch are refused.
func (s *Service) oneByOne(ctx context.Context, origin, roomID string, events []*event.Event, results map[string]error) error {
	for _, e := range events {
		one, err := s.place(ctx, origin, roomID, []*event.Event{e})
		if err != nil {
			return err
		}
		results[e.ID()] = one[e.ID()]
	}
	return nil
}

// outside takes the only events that matter of a room which this server is not in: those that end an invite or a knock.
func (s *Service) outside(ctx context.Context, e *event.Event) error {
	if m := e.Membership(); m == "leave" || m == "ban" {
		return s.Rooms.TakeLeave(ctx, e)
	}
	return signalling.NotFound("this server is not in that room")
}

func indexOf(events []*event.Event, id string) int {
	for i, e := range events {
		if e.ID() == id {
			return i
		}
	}
	return -1
}

// inOrder puts each event behind those of the list that it builds on; events that build on one another in a circle are left out.
func inOrder(events []*event.Event) []*event.Event {
	byID := make(map[string]*event.Event, len(events))
	for _, e := range events {
		byID[e.ID()] = e
	}
	const open, done, bad = 1, 2, 3
	mark := make(map[string]int, len(events))
	out := make([]*event.Event, 0, len(events))
	var visit func(e *event.Event) bool
	visit = func(e *event.Event) bool { // as deep as a batch is long
		switch mark[e.ID()] {
		case done:
			return true
		case open, bad:
			return false
		}
		mark[e.ID()] = open
		for _, id := range e.PrevIDs() {
			if p := byID[id]; p != nil && !visit(p) {
				mark[e.ID()] = bad
				return false
			}
		}
		mark[e.ID()] = done
		out = append(out, e)
		return true
	}
	for _, e := range events {
		visit(e)
	}
	return out
}
