// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// sink is a ResponseWriter that keeps nothing but the status.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// benchAPI is the API over accounts in SQLite, with one user logged in.
func benchAPI(t testing.TB) (api *API, token string) {
	h := newHome(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	token, _ = h.register("alice")
	return New(Deps{Config: Config{ServerName: "test"}, Clock: h.clock, Accounts: h.acc, ICE: issuer{[]string{"turn:test:3478?transport=udp", "turn:test:3478?transport=tcp", "turns:test:5349"}}}), token
}

func get(path, token string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// What the frame costs before and after a handler: one request from the mux to the last byte, without a network.
func BenchmarkWhoami(b *testing.B)     { benchGet(b, "/_matrix/client/v3/account/whoami") }
func BenchmarkTurnServer(b *testing.B) { benchGet(b, "/_matrix/client/v3/voip/turnServer") }

func benchGet(b *testing.B, path string) {
	api, token := benchAPI(b)
	r := get(path, token)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		api.ServeHTTP(w, r)
	}
	if w.status != 200 {
		b.Fatal(w.status)
	}
}

// BenchmarkTurnServerOverTCP is the same over kept connections, client and server in one process.
func BenchmarkTurnServerOverTCP(b *testing.B) {
	api, token := benchAPI(b)
	srv := httptest.NewServer(api)
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := http.NewRequest("GET", srv.URL+"/_matrix/client/v3/voip/turnServer", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			res, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	})
}

func TestARequestOfAKnownTokenAllocatesLittleAndAsksNoDatabase(t *testing.T) {
	api, token := benchAPI(t)
	r := get("/_matrix/client/v3/voip/turnServer", token)
	w := &sink{header: http.Header{}}
	api.ServeHTTP(w, r)
	if w.status != 200 {
		t.Fatal(w.status)
	}
	n := testing.AllocsPerRun(200, func() { clear(w.header); api.ServeHTTP(w, r) })
	if n > 20 {
		t.Errorf("%v allocations", n)
	}
}

func TestAnUnknownUserTakesAsLongAsAWrongPassword(t *testing.T) {
	h := newHome(t, storagetest.Open(t, storagetest.SQLiteURL(t)), func(c *accounts.Config, _ *Deps) { c.Cost = accounts.CostStandard })
	h.register("alice")
	// In turn, and the fastest of each, so that what else the machine does hits both; without the hash, nobody would be answered a
	// hundred times quicker.
	there, not := time.Hour, time.Hour
	once := func(name string, best *time.Duration) {
		started := time.Now()
		h.login(name, "wrong horse", nil).refused(403, "M_FORBIDDEN")
		*best = min(*best, time.Since(started))
	}
	var ratio float64
	for range 20 {
		once("alice", &there)
		once("nobody", &not)
		if ratio = float64(there) / float64(not); ratio > 0.7 && ratio < 1.4 {
			return
		}
	}
	t.Errorf("alice %v, nobody %v: a stranger can tell who has an account", there, not)
}

// The decoders that a stranger reaches: whatever he sends, the answer is a refusal or a success, never a failure of ours.
func FuzzLoginBody(f *testing.F) {
	f.Add(`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"correct horse","device_id":"D","refresh_token":true}`)
	f.Add(`{"type":"m.login.password","user":"@alice:test","password":"","initial_device_display_name":"x"}`)
	f.Add(`{"type":"m.login.token","token":""}`)
	fuzzPost(f, "/_matrix/client/v3/login")
}

func FuzzRegisterBody(f *testing.F) {
	f.Add(`{"username":"bob","password":"correct horse","auth":{"type":"m.login.dummy","session":"x"},"inhibit_login":true}`)
	f.Add(`{"auth":{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"x"}}`)
	f.Add(`{}`)
	fuzzPost(f, "/_matrix/client/v3/register")
}

func fuzzPost(f *testing.F, path string) {
	api, _ := benchAPI(f)
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
		if w.Code >= 500 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
