// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	sendAtOnce  = 32 // transactions under way, to different servers
	sendTime    = time.Minute
	retryFirst  = 2 * time.Second // after a server did not take a transaction, doubled each time
	retryMost   = time.Hour
	maxPassing  = 500 // EDUs that wait for a server in memory; beyond it the newest are dropped
	sendJitter  = 5   // a fifth of a wait is left to chance, so that servers do not meet again
	outboxBatch = MaxPDUs + MaxEDUs
)

// sender empties the outbox: a goroutine for each server that something waits for, which ends when nothing does. Events, and EDUs that
// must not be lost, wait in the database and are removed when the other server has them; each is sent at least once, in order. What
// matters for a moment only (typing, presence, receipts) waits in memory, and not for servers that do not answer.
type sender struct {
	s     *Service
	slots chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool
	to     map[string]*destination
}

// destination is a server that something is sent to.
type destination struct {
	name    string
	wake    chan struct{} // more to send
	alive   chan struct{} // the server shows life
	running bool
	waiting bool // for the server to show life, or for time to pass

	passing map[string]json.RawMessage // EDUs by what they are about: a newer one takes the place of an older
	order   []string
}

func newSender(s *Service) *sender {
	x := &sender{s: s, slots: make(chan struct{}, sendAtOnce), to: map[string]*destination{}}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

// start begins with what was left when the server stopped.
func (x *sender) start(ctx context.Context) error {
	list, err := x.s.Store.OutboxDestinations(ctx)
	if err != nil {
		return err
	}
	for _, d := range list {
		x.notify(d)
	}
	return nil
}

func (x *sender) close() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.cancel()
	x.wg.Wait()
}

// notify says that something waits for a server.
func (x *sender) notify(server string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.poke(x.destination(server))
}

// destination finds a server's; the lock is held.
func (x *sender) destination(server string) *destination {
	d := x.to[server]
	if d == nil {
		d = &destination{name: server, wake: make(chan struct{}, 1), alive: make(chan struct{}, 1), passing: map[string]json.RawMessage{}}
		x.to[server] = d
	}
	return d
}

// poke wakes a destination's goroutine, or starts it; the lock is held.
func (x *sender) poke(d *destination) {
	if x.closed {
		return
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
	if !d.running {
		d.running = true
		x.wg.Go(func() { x.run(d) })
	}
}

// life says that a server has just spoken with us: what waits for it need not wait longer.
func (x *sender) life(server string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if d := x.to[server]; d != nil && d.waiting {
		select {
		case d.alive <- struct{}{}:
		default:
		}
	}
}

// pass sends an EDU that may be lost to servers, except those that do not answer. about names what it is about.
func (x *sender) pass(servers []string, about string, edu json.RawMessage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, server := range servers {
		if server == x.s.server || x.s.Permits(server) != nil {
			continue
		}
		d := x.destination(server)
		if d.waiting {
			continue
		}
		if _, there := d.passing[about]; !there {
			if len(d.order) >= maxPassing {
				continue
			}
			d.order = append(d.order, about)
		}
		d.passing[about] = edu
		x.poke(d)
	}
}

// taken gives up to n of the EDUs that wait in memory.
func (x *sender) taken(d *destination, n int) (out []json.RawMessage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n = min(n, len(d.order))
	for _, k := range d.order[:n] {
		out = append(out, d.passing[k])
		delete(d.passing, k)
	}
	if d.order = d.order[n:]; len(d.order) == 0 {
		d.order = nil
	}
	return out
}

// run sends until nothing waits.
func (x *sender) run(d *destination) {
	wait := time.Duration(0)
	for {
		sent, err := x.once(d)
		if x.ctx.Err() != nil {
			return
		}
		if err == nil {
			wait = 0
			if sent {
				continue
			}
			x.mu.Lock()
			select {
			case <-d.wake: // something came between the look and the lock
				x.mu.Unlock()
				continue
			default:
			}
			d.running = false
			delete(x.to, d.name)
			x.mu.Unlock()
			return
		}
		wait = min(max(2*wait, retryFirst), retryMost)
		pause := wait + rand.N(wait/sendJitter+1)
		if ms, ok := signalling.AsError(err).Fields["retry_after_ms"].(int64); ok {
			pause = min(max(pause, time.Duration(ms)*time.Millisecond), retryMost)
		}
		x.s.Log.Info("a server does not take what is sent to it; it is tried again", "server", d.name, "in", pause.Round(time.Second), "err", err)
		if !x.rest(d, pause) {
			return
		}
	}
}

// rest waits until time has passed, or the server shows life; false says that the sender is closing.
func (x *sender) rest(d *destination, pause time.Duration) bool {
	x.mu.Lock()
	d.waiting = true
	clear(d.passing)
	d.order = nil
	x.mu.Unlock()
	over := make(chan struct{})
	stop := x.s.Clock.AfterFunc(pause, func() { close(over) })
	defer stop()
	defer func() {
		x.mu.Lock()
		d.waiting = false
		x.mu.Unlock()
	}()
	select {
	case <-over:
	case <-d.alive:
	case <-x.ctx.Done():
		return false
	}
	return true
}

// once sends one transaction; sent is false when there is nothing.
func (x *sender) once(d *destination) (sent bool, err error) {
	select {
	case x.slots <- struct{}{}:
		defer func() { <-x.slots }()
	case <-x.ctx.Done():
		return false, x.ctx.Err()
	}
	rows, err := x.s.Store.Outbox(x.ctx, d.name, outboxBatch)
	if err != nil {
		return false, err
	}
	rows = fitting(rows)
	if x.s.Permits(d.name) != nil { // the operator has closed the door meanwhile
		return len(rows) > 0, x.done(d, rows)
	}
	passing := x.taken(d, MaxEDUs-count(rows, "edu"))
	if len(rows) == 0 && len(passing) == 0 {
		return false, nil
	}
	err = x.transmit(d, rows, passing)
	if poisoned(err) && len(rows)+len(passing) > 1 {
		// Something in it is not to the other server's liking: one by one the rest gets through.
		for i := range rows {
			if err := x.transmit(d, rows[i:i+1], nil); poisoned(err) {
				x.s.Log.Warn("a server refuses something; it is not sent again", "server", d.name, "kind", rows[i].Kind, "event_nid", rows[i].EventNID, "err", err)
			} else if err != nil {
				return false, err
			}
			if err := x.done(d, rows[i:i+1]); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	if poisoned(err) {
		x.s.Log.Warn("a server refuses something; it is not sent again", "server", d.name, "err", err)
		err = nil
	}
	if err != nil {
		return false, err
	}
	return true, x.done(d, rows)
}

// poisoned says that a server has read a transaction and will not have it.
func poisoned(err error) bool {
	if err == nil {
		return false
	}
	e := signalling.AsError(err)
	return e.Status == 400 || e.Status == 413
}

// fitting is as many rows as one transaction may hold.
func fitting(rows []storage.OutboxRow) []storage.OutboxRow {
	pdus, edus := 0, 0
	for i, r := range rows {
		if r.Kind == "pdu" {
			pdus++
		} else {
			edus++
		}
		if pdus > MaxPDUs || edus > MaxEDUs {
			return rows[:i]
		}
	}
	return rows
}

func count(rows []storage.OutboxRow, kind string) (n int) {
	for _, r := range rows {
		if r.Kind == kind {
			n++
		}
	}
	return n
}

// done removes what was sent from the outbox.
func (x *sender) done(d *destination, rows []storage.OutboxRow) error {
	if len(rows) == 0 {
		return nil
	}
	last := rows[len(rows)-1].Seq
	return x.s.Store.Write(x.ctx, func(tx *storage.Tx) error { return tx.DeleteOutbox(d.name, last) })
}

// transmit sends one transaction. Its id comes from the rows in it: sent again, it is the same, and the other server knows it.
func (x *sender) transmit(d *destination, rows []storage.OutboxRow, passing []json.RawMessage) error {
	nids := make([]int64, 0, len(rows))
	for _, r := range rows {
		if r.Kind == "pdu" {
			nids = append(nids, r.EventNID)
		}
	}
	events, err := x.s.Store.EventsByNID(x.ctx, nids)
	if err != nil {
		return err
	}
	byNID := make(map[int64][]byte, len(events))
	for _, e := range events {
		byNID[e.NID] = e.JSON
	}
	pdus, edus := []json.RawMessage{}, []json.RawMessage{}
	for _, r := range rows {
		if r.Kind != "pdu" {
			edus = append(edus, r.Payload)
		} else if raw := byNID[r.EventNID]; raw != nil {
			pdus = append(pdus, raw)
		}
	}
	edus = append(edus, passing...)
	now := x.s.Clock.Now()
	body, err := json.Marshal(map[string]any{"origin": x.s.server, "origin_server_ts": now.UnixMilli(), "pdus": pdus, "edus": edus})
	if err != nil {
		return err
	}
	txn := "p" + strconv.FormatUint(rand.Uint64(), 36)
	if len(rows) > 0 && len(passing) == 0 {
		txn = strconv.FormatInt(rows[0].Seq, 36) + "-" + strconv.FormatInt(rows[len(rows)-1].Seq, 36)
	}
	var answer struct {
		PDUs map[string]outcome `json:"pdus"`
	}
	err = x.s.Client.ask(x.ctx, Ask{Server: d.name, Method: "PUT", Path: "/_matrix/federation/v1/send/" + url.PathEscape(txn), Body: body, Timeout: sendTime}, &answer)
	var u *Unreachable
	var syntax *json.UnmarshalTypeError
	if errors.As(err, &u) && errors.As(u.Err, &syntax) {
		err = nil // taken, with an answer that we cannot read
	}
	if err != nil {
		return err
	}
	for id, o := range answer.PDUs {
		if o.Error != "" {
			x.s.Log.Debug("a server did not take an event", "server", d.name, "event", id, "says", o.Error)
		}
	}
	return nil
}

// Pass sends an EDU that may be lost (typing, receipts, presence) to servers: not to those that do not answer now. about names what it is
// about: while one waits, a newer one takes its place.
func (s *Service) Pass(servers []string, typ, about string, content any) error {
	raw, err := json.Marshal(map[string]any{"edu_type": typ, "content": content})
	if err != nil {
		return err
	}
	s.out.pass(servers, typ+" "+about, raw)
	return nil
}
