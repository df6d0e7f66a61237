// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
)

// slider is one connection of a client, in one of the two wire forms. Its request is written in words of our own, which it puts into
// those of the form.
type slider struct {
	w                  *world
	user, device, conn string
	stable             bool
	pos                string
}

// ask is a request: lists by name and subscriptions by room.
type ask struct {
	lists   map[string]want
	subs    map[string]want
	ext     map[string]any
	timeout time.Duration
}

type want struct {
	limit   int
	to      int // the range is 0 to to; negative: all
	state   [][2]string
	filters map[string]any
}

func (c *slider) config(x want) map[string]any {
	m := map[string]any{"timeline_limit": x.limit}
	if !c.stable {
		pairs := [][]string{}
		for _, s := range x.state {
			pairs = append(pairs, s[:])
		}
		m["required_state"] = pairs
		return m
	}
	state := map[string]any{}
	include := []map[string]string{}
	for _, s := range x.state {
		e := map[string]string{}
		if s[0] != "*" {
			e["type"] = s[0]
		}
		switch s[1] {
		case "$LAZY":
			state["lazy_members"] = true
			continue
		case "$ME":
			e["state_key"] = c.user
		case "*":
		default:
			e["state_key"] = s[1]
		}
		include = append(include, e)
	}
	state["include"] = include
	m["required_state"] = state
	return m
}

func (c *slider) request(a ask) (*syncapi.SlidingRequest, error) {
	lists, subs := map[string]any{}, map[string]any{}
	for k, x := range a.lists {
		m := c.config(x)
		if x.to >= 0 {
			if c.stable {
				m["range"] = []int{0, x.to}
			} else {
				m["ranges"] = [][]int{{0, x.to}}
			}
		}
		if x.filters != nil {
			f := map[string]any{}
			for k, v := range x.filters {
				if k == "is_invite" && c.stable {
					k = "is_invited"
				}
				f[k] = v
			}
			m["filters"] = f
		}
		lists[k] = m
	}
	for k, x := range a.subs {
		subs[k] = c.config(x)
	}
	body := map[string]any{"conn_id": c.conn, "lists": lists, "room_subscriptions": subs, "extensions": a.ext}
	if c.stable {
		body["pos"], body["timeout"] = c.pos, a.timeout.Milliseconds()
		q, _, err := syncapi.DecodeSlidingStable(raw(body), c.user, c.device)
		return q, err
	}
	return syncapi.DecodeSlidingUnstable(raw(body), c.user, c.device, c.pos, a.timeout.Milliseconds())
}

// try makes a request and gives the rooms of the answer in the words of the unstable form.
func (c *slider) try(ctx context.Context, a ask) (gjson.Result, error) {
	q, err := c.request(a)
	if err != nil {
		return gjson.Result{}, err
	}
	out, err := c.w.sync.Sliding(ctx, q)
	if err != nil {
		return gjson.Result{}, err
	}
	b := out.Unstable()
	if c.stable {
		b = out.Stable()
	}
	if !json.Valid(b) {
		c.w.t.Fatalf("not JSON: %s", b)
	}
	return gjson.ParseBytes(b), nil
}

func (c *slider) sync(a ask) gjson.Result {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := c.try(ctx, a)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.pos = r.Get("pos").Str
	return r
}

// room gives what an answer says of a room; its timeline stands under "timeline" and stripped state under "stripped".
func (c *slider) room(r gjson.Result, id string) gjson.Result { return r.Get("rooms").Map()[id] }

func (c *slider) timeline(x gjson.Result) []gjson.Result {
	if c.stable {
		return x.Get("timeline_events").Array()
	}
	return x.Get("timeline").Array()
}

func (c *slider) stripped(x gjson.Result) []gjson.Result {
	if c.stable {
		return x.Get("stripped_state").Array()
	}
	return x.Get("invite_state").Array()
}

func (c *slider) texts(x gjson.Result) string {
	var out []string
	for _, e := range c.timeline(x) {
		if b := e.Get("content.body"); b.Exists() {
			out = append(out, b.Str)
		}
	}
	return fmt.Sprint(out)
}

func (c *slider) expanded(x gjson.Result) bool {
	if c.stable {
		return x.Get("expanded_timeline").Bool()
	}
	return x.Get("unstable_expanded_timeline").Bool()
}

func keysOf(x gjson.Result) string {
	var out []string
	for _, e := range x.Get("required_state").Array() {
		out = append(out, e.Get("type").Str+"|"+e.Get("state_key").Str)
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func roomsOf(r gjson.Result) string {
	var out []string
	r.Get("rooms").ForEach(func(k, _ gjson.Result) bool { out = append(out, k.Str); return true })
	return fmt.Sprint(out)
}

// sliding runs f on both engines, in both wire forms.
func sliding(t *testing.T, f func(w *world, client func(user, device string) *slider)) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		for _, stable := range []bool{false, true} {
			w := start(t, st)
			f(w, func(user, device string) *slider {
				return &slider{w: w, user: user, device: fmt.Sprint(device, stable), conn: "main", stable: stable}
			})
		}
	})
}

func one(limit, to int, state ...[2]string) ask {
	return ask{lists: map[string]want{"all": {limit: limit, to: to, state: state}}}
}

// den makes a room like world.room. Its create event is another each time: rooms of version 12 made of the same event are one room.
func den(w *world, more ...rooms.Draft) string {
	w.t.Helper()
	id, err := w.rooms.Create(context.Background(), rooms.NewRoom{Version: "12", Creator: alice, Create: raw(map[string]any{"nonce": rand.Text()}), Drafts: append([]rooms.Draft{
		member(alice, alice, "join"), state(alice, "m.room.power_levels", map[string]any{}), state(alice, "m.room.join_rules", map[string]any{"join_rule": "public"}),
		state(alice, "m.room.history_visibility", map[string]any{"history_visibility": "shared"}),
	}, more...)})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}
