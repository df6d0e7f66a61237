// SPDX-License-Identifier: Apache-2.0

// Package clientapi is the client-server API as HTTP: it parses a request, finds out who asks, calls one operation of a service and
// encodes what comes back. It holds no rules of its own and no SQL.
//
//	request ─> CORS ─> httpapi.Frame: route ─> token -> Session ─> rate limit ─> handler(r) (any, error) ─> JSON
//
// Each area has a file (devices.go, profile.go …) with a method that registers its routes, called from the list in New. A handler
// returns a value that is encoded as JSON, Raw bytes that are JSON already, nil for {}, or Written when it answered by itself; an
// error is written as signalling.AsError sees it.
package clientapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/notices"
	"github.com/trunkboard/trunkboard/homeserver/preview"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/search"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// Authenticator knows what an access token stands for. Errors: M_UNKNOWN_TOKEN.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (accounts.Session, error)
}

// Limiter counts requests of an operation by key (signalling/limit).
type Limiter interface {
	Allow(op, key string) (ok bool, retryAfter time.Duration)
}

// Config is what the operator chose.
type Config struct {
	ServerName     string         // the part after the colon in user ids
	PublicURL      string         // base URL for clients, without a slash at the end
	Contact        []string       // e-mail addresses, Matrix ids and a URL of those who run this server
	Federation     string         // host:port at which other servers reach this one; "" for none
	Meetings       bool           // clients are told that this server takes the place of a Jitsi
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
}

// Deps are the services behind the API. A service that is nil has no routes: they answer 404 M_UNRECOGNIZED.
type Deps struct {
	Config   Config
	Log      *slog.Logger
	Clock    signalling.Clock
	Auth     Authenticator         // default Accounts
	Limiter  Limiter               // nil: no limits
	Metrics  prometheus.Registerer // nil: no metrics
	Accounts *accounts.Service
	Media    *media.Service
	Calls    *calls.Service
	Push     *push.Service
	ICE      ICEIssuer      // TURN credentials; nil: clients are told of no TURN server
	Focus    *focus.Service // the way into our SFU; nil: clients are told of none
	Servers  Servers        // nil: rooms and users of other servers cannot be reached

	E2EE     *e2ee.Service // needs Accounts
	Rooms    *rooms.Service
	Delayed  *delayed.Service
	Notices  *notices.Service
	Search   *search.Service
	Preview  *preview.Service // nil: links have no previews
	Sync     *syncapi.Service
	Presence presence.Store
	Filters  Filters // default Accounts
	Marks    Marks   // default Accounts
}

// Filters gives the filters that a user has stored. Errors: M_NOT_FOUND.
type Filters interface {
	Filter(ctx context.Context, userID, id string) (*filter.Filter, error)
}

// Marks keeps how far a user has read a room for good (m.fully_read).
type Marks interface {
	SetFullyRead(ctx context.Context, userID, roomID, eventID string) error
}

// API serves /_matrix/client, /_matrix/media, /_synapse/admin, /_trunkboard/client and /.well-known/matrix.
//
// It must see the request as it came: a ServeMux in front of it would redirect ids that hold encoded or double slashes.
type API struct {
	Deps
	frame *httpapi.Frame
	cors  map[string][]string // headers of every answer

	unstable map[string]bool // unstable_features of /versions

	notSuspended map[string]bool // patterns of forbiddenToSuspended
}

// New makes the API.
func New(d Deps) *API {
	if d.Clock == nil {
		d.Clock = signalling.SystemClock{}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Accounts != nil {
		if d.Auth == nil {
			d.Auth = d.Accounts
		}
		if d.Filters == nil {
			d.Filters = d.Accounts
		}
		if d.Marks == nil {
			d.Marks = d.Accounts
		}
	}
	a := &API{Deps: d, unstable: map[string]bool{}, notSuspended: forbiddenToSuspended()}
	// Client-server API, "Web browser clients". No credentials mode: tokens travel in a header, so any origin may ask.
	a.cors = map[string][]string{
		"Access-Control-Allow-Origin":   {"*"},
		"Access-Control-Allow-Methods":  {"GET, HEAD, POST, PUT, DELETE, OPTIONS"},
		"Access-Control-Allow-Headers":  {"X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match"},
		"Access-Control-Expose-Headers": {"ETag, Location, X-Max-Bytes, Content-Disposition"},
		"Access-Control-Max-Age":        {"86400"},
		// Nothing of the API is a page, though answers repeat what somebody else wrote: a browser must not look for one in them.
		"X-Content-Type-Options": {"nosniff"},
	}
	a.frame = httpapi.New(httpapi.Options{
		Name: "clientapi", Of: "the client API", Log: d.Log, Metrics: d.Metrics,
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	})
	for _, routes := range []func(){
		a.routesLogin,
		a.routesAccounts,
		a.routesEmail,
		a.routesModeration,
		a.routesThirdParty,
		a.routesDevices,
		a.routesProfile,
		a.routesUserData,
		a.routesVoIP,
		a.routesRTC,
		a.routesMedia,
		a.routesPreview,
		a.routesPush,
		a.routesRooms,
		a.routesEvents,
		a.routesDelayed,
		a.routesHistory,
		a.routesPeek,
		a.routesRelations,
		a.routesThreads,
		a.routesSync,
		a.routesSliding,
		a.routesPresence,
		a.routesDirectory,
		a.routesPeople,
		a.routesSummary,
		a.routesOpenID,
		a.routesSearch,
		a.routesNotices,
		a.routesKeys,
		a.routesDehydrated,
		a.routesToDevice,
		a.routesBackup,
		a.routesCalls,
	} {
		routes()
	}
	a.routesDiscovery()
	return a
}

// advertise names an unstable feature in /versions, for clients that look for it before they use it. Call it from a routes method.
func (a *API) advertise(feature string) { a.unstable[feature] = true }

// Serves says whether a URL path belongs to the API, so that whoever holds the listener can tell it from the web client.
func Serves(path string) bool {
	return strings.HasPrefix(path, "/_matrix/client/") || strings.HasPrefix(path, "/_matrix/media/") ||
		strings.HasPrefix(path, "/_synapse/") || strings.HasPrefix(path, "/_trunkboard/client/") ||
		strings.HasPrefix(path, "/.well-known/matrix/") || path == openIDInfo
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	h := w.Header()
	for k, v := range a.cors {
		h[k] = v
	}
	if hr.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	a.frame.ServeHTTP(w, current(hr))
}

// current makes a request to the first name of the API, which clients of before v1.1 still use, one to today's: what it serves has
// not changed since.
func current(hr *http.Request) *http.Request {
	const was, is = "/_matrix/client/r0/", "/_matrix/client/v3/"
	if !strings.HasPrefix(hr.URL.Path, was) {
		return hr
	}
	u := *hr.URL
	u.Path = is + u.Path[len(was):]
	if u.RawPath != "" {
		if !strings.HasPrefix(u.RawPath, was) {
			return hr // the prefix itself is escaped: nobody writes that
		}
		u.RawPath = is + u.RawPath[len(was):]
	}
	r := *hr
	r.URL = &u
	return &r
}

// Access says who may call an endpoint.
type Access uint8

// The levels of access.
const (
	Open     Access = iota // anybody; a token is not looked at
	Optional               // anybody; a token, when there is one, must be good
	AnyUser                // a token, guests too
	Token                  // a token of a user who is not a guest
	Admin                  // a token of a server administrator
)

// Handler answers one request. What it returns is written as JSON: see the package comment.
type Handler func(r *Request) (any, error)

// route registers handler for a ServeMux pattern ("GET /_matrix/client/v3/account/whoami"). op names the rate limit that counts the
// request ("requests", "messages", "login" …), by user, or by address where nobody is logged in; "" counts nothing.
func (a *API) route(pattern string, access Access, op string, handler Handler) {
	if a.notSuspended[pattern] {
		may := handler
		handler = func(r *Request) (any, error) {
			if r.Suspended {
				return nil, errSuspended
			}
			return may(r)
		}
	}
	a.frame.Route(pattern, func(x *httpapi.Exchange) (any, error) {
		r := &Request{Exchange: x, api: a}
		if err := a.admit(r, access, op); err != nil {
			return nil, err
		}
		return handler(r)
	})
}

// admit finds out who asks and whether he may, now.
func (a *API) admit(r *Request, access Access, op string) error {
	if access != Open {
		token, err := bearer(r.Request)
		switch {
		case err != nil:
			return err
		case token != "":
			if r.Session, err = a.Auth.Authenticate(r.Context(), token); err != nil {
				return err
			}
			if a.Accounts != nil && a.Accounts.SeenDue(r.Session) {
				a.Accounts.Seen(r.Session, r.Addr())
			}
			if r.Locked && !strings.HasPrefix(r.URL.Path, "/_matrix/client/v3/logout") {
				return accounts.ErrLocked
			}
		case access != Optional:
			return signalling.Refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "this endpoint needs an access token, in the Authorization header")
		}
		if r.Guest && access >= Token {
			return errGuest
		}
		if access == Admin && !r.Admin {
			return signalling.Forbidden("only a server administrator may do this")
		}
	}
	return r.Limit(op)
}

var errGuest = signalling.Refuse(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "guests may not do this; register an account first")

// bearer gives the token of the Authorization header, "" when there is none. A token in the query is refused, because queries end
// up in logs and histories.
func bearer(hr *http.Request) (string, error) {
	h := hr.Header.Get("Authorization")
	if h == "" {
		if q := hr.URL.RawQuery; strings.Contains(q, "access_token=") && hr.URL.Query().Has("access_token") {
			return "", signalling.Refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "send the access token in the Authorization header; a token in the query is not accepted")
		}
		return "", nil
	}
	const scheme = "Bearer "
	if len(h) <= len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) {
		return "", signalling.Refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "the Authorization header must be: Bearer, a space, the access token")
	}
	return strings.TrimSpace(h[len(scheme):]), nil
}
