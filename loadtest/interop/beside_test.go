// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/proto"

	"github.com/trunkboard/trunkboard/loadtest/binary"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// newBeside runs our SFU and its token service at an address with a port, beside a homeserver; options go behind the homeserver's URL.
func newBeside(t *testing.T, ca *authority, home *server, at string, options ...string) *server {
	t.Helper()
	dir := t.TempDir()
	address, _, _ := strings.Cut(at, ":")
	trusted := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(trusted, ca.pem, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &server{kind: "sfu,focus", name: home.name, base: "http://" + at, ready: "http://" + at + "/healthz", log: filepath.Join(dir, "server.log")}
	s.run = trunkboard(t, "sfu,focus", append(relaySettings(address),
		"server_name="+home.name, "sfu.homeserver="+strings.Join(append([]string{home.base}, options...), ","), "public_url="+s.base, "data_dir="+filepath.Join(dir, "data"),
		"listen.client="+at, "listen.https=", "listen.federation=", "listen.metrics=", "sfu.listen_udp="+address+":0", "sfu.listen_tcp=",
		"federation.allow_private=127.0.0.0/8", "federation.trusted_ca="+trusted))
	s.start(t)
	return s
}

// asksFor asks the token service beside the user's homeserver for a room's call.
func (u *user) asksFor(beside *server, id, device string) (status int, jwt string) {
	u.t.Helper()
	var openID object
	u.must("POST", "/_matrix/client/v3/user/"+url.PathEscape(u.id)+"/openid/request_token", object{}, &openID)
	status, text := (&user{t: u.t, s: beside}).try("POST", "/sfu/get", object{"room": id, "device_id": device, "openid_token": openID})
	var answer struct{ JWT string }
	if err := json.Unmarshal(text, &answer); err != nil {
		u.t.Fatalf("%d %s", status, text)
	}
	return status, answer.JWT
}

// inCall is somebody in the SFU, with a connection for media.
type inCall struct {
	t     *testing.T
	who   string
	ended chan wire.DisconnectReason
}

// calls enters the SFU for a room's call, and gives the token too.
func (u *user) calls(beside *server, id string) (*inCall, string) {
	u.t.Helper()
	status, jwt := u.asksFor(beside, id, u.device)
	if status != 200 {
		u.t.Fatalf("%s gets no token: %d", u.id, status)
	}
	ws, _, err := websocket.DefaultDialer.DialContext(u.t.Context(), mediaURL(beside, jwt), nil)
	if err != nil {
		u.t.Fatalf("%s: %v", u.id, err)
	}
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		u.t.Fatal(err)
	}
	c := &inCall{t: u.t, who: u.id, ended: make(chan wire.DisconnectReason, 1)}
	connected, read := make(chan struct{}), make(chan struct{})
	var once sync.Once
	u.t.Cleanup(func() {
		_ = ws.Close()
		<-read
		_ = pc.Close()
	})
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(connected) })
		}
	})
	go func() {
		defer close(read)
		c.ended <- follow(ws, pc)
	}()
	select {
	case <-connected:
	case reason := <-c.ended:
		u.t.Fatalf("%s is sent away: %v", u.id, reason)
	case <-time.After(time.Minute):
		u.t.Fatalf("%s is not connected", u.id)
	}
	return c, jwt
}

// mediaURL is where the SFU's WebSocket is.
func mediaURL(beside *server, jwt string) string {
	return "ws" + strings.TrimPrefix(beside.base, "http") + "/rtc?access_token=" + url.QueryEscape(jwt)
}

// follow answers offers and gives the reason for which the session ended.
func follow(ws *websocket.Conn, pc *webrtc.PeerConnection) (reason wire.DisconnectReason) {
	var writing sync.Mutex
	say := func(m *wire.SignalRequest) {
		writing.Lock()
		defer writing.Unlock()
		if b, err := proto.Marshal(m); err == nil {
			_ = ws.WriteMessage(websocket.BinaryMessage, b)
		}
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // who is not heard is cut off
		for {
			select {
			case <-over:
				return
			case <-time.After(5 * time.Second):
				say(&wire.SignalRequest{Message: &wire.SignalRequest_Ping{Ping: time.Now().UnixMilli()}})
			}
		}
	}()
	for {
		_, b, err := ws.ReadMessage()
		m := &wire.SignalResponse{}
		if err != nil || proto.Unmarshal(b, m) != nil {
			return reason
		}
		switch {
		case m.GetOffer() != nil:
			if pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m.GetOffer().GetSdp()}) != nil {
				return reason
			}
			a, err := pc.CreateAnswer(nil)
			if err != nil || pc.SetLocalDescription(a) != nil {
				return reason
			}
			say(&wire.SignalRequest{Message: &wire.SignalRequest_Answer{Answer: &wire.SessionDescription{Type: "answer", Sdp: a.SDP, Id: m.GetOffer().GetId()}}})
		case m.GetLeave() != nil:
			reason = m.GetLeave().GetReason()
		}
	}
}

// takenOut waits until the SFU has removed somebody.
func (c *inCall) takenOut(since time.Time) {
	c.t.Helper()
	select {
	case reason := <-c.ended:
		if reason != wire.DisconnectReason_PARTICIPANT_REMOVED {
			c.t.Errorf("%s is gone because of %v", c.who, reason)
		}
		c.t.Logf("%s is taken out after %.1f s", c.who, time.Since(since).Seconds())
	case <-time.After(2 * time.Minute):
		c.t.Errorf("%s is still there", c.who)
	}
}

func (c *inCall) stays() {
	c.t.Helper()
	select {
	case reason := <-c.ended:
		c.t.Errorf("%s is gone: %v", c.who, reason)
	default:
	}
}

// TestASynapseSaysWhoMayBeInTheSFUBesideIt: what focus.Beside reads in Synapse's admin API, of a Synapse and of users of another server.
func TestASynapseSaysWhoMayBeInTheSFUBesideIt(t *testing.T) {
	interopFolder(t)
	const address = "127.77.0.18"
	ca := newAuthority(t)
	synapse, other := newSynapse(t, ca, "127.77.0.17", ""), newTrunkboard(t, ca, "127.77.0.19")
	admin := synapse.newAccount(t, "admin", true)
	place := func() string { return fmt.Sprintf("%s:%d", address, binary.FreePort(t, address)) }
	beside := newBeside(t, ca, synapse, place(), "token "+admin.token)

	ann, bob, id := together(t, synapse, other, "11", object{"preset": "public_chat"})
	second := &user{t: t, s: synapse, id: ann.id}
	var login struct {
		Token  string `json:"access_token"`
		Device string `json:"device_id"`
	}
	local, _, _ := strings.Cut(strings.TrimPrefix(ann.id, "@"), ":")
	second.must("POST", "/_matrix/client/v3/login", object{
		"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": local}, "password": "a password of " + local,
	}, &login)
	second.token, second.device = login.Token, login.Device
	join := func(name string) *user {
		u := synapse.newUser(t, name)
		u.join(id, ann)
		return u
	}
	carol, eve, mallory := join("carol"), synapse.newUser(t, "eve"), other.newUser(t, "mallory")

	for _, c := range []struct {
		name   string
		who    *user
		room   string
		device string
		beside *server
		want   int
	}{
		{"a member", ann, id, ann.device, beside, 200},
		{"a member of another server", bob, id, bob.device, beside, 200},
		{"not in the room", eve, id, eve.device, beside, 403},
		{"of another server and not in the room", mallory, id, mallory.device, beside, 403},
		{"unknown room", ann, "!unknown:" + synapse.name, ann.device, beside, 403},
		{"a device that is not hers", ann, id, "STRANGE", beside, 403},
		{"wrong token", ann, id, ann.device, newBeside(t, ca, synapse, place(), "token syt_wrong"), 502},
		{"token of a user", ann, id, ann.device, newBeside(t, ca, synapse, place(), "token "+ann.token), 502},
		{"without a token", eve, id, "ANY", newBeside(t, ca, synapse, place()), 200},
	} {
		if status, _ := c.who.asksFor(c.beside, c.room, c.device); status != c.want {
			t.Errorf("%s: %d, want %d", c.name, status, c.want)
		}
	}

	annCalls, _ := ann.calls(beside, id)
	secondCalls, _ := second.calls(beside, id)
	bobCalls, jwt := bob.calls(beside, id)
	carolCalls, _ := carol.calls(beside, id)
	since := time.Now()
	ann.must("POST", room(id, "kick"), object{"user_id": bob.id}, nil)
	bobCalls.takenOut(since)
	if ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), mediaURL(beside, jwt), nil); err == nil || res == nil || res.StatusCode != 403 {
		t.Errorf("who was kicked comes back: %v", err)
		if ws != nil {
			_ = ws.Close()
		}
	}
	since = time.Now()
	carol.must("POST", room(id, "leave"), object{}, nil)
	carolCalls.takenOut(since)
	since = time.Now()
	second.must("POST", "/_matrix/client/v3/logout", object{}, nil)
	secondCalls.takenOut(since)
	annCalls.stays()

	// Somebody is banned, and the Synapse stops before anybody has looked at the room; it is asked again when it is back.
	dave := join("dave")
	daveCalls, _ := dave.calls(beside, id)
	_, jwt = ann.asksFor(beside, id, ann.device)
	ann.must("POST", room(id, "ban"), object{"user_id": dave.id}, nil)
	synapse.stop(t)
	beside.awaitLog(t, "does not say who is still in its rooms")
	if ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), mediaURL(beside, jwt), nil); err == nil || res == nil {
		t.Errorf("without the homeserver somebody comes in: %v", err)
		if ws != nil {
			_ = ws.Close()
		}
	}
	annCalls.stays()
	synapse.start(t)
	since = time.Now()
	daveCalls.takenOut(since)
	annCalls.stays()
	beside.awaitLog(t, "says again")

	since = time.Now()
	admin.must("DELETE", "/_synapse/admin/v1/rooms/"+url.PathEscape(id), object{"purge": true}, nil)
	annCalls.takenOut(since)
}
