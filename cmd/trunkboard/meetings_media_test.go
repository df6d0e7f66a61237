// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// wires is what a visitor has besides the SFU's WebSocket, as livekit-client would: a connection to receive on and one to send on.
type wires struct {
	v        *visitor
	sub, pub *webrtc.PeerConnection
	offers   uint32
	open     bool              // the server's messages arrive; guarded by visitor.mu
	controls []meeting.Control // of the server; guarded by visitor.mu
	forged   []string          // identities of participants who pretend to be it
}

func loopbackPC(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	me := &webrtc.MediaEngine{}
	if err := me.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(me)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

// hears makes the connections. Call it before talks.
func (v *visitor) hears() *visitor {
	v.t.Helper()
	m := &wires{v: v, sub: loopbackPC(v.t), pub: loopbackPC(v.t)}
	m.sub.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(msg webrtc.DataChannelMessage) { m.take(msg.Data) })
		dc.OnOpen(func() { v.told(func() { m.open = m.open || dc.Label() == "_reliable" }) })
	})
	v.media = m
	return v
}

// listens waits until the server's messages arrive.
func (v *visitor) listens() *visitor {
	v.t.Helper()
	v.until("the data channel", func() bool { return v.media.open })
	return v
}

// take reads a data packet: of the server's, one whose sender is nobody.
func (m *wires) take(b []byte) {
	var p wire.DataPacket
	if proto.Unmarshal(b, &p) != nil {
		return
	}
	var user wire.UserPacket
	for rest := []byte(p.ProtoReflect().GetUnknown()); len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return
		}
		rest = rest[n:]
		if num == 2 && typ == protowire.BytesType {
			text, n := protowire.ConsumeBytes(rest)
			if n < 0 || proto.Unmarshal(text, &user) != nil {
				return
			}
			rest = rest[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, rest); n < 0 {
			return
		}
		rest = rest[n:]
	}
	var c meeting.Control
	if user.GetTopic() != meeting.ControlTopic || json.Unmarshal(user.GetPayload(), &c) != nil {
		return
	}
	m.v.told(func() {
		if id := p.GetParticipantIdentity(); id != "" {
			m.forged = append(m.forged, id)
			return
		}
		m.controls = append(m.controls, c)
	})
}

// negotiates takes descriptions out of the SFU's messages.
func (m *wires) negotiates(ws *websocket.Conn, r *wire.SignalResponse) {
	switch {
	case r.GetOffer() != nil:
		if err := m.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: r.GetOffer().GetSdp()}); err != nil {
			m.v.t.Error(err)
			return
		}
		d, err := m.sub.CreateAnswer(nil)
		if err == nil {
			err = m.sub.SetLocalDescription(d)
		}
		if err != nil {
			m.v.t.Error(err)
			return
		}
		m.v.signal(&wire.SignalRequest{Message: &wire.SignalRequest_Answer{Answer: &wire.SessionDescription{Type: "answer", Sdp: d.SDP, Id: r.GetOffer().GetId()}}})
	case r.GetAnswer() != nil:
		if err := m.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: r.GetAnswer().GetSdp()}); err != nil {
			m.v.t.Error(err)
		}
	}
}

// signal sends a message to the SFU.
func (v *visitor) signal(r *wire.SignalRequest) {
	b, err := proto.Marshal(r)
	if err != nil {
		v.t.Error(err)
		return
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	_ = v.ws.WriteMessage(websocket.BinaryMessage, b)
}

// publishes offers a track and waits until the others could have it; its number is given.
func (v *visitor) publishes(source wire.TrackSource) (sid string) {
	v.t.Helper()
	kind, capability := wire.TrackType_AUDIO, webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	if source != wire.TrackSource_MICROPHONE {
		kind, capability = wire.TrackType_VIDEO, webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	}
	cid := v.Identity + source.String()
	track, err := webrtc.NewTrackLocalStaticRTP(capability, cid, "stream")
	if err != nil {
		v.t.Fatal(err)
	}
	if _, err := v.media.pub.AddTrack(track); err != nil {
		v.t.Fatal(err)
	}
	v.signal(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: &wire.AddTrackRequest{Cid: cid, Type: kind, Source: source}}})
	d, err := v.media.pub.CreateOffer(nil)
	if err == nil {
		err = v.media.pub.SetLocalDescription(d)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	v.media.offers++
	v.signal(&wire.SignalRequest{Message: &wire.SignalRequest_Offer{Offer: &wire.SessionDescription{Type: "offer", Sdp: d.SDP, Id: v.media.offers}}})
	v.until("the track", func() bool {
		for _, t := range v.people[v.Identity].GetTracks() {
			if t.GetSource() == source {
				sid = t.GetSid()
			}
		}
		return sid != ""
	})
	return sid
}

// mutes says that a track of the visitor's own is silent, or not any more.
func (v *visitor) mutes(sid string, muted bool) {
	v.signal(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: sid, Muted: muted}}})
}

// muted says how a visitor sees a track of somebody's. Call it inside until.
func (v *visitor) muted(identity, sid string) bool {
	for _, t := range v.people[identity].GetTracks() {
		if t.GetSid() == sid {
			return t.GetMuted()
		}
	}
	return false
}

func (v *visitor) heard(c meeting.Control) {
	v.t.Helper()
	v.until("the server's word", func() bool {
		for _, x := range v.media.controls {
			if x == c {
				return true
			}
		}
		return false
	})
}

func TestHostsMuteAskAndHoldMicrophones(t *testing.T) {
	a, _ := start(t, testConfig(t))
	ann := comes(t, guest(t, a), "m", map[string]any{"display_name": "Ann"}).talks()
	bob := comes(t, guest(t, a), "m", map[string]any{"display_name": "Bob"}).hears().talks().listens()
	mic, camera := bob.publishes(wire.TrackSource_MICROPHONE), bob.publishes(wire.TrackSource_CAMERA)
	ann.until("bob's tracks", func() bool { return len(ann.people[bob.Identity].GetTracks()) == 2 })

	ann.acts("mute", map[string]any{"identity": bob.Identity, "kind": "audio"})
	ann.until("muted", func() bool { return ann.muted(bob.Identity, mic) && !ann.muted(bob.Identity, camera) })
	bob.heard(meeting.Control{Type: "muted", Kind: "audio", By: ann.Identity})
	bob.mutes(mic, false)
	ann.until("unmuted", func() bool { return !ann.muted(bob.Identity, mic) })
	ann.acts("ask_unmute", map[string]any{"identity": bob.Identity, "kind": "video"})
	bob.heard(meeting.Control{Type: "ask_unmute", Kind: "video", By: ann.Identity})

	ann.acts("may_unmute", map[string]any{"kind": "audio", "allowed": false})
	bob.until("the state", func() bool { return !bob.state.MayUnmute.Audio && bob.state.MayUnmute.Video })
	ann.acts("mute_all", map[string]any{"kind": "audio"})
	ann.until("muted", func() bool { return ann.muted(bob.Identity, mic) })
	bob.mutes(mic, false) // in vain: what follows arrives after it
	bob.mutes(camera, true)
	ann.until("the camera", func() bool { return ann.muted(bob.Identity, camera) })
	ann.until("still muted", func() bool { return ann.muted(bob.Identity, mic) })
	// Who comes now is held too, and whoever becomes a host is not.
	cid := comes(t, guest(t, a), "m", map[string]any{"display_name": "Cid"}).hears().talks().listens()
	his := cid.publishes(wire.TrackSource_MICROPHONE)
	ann.until("muted from the start", func() bool { return ann.muted(cid.Identity, his) })
	ann.acts("promote", map[string]any{"identity": cid.Identity})
	cid.mutes(his, false)
	ann.until("a host speaks", func() bool { return !ann.muted(cid.Identity, his) })
	ann.acts("may_unmute", map[string]any{"kind": "audio", "allowed": true})
	bob.until("the state", func() bool { return bob.state.MayUnmute.Audio })
	bob.mutes(mic, false)
	ann.until("unmuted", func() bool { return !ann.muted(bob.Identity, mic) })

	for _, c := range []struct {
		action string
		more   map[string]any
		status int
	}{
		{"mute", map[string]any{"identity": bob.Identity, "kind": "smell"}, 400},
		{"mute", map[string]any{"identity": "nobody", "kind": "audio"}, 404},
		{"mute_all", map[string]any{}, 400},
		{"ask_unmute", map[string]any{"identity": bob.Identity, "kind": "screen"}, 400},
		{"may_unmute", map[string]any{"kind": "screen"}, 400},
		{"dance", nil, 400},
	} {
		if status, m := ann.act(c.action, c.more); status != c.status {
			t.Errorf("%s %v: %d %v", c.action, c.more, status, m)
		}
	}
	if status, m := bob.act("mute", map[string]any{"identity": ann.Identity, "kind": "audio"}); status != http.StatusForbidden {
		t.Errorf("a guest mutes the host: %d %v", status, m)
	}
}

func TestWhoeverIsThrownOutHearsWhyAndIsGone(t *testing.T) {
	eachStore(t, func(t *testing.T, set ...string) {
		a, _ := start(t, testConfig(t, set...))
		ann := comes(t, guest(t, a), "m", map[string]any{"display_name": "Ann"}).talks()
		bob := comes(t, guest(t, a), "m", map[string]any{"display_name": "Bob"}).hears().talks().listens()
		eve := signUp(t, a, "eve")
		her := comes(t, eve, "m", map[string]any{}).talks()
		bob.publishes(wire.TrackSource_MICROPHONE) // its connections are up
		ann.acts("kick", map[string]any{"identity": bob.Identity, "reason": "noise"})
		bob.heard(meeting.Control{Type: "kicked", By: ann.Identity, Reason: "noise"})
		bob.until("the end", func() bool { return bob.leave.GetReason() == wire.DisconnectReason_PARTICIPANT_REMOVED })
		if status, m := bob.ask("POST", meetPath("m", "token"), map[string]any{"session": bob.Session}); status != http.StatusForbidden {
			t.Errorf("a new token: %d %v", status, m)
		}
		ann.acts("kick", map[string]any{"identity": her.Identity, "ban": true})
		her.until("the end", func() bool { return her.leave != nil })
		if again := comes(t, eve, "m", map[string]any{"session": her.Session}); again.status != http.StatusForbidden {
			t.Errorf("whoever is banned comes again: %d %+v", again.status, again.entry)
		}
		if back := comes(t, guest(t, a), "m", map[string]any{"display_name": "Bob", "session": bob.Session}).in(); back.UserID == bob.UserID {
			t.Error("the session of whoever was thrown out is good still")
		}
		if status, _ := ann.act("kick", map[string]any{"identity": ann.Identity}); status != http.StatusBadRequest {
			t.Errorf("to kick oneself: %d", status)
		}
	})
}

func TestAMeetingEndsForEverybody(t *testing.T) {
	a, _ := start(t, testConfig(t))
	ann := comes(t, guest(t, a), "m", map[string]any{"display_name": "Ann"}).talks()
	bob := comes(t, guest(t, a), "m", map[string]any{"display_name": "Bob"}).hears().talks().listens()
	bob.publishes(wire.TrackSource_CAMERA)
	if status, _ := bob.act("end", nil); status != http.StatusForbidden {
		t.Fatalf("a guest ends the meeting: %d", status)
	}
	ann.acts("end", nil)
	bob.heard(meeting.Control{Type: "ended", By: ann.Identity})
	for _, v := range []*visitor{ann, bob} {
		v.until("the end", func() bool { return v.leave.GetReason() == wire.DisconnectReason_ROOM_DELETED })
		if status, _ := v.ask("POST", meetPath("m", "token"), map[string]any{"session": v.Session}); status != http.StatusForbidden {
			t.Errorf("a new token: %d", status)
		}
	}
	// The name is free for the next: whoever comes first is its host.
	cid := comes(t, guest(t, a), "m", map[string]any{"display_name": "Cid"}).talks()
	if !cid.Host {
		t.Errorf("%+v", cid.entry)
	}
	cid.until("another meeting", func() bool { return cid.state.Started > 0 && cid.state.Started >= ann.state.Started })
	m := records(cid, "Session "+cid.Session)
	if len(m) != 2 || m[1].Ended == 0 || len(m[1].People) != 2 || m[0].Ended != 0 || len(m[0].People) != 1 {
		t.Errorf("%+v", m)
	}
}

// records asks for a meeting's records until there is nothing of it left to be written: two, and the newest with people.
func records(v *visitor, auth string) (out []meeting.Record) {
	v.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		status, _, text := raw(v.t, "GET", v.base+meetPath("records", "")+"?name="+v.name, "", auth, "")
		var all struct{ Meetings []meeting.Record }
		if status != http.StatusOK || json.Unmarshal([]byte(text), &all) != nil {
			v.t.Fatalf("records: %d %s", status, text)
		}
		if n := len(all.Meetings); n > 1 && len(all.Meetings[0].People) > 0 && all.Meetings[1].Ended > 0 || time.Now().After(end) {
			return all.Meetings
		}
	}
}
