// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestAServerThatHangsHoldsUpNobodyElse: one server fills its lanes in every room with work that does not end; others are served in the
// same rooms meanwhile, and what it may take up is bounded.
func TestAServerThatHangsHoldsUpNobodyElse(t *testing.T) {
	free := make(chan struct{})
	var mu sync.Mutex
	hanging, most := 0, 0
	l := newLanes(func(ctx context.Context, j *job) {
		if j.origin != "evil.test" {
			return
		}
		mu.Lock()
		hanging++
		most = max(most, hanging)
		mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
		}
		mu.Lock()
		hanging--
		mu.Unlock()
	})
	defer l.close()
	var evil []*job
	for i := range 3 * lanesBusy {
		j := &job{origin: "evil.test", room: fmt.Sprintf("!%d", i%(2*lanesBusy)), size: 1000, done: make(chan struct{})}
		if err := l.put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		evil = append(evil, j)
	}
	// Its share of the memory is its own: more of it waits, and gives up.
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := l.put(short, &job{origin: "evil.test", room: "!large", size: serverByte, done: make(chan struct{})}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("more than its share: %v", err)
	}
	for i := range 2 * lanesBusy {
		j := &job{origin: "good.test", room: fmt.Sprintf("!%d", i), size: serverByte, done: make(chan struct{})}
		if err := l.put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		select {
		case <-j.done:
		case <-time.After(60 * time.Second):
			t.Fatal("a server waits behind one that hangs")
		}
		if j.failed != nil {
			t.Error(j.failed)
		}
	}
	close(free)
	for _, j := range evil {
		<-j.done
	}
	if most > serverBusy {
		t.Errorf("%d lanes of one server were at work", most)
	}
	l.close()
	if len(l.servers) != 0 || len(l.queue) != 0 {
		t.Errorf("left: %d servers, %d lanes", len(l.servers), len(l.queue))
	}
	if err := l.put(t.Context(), &job{origin: "good.test", done: make(chan struct{})}); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v", err)
	}
}

func TestALaneKeepsItsOrderAndIsBounded(t *testing.T) {
	first := make(chan struct{})
	var mu sync.Mutex
	var seen []int64
	l := newLanes(func(_ context.Context, j *job) {
		<-first
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, j.size)
	})
	defer l.close()
	var jobs []*job
	var full error
	for i := range laneLength + 2 {
		j := &job{origin: "a.test", room: "!r", size: int64(i), done: make(chan struct{})}
		if full = l.put(t.Context(), j); full != nil {
			break
		}
		jobs = append(jobs, j)
	}
	if !errors.Is(full, errFull) && len(jobs) < laneLength+2 {
		t.Errorf("after %d jobs: %v", len(jobs), full)
	}
	close(first)
	for i, j := range jobs {
		<-j.done
		mu.Lock()
		if seen[i] != int64(i) {
			t.Fatalf("job %d was number %d", seen[i], i)
		}
		mu.Unlock()
	}
	if n := len(jobs); n < laneLength || n > laneLength+1 {
		t.Errorf("%d jobs wait in one lane", n)
	}
}
