// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/signalling"
)

const roomA, roomB = "!a:example.org", "!b:example.org"

func (h *house) newBackup() string {
	h.t.Helper()
	v, err := h.CreateBackup(ctx, alice, &e2ee.BackupAuth{Algorithm: "m.megolm_backup.v1.curve25519-aes-sha2", AuthData: `{"public_key":"x"}`})
	h.must(err)
	return v
}

func backupKey(verified bool, index, forwarded int, data string) object {
	return object{"first_message_index": index, "forwarded_count": forwarded, "is_verified": verified, "session_data": object{"d": data}}
}

func (h *house) putKeys(version, room, session string, body any) (*e2ee.BackupState, error) {
	keys, err := e2ee.DecodeBackup(encode(body), room, session)
	if err != nil {
		return nil, err
	}
	return h.PutBackupKeys(ctx, alice, version, keys)
}

func (h *house) mustPut(version, room, session string, body any) *e2ee.BackupState {
	h.t.Helper()
	s, err := h.putKeys(version, room, session, body)
	h.must(err)
	return s
}

func TestBackupVersions(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		_, err := h.BackupInfo(ctx, alice, "")
		h.refuses(err, "M_NOT_FOUND")
		one := h.newBackup()
		two := h.newBackup()
		if one == two {
			t.Fatalf("both are version %s", one)
		}
		got, err := h.BackupInfo(ctx, alice, "")
		h.must(err)
		want := &e2ee.BackupInfo{Algorithm: "m.megolm_backup.v1.curve25519-aes-sha2", AuthData: []byte(`{"public_key":"x"}`), ETag: "0", Version: two}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if got, err := h.BackupInfo(ctx, alice, one); err != nil || got.Version != one {
			t.Errorf("got %v, %v", got, err)
		}
		for _, bad := range []string{"99", "x", "-1", "0", "+1", "01", "9223372036854775807", "99999999999999999999"} {
			_, err := h.BackupInfo(ctx, alice, bad)
			h.refuses(err, "M_NOT_FOUND")
			h.refuses(h.DeleteBackup(ctx, alice, bad), "M_NOT_FOUND")
		}
		_, err = h.BackupInfo(ctx, bob, one) // another user's
		h.refuses(err, "M_NOT_FOUND")
		h.refuses(h.DeleteBackup(ctx, bob, one), "M_NOT_FOUND")

		change := &e2ee.BackupAuth{Algorithm: want.Algorithm, AuthData: `{"public_key":"y"}`, Version: two}
		h.must(h.UpdateBackup(ctx, alice, two, change))
		if got, err := h.BackupInfo(ctx, alice, two); err != nil || string(got.AuthData) != `{"public_key":"y"}` {
			t.Errorf("got %v, %v", got, err)
		}
		h.refuses(h.UpdateBackup(ctx, alice, one, change), "M_INVALID_PARAM")
		change.Version = ""
		change.Algorithm = "other"
		h.refuses(h.UpdateBackup(ctx, alice, two, change), "M_INVALID_PARAM")
		h.refuses(h.UpdateBackup(ctx, alice, "99", change), "M_NOT_FOUND")
		h.refuses(h.UpdateBackup(ctx, bob, two, change), "M_NOT_FOUND")

		h.mustPut(two, roomA, "s", backupKey(true, 0, 0, "x"))
		h.must(h.DeleteBackup(ctx, alice, two))
		h.must(h.DeleteBackup(ctx, alice, two)) // again is no error
		if got, err := h.BackupInfo(ctx, alice, ""); err != nil || got.Version != one {
			t.Errorf("the one before is current again: %v, %v", got, err)
		}
		_, err = h.BackupInfo(ctx, alice, two)
		h.refuses(err, "M_NOT_FOUND")
		_, err = h.BackupKeys(ctx, alice, two, "")
		h.refuses(err, "M_NOT_FOUND")
		if three := h.newBackup(); three == two {
			t.Errorf("the number of a deleted backup was used again")
		}
	})
}

func TestBackupKeysAreCountedAndTagged(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		v := h.newBackup()
		state := func(got *e2ee.BackupState, count int64, etag string) {
			t.Helper()
			if diff := cmp.Diff(&e2ee.BackupState{Count: count, ETag: etag}, got); diff != "" {
				t.Error(diff)
			}
		}
		state(h.mustPut(v, roomA, "s1", backupKey(false, 5, 1, "s1")), 1, "1")
		state(h.mustPut(v, roomA, "", object{"sessions": object{"s1": backupKey(false, 5, 1, "other"), "s2": backupKey(false, 0, 0, "s2")}}), 2, "2")
		state(h.mustPut(v, "", "", object{"rooms": object{roomA: object{"sessions": object{"s2": backupKey(true, 9, 9, "s2 verified")}}, roomB: object{"sessions": object{"s1": backupKey(true, 0, 0, "b")}}}}), 3, "3")
		state(h.mustPut(v, "", "", object{"rooms": object{}}), 3, "3")
		state(h.mustPut(v, roomA, "s1", backupKey(false, 6, 0, "worse")), 3, "3")
		info, err := h.BackupInfo(ctx, alice, v)
		h.must(err)
		if info.Count != 3 || info.ETag != "3" {
			t.Errorf("got %+v", info)
		}

		all, err := h.BackupKeys(ctx, alice, v, "")
		h.must(err)
		var got any
		h.must(json.Unmarshal(encode(all), &got))
		var want any
		h.must(json.Unmarshal(encode(object{"rooms": object{
			roomA: object{"sessions": object{"s1": backupKey(false, 5, 1, "s1"), "s2": backupKey(true, 9, 9, "s2 verified")}},
			roomB: object{"sessions": object{"s1": backupKey(true, 0, 0, "b")}},
		}}), &want))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if one, err := h.BackupKeys(ctx, alice, v, roomB); err != nil || len(one.Rooms) != 1 || len(one.Rooms[roomB].Sessions) != 1 {
			t.Errorf("got %+v, %v", one, err)
		}
		if k, err := h.BackupKey(ctx, alice, v, roomA, "s2"); err != nil || string(k.SessionData) != `{"d":"s2 verified"}` {
			t.Errorf("got %+v, %v", k, err)
		}
		for _, c := range [][3]string{{v, roomA, "none"}, {v, "!none:x", "s1"}, {"99", roomA, "s1"}} {
			_, err := h.BackupKey(ctx, alice, c[0], c[1], c[2])
			h.refuses(err, "M_NOT_FOUND")
		}
		_, err = h.BackupKeys(ctx, bob, v, "")
		h.refuses(err, "M_NOT_FOUND")

		drop := func(room, session string) *e2ee.BackupState {
			t.Helper()
			s, err := h.DeleteBackupKeys(ctx, alice, v, room, session)
			h.must(err)
			return s
		}
		state(drop(roomA, "s1"), 2, "4")
		state(drop(roomA, "s1"), 2, "4")
		state(drop(roomB, ""), 1, "5")
		state(drop("", ""), 0, "6")
		_, err = h.DeleteBackupKeys(ctx, alice, "99", "", "")
		h.refuses(err, "M_NOT_FOUND")
	})
}

func TestABetterKeyReplacesAWorseOne(t *testing.T) {
	type k struct {
		verified         bool
		index, forwarded int
	}
	each(t, func(t *testing.T, h *house) {
		v := h.newBackup()
		for i, c := range []struct {
			old, new k
			replaces bool
		}{
			{k{false, 10, 5}, k{false, 11, 5}, false},
			{k{false, 10, 5}, k{false, 10, 6}, false},
			{k{false, 10, 5}, k{false, 10, 5}, false},
			{k{false, 10, 5}, k{false, 9, 9}, true},
			{k{false, 10, 5}, k{false, 10, 4}, true},
			{k{false, 10, 5}, k{true, 99, 99}, true},
			{k{true, 10, 5}, k{false, 0, 0}, false},
			{k{true, 10, 5}, k{true, 11, 0}, false},
			{k{true, 10, 5}, k{true, 9, 9}, true},
		} {
			s := fmt.Sprint("s", i)
			h.mustPut(v, roomA, s, backupKey(c.old.verified, c.old.index, c.old.forwarded, "old"))
			h.mustPut(v, roomA, s, backupKey(c.new.verified, c.new.index, c.new.forwarded, "new"))
			got, err := h.BackupKey(ctx, alice, v, roomA, s)
			h.must(err)
			if want := map[bool]string{true: `{"d":"new"}`, false: `{"d":"old"}`}[c.replaces]; string(got.SessionData) != want {
				t.Errorf("%+v then %+v: kept %s", c.old, c.new, got.SessionData)
			}
		}
	})
}

func TestKeysGoIntoTheCurrentBackupOnly(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		_, err := h.putKeys("1", roomA, "s", backupKey(true, 0, 0, "x"))
		h.refuses(err, "M_NOT_FOUND")
		one := h.newBackup()
		two := h.newBackup()
		_, err = h.putKeys(one, roomA, "s", backupKey(true, 0, 0, "x"))
		h.refuses(err, "M_WRONG_ROOM_KEYS_VERSION")
		var e *signalling.Error
		if errors.As(err, &e); e.Status != 403 || e.Fields["current_version"] != two {
			t.Errorf("got %+v", e)
		}
		_, err = h.putKeys("99", roomA, "s", backupKey(true, 0, 0, "x"))
		h.refuses(err, "M_NOT_FOUND")
		if got, err := h.BackupKeys(ctx, alice, one, ""); err != nil || len(got.Rooms) != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestManyKeysAtOnceAndAtTheSameTime(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		v := h.newBackup()
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				sessions := object{}
				for i := range 300 { // a third of them the same for everybody
					name := fmt.Sprintf("s%d", i)
					if i%3 != 0 {
						name = fmt.Sprintf("s%d-%d", w, i)
					}
					sessions[name] = backupKey(false, i, 0, "x")
				}
				if _, err := h.putKeys(v, roomA, "", object{"sessions": sessions}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		info, err := h.BackupInfo(ctx, alice, v)
		h.must(err)
		all, err := h.BackupKeys(ctx, alice, v, "")
		h.must(err)
		if n := len(all.Rooms[roomA].Sessions); int(info.Count) != n || n != 100+4*200 {
			t.Errorf("count %d, %d keys", info.Count, n)
		}
	})
}

func TestBackupsOfTheWrongShapeAreRefused(t *testing.T) {
	key := func(change func(object)) object {
		k := backupKey(true, 0, 0, "x")
		change(k)
		return k
	}
	for name, c := range map[string]struct {
		room, session string
		body          any
		code          string
	}{
		"no rooms":             {"", "", object{}, "M_BAD_JSON"},
		"rooms a list":         {"", "", object{"rooms": []int{}}, "M_BAD_JSON"},
		"no sessions":          {roomA, "", object{}, "M_BAD_JSON"},
		"a session a string":   {roomA, "", object{"sessions": object{"s": "x"}}, "M_BAD_JSON"},
		"no index":             {roomA, "s", key(func(k object) { delete(k, "first_message_index") }), "M_BAD_JSON"},
		"an index that is not": {roomA, "s", key(func(k object) { k["first_message_index"] = 1.5 }), "M_BAD_JSON"},
		"an index below zero":  {roomA, "s", key(func(k object) { k["first_message_index"] = -1 }), "M_BAD_JSON"},
		"no count":             {roomA, "s", key(func(k object) { delete(k, "forwarded_count") }), "M_BAD_JSON"},
		"not verified or not":  {roomA, "s", key(func(k object) { k["is_verified"] = "yes" }), "M_BAD_JSON"},
		"no data":              {roomA, "s", key(func(k object) { delete(k, "session_data") }), "M_BAD_JSON"},
		"data a string":        {roomA, "s", key(func(k object) { k["session_data"] = "x" }), "M_BAD_JSON"},
		"much data":            {roomA, "s", key(func(k object) { k["session_data"] = object{"x": strings.Repeat("x", e2ee.MaxSessionData)} }), "M_TOO_LARGE"},
		"a long session id":    {roomA, strings.Repeat("s", 256), key(func(object) {}), "M_INVALID_PARAM"},
		"a room with NUL":      {"", "", object{"rooms": object{"!\x00": object{"sessions": object{"s": key(func(object) {})}}}}, "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e2ee.DecodeBackup(encode(c.body), c.room, c.session)
			(&house{t: t}).refuses(err, c.code)
		})
	}
	for _, c := range []struct{ body, code string }{
		{`{}`, "M_MISSING_PARAM"}, {`{"algorithm":"a"}`, "M_MISSING_PARAM"}, {`{"algorithm":"a","auth_data":[]}`, "M_BAD_JSON"},
		{`{"algorithm":1,"auth_data":{}}`, "M_BAD_JSON"}, {`{"algorithm":"","auth_data":{}}`, "M_INVALID_PARAM"},
		{`{"algorithm":"a","auth_data":{"x":"` + strings.Repeat("x", e2ee.MaxAuthData) + `"}}`, "M_TOO_LARGE"},
	} {
		_, err := e2ee.DecodeBackupAuth([]byte(c.body))
		(&house{t: t}).refuses(err, c.code)
	}
}
