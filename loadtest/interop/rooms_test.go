// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRoomsBetweenTrunkboardAndSynapse(t *testing.T) {
	interopFolder(t)
	ca := newAuthority(t)
	rooms(t, newTrunkboard(t, ca, "127.77.0.1"), newSynapse(t, ca, "127.77.0.2", ""), []string{"10", "11", "12"})
}

func TestRoomsBetweenTrunkboardAndDendrite(t *testing.T) {
	if os.Getenv("TRUNKBOARD_INTEROP_DENDRITE") == "" {
		t.Skip("TRUNKBOARD_INTEROP_DENDRITE names no folder with Dendrite's programs")
	}
	ca := newAuthority(t)
	rooms(t, newTrunkboard(t, ca, "127.77.0.3"), newDendrite(t, ca, "127.77.0.4", ""), []string{"10", "11", "12"})
}

func TestRoomsBetweenTwoTrunkboards(t *testing.T) {
	ca := newAuthority(t)
	rooms(t, newTrunkboard(t, ca, "127.77.0.5"), newTrunkboard(t, ca, "127.77.0.6"), []string{"11", "12"})
}

// rooms runs the same rows with the room made on either side.
func rooms(t *testing.T, a, b *server, versions []string) {
	for _, version := range versions {
		for _, way := range [][2]*server{{a, b}, {b, a}} {
			t.Run(fmt.Sprintf("v%s/made on %s %s", version, way[0].kind, way[0].name[:strings.IndexByte(way[0].name, ':')]), func(t *testing.T) {
				host, guest := way[0], way[1]
				t.Run("invitation, messages and backfill", func(t *testing.T) { invitation(t, host, guest, version) })
				t.Run("join by alias, directory and profile", func(t *testing.T) { byAlias(t, host, guest, version) })
				t.Run("redaction, kick, ban and power", func(t *testing.T) { moderation(t, host, guest, version) })
				t.Run("knock and restricted join", func(t *testing.T) { knockAndRestricted(t, host, guest, version) })
				t.Run("decline and retract", func(t *testing.T) { declineAndRetract(t, host, guest, version) })
				t.Run("call events", func(t *testing.T) { callEvents(t, host, guest, version) })
				t.Run("absence", func(t *testing.T) { absence(t, host, guest, version) })
			})
		}
	}
	for _, way := range [][2]*server{{a, b}, {b, a}} {
		t.Run("from "+way[0].kind+" "+way[0].name[:strings.IndexByte(way[0].name, ':')], func(t *testing.T) {
			t.Run("device keys and to-device messages", func(t *testing.T) { keys(t, way[0], way[1]) })
			t.Run("media", func(t *testing.T) { media(t, way[0], way[1]) })
			t.Run("typing and receipts", func(t *testing.T) { ephemeral(t, way[0], way[1]) })
		})
	}
}

// together makes a room of version that a user of each server is in.
func together(t *testing.T, host, guest *server, version string, more object) (ann, bob *user, id string) {
	t.Helper()
	ann, bob = host.newUser(t, "ann"), guest.newUser(t, "bob")
	id = ann.createRoom(version, more)
	ann.invite(id, bob)
	bob.awaitInvite(id)
	bob.join(id, ann)
	ann.awaitMember(id, bob, "join")
	bob.awaitMember(id, bob, "join")
	return ann, bob, id
}

func invitation(t *testing.T, host, guest *server, version string) {
	ann, bob := host.newUser(t, "ann"), guest.newUser(t, "bob")
	id := ann.createRoom(version, object{"name": "Across"})
	var before []string
	for i := range 30 {
		before = append(before, ann.say(id, fmt.Sprint("before ", i)))
	}
	ann.invite(id, bob)
	bob.await("an invitation that names the room", func(a *syncAnswer) bool {
		invited, ok := a.Rooms.Invite[id]
		return ok && slices.ContainsFunc(invited.State.Events, func(e event) bool { return e.Type == "m.room.name" })
	})
	bob.join(id, ann)
	ann.awaitMember(id, bob, "join")
	bob.awaitMember(id, bob, "join")
	for i := range 3 {
		bob.awaitID(id, ann.say(id, fmt.Sprint("there ", i)))
		ann.awaitID(id, bob.say(id, fmt.Sprint("back ", i)))
	}

	// All that was said before the join comes by pagination, in order.
	var seen []string
	from := ""
	for range 20 {
		q := url.Values{"dir": {"b"}, "limit": {"20"}}
		if from != "" {
			q.Set("from", from)
		}
		var page struct {
			Chunk []event
			End   string
		}
		bob.must("GET", room(id, "messages")+"?"+q.Encode(), nil, &page)
		for _, e := range page.Chunk {
			if slices.Contains(before, e.ID) {
				seen = append(seen, e.ID)
			}
		}
		if from = page.End; from == "" || len(seen) == len(before) {
			break
		}
	}
	slices.Reverse(seen)
	if !slices.Equal(seen, before) {
		t.Errorf("pagination shows %d of the %d events before the join in their order: %v", len(seen), len(before), seen)
	}
	sameState(t, ann, bob, id)
}

// sameState compares the current state that both servers show.
func sameState(t *testing.T, a, b *user, id string) {
	t.Helper()
	of := func(u *user) []string {
		var state []event
		u.must("GET", room(id, "state"), nil, &state)
		var out []string
		for _, e := range state {
			out = append(out, e.Type+"|"+*e.StateKey+"|"+e.ID)
		}
		slices.Sort(out)
		return out
	}
	if x, y := of(a), of(b); !slices.Equal(x, y) {
		t.Errorf("state differs:\n%s: %v\n%s: %v", a.s.kind, x, b.s.kind, y)
	}
}

func byAlias(t *testing.T, host, guest *server, version string) {
	ann, bob := host.newUser(t, "ann"), guest.newUser(t, "bob")
	ann.must("PUT", "/_matrix/client/v3/profile/"+url.PathEscape(ann.id)+"/displayname", object{"displayname": "Ann of afar"}, nil)
	name := "hall" + next()
	id := ann.createRoom(version, object{"preset": "public_chat", "visibility": "public", "room_alias_name": name, "name": "The hall"})
	var joined struct {
		RoomID string `json:"room_id"`
	}
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape("#"+name+":"+host.name), object{}, &joined)
	if joined.RoomID != id {
		t.Fatalf("the alias led to %s, the room is %s", joined.RoomID, id)
	}
	bob.awaitID(id, ann.say(id, "welcome"))
	var profile struct{ Displayname string }
	bob.must("GET", "/_matrix/client/v3/profile/"+url.PathEscape(ann.id), nil, &profile)
	if profile.Displayname != "Ann of afar" {
		t.Errorf("her name over federation is %q", profile.Displayname)
	}
	var list struct {
		Chunk []struct {
			RoomID string `json:"room_id"`
		}
	}
	// Synapse keeps such a list for half a minute, by what was asked: a limit of its own makes the question a new one.
	bob.must("GET", "/_matrix/client/v3/publicRooms?limit=10"+next()+"&server="+url.QueryEscape(host.name), nil, &list)
	if !slices.ContainsFunc(list.Chunk, func(r struct {
		RoomID string `json:"room_id"`
	}) bool {
		return r.RoomID == id
	}) {
		t.Errorf("the host's list of public rooms lacks the room")
	}
	bob.must("POST", room(id, "leave"), object{}, nil)
	ann.awaitMember(id, bob, "leave")
	bob.join(id, ann)
	ann.awaitMember(id, bob, "join")
	sameState(t, ann, bob, id)
}

func moderation(t *testing.T, host, guest *server, version string) {
	ann, bob, id := together(t, host, guest, version, nil)
	said := bob.say(id, "to be taken back")
	ann.awaitID(id, said)
	var redaction struct {
		EventID string `json:"event_id"`
	}
	bob.must("PUT", room(id, "redact", url.PathEscape(said), "t"+next()), object{}, &redaction)
	if host.kind == "dendrite" && version != "10" {
		t.Log("Dendrite does not look where version 11 says what a redaction takes back, and shows none from other servers; Synapse's neither")
	} else {
		ann.awaitID(id, redaction.EventID)
		var e event
		ann.must("GET", room(id, "event", url.PathEscape(said)), nil, &e)
		if string(e.Content) != "{}" {
			t.Errorf("the redacted event has the content %s", e.Content)
		}
	}

	var levels object
	ann.must("GET", room(id, "state", "m.room.power_levels", ""), nil, &levels)
	users, _ := levels["users"].(object)
	if users == nil {
		users = object{}
	}
	users[bob.id] = 50
	levels["users"] = users
	bob.awaitID(id, ann.setState(id, "m.room.power_levels", "", levels))
	ann.awaitID(id, bob.setState(id, "m.room.topic", "", object{"topic": "set by a moderator of another server"}))

	ann.must("POST", room(id, "kick"), object{"user_id": bob.id, "reason": "for the test"}, nil)
	bob.awaitMember(id, bob, "leave")
	ann.invite(id, bob)
	bob.awaitInvite(id)
	bob.join(id, ann)
	ann.awaitMember(id, bob, "join")
	// A Synapse that is thrown out before it has fetched the members that it had left out of the join fetches them afterwards; until it has
	// them, its user's syncs wait.
	ann.must("POST", room(id, "ban"), object{"user_id": bob.id}, nil)
	bob.awaitMember(id, bob, "ban")
	if status, text := bob.try("POST", "/_matrix/client/v3/join/"+url.PathEscape(id)+"?via="+url.QueryEscape(host.name)+"&server_name="+url.QueryEscape(host.name), object{}); status != 403 {
		t.Errorf("a banned user joins: %d %s", status, text)
	}
}

func knockAndRestricted(t *testing.T, host, guest *server, version string) {
	ann, bob := host.newUser(t, "ann"), guest.newUser(t, "bob")
	id := ann.createRoom(version, object{"initial_state": []object{{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}}}})
	status, text := bob.try("POST", "/_matrix/client/v3/knock/"+url.PathEscape(id)+"?via="+url.QueryEscape(host.name)+"&server_name="+url.QueryEscape(host.name), object{"reason": "please"})
	if status != 200 {
		if guest.kind == "dendrite" || host.kind == "dendrite" { // it has no knocking over federation
			t.Logf("knock: %d %s", status, text)
		} else {
			t.Fatalf("knock: %d %s", status, text)
		}
	} else {
		ann.awaitMember(id, bob, "knock")
		ann.invite(id, bob)
		bob.awaitInvite(id)
		bob.join(id, ann)
		ann.awaitMember(id, bob, "join")
	}

	space := ann.createRoom(version, object{"preset": "public_chat"})
	bob.join(space, ann)
	ann.awaitMember(space, bob, "join")
	closed := ann.createRoom(version, object{"initial_state": []object{{"type": "m.room.join_rules", "state_key": "", "content": object{
		"join_rule": "restricted", "allow": []object{{"type": "m.room_membership", "room_id": space}},
	}}}})
	bob.join(closed, ann)
	ann.awaitMember(closed, bob, "join")
	bob.awaitID(closed, ann.say(closed, "in by the space"))
	sameState(t, ann, bob, closed)
}

func declineAndRetract(t *testing.T, host, guest *server, version string) {
	ann, bob := host.newUser(t, "ann"), guest.newUser(t, "bob")
	id := ann.createRoom(version, nil)
	ann.invite(id, bob)
	bob.awaitInvite(id)
	bob.must("POST", room(id, "leave"), object{}, nil)
	ann.awaitMember(id, bob, "leave")
	ann.invite(id, bob)
	bob.awaitInvite(id)
	if host.kind == "dendrite" || guest.kind == "dendrite" {
		return // it neither sends nor takes the retraction of an invitation (seen between Synapse and it)
	}
	ann.must("POST", room(id, "kick"), object{"user_id": bob.id}, nil)
	bob.await("the invitation to be taken back", func(a *syncAnswer) bool { _, ok := a.Rooms.Leave[id]; return ok })
}

// callEvents rings across servers: the events of a call arrive whole and quickly.
func callEvents(t *testing.T, host, guest *server, version string) {
	ann, bob, id := together(t, host, guest, version, object{"is_direct": true})
	var worst time.Duration
	for range 5 {
		call := "call" + next()
		offer := strings.Repeat("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", 60)
		sent := time.Now()
		invite := ann.send(id, "m.call.invite", object{
			"call_id": call, "party_id": "A", "version": "1", "lifetime": 60000, "offer": object{"type": "offer", "sdp": "v=0\r\n" + offer},
		})
		got := bob.awaitID(id, invite)
		worst = max(worst, time.Since(sent))
		if !bytes.Contains(got.Content, []byte(call)) {
			t.Fatalf("the invite arrived as %s", got.Content)
		}
		ann.awaitID(id, bob.send(id, "m.call.answer", object{"call_id": call, "party_id": "B", "version": "1", "answer": object{"type": "answer", "sdp": "v=0\r\n"}}))
		bob.awaitID(id, ann.send(id, "m.call.select_answer", object{"call_id": call, "party_id": "A", "version": "1", "selected_party_id": "B"}))
		ann.awaitID(id, bob.send(id, "m.call.hangup", object{"call_id": call, "party_id": "B", "version": "1", "reason": "user_hangup"}))
	}
	t.Logf("invite sent on %s -> in /sync on %s: %v at worst of 5", host.kind, guest.kind, worst.Round(time.Millisecond))
	if worst > 5*time.Second {
		t.Errorf("an invite took %v", worst)
	}
}

// absence stops the guest's server while the host's side goes on talking.
func absence(t *testing.T, host, guest *server, version string) {
	ann, bob, id := together(t, host, guest, version, nil)
	guest.freeze(t)
	var said []string
	for i := range 60 {
		said = append(said, ann.say(id, fmt.Sprint("missed ", i)))
	}
	guest.thaw(t)
	said = append(said, ann.say(id, "back again"))
	var seen []string
	bob.await("all that was said meanwhile", func(a *syncAnswer) bool {
		for _, e := range a.Rooms.Join[id].Timeline.Events {
			if slices.Contains(said, e.ID) && !slices.Contains(seen, e.ID) {
				seen = append(seen, e.ID)
			}
		}
		return len(seen) == len(said)
	})
	if !slices.Equal(seen, said) {
		t.Errorf("the order of arrival differs from the order of sending")
	}
}

func keys(t *testing.T, from, to *server) {
	ann, bob, _ := together(t, from, to, "11", nil)
	for _, u := range []*user{ann, bob} {
		u.uploadKeys()
	}
	var query struct {
		DeviceKeys map[string]map[string]json.RawMessage `json:"device_keys"`
	}
	// A server that has followed the user's devices may hear of a new one a moment later.
	for deadline := time.Now().Add(20 * time.Second); len(query.DeviceKeys[bob.id]) == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		ann.must("POST", "/_matrix/client/v3/keys/query", object{"device_keys": object{bob.id: []string{}}, "timeout": 10000}, &query)
	}
	if _, ok := query.DeviceKeys[bob.id][bob.device]; !ok {
		t.Fatalf("keys/query does not show the other's device: %v", query.DeviceKeys)
	}
	var claim struct {
		OneTimeKeys map[string]map[string]object `json:"one_time_keys"`
	}
	ann.must("POST", "/_matrix/client/v3/keys/claim", object{"one_time_keys": object{bob.id: object{bob.device: "signed_curve25519"}}, "timeout": 10000}, &claim)
	if len(claim.OneTimeKeys[bob.id][bob.device]) != 1 {
		t.Errorf("claimed %v", claim.OneTimeKeys)
	}
	ann.must("PUT", "/_matrix/client/v3/sendToDevice/m.call.invite/t"+next(), object{"messages": object{bob.id: object{bob.device: object{"call_id": "by device"}}}}, nil)
	bob.await("the to-device message", func(a *syncAnswer) bool {
		return slices.ContainsFunc(a.ToDevice.Events, func(e event) bool { return e.Type == "m.call.invite" && e.Sender == ann.id })
	})

	// A new device is announced to those who share a room.
	var login struct {
		AccessToken string `json:"access_token"`
		DeviceID    string `json:"device_id"`
	}
	bob.must("POST", "/_matrix/client/v3/login", object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": bob.id},
		"password": "a password of " + strings.TrimPrefix(bob.id[:strings.IndexByte(bob.id, ':')], "@")}, &login)
	second := *bob
	second.token, second.device = login.AccessToken, login.DeviceID
	second.uploadKeys()
	ann.await("word of the new device", func(a *syncAnswer) bool { return slices.Contains(a.DeviceLists.Changed, bob.id) })
}

func media(t *testing.T, from, to *server) {
	ann, bob := from.newUser(t, "ann"), to.newUser(t, "bob")
	content := bytes.Repeat([]byte("across servers "), 4000)
	var out struct {
		URI string `json:"content_uri"`
	}
	ann.must("POST", "/_matrix/media/v3/upload?filename=a.bin", content, &out)
	status, got := bob.try("GET", "/_matrix/client/v1/media/download/"+strings.TrimPrefix(out.URI, "mxc://"), nil)
	if status != 200 || !bytes.Equal(got, content) {
		t.Errorf("download over federation: %d, %d bytes of %d: %.200s", status, len(got), len(content), got)
	}
}

func ephemeral(t *testing.T, from, to *server) {
	ann, bob, id := together(t, from, to, "11", nil)
	said := bob.say(id, "read this")
	ann.awaitID(id, said)
	ann.must("PUT", room(id, "typing", url.PathEscape(ann.id)), object{"typing": true, "timeout": 30000}, nil)
	bob.await("typing", func(a *syncAnswer) bool {
		return slices.ContainsFunc(a.Rooms.Join[id].Ephemeral.Events, func(e event) bool {
			return e.Type == "m.typing" && bytes.Contains(e.Content, []byte(ann.id))
		})
	})
	ann.must("POST", room(id, "receipt", "m.read", url.PathEscape(said)), object{}, nil)
	bob.await("the receipt", func(a *syncAnswer) bool {
		return slices.ContainsFunc(a.Rooms.Join[id].Ephemeral.Events, func(e event) bool {
			return e.Type == "m.receipt" && bytes.Contains(e.Content, []byte(ann.id)) && bytes.Contains(e.Content, []byte(said))
		})
	})
}
