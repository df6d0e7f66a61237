// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// Whoever cannot decode a picture is told so once, and is not asked for offers for ever; the rest of the call is not touched.
func TestAPictureThatAClientCannotDecodeIsRefused(t *testing.T) {
	for _, single := range []bool{true, false} {
		t.Run(fmt.Sprintf("single %v", single), func(t *testing.T) {
			h := newHouse(t, nil)
			a, _ := enter(t, h, options{identity: "alice", room: "r", single: single})
			audio, video := a.publish("audio"), a.publish("video")
			b, _ := enter(t, h, options{identity: "bob", room: "r", single: single, only: "video/AV1"})
			for i := range 2 {
				if i > 0 { // asked for once more
					b.say(&wire.SignalRequest{Message: &wire.SignalRequest_Subscription{Subscription: &wire.UpdateSubscription{TrackSids: []string{video}, Subscribe: true}}})
					if single {
						wait(t, b.wants, "the wish for an offer")
						b.negotiate()
					}
				}
				m := b.until("the refusal", func(m *wire.SignalResponse) bool { return m.GetSubscriptionResponse() != nil }).GetSubscriptionResponse()
				if m.GetTrackSid() != video || m.GetErr() != wire.SubscriptionError_SE_CODEC_UNSUPPORTED {
					t.Errorf("refused %v", m)
				}
			}
			b.receive(map[string]string{audio: "alice-audio"})
			if n := len(b.wants); n != 0 {
				t.Errorf("%d more offers are wanted", n)
			}
		})
	}
}

func TestWhatAPublisherChangesAboutItsTracksIsTold(t *testing.T) {
	h := newHouse(t, nil)
	a, _ := enter(t, h, options{identity: "alice", room: "r"})
	audio, video := a.publish("audio"), a.publish("video")
	b, _ := enter(t, h, options{identity: "bob", room: "r"})
	track := func(sid string, test func(*wire.TrackInfo) bool) func(*wire.SignalResponse) bool {
		return func(m *wire.SignalResponse) bool {
			for _, p := range m.GetUpdate().GetParticipants() {
				for _, t := range p.GetTracks() {
					if t.GetSid() == sid && test(t) {
						return true
					}
				}
			}
			return false
		}
	}
	features := []wire.AudioTrackFeature{wire.AudioTrackFeature_TF_NO_DTX, wire.AudioTrackFeature_TF_STEREO}
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_UpdateAudioTrack{UpdateAudioTrack: &wire.UpdateLocalAudioTrack{TrackSid: audio, Features: features}}})
	b.until("the sound's features", track(audio, func(t *wire.TrackInfo) bool {
		return slices.Equal(t.GetAudioFeatures(), features) && t.GetName() == "audio" && t.GetEncryption() == wire.Encryption_GCM
	}))
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_UpdateVideoTrack{UpdateVideoTrack: &wire.UpdateLocalVideoTrack{TrackSid: video, Width: 640, Height: 360}}})
	b.until("the picture's size", track(video, func(t *wire.TrackInfo) bool { return t.GetWidth() == 640 && t.GetHeight() == 360 }))
	// Somebody else's track, one there is not, and one of the other kind.
	for _, m := range []*wire.SignalRequest{
		{Message: &wire.SignalRequest_UpdateAudioTrack{UpdateAudioTrack: &wire.UpdateLocalAudioTrack{TrackSid: audio}}},
		{Message: &wire.SignalRequest_UpdateVideoTrack{UpdateVideoTrack: &wire.UpdateLocalVideoTrack{TrackSid: "TR_x"}}},
	} {
		b.say(m)
		r := b.until("the refusal", func(m *wire.SignalResponse) bool { return m.GetRequestResponse() != nil }).GetRequestResponse()
		if r.GetReason() != wire.RequestResponse_NOT_FOUND || r.GetUpdateAudioTrack() == nil && r.GetUpdateVideoTrack() == nil {
			t.Errorf("got %v", r)
		}
	}
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_UpdateAudioTrack{UpdateAudioTrack: &wire.UpdateLocalAudioTrack{TrackSid: video}}})
	if r := a.until("the refusal", func(m *wire.SignalResponse) bool { return m.GetRequestResponse() != nil }).GetRequestResponse(); r.GetReason() != wire.RequestResponse_NOT_FOUND {
		t.Errorf("got %v", r)
	}
}
