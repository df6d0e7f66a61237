// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/trunkboard/trunkboard/signalling"
)

// Raw is an answer that is JSON already; it is written as it is.
type Raw []byte

// Written says that the handler answered by itself, through Exchange.Writer. Status is for the metrics; 0 counts as 200.
type Written struct{ Status int }

var (
	jsonType    = []string{"application/json"}
	emptyObject = Raw("{}")
)

// writeJSON answers 200 with v.
func writeJSON(w http.ResponseWriter, v any) error {
	switch v := v.(type) {
	case nil:
		WriteBytes(w, http.StatusOK, emptyObject)
	case Raw:
		WriteBytes(w, http.StatusOK, v)
	case json.RawMessage:
		WriteBytes(w, http.StatusOK, v)
	default:
		b, err := Encode(v)
		if err != nil {
			WriteError(w, signalling.Internal(nil))
			return err
		}
		WriteBytes(w, http.StatusOK, b)
	}
	return nil
}

// Encode is json.Marshal without the escapes for HTML.
func Encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// WriteBytes answers with b, which is JSON.
func WriteBytes(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(status)
	_, _ = w.Write(b) // if it fails the other side is gone: nothing of ours failed
}

// WriteError answers with the standard error object. An Error without a code is an answer that is not an error object, such as the
// first answer of user-interactive authentication: only its fields are sent.
func WriteError(w http.ResponseWriter, e *signalling.Error) {
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
	b, err := Encode(m)
	if err != nil {
		b = []byte(`{"errcode":"M_UNKNOWN","error":"the server could not do this; its log says why"}`)
	}
	WriteBytes(w, e.Status, b)
}
