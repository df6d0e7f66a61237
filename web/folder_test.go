// SPDX-License-Identifier: Apache-2.0

package web

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestTheApplicationLearnsWhereElementCallIsAndMayFrameIt(t *testing.T) {
	for _, c := range []struct{ at, frames, camera string }{
		{"", "frame-src 'self';", "camera=(self),"},
		{ElementCallPath, "frame-src 'self';", "camera=(self),"},
		{"https://call.example:8443/v1/", "frame-src 'self' https://call.example:8443;", `camera=(self "https://call.example:8443"),`},
	} {
		h, err := serve(fstest.MapFS{"index.html": {Data: []byte("x")}}, Options{ElementCall: c.at})
		if err != nil {
			t.Fatal(err)
		}
		w := get(h, "GET", "/config.json")
		if w.Code != 200 || w.Body.String() != `{"element_call":"`+c.at+`"}` {
			t.Errorf("%q: %d %s", c.at, w.Code, w.Body)
		}
		for header, want := range map[string]string{"Content-Security-Policy": c.frames, "Permissions-Policy": c.camera} {
			if got := w.Header().Get(header); !strings.Contains(got, want) || strings.Contains(got, "%!") {
				t.Errorf("%q: %s %s", c.at, header, got)
			}
		}
	}
}

func TestAFolderOfOthersIsServedWithoutListingsAndHiddenFiles(t *testing.T) {
	h := Folder(fstest.MapFS{
		"index.html":        {Data: []byte("<title>call</title>")},
		"assets/app-1.js":   {Data: []byte("x")},
		"assets/key.wasm":   {Data: []byte("\x00asm")},
		".git/config":       {Data: []byte("secret")},
		"assets/.hidden.js": {Data: []byte("secret")},
	})
	for target, want := range map[string]string{"/": "text/html; charset=utf-8", "/assets/app-1.js": "text/javascript; charset=utf-8", "/assets/key.wasm": "application/wasm"} {
		w := get(h, "GET", target)
		if w.Code != 200 || w.Header().Get("Content-Type") != want || !strings.Contains(w.Header().Get("Content-Security-Policy"), "frame-ancestors 'self'") {
			t.Errorf("%s: %d %v", target, w.Code, w.Header())
		}
	}
	for _, target := range []string{"/assets/", "/assets", "/.git/config", "/assets/.hidden.js", "/../web.go", "/none.js"} {
		if w := get(h, "GET", target); w.Code == 200 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}
