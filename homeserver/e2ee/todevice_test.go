// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func (h *house) send(user, id, txn string, m e2ee.Messages) {
	h.t.Helper()
	h.must(h.SendToDevice(ctx, user, id, "m.test", txn, m))
}

// waiting lists what a device would get from a position on.
func (h *house) waiting(user, id string, after int64) (out []string) {
	h.t.Helper()
	got, _, err := h.ToDevice(ctx, user, id, after, h.store.Pos(), 1000)
	h.must(err)
	for _, m := range got {
		out = append(out, string(m))
	}
	return out
}

// drained waits until what was queued before has been written.
func (h *house) drained() {
	h.t.Helper()
	h.must(h.store.Write(ctx, func(*storage.Tx) error { return nil }))
}

func body(s string) json.RawMessage { return json.RawMessage(s) }

func message(sender, content string) string {
	return fmt.Sprintf(`{"content":%s,"sender":"%s","type":"m.test"}`, content, sender)
}

func TestMessagesReachTheDevicesTheyNameAndNoOthers(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		for _, d := range []string{"A", "B", "C"} {
			h.login(alice, d, "")
		}
		h.login(bob, "DESK", "")
		h.login(carol, "A", "")
		h.send(bob, "DESK", "1", e2ee.Messages{
			alice:                 {"*": body(`{"to":"all"}`), "B": body(`{"to":"B"}`), "GONE": body(`{"to":"nobody"}`)},
			bob:                   {"*": body(`{"to":"me"}`)},
			"@nobody:example.org": {"*": body(`{}`), "X": body(`{}`)},
		})
		for _, c := range []struct {
			user, id string
			want     []string
		}{
			{alice, "A", []string{message(bob, `{"to":"all"}`)}},
			{alice, "B", []string{message(bob, `{"to":"B"}`)}},
			{alice, "C", []string{message(bob, `{"to":"all"}`)}},
			{bob, "DESK", []string{message(bob, `{"to":"me"}`)}},
			{carol, "A", nil},
		} {
			if diff := cmp.Diff(c.want, h.waiting(c.user, c.id, 0)); diff != "" {
				t.Errorf("%s %s: %s", c.user, c.id, diff)
			}
		}
		h.login(alice, "GONE", "")
		if got := h.waiting(alice, "GONE", 0); got != nil {
			t.Errorf("a device that came later got %v", got)
		}
	})
}

func TestMessagesComeInOrderAndInPages(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.login(alice, "A", "")
		var want []string
		for i := range 25 {
			h.send(bob, "DESK", fmt.Sprint(i), e2ee.Messages{alice: {"A": body(fmt.Sprintf(`{"n":%d}`, i))}})
			want = append(want, message(bob, fmt.Sprintf(`{"n":%d}`, i)))
		}
		var got []string
		var pages []int
		at, upTo := int64(0), h.store.Pos()
		h.send(bob, "DESK", "later", e2ee.Messages{alice: {"A": body(`{}`)}})
		for {
			page, last, err := h.ToDevice(ctx, alice, "A", at, upTo, 10)
			h.must(err)
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				got = append(got, string(m))
			}
			pages = append(pages, len(page))
			h.must(h.DeleteToDevice(ctx, alice, "A", last))
			at = last
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]int{10, 10, 5}, pages); diff != "" {
			t.Error(diff)
		}
		h.drained()
		if got := h.waiting(alice, "A", 0); len(got) != 1 {
			t.Errorf("what was received is still there: %v", got)
		}
	})
}

func TestATransactionSendsOnceAlsoAfterARestart(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteURL, "postgres": storagetest.PostgresURL} {
		t.Run(name, func(t *testing.T) {
			u := url(t)
			m := e2ee.Messages{alice: {"*": body(`{"a":1}`)}}
			h := open(t, storagetest.Open(t, u))
			h.login(alice, "A", "")
			var wg sync.WaitGroup
			for range 8 { // at once
				wg.Go(func() {
					if err := h.SendToDevice(ctx, bob, "DESK", "m.test", "txn", m); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			h = open(t, storagetest.Open(t, u)) // another process finds the same
			h.send(bob, "DESK", "txn", m)
			if got := h.waiting(alice, "A", 0); len(got) != 1 {
				t.Errorf("sent %d times", len(got))
			}
			h.send(bob, "PHONE", "txn", m) // another device's ids are its own
			h.send(carol, "DESK", "txn", m)
			h.must(h.SendToDevice(ctx, bob, "DESK", "m.other", "txn", m)) // another endpoint
			if got := h.waiting(alice, "A", 0); len(got) != 4 {
				t.Errorf("%d messages, want 4", len(got))
			}
		})
	}
}

func TestOldTransactionsAreForgotten(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	h.login(alice, "A", "")
	m := e2ee.Messages{alice: {"A": body(`{}`)}}
	h.send(bob, "DESK", "txn", m)
	fill := func() {
		for i := range 1024 {
			h.send(bob, "DESK", fmt.Sprint(h.clock.Now().Unix(), i), nil)
		}
		h.drained()
	}
	h.clock.Advance(6 * 24 * time.Hour)
	fill()
	h.send(bob, "DESK", "txn", m)
	if got := h.waiting(alice, "A", 0); len(got) != 1 {
		t.Fatalf("%d messages after six days, want 1", len(got))
	}
	h.clock.Advance(2 * 24 * time.Hour)
	fill()
	h.send(bob, "DESK", "txn", m)
	if got := h.waiting(alice, "A", 0); len(got) != 2 {
		t.Fatalf("%d messages after eight days, want 2: the id is free again", len(got))
	}
}

func TestAcknowledgedMessagesAreDeletedForThatDeviceAlone(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.login(alice, "A", "")
		h.login(alice, "B", "")
		for i := range 3 {
			h.send(bob, "DESK", fmt.Sprint(i), e2ee.Messages{alice: {"*": body(`{}`)}})
		}
		_, last, err := h.ToDevice(ctx, alice, "A", 0, h.store.Pos(), 2)
		h.must(err)
		h.must(h.DeleteToDevice(ctx, alice, "A", last))
		h.must(h.DeleteToDevice(ctx, alice, "A", last))
		h.must(h.DeleteToDevice(ctx, bob, "A", h.store.Pos())) // has none
		h.drained()
		if got := h.waiting(alice, "A", 0); len(got) != 1 {
			t.Errorf("A has %d, want 1", len(got))
		}
		if got := h.waiting(alice, "B", 0); len(got) != 3 {
			t.Errorf("B has %d, want 3", len(got))
		}
		again := open(t, h.store) // a service that remembers nothing
		again.must(again.DeleteToDevice(ctx, alice, "B", h.store.Pos()))
		again.drained()
		if got := again.waiting(alice, "B", 0); len(got) != 0 {
			t.Errorf("B has %d, want none", len(got))
		}
		again.send(bob, "DESK", "new", e2ee.Messages{alice: {"B": body(`{}`)}})
		if got := again.waiting(alice, "B", 0); len(got) != 1 {
			t.Errorf("B has %d, want the new one", len(got))
		}
	})
}

func TestANoteCarriesTheMessage(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.login(alice, "A", "")
		h.login(alice, "B", "")
		var got []string
		h.store.Observe(func(pos int64, notes []storage.Note) {
			for _, n := range notes {
				got = append(got, fmt.Sprintf("%d %d %s %s %s", n.Kind, n.Pos-pos, n.User, n.Device, n.Value.(json.RawMessage)))
			}
		})
		h.send(bob, "DESK", "1", e2ee.Messages{alice: {"*": body(`{}`), "GONE": body(`{}`)}})
		h.send(bob, "DESK", "1", e2ee.Messages{alice: {"*": body(`{}`)}})
		slices.Sort(got)
		want := []string{
			fmt.Sprintf("%d 0 %s A %s", storage.NoteToDevice, alice, message(bob, `{}`)),
			fmt.Sprintf("%d 0 %s B %s", storage.NoteToDevice, alice, message(bob, `{}`)),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAQueueKeepsItsNewestMessages(t *testing.T) {
	h := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	h.login(alice, "A", "")
	h.login(alice, "B", "")
	const extra = 300
	h.must(h.store.Write(ctx, func(tx *storage.Tx) error {
		for range e2ee.MaxWaiting + extra {
			pos, err := tx.NextPos()
			if err != nil {
				return err
			}
			if _, err := tx.PutToDevice(pos, []storage.ToDeviceMessage{{User: alice, Device: "A", Event: body(`{}`)}}); err != nil {
				return err
			}
		}
		return nil
	}))
	for i := range 64 { // one of these looks
		h.send(bob, "DESK", fmt.Sprint(i), e2ee.Messages{alice: {"*": body(`{"n":1}`)}})
	}
	got, _, err := h.ToDevice(ctx, alice, "A", 0, h.store.Pos(), 2*e2ee.MaxWaiting)
	h.must(err)
	if len(got) < e2ee.MaxWaiting || len(got) > e2ee.MaxWaiting+64 {
		t.Errorf("%d messages wait", len(got))
	}
	if last := string(got[len(got)-1]); last != message(bob, `{"n":1}`) {
		t.Errorf("the newest is %s", last)
	}
	if got := h.waiting(alice, "B", 0); len(got) != 64 {
		t.Errorf("B has %d, want 64", len(got))
	}
}

func TestTrimmingLeavesTheNewest(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.login(alice, "A", "")
		h.login(alice, "B", "")
		for i := range 9 {
			h.send(bob, "DESK", fmt.Sprint(i), e2ee.Messages{alice: {"*": body(fmt.Sprintf(`{"n":%d}`, i))}})
		}
		for _, c := range []struct{ keep, gone int }{{20, 0}, {9, 0}, {3, 6}, {3, 0}} {
			var gone int64
			h.must(h.store.Write(ctx, func(tx *storage.Tx) (err error) {
				gone, err = tx.TrimToDevice(alice, "A", c.keep)
				return err
			}))
			if gone != int64(c.gone) {
				t.Errorf("keeping %d removed %d, want %d", c.keep, gone, c.gone)
			}
		}
		want := []string{message(bob, `{"n":6}`), message(bob, `{"n":7}`), message(bob, `{"n":8}`)}
		if diff := cmp.Diff(want, h.waiting(alice, "A", 0)); diff != "" {
			t.Error(diff)
		}
		if got := h.waiting(alice, "B", 0); len(got) != 9 {
			t.Errorf("B has %d, want 9", len(got))
		}
	})
}

func TestSendToDeviceRefusesWrongShapesAndSizes(t *testing.T) {
	many := map[string]object{alice: {}}
	for i := range e2ee.MaxTargets + 1 {
		many[alice][fmt.Sprint(i)] = object{}
	}
	h := &house{t: t}
	for name, c := range map[string]struct {
		body any
		code string
	}{
		"no messages":      {object{}, "M_BAD_JSON"},
		"a list":           {object{"messages": []int{}}, "M_BAD_JSON"},
		"devices a list":   {object{"messages": object{alice: []string{"A"}}}, "M_BAD_JSON"},
		"content a string": {object{"messages": object{alice: object{"A": "x"}}}, "M_BAD_JSON"},
		"content null":     {object{"messages": object{alice: object{"A": nil}}}, "M_BAD_JSON"},
		"not a user":       {object{"messages": object{"alice": object{"A": object{}}}}, "M_INVALID_PARAM"},
		"no device":        {object{"messages": object{alice: object{"": object{}}}}, "M_INVALID_PARAM"},
		"NUL":              {object{"messages": object{alice: object{"\x00": object{}}}}, "M_INVALID_PARAM"},
		"a long device":    {object{"messages": object{alice: object{strings.Repeat("x", 256): object{}}}}, "M_INVALID_PARAM"},
		"a large message":  {object{"messages": object{alice: object{"A": object{"x": strings.Repeat("x", e2ee.MaxMessage)}}}}, "M_TOO_LARGE"},
		"many devices":     {object{"messages": many}, "M_TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e2ee.DecodeMessages(encode(c.body))
			(&house{t: t}).refuses(err, c.code)
		})
	}
	s := open(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	h.refuses(s.SendToDevice(ctx, bob, "DESK", "m.test", strings.Repeat("x", 256), nil), "M_INVALID_PARAM")
	h.refuses(s.SendToDevice(ctx, bob, "DESK", strings.Repeat("x", 256), "1", nil), "M_INVALID_PARAM")
}

// A call of 50: each member sends a media key to each of the 49 others.
func TestFiftyMembersSendTheirKeysToEachOther(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		const members = 50
		user := func(i int) string { return fmt.Sprintf("@m%02d:example.org", i) }
		for i := range members {
			h.login(user(i), "D", "")
		}
		var wg sync.WaitGroup
		for i := range members {
			wg.Go(func() {
				m := e2ee.Messages{}
				for j := range members {
					if j != i {
						m[user(j)] = map[string]json.RawMessage{"D": body(fmt.Sprintf(`{"from":%d,"to":%d}`, i, j))}
					}
				}
				if err := h.SendToDevice(ctx, user(i), "D", "m.test", "1", m); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for j := range members {
			got := h.waiting(user(j), "D", 0)
			var want []string
			for i := range members {
				if i != j {
					want = append(want, message(user(i), fmt.Sprintf(`{"from":%d,"to":%d}`, i, j)))
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: %s", user(j), diff)
			}
		}
	})
}

func BenchmarkSendToDeviceTo49(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteURL, "postgres": storagetest.PostgresURL} {
		b.Run(name, func(b *testing.B) {
			h := open(b, storagetest.Open(b, url(b)))
			m := e2ee.Messages{}
			for i := range 49 {
				user := fmt.Sprintf("@m%02d:example.org", i)
				h.login(user, "D", "")
				m[user] = map[string]json.RawMessage{"D": body(fmt.Sprintf(`{"n":%d,"x":%q}`, i, strings.Repeat("x", 300)))}
			}
			n := 0
			for b.Loop() {
				n++
				h.send(bob, "DESK", fmt.Sprint(n), m)
				if n%20 == 0 { // the devices collect what they were sent
					b.StopTimer()
					for user := range m {
						h.must(h.DeleteToDevice(ctx, user, "D", h.store.Pos()))
					}
					h.drained()
					b.StartTimer()
				}
			}
		})
	}
}
