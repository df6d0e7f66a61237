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

// repairs asks publishers for packets that did not arrive, by one clock, which stands still while nothing is missing.
type repairs struct {
	mu   sync.Mutex
	list []*holes
	wake chan struct{}
}

// holes are what is missing of one source, and whom to ask.
type holes struct {
	source  *forward.Source
	session *transport.Session
	ssrc    uint32 // ours, as who asks
	section *section
	listed  atomic.Bool
}

// add has h looked at from now on, until nothing is missing. It may be called for every packet.
func (r *repairs) add(h *holes) {
	if h.listed.Swap(true) {
		return
	}
	r.mu.Lock()
	r.list = append(r.list, h)
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
	var list []*holes
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
				for _, h := range list {
					h.listed.Store(false) // before it is looked at: what goes missing meanwhile lists it anew
					if h.ask(out) {
						r.add(h)
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

// ask asks for what is due; it reports whether anything is still hoped for.
func (h *holes) ask(out *transport.Batch) (more bool) {
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
