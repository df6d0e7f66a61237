// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"encoding/json"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

// tolerates fails when an error is not a refusal, or a failure of ours.
func tolerates(t *testing.T, err error) {
	t.Helper()
	if err != nil && signalling.AsError(err).Status >= 500 {
		t.Fatal(err)
	}
}

func FuzzUpload(f *testing.F) {
	p := newPhone(alice, "PHONE")
	f.Add(encode(object{"device_keys": p.deviceKeys(), "one_time_keys": p.oneTime(0, 2), "fallback_keys": p.oneTime(9, 1)}))
	f.Add([]byte(`{"one_time_keys":{"curve25519:A":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`))
	f.Add([]byte(`{"device_keys":{"user_id":"@alice:example.org","device_id":"PHONE","algorithms":[],"keys":{},"signatures":{}}}`))
	f.Add([]byte(`{"fallback_keys":{"a:b":{"key":"x","signatures":{"@a:b":{"c":"d"}},"fallback":true}}}`))
	h := open(f, storagetest.Open(f, storagetest.SQLiteURL(f)))
	h.login(alice, "PHONE", "")
	f.Fuzz(func(t *testing.T, body []byte) {
		u, err := e2ee.DecodeUpload(body)
		tolerates(t, err)
		if err != nil {
			return
		}
		_, err = h.Upload(ctx, alice, "PHONE", u)
		tolerates(t, err)
		got, err := h.Query(ctx, alice, e2ee.Query{alice: nil})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(got); err != nil || !json.Valid(b) {
			t.Fatalf("%s, %v", b, err)
		}
	})
}

func FuzzClaim(f *testing.F) {
	f.Add([]byte(`{"one_time_keys":{"@alice:example.org":{"PHONE":"signed_curve25519"}}}`))
	f.Add([]byte(`{"one_time_keys":{"@dora:other.org":{"PHONE":"signed_curve25519"}},"timeout":1}`))
	h := open(f, storagetest.Open(f, storagetest.SQLiteURL(f)))
	p := h.device(alice, "PHONE")
	h.mustUpload(p, object{"fallback_keys": p.oneTime(0, 1)})
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := e2ee.DecodeClaims(body)
		tolerates(t, err)
		if err != nil {
			return
		}
		got, err := h.Claim(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(got); err != nil || !json.Valid(b) {
			t.Fatalf("%s, %v", b, err)
		}
	})
}

func FuzzSendToDevice(f *testing.F) {
	f.Add([]byte(`{"messages":{"@alice:example.org":{"*":{"a":1},"PHONE":{"b":"\u0000"}}}}`), "m.test", "1")
	f.Add([]byte(`{"messages":{"@dora:other.org":{"X":{}}}}`), "m.\"", "\\")
	h := open(f, storagetest.Open(f, storagetest.SQLiteURL(f)))
	h.login(alice, "PHONE", "")
	f.Fuzz(func(t *testing.T, body []byte, typ, txn string) {
		m, err := e2ee.DecodeMessages(body)
		tolerates(t, err)
		if err != nil {
			return
		}
		from := h.store.Pos()
		tolerates(t, h.SendToDevice(ctx, bob, "DESK", typ, txn, m))
		got, last, err := h.ToDevice(ctx, alice, "PHONE", from, h.store.Pos(), 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range got {
			var v struct {
				Type    string         `json:"type"`
				Sender  string         `json:"sender"`
				Content map[string]any `json:"content"`
			}
			if err := json.Unmarshal(ev, &v); err != nil || v.Sender != bob || v.Content == nil {
				t.Fatalf("%s, %v", ev, err)
			}
		}
		if err := h.DeleteToDevice(ctx, alice, "PHONE", last); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzSignaturesAndBackup(f *testing.F) {
	c := newCross(alice)
	p := newPhone(alice, "PHONE")
	f.Add(encode(c.body()))
	f.Add(encode(object{alice: object{"PHONE": sign(p.deviceKeys(), alice, keyID(c.self), c.self)}}))
	f.Add(encode(object{"rooms": object{roomA: object{"sessions": object{"s": backupKey(true, 0, 0, "x")}}}}))
	f.Add(encode(object{"algorithm": "a", "auth_data": object{}}))
	h := open(f, storagetest.Open(f, storagetest.SQLiteURL(f)))
	h.login(alice, "PHONE", "")
	h.mustUpload(p, object{"device_keys": p.deviceKeys()})
	h.must(h.uploadCross(c, false))
	version, err := h.CreateBackup(ctx, alice, &e2ee.BackupAuth{Algorithm: "a", AuthData: "{}"})
	h.must(err)
	f.Fuzz(func(t *testing.T, body []byte) {
		if k, err := e2ee.DecodeSignedKeys(body); err == nil {
			_, err := h.UploadSignatures(ctx, alice, k)
			tolerates(t, err)
		} else {
			tolerates(t, err)
		}
		_, err := e2ee.DecodeCrossSigning(body)
		tolerates(t, err)
		_, err = e2ee.DecodeBackupAuth(body)
		tolerates(t, err)
		for _, path := range [][2]string{{"", ""}, {roomA, ""}, {roomA, "s"}} {
			var keys []storage.BackupSession
			if keys, err = e2ee.DecodeBackup(body, path[0], path[1]); err == nil {
				_, err = h.PutBackupKeys(ctx, alice, version, keys)
			}
			tolerates(t, err)
		}
	})
}
