// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"

	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// caller is a user of an App, over HTTP.
type caller struct {
	t                   *testing.T
	base                string
	token, user, device string
}

// ask sends a request and gives status and answer.
func (c *caller) ask(method, path string, body any) (int, map[string]any) {
	c.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequest(method, c.base+path, bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	m := map[string]any{}
	if json.Unmarshal(text, &m) != nil {
		c.t.Fatalf("%s %s: %d %.200s", method, path, res.StatusCode, text)
	}
	return res.StatusCode, m
}

func (c *caller) must(method, path string, body any) map[string]any {
	c.t.Helper()
	status, m := c.ask(method, path, body)
	if status != 200 {
		c.t.Fatalf("%s %s: %d %v", method, path, status, m)
	}
	return m
}

func (c *caller) refused(path string, body any, status int, code string) {
	c.t.Helper()
	if got, m := c.ask("POST", path, body); got != status || m["errcode"] != code {
		c.t.Errorf("%s: %d %v, want %d %s", path, got, m, status, code)
	}
}

func signUp(t *testing.T, a *App, name string) *caller {
	t.Helper()
	c := &caller{t: t, base: "http://" + a.Addr("listen.client")}
	m := c.must("POST", "/_matrix/client/v3/register", map[string]any{"username": name, "password": "a long password", "auth": map[string]any{"type": "m.login.dummy"}})
	c.token, c.user, c.device = m["access_token"].(string), m["user_id"].(string), m["device_id"].(string)
	return c
}

func (c *caller) openID() map[string]any {
	c.t.Helper()
	return c.must("POST", "/_matrix/client/v3/user/"+c.user+"/openid/request_token", map[string]any{})
}

// joins asks for a token as Element Call does and enters the SFU with it.
func (c *caller) joins(room string, more map[string]any) (jwt string, ws *websocket.Conn) {
	c.t.Helper()
	body := map[string]any{"room": room, "device_id": c.device, "openid_token": c.openID()}
	for k, v := range more {
		body[k] = v
	}
	m := c.must("POST", "/livekit/jwt/sfu/get", body)
	if want := "ws" + strings.TrimPrefix(c.base, "http") + "/livekit/sfu"; m["url"] != want {
		c.t.Fatalf("url %v, want %s", m["url"], want)
	}
	jwt = m["jwt"].(string)
	ws, status := c.dial(jwt)
	if ws == nil {
		c.t.Fatalf("the SFU answers %d", status)
	}
	return jwt, ws
}

// dial opens the SFU's WebSocket; nil and the status when it is refused.
func (c *caller) dial(jwt string) (*websocket.Conn, int) {
	c.t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(c.base, "http")+"/livekit/sfu/rtc?access_token="+url.QueryEscape(jwt), nil)
	if err != nil {
		if res == nil {
			c.t.Fatal(err)
		}
		return nil, res.StatusCode
	}
	c.t.Cleanup(func() { _ = ws.Close() })
	m := &wire.SignalResponse{}
	_, b, err := ws.ReadMessage()
	if err != nil || proto.Unmarshal(b, m) != nil || m.GetJoin() == nil {
		c.t.Fatalf("%v %v", err, m)
	}
	if got, want := m.GetJoin().GetParticipant().GetIdentity(), c.user+":"+c.device; got != want {
		c.t.Errorf("identity %s, want %s", got, want)
	}
	return ws, 101
}

// removed waits until the SFU has sent the client away, and gives how long that took.
func removed(t *testing.T, ws *websocket.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	_ = ws.SetReadDeadline(began.Add(20 * time.Second))
	for {
		_, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("no word from the SFU: %v", err)
		}
		m := &wire.SignalResponse{}
		if proto.Unmarshal(b, m) == nil && m.GetLeave() != nil {
			if r := m.GetLeave().GetReason(); r != wire.DisconnectReason_PARTICIPANT_REMOVED {
				t.Errorf("reason %s", r)
			}
			return time.Since(began)
		}
	}
}

func TestANewServerTellsClientsOfItsOwnSFU(t *testing.T) {
	a, _ := start(t, testConfig(t))
	alice := signUp(t, a, "alice")
	service := alice.base + "/livekit/jwt"
	m := alice.must("GET", "/.well-known/matrix/client", nil)
	if diff := cmp.Diff([]any{map[string]any{"type": "livekit", "livekit_service_url": service}}, m["org.matrix.msc4143.rtc_foci"]); diff != "" {
		t.Error(diff)
	}
	m = alice.must("GET", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", nil)
	if got := m["rtc_transports"].([]any)[0].(map[string]any)["livekit_service_url"]; got != service {
		t.Errorf("%v, want %s", got, service)
	}
	if m := alice.must("GET", "/livekit/jwt/healthz", nil); m["status"] != "ok" {
		t.Error(m)
	}
	// A browser asks first whether it may.
	r, _ := http.NewRequest("OPTIONS", service+"/sfu/get", nil)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "Content-Type") {
		t.Errorf("OPTIONS: %d %v", res.StatusCode, res.Header)
	}
	without, _ := start(t, testConfig(t, "sfu.listen_udp="))
	bob := signUp(t, without, "bob")
	if m := bob.must("GET", "/.well-known/matrix/client", nil); m["org.matrix.msc4143.rtc_foci"] != nil {
		t.Errorf("a server without SFU tells of one: %v", m)
	}
}

func TestTokensAreForMembersWhoProveWhoTheyAre(t *testing.T) {
	a, _ := start(t, testConfig(t))
	alice, mallory := signUp(t, a, "alice"), signUp(t, a, "mallory")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat"})["room_id"].(string)
	good := func(c *caller) map[string]any {
		return map[string]any{"room": room, "device_id": c.device, "openid_token": c.openID()}
	}
	with := func(m map[string]any, key string, v any) map[string]any {
		m[key] = v
		return m
	}
	forged := alice.openID()
	forged["access_token"] = forged["access_token"].(string)[1:]
	liar := mallory.openID()
	liar["matrix_server_name"] = "elsewhere.example"
	old, next := "/livekit/jwt/sfu/get", "/livekit/jwt/get_token"
	member := func(c *caller, user, device string) map[string]any {
		return map[string]any{"room_id": room, "slot_id": matrixrtc.RoomSlot, "openid_token": c.openID(), "member": map[string]any{"id": "m", "claimed_user_id": user, "claimed_device_id": device}}
	}
	for _, c := range []struct {
		path   string
		body   any
		status int
		code   string
	}{
		{old, good(mallory), 403, "M_FORBIDDEN"},
		{old, with(good(alice), "room", "!nonesuch:localhost"), 403, "M_FORBIDDEN"},
		{old, with(good(alice), "openid_token", forged), 401, "M_UNAUTHORIZED"},
		{old, with(good(alice), "openid_token", liar), 401, "M_UNAUTHORIZED"},
		{old, with(good(alice), "openid_token", nil), 400, "M_BAD_JSON"},
		{old, with(good(alice), "device_id", "ANOTHER"), 401, "M_UNAUTHORIZED"},
		{old, with(good(alice), "device_id", 7), 400, "M_BAD_JSON"},
		{old, with(good(alice), "room", strings.Repeat("x", 300)), 400, "M_INVALID_PARAM"},
		{old, with(with(good(alice), "delay_id", "none"), "delay_timeout", 1000), 400, "M_INVALID_PARAM"},
		{old, with(with(good(alice), "delay_id", "none"), "delay_timeout", -1), 400, "M_BAD_JSON"},
		{old, []any{}, 400, "M_BAD_JSON"},
		{old, nil, 400, "M_BAD_JSON"},
		{old, strings.Repeat("x", 100_000), 413, "M_TOO_LARGE"},
		{next, member(alice, mallory.user, alice.device), 401, "M_UNAUTHORIZED"},
		{next, member(alice, alice.user, mallory.device), 401, "M_UNAUTHORIZED"},
		{next, member(mallory, mallory.user, mallory.device), 403, "M_FORBIDDEN"},
		{next, good(alice), 400, "M_BAD_JSON"},
		{"/livekit/jwt/delegate_delayed_leave", member(alice, alice.user, alice.device), 400, "M_BAD_JSON"},
		{"/livekit/jwt/nonesuch", good(alice), 404, "M_UNRECOGNIZED"},
	} {
		(&caller{t: t, base: alice.base}).refused(c.path, c.body, c.status, c.code)
	}
	if status, m := alice.ask("GET", old, nil); status != 405 || m["errcode"] != "M_UNRECOGNIZED" {
		t.Errorf("GET: %d %v", status, m)
	}
	if m := alice.must("POST", next, member(alice, alice.user, alice.device)); m["jwt"] == "" {
		t.Error(m)
	}
	// Nobody enters with what was made for somebody else: the holder is under the signature, and the names must be those of the holder.
	jwt, ws := alice.joins(room, nil)
	_ = ws.Close()
	parts := strings.Split(jwt, ".")
	if got, status := alice.dial(parts[0] + "." + parts[1] + "A." + parts[2]); got != nil || status != 401 {
		t.Errorf("a changed token: %d", status)
	}
}

func TestWhoeverLeavesTheRoomOrLogsOutIsOutOfTheCallAtOnceAndStaysOut(t *testing.T) {
	a, _ := start(t, testConfig(t, "limits.enabled=false"))
	alice := signUp(t, a, "alice")
	for _, c := range []struct {
		name string
		end  func(bob *caller, room string)
	}{
		{"kick", func(bob *caller, room string) {
			alice.must("POST", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/kick", map[string]any{"user_id": bob.user})
		}},
		{"ban", func(bob *caller, room string) {
			alice.must("POST", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/ban", map[string]any{"user_id": bob.user})
		}},
		{"leave", func(bob *caller, room string) {
			bob.must("POST", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/leave", map[string]any{})
		}},
		{"logout", func(bob *caller, _ string) { bob.must("POST", "/_matrix/client/v3/logout", map[string]any{}) }},
		{"deactivation", func(bob *caller, _ string) {
			bob.must("POST", "/_matrix/client/v3/account/deactivate", map[string]any{"auth": map[string]any{
				"type": "m.login.password", "identifier": map[string]any{"type": "m.id.user", "user": bob.user}, "password": "a long password",
			}})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bob := signUp(t, a, "bob-"+c.name)
			room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"})["room_id"].(string)
			bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
			_, hers := alice.joins(room, nil)
			openID := bob.openID()
			jwt, ws := bob.joins(room, nil)
			if again, status := bob.dial(jwt); again == nil { // replaces the first: the token is good as long as bob is welcome
				t.Fatalf("the token is refused: %d", status)
			} else {
				ws = again
			}
			c.end(bob, room)
			if took := removed(t, ws); took > 2*time.Second {
				t.Errorf("out of the SFU after %s", took)
			}
			if got, status := bob.dial(jwt); got != nil || status != http.StatusForbidden {
				t.Errorf("the old token: %d", status)
			}
			status, m := bob.ask("POST", "/livekit/jwt/sfu/get", map[string]any{"room": room, "device_id": bob.device, "openid_token": openID})
			if status != http.StatusForbidden || m["errcode"] != "M_FORBIDDEN" {
				t.Errorf("a new token: %d %v", status, m)
			}
			if err := hers.WriteMessage(websocket.BinaryMessage, ping(t)); err != nil {
				t.Errorf("alice was cut off too: %v", err)
			}
		})
	}
}

func ping(t *testing.T) []byte {
	t.Helper()
	b, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestADelegatedLeaveIsSentWhenTheSFULosesItsMember(t *testing.T) {
	a, _ := start(t, testConfig(t))
	alice := signUp(t, a, "alice")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat"})["room_id"].(string)
	state := fmt.Sprintf("/_matrix/client/v3/rooms/%s/state/org.matrix.msc3401.call.member/%s", url.PathEscape(room), url.PathEscape("_"+alice.user+"_"+alice.device+"_m.call"))
	delay := alice.must("PUT", state+"?org.matrix.msc4140.delay=3600000", map[string]any{})["delay_id"].(string)
	alice.must("PUT", state, map[string]any{"application": "m.call", "call_id": ""})
	_, ws := alice.joins(room, map[string]any{"delay_id": delay, "delay_timeout": 3600000})
	if m := alice.must("GET", state, nil); m["application"] != "m.call" {
		t.Fatalf("the membership is %v", m)
	}
	leaves(t, ws)
	since := ""
	for deadline := time.Now().Add(30 * time.Second); ; {
		m := alice.must("GET", "/_matrix/client/v3/sync?timeout=5000"+since, nil)
		since = "&since=" + url.QueryEscape(m["next_batch"].(string))
		if got := alice.must("GET", state, nil); got["application"] == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the leave was not sent")
		}
	}
}

func TestTheSFUStandsBesideAHomeserverThatRunsElsewhere(t *testing.T) {
	leavesNothing(t)
	defer http.DefaultClient.CloseIdleConnections()
	home, _ := start(t, testConfig(t), "homeserver")
	beside, _ := start(t, testConfig(t, "sfu.homeserver=http://"+home.Addr("listen.client")), "sfu", "focus")
	alice := signUp(t, home, "alice")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat"})["room_id"].(string)
	state := fmt.Sprintf("/_matrix/client/v3/rooms/%s/state/org.matrix.msc3401.call.member/%s", url.PathEscape(room), url.PathEscape("_"+alice.user+"_"+alice.device+"_m.call"))
	delay := alice.must("PUT", state+"?org.matrix.msc4140.delay=3600000", map[string]any{})["delay_id"].(string)
	alice.must("PUT", state, map[string]any{"application": "m.call", "call_id": ""})
	openID := alice.openID()

	there := &caller{t: t, base: "http://" + beside.Addr("listen.client"), user: alice.user, device: alice.device}
	body := func(token map[string]any) map[string]any {
		return map[string]any{"room": room, "device_id": alice.device, "openid_token": token, "delay_id": delay, "delay_timeout": 3600000}
	}
	forged := map[string]any{"access_token": "x", "matrix_server_name": "localhost"}
	elsewhere := map[string]any{"access_token": openID["access_token"], "matrix_server_name": "elsewhere.example"}
	for _, path := range []string{"/sfu/get", "/livekit/jwt/sfu/get"} {
		there.refused(path, body(forged), 401, "M_UNAUTHORIZED")
		there.refused(path, body(elsewhere), 401, "M_UNAUTHORIZED")
	}
	m := there.must("POST", "/sfu/get", body(openID))
	ws, status := there.dial(m["jwt"].(string))
	if ws == nil {
		t.Fatalf("the SFU answers %d", status)
	}
	leave, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{Reason: wire.DisconnectReason_CLIENT_INITIATED}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, leave); err != nil {
		t.Fatal(err)
	}
	since := ""
	for deadline := time.Now().Add(30 * time.Second); ; {
		m := alice.must("GET", "/_matrix/client/v3/sync?timeout=5000"+since, nil)
		since = "&since=" + url.QueryEscape(m["next_batch"].(string))
		if got := alice.must("GET", state, nil); got["application"] == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the leave was not sent")
		}
	}
	if _, err := New(testConfig(t), testLog(t), "focus"); err == nil {
		t.Error("a token service without an SFU or a homeserver starts")
	}
}

// leaves says goodbye to the SFU.
func leaves(t *testing.T, ws *websocket.Conn) {
	t.Helper()
	leave, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{Reason: wire.DisconnectReason_CLIENT_INITIATED}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, leave); err != nil {
		t.Fatal(err)
	}
}
