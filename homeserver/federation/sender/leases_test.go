// SPDX-License-Identifier: Apache-2.0

package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// alone is a peer that notices when two transactions come at the same time.
type alone struct {
	*peer
	inside  atomic.Int32
	overlap atomic.Bool
	hang    chan struct{} // not nil: it answers nothing before this is closed
	hung    atomic.Int32
	cut     atomic.Int32 // transactions that were cut off
}

func (p *alone) Do(ctx context.Context, a federation.Ask) ([]byte, error) {
	if p.inside.Add(1) > 1 {
		p.overlap.Store(true)
	}
	defer p.inside.Add(-1)
	if p.hang != nil {
		select {
		case <-p.hang:
		default:
			p.hung.Add(1)
			select {
			case <-p.hang:
			case <-ctx.Done():
				p.cut.Add(1)
				return nil, ctx.Err()
			}
		}
	}
	time.Sleep(time.Millisecond) // a server takes its time, so that two that send at once would meet; nothing waits for it
	return p.peer.Do(ctx, a)
}

// node is one of several: a store of its own on the same database, and a Sender.
type node struct {
	store *storage.Store
	s     *Sender
	stop  func()
}

// nodes makes n of them, which hear of each other's commits.
func nodes(t *testing.T, n int, p Asker, ttl time.Duration) []*node {
	t.Helper()
	url := storagetest.PostgresURL(t)
	var all []*node
	for range n {
		x := &node{store: storagetest.Open(t, url)}
		x.s = New(Deps{Store: x.store, Client: p, Server: "here.org", Clock: clocktest.At(time.Now()), Log: slog.New(slog.DiscardHandler), LeaseTTL: ttl})
		all = append(all, x)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for i, x := range all {
		hints := make(chan struct{}, 1)
		working.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-hints:
				}
				for j, y := range all {
					if j != i {
						_ = y.store.CatchUp(ctx)
					}
				}
			}
		})
		x.store.Share(fmt.Sprint("node ", i), func(list []storage.Announcement) ([]storage.Note, error) {
			for _, a := range list {
				if a.Kind == storage.NoteSending || a.Kind == storage.NoteLost {
					x.s.Hear(a)
				}
			}
			return nil, nil
		}, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
	}
	t.Cleanup(func() { cancel(); working.Wait() })
	for _, x := range all {
		x.stop = run(t, x.s)
	}
	return all
}

func TestOfTwoNodesOneSendsToAServer(t *testing.T) {
	p := &alone{peer: newPeer()}
	two := nodes(t, 2, p, 0)
	names := numbered(300)
	for i, name := range names {
		x := two[i%2]
		queue(t, x.store, false, name)
		x.s.Wake("there.org")
	}
	p.await(t, "all was seen", func() bool { return len(p.seen) == len(names) })
	if p.twice != 0 || p.overlap.Load() || !slices.Equal(p.seen, names) {
		t.Errorf("%d came twice, two at the same time: %v, in order: %v", p.twice, p.overlap.Load(), slices.Equal(p.seen, names))
	}

	// What is of the moment comes from the node whose server it is, which hears of it like every other.
	owner := slices.IndexFunc(two, func(x *node) bool { return !x.s.leases.others("there.org") })
	two[1-owner].s.Moment("there.org", "typing", []byte(`{"content":"from the other"}`))
	two[owner].s.Moment("there.org", "typing", []byte(`{"content":"from the owner"}`))
	p.await(t, "the moment was seen", func() bool { return slices.Contains(p.seen, "from the owner") })

	// One leaves: the other goes on at once.
	two[owner].stop()
	queue(t, two[1-owner].store, false, "after")
	two[1-owner].s.Wake("there.org")
	p.await(t, "what came after was seen", func() bool { return slices.Contains(p.seen, "after") })
	if slices.Contains(p.seen, "from the other") || p.twice != 0 || p.overlap.Load() {
		t.Errorf("%d came twice, two at the same time: %v; the end: %v", p.twice, p.overlap.Load(), p.seen[len(names):])
	}
}

func TestWhatADeadNodeHadIsSentByAnother(t *testing.T) {
	p := &alone{peer: newPeer()}
	store := storagetest.Open(t, storagetest.PostgresURL(t))
	queue(t, store, false, "a", "b")
	if err := store.Write(context.Background(), func(tx *storage.Tx) error {
		if _, err := tx.BeatSending("dead", time.Second); err != nil {
			return err
		}
		_, err := tx.ClaimSending("there.org", "dead")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := New(Deps{Store: store, Client: p, Server: "here.org", Clock: clocktest.At(time.Now()), Log: slog.New(slog.DiscardHandler), LeaseTTL: time.Second})
	run(t, s)
	p.await(t, "what the dead node had was seen", func() bool { return slices.Equal(p.seen, []string{"a", "b"}) })
}

func TestANodeThatTheDatabaseDoesNotHearStopsSending(t *testing.T) {
	p := &alone{peer: newPeer(), hang: make(chan struct{})}
	one := nodes(t, 1, p, time.Second)[0]
	queue(t, one.store, false, "a")
	one.s.Wake("there.org")
	eventually(t, "it is being sent", func() bool { return p.hung.Load() > 0 })
	stuck, free := make(chan struct{}), make(chan struct{})
	if err := one.store.Enqueue(func(*storage.Tx) error { close(stuck); <-free; return nil }, func(error) {}); err != nil {
		t.Fatal(err)
	}
	<-stuck
	eventually(t, "it was cut off", func() bool { return p.cut.Load() > 0 && p.inside.Load() == 0 })
	if _, _, err := one.s.leases.hold(context.Background(), "there.org"); !errors.Is(err, errElsewhere) {
		t.Errorf("it may still send: %v", err)
	}
	close(p.hang)
	close(free)
	p.await(t, "it was sent after all", func() bool { return slices.Contains(p.seen, "a") })
}

func TestAnyNodeHearsThatAServerShowsLife(t *testing.T) {
	p := &alone{peer: newPeer()}
	two := nodes(t, 2, p, 0)
	p.set(func() { p.away = true })
	queue(t, two[0].store, false, "a")
	two[0].s.Wake("there.org")
	p.await(t, "it was tried", func() bool { return p.attempts > 0 })
	owner := -1
	eventually(t, "one of them waits", func() bool { // the clock stands: by itself it does not try again
		owner = slices.IndexFunc(two, func(x *node) bool {
			l := x.s.lane("there.org")
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.wait != nil
		})
		return owner >= 0
	})
	other := two[1-owner]
	eventually(t, "the other node knows that somebody waits", func() bool {
		l := other.s.leases
		l.mu.Lock()
		defer l.mu.Unlock()
		_, ok := l.away["there.org"]
		return ok
	})
	p.set(func() { p.away = false })
	other.s.Alive("there.org")
	p.await(t, "it was seen", func() bool { return slices.Equal(p.seen, []string{"a"}) })
}

// eventually waits for what nothing tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
