// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/matrix"
)

const senders = 4

// traffic is users who send without a pause, and what they were told.
type traffic struct {
	t     *testing.T
	hs    *matrix.Server
	users []*matrix.User
	room  string
	from  string // the position of the room before the first message that was not checked yet

	mu    sync.Mutex
	acked map[string]string // event id -> body, as acknowledged
	seen  map[string]string // body -> event id, as read
	files map[string]string // place of an upload -> content, as acknowledged and not checked yet
	first chan struct{}     // closed at the first acknowledgement after resume
	again []pending         // by user: the send whose answer was lost

	stop context.CancelFunc
	done sync.WaitGroup

	lost, doubled, foreign int
	uploads, spoilt        int
}

type pending struct{ txn, body string }

// newTraffic makes the users and their room on a running server.
func newTraffic(t *testing.T, s *server) *traffic {
	t.Helper()
	hs, err := matrix.Open(s.url(), secret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hs.Close)
	tr := &traffic{t: t, hs: hs, acked: map[string]string{}, seen: map[string]string{}, files: map[string]string{}, again: make([]pending, senders)}
	for i := range senders {
		u, err := hs.Register(t.Context(), fmt.Sprint("sender", i))
		if err != nil {
			t.Fatal(err)
		}
		tr.users = append(tr.users, u)
	}
	if tr.room, err = tr.users[0].CreateRoom(t.Context(), tr.users[1:]...); err != nil {
		t.Fatal(err)
	}
	if _, tr.from, err = tr.users[0].Sync(t.Context(), "", "", 0); err != nil {
		t.Fatal(err)
	}
	return tr
}

// resume lets everybody send.
func (tr *traffic) resume() {
	ctx, cancel := context.WithCancel(tr.t.Context())
	tr.stop = cancel
	first := make(chan struct{})
	tr.first = first
	told := sync.OnceFunc(func() { close(first) })
	tr.done.Go(func() {
		for ctx.Err() == nil {
			content := "file " + tr.hs.Txn() + strings.Repeat(" of some length", 500)
			at, err := tr.users[0].Upload(tr.t.Context(), []byte(content))
			if err != nil {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			tr.mu.Lock()
			tr.files[at] = content
			tr.mu.Unlock()
		}
	})
	for i, u := range tr.users {
		tr.done.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				p := tr.again[i]
				if p.txn == "" {
					txn := tr.hs.Txn()
					p = pending{txn, fmt.Sprintf("message %s of %s", txn, u.ID)}
				}
				// Not cancelled by pause: an answer that comes is counted.
				id, err := u.Send(tr.t.Context(), tr.room, "m.room.message", p.txn, []byte(`{"msgtype":"m.text","body":"`+p.body+`"}`))
				if err != nil {
					tr.again[i] = p
					time.Sleep(5 * time.Millisecond) // the server is down; whoever drills brings it back
					continue
				}
				tr.again[i] = pending{}
				tr.mu.Lock()
				tr.acked[id] = p.body
				tr.mu.Unlock()
				told()
			}
		})
	}
}

// pause stops the sending and waits for the last answers.
func (tr *traffic) pause() {
	tr.stop()
	tr.done.Wait()
}

// sending waits for the first acknowledgement since resume.
func (tr *traffic) sending(within time.Duration) bool {
	select {
	case <-tr.first:
		return true
	case <-time.After(within):
		return false
	}
}

func (tr *traffic) ackedCount() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.acked)
}

type page struct {
	End   string `json:"end"`
	Chunk []struct {
		ID      string `json:"event_id"`
		Type    string `json:"type"`
		Content struct {
			Body string `json:"body"`
		} `json:"content"`
	} `json:"chunk"`
}

// check reads what was stored since the last check: every acknowledged event must be there, no message twice, and every
// acknowledged upload whole.
func (tr *traffic) check() {
	tr.t.Helper()
	read := map[string]bool{} // event ids of this check; the last page of the one before is read again
	for {
		var p page
		path := "/_matrix/client/v3/rooms/" + url.PathEscape(tr.room) + "/messages?dir=f&limit=500&from=" + url.QueryEscape(tr.from)
		if err := tr.users[0].Do(tr.t.Context(), "GET", path, tr.users[0].Token, nil, &p); err != nil {
			tr.t.Fatal(err)
		}
		for _, e := range p.Chunk {
			if e.Type != "m.room.message" {
				continue
			}
			if old := tr.seen[e.Content.Body]; (old != "" && old != e.ID) || read[e.ID] {
				tr.doubled++
				tr.t.Errorf("%q is stored twice: %s and %s", e.Content.Body, old, e.ID)
			}
			read[e.ID] = true
			tr.seen[e.Content.Body] = e.ID
		}
		if len(p.Chunk) == 0 || p.End == "" {
			break
		}
		tr.from = p.End
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for at, content := range tr.files {
		got, err := tr.users[3].Download(tr.t.Context(), at)
		if tr.uploads++; err != nil || string(got) != content {
			tr.spoilt++
			tr.t.Errorf("upload %s was acknowledged and is not as it was: %d bytes of %d, %v", at, len(got), len(content), err)
		}
	}
	clear(tr.files)
	for id, body := range tr.acked {
		switch tr.seen[body] {
		case id:
		case "":
			tr.lost++
			tr.t.Errorf("%s was acknowledged and is not there", id)
		default:
			tr.foreign++
			tr.t.Errorf("%s was acknowledged and is there as %s", id, tr.seen[body])
		}
	}
}

// checkAll reads the room from its beginning, and some events by their ids.
func (tr *traffic) checkAll() {
	tr.t.Helper()
	found := map[string]int{}
	for from := ""; ; {
		var p page
		path := "/_matrix/client/v3/rooms/" + url.PathEscape(tr.room) + "/messages?dir=b&limit=500"
		if from != "" {
			path += "&from=" + url.QueryEscape(from)
		}
		if err := tr.users[1].Do(tr.t.Context(), "GET", path, tr.users[1].Token, nil, &p); err != nil {
			tr.t.Fatal(err)
		}
		for _, e := range p.Chunk {
			if e.Type == "m.room.message" {
				found[e.Content.Body]++
			}
		}
		if len(p.Chunk) == 0 || p.End == "" {
			break
		}
		from = p.End
	}
	for body, n := range found {
		if n != 1 {
			tr.doubled++
			tr.t.Errorf("%q stands %d times in the room", body, n)
		}
	}
	n := 0
	for id, body := range tr.acked {
		if found[body] == 0 {
			tr.lost++
			tr.t.Errorf("%s is not in the room any more", id)
		}
		if n++; n <= 50 {
			if err := tr.users[2].Do(tr.t.Context(), "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(tr.room)+"/event/"+url.PathEscape(id), tr.users[2].Token, nil, nil); err != nil {
				tr.lost++
				tr.t.Errorf("%s cannot be read: %v", id, err)
			}
		}
	}
}
