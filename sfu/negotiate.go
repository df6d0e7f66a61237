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

// letRepeat takes a client's Opus as if it had offered to send again what is lost. Browsers do both, ask and repeat, once the answer says so,
// and livekit-client says it in answers of its own but not in offers; whoever cannot is asked in vain.
func letRepeat(m *sdp.Media) {
	for i := range m.Codecs {
		if c := &m.Codecs[i]; c.Is("opus") && !slices.Contains(c.Feedback, "nack") {
			c.Feedback = append(slices.Clip(c.Feedback), "nack")
		}
	}
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

// codecFor chooses the codec of a section that comes in: the one announced with the track, else the first of ours.
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
			return m
		}
		if at < rank {
			best, rank = m, at
		}
	}
	return best
}

// rtxOf finds the retransmission codec of a payload type.
func rtxOf(m *sdp.Media, payload uint8) *sdp.Codec {
	for i := range m.Codecs {
		if x := &m.Codecs[i]; x.Is("rtx") {
			if apt, ok := x.Apt(); ok && apt == payload {
				return x
			}
		}
	}
	return nil
}

// Feedback messages that are understood, from publishers and from subscribers.
var (
	feedbackIn  = []string{"transport-cc", "ccm fir", "nack", "nack pli"}
	feedbackOut = []string{"transport-cc", "ccm fir", "nack", "nack pli"}
)

func only(c sdp.Codec, feedback []string) sdp.Codec {
	c.Feedback = slices.DeleteFunc(slices.Clone(c.Feedback), func(f string) bool { return !slices.Contains(feedback, f) })
	return c
}

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

// types lists the payload types of codecs.
func types(codecs []sdp.Codec) (out []uint8) {
	for _, c := range codecs {
		out = append(out, c.Type)
	}
	return out
}

// withOther puts the codec to which a picture may change behind codecs, if m has it.
func withOther(codecs []sdp.Codec, m *sdp.Media, other sdp.Codec) []sdp.Codec {
	codec := matching(m, other)
	if codec == nil || slices.Contains(types(codecs), codec.Type) {
		return codecs
	}
	codecs = append(codecs, only(*codec, feedbackOut))
	if rtx := rtxOf(m, codec.Type); rtx != nil {
		codecs = append(codecs, only(*rtx, nil))
	}
	return codecs
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

// matching finds the codec of a description that is the same as want.
func matching(m *sdp.Media, want sdp.Codec) *sdp.Codec {
	var near *sdp.Codec
	for i := range m.Codecs {
		c := &m.Codecs[i]
		if !c.Is(want.Name) || c.Clock != want.Clock {
			continue
		}
		if c.Is("VP9") && profile(c.Format) != profile(want.Format) || c.Is("AV1") && profile(c.Format) != profile(want.Format) {
			continue
		}
		if !c.Is("H264") || h264Profile(c.Format) == h264Profile(want.Format) {
			return c
		}
		if near == nil && strings.Contains(c.Format, "packetization-mode=1") == strings.Contains(want.Format, "packetization-mode=1") {
			near = c
		}
	}
	return near
}

// profile is that of VP9 or AV1, 0 where none is given.
func profile(format string) string {
	for f := range strings.SplitSeq(format, ";") {
		if k, v, _ := strings.Cut(strings.TrimSpace(f), "="); k == "profile-id" || k == "profile" {
			return v
		}
	}
	return "0"
}

// h264Profile is what must agree between two ends: the profile and the packetisation mode (RFC 6184 section 8.2.2).
func h264Profile(format string) string {
	profile, mode := "42e0", "0"
	for f := range strings.SplitSeq(format, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		switch {
		case k == "profile-level-id" && len(v) == 6:
			profile = strings.ToLower(v[:4])
		case k == "packetization-mode":
			mode = v
		}
	}
	return profile + "/" + mode
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

// ask asks a client that makes the offers itself for one, if something waits for it.
func (c *connection) ask() {
	if !c.begun || c.asked || c.p.state == Disconnected {
		return
	}
	need := map[string]int{}
	retiring := false
	for _, sub := range c.waiting() {
		need[sub.track.kind()]++
	}
	waiting := len(need) > 0
	for _, s := range c.sections {
		retiring = retiring || s.retiring
		if s.up == nil && s.down == nil && s.media.Receives() && !s.media.Sends() {
			need[s.kind]--
		}
	}
	if !waiting && !retiring {
		return
	}
	c.asked = true
	c.p.observer.Tell(Sections{Audio: max(0, need["audio"]), Video: max(0, need["video"])})
}

// payloads are the payload types of our own offers.
var payloads = map[string][]uint8{"opus": {111}, "PCMU": {0}, "PCMA": {8}, "VP8": {96}, "VP9": {98, 100}, "H264": {102, 104, 106, 108}, "AV1": {45}}

// payload gives codec a payload type of our offers; nil if there is none left.
func (c *connection) payload(codec sdp.Codec) *sdp.Codec {
	for i := range c.types {
		// Decoders of sound need to know nothing of its parameters, and there is one type for all publishers.
		if t := &c.types[i]; t.Is(codec.Name) && (t.Format == codec.Format || len(payloads[t.Name]) == 1) {
			return t
		}
	}
	for name, types := range payloads {
		if !codec.Is(name) {
			continue
		}
		for _, t := range types {
			if !slices.ContainsFunc(c.types, func(o sdp.Codec) bool { return o.Type == t }) {
				codec.Type = t
				c.types = append(c.types, codec)
				return &c.types[len(c.types)-1]
			}
		}
	}
	return nil
}

// offer makes an offer with everything that is subscribed to, or notes that one is due.
func (c *connection) offer() {
	if !c.begun || c.p.state == Disconnected {
		return
	}
	if c.outstanding != 0 {
		c.dirty = true
		return
	}
	c.dirty = false
	if len(c.sections) == 0 {
		c.sections = append(c.sections, &section{mid: "0", kind: "application"})
	}
	for _, sub := range c.waiting() {
		c.place(sub)
	}
	user, password := c.session.Credentials()
	t := c.p.room.engine.cfg.Transport
	// Passive and not actpass, although we offer: we are always the DTLS server, and some clients would rather be it themselves when
	// the other end is a lite one.
	d := &sdp.Description{User: user, Password: password, Fingerprint: t.Fingerprint(), Setup: "passive", Lite: true, MixedExtmap: true}
	tracks := map[string]string{}
	for _, s := range c.sections {
		m := sdp.Media{Kind: s.kind, MID: s.mid, Direction: sdp.Inactive, SCTPPort: 5000, MaxMessage: transport.MaxMessage}
		if s.kind != "application" {
			m.Codecs = s.media.Codecs
			if s.kind == "video" {
				m.Extmap = offered
			}
		}
		if s.down != nil {
			m.Direction = sdp.SendOnly
			c.describe(&m, s)
			tracks[s.mid] = s.down.track.info.SID
		}
		d.Media = append(d.Media, m)
	}
	c.offerID++
	c.outstanding = c.offerID
	c.version++
	c.p.observer.Tell(Offer{Description{SDP: d.Write(c.number, c.version, candidates(t)), ID: c.offerID, Tracks: tracks}})
}

// offered are the header extensions of our own offers.
var offered = []sdp.Extension{{ID: 3, URI: uriTransport}, {ID: 4, URI: uriDependency}}

// place gives a subscription a section of our offer.
func (c *connection) place(sub *Subscription) {
	ours := c.payload(sub.track.codec)
	if ours == nil {
		c.p.refuse(sub)
		return
	}
	codecs := []sdp.Codec{only(*ours, nil)}
	if ours.Is("opus") {
		codecs[0].Feedback = []string{"nack"}
	}
	if sub.track.info.Video {
		codecs[0].Feedback = feedbackOut
		codecs = append(codecs, repeats(ours))
		if other, ok := sub.track.other(); ok {
			if second := c.payload(other); second != nil {
				codec := only(*second, nil)
				codec.Feedback = feedbackOut
				codecs = append(codecs, codec, repeats(second))
			}
		}
	} else {
		codecs[0].Feedback, codecs[0].Format = []string{"nack"}, sub.track.stereo(codecs[0].Format)
		if sub.track.mayBeRedundant() {
			codecs = slices.Insert(codecs, 0, redundantOffer(ours))
		}
	}
	for _, s := range c.sections {
		if s.kind == sub.track.kind() && s.down == nil && !s.retiring {
			s.media = sdp.Media{Codecs: codecs}
			c.put(s, sub)
			return
		}
	}
	s := &section{mid: fmt.Sprint(len(c.sections)), kind: sub.track.kind(), media: sdp.Media{Codecs: codecs}}
	c.sections = append(c.sections, s)
	c.put(s, sub)
}

// repeats is the codec of our offers under which packets of codec are sent again (RFC 4588).
func repeats(codec *sdp.Codec) sdp.Codec {
	return sdp.Codec{Type: codec.Type + 1, Name: "rtx", Clock: codec.Clock, Format: fmt.Sprintf("apt=%d", codec.Type)}
}

// put takes the numbers under which sub will be sent; it is bound when the client has agreed.
func (c *connection) put(s *section, sub *Subscription) {
	n := forward.Streams{SSRC: c.newSSRC()}
	if sub.track.info.Video {
		n.RTXSSRC = c.newSSRC()
	}
	s.down, s.streams, sub.section = sub, n, s
}

// answered takes the answer to our offer.
func (c *connection) answered(d *sdp.Description, id uint32) error {
	if c.outstanding == 0 || (id != 0 && id != c.outstanding) {
		return nil // late: a newer one is on its way
	}
	if len(d.Media) > len(c.sections) {
		return fmt.Errorf("%w: more sections than were offered", ErrSDP)
	}
	before := make([]sdp.Media, len(c.sections))
	for i, s := range c.sections {
		before[i] = s.media
	}
	if err := c.take(d); err != nil {
		return err
	}
	c.outstanding = 0
	data := false
	var refused []*Subscription
	for i, s := range c.sections {
		s.retiring = false
		data = data || s.kind == "application" && !s.media.Rejected
		if s.down != nil && (!s.media.Receives() || !c.bindDown(s, s.down)) {
			refused = append(refused, s.down)
		}
		s.agreed = types(s.media.Codecs)
		s.media.Codecs = before[i].Codecs // what we offer stays what it was
	}
	c.session.Peer(d.User, d.Password)
	c.session.Start(d.Fingerprint, data, transport.Reliable, transport.Lossy)
	c.startLegs()
	for _, sub := range refused {
		if c.p.fallBack(sub); sub.section != nil {
			c.remove(sub)
		}
	}
	if c.dirty {
		c.offer()
	}
	return nil
}

// Restart makes an offer with new ICE credentials, after the client's network changed. It does nothing with one connection: there
// the client restarts ICE.
func (p *Participant) Restart() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if c := p.receiving; c.offers {
		c.session.Restart()
		c.outstanding = 0
		c.offer()
	}
}
