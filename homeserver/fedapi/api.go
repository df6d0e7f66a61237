// SPDX-License-Identifier: Apache-2.0

// Package fedapi is the server-server API as HTTP: it parses a request, finds out which server asks, calls one operation of a service
// and encodes what comes back. It holds no rules of its own and no SQL.
//
//	request ─> httpapi.Frame: route ─> body ─> X-Matrix -> Origin ─> rate limit ─> handler(r) (any, error) ─> JSON
//
// Each area has a file with a method that registers its routes, called from the list in New. A handler returns a value that is encoded
// as JSON, Raw bytes that are JSON already, nil for {}, or Written when it answered by itself.
package fedapi

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
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

// API serves /_matrix/federation, /_matrix/key and /_matrix/policy. It must see the request as it came: what a server has signed is the path as it was
// sent.
type API struct {
	Deps
	frame *httpapi.Frame
}

// New makes the API.
func New(d Deps) *API {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{Deps: d, frame: httpapi.New(httpapi.Options{
		Name: "fedapi", Of: "other servers", Log: d.Log, Metrics: d.Metrics,
		Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})}
	for _, routes := range []func(){
		a.routesKeys,
		a.routesMembers,
		a.routesGraph,
		a.routesQueries,
		a.routesUsers,
		a.routesMedia,
		a.routesRTC,
		a.routesThirdParty,
		a.routesPolicy,
	} {
		routes()
	}
	return a
}

// Serves says whether a URL path belongs to the API.
func Serves(path string) bool {
	return strings.HasPrefix(path, "/_matrix/federation/") || strings.HasPrefix(path, "/_matrix/key/") || strings.HasPrefix(path, "/_matrix/policy/")
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	a.frame.ServeHTTP(w, hr)
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
	a.frame.Route(pattern, func(x *httpapi.Exchange) (any, error) {
		r := &Request{Exchange: x, api: a}
		if err := a.admit(r, access, limit); err != nil {
			return nil, err
		}
		return handler(r)
	})
}

// admit reads the body and finds out which server asks, and whether it may, now.
func (a *API) admit(r *Request, access Access, limit int64) (err error) {
	if access == Open {
		if err := r.limit("requests", "server "+r.Addr()); err != nil {
			return err
		}
	}
	if limit > 0 {
		if r.Body, err = r.ReadBody(limit, bodyTime); err != nil {
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
