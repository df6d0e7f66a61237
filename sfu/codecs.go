// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// letRepeat takes a client's Opus as if it had offered to send again what is lost. Browsers do both, ask and repeat, once the answer says so,
// and livekit-client says it in answers of its own but not in offers; whoever cannot is asked in vain.
func letRepeat(m *sdp.Media) {
	for i := range m.Codecs {
		if c := &m.Codecs[i]; c.Is("opus") && !slices.Contains(c.Feedback, "nack") {
			c.Feedback = append(slices.Clip(c.Feedback), "nack")
		}
	}
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

func only(c sdp.Codec, feedback []string) sdp.Codec {
	c.Feedback = slices.DeleteFunc(slices.Clone(c.Feedback), func(f string) bool { return !slices.Contains(feedback, f) })
	return c
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

// commonH264 are the parameters of the H264 that is understood everywhere: the constrained baseline profile (RFC 7742 section 6.2), with frames
// in as many packets as they need. Safari's first choice is the high profile, Chromium's the baseline one.
const commonH264 = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"

func isCommonH264(c *sdp.Codec) bool {
	return c.Is("H264") && h264Profile(c.Format) == h264Profile(commonH264)
}

// repeats is the codec of our offers under which packets of codec are sent again (RFC 4588).
func repeats(codec *sdp.Codec) sdp.Codec {
	return sdp.Codec{Type: codec.Type + 1, Name: "rtx", Clock: codec.Clock, Format: fmt.Sprintf("apt=%d", codec.Type)}
}
