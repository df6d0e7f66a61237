// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
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
	*httpapi.Exchange
	accounts.Session
	api *API
}

// Addr is the client's address without a port.
func (r *Request) Addr() string { return httpapi.Address(r.Request, r.api.Config.TrustedProxies) }

// ReadBody reads the body, at most limit bytes. Errors: M_TOO_LARGE.
func (r *Request) ReadBody(limit int64) ([]byte, error) { return r.Exchange.ReadBody(limit, bodyTime) }

// Object reads a body that is one JSON object, as it was sent. Errors: M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE.
func (r *Request) Object(limit int64) (json.RawMessage, error) {
	body, err := r.ReadBody(limit)
	if err != nil {
		return nil, err
	}
	return body, httpapi.CheckObject(body)
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

func decodeObject(body []byte, v any) error {
	if err := httpapi.CheckObject(body); err != nil {
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
