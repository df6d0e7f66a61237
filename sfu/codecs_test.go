// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"testing"

	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// Browsers offer H264 in several profiles and packetisation modes, each in an order of its own. Their numbers here are the payload types.
func TestOfSeveralKindsOfH264TheOneThatAllTakeIsChosen(t *testing.T) {
	const chromium, safari, firefox = "chromium", "safari", "firefox"
	kind := func(n uint8, profile string, mode int) sdp.Codec {
		return sdp.Codec{Type: n, Name: "H264", Clock: 90000, Format: fmt.Sprintf("profile-level-id=%s;level-asymmetry-allowed=1;packetization-mode=%d", profile, mode)}
	}
	offers := map[string][]sdp.Codec{
		chromium:  {{Type: 96, Name: "VP8", Clock: 90000}, kind(102, "42001f", 1), kind(104, "42001f", 0), kind(106, "42e01f", 1), kind(108, "42e01f", 0), kind(127, "4d001f", 1), kind(112, "64001f", 1)},
		safari:    {kind(96, "640c1f", 1), kind(98, "42e01f", 1), kind(100, "640c1f", 0), kind(102, "42e01f", 0), {Type: 106, Name: "VP8", Clock: 90000}},
		firefox:   {{Type: 120, Name: "VP8", Clock: 90000}, kind(126, "42e01f", 1), kind(97, "42e01f", 0), kind(105, "42001f", 1)},
		"another": {kind(100, "640c1f", 1), kind(101, "42001f", 1)},
		"old":     {{Type: 100, Name: "H264", Clock: 90000}, kind(101, "640c1f", 0)},
	}
	for _, c := range []struct {
		name, wanted string
		want         uint8
	}{
		{chromium, "video/H264", 106}, {safari, "video/H264", 98}, {firefox, "video/H264", 126}, {"another", "video/H264", 100}, {"old", "video/H264", 100},
		{chromium, "video/VP8", 96}, {safari, "", 106}, {"another", "", 100}, {chromium, "video/unknown", 96},
	} {
		s := &section{kind: "video", media: sdp.Media{Kind: "video", Codecs: offers[c.name]}}
		got := (&connection{}).codecFor(s, &Track{info: TrackInfo{MIME: c.wanted, Video: true}})
		if got == nil || got.Type != c.want {
			t.Errorf("%s offers %s: %+v, want type %d", c.name, c.wanted, got, c.want)
		}
	}
	// Who has announced H264 as a second codec is likely to send what the others' sections were agreed for, so that they need no new ones.
	second := &Track{info: TrackInfo{Second: "video/H264"}}
	other, ok := second.other()
	if !ok {
		t.Fatal("no second codec")
	}
	for name, want := range map[string]uint8{chromium: 106, safari: 98, firefox: 126} {
		if got := matching(&sdp.Media{Codecs: offers[name]}, other); got == nil || got.Type != want {
			t.Errorf("%s is sent a second codec as %+v, want type %d", name, got, want)
		}
	}
}
