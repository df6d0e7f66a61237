// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"log/slog"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestKeysAreClaimedInTheOrderTheyWereUploaded(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"one_time_keys": p.oneTime(7, 1)})
		h.mustUpload(p, object{"one_time_keys": p.oneTime(3, 1)})
		for _, want := range []string{"signed_curve25519:0007", "signed_curve25519:0003", ""} {
			if name, _ := h.claim(alice, "PHONE"); name != want {
				t.Errorf("claimed %q, want %q", name, want)
			}
		}
		got, err := h.Claim(ctx, e2ee.Claims{alice: {"PHONE": "signed_curve25519", "NONE": "signed_curve25519"}, bob: {"X": "y"}})
		h.must(err)
		if len(got.OneTimeKeys) != 0 || len(got.Failures) != 0 {
			t.Errorf("got %+v, want nothing at all", got)
		}
	})
}

func TestTheFallbackKeyIsGivenAgainAndAgainUntilReplaced(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		h.counts(alice, "PHONE", 0)
		fallback := p.oneTime(90, 1)
		h.mustUpload(p, object{"one_time_keys": p.oneTime(0, 1), "fallback_keys": fallback})
		h.counts(alice, "PHONE", 1, "signed_curve25519")
		if name, _ := h.claim(alice, "PHONE"); name != "signed_curve25519:0000" {
			t.Errorf("claimed %q before the one-time key", name)
		}
		h.counts(alice, "PHONE", 0, "signed_curve25519")
		for range 2 {
			if name, _ := h.claim(alice, "PHONE"); name != "signed_curve25519:0090" {
				t.Errorf("claimed %q, want the fallback key", name)
			}
			h.counts(alice, "PHONE", 0)
		}
		h.mustUpload(p, object{"fallback_keys": fallback})
		h.counts(alice, "PHONE", 0) // the same key stays used
		h.mustUpload(p, object{"fallback_keys": p.oneTime(91, 1)})
		h.counts(alice, "PHONE", 0, "signed_curve25519")
		if name, _ := h.claim(alice, "PHONE"); name != "signed_curve25519:0091" {
			t.Errorf("claimed %q, want the new fallback key", name)
		}
	})
}

// Two nodes on one database, many claims at once: no key twice, none lost.
func TestEachOneTimeKeyIsHandedOutOnce(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteURL, "postgres": storagetest.PostgresURL} {
		t.Run(name, func(t *testing.T) {
			u := url(t)
			nodes := []*house{open(t, storagetest.Open(t, u))}
			if name == "postgres" {
				nodes = append(nodes, open(t, storagetest.Open(t, u)))
			}
			p := nodes[0].device(alice, "PHONE")
			const keys, claims = 80, 100
			nodes[0].mustUpload(p, object{"one_time_keys": p.oneTime(0, keys), "fallback_keys": p.oneTime(9000, 1)})
			var mu sync.Mutex
			seen := map[string]int{}
			var wg sync.WaitGroup
			for i := range claims {
				wg.Go(func() {
					n := nodes[i%len(nodes)]
					got, err := n.Claim(ctx, e2ee.Claims{alice: {"PHONE": "signed_curve25519"}})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					for name := range got.OneTimeKeys[alice]["PHONE"] {
						seen[name]++
					}
				})
			}
			wg.Wait()
			if len(seen) != keys+1 {
				t.Errorf("%d different keys, want %d and the fallback key", len(seen), keys)
			}
			for name, n := range seen {
				if want := map[bool]int{false: 1, true: claims - keys}[name == "signed_curve25519:9000"]; n != want {
					t.Errorf("%s was handed out %d times, want %d", name, n, want)
				}
			}
		})
	}
}

// Counts come from memory; whatever is going on, they are right once it is over.
func TestKeyCountsFollowUploadsAndClaims(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p := h.device(alice, "PHONE")
		var wg sync.WaitGroup
		for i := range 20 {
			body := object{"one_time_keys": p.oneTime(10*i, 5)}
			wg.Go(func() {
				if _, err := h.upload(p, body); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := h.Claim(ctx, e2ee.Claims{alice: {"PHONE": "signed_curve25519"}}); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, _, err := h.KeyCounts(ctx, alice, "PHONE"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		kept, _, err := h.KeyCounts(ctx, alice, "PHONE")
		h.must(err)
		stored, _, err := h.store.KeyCounts(ctx, alice, "PHONE")
		h.must(err)
		if kept["signed_curve25519"] != stored["signed_curve25519"] {
			t.Errorf("memory says %v, the database %v", kept, stored)
		}
	})
}

func TestANoteTellsWhoseCountsAndListsChanged(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		type note struct {
			Kind         storage.NoteKind
			User, Device string
		}
		notes := make(chan note, 100)
		last := int64(0)
		h.store.Observe(func(pos int64, list []storage.Note) {
			for _, n := range list {
				if n.Pos < last || n.Pos > pos {
					t.Errorf("note at %d after %d, newest %d", n.Pos, last, pos)
				}
				last = n.Pos
				notes <- note{n.Kind, n.User, n.Device}
			}
		})
		expect := func(want ...note) {
			t.Helper()
			var got []note
			for len(notes) > 0 {
				got = append(got, <-notes)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		p := h.device(alice, "PHONE")
		h.mustUpload(p, object{"device_keys": p.deviceKeys(), "one_time_keys": p.oneTime(0, 1)})
		expect(note{storage.NoteDeviceList, alice, ""}, note{storage.NoteKeyCounts, alice, "PHONE"})
		h.mustUpload(p, object{"device_keys": p.deviceKeys()})
		expect()
		h.claim(alice, "PHONE")
		expect(note{storage.NoteKeyCounts, alice, "PHONE"})
		h.claim(alice, "PHONE")
		expect() // there was none
	})
}

// Users of other servers: a second service plays the other server.
func TestUsersOfOtherServersAreFailuresUntilThereIsFederation(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		const dora = "@dora:other.org"
		got := h.query(alice, alice, dora)
		if _, ok := got.DeviceKeys[dora]; ok || got.Failures["other.org"].Code != "M_UNAVAILABLE" {
			t.Errorf("got %+v", got)
		}
		claimed, err := h.Claim(ctx, e2ee.Claims{dora: {"X": "signed_curve25519"}})
		h.must(err)
		if claimed.Failures["other.org"].Message != "federation is not available" {
			t.Errorf("got %+v", claimed)
		}
		h.must(h.SendToDevice(ctx, alice, "PHONE", "m.test", "1", e2ee.Messages{dora: {"*": []byte(`{}`)}}))

		there := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
		there.Service = e2ee.New(there.store, "other.org", slog.New(slog.DiscardHandler), e2ee.Deps{})
		p := there.device(dora, "X")
		there.mustUpload(p, object{"device_keys": p.deviceKeys(), "one_time_keys": p.oneTime(0, 1)})
		here := open(t, h.store)
		here.Service = e2ee.New(h.store, "example.org", slog.New(slog.DiscardHandler), e2ee.Deps{Remote: bridge{there.Service}})
		if got := here.query(alice, dora); got.DeviceKeys[dora]["X"].Keys["ed25519:X"] != public(p.key) || len(got.Failures) != 0 {
			t.Errorf("got %+v", got)
		}
		if name, _ := here.claim(dora, "X"); name != "signed_curve25519:0000" {
			t.Errorf("claimed %q", name)
		}
		h.must(here.SendToDevice(ctx, alice, "PHONE", "m.test", "2", e2ee.Messages{dora: {"*": []byte(`{"a":1}`)}}))
		msgs, _, err := there.ToDevice(ctx, dora, "X", 0, there.store.Pos(), 10)
		h.must(err)
		if len(msgs) != 1 || string(msgs[0]) != `{"content":{"a":1},"sender":"@alice:example.org","type":"m.test"}` {
			t.Errorf("got %s", msgs)
		}
	})
}
