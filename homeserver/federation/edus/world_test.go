// SPDX-License-Identifier: Apache-2.0

package edus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

const (
	alice   = "@alice:here.test"
	anna    = "@anna:here.test"
	bob     = "@bob:there.test"
	mallory = "@mallory:evil.test"
)

// post is a Sender that remembers what it was given.
type post struct {
	mu      sync.Mutex
	moments []string // server and EDU
	woken   []string
	news    chan struct{}
}

func (p *post) Moment(server, _ string, edu json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moments = append(p.moments, server+" "+string(edu))
	p.poke()
}

func (p *post) Wake(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.woken = append(p.woken, server)
	p.poke()
}

func (p *post) awake(server string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.woken, server)
}

func (p *post) poke() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *post) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.moments
	p.moments = nil
	return out
}

// house is here.test, the server under test, with what EDUs are for; other servers are rooms of their own, and the test carries what goes
// between them.
type house struct {
	t     *testing.T
	st    *storage.Store
	rooms *rooms.Service
	fed   *federation.Service
	sync  *syncapi.Service
	here  presence.Store
	post  *post
	txn   int
	*Service
}

func open(t *testing.T, st *storage.Store) *house {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	clock := signalling.SystemClock{}
	h := &house{t: t, st: st, rooms: room(t, st, "here.test"), post: &post{news: make(chan struct{}, 1)}}
	h.here = presence.NewMem(presence.Config{}, clock)
	t.Cleanup(func() { _ = h.here.Close() })
	keys := e2ee.New(st, "here.test", log, e2ee.Deps{Rooms: h.rooms, Clock: clock})
	h.sync = syncapi.New(syncapi.Deps{Store: st, Rooms: h.rooms, Keys: keys, Presence: h.here, Clock: clock, Log: log, Typed: func(r *rooms.Room, user string, typing bool) { h.Typed(r, user, typing) }})
	h.fed = federation.New(federation.Deps{Store: st, Rooms: h.rooms, Clock: clock, Log: log})
	h.Service = New(Deps{Federation: h.fed, Sender: h.post, Store: st, Rooms: h.rooms, Sync: h.sync, Keys: keys, Presence: h.here, Clock: clock, Log: log})
	st.Observe(func(pos int64, notes []storage.Note) {
		h.sync.Observe(pos, notes)
		h.Observe(pos, notes)
	})
	return h
}

func each(t *testing.T, f func(t *testing.T, h *house)) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) { f(t, open(t, st)) })
}

func room(t *testing.T, st *storage.Store, server string) *rooms.Service {
	t.Helper()
	r, err := rooms.New(context.Background(), st, server, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// elsewhere is another server's rooms.
func elsewhere(t *testing.T, server string) *rooms.Service {
	return room(t, storagetest.Open(t, storagetest.SQLiteURL(t)), server)
}

func create(t *testing.T, s *rooms.Service, user string) string {
	t.Helper()
	id, err := s.Create(t.Context(), rooms.NewRoom{Version: "11", Creator: user, Drafts: []rooms.Draft{
		{Sender: user, Type: "m.room.member", StateKey: &user, Content: json.RawMessage(`{"membership":"join"}`)},
		{Sender: user, Type: "m.room.power_levels", StateKey: new(string), Content: json.RawMessage(`{"users":{"` + user + `":100}}`)},
		{Sender: user, Type: "m.room.join_rules", StateKey: new(string), Content: json.RawMessage(`{"join_rule":"public"}`)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func wire(t *testing.T, events ...*event.Event) (out []*event.Event) {
	t.Helper()
	for _, e := range events {
		x, err := event.Parse(e.Version(), e.JSON())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// enter has a user of one server join a room through another.
func enter(t *testing.T, s *rooms.Service, via *rooms.Service, id, user string) {
	t.Helper()
	tmpl, err := via.MakeMember(t.Context(), id, user, "join", []string{"11"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.FromTemplate(t.Context(), *tmpl, rooms.Wanted{RoomID: id, User: user, Membership: "join"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := via.AcceptMember(t.Context(), id, wire(t, e)[0], "join", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Enter(t.Context(), rooms.Entry{Event: wire(t, got.Event)[0], State: wire(t, got.State...), Auth: wire(t, got.AuthChain...), Via: via.Server()}); err != nil {
		t.Fatal(err)
	}
}

func (h *house) join(id, user string) {
	h.t.Helper()
	if _, err := h.rooms.Append(h.t.Context(), id, rooms.Draft{Sender: user, Type: "m.room.member", StateKey: &user, Content: json.RawMessage(`{"membership":"join"}`)}); err != nil {
		h.t.Fatal(err)
	}
}

// device logs a user in; keys are those of the device, or "".
func (h *house) device(user, id, keys string) {
	h.t.Helper()
	err := h.st.Write(h.t.Context(), func(tx *storage.Tx) error {
		if _, err := tx.Exec(`INSERT INTO devices (user_id, device_id, display_name, created_ts, seen_ts) VALUES ($1, $2, $3, 1, 1)`, user, id, id+"'s name"); err != nil || keys == "" {
			return err
		}
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		if err := tx.PutDeviceKeys(pos, user, id, keys, true); err != nil {
			return err
		}
		return tx.DeviceListChanged(user)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// told works on what is to be told, and gives what waits for a server and is not an event, as type and content, and takes it out.
func (h *house) told(server string) (types []string, contents []gjson.Result) {
	h.t.Helper()
	if err := h.tellDevices(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	rows, err := h.st.Outbox(h.t.Context(), server, 100)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, q := range rows {
		if q.EventNID == 0 {
			x := gjson.ParseBytes(q.Payload)
			types, contents = append(types, x.Get("edu_type").Str), append(contents, x.Get("content"))
		}
	}
	if err := h.st.Write(h.t.Context(), func(tx *storage.Tx) error { return tx.DeleteOutbox(rows) }); err != nil {
		h.t.Fatal(err)
	}
	return types, contents
}

// receive is a transaction of another server with one EDU.
func (h *house) receive(origin, typ string, content any) {
	h.t.Helper()
	h.txn++
	body, err := json.Marshal(object{"origin": origin, "origin_server_ts": 1, "pdus": []any{}, "edus": []any{object{"edu_type": typ, "content": content}}})
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.fed.Transaction(h.t.Context(), origin, fmt.Sprint(h.txn), body); err != nil {
		h.t.Fatal(err)
	}
}

// synced is what a user's client is told now.
func (h *house) synced(user, since string) (gjson.Result, string) {
	h.t.Helper()
	out, err := h.sync.Sync(h.t.Context(), &syncapi.Request{User: user, Device: "A", Since: since})
	if err != nil {
		h.t.Fatal(err)
	}
	r := gjson.ParseBytes(out)
	return r, r.Get("next_batch").Str
}

// soon waits until f says yes, looking whenever the post was given something.
func (h *house) soon(what string, f func() bool) {
	h.t.Helper()
	late := time.After(60 * time.Second)
	for !f() {
		select {
		case <-h.post.news:
		case <-late:
			h.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// sharedRoom is a room of alice's that bob is in.
func (h *house) sharedRoom(there *rooms.Service) string {
	h.t.Helper()
	id := create(h.t, h.rooms, alice)
	enter(h.t, there, h.rooms, id, bob)
	return id
}

func contains(list []string, parts ...string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
	})
}
