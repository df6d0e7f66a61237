// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func mediaAPI(t *testing.T, s *storage.Store, cfg media.Config) string {
	t.Helper()
	cfg.ServerName, cfg.Dir = "test", t.TempDir()
	m, err := media.New(cfg, s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return frame(t, Deps{Media: m}, func(*API) {})
}

// ask sends a request with a body of any kind.
func ask(t *testing.T, method, url, token, contentType, body string, more ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// upload gives "SERVER/ID".
func upload(t *testing.T, base, name, contentType, body string) string {
	t.Helper()
	res, b := ask(t, "POST", base+"/_matrix/media/v3/upload?filename="+url.QueryEscape(name), "alice", contentType, body)
	var out struct {
		URI string `json:"content_uri"`
	}
	if err := json.Unmarshal([]byte(b), &out); err != nil || res.StatusCode != 200 {
		t.Fatalf("upload: %d %s", res.StatusCode, b)
	}
	return strings.TrimPrefix(out.URI, "mxc://")
}

func TestMediaIsServedSoThatABrowserRunsNothingOfIt(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		base := mediaAPI(t, s, media.Config{})
		for _, c := range []struct{ name, contentType, disposition string }{
			{"a.png", "image/png", "inline"},
			{"name;with;semicolons", "image/png", "inline"},
			{`quo"te\`, "Image/PNG", "inline"},
			{"🐔.txt", "Text/Plain; charset=utf-8", "inline"},
			{"", "video/mp4", "inline"},
			{"a.html", "text/html", "attachment"},
			{"a.HTML", "TEXT/HTML;x=image/png", "attachment"},
			{"a.svg", "image/svg+xml", "attachment"},
			{"a.xml", "application/xhtml+xml", "attachment"},
			{"a.pdf", "application/pdf", "attachment"},
			{"a.js", "text/javascript", "attachment"},
			{"a", "", "attachment"},
		} {
			at := upload(t, base, c.name, c.contentType, "<script>alert(1)</script>")
			for _, path := range []string{"/_matrix/client/v1/media/download/", "/_matrix/media/v3/download/", "/_matrix/media/r0/download/"} {
				res, body := ask(t, "GET", base+path+at, "alice", "", "")
				if res.StatusCode != 200 || body != "<script>alert(1)</script>" {
					t.Fatalf("%s: %d %s", path, res.StatusCode, body)
				}
				h := res.Header
				disposition, params, err := mime.ParseMediaType(h.Get("Content-Disposition"))
				if err != nil || disposition != c.disposition || params["filename"] != c.name {
					t.Errorf("%s %s: Content-Disposition %q", c.name, c.contentType, h.Get("Content-Disposition"))
				}
				want := c.contentType
				if _, _, err := mime.ParseMediaType(want); err != nil {
					want = "application/octet-stream"
				}
				if h.Get("Content-Type") != want {
					t.Errorf("Content-Type %q, want %q", h.Get("Content-Type"), want)
				}
				if h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "sandbox; default-src 'none'; script-src 'none';") ||
					h.Get("Cross-Origin-Resource-Policy") != "cross-origin" || h.Get("Access-Control-Allow-Origin") != "*" {
					t.Errorf("%s: header %v", c.contentType, h)
				}
			}
			res, _ := ask(t, "GET", base+"/_matrix/client/v1/media/download/"+at+"/"+url.PathEscape("x/☕.html"), "alice", "", "")
			if _, params, _ := mime.ParseMediaType(res.Header.Get("Content-Disposition")); params["filename"] != "x/☕.html" {
				t.Errorf("name of the path: %q", res.Header.Get("Content-Disposition"))
			}
		}
	})
}

func TestAPartOfMediaCanBeAskedFor(t *testing.T) {
	base := mediaAPI(t, storagetest.Open(t, storagetest.SQLiteURL(t)), media.Config{})
	at := base + "/_matrix/client/v1/media/download/" + upload(t, base, "a", "text/plain", "0123456789")
	res, body := ask(t, "GET", at, "alice", "", "", "Range", "bytes=3-5")
	if res.StatusCode != 206 || body != "345" {
		t.Errorf("range: %d %q", res.StatusCode, body)
	}
	if res, _ = ask(t, "GET", at, "alice", "", "", "Range", "bytes=20-"); res.StatusCode != 416 {
		t.Errorf("beyond the end: %d", res.StatusCode)
	}
	res, _ = ask(t, "GET", at, "alice", "", "")
	if res, body = ask(t, "GET", at, "alice", "", "", "If-None-Match", res.Header.Get("ETag")); res.StatusCode != 304 || body != "" {
		t.Errorf("unchanged: %d %q", res.StatusCode, body)
	}
	if res, body = ask(t, "HEAD", at, "alice", "", ""); res.StatusCode != 200 || body != "" || res.ContentLength != 10 {
		t.Errorf("HEAD: %d %q %d", res.StatusCode, body, res.ContentLength)
	}
}

func TestMediaRequestsThatAreRefused(t *testing.T) {
	base := mediaAPI(t, storagetest.Open(t, storagetest.SQLiteURL(t)), media.Config{MaxUpload: 1000})
	at := upload(t, base, "a", "image/png", "not a picture")
	big := strings.Repeat("x", 1001)
	const v1 = "/_matrix/client/v1/media/"
	for what, c := range map[string]struct {
		method, path, token, body string
		status                    int
		code                      string
	}{
		"download without a token":  {"GET", v1 + "download/" + at, "", "", 401, "M_MISSING_TOKEN"},
		"upload without a token":    {"POST", "/_matrix/media/v3/upload", "", "x", 401, "M_MISSING_TOKEN"},
		"upload by a guest":         {"POST", "/_matrix/media/v3/upload", "guest", "x", 403, "M_GUEST_ACCESS_FORBIDDEN"},
		"upload too large":          {"POST", "/_matrix/media/v3/upload", "alice", big, 413, "M_TOO_LARGE"},
		"NUL in the name":           {"POST", "/_matrix/media/v3/upload?filename=a%00b", "alice", "x", 400, "M_INVALID_PARAM"},
		"unknown media":             {"GET", v1 + "download/test/abc", "alice", "", 404, "M_NOT_FOUND"},
		"remote media":              {"GET", v1 + "download/example.org/abc", "alice", "", 404, "M_NOT_FOUND"},
		"path in the id":            {"GET", v1 + "download/test/%2E%2E%2Fsecret", "alice", "", 400, "M_INVALID_PARAM"},
		"path in the server":        {"GET", "/_matrix/media/v3/download/..%2F..%2Fetc/passwd", "", "", 400, "M_INVALID_PARAM"},
		"double encoding":           {"GET", "/_matrix/media/v3/download/test/%252e%252e", "", "", 400, "M_INVALID_PARAM"},
		"control in the file name":  {"GET", v1 + "download/" + at + "/a%0d%0aSet-Cookie:x", "alice", "", 400, "M_INVALID_PARAM"},
		"thumbnail of text":         {"GET", v1 + "thumbnail/" + at + "?width=32&height=32", "alice", "", 400, "M_UNKNOWN"},
		"thumbnail without width":   {"GET", v1 + "thumbnail/" + at + "?height=32", "alice", "", 400, "M_MISSING_PARAM"},
		"thumbnail of negative":     {"GET", v1 + "thumbnail/" + at + "?width=-1&height=32", "alice", "", 400, "M_INVALID_PARAM"},
		"thumbnail of half a pixel": {"GET", v1 + "thumbnail/" + at + "?width=1.5&height=32", "alice", "", 400, "M_INVALID_PARAM"},
		"thumbnail by magic":        {"GET", v1 + "thumbnail/" + at + "?width=32&height=32&method=magic", "alice", "", 400, "M_INVALID_PARAM"},
		"fill of an unknown id":     {"PUT", "/_matrix/media/v3/upload/test/abc", "alice", "x", 404, "M_NOT_FOUND"},
		"fill of one that is full":  {"PUT", "/_matrix/media/v3/upload/" + at, "alice", "", 409, "M_CANNOT_OVERWRITE_MEDIA"},
	} {
		status, _, body := raw(t, base, c.method, c.path, c.token, c.body)
		wantError(t, what, status, body, c.status, c.code)
	}
}

func TestMediaIsAnnouncedFirstAndUploadedLater(t *testing.T) {
	base := mediaAPI(t, storagetest.Open(t, storagetest.SQLiteURL(t)), media.Config{})
	res, body := ask(t, "POST", base+"/_matrix/media/v1/create", "alice", "", "")
	var out struct {
		URI     string `json:"content_uri"`
		Expires int64  `json:"unused_expires_at"`
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil || res.StatusCode != 200 || out.Expires == 0 {
		t.Fatalf("create: %d %s", res.StatusCode, body)
	}
	at := strings.TrimPrefix(out.URI, "mxc://")
	res, body = ask(t, "GET", base+"/_matrix/client/v1/media/download/"+at+"?timeout_ms=0", "alice", "", "")
	wantError(t, "not yet", res.StatusCode, body, 504, "M_NOT_YET_UPLOADED")
	got := make(chan string)
	go func() {
		_, b := ask(t, "GET", base+"/_matrix/client/v1/media/download/"+at, "alice", "", "")
		got <- b
	}()
	res, body = ask(t, "PUT", base+"/_matrix/media/v3/upload/"+at+"?filename=f", "alice", "image/png", "content")
	if res.StatusCode != 200 || body != "{}" {
		t.Fatalf("upload: %d %s", res.StatusCode, body)
	}
	if b := <-got; b != "content" {
		t.Errorf("the waiting download got %q", b)
	}
}

func TestThumbnailsAreServed(t *testing.T) {
	base := mediaAPI(t, storagetest.Open(t, storagetest.SQLiteURL(t)), media.Config{})
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 100, 100))); err != nil {
		t.Fatal(err)
	}
	at := upload(t, base, "a", "text/html", b.String())
	for _, path := range []string{"/_matrix/client/v1/media/thumbnail/", "/_matrix/media/v3/thumbnail/"} {
		res, body := ask(t, "GET", base+path+at+"?width=32&height=32&method=crop&animated=false", "alice", "", "")
		m, format, err := image.Decode(strings.NewReader(body))
		if err != nil || m.Bounds().Dx() != 32 || res.Header.Get("Content-Type") != "image/"+format {
			t.Errorf("%s: %d %v %s", path, res.StatusCode, err, res.Header.Get("Content-Type"))
		}
		if d := res.Header.Get("Content-Disposition"); d != "inline; filename=thumbnail."+map[string]string{"png": "png", "jpeg": "jpg"}[format] {
			t.Errorf("Content-Disposition %q", d)
		}
	}
	res, body := ask(t, "GET", base+"/_matrix/client/v1/media/config", "alice", "", "")
	if want := `{"m.upload.size":` + strconv.Itoa(50<<20) + `}`; res.StatusCode != 200 || body != want {
		t.Errorf("config: %d %s", res.StatusCode, body)
	}
}
