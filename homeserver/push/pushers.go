// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// maxPushers bounds the pushers of one user: one for each application on each device is the idea.
const maxPushers = 100

// Pusher is a pusher as clients write and see it ("POST /_matrix/client/v3/pushers/set").
type Pusher struct {
	Key               string          `json:"pushkey"`
	Kind              string          `json:"kind"` // "http"
	AppID             string          `json:"app_id"`
	AppDisplayName    *string         `json:"app_display_name"`
	DeviceDisplayName *string         `json:"device_display_name"`
	ProfileTag        string          `json:"profile_tag,omitempty"`
	Lang              *string         `json:"lang"`
	Data              json.RawMessage `json:"data"`
	// Enabled and DeviceID are MSC3881's, under both names: a pusher can be switched off, by any of the user's devices.
	Enabled         *bool  `json:"enabled,omitempty"`
	EnabledUnstable *bool  `json:"org.matrix.msc3881.enabled,omitempty"`
	DeviceID        string `json:"device_id,omitempty"`                    // shown only
	DeviceUnstable  string `json:"org.matrix.msc3881.device_id,omitempty"` // shown only
}

func (p *Pusher) check() error {
	switch {
	case p.AppID == "" || p.Key == "":
		return signalling.MissingParam("app_id and pushkey are needed")
	case len(p.AppID) > 64:
		return signalling.InvalidParam("an app_id may have 64 bytes")
	case len(p.Key) > 512:
		return signalling.InvalidParam("a pushkey may have 512 bytes")
	}
	return nil
}

func (p *Pusher) checkWhole(gateways *gateway.Client) error {
	if p.AppDisplayName == nil || p.DeviceDisplayName == nil || p.Lang == nil || p.Data == nil {
		return signalling.MissingParam("app_display_name, device_display_name, lang and data are needed")
	}
	if p.Kind != "http" {
		return signalling.InvalidParam("pushers of this kind are not known; kind is http")
	}
	if len(*p.AppDisplayName)+len(*p.DeviceDisplayName)+len(*p.Lang)+len(p.ProfileTag)+len(p.Data) > 16<<10 {
		return signalling.TooLarge("a pusher may have 16 KiB")
	}
	var data struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(p.Data, &data); err != nil {
		return signalling.BadJSON("data must be an object whose url is a string").Because(err)
	}
	if data.URL == "" {
		return signalling.MissingParam("data.url is missing")
	}
	if _, err := gateways.Check(data.URL); err != nil {
		return signalling.InvalidParam("data.url must be an https URL with the path %s", gateway.Path).Because(err)
	}
	return nil
}

// SetPusher makes or changes a pusher of a user; device is the one whose token asked. alone removes other users' pushers with the
// same app and key, because the device has changed hands. Errors: M_MISSING_PARAM, M_INVALID_PARAM, M_BAD_JSON, M_TOO_LARGE,
// M_RESOURCE_LIMIT_EXCEEDED.
func (s *Service) SetPusher(ctx context.Context, user, device string, p Pusher, alone bool) error {
	if err := p.check(); err != nil {
		return err
	}
	if err := p.checkWhole(s.gateways); err != nil {
		return err
	}
	enabled := true
	for _, set := range []*bool{p.Enabled, p.EnabledUnstable} {
		enabled = enabled && (set == nil || *set)
	}
	p.Enabled, p.EnabledUnstable, p.DeviceID, p.DeviceUnstable = nil, nil, "", ""
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	row := storage.Pusher{User: user, AppID: p.AppID, Key: p.Key, Device: device, CreatedTS: s.clock.Now().UnixMilli(), JSON: raw, Enabled: enabled}
	return s.store.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.SetPusher(row, alone); err != nil {
			return err
		}
		n, err := tx.CountPushers(user)
		if err == nil && n > maxPushers {
			err = signalling.Refuse(http.StatusBadRequest, "M_RESOURCE_LIMIT_EXCEEDED", "a user may have %d pushers", maxPushers)
		}
		return err
	})
}

// DeletePusher removes a pusher; one that is not there is fine. Errors: M_MISSING_PARAM.
func (s *Service) DeletePusher(ctx context.Context, user string, p Pusher) error {
	if err := p.check(); err != nil {
		return err
	}
	return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.DeletePusher(user, p.AppID, p.Key) })
}

// PushersJSON lists a user's pushers as a JSON array.
func (s *Service) PushersJSON(ctx context.Context, user string) (json.RawMessage, error) {
	rows, err := s.store.Pushers(ctx, user)
	if err != nil {
		return nil, err
	}
	list := make([]Pusher, len(rows))
	for i := range rows {
		r := &rows[i]
		if err := json.Unmarshal(r.JSON, &list[i]); err != nil {
			return nil, err
		}
		list[i].Enabled, list[i].EnabledUnstable, list[i].DeviceID, list[i].DeviceUnstable = &r.Enabled, &r.Enabled, r.Device, r.Device
	}
	return json.Marshal(list)
}

// DeviceDeleted removes the pushers that a device set, in the transaction that deletes the device.
func (s *Service) DeviceDeleted(tx *storage.Tx, user, device string) error {
	return tx.DeleteDevicePushers(user, device)
}
