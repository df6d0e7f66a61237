// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/speakers"
	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// Track is a published track.
type Track struct {
	publisher *Participant
	info      TrackInfo
	section   *section        // where it comes in, nil while it is pending
	source    *forward.Source // nil while it is pending
	codec     sdp.Codec       // as negotiated with the publisher
	red       uint8           // payload type of redundant sound from the publisher, 0 for none
	meter     speakers.Meter
	silenced  time.Time // when the server muted it; zero once its publisher has unmuted it

	wanted demand
	heard  bool // somebody received it

	// See deadlines.go.
	since     time.Time // its publisher's time for what comes next counts from then at the earliest
	flowed    bool      // something came
	withdrawn bool      // not shown to anybody, because nothing came

	// Of second codecs: see backup.go.
	primary      *Track // nil for a track that was announced
	backup       *Track
	secondWanted demand
	regressed    bool
	needed       time.Time // when somebody could not do without the second codec, the last time
}

// demand is what a publisher was told to send.
type demand struct {
	told    int       // the highest layer
	raised  time.Time // since when anything is wanted, the zero time if from the start
	lowered time.Time // since when less is wanted
}

// due notes what is wanted now; it reports whether the publisher is to be told: of more at once, of less after a pause.
func (d *demand) due(wanted int, now time.Time) bool {
	switch {
	case wanted == d.told:
		d.lowered = time.Time{}
		return false
	case wanted < d.told && d.lowered.IsZero():
		d.lowered = now
		return false
	case wanted < d.told && now.Sub(d.lowered) < dynacastPause:
		return false
	}
	if d.told < 0 {
		d.raised = now
	}
	d.told, d.lowered = wanted, time.Time{}
	return true
}

// defiance is how long a publisher may be heard on a track that the server has muted, before he loses the track: a client that obeys
// needs a round trip.
const defiance = 3 * time.Second

// dynacastPause is how long a layer is sent on after nobody wants it: a subscriber who only resizes a window is soon back.
const dynacastPause = 5 * time.Second

// start makes the source once the codec is known.
func (t *Track) start(c sdp.Codec) {
	kind, descriptor := forward.Opaque, uint8(0)
	if t.info.Video {
		descriptor = t.section.media.Find(uriDependency)
	}
	switch {
	case c.Is("VP8"):
		kind = forward.VP8
	case c.Is("H264"):
		kind = forward.H264
	case c.Is("VP9"), c.Is("AV1"):
		if descriptor != 0 {
			kind = forward.SVC
		}
	}
	engine := t.publisher.room.engine
	t.codec = c
	t.info.MIME = t.kind() + "/" + c.Name
	plain := uint8(0)
	if t.mayBeRedundant() {
		plain = c.Type
		if red := redundantOf(&t.section.media, &c); red != nil {
			t.red, t.info.MIME = red.Type, "audio/red"
		}
	}
	t.wanted.told, t.secondWanted.told = forward.MaxLayers-1, -1
	t.since = engine.now()
	publisher := t.publisher.publishing
	s := t.section
	holes := &holes{session: publisher.session, ssrc: publisher.ssrc, section: s}
	t.source = forward.NewSource(forward.Config{
		Red: t.red, Plain: plain, MayWrap: plain != 0,
		Codec: kind, Repeat: slices.Contains(c.Feedback, "nack"), Descriptor: descriptor, Video: t.info.Video, ClockRate: c.Clock, Now: engine.cfg.Transport.Now, Hasten: engine.hurry,
		AskKeyFrame: func(layer int) { publisher.askKeyFrame(s, layer) },
		Missing:     func() { engine.repairs.add(holes) },
	})
	holes.source = t.source
}

func (t *Track) kind() string {
	if t.info.Video {
		return "video"
	}
	return "audio"
}

// dynacast tells the publisher which layers are wanted.
func (t *Track) dynacast() {
	switch t = t.first(); {
	case t.source == nil || !t.info.Video:
	case t.info.Second != "":
		t.settle()
	case t.wanted.due(t.source.Wanted(), t.publisher.room.engine.now()):
		t.publisher.observer.Tell(Wanted{t.info.SID, []WantedCodec{{t.info.MIME, t.wanted.told}}})
	}
}

// layerFor gives the smallest layer that fills a picture of that size; the highest if none does or the sizes are not known.
func (t *Track) layerFor(width, height uint32) int {
	layers := slices.Clone(t.info.Layers)
	slices.SortFunc(layers, func(a, b Layer) int { return a.Index - b.Index })
	want := max(width, height)
	for _, l := range layers {
		if max(l.Width, l.Height) >= want {
			return l.Index
		}
	}
	return forward.MaxLayers - 1
}

// Subscription is a track on its way to a participant.
type Subscription struct {
	track   *Track // in the codec that it comes in
	to      *Participant
	leg     *forward.Leg
	section *section // where it goes out, nil until there is one
	bound   bool     // the client has agreed to it
	told    bool     // the client was told that it flows

	priority int // of its quality where not everything fits; the larger the longer it is kept
	reports  reporting

	settings    *Settings // nil as long as nothing was set
	only, plain bool      // the client takes the second codec only, or the first
	awaits      time.Time // the second codec, since then; zero if it does not
}

// ridLayer gives the layer of a simulcast stream: LiveKit's clients call them q, h and f; others count by position, the smallest first.
func ridLayer(rids []string, rid string) int {
	if i := strings.Index("qhf", rid); len(rid) == 1 && i >= 0 {
		return i
	}
	return slices.Index(rids, rid)
}
