// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// home is a client API over real accounts in a real store.
type home struct {
	t     testing.TB
	store *storage.Store
	acc   *accounts.Service
	clock *clocktest.Clock
	url   string
	log   *syncBuffer
	stop  func() // ends what runs beside the API
}

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// forget empties the log.
func (s *syncBuffer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newHome(t testing.TB, s *storage.Store, change ...func(*accounts.Config, *Deps)) *home {
	t.Helper()
	h := &home{t: t, store: s, clock: clocktest.New(), log: &syncBuffer{}}
	cfg := accounts.Config{Server: "test", Open: true, Cost: accounts.CostMinimum}
	d := Deps{Config: Config{ServerName: "test"}, Clock: h.clock, Log: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, f := range change {
		f(&cfg, &d)
	}
	var err error
	if h.acc, err = accounts.New(context.Background(), s, cfg, h.clock, d.Log); err != nil {
		t.Fatal(err)
	}
	d.Accounts = h.acc
	srv := httptest.NewServer(recorded(t, New(d)))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

// eachHome runs f on both engines.
func eachHome(t *testing.T, f func(h *home), change ...func(*accounts.Config, *Deps)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, s *storage.Store) { f(newHome(t, s, change...)) })
}

type answer struct {
	t      testing.TB
	what   string
	status int
	body   string
	m      map[string]any
}

// do sends a request; a body that is not a string is encoded.
func (h *home) do(method, path, token string, body any) answer {
	h.t.Helper()
	text, ok := body.(string)
	if body != nil && !ok {
		b, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		text = string(b)
	}
	if first, _, _ := strings.Cut(path[1:], "/"); first == "v3" || first == "v1" || first == "r0" || first == "unstable" {
		path = "/_matrix/client" + path
	}
	status, _, got := raw(h.t, h.url, method, path, token, text)
	a := answer{h.t, method + " " + path + " " + text[:min(len(text), 100)], status, got, nil}
	_ = json.Unmarshal([]byte(got), &a.m)
	return a
}

// ok checks for 200 and gives the answer.
func (a answer) ok() answer {
	a.t.Helper()
	if a.status != 200 {
		a.t.Fatalf("%s: %d %s", a.what, a.status, a.body)
	}
	return a
}

func (a answer) refused(status int, code string) answer {
	a.t.Helper()
	wantError(a.t, a.what, a.status, a.body, status, code)
	return a
}

// challenged checks for the 401 of interactive authentication and gives its session.
func (a answer) challenged(code string, stages ...string) string {
	a.t.Helper()
	var c struct {
		Flows []struct {
			Stages []string `json:"stages"`
		} `json:"flows"`
		Params  map[string]any `json:"params"`
		Session string         `json:"session"`
		Code    string         `json:"errcode"`
	}
	if err := json.Unmarshal([]byte(a.body), &c); err != nil {
		a.t.Fatalf("%s: %s", a.what, a.body)
	}
	if a.status != 401 || c.Session == "" || c.Params == nil || len(c.Flows) != 1 || !cmp.Equal(c.Flows[0].Stages, stages) || c.Code != code {
		a.t.Errorf("%s: %d %s, want a challenge for %v, code %q", a.what, a.status, a.body, stages, code)
	}
	return c.Session
}

func (a answer) str(key string) string {
	s, _ := a.m[key].(string)
	return s
}

const pw = "correct horse"

// register makes an account and gives its token and device.
func (h *home) register(name string) (token, device string) {
	h.t.Helper()
	a := h.do("POST", "/v3/register", "", map[string]any{"username": name, "password": pw, "auth": map[string]any{"type": "m.login.dummy"}}).ok()
	return a.str("access_token"), a.str("device_id")
}

func (h *home) login(name, password string, more map[string]any) answer {
	h.t.Helper()
	in := map[string]any{"type": "m.login.password", "identifier": map[string]any{"type": "m.id.user", "user": name}, "password": password}
	for k, v := range more {
		in[k] = v
	}
	return h.do("POST", "/v3/login", "", in)
}

func passwordAuth(user, session string) map[string]any {
	return map[string]any{"type": "m.login.password", "identifier": map[string]any{"type": "m.id.user", "user": user}, "password": pw, "session": session}
}
