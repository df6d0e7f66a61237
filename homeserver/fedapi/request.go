// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Sizes of request bodies, in bytes.
const (
	maxBody  = 1 << 20          // what nothing else is said about
	bodyTime = 60 * time.Second // for reading a body: a slower server is cut off
)

// Request is an HTTP request of another server.
type Request struct {
	*http.Request
	Origin string // the server that signed it; "" on open endpoints
	Body   []byte // all of it
	api    *API
	w      http.ResponseWriter
	query  url.Values
	wrote  bool
}

// Writer is for handlers that answer by themselves and then return Written.
func (r *Request) Writer() http.ResponseWriter {
	r.wrote = true
	return r.w
}

// Param is a query parameter, "" when it is missing.
func (r *Request) Param(name string) string { return r.params().Get(name) }

// Params is all values of a query parameter.
func (r *Request) Params(name string) []string { return r.params()[name] }

func (r *Request) params() url.Values {
	if r.query == nil {
		r.query = r.URL.Query()
	}
	return r.query
}

// IntParam is a query parameter that counts: missing gives def, more than most is most, and what is not a number, or less than
// least, is 400 M_INVALID_PARAM.
func (r *Request) IntParam(name string, def, least, most int64) (int64, error) {
	s := r.Param(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) && s[0] != '-' {
		return most, nil
	}
	if err != nil || n < least {
		return 0, signalling.InvalidParam("%s must be a whole number, %d or more", name, least)
	}
	return min(n, most), nil
}

// Decode reads the body, a JSON object, into v. Errors: M_NOT_JSON, M_BAD_JSON.
func (r *Request) Decode(v any) error {
	if err := event.CheckJSON(r.Body); err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(r.Body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return signalling.BadJSON("the body must be a JSON object")
	}
	if err := json.Unmarshal(r.Body, v); err != nil {
		return signalling.BadJSON("the body has the wrong shape").Because(err)
	}
	return nil
}

func (r *Request) readBody(limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		r.w.Header().Set("Connection", "close")
		return nil, signalling.TooLarge("the body of this request may have %d bytes", limit)
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	rc := http.NewResponseController(r.w)
	if rc.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	}
	body, err := io.ReadAll(http.MaxBytesReader(r.w, r.Request.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, signalling.TooLarge("the body of this request may have %d bytes", limit)
	case err != nil:
		return nil, signalling.NotJSON("the body did not arrive whole").Because(err)
	}
	return body, nil
}

func (r *Request) limit(op, key string) error {
	if r.api.Limiter == nil {
		return nil
	}
	if ok, after := r.api.Limiter.Allow(op, key); !ok {
		return signalling.LimitExceeded(after.Truncate(time.Millisecond) + time.Millisecond)
	}
	return nil
}

// Addr is the address that a request comes from, without a port. X-Forwarded-For is believed only as far as trusted proxies wrote it.
func (r *Request) Addr() string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	peer = peer.Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && r.api.trusts(peer); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		peer = hop.Unmap().WithZone("")
	}
	return peer.String()
}

func (a *API) trusts(ip netip.Addr) bool {
	for _, p := range a.TrustedProxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// Raw is an answer that is JSON already; it is written as it is.
type Raw []byte

// Written says that the handler answered by itself, through Request.Writer. Status is for the metrics; 0 counts as 200.
type Written struct{ Status int }

func writeJSON(w http.ResponseWriter, v any) error {
	switch v := v.(type) {
	case nil:
		return writeBytes(w, http.StatusOK, []byte("{}"))
	case Raw:
		return writeBytes(w, http.StatusOK, v)
	case json.RawMessage:
		return writeBytes(w, http.StatusOK, v)
	}
	b, err := encode(v)
	if err != nil {
		writeError(w, signalling.Internal(nil))
		return err
	}
	return writeBytes(w, http.StatusOK, b)
}

// encode is json.Marshal without the escapes for HTML.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

func writeBytes(w http.ResponseWriter, status int, b []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // the server is gone: nothing of ours failed
	return nil
}

func writeError(w http.ResponseWriter, e *signalling.Error) {
	m := make(map[string]any, len(e.Fields)+2)
	for k, v := range e.Fields {
		m[k] = v
	}
	m["errcode"], m["error"] = e.Code, e.Message
	if ms, ok := e.Fields["retry_after_ms"].(int64); ok {
		w.Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
	}
	b, err := encode(m)
	if err != nil {
		b = []byte(`{"errcode":"M_UNKNOWN","error":"the server could not do this; its log says why"}`)
	}
	_ = writeBytes(w, e.Status, b)
}

// refuse writes err and gives the status. What is not a refusal is logged, once, with a request id that the other server sees too.
func (a *API) refuse(w http.ResponseWriter, hr *http.Request, err error) int {
	e := signalling.AsError(err)
	if e.Status >= http.StatusInternalServerError {
		if id := a.logInternal(hr, err); id != "" {
			w.Header().Set("X-Request-Id", id)
		}
	} else {
		a.Log.Debug("a server was refused", "method", hr.Method, "route", hr.Pattern, "err", err)
	}
	writeError(w, e)
	return e.Status
}

func (a *API) logInternal(hr *http.Request, err error) string {
	if errors.Is(err, context.Canceled) && hr.Context().Err() != nil {
		return "" // the server went away
	}
	id := rand.Text()[:12]
	a.Log.Error("request failed", "request", id, "method", hr.Method, "route", hr.Pattern, "err", err)
	return id
}
