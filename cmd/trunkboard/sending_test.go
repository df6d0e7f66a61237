// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/redistest"
)

// turnstile stands before a server and writes down which transactions come.
type turnstile struct {
	mu       sync.Mutex
	inside   int
	overlaps int
	txns     int
	times    map[string]int // how often each thing was said: the body of a message, the number of a letter
	said     []string       // bodies in the order in which they came first
}

func (g *turnstile) take(body []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.txns++
	if g.inside++; g.inside > 1 {
		g.overlaps++
	}
	in := gjson.ParseBytes(body)
	for _, e := range in.Get("pdus").Array() {
		if b := e.Get("content.body").Str; b != "" {
			if g.times[b]++; g.times[b] == 1 {
				g.said = append(g.said, b)
			}
		}
	}
	for _, e := range in.Get("edus").Array() {
		if e.Get("edu_type").Str == "m.direct_to_device" {
			g.times["letter "+e.Get("content.message_id").Str]++
		}
	}
}

// gateway serves TLS as name at its address and hands everything on to a server behind it.
func (n *internet) gateway(name, behind string) *turnstile {
	n.t.Helper()
	g := &turnstile{times: map[string]int{}}
	files := n.config(name)
	var cert, key string
	for _, x := range files {
		if f, ok := strings.CutPrefix(x, "tls.certificate="); ok {
			cert = f
		}
		if f, ok := strings.CutPrefix(x, "tls.key="); ok {
			key = f
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Clean(cert), filepath.Clean(key))
	if err != nil {
		n.t.Fatal(err)
	}
	l, err := tls.Listen("tcp", name, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		n.t.Fatal(err)
	}
	on := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: behind})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, // it is this test's own
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" && strings.HasPrefix(r.URL.Path, "/_matrix/federation/v1/send/") {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			g.take(body)
			defer func() { g.mu.Lock(); g.inside--; g.mu.Unlock() }()
		}
		on.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	n.t.Cleanup(func() { _ = s.Close(); <-done })
	return g
}

// Two nodes of one server, as processes, write to a room of another server. Each transaction comes once and none beside another; when the
// node that sends is killed, the other goes on within seconds, and what both had queued arrives, in order.
func TestDrillOfTwoNodesOneSendsUntilItIsKilled(t *testing.T) {
	const each = 40
	n := newInternet(t)
	redis := redistest.Start(t)
	shared := []string{"database.url=" + storagetest.PostgresURL(t), "redis.url=" + redis.URL()}
	name := freeAddress(t, "127.77.3.1")
	one := n.processOf("127.77.3.1", name, name, shared...)
	two := n.processOf("127.77.3.2", name, freeAddress(t, "127.77.3.2"), shared...)
	outside := freeAddress(t, "127.77.3.3")
	behind := freeAddress(t, "127.77.3.4")
	there := n.processOf("127.77.3.3", outside, behind)
	g := n.gateway(outside, behind)

	ann, bob := one.account("ann"), there.account("bob")
	amy := two.account("amy")
	device := bob.must("GET", "/_matrix/client/v3/account/whoami", nil).Get("device_id").Str
	room := ann.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
	amy.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room)+"?via="+url.QueryEscape(name), map[string]any{})

	letters := 0
	// say has both nodes write at the same time, and says in which order what each wrote was accepted.
	say := func(who map[string]*person) map[string][]string {
		t.Helper()
		var mu sync.Mutex
		out := map[string][]string{}
		var work sync.WaitGroup
		for label, p := range who {
			work.Go(func() {
				for i := range each {
					body := fmt.Sprintf("%s %03d", label, i)
					p.insist("PUT", roomPath(room, "/send/m.room.message/"+url.PathEscape(body)), map[string]string{"msgtype": "m.text", "body": body})
					mu.Lock()
					out[label] = append(out[label], body)
					mu.Unlock()
				}
			})
			letters++
			p.insist("PUT", fmt.Sprintf("/_matrix/client/v3/sendToDevice/org.example.letter/%s", label), map[string]any{"messages": map[string]any{bob.id: map[string]any{device: map[string]string{"from": label}}}})
		}
		work.Wait()
		return out
	}
	arrived := func(what map[string][]string) time.Duration {
		t.Helper()
		began := time.Now()
		// The receiver is another process: its list of messages is asked for until it is whole.
		for deadline := began.Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			g.mu.Lock()
			missing := 0
			for _, list := range what {
				for _, b := range list {
					if g.times[b] == 0 {
						missing++
					}
				}
			}
			g.mu.Unlock()
			if missing == 0 {
				return time.Since(began)
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d messages have not been sent", missing)
			}
		}
	}
	ordered := func(what map[string][]string) {
		t.Helper()
		g.mu.Lock()
		defer g.mu.Unlock()
		for label, list := range what {
			var got []string
			for _, b := range g.said {
				if strings.HasPrefix(b, label+" ") {
					got = append(got, b)
				}
			}
			if !slices.Equal(got, list) {
				t.Errorf("%s: %d messages came, or in another order than was written", label, len(got))
			}
		}
	}

	first := say(map[string]*person{"ann": ann, "amy": amy})
	arrived(first)
	ordered(first)
	g.mu.Lock()
	for what, times := range g.times {
		if times != 1 {
			t.Errorf("%q was sent %d times", what, times)
		}
	}
	if g.overlaps > 0 {
		t.Errorf("%d transactions came beside another", g.overlaps)
	}
	t.Logf("%d messages of two nodes in %d transactions", 2*each, g.txns)
	g.mu.Unlock()

	// The node that sends is killed, with things of both nodes on their way. Which one it was shows in whether the other can go on without a
	// pause: both are tried.
	for i, victim := range []*process{one, two} {
		left := map[string]*person{"amy": amy}
		if victim == two {
			left = map[string]*person{"ann": ann}
		}
		more := map[string]*person{}
		for label, p := range left {
			more[fmt.Sprintf("%s after %d", label, i)] = p
		}
		crash := make(chan struct{})
		go func() { defer close(crash); victim.kill() }()
		what := say(more)
		<-crash
		took := arrived(what)
		ordered(what)
		t.Logf("the last of what was written while a node was killed was sent %v after it", took.Round(time.Millisecond))
		victim.start()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.overlaps > 0 {
		t.Errorf("%d transactions came beside another", g.overlaps)
	}
	// A node that is killed may have sent what it could not cross out any more: one transaction. The second kill may meet the one that repeats
	// what the first one cut off.
	for what, times := range g.times {
		kills := 2
		if strings.Contains(what, " after 1 ") {
			kills = 1
		}
		if times > 1+kills {
			t.Errorf("%q was sent %d times", what, times)
		}
	}
	// What bob has, in the end: each letter and each message once.
	got := map[string]int{}
	for deadline := time.Now().Add(time.Minute); len(got) < letters; {
		path := "/_matrix/client/v3/sync?timeout=1000"
		if bob.since != "" {
			path += "&since=" + url.QueryEscape(bob.since)
		}
		out := bob.must("GET", path, nil)
		bob.since = out.Get("next_batch").Str
		for _, e := range out.Get("to_device.events").Array() {
			got[e.Get("content.from").Str]++
		}
		if time.Now().After(deadline) {
			t.Fatalf("letters: %v of %d", got, letters)
		}
	}
	for from, times := range got {
		if times != 1 {
			t.Errorf("the letter of %q came %d times", from, times)
		}
	}
}
