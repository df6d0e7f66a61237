// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestCountsComeWithTheEventsAndByThreadWhenAsked(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w := start(t, st)
		rules := push.New(st, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
		w.sync.Unread = rules
		st.Observe(func(pos int64, n []storage.Note) { rules.Observe(pos, n); w.sync.Observe(pos, n) })
		id := w.room()
		w.send(id, member(bob, bob, "join"))
		byThread, err := filter.Parse([]byte(`{"room":{"timeline":{"unread_thread_notifications":true}}}`))
		if err != nil {
			t.Fatal(err)
		}
		get := func(since string, f *filter.Filter) gjson.Result {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			b, err := w.sync.Sync(ctx, &syncapi.Request{User: bob, Device: "B", Since: since, Timeout: 5 * time.Second, Filter: f})
			if err != nil {
				t.Fatal(err)
			}
			return gjson.ParseBytes(b)
		}
		path := "rooms.join." + strings.ReplaceAll(id, ".", `\.`) + "."
		want := func(what string, r gjson.Result, counts, threads string) {
			t.Helper()
			if got := r.Get(path + "unread_notifications").Raw; got != counts {
				t.Errorf("%s: unread_notifications %s, want %s", what, got, counts)
			}
			if got := r.Get(path + "unread_thread_notifications").Raw; got != threads {
				t.Errorf("%s: unread_thread_notifications %s, want %s", what, got, threads)
			}
		}
		first := get("", nil).Get("next_batch").Str
		root := w.send(id, text(alice, "root"))[0]
		want("an event", get(first, nil), `{"highlight_count":0,"notification_count":1}`, "")
		in := func(mentions map[string]any) rooms.Draft {
			return rooms.Draft{Sender: alice, Type: "m.room.message", Content: raw(map[string]any{
				"msgtype": "m.text", "body": "in", "m.relates_to": map[string]any{"rel_type": "m.thread", "event_id": root}, "m.mentions": mentions,
			})}
		}
		last := w.send(id, in(map[string]any{}), in(map[string]any{"user_ids": []string{bob}}))[1]
		want("together", get(first, nil), `{"highlight_count":1,"notification_count":3}`, "")
		want("apart", get(first, byThread), `{"highlight_count":0,"notification_count":1}`, `{"`+root+`":{"highlight_count":1,"notification_count":2}}`)
		room, err := w.rooms.Room(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.sync.SetReceipt(context.Background(), room, bob, "m.read", last, root); err != nil {
			t.Fatal(err)
		}
		want("the thread is read", get(first, byThread), `{"highlight_count":0,"notification_count":1}`, "")
		if err := w.sync.SetReceipt(context.Background(), room, bob, "m.read.private", last, ""); err != nil {
			t.Fatal(err)
		}
		want("all is read", get(first, nil), `{"highlight_count":0,"notification_count":0}`, "")
	})
}
