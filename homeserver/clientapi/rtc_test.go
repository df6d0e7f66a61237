// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

func TestClientsFindTheSFUUnderEveryNameThatItHas(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	today := map[string]any{"type": "livekit", "url": "wss://test/livekit/sfu", "livekit_service_url": "https://test/livekit/jwt"}
	want := map[string]any{
		"transports":     []any{map[string]any{"type": "m.livekit", "url": "wss://test/livekit/sfu"}, today},
		"rtc_transports": []any{today},
	}
	for _, path := range []string{"/v1/rtc/transports", "/unstable/org.matrix.msc4143/rtc/transports"} {
		if diff := cmp.Diff(want, s.do("GET", path, s.alice, nil).ok().m); diff != "" {
			t.Error(path, diff)
		}
		s.do("GET", path, "", nil).refused(401, "M_MISSING_TOKEN")
	}
}

func TestTokensForTheSFUAreForWhoIsInTheRoom(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		room := matrixrtc.MediaRoom(s.room, "m.call#ROOM")
		for _, base := range []string{"/v1", "/unstable/io.element.msc4195"} {
			path := base + "/rtc/livekit/get_token"
			body := func(more string) string {
				return `{"url":"wss://test/livekit/sfu","room_id":` + quote(s.room) + `,"slot_id":"m.call#ROOM"` + more + `}`
			}
			newest := s.do("POST", path, s.alice, body(`,"member_id":"m"`)).ok()
			if got, want := newest.str("jwt"), room+" "+matrixrtc.Identity("@alice:test", "m")+" true"; got != want {
				t.Errorf("token %q, want %q", got, want)
			}
			older := s.do("POST", path, s.alice, body(`,"member":{"id":"m","claimed_device_id":"ALICE"}`)).ok()
			if got, want := older.str("jwt"), room+" "+matrixrtc.DeviceIdentity("@alice:test", "ALICE", "m")+" true"; got != want {
				t.Errorf("token %q, want %q", got, want)
			}
			s.do("POST", path, "", body(`,"member_id":"m"`)).refused(401, "M_MISSING_TOKEN")
			s.do("POST", path, s.mallory, body(`,"member_id":"m"`)).refused(403, "M_FORBIDDEN")
			s.do("POST", path, s.alice, body(`,"member":{"id":"m","claimed_device_id":"WENDY"}`)).refused(403, "M_FORBIDDEN")
			s.do("POST", path, s.alice, body("")).refused(400, "M_MISSING_PARAM")
			s.do("POST", path, s.alice, body(`,"member_id":"a\u0000b"`)).refused(400, "M_BAD_JSON")
			s.do("POST", path, s.alice, `{"url":"wss://elsewhere/livekit/sfu","room_id":`+quote(s.room)+`,"slot_id":"s","member_id":"m"}`).refused(400, "M_INVALID_PARAM")
			s.do("POST", path, s.alice, `{"room_id":"!none:test","slot_id":"s","member_id":"m"}`).refused(403, "M_FORBIDDEN")
			s.do("POST", path, s.mallory, body(`,"member_id":"m","server_name":"other"`)).refused(403, "M_FORBIDDEN")
		}
	})
}

func TestOnlyTheOwnLeaveIsTakenOver(t *testing.T) {
	st := storagetest.Open(t, storagetest.SQLiteURL(t))
	s := newSiege(t, st)
	later := func(token, room string) string {
		return s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.rtc.member/t?org.matrix.msc4140.delay=3600000", token, `{}`).ok().str("delay_id")
	}
	other := s.newRoom(s.alice, `{}`)
	mine, wendys, elsewhere := later(s.alice, s.room), later(s.wendy, s.room), later(s.alice, other)
	body := func(id string) string {
		return `{"url":"wss://test/livekit/sfu","room_id":` + quote(s.room) + `,"slot_id":"m.call#ROOM","member_id":"m","delay_id":` + quote(id) + `}`
	}
	for _, base := range []string{"/v1", "/unstable/io.element.msc4195"} {
		path := base + "/rtc/livekit/delegate_delayed_leave"
		s.do("POST", path, s.alice, body(mine)).ok()
		for _, bad := range []string{wendys, elsewhere, "none"} {
			s.do("POST", path, s.alice, body(bad)).refused(400, "M_INVALID_PARAM")
		}
		s.do("POST", path, s.alice, `{"room_id":"!r:test","slot_id":"s","member_id":"m"}`).refused(400, "M_MISSING_PARAM")
		s.do("POST", path, s.mallory, body(mine)).refused(403, "M_FORBIDDEN")
		s.do("POST", path, "", `{}`).refused(401, "M_MISSING_TOKEN") // what Element Call asks to find out whether it is there
	}
	got, err := st.RTCLeaves(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []storage.RTCLeave{{MediaRoom: matrixrtc.MediaRoom(s.room, "m.call#ROOM"), Identity: matrixrtc.Identity("@alice:test", "m"), DelayID: mine, DelayMS: 3600000}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
