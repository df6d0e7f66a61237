// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestAPageSaysWhatItIs(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		var pic bytes.Buffer
		if err := png.Encode(&pic, image.NewRGBA(image.Rect(0, 0, 30, 20))); err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int64
		web := http.NewServeMux()
		web.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte(`<html><!-- <meta property="og:title" content="no"> --><script>"<meta property='og:title' content='no'>"</script>
				<title>Old &amp; title</title><META content='The  Rock &lt;1&gt;' property=og:title><meta name="description" content="A film"><meta property="og:image" content="pic.png">`))
		})
		web.HandleFunc("/pic.png", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write(pic.Bytes())
		})
		web.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		})
		web.HandleFunc("/circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
		srv := httptest.NewServer(web)
		defer srv.Close()
		clock := signalling.SystemClock{}
		files, err := media.New(media.Config{ServerName: "test", Dir: t.TempDir()}, st, clock, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s := New(files, "@_preview:test", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, clock)
		for range 3 {
			raw, err := s.Preview(context.Background(), srv.URL+"/page#part")
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(raw, &got); err != nil {
				t.Fatal(err)
			}
			if uri, _ := got["og:image"].(string); !strings.HasPrefix(uri, "mxc://test/") {
				t.Errorf("picture: %v", got["og:image"])
			}
			delete(got, "og:image")
			want := map[string]any{
				"og:title": "The Rock <1>", "og:description": "A film", "og:image:type": "image/png", "og:image:width": 30.0, "og:image:height": 20.0, "matrix:image:size": float64(pic.Len()),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the page was asked for %d times", n)
		}
		closed := New(files, "@_preview:test", nil, clock)
		for what, f := range map[string]func() (json.RawMessage, error){
			"a private address": func() (json.RawMessage, error) { return closed.Preview(t.Context(), srv.URL+"/page") },
			"a name of it": func() (json.RawMessage, error) {
				return closed.Preview(t.Context(), strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)+"/page")
			},
			"a file":   func() (json.RawMessage, error) { return s.Preview(t.Context(), srv.URL+"/away") },
			"a circle": func() (json.RawMessage, error) { return s.Preview(t.Context(), srv.URL+"/circle") },
			"nothing":  func() (json.RawMessage, error) { return s.Preview(t.Context(), srv.URL+"/none") },
		} {
			if _, err := f(); signalling.AsError(err).Status != http.StatusBadGateway {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, bad := range []string{"", "file:///etc/passwd", "ftp://example.org/", "http://", "http://user:pw@example.org/", "http://" + strings.Repeat("x", 3000)} {
			if _, err := s.Preview(t.Context(), bad); signalling.AsError(err).Code != "M_INVALID_PARAM" {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte(`<meta property="og:title" content="x"><title>y</title>`))
	f.Fuzz(func(t *testing.T, page []byte) {
		og := map[string]any{}
		properties(og, page)
		for k, v := range og {
			if s, ok := v.(string); !ok || len(s) > maxText+3 || !strings.HasPrefix(k, "og:") {
				t.Errorf("%q: %v", k, v)
			}
		}
	})
}
