// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// exchange is a house with a history of calls, under a clock that stands still.
type exchange struct {
	*house
	clock *clocktest.Clock
	calls *calls.Service
	txn   int
}

func newExchange(t *testing.T, st *storage.Store) *exchange {
	t.Helper()
	log, clock := slog.New(slog.DiscardHandler), clocktest.New()
	r, err := rooms.New(context.Background(), st, "test", clock, log)
	if err != nil {
		t.Fatal(err)
	}
	s := syncapi.New(syncapi.Deps{Store: st, Rooms: r, Clock: clock, Log: log})
	c := calls.New(calls.Deps{Store: st, Rooms: r, Clock: clock, Log: log})
	st.Observe(func(pos int64, notes []storage.Note) {
		s.Observe(pos, notes)
		c.Observe(pos, notes)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	users := tokens{}
	for _, n := range []string{"alice", "bob", "mallory"} {
		users[n] = accounts.Session{UserID: "@" + n + ":test", DeviceID: strings.ToUpper(n)}
	}
	srv := httptest.NewServer(recorded(t, New(Deps{Config: Config{ServerName: "test"}, Clock: clock, Auth: users, Rooms: r, Sync: s, Calls: c})))
	t.Cleanup(srv.Close)
	return &exchange{house: &house{t, srv.URL}, clock: clock, calls: c}
}

func (x *exchange) send(who, room, what, call string, more map[string]any) {
	x.t.Helper()
	content := map[string]any{"call_id": call, "version": "1", "party_id": strings.ToUpper(who)}
	if what == "invite" {
		content["lifetime"] = 60000
		content["offer"] = map[string]any{"type": "offer", "sdp": "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"}
	}
	if what == "answer" {
		content["answer"] = map[string]any{"type": "answer", "sdp": "v=0\r\n"}
	}
	for k, v := range more {
		content[k] = v
	}
	x.txn++
	x.must(who, "PUT", fmt.Sprintf("/rooms/%s/send/m.call.%s/%d", esc(room), what, x.txn), content)
}

// history asks for calls, after everything until now is recorded.
func (x *exchange) history(who, query string) (int, map[string]any) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := x.calls.Flush(ctx); err != nil {
		x.t.Fatal(err)
	}
	status, _, answer := raw(x.t, x.base, "GET", "/_trunkboard/client/v1/calls"+query, who, "")
	out := map[string]any{}
	if err := json.Unmarshal([]byte(answer), &out); err != nil {
		x.t.Fatalf("%s: %d %s", query, status, answer)
	}
	return status, out
}

func (x *exchange) ids(who, query string) (ids []string, next string) {
	x.t.Helper()
	status, out := x.history(who, query)
	if status != 200 {
		x.t.Fatalf("%s: %d %v", query, status, out)
	}
	for _, c := range out["calls"].([]any) {
		ids = append(ids, c.(map[string]any)["call_id"].(string))
	}
	next, _ = out["next"].(string)
	return ids, next
}

func TestTheHistoryOfCallsIsReadOverHTTP(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		x := newExchange(t, st)
		room := x.must("alice", "POST", "/createRoom", map[string]any{"preset": "private_chat", "invite": []string{"@bob:test"}})["room_id"].(string)
		x.must("bob", "POST", "/join/"+esc(room), nil)
		began := float64(x.clock.Now().UnixMilli())
		x.send("alice", room, "invite", "c1", nil)
		live := func(who string, want ...any) {
			t.Helper()
			status, out := x.history(who, "?state=live&room_id="+esc(room))
			if d := cmp.Diff(want, out["calls"]); status != 200 || d != "" {
				t.Errorf("live calls of %s: %d\n%s", who, status, d)
			}
		}
		c := map[string]any{"call_id": "c1", "room_id": room, "caller": "@alice:test", "direction": "incoming", "kind": "video", "outcome": "ringing", "started_ts": began, "duration_ms": 0.0}
		live("bob", c)
		x.clock.Advance(3 * time.Second)
		x.send("bob", room, "answer", "c1", nil)
		x.send("alice", room, "select_answer", "c1", map[string]any{"selected_party_id": "BOB"})
		x.clock.Advance(2 * time.Second)
		c["callee"], c["outcome"], c["answered_ts"], c["duration_ms"] = "@bob:test", "active", began+3000, 2000.0
		live("bob", c)
		c["direction"] = "outgoing"
		live("alice", c)
		x.clock.Advance(8 * time.Second)
		x.send("bob", room, "hangup", "c1", map[string]any{"reason": "user_hangup"})
		c["outcome"], c["reason"], c["ended_ts"], c["duration_ms"] = "answered", "user_hangup", began+13000, 10000.0
		status, out := x.history("alice", "")
		if d := cmp.Diff(map[string]any{"calls": []any{c}}, out); status != 200 || d != "" {
			t.Errorf("%d\n%s", status, d)
		}
		if status, out := x.history("alice", "?state=live"); status != 200 || len(out["calls"].([]any)) != 0 {
			t.Errorf("live after the end: %d %v", status, out)
		}

		for i := range 5 {
			x.clock.Advance(time.Second)
			id := fmt.Sprint("m", i)
			x.send("bob", room, "invite", id, nil)
			x.send("bob", room, "hangup", id, nil)
		}
		var all []string
		for query, next, pages := "?limit=2", "", 0; pages < 10; pages++ {
			ids, more := x.ids("alice", query+next)
			all = append(all, ids...)
			if more == "" {
				break
			}
			next = "&from=" + more
		}
		if d := cmp.Diff([]string{"m4", "m3", "m2", "m1", "m0", "c1"}, all); d != "" {
			t.Errorf("pages: %s", d)
		}
		if ids, _ := x.ids("alice", "?dir=f&limit=1"); len(ids) != 1 || ids[0] != "c1" {
			t.Errorf("oldest first: %v", ids)
		}
		if ids, _ := x.ids("alice", "?outcome=missed&limit=99999999999999999999"); len(ids) != 5 {
			t.Errorf("alice missed %v", ids)
		}
		if ids, _ := x.ids("bob", "?outcome=missed"); len(ids) != 0 {
			t.Errorf("bob missed %v", ids)
		}
		if ids, next := x.ids("mallory", ""); len(ids) != 0 || next != "" {
			t.Errorf("mallory reads %v", ids)
		}
	})
}

func TestQuestionsAboutCallsThatMayNotBeAskedAreRefused(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		x := newExchange(t, st)
		room := x.must("alice", "POST", "/createRoom", map[string]any{})["room_id"].(string)
		x.send("alice", room, "invite", "c", nil)
		for _, c := range []struct {
			who, query string
			status     int
			code       string
		}{
			{"", "", 401, "M_MISSING_TOKEN"},
			{"nobody", "", 401, "M_UNKNOWN_TOKEN"},
			{"mallory", "?room_id=" + esc(room), 403, "M_FORBIDDEN"},
			{"mallory", "?state=live&room_id=" + esc(room), 403, "M_FORBIDDEN"},
			{"alice", "?room_id=!nowhere:test", 403, "M_FORBIDDEN"},
			{"alice", "?limit=0", 400, "M_INVALID_PARAM"},
			{"alice", "?limit=many", 400, "M_INVALID_PARAM"},
			{"alice", "?from=here", 400, "M_INVALID_PARAM"},
			{"alice", "?dir=up", 400, "M_INVALID_PARAM"},
			{"alice", "?outcome=odd", 400, "M_INVALID_PARAM"},
			{"alice", "?state=dead", 400, "M_INVALID_PARAM"},
			{"alice", "?state=live&outcome=missed", 400, "M_INVALID_PARAM"},
			{"alice", "?room_id=%00", 400, "M_INVALID_PARAM"},
		} {
			if status, out := x.history(c.who, c.query); status != c.status || out["errcode"] != c.code {
				t.Errorf("%s as %q: %d %v, want %d %s", c.query, c.who, status, out, c.status, c.code)
			}
		}
	})
}
