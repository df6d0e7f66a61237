// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	alice = "@alice:example.org"
	bob   = "@bob:example.org"
	carol = "@carol:example.org"
)

func TestUploadedKeysComeBackSignedAndNamed(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		keys := p.deviceKeys()
		counts := h.mustUpload(p, object{"device_keys": keys, "one_time_keys": p.oneTime(0, 60)})
		if diff := cmp.Diff(map[string]int{"signed_curve25519": 60}, counts); diff != "" {
			t.Error(diff)
		}
		got, err := h.Query(ctx, bob, e2ee.Query{alice: nil, bob: nil})
		h.must(err)
		want := object{}
		for k, v := range keys {
			want[k] = v
		}
		want["unsigned"] = object{"device_display_name": "PHONE of " + alice}
		var a, b any
		h.must(json.Unmarshal(got.DeviceKeys[alice]["PHONE"], &a))
		h.must(json.Unmarshal(encode(want), &b))
		if diff := cmp.Diff(b, a); diff != "" {
			t.Error(diff)
		}
		if k, ok := got.DeviceKeys[bob]; !ok || len(k) != 0 {
			t.Errorf("a user without keys has %v, want an empty object", k)
		}
		one, err := h.Query(ctx, bob, e2ee.Query{alice: {"OTHER"}})
		h.must(err)
		if len(one.DeviceKeys[alice]) != 0 {
			t.Errorf("asked for another device, got %s", one.DeviceKeys[alice])
		}
	})
}

func TestUploadRefusesWhatIsNotTheDevicesOwn(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p, q := h.device(alice, "PHONE"), h.device(bob, "DESK")
		_, err := h.upload(p, object{"device_keys": q.deviceKeys()})
		h.refuses(err, "M_INVALID_PARAM")

		forged := p.deviceKeys()
		forged["algorithms"] = []string{"m.none"}
		_, err = h.upload(p, object{"device_keys": forged})
		h.refuses(err, "M_INVALID_SIGNATURE")

		thief := newPhone(alice, "PHONE")
		mixed := p.deviceKeys()
		mixed["signatures"] = thief.deviceKeys()["signatures"]
		_, err = h.upload(p, object{"device_keys": mixed, "one_time_keys": p.oneTime(0, 1)})
		h.refuses(err, "M_INVALID_SIGNATURE")

		if got := h.query(bob, alice); len(got.DeviceKeys[alice]) != 0 {
			t.Errorf("a refused upload left %v", got.DeviceKeys)
		}
		if c, _, err := h.KeyCounts(ctx, alice, "PHONE"); err != nil || c["signed_curve25519"] != 0 {
			t.Errorf("a refused upload left %v, %v", c, err)
		}

		gone := newPhone(alice, "GONE")
		_, err = h.upload(gone, object{"device_keys": gone.deviceKeys()})
		h.refuses(err, "M_UNKNOWN_TOKEN")
	})
}

func TestUploadRefusesWrongShapesAndSizes(t *testing.T) {
	p := newPhone(alice, "PHONE")
	key := random32()
	without := func(member string) object {
		k := p.deviceKeys()
		delete(k, member)
		return k
	}
	with := func(member string, v any) object {
		k := p.deviceKeys()
		k[member] = v
		return k
	}
	many := object{}
	for i := range e2ee.MaxOneTimeKeys + 1 {
		many[fmt.Sprintf("signed_curve25519:%d", i)] = object{"key": key}
	}
	for name, c := range map[string]struct {
		body any
		code string
	}{
		"a list":                          {[]int{}, "M_BAD_JSON"},
		"null":                            {nil, "M_BAD_JSON"},
		"device keys a list":              {object{"device_keys": []int{}}, "M_BAD_JSON"},
		"no algorithms":                   {object{"device_keys": without("algorithms")}, "M_BAD_JSON"},
		"no keys":                         {object{"device_keys": without("keys")}, "M_BAD_JSON"},
		"no signatures":                   {object{"device_keys": without("signatures")}, "M_BAD_JSON"},
		"no user":                         {object{"device_keys": without("user_id")}, "M_BAD_JSON"},
		"no device":                       {object{"device_keys": without("device_id")}, "M_BAD_JSON"},
		"a short ed25519 key":             {object{"device_keys": with("keys", object{"ed25519:PHONE": "AAAA"})}, "M_BAD_JSON"},
		"a key of another device":         {object{"device_keys": with("keys", object{"ed25519:DESK": key})}, "M_BAD_JSON"},
		"signatures a list":               {object{"device_keys": with("signatures", []int{})}, "M_BAD_JSON"},
		"device keys of 40 kB":            {object{"device_keys": with("x", strings.Repeat("x", 40<<10))}, "M_TOO_LARGE"},
		"a key without an id":             {object{"one_time_keys": object{"signed_curve25519": object{"key": key}}}, "M_BAD_JSON"},
		"a key that is null":              {object{"one_time_keys": object{"signed_curve25519:A": nil}}, "M_BAD_JSON"},
		"a key that is a number":          {object{"one_time_keys": object{"signed_curve25519:A": 1}}, "M_BAD_JSON"},
		"a key without key":               {object{"one_time_keys": object{"signed_curve25519:A": object{}}}, "M_BAD_JSON"},
		"a key that is no curve25519 key": {object{"one_time_keys": object{"signed_curve25519:A": object{"key": "AAAA"}}}, "M_BAD_JSON"},
		"a key of 5 kB":                   {object{"one_time_keys": object{"x:A": object{"key": strings.Repeat("x", 5<<10)}}}, "M_TOO_LARGE"},
		"too many one-time keys":          {object{"one_time_keys": many}, "M_TOO_LARGE"},
		"two fallback keys":               {object{"fallback_keys": object{"signed_curve25519:A": object{"key": key}, "signed_curve25519:B": object{"key": key}}}, "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e2ee.DecodeUpload(encode(c.body))
			(&house{t: t}).refuses(err, c.code)
		})
	}
}

func TestOneTimeKeyIDMeansOneKey(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		keys := p.oneTime(0, 4)
		for range 3 { // the same keys again are no error
			if n := h.mustUpload(p, object{"one_time_keys": keys})["signed_curve25519"]; n != 4 {
				t.Fatalf("%d keys, want 4", n)
			}
		}
		overlap := p.oneTime(4, 1)
		overlap["signed_curve25519:0003"] = keys["signed_curve25519:0003"]
		if n := h.mustUpload(p, object{"one_time_keys": overlap})["signed_curve25519"]; n != 5 {
			t.Fatalf("%d keys, want 5", n)
		}
		other := p.oneTime(4, 2) // 4 exists, with another key
		_, err := h.upload(p, object{"one_time_keys": other})
		h.refuses(err, "M_INVALID_PARAM")
		if n := h.mustUpload(p, object{})["signed_curve25519"]; n != 5 {
			t.Fatalf("the refused upload left %d keys, want 5", n)
		}
	})
}

func TestADeviceMayNotFillTheServer(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"one_time_keys": p.oneTime(0, e2ee.MaxOneTimeKeys)})
		_, err := h.upload(p, object{"one_time_keys": p.oneTime(e2ee.MaxOneTimeKeys, 1)})
		h.refuses(err, "M_TOO_LARGE")
		fallback := func(first, n int) object {
			out := object{}
			for i := range n {
				out[fmt.Sprintf("alg%d:A", first+i)] = random32()
			}
			return out
		}
		h.mustUpload(p, object{"fallback_keys": fallback(0, e2ee.MaxFallbackKeys)})
		_, err = h.upload(p, object{"fallback_keys": fallback(e2ee.MaxFallbackKeys, 1)})
		h.refuses(err, "M_TOO_LARGE")
	})
}

func TestAnotherIdentityTakesTheOldOneTimeKeysWithIt(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys(), "one_time_keys": p.oneTime(0, 5), "fallback_keys": p.oneTime(90, 1)})
		from := h.store.Pos()
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		if got := h.changed(alice, &from); len(got) != 0 {
			t.Errorf("the same keys again changed %v", got)
		}
		again := newPhone(alice, "PHONE")
		counts := h.mustUpload(again, object{"device_keys": again.deviceKeys(), "one_time_keys": again.oneTime(0, 2)})
		if diff := cmp.Diff(map[string]int{"signed_curve25519": 2}, counts); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{alice}, h.changed(alice, &from)); diff != "" {
			t.Error(diff)
		}
		got := h.query(alice, alice).DeviceKeys[alice]["PHONE"]
		if got.Keys["ed25519:PHONE"] != public(again.key) || len(got.Signatures[alice]) != 1 {
			t.Errorf("got %+v", got)
		}
		_, fallback, err := h.KeyCounts(ctx, alice, "PHONE")
		h.must(err)
		if len(fallback) != 0 {
			t.Errorf("fallback keys of the old identity remain: %v", fallback)
		}
	})
}

func TestEachChangeOfADeviceListIsSeenOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		var at, late int64
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		if diff := cmp.Diff([]string{alice}, h.changed(bob, &at)); diff != "" {
			t.Error(diff)
		}
		between := h.store.Pos()
		if got := h.changed(bob, &at); len(got) != 0 {
			t.Errorf("seen twice: %v", got)
		}
		q := h.device(carol, "DESK")
		h.mustUpload(q, object{"device_keys": q.deviceKeys()})
		h.logout(alice, "PHONE")
		if diff := cmp.Diff([]string{alice, carol}, h.changed(bob, &at)); diff != "" {
			t.Errorf("after the device went: %s", diff)
		}
		if got := h.query(bob, alice); len(got.DeviceKeys[alice]) != 0 {
			t.Errorf("keys of a deleted device: %v", got.DeviceKeys)
		}
		if got, err := h.DeviceListsChanged(ctx, bob, 0, between); err != nil || len(got) != 0 {
			t.Errorf("alice changed again after that, yet: %v, %v", got, err)
		}
		if diff := cmp.Diff([]string{alice, carol}, h.changed(bob, &late)); diff != "" {
			t.Errorf("who was away: %s", diff)
		}
		h.login(alice, "NOKEYS", "")
		h.logout(alice, "NOKEYS")
		if got := h.changed(bob, &at); len(got) != 0 {
			t.Errorf("a device without keys is nothing to others, yet: %v", got)
		}
		h.login(alice, "NOKEYS", "")
		h.must(h.store.Write(ctx, func(tx *storage.Tx) error {
			return errors.Join(h.DeviceRenamed(tx, carol, "DESK"), h.DeviceRenamed(tx, alice, "NOKEYS"))
		}))
		if diff := cmp.Diff([]string{carol}, h.changed(bob, &at)); diff != "" {
			t.Errorf("another display name: %s", diff)
		}
	})
}

func TestChangedDeviceListsReachThoseWhoShareARoom(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		const dora = "@dora:example.org"
		h.rooms[dora] = 2
		var aliceAt, bobAt, doraAt int64
		for i := range 10 {
			u := fmt.Sprintf("@u%02d:example.org", i)
			h.rooms[u] = 1 + i%2
			d := h.device(u, "D")
			h.mustUpload(d, object{"device_keys": d.deviceKeys()})
		}
		if got := h.changed(bob, &bobAt); len(got) != 5 {
			t.Errorf("bob hears of %v, want the 5 with whom he shares a room", got)
		}
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		if diff := cmp.Diff([]string{alice}, h.changed(bob, &bobAt)); diff != "" {
			t.Error(diff)
		}
		for i := range 40 { // a crowd
			u := fmt.Sprintf("@v%02d:example.org", i)
			h.rooms[u] = 1 + i%2
			d := h.device(u, "D")
			h.mustUpload(d, object{"device_keys": d.deviceKeys()})
		}
		if got := h.changed(bob, &bobAt); len(got) != 20 {
			t.Errorf("bob hears of %d, want 20", len(got))
		}
		if got := h.changed(dora, &doraAt); len(got) != 25 || slices.Contains(got, alice) {
			t.Errorf("dora hears of %v", got)
		}
		if got := h.changed(alice, &aliceAt); len(got) != 26 || !slices.Contains(got, alice) {
			t.Errorf("alice hears of %v, want herself too", got)
		}
	})
}

func TestANewDeviceUnderAnOldIDStartsEmpty(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys(), "one_time_keys": p.oneTime(0, 5), "fallback_keys": p.oneTime(90, 1)})
		if c, _, err := h.KeyCounts(ctx, alice, "PHONE"); err != nil || c["signed_curve25519"] != 5 {
			t.Fatalf("%v, %v", c, err)
		}
		h.must(h.SendToDevice(ctx, bob, "DESK", "m.test", "1", e2ee.Messages{alice: {"PHONE": json.RawMessage(`{}`)}}))
		h.logout(alice, "PHONE")
		h.login(alice, "PHONE", "")
		if name, _ := h.claim(alice, "PHONE"); name != "" {
			t.Errorf("claimed %s", name)
		}
		h.counts(alice, "PHONE", 0)
		got, _, err := h.ToDevice(ctx, alice, "PHONE", 0, h.store.Pos(), 10)
		h.must(err)
		if len(got) != 0 {
			t.Errorf("messages for the old device: %v", got)
		}
	})
}

func TestForgottenUsersLeaveNothing(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		c := newCross(alice)
		h.must(h.uploadCross(c, false))
		_, err := h.CreateBackup(ctx, alice, &e2ee.BackupAuth{Algorithm: "a", AuthData: "{}"})
		h.must(err)
		h.must(h.Deactivate(ctx, alice, false))
		if got := h.query(alice, alice); len(got.MasterKeys)+len(got.SelfSigningKeys)+len(got.UserSigningKeys) != 0 {
			t.Errorf("got %+v", got)
		}
		_, err = h.BackupInfo(ctx, alice, "")
		h.refuses(err, "M_NOT_FOUND")
	})
}
