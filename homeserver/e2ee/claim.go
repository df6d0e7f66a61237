// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const claimsPerWrite = 64 // so that a large claim lets others in between

// Claims are the keys that somebody asks for: user -> device -> algorithm.
type Claims map[string]map[string]string

// DecodeClaims reads the body of /keys/claim. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func DecodeClaims(body []byte) (Claims, error) {
	var raw struct {
		OneTimeKeys *Claims `json:"one_time_keys"`
	}
	if err := decode(body, &raw, "one_time_keys maps user ids to device ids to the name of an algorithm"); err != nil {
		return nil, err
	}
	if raw.OneTimeKeys == nil {
		return nil, signalling.BadJSON("one_time_keys is missing")
	}
	n := 0
	for user, devices := range *raw.OneTimeKeys {
		if err := checkUser(user); err != nil {
			return nil, err
		}
		for id, algorithm := range devices {
			if err := errors.Join(checkID("a device id", id), checkID("the name of an algorithm", algorithm)); err != nil {
				return nil, err
			}
		}
		n += len(devices)
	}
	if n > MaxClaims {
		return nil, signalling.TooLarge("%d keys may be claimed at once", MaxClaims)
	}
	return *raw.OneTimeKeys, nil
}

// ClaimedKeys answers /keys/claim: user -> device -> "algorithm:id" -> key.
type ClaimedKeys struct {
	OneTimeKeys map[string]map[string]map[string]json.RawMessage `json:"one_time_keys"`
	Failures    map[string]Failure                               `json:"failures"`
}

// Claim hands out one one-time key, or the fallback key, of each device. Users, devices and algorithms without a key are left out.
func (s *Service) Claim(ctx context.Context, claims Claims) (*ClaimedKeys, error) {
	type claim struct {
		device
		algorithm string
	}
	var list []claim
	remote := map[string]map[string]map[string]string{}
	for user, devices := range claims {
		if server := event.ServerOf(user); server != s.server {
			if remote[server] == nil {
				remote[server] = map[string]map[string]string{}
			}
			remote[server][user] = devices
			continue
		}
		for id, algorithm := range devices {
			list = append(list, claim{device{user, id}, algorithm})
		}
	}
	slices.SortFunc(list, func(a, b claim) int {
		if c := strings.Compare(a.user, b.user); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	out := &ClaimedKeys{OneTimeKeys: map[string]map[string]map[string]json.RawMessage{}, Failures: map[string]Failure{}}
	for part := range slices.Chunk(list, claimsPerWrite) {
		devices := make([]device, len(part))
		for i, c := range part {
			devices[i] = c.device
		}
		type got struct {
			key      storage.OneTimeKey
			fallback bool
			ok       bool
		}
		var keys []got
		s.counts.begin(devices...)
		err := s.write(ctx, func(tx *storage.Tx) (refused, err error) {
			keys = make([]got, len(part))
			pos, err := tx.NextPos()
			if err != nil {
				return nil, err
			}
			for i, c := range part {
				k, fallback, err := tx.ClaimKey(c.user, c.id, c.algorithm)
				if errors.Is(err, storage.ErrNotFound) {
					continue
				}
				if err != nil {
					return nil, err
				}
				keys[i] = got{k, fallback, true}
				tx.Note(storage.Note{Pos: pos, Kind: storage.NoteKeyCounts, User: c.user, Device: c.id})
			}
			return nil, nil
		}, func(ok bool) {
			i := -1
			s.counts.end(func(_ device, before *keyCounts) *keyCounts {
				i++
				if !ok || before == nil || !keys[i].ok {
					return before
				}
				return before.taken(part[i].algorithm, keys[i].fallback)
			}, devices...)
		})
		if err != nil {
			return nil, err
		}
		for i, c := range part {
			if !keys[i].ok {
				continue
			}
			byDevice := out.OneTimeKeys[c.user]
			if byDevice == nil {
				byDevice = map[string]map[string]json.RawMessage{}
				out.OneTimeKeys[c.user] = byDevice
			}
			k := keys[i].key
			byDevice[c.id] = map[string]json.RawMessage{k.Algorithm + ":" + k.ID: json.RawMessage(k.JSON)}
		}
	}
	s.fromRemote(ctx, remote, out)
	return out, nil
}

func (s *Service) fromRemote(ctx context.Context, remote map[string]map[string]map[string]string, out *ClaimedKeys) {
	asked := askAll(ctx, remote, s.remote != nil, func(ctx context.Context, server string, claims map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
		return s.remote.ClaimKeys(ctx, server, claims)
	})
	for server, a := range asked {
		if a.err != nil {
			out.Failures[server] = s.failure(server, a.err)
			continue
		}
		for user, devices := range a.answer {
			if _, ok := remote[server][user]; ok { // a server speaks for its own users, and for those it was asked for
				out.OneTimeKeys[user] = devices
			}
		}
	}
}
