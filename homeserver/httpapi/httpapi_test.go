// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/trunkboard/trunkboard/signalling"
)

func TestForwardedAddressesAreBelievedOnlyFromTrustedProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		trusted []netip.Prefix
		remote  string
		header  []string
		want    string
	}{
		{nil, "127.0.0.1:9", []string{"8.8.8.8"}, "127.0.0.1"},
		{trusted, "9.9.9.9:1", []string{"8.8.8.8"}, "9.9.9.9"},
		{trusted, "127.0.0.1:9", nil, "127.0.0.1"},
		{trusted, "127.0.0.1:9", []string{"8.8.8.8"}, "8.8.8.8"},
		{trusted, "127.0.0.1:9", []string{"1.2.3.4, 8.8.8.8, 10.1.1.1"}, "8.8.8.8"},
		{trusted, "127.0.0.1:9", []string{"1.2.3.4", "8.8.8.8", "10.1.1.1"}, "8.8.8.8"},
		{trusted, "127.0.0.1:9", []string{"junk, 10.1.1.1"}, "10.1.1.1"},
		{trusted, "127.0.0.1:9", []string{"8.8.8.8, junk"}, "127.0.0.1"},
		{trusted, "127.0.0.1:9", []string{"2001:db8::1"}, "2001:db8::1"},
		{trusted, "[::ffff:127.0.0.1]:9", []string{"::ffff:8.8.8.8"}, "8.8.8.8"},
		{trusted, "[::1]:9", []string{"8.8.8.8"}, "::1"},
	} {
		hr := httptest.NewRequest("GET", "/", nil)
		hr.RemoteAddr = c.remote
		hr.Header["X-Forwarded-For"] = c.header
		if got := Address(hr, c.trusted); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.remote, c.header, got, c.want)
		}
	}
}

func TestIntParamClampsAndRefuses(t *testing.T) {
	for q, want := range map[string]int64{"": 10, "n=5": 5, "n=100000": 50, "n=99999999999999999999999": 50, "n=-1": -1, "n=x": -1, "n=1.5": -1, "n=-99999999999999999999": -1} {
		x := Of(nil, httptest.NewRequest("GET", "/?"+q, nil))
		n, err := x.IntParam("n", 10, 0, 50)
		if want < 0 {
			if signalling.AsError(err).Code != "M_INVALID_PARAM" {
				t.Errorf("%s: %d %v", q, n, err)
			}
		} else if err != nil || n != want {
			t.Errorf("%s: %d %v, want %d", q, n, err, want)
		}
	}
}

// api is a frame with two routes, over real HTTP.
func api(t *testing.T) string {
	t.Helper()
	f := New(Options{Log: slog.New(slog.DiscardHandler)})
	f.Route("POST /echo/{id}", func(x *Exchange) (any, error) {
		body, err := x.ReadBody(20, time.Minute)
		if err == nil {
			err = CheckObject(body)
		}
		return map[string]string{"id": x.PathValue("id"), "body": string(body)}, err
	})
	f.Route("GET /broken", func(*Exchange) (any, error) { return nil, errors.New("the disk is gone") })
	f.Route("GET /panic", func(*Exchange) (any, error) { panic("a defect") })
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

func TestARequestIsAnsweredOrRefusedWithTheStandardError(t *testing.T) {
	base := api(t)
	for _, c := range []struct{ method, path, body, answer string }{
		{"POST", "/echo/a%2Fb", `{"x":"<"}`, `200 {"body":"{\"x\":\"<\"}","id":"a/b"}`},
		{"POST", "/echo/a", `[]`, `400 {"errcode":"M_BAD_JSON"`},
		{"POST", "/echo/a", ``, `400 {"errcode":"M_NOT_JSON"`},
		{"POST", "/echo/a", `{"x":"much too long for this"}`, `413 {"errcode":"M_TOO_LARGE"`},
		{"GET", "/echo/a", ``, `405 {"errcode":"M_UNRECOGNIZED"`},
		{"GET", "/nowhere", ``, `404 {"errcode":"M_UNRECOGNIZED"`},
		{"POST", "/echo//a", `{}`, `404 {"errcode":"M_UNRECOGNIZED"`},
		{"POST", "/echo/../echo/a", `{}`, `404 {"errcode":"M_UNRECOGNIZED"`},
		{"POST", "/echo/a%00b", `{}`, `400 {"errcode":"M_INVALID_PARAM"`},
		{"POST", "/echo/a?x=%ff", `{}`, `400 {"errcode":"M_INVALID_PARAM"`},
		{"GET", "/broken", ``, `500 {"errcode":"M_UNKNOWN"`},
		{"GET", "/panic", ``, `500 {"errcode":"M_UNKNOWN"`},
	} {
		hr, err := http.NewRequestWithContext(t.Context(), c.method, base+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(hr)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := resp.Status[:4] + string(b); err != nil || !strings.HasPrefix(got, c.answer) || strings.Contains(got, "disk") {
			t.Errorf("%s %s %s: %s, want %s", c.method, c.path, c.body, got, c.answer)
		}
		if resp.StatusCode == 500 && c.path == "/broken" && resp.Header.Get("X-Request-Id") == "" {
			t.Error("a failure without an id")
		}
	}
}

func FuzzAPathOrQueryIsAnsweredOrRefused(f *testing.F) {
	for _, s := range []string{"/echo/a?x=1", "/echo//a", "/%00", "/..", "/a/./b/", "*", "/?%zz", "/?a=%c3%28"} {
		f.Add(s)
	}
	fr := New(Options{Log: slog.New(slog.DiscardHandler)})
	fr.Route("GET /echo/{id}", func(x *Exchange) (any, error) {
		return map[string]string{"id": x.PathValue("id"), "n": x.Param("n")}, nil
	})
	f.Fuzz(func(t *testing.T, target string) {
		hr, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			t.Skip()
		}
		w := httptest.NewRecorder()
		fr.ServeHTTP(w, hr)
		if w.Code >= 500 || w.Code >= 300 && w.Code < 400 {
			t.Errorf("%q: %d", target, w.Code)
		}
		if w.Code == 200 && !utf8.Valid(w.Body.Bytes()) {
			t.Errorf("%q: not UTF-8", target)
		}
	})
}
