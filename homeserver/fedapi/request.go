// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// Sizes of request bodies, in bytes.
const (
	maxBody  = 1 << 20          // what nothing else is said about
	bodyTime = 60 * time.Second // for reading a body: a slower server is cut off
)

// Request is an HTTP request of another server.
type Request struct {
	*httpapi.Exchange
	Origin string // the server that signed it; "" on open endpoints
	Body   []byte // all of it
	api    *API
}

// Addr is the address that a request comes from, without a port.
func (r *Request) Addr() string { return httpapi.Address(r.Request, r.api.TrustedProxies) }

// Decode reads the body, a JSON object, into v. Errors: M_NOT_JSON, M_BAD_JSON.
func (r *Request) Decode(v any) error {
	if err := httpapi.CheckObject(r.Body); err != nil {
		return err
	}
	if err := json.Unmarshal(r.Body, v); err != nil {
		return signalling.BadJSON("the body has the wrong shape").Because(err)
	}
	return nil
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

// What handlers return besides values that are encoded as JSON.
type (
	Raw     = httpapi.Raw
	Written = httpapi.Written
)
