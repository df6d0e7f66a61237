// SPDX-License-Identifier: Apache-2.0

package deliver

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	maxRunning = 128 // exchanges at the same time
	maxFailing = 32  // of them, those with hosts that failed last time
	perHost    = gateway.PerHost
	keepQueued = 100              // notifications of a pusher that fails
	laneBatch  = 16               // notifications read at once
	laneTime   = 45 * time.Second // then a lane lets others go first
	leaseTime  = 2 * time.Minute  // longer than laneTime and an exchange
	lastWords  = 2 * time.Second  // for exchanges under way when everything ends
	firstRetry = time.Second      // doubled up to …
	lastRetry  = 10 * time.Minute
)

// pusher is a pusher as delivery sees it. It never changes.
type pusher struct {
	id             storage.PusherID
	raw            []byte // as it is stored
	enabled        bool
	to             *url.URL
	idOnly         bool // format event_id_only
	noCounts       bool // the application counts by itself (MSC4076)
	data           json.RawMessage
	createdTS      int64
	unread, missed int64
	failures       int64
	retry          time.Time
}

// pusher reads a row; nil for one whose gateway may not be asked (any more).
func (s *Service) pusher(row storage.PusherState) *pusher {
	p := &pusher{
		id: storage.PusherID{User: row.User, AppID: row.AppID, Key: row.Key}, raw: row.JSON, enabled: row.Enabled, createdTS: row.CreatedTS,
		unread: row.Unread, missed: row.Missed, failures: row.Failures,
	}
	if row.RetryTS > 0 {
		p.retry = time.UnixMilli(row.RetryTS)
	}
	var stored struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(row.JSON, &stored); err != nil {
		return nil
	}
	text := func(name string) (out string) {
		_ = json.Unmarshal(stored.Data[name], &out)
		return out
	}
	var err error
	if p.to, err = s.Gateways.Check(text("url")); err != nil {
		return nil
	}
	p.idOnly = text("format") == "event_id_only"
	_ = json.Unmarshal(stored.Data["org.matrix.msc4076.disable_badge_count"], &p.noCounts)
	delete(stored.Data, "url")
	if len(stored.Data) > 0 {
		p.data, _ = json.Marshal(stored.Data)
	}
	return p
}

// find is the pusher of an id, nil when it is gone.
func (s *Service) find(id storage.PusherID) *pusher {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.users[id.User] {
		if p.id == id {
			return p
		}
	}
	return nil
}

// lane is a pusher that has something to deliver.
type lane struct {
	id      storage.PusherID
	host    *host
	running bool
	waiting bool // in host.waiting
	again   bool // something came while it ran
	failing bool // it was counted in failing when it began
	parked  bool // in retries
	retry   time.Time
}

// host is a place where gateways are.
type host struct {
	name    string
	running int
	failing bool // the last exchange failed
	waiting []*lane
}

// result is how a lane ended.
type result struct {
	id       storage.PusherID
	p        *pusher       // as it is now; nil when it is gone
	again    bool          // there is more
	failed   bool          // the gateway did not take a notification
	retry    time.Duration // after a failure
	answered bool          // the gateway was asked
}

// queue has a pusher delivered when its turn comes. It belongs to Run.
func (s *Service) queue(id storage.PusherID) {
	l := s.lanes[id]
	if l == nil {
		p := s.find(id)
		if p == nil {
			return
		}
		h := s.hosts[p.to.Host]
		if h == nil {
			h = &host{name: p.to.Host}
			s.hosts[h.name] = h
		}
		l = &lane{id: id, host: h, retry: p.retry}
		h.failing = h.failing || p.failures > 0
		s.lanes[id] = l
	}
	switch {
	case l.running:
		l.again = true
	case l.waiting:
	case s.Clock.Now().Before(l.retry):
		if !l.parked {
			l.parked = true
			heap.Push(&s.retries, retryAt{l.retry, id})
		}
	default:
		l.waiting = true
		l.host.waiting = append(l.host.waiting, l)
	}
}

// start sets lanes to work, a few of each host at a time.
func (s *Service) start(ctx context.Context) {
	now := s.Clock.Now()
	for len(s.retries) > 0 && !now.Before(s.retries[0].at) {
		id := heap.Pop(&s.retries).(retryAt).id
		if l := s.lanes[id]; l != nil {
			l.parked = false
			s.queue(id)
		}
	}
	for progress := true; progress; { // one lane of each host in turn
		progress = false
		for name, h := range s.hosts {
			if len(h.waiting) == 0 {
				if h.running == 0 && !h.failing {
					delete(s.hosts, name)
				}
				continue
			}
			if s.running >= maxRunning || h.running >= perHost || h.failing && (s.failing >= maxFailing || h.running > 0) {
				continue
			}
			l := h.waiting[0]
			h.waiting = h.waiting[1:]
			l.waiting = false
			p := s.find(l.id)
			if p == nil || p.to.Host != h.name {
				delete(s.lanes, l.id)
				if p != nil {
					s.queue(l.id) // its gateway has moved
				}
				continue
			}
			progress = true
			l.running, l.again = true, false
			s.running++
			h.running++
			if l.failing = h.failing; l.failing {
				s.failing++
			}
			s.work.Go(func() {
				r := s.deliver(ctx, p)
				s.mu.Lock()
				s.results = append(s.results, r)
				s.mu.Unlock()
				s.poke()
			})
		}
	}
}

// collect takes in how lanes ended.
func (s *Service) collect() {
	s.mu.Lock()
	results := s.results
	s.results = nil
	for _, r := range results {
		if r.p == nil {
			continue
		}
		list := s.users[r.id.User]
		for i, p := range list {
			if p.id == r.id && slices.Equal(p.raw, r.p.raw) && p.enabled == r.p.enabled {
				list = slices.Clone(list) // lanes read it
				list[i] = r.p
				s.users[r.id.User] = list
				break
			}
		}
	}
	s.mu.Unlock()
	for _, r := range results {
		l := s.lanes[r.id]
		h := l.host
		l.running = false
		s.running--
		h.running--
		if l.failing {
			s.failing--
		}
		if r.answered {
			h.failing = r.failed
		}
		switch {
		case r.failed:
			l.retry = s.Clock.Now().Add(r.retry)
			s.queue(r.id)
		case r.again || l.again:
			l.retry = time.Time{}
			s.queue(r.id)
		default:
			delete(s.lanes, r.id)
		}
	}
}

// deliver hands over what a pusher has to deliver.
func (s *Service) deliver(ctx context.Context, p *pusher) (r result) {
	now := s.Clock.Now()
	me := *p
	r = result{id: p.id, p: &me}
	if s.several {
		var mine bool
		if err := s.Store.Write(ctx, func(tx *storage.Tx) (err error) {
			mine, err = tx.LeasePusher(p.id, now.UnixMilli(), now.Add(leaseTime).UnixMilli())
			return err
		}); err != nil || !mine {
			return r // another node is at it; what it leaves is found by polling
		}
	}
	err := s.deliverAll(ctx, &me, now.Add(laneTime), &r)
	switch {
	case err != nil && ctx.Err() != nil: // the next start goes on
	case err != nil:
		r.failed = true
		me.failures++
		r.retry = backoff(me.failures, err)
		me.retry = s.Clock.Now().Add(r.retry)
		s.Log.Debug("a push was not taken; it is tried again", "host", p.to.Host, "failures", me.failures, "after", r.retry, "err", err)
	case r.answered:
		me.failures, me.retry = 0, time.Time{}
	}
	if !s.several && (r.p == nil || me.failures == p.failures) {
		return r
	}
	retry := int64(0)
	if me.failures > 0 {
		retry = me.retry.UnixMilli()
	}
	if err := s.Store.Write(context.WithoutCancel(ctx), func(tx *storage.Tx) error {
		if err := tx.RestPusher(me.id, me.failures, retry); err != nil || me.failures == 0 {
			return err
		}
		return tx.TrimPushes(me.id, keepQueued)
	}); err != nil {
		s.Log.Warn("how a pusher does could not be noted", "err", err)
	}
	return r
}

// backoff is how long a pusher rests after its nth failure in a row: twice as long each time, a little by chance, so that the pushers
// of a gateway that was away do not come back all at once.
func backoff(n int64, err error) time.Duration {
	d := lastRetry
	if n < 10 {
		d = min(lastRetry, firstRetry<<(n-1))
	}
	d = d*4/5 + rand.N(d*2/5)
	var refused *gateway.Refused
	if errors.As(err, &refused) && refused.After > d {
		d = min(refused.After, lastRetry)
	}
	return d
}

func (s *Service) deliverAll(ctx context.Context, p *pusher, deadline time.Time, r *result) error {
	for {
		rows, err := s.Store.NextPushes(ctx, p.id, laneBatch)
		if err != nil {
			return err
		}
		for i := range rows {
			if s.Clock.Now().After(deadline) {
				r.again = true
				return nil
			}
			if err := s.one(ctx, p, &rows[i], r); err != nil || r.p == nil {
				return err
			}
		}
		if len(rows) < laneBatch {
			return nil
		}
	}
}

// one delivers one row; what is of no use any more is crossed out.
func (s *Service) one(ctx context.Context, p *pusher, row *storage.PushRow, r *result) error {
	s.mayShow(p.id)
	n, err := s.compose(ctx, p, row)
	if err != nil {
		return err
	}
	if n == nil {
		s.meters.done("dropped")
		return s.drop(ctx, row)
	}
	r.answered = true
	rejected, err := s.notify(ctx, p, n)
	var refused *gateway.Refused
	switch {
	case errors.As(err, &refused) && refused.Hopeless():
		s.meters.done("refused")
		s.Log.Info("a gateway refused a notification for good", "host", p.to.Host, "status", refused.Status)
		return s.drop(ctx, row)
	case err != nil:
		s.meters.done("failed")
		return err
	case slices.Contains(rejected, p.id.Key):
		s.meters.done("rejected")
		s.Log.Info("a gateway knows a pushkey no more; its pusher is removed", "user", p.id.User, "app", p.id.AppID)
		r.p = nil
		return s.Store.Write(context.WithoutCancel(ctx), func(tx *storage.Tx) error { return tx.DropPusherIf(p.id, p.raw) })
	}
	s.meters.done("delivered")
	if n.Counts != nil {
		p.unread, p.missed = n.Counts.Unread, n.Counts.MissedCalls
	}
	over := *row // in case that the ring ended while we told of it
	if row.Kind == storage.PushRing {
		if over.ID, err = s.Store.NID(ctx); err != nil {
			return err
		}
		over.Kind, over.ExpiresTS = storage.PushOver, s.Clock.Now().Add(overTime).UnixMilli()
	}
	var withdraw bool
	err = s.Store.Write(context.WithoutCancel(ctx), func(tx *storage.Tx) error {
		withdraw = false
		if row.Kind == storage.PushRing {
			was, err := tx.RingPushed(row.ID)
			if err != nil {
				return err
			}
			if withdraw = !was; withdraw {
				if err := tx.QueuePush(over); err != nil {
					return err
				}
			}
		} else if _, err := tx.DropPush(row.ID); err != nil {
			return err
		}
		if n.Counts == nil {
			return nil
		}
		return tx.SetPushedCounts(p.id, p.unread, p.missed)
	})
	r.again = r.again || withdraw
	return err
}

// notify does not break off at once when everything ends: what was said but not crossed out would be said again.
func (s *Service) notify(ctx context.Context, p *pusher, n *gateway.Notification) ([]string, error) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancel) })()
	return s.Gateways.Notify(longer, p.to, n)
}

// mayShow notes, before counts are taken, that an application is about to show some: from now on it is to hear when they fall.
func (s *Service) mayShow(id storage.PusherID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.users[id.User]
	for i, p := range list {
		if p.id == id && p.unread == 0 && p.missed == 0 {
			shown := *p
			shown.unread = 1
			list = slices.Clone(list) // others read it
			list[i] = &shown
			s.users[id.User] = list
		}
	}
}

func (s *Service) drop(ctx context.Context, row *storage.PushRow) error {
	return s.Store.Write(ctx, func(tx *storage.Tx) error {
		_, err := tx.DropPush(row.ID)
		return err
	})
}

// retryHeap holds pushers that failed, the next to be tried first.
type retryHeap []retryAt

type retryAt struct {
	at time.Time
	id storage.PusherID
}

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h retryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *retryHeap) Push(x any)        { *h = append(*h, x.(retryAt)) }
func (h *retryHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
