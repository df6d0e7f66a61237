// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// show is a call in virtual time: cameras in some sizes, one subscriber, and a path to it that is narrow for a while. What forwards, estimates,
// paces, shares out and probes is what runs in production; the cameras, the path and the subscriber are played.
type show struct {
	t    *testing.T
	r    *rand.Rand
	now  time.Duration
	down *lane

	path     congest.Estimator
	pacer    congest.Pacer
	paced    bool
	a        adaption
	probe    *probe
	begun    time.Duration
	cameras  []*camera
	slot     [packets.MaxSize + 16]byte
	mayPause bool
	patience time.Duration // of a decoder, before it asks for a key frame

	flying    []datagram // to the subscriber
	arrivals  congest.Arrivals
	back      []message
	mute      bool // feedback gets lost
	asking    asking
	bad       float64 // share of datagrams lost at random, on the way to the server and from it
	got, lost int     // packets since the last report
	bytes     int     // that came
	paused    int     // pictures that were told to be paused
	silence   int     // sounds lost
	probes    int
}

// lane is the way to the subscriber.
type lane struct {
	rate    float64 // bit/s
	queue   int     // bytes
	police  bool    // drop what is above the rate; queue is the bucket's size
	delay   time.Duration
	backlog float64
	level   float64

	dropped int
}

type datagram struct {
	at     time.Duration
	b      []byte
	number int
	count  uint16
}

type message struct {
	at time.Duration
	do func()
}

func (l *lane) pass(d time.Duration) {
	bytes := l.rate / 8 * d.Seconds()
	l.backlog, l.level = max(0, l.backlog-bytes), min(float64(l.queue), l.level+bytes)
}

// enter gives when a packet of that size comes out; false if it is dropped.
func (l *lane) enter(size int, now time.Duration) (time.Duration, bool) {
	if l.police {
		if l.level < float64(size) {
			l.dropped++
			return 0, false
		}
		l.level -= float64(size)
		return now + l.delay, true
	}
	if l.backlog+float64(size) > float64(l.queue) {
		l.dropped++
		return 0, false
	}
	l.backlog += float64(size)
	return now + l.delay + time.Duration(l.backlog*8/l.rate*float64(time.Second)), true
}

// camera is a picture in up to three sizes, and what the subscriber sees of it.
type camera struct {
	s        *show
	source   *forward.Source
	leg      *forward.Leg
	rates    []int // bit/s of each size
	layers   [forward.MaxLayers]encoding
	phase    time.Duration
	priority int
	number   int

	// What the subscriber has.
	sequence packets.Sequence
	holes    []*hole
	have     map[uint64]piece
	next     uint64
	came     bool          // something, since it was looked at last
	stuck    time.Duration // since when
	asked    time.Duration
	frames   int
	size     int           // of the last frame shown
	shown    time.Duration // when that was
	max      time.Duration // the longest time without a frame,
	since    time.Duration // since then
	paused   bool
}

type encoding struct {
	sn, picture uint16
	ts          uint32
	key         time.Duration // a key frame is due then; 0 for none
	debt        int
	kept        [512][]byte // the newest packets
}

// piece is a packet as the decoder sees it.
type piece struct {
	start, key, end, gone bool
	size                  int
}

const (
	showStep  = time.Millisecond
	showFrame = 40 * time.Millisecond
	keyTimes  = 5 // a key frame is so many frames large
	keyAfter  = 70 * time.Millisecond
	nackTries = 10
	nackTrip  = 100 * time.Millisecond // a browser that sends no pictures does not measure the round trip, and takes it for that
)

func newShow(t *testing.T, down *lane, cameras ...[]int) *show {
	s := &show{t: t, now: time.Second, down: down, mayPause: true, patience: 500 * time.Millisecond}
	down.level = float64(down.queue)
	s.begun, s.a.begun = s.now, s.now
	s.seed(6)
	for i, rates := range cameras {
		c := &camera{s: s, rates: rates, number: i, phase: time.Duration(13*i) * time.Millisecond, have: map[uint64]piece{}, size: -1, shown: s.now}
		c.source = forward.NewSource(forward.Config{
			Codec: forward.VP8, Video: true, ClockRate: 90000, Repeat: true, Now: func() time.Duration { return s.now },
			AskKeyFrame: func(layer int) {
				if e := &c.layers[layer]; e.key == 0 {
					e.key = s.now + keyAfter
				}
			},
		})
		c.leg = forward.NewLeg(c.source, s)
		c.leg.Bind(forward.Streams{SSRC: uint32(100 + i), PayloadType: 96, RTXSSRC: uint32(200 + i), RTXType: 97, Transport: 1})
		c.leg.Start(s)
		s.cameras = append(s.cameras, c)
	}
	s.pacer.Follow(startRate, 0, s.now)
	s.paced = true
	return s
}

// seed makes chance another one.
func (s *show) seed(n uint64) {
	s.r = rand.New(rand.NewPCG(5, n))
	s.a.seeker.Random = s.r.Float64
}

// The show is a forward.Peer and a forward.Out, as a session and a batch are.

func (s *show) Open() bool     { return true }
func (s *show) Numbered() bool { return s.path.Listening(s.now) }
func (s *show) Fetch() int     { return 0 }
func (s *show) Slot() []byte   { return s.slot[:] }
func (s *show) Room() bool     { return !s.paced || s.pacer.Room() }

func (s *show) Drop(ssrc, rtx uint32) { s.pacer.Drop(ssrc, rtx) }

func (s *show) Hold(b []byte, roc uint32, number int, repair bool) (held, full bool) {
	if !s.paced {
		return false, false
	}
	held, full, _ = s.pacer.Hold(b, roc, number, repair, s.now)
	return held, full
}

func (s *show) Send(_ forward.Peer, n int, _ uint32, number int) { s.send(s.slot[:n], number) }

func (s *show) send(b []byte, number int) {
	const around = 28 + 16 // IP and UDP; SRTP's tag
	d := datagram{b: append([]byte(nil), b...), number: number}
	if number > 0 {
		d.count = s.path.Sent(len(b), refOf(b), s.now)
	}
	at, ok := s.down.enter(len(b)+around, s.now)
	ok = ok && !s.loses()
	if !ok {
		s.lost++
		return
	}
	d.at = at
	s.flying = append(s.flying, d)
}

// refOf is what Batch tells of a packet.
func refOf(b []byte) congest.Ref {
	var h packets.Header
	if !h.Parse(b) || len(b) < h.Payload+2 {
		return congest.Ref{}
	}
	return congest.Ref{SSRC: h.SSRC, Sequence: h.Sequence, Original: binary.BigEndian.Uint16(b[h.Payload:])}
}

// loses is chance.
func (s *show) loses() bool { return s.bad > 0 && s.r.Float64() < s.bad }

// run lets time pass.
func (s *show) run(span time.Duration) { together(span, s) }

// together lets time pass for shows whose subscribers share a path.
func together(span time.Duration, shows ...*show) {
	for end := shows[0].now + span; shows[0].now < end; {
		shows[0].down.pass(showStep)
		for _, s := range shows {
			s.step()
		}
	}
}

func (s *show) step() {
	for _, c := range s.cameras {
		if (s.now-c.phase)%showFrame == 0 {
			c.film()
		}
	}
	if s.now%(20*time.Millisecond) == 0 { // a sound beside them
		if _, ok := s.down.enter(170, s.now); !ok {
			s.silence++
		}
	}
	if s.now%repairEvery == 0 {
		for _, c := range s.cameras {
			c.repair()
		}
	}
	if s.now%(5*time.Millisecond) == 0 {
		s.release()
		if s.probe != nil && s.probe.step(s.now, s) {
			found, conclusive := s.path.ProbeResult(s.now)
			s.note("probe of %d kbit/s (test %v): found %v, conclusive %v", s.probe.target/1000, s.probe.test, found, conclusive)
			s.a.sought(s.probe, found, conclusive, s.now)
			s.probe = nil
		}
	}
	if s.now%(repeatAfter/2) == 0 && s.Numbered() { // what unheard does
		for _, c := range s.cameras {
			trip := 2 * s.down.delay
			c.leg.Overdue(s.now-trip-repeatAfter, s.now-trip-untoldAfter, s)
		}
	}
	if s.now%(100*time.Millisecond) == 0 {
		for _, c := range s.cameras {
			c.source.Tick()
		}
		s.look()
	}
	s.hear()
	s.now += showStep
}

// note tells what happens, where that is wanted.
func (s *show) note(format string, arguments ...any) {
	if os.Getenv("TRUNKBOARD_TEST_VERBOSE") != "" {
		rate, limited := s.path.Limited()
		s.t.Logf("%v, estimate %d %v, %.2f lost: %s", s.now, rate/1000, limited, s.path.Loss(), fmt.Sprintf(format, arguments...))
	}
}

// look is what Participant.adapt does.
func (s *show) look() {
	rate, limited := s.path.Limited()
	if !limited {
		if s.now-s.begun > startFor && s.paced {
			s.pacer.Follow(0, 0, s.now)
			s.paced = !s.pacer.Idle()
		}
		if s.a.limited {
			s.a.limited = false
			for _, c := range s.cameras {
				c.allow(forward.Everything)
			}
		}
		return
	}
	s.pacer.Follow(rate, s.path.Repairs(), s.now)
	s.paced, s.a.limited = true, true
	var pictures []picture
	for _, c := range s.cameras {
		pictures = append(pictures, picture{leg: c.leg, source: c.source, priority: c.priority})
	}
	if b := s.a.share(&s.path, pictures, s.mayPause, s.now, func(i, level int) { s.cameras[i].allow(level) }); b != nil {
		s.probe, s.probes = b, s.probes+1
	}
}

func (c *camera) allow(level int) {
	c.s.note("picture %d: level %d to %d, they take %v", c.number, c.leg.Allowed(), level, c.source.Rates())
	c.leg.Allow(level)
	if level < 0 && !c.paused {
		c.s.paused++
	}
	c.paused = level < 0
}

func (s *show) release() {
	for s.paced {
		n, _, number, _ := s.pacer.Next(s.slot[:], s.now)
		if n == 0 {
			return
		}
		s.send(s.slot[:n], number)
	}
}

// hear is the subscriber's part, and the ways back.
func (s *show) hear() {
	keep := s.flying[:0]
	for _, d := range s.flying {
		if d.at > s.now {
			keep = append(keep, d)
			continue
		}
		s.got++
		s.bytes += len(d.b)
		if d.number > 0 {
			s.arrivals.Note(d.count, d.at)
		}
		var h packets.Header
		if !h.Parse(d.b) {
			s.t.Fatal("a packet that cannot be read")
		}
		if i := int(h.SSRC) - 100; i < len(s.cameras) {
			s.cameras[i].take(h.Sequence, d.b[h.Payload:], h.Marker)
		} else {
			s.cameras[h.SSRC-200].take(binary.BigEndian.Uint16(d.b[h.Payload:]), d.b[h.Payload+2:], h.Marker)
		}
	}
	s.flying = keep
	for _, c := range s.cameras {
		if c.came {
			c.came = false
			c.show()
		}
		c.wait()
	}
	if s.now%(100*time.Millisecond) == 50*time.Millisecond && s.arrivals.Pending() {
		b := s.arrivals.Append(nil, 1, 2)[4:]
		if !s.mute {
			s.answer(func() { s.feedback(b) })
		}
	}
	if s.now%(20*time.Millisecond) == 0 {
		for _, c := range s.cameras {
			if lost := c.ask(); len(lost) > 0 {
				s.answer(func() {
					if s.asking.many(len(lost), s.now) {
						s.path.Suspect(s.now)
					}
					c.leg.Resend(lost, s)
				})
			}
		}
	}
	if s.now%time.Second == 0 {
		if s.lost*50 > s.got || s.down.backlog*8/s.down.rate > 0.1 {
			s.answer(func() { s.path.Suspect(s.now) })
		}
		s.got, s.lost = 0, 0
	}
	for len(s.back) > 0 && s.back[0].at <= s.now {
		s.back[0].do()
		s.back = s.back[1:]
	}
}

func (s *show) answer(do func()) {
	if !s.loses() {
		s.back = append(s.back, message{s.now + s.down.delay, do})
	}
}

// feedback is what connection.RTCP does.
func (s *show) feedback(body []byte) {
	var all []told
	newest := time.Duration(0)
	s.path.Feedback(body, s.now, func(what congest.Ref, sent time.Duration, arrived bool) {
		newest = max(newest, sent)
		i, repair := int(what.SSRC)-100, false
		if i >= len(s.cameras) {
			i, repair, what.Sequence = int(what.SSRC)-200, true, what.Original
		}
		all = append(all, told{s.cameras[i].leg, forward.Told{Sequence: what.Sequence, Repair: repair, Sent: sent, Arrived: arrived}})
	})
	for _, t := range all {
		t.leg.Tell(t.Told, s)
	}
	for _, c := range s.cameras {
		c.leg.Overdue(newest, newest, s)
	}
}

// film sends the next frame of each size.
func (c *camera) film() {
	for layer, rate := range c.rates {
		e := &c.layers[layer]
		key := e.picture == 0 || e.key > 0 && c.s.now >= e.key
		usual := rate / 8 * int(showFrame/time.Millisecond) / 1000
		size := max(usual/3, usual-e.debt)
		if key {
			size, e.key = keyTimes*usual, 0
		}
		e.debt += size - usual
		e.picture++
		e.ts += 90 * uint32(showFrame/time.Millisecond)
		var run []forward.Packet
		for first := true; size > 0; first = false {
			part := min(size, 1100)
			size -= part
			e.sn++
			b := make([]byte, packets.HeaderSize, packets.HeaderSize+max(part, 3))
			packets.PutHeader(b, size == 0, false, 96, e.sn, e.ts, uint32(layer))
			start, tag := byte(0), byte(1)
			if first {
				start = 0x10
			}
			if first && key {
				tag = 0
			}
			b = append(b, start, tag, byte(layer))
			b = append(b, make([]byte, max(0, part-3))...)
			e.kept[e.sn%uint16(len(e.kept))] = b
			if !c.s.loses() {
				run = append(run, c.s.packet(b))
			}
		}
		c.source.Forward(layer, run, c.s)
	}
}

// packet is what came from a publisher.
func (s *show) packet(b []byte) forward.Packet {
	p := forward.Packet{Raw: b}
	if !p.Header.Parse(b) {
		s.t.Fatal("a packet that cannot be read")
	}
	return p
}

// repair is what holes.ask does, and how the publisher answers.
func (c *camera) repair() {
	for layer := range c.rates {
		lost, _ := c.source.Lost(layer, nil)
		if len(lost) == 0 {
			continue
		}
		e := &c.layers[layer]
		c.s.answer(func() {
			for _, sn := range lost {
				if b := e.kept[sn%uint16(len(e.kept))]; binary.BigEndian.Uint16(b[2:]) == sn {
					c.s.answer(func() { c.source.Forward(layer, []forward.Packet{c.s.packet(b)}, c.s) })
				}
			}
		})
	}
}

// take is a packet that comes to the subscriber.
func (c *camera) take(sequence uint16, payload []byte, marker bool) {
	last, begun := c.sequence.Last()
	count := c.sequence.Extend(sequence)
	if c.next == 0 {
		c.next = count
	}
	c.holes = slices.DeleteFunc(c.holes, func(h *hole) bool { return h.count == count })
	for k := last + 1; begun && k < count; k++ {
		c.holes = append(c.holes, &hole{count: k, asked: -nackTrip})
	}
	if count < c.next || len(payload) < 3 {
		return
	}
	c.came = true
	c.have[count] = piece{start: payload[0]&0x10 != 0, key: payload[0]&0x10 != 0 && payload[1]&1 == 0, end: marker, size: int(payload[2])}
}

// hole is a packet that did not come.
type hole struct {
	count uint64
	tries int
	asked time.Duration
}

// ask is what a browser does: it asks ten times, as often as a round trip allows, and then never again.
func (c *camera) ask() (numbers []uint16) {
	now := c.s.now
	c.holes = slices.DeleteFunc(c.holes, func(h *hole) bool { return h.tries == nackTries || h.count < c.next })
	for _, h := range c.holes {
		if now-h.asked >= max(nackTrip, 2*c.s.down.delay) {
			h.asked, h.tries = now, h.tries+1
			numbers = append(numbers, uint16(h.count))
		}
	}
	return numbers
}

// show is what the decoder does: frames in order, or from a key frame on that is there.
func (c *camera) show() {
	advance := func() {
		for c.whole(c.next) > 0 {
			n := c.whole(c.next)
			c.frame(c.have[c.next].size)
			for ; n > 0; n-- {
				delete(c.have, c.next)
				c.next++
			}
			c.stuck = 0
		}
	}
	advance()
	if len(c.have) > 0 {
		last, _ := c.sequence.Last()
		for k := c.next + 1; k <= last; k++ {
			if p, ok := c.have[k]; ok && p.key && c.whole(k) > 0 {
				for ; c.next < k; c.next++ {
					delete(c.have, c.next)
				}
				advance()
				break
			}
		}
	}
}

// wait is what the decoder does as time passes.
func (c *camera) wait() {
	now := c.s.now
	switch {
	case len(c.have) == 0:
		c.stuck = 0
	case c.stuck == 0:
		c.stuck = now
	case now-c.stuck > c.s.patience && now-c.asked > 500*time.Millisecond:
		c.asked = now
		c.s.answer(c.leg.KeyFrame)
	}
	if !c.paused {
		c.max = max(c.max, now-max(c.shown, c.since))
	}
}

// whole gives how many packets the frame that begins at k has, 0 if some are missing.
func (c *camera) whole(k uint64) int {
	if !c.have[k].start {
		return 0
	}
	for n := 1; ; n++ {
		p, ok := c.have[k]
		switch {
		case !ok || n > 1 && p.start:
			return 0
		case p.end:
			return n
		}
		k++
	}
}

func (c *camera) frame(size int) {
	c.frames++
	c.size, c.shown = size, c.s.now
}

// until runs until want holds, for at most limit; it gives how long that took.
func (s *show) until(limit time.Duration, want func() bool) (time.Duration, bool) {
	begun := s.now
	for s.now-begun < limit {
		if want() {
			return s.now - begun, true
		}
		s.run(10 * time.Millisecond)
	}
	return limit, false
}

func (s *show) take() {
	for _, c := range s.cameras {
		c.frames, c.max, c.since = 0, 0, s.now
	}
	s.silence, s.down.dropped, s.probes, s.bytes, s.paused = 0, 0, 0, 0, 0
}

func sized(size int, cameras []*camera) func() bool {
	return func() bool {
		for _, c := range cameras {
			if c.size != size {
				return false
			}
		}
		return true
	}
}
