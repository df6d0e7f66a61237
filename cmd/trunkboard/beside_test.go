// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// beside runs an SFU with a token service for a homeserver, whose name it has; home is the setting.
func (n *internet) beside(name, home string, set ...string) *caller {
	n.t.Helper()
	a, _ := startWith(n.t, testConfig(n.t, n.config(name, append([]string{"sfu.homeserver=" + home}, set...)...)...), func(a *App) { a.dns = n }, "sfu", "focus")
	return &caller{t: n.t, base: "http://" + a.Addr("listen.client")}
}

// as is c for a user.
func (c *caller) as(user *caller) *caller {
	return &caller{t: c.t, base: c.base, user: user.user, device: user.device}
}

func oldBody(room string, who *caller, openID map[string]any) map[string]any {
	return map[string]any{"room": room, "device_id": who.device, "openid_token": openID}
}

func newBody(room string, who *caller) map[string]any {
	return map[string]any{
		"room_id": room, "slot_id": matrixrtc.RoomSlot, "openid_token": who.openID(),
		"member": map[string]any{"id": "m", "claimed_user_id": who.user, "claimed_device_id": who.device},
	}
}

func TestUsersOfOtherServersComeToTheSFUBesideAHomeserver(t *testing.T) {
	leavesNothing(t)
	defer http.DefaultClient.CloseIdleConnections()
	n := newInternet(t)
	one, two := n.start("one.test"), n.start("two.test")
	alice, bob, eve := signUp(t, one, "alice"), signUp(t, two, "bob"), signUp(t, two, "eve")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{
		"preset": "public_chat", "power_level_content_override": map[string]any{"events": map[string]int{"org.matrix.msc3401.call.member": 0}},
	})["room_id"].(string)
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?server_name=one.test", map[string]any{})
	home := "http://" + one.Addr("listen.client")

	t.Run("into calls that run, to listen, or to send with old clients", func(t *testing.T) {
		there := n.beside("one.test", home)
		got := claims(t, there.must("POST", "/get_token", newBody(room, bob))["jwt"].(string))
		if got.Subject != matrixrtc.DeviceIdentity(bob.user, bob.device, "m") || *got.Video.CanPublish || !*got.Video.CanSubscribe {
			t.Errorf("%+v %+v", got, got.Video)
		}
		jwt := there.must("POST", "/sfu/get", oldBody(room, bob, bob.openID()))["jwt"].(string)
		if got := claims(t, jwt); !*got.Video.CanPublish {
			t.Errorf("%+v", got.Video)
		}
		if ws, status := there.as(bob).dial(jwt); ws != nil || status != 404 {
			t.Fatalf("a user of another server opens a call: %d", status)
		}
		ours := there.must("POST", "/sfu/get", oldBody(room, alice, alice.openID()))["jwt"].(string)
		if ws, status := there.as(bob).dial(jwt); ws == nil { // she has not come yet, but is about to
			t.Fatalf("the SFU answers %d", status)
		}
		if ws, status := there.as(alice).dial(ours); ws == nil {
			t.Fatalf("the SFU answers %d", status)
		}
		late := oldBody(room, bob, bob.openID())
		late["delay_id"], late["delay_timeout"] = "x", 1000
		there.refused("/sfu/get", late, 400, "M_BAD_JSON") // his leave is his own server's
	})
	t.Run("but not where federation is off or their server is at a private address", func(t *testing.T) {
		for _, set := range []string{"federation.enabled=false", "federation.allow_private=", "federation.deny_servers=two.test"} {
			there := n.beside("one.test", home, set)
			there.refused("/sfu/get", oldBody(room, bob, bob.openID()), 401, "M_UNAUTHORIZED")
			there.must("POST", "/sfu/get", oldBody(room, alice, alice.openID()))
		}
	})
	t.Run("with full access", func(t *testing.T) {
		there := n.beside("one.test", home+", full_access two.test=http://"+two.Addr("listen.client")+"/", "federation.enabled=false")
		state := fmt.Sprintf("/_matrix/client/v3/rooms/%s/state/org.matrix.msc3401.call.member/%s", url.PathEscape(room), url.PathEscape("_"+bob.user+"_"+bob.device+"_m.call"))
		bob.must("PUT", state, map[string]any{"application": "m.call", "call_id": ""})
		delay := bob.must("PUT", state+"?org.matrix.msc4140.delay=3600000", map[string]any{})["delay_id"].(string)
		body := newBody(room, bob)
		if got := claims(t, there.must("POST", "/get_token", body)["jwt"].(string)); !*got.Video.CanPublish {
			t.Errorf("%+v", got.Video)
		}
		old := oldBody(room, bob, bob.openID())
		old["delay_id"], old["delay_timeout"] = "one.test "+delay, 3600000
		there.refused("/sfu/get", old, 400, "M_INVALID_PARAM") // another server's event
		old["delay_id"] = delay
		ws, status := there.as(bob).dial(there.must("POST", "/sfu/get", old)["jwt"].(string))
		if ws == nil {
			t.Fatalf("the SFU answers %d", status)
		}
		leaves(t, ws)
		since := ""
		for deadline := time.Now().Add(60 * time.Second); ; {
			if got := bob.must("GET", state, nil); got["application"] == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the leave was not sent")
			}
			since = "&since=" + url.QueryEscape(bob.must("GET", "/_matrix/client/v3/sync?timeout=2000"+since, nil)["next_batch"].(string))
		}
	})
	t.Run("everybody with full access", func(t *testing.T) {
		there := n.beside("one.test", home+",full_access *")
		ws, status := there.as(bob).dial(there.must("POST", "/sfu/get", oldBody(room, bob, bob.openID()))["jwt"].(string))
		if ws == nil {
			t.Errorf("the SFU answers %d", status)
		}
	})
	t.Run("only from the room where a Synapse tells who is in it", func(t *testing.T) {
		target, _ := url.Parse(home)
		transport := &http.Transport{DisableKeepAlives: true}
		proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
		var mu sync.Mutex
		in := map[string]string{alice.user: room, bob.user: room, eve.user: "!other:one.test"}
		leave := func(user string) {
			mu.Lock()
			defer mu.Unlock()
			in[user] = "!other:one.test"
		}
		synapse := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			parts := strings.Split(r.URL.Path, "/")
			switch {
			case parts[1] != "_synapse":
				proxy.ServeHTTP(w, r)
			case r.Header.Get("Authorization") != "Bearer administrator":
				w.WriteHeader(403)
				_, _ = io.WriteString(w, `{"errcode":"M_FORBIDDEN","error":"You are not a server admin"}`)
			case parts[6] == "joined_rooms":
				_ = json.NewEncoder(w).Encode(map[string]any{"joined_rooms": []string{"!first:one.test", in[parts[5]]}, "total": 2})
			case parts[6] == "devices":
				_ = json.NewEncoder(w).Encode(map[string]any{"devices": []any{map[string]string{"device_id": alice.device}}, "total": 1})
			case parts[6] == "members":
				members := []string{}
				for user, room := range in {
					if room == parts[5] {
						members = append(members, user)
					}
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"members": members, "total": len(members)})
			}
		}))
		defer synapse.Close()
		there := n.beside("one.test", synapse.URL+",token administrator")
		jwt := there.must("POST", "/sfu/get", oldBody(room, alice, alice.openID()))["jwt"].(string)
		his := there.must("POST", "/sfu/get", oldBody(room, bob, bob.openID()))["jwt"].(string)
		there.must("POST", "/get_token", newBody(room, bob))
		there.refused("/sfu/get", oldBody(room, eve, eve.openID()), 403, "M_FORBIDDEN")
		there.refused("/get_token", newBody(room, eve), 403, "M_FORBIDDEN")
		lost := oldBody(room, alice, alice.openID())
		lost["device_id"] = "LOST"
		there.refused("/sfu/get", lost, 403, "M_FORBIDDEN")
		ws, status := there.as(bob).dial(his)
		if ws == nil {
			t.Fatalf("the SFU answers %d", status)
		}
		leave(alice.user)
		if ws, status := there.as(alice).dial(jwt); ws != nil || status != 403 {
			t.Errorf("who has left the room comes in with an old token: %d", status)
		}
		leave(bob.user)
		_ = ws.SetReadDeadline(time.Now().Add(60 * time.Second))
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				if wait, ok := err.(net.Error); ok && wait.Timeout() {
					t.Error("who has left the room stays in the SFU")
				}
				break
			}
		}
		n.beside("one.test", synapse.URL+",token wrong").refused("/sfu/get", oldBody(room, bob, bob.openID()), 502, "M_UNKNOWN")
	})
}

// A server that answers as it likes: the OpenID token says how.
func TestAServerThatLiesGetsNobodyIntoTheSFUBesideAHomeserver(t *testing.T) {
	leavesNothing(t)
	defer http.DefaultClient.CloseIdleConnections()
	n := newInternet(t)
	one, two := n.start("one.test"), n.start("two.test")
	alice, bob := signUp(t, one, "alice"), signUp(t, two, "bob")
	var secrets atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		secrets.Add(1)
		_, _ = io.WriteString(w, `{"sub":"@mallory:liar.test"}`)
	}))
	defer inside.Close()
	asked, given := make(chan struct{}), make(chan struct{})
	liar := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("signed, by whom?")
		}
		say := func(sub string) { _ = json.NewEncoder(w).Encode(map[string]string{"sub": sub}) }
		switch r.URL.Query().Get("access_token") {
		case "true":
			say("@mallory:liar.test")
		case "ours":
			say(alice.user)
		case "third":
			say(bob.user)
		case "nobody":
			say("")
		case "no user":
			say("mallory:liar.test")
		case "redirect":
			http.Redirect(w, r, inside.URL+"/_matrix/federation/v1/openid/userinfo", http.StatusFound)
		case "huge":
			_, _ = io.WriteString(w, `{"sub":"@mallory:liar.test","x":"`+strings.Repeat("x", 1<<20)+`"}`)
		case "no JSON":
			_, _ = io.WriteString(w, "yes")
		case "slow":
			close(asked)
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(given)
		default:
			http.NotFound(w, r)
		}
	}))
	conf := testConfig(t, n.config("liar.test")...)
	pair, err := tls.LoadX509KeyPair(conf.TLS.Certificate, conf.TLS.Key)
	if err != nil {
		t.Fatal(err)
	}
	liar.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	liar.StartTLS()
	defer liar.Close()
	n.mu.Lock()
	n.ports["liar.test"] = uint16(liar.Listener.Addr().(*net.TCPAddr).Port)
	n.mu.Unlock()
	there := n.beside("one.test", "http://"+one.Addr("listen.client"))
	mallory := &caller{t: t, device: "M"}
	with := func(token, server string) map[string]any {
		return oldBody("!r:one.test", mallory, map[string]any{"access_token": token, "matrix_server_name": server})
	}

	// Somebody waits for an answer that does not come, and gives up; the others are not held up, and nothing is left of it.
	ctx, giveUp := context.WithCancel(t.Context())
	body, _ := json.Marshal(with("slow", "liar.test"))
	r, _ := http.NewRequestWithContext(ctx, "POST", there.base+"/sfu/get", strings.NewReader(string(body)))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if res, err := http.DefaultClient.Do(r); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-asked

	if got := claims(t, there.must("POST", "/sfu/get", with("true", "liar.test"))["jwt"].(string)); got.Subject != "@mallory:liar.test:M" {
		t.Errorf("%+v", got)
	}
	for _, token := range []string{"ours", "third", "nobody", "no user", "redirect", "huge", "no JSON", "unknown"} {
		there.refused("/sfu/get", with(token, "liar.test"), 401, "M_UNAUTHORIZED")
	}
	for _, server := range []string{"one.test", "nowhere.test", "127.0.0.1:1", "[::1]", "liar.test/x", "liar.test@one.test", "localhost:" + one.Addr("listen.client"), "*"} {
		there.refused("/sfu/get", with("true", server), 401, "M_UNAUTHORIZED")
	}
	if secrets.Load() != 0 {
		t.Error("a redirect was followed")
	}
	giveUp()
	<-ended
	select {
	case <-given:
	case <-time.After(60 * time.Second):
		t.Error("the server is asked on for somebody who has gone")
	}
}
