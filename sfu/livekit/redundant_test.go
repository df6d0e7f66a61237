// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// opusType is Opus' payload type in pion's offers.
const opusType = 111

// twice makes the payload of a redundant packet: a sound and the one before it, which name their packets.
func twice(cid string, sn uint16) []byte {
	before, now := fmt.Sprintf("%s %d", cid, sn-1), fmt.Sprintf("%s %d", cid, sn)
	b := make([]byte, packets.RedundantHead(1))
	packets.PutOlder(b, 0, opusType, 960, len(before))
	packets.PutOwn(b, 1, opusType)
	return append(b, before+now...)
}

// listenTo waits for the track and some packets of it, each of which test judges.
func (c *client) listenTo(sid string, test func(payloadType uint8, payload []byte) error) {
	c.t.Helper()
	tr := wait(c.t, c.tracks, "a track")
	if tr.ID() != sid {
		c.t.Fatalf("track %q, want %q", tr.ID(), sid)
	}
	_ = tr.SetReadDeadline(time.Now().Add(patience))
	for range 5 {
		p, _, err := tr.ReadRTP()
		if err != nil {
			c.t.Fatalf("%s: %v", c.identity, err)
		}
		if err := test(p.PayloadType, p.Payload); err != nil {
			c.t.Errorf("%s: %v in % x", c.identity, err, p.Payload)
		}
	}
}

func TestRedundantSoundIsAgreedUponWithEach(t *testing.T) {
	for _, single := range []bool{true, false} {
		t.Run(fmt.Sprintf("single %v", single), func(t *testing.T) {
			h := newHouse(t, nil)
			a, _ := enter(t, h, options{identity: "alice", room: "r", single: single, red: true})
			a.clear, a.red = true, true
			sid := a.publish("audio")
			b, join := enter(t, h, options{identity: "bob", room: "r", single: single, red: true})
			if track := join.GetOtherParticipants()[0].GetTracks()[0]; track.GetMimeType() != "audio/red" {
				t.Errorf("track %v", track)
			}
			b.listenTo(sid, func(kind uint8, payload []byte) error {
				var r packets.Redundancy
				if kind != uint8(redundantSound.PayloadType) || !r.Parse(payload, opusType) || r.N != 1 || !strings.HasPrefix(string(payload[r.Primary:]), "alice-audio ") {
					return fmt.Errorf("payload type %d", kind)
				}
				return nil
			})
			c, _ := enter(t, h, options{identity: "carol", room: "r", single: single})
			c.listenTo(sid, func(kind uint8, payload []byte) error {
				if kind != opusType || !strings.HasPrefix(string(payload), "alice-audio ") {
					return fmt.Errorf("payload type %d", kind)
				}
				return nil
			})
		})
	}
}

func TestEncryptedAndUnwantedRedundancyIsNotAgreedUpon(t *testing.T) {
	h := newHouse(t, nil)
	for i, request := range []*wire.AddTrackRequest{
		{Encryption: wire.Encryption_GCM},
		{DisableRed: true},
		{SimulcastCodecs: []*wire.SimulcastCodec{{Codec: "opus"}}},
		{SimulcastCodecs: []*wire.SimulcastCodec{{Codec: "audio/red"}}, DisableRed: true},
		{},
	} {
		a, _ := enter(t, h, options{identity: "alice", room: fmt.Sprint("r", i), red: true, single: true})
		request.Cid, request.Source = fmt.Sprint("mic", i), wire.TrackSource_MICROPHONE
		a.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: request}})
		tr, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, request.Cid, "stream")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.pub.AddTransceiverFromTrack(tr, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			t.Fatal(err)
		}
		a.negotiate()
		want := "audio/opus"
		if i >= 3 {
			want = "audio/red"
		}
		a.until("its track", func(m *wire.SignalResponse) bool {
			for _, p := range m.GetUpdate().GetParticipants() {
				for _, track := range p.GetTracks() {
					if p.GetIdentity() == a.identity && track.GetMimeType() != want {
						t.Errorf("request %d: %v, want %s", i, track.GetMimeType(), want)
					}
					if p.GetIdentity() == a.identity {
						return true
					}
				}
			}
			return false
		})
		// The sections that are still free name all codecs: only the one that sends counts.
		answer := a.pub.RemoteDescription().SDP
		section := answer[strings.LastIndex(answer, "m=audio"):]
		if first := strings.HasPrefix(section, "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n"); first != (i >= 3) || !first && strings.Contains(section, " red/") {
			t.Errorf("request %d: answer %s", i, section)
		}
	}
}

// Publishers' parameters of one codec differ (stereo, say); a subscriber to whom the SFU offers gets all of them.
func TestPublishersOfDifferentParametersAreAllOffered(t *testing.T) {
	h := newHouse(t, nil)
	want := map[string]string{}
	for i := range 2 {
		a, _ := enter(t, h, options{identity: fmt.Sprint("p", i), room: "r", offer: func(sdp string) string {
			return strings.ReplaceAll(sdp, "useinbandfec=1", fmt.Sprint("useinbandfec=1;stereo=", i))
		}})
		want[a.publish("audio")] = fmt.Sprintf("p%d-audio", i)
	}
	b, _ := enter(t, h, options{identity: "bob", room: "r"})
	b.receive(want)
}
