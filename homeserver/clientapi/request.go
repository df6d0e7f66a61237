// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Sizes of request bodies, in bytes.
const (
	MaxBody      = 1 << 20              // what nothing else is said about
	MaxEventBody = event.MaxSize + 4096 // content of one event, with some blanks that its canonical form will not have
	bodyTime     = 30 * time.Second     // for reading a body: a slower client is cut off
)

// Request is an HTTP request with the session it belongs to. Session is the zero Session where nobody is logged in.
type Request struct {
	*http.Request
	accounts.Session
	api   *API
	w     http.ResponseWriter
	query url.Values
	wrote bool
}

// Writer is for handlers that answer by themselves and then return Written.
func (r *Request) Writer() http.ResponseWriter {
	r.wrote = true
	return r.w
}

// AnswerHeader is the header of the answer, for handlers that let the API write the body.
func (r *Request) AnswerHeader() http.Header { return r.w.Header() }

// Param is a query parameter, "" when it is missing.
func (r *Request) Param(name string) string { return r.params().Get(name) }

// HasParam says whether a query parameter was given, empty or not.
func (r *Request) HasParam(name string) bool { return r.params().Has(name) }

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

// BoolParam is a query parameter that is true or false; missing gives def.
func (r *Request) BoolParam(name string, def bool) (bool, error) {
	switch r.Param(name) {
	case "":
		return def, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, signalling.InvalidParam("%s must be true or false", name)
}

// ReadBody reads the body, at most limit bytes. Errors: M_TOO_LARGE.
func (r *Request) ReadBody(limit int64) ([]byte, error) {
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
	var err error
	var body []byte
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(r.w, r.Body, limit))
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, signalling.TooLarge("the body of this request may have %d bytes", limit)
	case err != nil:
		return nil, signalling.NotJSON("the body did not arrive whole").Because(err)
	}
	return body, nil
}

// Object reads a body that is one JSON object, as it was sent. Errors: M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE.
func (r *Request) Object(limit int64) (json.RawMessage, error) {
	body, err := r.ReadBody(limit)
	if err != nil {
		return nil, err
	}
	return body, checkObject(body)
}

// Decode reads a body of at most MaxBody bytes into v. The body must be a JSON object; strings in it must not hold NUL, which
// PostgreSQL cannot store. Errors: M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE.
func (r *Request) Decode(v any) error {
	body, err := r.ReadBody(MaxBody)
	if err != nil {
		return err
	}
	return decodeObject(body, v)
}

// DecodeIfAny is Decode for endpoints whose body may be left out.
func (r *Request) DecodeIfAny(v any) error {
	body, err := r.ReadBody(MaxBody)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	return decodeObject(body, v)
}

// Limit counts the request against op, by user, or by address where nobody is logged in. Errors: M_LIMIT_EXCEEDED.
func (r *Request) Limit(op string) error {
	if r.UserID != "" {
		return r.LimitBy(op, r.UserID)
	}
	return r.LimitBy(op, r.Addr())
}

// LimitBy counts the request against op by a key of the handler's choice. Errors: M_LIMIT_EXCEEDED.
func (r *Request) LimitBy(op, key string) error {
	if op == "" || r.api.Limiter == nil {
		return nil
	}
	if ok, after := r.api.Limiter.Allow(op, key); !ok {
		// Rounded up, so that a client that waits exactly so long is let in.
		return signalling.LimitExceeded(after.Truncate(time.Millisecond) + time.Millisecond)
	}
	return nil
}

// Own checks that a user id in the path is the caller's own. Errors: M_FORBIDDEN.
func (r *Request) Own(pathName string) error {
	if r.PathValue(pathName) != r.UserID {
		return signalling.Forbidden("this belongs to another user")
	}
	return nil
}

func checkObject(body []byte) error {
	if err := event.CheckJSON(body); err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); trimmed[0] != '{' {
		return signalling.BadJSON("the body must be a JSON object")
	}
	return nil
}

func decodeObject(body []byte, v any) error {
	if err := checkObject(body); err != nil {
		return err
	}
	if hasNUL(body) {
		return signalling.BadJSON("strings in this body must not hold the character NUL")
	}
	if err := json.Unmarshal(body, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return signalling.BadJSON("%s has the wrong type", wrong.Field)
		}
		var refused *signalling.Error
		if errors.As(err, &refused) {
			return refused
		}
		return signalling.BadJSON("the body has the wrong shape").Because(err)
	}
	return nil
}

// hasNUL finds an escaped NUL in JSON text (a bare one is not JSON).
func hasNUL(body []byte) bool {
	for from := 0; ; {
		i := bytes.Index(body[from:], []byte(`\u0000`))
		if i < 0 {
			return false
		}
		i += from
		slashes := 0
		for j := i - 1; j >= 0 && body[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		from = i + 1
	}
}
