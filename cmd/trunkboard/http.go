// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/widgets/meetapi"
)

const (
	headerTime = 10 * time.Second // for a request's header: a client that dribbles it is attacking
	bodyTime   = 5 * time.Minute  // for all of a request: an upload of 50 MiB at 1.4 Mbit/s
	answerTime = 10 * time.Minute // from the header's end to the answer's end: long polls and slow downloads live within it
	idleTime   = 2 * time.Minute  // between requests: browsers ask again within it
	maxHeader  = 64 << 10         // bytes; LiveKit's clients send a session description in the URL
	maxStreams = 128              // requests at once on one HTTP/2 connection; of those begun and reset beyond it four times as many wait, then the connection ends
	stuckTime  = 30 * time.Second // in which an HTTP/2 connection must take at least a byte of what waits for it
)

// server is an http.Server that a stranger cannot hold open for ever.
func (a *App) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       bodyTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: stuckTime},
		ConnState:         a.newCrowd(connsEach).connState(),
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug), // strangers' broken handshakes and the like
	}
}

// Paths of the Matrix API and of our own; everything else belongs to the web client. ServeMux is not asked here, because it
// redirects paths that hold // or /../, which are legal in percent-encoded room and event ids.
var apiPrefixes = []string{"/_matrix/", "/_synapse/", "/_trunkboard/", "/.well-known/matrix/"}

// public is what the ports for clients and other servers answer.
func (a *App) public() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
			a.health(w, r)
			return
		case "/ready":
			a.readiness(w, r)
			return
		}
		h := a.api.Load()
		if h == nil {
			refuseStarting(w)
			return
		}
		(*h).ServeHTTP(w, r)
	})
}

// dispatch sends a request to the API or to the web client.
func dispatch(api, site http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range apiPrefixes {
			if strings.HasPrefix(r.URL.Path, p) {
				api.ServeHTTP(w, r)
				return
			}
		}
		site.ServeHTTP(w, r)
	})
}

// endPolls lets a /sync that waits for news end when HTTP stops, instead of holding it up; its client asks again elsewhere or later.
func (a *App) endPolls(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/sync") || strings.HasPrefix(r.URL.Path, meetapi.Prefix) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(a.polling, cancel)()
			r = r.WithContext(ctx)
		}
		h.ServeHTTP(w, r)
	})
}

// private is what listen.metrics answers.
func (a *App) private() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", a.health)
	mux.HandleFunc("GET /ready", a.readiness)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.meters.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)}))
	// Profiles say where time and memory go, never what they hold.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	a.relaySessions(mux)
	return mux
}

// withoutPlain tells browsers to come back over HTTPS only; for certificates that the world trusts.
func withoutPlain(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000") // a year, RFC 6797 section 6.1.1
		h.ServeHTTP(w, r)
	})
}

// health: the process lives.
func (a *App) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"status": "ok"})
}

// readiness: new work is welcome here. Load balancers look at it; it goes off first when the server stops.
func (a *App) readiness(w http.ResponseWriter, _ *http.Request) {
	if a.ready.Load() {
		writeJSON(w, http.StatusOK, map[string]any{"status": "ready"})
		return
	}
	writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready"})
}

// refuseStarting is the answer while the parts open. Browsers may read it from other origins, as they may every Matrix answer.
func refuseStarting(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "2") // seconds
	w.Header().Set("Access-Control-Allow-Origin", "*")
	refuse(w, signalling.Refuse(http.StatusServiceUnavailable, "M_UNKNOWN", "this server is starting; try again in a moment"))
}

func refuse(w http.ResponseWriter, e *signalling.Error) {
	writeJSON(w, e.Status, map[string]any{"errcode": e.Code, "error": e.Message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

// count counts answers by status.
func (a *App) count(part string, h http.Handler) http.Handler {
	requests := a.meters.requests.MustCurryWith(map[string]string{"part": part})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counted{ResponseWriter: w, status: http.StatusOK}
		defer func() { requests.WithLabelValues(strconv.Itoa(c.status)).Inc() }()
		h.ServeHTTP(c, r)
	})
}

// counted remembers the status of an answer.
type counted struct {
	http.ResponseWriter
	status int
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap gives http.ResponseController what it needs for flushing and deadlines.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Hijack is for WebSocket upgrades, which ask for it by type.
func (c *counted) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c.status = http.StatusSwitchingProtocols
	return http.NewResponseController(c.ResponseWriter).Hijack()
}
