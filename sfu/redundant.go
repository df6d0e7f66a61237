// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// Redundant sound (RFC 2198) is negotiated beside Opus, as "red" with the payload type of Opus in its parameters, twice or more often.
// What is sent with the one or the other type may change from packet to packet.

// redPayload is the payload type of redundant sound in our own offers, as browsers number it.
const redPayload = 63

// redundantOf finds the codec of m that carries redundant sound of the payload type opus and nothing else; nil if there is none.
func redundantOf(m *sdp.Media, opus *sdp.Codec) *sdp.Codec {
	for i := range m.Codecs {
		c := &m.Codecs[i]
		if !c.Is("red") || c.Clock != opus.Clock {
			continue
		}
		types, _, _ := strings.Cut(c.Format, ";")
		n := 0
		for f := range strings.SplitSeq(types, "/") {
			if strings.TrimSpace(f) != strconv.Itoa(int(opus.Type)) {
				n = 0
				break
			}
			n++
		}
		if n > 1 {
			return c
		}
	}
	return nil
}

// withRedundancy puts redundant sound before codecs, the first of which is Opus, if m has it. Browsers send what comes first.
func withRedundancy(codecs []sdp.Codec, m *sdp.Media) []sdp.Codec {
	if red := redundantOf(m, &codecs[0]); red != nil {
		return slices.Insert(codecs, 0, only(*red, nil))
	}
	return codecs
}

// redundantOffer is how our offers name redundant sound of opus.
func redundantOffer(opus *sdp.Codec) sdp.Codec {
	return sdp.Codec{Type: redPayload, Name: "red", Clock: opus.Clock, Channels: opus.Channels, Format: fmt.Sprintf("%d/%d", opus.Type, opus.Type)}
}

// mayBeRedundant reports whether the track's sound may be made redundant and plain again: never where it is encrypted, because the
// encryption covers all of a packet.
func (t *Track) mayBeRedundant() bool { return t.info.Redundant && t.codec.Is("opus") }

// stereo gives the parameters under which the sound is offered: that it is stereo must be said, or receivers play one channel (RFC 7587
// section 6.1). What the publisher would like to receive itself is not passed on.
func (t *Track) stereo(format string) string {
	if !t.codec.Is("opus") {
		return format
	}
	var f []string
	for p := range strings.SplitSeq(format, ";") {
		if k, _, _ := strings.Cut(strings.TrimSpace(p), "="); k != "" && k != "stereo" && k != "sprop-stereo" && k != "maxaveragebitrate" && k != "usedtx" {
			f = append(f, strings.TrimSpace(p))
		}
	}
	if slices.Contains(strings.Split(t.info.Format, ";"), "stereo=1") {
		f = append(f, "sprop-stereo=1")
	}
	return strings.Join(f, ";")
}
