// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
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
