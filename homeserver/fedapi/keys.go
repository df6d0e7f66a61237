// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"encoding/json"

	"github.com/trunkboard/trunkboard/signalling"
)

// maxQueried is how many servers one request to the notary may ask about.
const maxQueried = 100

// routesKeys: "Retrieving server keys", "Server implementation".
func (a *API) routesKeys() {
	a.route("GET /_matrix/key/v2/server", Open, 0, func(r *Request) (any, error) {
		b, err := a.Federation.Keys.Own(r.Context())
		return Raw(b), err
	})
	a.route("GET /_matrix/key/v2/server/{key}", Open, 0, func(r *Request) (any, error) { // of before v1.6: asks for a key, gets them all
		b, err := a.Federation.Keys.Own(r.Context())
		return Raw(b), err
	})
	a.route("GET /_matrix/key/v2/query/{server}", Open, 0, func(r *Request) (any, error) {
		minimum, err := r.IntParam("minimum_valid_until_ts", 0, 0, 1<<53-1)
		if err != nil {
			return nil, err
		}
		return a.notary(r, map[string]int64{r.PathValue("server"): minimum})
	})
	a.route("POST /_matrix/key/v2/query", Open, maxBody, func(r *Request) (any, error) {
		var in struct {
			Servers map[string]map[string]struct {
				Minimum int64 `json:"minimum_valid_until_ts"`
			} `json:"server_keys"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		want := map[string]int64{}
		for server, keys := range in.Servers {
			want[server] = 0
			for _, k := range keys {
				want[server] = max(want[server], k.Minimum)
			}
		}
		return a.notary(r, want)
	})
	a.route("GET /_matrix/federation/v1/version", Open, 0, func(*Request) (any, error) {
		return map[string]any{"server": map[string]string{"name": "Trunkboard", "version": a.Version}}, nil
	})
}

// notary answers what it knows; servers of which nothing is known are left out.
func (a *API) notary(r *Request, want map[string]int64) (any, error) {
	if len(want) > maxQueried {
		return nil, signalling.InvalidParam("at most %d servers can be asked about at once", maxQueried)
	}
	out := []json.RawMessage{}
	for server, minimum := range want {
		doc, err := a.Federation.Keys.Query(r.Context(), server, minimum)
		if err != nil {
			return nil, err
		}
		if doc != nil {
			out = append(out, doc)
		}
	}
	return map[string]any{"server_keys": out}, nil
}
