// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// Offered takes the client's offer for the connection on which it publishes. The answer is given to reply before any event that
// follows from the offer. Everything here runs under the room's lock.
func (p *Participant) Offered(text string, id uint32, reply func(Description)) error {
	d, err := sdp.Parse(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSDP, err)
	}
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.state == Disconnected {
		return ErrGone
	}
	return p.publishing.offered(d, id, reply)
}

// Answered takes the client's answer to our offer with that number.
func (p *Participant) Answered(text string, id uint32) error {
	d, err := sdp.Parse(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSDP, err)
	}
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.state == Disconnected {
		return ErrGone
	}
	if !p.options.TwoConnections {
		return fmt.Errorf("%w: an answer without an offer", ErrSDP)
	}
	return p.receiving.answered(d, id)
}

// take notes the client's view of each section; a description that contradicts an earlier one changes nothing.
func (c *connection) take(d *sdp.Description) error {
	if d.User == "" || d.Fingerprint == "" {
		return fmt.Errorf("%w: no ICE credentials or fingerprint", ErrSDP)
	}
	if len(d.Media) < len(c.sections) {
		return fmt.Errorf("%w: sections are missing", ErrSDP)
	}
	for i, s := range c.sections {
		if d.Media[i].MID != s.mid || d.Media[i].Kind != s.kind {
			return fmt.Errorf("%w: section %d was another one before", ErrSDP, i)
		}
	}
	for i := range d.Media {
		if i == len(c.sections) {
			c.sections = append(c.sections, &section{mid: d.Media[i].MID, kind: d.Media[i].Kind})
		}
		c.sections[i].media = d.Media[i]
	}
	return nil
}

// offered answers an offer.
func (c *connection) offered(d *sdp.Description, id uint32, reply func(Description)) error {
	if err := c.take(d); err != nil {
		return err
	}
	c.begun, c.asked = true, false
	var ended, begun []*Track
	for _, s := range c.sections {
		letRepeat(&s.media)
		if s.kind != "audio" && s.kind != "video" {
			continue
		}
		if s.up != nil && (!s.media.Sends() || c.pending(s) != nil && s.media.Track != s.up.info.CID) {
			ended = append(ended, s.up)
			c.p.drop(s.up)
		}
		if s.media.Sends() && s.up == nil {
			if t := c.pending(s); t != nil && c.bind(s, t) {
				begun = append(begun, t)
			}
		}
	}
	begun = slices.DeleteFunc(begun, func(t *Track) bool { return t.section == nil }) // a second codec whose track has ended
	if c == c.p.receiving {
		c.assign()
	}
	c.session.Peer(d.User, d.Password)
	user, password := c.session.Credentials()
	t := c.p.room.engine.cfg.Transport
	a := &sdp.Description{User: user, Password: password, Fingerprint: t.Fingerprint(), Setup: "passive", Lite: true, MixedExtmap: d.MixedExtmap}
	tracks, data := map[string]string{}, false
	for _, s := range c.sections {
		m := c.answer(s)
		if m.Direction == sdp.SendOnly {
			tracks[s.mid] = s.down.track.info.SID
		}
		data = data || m.Kind == "application" && !m.Rejected
		a.Media = append(a.Media, m)
		if s.down == nil {
			s.retiring = false
		}
	}
	c.refresh()
	c.version++
	reply(Description{SDP: a.Write(c.number, c.version, candidates(t)), ID: id, Tracks: tracks})
	c.session.Start(d.Fingerprint, data)
	for _, t := range ended {
		if t.primary == nil {
			c.p.observer.Tell(Unpublished{t.info.SID})
		}
	}
	if len(ended) > 0 && len(begun) == 0 {
		c.p.changed()
	}
	for _, t := range begun {
		c.p.published(t)
	}
	c.startLegs()
	c.ask()
	return nil
}

// candidates are where clients reach us.
func candidates(t *transport.Transport) sdp.Candidates {
	return sdp.Candidates{UDP: t.Candidates(), TCP: t.CandidatesTCP()}
}

// pending finds the announced track that comes in on s: by its name, or as the only one of its kind that waits.
func (c *connection) pending(s *section) *Track {
	var only *Track
	n := 0
	for t := range c.p.all() {
		if t.source != nil || t.kind() != s.kind {
			continue
		}
		if t.info.CID == s.media.Track {
			return t
		}
		only = t
		n++
	}
	if n == 1 && s.up == nil && !c.named(only) {
		return only
	}
	return nil
}

// named reports whether some section carries t's name.
func (c *connection) named(t *Track) bool {
	return slices.ContainsFunc(c.sections, func(s *section) bool { return s.media.Track == t.info.CID })
}

// match binds a track that was announced after it was offered.
func (c *connection) match(t *Track) {
	for _, s := range c.sections {
		if s.up == nil && s.kind == t.kind() && s.media.Sends() && s.media.Track == t.info.CID && c.bind(s, t) {
			c.refresh()
			c.p.published(t)
			return
		}
	}
}

// bind makes s the section of t; false if the client offers no codec that we take.
func (c *connection) bind(s *section, t *Track) bool {
	codec := c.codecFor(s, t)
	if codec == nil {
		return false
	}
	s.up, t.section = t, s
	t.info.MID = s.mid
	t.start(*codec)
	return true
}

// Codecs that are forwarded, the preferred ones first.
var known = map[string][]string{
	"audio": {"opus", "PCMU", "PCMA"},
	"video": {"VP8", "H264", "VP9", "AV1"},
}

// codecFor chooses the codec of a section that comes in: the one announced with the track, else the first of ours. Of several kinds of H264,
// which clients offer in an order of their own, it is the one that everybody takes, or else the first.
func (c *connection) codecFor(s *section, t *Track) *sdp.Codec {
	wanted := ""
	if t != nil {
		_, wanted, _ = strings.Cut(t.info.MIME, "/")
	}
	var best *sdp.Codec
	rank := len(known[s.kind])
	for i := range s.media.Codecs {
		m := &s.media.Codecs[i]
		at := slices.IndexFunc(known[s.kind], m.Is)
		if at < 0 || m.Clock == 0 {
			continue
		}
		if wanted != "" && m.Is(wanted) {
			at = -1
		}
		if at < rank || at == rank && isCommonH264(m) && !isCommonH264(best) {
			best, rank = m, at
		}
	}
	return best
}

// Feedback messages that are understood, from publishers and from subscribers.
var (
	feedbackIn  = []string{"transport-cc", "ccm fir", "nack", "nack pli"}
	feedbackOut = []string{"transport-cc", "ccm fir", "nack", "nack pli"}
)

// answer makes our side of a section.
func (c *connection) answer(s *section) sdp.Media {
	m := sdp.Media{Kind: s.kind, MID: s.mid, Rejected: s.media.Rejected, Direction: sdp.Inactive}
	// The same extensions everywhere, whether they are used or not: they belong to the bundle, and a browser that was once told that
	// one is not wanted leaves it out of sections to come.
	for _, e := range s.media.Extmap {
		switch e.URI {
		case uriMID, uriRID, uriRepaired, uriLevel, uriTransport, uriDependency:
			m.Extmap = append(m.Extmap, e)
		}
	}
	switch {
	case s.kind == "application" && !s.media.Rejected:
		m.SCTPPort, m.MaxMessage = 5000, transport.MaxMessage
	case s.kind != "audio" && s.kind != "video":
		m.Rejected = true
	case s.media.Rejected:
	case s.media.Sends():
		codec := c.codecFor(s, s.up)
		if codec == nil {
			m.Rejected = true
			break
		}
		m.Direction = sdp.RecvOnly
		m.Codecs = append(m.Codecs, only(*codec, feedbackIn))
		if s.up != nil && s.up.info.Format != "" && codec.Is("opus") {
			m.Codecs[0].Format = strings.Trim(codec.Format+";"+s.up.info.Format, ";")
		}
		if s.up != nil && s.up.red != 0 {
			m.Codecs = withRedundancy(m.Codecs, &s.media)
		}
		if rtx := rtxOf(&s.media, codec.Type); rtx != nil {
			m.Codecs = append(m.Codecs, only(*rtx, nil))
		}
		if len(s.media.RIDs) <= forward.MaxLayers {
			m.RIDsRecv = s.media.RIDs
		}
	case s.down != nil:
		m.Direction = sdp.SendOnly
		c.describe(&m, s)
		if codec := matching(&s.media, s.down.track.codec); codec != nil {
			m.Codecs = append(m.Codecs, only(*codec, feedbackOut))
			if s.down.track.mayBeRedundant() {
				m.Codecs = withRedundancy(m.Codecs, &s.media)
			}
			if rtx := rtxOf(&s.media, codec.Type); rtx != nil {
				m.Codecs = append(m.Codecs, only(*rtx, nil))
			}
			if other, ok := s.down.track.other(); ok {
				m.Codecs = withOther(m.Codecs, &s.media, other)
			}
		}
		s.agreed = types(m.Codecs)
	default: // unused for now: all its codecs stay possible
		for _, codec := range s.media.Codecs {
			if codec.Name != "" {
				m.Codecs = append(m.Codecs, only(codec, nil))
			}
		}
	}
	return m
}

// describe writes what a section sends: the receiver knows the publisher and the track by their numbers.
func (c *connection) describe(m *sdp.Media, s *section) {
	t := s.down.track
	m.Stream, m.Track = t.publisher.sid+"|"+t.info.SID, t.info.SID
	m.CNAME = t.publisher.sid
	m.SSRCs = []uint32{s.streams.SSRC}
	if s.streams.RTXSSRC != 0 {
		m.SSRCs = append(m.SSRCs, s.streams.RTXSSRC)
		m.Repair = map[uint32]uint32{s.streams.RTXSSRC: s.streams.SSRC}
	}
}

// assign gives waiting subscriptions the sections that the client receives on and that are free.
func (c *connection) assign() {
	for _, sub := range c.waiting() {
		for c.seat(sub) && sub.section == nil { // every other section would have the same codecs
			if c.p.fallBack(sub); !sub.awaits.IsZero() || c.p.subscriptions[sub.track.info.SID] != sub {
				break
			}
		}
	}
}

// seat looks for a section for sub. It reports whether there is a free one, whose codecs the client may not take.
func (c *connection) seat(sub *Subscription) (tried bool) {
	for _, s := range c.sections {
		if s.kind != sub.track.kind() || s.up != nil || s.down != nil || s.retiring || s.media.Sends() || !s.media.Receives() {
			continue
		}
		tried = true
		if c.bindDown(s, sub) {
			break
		}
	}
	return tried
}

// waiting lists the subscriptions without a section, in a fixed order.
func (c *connection) waiting() (out []*Subscription) {
	for _, s := range c.p.subscriptions {
		if s.section == nil && s.awaits.IsZero() {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *Subscription) int { return strings.Compare(a.track.info.SID, b.track.info.SID) })
	return out
}

// bindDown makes sub go out on s, with the payload types of the client's description; false if the client does not take its codec.
func (c *connection) bindDown(s *section, sub *Subscription) bool {
	codec := matching(&s.media, sub.track.codec)
	if codec == nil {
		return false
	}
	n := s.streams
	if s.down != sub {
		n = forward.Streams{SSRC: c.newSSRC()}
	}
	n.PayloadType, n.RTXType, n.RedType, n.Transport, n.Dependency = codec.Type, 0, 0, 0, s.media.Find(uriDependency)
	if sub.track.mayBeRedundant() {
		if red := redundantOf(&s.media, codec); red != nil {
			n.RedType = red.Type
		}
	}
	n.Once = !sub.track.info.Video && !slices.Contains(codec.Feedback, "nack")
	if slices.Contains(codec.Feedback, "transport-cc") {
		n.Transport = s.media.Find(uriTransport)
	}
	if rtx := rtxOf(&s.media, codec.Type); rtx != nil {
		n.RTXType = rtx.Type
		if n.RTXSSRC == 0 {
			n.RTXSSRC = c.newSSRC()
		}
	} else {
		n.RTXSSRC = 0
	}
	s.down, s.streams, sub.section = sub, n, s
	sub.leg.Bind(n)
	sub.bound = true
	c.mu.Lock()
	c.legs[n.SSRC] = sub.leg
	maps.DeleteFunc(c.repeats, func(_ uint32, g *forward.Leg) bool { return g == sub.leg })
	if n.RTXSSRC != 0 {
		c.repeats[n.RTXSSRC] = sub.leg
	}
	c.mu.Unlock()
	return true
}

func (c *connection) newSSRC() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if n := rand.Uint32(); n != 0 && c.legs[n] == nil && c.repeats[n] == nil {
			return n
		}
	}
}

// refresh gives the packets' path its own view of what comes in.
func (c *connection) refresh() {
	var in []incoming
	var ids extensions
	for _, s := range c.sections {
		if s.up == nil || s.up.source == nil {
			continue
		}
		i := incoming{
			section: s, track: s.up, mid: s.mid, ssrcs: s.media.SSRCs, repair: s.media.Repair, rids: s.media.RIDs, media: s.up.codec.Type, red: s.up.red,
		}
		if rtx := rtxOf(&s.media, i.media); rtx != nil {
			i.rtx = rtx.Type
		}
		in = append(in, i)
		for _, e := range s.media.Extmap {
			switch e.URI {
			case uriMID:
				ids.mid = e.ID
			case uriRID:
				ids.rid = e.ID
			case uriRepaired:
				ids.repaired = e.ID
			case uriLevel:
				ids.level = e.ID
			case uriTransport:
				ids.transport = e.ID
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.incoming, c.ids = in, ids
	for _, s := range c.streams {
		for i := range in {
			if in[i].section == s.in.section && in[i].track == s.track {
				s.in = &c.incoming[i]
			}
		}
	}
}

// add takes a new subscription.
func (c *connection) add(*Subscription) {
	if c.offers {
		c.offer()
	} else {
		c.ask()
	}
}

// remove frees a subscription's section.
func (c *connection) remove(sub *Subscription) {
	s := sub.section
	if s == nil {
		return
	}
	c.mu.Lock()
	delete(c.legs, s.streams.SSRC)
	delete(c.repeats, s.streams.RTXSSRC)
	delete(c.heard, sub.leg)
	c.mu.Unlock()
	s.down, s.streams, s.retiring, sub.section, sub.bound = nil, forward.Streams{}, true, nil, false
	if c.offers {
		c.offer()
	} else {
		c.ask()
	}
}

// payloads are the payload types of our own offers.
var payloads = map[string][]uint8{"opus": {111}, "PCMU": {0}, "PCMA": {8}, "VP8": {96}, "VP9": {98, 100}, "H264": {102, 104, 106, 108}, "AV1": {45}}

// offered are the header extensions of our own offers.
var offered = []sdp.Extension{{ID: 3, URI: uriTransport}, {ID: 4, URI: uriDependency}}

// Restart makes an offer with new ICE credentials, after the client's network changed. It does nothing with one connection: there
// the client restarts ICE.
func (p *Participant) Restart() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if c := p.receiving; c.offers {
		c.session.Restart()
		c.outstanding, c.settling = 0, false
		c.offer()
	}
}
