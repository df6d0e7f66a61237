// SPDX-License-Identifier: Apache-2.0

package deliver_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/push/deliver"
	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

const (
	alice = "@alice:test"
	bob   = "@bob:test"
	carol = "@carol:test"
)

// told is a notification as a gateway got it.
type told struct {
	gateway.Notification
	raw string
}

// gatewayServer is a push gateway that notes what it is told. answer may be changed under mu.
type gatewayServer struct {
	t      testing.TB
	url    string
	got    chan told
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
}

func newGateway(t testing.TB) *gatewayServer {
	g := &gatewayServer{t: t, got: make(chan told, 1000)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var in struct{ Notification gateway.Notification }
		if err := json.Unmarshal(body, &in); err != nil {
			t.Errorf("%v: %s", err, body)
		}
		g.mu.Lock()
		answer := g.answer
		g.mu.Unlock()
		if answer != nil {
			answer(w, r)
		} else {
			_, _ = io.WriteString(w, `{"rejected":[]}`)
		}
		g.got <- told{in.Notification, string(body)}
	}))
	t.Cleanup(srv.Close)
	g.url = srv.URL + gateway.Path
	return g
}

func (g *gatewayServer) answers(f func(w http.ResponseWriter, r *http.Request)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = f
}

func (g *gatewayServer) next() told {
	g.t.Helper()
	select {
	case n := <-g.got:
		return n
	case <-time.After(20 * time.Second):
		g.t.Fatal("the gateway was told nothing")
		return told{}
	}
}

// nothing checks that the gateway was told nothing.
func (g *gatewayServer) nothing(what string) {
	g.t.Helper()
	select {
	case n := <-g.got:
		g.t.Errorf("%s: the gateway was told %s", what, n.raw)
	default:
	}
}

// world is the services around delivery on a real store, under a clock that is moved by hand.
type world struct {
	t       testing.TB
	store   *storage.Store
	clock   *clocktest.Clock
	rooms   *rooms.Service
	rules   *push.Service
	sync    *syncapi.Service
	calls   *calls.Service
	deliver *deliver.Service
	ignored map[string]map[string]struct{}
	stop    func()
}

func (w *world) Ignored(_ context.Context, user string) (map[string]struct{}, error) {
	return w.ignored[user], nil
}

func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, s *storage.Store) { f(t, newWorld(t, s, clocktest.New())) })
}

func newWorld(t testing.TB, store *storage.Store, clock *clocktest.Clock) *world {
	t.Helper()
	w := &world{t: t, store: store, clock: clock, ignored: map[string]map[string]struct{}{}}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if w.rooms, err = rooms.New(t.Context(), store, "test", clock, log); err != nil {
		t.Fatal(err)
	}
	w.rules = push.New(store, clock, log)
	w.sync = syncapi.New(syncapi.Deps{Store: store, Rooms: w.rooms, Clock: clock, Log: log})
	w.calls = calls.New(calls.Deps{Store: store, Rooms: w.rooms, Clock: clock, Log: log})
	gateways := gateway.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	w.rules.UseGateways(gateways)
	w.deliver = deliver.New(deliver.Deps{Store: store, Rooms: w.rooms, Rules: w.rules, Calls: w.calls, Ignores: w, Gateways: gateways, Clock: clock, Log: log})
	w.calls.OnStopped(w.deliver.Stopped)
	store.Observe(w.observe)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for _, run := range []func(context.Context) error{w.calls.Run, w.deliver.Run} {
		done.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	w.stop = func() { cancel(); done.Wait() }
	t.Cleanup(w.stop)
	if err := w.calls.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) observe(pos int64, notes []storage.Note) {
	w.rules.Observe(pos, notes)
	w.calls.Observe(pos, notes)
	w.deliver.Observe(pos, notes)
}

// again ends the world and makes it anew on the same store, as after a restart.
func (w *world) again() *world {
	w.t.Helper()
	w.stop()
	return newWorld(w.t, w.store, w.clock)
}

// deaf ends the services, so that what follows is committed but not seen, as if the process were killed right after it.
func (w *world) deaf() {
	w.stop()
	w.store.Observe(func(int64, []storage.Note) {})
}

type with = map[string]any

func raw(v any) json.RawMessage {
	b, _ := json.Marshal(v)
	return b
}

func (w *world) pusher(user, key, url string, data with) push.Pusher {
	w.t.Helper()
	if data == nil {
		data = with{}
	}
	data["url"] = url
	text := "x"
	p := push.Pusher{Key: key, Kind: "http", AppID: "app", AppDisplayName: &text, DeviceDisplayName: &text, Lang: &text, Data: raw(data)}
	if err := w.rules.SetPusher(w.t.Context(), user, "D", p, false); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) keys(user string) (out []string) {
	w.t.Helper()
	list, err := w.store.Pushers(w.t.Context(), user)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range list {
		out = append(out, p.Key)
	}
	return out
}

// room makes a room of alice's with others in it.
func (w *world) room(joinRule string, others ...string) string {
	w.t.Helper()
	state := func(typ string, content any) rooms.Draft {
		return rooms.Draft{Sender: alice, Type: typ, StateKey: new(string), Content: raw(content)}
	}
	w.clock.Advance(time.Millisecond) // in version 12 the room id is a hash that time goes into
	id, err := w.rooms.Create(context.Background(), rooms.NewRoom{Version: event.DefaultVersion, Creator: alice, Drafts: []rooms.Draft{
		member(alice, alice, "join", "Alice"), state("m.room.power_levels", with{"events": with{"org.matrix.msc3401.call.member": 0}}), state("m.room.join_rules", with{"join_rule": "public"}),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, u := range others {
		w.send(id, member(u, u, "join", strings.ToUpper(u[1:2])))
	}
	if joinRule != "public" {
		w.send(id, state("m.room.join_rules", with{"join_rule": joinRule}))
	}
	return id
}

func member(sender, target, membership, name string) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: "m.room.member", StateKey: &target, Content: raw(with{"membership": membership, "displayname": name})}
}

func (w *world) send(room string, d rooms.Draft) string {
	w.t.Helper()
	ids, err := w.rooms.Append(context.Background(), room, d)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids[0]
}

func (w *world) say(room, sender, text string) string {
	w.t.Helper()
	return w.send(room, rooms.Draft{Sender: sender, Type: "m.room.message", Content: raw(with{"msgtype": "m.text", "body": text})})
}

// call sends an m.call.* event of version 1.
func (w *world) call(room, sender, what, id string, extra with) string {
	w.t.Helper()
	c := with{"call_id": id, "version": "1", "party_id": "P" + sender[1:2]}
	sdp := with{"type": "offer", "sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"}
	switch what {
	case "invite":
		c["lifetime"], c["offer"] = 60_000, sdp
	case "answer":
		c["answer"] = sdp
	case "select_answer":
		c["selected_party_id"] = "Pb"
	}
	for k, v := range extra {
		c[k] = v
	}
	return w.send(room, rooms.Draft{Sender: sender, Device: "D" + sender[1:2], Type: "m.call." + what, Content: raw(c)})
}

// read moves a user's receipt.
func (w *world) read(room, user, event string) {
	w.t.Helper()
	r, err := w.rooms.Room(w.t.Context(), room)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.sync.SetReceipt(w.t.Context(), r, user, "m.read", event, ""); err != nil {
		w.t.Fatal(err)
	}
}

// until polls a condition that the world's goroutines are about to make true; step, when set, is done before each look.
func (w *world) until(what string, step func(), ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		if step != nil {
			step()
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-w.t.Context().Done():
		}
	}
	w.t.Fatalf("%s: it did not happen", what)
}
