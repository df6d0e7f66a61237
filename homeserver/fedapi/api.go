// SPDX-License-Identifier: Apache-2.0

// Package fedapi is the server-server API as HTTP: it parses a request, finds out which server asks, calls one operation of a service
// and encodes what comes back. It holds no rules of its own and no SQL.
//
//	request ─> route ─> body ─> X-Matrix -> Origin ─> rate limit ─> handler(r) (any, error) ─> JSON
//
// Each area has a file with a method that registers its routes, called from the list in New. A handler returns a value that is encoded
// as JSON, Raw bytes that are JSON already, nil for {}, or Written when it answered by itself.
package fedapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
)

// Limiter counts requests of an operation by key (signalling/limit).
type Limiter interface {
	Allow(op, key string) (ok bool, retryAfter time.Duration)
}

// Deps are the services behind the API.
type Deps struct {
	Version        string         // of the program
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	Log            *slog.Logger
	Limiter        Limiter               // nil: no limits
	Metrics        prometheus.Registerer // nil: no metrics
	Federation     *federation.Service
	Accounts       *accounts.Service
	Rooms          *rooms.Service
	E2EE           *e2ee.Service  // nil: nothing is told of devices
	Media          *media.Service // nil: no files
	Focus          *focus.Service // the way into our SFU; nil: there is none
}

// API serves /_matrix/federation and /_matrix/key. It must see the request as it came: what a server has signed is the path as it was
// sent.
type API struct {
	Deps
	mux     *http.ServeMux
	seconds *prometheus.HistogramVec
	answers *prometheus.CounterVec
}

// New makes the API.
func New(d Deps) *API {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{Deps: d, mux: http.NewServeMux()}
	if d.Metrics != nil {
		a.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "trunkboard_fedapi_request_seconds", Help: "How long requests of other servers took, by route.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"})
		a.answers = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trunkboard_fedapi_answers_total", Help: "Answers to other servers, by route and class of status.",
		}, []string{"route", "class"})
		d.Metrics.MustRegister(a.seconds, a.answers)
	}
	for _, routes := range []func(){
		a.routesKeys,
		a.routesMembers,
		a.routesGraph,
		a.routesQueries,
		a.routesUsers,
		a.routesMedia,
		a.routesRTC,
	} {
		routes()
	}
	a.mux.HandleFunc("/", a.noRoute)
	return a
}

// Serves says whether a URL path belongs to the API.
func Serves(path string) bool {
	return strings.HasPrefix(path, "/_matrix/federation/") || strings.HasPrefix(path, "/_matrix/key/")
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !clean(hr.URL.EscapedPath()) {
		a.refuse(w, hr, signalling.Unrecognized())
		return
	}
	if !safeText(hr.URL.Path) || !safeQuery(hr) {
		a.refuse(w, hr, signalling.InvalidParam("the path and the query must be UTF-8 without NUL"))
		return
	}
	a.mux.ServeHTTP(w, hr)
}

// clean says that net/http's mux would take the path as it stands.
func clean(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	c := path.Clean(p)
	if p[len(p)-1] == '/' && c != "/" {
		c += "/"
	}
	return c == p
}

func safeText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

func safeQuery(hr *http.Request) bool {
	for k, vs := range hr.URL.Query() {
		if !safeText(k) {
			return false
		}
		for _, v := range vs {
			if !safeText(v) {
				return false
			}
		}
	}
	return true
}

// noRoute answers what no pattern matches: 405 when another method would have, else 404.
func (a *API) noRoute(w http.ResponseWriter, hr *http.Request) {
	probe := *hr
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe.Method = m
		if _, pattern := a.mux.Handler(&probe); pattern != "/" && pattern != "" {
			a.refuse(w, hr, signalling.Refuse(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "this endpoint does not answer %s", hr.Method))
			return
		}
	}
	a.refuse(w, hr, signalling.Unrecognized())
}

// Access says who may call an endpoint.
type Access uint8

// The levels of access.
const (
	Signed Access = iota // servers, with a signature
	Open                 // anybody
)

// Handler answers one request. What it returns is written as JSON: see the package comment.
type Handler func(r *Request) (any, error)

// route registers a handler for a ServeMux pattern. limit is the largest body in bytes; 0: none is read.
func (a *API) route(pattern string, access Access, limit int64, handler Handler) {
	var seconds prometheus.Observer
	var answers [6]prometheus.Counter
	if a.seconds != nil {
		seconds = a.seconds.WithLabelValues(pattern)
		for i := 1; i < len(answers); i++ {
			answers[i] = a.answers.WithLabelValues(pattern, fmt.Sprintf("%dxx", i))
		}
	}
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, hr *http.Request) {
		started := time.Now()
		status := a.serve(w, hr, pattern, access, limit, handler)
		if seconds != nil {
			seconds.Observe(time.Since(started).Seconds())
			if c := status / 100; c > 0 && c < len(answers) {
				answers[c].Inc()
			}
		}
	})
}

func (a *API) serve(w http.ResponseWriter, hr *http.Request, pattern string, access Access, limit int64, handler Handler) (status int) {
	r := &Request{Request: hr, api: a, w: w}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		a.Log.Error("panic in a request", "route", pattern, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		status = http.StatusInternalServerError
		if !r.wrote {
			writeError(w, signalling.Internal(nil))
		}
	}()
	if err := a.admit(r, access, limit); err != nil {
		return a.refuse(w, hr, err)
	}
	v, err := handler(r)
	if err != nil {
		if r.wrote {
			a.logInternal(hr, err)
			return http.StatusInternalServerError
		}
		return a.refuse(w, hr, err)
	}
	if done, ok := v.(Written); ok {
		if done.Status == 0 {
			return http.StatusOK
		}
		return done.Status
	}
	r.wrote = true
	if err := writeJSON(w, v); err != nil {
		a.logInternal(hr, err)
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// admit reads the body and finds out which server asks, and whether it may, now.
func (a *API) admit(r *Request, access Access, limit int64) (err error) {
	if access == Open {
		if err := r.limit("requests", "server "+r.Addr()); err != nil {
			return err
		}
	}
	if limit > 0 {
		if r.Body, err = r.readBody(limit); err != nil {
			return err
		}
	}
	if access == Open {
		return nil
	}
	headers := r.Header.Values("Authorization")
	if r.Origin, err = a.Federation.Authenticate(r.Context(), headers, r.Method, r.RequestURI, r.Body); err != nil {
		return err
	}
	return r.limit("federation", r.Origin)
}
