// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestStateThatIsNoMoreIsToldAsAStub(t *testing.T) {
	a := &syncapi.SlidingAnswer{Pos: "p", Rooms: []*syncapi.SlidingRoom{{ID: "!r:x", Membership: "join", Inside: true, Joined: -1, Invited: -1,
		Deleted: []event.Key{{Type: "m.room.topic"}, {Type: "m.x", StateKey: "k"}}, Name: syncapi.Told{Is: true}, Avatar: syncapi.Told{Is: true}}}}
	if got, want := string(a.Stable()), `{"pos":"p","lists":{},"rooms":{"!r:x":{"membership":"join","name":null,"avatar":null,"required_state":[{"type":"m.room.topic","state_key":""},{"type":"m.x","state_key":"k"}]}},"extensions":{}}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := string(a.Unstable()), `{"pos":"p","lists":{},"rooms":{"!r:x":{"avatar":null}},"extensions":{}}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestRequestsOfTheWrongShapeAreRefused(t *testing.T) {
	lists := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"l%d":{"timeline_limit":1}`, i)
		}
		return `{"lists":{` + strings.TrimPrefix(b.String(), ",") + `}}`
	}
	many := func(item string, n int) string { return strings.TrimPrefix(strings.Repeat(","+item, n), ",") }
	for _, c := range []struct{ unstable, stable, code string }{
		{`{}`, `{}`, ""},
		{``, ``, "M_NOT_JSON"},
		{`{`, `{`, "M_NOT_JSON"},
		{`[]`, `null`, "M_BAD_JSON"},
		{`{"lists":[]}`, `{"lists":[]}`, "M_BAD_JSON"},
		{`{"lists":{"a":{"timeline_limit":"1"}}}`, `{"lists":{"a":{"timeline_limit":1.5}}}`, "M_BAD_JSON"},
		{`{"lists":{"a":{}}}`, `{"lists":{"a":{}}}`, "M_MISSING_PARAM"},
		{`{"room_subscriptions":{"!a:b":{}}}`, `{"room_subscriptions":{"!a:b":{}}}`, "M_MISSING_PARAM"},
		{`{"lists":{"a":{"timeline_limit":-1}}}`, `{"lists":{"a":{"timeline_limit":-1}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[0,9]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[0,9]}}}`, ""},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[9,0]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[9,0]}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[-1,0]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[-1,0]}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[[1]]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[1,2,3]}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"ranges":[` + many("[0,1]", 101) + `]}}}`, `{"lists":{"a":{"timeline_limit":1,"range":[]}}}`, "M_INVALID_PARAM"},
		{lists(100), lists(100), ""},
		{lists(101), lists(101), "M_INVALID_PARAM"},
		{`{"lists":{"":{"timeline_limit":1}}}`, `{"lists":{"a b":{"timeline_limit":1}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"required_state":[["m.x"]]}}}`, `{"lists":{"a":{"timeline_limit":1,"required_state":{"include":[` + many("{}", 501) + `]}}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"required_state":[` + many(`["m.x","y"]`, 501) + `]}}}`, `{"lists":{"a":{"timeline_limit":1,"required_state":{"include":[{"type":"` + strings.Repeat("x", 300) + `"}]}}}}`, "M_INVALID_PARAM"},
		{`{"lists":{"a":{"timeline_limit":1,"required_state":{}}}}`, `{"lists":{"a":{"timeline_limit":1,"required_state":[]}}}`, "M_BAD_JSON"},
		{`{"conn_id":"` + strings.Repeat("x", 256) + `"}`, `{"conn_id":"` + strings.Repeat("x", 256) + `"}`, "M_INVALID_PARAM"},
		{`{"extensions":{"to_device":{"enabled":true,"since":"x"}}}`, `{"extensions":{"to_device":{"enabled":true,"since":"-1"}}}`, "M_INVALID_PARAM"},
		{`{"extensions":{"to_device":{"enabled":true,"limit":0}}}`, `{"timeout":-1}`, "M_INVALID_PARAM"},
		{`{"extensions":{"unheard_of":{"enabled":true},"e2ee":{"enabled":true}}}`, `{"extensions":{"unheard_of":7}}`, ""},
	} {
		check := func(form, body string, err error) {
			code := ""
			if err != nil {
				code = signalling.AsError(err).Code
			}
			if code != c.code {
				t.Errorf("%s %.80s: %q, want %q", form, body, code, c.code)
			}
		}
		_, err := syncapi.DecodeSlidingUnstable([]byte(c.unstable), alice, "A", "", 0)
		check("unstable", c.unstable, err)
		_, _, err = syncapi.DecodeSlidingStable([]byte(c.stable), alice, "A")
		check("stable", c.stable, err)
	}
}

func FuzzSlidingRequests(f *testing.F) {
	f.Add([]byte(`{"conn_id":"room-list","lists":{"all":{"ranges":[[0,19]],"timeline_limit":1,"required_state":[["m.room.member","$LAZY"],["*","*"]],"filters":{"is_dm":true,"room_types":[null,"m.space"]}}},"extensions":{"to_device":{"enabled":true,"since":"5"}}}`), "s1_2_3-abc-4")
	f.Add([]byte(`{"pos":"s1_2_3-abc-4","timeout":30000,"lists":{"all":{"range":[0,19],"timeline_limit":1,"required_state":{"include":[{}],"exclude":[{"type":"m.x"}],"lazy_members":true}}},"room_subscriptions":{"!a:b":{"timeline_limit":5}}}`), "")
	w := start(f, storagetest.Open(f, storagetest.SQLiteURL(f)))
	den(w)
	f.Fuzz(func(t *testing.T, body []byte, pos string) {
		u, err := syncapi.DecodeSlidingUnstable(body, alice, "A", pos, 0)
		s, _, err2 := syncapi.DecodeSlidingStable(body, alice, "A")
		for i, q := range []*syncapi.SlidingRequest{u, s} {
			if e := []error{err, err2}[i]; e != nil {
				if signalling.AsError(e).Status != 400 {
					t.Fatalf("%v", e)
				}
				continue
			}
			q.Timeout = 0
			a, e := w.sync.Sliding(context.Background(), q)
			if e != nil {
				if signalling.AsError(e).Code != "M_UNKNOWN_POS" {
					t.Fatalf("%v", e)
				}
				continue
			}
			if !json.Valid(a.Stable()) || !json.Valid(a.Unstable()) {
				t.Fatalf("not JSON: %s", a.Stable())
			}
		}
	})
}
