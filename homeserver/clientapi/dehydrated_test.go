// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

const dehydrated = "/unstable/org.matrix.msc3814.v1/dehydrated_device"

func dehydratedBody(user, device string) map[string]any {
	body := uploadBody(user, device, 2)
	body["device_id"], body["initial_device_display_name"] = device, "asleep"
	body["device_data"] = map[string]any{"algorithm": "m.dehydration.v2", "device_pickle": "sealed", "nonce": "n"}
	return body
}

func TestADehydratedDeviceKeepsMessagesUntilItIsReplaced(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		alice, _ := h.register("alice")
		bob, _ := h.register("bob")
		room := h.do("POST", "/v3/createRoom", alice, map[string]any{"preset": "public_chat"}).ok().str("room_id")
		h.do("POST", "/v3/join/"+esc(room), bob, `{}`).ok()
		before := h.sync(bob, "").Next
		h.do("GET", dehydrated, alice, nil).refused(404, "M_NOT_FOUND")
		h.do("DELETE", dehydrated, alice, nil).refused(404, "M_NOT_FOUND")
		if a := h.do("PUT", dehydrated, alice, dehydratedBody("@alice:test", "SLEEPER")).ok(); a.str("device_id") != "SLEEPER" {
			t.Error(a.body)
		}
		got := h.do("GET", dehydrated, alice, nil).ok()
		if gjson.Get(got.body, "device_data.device_pickle").Str != "sealed" || got.str("device_id") != "SLEEPER" {
			t.Error(got.body)
		}
		if s := h.sync(bob, before); len(s.Lists.Changed) != 1 || s.Lists.Changed[0] != "@alice:test" {
			t.Errorf("bob does not hear of the device: %+v", s.Lists)
		}
		keys := h.do("POST", "/v3/keys/query", bob, `{"device_keys":{"@alice:test":[]}}`).ok()
		if !gjson.Get(keys.body, "device_keys.@alice:test.SLEEPER.keys").Exists() {
			t.Error(keys.body)
		}
		claim := h.do("POST", "/v3/keys/claim", bob, `{"one_time_keys":{"@alice:test":{"SLEEPER":"signed_curve25519"}}}`).ok()
		if !gjson.Get(claim.body, "one_time_keys.@alice:test.SLEEPER").Exists() {
			t.Error(claim.body)
		}

		const n = 130
		for i := range n {
			h.do("PUT", fmt.Sprintf("/v3/sendToDevice/m.room.encrypted/%d", i), bob, map[string]any{"messages": map[string]any{"@alice:test": map[string]any{"SLEEPER": map[string]int{"n": i}}}}).ok()
		}
		read := func(method string) {
			t.Helper()
			next, seen := "", 0
			for range 5 {
				var a answer
				if method == "POST" {
					a = h.do("POST", dehydrated+"/SLEEPER/events", alice, map[string]string{"next_batch": next}).ok()
				} else {
					a = h.do("GET", dehydrated+"/SLEEPER/events?next_batch="+next, alice, nil).ok()
				}
				events := gjson.Get(a.body, "events").Array()
				for _, e := range events {
					if e.Get("content.n").Int() != int64(seen) || e.Get("sender").Str != "@bob:test" {
						t.Fatalf("message %d is %s", seen, e.Raw)
					}
					seen++
				}
				if next = a.str("next_batch"); len(events) == 0 {
					break
				}
			}
			if seen != n {
				t.Errorf("%s: %d of %d messages", method, seen, n)
			}
		}
		read("POST")
		read("POST") // again: whoever reads may be interrupted
		read("GET")
		h.do("POST", dehydrated+"/OTHER/events", alice, `{}`).refused(403, "M_FORBIDDEN")
		h.do("POST", dehydrated+"/SLEEPER/events", bob, `{}`).refused(403, "M_FORBIDDEN")
		h.do("POST", dehydrated+"/SLEEPER/events", alice, `{"next_batch":"x"}`).refused(400, "M_INVALID_PARAM")
		h.do("POST", dehydrated+"/SLEEPER/events", alice, `{"next_batch":"-1"}`).refused(400, "M_INVALID_PARAM")

		// The next one takes its place.
		h.do("PUT", dehydrated, alice, dehydratedBody("@alice:test", "SECOND")).ok()
		h.do("POST", dehydrated+"/SLEEPER/events", alice, `{}`).refused(403, "M_FORBIDDEN")
		h.do("GET", "/v3/devices/SLEEPER", alice, nil).refused(404, "M_NOT_FOUND")
		if d := h.do("GET", "/v3/devices/SECOND", alice, nil).ok(); d.str("display_name") != "asleep" {
			t.Error(d.body)
		}
		if a := h.do("DELETE", dehydrated, alice, nil).ok(); a.str("device_id") != "SECOND" {
			t.Error(a.body)
		}
		h.do("GET", dehydrated, alice, nil).refused(404, "M_NOT_FOUND")
		keys = h.do("POST", "/v3/keys/query", bob, `{"device_keys":{"@alice:test":[]}}`).ok()
		if gjson.Get(keys.body, "device_keys.@alice:test.SECOND").Exists() {
			t.Error(keys.body)
		}
		// It goes with the others too.
		h.do("PUT", dehydrated, alice, dehydratedBody("@alice:test", "THIRD")).ok()
		h.do("POST", "/v3/delete_devices", alice, map[string]any{"devices": []string{"THIRD"}, "auth": passwordAuth("alice", "")}).ok()
		h.do("GET", dehydrated, alice, nil).refused(404, "M_NOT_FOUND")
		if !gjson.Get(h.do("GET", "/_matrix/client/versions", "", nil).ok().body, `unstable_features.org\.matrix\.msc3814`).Bool() {
			t.Error("it is not advertised")
		}
	})
}

func TestADehydratedDeviceThatIsWrongChangesNothing(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		alice, phone := h.register("alice")
		h.do("PUT", dehydrated, alice, dehydratedBody("@alice:test", "GOOD")).ok()
		change := func(f func(b map[string]any)) map[string]any {
			b := dehydratedBody("@alice:test", "BAD")
			f(b)
			return b
		}
		for what, c := range map[string]struct {
			body   any
			status int
			code   string
		}{
			"nothing":              {`{}`, 400, "M_MISSING_PARAM"},
			"no keys":              {change(func(b map[string]any) { delete(b, "device_keys") }), 400, "M_MISSING_PARAM"},
			"no data":              {change(func(b map[string]any) { b["device_data"] = nil }), 400, "M_MISSING_PARAM"},
			"data that is none":    {change(func(b map[string]any) { b["device_data"] = "x" }), 400, "M_INVALID_PARAM"},
			"data of no algorithm": {change(func(b map[string]any) { b["device_data"] = map[string]string{} }), 400, "M_INVALID_PARAM"},
			"too much data": {change(func(b map[string]any) {
				b["device_data"] = map[string]string{"algorithm": "x", "p": strings.Repeat("p", 70000)}
			}), 413, "M_TOO_LARGE"},
			"an empty id":            {change(func(b map[string]any) { b["device_id"] = "" }), 400, "M_INVALID_PARAM"},
			"a long id":              {change(func(b map[string]any) { b["device_id"] = strings.Repeat("d", 300) }), 400, "M_INVALID_PARAM"},
			"keys of another":        {change(func(b map[string]any) { b["device_keys"] = uploadBody("@bob:test", "BAD", 0)["device_keys"] }), 400, "M_INVALID_PARAM"},
			"keys of another device": {change(func(b map[string]any) { b["device_keys"] = uploadBody("@alice:test", "ELSE", 0)["device_keys"] }), 400, "M_INVALID_PARAM"},
			"a forged signature": {change(func(b map[string]any) {
				b["device_keys"].(map[string]any)["signatures"] = dehydratedBody("@alice:test", "BAD")["device_keys"].(map[string]any)["signatures"]
			}), 400, "M_INVALID_SIGNATURE"},
			"the device of a session": {dehydratedBody("@alice:test", phone), 400, "M_INVALID_PARAM"},
		} {
			a := h.do("PUT", dehydrated, alice, c.body)
			if a.status != c.status || a.str("errcode") != c.code {
				t.Errorf("%s: %d %s", what, a.status, a.body)
			}
		}
		if a := h.do("GET", dehydrated, alice, nil).ok(); a.str("device_id") != "GOOD" {
			t.Error(a.body)
		}
		h.do("GET", "/v3/devices/BAD", alice, nil).refused(404, "M_NOT_FOUND")
		h.do("GET", "/v3/account/whoami", alice, nil).ok()
	})
}
