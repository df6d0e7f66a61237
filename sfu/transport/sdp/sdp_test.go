// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=extmap-allow-mixed\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:secretsecretsecretsecret\r\n" +
	"a=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\na=mid:0\r\na=extmap:1/sendonly urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n" +
	"a=sendonly\r\na=msid:stream track\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=ssrc:7 cname:c\r\n" +
	"m=video 0 UDP/TLS/RTP/SAVPF 96 97\r\na=bundle-only\r\na=mid:1\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtcp-fb:* nack\r\n" +
	"a=rid:q send\r\na=rid:h send\r\na=simulcast:send q;h\r\na=ssrc-group:FID 5 6\r\na=ssrc:5 cname:c\r\na=ssrc:6 cname:c\r\n" +
	"m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"

func TestAnOfferIsUnderstood(t *testing.T) {
	d, err := Parse(offer)
	if err != nil {
		t.Fatal(err)
	}
	want := &Description{
		User: "abcd", Password: "secretsecretsecretsecret", Fingerprint: "sha-256 AA:BB", Setup: "actpass", MixedExtmap: true,
		Media: []Media{
			{
				Kind: "audio", MID: "0", Direction: SendOnly, Stream: "stream", Track: "track", SSRCs: []uint32{7},
				Extmap: []Extension{{1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"}},
				Codecs: []Codec{{111, "opus", 48000, "2", "minptime=10;useinbandfec=1", []string{"transport-cc"}}, {Type: 63, Name: "red", Clock: 48000, Channels: "2"}},
			},
			{
				Kind: "video", MID: "1", Direction: RecvOnly, SSRCs: []uint32{5, 6}, Repair: map[uint32]uint32{6: 5}, RIDs: []string{"q", "h"},
				Codecs: []Codec{{96, "VP8", 90000, "", "", []string{"nack"}}, {97, "rtx", 90000, "", "apt=96", []string{"nack"}}},
			},
			{Kind: "application", MID: "2", Rejected: true, Direction: SendRecv, SCTPPort: 5000, MaxMessage: 262144},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	if apt, ok := d.Media[1].Codecs[1].Apt(); !ok || apt != 96 {
		t.Errorf("apt %d", apt)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	d, err := Parse(offer)
	if err != nil {
		t.Fatal(err)
	}
	text := d.Write(1, 2, Candidates{
		UDP: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7882"), netip.MustParseAddrPort("[2001:db8::1]:7882")},
		TCP: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7881")},
	})
	again, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	again.Media[2].SCTPPort, again.Media[2].MaxMessage = 5000, 262144 // a rejected section says no more than that
	again.Media[2].Direction = SendRecv
	for i := range d.Media {
		d.Media[i].RIDs = nil // the other side's
	}
	if diff := cmp.Diff(d, again); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(text, "a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host\r\n") {
		t.Errorf("no candidate in\n%s", text)
	}
}

func TestBrokenDescriptionsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"no version":    "o=- 1 2 IN IP4 0.0.0.0\r\n",
		"no equals":     "v=0\r\nnonsense\r\n",
		"short m":       "v=0\r\nm=audio 9\r\n",
		"payload type":  "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 999\r\n",
		"ssrc":          "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 1\r\na=ssrc:x cname:y\r\n",
		"two mids":      "v=0\r\nm=audio 9 X 1\r\na=mid:0\r\nm=audio 9 X 1\r\na=mid:0\r\n",
		"endless media": "v=0\r\n" + strings.Repeat("m=audio 9 X 1\r\n", 300),
		"too long":      "v=0\r\n" + strings.Repeat("a=x\r\n", MaxSize),
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(offer)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(text)
		if err != nil {
			return
		}
		for i := range d.Media {
			for j := range d.Media[i].Codecs {
				d.Media[i].Codecs[j].Apt()
			}
		}
		d.Write(1, 1, Candidates{})
	})
}
