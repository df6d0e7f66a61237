// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// claims reads a token without checking it.
func claims(t *testing.T, jwt string) *livekit.Claims {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %q", jwt)
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	c := &livekit.Claims{}
	if err != nil || json.Unmarshal(b, c) != nil {
		t.Fatalf("no token: %q", jwt)
	}
	return c
}

func TestUsersOfAnotherServerListenOnOurSFU(t *testing.T) {
	n := newInternet(t)
	one, two := n.startParts("one.test", "homeserver", "sfu", "focus"), n.startParts("two.test", "homeserver", "sfu", "focus")
	alice, bob := signUp(t, one, "alice"), signUp(t, two, "bob")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"})["room_id"].(string)
	native := "/_matrix/client/v1/rtc/livekit/get_token"
	ask := map[string]any{"server_name": "one.test", "url": "wss://one.test/livekit/sfu", "room_id": room, "slot_id": matrixrtc.RoomSlot, "member_id": "m"}
	bob.refused(native, ask, 403, "M_FORBIDDEN") // not in the room, says his own server

	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?server_name=one.test", map[string]any{})
	got := claims(t, bob.must("POST", native, ask)["jwt"].(string))
	if got.Subject != matrixrtc.Identity(bob.user, "m") || got.Video.Room != matrixrtc.MediaRoom(room, matrixrtc.RoomSlot) || *got.Video.CanPublish || !*got.Video.CanSubscribe {
		t.Errorf("%+v %+v", got, got.Video)
	}
	wrong := map[string]any{}
	for k, v := range ask {
		wrong[k] = v
	}
	wrong["url"] = "wss://two.test/livekit/sfu"
	bob.refused(native, wrong, 400, "M_INVALID_PARAM")
	wrong["server_name"] = "three.test"
	bob.refused(native, wrong, 502, "M_UNKNOWN")

	// Today's clients ask the other server's token service, with an OpenID token of their own.
	there := &caller{t: t, base: alice.base}
	body := map[string]any{
		"room_id": room, "slot_id": matrixrtc.RoomSlot, "openid_token": bob.openID(),
		"member": map[string]any{"id": "m", "claimed_user_id": bob.user, "claimed_device_id": bob.device},
	}
	got = claims(t, there.must("POST", "/livekit/jwt/get_token", body)["jwt"].(string))
	if got.Subject != matrixrtc.DeviceIdentity(bob.user, bob.device, "m") || *got.Video.CanPublish {
		t.Errorf("%+v %+v", got, got.Video)
	}
	old := map[string]any{"room": room, "device_id": bob.device, "openid_token": bob.openID()}
	if got = claims(t, there.must("POST", "/livekit/jwt/sfu/get", old)["jwt"].(string)); got.Subject != bob.user+":"+bob.device {
		t.Errorf("%+v", got)
	}
	liar := alice.openID()
	liar["matrix_server_name"] = "two.test"
	there.refused("/livekit/jwt/sfu/get", map[string]any{"room": room, "device_id": bob.device, "openid_token": liar}, 401, "M_UNAUTHORIZED")
	old["delay_id"], old["delay_timeout"] = "x", 1000
	there.refused("/livekit/jwt/sfu/get", old, 400, "M_BAD_JSON") // his leave is his own server's
}
