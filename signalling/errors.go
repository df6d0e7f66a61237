// SPDX-License-Identifier: Apache-2.0

package signalling

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Error is a refusal as a stranger may see it: a code for the machine, a text for the person, and a cause that goes to the log
// only. Codes are Matrix error codes (client-server API, "Standard error response").
type Error struct {
	Status  int            // HTTP status
	Code    string         // "M_FORBIDDEN", "M_NOT_FOUND" …
	Message string         // safe to show; says what to do next where it can
	Fields  map[string]any // more members of the JSON answer, e.g. retry_after_ms
	Cause   error          // for the log, never sent
}

// Error joins the code, the text and the cause, for logs.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return e.Code + ": " + e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Because returns a copy of e with cause.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// With returns a copy of e with one more field in the JSON answer.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Fields = make(map[string]any, len(e.Fields)+1)
	for k, v := range e.Fields {
		c.Fields[k] = v
	}
	c.Fields[key] = value
	return &c
}

// Refuse makes an Error from an HTTP status, a Matrix error code and a text.
func Refuse(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Forbidden is 403 M_FORBIDDEN.
func Forbidden(format string, args ...any) *Error {
	return Refuse(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

// NotFound is 404 M_NOT_FOUND.
func NotFound(format string, args ...any) *Error {
	return Refuse(http.StatusNotFound, "M_NOT_FOUND", format, args...)
}

// Unrecognized is 404 M_UNRECOGNIZED: no such endpoint here.
func Unrecognized() *Error {
	return Refuse(http.StatusNotFound, "M_UNRECOGNIZED", "this server does not have that endpoint")
}

// BadJSON is 400 M_BAD_JSON: valid JSON of the wrong shape.
func BadJSON(format string, args ...any) *Error {
	return Refuse(http.StatusBadRequest, "M_BAD_JSON", format, args...)
}

// NotJSON is 400 M_NOT_JSON.
func NotJSON(format string, args ...any) *Error {
	return Refuse(http.StatusBadRequest, "M_NOT_JSON", format, args...)
}

// InvalidParam is 400 M_INVALID_PARAM.
func InvalidParam(format string, args ...any) *Error {
	return Refuse(http.StatusBadRequest, "M_INVALID_PARAM", format, args...)
}

// MissingParam is 400 M_MISSING_PARAM.
func MissingParam(format string, args ...any) *Error {
	return Refuse(http.StatusBadRequest, "M_MISSING_PARAM", format, args...)
}

// TooLarge is 413 M_TOO_LARGE.
func TooLarge(format string, args ...any) *Error {
	return Refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", format, args...)
}

// UnknownToken is 401 M_UNKNOWN_TOKEN; soft tells the client that it may refresh or log in again and keep its keys.
func UnknownToken(soft bool) *Error {
	return Refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "this access token is not valid any more; log in again").With("soft_logout", soft)
}

// LimitExceeded is 429 M_LIMIT_EXCEEDED.
func LimitExceeded(after time.Duration) *Error {
	return Refuse(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "too many requests; wait a moment").With("retry_after_ms", after.Milliseconds())
}

// Internal is 500 M_UNKNOWN with a text that says nothing of the cause.
func Internal(cause error) *Error {
	return Refuse(http.StatusInternalServerError, "M_UNKNOWN", "the server could not do this; its log says why").Because(cause)
}

// AsError finds the Error in err's chain; any other error becomes Internal.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Internal(err)
}
