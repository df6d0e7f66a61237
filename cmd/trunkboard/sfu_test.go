// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/proto"

	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

const sfuTestSecret = "a secret of thirty-two characters"

// sfuToken lets alice into a room.
func sfuToken(t *testing.T) string {
	t.Helper()
	token, err := livekit.Keys{"key": sfuTestSecret}.Sign("key", livekit.Claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: "alice"}, Video: &livekit.Grant{RoomJoin: true, Room: "r"},
	}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTheSFUIsServedUnderItsPathAndAloneAtTheRootToo(t *testing.T) {
	leavesNothing(t)
	for _, c := range []struct {
		parts  []string
		path   string
		status int
	}{
		{nil, sfuPath, http.StatusOK},
		{nil, "", http.StatusNotFound}, // the web client's
		{[]string{"sfu"}, sfuPath, http.StatusOK},
		{[]string{"sfu"}, "", http.StatusOK},
		{[]string{"turn", "web"}, sfuPath, http.StatusNotFound},
	} {
		a, _ := start(t, testConfig(t, "sfu.keys=key="+sfuTestSecret, "sfu.auto_create=true", "turn.relay.addresses=127.0.0.1"), c.parts...)
		query := "?access_token=" + url.QueryEscape(sfuToken(t))
		res, err := http.Get("http://" + a.Addr("listen.client") + c.path + "/rtc/validate" + query)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status && !(c.status == http.StatusNotFound && string(body) != "success") {
			t.Errorf("%v %s: %d %.100s", c.parts, c.path, res.StatusCode, body)
		}
		if c.status != http.StatusOK {
			continue
		}
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+a.Addr("listen.client")+c.path+"/rtc"+query, nil)
		if err != nil {
			t.Fatalf("%v %s: %v", c.parts, c.path, err)
		}
		_, b, err := ws.ReadMessage()
		_ = ws.Close()
		m := &wire.SignalResponse{}
		if err != nil || proto.Unmarshal(b, m) != nil || m.GetJoin().GetParticipant().GetIdentity() != "alice" {
			t.Fatalf("%v %s: %v %v", c.parts, c.path, m, err)
		}
		if ice := m.GetJoin().GetIceServers(); (len(ice) == 1 && ice[0].GetCredential() != "") != (c.parts == nil) {
			t.Errorf("%v %s: relays %v", c.parts, c.path, ice)
		}
	}
}

func TestAnSFUWithoutKeysMakesItsOwn(t *testing.T) {
	a, _ := start(t, testConfig(t), "sfu")
	res, err := http.Get("http://" + a.Addr("listen.client") + "/rtc/validate?access_token=" + url.QueryEscape(sfuToken(t)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger's key: %d", res.StatusCode)
	}
	if _, err := keptSecret(a.cfg.DataDir, "sfu"); err != nil {
		t.Error(err)
	}
}

// TestAClientWhoseNetworkAllowsOnlyTheRelayMeetsTheSFU lets pion's client talk to nothing but our TURN server, and asks the metrics and
// the room service about it.
func TestAClientWhoseNetworkAllowsOnlyTheRelayMeetsTheSFU(t *testing.T) {
	a, _ := start(t, testConfig(t, "sfu.keys=key="+sfuTestSecret, "sfu.auto_create=true", "turn.relay.addresses=127.0.0.1"), "sfu", "turn")
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+a.Addr("listen.client")+"/rtc?access_token="+url.QueryEscape(sfuToken(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	var pc *webrtc.PeerConnection
	connected := make(chan struct{})
	for pc == nil || pc.RemoteDescription() == nil {
		_, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		m := &wire.SignalResponse{}
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		if j := m.GetJoin(); j != nil {
			cfg := webrtc.Configuration{ICETransportPolicy: webrtc.ICETransportPolicyRelay}
			for _, s := range j.GetIceServers() {
				cfg.ICEServers = append(cfg.ICEServers, webrtc.ICEServer{URLs: s.GetUrls(), Username: s.GetUsername(), Credential: s.GetCredential()})
			}
			if pc, err = webrtc.NewAPI(webrtc.WithSettingEngine(se)).NewPeerConnection(cfg); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = pc.Close() }()
			pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
				if s == webrtc.PeerConnectionStateConnected {
					close(connected)
				}
			})
		}
		if o := m.GetOffer(); o != nil {
			if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.GetSdp()}); err != nil {
				t.Fatal(err)
			}
			answer, err := pc.CreateAnswer(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := pc.SetLocalDescription(answer); err != nil {
				t.Fatal(err)
			}
			b, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Answer{Answer: &wire.SessionDescription{Type: "answer", Sdp: answer.SDP, Id: o.GetId()}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-connected:
	case <-time.After(30 * time.Second):
		t.Fatal("no connection through the relay")
	}
	pair, err := pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair.Local.Typ != webrtc.ICECandidateTypeRelay {
		t.Errorf("connected over %v: %v", pair, err)
	}
	res, err := http.Get("http://" + a.Addr("listen.metrics") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	for _, want := range []string{"trunkboard_sfu_rooms 1\n", "trunkboard_sfu_participants 1\n", `trunkboard_sfu_room_participants{room="r"} 1` + "\n", `trunkboard_sfu_rtp_packets_total{direction="out"} 0` + "\n"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	res, err = http.Post("http://"+a.Addr("listen.client")+"/twirp/livekit.RoomService/ListRooms", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("room service without a token: %d", res.StatusCode)
	}
}
