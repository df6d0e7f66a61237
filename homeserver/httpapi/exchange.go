// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Exchange is an HTTP request with the way back.
type Exchange struct {
	*http.Request
	w     http.ResponseWriter
	query url.Values
	wrote bool
}

// Of is the exchange of a request outside a Frame.
func Of(w http.ResponseWriter, r *http.Request) *Exchange { return &Exchange{Request: r, w: w} }

// Writer is for handlers that answer by themselves and then return Written.
func (x *Exchange) Writer() http.ResponseWriter {
	x.wrote = true
	return x.w
}

// AnswerHeader is the header of the answer, for handlers that let the frame write the body.
func (x *Exchange) AnswerHeader() http.Header { return x.w.Header() }

// Controller sets deadlines of the connection.
func (x *Exchange) Controller() *http.ResponseController { return http.NewResponseController(x.w) }

// Param is a query parameter, "" when it is missing.
func (x *Exchange) Param(name string) string { return x.params().Get(name) }

// HasParam says whether a query parameter was given, empty or not.
func (x *Exchange) HasParam(name string) bool { return x.params().Has(name) }

// Params is all values of a query parameter.
func (x *Exchange) Params(name string) []string { return x.params()[name] }

func (x *Exchange) params() url.Values {
	if x.query == nil {
		x.query = x.URL.Query()
	}
	return x.query
}

// IntParam is a query parameter that counts: missing gives def, more than most is most, and what is not a number, or less than
// least, is 400 M_INVALID_PARAM.
func (x *Exchange) IntParam(name string, def, least, most int64) (int64, error) {
	s := x.Param(name)
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
func (x *Exchange) BoolParam(name string, def bool) (bool, error) {
	switch x.Param(name) {
	case "":
		return def, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, signalling.InvalidParam("%s must be true or false", name)
}

// ReadBody reads the body, at most limit bytes, for at most within: whoever is slower is cut off. Errors: M_TOO_LARGE.
func (x *Exchange) ReadBody(limit int64, within time.Duration) ([]byte, error) {
	if x.ContentLength > limit {
		x.w.Header().Set("Connection", "close")
		return nil, signalling.TooLarge("the body of this request may have %d bytes", limit)
	}
	if x.ContentLength == 0 {
		return nil, nil
	}
	rc := x.Controller()
	if rc.SetReadDeadline(time.Now().Add(within)) == nil {
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	}
	var err error
	var body []byte
	if x.ContentLength > 0 {
		body = make([]byte, x.ContentLength)
		_, err = io.ReadFull(x.Request.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(x.w, x.Request.Body, limit))
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

// CheckObject wants one JSON object. Errors: M_NOT_JSON, M_BAD_JSON.
func CheckObject(body []byte) error {
	if err := event.CheckJSON(body); err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return signalling.BadJSON("the body must be a JSON object")
	}
	return nil
}
