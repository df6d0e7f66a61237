// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"slices"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/sfu/congest"
)

// paceEvery is how often what waits is looked at, while anything does.
const paceEvery = 5 * time.Millisecond

// pacing sends what waits in the pacers of all sessions, by one clock, which stands still while nothing waits.
type pacing struct {
	mu       sync.Mutex
	sessions []*Session // with packets that wait
	wake     chan struct{}
}

// Pace sets how fast media may go to the client: estimate is what the path carries, bit/s; 0 for no limit.
func (s *Session) Pace(estimate int) {
	p := s.pacer.Load()
	if p == nil {
		if estimate == 0 {
			return
		}
		p = &congest.Pacer{}
	}
	p.Follow(estimate, s.Path.Repairs(), s.t.Now())
	switch {
	case estimate > 0:
		s.pacer.Store(p)
	case p.Idle():
		s.pacer.Store(nil)
	}
}

// Hold implements forward.Peer.
func (s *Session) Hold(b []byte, roc uint32, number int, repair bool) (held, full bool) {
	p := s.pacer.Load()
	if p == nil {
		return false, false
	}
	held, full, first := p.Hold(b, roc, number, repair, s.t.Now())
	if first {
		s.t.pacing.add(s)
	}
	return held, full
}

// Room implements forward.Peer.
func (s *Session) Room() bool {
	p := s.pacer.Load()
	return p == nil || p.Room()
}

// Drop implements forward.Peer.
func (s *Session) Drop(ssrc, rtx uint32) {
	if p := s.pacer.Load(); p != nil {
		p.Drop(ssrc, rtx)
	}
}

func (p *pacing) add(s *Session) {
	p.mu.Lock()
	p.sessions = append(p.sessions, s)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pace runs until the transport is closed.
func (t *Transport) pace() {
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	var out *Batch // its own, once it is needed
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-t.pacing.wake:
		}
		for left := true; left; {
			clock.Reset(paceEvery)
			select {
			case <-t.ctx.Done():
				return
			case <-clock.C:
			}
			if out == nil {
				out = NewBatch()
			}
			left = t.pacing.release(out, t.Now())
			out.Flush()
		}
	}
}

// release sends what is due; it reports whether anything still waits.
func (p *pacing) release(out *Batch, now time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = slices.DeleteFunc(p.sessions, func(s *Session) bool { return !s.release(out, now) })
	return len(p.sessions) > 0
}

// release sends what is due of one session; it reports whether anything still waits.
func (s *Session) release(out *Batch, now time.Duration) bool {
	p := s.pacer.Load()
	if p == nil || s.sealer.Load() == nil {
		return false
	}
	for {
		n, roc, number, left := p.Next(out.Slot(), now)
		if n == 0 {
			return left
		}
		out.Send(s, n, roc, number)
		if !left {
			return false
		}
	}
}
