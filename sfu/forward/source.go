// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// MaxLayers is the number of simulcast layers a track may have.
const MaxLayers = 3

// Key frames: a publisher is asked at most twice a second for each layer. A subscriber that comes within replay after a key frame
// gets the packets since then from the ring instead of a new one.
const (
	keyFrameSpacing = 500 * time.Millisecond
	replay          = 700 * time.Millisecond
	layerAlive      = 700 * time.Millisecond // a layer without packets for longer is switched off by its publisher
)

// Size of what is kept for retransmission: about two seconds of a camera, four of a microphone.
const (
	videoKeep, videoBytes = 512, 512 << 10
	audioKeep, audioBytes = 128, 32 << 10
)

// Config describes a published track.
type Config struct {
	Codec     Codec
	Video     bool
	ClockRate uint32 // Hz of the timestamps
	Now       Clock
	// Repeat says that the publisher of a sound sends lost packets again when asked; video always does.
	Repeat bool
	// Red is the payload type of redundant sound (RFC 2198) from the publisher, and Plain that of the sound in it; 0 if it sends none.
	Red, Plain uint8
	// MayWrap says that sound which comes plain may be made redundant here; it must not be encrypted.
	MayWrap bool
	// Descriptor is the publisher's number of the header extension with the dependency descriptor; 0 if there is none.
	Descriptor uint8
	// Hasten says that the source has become Restless; it may be nil. It must not block nor call back.
	Hasten func()
	// Missing says that Lost should be called now and then until nothing is missing any more; it may be nil, and be called often. It must
	// not block nor call back.
	Missing func()
	// AskKeyFrame asks the publisher for a key frame of a layer. It must not block nor call back.
	AskKeyFrame func(layer int)
}

// Source is one published track.
type Source struct {
	cfg    Config
	layers [MaxLayers]Layer
	legs   atomic.Pointer[[]*Leg] // copied on write
	mu     sync.Mutex             // of writers of legs

	alive    atomic.Uint32 // bit i: layer i has packets
	hastened atomic.Bool   // since the last Tick
}

// Layer is one encoding of a track: a stream of its own.
type Layer struct {
	mu       sync.Mutex
	sequence packets.Sequence
	losses   packets.Losses
	ring     *packets.Ring
	last     time.Duration // arrival of the newest packet
	asked    time.Duration // last request for a key frame
	wanted   bool          // somebody waits for a key frame
	key      uint64        // count of the newest key frame's first packet, 0 if none
	keyAt    time.Duration
	lost     bool // more went missing than can be asked for
	stats    Stats
	arrival  reception
	rates    rates
	speed    atomic.Pointer[grid[float64]] // frames a second of each row and temporal layer, once it is known

	// Of scalable video: the structure that holds, and room for the next one.
	structures [2]packets.Structure
	current    int
	structured bool

	report atomic.Pointer[report] // the publisher's newest sender report
}

type report struct {
	packets.Report
	at time.Duration // of arrival
}

// Stats counts what a layer has received.
type Stats struct {
	Packets, Bytes uint64
}

// NewSource makes the source of a published track.
func NewSource(cfg Config) *Source {
	s := &Source{cfg: cfg}
	s.legs.Store(&[]*Leg{})
	for i := range s.layers {
		s.layers[i].asked = -keyFrameSpacing
	}
	return s
}

// Video reports whether the source is video.
func (s *Source) Video() bool { return s.cfg.Video }

// Codec is the source's codec.
func (s *Source) Codec() Codec { return s.cfg.Codec }

// Stats gives what layer has received.
func (s *Source) Stats(layer int) Stats {
	l := &s.layers[layer]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Alive is a bit mask of the layers that have packets now.
func (s *Source) Alive() uint32 { return s.alive.Load() }

// Forward takes a run of packets of one layer, in order of arrival, Raw and Header set and padding stripped, and sends them to every
// leg that is on that layer. Duplicates and broken packets are dropped. It is called by one goroutine at a time for a layer.
func (s *Source) Forward(layer int, run []Packet, out Out) {
	if layer < 0 || layer >= MaxLayers {
		return
	}
	now := s.cfg.Now()
	run = s.layers[layer].take(s, run, now)
	if len(run) == 0 {
		return
	}
	if bit := uint32(1) << layer; s.alive.Load()&bit == 0 {
		s.alive.Or(bit)
		s.retarget()
		s.hasten()
	}
	legs := *s.legs.Load()
	fetch(legs)
	for _, g := range legs {
		g.forward(layer, run, out, now)
	}
}

// fetch brings what the legs need into the processor's cache. Sounds come every 20 ms, and until then the cache was used for other things:
// waiting for memory at each leg was a sixth of all work in a call. In a loop as short as this one, the processor waits for several at a time.
func fetch(legs []*Leg) {
	n := 0
	for _, g := range legs {
		n += g.peer.Fetch()
		if g.ladder != nil {
			n++
		}
	}
	runtime.KeepAlive(n)
}

// take counts, keeps and parses a run; it gives the packets that are to be forwarded, at the front of run.
func (l *Layer) take(s *Source, run []Packet, now time.Duration) []Packet {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ring == nil {
		if s.cfg.Video {
			l.ring = packets.NewRing(videoKeep, videoBytes)
		} else {
			l.ring = packets.NewRing(audioKeep, audioBytes)
		}
	}
	kept := 0
	for i := range run {
		p := &run[i]
		if !p.parse(&s.cfg) {
			continue
		}
		if s.cfg.Descriptor != 0 {
			l.read(p, &s.cfg)
		}
		p.Count = l.sequence.Extend(p.Header.Sequence)
		if !l.ring.Put(p.Count, p.Raw) {
			l.losses.Twice(p.Count)
			continue // twice, or too late for anybody
		}
		if !l.losses.Arrived(p.Count, now) && s.cfg.Video {
			l.lost = true
		}
		if p.Key {
			l.key, l.keyAt, l.wanted, l.lost = p.Count, now, false, false
		}
		if s.cfg.Video {
			l.count(p, s.cfg.Codec)
		}
		l.stats.Packets++
		l.stats.Bytes += uint64(len(p.Raw))
		l.arrival.note(p, now, s.cfg.ClockRate)
		if kept != i {
			run[kept] = *p
		}
		kept++
	}
	l.last = now
	if l.losses.Pending() > 0 && s.cfg.Missing != nil && (s.cfg.Repeat || s.cfg.Video) {
		s.cfg.Missing()
	}
	return run[:kept]
}

// count measures what p adds to its layers. The caller holds mu.
func (l *Layer) count(p *Packet, codec Codec) {
	switch d := &p.svc; {
	case d.known && codec == SVC:
		l.rates.note(int(d.Spatial), int(d.Temporal), len(p.Raw), d.Start)
	case d.known:
		l.rates.note(0, int(d.Temporal), len(p.Raw), d.Start)
	case codec == VP8:
		l.rates.note(0, p.temporal(), len(p.Raw), p.VP8.Start)
	default:
		l.rates.note(0, 0, len(p.Raw), p.Header.Marker)
	}
}

// Restless reports whether Tick should be called often: there are pictures. A sound wants nothing.
func (s *Source) Restless() bool { return s.cfg.Video && s.alive.Load() != 0 }

func (s *Source) hasten() {
	if s.cfg.Hasten != nil && !s.hastened.Swap(true) {
		s.cfg.Hasten()
	}
}

// KeyFrame asks the publisher for a key frame of layer, unless it was asked a moment ago; then Tick asks again.
func (s *Source) KeyFrame(layer int) {
	if layer < 0 || layer >= MaxLayers || !s.cfg.Video {
		return
	}
	now := s.cfg.Now()
	l := &s.layers[layer]
	l.mu.Lock()
	l.wanted = true
	ask := now-l.asked >= keyFrameSpacing
	if ask {
		l.asked = now
	}
	l.mu.Unlock()
	if ask {
		s.cfg.AskKeyFrame(layer)
	}
}

// Tick does what has to be done ten times a second: key frames that could not be asked for before, layers that fell silent.
func (s *Source) Tick() {
	now := s.cfg.Now()
	s.hastened.Store(false)
	var alive uint32
	for i := range s.layers {
		l := &s.layers[i]
		l.mu.Lock()
		if l.stats.Packets > 0 && (now-l.last < layerAlive || !s.cfg.Video) {
			alive |= 1 << i
		}
		if s.cfg.Video && l.rates.measure(now) {
			speed := l.rates.speed
			l.speed.Store(&speed)
		}
		ask := (l.wanted || l.lost) && s.cfg.Video && alive&(1<<i) != 0 && now-l.asked >= keyFrameSpacing
		if ask {
			l.asked = now
		}
		l.mu.Unlock()
		if ask {
			s.cfg.AskKeyFrame(i)
		}
	}
	if s.alive.Swap(alive) != alive {
		s.retarget()
	}
}

// Reach describes how the layers that are sent arrive: the largest share lost, and the largest jitter, at the last Reception; false
// if nothing is sent.
func (s *Source) Reach() (loss float64, jitter time.Duration, ok bool) {
	alive := s.alive.Load()
	for i := range s.layers {
		if alive&(1<<i) == 0 {
			continue
		}
		l := &s.layers[i]
		l.mu.Lock()
		loss, ok = max(loss, l.arrival.share), true
		jitter = max(jitter, time.Duration(l.arrival.jitter*float64(time.Second)/float64(s.cfg.ClockRate)))
		l.mu.Unlock()
	}
	return loss, jitter, ok
}

// Lost appends the sequence numbers of layer that the publisher should send again now; more says that packets are still hoped for.
// A picture of which a packet is given up needs a key frame, for which Tick asks: its receivers would stand still for seconds first.
func (s *Source) Lost(layer int, to []uint16) (lost []uint16, more bool) {
	if !s.cfg.Video && !s.cfg.Repeat {
		return to, false
	}
	l := &s.layers[layer]
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, whole := l.losses.Due(to, s.cfg.Now())
	if !whole && s.cfg.Video {
		l.lost = true
	}
	return lost, l.losses.Pending() > 0
}

// Report notes a sender report of layer.
func (s *Source) Report(layer int, r packets.Report) {
	if layer < 0 || layer >= MaxLayers {
		return
	}
	s.layers[layer].report.Store(&report{r, s.cfg.Now()})
}

// Reception describes how layer arrives, for a receiver report; false before the first packet. It starts a new interval.
func (s *Source) Reception(layer int) (packets.Reception, bool) {
	l := &s.layers[layer]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stats.Packets == 0 {
		return packets.Reception{}, false
	}
	r := l.arrival.report(&l.sequence)
	if sr := l.report.Load(); sr != nil {
		r.LastSR = uint32(sr.NTP >> 16)
		r.Delay = uint32((s.cfg.Now() - sr.at) * 65536 / time.Second)
	}
	return r, true
}

// retarget lets every leg choose its layer again.
func (s *Source) retarget() {
	for _, g := range *s.legs.Load() {
		g.choose()
	}
}

// Add makes g one of the source's legs.
func (s *Source) Add(g *Leg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	legs := append(slices.Clone(*s.legs.Load()), g)
	s.legs.Store(&legs)
}

// Remove ends g.
func (s *Source) Remove(g *Leg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	legs := slices.DeleteFunc(slices.Clone(*s.legs.Load()), func(o *Leg) bool { return o == g })
	s.legs.Store(&legs)
}

// Wanted is the highest layer that some leg asks for, -1 if none does.
func (s *Source) Wanted() int {
	highest := -1
	for _, g := range *s.legs.Load() {
		highest = max(highest, g.Wanted())
	}
	return highest
}

// reception keeps what a receiver report tells (RFC 3550 section 6.4.1 and appendix A).
type reception struct {
	received, first uint64
	lastExpected    uint64
	lastReceived    uint64
	jitter          float64
	transit         float64
	started         bool
	share           float64 // lost, smoothed over reports
}

func (r *reception) note(p *Packet, now time.Duration, clock uint32) {
	r.received++
	transit := now.Seconds()*float64(clock) - float64(p.Header.Timestamp)
	if !r.started {
		r.first, r.transit, r.started = p.Count, transit, true
		return
	}
	d := transit - r.transit
	r.transit = transit
	if d < 0 {
		d = -d
	}
	if d < float64(clock) { // more than a second is a jump of the timestamps, not jitter
		r.jitter += (d - r.jitter) / 16
	}
}

func (r *reception) report(s *packets.Sequence) packets.Reception {
	highest, _ := s.Last()
	expected := highest - r.first + 1
	if highest < r.first {
		expected = 0
	}
	lost := int64(expected) - int64(r.received)
	in := int64(expected-r.lastExpected) - int64(r.received-r.lastReceived)
	fraction := uint8(0)
	if span := int64(expected - r.lastExpected); in > 0 && span > 0 {
		fraction = uint8(min(255, in*256/span))
	}
	r.lastExpected, r.lastReceived = expected, r.received
	r.share += (float64(fraction)/256 - r.share) / 3
	return packets.Reception{
		FractionLost: fraction, Lost: uint32(max(0, min(lost, 0x7FFFFF))), Highest: uint32(highest - 1<<16), Jitter: uint32(r.jitter),
	}
}
