// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"slices"
	"testing"

	"github.com/trunkboard/trunkboard/sfu/transport/sdp"
)

// livekit-client offers sound without rtcp-fb nack; browsers ask for what is lost, and repeat it, if the answer has it.
func TestTheAnswerLetsLostSoundBeSentAgain(t *testing.T) {
	codecs := []sdp.Codec{
		{Type: 111, Name: "opus", Clock: 48000, Feedback: []string{"transport-cc"}},
		{Type: 0, Name: "PCMU", Clock: 8000},
	}
	s := &section{mid: "0", kind: "audio", media: sdp.Media{Kind: "audio", MID: "0", Direction: sdp.SendOnly, Codecs: slices.Clone(codecs)}}
	letRepeat(&s.media)
	letRepeat(&s.media) // as with the next offer
	if got := s.media.Codecs[0].Feedback; !slices.Equal(got, []string{"transport-cc", "nack"}) {
		t.Errorf("opus has %v", got)
	}
	if got := s.media.Codecs[1].Feedback; len(got) != 0 {
		t.Errorf("PCMU has %v", got)
	}
	if len(codecs[0].Feedback) != 1 {
		t.Error("the offer itself was changed")
	}
	m := (&connection{}).answer(s)
	if len(m.Codecs) != 1 || !slices.Contains(m.Codecs[0].Feedback, "nack") {
		t.Errorf("the answer has %+v", m.Codecs)
	}
}
