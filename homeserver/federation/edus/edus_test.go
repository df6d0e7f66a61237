// SPDX-License-Identifier: Apache-2.0

package edus

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// TestHostile/F21 and F28: nobody speaks for users of another server, nor in a room that he is not in, and what makes no sense is dropped.
func TestHostile(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		there, evil := elsewhere(t, "there.test"), elsewhere(t, "evil.test")
		id := h.sharedRoom(there)
		h.device(alice, "A", "")
		r, err := h.rooms.Room(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		last := r.Head().Extremities()[0].ID
		another := create(t, h.rooms, alice)
		enter(t, evil, h.rooms, another, mallory)
		first, since := h.synced(alice, "")
		if !first.Get("rooms.join").Exists() {
			t.Fatal(first.Raw)
		}
		quiet := func(t *testing.T) {
			t.Helper()
			out, next := h.synced(alice, since)
			for _, p := range h.here.Get(alice, anna, bob, mallory, "@stranger:evil.test") {
				if p.State != presence.Offline {
					t.Errorf("%s is %s", p.UserID, p.State)
				}
			}
			out.Get("rooms.join").ForEach(func(_, room gjson.Result) bool {
				if room.Get("ephemeral.events.#").Int() > 0 || room.Get("timeline.events.#").Int() > 0 {
					t.Errorf("alice hears %s", room.Raw)
				}
				return true
			})
			if out.Get("to_device.events.#").Int() > 0 || out.Get("device_lists.changed.#").Int() > 0 {
				t.Errorf("alice hears %s", out.Raw)
			}
			since = next
		}
		typing := func(room, user string) object { return object{"room_id": room, "user_id": user, "typing": true} }
		receipt := func(room, user, event string) object {
			return object{room: object{"m.read": object{user: object{"data": object{"ts": 1}, "event_ids": []string{event}}}}}
		}
		pushed := func(user string) object {
			return object{"push": []object{{"user_id": user, "presence": "online", "currently_active": true}}}
		}
		message := func(user string) object {
			return object{"sender": user, "type": "m.room_key", "message_id": "1", "messages": object{alice: object{"*": object{"a": 1}}}}
		}
		device := func(user string) object {
			return object{"user_id": user, "device_id": "X", "stream_id": 1, "prev_id": []int{}, "keys": object{"user_id": user}}
		}
		t.Run("F21 for users of others", func(t *testing.T) {
			for _, user := range []string{bob, anna, "bob", "", "@x", "@x:evil.test:8448", "@x:evil.test:evil.test"} {
				for typ, c := range map[string]object{
					"m.typing": typing(another, user), "m.receipt": receipt(another, user, last), "m.presence": pushed(user), "m.direct_to_device": message(user),
					"m.device_list_update": device(user), "m.signing_key_update": {"user_id": user, "master_key": object{}},
				} {
					h.receive("evil.test", typ, c)
				}
			}
			quiet(t)
		})
		t.Run("F21 in rooms that one is not in", func(t *testing.T) {
			for typ, c := range map[string]object{
				"m.typing": typing(id, mallory), "m.receipt": receipt(id, mallory, last),
			} {
				h.receive("evil.test", typ, c)
			}
			h.receive("evil.test", "m.typing", typing(another, "@nobody:evil.test")) // his server is, he is not
			h.receive("evil.test", "m.receipt", receipt(another, mallory, last))     // an event of another room
			h.receive("evil.test", "m.receipt", receipt("!nowhere:here.test", mallory, last))
			h.receive("evil.test", "m.presence", pushed("@stranger:evil.test"))
			h.receive("evil.test", "m.device_list_update", device("@stranger:evil.test"))
			quiet(t)
		})
		t.Run("F28 what makes no sense", func(t *testing.T) {
			for _, typ := range []string{"m.typing", "m.receipt", "m.presence", "m.direct_to_device", "m.device_list_update", "m.signing_key_update", "org.example.unknown", ""} {
				for _, c := range []any{nil, 1, "x", []int{1}, object{}, object{"user_id": 5}, object{"push": object{}}, object{another: object{"m.read": []int{}}}, object{"sender": mallory, "messages": object{alice: "x"}}} {
					h.receive("evil.test", typ, c)
				}
			}
			h.receive("evil.test", "m.receipt", object{another: object{"m.read": object{mallory: object{"event_ids": []string{}}}}})
			h.receive("evil.test", "m.direct_to_device", object{"sender": mallory, "type": "m.x", "message_id": strings.Repeat("x", 70_000), "messages": object{alice: object{"*": object{}}}})
			h.receive("evil.test", "m.device_list_update", object{"user_id": mallory, "device_id": "NONE", "stream_id": 1}) // there, without keys
			quiet(t)
		})
		t.Run("the witness", func(t *testing.T) {
			h.receive("there.test", "m.typing", typing(id, bob))
			h.receive("there.test", "m.receipt", receipt(id, bob, last))
			h.receive("there.test", "m.presence", pushed(bob))
			h.receive("there.test", "m.direct_to_device", message(bob))
			h.receive("there.test", "m.direct_to_device", message(bob)) // again: the same message
			h.receive("there.test", "m.device_list_update", device(bob))
			out, _ := h.synced(alice, since)
			room := out.Get("rooms.join").Map()[id]
			if e := room.Get("ephemeral.events").Raw; !strings.Contains(e, `"m.typing"`) || !strings.Contains(e, `"m.receipt"`) || strings.Count(e, bob) != 2 {
				t.Errorf("ephemeral: %s", e)
			}
			if p := h.here.Get(bob)[0]; p.State != presence.Online {
				t.Errorf("presence: %+v", p)
			}
			if m := out.Get("to_device.events").Array(); len(m) != 1 || m[0].Get("sender").Str != bob {
				t.Errorf("to device: %s", out.Get("to_device").Raw)
			}
			if c := out.Get("device_lists.changed").Raw; !strings.Contains(c, bob) {
				t.Errorf("device lists: %s", c)
			}
		})
	})
}

// TestEveryEDUOfTheSpecificationIsTaken: the six of the server-server API v1.19, and the name of one from before it was there.
func TestEveryEDUOfTheSpecificationIsTaken(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	want := []string{"m.device_list_update", "m.direct_to_device", "m.presence", "m.receipt", "m.signing_key_update", "m.typing", "org.matrix.signing_key_update"}
	if d := cmp.Diff(want, h.fed.EDUTypes()); d != "" {
		t.Error(d)
	}
}

// TestAServerThatTheRoomShutsOutIsNotHeardThereEither: server ACLs hold for EDUs (server-server API, "Server Access Control Lists").
func TestAServerThatTheRoomShutsOutIsNotHeardThereEither(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	there := elsewhere(t, "there.test")
	id := h.sharedRoom(there)
	if _, err := h.rooms.Append(t.Context(), id, rooms.Draft{Sender: alice, Type: "m.room.server_acl", StateKey: new(string), Content: json.RawMessage(`{"allow":["*"],"deny":["There.*"]}`)}); err != nil {
		t.Fatal(err)
	}
	r, err := h.rooms.Room(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	_, since := h.synced(alice, "")
	h.receive("there.test", "m.typing", object{"room_id": id, "user_id": bob, "typing": true})
	h.receive("there.test", "m.receipt", object{id: object{"m.read": object{bob: object{"data": object{}, "event_ids": []string{r.Head().Extremities()[0].ID}}}}})
	if out, _ := h.synced(alice, since); out.Get("rooms.join").Exists() {
		t.Errorf("alice hears %s", out.Get("rooms").Raw)
	}
}

func TestTypingReceiptsAndPresenceGoToTheServersOfTheRoom(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		there := elsewhere(t, "there.test")
		id := h.sharedRoom(there)
		r, err := h.rooms.Room(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		last := r.Head().Extremities()[0].ID
		h.Typed(r, alice, true)
		h.Typed(r, bob, true) // not ours to tell
		if err := h.sync.SetReceipt(t.Context(), r, alice, "m.read", last, "$thread"); err != nil {
			t.Fatal(err)
		}
		if err := h.sync.SetReceipt(t.Context(), r, alice, "m.read.private", last, ""); err != nil {
			t.Fatal(err)
		}
		if err := h.sync.SetReceipt(t.Context(), r, bob, "m.read", last, ""); err != nil {
			t.Fatal(err)
		}
		got := h.post.take()
		if len(got) != 2 || !contains(got, "there.test ", `"m.typing"`, alice, id) || !contains(got, "there.test ", `"m.receipt"`, alice, last, `"thread_id":"$thread"`) {
			t.Errorf("%q", got)
		}
		h.device(alice, "A", `{"keys":{}}`)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		// Run watches presence before it tells of devices.
		h.soon("there.test hears of alice's devices", func() bool { return h.post.awake("there.test") })
		for _, user := range []string{anna, alice} {
			if err := h.here.Set(ctx, presence.Update{UserID: user, DeviceID: "A", State: presence.Online}); err != nil {
				t.Fatal(err)
			}
		}
		var told []string
		h.soon("there.test hears of alice", func() bool {
			told = append(told, h.post.take()...)
			return contains(told, "there.test ", `"m.presence"`, alice)
		})
		// A server that was away has missed it.
		h.Returned("evil.test")
		h.Returned("there.test")
		var again []string
		h.soon("there.test hears of alice again", func() bool {
			again = append(again, h.post.take()...)
			return contains(again, "there.test ", `"m.presence"`, alice, `"online"`)
		})
		if told = append(told, again...); contains(again, "evil.test ") {
			t.Errorf("a server that shares no room hears %q", again)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if contains(told, anna) {
			t.Errorf("there.test hears of somebody whom it shares no room with: %q", told)
		}
	})
}

func TestChangesBeforeTheStartDoNotStopIt(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	there := elsewhere(t, "there.test")
	h.sharedRoom(there)
	h.device(alice, "A", `{"keys":{}}`)
	if err := h.st.Write(t.Context(), func(tx *storage.Tx) error { return tx.DeviceListChanged(alice) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.soon("the change is told", func() bool { return h.post.awake("there.test") })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
