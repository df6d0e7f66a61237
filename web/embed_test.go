// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

var script = strings.Repeat("console.log('ring');\n", 200)

func built(t *testing.T) http.Handler {
	t.Helper()
	h, err := serve(fstest.MapFS{
		"index.html":             {Data: []byte("<!doctype html><title>app</title>")},
		"assets/index-4f3a1b.js": {Data: []byte(script)},
		"assets/crypto.wasm":     {Data: []byte("\x00asm")},
		"icon.svg":               {Data: []byte("<svg/>")},
		".keep":                  {},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPathsOfTheApplicationGetItsPage(t *testing.T) {
	h := built(t)
	for _, target := range []string{"/", "/index.html", "/meet/weekly", "/meet/v1.2", "/admin/", "/room/x", "/../etc"} {
		w := get(h, "GET", target)
		if w.Code != 200 || !strings.Contains(w.Body.String(), "<title>app") || w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v %s", target, w.Code, w.Header(), w.Body)
		}
	}
	for _, target := range []string{"/assets/index-old.js", "/.keep", "/favicon.ico", "/wp-login.php"} {
		if w := get(h, "GET", target); w.Code != 404 {
			t.Errorf("%s: %d, want 404", target, w.Code)
		}
	}
	if w := get(h, "POST", "/"); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestHashedFilesAreCachedForeverAndCompressed(t *testing.T) {
	h := built(t)
	plain := get(h, "GET", "/assets/index-4f3a1b.js")
	if plain.Body.String() != script || !strings.Contains(plain.Header().Get("Cache-Control"), "immutable") || plain.Header().Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("%v", plain.Header())
	}
	small := get(h, "GET", "/assets/index-4f3a1b.js", "Accept-Encoding", "br, gzip;q=0.8")
	if small.Header().Get("Content-Encoding") != "gzip" || small.Body.Len() > len(script)/2 {
		t.Fatalf("not compressed: %v, %d bytes", small.Header(), small.Body.Len())
	}
	z, err := gzip.NewReader(bytes.NewReader(small.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || string(b) != script {
		t.Fatal(err, len(b))
	}
	if w := get(h, "GET", "/assets/index-4f3a1b.js", "Accept-Encoding", "gzip;q=0"); w.Header().Get("Content-Encoding") != "" {
		t.Error("gzip was refused and sent nevertheless")
	}
	if w := get(h, "GET", "/assets/index-4f3a1b.js", "Accept-Encoding", "gzip", "Range", "bytes=0-6"); w.Code != 206 || w.Body.String() != "console" {
		t.Error(w.Code, w.Body)
	}
	for _, tag := range []string{plain.Header().Get("ETag"), small.Header().Get("ETag")} {
		encoding := "identity"
		if strings.Contains(tag, "gzip") {
			encoding = "gzip"
		}
		if w := get(h, "GET", "/assets/index-4f3a1b.js", "Accept-Encoding", encoding, "If-None-Match", tag); w.Code != 304 || w.Body.Len() != 0 {
			t.Errorf("%s: %d", tag, w.Code)
		}
	}
	if plain.Header().Get("ETag") == small.Header().Get("ETag") {
		t.Error("two representations share an ETag")
	}
}

func TestEveryAnswerCarriesTheSecurityHeaders(t *testing.T) {
	unbuilt, err := serve(fstest.MapFS{".keep": {}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := built(t)
	for name, w := range map[string]*httptest.ResponseRecorder{
		"page": get(h, "GET", "/"), "file": get(h, "GET", "/icon.svg"), "missing": get(h, "GET", "/x.js"), "unbuilt": get(unbuilt, "GET", "/"),
	} {
		csp := w.Header().Get("Content-Security-Policy")
		// The encryption is WebAssembly: without its own keyword no browser would compile it, and the wider one would allow eval.
		if !strings.Contains(csp, "script-src 'self' 'wasm-unsafe-eval';") {
			t.Errorf("%s: policy %q does not let the encryption run", name, csp)
		}
		if csp != fmt.Sprintf(contentSecurityPolicy, "") || strings.Contains(csp, "unsafe-inline") || strings.Contains(csp, "'unsafe-eval'") {
			t.Errorf("%s: policy %q", name, csp)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", name, w.Header())
		}
	}
	if w := get(unbuilt, "GET", "/"); w.Code != 404 || !strings.Contains(w.Body.String(), "make build") {
		t.Error(w.Code, w.Body)
	}
}
