// SPDX-License-Identifier: Apache-2.0

package edus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// TestServersOfARoomHearOfTheDevicesOfWhoeverJoinsIt is the third case of "must be sent" in the server-server API's "Device Management".
func TestServersOfARoomHearOfTheDevicesOfWhoeverJoinsIt(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		there, third := elsewhere(t, "there.test"), elsewhere(t, "third.test")
		h.device(alice, "PHONE", "") // which has no keys
		h.told("there.test")
		one := create(t, there, bob)
		enter(t, h.rooms, there, one, alice)
		types, contents := h.told("there.test")
		if len(types) != 1 || types[0] != "m.device_list_update" {
			t.Fatalf("there.test hears of %q", types)
		}
		c := contents[0]
		if c.Get("user_id").Str != alice || c.Get("device_id").Str != "PHONE" || c.Get("device_display_name").Str != "PHONE's name" || c.Get("keys").Exists() || c.Get("deleted").Bool() {
			t.Errorf("there.test hears %s", c.Raw)
		}
		if types, _ := h.told("there.test"); len(types) != 0 {
			t.Errorf("there.test hears it again: %q", types)
		}
		// A second room: there.test knows, third.test does not.
		two := create(t, there, bob)
		enter(t, third, there, two, "@carol:third.test")
		enter(t, h.rooms, there, two, alice)
		if types, _ := h.told("there.test"); len(types) != 0 {
			t.Errorf("there.test hears of a second room: %q", types)
		}
		if types, _ := h.told("third.test"); !slices.Equal(types, []string{"m.device_list_update"}) {
			t.Errorf("third.test hears of %q", types)
		}
		// Somebody else of ours, who enters a room that this server is in, and has keys.
		keys := `{"user_id":"` + anna + `","device_id":"LAPTOP","keys":{"ed25519:LAPTOP":"x"}}`
		h.device(anna, "LAPTOP", keys)
		h.told("there.test")
		h.join(one, anna)
		types, contents = h.told("there.test")
		if len(types) != 1 || contents[0].Get("keys.keys.ed25519:LAPTOP").Str != "x" || len(contents[0].Get("prev_id").Array()) != 1 {
			t.Errorf("there.test hears of %q: %v", types, contents)
		}
		// Who changes his name has joined nothing, and who leaves and comes back has.
		if _, err := h.rooms.Append(t.Context(), one, rooms.Draft{Sender: anna, Type: "m.room.member", StateKey: ptr(anna), Content: json.RawMessage(`{"membership":"join","displayname":"Anna"}`)}); err != nil {
			t.Fatal(err)
		}
		if types, _ := h.told("there.test"); len(types) != 0 {
			t.Errorf("there.test hears of another name: %q", types)
		}
		if _, err := h.rooms.Append(t.Context(), one, rooms.Draft{Sender: anna, Type: "m.room.member", StateKey: ptr(anna), Content: json.RawMessage(`{"membership":"leave"}`)}); err != nil {
			t.Fatal(err)
		}
		h.join(one, anna)
		if types, _ := h.told("there.test"); len(types) != 1 {
			t.Errorf("there.test hears of who came back: %q", types)
		}
	})
}

func ptr(s string) *string { return &s }

func TestNobodyHearsOfDevicesInARoomOfThisServerAlone(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	h.device(alice, "PHONE", "")
	h.join(create(t, h.rooms, alice), anna)
	list, err := h.st.DeviceListJoins(t.Context(), 10)
	if err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	// A user without any device: nobody can write to him.
	there := elsewhere(t, "there.test")
	enter(t, h.rooms, there, create(t, there, bob), anna)
	if types, _ := h.told("there.test"); len(types) != 0 {
		t.Errorf("there.test hears of %q", types)
	}
	if list, err := h.st.DeviceListJoins(t.Context(), 10); err != nil || len(list) != 0 {
		t.Errorf("what was worked on is still there: %v, %v", list, err)
	}
}

// TestAJoinThatWasNotToldBeforeAStopIsToldAfterIt also has two nodes tell at once.
func TestAJoinThatWasNotToldBeforeAStopIsToldAfterIt(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		there := elsewhere(t, "there.test")
		h.device(alice, "PHONE", `{"keys":{}}`)
		for range 3 {
			enter(t, h.rooms, there, create(t, there, bob), alice)
		}
		// Nothing has worked on it so far. Another start of the same server does, twice.
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		other := *h.Service
		other.devices = make(chan struct{}, 1)
		for _, s := range []*Service{h.Service, &other} {
			go func() { done <- s.Run(ctx) }()
		}
		h.soon("all joins are worked on", func() bool {
			list, err := h.st.DeviceListJoins(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(list) == 0
		})
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		types, _ := h.told("there.test")
		// Once for the joins; the change of devices may have been told before or after them.
		if n := len(types); n < 1 || n > 2 {
			t.Errorf("there.test hears of %q", types)
		}
	})
}

func TestAChangeOfDevicesIsToldOnceToEachServer(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		there := elsewhere(t, "there.test")
		h.sharedRoom(there)
		h.device(alice, "PHONE", `{"keys":{"ed25519:PHONE":"x"}}`)
		types, contents := h.told("there.test")
		if len(types) != 1 || contents[0].Get("device_id").Str != "PHONE" || contents[0].Get("stream_id").Int() == 0 {
			t.Fatalf("%q %v", types, contents)
		}
		if err := h.st.Write(t.Context(), func(tx *storage.Tx) error {
			if _, err := tx.Exec(`DELETE FROM devices WHERE user_id = $1`, alice); err != nil {
				return err
			}
			return tx.ForgetDevice(alice, "PHONE")
		}); err != nil {
			t.Fatal(err)
		}
		types, contents = h.told("there.test")
		if len(types) != 1 || !contents[0].Get("deleted").Bool() || contents[0].Get("keys").Exists() {
			t.Errorf("%q %v", types, contents)
		}
		if types, _ := h.told("nobody.test"); len(types) != 0 {
			t.Errorf("nobody.test hears of %q", types)
		}
	})
}

// TestMoreJoinsThanOneBatch: the rest is worked on without another push.
func TestMoreJoinsThanOneBatch(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	there := elsewhere(t, "there.test")
	id := h.sharedRoom(there)
	r, err := h.rooms.Room(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.st.Write(t.Context(), func(tx *storage.Tx) error {
		for i := range joinBatch + 3 {
			if err := tx.InsertDeviceListJoin(fmt.Sprintf("@user%d:here.test", i), r.NID); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	select { // what the room itself brought
	case <-h.devices:
	default:
	}
	if err := h.tellDevices(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-h.devices
	if err := h.tellDevices(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := h.st.DeviceListJoins(t.Context(), 10); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
