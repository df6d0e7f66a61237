// SPDX-License-Identifier: Apache-2.0

// Package meetapi speaks meetings over HTTP: /_trunkboard/meet/v1, what a meeting page asks, and Jitsi's and Element's discovery. It
// parses, calls a Service and encodes; who may do what is the service's business.
package meetapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// Service runs the meetings. Names are as they were typed, percent-decoded.
type Service interface {
	Info(ctx context.Context, name string, c meeting.Caller) (meeting.Info, error)
	Join(ctx context.Context, name string, q meeting.Join, c meeting.Caller) (meeting.Entry, error)
	Wait(ctx context.Context, name, session string, c meeting.Caller) (meeting.Entry, error)
	Token(ctx context.Context, name, session string, c meeting.Caller) (*meeting.Media, error)
	Leave(ctx context.Context, name, session string) error
	Knocks(ctx context.Context, name, session string) ([]meeting.Knock, error)
	Act(ctx context.Context, name string, q meeting.Action) error
	Records(ctx context.Context, name, session string, c meeting.Caller) ([]meeting.Record, error)
}

// Config of an API.
type Config struct {
	Meetings Service
	// MediaAt gives the WebSocket URL of the SFU as the client of a request can reach it.
	MediaAt func(r *http.Request) string
	// Address gives the network address of a request's client.
	Address func(r *http.Request) string
	// Limit counts a request of an address. Errors: M_LIMIT_EXCEEDED.
	Limit func(address string) error
	Log   *slog.Logger
}

// Prefix is where the API is.
const Prefix = "/_trunkboard/meet/v1/"

// ElementJitsi is where Element looks how a Jitsi wants its users to show who they are.
const ElementJitsi = "/.well-known/element/jitsi"

const (
	maxBody  = 64 << 10
	bodyTime = 10 * time.Second
)

// API serves Prefix and ElementJitsi.
type API struct {
	Config
	mux *http.ServeMux
}

var _ http.Handler = (*API)(nil)

// New makes the API.
func New(c Config) *API {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Limit == nil {
		c.Limit = func(string) error { return nil }
	}
	a := &API{Config: c, mux: http.NewServeMux()}
	a.mux.HandleFunc("GET "+Prefix+"{name}", a.handle(a.info))
	a.mux.HandleFunc("POST "+Prefix+"{name}/join", a.handle(a.join))
	a.mux.HandleFunc("POST "+Prefix+"{name}/wait", a.handle(a.wait))
	a.mux.HandleFunc("POST "+Prefix+"{name}/token", a.handle(a.token))
	a.mux.HandleFunc("POST "+Prefix+"{name}/leave", a.handle(a.leave))
	a.mux.HandleFunc("POST "+Prefix+"{name}/host", a.handle(a.host))
	a.mux.HandleFunc("GET "+Prefix+"{name}/knocks", a.handle(a.knocks))
	a.mux.HandleFunc("GET "+Prefix+"records", a.handle(a.records))
	a.mux.HandleFunc("GET "+ElementJitsi, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"auth": "openidtoken-jwt"})
	})
	a.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, signalling.Unrecognized()) })
	return a
}

// Serves says whether a URL path is the API's.
func Serves(path string) bool { return strings.HasPrefix(path, Prefix) || path == ElementJitsi }

// ServeHTTP answers a request. Every origin may ask: what counts is a token or a session in the request, never a cookie.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	switch p := r.URL.EscapedPath(); {
	case r.Method == http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
	case path.Clean(p) != p: // net/http would redirect, which loses the body
		refuse(w, signalling.Unrecognized())
	default:
		a.mux.ServeHTTP(w, r)
	}
}

// handle answers with what do gives, or refuses.
func (a *API) handle(do func(w http.ResponseWriter, r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := a.Limit(a.Address(r))
		var v any
		if err == nil {
			v, err = do(w, r)
		}
		if err != nil {
			e := signalling.AsError(err)
			switch {
			case errors.Is(err, context.Canceled) && r.Context().Err() != nil: // the client went away
			case e.Status >= http.StatusInternalServerError:
				a.Log.Error("a meeting's request failed", "route", r.Pattern, "err", err)
			}
			refuse(w, e)
			return
		}
		status := http.StatusOK
		if e, ok := v.(meeting.Entry); ok && e.Waiting {
			status, v = http.StatusAccepted, map[string]any{"waiting": true, "session": e.Session, "room_id": e.RoomID}
		}
		answer(w, status, v)
	}
}

// caller is who asks.
func (a *API) caller(r *http.Request) (meeting.Caller, error) {
	c := meeting.Caller{Address: a.Address(r), MediaAt: a.MediaAt(r)}
	if h := r.Header.Get("Authorization"); h != "" && !strings.HasPrefix(h, sessionScheme) {
		token, ok := strings.CutPrefix(h, "Bearer ")
		if !ok || strings.TrimSpace(token) == "" {
			return c, signalling.Refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "the Authorization header must be: Bearer, a space, the access token; or Session, a space, the session")
		}
		c.Bearer = strings.TrimSpace(token)
	}
	return c, nil
}

const sessionScheme = "Session "

func session(r *http.Request) string {
	s, _ := strings.CutPrefix(r.Header.Get("Authorization"), sessionScheme)
	if !strings.HasPrefix(r.Header.Get("Authorization"), sessionScheme) {
		return ""
	}
	return strings.TrimSpace(s)
}

func (a *API) info(_ http.ResponseWriter, r *http.Request) (any, error) {
	c, err := a.caller(r)
	if err != nil {
		return nil, err
	}
	return a.Meetings.Info(r.Context(), r.PathValue("name"), c)
}

func (a *API) join(w http.ResponseWriter, r *http.Request) (any, error) {
	c, err := a.caller(r)
	if err != nil {
		return nil, err
	}
	var q meeting.Join
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	return a.Meetings.Join(r.Context(), r.PathValue("name"), q, c)
}

// held is the body of requests that need a session only.
type held struct {
	Session string `json:"session"`
}

// holder reads who shows a session, and it.
func (a *API) holder(w http.ResponseWriter, r *http.Request) (q held, c meeting.Caller, err error) {
	if c, err = a.caller(r); err == nil {
		err = decode(w, r, &q)
	}
	return q, c, err
}

func (a *API) wait(w http.ResponseWriter, r *http.Request) (any, error) {
	q, c, err := a.holder(w, r)
	if err != nil {
		return nil, err
	}
	return a.Meetings.Wait(r.Context(), r.PathValue("name"), q.Session, c)
}

func (a *API) token(w http.ResponseWriter, r *http.Request) (any, error) {
	q, c, err := a.holder(w, r)
	if err != nil {
		return nil, err
	}
	return a.Meetings.Token(r.Context(), r.PathValue("name"), q.Session, c)
}

func (a *API) leave(w http.ResponseWriter, r *http.Request) (any, error) {
	var q held
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	return struct{}{}, a.Meetings.Leave(r.Context(), r.PathValue("name"), q.Session)
}

func (a *API) host(w http.ResponseWriter, r *http.Request) (any, error) {
	var q meeting.Action
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	if q.Session == "" {
		q.Session = session(r)
	}
	return struct{}{}, a.Meetings.Act(r.Context(), r.PathValue("name"), q)
}

func (a *API) knocks(_ http.ResponseWriter, r *http.Request) (any, error) {
	list, err := a.Meetings.Knocks(r.Context(), r.PathValue("name"), session(r))
	return map[string]any{"knocks": list}, err
}

// records also is the address of the meeting "records", when none is named.
func (a *API) records(_ http.ResponseWriter, r *http.Request) (any, error) {
	c, err := a.caller(r)
	if err != nil {
		return nil, err
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		return a.Meetings.Info(r.Context(), "records", c)
	}
	list, err := a.Meetings.Records(r.Context(), name, session(r), c)
	return map[string]any{"meetings": list}, err
}

// decode reads a body that is a JSON object; its type may be anything, for beacons are text. Errors: M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return signalling.TooLarge("the body of this request may have %d bytes", maxBody)
	case err != nil:
		return signalling.NotJSON("the body did not arrive whole")
	case !utf8.Valid(body) || !json.Valid(body):
		return signalling.NotJSON("the body must be JSON")
	case !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")):
		return signalling.BadJSON("the body must be a JSON object")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return signalling.BadJSON("the body has the wrong shape")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client went away: nobody to tell
}

func refuse(w http.ResponseWriter, e *signalling.Error) {
	m := map[string]any{}
	for k, v := range e.Fields {
		m[k] = v
	}
	m["errcode"], m["error"] = e.Code, e.Message
	if after, ok := e.Fields["retry_after_ms"].(int64); ok {
		w.Header().Set("Retry-After", strconv.FormatInt((after+999)/1000, 10))
	}
	answer(w, e.Status, m)
}
