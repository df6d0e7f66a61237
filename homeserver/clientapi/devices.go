// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesDevices: "Device Management".
func (a *API) routesDevices() {
	if a.Accounts == nil {
		return
	}
	a.route("GET /_matrix/client/v3/devices", AnyUser, "requests", func(r *Request) (any, error) {
		all, err := a.Accounts.Devices(r.Context(), r.UserID)
		out := make([]device, len(all))
		for i, d := range all {
			out[i] = deviceOf(d)
		}
		return map[string]any{"devices": out}, err
	})
	a.route("GET /_matrix/client/v3/devices/{deviceID}", AnyUser, "requests", func(r *Request) (any, error) {
		d, err := a.Accounts.Device(r.Context(), r.UserID, r.PathValue("deviceID"))
		return deviceOf(d), err
	})
	a.route("PUT /_matrix/client/v3/devices/{deviceID}", AnyUser, "requests", func(r *Request) (any, error) {
		var in struct {
			DisplayName *string `json:"display_name"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.DisplayName == nil {
			_, err := a.Accounts.Device(r.Context(), r.UserID, r.PathValue("deviceID"))
			return nil, err
		}
		return nil, a.Accounts.RenameDevice(r.Context(), r.UserID, r.PathValue("deviceID"), *in.DisplayName)
	})
	a.route("DELETE /_matrix/client/v3/devices/{deviceID}", Token, "requests", func(r *Request) (any, error) {
		var in struct {
			Auth *accounts.Auth `json:"auth"`
		}
		if err := r.DecodeIfAny(&in); err != nil {
			return nil, err
		}
		return nil, a.deleteDevices(r, in.Auth, r.PathValue("deviceID"))
	})
	a.route("POST /_matrix/client/v3/delete_devices", Token, "requests", func(r *Request) (any, error) {
		var in struct {
			Devices []string       `json:"devices"`
			Auth    *accounts.Auth `json:"auth"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.Devices == nil {
			return nil, signalling.MissingParam("devices is needed: a list of device ids")
		}
		if len(in.Devices) > 1000 {
			return nil, signalling.TooLarge("1000 devices can be deleted at once")
		}
		return nil, a.deleteDevices(r, in.Auth, in.Devices...)
	})
}

func (a *API) deleteDevices(r *Request, auth *accounts.Auth, ids ...string) error {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if err := r.confirm("delete devices "+strings.Join(ids, "\x00"), auth); err != nil {
		return err
	}
	return a.Accounts.DeleteDevices(r.Context(), r.UserID, ids...)
}

type device struct {
	ID     string `json:"device_id"`
	Name   string `json:"display_name,omitempty"`
	SeenTS int64  `json:"last_seen_ts,omitempty"`
	SeenIP string `json:"last_seen_ip,omitempty"`
}

func deviceOf(d storage.Device) device { return device{d.ID, d.DisplayName, d.SeenTS, d.SeenIP} }
