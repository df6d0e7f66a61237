// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// C36: every address that a page leads to is looked at, not only the first.
func TestNoSecondHopLeadsInside(t *testing.T) {
	var pic bytes.Buffer
	if err := png.Encode(&pic, image.NewRGBA(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	var hits atomic.Int64
	l, err := net.Listen("tcp", ":0") // every address of this machine
	if err != nil {
		t.Fatal(err)
	}
	inside := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(pic.Bytes())
	}))
	inside.Listener.Close()
	inside.Listener = l
	inside.Start()
	defer inside.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var target string
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, target, http.StatusFound)
		case "/twice":
			http.Redirect(w, r, "/redirect", http.StatusMovedPermanently)
		default:
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<title>t</title><meta property="og:image" content="` + target + `">`))
		}
	}))
	defer page.Close()
	files, err := media.New(media.Config{ServerName: "test", Dir: t.TempDir()}, storagetest.Open(t, storagetest.SQLiteURL(t)), signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// The page may be fetched; what it leads to stands at other addresses of this machine.
	s := New(files, "@_preview:test", []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, signalling.SystemClock{})
	for i, host := range []string{"127.0.0.2", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.2]", "[::ffff:0:0]", "[64:ff9b::7f00:2]", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "[fe80::1%25lo]"} {
		target = "http://" + host + ":" + port + "/x"
		for _, path := range []string{"/page", "/redirect", "/twice"} {
			raw, err := s.Preview(t.Context(), fmt.Sprintf("%s%s?%d", page.URL, path, i))
			if path == "/page" {
				if err != nil || strings.Contains(string(raw), "og:image") {
					t.Errorf("%s: %s %v", host, raw, err)
				}
			} else if signalling.AsError(err).Status != http.StatusBadGateway {
				t.Errorf("%s%s: %s %v", host, path, raw, err)
			}
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests went inside", n)
	}
}

// C37: pages that are made to be slow are as quick as others of their size.
func TestPagesMadeToBeSlowAreNot(t *testing.T) {
	for _, part := range []string{"<script><meta x>", "<script", "<style <meta a=b>", "<!--<meta x>", "<!--", "<title><meta x>", "<title>", "<meta ", "<meta a='<meta a=\"", "<", "<meta a=\"b' c='d\" e>", "&amp;", "<div>", "\xff", "<meta property=og:x content='&#x41;'>", " "} {
		started := time.Now()
		og := map[string]any{}
		properties(og, bytes.Repeat([]byte(part), maxPage/len(part)))
		if took := time.Since(started); took > 30*time.Second {
			t.Errorf("%q: %s", part, took)
		}
	}
	og := map[string]any{}
	properties(og, []byte("<SCRIPT>var a='<title>no</title>'</SCRIPT><STYLE x><title>no</title></style><!-- <title>no</title> --><metadata content=x name=description><TITLE lang=en>Yes</TITLE><Meta Name=Description CONTENT=\"of it\">"))
	if diff := cmp.Diff(map[string]any{"og:title": "Yes", "og:description": "of it"}, og); diff != "" {
		t.Error(diff)
	}
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
