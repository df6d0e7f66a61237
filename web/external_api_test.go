// SPDX-License-Identifier: Apache-2.0

package web

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestTheScriptForPagesOfOthersIsOpenToThem(t *testing.T) {
	h, err := serve(fstest.MapFS{
		"index.html":               {Data: []byte("<!doctype html>")},
		"external_api.js":          {Data: []byte("/* api */")},
		"libs/external_api.min.js": {Data: []byte("/* api */")},
		"assets/a.js":              {Data: []byte("/* ours */")},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/external_api.js", "/libs/external_api.min.js", "/external_api.js?release=release-1", "/acme/external_api.js"} {
		w := get(h, "GET", target)
		if w.Code != 200 || w.Body.String() != "/* api */" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
		want := http.Header{
			"Accept-Ranges":                {"bytes"},
			"Access-Control-Allow-Origin":  {"*"},
			"Cache-Control":                {"no-cache"},
			"Content-Length":               {"9"},
			"Content-Type":                 {"text/javascript; charset=utf-8"},
			"Cross-Origin-Resource-Policy": {"cross-origin"},
			"Etag":                         w.Header()["Etag"],
			"X-Content-Type-Options":       {"nosniff"},
		}
		got := maps.Clone(w.Header())
		maps.DeleteFunc(got, func(name string, _ []string) bool { // what every answer has, tested elsewhere
			return slices.Contains([]string{"Content-Security-Policy", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy"}, name)
		})
		if diff := cmp.Diff(want, got); diff != "" || len(w.Header()["Etag"]) != 1 {
			t.Errorf("%s: %s", target, diff)
		}
		if again := get(h, "GET", target, "If-None-Match", w.Header().Get("ETag")); again.Code != 304 {
			t.Errorf("%s again: %d, want 304", target, again.Code)
		}
	}
	for _, target := range []string{"/a/b/external_api.js", "/libs/external_api.js.map", "/assets/a.js", "/"} {
		if w := get(h, "GET", target); w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Cross-Origin-Resource-Policy") != "" {
			t.Errorf("%s is open to others: %v", target, w.Header())
		}
	}
}
