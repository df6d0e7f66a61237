// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
)

func withMeetings(t *testing.T, o Options) http.Handler {
	t.Helper()
	h, err := serve(fstest.MapFS{
		"index.html":  {Data: []byte("<!doctype html><title>app</title>")},
		"meet.html":   {Data: []byte("<!doctype html><title>meet</title>")},
		"doctor.html": {Data: []byte("<!doctype html><title>doctor</title>")},
		"icon.svg":    {Data: []byte("<svg/>")},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestNamesOfMeetingsGetTheMeetingPageAndOthersTheirs(t *testing.T) {
	h := withMeetings(t, Options{})
	for target, page := range map[string]string{
		"/meet/weekly": "meet", "/meet/v1.2": "meet", "/meet/tenant/weekly": "meet", "/meet/%C3%BCbung%20eins": "meet", "/weekly": "meet", "/Team-Sync": "meet", "/weekly/": "meet", "/meet.html": "meet",
		"/": "app", "/meet": "meet", "/meet/": "meet", "/admin": "app", "/admin/": "app", "/Admin": "app", "/doctor": "doctor", "/room/x": "app", "/_other": "app",
	} {
		w := get(h, "GET", target)
		if w.Code != 200 || !strings.Contains(w.Body.String(), "<title>"+page+"<") {
			t.Errorf("%s: %d %s, want the page %s", target, w.Code, w.Body, page)
		}
	}
	for _, target := range []string{"/robots.txt", "/wp-login.php", "/weekly.js", "/.env"} {
		if w := get(h, "GET", target); w.Code != 404 {
			t.Errorf("%s: %d, want 404", target, w.Code)
		}
	}
}

func TestOnlyTheMeetingPageMayBeFramedAndOnlyByWhomTheOperatorNames(t *testing.T) {
	for _, c := range []struct {
		from []string
		want string
	}{
		{nil, "frame-ancestors 'self';"},
		{[]string{"https://wiki.example.org", "https://*.example.com:8443/path"}, "frame-ancestors 'self' https://wiki.example.org https://*.example.com:8443;"},
		{[]string{"https://wiki.example.org; script-src *", "wiki.example.org"}, "frame-ancestors 'self';"},
		{[]string{"https://wiki.example.org", "*"}, "frame-ancestors * file: app:;"},
	} {
		h := withMeetings(t, Options{EmbedFrom: c.from})
		if csp := get(h, "GET", "/meet/weekly").Header().Get("Content-Security-Policy"); !strings.Contains(csp, c.want) {
			t.Errorf("%v: %s", c.from, csp)
		}
		if csp := get(h, "GET", "/").Header().Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'self';") {
			t.Errorf("%v: the client's policy is %s", c.from, csp)
		}
	}
}

func TestTheMeetingPageRunsNoForeignCodeAndReachesItsSessions(t *testing.T) {
	h := withMeetings(t, Options{PublicURL: "https://call.example.org"})
	csp := get(h, "GET", "/weekly").Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none';", "script-src 'self' 'wasm-unsafe-eval';", "style-src 'self';", "connect-src 'self' blob: https://call.example.org wss://call.example.org;", "object-src 'none'"} {
		if !strings.Contains(csp, part) {
			t.Errorf("policy %q lacks %q", csp, part)
		}
	}
	if strings.Contains(csp, "unsafe-inline") || strings.Contains(csp, "'unsafe-eval'") {
		t.Errorf("policy %q", csp)
	}
	local := withMeetings(t, Options{PublicURL: "http://localhost:8008"})
	if csp := get(local, "GET", "/weekly").Header().Get("Content-Security-Policy"); !strings.Contains(csp, "connect-src 'self' blob: http://localhost:8008 ws://localhost:8008;") {
		t.Errorf("policy %q", csp)
	}
}
