// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

func newServer(t *testing.T) (url, key, secret string, engine *sfu.Engine) {
	t.Helper()
	tr, err := transport.Listen(transport.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	key, secret = "key", "a secret of thirty-two characters"
	engine = sfu.New(sfu.Config{Transport: tr})
	server := livekit.New(livekit.Config{Engine: engine, Keys: livekit.Keys{key: secret}, AutoCreate: true})
	ts := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		engine.Close()
		server.Close()
		ts.Close()
		tr.Close()
	})
	return "ws" + strings.TrimPrefix(ts.URL, "http"), key, secret, engine
}

func TestParticipantsLoadARoomAndAllLeave(t *testing.T) {
	url, key, secret, engine := newServer(t)
	for name, s := range map[string]Scenario{
		"sound to three":   {Publishers: 1, Listeners: 3, Audio: true},
		"a meeting of two": {Publishers: 2, Audio: true, Video: true, Meeting: true},
		"nobody speaks":    {Listeners: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s.URL, s.Key, s.Secret, s.Label, s.Kbps, s.Warm, s.Duration = url, key, secret, "here", 300, 100*time.Millisecond, time.Second
			r, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want := s.Publishers + s.Listeners; r.Joined != want || !strings.Contains(r.Rows, "let in") {
				t.Errorf("%d joined, want %d: %s", r.Joined, want, r.Rows)
			}
			if (r.Forwarded > 0) != s.Audio {
				t.Errorf("%s", r.Note)
			}
			for end := time.Now().Add(patience); engine.Totals().Participants > 0; {
				if time.Now().After(end) {
					t.Fatalf("%d participants are left", engine.Totals().Participants)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

func TestARefusedTokenEndsTheRun(t *testing.T) {
	url, key, _, _ := newServer(t)
	s := Scenario{URL: url, Key: key, Secret: "another secret of thirty-two chars", Listeners: 1, Kbps: 300, Duration: time.Second}
	if _, err := s.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestScenariosThatGoTooFarAreRefused(t *testing.T) {
	good := Scenario{URL: "ws://127.0.0.1:1", Listeners: 1, Kbps: 300, Duration: time.Second}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Scenario){
		"another host":     func(s *Scenario) { s.URL = "ws://192.0.2.1:7880" },
		"another scheme":   func(s *Scenario) { s.URL = "http://127.0.0.1:7880" },
		"nobody":           func(s *Scenario) { s.Listeners = 0 },
		"a crowd":          func(s *Scenario) { s.Listeners = MaxParticipants + 1 },
		"for an hour":      func(s *Scenario) { s.Duration = time.Hour },
		"pictures of 1 GB": func(s *Scenario) { s.Kbps = 8_000_000 },
	} {
		s := good
		change(&s)
		if s.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
