// SPDX-License-Identifier: Apache-2.0

package syncapi_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

func TestPresenceComesWithTheJoinAndOnesOwnIsNotRepeated(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		w := start(t, st)
		clock := signalling.SystemClock{}
		here := presence.NewMem(presence.Config{}, clock)
		defer here.Close()
		s := syncapi.New(syncapi.Deps{Store: st, Rooms: w.rooms, Presence: here, Clock: clock, Log: slog.New(slog.DiscardHandler)})
		st.Observe(s.Observe)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		online := func(user string) {
			if err := here.Set(ctx, presence.Update{UserID: user, DeviceID: "D", State: presence.Online}); err != nil {
				t.Fatal(err)
			}
		}
		next := ""
		seen := func(user string) map[string]int {
			b, err := s.Sync(ctx, &syncapi.Request{User: user, Device: "D", Since: next, Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			var a struct {
				Next     string `json:"next_batch"`
				Presence evs    `json:"presence"`
			}
			if err := json.Unmarshal(b, &a); err != nil {
				t.Fatal(err)
			}
			next = a.Next
			out := map[string]int{}
			for _, e := range a.Presence.Events {
				out[e.Sender]++
			}
			return out
		}
		room := w.room()
		w.send(room, member(bob, bob, "join"))
		online(carol)
		online(alice)
		if diff := cmp.Diff(map[string]int{alice: 1}, seen(alice)); diff != "" {
			t.Error(diff)
		}
		online(bob) // heard of after what alice's own sync set off
		if diff := cmp.Diff(map[string]int{bob: 1}, seen(alice)); diff != "" {
			t.Error(diff)
		}
		w.send(room, member(carol, carol, "join"))
		if diff := cmp.Diff(map[string]int{carol: 1}, seen(alice)); diff != "" {
			t.Error(diff)
		}
		next = ""
		if diff := cmp.Diff(map[string]int{alice: 1, bob: 1, carol: 1}, seen(alice)); diff != "" {
			t.Error(diff)
		}
	})
}
