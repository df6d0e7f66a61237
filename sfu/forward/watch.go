// SPDX-License-Identifier: Apache-2.0

package forward

import "time"

// Limits of watching over a packet.
const (
	heldWithin   = 120 * time.Millisecond // a repetition that waits goes within so much, or never
	missedWithin = 200 * time.Millisecond // what goes later was not asked for: see Pad
	watchedMost  = 3 * time.Second        // a browser has asked for a key frame by then
)

// watchlist is where packets are whose arrival matters to nobody but us: those that came late from the publisher, and those that were sent again.
// A subscriber asks for a packet a few times only, most of them before we had it where it came late, and then stands still for seconds. So it is
// sent again until transport-wide feedback says that it has come. Packets from from to to may be watched; none if both are 0.
type watchlist struct{ from, to uint64 }

func (w *watchlist) add(count uint64) {
	if w.to == 0 {
		w.from, w.to = count, count
		return
	}
	w.from, w.to = min(w.from, count), max(w.to, count)
}

// look has the packet with that number of ours looked at. The caller holds mu.
func (g *Leg) look(count uint64) {
	g.watch.add(count)
	g.watching.Store(true)
}

// observe has a packet watched from now on. The caller holds mu.
func (g *Leg) observe(e *sent) {
	if g.source.cfg.Video {
		e.watched = true
		g.look(e.count)
	}
}

// Told is what transport-wide feedback says of a packet, or of a repetition of it.
type Told struct {
	Sequence uint16
	Repair   bool          // of a repetition
	Sent     time.Duration // when it was sent
	Arrived  bool
}

// Tell takes what transport-wide feedback says. What did not arrive is sent again, unless a newer repetition is on its way.
func (g *Leg) Tell(t Told, out Out) {
	n, last, ok := g.resendable()
	if !ok {
		return
	}
	count := last - uint64(uint16(last)-t.Sequence)
	g.mu.Lock()
	if g.sent == nil { // it was bound anew
		g.mu.Unlock()
		return
	}
	e := &g.sent[count&uint64(len(g.sent)-1)]
	known := e.count == count && count >= g.fresh
	current := known && !t.Arrived && t.Repair == (e.tries > 0) && (!t.Repair || t.Sent >= e.again && t.Sent-e.again < missedWithin)
	switch {
	case known && t.Arrived:
		e.watched = false
	case current:
		g.observe(e)
	}
	failed := current && e.tries >= againTries
	g.mu.Unlock()
	switch {
	case failed:
		g.KeyFrame()
	case current:
		g.resend(count, n, g.source.cfg.Now(), out)
	}
}

// Overdue sends again what was sent again before the time again, or late before the time late, and of which nothing was told: the message that
// would have told got lost. What has been sent too often without coming needs a key frame.
func (g *Leg) Overdue(again, late time.Duration, out Out) {
	n, last, ok := g.resendable()
	if !ok {
		return
	}
	now := g.source.cfg.Now()
	var due [64]uint64
	found, failed := 0, false
	g.mu.Lock()
	w := &g.watch
	count := max(w.from, g.fresh, last+1-min(last, uint64(len(g.sent))))
	to := w.to
	*w = watchlist{}
	for ; count <= to && g.sent != nil; count++ {
		e := &g.sent[count&uint64(len(g.sent)-1)]
		switch {
		case e.count != count || !e.watched:
			continue
		case now-e.again > watchedMost:
			e.watched = false
			continue
		case e.tries == 0 && e.again >= late || e.tries > 0 && e.again >= again || e.held && e.again+heldWithin > again:
		case e.tries >= againTries:
			e.watched, failed = false, true
			continue
		case found < len(due):
			due[found] = count
			found++
		}
		w.add(count)
	}
	g.watching.Store(w.to > 0)
	g.mu.Unlock()
	for _, count := range due[:found] {
		g.resend(count, n, now, out)
	}
	if failed {
		g.KeyFrame()
	}
}

// Watching reports whether there is anything that Overdue should look at, and Tell should hear of what has arrived. It takes no lock: who has the
// lock of a path asks, and a leg may wait for that while it sends.
func (g *Leg) Watching() bool { return g.watching.Load() }
