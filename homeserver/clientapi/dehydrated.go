// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesDehydrated: dehydrated devices (MSC3814): a device that receives keys while its user is nowhere logged in. Its messages were
// first asked for with POST, as clients do, and by the newest draft with GET.
func (a *API) routesDehydrated() {
	if a.Accounts == nil || a.E2EE == nil {
		return
	}
	const base = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
	a.advertise("org.matrix.msc3814")
	a.route("PUT "+base, Token, "requests", a.dehydrate)
	a.route("GET "+base, Token, "requests", func(r *Request) (any, error) {
		id, data, err := a.Accounts.Dehydrated(r.Context(), r.UserID)
		return map[string]any{"device_id": id, "device_data": data}, err
	})
	a.route("DELETE "+base, Token, "requests", func(r *Request) (any, error) {
		id, err := a.Accounts.DeleteDehydrated(r.Context(), r.UserID)
		return map[string]string{"device_id": id}, err
	})
	a.route("GET "+base+"/{device}/events", Token, "requests", func(r *Request) (any, error) { return a.dehydratedEvents(r, r.Param("next_batch")) })
	a.route("POST "+base+"/{device}/events", Token, "requests", func(r *Request) (any, error) {
		var in struct {
			Next string `json:"next_batch"`
		}
		if err := r.DecodeIfAny(&in); err != nil {
			return nil, err
		}
		return a.dehydratedEvents(r, in.Next)
	})
}

func (a *API) dehydrate(r *Request) (any, error) {
	body, err := r.ReadBody(maxKeysBody)
	if err != nil {
		return nil, err
	}
	var in struct {
		DeviceID *string         `json:"device_id"`
		Data     json.RawMessage `json:"device_data"`
		Name     string          `json:"initial_device_display_name"`
		Keys     json.RawMessage `json:"device_keys"`
	}
	if err := decodeObject(body, &in); err != nil {
		return nil, err
	}
	if in.DeviceID == nil || null(in.Data) == nil || null(in.Keys) == nil {
		return nil, signalling.MissingParam("device_id, device_data and device_keys are needed")
	}
	keys, err := e2ee.DecodeUpload(body)
	if err != nil {
		return nil, err
	}
	err = a.Accounts.Dehydrate(r.Context(), r.UserID, *in.DeviceID, in.Name, in.Data, func(tx *storage.Tx) error {
		return a.E2EE.UploadInto(tx, r.UserID, *in.DeviceID, keys)
	})
	a.E2EE.ForgetDevice(r.UserID, *in.DeviceID)
	return map[string]string{"device_id": *in.DeviceID}, err
}

const dehydratedPage = 100 // messages of one answer

// dehydratedEvents gives messages that wait for the dehydrated device. They stay until the device is deleted, so that whoever reads
// them may be interrupted.
func (a *API) dehydratedEvents(r *Request, next string) (any, error) {
	id, _, err := a.Accounts.Dehydrated(r.Context(), r.UserID)
	if err != nil && signalling.AsError(err).Code != "M_NOT_FOUND" {
		return nil, err
	}
	if err != nil || id != r.PathValue("device") {
		return nil, signalling.Forbidden("that is not your dehydrated device")
	}
	after := int64(0)
	if next != "" {
		if after, err = strconv.ParseInt(next, 10, 64); err != nil || after < 0 {
			return nil, signalling.InvalidParam("next_batch must be from the answer before")
		}
	}
	limit, err := r.IntParam("limit", dehydratedPage, 1, dehydratedPage)
	if err != nil {
		return nil, err
	}
	events, last, err := a.E2EE.ToDevice(r.Context(), r.UserID, id, after, math.MaxInt64, int(limit))
	if events == nil {
		events = []json.RawMessage{}
	}
	return map[string]any{"events": events, "next_batch": strconv.FormatInt(last, 10)}, err
}
