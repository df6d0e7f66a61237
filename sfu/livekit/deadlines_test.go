// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

func TestClientsAreToldWhatTheyDidNotDoInTime(t *testing.T) {
	clock := clocktest.New()
	h := newHouse(t, func(c *sfu.Config, _ *Config) { c.Clock = clock })
	alice, join := enter(t, h, options{identity: "alice", room: "r"})
	late := func() {
		clock.Advance(31 * time.Second)
		alice.say(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: 1}}})
	}
	alice.until("being connected", func(m *wire.SignalResponse) bool {
		for _, p := range m.GetUpdate().GetParticipants() {
			if p.GetSid() == join.GetParticipant().GetSid() && p.GetState() == wire.ParticipantInfo_ACTIVE {
				return true
			}
		}
		return false
	})
	alice.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: "never offered"}}})
	sid := alice.until("its track", func(m *wire.SignalResponse) bool { return m.GetTrackPublished() != nil }).GetTrackPublished().GetTrack().GetSid()
	late()
	if m := alice.until("its end", func(m *wire.SignalResponse) bool { return m.GetTrackUnpublished() != nil }); m.GetTrackUnpublished().GetTrackSid() != sid {
		t.Errorf("%v, want %s", m, sid)
	}

	alice.stubborn.Store(true)
	bob, _ := enter(t, h, options{identity: "bob", room: "r"})
	bob.publish("audio")
	alice.until("an offer", func(m *wire.SignalResponse) bool { return m.GetOffer() != nil })
	late()
	m := alice.until("the end", func(m *wire.SignalResponse) bool { return m.GetLeave() != nil }).GetLeave()
	if m.GetReason() != wire.DisconnectReason_STATE_MISMATCH || m.GetAction() != wire.LeaveRequest_RECONNECT || !m.GetCanReconnect() {
		t.Errorf("%v", m)
	}
	wait(t, alice.closed, "the end of the connection")
	bob.until("alice's leaving", func(m *wire.SignalResponse) bool {
		for _, p := range m.GetUpdate().GetParticipants() {
			if p.GetIdentity() == "alice" && p.GetState() == wire.ParticipantInfo_DISCONNECTED {
				return true
			}
		}
		return false
	})
}
