// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/packets"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

// repairEvery is how often it is looked what has to be asked for again, while anything is missing. Browsers ask a subscriber's side for at
// most ten rounds, 20 ms apart on a short way: what a publisher's packet needs to get here has to fit in there.
const repairEvery = 5 * time.Millisecond

// repairs asks publishers for packets that did not arrive, and sends subscribers what may not have arrived, by one clock, which stands still while
// nothing is missing.
type repairs struct {
	mu   sync.Mutex
	list []missing
	wake chan struct{}
}

// missing is something that may be missing.
type missing interface {
	// repair does what is due; it reports whether anything is still hoped for.
	repair(out *transport.Batch) (more bool)
	listed() *atomic.Bool
}

// add has m looked at from now on, until nothing is missing. It may be called for every packet.
func (r *repairs) add(m missing) {
	if m.listed().Swap(true) {
		return
	}
	r.mu.Lock()
	r.list = append(r.list, m)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run asks until ctx ends.
func (r *repairs) run(ctx context.Context, t *transport.Transport) {
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	var list []missing
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for left := true; left; {
			clock.Reset(repairEvery)
			select {
			case <-ctx.Done():
				return
			case <-clock.C:
			}
			r.mu.Lock()
			list, r.list = r.list, list[:0]
			r.mu.Unlock()
			t.Do(func(out *transport.Batch) {
				for _, m := range list {
					m.listed().Store(false) // before it is looked at: what goes missing meanwhile lists it anew
					if m.repair(out) {
						r.add(m)
					}
				}
			})
			clear(list)
			r.mu.Lock()
			left = len(r.list) > 0
			r.mu.Unlock()
		}
	}
}

// holes are what is missing of one source, and whom to ask.
type holes struct {
	source  *forward.Source
	session *transport.Session
	ssrc    uint32 // ours, as who asks
	section *section
	waits   atomic.Bool
}

func (h *holes) listed() *atomic.Bool { return &h.waits }

// repair asks for what is due.
func (h *holes) repair(out *transport.Batch) (more bool) {
	var numbers [128]uint16
	for layer := range forward.MaxLayers {
		ssrc := h.section.ssrcs[layer].Load()
		if ssrc == 0 {
			continue
		}
		lost, left := h.source.Lost(layer, numbers[:0])
		more = more || left
		if len(lost) > 0 {
			h.session.SendRTCP(packets.AppendNACK(make([]byte, 0, 12+4*len(lost)), h.ssrc, ssrc, lost), out)
		}
	}
	return more
}

// What was sent again to a subscriber, and of which nothing was told within a round trip and repeatAfter, is sent once more: a message of feedback
// may be lost or late. What came late from its publisher may have arrived the first time, so for that it takes a message more.
const (
	repeatAfter = 80 * time.Millisecond
	untoldAfter = 150 * time.Millisecond
	unknownTrip = 100 * time.Millisecond
)

// unheard is what was sent to a subscriber and may not have arrived.
type unheard struct {
	c     *connection
	waits atomic.Bool
	at    time.Duration // when it was looked at last
}

func (u *unheard) listed() *atomic.Bool { return &u.waits }

// repair sends again what is overdue, as long as feedback tells what arrives.
func (u *unheard) repair(out *transport.Batch) (more bool) {
	c := u.c
	now := c.p.room.engine.cfg.Transport.Now()
	if now-u.at < repeatAfter/2 {
		return true
	}
	u.at = now
	if !c.session.Open() || !c.session.Numbered() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.legs {
		if !g.Watching() {
			continue
		}
		trip := unknownTrip
		if h := c.heard[g]; h != nil && h.trip > 0 {
			trip = h.trip
		}
		g.Overdue(now-trip-repeatAfter, now-trip-untoldAfter, out)
		more = more || g.Watching()
	}
	return more
}
