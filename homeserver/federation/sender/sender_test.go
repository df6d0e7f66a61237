// SPDX-License-Identifier: Apache-2.0

package sender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// peer is the other server: it takes transactions as it is told to, and remembers what it took.
type peer struct {
	mu       sync.Mutex
	away     bool
	lose     bool // takes it, and the answer is lost
	refuse   string
	txns     map[string]bool
	seen     []string
	twice    int
	attempts int
	largest  int
	changed  chan struct{}
}

func newPeer() *peer { return &peer{txns: map[string]bool{}, changed: make(chan struct{}, 1)} }

func (p *peer) Do(_ context.Context, a federation.Ask) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}()
	p.attempts++
	if p.away {
		return nil, errors.New("no route to host")
	}
	var in transaction
	if err := json.Unmarshal(a.Body, &in); err != nil {
		return nil, err
	}
	if p.refuse != "" && strings.Contains(string(a.Body), p.refuse) {
		return nil, signalling.Refuse(http.StatusBadRequest, "M_BAD_JSON", "no")
	}
	p.largest = max(p.largest, len(in.PDUs)+len(in.EDUs))
	if !p.txns[a.Path] { // as servers do: the same transaction is worked on once
		p.txns[a.Path] = true
		for _, raw := range slices.Concat(in.PDUs, in.EDUs) {
			var e struct{ Content string }
			if err := json.Unmarshal(raw, &e); err != nil {
				return nil, err
			}
			if slices.Contains(p.seen, e.Content) {
				p.twice++
			}
			p.seen = append(p.seen, e.Content)
		}
	}
	if p.lose {
		p.lose = false
		return nil, errors.New("the answer was lost")
	}
	return []byte(`{"pdus":{}}`), nil
}

// await waits until the peer is as f says.
func (p *peer) await(t *testing.T, what string, f func() bool) {
	t.Helper()
	late := time.After(60 * time.Second)
	for {
		p.mu.Lock()
		ok := f()
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-p.changed:
		case <-late:
			t.Fatalf("waited in vain until %s; it has seen %d", what, len(p.seen))
		}
	}
}

func (p *peer) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// running is a Sender at work; stop ends it as a crash would: nothing is written any more.
func running(t *testing.T, store *storage.Store, p *peer, clock *clocktest.Clock) (s *Sender, stop func()) {
	t.Helper()
	s = New(Deps{Store: store, Client: p, Server: "here.org", Clock: clock, Log: slog.New(slog.DiscardHandler)})
	return s, run(t, s)
}

func run(t *testing.T, s *Sender) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func queue(t *testing.T, store *storage.Store, urgent bool, names ...string) {
	t.Helper()
	err := store.Write(context.Background(), func(tx *storage.Tx) error {
		for _, name := range names {
			pos, err := tx.NextPos()
			if err != nil {
				return err
			}
			if err := tx.InsertOutbox(storage.Queued{Destination: "there.org", Seq: pos, Urgent: urgent, Payload: fmt.Appendf(nil, `{"content":%q}`, name)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("%05d", i))
	}
	return out
}

func TestWhatWaitedForAnHourArrivesOnceAndInOrder(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, store *storage.Store) {
		p, clock := newPeer(), clocktest.At(time.Now())
		p.away = true
		s, stop := running(t, store, p, clock)
		names := numbered(2000)
		queue(t, store, false, names[:1000]...)
		s.Wake("there.org")
		p.await(t, "it was tried", func() bool { return p.attempts == 1 })
		queue(t, store, false, names[1000:]...)
		for range 60 { // an hour, minute by minute
			clock.Advance(time.Minute)
		}
		stop() // and the power goes
		p.set(func() { p.away, p.lose = false, true })
		s, _ = running(t, store, p, clock)
		p.await(t, "the answer was lost", func() bool { return !p.lose })
		awaitAsleep(t, s) // a lane that has not noted the loss yet would not hear the next line
		s.Alive("there.org")
		p.await(t, "all was seen", func() bool { return len(p.seen) == len(names) })
		if p.twice != 0 || !slices.Equal(p.seen, names) || p.largest > federation.MaxPDUs {
			t.Errorf("%d came twice, in order: %v, at most %d at once", p.twice, slices.Equal(p.seen, names), p.largest)
		}
	})
}

func TestAServerThatShowsLifeIsTriedAtOnce(t *testing.T) {
	store := storagetest.Open(t, storagetest.SQLiteURL(t))
	p, clock := newPeer(), clocktest.At(time.Now())
	p.away = true
	s := New(Deps{Store: store, Client: p, Server: "here.org", Clock: clock, Log: slog.New(slog.DiscardHandler)})
	returned := make(chan string, 10)
	s.Returned = func(server string) { returned <- server }
	run(t, s)
	queue(t, store, false, "a")
	s.Wake("there.org")
	p.await(t, "it was tried", func() bool { return p.attempts == 1 })
	p.set(func() { p.away = false })
	// The lane is asleep once its timer is set; what is queued does not wake it.
	awaitAsleep(t, s)
	s.Wake("there.org")
	s.Alive("there.org")
	p.await(t, "it was seen", func() bool { return len(p.seen) == 1 })
	if p.attempts != 2 {
		t.Errorf("%d attempts", p.attempts)
	}
	// By itself it finds the server again too, and says so once.
	p.set(func() { p.away = true })
	queue(t, store, false, "b")
	s.Wake("there.org")
	p.await(t, "it was tried again", func() bool { return p.attempts == 3 })
	awaitAsleep(t, s)
	p.set(func() { p.away = false })
	clock.Advance(time.Minute)
	p.await(t, "the other was seen", func() bool { return len(p.seen) == 2 })
	queue(t, store, false, "c")
	s.Wake("there.org")
	p.await(t, "the last was seen", func() bool { return len(p.seen) == 3 })
	for range 2 {
		if server := <-returned; server != "there.org" {
			t.Errorf("%s has returned", server)
		}
	}
	if len(returned) != 0 {
		t.Errorf("the server returned %d times more than it was away", len(returned))
	}
}

// awaitAsleep waits until the lane has noted that the server is away.
func awaitAsleep(t *testing.T, s *Sender) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		l := s.lane("there.org")
		l.mu.Lock()
		asleep := l.wait != nil
		l.mu.Unlock()
		if asleep {
			return
		}
	}
	t.Fatal("the lane does not sleep")
}

func TestCallsDoNotWaitBehindABacklog(t *testing.T) {
	store := storagetest.Open(t, storagetest.SQLiteURL(t))
	p, clock := newPeer(), clocktest.At(time.Now())
	queue(t, store, false, numbered(500)...)
	queue(t, store, true, "call")
	running(t, store, p, clock)
	p.await(t, "all was seen", func() bool { return len(p.seen) == 501 })
	if i := slices.Index(p.seen, "call"); i > federation.MaxPDUs {
		t.Errorf("the call came as number %d", i)
	}
	rest := slices.DeleteFunc(slices.Clone(p.seen), func(x string) bool { return x == "call" })
	if !slices.Equal(rest, numbered(500)) {
		t.Error("the rest is out of order")
	}
}

func TestWhatAServerRefusesForGoodIsLeftOutAlone(t *testing.T) {
	store := storagetest.Open(t, storagetest.SQLiteURL(t))
	p, clock := newPeer(), clocktest.At(time.Now())
	p.refuse = "00033"
	queue(t, store, false, numbered(120)...)
	running(t, store, p, clock)
	p.await(t, "the rest was seen", func() bool { return len(p.seen) == 119 })
	want := slices.DeleteFunc(numbered(120), func(x string) bool { return x == "00033" })
	if !slices.Equal(p.seen, want) {
		t.Errorf("seen: %v", p.seen)
	}
}

func TestOfMomentsOnlyTheNewestIsSent(t *testing.T) {
	store := storagetest.Open(t, storagetest.SQLiteURL(t))
	p, clock := newPeer(), clocktest.At(time.Now())
	s := New(Deps{Store: store, Client: p, Server: "here.org", Clock: clock, Log: slog.New(slog.DiscardHandler)})
	for i := range 4 {
		s.Moment("there.org", "typing", fmt.Appendf(nil, `{"content":"typing %d"}`, i))
	}
	for i := range 2 * maxMoments {
		s.Moment("there.org", fmt.Sprint("receipt ", i), fmt.Appendf(nil, `{"content":"receipt %d"}`, i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	p.await(t, "a lane's fill was seen", func() bool { return len(p.seen) >= maxMoments })
	if p.seen[0] != "typing 3" || len(p.seen) > maxMoments || p.largest > federation.MaxEDUs {
		t.Errorf("first %q of %d, at most %d at once", p.seen[0], len(p.seen), p.largest)
	}
}

func TestTheQueueForAServerThatIsGoneIsBounded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, store *storage.Store) {
		queue(t, store, false, numbered(100)...)
		if n, err := store.TrimOutbox(context.Background(), "there.org", 30); err != nil || n != 70 {
			t.Errorf("%d dropped, %v", n, err)
		}
		rows, err := store.Outbox(context.Background(), "there.org", 1000)
		if err != nil || len(rows) != 30 || string(rows[0].Payload) != `{"content":"00070"}` {
			t.Errorf("%d rows, %v", len(rows), err)
		}
		if n, err := store.TrimOutbox(context.Background(), "there.org", 30); err != nil || n != 0 {
			t.Errorf("%d dropped of a queue within its bound, %v", n, err)
		}
	})
}
