// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// TestInvitesOfAnAddressBecomeInvitesOfItsUser also is F47: an identity server's signature that is forged lets nobody in.
func TestInvitesOfAnAddressBecomeInvitesOfItsUser(t *testing.T) {
	s := newScene(t, "11")
	pub, key, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	identity := event.Signer{Server: "identity.test", KeyID: "ed25519:0", Key: key}
	forger := event.Signer{Server: "identity.test", KeyID: "ed25519:0", Key: other}
	public := base64.RawStdEncoding.EncodeToString(pub)
	s.append(rooms.Draft{Sender: alice, Type: "m.room.join_rules", StateKey: new(string), Content: json.RawMessage(`{"join_rule":"invite"}`)})
	for _, token := range []string{"one", "two", "three"} {
		s.append(rooms.Draft{Sender: alice, Type: "m.room.third_party_invite", StateKey: ptr(token), Content: json.RawMessage(
			`{"display_name":"d…@third.test","key_validity_url":"https://identity.test/valid","public_key":"` + public + `","public_keys":[{"public_key":"` + public + `"}]}`)})
	}
	catchUp(t, s.here, s.evil, s.room)
	catchUp(t, s.here, s.third, s.room)
	signed := func(by event.Signer, user, token string) json.RawMessage {
		raw, err := event.SignJSON(by, []byte(`{"mxid":"`+user+`","token":"`+token+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	membership := func(user string) string { return s.here.room(s.room).Head().Membership(user) }
	bound := func(user, sender string, proof json.RawMessage) map[string]any {
		return map[string]any{"medium": "email", "address": "d@third.test", "mxid": user, "invites": []any{map[string]any{
			"medium": "email", "address": "d@third.test", "mxid": user, "room_id": s.room, "sender": sender, "signed": proof,
		}}}
	}
	const onbind = "/_matrix/federation/v1/3pid/onbind"
	exchange := "/_matrix/federation/v1/exchange_third_party_invite/" + esc(s.room)
	ask := func(user, sender string, proof json.RawMessage) map[string]any {
		return map[string]any{"type": "m.room.member", "room_id": s.room, "sender": sender, "state_key": user,
			"content": map[string]any{"membership": "invite", "third_party_invite": map[string]any{"display_name": "x", "signed": proof}}}
	}
	t.Run("F47 forged", func(t *testing.T) {
		eve := "@eve:evil.test"
		s.evil.refused(s.here, 403, "M_FORBIDDEN", "PUT", exchange, ask(eve, alice, signed(forger, eve, "one")))
		s.evil.refused(s.here, 403, "M_FORBIDDEN", "PUT", exchange, ask(eve, alice, signed(identity, eve, "no such token")))
		s.evil.refused(s.here, 403, "M_FORBIDDEN", "PUT", exchange, ask(eve, witness, signed(identity, eve, "one")))               // it was not his invitation
		s.evil.refused(s.here, 400, "M_INVALID_PARAM", "PUT", exchange, ask(eve, alice, signed(identity, "@d:third.test", "one"))) // another's proof
		s.evil.refused(s.here, 403, "M_FORBIDDEN", "PUT", exchange, ask("@d:third.test", alice, signed(identity, "@d:third.test", "one")))
		s.evil.refused(s.here, 400, "M_INVALID_PARAM", "PUT", exchange, ask(eve, alice, json.RawMessage(`{}`)))
		s.evil.refused(s.here, 400, "M_BAD_JSON", "PUT", exchange, json.RawMessage(`{"content":5}`))
		wrong := ask(eve, alice, signed(identity, eve, "one"))
		wrong["room_id"] = "!x:here.test"
		s.evil.refused(s.here, 400, "M_INVALID_PARAM", "PUT", exchange, wrong)
		s.evil.refused(s.here, 404, "M_NOT_FOUND", "PUT", strings.Replace(exchange, esc(s.room), esc("!x:here.test"), 1), func() any {
			x := ask(eve, alice, signed(identity, eve, "one"))
			x["room_id"] = "!x:here.test"
			return x
		}())
		// Straight into the room, as an event of the server that would like to be in.
		e := s.evil.build(s.room, event.Proto{Sender: mallory, Type: "m.room.member", StateKey: &eve, Content: json.RawMessage(`{"membership":"invite","third_party_invite":{"display_name":"x","signed":` + string(signed(forger, eve, "one")) + `}}`)})
		s.evil.send(s.here, e.JSON())
		if m := membership(eve); m != "" {
			t.Errorf("eve is in the room: %s", m)
		}
	})
	t.Run("a user of another server", func(t *testing.T) {
		d := "@d:third.test"
		if status, out := s.third.plain("PUT", onbind, bound(d, alice, signed(identity, d, "two"))); status != 200 {
			t.Fatalf("%d %s", status, out.Raw)
		}
		if m := membership(d); m != "invite" {
			t.Fatalf("d is %q", m)
		}
		catchUp(t, s.here, s.third, s.room)
		s.third.join(d, s.room, s.here)
	})
	t.Run("a user of ours", func(t *testing.T) {
		bob := "@bob:here.test"
		if status, out := s.here.plain("PUT", onbind, bound(bob, alice, signed(identity, bob, "three"))); status != 200 {
			t.Fatalf("%d %s", status, out.Raw)
		}
		if m := membership(bob); m != "invite" {
			t.Fatalf("bob is %q", m)
		}
	})
	t.Run("notices that make no sense", func(t *testing.T) {
		carol := "@carol:here.test"
		for what, x := range map[string]struct {
			body   any
			status int
		}{
			"nobody of ours": {bound("@d:third.test", alice, nil), 404}, "no such user": {bound("@nobody:here.test", alice, nil), 404}, "no user": {bound("", alice, nil), 400},
			"a list": {[]int{}, 400}, "too many": {map[string]any{"medium": "email", "address": "a", "mxid": carol, "invites": make([]struct{}, maxBound+1)}, 413},
			// What each invite comes to is not told.
			"forged": {bound(carol, alice, signed(forger, carol, "one")), 200}, "a sender that is none": {bound(carol, "alice", signed(identity, carol, "one")), 200},
			"a server that is not there": {bound(carol, "@x:nowhere.test", signed(identity, carol, "one")), 200}, "for another": {func() any {
				x := bound(carol, alice, signed(identity, carol, "one"))
				x["mxid"] = "@dan:here.test"
				return x
			}(), 200},
		} {
			if status, out := s.here.plain("PUT", onbind, x.body); status != x.status {
				t.Errorf("%s: %d %s", what, status, out.Raw)
			}
		}
		if m := membership(carol); m != "" {
			t.Errorf("carol is %q", m)
		}
	})
	catchUp(t, s.here, s.third, s.room)
	s.end()
}
