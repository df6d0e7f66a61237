// SPDX-License-Identifier: Apache-2.0

// Package e2e runs LiveKit's clients, unmodified, against the SFU: livekit-client in Chromium and the Rust stack.
package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/web/browsertest"
)

const bundle = "node_modules/livekit-client/dist/livekit-client.umd.js"

// TestLiveKitClientInChromium lets the browser test in browser.mjs run, whose cases become subtests.
func TestLiveKitClientInChromium(t *testing.T) {
	installed(t, bundle)
	if _, err := exec.LookPath("chromium"); err != nil {
		missing(t, "there is no Chromium here; make deps installs it")
	}
	run(t, "browser.mjs")
}

// TestLiveKitsRustStack lets native.mjs run: LiveKit's Rust stack, which its libraries for Swift, Android, Python and Node carry.
func TestLiveKitsRustStack(t *testing.T) {
	installed(t, "node_modules/@livekit/rtc-node/package.json")
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		if found, _ := filepath.Glob("node_modules/@livekit/rtc-ffi-bindings-*/*.node"); len(found) == 0 {
			t.Skip("LiveKit builds its native library for other machines")
		}
	}
	run(t, "native.mjs")
}

// installed skips a test whose npm package is not here.
func installed(t *testing.T, path string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a test with clients of others")
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "run `npm ci` in sfu/e2e first; make test does")
	}
}

func missing(t *testing.T, words string) {
	t.Helper()
	if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
		t.Fatal(words)
	}
	t.Skip(words)
}

// run starts an SFU and a script that prints a line of JSON for each case; the cases become subtests.
func run(t *testing.T, script string) {
	tr, err := transport.Listen(transport.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	engine := sfu.New(sfu.Config{Transport: tr, ReturnAfter: time.Second})
	defer engine.Close()
	keys := livekit.Keys{"key": "a secret of thirty-two characters"}
	server := livekit.New(livekit.Config{Engine: engine, Keys: keys, AutoCreate: true})
	defer server.Close()
	mux := http.NewServeMux()
	mux.Handle("/rtc/", server.Handler())
	mux.Handle("/rtc", server.Handler())
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "page.html") })
	mux.HandleFunc("GET /livekit-client.e2ee.worker.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "node_modules/livekit-client/dist/livekit-client.e2ee.worker.js")
	})
	mux.HandleFunc("GET /livekit-client.umd.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, bundle) })
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		token, err := keys.Sign("key", livekit.Claims{
			RegisteredClaims: jwt.RegisteredClaims{Subject: r.FormValue("identity")},
			Video:            &livekit.Grant{RoomJoin: true, Room: r.FormValue("room")},
		}, time.Hour)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(token))
	})
	ts := httptest.NewServer(mux)
	defer ts.Close()

	browsertest.Run(t, 15*time.Minute, nil, script, ts.URL)
}
