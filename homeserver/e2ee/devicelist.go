// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// DeviceList is what other servers are told of a user's devices (server-server API, "Device Management").
type DeviceList struct {
	User        string          `json:"user_id"`
	Stream      int64           `json:"stream_id"` // position of the newest change
	Devices     []ListedDevice  `json:"devices"`
	Master      json.RawMessage `json:"master_key,omitempty"`
	SelfSigning json.RawMessage `json:"self_signing_key,omitempty"`
}

// ListedDevice is a device with its keys.
type ListedDevice struct {
	ID   string          `json:"device_id"`
	Keys json.RawMessage `json:"keys"`
	Name string          `json:"device_display_name,omitempty"`
}

// DeviceList gives the devices of a local user that have keys, as another server may see them.
func (s *Service) DeviceList(ctx context.Context, user string) (*DeviceList, error) {
	pos, err := s.store.DeviceListPos(ctx, user) // first: what changes meanwhile comes with a later position
	if err != nil {
		return nil, err
	}
	keys, err := s.LocalKeys(ctx, Query{user: nil})
	if err != nil {
		return nil, err
	}
	out := &DeviceList{User: user, Stream: pos, Devices: []ListedDevice{}, Master: keys.MasterKeys[user], SelfSigning: keys.SelfSigningKeys[user]}
	for id, k := range keys.DeviceKeys[user] {
		var named struct {
			Unsigned struct {
				Name string `json:"device_display_name"`
			} `json:"unsigned"`
		}
		if err := json.Unmarshal(k, &named); err != nil {
			return nil, err
		}
		out.Devices = append(out.Devices, ListedDevice{ID: id, Keys: k, Name: named.Unsigned.Name})
	}
	slices.SortFunc(out.Devices, func(a, b ListedDevice) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
