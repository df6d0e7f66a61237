// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/packets"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// Limits of what one RTCP packet may make us do.
const maxResend = 128

// maxTold bounds what is taken of one message of feedback, of which a run of lost packets takes two bytes. The rest is overdue soon.
const maxTold = 512

// manyLost is how many packets a client has to ask for within manyIn for its path to be looked at, without waiting for its next report.
const (
	manyLost = 8
	manyIn   = 500 * time.Millisecond
)

// asking counts what a client asks to be sent again.
type asking struct {
	n     int
	since time.Duration
}

// many notes n requests; it reports whether they are many.
func (a *asking) many(n int, now time.Duration) bool {
	if now-a.since > manyIn {
		a.n, a.since = 0, now
	}
	a.n += n
	return a.n >= manyLost
}

// connection is one peer connection of a participant. It is its session's transport.Handler.
type connection struct {
	p       *Participant
	session *transport.Session
	offers  bool // we make the offers
	ssrc    uint32

	// Guarded by the room's lock: see negotiate.go.
	number      uint64
	version     int
	begun       bool // the first description was made
	sections    []*section
	types       []sdp.Codec // payload types of our offers
	offerID     uint32
	outstanding uint32    // offer that waits for its answer
	settling    bool      // the first offer was answered, and the connection is not up yet
	dirty       bool      // something changed since
	asked       bool      // the client was asked for an offer
	told        time.Time // when it was asked, or sent the outstanding offer
	connected   bool
	since       time.Time // connected
	adaption    adaption

	mu       sync.Mutex
	streams  map[uint32]*stream // by SSRC, those that come in
	incoming []incoming
	legs     map[uint32]*forward.Leg // by SSRC, those that go out
	repeats  map[uint32]*forward.Leg // by the SSRC of the RTX stream
	asking   asking
	unheard  unheard
	tells    []told        // what the message at hand tells
	newest   time.Duration // when the newest packet that feedback tells of was sent
	heard    map[*forward.Leg]*hearing
	ids      extensions
	arrivals congest.Arrivals
	lost     []uint16
}

// section is one m-section.
type section struct {
	mid, kind string
	media     sdp.Media // as the client described it last
	up        *Track
	down      *Subscription
	streams   forward.Streams
	agreed    []uint8 // payload types of what goes out that the client knows of
	retiring  bool    // it sent something until now; the client has to hear that it is inactive before it is used again

	ssrcs [forward.MaxLayers]atomic.Uint32 // of the layers that come in
}

// incoming is what is needed to tell whose packet it is.
type incoming struct {
	section *section
	track   *Track
	mid     string
	ssrcs   []uint32
	repair  map[uint32]uint32
	rids    []string
	media   uint8 // payload type
	rtx     uint8 // payload type, 0 if there is none
	red     uint8 // payload type of redundant sound, 0 if there is none
}

// stream is an SSRC that is known.
type stream struct {
	in    *incoming
	track *Track
	layer int
	rtx   bool
}

// extensions are the numbers of RTP header extensions; with BUNDLE, one number means the same everywhere.
type extensions struct{ mid, rid, repaired, level, transport uint8 }

// URIs of the header extensions that are used.
const (
	uriMID        = "urn:ietf:params:rtp-hdrext:sdes:mid"
	uriRID        = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	uriRepaired   = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	uriLevel      = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	uriDependency = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
	uriTransport  = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
)

func newConnection(p *Participant, t *transport.Transport) (*connection, error) {
	c := &connection{p: p, ssrc: rand.Uint32() | 1, number: rand.Uint64() >> 2, streams: map[uint32]*stream{}, legs: map[uint32]*forward.Leg{}, repeats: map[uint32]*forward.Leg{}, heard: map[*forward.Leg]*hearing{}}
	c.unheard.c = c
	var err error
	c.session, err = t.Open(c)
	return c, err
}

// Connected implements transport.Handler.
func (c *connection) Connected() {
	r := c.p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.p.state == Disconnected {
		return
	}
	c.connected, c.since = true, r.engine.now()
	c.adaption.begun, c.adaption.seeker.Random = r.engine.cfg.Transport.Now(), rand.Float64
	c.session.Pace(startRate)
	if c == c.p.primary() && c.p.state != Active {
		c.p.state = Active
		c.p.changed()
		if !c.p.came {
			c.p.came = true
			r.note(ParticipantJoined, c.p, nil)
		}
	}
	c.startLegs()
	c.settling = false
	if c.dirty && c.outstanding == 0 {
		c.offer()
	}
}

// startLegs lets all legs that are bound begin.
func (c *connection) startLegs() {
	if !c.connected {
		return
	}
	c.p.room.engine.cfg.Transport.Do(func(b *transport.Batch) {
		for _, s := range c.sections {
			if s.down != nil && s.down.bound && !s.down.told {
				s.down.told = true
				s.down.leg.Start(b)
				if t := s.down.track.first(); !t.heard {
					t.heard = true
					t.publisher.observer.Tell(Subscribed{t.info.SID})
				}
			}
		}
	})
}

// Closed implements transport.Handler.
func (c *connection) Closed(reason error) {
	c.p.room.engine.log.Debug("connection closed", "room", c.p.room.name, "participant", c.p.sid, "reason", reason)
	c.p.Leave(Failed)
}

// Data implements transport.Handler.
func (c *connection) Data(label string, message []byte) {
	c.p.room.mu.Lock()
	o, in := c.p.observer, c.p.state != Disconnected
	c.p.room.mu.Unlock()
	if in {
		o.Message(label, message)
	}
}

// RTP implements transport.Handler.
func (c *connection) RTP(run [][]byte, out *transport.Batch) {
	now := c.p.room.engine.cfg.Transport.Now()
	scratch := out.Packets()
	c.mu.Lock()
	defer c.mu.Unlock()
	var current *stream
	n := 0
	for _, b := range run {
		p := &scratch[n]
		p.Raw = b
		if !p.Header.Parse(b) || !p.Header.StripPadding(b) {
			continue
		}
		if x := p.Header.Extension(b, c.ids.transport); len(x) == 2 {
			c.arrivals.Note(binary.BigEndian.Uint16(x), now)
		}
		s := c.streams[p.Header.SSRC]
		if s == nil {
			if s = c.identify(&p.Header, b); s == nil {
				continue
			}
		}
		if s.rtx && !unwrap(p, s) || !s.rtx && p.Header.PayloadType != s.in.media && (s.in.red == 0 || p.Header.PayloadType != s.in.red) {
			continue
		}
		if !s.track.info.Video {
			if x := p.Header.Extension(b, c.ids.level); len(x) > 0 {
				s.track.meter.Observe(x[0])
			}
		}
		if n > 0 && (s.track != current.track || s.layer != current.layer) {
			moved := *p
			current.track.source.Forward(current.layer, scratch[:n], out)
			scratch[0], n = moved, 0
		}
		current = s
		n++
	}
	if n > 0 {
		current.track.source.Forward(current.layer, scratch[:n], out)
	}
}

// unwrap makes the original packet of a retransmission, in place (RFC 4588 section 4); false if it carries nothing.
func unwrap(p *forward.Packet, s *stream) bool {
	h := &p.Header
	if h.End-h.Payload < 2 || h.PayloadType != s.in.rtx {
		return false
	}
	ssrc := s.in.section.ssrcs[s.layer].Load()
	if ssrc == 0 {
		return false
	}
	b := p.Raw
	sequence := binary.BigEndian.Uint16(b[h.Payload:])
	copy(b[2:h.Payload+2], b[:h.Payload])
	b = b[2:]
	b[1] = b[1]&0x80 | s.in.media
	binary.BigEndian.PutUint16(b[2:], sequence)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	p.Raw = b
	return h.Parse(b) && h.StripPadding(b)
}

// identify finds out what an unknown SSRC is: by the description, or by the extensions of the packet. The caller holds mu.
func (c *connection) identify(h *packets.Header, b []byte) *stream {
	mid, rid, repaired := string(h.Extension(b, c.ids.mid)), string(h.Extension(b, c.ids.rid)), string(h.Extension(b, c.ids.repaired))
	for i := range c.incoming {
		in := &c.incoming[i]
		if !slices.Contains(in.ssrcs, h.SSRC) && (mid == "" || mid != in.mid) {
			continue
		}
		s := &stream{in: in, track: in.track, rtx: in.rtx != 0 && h.PayloadType == in.rtx}
		switch of := in.repair[h.SSRC]; {
		case s.rtx && repaired != "":
			s.layer = ridLayer(in.rids, repaired)
		case s.rtx && of != 0:
			known := c.streams[of]
			if known == nil {
				return nil
			}
			s.layer = known.layer
		case s.rtx && len(in.rids) > 0:
			return nil // a later packet will say which layer it repairs
		case len(in.rids) > 0:
			if rid == "" {
				return nil
			}
			s.layer = ridLayer(in.rids, rid)
		}
		if s.layer < 0 || s.layer >= forward.MaxLayers || len(c.streams) >= 64 {
			return nil
		}
		if !s.rtx {
			in.section.ssrcs[s.layer].Store(h.SSRC)
		}
		c.streams[h.SSRC] = s
		return s
	}
	return nil
}

// forget drops what belongs to a track that has ended.
func (c *connection) forget(t *Track) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ssrc, s := range c.streams {
		if s.track == t {
			delete(c.streams, ssrc)
		}
	}
	c.incoming = slices.DeleteFunc(slices.Clone(c.incoming), func(i incoming) bool { return i.track == t })
	for i := range t.section.ssrcs {
		t.section.ssrcs[i].Store(0)
	}
	t.section = nil
}

// RTCP implements transport.Handler.
func (c *connection) RTCP(compound []byte, out *transport.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resend := 0
	for {
		p, rest, ok := packets.NextRTCP(compound)
		if !ok {
			return
		}
		compound = rest
		p.Receptions(c.received)
		if r, ok := p.Sender(); ok {
			if s := c.streams[r.SSRC]; s != nil && !s.rtx {
				s.track.source.Report(s.layer, r)
			}
			continue
		}
		if body, ok := p.TransportFeedback(); ok {
			c.tells, c.newest = c.tells[:0], 0
			c.session.Path.Feedback(body, c.p.room.engine.cfg.Transport.Now(), c.tell)
			for _, t := range c.tells {
				t.leg.Tell(t.Told, out)
			}
			clear(c.tells) // of legs that may be gone soon
			for _, g := range c.legs {
				if c.newest > 0 && g.Watching() {
					g.Overdue(c.newest, c.newest, out)
					c.p.room.engine.repairs.add(&c.unheard)
				}
			}
			continue
		}
		if ssrc, lost, ok := p.NACK(c.lost[:0]); ok {
			c.p.room.engine.cfg.Transport.Hasten()
			c.lost = lost[:0]
			lost = lost[:min(len(lost), maxResend-resend)]
			resend += len(lost)
			if g := c.legs[ssrc]; g != nil {
				if g.Video() && c.asking.many(len(lost), c.p.room.engine.cfg.Transport.Now()) {
					c.session.Suspect()
				}
				g.Resend(lost, out)
				if g.Watching() {
					c.p.room.engine.repairs.add(&c.unheard)
				}
			}
			continue
		}
		p.WantsKeyFrame(func(ssrc uint32) {
			if g := c.legs[ssrc]; g != nil {
				g.KeyFrame()
			}
		})
	}
}

// told is what feedback says of a packet.
type told struct {
	leg *forward.Leg
	forward.Told
}

// tell notes what feedback says of a packet, if that matters. The caller holds mu.
func (c *connection) tell(what congest.Ref, sent time.Duration, arrived bool) {
	c.newest = max(c.newest, sent)
	g, repair := c.legs[what.SSRC], false
	if g == nil {
		g, repair, what.Sequence = c.repeats[what.SSRC], true, what.Original
	}
	if g != nil && (!arrived || g.Watching()) && len(c.tells) < maxTold {
		c.tells = append(c.tells, told{g, forward.Told{Sequence: what.Sequence, Repair: repair, Sent: sent, Arrived: arrived}})
	}
}

// received takes a report block about something that we send. The caller holds mu.
func (c *connection) received(r packets.Reception) {
	g := c.legs[r.SSRC]
	if g == nil {
		return
	}
	h := c.heard[g]
	if h == nil {
		h = &hearing{}
		c.heard[g] = h
	}
	now := c.p.room.engine.cfg.Transport.Now()
	jitter, trip := g.Times(r)
	if h.hear(float64(r.FractionLost)/256, jitter, trip, now) {
		c.session.Suspect()
	}
	if losing := h.losing(); losing != h.told {
		h.told = losing
		g.Losing(losing)
	}
}

// askKeyFrame asks the client for a key frame.
func (c *connection) askKeyFrame(s *section, layer int) {
	if ssrc := s.ssrcs[layer].Load(); ssrc != 0 {
		c.p.room.engine.cfg.Transport.Do(func(out *transport.Batch) {
			c.session.SendRTCP(packets.AppendPLI(make([]byte, 0, 12), c.ssrc, ssrc), out)
		})
	}
}

// feedback tells a publisher what arrived, and what did not. The caller holds the room's lock.
func (p *Participant) feedback(arrivals, report bool, out *transport.Batch) {
	c := p.publishing
	if !c.session.Open() {
		return
	}
	var b, last []byte // feedback about arrivals may be padded, which only the last packet of a compound may be (RFC 3550 section 6.4.1)
	c.mu.Lock()
	if arrivals && c.arrivals.Pending() {
		media := uint32(0)
		for ssrc := range c.streams {
			media = ssrc
			break
		}
		last = c.arrivals.Append(make([]byte, 0, 1024), c.ssrc, media)
	}
	c.mu.Unlock()
	var blocks []packets.Reception
	for t := range p.all() {
		if t.source == nil || t.section == nil {
			continue
		}
		for layer := range forward.MaxLayers {
			ssrc := t.section.ssrcs[layer].Load()
			if ssrc == 0 || !report {
				continue
			}
			if r, ok := t.source.Reception(layer); ok {
				r.SSRC = ssrc
				blocks = append(blocks, r)
			}
		}
	}
	if len(blocks) > 0 {
		b = packets.AppendReceiverReport(b, c.ssrc, blocks)
	}
	if len(b)+len(last) <= transport.MaxRTCP {
		b, last = append(b, last...), nil
	}
	for _, one := range [][]byte{b, last} {
		if len(one) > 0 {
			c.session.SendRTCP(one, out)
		}
	}
}

// report sends the sender reports of everything p receives. The caller holds the room's lock.
func (p *Participant) report(out *transport.Batch) {
	c := p.receiving
	if !c.session.Open() || len(p.subscriptions) == 0 {
		return
	}
	b := p.room.scratch[:0]
	defer func() { p.room.scratch = b }()
	for _, s := range p.subscriptions {
		if !s.reports.due(s.track.info.Video) {
			continue
		}
		if r, ok := s.leg.SenderReport(); ok {
			s.reports.sent++
			if b = packets.AppendSenderReport(b, r); len(b) > 1100 {
				c.session.SendRTCP(b, out)
				b = b[:0]
			}
		}
	}
	if len(b) > 0 {
		c.session.SendRTCP(b, out)
	}
}

// Sender reports of a sound go out every second at first, so that sound and picture fit together soon, and then every five seconds, as
// browsers' own do: their clocks do not drift apart by more than a fraction of a millisecond meanwhile.
const (
	soundFirst = 3
	soundEvery = 5 // looks, one a second
)

// reporting counts the sender reports of a subscription.
type reporting struct{ looks, sent uint32 }

// due reports whether one should go out at this look.
func (r *reporting) due(video bool) bool {
	r.looks++
	return video || r.sent < soundFirst || r.looks%soundEvery == 0
}
