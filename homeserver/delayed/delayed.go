// SPDX-License-Identifier: Apache-2.0

// Package delayed sends events later, unless whoever scheduled them puts them off or takes them back (MSC4140). Clients use it as a
// dead man's switch: a call membership whose end is scheduled and put off again and again ends by itself when its client is gone.
//
// What waits is in the database, so it outlives restarts; what became due while the server was down is sent when it comes up. The
// event is sent with the delay id as its transaction, so that it is sent once even when a node dies between sending and noting it.
// With several nodes each looks for due events and takes them by a lease; a node that dies loses its lease after a while.
package delayed

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of what a user may schedule.
const (
	MaxDelay     = 7 * 24 * time.Hour
	MaxScheduled = 100 // events of one user that wait at the same time
)

const (
	lease = 30 * time.Second // a node that takes longer to send an event has died
	look  = 30 * time.Second // other nodes schedule too: look at least so often
	keep  = 10 * time.Minute // for repeated requests after the end
	batch = 64
)

// Service schedules events.
type Service struct {
	store *storage.Store
	rooms *rooms.Service
	clock signalling.Clock
	log   *slog.Logger
	wake  chan struct{}
}

// New makes the service; Run sends what is due.
func New(store *storage.Store, r *rooms.Service, clock signalling.Clock, log *slog.Logger) *Service {
	return &Service{store: store, rooms: r, clock: clock, log: log, wake: make(chan struct{}, 1)}
}

// Event is an event to be sent later.
type Event struct {
	UserID, DeviceID, RoomID string
	TxnID                    string // "" for none
	Type                     string
	StateKey                 *string
	Content                  json.RawMessage
	Delay                    time.Duration
	Sticky                   time.Duration // how long the event is to stick, from when it is sent (MSC4354)
}

// ByTxn gives the id of what a device scheduled with a transaction id, "" when there is none.
func (s *Service) ByTxn(ctx context.Context, user, device, room, txn string) (string, error) {
	d, err := s.store.DelayedByTxn(ctx, user, device, room, txn)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	return d.ID, err
}

// refuse makes an error that names the MSC's own code beside M_UNKNOWN, which clients look for until it is stable.
func refuse(code, format string, args ...any) *signalling.Error {
	return signalling.Refuse(400, "M_UNKNOWN", format, args...).With("org.matrix.msc4140.errcode", code)
}

// Schedule keeps an event to be sent after its delay and gives its id. Errors: M_INVALID_PARAM, M_UNKNOWN with
// M_MAX_DELAY_EXCEEDED or M_MAX_DELAYED_EVENTS_EXCEEDED.
func (s *Service) Schedule(ctx context.Context, e Event) (string, error) {
	switch {
	case e.Delay < 1:
		return "", signalling.InvalidParam("the delay must be a whole number of milliseconds, 1 or more")
	case e.Delay > MaxDelay:
		return "", refuse("M_MAX_DELAY_EXCEEDED", "an event may be delayed by %d milliseconds", MaxDelay.Milliseconds()).With("org.matrix.msc4140.max_delay", MaxDelay.Milliseconds())
	}
	now := s.clock.Now()
	d := storage.DelayedEvent{
		ID: rand.Text(), UserID: e.UserID, DeviceID: e.DeviceID, RoomID: e.RoomID, TxnID: e.TxnID, Type: e.Type, StateKey: e.StateKey, Content: e.Content,
		DelayMS: e.Delay.Milliseconds(), SinceTS: now.UnixMilli(), DueTS: now.Add(e.Delay).UnixMilli(), StickyMS: e.Sticky.Milliseconds(),
	}
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.InsertDelayed(d)
		if err == nil && n > MaxScheduled {
			err = refuse("M_MAX_DELAYED_EVENTS_EXCEEDED", "%d delayed events may wait at the same time", MaxScheduled)
		}
		return err
	})
	if err != nil {
		// The same transaction twice at the same moment: the other one was first.
		if id, again := s.ByTxn(ctx, e.UserID, e.DeviceID, e.RoomID, e.TxnID); again == nil && id != "" {
			return id, nil
		}
		return "", err
	}
	s.poke()
	return d.ID, nil
}

func (s *Service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// ErrNone says that no such delayed event waits.
var ErrNone = signalling.NotFound("there is no such delayed event")

// List gives the delayed events of a user that wait.
func (s *Service) List(ctx context.Context, user string) ([]storage.DelayedEvent, error) {
	return s.store.DelayedOf(ctx, user, MaxScheduled)
}

// Get gives a delayed event of a user, ended or not. Errors: M_NOT_FOUND.
func (s *Service) Get(ctx context.Context, user, id string) (storage.DelayedEvent, error) {
	d, err := s.store.DelayedEvent(ctx, id)
	if errors.Is(err, storage.ErrNotFound) || err == nil && d.UserID != user {
		return d, ErrNone
	}
	return d, err
}

// Restart begins the delay again. The id is all the right that is needed for this and the other two. Errors: M_NOT_FOUND.
func (s *Service) Restart(ctx context.Context, id string) error {
	return s.change(ctx, func(tx *storage.Tx) (bool, error) { return tx.RestartDelayed(id, s.clock.Now().UnixMilli()) })
}

// Cancel takes an event back. Repeating it does no harm. Errors: M_NOT_FOUND.
func (s *Service) Cancel(ctx context.Context, id string) error {
	err := s.change(ctx, func(tx *storage.Tx) (bool, error) { return tx.CancelDelayed(id, s.clock.Now().UnixMilli()) })
	return s.unless(ctx, id, storage.DelayedCancelled, err)
}

func (s *Service) change(ctx context.Context, op func(*storage.Tx) (bool, error)) error {
	err := s.store.Write(ctx, func(tx *storage.Tx) error {
		ok, err := op(tx)
		if err == nil && !ok {
			err = ErrNone
		}
		return err
	})
	if err == nil {
		s.poke()
	}
	return err
}

// unless forgives ErrNone when the event has ended in the wanted way already.
func (s *Service) unless(ctx context.Context, id string, state int64, err error) error {
	if err != error(ErrNone) {
		return err
	}
	d, e := s.store.DelayedEvent(ctx, id)
	if e == nil && d.State == state {
		return nil
	}
	if e != nil && !errors.Is(e, storage.ErrNotFound) {
		return e
	}
	return ErrNone
}

// Send sends an event now. Repeating it does no harm. Errors: M_NOT_FOUND, and those of the room.
func (s *Service) Send(ctx context.Context, id string) error {
	d, err := s.store.DelayedEvent(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	if d.State == storage.DelayedWaits {
		if err := s.send(context.WithoutCancel(ctx), d); err != error(ErrNone) {
			return err
		}
	}
	return s.unless(ctx, id, storage.DelayedSent, ErrNone)
}

// send takes an event and sends it; ErrNone when another has it.
func (s *Service) send(ctx context.Context, d storage.DelayedEvent) error {
	now := s.clock.Now()
	if err := s.store.Write(ctx, func(tx *storage.Tx) error {
		ok, err := tx.LeaseDelayed(d.ID, now.UnixMilli(), now.Add(lease).UnixMilli())
		if err == nil && !ok {
			err = ErrNone
		}
		return err
	}); err != nil {
		return err
	}
	id, err := s.append(ctx, d)
	state := storage.DelayedSent
	if err != nil {
		if signalling.AsError(err).Status >= 500 {
			return err // tried again when the lease is over
		}
		state = storage.DelayedRefused
		s.log.Info("a delayed event was refused", "room", d.RoomID, "user", d.UserID, "type", d.Type, "err", err)
	}
	if werr := s.store.Write(ctx, func(tx *storage.Tx) error {
		_, err := tx.FinishDelayed(d.ID, state, s.clock.Now().UnixMilli(), id)
		return err
	}); werr != nil {
		return werr
	}
	return err
}

func (s *Service) append(ctx context.Context, d storage.DelayedEvent) (string, error) {
	if d.Type == "m.room.member" && d.StateKey != nil {
		return "", s.rooms.SetMembership(ctx, d.RoomID, d.UserID, "", *d.StateKey, gjson.GetBytes(d.Content, "membership").Str, "", d.Content)
	}
	draft := rooms.Draft{Sender: d.UserID, TxnID: rooms.DelayedTxn + d.ID, Type: d.Type, StateKey: d.StateKey, Content: d.Content, Sticky: time.Duration(d.StickyMS) * time.Millisecond}
	if d.Type == "m.room.redaction" {
		draft.Redacts = gjson.GetBytes(d.Content, "redacts").Str
	}
	ids, err := s.rooms.Append(ctx, d.RoomID, draft)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// Run sends what is due until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	pruned := time.Time{}
	for {
		next := s.sendDue(ctx)
		if now := s.clock.Now(); now.Sub(pruned) >= keep {
			pruned = now
			if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.PruneDelayed(now.Add(-keep).UnixMilli()) }); err != nil && ctx.Err() == nil {
				s.log.Warn("ended delayed events could not be forgotten", "err", err)
			}
		}
		due := make(chan struct{})
		stop := s.clock.AfterFunc(max(0, next.Sub(s.clock.Now())), func() { close(due) })
		if !s.clock.Now().Before(next) {
			stop() // time went on, perhaps by a jump, while the timer was set
			continue
		}
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-s.wake:
		case <-due:
		}
		stop()
	}
}

// sendDue sends what is due and says when to look again.
func (s *Service) sendDue(ctx context.Context) time.Time {
	for {
		list, err := s.store.DelayedDue(ctx, s.clock.Now().UnixMilli(), batch)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("delayed events could not be read", "err", err)
			}
			return s.clock.Now().Add(time.Second)
		}
		for _, d := range list {
			if ctx.Err() != nil {
				return s.clock.Now().Add(look)
			}
			if err := s.send(context.WithoutCancel(ctx), d); err != nil && signalling.AsError(err).Status >= 500 {
				s.log.Warn("a delayed event could not be sent yet", "room", d.RoomID, "type", d.Type, "err", err)
				return s.clock.Now().Add(time.Second)
			}
		}
		if len(list) < batch {
			break
		}
	}
	at, err := s.store.DelayedNext(ctx)
	latest := s.clock.Now().Add(look)
	if next := time.UnixMilli(at); err == nil && next.Before(latest) {
		return next
	}
	return latest
}
