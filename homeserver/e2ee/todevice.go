// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	txnLife      = 7 * 24 * time.Hour // how long a repeated sendToDevice is recognised
	txnSweep     = 1024               // sends between two removals of older transactions
	trimEvery    = 64                 // one send in so many checks that its targets' queues are not too long
	acksPerWrite = 64
	maxInboxes   = 1 << 17
)

// Messages are the contents of a /sendToDevice: user -> device or "*" -> content.
type Messages map[string]map[string]json.RawMessage

// DecodeMessages reads the body of /sendToDevice. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func DecodeMessages(body []byte) (Messages, error) {
	var raw struct {
		Messages *Messages `json:"messages"`
	}
	if err := decode(body, &raw, "messages maps user ids to device ids to contents"); err != nil {
		return nil, err
	}
	if raw.Messages == nil {
		return nil, signalling.BadJSON("messages is missing")
	}
	n := 0
	for user, byDevice := range *raw.Messages {
		if err := checkUser(user); err != nil {
			return nil, err
		}
		for id, content := range byDevice {
			if err := checkID("a device id", id); err != nil {
				return nil, err
			}
			if len(content) == 0 || content[0] != '{' {
				return nil, signalling.BadJSON("the content of a message must be an object")
			}
			if len(content) > MaxMessage {
				return nil, signalling.TooLarge("a message may have %d bytes", MaxMessage)
			}
		}
		n += len(byDevice)
	}
	if n > MaxTargets {
		return nil, signalling.TooLarge("a request may have messages for %d devices", MaxTargets)
	}
	return *raw.Messages, nil
}

// SendToDevice puts messages into the queues of devices, all of them or none. "*" stands for every device of a user that the request
// does not name. Devices that do not exist are passed over. A transaction id that the sending device used before for the same
// event type sends nothing again, also after a restart. Errors: M_INVALID_PARAM.
func (s *Service) SendToDevice(ctx context.Context, sender, senderDevice, typ, txn string, messages Messages) error {
	if err := errors.Join(checkID("the event type", typ), checkID("the transaction id", txn)); err != nil {
		return err
	}
	now := s.clock.Now()
	if s.sends.Add(1)%txnSweep == 0 {
		s.sweepTxns(now)
	}
	single, all, remote, err := s.address(sender, typ, messages)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) (refused, err error) {
		isNew, err := tx.ToDeviceTxn(sender, senderDevice, typ, txn, now.UnixMilli())
		if err != nil || !isNew {
			return nil, err
		}
		if s.remote != nil {
			for server, part := range remote {
				if err := s.remote.QueueToDevice(tx, server, sender, typ, txn, part); err != nil {
					return nil, err
				}
			}
		}
		if len(single)+len(all) == 0 {
			return nil, nil
		}
		return nil, s.deliver(tx, single, all)
	}, nil)
}

// Receive puts messages from another server into the queues of local devices; txn is the message_id of the EDU, and what was
// received before is passed over. Errors: M_INVALID_PARAM.
func (s *Service) Receive(ctx context.Context, sender, typ, txn string, messages Messages) error {
	local := Messages{}
	for user, byDevice := range messages {
		if s.local(user) {
			local[user] = byDevice
		}
	}
	return s.SendToDevice(ctx, sender, "", typ, txn, local)
}

// address sorts messages into those for one device, those for all devices of a user, and those for other servers.
func (s *Service) address(sender, typ string, messages Messages) (single, all []storage.ToDeviceMessage, remote map[string]map[string]map[string]json.RawMessage, err error) {
	tail, err := json.Marshal(struct {
		Sender string `json:"sender"`
		Type   string `json:"type"`
	}{sender, typ})
	if err != nil {
		return nil, nil, nil, err
	}
	tail[0] = ','
	for user, byDevice := range messages {
		if !s.local(user) {
			server := event.ServerOf(user)
			if remote == nil {
				remote = map[string]map[string]map[string]json.RawMessage{}
			}
			if remote[server] == nil {
				remote[server] = map[string]map[string]json.RawMessage{}
			}
			remote[server][user] = byDevice
			continue
		}
		for id, content := range byDevice {
			ev := make([]byte, 0, len(`{"content":`)+len(content)+len(tail))
			ev = append(append(append(ev, `{"content":`...), content...), tail...)
			m := storage.ToDeviceMessage{User: user, Device: id, Event: ev}
			if id == "*" {
				all = append(all, m)
			} else {
				single = append(single, m)
			}
		}
	}
	slices.SortFunc(single, func(a, b storage.ToDeviceMessage) int {
		if c := strings.Compare(a.User, b.User); c != 0 {
			return c
		}
		return strings.Compare(a.Device, b.Device)
	})
	slices.SortFunc(all, func(a, b storage.ToDeviceMessage) int { return strings.Compare(a.User, b.User) })
	return single, all, remote, nil
}

// deliver stores messages at one position and tells who waits.
func (s *Service) deliver(tx *storage.Tx, single, all []storage.ToDeviceMessage) error {
	pos, err := tx.NextPos()
	if err != nil {
		return err
	}
	tell := func(user, id string, ev json.RawMessage) error {
		s.inbox.raise(device{user, id}, pos)
		tx.Note(storage.Note{Pos: pos, Kind: storage.NoteToDevice, User: user, Device: id, Value: ev})
		if pos%trimEvery != 0 {
			return nil
		}
		gone, err := tx.TrimToDevice(user, id, MaxWaiting)
		if gone > 0 {
			s.log.Warn("a device does not collect its to-device messages; the oldest were removed", "user", user, "device", id, "removed", gone)
		}
		return err
	}
	stored, err := tx.PutToDevice(pos, single)
	if err != nil {
		return err
	}
	for _, d := range stored {
		i, _ := slices.BinarySearchFunc(single, d, func(m storage.ToDeviceMessage, d [2]string) int {
			if c := strings.Compare(m.User, d[0]); c != 0 {
				return c
			}
			return strings.Compare(m.Device, d[1])
		})
		if err := tell(d[0], d[1], single[i].Event); err != nil {
			return err
		}
	}
	for _, m := range all {
		devices, err := tx.PutToAllDevices(pos, m.User, m.Event)
		if err != nil {
			return err
		}
		for _, id := range devices {
			if err := tell(m.User, id, m.Event); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) sweepTxns(now time.Time) {
	before := now.Add(-txnLife).UnixMilli()
	_ = s.store.Enqueue(func(tx *storage.Tx) error { return tx.DropToDeviceTxns(before) }, func(err error) {
		if err != nil {
			s.log.Error("old to-device transactions were not removed", "err", err)
		}
	})
}

// inbox remembers the newest message of each device. On a database of our own that is a bound, and the sync of a device with nothing
// new needs no SQL; where several nodes share a database it only tells which acknowledgements are worth a write.
type inbox struct {
	mu     sync.Mutex
	exact  bool
	epoch  uint64 // rises when everything is forgotten at once
	waits  map[device]*waiting
	acks   map[device]int64 // deletions that wait for the next write
	queued bool             // that write is on its way
}

type waiting struct {
	newest int64 // newest message that was stored or read here
	bound  bool  // there is none after it
	acked  bool  // something was acknowledged here before
	gone   int64 // messages up to here were deleted, or soon will be
}

func (b *inbox) init(exact bool) {
	b.exact, b.waits, b.acks = exact, map[device]*waiting{}, map[device]int64{}
}

func (b *inbox) entry(d device) *waiting {
	w := b.waits[d]
	if w == nil {
		if len(b.waits) >= maxInboxes {
			clear(b.waits)
			b.epoch++
		}
		w = &waiting{}
		b.waits[d] = w
	}
	return w
}

// raise says that a message at pos was read, or is being stored; if that fails, the bound is too high and does no harm.
func (b *inbox) raise(d device, pos int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.entry(d)
	w.newest, w.bound = max(w.newest, pos), true
}

// ToDevice gives at most limit messages for a device with after < position <= upTo, oldest first, and the position of the last one
// given (after, when there is none). With fewer than limit there are no others up to upTo. A message is an event as the device
// gets it: {"content":…,"sender":…,"type":…}; the Value of a NoteToDevice is the same bytes.
func (s *Service) ToDevice(ctx context.Context, user, deviceID string, after, upTo int64, limit int) (messages []json.RawMessage, last int64, err error) {
	if upTo <= after || limit <= 0 {
		return nil, after, nil
	}
	b, d := &s.inbox, device{user, deviceID}
	if b.exact {
		b.mu.Lock()
		w, epoch := b.entry(d), b.epoch
		bound, newest := w.bound, w.newest
		b.mu.Unlock()
		if !bound {
			if newest, err = s.store.LastToDevice(ctx, user, deviceID); err != nil {
				return nil, 0, err
			}
			b.mu.Lock()
			if b.epoch == epoch {
				w.newest, w.bound = max(w.newest, newest), true
				newest = w.newest
			}
			b.mu.Unlock()
		}
		if newest <= after {
			return nil, after, nil
		}
	}
	waiting, err := s.store.ToDevice(ctx, user, deviceID, after, upTo, limit)
	if err != nil {
		return nil, 0, err
	}
	last = after
	for _, m := range waiting {
		messages, last = append(messages, m.Event), m.Pos
	}
	if len(messages) > 0 && !b.exact {
		b.raise(d, last)
	}
	return messages, last, nil
}

// DeleteToDevice says that a device has received its messages up to a position: they are deleted soon, together with those of other
// devices. If the process ends before that, they are deleted after a later call; they are never delivered again to a device that
// asks from upTo on.
// Errors: storage.ErrClosed.
func (s *Service) DeleteToDevice(_ context.Context, user, deviceID string, upTo int64) error {
	b, d := &s.inbox, device{user, deviceID}
	b.mu.Lock()
	w := b.entry(d)
	if w.acked || (b.exact && w.bound) {
		upTo = min(upTo, w.newest)
	}
	w.acked = true
	if upTo <= w.gone {
		b.mu.Unlock()
		return nil
	}
	w.gone = upTo
	b.acks[d] = max(b.acks[d], upTo)
	start := !b.queued
	b.queued = true
	b.mu.Unlock()
	if start {
		return s.queueAcks()
	}
	return nil
}

// queueAcks queues a write that deletes what was acknowledged by the time it runs, for some devices; those left over wait for the
// next acknowledgement.
func (s *Service) queueAcks() error {
	b := &s.inbox
	var taken map[device]int64
	failed := func(err error) {
		if !errors.Is(err, storage.ErrClosed) {
			s.log.Error("received to-device messages were not deleted", "err", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for d := range taken {
			w := b.entry(d)
			w.gone, w.acked = 0, false
		}
	}
	take := func(most int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		taken, b.queued = make(map[device]int64, min(most, len(b.acks))), false
		for d, pos := range b.acks {
			if len(taken) == most {
				break
			}
			taken[d] = pos
			delete(b.acks, d)
		}
	}
	err := s.store.Enqueue(func(tx *storage.Tx) error {
		if taken == nil { // a write may run twice
			take(acksPerWrite)
		}
		for d, pos := range taken {
			if err := tx.DropToDevice(d.user, d.id, pos); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) {
		if err != nil {
			failed(err)
		}
	})
	if err != nil {
		take(maxInboxes)
		failed(err)
	}
	return err
}
