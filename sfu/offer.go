// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"slices"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// ask asks a client that makes the offers itself for one, if something waits for it.
func (c *connection) ask() {
	if !c.begun || c.asked || c != c.p.receiving || c.p.state == Disconnected {
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
	c.asked, c.told = true, c.p.room.engine.now()
	c.p.observer.Tell(Sections{Audio: max(0, need["audio"]), Video: max(0, need["video"])})
}

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

// offer makes an offer with everything that is subscribed to, or notes that one is due. The second one waits until the connection is up: before,
// nothing of it could flow, and pion, which is in other people's clients, prepares for the streams of the first one once it is connected, and
// never for those that have taken their places meanwhile.
func (c *connection) offer() {
	if !c.begun || c.p.state == Disconnected {
		return
	}
	if c.outstanding != 0 || c.settling {
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
	c.outstanding, c.told = c.offerID, c.p.room.engine.now()
	c.version++
	c.p.observer.Tell(Offer{Description{SDP: d.Write(c.number, c.version, candidates(t)), ID: c.offerID, Tracks: tracks}})
}

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
	c.outstanding, c.settling = 0, !c.connected
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
