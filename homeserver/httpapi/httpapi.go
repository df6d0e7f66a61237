// SPDX-License-Identifier: Apache-2.0

// Package httpapi is the frame around the APIs of the homeserver: what an HTTP exchange is before anybody asks who speaks, and how an
// answer or a refusal leaves.
//
//	request ─> path and query are sound ─> route ─> Handler(x) (any, error) ─> JSON, or the standard error object
//
// clientapi and fedapi put their own questions (a token, a signature, a rate limit) between the route and the handler.
package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/signalling"
)

// Options say whose frame it is.
type Options struct {
	Name    string // in the names of metrics: clientapi, fedapi
	Of      string // in their help: "the client API"
	Buckets []float64
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: no metrics
}

// Frame routes the requests of one API.
type Frame struct {
	log     *slog.Logger
	mux     *http.ServeMux
	seconds *prometheus.HistogramVec
	answers *prometheus.CounterVec
}

// Handler answers one request. A value is written as JSON, Raw as it is, nil as {}; Written says that the handler answered by itself.
// An error is written as signalling.AsError sees it.
type Handler func(x *Exchange) (any, error)

// New makes a frame without routes.
func New(o Options) *Frame {
	f := &Frame{log: o.Log, mux: http.NewServeMux()}
	f.mux.HandleFunc("/", f.noRoute)
	if o.Metrics == nil {
		return f
	}
	f.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "trunkboard_" + o.Name + "_request_seconds", Help: "How long requests of " + o.Of + " took, by route.", Buckets: o.Buckets,
	}, []string{"route"})
	f.answers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "trunkboard_" + o.Name + "_answers_total", Help: "Answers of " + o.Of + ", by route and class of status.",
	}, []string{"route", "class"})
	o.Metrics.MustRegister(f.seconds, f.answers)
	return f
}

// Route registers a handler for a ServeMux pattern, such as "GET /_matrix/client/v3/account/whoami".
func (f *Frame) Route(pattern string, handler Handler) {
	if f.seconds == nil {
		f.mux.HandleFunc(pattern, func(w http.ResponseWriter, hr *http.Request) { f.serve(w, hr, pattern, handler) })
		return
	}
	seconds := f.seconds.WithLabelValues(pattern)
	var answers [6]prometheus.Counter
	for i := 1; i < len(answers); i++ {
		answers[i] = f.answers.WithLabelValues(pattern, fmt.Sprintf("%dxx", i))
	}
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, hr *http.Request) {
		started := time.Now()
		status := f.serve(w, hr, pattern, handler)
		seconds.Observe(time.Since(started).Seconds())
		if c := status / 100; c > 0 && c < len(answers) {
			answers[c].Inc()
		}
	})
}

// ServeHTTP answers one request. It must see the request as it came: a ServeMux in front of it would redirect ids that hold encoded or
// double slashes.
func (f *Frame) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	if !clean(hr.URL.EscapedPath()) {
		// net/http would redirect to the cleaned path, which loses the body and names something else.
		f.Refuse(w, hr, signalling.Unrecognized())
		return
	}
	if !SafeText(hr.URL.Path) || !safeQuery(hr) {
		f.Refuse(w, hr, signalling.InvalidParam("the path and the query must be UTF-8 without NUL"))
		return
	}
	f.mux.ServeHTTP(w, hr)
}

// Pattern is the route that a request would take, "/" for none.
func (f *Frame) Pattern(hr *http.Request) string {
	_, pattern := f.mux.Handler(hr)
	return pattern
}

func (f *Frame) serve(w http.ResponseWriter, hr *http.Request, pattern string, handler Handler) (status int) {
	x := &Exchange{Request: hr, w: w}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		f.log.Error("panic in a request", "route", pattern, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		status = http.StatusInternalServerError
		if !x.wrote {
			WriteError(w, signalling.Internal(nil))
		}
	}()
	v, err := handler(x)
	if err != nil {
		if x.wrote {
			f.logInternal(hr, err)
			return http.StatusInternalServerError
		}
		return f.Refuse(w, hr, err)
	}
	if done, ok := v.(Written); ok {
		if done.Status == 0 {
			return http.StatusOK
		}
		return done.Status
	}
	x.wrote = true
	if err := writeJSON(w, v); err != nil {
		f.logInternal(hr, err)
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// noRoute answers what no pattern matches: 405 when another method would have, else 404.
func (f *Frame) noRoute(w http.ResponseWriter, hr *http.Request) {
	probe := *hr
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe.Method = m
		if pattern := f.Pattern(&probe); pattern != "/" && pattern != "" {
			f.Refuse(w, hr, signalling.Refuse(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "this endpoint does not answer %s", hr.Method))
			return
		}
	}
	f.Refuse(w, hr, signalling.Unrecognized())
}

// Refuse writes err and gives the status. A failure of ours is logged, once, with a request id that the other side sees too.
func (f *Frame) Refuse(w http.ResponseWriter, hr *http.Request, err error) int {
	e := signalling.AsError(err)
	switch {
	case e.Status == http.StatusBadGateway: // somebody else's failure
		f.log.Info("another server did not do its part", "method", hr.Method, "route", hr.Pattern, "err", err)
	case e.Status >= http.StatusInternalServerError:
		if id := f.logInternal(hr, err); id != "" {
			w.Header().Set("X-Request-Id", id)
		}
	default:
		f.log.Debug("refused", "method", hr.Method, "route", hr.Pattern, "err", err)
	}
	WriteError(w, e)
	return e.Status
}

// logInternal logs a failure of ours, without the query and the body, and gives the id under which it stands in the log.
func (f *Frame) logInternal(hr *http.Request, err error) string {
	if errors.Is(err, context.Canceled) && hr.Context().Err() != nil {
		return "" // the other side went away
	}
	id := rand.Text()[:12]
	f.log.Error("request failed", "request", id, "method", hr.Method, "route", hr.Pattern, "err", err)
	return id
}

// clean says that net/http's mux would take the path as it stands.
func clean(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return true
	}
	c := path.Clean(p)
	if p[len(p)-1] == '/' && c != "/" {
		c += "/"
	}
	return c == p
}

// SafeText says that a string may be stored: UTF-8 without NUL, which PostgreSQL does not take.
func SafeText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

func safeQuery(hr *http.Request) bool {
	q := hr.URL.RawQuery
	if q == "" {
		return true
	}
	if !utf8.ValidString(q) {
		return false
	}
	if !strings.Contains(q, "%") {
		return strings.IndexByte(q, 0) < 0
	}
	for k, vs := range hr.URL.Query() {
		if !SafeText(k) {
			return false
		}
		for _, v := range vs {
			if !SafeText(v) {
				return false
			}
		}
	}
	return true
}
