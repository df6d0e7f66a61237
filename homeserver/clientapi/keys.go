// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"errors"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/signalling"
)

const maxKeysBody = 4 << 20 // bytes of a request about many keys or many devices

// routesKeys: "End-to-end encryption", the keys of devices and users.
func (a *API) routesKeys() {
	if a.E2EE == nil {
		return
	}
	const base = "/_matrix/client/v3/keys"
	a.route("POST "+base+"/upload", AnyUser, "requests", a.keysUpload)
	// The device id in the path is from before v1.0; it has no meaning beside that of the token.
	a.route("POST "+base+"/upload/{device}", AnyUser, "requests", a.keysUpload)
	a.route("POST "+base+"/query", AnyUser, "requests", func(r *Request) (any, error) {
		q, err := decodeBody(r, maxKeysBody, e2ee.DecodeQuery)
		if err != nil {
			return nil, err
		}
		return a.E2EE.Query(r.Context(), r.UserID, q)
	})
	a.route("POST "+base+"/claim", AnyUser, "requests", func(r *Request) (any, error) {
		c, err := decodeBody(r, maxKeysBody, e2ee.DecodeClaims)
		if err != nil {
			return nil, err
		}
		return a.E2EE.Claim(r.Context(), c)
	})
	a.route("POST "+base+"/signatures/upload", Token, "requests", func(r *Request) (any, error) {
		k, err := decodeBody(r, maxKeysBody, e2ee.DecodeSignedKeys)
		if err != nil {
			return nil, err
		}
		failures, err := a.E2EE.UploadSignatures(r.Context(), r.UserID, k)
		return map[string]any{"failures": failures}, err
	})
	a.route("POST "+base+"/device_signing/upload", Token, "requests", a.crossSigningUpload)
	if a.Sync != nil {
		a.route("GET "+base+"/changes", AnyUser, "requests", func(r *Request) (any, error) {
			from, to := r.Param("from"), r.Param("to")
			if from == "" || to == "" {
				return nil, signalling.MissingParam("from and to are needed: two tokens of /sync")
			}
			changed, left, err := a.Sync.DeviceLists(r.Context(), r.UserID, from, to)
			return map[string]any{"changed": changed, "left": left}, err
		})
	}
}

// decodeBody reads a body of at most limit bytes with a decoder of the service that it is for.
func decodeBody[T any](r *Request, limit int64, decode func([]byte) (T, error)) (v T, err error) {
	body, err := r.ReadBody(limit)
	if err != nil {
		return v, err
	}
	return decode(body)
}

func (a *API) keysUpload(r *Request) (any, error) {
	if r.DeviceID == "" {
		return nil, signalling.InvalidParam("this access token belongs to no device")
	}
	u, err := decodeBody(r, maxKeysBody, e2ee.DecodeUpload)
	if err != nil {
		return nil, err
	}
	counts, err := a.E2EE.Upload(r.Context(), r.UserID, r.DeviceID, u)
	return map[string]any{"one_time_key_counts": counts}, err
}

// crossSigningUpload asks for the password only where keys would be replaced (v1.11, MSC3967).
func (a *API) crossSigningUpload(r *Request) (any, error) {
	body, err := r.ReadBody(MaxBody)
	if err != nil {
		return nil, err
	}
	var in struct {
		Auth *accounts.Auth `json:"auth"`
	}
	if err := decodeObject(body, &in); err != nil {
		return nil, err
	}
	c, err := e2ee.DecodeCrossSigning(body)
	if err != nil {
		return nil, err
	}
	err = a.E2EE.UploadCrossSigning(r.Context(), r.UserID, c, false)
	if !errors.Is(err, e2ee.ErrNeedsAuth) {
		return nil, err
	}
	if err := r.confirm("replace cross-signing keys", in.Auth); err != nil {
		return nil, err
	}
	return nil, a.E2EE.UploadCrossSigning(r.Context(), r.UserID, c, true)
}
