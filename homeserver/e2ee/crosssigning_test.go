// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
)

// cross are the cross-signing keys of a user.
type cross struct {
	user                    string
	master, self, userSigns ed25519.PrivateKey
}

func newCross(user string) *cross {
	c := &cross{user: user}
	for _, k := range []*ed25519.PrivateKey{&c.master, &c.self, &c.userSigns} {
		_, *k, _ = ed25519.GenerateKey(rand.Reader)
	}
	return c
}

func keyID(k ed25519.PrivateKey) string { return "ed25519:" + public(k) }

func (c *cross) key(usage string, k ed25519.PrivateKey) object {
	o := object{"user_id": c.user, "usage": []string{usage}, "keys": object{keyID(k): public(k)}}
	if usage == "master" {
		return o
	}
	return sign(o, c.user, keyID(c.master), c.master)
}

func (c *cross) body() object {
	return object{"master_key": c.key("master", c.master), "self_signing_key": c.key("self_signing", c.self), "user_signing_key": c.key("user_signing", c.userSigns)}
}

func (h *house) uploadCrossBody(user string, body object, authenticated bool) error {
	c, err := e2ee.DecodeCrossSigning(encode(body))
	if err != nil {
		return err
	}
	return h.UploadCrossSigning(ctx, user, c, authenticated)
}

func (h *house) uploadCross(c *cross, authenticated bool) error {
	return h.uploadCrossBody(c.user, c.body(), authenticated)
}

func (h *house) uploadSignatures(user string, body object) map[string]map[string]e2ee.Failure {
	h.t.Helper()
	k, err := e2ee.DecodeSignedKeys(encode(body))
	h.must(err)
	failures, err := h.UploadSignatures(ctx, user, k)
	h.must(err)
	return failures
}

func TestCrossSigningKeysNeedAuthenticationOnlyToReplaceOthers(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		first, second := newCross(alice), newCross(alice)
		h.must(h.uploadCross(first, false))
		h.must(h.uploadCross(first, false)) // the answer was lost on the way
		if err := h.uploadCross(second, false); !errors.Is(err, e2ee.ErrNeedsAuth) {
			t.Fatalf("got %v, want ErrNeedsAuth", err)
		}
		other := newCross(alice)
		other.master = first.master
		if err := h.uploadCrossBody(alice, object{"user_signing_key": other.key("user_signing", other.userSigns)}, false); !errors.Is(err, e2ee.ErrNeedsAuth) {
			t.Fatalf("got %v, want ErrNeedsAuth", err)
		}
		got := h.query(alice, alice)
		if got.MasterKeys[alice].Keys[keyID(first.master)] == "" || got.SelfSigningKeys[alice].Keys[keyID(first.self)] == "" || got.UserSigningKeys[alice].Keys[keyID(first.userSigns)] == "" {
			t.Errorf("got %+v", got)
		}
		if got := h.query(bob, alice); len(got.MasterKeys) != 1 || len(got.SelfSigningKeys) != 1 || len(got.UserSigningKeys) != 0 {
			t.Errorf("bob sees %+v", got)
		}
		h.must(h.uploadCrossBody(alice, object{"master_key": second.key("master", second.master)}, true))
		if got := h.query(alice, alice); got.MasterKeys[alice].Keys[keyID(second.master)] == "" || len(got.SelfSigningKeys) != 0 || len(got.UserSigningKeys) != 0 {
			t.Errorf("after a new master key alone: %+v", got)
		}
		h.must(h.uploadCross(second, true))
		if got := h.query(alice, alice); len(got.SelfSigningKeys) != 1 || len(got.UserSigningKeys) != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

// Two first uploads at once, both without authentication: one of them wins, the other is asked to authenticate.
func TestOfTwoFirstUploadsOneWins(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		var wg sync.WaitGroup
		results := make([]error, 8)
		for i := range results {
			wg.Go(func() { results[i] = h.uploadCross(newCross(alice), false) })
		}
		wg.Wait()
		won := 0
		for _, err := range results {
			if err == nil {
				won++
			} else if !errors.Is(err, e2ee.ErrNeedsAuth) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d uploads succeeded", won)
		}
	})
}

func TestCrossSigningRefusesBadKeys(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		c := newCross(alice)
		body := func(change func(object)) object {
			b := c.body()
			change(b)
			return b
		}
		for name, v := range map[string]struct {
			body object
			code string
		}{
			"another user":             {newCross(bob).body(), "M_INVALID_PARAM"},
			"no master":                {object{"self_signing_key": c.key("self_signing", c.self)}, "M_MISSING_PARAM"},
			"not signed":               {body(func(b object) { delete(b["user_signing_key"].(object), "signatures") }), "M_INVALID_SIGNATURE"},
			"signed by another master": {body(func(b object) { b["self_signing_key"] = newCross(alice).key("self_signing", c.self) }), "M_INVALID_SIGNATURE"},
			"changed after signing":    {body(func(b object) { b["self_signing_key"].(object)["usage"] = []string{"self_signing", "x"} }), "M_INVALID_SIGNATURE"},
			"wrong usage":              {body(func(b object) { b["master_key"] = c.key("self_signing", c.master) }), "M_INVALID_PARAM"},
			"two keys":                 {body(func(b object) { b["master_key"].(object)["keys"].(object)[keyID(c.self)] = public(c.self) }), "M_INVALID_PARAM"},
			"name is not the key":      {body(func(b object) { b["master_key"].(object)["keys"] = object{"ed25519:x": public(c.master)} }), "M_INVALID_PARAM"},
			"one key twice":            {body(func(b object) { b["user_signing_key"] = c.key("user_signing", c.master) }), "M_INVALID_PARAM"},
			"40 kB":                    {body(func(b object) { b["master_key"].(object)["x"] = strings.Repeat("x", 40<<10) }), "M_TOO_LARGE"},
		} {
			h.refuses(h.uploadCrossBody(alice, v.body, true), v.code)
			if got := h.query(alice, alice); len(got.MasterKeys)+len(got.SelfSigningKeys)+len(got.UserSigningKeys) != 0 {
				t.Errorf("%s: left %+v", name, got)
			}
		}
		h.login(alice, public(c.self), "a device named like a key")
		h.refuses(h.uploadCross(c, true), "M_FORBIDDEN")
		p := newPhone(alice, public(c.master))
		c2 := newCross(alice)
		c2.master = c.master
		h.must(h.uploadCross(c2, true))
		h.login(alice, p.id, "")
		_, err := h.upload(p, object{"device_keys": p.deviceKeys()})
		h.refuses(err, "M_FORBIDDEN")
	})
}

func TestSignaturesAreVerifiedAndShownToThoseWhoMaySee(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		a, b := newCross(alice), newCross(bob)
		h.must(h.uploadCross(a, false))
		h.must(h.uploadCross(b, false))
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		bobs := h.device(bob, "DESK")
		h.mustUpload(bobs, object{"device_keys": bobs.deviceKeys()})

		var aliceAt, bobAt, carolAt int64
		for who, at := range map[string]*int64{alice: &aliceAt, bob: &bobAt, carol: &carolAt} {
			h.changed(who, at)
		}
		device := sign(p.deviceKeys(), alice, keyID(a.self), a.self)
		master := sign(a.key("master", a.master), alice, "ed25519:PHONE", p.key)
		bobsMaster := sign(b.key("master", b.master), alice, keyID(a.userSigns), a.userSigns)
		failures := h.uploadSignatures(alice, object{
			alice: object{"PHONE": device, public(a.master): master},
			bob:   object{public(b.master): bobsMaster},
		})
		if len(failures) != 0 {
			t.Fatalf("failures: %v", failures)
		}
		signers := func(k signedKey, user string) (n int) { return len(k.Signatures[user]) }
		got := h.query(alice, alice, bob)
		if k := got.DeviceKeys[alice]["PHONE"]; signers(k, alice) != 2 || k.Signatures[alice][keyID(a.self)] == "" {
			t.Errorf("device: %+v", k)
		}
		if k := got.MasterKeys[alice]; k.Signatures[alice]["ed25519:PHONE"] == "" {
			t.Errorf("master: %+v", k)
		}
		if k := got.MasterKeys[bob]; k.Signatures[alice][keyID(a.userSigns)] == "" {
			t.Errorf("bob's master as alice sees it: %+v", k)
		}
		for _, viewer := range []string{bob, carol} {
			got := h.query(viewer, alice, bob)
			if k := got.DeviceKeys[alice]["PHONE"]; k.Signatures[alice][keyID(a.self)] == "" {
				t.Errorf("%s does not see alice's signature on her device: %+v", viewer, k)
			}
			if k := got.MasterKeys[bob]; signers(k, alice) != 0 {
				t.Errorf("%s sees whom alice verified: %+v", viewer, k)
			}
		}
		for who, want := range map[string][]string{alice: {alice, bob}, bob: {alice}, carol: {alice}} {
			at := map[string]*int64{alice: &aliceAt, bob: &bobAt, carol: &carolAt}[who]
			if diff := cmp.Diff(want, h.changed(who, at)); diff != "" {
				t.Errorf("%s: %s", who, diff)
			}
		}
		// The same once more changes nothing.
		if f := h.uploadSignatures(alice, object{alice: object{"PHONE": device}}); len(f) != 0 {
			t.Error(f)
		}
		if got := h.changed(carol, &carolAt); len(got) != 0 {
			t.Errorf("changed %v", got)
		}
		// A replaced self-signing key takes its signatures with it.
		next := *a
		_, next.self, _ = ed25519.GenerateKey(rand.Reader)
		h.must(h.uploadCrossBody(alice, object{"self_signing_key": next.key("self_signing", next.self)}, true))
		if k := h.query(alice, alice).DeviceKeys[alice]["PHONE"]; signers(k, alice) != 1 {
			t.Errorf("after a new self-signing key: %+v", k)
		}
	})
}

func TestForgedSignaturesAreFailures(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		a, b := newCross(alice), newCross(bob)
		h.must(h.uploadCross(a, false))
		h.must(h.uploadCross(b, false))
		p, q := h.device(alice, "PHONE"), h.device(bob, "DESK")
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		h.mustUpload(q, object{"device_keys": q.deviceKeys()})
		thief := newCross(alice)

		changed := p.deviceKeys()
		changed["algorithms"] = []string{}
		wrongName := sign(p.deviceKeys(), alice, keyID(a.self), thief.self) // claims to be the self-signing key
		for name, v := range map[string]struct {
			user, id string
			key      object
			code     string
		}{
			"wrong signature":          {alice, "PHONE", wrongName, "M_INVALID_SIGNATURE"},
			"a key that is not mine":   {alice, "PHONE", sign(p.deviceKeys(), alice, keyID(thief.self), thief.self), "M_INVALID_SIGNATURE"},
			"device by user-signing":   {alice, "PHONE", sign(p.deviceKeys(), alice, keyID(a.userSigns), a.userSigns), "M_INVALID_SIGNATURE"},
			"no signature of mine":     {alice, "PHONE", p.deviceKeys(), "M_INVALID_SIGNATURE"},
			"in the name of bob":       {bob, public(b.master), sign(b.key("master", b.master), bob, "ed25519:DESK", q.key), "M_INVALID_SIGNATURE"},
			"bob's device":             {bob, "DESK", sign(q.deviceKeys(), alice, keyID(a.userSigns), a.userSigns), "M_NOT_FOUND"},
			"bob's by self-signing":    {bob, public(b.master), sign(b.key("master", b.master), alice, keyID(a.self), a.self), "M_INVALID_SIGNATURE"},
			"bob's self-signing key":   {bob, public(b.self), sign(b.key("self_signing", b.self), alice, keyID(a.userSigns), a.userSigns), "M_NOT_FOUND"},
			"another object":           {alice, "PHONE", sign(changed, alice, keyID(a.self), a.self), "M_INVALID_PARAM"},
			"a device that is not":     {alice, "NONE", sign(newPhone(alice, "NONE").deviceKeys(), alice, keyID(a.self), a.self), "M_NOT_FOUND"},
			"a user of another server": {"@x:other.org", "X", sign(object{"user_id": "@x:other.org"}, alice, keyID(a.userSigns), a.userSigns), "M_NOT_FOUND"},
		} {
			good := sign(a.key("master", a.master), alice, "ed25519:PHONE", p.key)
			f := h.uploadSignatures(alice, object{v.user: object{v.id: v.key}})
			if f[v.user][v.id].Code != v.code {
				t.Errorf("%s: %+v, want %s", name, f, v.code)
			}
			// A bad one does not hold up a good one.
			both := object{v.user: object{v.id: v.key}}
			if v.user == alice {
				both[alice].(object)[public(a.master)] = good
			} else {
				both[alice] = object{public(a.master): good}
			}
			if f := h.uploadSignatures(alice, both); len(f) != 1 || len(f[v.user]) != 1 {
				t.Errorf("%s and a good one: %+v", name, f)
			}
		}
		got := h.query(alice, alice, bob)
		if n := len(got.DeviceKeys[alice]["PHONE"].Signatures[alice]); n != 1 {
			t.Errorf("%d signatures on the device, want its own", n)
		}
		if len(got.MasterKeys[bob].Signatures) != 0 {
			t.Errorf("bob's master key: %+v", got.MasterKeys[bob])
		}
		if got.MasterKeys[alice].Signatures[alice]["ed25519:PHONE"] == "" {
			t.Errorf("the good signature is missing: %+v", got.MasterKeys[alice])
		}
	})
}

func TestSignedKeysOfTheWrongShapeAreRefused(t *testing.T) {
	for _, body := range []string{`[]`, `null`, `{"@a:x":1}`, `{"x":{}}`, `{"@a:x":{"":{}}}`} {
		if _, err := e2ee.DecodeSignedKeys([]byte(body)); err == nil {
			t.Errorf("%s was accepted", body)
		}
	}
	k, err := e2ee.DecodeSignedKeys([]byte(`{"@a:x":{"D":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if string(k["@a:x"]["D"]) != string(json.RawMessage(`[]`)) {
		t.Errorf("got %s", k)
	}
}
