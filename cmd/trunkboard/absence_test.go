// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// freeAddress is a TCP address that nobody listens on, below the ports that the kernel gives away by itself: nobody takes it while the
// server that has it is down.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	for range 200 {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(20_000+rand.IntN(12_000))))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatalf("%s has no free port", host)
	return ""
}

// account makes a user of a server.
func (p *process) account(name string) *person {
	p.t.Helper()
	u := &person{t: p.t, base: p.base, http: &http.Client{}}
	in := u.must("POST", "/_matrix/client/v3/register", map[string]any{"username": name, "password": "a long password " + name, "auth": map[string]string{"type": "m.login.dummy"}})
	u.id, u.token = in.Get("user_id").Str, in.Get("access_token").Str
	return u
}

// insist is must for a server that may be killed meanwhile: what was not answered is asked again, with the same transaction id.
func (p *person) insist(method, path string, body any) gjson.Result {
	p.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		q, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, bytes.NewReader(raw))
		if err != nil {
			p.t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+p.token)
		a, err := p.http.Do(q)
		if err == nil {
			text, err := io.ReadAll(a.Body)
			_ = a.Body.Close()
			switch {
			case err != nil || a.StatusCode == http.StatusServiceUnavailable:
			case a.StatusCode == http.StatusOK:
				return gjson.ParseBytes(text)
			default:
				p.t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, text)
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s %s: no answer in two minutes: %v", method, path, err)
		}
	}
}

// A server is away for an hour while another goes on writing to it, and comes back. What waited arrives once and in the order in which it was
// written, whoever is killed meanwhile: the sender while it queues, the receiver and the sender while the queue drains. 10,000 events with
// TRUNKBOARD_TEST_LONG.
func TestDrillAServerIsAwayForAnHour(t *testing.T) {
	events := 400
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		events = 10_000
	}
	const letterEvery = 20 // one message to a device for so many events
	n := newInternet(t)
	here, there := n.process("127.77.2.1"), n.process("127.77.2.2")
	ann, bob := here.account("ann"), there.account("bob")
	device := bob.must("GET", "/_matrix/client/v3/account/whoami", nil).Get("device_id").Str
	room := ann.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?via="+url.QueryEscape(here.name), map[string]any{})
	first := ann.must("PUT", roomPath(room, "/send/m.room.message/first"), map[string]string{"msgtype": "m.text", "body": "before"}).Get("event_id").Str
	var letters []string
	seen := map[string]bool{}
	// look takes in what bob's next sync tells.
	look := func() {
		path := "/_matrix/client/v3/sync?timeout=1000&filter=" + url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`)
		if bob.since != "" {
			path += "&since=" + url.QueryEscape(bob.since)
		}
		out := bob.insist("GET", path, nil)
		bob.since = out.Get("next_batch").Str
		for _, e := range out.Get("to_device.events").Array() {
			letters = append(letters, e.Get("content.number").String())
		}
		for _, e := range out.Get("rooms.join." + escaped(room) + ".timeline.events").Array() {
			seen[e.Get("event_id").Str] = true
		}
	}
	for !seen[first] {
		look()
	}

	there.kill()
	crash := make(chan struct{})
	var said, sentLetters []string
	for i := range events {
		if i == events/2 {
			go func() { // in the middle of it, and the writer goes on
				defer close(crash)
				here.kill()
				here.start()
			}()
		}
		if i == events*3/4 {
			<-crash
		}
		said = append(said, ann.insist("PUT", roomPath(room, fmt.Sprintf("/send/m.room.message/t%d", i)), map[string]string{"msgtype": "m.text", "body": fmt.Sprint(i)}).Get("event_id").Str)
		if i%letterEvery == 0 {
			sentLetters = append(sentLetters, fmt.Sprint(i))
			ann.insist("PUT", fmt.Sprintf("/_matrix/client/v3/sendToDevice/org.example.letter/t%d", i), map[string]any{"messages": map[string]any{bob.id: map[string]any{device: map[string]string{"number": fmt.Sprint(i)}}}})
		}
	}
	for range 60 {
		here.leap(time.Minute)
	}

	there.ahead = time.Hour
	busy := here.cpu() + there.cpu()
	there.start()
	back := time.Now()
	// A sign of life is enough; the sender's clock stands as good as still, and its next try may be an hour away.
	bob.insist("PUT", roomPath(room, "/send/m.room.message/back"), map[string]string{"msgtype": "m.text", "body": "back"})
	arrived := func(part int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Minute); !slices.ContainsFunc(said[part:], func(id string) bool { return seen[id] }); look() {
			if time.Now().After(deadline) {
				t.Fatalf("event %d of %d, or a later one, has not arrived", part, events)
			}
		}
	}
	arrived(events / 3)
	there.kill()
	there.start()
	bob.insist("PUT", roomPath(room, "/send/m.room.message/again"), map[string]string{"msgtype": "m.text", "body": "again"})
	arrived(events * 2 / 3)
	here.kill()
	here.start()
	arrived(events - 1)
	took, used := time.Since(back), here.cpu()+there.cpu()-busy
	for deadline := time.Now().Add(2 * time.Minute); len(letters) < len(sentLetters) && time.Now().Before(deadline); {
		look()
	}
	if !slices.Equal(letters, sentLetters) {
		t.Errorf("messages to the device: %d of %d, or not in their order: %v", len(letters), len(sentLetters), letters)
	}

	// The room's history as bob reads it, the newest first.
	var history []string
	for from := ""; ; {
		page := bob.must("GET", roomPath(room, "/messages?dir=b&limit=100"+from), nil)
		for _, e := range page.Get("chunk").Array() {
			if e.Get("sender").Str == ann.id && e.Get("type").Str == "m.room.message" {
				history = append(history, e.Get("event_id").Str)
			}
		}
		if slices.Contains(history, first) || !page.Get("end").Exists() {
			break
		}
		from = "&from=" + url.QueryEscape(page.Get("end").Str)
	}
	slices.Reverse(history)
	if want := append([]string{first}, said...); !slices.Equal(history, want) {
		t.Errorf("%d events in the history, %d were sent, or they are in another order", len(history), len(want))
	}
	// And one that is said now comes as ever.
	last := ann.must("PUT", roomPath(room, "/send/m.room.message/last"), map[string]string{"msgtype": "m.text", "body": "after"}).Get("event_id").Str
	for deadline := time.Now().Add(2 * time.Minute); !seen[last]; look() {
		if time.Now().After(deadline) {
			t.Fatal("what was said after all has not arrived")
		}
	}
	t.Logf("drill away for an hour: events=%d letters=%d, starts of the sender %d, of the receiver %d; drained %v after the return, %v of processor time of both",
		events, len(letters), here.starts, there.starts, took.Round(time.Millisecond), used.Round(10*time.Millisecond))
}
