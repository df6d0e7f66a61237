// SPDX-License-Identifier: Apache-2.0

package calls_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

const (
	alice   = "@alice:example.org"
	bob     = "@bob:example.org"
	carol   = "@carol:example.org"
	mallory = "@mallory:example.org"
)

// node is a homeserver's rooms and calls over a real store, under a clock that stands still.
type node struct {
	t        testing.TB
	store    *storage.Store
	clock    *clocktest.Clock
	rooms    *rooms.Service
	calls    *calls.Service
	registry *prometheus.Registry
	stop     func() // ends Run and waits for it
}

func each(t *testing.T, f func(t *testing.T, n *node)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, st *storage.Store) { f(t, start(t, st, clocktest.New(), calls.Config{})) })
}

// start runs a node and waits until it has read what the store holds.
func start(t testing.TB, st *storage.Store, clock *clocktest.Clock, config calls.Config) *node {
	t.Helper()
	n := &node{t: t, store: st, clock: clock, registry: prometheus.NewRegistry()}
	var err error
	if n.rooms, err = rooms.New(context.Background(), st, "example.org", clock, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	n.calls = calls.New(calls.Deps{Config: config, Store: st, Rooms: n.rooms, Clock: clock, Metrics: n.registry})
	st.Observe(n.calls.Observe)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.calls.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	n.stop = func() { cancel(); <-done }
	t.Cleanup(n.stop)
	n.flush()
	return n
}

// restart ends this node and starts another on the same store.
func (n *node) restart() *node {
	n.t.Helper()
	n.stop()
	return start(n.t, n.store, n.clock, calls.Config{})
}

// deaf ends the calls service, as if the process had been killed right after the commits that follow.
func (n *node) deaf() {
	n.stop()
	n.store.Observe(func(int64, []storage.Note) {})
}

func (n *node) flush() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.calls.Flush(ctx); err != nil {
		n.t.Fatalf("flush: %v", err)
	}
}

func (n *node) wait(d time.Duration) {
	n.t.Helper()
	n.flush()
	n.clock.Advance(d)
	n.flush()
}

type with = map[string]any

func raw(v any) json.RawMessage {
	b, _ := json.Marshal(v)
	return b
}

func member(sender, target, membership string) rooms.Draft {
	return rooms.Draft{Sender: sender, Type: "m.room.member", StateKey: &target, Content: raw(with{"membership": membership})}
}

// room makes a room of alice's with others in it.
func (n *node) room(others ...string) string {
	n.t.Helper()
	return n.roomWith("shared", others...)
}

func (n *node) roomWith(visibility string, others ...string) string {
	n.t.Helper()
	state := func(typ string, content any) rooms.Draft {
		return rooms.Draft{Sender: alice, Type: typ, StateKey: new(string), Content: raw(content)}
	}
	n.clock.Advance(time.Millisecond) // in version 12 the room id is a hash that time goes into
	id, err := n.rooms.Create(context.Background(), rooms.NewRoom{Version: event.DefaultVersion, Creator: alice, Drafts: []rooms.Draft{
		member(alice, alice, "join"), state("m.room.power_levels", with{"events": with{"org.matrix.msc3401.call.member": 0}}), state("m.room.join_rules", with{"join_rule": "public"}),
		state("m.room.history_visibility", with{"history_visibility": visibility}),
	}})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, u := range others {
		n.append(id, member(u, u, "join"))
	}
	return id
}

func (n *node) append(room string, d ...rooms.Draft) {
	n.t.Helper()
	if _, err := n.rooms.Append(context.Background(), room, d...); err != nil {
		n.t.Fatal(err)
	}
}

// draft is one m.call.* event of version 1; the party is the sender's device "D" + name. extra may name another version.
func draft(sender, what, call string, extra with) rooms.Draft {
	device := "D" + sender[1:2]
	content := with{"call_id": call, "version": "1", "party_id": device}
	switch what {
	case "invite":
		content["lifetime"] = 60_000
		content["offer"] = with{"type": "offer", "sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"}
	case "answer":
		content["answer"] = with{"type": "answer", "sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"}
	case "candidates":
		content["candidates"] = []any{}
	}
	for k, v := range extra {
		if content[k] = v; v == nil {
			delete(content, k)
		}
	}
	return rooms.Draft{Sender: sender, Device: device, Type: "m.call." + what, Content: raw(content)}
}

func (n *node) call(room, sender, what, call string, extra with) {
	n.t.Helper()
	n.append(room, draft(sender, what, call, extra))
}

// list is every call of a user, a line each: call, direction, outcome, reason and seconds talked.
func (n *node) list(q calls.Query) []string {
	n.t.Helper()
	n.flush()
	if q.Limit == 0 {
		q.Limit = 100
	}
	out := []string{}
	for range 100 {
		page, next, err := n.calls.List(context.Background(), q)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, c := range page {
			out = append(out, describe(c))
		}
		if q.From = next; next == "" {
			return out
		}
	}
	n.t.Fatal("a list without end")
	return nil
}

func describe(c calls.Call) string {
	text := fmt.Sprintf("%s %s %s", c.CallID, c.Direction, c.Outcome)
	if c.Kind != "audio" {
		text += " " + c.Kind
	}
	if c.Reason != "" {
		text += " " + c.Reason
	}
	if c.Answered != 0 {
		text += fmt.Sprintf(" %ds", c.DurationMS/1000)
	}
	if c.Callee != "" {
		text += " > " + c.Callee
	}
	return text
}

// metric is the value of a counter, gauge or count of a histogram; labels are values in the order of their names.
func (n *node) metric(name string, labels ...string) float64 {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i, l := range m.GetLabel() {
				if i >= len(labels) || l.GetValue() != labels[i] {
					continue series
				}
			}
			switch {
			case m.Counter != nil:
				return m.GetCounter().GetValue()
			case m.Gauge != nil:
				return m.GetGauge().GetValue()
			}
			return float64(m.GetHistogram().GetSampleCount())
		}
	}
	n.t.Fatalf("no metric %s%v", name, labels)
	return 0
}

// is compares a metric.
func (n *node) is(want float64, name string, labels ...string) {
	n.t.Helper()
	if got := n.metric(name, labels...); got != want {
		n.t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}
