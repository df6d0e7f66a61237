// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Streams are the numbers under which a leg sends.
type Streams struct {
	SSRC        uint32
	PayloadType uint8
	RTXSSRC     uint32 // 0: lost packets are sent again as they were
	RTXType     uint8
	RedType     uint8 // of redundant sound; 0: the subscriber takes plain sound only
	Once        bool  // the subscriber will not ask for lost packets: nothing is kept for it
	// Numbers of header extensions as the subscriber knows them, 0 for none. The transport-wide number differs each time a packet is
	// sent, so it needs an RTX stream: the same packet with another header must not be sealed with the same nonce.
	Transport, Dependency uint8
}

// history is how many packets a leg can send again; a power of two.
const (
	videoHistory = 512
	audioHistory = 64
)

// Leg sends one source to one subscriber.
type Leg struct {
	source *Source
	peer   Peer

	mu      sync.Mutex
	streams Streams
	bound   bool
	paused  bool
	wanted  int     // highest layer asked for
	allowed int     // highest layer there is room for, -1 for none
	smooth  int     // highest temporal layer of that one there is room for
	fps     float64 // as many frames a second are wanted; 0 for all
	target  int     // layer to be on, -1 for none
	layer   int     // layer it is on, -1 before the first key frame

	// Rewriting: what is added to a number of the publisher to give ours.
	start       uint64 // first packet of the layer that is forwarded
	fresh       uint64 // ours that the layer began with: a key frame, so what was before it is of no use any more
	floor       uint64 // ours up to here are used up, whatever is remembered of them
	sequence    uint64
	timestamp   uint32
	pictureID   uint16
	tl0         uint8
	lastCount   uint64 // newest of ours
	recent      uint64 // bit n: lastCount-n was sent
	lastTime    uint32
	lastPicture uint16
	lastTL0     uint8
	lastAt      time.Duration

	thinner     *thinner // of simulcast; nil as long as nothing was left out
	lossy       bool     // the subscriber loses packets
	allowance   int      // packets that may be sent again on demand
	rtxSequence uint64
	sent        []sent
	watch       watchlist
	watching    atomic.Bool // there is something in it
	starved     bool        // a packet was dropped because the path is narrow: a key frame is needed
	stats       LegStats

	ladder *ladder // of scalable video; set once. The last field: see fetch
}

// sent remembers what became of a packet, so that it can be made again.
type sent struct {
	count     uint64 // ours; 0 if the entry is free
	source    uint64
	timestamp uint32
	pictureID uint16
	tl0       uint8
	layer     uint8
	form      form
	marker    bool
	watched   bool          // nobody else may ask for it any more: see watchlist
	held      bool          // the newest repetition waited
	again     time.Duration // last time it was sent, if it was sent again or late
	tries     uint8         // how often it was sent again
}

// LegStats counts what a leg has sent.
type LegStats struct {
	Packets, Octets uint64 // octets of payload
	Again           uint64 // retransmissions
}

// NewLeg makes a leg of s for peer and adds it to s. It is silent until Bind.
func NewLeg(s *Source, peer Peer) *Leg {
	g := &Leg{source: s, peer: peer, wanted: MaxLayers - 1, allowed: MaxLayers - 1, smooth: MaxTemporal - 1, target: -1, layer: -1, lastCount: 1 << 16, rtxSequence: 1 << 16, allowance: allowanceMin}
	if s.cfg.Codec == SVC {
		g.ladder = &ladder{shown: -1}
	}
	s.Add(g)
	return g
}

// Bind gives the leg its numbers, as agreed with the subscriber; before, nothing is sent.
func (g *Leg) Bind(n Streams) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// A packet sent again is sealed with the nonce it had: it must be the same packet, so nothing is kept over a change of numbers.
	if !g.bound || g.streams != n {
		g.sent, g.floor = nil, g.lastCount
		if !n.Once {
			g.sent = make([]sent, g.historySize())
		}
	}
	g.streams, g.bound = n, true
}

func (g *Leg) historySize() int {
	if g.source.cfg.Video {
		return videoHistory
	}
	return audioHistory
}

// Start begins sending: it asks for a key frame, or sends again what came since the last one if that is fresh. It is called when
// the leg is bound and its peer open; twice does no harm.
func (g *Leg) Start(out Out) {
	now := g.source.cfg.Now()
	g.mu.Lock()
	layer := g.retarget()
	waiting := !g.still() && g.layer < 0 && layer >= 0 && g.source.cfg.Video
	g.mu.Unlock()
	if waiting && !g.replay(layer, out, now) {
		g.source.KeyFrame(layer)
	}
}

// replay sends the packets since the layer's last key frame if it is fresh and they are all there.
func (g *Leg) replay(layer int, out Out, now time.Duration) bool {
	l := &g.source.layers[layer]
	l.mu.Lock()
	defer l.mu.Unlock()
	last, _ := l.sequence.Last()
	if l.key == 0 || now-l.keyAt > replay || l.lost || !g.peer.Open() {
		return false
	}
	for c := l.key; c <= last; c++ {
		if l.ring.Get(c) == nil {
			return false
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.layer >= 0 || g.still() {
		return true
	}
	var p Packet
	for c := l.key; c <= last; c++ {
		p.Raw, p.Count = l.ring.Get(c), c
		if p.Header.Parse(p.Raw) && p.Header.StripPadding(p.Raw) && p.parse(&g.source.cfg) {
			if g.source.cfg.Descriptor != 0 {
				l.reread(&p, &g.source.cfg, c == l.key)
			}
			g.one(layer, &p, out, now, g.transport())
		}
	}
	return true
}

// Want sets the highest layer the subscriber has a use for (0 to 2; -1 for none) and whether to send at all.
func (g *Leg) Want(layer int, paused bool) {
	g.mu.Lock()
	if g.paused && !paused {
		g.layer = -1 // begin anew, with a key frame where there are such: the decoder has missed frames
	}
	g.wanted, g.paused = min(layer, MaxLayers-1), paused
	g.mu.Unlock()
	g.choose()
}

// WantRate sets how many frames a second the subscriber has a use for; 0 for all there are.
func (g *Leg) WantRate(fps uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fps = float64(fps)
}

// Allow sets the highest level the path has room for; -1 for none.
func (g *Leg) Allow(level int) {
	layer, temporal := -1, MaxTemporal-1
	if level >= 0 {
		layer, temporal = level/MaxTemporal, level%MaxTemporal
	}
	g.mu.Lock()
	before := g.allowed
	if before < 0 && layer >= 0 {
		g.layer = -1 // as in Want
	}
	g.allowed, g.smooth = layer, temporal
	g.mu.Unlock()
	if before != layer {
		g.choose()
	}
}

// Allowed is the level last given to Allow.
func (g *Leg) Allowed() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.allowed < 0 {
		return -1
	}
	return Level(g.allowed, g.smooth)
}

// WantedLevel is the highest level the leg has a use for, -1 while it is paused.
func (g *Leg) WantedLevel() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused || g.wanted < 0 {
		return -1
	}
	temporal := MaxTemporal - 1
	if g.fps > 0 {
		temporal = g.source.temporalFor(g.wanted, g.fps)
	}
	return Level(g.wanted, temporal)
}

// still reports whether nothing is to be sent. The caller holds mu.
func (g *Leg) still() bool { return g.paused || g.allowed < 0 || !g.bound }

// Wanted is the highest layer the leg has a use for, -1 while it is paused.
func (g *Leg) Wanted() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused {
		return -1
	}
	return g.wanted
}

// Layer is the layer the leg is on, -1 if none.
func (g *Leg) Layer() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.layer
}

// Stats gives what the leg has sent.
func (g *Leg) Stats() LegStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

// Streams gives the leg's numbers.
func (g *Leg) Streams() Streams {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.streams
}

// retarget sets the target: the highest layer alive that is wanted, else the lowest alive. The caller holds mu.
func (g *Leg) retarget() int {
	alive := g.source.alive.Load()
	g.target = -1
	for i := range MaxLayers {
		if alive&(1<<i) != 0 && (i <= min(g.wanted, g.allowed) || g.target < 0) {
			g.target = i
		}
	}
	return g.target
}

// choose sets the target and asks for the key frame that the change needs.
func (g *Leg) choose() {
	g.mu.Lock()
	target := g.retarget()
	ask := target >= 0 && (target != g.layer || g.ladder != nil && !g.ladder.shows(g.spatial())) && !g.still() && g.source.cfg.Video
	g.mu.Unlock()
	if ask {
		g.source.KeyFrame(target)
	}
}

// spatial is the layer of scalable video that the leg should show.
func (g *Leg) spatial() int { return max(0, min(g.wanted, g.allowed)) }

// level is the level of scalable video that the leg should show.
func (g *Leg) level() int { return Level(g.spatial(), g.limit(g.spatial())) }

// forward sends the packets of run that the leg should get.
func (g *Leg) forward(layer int, run []Packet, out Out, now time.Duration) {
	g.mu.Lock()
	if g.still() || (layer != g.layer && layer != g.target) || !g.peer.Open() {
		g.mu.Unlock()
		return
	}
	id := g.transport()
	if layer == g.layer && layer > g.target && g.target >= 0 && id != 0 && !g.peer.Room() {
		// The path does not carry this layer any more, and what it does not carry waits: the key frame of a lower one would come after it.
		g.layer = -1
		g.peer.Drop(g.streams.SSRC, g.streams.RTXSSRC)
	}
	start := g.start
	for i := range run {
		g.one(layer, &run[i], out, now, id)
	}
	begun, begins := g.start, g.start != start && g.source.cfg.Codec != Opaque
	ask := g.starved && g.peer.Room()
	if ask {
		g.starved = false
	}
	g.mu.Unlock()
	if ask {
		g.KeyFrame()
	}
	if begins {
		g.overtaken(layer, begun, out, now)
	}
}

// overtaken sends what came before the first packet of the key frame with which the leg began on layer, and belongs after it: that one was lost
// and came late, and until then there was nothing to begin with.
func (g *Leg) overtaken(layer int, start uint64, out Out, now time.Duration) {
	l := &g.source.layers[layer]
	l.mu.Lock()
	defer l.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	last, _ := l.sequence.Last()
	var p Packet
	for c := start + 1; c <= last && g.layer == layer && g.start == start && !g.still(); c++ {
		p.Raw, p.Count = l.ring.Get(c), c
		if p.Raw != nil && p.Header.Parse(p.Raw) && p.Header.StripPadding(p.Raw) && p.parse(&g.source.cfg) {
			if g.source.cfg.Descriptor != 0 {
				l.reread(&p, &g.source.cfg, false)
			}
			g.one(layer, &p, out, now, g.transport())
		}
	}
}

// starve drops a packet for which the path has no room, and what follows it: without it, it is of no use before the next key frame.
func (g *Leg) starve(count uint64) {
	g.sent[count&uint64(len(g.sent)-1)] = sent{}
	g.floor = max(g.floor, count-uint64(len(g.sent))) // what the entry stood for before
	if g.lastCount == count {                         // its number is free again
		g.lastCount--
	}
	g.layer, g.starved = -1, true
}

// transport is the number of the extension for transport-wide numbers, 0 if packets shall not have any now.
func (g *Leg) transport() uint8 {
	if g.streams.Transport != 0 && g.streams.RTXSSRC != 0 && g.peer.Numbered() {
		return g.streams.Transport
	}
	return 0
}

// one sends one packet, changing to its layer first if that is due.
func (g *Leg) one(layer int, p *Packet, out Out, now time.Duration, transport uint8) {
	if layer != g.layer {
		if layer != g.target || (!p.Key && g.source.cfg.Codec != Opaque) {
			return
		}
		g.change(layer, p, now)
	}
	if p.Count < g.start {
		return // from before the change: there is no number left for it
	}
	count, marker := p.Count+g.sequence, p.Header.Marker
	if g.ladder != nil {
		skipped, last, ok := g.ladder.pass(p, g.level())
		if !ok {
			return
		}
		count, marker = count-skipped, last
	}
	pictureID, f := p.VP8.PictureID+g.pictureID, asItCame
	switch g.source.cfg.Codec {
	case Opaque:
		f = g.form(p)
	case VP8, H264:
		skipped, pictures, v := g.thin(layer, p)
		if v == drop {
			return
		}
		if v == fill {
			f, marker = empty, false
		}
		count, pictureID = count-skipped, pictureID-pictures
	}
	if p.redundant && g.streams.RedType == 0 {
		g.repair(p, out, transport)
	}
	if g.used(count) {
		return
	}
	g.put(p, &sent{
		marker: marker, form: f, again: now, watched: count < g.lastCount && g.source.cfg.Video,
		count: count, source: p.Count, timestamp: p.Header.Timestamp + g.timestamp,
		pictureID: pictureID, tl0: p.VP8.TL0 + g.tl0, layer: uint8(layer),
	}, out, transport)
	if count == g.lastCount {
		g.lastAt = now
		if p.VP8.PictureIDSize > 0 {
			g.lastPicture = pictureID
		}
		if p.VP8.HasTL0 {
			g.lastTL0 = p.VP8.TL0 + g.tl0
		}
	}
}

// used reports whether a packet with that number of ours was sent, or may have been. The keys of SRTP allow for one packet a number only
// (RFC 3711 section 9.1).
func (g *Leg) used(count uint64) bool {
	behind := g.lastCount - count
	switch {
	case count > g.lastCount:
		return false
	case count <= g.floor:
		return true
	case g.sent == nil:
		return behind >= 64 || g.recent&(1<<behind) != 0
	}
	return g.sent[count&uint64(len(g.sent)-1)].count >= count
}

// put sends the packet that e describes, made of p, and remembers it.
func (g *Leg) put(p *Packet, e *sent, out Out, transport uint8) {
	b := out.Slot()
	at, number := packets.PutElements(b, transport, g.streams.Dependency, p.passed(&g.source.cfg))
	size, payloadType, ok := len(p.Raw)-p.Header.Payload, g.streams.PayloadType, true
	if e.form != asItCame {
		size, payloadType, ok = g.source.body(b[at:packets.MaxSize], p, e.form, &g.streams)
	} else if ok = at+size <= packets.MaxSize; ok {
		copy(b[at:], p.Raw[p.Header.Payload:])
	}
	if !ok {
		return
	}
	if g.sent != nil {
		g.sent[e.count&uint64(len(g.sent)-1)] = *e
		if e.watched {
			g.look(e.count)
		}
	}
	if e.count > g.lastCount {
		g.recent = g.recent<<(e.count-g.lastCount) | 1
		g.lastCount, g.lastTime = e.count, e.timestamp
	} else {
		g.recent |= 1 << (g.lastCount - e.count)
	}
	packets.PutHeader(b, e.marker, e.form.padded(p), payloadType, uint16(e.count), e.timestamp, g.streams.SSRC)
	if at > packets.HeaderSize {
		b[0] |= 0x10
	}
	if p.VP8.Size > 0 && e.form != empty {
		p.VP8.Rewrite(b[at:], e.pictureID, e.tl0)
	}
	// The counts begin at 2^16, the rollover counter at 0.
	roc, held := uint32(e.count>>16)-1, false
	if transport != 0 && g.source.cfg.Video {
		var full bool
		if held, full = g.peer.Hold(b[:at+size], roc, number, false); full {
			g.starve(e.count)
			return
		}
	}
	g.allowance = min(g.allowance+1, allowanceMax)
	g.stats.Packets++
	g.stats.Octets += uint64(size)
	if e.form.padded(p) {
		g.stats.Octets -= uint64(len(p.Raw) - p.Header.End)
	}
	if !held {
		out.Send(g.peer, at+size, roc, number)
	}
}

// change moves the leg to layer, whose first packet is p: our numbers go on where they are.
func (g *Leg) change(layer int, p *Packet, now time.Duration) {
	first := g.layer < 0 && g.stats.Packets == 0
	from := g.layer
	g.layer, g.start, g.starved = layer, p.Count, false
	if g.thinner != nil {
		g.thinner.begin(p.Count)
	}
	if g.ladder != nil {
		g.ladder.begin(p, g.level())
	}
	g.sequence = g.lastCount + 1 - p.Count
	if g.source.cfg.Codec != Opaque {
		g.fresh = g.lastCount + 1
		if g.transport() != 0 && !g.peer.Room() {
			g.peer.Drop(g.streams.SSRC, g.streams.RTXSSRC)
		}
	}
	if first {
		// Nothing sent yet: keep the publisher's numbers where possible, so that a plain track needs no rewriting at all.
		g.timestamp, g.pictureID, g.tl0 = 0, 0, 0
		return
	}
	next := g.lastTime + uint32(max(now-g.lastAt, time.Millisecond)*time.Duration(g.source.cfg.ClockRate)/time.Second)
	if at, ok := g.source.translate(from, layer, p.Header.Timestamp); ok && from >= 0 {
		if t := at + g.timestamp; packets.NewerTimestamp(t, g.lastTime) && t-g.lastTime < 2*g.source.cfg.ClockRate {
			next = t
		}
	}
	g.timestamp = next - p.Header.Timestamp
	g.pictureID = g.lastPicture + 1 - p.VP8.PictureID
	g.tl0 = g.lastTL0 + 1 - p.VP8.TL0
}

// KeyFrame asks for a key frame of the layer the leg should be on.
func (g *Leg) KeyFrame() {
	g.mu.Lock()
	target, paused := g.target, g.paused
	g.mu.Unlock()
	if target >= 0 && !paused {
		g.source.KeyFrame(target)
	}
}
