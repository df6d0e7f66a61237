// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/trunkboard/trunkboard/signalling"
)

// Raw is an answer that is JSON already; it is written as it is.
type Raw []byte

// Written says that the handler answered by itself, through Request.Writer. Status is for the metrics; 0 counts as 200.
type Written struct{ Status int }

var (
	jsonType    = []string{"application/json"}
	emptyObject = Raw("{}")
)

// writeJSON answers 200 with v.
func writeJSON(w http.ResponseWriter, v any) error {
	switch v := v.(type) {
	case nil:
		return writeBytes(w, http.StatusOK, emptyObject)
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
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func writeBytes(w http.ResponseWriter, status int, b []byte) error {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(status)
	_, err := w.Write(b)
	if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		return nil // the client is gone; nothing of ours failed
	}
	return nil
}

// writeError answers with the standard error object. An Error without a code is an answer that is not an error object, such as the
// first answer of user-interactive authentication: only its fields are sent.
func writeError(w http.ResponseWriter, e *signalling.Error) {
	m := make(map[string]any, len(e.Fields)+2)
	for k, v := range e.Fields {
		m[k] = v
	}
	if e.Code != "" {
		m["errcode"], m["error"] = e.Code, e.Message
	}
	if e.Code == "M_LIMIT_EXCEEDED" {
		if ms, ok := e.Fields["retry_after_ms"].(int64); ok {
			w.Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
		}
	}
	b, err := encode(m)
	if err != nil {
		b = []byte(`{"errcode":"M_UNKNOWN","error":"the server could not do this; its log says why"}`)
	}
	_ = writeBytes(w, e.Status, b)
}

// refuse writes err and gives the status. What is not a refusal is logged, once, with a request id that the client sees too.
func (a *API) refuse(w http.ResponseWriter, hr *http.Request, err error) int {
	e := signalling.AsError(err)
	switch {
	case e.Status == http.StatusBadGateway: // somebody else's failure
		a.Log.Info("another server did not do its part", "method", hr.Method, "route", hr.Pattern, "err", err)
	case e.Status >= http.StatusInternalServerError:
		if id := a.logInternal(hr, err); id != "" {
			w.Header().Set("X-Request-Id", id)
		}
	}
	writeError(w, e)
	return e.Status
}

// logInternal logs a failure of ours, without the query and the body, and gives the id under which it stands in the log.
func (a *API) logInternal(hr *http.Request, err error) string {
	if errors.Is(err, context.Canceled) && hr.Context().Err() != nil {
		return "" // the client went away
	}
	id := rand.Text()[:12]
	a.Log.Error("request failed", "request", id, "method", hr.Method, "route", hr.Pattern, "err", err)
	return id
}
