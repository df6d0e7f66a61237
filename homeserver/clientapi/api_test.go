// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/limit"
)

// tokens is an Authenticator over a fixed list.
type tokens map[string]accounts.Session

func (t tokens) Authenticate(_ context.Context, token string) (accounts.Session, error) {
	if s, ok := t[token]; ok {
		return s, nil
	}
	return accounts.Session{}, signalling.UnknownToken(false)
}

var testTokens = tokens{
	"alice": {UserID: "@alice:test", DeviceID: "A"},
	"root":  {UserID: "@root:test", DeviceID: "R", Admin: true},
	"guest": {UserID: "@guest:test", DeviceID: "G", Guest: true},
}

// frame is an API with a few routes of its own, on a real listener.
func frame(t *testing.T, d Deps, routes func(a *API)) string {
	t.Helper()
	if d.Auth == nil {
		d.Auth = testTokens
	}
	a := New(d)
	routes(a)
	var h http.Handler = a
	if d.Media != nil || d.Push != nil || d.Preview != nil { // else its routes are not those of the API
		h = recorded(t, a)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// raw sends a request exactly as written: no client in between cleans the path.
func raw(t testing.TB, base, method, target, token, body string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var req strings.Builder
	req.WriteString(method + " " + target + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n")
	if token != "" {
		req.WriteString("Authorization: Bearer " + token + "\r\n")
	}
	if body != "" {
		req.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	req.WriteString("\r\n" + body)
	return send(t, conn, req.String())
}

func send(t testing.TB, conn net.Conn, text string) (int, http.Header, string) {
	t.Helper()
	go func() { _, _ = io.WriteString(conn, text) }()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

func wantError(t testing.TB, what string, status int, body string, wantStatus int, wantCode string) {
	t.Helper()
	var e struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Errorf("%s: not JSON: %q", what, body)
		return
	}
	if status != wantStatus || e.Code != wantCode || (e.Code != "" && e.Text == "") {
		t.Errorf("%s: %d %s %q, want %d %s", what, status, e.Code, e.Text, wantStatus, wantCode)
	}
}

func TestIdsWithEncodedSlashesColonsAndSigilsReachTheHandlerWhole(t *testing.T) {
	url := frame(t, Deps{}, func(a *API) {
		echo := func(r *Request) (any, error) {
			return []string{r.PathValue("room"), r.PathValue("type"), r.PathValue("key")}, nil
		}
		a.route("GET /_matrix/client/v3/rooms/{room}/state/{type}/{key}", Open, "", echo)
		a.route("GET /_matrix/client/v3/rooms/{room}/state/{type}/{$}", Open, "", echo)
		a.route("GET /_matrix/client/v3/rooms/{room}/state/{type}", Open, "", echo)
	})
	for target, want := range map[string][3]string{
		"/_matrix/client/v3/rooms/!a:test/state/m.room.name":                {"!a:test", "m.room.name", ""},
		"/_matrix/client/v3/rooms/%21a%3Atest/state/m.room.name/":           {"!a:test", "m.room.name", ""},
		"/_matrix/client/v3/rooms/!a%2Fb%2F%2Fc:test/state/m.x/@u:test":     {"!a/b//c:test", "m.x", "@u:test"},
		"/_matrix/client/v3/rooms/%23a%2F..%2Fb:test/state/m%2Fx/%2Fkey%2F": {"#a/../b:test", "m/x", "/key/"},
		"/_matrix/client/v3/rooms/!a:test/state/m.x/.key":                   {"!a:test", "m.x", ".key"},
		"/_matrix/client/v3/rooms/!a:test/state/m.x/%2E%2E":                 {"!a:test", "m.x", ".."},
		"/_matrix/client/v3/rooms/$a+b%25:test/state/m.x/%20%E2%82%AC":      {"$a+b%:test", "m.x", " €"},
	} {
		status, _, body := raw(t, url, "GET", target, "", "")
		var got [3]string
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got != want {
			t.Errorf("%s: %d %s, want %q", target, status, body, want)
		}
	}
	for _, target := range []string{
		"/_matrix/client/v3/rooms//state/m.room.name", "/_matrix/client/v3/rooms/!a:test/state/m.x//y",
		"//_matrix/client/versions", "/_matrix/client/../client/versions", "/_matrix/client/./versions", "/_matrix/client/versions/",
		"/_matrix/client/v3/rooms/!a:test/state", "/_matrix", "/",
	} {
		status, _, body := raw(t, url, "GET", target, "", "")
		wantError(t, target, status, body, 404, "M_UNRECOGNIZED")
	}
	for _, target := range []string{
		"/_matrix/client/v3/rooms/!a%00:test/state/m.x", "/_matrix/client/v3/rooms/!a%ff:test/state/m.x",
		"/_matrix/client/versions?x=%00", "/_matrix/client/versions?x=%ff",
	} {
		status, _, body := raw(t, url, "GET", target, "", "")
		wantError(t, target, status, body, 400, "M_INVALID_PARAM")
	}
}

func TestUnknownEndpointsAndMethodsAreUnrecognizedAsJSON(t *testing.T) {
	url := frame(t, Deps{}, func(*API) {})
	status, _, body := raw(t, url, "GET", "/_matrix/client/v3/nothing", "", "")
	wantError(t, "unknown path", status, body, 404, "M_UNRECOGNIZED")
	for _, m := range []string{"POST", "PUT", "DELETE", "PATCH", "BREW"} {
		status, _, body := raw(t, url, m, "/_matrix/client/versions", "", "")
		wantError(t, m, status, body, 405, "M_UNRECOGNIZED")
	}
}

func TestEveryAnswerMayBeReadByEveryOriginAndNoneWithCredentials(t *testing.T) {
	url := frame(t, Deps{}, func(*API) {})
	for _, c := range [][2]string{{"OPTIONS", "/_matrix/client/v3/login"}, {"OPTIONS", "/x"}, {"GET", "/_matrix/client/versions"}, {"GET", "/_matrix/client/v3/nothing"}} {
		status, h, _ := raw(t, url, c[0], c[1], "", "")
		if c[0] == "OPTIONS" && status != 204 {
			t.Errorf("%v: %d", c, status)
		}
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") {
			t.Errorf("%v: %v", c, h)
		}
	}
}

func TestAccessLevelsAdmitWhomTheyName(t *testing.T) {
	levels := map[string]Access{"open": Open, "optional": Optional, "anyuser": AnyUser, "token": Token, "admin": Admin}
	url := frame(t, Deps{}, func(a *API) {
		for name, access := range levels {
			a.route("GET /_matrix/client/v3/"+name, access, "", func(r *Request) (any, error) { return r.UserID, nil })
		}
	})
	type answer struct {
		status int
		code   string // or the user
	}
	none, guest, unknown := answer{401, "M_MISSING_TOKEN"}, answer{403, "M_GUEST_ACCESS_FORBIDDEN"}, answer{401, "M_UNKNOWN_TOKEN"}
	for name, want := range map[string]map[string]answer{
		"open":     {"": {200, ""}, "alice": {200, ""}, "bad": {200, ""}},
		"optional": {"": {200, ""}, "alice": {200, "@alice:test"}, "bad": unknown},
		"anyuser":  {"": none, "alice": {200, "@alice:test"}, "guest": {200, "@guest:test"}, "bad": unknown},
		"token":    {"": none, "alice": {200, "@alice:test"}, "guest": guest, "bad": unknown},
		"admin":    {"": none, "alice": {403, "M_FORBIDDEN"}, "guest": guest, "root": {200, "@root:test"}, "bad": unknown},
	} {
		for token, w := range want {
			status, _, body := raw(t, url, "GET", "/_matrix/client/v3/"+name, token, "")
			if w.status != 200 {
				wantError(t, name+" as "+token, status, body, w.status, w.code)
			} else if status != 200 || body != `"`+w.code+`"` {
				t.Errorf("%s as %q: %d %s, want %v", name, token, status, body, w)
			}
		}
	}
}

func TestATokenInTheQueryIsRefusedAndNeverLogged(t *testing.T) {
	var log strings.Builder
	url := frame(t, Deps{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, func(a *API) {
		a.route("GET /_matrix/client/v3/whoami", Token, "", func(*Request) (any, error) { return nil, nil })
		a.route("GET /_matrix/client/v3/boom", Open, "", func(*Request) (any, error) { return nil, errors.New("disk full") })
		a.route("GET /_matrix/client/v3/panic", Open, "", func(*Request) (any, error) { panic("lost") })
	})
	for _, p := range []string{"whoami", "whoami?x=1&access%5Ftoken=alice"} {
		status, _, body := raw(t, url, "GET", "/_matrix/client/v3/"+p+"?access_token=alice", "", "")
		wantError(t, p, status, body, 401, "M_MISSING_TOKEN")
	}
	for _, p := range []string{"boom", "panic"} {
		status, h, body := raw(t, url, "GET", "/_matrix/client/v3/"+p+"?access_token=s3cret", "s3cret", "")
		wantError(t, p, status, body, 500, "M_UNKNOWN")
		if strings.Contains(body, "disk") || strings.Contains(body, "lost") {
			t.Errorf("the cause is shown: %s", body)
		}
		if id := h.Get("X-Request-Id"); p == "boom" && (id == "" || strings.Count(log.String(), id) != 1) {
			t.Errorf("request id %q is not once in the log: %s", id, log.String())
		}
	}
	if l := log.String(); strings.Contains(l, "s3cret") || strings.Contains(l, "alice") || !strings.Contains(l, "disk full") || !strings.Contains(l, "lost") {
		t.Errorf("log: %s", l)
	}
}

func TestBodiesOfTheWrongShapeAreRefusedBeforeTheHandlerUsesThem(t *testing.T) {
	type small struct {
		Name  string `json:"name"`
		Count int    `json:"count"`
	}
	url := frame(t, Deps{}, func(a *API) {
		a.route("POST /_matrix/client/v3/x", Open, "", func(r *Request) (any, error) {
			var v small
			return v, r.Decode(&v)
		})
		a.route("POST /_matrix/client/v3/any", Open, "", func(r *Request) (any, error) {
			var v small
			return v, r.DecodeIfAny(&v)
		})
	})
	for body, want := range map[string]answerCode{
		``:                                  {400, "M_NOT_JSON"},
		`{`:                                 {400, "M_NOT_JSON"},
		`{"name":"a"}x`:                     {400, "M_NOT_JSON"},
		"{\"name\":\"\xff\"}":               {400, "M_NOT_JSON"},
		`null`:                              {400, "M_BAD_JSON"},
		`[]`:                                {400, "M_BAD_JSON"},
		`"a"`:                               {400, "M_BAD_JSON"},
		`7`:                                 {400, "M_BAD_JSON"},
		`{"name":7}`:                        {400, "M_BAD_JSON"},
		`{"name":{}}`:                       {400, "M_BAD_JSON"},
		`{"count":"7"}`:                     {400, "M_BAD_JSON"},
		`{"count":1e400}`:                   {400, "M_BAD_JSON"},
		`{"count":99999999999999999999999}`: {400, "M_BAD_JSON"},
		`{"name":"a\u0000b"}`:               {400, "M_BAD_JSON"},
		`{"name":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`: {400, "M_BAD_JSON"},
		`{"name":"` + strings.Repeat("x", MaxBody) + `"}`:                        {413, "M_TOO_LARGE"},
		`{"name":"a\\u0000b"}`: {200, ""},
		` {"name":null}`:       {200, ""},
	} {
		status, _, answer := raw(t, url, "POST", "/_matrix/client/v3/x", "", body)
		if want.status == 200 && status == 200 {
			continue
		}
		wantError(t, body[:min(len(body), 40)], status, answer, want.status, want.code)
	}
	if status, _, body := raw(t, url, "POST", "/_matrix/client/v3/any", "", ""); status != 200 {
		t.Errorf("empty body: %d %s", status, body)
	}
}

type answerCode struct {
	status int
	code   string
}

func TestAChunkedBodyIsCutAtTheLimit(t *testing.T) {
	url := frame(t, Deps{}, func(a *API) {
		a.route("POST /_matrix/client/v3/x", Open, "", func(r *Request) (any, error) {
			b, err := r.ReadBody(1000)
			return len(b), err
		})
	})
	for n, want := range map[int]int{1000: 200, 1001: 413, 1 << 20: 413} {
		req, _ := http.NewRequest("POST", url+"/_matrix/client/v3/x", io.MultiReader(strings.NewReader(strings.Repeat("x", n))))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%d bytes: %d, want %d", n, res.StatusCode, want)
		}
	}
}

func TestTooManyRequestsAreToldHowLongToWait(t *testing.T) {
	l := limit.New(signalling.SystemClock{}, map[string]limit.Rate{"login": {PerSecond: 0.01, Burst: 2}}, 0)
	url := frame(t, Deps{Limiter: l}, func(a *API) {
		a.route("GET /_matrix/client/v3/x", Optional, "login", func(*Request) (any, error) { return nil, nil })
	})
	for i, want := range []int{200, 200, 429} {
		status, h, body := raw(t, url, "GET", "/_matrix/client/v3/x", "", "")
		if status != want {
			t.Fatalf("request %d: %d %s", i, status, body)
		}
		if want == 429 {
			wantError(t, "limited", status, body, 429, "M_LIMIT_EXCEEDED")
			if !strings.Contains(body, `"retry_after_ms":`) || h.Get("Retry-After") == "" {
				t.Errorf("no time to wait: %s %v", body, h)
			}
		}
	}
	if status, _, _ := raw(t, url, "GET", "/_matrix/client/v3/x", "alice", ""); status != 200 {
		t.Errorf("a user is counted under the address: %d", status)
	}
}

func TestRequestsAreCountedByRoutePattern(t *testing.T) {
	reg := prometheus.NewRegistry()
	url := frame(t, Deps{Metrics: reg}, func(a *API) {
		a.route("GET /_matrix/client/v3/rooms/{room}/x", Token, "", func(*Request) (any, error) { return nil, nil })
	})
	raw(t, url, "GET", "/_matrix/client/v3/rooms/!a/x", "alice", "")
	raw(t, url, "GET", "/_matrix/client/v3/rooms/!b/x", "", "")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			labels := ""
			for _, l := range m.Label {
				labels += l.GetValue() + " "
			}
			if !strings.Contains(labels, "rooms/{room}/x") {
				continue
			}
			if m.Counter != nil {
				got[strings.Fields(labels)[0]] = m.Counter.GetValue()
			} else {
				got["seconds"] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	if got["2xx"] != 1 || got["4xx"] != 1 || got["seconds"] != 2 {
		t.Errorf("counted %v", got)
	}
}
