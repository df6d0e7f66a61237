// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// eachKeyHome is a home with rooms, sync and end-to-end encryption, wired as the program does it.
func eachKeyHome(t *testing.T, f func(h *home)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		log := slog.New(slog.DiscardHandler)
		r, err := rooms.New(context.Background(), s, "test", signalling.SystemClock{}, log)
		if err != nil {
			t.Fatal(err)
		}
		keys := e2ee.New(s, "test", log, e2ee.Deps{Rooms: r})
		sync := syncapi.New(syncapi.Deps{Store: s, Rooms: r, Keys: keys, Clock: signalling.SystemClock{}, Log: log})
		s.Observe(sync.Observe)
		h := newHome(t, s, func(_ *accounts.Config, d *Deps) { d.Rooms, d.Sync, d.E2EE = r, sync, keys })
		h.acc.Hook(accounts.Hooks{DeviceDeleted: keys.DeviceDeleted, DeviceRenamed: keys.DeviceRenamed, Logout: keys.ForgetDevice, Deactivate: keys.Deactivate})
		f(h)
	})
}

// signedWith is o with a signature of user's key.
func signedWith(o map[string]any, user, keyID string, key ed25519.PrivateKey) map[string]any {
	raw, _ := json.Marshal(o)
	canonical, err := event.Canonical(raw)
	if err != nil {
		panic(err)
	}
	o["signatures"] = map[string]any{user: map[string]any{keyID: base64.RawStdEncoding.EncodeToString(ed25519.Sign(key, canonical))}}
	return o
}

func newKey() (public string, private ed25519.PrivateKey) {
	pub, private, _ := ed25519.GenerateKey(rand.Reader)
	return base64.RawStdEncoding.EncodeToString(pub), private
}

// uploadBody are device keys and one-time keys 0 to n-1 as a client uploads them.
func uploadBody(user, device string, n int) map[string]any {
	public, key := newKey()
	oneTime := map[string]any{}
	for i := range n {
		curve, _ := newKey()
		oneTime[fmt.Sprintf("signed_curve25519:%d", i)] = signedWith(map[string]any{"key": curve}, user, "ed25519:"+device, key)
	}
	return map[string]any{"one_time_keys": oneTime, "device_keys": signedWith(map[string]any{
		"user_id": user, "device_id": device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"}, "keys": map[string]any{"ed25519:" + device: public},
	}, user, "ed25519:"+device, key)}
}

// sees is what a sync says of end-to-end encryption.
type sees struct {
	Next     string `json:"next_batch"`
	ToDevice struct {
		Events []map[string]any `json:"events"`
	} `json:"to_device"`
	Lists struct {
		Changed []string `json:"changed"`
		Left    []string `json:"left"`
	} `json:"device_lists"`
	Counts   map[string]int `json:"device_one_time_keys_count"`
	Fallback []string       `json:"device_unused_fallback_key_types"`
}

func (h *home) sync(token, since string) (s sees) {
	h.t.Helper()
	a := h.do("GET", "/v3/sync?timeout=5000&since="+url.QueryEscape(since), token, nil).ok()
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func TestKeysGoFromOneDeviceToAnotherThroughSync(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		aliceToken, phone := h.register("alice")
		bobToken, desk := h.register("bob")
		room := h.do("POST", "/v3/createRoom", aliceToken, map[string]any{"preset": "public_chat"}).ok().str("room_id")
		h.do("POST", "/v3/join/"+url.PathEscape(room), bobToken, map[string]any{}).ok()
		alice, bob := h.sync(aliceToken, ""), h.sync(bobToken, "")
		if alice.Counts["signed_curve25519"] != 0 || alice.Fallback == nil {
			t.Errorf("before any keys: %+v", alice)
		}
		start := bob.Next

		up := h.do("POST", "/v3/keys/upload", aliceToken, uploadBody("@alice:test", phone, 3)).ok()
		if diff := cmp.Diff(map[string]any{"signed_curve25519": 3.0}, up.m["one_time_key_counts"]); diff != "" {
			t.Error(diff)
		}
		alice = h.sync(aliceToken, alice.Next)
		if alice.Counts["signed_curve25519"] != 3 {
			t.Errorf("alice: %+v", alice)
		}
		bob = h.sync(bobToken, bob.Next)
		if diff := cmp.Diff([]string{"@alice:test"}, bob.Lists.Changed); diff != "" {
			t.Error(diff)
		}
		changes := h.do("GET", "/v3/keys/changes?from="+url.QueryEscape(start)+"&to="+url.QueryEscape(bob.Next), bobToken, nil).ok()
		if diff := cmp.Diff(map[string]any{"changed": []any{"@alice:test"}, "left": []any{}}, changes.m); diff != "" {
			t.Error(diff)
		}
		h.do("GET", "/v3/keys/changes?from=x&to=y", bobToken, nil).refused(400, "M_INVALID_PARAM")
		h.do("GET", "/v3/keys/changes?from="+start, bobToken, nil).refused(400, "M_MISSING_PARAM")

		q := h.do("POST", "/v3/keys/query", bobToken, map[string]any{"device_keys": map[string]any{"@alice:test": []string{}, "@bob:test": []string{}}}).ok()
		if !strings.Contains(q.body, `"ed25519:`+phone) || !strings.Contains(q.body, `"@bob:test":{}`) {
			t.Errorf("query: %s", q.body)
		}
		h.do("POST", "/v3/keys/query", bobToken, `{"device_keys":{"@alice:test":{"X":true}}}`).refused(400, "M_BAD_JSON")
		c := h.do("POST", "/v3/keys/claim", bobToken, map[string]any{"one_time_keys": map[string]any{"@alice:test": map[string]any{phone: "signed_curve25519"}}}).ok()
		if !strings.Contains(c.body, `"signed_curve25519:0"`) {
			t.Errorf("claim: %s", c.body)
		}
		if alice = h.sync(aliceToken, alice.Next); alice.Counts["signed_curve25519"] != 2 {
			t.Errorf("alice after a claim: %+v", alice)
		}

		content := map[string]any{"x": "1"}
		msg := map[string]any{"messages": map[string]any{"@bob:test": map[string]any{desk: content}}}
		h.do("PUT", "/v3/sendToDevice/m.test/t%2F1", aliceToken, msg).ok()
		h.do("PUT", "/v3/sendToDevice/m.test/t%2F1", aliceToken, msg).ok()
		bob = h.sync(bobToken, bob.Next)
		want := []map[string]any{{"type": "m.test", "sender": "@alice:test", "content": content}}
		if diff := cmp.Diff(want, bob.ToDevice.Events); diff != "" {
			t.Error(diff)
		}
		h.do("PUT", "/v3/sendToDevice/m.test/t2", aliceToken, msg).ok()
		if bob = h.sync(bobToken, bob.Next); len(bob.ToDevice.Events) != 1 {
			t.Errorf("the second message: %+v", bob)
		}

		h.do("PUT", "/v3/devices/"+phone, aliceToken, map[string]any{"display_name": "My phone"}).ok()
		if bob = h.sync(bobToken, bob.Next); len(bob.Lists.Changed) != 1 || len(bob.ToDevice.Events) != 0 {
			t.Errorf("a new name: %+v", bob)
		}
		h.do("POST", "/v3/logout", aliceToken, `{}`).ok()
		if bob = h.sync(bobToken, bob.Next); len(bob.Lists.Changed) != 1 {
			t.Errorf("a device less: %+v", bob)
		}
		if q := h.do("POST", "/v3/keys/query", bobToken, `{"device_keys":{"@alice:test":[]}}`).ok(); strings.Contains(q.body, "ed25519") {
			t.Errorf("query after the log-out: %s", q.body)
		}
	})
}

// A sync that waits gets a message as soon as it is sent.
func TestAWaitingSyncGetsTheMessage(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		aliceToken, _ := h.register("alice")
		bobToken, _ := h.register("bob")
		since := h.sync(bobToken, "").Next
		got := make(chan sees)
		go func() { got <- h.sync(bobToken, since) }()
		h.do("PUT", "/v3/sendToDevice/m.test/1", aliceToken, `{"messages":{"@bob:test":{"*":{"ring":true}}}}`).ok()
		if s := <-got; len(s.ToDevice.Events) != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestCrossSigningKeysAreReplacedWithThePasswordOnly(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		token, _ := h.register("alice")
		bobToken, _ := h.register("bob")
		keys := func() map[string]any {
			master, key := newKey()
			self, _ := newKey()
			return map[string]any{
				"master_key": map[string]any{"user_id": "@alice:test", "usage": []string{"master"}, "keys": map[string]any{"ed25519:" + master: master}},
				"self_signing_key": signedWith(map[string]any{"user_id": "@alice:test", "usage": []string{"self_signing"}, "keys": map[string]any{"ed25519:" + self: self}},
					"@alice:test", "ed25519:"+master, key),
			}
		}
		first, second := keys(), keys()
		const path = "/v3/keys/device_signing/upload"
		h.do("POST", path, bobToken, first).refused(400, "M_INVALID_PARAM")
		h.do("POST", path, token, first).ok()
		h.do("POST", path, token, first).ok()
		session := h.do("POST", path, token, second).challenged("", accounts.StagePassword)
		second["auth"] = map[string]any{"type": "m.login.password", "identifier": map[string]any{"type": "m.id.user", "user": "alice"}, "password": "wrong", "session": session}
		h.do("POST", path, token, second).challenged("M_FORBIDDEN", accounts.StagePassword)
		second["auth"] = passwordAuth("alice", session)
		h.do("POST", path, token, second).ok()
		q := h.do("POST", "/v3/keys/query", bobToken, `{"device_keys":{"@alice:test":[]}}`).ok()
		for id := range second["master_key"].(map[string]any)["keys"].(map[string]any) {
			if !strings.Contains(q.body, id) {
				t.Errorf("query: %s", q.body)
			}
		}
		f := h.do("POST", "/v3/keys/signatures/upload", token, `{"@bob:test":{"X":{}}}`).ok()
		if !strings.Contains(f.body, `"@bob:test":{"X":{"status":404,"errcode":"M_NOT_FOUND"`) {
			t.Errorf("signatures: %s", f.body)
		}
		if f := h.do("POST", "/v3/keys/signatures/upload", token, `{}`).ok(); f.body != `{"failures":{}}` {
			t.Errorf("no signatures: %s", f.body)
		}
	})
}

// Whom somebody verified is nobody else's business, the verified one's included.
func TestOnlyTheOneWhoVerifiedSomebodyHearsOfIt(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		aliceToken, _ := h.register("alice")
		bobToken, _ := h.register("bob")
		carolToken, _ := h.register("carol")
		room := h.do("POST", "/v3/createRoom", aliceToken, map[string]any{"preset": "public_chat"}).ok().str("room_id")
		for _, token := range []string{bobToken, carolToken} {
			h.do("POST", "/v3/join/"+url.PathEscape(room), token, map[string]any{}).ok()
		}
		key := func(user, usage, public string) map[string]any {
			return map[string]any{"user_id": user, "usage": []string{usage}, "keys": map[string]any{"ed25519:" + public: public}}
		}
		master, masterKey := newKey()
		signer, signerKey := newKey()
		bobs, _ := newKey()
		h.do("POST", "/v3/keys/device_signing/upload", aliceToken, map[string]any{
			"master_key": key("@alice:test", "master", master), "user_signing_key": signedWith(key("@alice:test", "user_signing", signer), "@alice:test", "ed25519:"+master, masterKey),
		}).ok()
		h.do("POST", "/v3/keys/device_signing/upload", bobToken, map[string]any{"master_key": key("@bob:test", "master", bobs)}).ok()
		since := map[string]string{}
		for _, token := range []string{aliceToken, bobToken, carolToken} {
			since[token] = h.sync(token, "").Next
		}
		f := h.do("POST", "/v3/keys/signatures/upload", aliceToken, map[string]any{"@bob:test": map[string]any{
			bobs: signedWith(key("@bob:test", "master", bobs), "@alice:test", "ed25519:"+signer, signerKey),
		}}).ok()
		if f.body != `{"failures":{}}` {
			t.Fatal(f.body)
		}
		// Something for everybody, so that every sync answers at once.
		h.do("POST", "/v3/keys/device_signing/upload", carolToken, map[string]any{"master_key": key("@carol:test", "master", base64.RawStdEncoding.EncodeToString(make([]byte, 32)))}).ok()
		for token, want := range map[string][]string{aliceToken: {"@bob:test", "@carol:test"}, bobToken: {"@carol:test"}, carolToken: {"@carol:test"}} {
			live := h.sync(token, since[token]).Lists.Changed
			slices.Sort(live)
			if diff := cmp.Diff(want, live); diff != "" {
				t.Errorf("sync: %s", diff)
			}
			// The same from the store.
			c := h.do("GET", "/v3/keys/changes?to=s0&from="+since[token], token, nil).ok()
			var stored struct{ Changed []string }
			if err := json.Unmarshal([]byte(c.body), &stored); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, stored.Changed); diff != "" {
				t.Errorf("changes: %s", diff)
			}
		}
	})
}

func TestEveryBackupEndpoint(t *testing.T) {
	eachKeyHome(t, func(h *home) {
		token, _ := h.register("alice")
		bobToken, _ := h.register("bob")
		const base = "/v3/room_keys"
		room := url.PathEscape("!a/b:test")
		key := map[string]any{"first_message_index": 1.0, "forwarded_count": 0.0, "is_verified": true, "session_data": map[string]any{"a": "b"}}
		h.do("GET", base+"/version", token, nil).refused(404, "M_NOT_FOUND")
		auth := map[string]any{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": map[string]any{"public_key": "x"}}
		v := h.do("POST", base+"/version", token, auth).ok().str("version")
		want := map[string]any{"algorithm": auth["algorithm"], "auth_data": auth["auth_data"], "count": 0.0, "etag": "0", "version": v}
		for _, path := range []string{"/version", "/version/" + v} {
			if diff := cmp.Diff(want, h.do("GET", base+path, token, nil).ok().m); diff != "" {
				t.Errorf("%s: %s", path, diff)
			}
		}
		auth["auth_data"] = map[string]any{"public_key": "y"}
		h.do("PUT", base+"/version/"+v, token, auth).ok()
		auth["version"] = "7"
		h.do("PUT", base+"/version/"+v, token, auth).refused(400, "M_INVALID_PARAM")

		at := "?version=" + v
		state := func(a answer, count float64, etag string) {
			t.Helper()
			if diff := cmp.Diff(map[string]any{"count": count, "etag": etag}, a.ok().m); diff != "" {
				t.Errorf("%s: %s", a.what, diff)
			}
		}
		state(h.do("PUT", base+"/keys/"+room+"/s%2F1"+at, token, key), 1, "1")
		state(h.do("PUT", base+"/keys/"+room+at, token, map[string]any{"sessions": map[string]any{"s2": key}}), 2, "2")
		state(h.do("PUT", base+"/keys"+at, token, map[string]any{"rooms": map[string]any{"!b:test": map[string]any{"sessions": map[string]any{"s3": key}}}}), 3, "3")
		if diff := cmp.Diff(key, h.do("GET", base+"/keys/"+room+"/s%2F1"+at, token, nil).ok().m); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]any{"sessions": map[string]any{"s/1": key, "s2": key}}, h.do("GET", base+"/keys/"+room+at, token, nil).ok().m); diff != "" {
			t.Error(diff)
		}
		if a := h.do("GET", base+"/keys/!none:test"+at, token, nil).ok(); a.body != `{"sessions":{}}` {
			t.Error(a.body)
		}
		if a := h.do("GET", base+"/keys"+at, token, nil).ok(); len(a.m["rooms"].(map[string]any)) != 2 {
			t.Error(a.body)
		}
		// Another user has nothing under the same names.
		h.do("GET", base+"/keys"+at, bobToken, nil).refused(404, "M_NOT_FOUND")
		h.do("PUT", base+"/keys/"+room+"/s1"+at, bobToken, key).refused(404, "M_NOT_FOUND")
		h.do("DELETE", base+"/keys"+at, bobToken, nil).refused(404, "M_NOT_FOUND")
		h.do("DELETE", base+"/version/"+v, bobToken, nil).refused(404, "M_NOT_FOUND")
		h.do("GET", base+"/keys", token, nil).refused(400, "M_MISSING_PARAM")
		h.do("PUT", base+"/keys/"+room+"/s1"+at, token, `{}`).refused(400, "M_BAD_JSON")

		state(h.do("DELETE", base+"/keys/"+room+"/s2"+at, token, nil), 2, "4")
		state(h.do("DELETE", base+"/keys/"+room+at, token, nil), 1, "5")
		state(h.do("DELETE", base+"/keys"+at, token, nil), 0, "6")

		delete(auth, "version")
		next := h.do("POST", base+"/version", token, auth).ok().str("version")
		if a := h.do("PUT", base+"/keys/"+room+"/s1"+at, token, key).refused(403, "M_WRONG_ROOM_KEYS_VERSION"); a.m["current_version"] != next {
			t.Error(a.body)
		}
		h.do("DELETE", base+"/version/"+next, token, nil).ok()
		h.do("DELETE", base+"/version/"+next, token, nil).ok()
		h.do("DELETE", base+"/version/99", token, nil).refused(404, "M_NOT_FOUND")
		if a := h.do("GET", base+"/version", token, nil).ok(); a.str("version") != v {
			t.Error(a.body)
		}
	})
}
