// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheRelaysSessionsAreListedAndEndedOverTheMetricsListener(t *testing.T) {
	leavesNothing(t)
	a, _ := start(t, testConfig(t, "turn.relay.addresses=127.0.0.1"))
	one := func() func() {
		t.Helper()
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		release, err := allocate(t, a, conn, a.Addr("turn.listen"))
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	defer one()()
	defer one()()
	h := a.private()
	ask := func(method, path, from, host string) (int, string) {
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr, r.Host = from, host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, c := range []struct{ from, host string }{
		{"192.0.2.1:5000", "127.0.0.1:9464"}, {"127.0.0.1:5000", "rebound.example:9464"}, {"127.0.0.1:5000", ""}, {"127.0.0.1:5000", "192.0.2.1"},
	} {
		for _, what := range []string{"GET /turn/sessions", "DELETE /turn/sessions/1", "DELETE /turn/sessions?user=@ann:localhost"} {
			method, path, _ := strings.Cut(what, " ")
			if code, text := ask(method, path, c.from, c.host); code != http.StatusForbidden || !strings.Contains(text, "M_FORBIDDEN") {
				t.Errorf("%s from %s to %q: %d %s", what, c.from, c.host, code, text)
			}
		}
	}
	code, text := ask("GET", "/turn/sessions?user=@ann:localhost", "127.0.0.1:5000", "localhost:9464")
	var list sessionList
	if err := json.Unmarshal([]byte(text), &list); code != 200 || err != nil || len(list.Sessions) != 2 || list.Sessions[0].User != "@ann:localhost" || list.Sessions[0].Device != "PHONE" {
		t.Fatalf("%d %s %v", code, text, err)
	}
	if _, text := ask("GET", "/turn/sessions?user=@nobody:localhost", "[::1]:5000", "[::1]:9464"); text != "{\"sessions\":[]}\n" {
		t.Errorf("of nobody: %s", text)
	}
	for path, want := range map[string]int{"/turn/sessions/999": 404, "/turn/sessions/x": 404, "/turn/sessions": 400} {
		if code, text := ask("DELETE", path, "127.0.0.1:5000", "127.0.0.1"); code != want {
			t.Errorf("DELETE %s: %d %s", path, code, text)
		}
	}
	if n := a.relay.server.AllocationCount(); n != 2 {
		t.Fatalf("%d sessions after refusals", n)
	}
	// The same through the command line, which asks over the wire.
	command := func(args ...string) (int, string) {
		var out bytes.Buffer
		args = append(append([]string{"turn"}, args...), "--set", "listen.metrics="+a.Addr("listen.metrics"), "--set", "data_dir="+t.TempDir())
		return run(args, streams{strings.NewReader(""), &out, &out}), out.String()
	}
	if code, out := command("sessions"); code != 0 || !strings.Contains(out, `"@ann:localhost"`) || strings.Count(out, "\n") != 3 {
		t.Errorf("%d %s", code, out)
	}
	if code, out := command("end", fmt.Sprint(list.Sessions[0].ID)); code != 0 || out != "1 ended\n" {
		t.Errorf("%d %s", code, out)
	}
	if code, out := command("end", fmt.Sprint(list.Sessions[0].ID)); code != 1 || !strings.Contains(out, "there is no session") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := command("end", "--user", "@ann:localhost"); code != 0 || out != "1 ended\n" {
		t.Errorf("%d %s", code, out)
	}
	if code, _ := command("end"); code == 0 {
		t.Error("end of nothing in particular")
	}
	if n := a.relay.server.AllocationCount(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}
