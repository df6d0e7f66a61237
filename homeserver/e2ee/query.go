// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Keys are device and cross-signing keys by user. Device keys: user -> device -> keys.
type Keys struct {
	DeviceKeys      map[string]map[string]json.RawMessage `json:"device_keys"`
	MasterKeys      map[string]json.RawMessage            `json:"master_keys,omitempty"`
	SelfSigningKeys map[string]json.RawMessage            `json:"self_signing_keys,omitempty"`
}

// QueriedKeys answers /keys/query.
type QueriedKeys struct {
	Keys
	UserSigningKeys map[string]json.RawMessage `json:"user_signing_keys,omitempty"` // of the one who asks, alone
	Failures        map[string]Failure         `json:"failures"`
}

// Query is whose keys are asked for: user -> devices, no devices meaning all.
type Query map[string][]string

// DecodeQuery reads the body of /keys/query. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func DecodeQuery(body []byte) (Query, error) {
	var raw struct {
		DeviceKeys *Query `json:"device_keys"`
	}
	if err := decode(body, &raw, "device_keys maps user ids to lists of device ids"); err != nil {
		return nil, err
	}
	if raw.DeviceKeys == nil {
		return nil, signalling.BadJSON("device_keys is missing")
	}
	if len(*raw.DeviceKeys) > MaxQueryUsers {
		return nil, signalling.TooLarge("the keys of %d users may be asked for at once", MaxQueryUsers)
	}
	for user := range *raw.DeviceKeys {
		if err := checkUser(user); err != nil {
			return nil, err
		}
	}
	return *raw.DeviceKeys, nil
}

// Query gives the keys of users, as viewer may see them: signatures that users made on their own keys and those of viewer; the
// user-signing key of viewer alone. A user of this server without keys has an empty object; users of servers that do not answer
// are missing, and failures says why.
func (s *Service) Query(ctx context.Context, viewer string, q Query) (*QueriedKeys, error) {
	out := &QueriedKeys{Failures: map[string]Failure{}}
	remote := map[string]map[string][]string{}
	local := make([]string, 0, len(q))
	for user, devices := range q {
		if server := event.ServerOf(user); server == s.server {
			local = append(local, user)
		} else {
			if remote[server] == nil {
				remote[server] = map[string][]string{}
			}
			remote[server][user] = devices
		}
	}
	slices.Sort(local)
	keys, userSigning, err := s.localKeys(ctx, viewer, local, q)
	if err != nil {
		return nil, err
	}
	out.Keys = *keys
	if userSigning != nil {
		out.UserSigningKeys = map[string]json.RawMessage{viewer: userSigning}
	}
	for server, a := range askAll(ctx, remote, s.remote != nil, func(ctx context.Context, server string, users map[string][]string) (*Keys, error) {
		return s.remote.QueryKeys(ctx, server, viewer, users)
	}) {
		if a.err != nil {
			out.Failures[server] = s.failure(server, a.err)
			continue
		}
		for user := range remote[server] {
			if k, ok := a.answer.DeviceKeys[user]; ok {
				out.DeviceKeys[user] = k
			}
			if k, ok := a.answer.MasterKeys[user]; ok {
				out.MasterKeys[user] = k
			}
			if k, ok := a.answer.SelfSigningKeys[user]; ok {
				out.SelfSigningKeys[user] = k
			}
		}
	}
	return out, nil
}

// LocalKeys gives the keys of users of this server as another server may see them. Users of other servers are left out.
func (s *Service) LocalKeys(ctx context.Context, q Query) (*Keys, error) {
	users := make([]string, 0, len(q))
	for user := range q {
		if s.local(user) {
			users = append(users, user)
		}
	}
	slices.Sort(users)
	keys, _, err := s.localKeys(ctx, "", users, q)
	return keys, err
}

func (s *Service) localKeys(ctx context.Context, viewer string, users []string, q Query) (keys *Keys, userSigning json.RawMessage, err error) {
	keys = &Keys{DeviceKeys: map[string]map[string]json.RawMessage{}, MasterKeys: map[string]json.RawMessage{}, SelfSigningKeys: map[string]json.RawMessage{}}
	devices, err := s.store.DeviceKeysOf(ctx, users)
	if err != nil {
		return nil, nil, err
	}
	crossSigning, err := s.store.CrossSigningKeysOf(ctx, users)
	if err != nil {
		return nil, nil, err
	}
	made, err := s.store.KeySignaturesOn(ctx, users, viewer)
	if err != nil {
		return nil, nil, err
	}
	type key struct{ user, id string }
	on := map[key]signatures{}
	for _, m := range made {
		k := key{m.TargetUser, m.TargetKey}
		if on[k] == nil {
			on[k] = signatures{}
		}
		if on[k][m.SignerUser] == nil {
			on[k][m.SignerUser] = map[string]string{}
		}
		on[k][m.SignerUser][m.SignerKey] = m.Signature
	}
	for _, user := range users {
		keys.DeviceKeys[user] = map[string]json.RawMessage{}
	}
	for _, d := range devices {
		if wanted := q[d.User]; len(wanted) > 0 && !slices.Contains(wanted, d.Device) {
			continue
		}
		keys.DeviceKeys[d.User][d.Device] = withSignatures(d.JSON, on[key{d.User, d.Device}], d.Name)
	}
	for _, c := range crossSigning {
		k := withSignatures(c.JSON, on[key{c.User, c.Public}], "")
		switch {
		case c.Usage == "master":
			keys.MasterKeys[c.User] = k
		case c.Usage == "self_signing":
			keys.SelfSigningKeys[c.User] = k
		case c.Usage == "user_signing" && c.User == viewer:
			userSigning = k
		}
	}
	return keys, userSigning, nil
}

// lookUpEach is up to how many changed users are looked up one by one, before everybody who shares a room with the viewer is listed.
const lookUpEach = 16

// DeviceListsChanged gives the users who share a room with viewer, or are viewer, and whose devices or keys changed with
// from < position <= to, where viewer can see the change. Only the newest change of a user counts: who changed again after to
// comes with a later call.
func (s *Service) DeviceListsChanged(ctx context.Context, viewer string, from, to int64) ([]string, error) {
	changed, err := s.store.DeviceListChanges(ctx, viewer, from, to)
	if err != nil || len(changed) == 0 {
		return nil, err
	}
	shares := func(user string) (bool, error) { return s.rooms.ShareRoom(ctx, viewer, user) }
	if len(changed) > lookUpEach {
		shared, err := s.rooms.SharedUsers(ctx, viewer)
		if err != nil {
			return nil, err
		}
		shares = func(user string) (bool, error) { _, ok := shared[user]; return ok, nil }
	}
	out := changed[:0]
	for _, user := range changed {
		ok := user == viewer
		if !ok {
			if ok, err = shares(user); err != nil {
				return nil, err
			}
		}
		if ok {
			out = append(out, user)
		}
	}
	return out, nil
}
