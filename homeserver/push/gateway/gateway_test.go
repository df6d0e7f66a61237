// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func serve(t *testing.T, f http.HandlerFunc) *url.URL {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL + Path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func client(t *testing.T, allow []netip.Prefix) *Client {
	c := New(allow)
	t.Cleanup(c.Close)
	return c
}

func TestAGatewayIsToldAndItsRejectionsAreRead(t *testing.T) {
	var got map[string]any
	to := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != Path || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(`{"rejected":["k1"]}`))
	})
	n := &Notification{EventID: "$e", RoomID: "!r", Prio: "high", Counts: &Counts{Unread: 2}, Devices: []Device{{AppID: "a", PushKey: "k1", PushKeyTS: 5, Tweaks: map[string]any{"sound": "ring"}}}}
	rejected, err := client(t, loopback).Notify(t.Context(), to, n)
	if err != nil || len(rejected) != 1 || rejected[0] != "k1" {
		t.Fatalf("%v %v", rejected, err)
	}
	want := map[string]any{"notification": map[string]any{
		"event_id": "$e", "room_id": "!r", "prio": "high", "counts": map[string]any{"unread": 2.0, "missed_calls": 0.0},
		"devices": []any{map[string]any{"app_id": "a", "pushkey": "k1", "pushkey_ts": 5.0, "tweaks": map[string]any{"sound": "ring"}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestGatewaysAreAskedAtPublicAddressesOverHTTPSOnly(t *testing.T) {
	var asked atomic.Int64
	to := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	port := to.Port()
	closed := client(t, nil)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1"} {
		for _, scheme := range []string{"http", "https"} {
			u := &url.URL{Scheme: scheme, Host: host + ":" + port, Path: Path}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if _, err := closed.Notify(ctx, u, &Notification{}); err == nil {
				t.Errorf("%s was asked", u)
			}
			cancel()
		}
	}
	if asked.Load() != 0 {
		t.Error("the gateway was reached")
	}
	// Where some range is allowed, plain HTTP still goes nowhere else.
	other := client(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	if _, err := other.Notify(t.Context(), to, &Notification{}); err == nil || asked.Load() != 0 {
		t.Errorf("plain HTTP outside of the allowed ranges: %v", err)
	}
	for text, ok := range map[string][2]bool{
		"https://push.example.org" + Path:       {true, true},
		"https://push.example.org:8443" + Path:  {true, true},
		"http://push.example.org" + Path:        {false, true},
		"https://push.example.org/other":        {false, false},
		"https://u:p@push.example.org" + Path:   {false, false},
		"ftp://push.example.org" + Path:         {false, false},
		"https://" + Path:                       {false, false},
		"https://:443" + Path:                   {false, false},
		"file:///etc/passwd":                    {false, false},
		"gopher://127.0.0.1:6379" + Path:        {false, false},
		"https://x" + Path + "#" + "frag":       {false, false},
		"https://" + strings.Repeat("x", 3000):  {false, false},
		"https://push.example.org" + Path + "/": {false, false},
	} {
		for i, c := range []*Client{closed, other} {
			if _, err := c.Check(text); (err == nil) != ok[i] {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

func TestRedirectsOfAGatewayAreNotFollowed(t *testing.T) {
	var inside atomic.Int64
	secret := serve(t, func(http.ResponseWriter, *http.Request) { inside.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		to := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secret.String(), status) })
		_, err := client(t, loopback).Notify(t.Context(), to, &Notification{})
		var refused *Refused
		if !errors.As(err, &refused) || refused.Status != status || refused.Hopeless() {
			t.Errorf("%d: %v", status, err)
		}
	}
	if inside.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestAGatewayThatAnswersWithoutEndCostsLittle(t *testing.T) {
	var sent atomic.Int64
	ended := make(chan struct{})
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		block := make([]byte, 1<<20)
		for range 10 << 10 { // 10 GiB
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	start := time.Now()
	rejected, err := client(t, loopback).Notify(t.Context(), to, &Notification{})
	if err != nil || rejected != nil {
		t.Errorf("%v %v", rejected, err)
	}
	<-ended
	if n := sent.Load(); n > 64<<20 || time.Since(start) > Patience {
		t.Errorf("%d bytes were taken in %v", n, time.Since(start))
	}
}

func TestAGatewayThatNeverAnswersIsLeft(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := client(t, loopback)
	c.local.Timeout = 50 * time.Millisecond
	to := &url.URL{Scheme: "http", Host: l.Addr().String(), Path: Path}
	if _, err := c.Notify(t.Context(), to, &Notification{}); err == nil {
		t.Error("silence was taken for an answer")
	}
	if c.open.Timeout != Patience {
		t.Errorf("the time for an exchange is %v", c.open.Timeout)
	}
}

func TestWhatAGatewayRefusesForGoodIsToldApart(t *testing.T) {
	for status, hopeless := range map[int]bool{400: true, 413: true, 422: true, 401: false, 404: false, 429: false, 500: false, 503: false} {
		to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
		})
		_, err := client(t, loopback).Notify(t.Context(), to, &Notification{})
		var refused *Refused
		if !errors.As(err, &refused) || refused.Status != status || refused.Hopeless() != hopeless || refused.After != 7*time.Second {
			t.Errorf("%d: %+v", status, err)
		}
	}
}

func FuzzRejected(f *testing.F) {
	for _, s := range []string{`{"rejected":["a","b"]}`, `{"rejected":[1,null,"x"]}`, `{"rejected":{}}`, `{}`, `null`, `[`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, key := range Rejected(answer) {
			if key == "" || len(key) > 3*len(answer) {
				t.Errorf("%q rejects %q", answer, key)
			}
		}
	})
}
