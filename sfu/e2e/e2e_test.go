// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the unmodified livekit-client in Chromium against the SFU.
package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
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
	if testing.Short() {
		t.Skip("a browser test")
	}
	skip := t.Skip
	if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
		skip = t.Fatal
	}
	if _, err := os.Stat(bundle); err != nil {
		skip("run `npm ci` in sfu/e2e first; make test does")
	}
	if _, err := exec.LookPath("chromium"); err != nil {
		skip("there is no Chromium here; make deps installs it")
	}
	tr, err := transport.Listen(transport.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	engine := sfu.New(sfu.Config{Transport: tr})
	defer engine.Close()
	keys := livekit.Keys{"key": "a secret of thirty-two characters"}
	server := livekit.New(livekit.Config{Engine: engine, Keys: keys, AutoCreate: true})
	defer server.Close()
	mux := http.NewServeMux()
	mux.Handle("/rtc/", server.Handler())
	mux.Handle("/rtc", server.Handler())
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "page.html") })
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

	browsertest.Run(t, 15*time.Minute, nil, "browser.mjs", ts.URL)
}
