// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// Groups keeps the records of group calls: from membership events that are not encrypted, and from the SFU, which sees who comes and
// goes in encrypted rooms too. What goes on is noted in the store at each change, so that a restart ends no call and begins none twice.
type Groups struct {
	store *storage.Store
	rooms *rooms.Service
	clock signalling.Clock
	log   *slog.Logger
	ended *prometheus.CounterVec

	mu    sync.Mutex // held for a few instructions only: the store's writer and the SFU wait for it
	calls *matrixrtc.Calls
	dirty map[[2]string]bool // room and slot of calls that are to be noted
	wake  chan struct{}
}

// NewGroups makes the service. Connect Observe to the store, Arrived and Departed to the SFU, and run Run. metrics may be nil.
func NewGroups(store *storage.Store, r *rooms.Service, clock signalling.Clock, log *slog.Logger, metrics prometheus.Registerer) *Groups {
	g := &Groups{
		store: store, rooms: r, clock: clock, log: log, calls: matrixrtc.NewCalls(), dirty: map[[2]string]bool{}, wake: make(chan struct{}, 1),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trunkboard_group_calls_total", Help: "Group calls that have ended, by outcome."}, []string{"outcome"}),
	}
	if metrics != nil {
		metrics.MustRegister(g.ended, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "trunkboard_group_calls_active", Help: "Group calls that go on."}, func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return float64(g.calls.Len())
		}))
	}
	return g
}

// Observe takes the notes of a commit. It never waits.
func (g *Groups) Observe(_ int64, notes []storage.Note) {
	for i := range notes {
		c, ok := notes[i].Value.(*rooms.Committed)
		if !ok {
			continue
		}
		if c.Stored.Status == storage.StatusOK && matrixrtc.IsMember(c.Stored.Type()) {
			g.take(c.Room.ID, c.Stored)
		}
		for _, ch := range c.Changes {
			if left(c, ch) {
				g.change(func(now time.Time) bool { return g.calls.Left(c.Room.ID, ch.Key.StateKey, now) }, c.Room.ID, "")
			}
		}
	}
}

// take reads a membership event.
func (g *Groups) take(roomID string, e *rooms.Stored) {
	m := matrixrtc.MemberEvent{
		RoomID: roomID, EventID: e.ID(), Type: e.Type(), Sender: e.Sender(), StateKey: e.StateKey(), Content: e.Content(), Sent: time.UnixMilli(e.OriginTS()), Received: g.clock.Now(),
	}
	s, gone, ok := matrixrtc.ReadMember(m)
	if !ok {
		return
	}
	g.change(func(now time.Time) bool {
		if gone {
			return g.calls.Gone(s.RoomID, s.SlotID, s.Source, now)
		}
		return g.calls.Here(s, now)
	}, s.RoomID, s.SlotID)
}

// Arrived says that a user's device is in the SFU. It never waits.
func (g *Groups) Arrived(roomID, slotID, userID, session string, at time.Time) {
	if !strings.HasPrefix(slotID, "m.call#") {
		return
	}
	g.change(func(now time.Time) bool {
		return g.calls.Here(matrixrtc.Sign{RoomID: roomID, SlotID: slotID, UserID: userID, Source: "media " + session, At: at, Audio: true}, now)
	}, roomID, slotID)
}

// Departed says that it has left. It never waits.
func (g *Groups) Departed(roomID, slotID, session string, _ time.Time) {
	g.change(func(now time.Time) bool { return g.calls.Gone(roomID, slotID, "media "+session, now) }, roomID, slotID)
}

// change changes the calls. slotID is "" when any of the room's may have changed.
func (g *Groups) change(f func(now time.Time) bool, roomID, slotID string) {
	g.mu.Lock()
	changed := f(g.clock.Now())
	if changed && slotID != "" {
		g.dirty[[2]string{roomID, slotID}] = true
	}
	g.mu.Unlock()
	if changed {
		g.nudge()
	}
}

func (g *Groups) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Run notes and records calls until ctx ends.
func (g *Groups) Run(ctx context.Context) error {
	if err := g.restore(ctx); err != nil && ctx.Err() == nil {
		g.log.Error("group calls from before the start could not be read", "err", err)
	}
	for {
		next, err := g.step(ctx)
		if err != nil && ctx.Err() == nil {
			g.log.Error("group calls could not be written; trying again", "err", err)
			next = g.clock.Now().Add(retryAfter)
		}
		stop := func() bool { return true }
		if !next.IsZero() {
			stop = g.clock.AfterFunc(max(0, next.Sub(g.clock.Now())), g.nudge)
		}
		select {
		case <-ctx.Done():
			stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrites)
			defer cancel()
			_, err := g.step(last)
			return err
		case <-g.wake:
		}
		stop()
	}
}

// restore takes back the calls that went on before a restart, with the memberships that their rooms have now.
func (g *Groups) restore(ctx context.Context) error {
	rows, err := g.store.GroupCalls(ctx)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, c := range rows {
		call := matrixrtc.Call{
			ID: c.CallID, RoomID: c.RoomID, SlotID: c.SlotID, EventID: c.EventID, Starter: c.Starter, Audio: c.Audio, Started: time.UnixMilli(c.Started), People: c.People,
		}
		if c.Answered > 0 {
			call.Answered = time.UnixMilli(c.Answered)
		}
		g.mu.Lock()
		g.calls.Restore(call, time.UnixMilli(c.Seen))
		g.mu.Unlock()
		if seen[c.RoomID] {
			continue
		}
		seen[c.RoomID] = true
		room, err := g.rooms.Room(ctx, c.RoomID)
		if err != nil {
			return err
		}
		var refs []rooms.Ref
		room.Head().Each(func(k event.Key, ref rooms.Ref) {
			if matrixrtc.IsMember(k.Type) {
				refs = append(refs, ref)
			}
		})
		members, err := room.ByRefs(ctx, refs)
		if err != nil {
			return err
		}
		for _, m := range members {
			if room.Head().IsJoined(m.Sender()) {
				g.take(c.RoomID, m)
			}
		}
	}
	return nil
}

// step writes what has changed, and says when there is more to do.
func (g *Groups) step(ctx context.Context) (next time.Time, err error) {
	now := g.clock.Now()
	g.mu.Lock()
	over, next := g.calls.Expire(now)
	dirty := g.dirty
	g.dirty = map[[2]string]bool{}
	var live []matrixrtc.Call
	for k := range dirty {
		if c, ok := g.calls.Find(k[0], k[1]); ok {
			live = append(live, c)
		}
	}
	g.mu.Unlock()
	for i := range over {
		if err := g.record(ctx, &over[i]); err != nil {
			g.again(over[i:], live)
			return next, err
		}
	}
	for i := range live {
		if err := g.note(ctx, &live[i], now); err != nil {
			g.again(nil, live[i:])
			return next, err
		}
	}
	return next, nil
}

// again puts back what could not be written.
func (g *Groups) again(over, live []matrixrtc.Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range over {
		g.calls.Restore(c, c.Ended)
	}
	for _, c := range live {
		g.dirty[[2]string{c.RoomID, c.SlotID}] = true
	}
}

func (g *Groups) note(ctx context.Context, c *matrixrtc.Call, now time.Time) error {
	room, err := g.rooms.Room(ctx, c.RoomID)
	if errors.Is(err, rooms.ErrNoRoom) {
		return nil
	}
	if err != nil {
		return err
	}
	row := storage.GroupCall{
		RoomNID: room.NID, SlotID: clean(c.SlotID), CallID: clean(c.ID), EventID: c.EventID, Starter: c.Starter, Audio: c.Audio, Started: c.Started.UnixMilli(),
		Seen: now.UnixMilli(), People: c.People,
	}
	if !c.Answered.IsZero() {
		row.Answered = c.Answered.UnixMilli()
	}
	return g.store.Write(ctx, func(tx *storage.Tx) error { return tx.PutGroupCall(row) })
}

// record writes down a call that is over.
func (g *Groups) record(ctx context.Context, c *matrixrtc.Call) error {
	room, err := g.rooms.Room(ctx, c.RoomID)
	if errors.Is(err, rooms.ErrNoRoom) {
		return nil
	}
	if err != nil {
		return err
	}
	row := groupRow(c)
	row.RoomNID = room.NID
	if row.ID, err = g.store.NID(ctx); err != nil {
		return err
	}
	var users []string
	for _, u := range c.People {
		if event.ServerOf(u) == g.rooms.Server() {
			users = append(users, u)
		}
	}
	added := false
	if err := g.store.Write(ctx, func(tx *storage.Tx) error {
		var err error
		if added, err = tx.InsertCall(row, users); err != nil {
			return err
		}
		return tx.DropGroupCall(room.NID, clean(c.SlotID), clean(c.ID))
	}); err != nil {
		return err
	}
	if added {
		g.ended.WithLabelValues(row.Outcome).Inc()
	}
	return nil
}

// groupRow is the record of a call, without room and id. A call in which nobody joined its starter was missed by the others.
func groupRow(c *matrixrtc.Call) storage.CallRecord {
	row := storage.CallRecord{
		CallID: clean(c.ID), Caller: c.Starter, InviteID: c.EventID, Kind: string(callflow.Video), Outcome: string(callflow.OutcomeAnswered),
		Started: c.Started.UnixMilli(), Ended: max(c.Ended.UnixMilli(), c.Started.UnixMilli()), People: c.People,
	}
	if c.Audio && c.EventID != "" { // the SFU alone does not say what is meant
		row.Kind = string(callflow.Audio)
	}
	if c.Answered.IsZero() {
		row.Outcome, row.Missed = string(callflow.OutcomeMissed), true
	} else {
		row.Answered = c.Answered.UnixMilli()
	}
	return row
}

// inProgress gives the group calls of the rooms that in accepts, newest first.
func (g *Groups) inProgress(user string, in func(roomID string) bool, now time.Time) (out []Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, room := range g.calls.Rooms() {
		if !in(room) {
			continue
		}
		for _, c := range g.calls.In(room) {
			if len(c.Present) == 0 {
				continue // about to be over
			}
			row := groupRow(&c)
			call := Call{
				CallID: c.ID, RoomID: room, Caller: c.Starter, Direction: outgoing, Kind: row.Kind, Outcome: string(StateActive), Started: row.Started, Answered: row.Answered,
				Group: true, Participants: c.Present,
			}
			if c.Starter != user {
				call.Direction = incoming
			}
			if row.Answered > 0 {
				call.DurationMS = max(0, now.UnixMilli()-row.Answered)
			}
			out = append(out, call)
		}
	}
	slices.SortFunc(out, func(a, b Call) int { return cmp.Compare(b.Started, a.Started) })
	return out
}
